import assert from "node:assert/strict";
import { test } from "node:test";
import { SharedSSE } from "../../sse-shared.js";
import { FakeBrowser, OPEN, frame, settle } from "./support.js";

/** Locks and channels as tabs of one browser share them. Messages can be held up. */
class FakeOrigin {
  holder;
  queue = [];
  channels = new Set();
  held = null;

  locks = {
    request: (name, { signal }, callback) => new Promise((resolve, reject) => {
      const wait = { callback, resolve };
      signal.addEventListener("abort", () => {
        if (!this.queue.includes(wait)) return;
        this.queue = this.queue.filter((other) => other !== wait);
        reject(signal.reason);
      });
      this.queue.push(wait);
      this.#grant();
    }),
  };

  get BroadcastChannel() {
    const origin = this;
    return class {
      constructor() {
        origin.channels.add(this);
      }

      postMessage(data) {
        const others = [...origin.channels].filter((channel) => channel !== this);
        const deliver = () => others.forEach((channel) => origin.channels.has(channel) && channel.onmessage({ data: structuredClone(data) }));
        if (origin.held) origin.held.push(deliver);
        else queueMicrotask(deliver);
      }

      close() {
        origin.channels.delete(this);
      }
    };
  }

  async #grant() {
    if (this.holder || this.queue.length === 0) return;
    this.holder = this.queue.shift();
    this.holder.resolve(await this.holder.callback());
    this.holder = undefined;
    await this.#grant();
  }
}

function tab(origin) {
  const browser = new FakeBrowser();
  const client = new SharedSSE(({ status }) => `/events?client=${status.client}`, { locks: origin.locks, BroadcastChannel: origin.BroadcastChannel, environment: browser.environment });
  const seen = [];
  client.on("*", ({ data }) => seen.push(data));
  client.open();
  return { browser, client, seen };
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
  const { origin, tabs: [first, second, third] } = await threeTabs();
  // The leader's last words are under way when it goes: they reach the third, and the second only as the new leader.
  origin.held = [];
  await first.browser.request.send(frame("a", "2", "7-2"));
  const words = origin.held;
  origin.held = null;
  first.client.close();
  await settle();
  assert.equal(first.browser.request.isCancelled, true);
  assert.equal(second.client.isLeader, true);
  assert.equal(second.browser.request.headers.get("last-event-id"), "7-1");
  words.forEach((deliver) => deliver());
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
  assert.deepEqual(second.seen, ["1", "x"]);
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
    const client = new SharedSSE(url, { locks, BroadcastChannel: origin.BroadcastChannel, environment: browser.environment });
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
