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
    this.send("hub:open", JSON.stringify({ client: "c1", resumed }), "7-0");
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

test("a native stream opens, brings events, and is brought back by the browser", async () => {
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

test("a native stream that was refused is not open in between", async () => {
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

test("a native stream that the browser gave up is closed", async () => {
  const { states, source } = await start();
  source.fail(2);
  assert.deepEqual(states, ["connecting", "closed http"]);
});

test("silence is noticed where heartbeats can be seen, and the stream goes on from its last event", async () => {
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

test("an event called error is an event", async () => {
  const { client, states, source } = await start();
  const seen = [];
  client.on("error", ({ data }) => seen.push(data));
  source.accept();
  source.onerror(Object.assign(new Event("error"), { data: "x" }));
  source.send("error", "x", "7-1");
  assert.deepEqual(seen, ["x"]);
  assert.equal(states.at(-1), "open");
});

test("a native stream hears that events are held up, and says when the browser is offline", async () => {
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
