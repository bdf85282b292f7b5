// hub:degraded: the hub cannot reach its backplane. The stream stays open; events are delayed.
import assert from "node:assert/strict";
import { test } from "node:test";
import { SSEClient } from "../../sse-client.js";
import { FakeBrowser, OPEN, frame, settle } from "./support.js";

const held = (isDegraded) => `event: hub:degraded\ndata: {"degraded":${isDegraded}}\n\n`;

async function start(...texts) {
  const browser = new FakeBrowser();
  const client = new SSEClient("/events", { environment: browser.environment });
  const states = [];
  client.onStatus(({ state, degraded }) => states.push(degraded ? `${state} degraded` : state));
  client.open();
  await settle();
  await browser.request.stream(...texts);
  return { browser, client, states };
}

test("degraded starts and ends on the open stream", async () => {
  const { browser, client, states } = await start(OPEN);
  assert.equal(client.degraded, false);
  const heard = [];
  client.on("hub:degraded", (event) => heard.push([event.json().degraded, client.degraded]));
  await browser.request.send(held(true));
  assert.equal(client.degraded, true);
  await browser.request.send(frame("a", "1", "7-1"));
  await browser.request.send(":\n");
  assert.equal(client.degraded, true, "other bytes do not end it");
  await browser.request.send(held(false));
  assert.deepEqual(heard, [[true, true], [false, false]]);
  assert.deepEqual(states, ["connecting", "open", "open degraded", "open"]);
  assert.equal(client.status.client, "c1");
  assert.equal(client.lastEventId, "7-1", "the report moves no position");
});

test("a repeated report changes nothing", async () => {
  const { states } = await start(OPEN, held(true), held(true));
  assert.deepEqual(states, ["connecting", "open", "open degraded"]);
});

test("a new stream starts as not degraded", async () => {
  const { browser, client, states } = await start(OPEN, held(true));
  await browser.request.end();
  assert.equal(client.degraded, false, "without a stream nothing is degraded");
  await browser.pass(3000);
  await browser.request.stream(OPEN + held(true));
  assert.equal(client.degraded, true);
  await browser.request.send(OPEN);
  assert.equal(client.degraded, false);
  assert.deepEqual(states, ["connecting", "open", "open degraded", "retrying", "connecting", "open", "open degraded", "open"]);
});

test("malformed data ends degraded", async () => {
  const { browser, client } = await start(OPEN, held(true));
  await browser.request.send("event: hub:degraded\ndata: {\n\n");
  assert.equal(client.degraded, false);
});

test("closing when the stream opens is final", async () => {
  const { browser, client, states } = await start();
  client.reconnect();
  await browser.pass(1000);
  client.onStatus(({ state }) => state === "open" && client.close());
  states.length = 0;
  await browser.request.stream(held(true));
  assert.deepEqual(states, ["open", "closed"]);
});

test("a stream that starts with the report is open", async () => {
  const { client, states } = await start(held(true));
  assert.equal(client.status.state, "open");
  assert.deepEqual(states, ["connecting", "open", "open degraded"]);
});
