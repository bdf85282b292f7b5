// A proxy that accepts streams and holds back all bytes.
import assert from "node:assert/strict";
import { test } from "node:test";
import { OPEN, frame, start } from "./support.js";

/** Answers `rounds` requests with a head and no byte, and waits until the client gives each up. */
async function holdBack({ browser, client }, rounds) {
  for (let round = 0; round < rounds; round += 1) {
    await browser.request.stream();
    await browser.pass(45_000);
    await browser.pass(client.status.retryAt - browser.time);
  }
}

test("three streams without a byte are reported, a fourth is kept", async () => {
  const all = await start();
  const { browser, client, states } = all;
  await holdBack(all, 3);
  assert.deepEqual(states, [
    "connecting", "open no-data", "retrying silent",
    "connecting silent", "open no-data", "retrying silent",
    "connecting silent", "open no-data", "retrying buffered",
    "connecting buffered",
  ]);
  await browser.request.stream();
  await browser.pass(3_600_000);
  assert.equal(states.at(-1), "open buffered");
  assert.equal(browser.requests.length, 4);
  await browser.request.send(frame("a", "1", "7-1"));
  assert.equal(states.at(-1), "open");
  assert.equal(client.lastEventId, "7-1");
});

test("a byte resets the count", async () => {
  const all = await start();
  const { browser, states } = all;
  await holdBack(all, 2);
  await browser.request.stream("retry: 1000\n\n");
  await browser.request.end();
  await browser.pass(2000);
  await holdBack(all, 2);
  assert.equal(states.includes("retrying buffered"), false);
});

test("streams that end without a byte are reported", async () => {
  const { browser, client, states } = await start();
  for (let round = 0; round < 3; round += 1) {
    await browser.request.stream();
    await browser.request.end();
    await browser.pass(client.status.retryAt - browser.time);
  }
  assert.equal(states.at(-1), "connecting buffered");
});

test("shortStream asks for short streams, and their data arrives", async () => {
  const all = await start({ url: "/events?user=ann#x", shortStream: "lifetime=5" });
  const { browser, client, states } = all;
  const seen = [];
  client.on("a", ({ data }) => seen.push(data));
  await holdBack(all, 3);
  assert.deepEqual(browser.requests.map(({ url }) => url), [...Array(3).fill("/events?user=ann#x"), "/events?user=ann&lifetime=5#x"]);
  for (let round = 1; round <= 20; round += 1) {
    // The proxy passes the stream on when it ends.
    await browser.pass(5000);
    await browser.request.stream(OPEN + frame("a", String(round), `7-${round}`));
    assert.equal(states.at(-1), "open");
    await browser.request.end();
    // Such an end is no failure: the delay does not grow.
    assert.ok(client.status.retryAt - browser.time <= 4000);
    await browser.pass(client.status.retryAt - browser.time);
    assert.equal(browser.request.url, "/events?user=ann&lifetime=5#x");
    assert.equal(browser.request.headers.get("last-event-id"), `7-${round}`);
  }
  assert.deepEqual(seen.map(Number), Array.from({ length: 20 }, (_, at) => at + 1));
});

test("a short stream without a byte is given up", async () => {
  const all = await start({ shortStream: "lifetime=5" });
  await holdBack(all, 6);
  assert.equal(all.states.at(-1), "connecting buffered");
  assert.equal(all.browser.requests.length, 7);
});

test("open() starts with long streams again", async () => {
  const all = await start({ shortStream: "lifetime=5" });
  await holdBack(all, 3);
  all.client.close();
  all.client.open();
  await all.browser.pass(1000);
  assert.equal(all.browser.request.url, "/events");
});

test("requests without an answer are not called open", async () => {
  const { browser, states } = await start();
  for (let round = 0; round < 6; round += 1) await browser.pass(80_000);
  assert.ok(browser.requests.length >= 4);
  assert.equal(states.some((state) => state.startsWith("open")), false);
});
