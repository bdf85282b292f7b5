// Tabs that join a shared stream with a position, or return to it: they get the events between, or
// a gap.
import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeOrigin } from "./origin.js";
import { OPEN, frame, settle } from "./support.js";
import { hubGap, hubOpen, openTab, withPage } from "./tabs.js";

const frames = (from, to, epoch = 7) =>
  Array.from({ length: to - from + 1 }, (_, at) => frame("a", `${from + at}`, `${epoch}-${from + at}`)).join("");

async function twoTabs(...texts) {
  const origin = new FakeOrigin();
  const tabs = [openTab(origin), openTab(origin)];
  await settle();
  await tabs[0].browser.request.stream(OPEN, ...texts);
  return { origin, leader: tabs[0], follower: tabs[1] };
}

test("a returning follower gets the events between", async () => {
  for (const missed of [0, 1, 2, 30]) {
    const { leader, follower } = await twoTabs(frames(1, 3));
    follower.client.close();
    if (missed > 0) await leader.browser.request.send(frames(4, 3 + missed));
    follower.client.open();
    await settle();
    await leader.browser.request.send(frames(4 + missed, 5 + missed));
    assert.deepEqual(follower.seen, leader.seen, `missed ${missed}`);
    assert.equal(follower.client.isLeader, false);
    assert.equal(follower.client.status.state, "open");
    assert.equal(follower.client.lastEventId, `7-${5 + missed}`);
  }
});

test("the end of a run reaches all tabs, and a tab that returns", async () => {
  const end = (name, id) => frame("hub:run-end", `{"run":"${name}","reason":"finished"}`, id);
  const origin = new FakeOrigin();
  const types = ["*", "hub:run-end"];
  const tabs = [openTab(origin, {}, types), openTab(origin, {}, types)];
  const [leader, follower] = tabs;
  await settle();
  await leader.browser.request.stream(OPEN, frames(1, 1), end("a", "7-2"));
  const seen = ["1", '{"run":"a","reason":"finished"}'];
  assert.deepEqual(tabs.map((tab) => tab.seen), [seen, seen]);
  follower.client.close();
  await leader.browser.request.send(end("b", "7-3") + frames(4, 4));
  follower.client.open();
  await settle();
  seen.push('{"run":"b","reason":"finished"}', "4");
  assert.deepEqual(tabs.map((tab) => tab.seen), [seen, seen]);
  // A new leader whose position is older than that of a tab: the end is not repeated.
  leader.client.close();
  await settle();
  assert.equal(follower.client.isLeader, true);
  await follower.browser.request.stream(hubOpen("7-2", true), end("b", "7-3"), frames(4, 5));
  assert.deepEqual(follower.seen, [...seen, "5"]);
});

test("a follower returns again and again", async () => {
  const { leader, follower } = await twoTabs();
  for (let round = 0; round < 10; round += 1) {
    follower.client.close();
    await leader.browser.request.send(frames(2 * round + 1, 2 * round + 1));
    follower.client.open();
    // The next event is under way together with the answer.
    await leader.browser.request.send(frames(2 * round + 2, 2 * round + 2));
  }
  assert.deepEqual(follower.seen, Array.from({ length: 20 }, (_, at) => `${at + 1}`));
});

test("events without ids are neither lost nor repeated by returning", async () => {
  for (const missed of [0, 1, 2]) {
    const { leader, follower } = await twoTabs(frame("a", "1", "7-1") + frame("a", "x1"));
    follower.client.close();
    for (let n = 0; n < missed; n += 1) await leader.browser.request.send(frame("a", `x${n + 2}`));
    follower.client.open();
    await settle();
    await leader.browser.request.send(frame("a", "last"));
    assert.deepEqual(follower.seen, leader.seen);
  }
});

test("a server without ids is no reason to lose events", async () => {
  const origin = new FakeOrigin();
  const [leader, follower] = [openTab(origin), openTab(origin)];
  await settle();
  await leader.browser.request.stream(frame("a", "1"));
  follower.client.close();
  await leader.browser.request.send(frame("a", "2"));
  follower.client.open();
  await settle();
  await leader.browser.request.send(frame("a", "3"));
  assert.deepEqual(follower.seen, ["1", "2", "3"]);
  const late = openTab(origin);
  await settle();
  await leader.browser.request.send(frame("a", "4"));
  assert.deepEqual(late.seen, ["4"], "without a position a tab starts with the next event");
});

test("a follower returns from the back-forward cache", async () => {
  const origin = new FakeOrigin();
  const leader = openTab(origin);
  await settle();
  await leader.browser.request.stream(OPEN);
  await withPage(async (page) => {
    const follower = openTab(origin);
    await settle();
    await leader.browser.request.send(frames(1, 1));
    page.tell("pagehide");
    await leader.browser.request.send(frames(2, 3));
    assert.deepEqual(follower.seen, ["1"]);
    page.tell("pageshow");
    await settle();
    await leader.browser.request.send(frames(4, 4));
    assert.deepEqual(follower.seen, ["1", "2", "3", "4"]);
    follower.client.close();
  });
});

test("a leader returns from the back-forward cache as a follower", async () => {
  const origin = new FakeOrigin();
  await withPage(async (page) => {
    const first = openTab(origin);
    await settle();
    await first.browser.request.stream(OPEN, frames(1, 2));
    const { addEventListener } = globalThis;
    globalThis.addEventListener = undefined;
    const second = openTab(origin);
    globalThis.addEventListener = addEventListener;
    await settle();
    page.tell("pagehide");
    await settle();
    assert.equal(first.browser.request.isCancelled, true);
    await second.browser.request.stream(hubOpen("7-2", true), frames(3, 4));
    page.tell("pageshow");
    await settle();
    await second.browser.request.send(frames(5, 5));
    assert.deepEqual(first.seen, ["1", "2", "3", "4", "5"]);
    first.client.close();
  });
});

test("a given position behind the leader's is honoured", async () => {
  for (const [position, expected] of [["7-1", ["2", "3"]], ["7-2", ["3"]], ["7-0", ["1", "2", "3"]], ["6-9", ["gap shared", "3"]]]) {
    const { origin, leader } = await twoTabs(frames(1, 2));
    const late = openTab(origin, { lastEventId: position });
    await settle();
    await leader.browser.request.send(frames(3, 3));
    assert.deepEqual(late.seen, expected, position);
    assert.equal(late.client.lastEventId, "7-3");
  }
});

test("a given position between two events is honoured", async () => {
  const { origin, leader } = await twoTabs(frame("a", "1", "7-1") + frame("a", "5", "7-5") + frame("a", "9", "7-9"));
  for (const [position, expected] of [["7-3", ["5", "9"]], ["7-8", ["9"]]]) {
    const late = openTab(origin, { lastEventId: position });
    await settle();
    assert.deepEqual(late.seen, expected);
  }
  assert.deepEqual(leader.seen, ["1", "5", "9"]);
});

test("a position that the backlog no longer covers is a gap", async () => {
  for (const [count, size, expected] of [[999, 1, "1"], [1001, 1, "gap shared"], [20, 100_000, "gap shared"], [5, 100_000, "y"]]) {
    const { leader, follower } = await twoTabs();
    follower.client.close();
    const data = size === 1 ? undefined : "y".repeat(size);
    for (let n = 1; n <= count; n += 1) await leader.browser.request.controller.enqueue(new TextEncoder().encode(frame("a", data ?? `${n}`, `7-${n}`)));
    await settle();
    follower.client.open();
    await settle();
    assert.equal(follower.seen[0].slice(0, 10), size === 1 ? expected : expected.padEnd(10, "y").slice(0, 10), `${count} of ${size}`);
    assert.equal(follower.client.lastEventId, `7-${count}`);
    await leader.browser.request.send(frame("a", "last", `7-${count + 1}`));
    assert.equal(follower.seen.at(-1), "last");
  }
});

test("a returning tab is told the gap that the leader was told", async () => {
  const { leader, follower } = await twoTabs(frames(1, 2));
  follower.client.close();
  await leader.browser.request.send(hubGap("evicted", "7-8") + frames(9, 9));
  follower.client.open();
  await settle();
  assert.deepEqual(follower.seen, ["1", "2", "gap evicted", "9"]);
});

test("the next leader has the events from before its time", async () => {
  const origin = new FakeOrigin();
  const [first, second, third] = [openTab(origin), openTab(origin), openTab(origin)];
  await settle();
  await first.browser.request.stream(OPEN, frames(1, 2));
  third.client.close();
  await first.browser.request.send(frames(3, 4));
  first.client.close();
  await settle();
  await second.browser.request.stream(hubOpen("7-4", true), frames(5, 5));
  third.client.open();
  await settle();
  assert.deepEqual(third.seen, ["1", "2", "3", "4", "5"]);
});

test("a tab ahead of the leader waits for it, and then is told a gap", async () => {
  const { origin, leader } = await twoTabs(frames(1, 2));
  const early = openTab(origin, { lastEventId: "7-4" });
  await settle();
  await leader.browser.request.send(frames(3, 5));
  assert.deepEqual(early.seen, ["5"], "the leader catches up");
  // Ids of another hub, which the leader's never reach.
  const stranger = openTab(origin, { lastEventId: "9-1" });
  await settle();
  for (let n = 6; n < 30; n += 1) {
    await leader.browser.request.send(frames(n, n));
    await origin.pass(1000, 500);
  }
  assert.equal(stranger.seen[0], "gap shared");
  assert.equal(stranger.seen.at(-1), "29");
  assert.deepEqual(stranger.seen.slice(2), stranger.seen.slice(2).map((_, at) => `${Number(stranger.seen[1]) + at + 1}`));
});

test("a tab ahead of a leader that says nothing is told a gap", async () => {
  const { origin } = await twoTabs(frames(1, 2));
  const stranger = openTab(origin, { lastEventId: "9-1" });
  await settle();
  await origin.pass(20_000, 500);
  assert.deepEqual(stranger.seen, ["gap shared"]);
  assert.equal(stranger.client.lastEventId, "7-2");
});

test("a tab that joins gets the snapshot of the stream", async () => {
  const { origin, leader } = await twoTabs();
  await leader.browser.pass(2000);
  leader.client.reconnect();
  await settle();
  const snapshot = frame("s", "half") + frame("s", "whole", "7-90");
  await leader.browser.request.stream(hubOpen("0-0") + hubGap("evicted", "0-0") + frame("s", "half"));
  const during = openTab(origin);
  await settle();
  await leader.browser.request.send(frame("s", "whole", "7-90") + frames(91, 91));
  const after = openTab(origin);
  await settle();
  assert.ok(snapshot);
  for (const { seen } of [during, after]) assert.deepEqual(seen, ["gap evicted", "half", "whole", "91"]);
  for (let n = 92; n < 1100; n += 1) leader.browser.request.controller.enqueue(new TextEncoder().encode(frames(n, n)));
  await settle();
  const late = openTab(origin);
  await settle();
  assert.deepEqual(late.seen, ["gap shared"], "the snapshot has left the backlog");
});

/* ---------- positions that go backwards ---------- */

const SEQUENCES = {
  "a snapshot after an eviction": {
    position: "7-5",
    texts: [hubOpen("0-0"), hubGap("evicted", "0-0"), frame("s", "all", "7-90"), frames(91, 91)],
    seen: ["gap evicted", "all", "91"],
  },
  "a snapshot with the client's old id": {
    position: "7-5",
    texts: [hubOpen("0-0"), frame("s", "all", "7-5"), hubGap("evicted", "7-90"), frames(91, 91)],
    seen: ["all", "gap evicted", "91"],
  },
  "a snapshot of a hub with lower ids": {
    position: "9-5",
    texts: [hubOpen("0-0"), hubGap("unknown", "0-0"), frame("s", "all", "8-3"), frames(4, 5, 8)],
    seen: ["gap unknown", "all", "4", "5"],
  },
  "a snapshot in pieces": {
    position: "9-5",
    texts: [hubOpen("0-0"), hubGap("reset", "0-0"), frame("s", "half"), frame("s", "all", "8-3"), frames(4, 5, 8)],
    seen: ["gap reset", "half", "all", "4", "5"],
  },
  "no snapshot, and lower ids": {
    position: "9-5",
    texts: [hubOpen("0-0"), hubGap("unknown", "8-3"), frames(4, 5, 8)],
    seen: ["gap unknown", "4", "5"],
  },
  "a gap in the middle of a stream": {
    position: "9-5",
    texts: [hubOpen("9-5", true), frames(6, 6, 9), hubGap("reset", "8-3"), frames(4, 5, 8)],
    seen: ["6", "gap reset", "4", "5"],
  },
  "a gap without an id": {
    position: "9-5",
    texts: [hubOpen("9-5", true), 'event: hub:gap\ndata: {"reason":"unknown"}\n\n', frames(4, 5, 8)],
    seen: ["gap unknown", "4", "5"],
  },
  "a stream of another server": { position: "9-5", texts: [frames(4, 5, 8)], seen: ["4", "5"] },
};

for (const [name, { position, texts, seen }] of Object.entries(SEQUENCES)) {
  test(`${name} reaches all tabs`, async () => {
    const origin = new FakeOrigin();
    const tabs = [openTab(origin, { lastEventId: position }), openTab(origin, { lastEventId: position })];
    await settle();
    await tabs[0].browser.request.stream(...texts);
    for (const tab of tabs) assert.deepEqual(tab.seen, seen);
    assert.equal(tabs[1].client.lastEventId, tabs[0].client.lastEventId);
  });

  test(`${name} reaches a tab that is ahead`, async () => {
    const origin = new FakeOrigin();
    const leader = openTab(origin, { lastEventId: position });
    await settle();
    const ahead = openTab(origin, { lastEventId: "9-80" });
    await settle();
    await leader.browser.request.stream(...texts);
    await origin.pass(15_000, 500);
    await leader.browser.request.send(frame("a", "last", "9-81"));
    assert.equal(ahead.seen.at(-1), "last");
    const from = seen.findIndex((what) => what.startsWith("gap") || what === "all");
    if (from >= 0) assert.deepEqual(ahead.seen, [...seen.slice(from), "last"]);
  });
}
