// Shared streams in Chromium: tabs of the React app, and tabs with nothing but the client.
import assert from "node:assert/strict";
import { test } from "node:test";
import { apps, publishNumber, serveBuild, upTo } from "./apps.js";
import { eventually, openPage, startBrowser, startDemo } from "./support.js";

const [, react] = apps;

test("closing the leader loses no event", async (t) => {
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
    // More is published while the leader closes.
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

test("an upload reports to the next leader", async (t) => {
  const demo = await startDemo(t, ...serveBuild());
  const browser = await startBrowser(t);
  // If the server has not noticed that the first tab is closed, the client id is in use, and the
  // next leader gets another.
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

test("a tab can turn sharing off", async (t) => {
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

/**
 * Opens a tab with a shared client as `window.client`, in a document without a stream of its own.
 */
async function visit(t, context, url, options = {}) {
  const page = await openPage(t, context, `${url}/tools.js`);
  await page.evaluate(async (options) => {
    const { SharedSSE } = await import("/client/sse-shared.js");
    const client = new SharedSSE("/events?user=ann", { name: "ann", ...options });
    Object.assign(window, { client, seen: [] });
    client.on("alert", (event) => window.seen.push(Number(event.json().message)));
    client.on("hub:gap", (event) => window.seen.push(event.json().reason));
    client.open();
  }, options);
  return page;
}

const isOpen = (page) => eventually("the tab is open", () => page.evaluate(() => window.client.status.state === "open"));
const isLeader = (page) => page.evaluate(() => window.client.isLeader);
const publish = (demo, n) => demo.post("alert", { level: "info", message: String(n) });
const saw = async (page, numbers) => {
  await eventually(`${numbers.length} events`, async () => (await page.evaluate(() => window.seen.length)) >= numbers.length);
  assert.deepEqual(await page.evaluate(() => window.seen), numbers);
};

async function threeTabs(t, options) {
  const demo = await startDemo(t);
  const context = await (await startBrowser(t)).newContext();
  const tabs = [];
  for (let n = 0; n < 3; n += 1) {
    tabs.push(await visit(t, context, demo.url, options));
    await isOpen(tabs[n]);
  }
  await publish(demo, 1);
  for (const tab of tabs) await saw(tab, [1]);
  assert.equal((await demo.stats()).clients, 1);
  assert.equal(await isLeader(tabs[0]), true);
  return { demo, context, tabs };
}

const STALLS = {
  "in a loop": {
    // Ends after 20 seconds: the test cannot reach the page before.
    begin: (page) => page.evaluate(() => setTimeout(() => {
      for (const until = performance.now() + 20_000; performance.now() < until;);
    })),
    end: async () => {},
  },
  "behind alert()": {
    begin: async (page) => {
      const shown = new Promise((done) => page.once("dialog", done));
      await page.evaluate(() => setTimeout(() => alert("is anybody there?")));
      page.dialog = await shown;
    },
    end: (page) => page.dialog.accept(),
  },
};

for (const [how, { begin, end }] of Object.entries(STALLS)) {
  test(`a follower takes over from a leader ${how}`, async (t) => {
    const { demo, context, tabs: [first, second, third] } = await threeTabs(t);
    await begin(first);
    await publish(demo, 2);
    await saw(second, [1, 2]);
    await saw(third, [1, 2]);
    const late = await visit(t, context, demo.url);
    await isOpen(late);
    await publish(demo, 3);
    await saw(late, [3]);
    await end(first);
    await eventually("the old leader follows", async () => !(await isLeader(first)));
    await demo.clients(1);
    await publish(demo, 4);
    for (const tab of [first, second, third]) await saw(tab, [1, 2, 3, 4]);
  });
}

test("a tab that returns gets the events between", async (t) => {
  const { demo, tabs: [, second] } = await threeTabs(t);
  await second.evaluate(() => window.client.close());
  await publish(demo, 2);
  await publish(demo, 3);
  await second.evaluate(() => window.client.open());
  await publish(demo, 4);
  await saw(second, [1, 2, 3, 4]);
});

test("native tabs share named events", async (t) => {
  const { demo, tabs } = await threeTabs(t, { mode: "native" });
  await tabs[0].close();
  await publish(demo, 2);
  for (const tab of tabs.slice(1)) await saw(tab, [1, 2]);
});
