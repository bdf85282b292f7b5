// Tests of changed options: no event is lost while one stream replaces another.
import assert from "node:assert/strict";
import { test } from "node:test";
import { apps, publishNumber, serveBuild, upTo } from "./apps.js";
import { eventually, hasRow, isOpen, startBrowser, startDemo } from "./support.js";

const [page, react] = apps;

/**
 * Holds back the requests for streams. `waiting` tells their addresses, and `release` sends them.
 */
async function holdStreams(tab) {
  const held = [];
  const pattern = /\/events\?/;
  await tab.route(pattern, (route) => held.push(route));
  return {
    waiting: (count) => eventually(`${count} requests wait`, () => held.length >= count && held.map((route) => route.request().url())),
    release: async () => {
      await tab.unroute(pattern);
      await Promise.all(held.map((route) => route.continue().catch(() => {})));
    },
  };
}

const clientId = (tab) => tab.textContent("#client-id");

for (const by of ["fetch", "native"]) {
  const visit = (t, context, url) => page.visit(t, context, url, `user=ann&session=s1&by=${by}`);

  test(`other types lose no event (${by})`, async (t) => {
    const demo = await startDemo(t);
    const tab = await visit(t, await (await startBrowser(t)).newContext(), demo.url);
    const id = await clientId(tab);
    let last = 0;
    for (const change of ["#filter-alert", "#filter-notification", "#filter-upload"]) {
      await publishNumber(demo, last += 1);
      await page.has(tab, last);
      const held = await holdStreams(tab);
      await tab.check(change);
      await tab.click("#connect");
      await held.waiting(1);
      await publishNumber(demo, last += 1);
      await held.release();
      await page.has(tab, last);
      await isOpen(tab);
    }
    assert.deepEqual(await page.numbers(tab), upTo(last));
    assert.deepEqual(await page.gaps(tab), []);
    assert.equal(await tab.textContent("#resumed"), "yes");
    assert.equal(await clientId(tab), id);
  });

  test(`disconnecting and connecting loses no event (${by})`, async (t) => {
    const demo = await startDemo(t);
    const tab = await visit(t, await (await startBrowser(t)).newContext(), demo.url);
    await publishNumber(demo, 1);
    await page.has(tab, 1);
    await tab.click("#disconnect");
    await demo.clients(0);
    await publishNumber(demo, 2);
    await tab.click("#connect");
    await page.has(tab, 2);
    assert.deepEqual(await page.numbers(tab), [1, 2]);
    assert.deepEqual(await page.gaps(tab), []);
  });

  test(`a topic joined while connecting is joined (${by})`, async (t) => {
    const demo = await startDemo(t);
    const tab = await visit(t, await (await startBrowser(t)).newContext(), demo.url);
    const held = await holdStreams(tab);
    await tab.check("#filter-alert");
    await tab.click("#connect");
    const [url] = await held.waiting(1);
    assert.ok(!url.includes("topics"), url);
    await tab.check("#topic-news");
    await held.release();
    await eventually("the stream has the topic", async () => (await demo.post("custom", { event: "alert", data: { level: "info", message: "7" }, to: { kind: "topic", name: "news" } })).matched === 1);
    await eventually("the topic's event", async () => (await page.numbers(tab)).includes(7));
  });

  test(`a joined topic survives a lost connection (${by})`, async (t) => {
    const demo = await startDemo(t);
    const tab = await visit(t, await (await startBrowser(t)).newContext(), demo.url);
    await tab.check("#topic-news");
    await eventually("a receipt", async () => (await tab.textContent("#topics-receipt")).includes("joined news"));
    const news = (message) => demo.post("custom", { event: "alert", data: { level: "info", message }, to: { kind: "topic", name: "news" } });
    await news("1");
    await page.has(tab, 1);
    await demo.post("kick", { user: "ann" });
    await hasRow(tab, "hub:end", "kicked");
    await news("2");
    await page.has(tab, 2);
    assert.deepEqual(await page.numbers(tab), [1, 2]);
  });
}

test("another user starts without the position", async (t) => {
  const demo = await startDemo(t);
  const tab = await page.visit(t, await (await startBrowser(t)).newContext(), demo.url, "user=ann&session=s1");
  await publishNumber(demo, 1);
  await page.has(tab, 1);
  const requests = [];
  tab.on("request", (request) => request.url().includes("/events?") && requests.push([request.url(), request.headers()["last-event-id"]]));
  await tab.fill("#user", "bob");
  await tab.click("#connect");
  await eventually("a request", () => requests.length === 1);
  assert.ok(requests[0][0].includes("user=bob") && !requests[0][0].includes("client="), requests[0][0]);
  assert.equal(requests[0][1], undefined);
});

test("shared topics move the tab between streams", async (t) => {
  const demo = await startDemo(t);
  const context = await (await startBrowser(t)).newContext();
  const query = "user=ann&session=s1&by=shared";
  const first = await page.visit(t, context, demo.url, query);
  const second = await page.visit(t, context, demo.url, query);
  await demo.clients(1);
  await publishNumber(demo, 1);
  for (const tab of [first, second]) await page.has(tab, 1);
  await second.bringToFront();
  await second.check("#topic-news");
  await demo.clients(2);
  await isOpen(second);
  await demo.post("custom", { event: "alert", data: { level: "info", message: "2" }, to: { kind: "topic", name: "news" } });
  await page.has(second, 2);
  // The stream reconnects with its topics, without the other tab.
  await demo.post("kick", { user: "ann" });
  await hasRow(second, "hub:end", "kicked");
  await demo.post("custom", { event: "alert", data: { level: "info", message: "3" }, to: { kind: "topic", name: "news" } });
  await page.has(second, 3);
  assert.deepEqual(await page.numbers(second), [1, 2, 3]);
  await publishNumber(demo, 4);
  await first.bringToFront();
  await page.has(first, 2);
  assert.deepEqual(await page.numbers(first), [1, 4]);
  // Back to the first stream. The tab that holds it repeats the events that the second tab missed.
  await second.bringToFront();
  await page.has(second, 4);
  const held = await holdStreams(second);
  await second.uncheck("#topic-news");
  await demo.clients(1);
  await publishNumber(demo, 5);
  await page.has(second, 5);
  await held.release();
  assert.deepEqual(await page.numbers(second), [1, 2, 3, 4, 5]);
  assert.deepEqual(await page.gaps(second), []);
});

test("topics that change quickly end as selected", async (t) => {
  const demo = await startDemo(t);
  const tab = await page.visit(t, await (await startBrowser(t)).newContext(), demo.url, "user=ann");
  const reached = async (topic) => (await demo.post("custom", { event: "note", data: 1, to: { kind: "topic", name: topic } })).matched;
  await tab.evaluate(() => {
    const [news, orders] = ["topic-news", "topic-orders"].map((id) => document.getElementById(id));
    for (let n = 0; n < 3; n += 1) news.click();
    for (let n = 0; n < 4; n += 1) orders.click();
  });
  await eventually("news is joined", async () => (await reached("news")) === 1);
  await eventually("orders is left", async () => (await reached("orders")) === 0 && (await tab.textContent("#topics-receipt")).includes("left orders"));
  assert.equal(await reached("news"), 1);
});

test("the app's other types lose no event", async (t) => {
  const demo = await startDemo(t, ...serveBuild());
  const tab = await react.visit(t, await (await startBrowser(t)).newContext(), demo.url, "user=ann");
  let last = 0;
  for (const label of ["text=Alerts only", "text=Alerts only", "text=One stream for all tabs", "text=Alerts only"]) {
    await publishNumber(demo, last += 1);
    await react.has(tab, last);
    const held = await holdStreams(tab);
    await tab.click(label);
    await held.waiting(1);
    await publishNumber(demo, last += 1);
    await held.release();
    await react.has(tab, last);
  }
  // Off, and on later.
  await tab.click("text=Enabled");
  await demo.clients(0);
  await publishNumber(demo, last += 1);
  await tab.click("text=Enabled");
  await react.has(tab, last);
  assert.deepEqual(await react.numbers(tab), upTo(last));
  assert.deepEqual(await react.gaps(tab), []);
});

test("frames that do not come delay no drawing", async (t) => {
  const demo = await startDemo(t);
  const tab = await page.visit(t, await (await startBrowser(t)).newContext(), demo.url, "user=ann");
  // A frame that is requested before the page is hidden does not come either.
  await tab.evaluate(() => { window.requestAnimationFrame = () => 0; });
  await publishNumber(demo, 1);
  await page.has(tab, 1);
  await tab.evaluate(() => Object.defineProperty(document, "hidden", { value: true, configurable: true }));
  await publishNumber(demo, 2);
  await page.has(tab, 2);
});
