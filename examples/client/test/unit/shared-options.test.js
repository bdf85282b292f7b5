// Shared streams: which pages share, event types in native mode, the page's life cycle, and the end
// of a stream.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as shared from "../../sse-shared.js";
import { FakeOrigin } from "./origin.js";
import { OPEN, frame, settle } from "./support.js";
import { hubOpen, openTab, withPage } from "./tabs.js";

const { SharedSSE } = shared;

/* ---------- pages that share ---------- */

const nameless = {
  "a function as url": [() => "/events", {}],
  "headers": ["/events", { headers: { authorization: "Bearer ann" } }],
  "a function for headers": ["/events", { headers: () => ({}) }],
  "a body": ["/events", { method: "POST", body: "{}" }],
  "a name that is empty": [() => "/events", { name: "" }],
  "a name that is undefined": ["/events", { headers: () => ({}), name: undefined }],
};

for (const [what, [url, options]] of Object.entries(nameless)) {
  test(`a name is required with ${what}`, () => {
    const refused = (error) => error instanceof shared.NameRequiredError && error instanceof TypeError && error.name === "NameRequiredError" && /`name`/.test(error.message);
    assert.throws(() => new SharedSSE(url, options), refused);
    if (!("name" in options)) assert.doesNotThrow(() => new SharedSSE(url, { ...options, name: "ann" }));
  });
}

async function channelNames(...tabs) {
  const names = [];
  for (const [url, options] of tabs) {
    const origin = new FakeOrigin();
    const client = new SharedSSE(url, { ...origin.tab().sharing, ...options });
    client.open();
    names.push(origin.channels[0].name);
    client.close();
    await settle();
  }
  return names;
}

test("tabs that ask differently do not share by default", async () => {
  const names = await channelNames(
    ["/events", {}], ["/events?user=ann", {}], ["/events", { credentials: "include" }], ["/events", { credentials: "omit" }],
    ["/events", { method: "QUERY" }], ["/events", { mode: "native" }], ["/events", { name: "ann" }], ["/events", { name: "ann", mode: "native" }],
  );
  assert.equal(new Set(names).size, names.length);
  const [plain, ...same] = await channelNames(["/events", {}], ["/events", { method: "GET" }], ["/events", { name: "/events" }], ["/events", { credentials: "same-origin" }]);
  for (const name of same) assert.equal(name, plain);
});

test("a relative url names another stream in another folder", async () => {
  const at = async (baseURI) => {
    globalThis.document = { baseURI };
    try {
      return (await channelNames(["events?x=1", {}]))[0];
    } finally {
      delete globalThis.document;
    }
  };
  const [a, b, again] = [await at("https://h/a/page"), await at("https://h/b/page"), await at("https://h/a/other")];
  assert.notEqual(a, b);
  assert.equal(a, again);
  assert.equal(a, (await channelNames(["/a/events?x=1", {}]))[0]);
});

/* ---------- types ---------- */

test("an event of the type * is delivered once", async () => {
  const origin = new FakeOrigin();
  const tabs = [openTab(origin), openTab(origin)];
  await settle();
  await tabs[0].browser.request.stream(OPEN + frame("*", "x", "7-1") + frame("*", "y") + frame("a", "z", "7-2"));
  for (const { seen } of tabs) assert.deepEqual(seen, ["x", "y", "z"]);
});

class FakeSource extends EventTarget {
  static CLOSED = 2;
  static made = [];
  readyState = 0;
  types = new Set();

  constructor(url) {
    super();
    this.url = url;
    FakeSource.made.push(this);
  }

  addEventListener(type, listener) {
    this.types.add(type);
    super.addEventListener(type, listener);
  }

  close() {
    this.readyState = FakeSource.CLOSED;
  }

  accept(id = "7-0", resumed = false) {
    this.readyState = 1;
    this.onopen(new Event("open"));
    this.send("hub:open", `{"client":"c1","resumed":${resumed}}`, id);
  }

  send(type, data, lastEventId) {
    this.dispatchEvent(Object.assign(new Event(type), { data, lastEventId }));
  }
}

function nativeTab(origin, types, options = {}) {
  const own = origin.tab();
  return openTab({ tab: () => own }, { mode: "native", environment: { ...own.environment, EventSource: FakeSource }, ...options }, types);
}

async function nativeTabs(...all) {
  FakeSource.made = [];
  const origin = new FakeOrigin();
  const tabs = all.map((types) => nativeTab(origin, types));
  await settle();
  FakeSource.made[0].accept();
  await settle();
  return { origin, tabs, source: FakeSource.made[0] };
}

test("a native leader listens for the types of all tabs", async () => {
  const { origin, tabs: [leader, follower], source } = await nativeTabs(["order"], ["note", "order"]);
  source.send("order", "1", "7-1");
  source.send("note", "2", "7-2");
  await settle();
  assert.deepEqual(leader.seen, ["1"]);
  assert.deepEqual(follower.seen, ["1", "2"]);
  // Types that a tab adds later, and those of a tab that comes later.
  follower.client.on("late", ({ data }) => follower.seen.push(data));
  const third = nativeTab(origin, ["other"]);
  await settle();
  source.send("late", "3", "7-3");
  source.send("other", "4", "7-4");
  await settle();
  assert.deepEqual([leader.seen, follower.seen, third.seen], [["1"], ["1", "2", "3"], ["4"]]);
});

test("a native successor listens for the types of all tabs", async () => {
  const { origin, tabs: [first, second, third] } = await nativeTabs(["a"], ["b"], ["c"]);
  const late = nativeTab(origin, ["d"]);
  await settle();
  first.client.close();
  second.client.close();
  third.client.on("e", () => {});
  await settle();
  assert.equal(third.client.isLeader, true);
  const types = FakeSource.made.at(-1).types;
  for (const type of ["a", "b", "c", "d", "e"]) assert.ok(types.has(type), type);
  late.client.close();
  // The last that came knows the types of those that came before it.
  const last = nativeTab(origin, ["f"]);
  await settle();
  third.client.close();
  await settle();
  assert.equal(last.client.isLeader, true);
  for (const type of ["c", "e", "f"]) assert.ok(FakeSource.made.at(-1).types.has(type), type);
});

test("a type that the native leader did not hear is a gap", async () => {
  const { origin, source } = await nativeTabs(["order"]);
  source.send("order", "1", "7-1");
  source.send("order", "2", "7-2");
  for (const [position, types, expected] of [["7-1", ["order"], ["2"]], ["7-1", ["note"], ["gap shared"]], ["7-2", ["mail"], []]]) {
    const tab = nativeTab(origin, types, { lastEventId: position });
    await settle();
    assert.deepEqual(tab.seen, expected, `${types} at ${position}`);
  }
});

/* ---------- life cycle ---------- */

const states = ({ client }) => [client.status.state, client.status.reason];

for (const when of ["before", "during", "after"]) {
  test(`a page closed ${when} it is hidden stays closed`, async () => {
    await withPage(async (page) => {
      const origin = new FakeOrigin();
      const tab = openTab(origin);
      await settle();
      await tab.browser.request.stream(OPEN);
      if (when === "before") tab.client.close();
      if (when === "during") globalThis.addEventListener("pagehide", () => tab.client.close(), { once: true });
      page.tell("pagehide");
      if (when === "after") tab.client.close();
      await settle();
      assert.deepEqual(states(tab), ["closed", "close"]);
      page.tell("pageshow");
      await settle();
      assert.deepEqual(states(tab), ["closed", "close"]);
      assert.equal(tab.browser.requests.length, 1);
      assert.deepEqual(origin.channels, []);
      // The page can open it again, and that lives through the cache, once.
      tab.client.open();
      for (let round = 0; round < 3; round += 1) {
        page.tell("pagehide");
        page.tell("pageshow");
        await settle();
        assert.equal(origin.channels.length, 1);
      }
      tab.client.close();
    });
  });
}

test("a stream that the server closed stays closed through the page cache", async () => {
  await withPage(async (page) => {
    const origin = new FakeOrigin();
    const tabs = [openTab(origin), openTab(origin)];
    await settle();
    await tabs[0].browser.request.stream(OPEN, 'event: hub:error\ndata: {"reason":"error"}\n\n');
    for (const tab of tabs) assert.deepEqual(states(tab), ["closed", "hub:error"]);
    page.tell("pagehide");
    page.tell("pageshow");
    await settle();
    for (const tab of tabs) assert.deepEqual([...states(tab), tab.browser.requests.length], ["closed", "hub:error", tab === tabs[0] ? 1 : 0]);
    tabs[1].client.open();
    await settle();
    assert.equal(tabs[1].browser.requests.length, 1);
    tabs[1].client.close();
  });
});

test("a page that is discarded and not cached is left alone", async () => {
  await withPage(async (page) => {
    const tab = openTab(new FakeOrigin());
    await settle();
    page.tell("pagehide", false);
    assert.equal(tab.client.isLeader, true);
    tab.client.close();
  });
});

test("any tab opens a stream again that the server closed", async () => {
  const origin = new FakeOrigin();
  const tabs = [openTab(origin), openTab(origin)];
  await settle();
  await tabs[0].browser.request.answer(404);
  for (const tab of tabs) assert.deepEqual(states(tab), ["closed", "http"]);
  for (const [at, tab] of tabs.entries()) {
    await origin.pass(1000);
    tab.client.open();
    await settle();
    assert.equal(tabs[0].browser.requests.length, at + 2);
    await tabs[0].browser.request.answer(404);
  }
});

/* ---------- the end ---------- */

const end = (data) => `event: hub:end\nretry: 1000\ndata: ${data}\n\n`;

for (const ask of ["leader", "follower"]) {
  test(`a final end closes the stream of all tabs, and ${ask} may open again`, async () => {
    const origin = new FakeOrigin();
    const tabs = [openTab(origin), openTab(origin), openTab(origin)];
    const ends = [];
    tabs.forEach(({ client }, at) => client.on("hub:end", () => ends.push(at)));
    await settle();
    await tabs[0].browser.request.stream(OPEN, frame("a", "1", "7-1") + frame("a", "last", "7-2") + end('{"reason":"finished","final":true}'));
    for (const tab of tabs) {
      assert.deepEqual(states(tab), ["closed", "hub:end"]);
      assert.equal(tab.client.status.detail, "finished");
      assert.deepEqual(tab.seen, ["1", "last"]);
      assert.equal(tab.client.isLeader, false);
    }
    assert.deepEqual(ends.sort(), [0, 1, 2]);
    await origin.pass(60_000, 2000);
    assert.deepEqual(tabs.map(({ browser }) => browser.requests.length), [1, 0, 0]);
    assert.deepEqual(tabs.map(({ browser }) => browser.timers), [0, 0, 0]);
    assert.deepEqual(origin.channels, []);
    const tab = tabs[ask === "leader" ? 0 : 1];
    tab.client.open();
    await settle();
    assert.equal(tab.browser.request.headers.get("last-event-id"), "7-2");
  });
}

for (const data of ['{"reason":"drained"}', '{"reason":"drained","final":false}', '{"reason":"x","final":"true"}', "final", "null"]) {
  test(`an end that is not final is none: ${data}`, async () => {
    const origin = new FakeOrigin();
    const tabs = [openTab(origin), openTab(origin)];
    await settle();
    await tabs[0].browser.request.stream(OPEN, end(data));
    for (const tab of tabs) assert.equal(tab.client.status.state, "retrying");
    await origin.pass(5000, 500);
    await tabs[0].browser.request.stream(hubOpen("7-0", true), frame("a", "1", "7-1"));
    for (const tab of tabs) assert.deepEqual(tab.seen, ["1"]);
  });
}

/* ---------- the channel ---------- */

const HOSTILE = [
  null, 7, "x", [], {}, { kind: "toString" }, { kind: "__proto__" }, { kind: 7 }, { kind: "events" }, { kind: "hello" }, { kind: "types", types: [7] },
  { kind: "events", term: 1e300, leader: "x", serial: 0, events: [] }, { kind: "events", term: 9e15, leader: "x", serial: 0, events: [["a", "x", "9-9"]] },
  { kind: "events", term: 1, leader: "x", serial: 0, events: [null] }, { kind: "status", status: 7 }, { kind: "status", term: 1, leader: "x", next: -1 },
  { kind: "welcome", to: "x", fate: "none" }, { kind: "hello", from: "x", position: "7-1", since: 0, isFresh: false, types: [] },
  { kind: "hello", from: "", position: "not an id", since: 9e9, isFresh: false, types: ["hub:x", "*"] },
];

test("malformed messages change nothing", async () => {
  const origin = new FakeOrigin();
  const tabs = [openTab(origin), openTab(origin)];
  await settle();
  await tabs[0].browser.request.stream(OPEN, frame("a", "1", "7-1"));
  const [{ name }] = origin.channels;
  for (const data of HOSTILE) await origin.post(name, data);
  await tabs[0].browser.request.send(frame("a", "2", "7-2"));
  for (const { seen, client } of tabs) {
    assert.deepEqual(seen, ["1", "2"]);
    assert.equal(client.status.state, "open");
  }
});

test("a leader that does not exist is replaced", async () => {
  const origin = new FakeOrigin();
  const tabs = [openTab(origin), openTab(origin)];
  await settle();
  await tabs[0].browser.request.stream(OPEN, frame("a", "1", "7-1"));
  const [{ name }] = origin.channels;
  const { status } = tabs[0].client;
  const far = tabs[0].browser.time + 1e10;
  await origin.post(name, { kind: "status", isFinal: false, term: far, leader: "x", next: 7, status, position: "9-9", since: 0, hasSnapshot: false });
  await origin.pass(12_000);
  const leader = tabs.find(({ client }) => client.isLeader);
  await leader.browser.request.stream(hubOpen("7-1", true), frame("a", "2", "7-2"));
  for (const { seen } of tabs) assert.deepEqual(seen, ["1", "2"]);
});
