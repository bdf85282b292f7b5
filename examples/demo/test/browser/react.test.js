// Tests of the React app in a real browser. The demo serves the build.
import assert from "node:assert/strict";
import { test } from "node:test";
import { serveBuild } from "./apps.js";
import { eventually, faults, openPage, shot, startBrowser, startDemo, startGuard, startSwallower, staysSmooth } from "./support.js";

async function start(t, ...args) {
  const demo = await startDemo(t, ...serveBuild(), ...args);
  return { demo, browser: await startBrowser(t) };
}

async function visit(t, context, { url }, user, more = "") {
  const page = await openPage(t, context, `${url}/app/?user=${user}${more}`);
  await stateIs(page, "open");
  return page;
}

const stateIs = (page, state) => eventually(`the app is ${state}`, async () => (await page.getAttribute(".status", "data-state")) === state);
const latest = (page, text) => eventually(`the latest is ${text}`, async () => (await page.textContent("#latest-text")) === text);

for (const colorScheme of ["light", "dark"]) {
  test(`the app shows events, fits and is accessible, ${colorScheme}`, async (t) => {
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
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth), 0, "nothing overflows");
  });
}

test("events reach their audience and selected types", async (t) => {
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

test("a restarted server causes a reconnect and gap", async (t) => {
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

const errorIs = (page, text) => eventually(`the error is ${text}`, async () => (await page.textContent("#error", { timeout: 1000 })).includes(text));
const rows = (page) => page.$$eval("#events > li", (all) => all.map((row) => row.textContent));

test("a lost network and a proxy that swallows bytes lose no event", async (t) => {
  const { demo, browser } = await start(t, "--heartbeat", "0.5");
  const proxy = await startSwallower(t, demo.port);
  const context = await browser.newContext();
  const page = await visit(t, context, proxy, "ann", "&silence=2000");
  const alert = (message) => demo.post("alert", { level: "info", message });
  await alert("one");
  await context.setOffline(true);
  await alert("two");
  await context.setOffline(false);
  await latest(page, "info: two");
  await stateIs(page, "open");
  proxy.swallow();
  await alert("three");
  await errorIs(page, "silent");
  await latest(page, "info: three");
  assert.deepEqual(await rows(page), ["alert info: three", "alert info: two", "alert info: one"]);
});

test("a refused app connects when there is room", async (t) => {
  const { demo, browser } = await start(t, "--clients", "1");
  const first = await visit(t, await browser.newContext(), demo, "ann");
  const second = await openPage(t, await browser.newContext(), `${demo.url}/app/?user=bob`);
  await errorIs(second, "hub:refused: full");
  await first.close();
  await stateIs(second, "open");
});

test("a drained app reconnects; long absence shows a gap", async (t) => {
  const { demo, browser } = await start(t, "--retain", "20");
  const page = await visit(t, await browser.newContext(), demo, "ann");
  await page.click("text=Close");
  await stateIs(page, "closed");
  const { published } = await demo.stats();
  await demo.post("flood", { events: 40, per_second: 10_000, size: 0 });
  await eventually("all are published", async () => (await demo.stats()).published >= published + 40);
  await page.click("text=Reconnect");
  await latest(page, "Event 40 of many");
  assert.match(await page.textContent("#gap"), /^A gap/);
  assert.equal((await rows(page)).length, 20);
  await demo.post("drain", { seconds: 1 });
  await errorIs(page, "hub:end: drained");
  await stateIs(page, "open");
  await eventually("a second gap", async () => (await page.textContent("#gap")).startsWith("2 gaps"));
});

test("204 closes the app's stream for good", async (t) => {
  const { demo, browser } = await start(t);
  let asked = 0;
  const url = await startGuard(t, demo.port, () => {
    asked += 1;
    return 204;
  });
  const page = await openPage(t, await browser.newContext(), `${url}/app/?user=ann`);
  await stateIs(page, "closed");
  await errorIs(page, "http: 204");
  assert.equal(asked, 1);
});

test("enabled off frees the stream at once", async (t) => {
  const { demo, browser } = await start(t);
  const page = await visit(t, await browser.newContext(), demo, "ann");
  await page.uncheck("text=Enabled");
  await demo.clients(0, 1000);
});

test("a thousand toggles of enabled leak nothing", async (t) => {
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
  // A leaked client is some kilobytes: a thousand leaked clients are megabytes.
  assert.ok(after - before < 1_000_000, `${after - before} bytes`);
});

test("ten thousand events a second do not freeze the app", async (t) => {
  const { demo, browser } = await start(t);
  const page = await visit(t, await browser.newContext(), demo, "ann");
  await staysSmooth(t, page, async (round) => {
    await demo.post("alert", { level: "info", message: `Round ${round}` });
    await latest(page, `info: Round ${round}`);
    await page.click("text=Flood");
    await latest(page, "Event 20000 of many");
  });
  assert.equal(await page.$$eval("#events > li", (rows) => rows.length), 50);
});
