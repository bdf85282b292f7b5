// A leader that lives and does nothing: a follower takes over, and each event is delivered once.
import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeOrigin } from "./origin.js";
import { OPEN, frame, settle } from "./support.js";
import { hubOpen, openTab } from "./tabs.js";

const event = (n) => frame("a", `${n}`, `7-${n}`);

async function threeTabs() {
  const origin = new FakeOrigin();
  const tabs = [openTab(origin), openTab(origin), openTab(origin)];
  await settle();
  await tabs[0].browser.request.stream(OPEN, event(1));
  return { origin, tabs };
}

const leaders = (tabs) => tabs.filter(({ client }) => client.isLeader);

test("a follower takes over from a leader that does nothing", async () => {
  const { origin, tabs: [first, second, third] } = await threeTabs();
  first.own.stall();
  await first.browser.request.send(event(2));
  await origin.pass(10_000);
  const [leader, ...others] = leaders([second, third]);
  assert.deepEqual(others, []);
  assert.equal(leader.browser.request.headers.get("last-event-id"), "7-1");
  await leader.browser.request.stream(hubOpen("7-1", true, "c2"), event(2) + event(3));
  assert.deepEqual([second.seen, third.seen], [["1", "2", "3"], ["1", "2", "3"]]);
  assert.deepEqual(first.seen, ["1"]);
  // It wakes with an event in its socket, follows, and gets the rest.
  await first.own.wake();
  assert.equal(first.client.isLeader, false);
  assert.equal(first.browser.request.isCancelled, true);
  await leader.browser.request.send(event(4));
  for (const { seen, client } of [first, second, third]) {
    assert.deepEqual(seen, ["1", "2", "3", "4"]);
    assert.equal(client.status.client, "c2");
  }
});

for (const source of [0, 1, 2]) {
  test(`each event is delivered once, whatever the old leader reads first (${source})`, async () => {
    const { origin, tabs } = await threeTabs();
    const [first] = tabs;
    first.own.stall();
    await first.browser.request.send(event(2) + event(3));
    await origin.pass(10_000);
    const [leader] = leaders(tabs.slice(1));
    await leader.browser.request.stream(hubOpen("7-1", true, "c2"), event(2));
    await first.own.wake((count) => Math.min(source, count - 1));
    await leader.browser.request.send(event(3));
    await leader.browser.request.send(event(4));
    for (const { seen } of tabs) assert.deepEqual(seen, ["1", "2", "3", "4"]);
    assert.deepEqual(leaders(tabs), [leader]);
  });
}

test("a new tab never stays connecting beside a leader that does nothing", async () => {
  for (const followers of [0, 1]) {
    const origin = new FakeOrigin();
    const first = openTab(origin);
    await settle();
    await first.browser.request.stream(OPEN, event(1));
    if (followers) openTab(origin).own.stall();
    first.own.stall();
    const late = openTab(origin);
    await origin.pass(6000);
    assert.equal(late.client.isLeader, true);
    await late.browser.request.stream(hubOpen("7-1"));
    assert.equal(late.client.status.state, "open");
  }
});

test("a tab with a position takes over before a new tab", async () => {
  const { origin, tabs: [first, second, third] } = await threeTabs();
  first.own.stall();
  await first.browser.request.send(event(2));
  const late = openTab(origin);
  await origin.pass(6000);
  assert.equal(late.client.isLeader, false);
  const [leader] = leaders([second, third]);
  assert.equal(leader.browser.request.headers.get("last-event-id"), "7-1");
  await leader.browser.request.stream(hubOpen("7-1", true), event(2));
  assert.deepEqual(second.seen, ["1", "2"]);
  assert.equal(late.client.status.state, "open");
});

test("a leader that is only quiet keeps the stream", async () => {
  const { origin, tabs } = await threeTabs();
  await origin.pass(30_000, 500);
  assert.deepEqual(tabs.map(({ browser }) => browser.requests.length), [1, 0, 0]);
  assert.equal(tabs[0].client.isLeader, true);
});

test("a leader that stalls for a moment keeps the stream", async () => {
  const { origin, tabs } = await threeTabs();
  for (let round = 0; round < 5; round += 1) {
    tabs[0].own.stall();
    await origin.pass(2000);
    await tabs[0].own.wake();
    await origin.pass(1000);
  }
  assert.deepEqual(tabs.map(({ browser }) => browser.requests.length), [1, 0, 0]);
});

test("a follower that slept reads its messages before it takes over", async () => {
  for (const slept of [5000, 60_000, 3_600_000]) {
    const { origin, tabs } = await threeTabs();
    tabs[2].own.stall();
    await origin.pass(slept, slept / 10);
    await tabs[2].own.wake();
    await origin.pass(4000);
    assert.deepEqual(tabs.map(({ browser }) => browser.requests.length > 1 || browser.requests.length === 1), [true, false, false], `${slept}`);
  }
});

test("the lock goes to a follower that answers", async () => {
  const { origin, tabs: [first, second, third] } = await threeTabs();
  // The browser gives the lock to the second, which does nothing either.
  second.own.stall();
  first.own.crash();
  await origin.pass(10_000);
  assert.equal(third.client.isLeader, true);
  await third.browser.request.stream(hubOpen("7-1", true), event(2));
  await second.own.wake();
  assert.equal(second.client.isLeader, false);
  assert.deepEqual(second.browser.requests.filter(({ isCancelled }) => !isCancelled), []);
  await third.browser.request.send(event(3));
  assert.deepEqual(second.seen, ["1", "2", "3"]);
});

test("leaders stall in turn", async () => {
  const { origin, tabs } = await threeTabs();
  for (let n = 2; n < 8; n += 1) {
    const [old] = leaders(tabs);
    old.own.stall();
    await origin.pass(10_000);
    const leader = leaders(tabs).find((tab) => tab !== old);
    await leader.browser.request.stream(hubOpen(`7-${n - 1}`, true), event(n));
    await old.own.wake();
    assert.equal(leaders(tabs).length, 1);
  }
  for (const { seen } of tabs) assert.deepEqual(seen, ["1", "2", "3", "4", "5", "6", "7"]);
});

test("a tab that leaves has no timer and no lock", async () => {
  const { origin, tabs } = await threeTabs();
  tabs[0].own.stall();
  await origin.pass(10_000);
  for (const tab of tabs.slice(1)) tab.client.close();
  await tabs[0].own.wake();
  await settle();
  assert.deepEqual(tabs.slice(1).map(({ browser }) => browser.timers), [0, 0]);
  // The old leader is alone: it leads again.
  await origin.pass(2000);
  assert.equal(tabs[0].client.isLeader, true);
  tabs[0].client.close();
  assert.equal(tabs[0].browser.timers, 0);
  assert.deepEqual(origin.channels, []);
});

test("a browser that cannot steal gives the tab its own stream", async () => {
  const origin = new FakeOrigin();
  const first = openTab(origin);
  await settle();
  await first.browser.request.stream(OPEN);
  first.own.stall();
  const request = (name, options, held) => (options.steal ? Promise.reject(new TypeError("no steal")) : origin.request(late, name, options, held));
  const late = origin.tab();
  const { client } = openTab({ tab: () => late }, { locks: { request } });
  await origin.pass(6000);
  assert.equal(client.isLeader, true);
  client.close();
});
