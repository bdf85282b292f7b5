// Tests of the page in a real browser: its events, and its behavior when connections fail.
import assert from "node:assert/strict";
import { test } from "node:test";
import { eventually, hasRow, history, isOpen, openPage, startBrowser, startDemo, startGuard, startSwallower, staysSmooth } from "./support.js";

const latest = (page, text) => eventually(`the latest event is ${text}`, async () => (await page.textContent("#latest-text")) === text);
const stateIs = (page, state) => eventually(`the page is ${state}`, async () => (await page.getAttribute("#status", "data-state")) === state);
const types = async (page) => (await history(page)).map(([type]) => type);
const received = async (page) => Number((await page.textContent("#received")).replace(/\D/g, ""));

/** Opens a page, and waits for its stream. */
async function visit(t, context, url, query) {
  const page = await openPage(t, context, `${url}/?${query}`);
  await isOpen(page);
  return page;
}

/** Records each state of the page from now on. */
const watchStates = (page) => page.evaluate(() => {
  const pill = document.getElementById("status");
  window.states = [pill.dataset.state];
  new MutationObserver(() => {
    if (window.states.at(-1) !== pill.dataset.state) window.states.push(pill.dataset.state);
  }).observe(pill, { attributes: true, attributeFilter: ["data-state"] });
});

const states = (page) => page.evaluate(() => window.states);

/** Publishes numbered events to everybody. */
async function publish(demo, from, to) {
  for (let n = from; n <= to; n += 1) await demo.post("custom", { event: "number", data: n, to: { kind: "all" } });
}

/** Returns the numbers in the history. */
const numbers = async (page) => (await history(page)).filter(([type]) => type === "number").map(([, text]) => Number(text));

for (const by of ["fetch", "native", "shared"]) {
  test(`events reach their audience and selected types (${by})`, async (t) => {
    const demo = await startDemo(t);
    const browser = await startBrowser(t);
    const [first, second] = [await browser.newContext(), await browser.newContext()];
    const ann = await visit(t, first, demo.url, `user=ann&session=s1&by=${by}`);
    const bob = await visit(t, second, demo.url, `user=bob&session=s2&by=${by}`);

    await ann.fill("#notify-user-name", "bob");
    await ann.fill("#notify-text", "For Bob");
    await ann.click("#notify-user");
    await latest(bob, "For Bob");
    await ann.fill("#notify-text", "For session one");
    await ann.click("#notify-session");
    await latest(ann, "For session one");
    await bob.fill("#notify-text", "For this tab");
    await bob.click("#notify-me");
    await latest(bob, "For this tab");
    await bob.check("#topic-news");
    await hasReceipt(bob, "#topics-receipt", "joined news");
    await ann.fill("#custom-type", "headline");
    await ann.selectOption("#custom-target", "topic:news");
    await ann.click("#custom-send");
    await hasReceipt(ann, "#custom-receipt", "reached 1 client");
    await ann.click("#alert");
    for (const page of [ann, bob]) await latest(page, "Maintenance starts at 22:00");
    const shown = async (page) => (await history(page)).filter(([type]) => !type.startsWith("hub:")).map(([type]) => type);
    assert.deepEqual(await shown(ann), ["notification", "alert"]);
    // A native stream does not receive a type that only another page uses.
    assert.deepEqual(await shown(bob), ["notification", "notification", ...(by === "native" ? [] : ["headline"]), "alert"]);

    await bob.check("#filter-alert");
    await bob.click("#connect");
    await isOpen(bob);
    await demo.clients(2);
    const before = await received(bob);
    await ann.click("#notify-user");
    await ann.click("#alert");
    await eventually("the alert alone", async () => (await received(bob)) === before + 1);
    assert.equal((await history(bob)).at(-1)[0], "alert");
  });
}

const hasReceipt = (page, output, text) => eventually(`a receipt with ${text}`, async () => (await page.textContent(output)).includes(text));

test("a job reports to its tab; presence is live", async (t) => {
  const demo = await startDemo(t);
  const browser = await startBrowser(t);
  const context = await browser.newContext();
  const ann = await visit(t, context, demo.url, "user=ann");
  const bob = await visit(t, context, demo.url, "user=bob");
  const people = (page) => page.$$eval("#people .name", (names) => names.map((name) => name.textContent));
  await eventually("ann sees both", async () => (await people(ann)).join() === "ann (you),bob");
  await ann.bringToFront();
  await ann.click("#job");
  await latest(ann, "report.pdf has finished uploading");
  assert.equal(await ann.textContent("#job-percent"), "100 %");
  assert.ok(!(await types(bob)).includes("upload"));
  await bob.close();
  await eventually("ann sees that bob has left", async () => (await people(ann)).join() === "ann (you)");
});

for (const by of ["fetch", "native", "shared"]) {
  test(`a restarted server causes a reconnect and gap (${by})`, async (t) => {
    const demo = await startDemo(t);
    const browser = await startBrowser(t);
    const page = await visit(t, await browser.newContext(), demo.url, `user=ann&by=${by}`);
    await publish(demo, 1, 2);
    await latest(page, "2").catch(() => {});
    await watchStates(page);
    await demo.kill();
    await stateIs(page, "retrying");
    await demo.start();
    await stateIs(page, "open");
    await eventually("the gap is shown", async () => (await page.textContent("#gap-text")).includes("missed"));
    const seen = await states(page);
    assert.equal(seen[0], "open");
    assert.equal(seen[1], "retrying");
    assert.equal(seen.at(-1), "open");
    await demo.post("alert", { level: "info", message: "Back" });
    await latest(page, "Back");
  });
}

test("a lost connection loses no event and repeats none", async (t) => {
  const demo = await startDemo(t);
  const proxy = await startSwallower(t, demo.port);
  const browser = await startBrowser(t);
  const page = await visit(t, await browser.newContext(), proxy.url, "user=ann&silence=2000");
  await page.fill("#custom-type", "number");
  await publish(demo, 1, 5);
  proxy.cut();
  await publish(demo, 6, 20);
  await eventually("all numbers", async () => (await numbers(page)).length >= 20);
  await publish(demo, 21, 22);
  await eventually("the live ones", async () => (await numbers(page)).length >= 22);
  assert.deepEqual(await numbers(page), Array.from({ length: 22 }, (_, n) => n + 1));
  assert.equal(await page.textContent("#resumed"), "yes");
  assert.ok(!(await types(page)).includes("hub:gap"));
});

test("a proxy that swallows bytes loses no event", async (t) => {
  const demo = await startDemo(t, "--heartbeat", "0.5");
  const proxy = await startSwallower(t, demo.port);
  const browser = await startBrowser(t);
  const page = await visit(t, await browser.newContext(), proxy.url, "user=ann&silence=2000");
  await watchStates(page);
  await publish(demo, 1, 1);
  await eventually("the first", async () => (await numbers(page)).length === 1);
  // Heartbeats keep the stream open for longer than `silence`.
  const heard = Date.now();
  await eventually("a while", () => Date.now() - heard > 3000);
  assert.deepEqual(await states(page), ["open"]);
  proxy.swallow();
  await publish(demo, 2, 3);
  await hasRow(page, "reconnecting", "nothing was heard");
  await eventually("the swallowed events", async () => (await numbers(page)).length === 3);
  assert.deepEqual(await numbers(page), [1, 2, 3]);
});

test("a network that returns causes a reconnect", async (t) => {
  const demo = await startDemo(t);
  const browser = await startBrowser(t);
  const context = await browser.newContext();
  const page = await visit(t, context, demo.url, "user=ann");
  await watchStates(page);
  await context.setOffline(true);
  await publish(demo, 1, 3);
  await context.setOffline(false);
  const began = Date.now();
  await eventually("the events of the meantime", async () => (await numbers(page)).length === 3);
  await stateIs(page, "open");
  t.diagnostic(`${Date.now() - began} ms after the network came back; states: ${await states(page)}`);
  assert.deepEqual(await numbers(page), [1, 2, 3]);
});

test("a refused page connects when there is room", async (t) => {
  const demo = await startDemo(t, "--clients", "1");
  const browser = await startBrowser(t);
  const first = await visit(t, await browser.newContext(), demo.url, "user=ann");
  const second = await openPage(t, await browser.newContext(), `${demo.url}/?user=bob`);
  await hasRow(second, "hub:refused", "full");
  await stateIs(second, "retrying");
  assert.match(await second.textContent("#why"), /refused \(full\), again in \d+ s/);
  await first.close();
  await isOpen(second);
});

test("missed events are shown as a gap", async (t) => {
  const demo = await startDemo(t, "--retain", "50");
  const browser = await startBrowser(t);
  const page = await visit(t, await browser.newContext(), demo.url, "user=ann");
  await page.click("#miss");
  await hasRow(page, "hub:gap", "no longer holds them");
  const rows = await types(page);
  assert.equal(rows.filter((type) => type === "tick").length, 50);
  assert.ok(rows.indexOf("hub:gap") < rows.indexOf("tick"), "before what follows");
});

test("a drained page counts down and reconnects", async (t) => {
  const demo = await startDemo(t);
  const browser = await startBrowser(t);
  const page = await visit(t, await browser.newContext(), demo.url, "user=ann");
  await watchStates(page);
  await page.click("#drain");
  await hasRow(page, "hub:end", "drained");
  await eventually("a countdown", async () => /again in \d+ s/.test(await page.textContent("#why")));
  await isOpen(page);
  await hasRow(page, "hub:gap");
  await page.click("#alert");
  await latest(page, "Maintenance starts at 22:00");
});

test("a kicked user sees the reason and reconnects", async (t) => {
  const demo = await startDemo(t);
  const browser = await startBrowser(t);
  const context = await browser.newContext();
  const ann = await visit(t, context, demo.url, "user=ann");
  const bob = await visit(t, context, demo.url, "user=bob");
  await ann.bringToFront();
  await ann.locator(".person", { hasText: "bob" }).locator("button").click();
  await hasReceipt(ann, "#people-receipt", "ended 1 stream of bob");
  await hasRow(bob, "hub:end", "kicked");
  await isOpen(bob);
  assert.ok(!(await types(ann)).includes("hub:end"));
});

test("a stalled page delays no other page", async (t) => {
  const demo = await startDemo(t, "--retain", "500");
  const browser = await startBrowser(t);
  const context = await browser.newContext();
  const ann = await visit(t, context, demo.url, "user=ann");
  const bob = await visit(t, context, demo.url, "user=bob");
  await bob.check("#filter-alert");
  await bob.click("#connect");
  await isOpen(bob);
  await ann.bringToFront();
  await ann.click("#stall");
  // The sockets and the browser buffer tens of megabytes before the server notices. Only ann
  // receives these events.
  for (let round = 0, unread = 0; unread < 1000; round += 1) {
    assert.ok(round < 20, "it takes 400 MB");
    const { published } = await demo.stats();
    await demo.post("flood", { events: 2000, per_second: 10_000, size: 10_000 });
    await eventually("the round is over", async () => (await demo.stats()).published >= published + 2000);
    const stats = await demo.stats();
    unread = stats.published - stats.delivered;
  }
  await demo.post("alert", { level: "info", message: "Still here" });
  await latest(bob, "Still here");
  assert.ok((await received(ann)) < 2000);
  await ann.bringToFront();
  await ann.click("#stall");
  await latest(ann, "Still here");
  await eventually("the gap is shown", async () => (await ann.textContent("#gap-text")).includes("missed"));
});

test("ten thousand events a second do not freeze the page", async (t) => {
  const demo = await startDemo(t);
  const browser = await startBrowser(t);
  const page = await visit(t, await browser.newContext(), demo.url, "user=ann");
  await staysSmooth(t, page, async (round) => {
    await demo.post("alert", { level: "info", message: `Round ${round}` });
    await latest(page, `Round ${round}`);
    await page.click("#flood");
    await latest(page, "Event 20000 of many");
    assert.equal(await received(page), round * 20_001);
  });
  assert.equal(await page.$$eval("#history > li", (rows) => rows.length), 200);
});

test("a page without frames receives events", async (t) => {
  const demo = await startDemo(t);
  const browser = await startBrowser(t);
  const context = await browser.newContext();
  const page = await visit(t, context, demo.url, "user=ann");
  // A headless browser shows all pages. This page is made hidden, and gets no frames.
  await page.evaluate(() => {
    Object.defineProperty(document, "hidden", { value: true, configurable: true });
    window.requestAnimationFrame = () => 0;
  });
  await publish(demo, 1, 3);
  await eventually("three events", async () => (await received(page)) === 3);
  assert.deepEqual(await numbers(page), [1, 2, 3]);
});

test("a closed page frees its stream at once", async (t) => {
  const demo = await startDemo(t);
  const browser = await startBrowser(t);
  const context = await browser.newContext();
  const page = await visit(t, context, demo.url, "user=ann");
  await page.click("#disconnect");
  await demo.clients(0, 1000);
  await page.click("#connect");
  await isOpen(page);
  await page.close();
  await demo.clients(0, 1000);
});

test("204 closes the stream; 401 renews credentials", async (t) => {
  const demo = await startDemo(t);
  const browser = await startBrowser(t);
  let asked = 0;
  let rule = () => 204;
  const url = await startGuard(t, demo.port, (incoming) => {
    asked += 1;
    return rule(incoming);
  });
  const page = await openPage(t, await browser.newContext(), `${url}/?user=ann`);
  await hasRow(page, "closed", "204");
  await stateIs(page, "closed");
  assert.equal(asked, 1);

  rule = ({ headers }) => (headers.authorization === "Bearer 2" ? undefined : 401);
  const seen = await page.evaluate(async () => {
    const { SSEClient } = await import("sse-hub-client");
    let token = 1;
    const statuses = [];
    const client = new SSEClient("events?user=ann", { headers: () => ({ authorization: `Bearer ${token}` }), renew: () => { token += 1; } });
    await new Promise((done) => {
      client.onStatus(({ state, reason }) => {
        statuses.push([state, reason].filter(Boolean).join(" "));
        if (state === "open") done();
      });
      client.open();
    });
    const seen = [...statuses];
    client.close();
    return seen;
  });
  assert.deepEqual(seen, ["connecting", "connecting unauthorized", "open"]);
});

test("tabs hand over a shared stream without loss", async (t) => {
  const demo = await startDemo(t);
  const browser = await startBrowser(t);
  const context = await browser.newContext();
  const tabs = [];
  for (let n = 0; n < 3; n += 1) tabs.push(await visit(t, context, demo.url, "user=ann&session=s1&by=shared"));
  await demo.clients(1);
  const leads = async (tab) => (await tab.textContent("#holder")) === "this tab, for all";
  await eventually("the first tab leads", async () => {
    const leading = await Promise.all(tabs.map(leads));
    return leading.every((is, n) => is === (n === 0));
  });
  let next = 1;
  while (tabs.length > 1) {
    await publish(demo, next, next + 9);
    // Events are published while the tab closes.
    await Promise.all([publish(demo, next + 10, next + 29), tabs.shift().close()]);
    next += 30;
    for (const tab of tabs) {
      await tab.bringToFront();
      await eventually(`${next - 1} numbers`, async () => (await numbers(tab)).length >= next - 1);
      assert.deepEqual(await numbers(tab), Array.from({ length: next - 1 }, (_, n) => n + 1));
    }
    await demo.clients(1);
    // A page draws its state while the page is shown.
    await tabs[0].bringToFront();
    await eventually("the oldest tab leads", () => leads(tabs[0]));
  }
});

test("another tab takes over from a crashed tab", async (t) => {
  const demo = await startDemo(t);
  const browser = await startBrowser(t);
  const context = await browser.newContext();
  const query = "user=ann&session=s1&by=shared";
  const first = await visit(t, context, demo.url, query);
  const second = await visit(t, context, demo.url, query);
  await publish(demo, 1, 3);
  await eventually("the first three", async () => (await numbers(second)).length === 3);
  await eventually("this tab leads", async () => (await first.textContent("#holder")) === "this tab, for all");
  const session = await context.newCDPSession(first);
  session.send("Page.crash").catch(() => {});
  await publish(demo, 4, 20);
  await second.bringToFront();
  // The first tab may have received some of the events.
  await eventually("the second leads", async () => (await second.textContent("#holder")) === "this tab, for all");
  await publish(demo, 21, 25);
  await eventually("all of them", async () => (await numbers(second)).length >= 25);
  assert.deepEqual(await numbers(second), Array.from({ length: 25 }, (_, n) => n + 1));
});
