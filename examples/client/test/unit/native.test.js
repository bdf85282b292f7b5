import assert from "node:assert/strict";
import { test } from "node:test";
import { SSEClient } from "../../sse-client.js";
import { FakeBrowser, settle } from "./support.js";

class FakeSource extends EventTarget {
  static CLOSED = 2;
  static made = [];
  readyState = 0;

  constructor(url, init) {
    super();
    Object.assign(this, { url, init });
    FakeSource.made.push(this);
  }

  close() {
    this.readyState = 2;
  }

  send(type, data, lastEventId = "") {
    this.dispatchEvent(Object.assign(new Event(type), { data, lastEventId }));
  }

  accept(resumed = false) {
    this.readyState = 1;
    this.onopen(new Event("open"));
    this.send("hub:open", JSON.stringify({ client: "c1", resumed, heartbeat: 15_000 }), "7-0");
  }

  fail(readyState) {
    this.readyState = readyState;
    this.onerror(new Event("error"));
  }
}

async function start(options) {
  FakeSource.made = [];
  const browser = new FakeBrowser();
  const environment = { ...browser.environment, EventSource: FakeSource };
  const client = new SSEClient("/events", { mode: "native", ...options, environment });
  const states = [];
  client.onStatus(({ state, reason, detail }) => states.push([state, reason, detail].filter(Boolean).join(" ")));
  const seen = [];
  client.on("order", ({ data }) => seen.push(data));
  client.open();
  await settle();
  return { browser, client, states, seen, source: FakeSource.made[0] };
}

test("native: the browser repeats the request itself", async () => {
  const { client, states, seen, source } = await start();
  source.accept();
  source.send("order", "1", "7-1");
  client.on("late", ({ data }) => seen.push(data));
  source.send("late", "2", "7-2");
  source.fail(0);
  source.accept(true);
  assert.deepEqual(seen, ["1", "2"]);
  assert.deepEqual(states, ["connecting", "open", "retrying network", "open"]);
  assert.equal(client.status.resumed, true);
  assert.equal(FakeSource.made.length, 1);
});

test("native: a refused stream is never open", async () => {
  const { browser, states, source } = await start();
  source.readyState = 1;
  source.onopen(new Event("open"));
  source.send("hub:refused", '{"reason":"full"}');
  source.fail(0);
  await browser.pass(1000);
  assert.deepEqual(states, ["connecting", "retrying hub:refused full"]);
  source.accept();
  assert.equal(states.at(-1), "open");
});

test("native: a source that the browser closed is replaced", async () => {
  const { browser, client, states, seen, source } = await start();
  source.accept();
  source.send("order", "1", "7-1");
  source.fail(2);
  assert.equal(states.at(-1), "retrying network");
  await browser.pass(client.status.retryAt - browser.time);
  const next = FakeSource.made[1];
  assert.equal(next.url, "/events?lastEventId=7-1");
  next.accept(true);
  next.send("order", "2", "7-2");
  assert.deepEqual(seen, ["1", "2"]);
  assert.equal(states.at(-1), "open");
});

test("native: replacing the source backs off", async () => {
  const { browser, client } = await start({ maxBackoff: 5000 });
  browser.chance = 0.5;
  const delays = [];
  for (let failure = 0; failure < 5; failure += 1) {
    FakeSource.made.at(-1).fail(2);
    delays.push(client.status.retryAt - browser.time);
    await browser.pass(delays.at(-1));
  }
  assert.deepEqual(delays, [500, 1000, 2000, 2500, 2500]);
});

test("native: maxRetries closes after so many failures", async () => {
  for (const readyState of [0, 2]) {
    const { browser, states } = await start({ maxRetries: 3 });
    for (let failure = 0; failure < 4; failure += 1) {
      assert.notEqual(states.at(-1), "closed network");
      FakeSource.made.at(-1).fail(readyState);
      await browser.pass(60_000);
    }
    assert.equal(states.at(-1), "closed network");
    assert.equal(FakeSource.made.at(-1).readyState, 2);
  }
});

test("native: reconnect: false closes when the stream ends", async () => {
  for (const readyState of [0, 2]) {
    const { states, source } = await start({ reconnect: false });
    source.accept();
    source.fail(readyState);
    assert.equal(states.at(-1), "closed network");
    assert.equal(source.readyState, 2);
  }
});

test("native: a final hub:end closes the source", async () => {
  const { states, source } = await start();
  source.accept();
  source.send("hub:end", '{"reason":"answered","final":true}');
  assert.equal(states.at(-1), "closed hub:end answered");
  assert.equal(source.readyState, 2);
});

test("native: a source closed without an event is replaced when shown", async () => {
  const { browser, source } = await start();
  source.accept();
  await browser.pass(5000);
  source.readyState = 2;
  browser.document.tell("visibilitychange");
  await browser.pass(1000);
  assert.equal(FakeSource.made.length, 2);
});

test("native: closing on a heartbeat arms no timer", async () => {
  const { browser, client, source } = await start();
  source.accept();
  client.on("hub:heartbeat", () => client.close());
  await browser.pass(15_000);
  source.send("hub:heartbeat", "{}");
  assert.equal(browser.timers, 0);
});

test("native: a quiet source is kept when shown", async () => {
  const { browser, source } = await start();
  source.accept();
  await browser.pass(600_000);
  browser.document.tell("visibilitychange");
  await browser.pass(600_000);
  assert.equal(FakeSource.made.length, 1);
});

test("native: silence is detected by visible heartbeats", async () => {
  const { browser, client, states, source } = await start();
  source.accept();
  await browser.pass(200_000);
  assert.equal(states.at(-1), "open");
  source.send("hub:heartbeat", "{}", "7-1");
  await browser.pass(90_000);
  assert.deepEqual(states.slice(2, 3), ["retrying silent"]);
  assert.equal(source.readyState, 2);
  assert.equal(FakeSource.made[1].url, "/events?lastEventId=7-1");
  FakeSource.made[1].send("order", "1");
  assert.equal(client.lastEventId, "7-1");
});

test("native: an application event named error is delivered", async () => {
  const { client, states, source } = await start();
  const seen = [];
  client.on("error", ({ data }) => seen.push(data));
  source.accept();
  source.onerror(Object.assign(new Event("error"), { data: "x" }));
  source.send("error", "x", "7-1");
  assert.deepEqual(seen, ["x"]);
  assert.equal(states.at(-1), "open");
});

test("native: degraded and offline are reported", async () => {
  const { browser, client, states, source } = await start();
  source.accept();
  source.send("hub:degraded", '{"degraded":true}', "7-0");
  assert.equal(client.degraded, true);
  source.send("order", "1", "7-1");
  assert.equal(client.degraded, true);
  source.send("hub:degraded", '{"degraded":false}', "7-1");
  assert.equal(client.degraded, false);
  browser.isOffline = true;
  source.fail(0);
  assert.equal(states.at(-1), "retrying offline");
});
