import assert from "node:assert/strict";
import { test } from "node:test";
import { SharedSSE } from "../../sse-shared.js";
import { FakeOrigin } from "./origin.js";
import { FakeBrowser, OPEN, frame, settle } from "./support.js";

function tab(origin, options = {}) {
  const own = origin.tab();
  const client = new SharedSSE(({ status }) => `/events?client=${status.client}`, { name: "ann", ...own.sharing, ...options });
  const seen = [];
  client.on("*", ({ data }) => seen.push(data));
  client.on("hub:gap", ({ data }) => seen.push(`gap ${JSON.parse(data).reason}`));
  client.open();
  return { own, browser: own.browser, client, seen };
}

async function threeTabs() {
  const origin = new FakeOrigin();
  const tabs = [tab(origin), tab(origin), tab(origin)];
  await settle();
  await tabs[0].browser.request.stream(OPEN, frame("a", "1", "7-1"));
  return { origin, tabs };
}

const requests = (tabs) => tabs.map(({ browser }) => browser.requests.length);

test("one tab has the stream, and all see what comes", async () => {
  const { tabs } = await threeTabs();
  assert.deepEqual(requests(tabs), [1, 0, 0]);
  await tabs[0].browser.request.send(frame("a", "2", "7-2") + frame("a", "3"));
  for (const { client, seen } of tabs) {
    assert.deepEqual(seen, ["1", "2", "3"]);
    assert.equal(client.status.state, "open");
    assert.equal(client.status.client, "c1");
    assert.equal(client.lastEventId, "7-2");
  }
  assert.deepEqual(tabs.map(({ client }) => client.isLeader), [true, false, false]);
});

test("a tab that comes late knows where the others stand", async () => {
  const { origin, tabs } = await threeTabs();
  const late = tab(origin);
  await settle();
  assert.equal(late.client.status.state, "open");
  assert.equal(late.client.lastEventId, "7-1");
  tabs.forEach(({ client }) => client.close());
  await settle();
  assert.equal(late.browser.request.headers.get("last-event-id"), "7-1");
});

test("when the leader goes, the next goes on, and nobody misses or repeats an event", async () => {
  const { tabs: [first, second, third] } = await threeTabs();
  // The leader's last words are under way when it goes: they reach the others only after the second
  // is the leader.
  third.own.stall();
  await first.browser.request.send(frame("a", "2", "7-2"));
  first.client.close();
  await settle();
  assert.equal(first.browser.request.isCancelled, true);
  assert.equal(second.client.isLeader, true);
  await third.own.wake((count) => count - 1);
  assert.deepEqual(third.seen, ["1", "2"]);
  const open = 'event: hub:open\ndata: {"client":"c2","resumed":true}\nid: 7-1\n\n';
  await second.browser.request.stream(open, frame("a", "2", "7-2") + frame("a", "10", "7-10") + frame("a", "9", "8-9"));
  assert.deepEqual(second.seen, ["1", "2", "10", "9"]);
  assert.deepEqual(third.seen, ["1", "2", "10", "9"]);
  assert.equal(third.client.status.client, "c2");
});

test("the next goes on with the client's id, to which something may have been sent", async () => {
  const { tabs: [first, second] } = await threeTabs();
  first.client.close();
  await settle();
  assert.deepEqual([first, second].map(({ browser }) => browser.requests[0].url), ["/events?client=", "/events?client=c1"]);
});

test("all tabs know that events are held up, also one that comes late", async () => {
  const { origin, tabs } = await threeTabs();
  await tabs[0].browser.request.send('event: hub:degraded\ndata: {"degraded":true}\n\n');
  const late = tab(origin);
  await settle();
  const all = [...tabs, late];
  assert.deepEqual(all.map(({ client }) => client.degraded), [true, true, true, true]);
  await tabs[0].browser.request.send('event: hub:degraded\ndata: {"degraded":false}\n\n');
  assert.deepEqual(all.map(({ client }) => client.degraded), [false, false, false, false]);
});

test("a hub that has forgotten the position starts all anew", async () => {
  const { tabs: [first, second] } = await threeTabs();
  await first.browser.request.send(frame("hub:gap", '{"reason":"unknown"}', "5-0") + frame("a", "x", "5-1"));
  assert.deepEqual(second.seen, ["1", "gap unknown", "x"]);
});

test("any tab can ask for the stream anew, or leave", async () => {
  const { tabs } = await threeTabs();
  await tabs[0].browser.pass(2000);
  tabs[2].client.reconnect();
  await settle();
  assert.deepEqual(requests(tabs), [2, 0, 0]);
  tabs[1].client.close();
  assert.equal(tabs[1].client.status.state, "closed");
  tabs[0].client.close();
  await settle();
  // The second is not asked.
  assert.deepEqual(requests(tabs), [2, 0, 1]);
  tabs[2].client.close();
  assert.equal(tabs[2].browser.timers, 0);
});

test("without locks, or where they are not allowed, each tab has a stream of its own", async () => {
  const denied = { request: async () => { await settle(); throw new DOMException("an opaque origin", "SecurityError"); } };
  const origin = new FakeOrigin();
  const other = tab(origin);
  await settle();
  await other.browser.request.stream(OPEN);
  for (const locks of [null, denied]) {
    const browser = new FakeBrowser();
    const url = ({ status }) => `/events?client=${status.client}`;
    const client = new SharedSSE(url, { name: "ann", locks, BroadcastChannel: other.own.BroadcastChannel, environment: browser.environment });
    client.open();
    await settle();
    await settle();
    assert.equal(browser.request.url, "/events?client=", "and not the id of another");
    await browser.request.stream(OPEN);
    assert.equal(client.status.state, "open");
    client.close();
    assert.equal(browser.timers, 0);
  }
});
