// The React app in a real browser, as the demo serves its build.
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { eventually, faults, openPage, shot, startBrowser, startDemo } from "./support.js";

const build = join(dirname(fileURLToPath(import.meta.url)), "../../../react/dist");

async function start(t, ...args) {
  if (!existsSync(join(build, "index.html"))) throw new Error("examples/react is not built: `npm ci && npm run build` there");
  const demo = await startDemo(t, "--web", build, ...args);
  return { demo, browser: await startBrowser(t) };
}

async function visit(t, context, demo, user) {
  const page = await openPage(t, context, `${demo.url}/app/?user=${user}`);
  await stateIs(page, "open");
  return page;
}

const stateIs = (page, state) => eventually(`the app is ${state}`, async () => (await page.getAttribute(".status", "data-state")) === state);
const latest = (page, text) => eventually(`the latest is ${text}`, async () => (await page.textContent("#latest-text")) === text);

for (const colorScheme of ["light", "dark"]) {
  test(`the app shows what comes, is whole and accessible, ${colorScheme}`, async (t) => {
    const { demo, browser } = await start(t);
    const context = await browser.newContext({ colorScheme, viewport: { width: 800, height: 900 }, reducedMotion: "reduce" });
    const page = await visit(t, context, demo, "ann");
    await page.click("text=Notify ann");
    await latest(page, "Hello ann");
    await page.click("text=Alert everybody");
    await latest(page, "warning: Maintenance starts at 22:00");
    await page.click("text=Start upload job");
    await latest(page, "report.pdf has finished uploading");
    await page.screenshot({ path: shot(`react-${colorScheme}.png`) });
    assert.deepEqual(await faults(page), []);
    await page.setViewportSize({ width: 360, height: 740 });
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth), 0, "nothing sticks out");
  });
}

test("events are for whom they are for, and of the types that were chosen", async (t) => {
  const { demo, browser } = await start(t);
  const ann = await visit(t, await browser.newContext(), demo, "ann");
  const bob = await visit(t, await browser.newContext(), demo, "bob");
  await ann.click("text=Notify ann");
  await latest(ann, "Hello ann");
  await bob.check("text=Alerts only");
  await stateIs(bob, "open");
  await demo.clients(2);
  await bob.click("text=Notify bob");
  await ann.click("text=Alert everybody");
  await latest(bob, "warning: Maintenance starts at 22:00");
  assert.equal(await bob.$$eval("#events > li", (rows) => rows.length), 1);
  assert.equal(await ann.$$eval("#events > li", (rows) => rows.length), 2);
});

test("a server that is killed and started again is come back to, and the gap is shown", async (t) => {
  const { demo, browser } = await start(t);
  const page = await visit(t, await browser.newContext(), demo, "ann");
  await demo.kill();
  await stateIs(page, "retrying");
  await eventually("why", async () => (await page.textContent("#error")).includes("network"));
  await demo.start();
  await stateIs(page, "open");
  await eventually("the gap", async () => (await page.textContent("#gap")).includes("missed"));
  assert.equal(await page.$("#error"), null);
});

test("what is unmounted frees its stream on the server within a second", async (t) => {
  const { demo, browser } = await start(t);
  const page = await visit(t, await browser.newContext(), demo, "ann");
  await page.uncheck("text=Enabled");
  await demo.clients(0, 1000);
});

test("a thousand times on and off leaves nothing, here and on the server", async (t) => {
  const { demo, browser } = await start(t);
  const context = await browser.newContext();
  const page = await visit(t, context, demo, "ann");
  const session = await context.newCDPSession(page);
  const heap = async () => {
    await session.send("HeapProfiler.collectGarbage");
    return (await session.send("Runtime.getHeapUsage")).usedSize;
  };
  const toggle = (times) => page.evaluate(async (count) => {
    const box = document.querySelector("input[type=checkbox]");
    for (let n = 0; n < count; n += 1) {
      box.click();
      await new Promise((done) => setTimeout(done, 5));
    }
  }, times);
  await toggle(200);
  const before = await heap();
  await toggle(2000);
  const after = await heap();
  await stateIs(page, "open");
  await demo.clients(1);
  const { opened } = await demo.stats();
  t.diagnostic(`${opened} streams were opened; the heap grew by ${after - before} of ${before} bytes`);
  assert.ok(opened > 500, `${opened} streams`);
  // A client that is kept is some kilobytes, and a thousand of them megabytes.
  assert.ok(after - before < 1_000_000, `${after - before} bytes`);
});

test("ten thousand events a second do not freeze the app", async (t) => {
  const { demo, browser } = await start(t);
  const page = await visit(t, await browser.newContext(), demo, "ann");
  await page.evaluate(() => {
    window.longest = 0;
    let last = performance.now();
    const frame = (now) => {
      window.longest = Math.max(window.longest, now - last);
      last = now;
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  });
  await page.click("text=Flood");
  await latest(page, "Event 20000 of many");
  const longest = await page.evaluate(() => window.longest);
  t.diagnostic(`the longest frame took ${Math.round(longest)} ms`);
  assert.ok(longest < 500, `${longest} ms between two frames`);
  assert.equal(await page.$$eval("#events > li", (rows) => rows.length), 50);
});
