// SSEClient in Chromium: navigator.onLine, EventSource, and the back-forward cache.
import assert from "node:assert/strict";
import { test } from "node:test";
import { eventually, openPage, startBrowser, startDemo, startGuard } from "./support.js";

/** A document without a stream of its own. */
const BLANK = "/tools.js";

/** Opens a page with a client as `window.client`, and waits until its stream is open. */
async function visit(t, context, url, options = {}) {
  const page = await openPage(t, context, url + BLANK);
  await page.evaluate(async (options) => {
    const { SSEClient } = await import("/client/sse-client.js");
    const client = new SSEClient("/events?user=ann", options);
    Object.assign(window, { client, seen: [], states: [] });
    client.on("alert", (event) => window.seen.push(Number(event.json().message)));
    client.onStatus(({ state }) => window.states.push(state));
    client.open();
  }, options);
  await isIn(page, "open");
  return page;
}

const state = (page) => page.evaluate(() => window.client.status.state);
const isIn = (page, wanted) => eventually(`the client is ${wanted}`, async () => (await state(page)) === wanted);
const publish = (demo, n) => demo.post("alert", { level: "info", message: String(n) });
const saw = async (page, numbers) => {
  await eventually(`${numbers.length} events`, async () => (await page.evaluate(() => window.seen.length)) >= numbers.length);
  assert.deepEqual(await page.evaluate(() => window.seen), numbers);
};

test("a page that always reports offline reconnects", async (t) => {
  const demo = await startDemo(t);
  const context = await (await startBrowser(t)).newContext();
  await context.addInitScript(() => Object.defineProperty(Navigator.prototype, "onLine", { get: () => false }));
  await context.clock.install();
  const page = await visit(t, context, demo.url);
  await publish(demo, 1);
  await saw(page, [1]);
  await page.evaluate(() => window.stop());
  await eventually("offline", () => page.evaluate(() => window.client.status.reason === "offline"));
  await publish(demo, 2);
  const wait = await page.evaluate(() => window.client.status.retryAt - Date.now());
  assert.ok(wait > 55_000 && wait <= 300_000, `${wait} ms`);
  await context.clock.fastForward(wait);
  await saw(page, [1, 2]);
});

for (const status of [502, 404, 500]) {
  test(`native: a ${status} during reconnecting loses nothing`, async (t) => {
    const demo = await startDemo(t);
    let asked = 0;
    const url = await startGuard(t, demo.port, () => (++asked === 2 ? status : undefined));
    const page = await visit(t, await (await startBrowser(t)).newContext(), url, { mode: "native" });
    await publish(demo, 1);
    await saw(page, [1]);
    // The browser closes the EventSource, and then again by the status.
    await page.evaluate(() => window.stop());
    await publish(demo, 2);
    await saw(page, [1, 2]);
    assert.equal(asked, 3);
  });
}

/** Leaves the page, goes back, and waits until the back-forward cache has restored the page. */
async function leaveAndReturn(page, demo, whileAway = () => {}) {
  await page.evaluate(() => {
    window.wasCached = false;
    addEventListener("pageshow", ({ persisted }) => { window.wasCached = persisted; });
  });
  await page.goto(`${demo.url}/chart.js`);
  await whileAway();
  // A page from the cache does not load again.
  await page.goBack({ waitUntil: "commit" });
  await eventually("the page is back from the cache", () => page.evaluate(() => window.wasCached));
}

// Playwright turns the back-forward cache off.
const cached = { ignoreDefaultArgs: ["--disable-back-forward-cache"] };

for (const mode of ["fetch", "native"]) {
  test(`closed stays closed through the back-forward cache (${mode})`, async (t) => {
    const demo = await startDemo(t);
    const page = await visit(t, await (await startBrowser(t, cached)).newContext(), demo.url, { mode });
    await page.evaluate(() => window.client.close());
    await demo.clients(0);
    await leaveAndReturn(page, demo);
    const { state: is, reason } = await page.evaluate(() => window.client.status);
    assert.deepEqual([is, reason], ["closed", "close"]);
    // The same if the page closes its client on pagehide.
    await page.evaluate(() => {
      addEventListener("pagehide", () => window.client.close());
      window.client.open();
    });
    await isIn(page, "open");
    await leaveAndReturn(page, demo);
    // The server notices the closed connection a little later.
    await demo.clients(0);
    assert.equal(await state(page), "closed");
  });
}

test("an open stream resumes after the back-forward cache", async (t) => {
  const demo = await startDemo(t);
  const page = await visit(t, await (await startBrowser(t, cached)).newContext(), demo.url);
  await publish(demo, 1);
  await saw(page, [1]);
  await leaveAndReturn(page, demo, () => publish(demo, 2));
  await saw(page, [1, 2]);
});
