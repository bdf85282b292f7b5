// A browser that says it has no network.
import assert from "node:assert/strict";
import { test } from "node:test";
import { SSEClient } from "../../sse-client.js";
import { FakeBrowser, OPEN, frame, settle, told } from "./support.js";

async function start() {
  const browser = new FakeBrowser();
  browser.chance = 0.9;
  const client = new SSEClient("/events", { environment: browser.environment });
  const states = [];
  client.onStatus(({ state, reason, detail }) => states.push([state, reason, detail].filter(Boolean).join(" ")));
  client.open();
  await settle();
  return { browser, client, states };
}

async function opened() {
  const all = await start();
  await all.browser.request.stream(OPEN);
  return all;
}

test("a stream that dies offline is not asked for until the browser is online, and then at once", async () => {
  const { browser, client, states } = await opened();
  await browser.pass(2000);
  browser.goOffline();
  await browser.request.send(frame("a", "1", "7-1"));
  assert.equal(client.status.state, "open", "what it says of itself does not end a stream that lives");
  browser.request.controller.error(new TypeError("network error"));
  await settle();
  assert.equal(states.at(-1), "retrying offline");
  assert.equal(client.status.retryAt, undefined);
  await browser.pass(3_600_000);
  assert.equal(browser.requests.length, 1);
  assert.equal(browser.timers, 0);
  browser.goOnline();
  await browser.pass(0);
  assert.equal(browser.requests.length, 2);
  assert.equal(browser.request.headers.get("last-event-id"), "7-1");
  await browser.request.stream(OPEN);
  assert.deepEqual(states, ["connecting", "open", "retrying offline", "connecting offline", "open"]);
});

test("what was to be tried soon waits for the network, and says so at once", async () => {
  const { browser, states } = await start();
  browser.request.fail();
  await settle();
  assert.equal(states.at(-1), "retrying network no route");
  browser.goOffline();
  assert.equal(states.at(-1), "retrying offline");
  assert.equal(browser.timers, 0);
  await browser.pass(3_600_000);
  assert.equal(browser.requests.length, 1);
  browser.goOnline();
  await browser.pass(0);
  assert.equal(browser.requests.length, 2);
});

test("a time that the server named is kept, and then the network is waited for", async () => {
  const { browser, states } = await opened();
  await browser.request.send(told("hub:end", "drained", 4000));
  browser.goOffline();
  assert.equal(states.at(-1), "retrying hub:end drained");
  await browser.pass(6000);
  assert.equal(states.at(-1), "retrying offline");
  assert.equal(browser.requests.length, 1);
  browser.goOnline();
  await browser.pass(0);
  assert.equal(browser.requests.length, 2);
});

test("a network that comes and goes is not asked more than once a second", async () => {
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

test("a request that hangs while the network changes is made anew", async () => {
  const { browser, states } = await start();
  await browser.pass(2000);
  browser.goOffline();
  browser.goOnline();
  await browser.pass(0);
  assert.equal(browser.requests.length, 2);
  assert.equal(browser.requests[0].isCancelled, true);
  assert.equal(states.at(-1), "connecting offline");
});

test("somebody who looks at the page has it tried, whatever the browser says", async () => {
  const { browser, states } = await start();
  browser.goOffline();
  browser.request.fail();
  await browser.pass(5000);
  assert.equal(states.at(-1), "retrying offline");
  browser.document.tell("visibilitychange");
  await browser.pass(0);
  assert.equal(browser.requests.length, 2);
});

test("one that is closed or asked anew offline obeys", async () => {
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
