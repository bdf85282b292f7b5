// The browser reports that it is offline. The report may be wrong: it must only delay retries.
import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeBrowser, OPEN, frame, opened as openedClient, settle, start as startClient, told } from "./support.js";

/** A browser whose random delays are long. */
const browser = () => Object.assign(new FakeBrowser(), { chance: 0.9 });
const start = () => startClient({ browser: browser() });
const opened = () => openedClient({ browser: browser() });

test("offline: the next request waits a minute, or for online", async () => {
  const { browser, client, states } = await opened();
  await browser.pass(2000);
  browser.goOffline();
  await browser.request.send(frame("a", "1", "7-1"));
  assert.equal(client.status.state, "open", "a live stream stays open");
  browser.request.controller.error(new TypeError("network error"));
  await settle();
  assert.equal(states.at(-1), "retrying offline");
  const wait = client.status.retryAt - browser.time;
  assert.ok(wait >= 60_000 && wait <= 300_000, `${wait} ms`);
  await browser.pass(wait - 1);
  assert.equal(browser.requests.length, 1);
  browser.goOnline();
  await browser.pass(0);
  assert.equal(browser.requests.length, 2);
  assert.equal(browser.request.headers.get("last-event-id"), "7-1");
  await browser.request.stream(OPEN);
  assert.deepEqual(states, ["connecting", "open", "retrying offline", "connecting offline", "open"]);
});

test("going offline stretches a pending retry", async () => {
  const { browser, states } = await start();
  browser.request.fail();
  await settle();
  assert.equal(states.at(-1), "retrying network no route");
  browser.goOffline();
  assert.equal(states.at(-1), "retrying offline");
  await browser.pass(59_999);
  assert.equal(browser.requests.length, 1);
  browser.goOnline();
  await browser.pass(0);
  assert.equal(browser.requests.length, 2);
});

test("offline does not change a time the server named", async () => {
  const { browser, states } = await opened();
  await browser.request.send(told("hub:end", "drained", 4000));
  browser.goOffline();
  assert.equal(states.at(-1), "retrying hub:end drained");
  await browser.pass(6000);
  assert.equal(browser.requests.length, 2);
});

test("a flapping network causes one request per second", async () => {
  const { browser } = await start();
  browser.request.fail();
  for (let flap = 0; flap < 300; flap += 1) {
    browser.goOffline();
    await browser.pass(5);
    browser.goOnline();
    await browser.pass(5);
    browser.request.fail();
  }
  assert.ok(browser.requests.length <= 4, `${browser.requests.length} requests in 3 seconds`);
  assert.ok(browser.requests.length >= 3);
});

test("a request that hangs across offline is repeated", async () => {
  const { browser, states } = await start();
  await browser.pass(2000);
  browser.goOffline();
  browser.goOnline();
  await browser.pass(0);
  assert.equal(browser.requests.length, 2);
  assert.equal(browser.requests[0].isCancelled, true);
  assert.equal(states.at(-1), "connecting offline");
});

test("a shown page retries although offline", async () => {
  const { browser, states } = await start();
  browser.goOffline();
  browser.request.fail();
  await browser.pass(5000);
  assert.equal(states.at(-1), "retrying offline");
  browser.document.tell("visibilitychange");
  await browser.pass(0);
  assert.equal(browser.requests.length, 2);
});

test("close and reconnect work offline", async () => {
  const { browser, client, states } = await opened();
  browser.goOffline();
  await browser.request.end();
  await browser.pass(2000);
  client.reconnect();
  await browser.pass(0);
  assert.equal(browser.requests.length, 2);
  client.close();
  assert.equal(states.at(-1), "closed close");
  assert.equal(browser.timers, 0);
  browser.goOnline();
  await browser.pass(10_000);
  assert.equal(browser.requests.length, 2);
});

test("a browser that always reports offline is still reconnected", async () => {
  const { browser, client, states } = await opened();
  browser.isOffline = true;
  for (let round = 0; round < 5; round += 1) {
    await browser.request.end();
    assert.equal(states.at(-1), "retrying offline");
    const wait = client.status.retryAt - browser.time;
    assert.ok(wait >= 60_000 && wait <= 300_000, `${wait} ms`);
    await browser.pass(wait);
    assert.equal(browser.requests.length, round + 2);
    await browser.request.stream(OPEN);
    assert.equal(states.at(-1), "open");
  }
});

test("offline retries grow from one to five minutes", async () => {
  const { browser, client } = await start();
  browser.isOffline = true;
  const waits = [];
  for (let round = 0; round < 6; round += 1) {
    browser.request.fail();
    await settle();
    waits.push(client.status.retryAt - browser.time);
    await browser.pass(waits.at(-1));
  }
  assert.deepEqual(waits, [60_900, 121_800, 243_600, 300_000, 300_000, 300_000]);
});

test("offline events without online do not postpone a retry", async () => {
  const { browser } = await start();
  browser.request.fail();
  await settle();
  browser.isOffline = true;
  for (let at = 0; at < 300; at += 10) {
    browser.window.tell("offline");
    await browser.pass(10_000);
  }
  assert.ok(browser.requests.length > 1);
});

test("a longer delay that the server asked for is kept offline", async () => {
  const { browser, client } = await start();
  browser.isOffline = true;
  await browser.request.stream("retry: 600000\n\n");
  await browser.request.end();
  assert.equal(client.status.retryAt - browser.time, 600_900);
});
