// Tests of tabs of the React app that share a stream.
import assert from "node:assert/strict";
import { test } from "node:test";
import { apps, publishNumber, serveBuild, upTo } from "./apps.js";
import { eventually, startBrowser, startDemo } from "./support.js";

const [, react] = apps;

test("tabs hand over a shared stream without loss", async (t) => {
  const demo = await startDemo(t, ...serveBuild());
  const context = await (await startBrowser(t)).newContext();
  const tabs = [];
  for (let n = 0; n < 3; n += 1) tabs.push(await react.visit(t, context, demo.url, "user=ann&share"));
  assert.equal((await demo.stats()).clients, 1);
  let last = 0;
  const publish = async (count) => {
    for (let n = 0; n < count; n += 1) await publishNumber(demo, last += 1);
  };
  while (tabs.length > 1) {
    await publish(5);
    // Events are published while the tab closes.
    await Promise.all([publish(10), tabs.shift().close()]);
    for (const tab of tabs) {
      await tab.bringToFront();
      await react.has(tab, last);
      assert.deepEqual(await react.numbers(tab), upTo(last));
      assert.deepEqual(await react.gaps(tab), []);
    }
    await demo.clients(1);
  }
});

test("an upload outlives the tab that started it", async (t) => {
  const demo = await startDemo(t, ...serveBuild());
  const browser = await startBrowser(t);
  // If a tab takes over before the server notices that the other tab is closed, the client id is in
  // use.
  for (let attempt = 1; ; attempt += 1) {
    const context = await browser.newContext();
    const first = await react.visit(t, context, demo.url, "user=ann&share");
    const second = await react.visit(t, context, demo.url, "user=ann&share");
    await first.bringToFront();
    await first.click("text=Start upload job");
    await eventually("it has begun", async () => (await first.textContent("#latest-text")).includes("uploaded"));
    await first.close();
    await second.bringToFront();
    try {
      await eventually("it is done", async () => (await second.textContent("#latest-text")) === "report.pdf has finished uploading");
    } catch (error) {
      if (attempt === 3) throw error;
      await context.close();
      continue;
    }
    const percents = await second.$$eval("#events > li", (rows) => rows.map((row) => /(\d+) %/.exec(row.textContent)?.[1] ?? "100").map(Number));
    assert.deepEqual(percents.reverse(), Array.from({ length: 26 }, (_, at) => at * 4), "each step, once");
    return;
  }
});

test("a tab that stops sharing has its own stream", async (t) => {
  const demo = await startDemo(t, ...serveBuild());
  const context = await (await startBrowser(t)).newContext();
  const first = await react.visit(t, context, demo.url, "user=ann&share");
  await react.visit(t, context, demo.url, "user=ann&share");
  await first.bringToFront();
  await first.uncheck("text=One stream for all tabs");
  await demo.clients(2);
  await first.check("text=One stream for all tabs");
  await demo.clients(1);
});
