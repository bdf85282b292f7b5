// Random tabs, faults and messages on the channel: each tab gets each event of its types once and
// in order, or a gap. A failure
// names its seed: SEED=7 runs that seed alone, and SEEDS=1000 runs more.
import assert from "node:assert/strict";
import { test } from "node:test";
import { SharedSSE } from "../../sse-shared.js";
import { FakeOrigin } from "./origin.js";
import { frame, settle } from "./support.js";
import { hubGap, hubOpen } from "./tabs.js";

const SEEDS = process.env.SEED ? [Number(process.env.SEED)] : Array.from({ length: Number(process.env.SEEDS ?? 60) }, (_, at) => at + 1);
const STEPS = 120;
const MOST_TABS = 5;
const RETAINED = 8;

/** A generator of numbers of at least 0 and less than 1. */
function generator(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A hub with one topic, which retains few events and may begin anew with greater or lower ids. */
class Hub {
  serial = 0;
  epoch = 100_000;
  epochs = [100_000];
  count = 0;
  /** The events of this epoch: { serial, type, n }. */
  log = [];
  all = [];
  connections = new Set();
  opened = 0;

  constructor(random, hasSnapshots) {
    Object.assign(this, { random, hasSnapshots });
  }

  publish(type) {
    const event = { serial: (this.serial += 1), type, n: (this.count += 1) };
    this.all.push(event);
    this.log.push(event);
    for (const connection of this.connections) connection.waiting.push(this.#frame(event));
  }

  #frame({ type, serial, n }) {
    return frame(type, `${serial}`, `${this.epoch}-${n}`);
  }

  /** Begins anew, as a hub that was restarted. */
  restart() {
    // No two have the same ids.
    this.epochs.push(this.random() < 0.5 ? Math.max(...this.epochs) + 7 : Math.min(...this.epochs) - 7);
    this.epoch = this.epochs.at(-1);
    this.count = 0;
    this.log = [];
    this.cut();
  }

  cut() {
    for (const { request } of this.connections) request.close();
    this.connections.clear();
  }

  async accept(request) {
    request.isAnswered = true;
    const lost = this.count - Math.min(RETAINED, this.log.length);
    const retained = this.log.slice(-RETAINED);
    const now = `${this.epoch}-${this.count}`;
    const held = request.headers.get("last-event-id") ?? "";
    const [epoch, n] = held.split("-").map(Number);
    const client = `c${(this.opened += 1)}`;
    const waiting = [];
    const isKnown = epoch === this.epoch && n <= this.count;
    if (isKnown && n >= lost) {
      waiting.push(hubOpen(held, true, client), ...retained.filter((event) => event.n > n).map((event) => this.#frame(event)));
    } else if (this.hasSnapshots) {
      waiting.push(hubOpen("0-0", false, client));
      if (held) waiting.push(hubGap(isKnown || epoch < this.epoch ? "evicted" : "unknown", "0-0"));
      const parts = 1 + Math.floor(this.random() * 4);
      for (let part = 1; part <= parts; part += 1) {
        waiting.push(frame("snapshot", JSON.stringify({ part, parts, upTo: this.serial, client }), part === parts ? now : undefined));
      }
    } else if (!held) {
      waiting.push(hubOpen(now, false, client));
    } else if (isKnown || epoch < this.epoch) {
      waiting.push(hubOpen(held, false, client), hubGap("evicted", `${this.epoch}-${lost}`), ...retained.map((event) => this.#frame(event)));
    } else {
      waiting.push(hubOpen("0-0", false, client), hubGap("unknown", now));
    }
    this.connections.add({ request, waiting });
    await request.stream();
  }

  /** Sends a part of all that waits. */
  async pump(all = false) {
    for (const connection of [...this.connections]) {
      const { request, waiting } = connection;
      if (request.isCancelled || request.tab.isCrashed) {
        this.connections.delete(connection);
        continue;
      }
      const count = all ? waiting.length : Math.floor(this.random() * (waiting.length + 1));
      if (count > 0) await request.send(waiting.splice(0, count).join(""));
    }
  }
}

/** What a tab must receive. Fails with the first event that is lost, repeated or out of order. */
class Checker {
  last;
  floor;
  isExcused = false;
  part;
  told = [];

  constructor(hub, types) {
    Object.assign(this, { hub, types });
  }

  #next(after) {
    return this.hub.all.find(({ serial, type }) => serial > after && this.#wants(type))?.serial;
  }

  #wants(type) {
    return this.types.includes("*") || this.types.includes(type);
  }

  gap(reason) {
    this.told.push(`gap ${reason}`);
    this.isExcused = true;
    this.part = undefined;
    this.excusedTo = this.hub.serial;
  }

  event(data) {
    this.told.push(data);
    const serial = Number(data);
    assert.equal(this.part, undefined, `event ${serial} within a snapshot`);
    if (!this.isExcused && this.last === undefined) assert.ok(this.floor === undefined || serial <= (this.#next(this.floor - 1) ?? Infinity), `first event ${serial}, open since ${this.floor}`);
    else if (!this.isExcused) assert.equal(serial, this.#next(this.last), `event after ${this.last}`);
    // The page fetched its state when the gap was told.
    else assert.ok(serial <= (this.#next(this.excusedTo) ?? Infinity), `event ${serial} after a gap to ${this.excusedTo}`);
    this.isExcused = false;
    this.last = serial;
  }

  snapshot(data) {
    this.told.push(data);
    const { part, parts, upTo, client } = JSON.parse(data);
    const before = this.part;
    assert.ok(part === 1 || (before?.client === client && before.part === part - 1) || (this.isExcused && !before), `part ${data} after ${JSON.stringify(before)}`);
    this.part = part === parts ? undefined : { part, client };
    if (part === parts) [this.last, this.isExcused] = [upTo, false];
  }
}

class Run {
  tabs = [];
  /** Messages that were posted on the channel. */
  posted = [];

  constructor(seed) {
    this.random = generator(seed);
    this.origin = new FakeOrigin();
    this.hub = new Hub(this.random, seed % 3 === 0);
    const send = this.origin.send.bind(this.origin);
    this.origin.send = (from, data) => {
      if (from.tab) this.posted.push({ name: from.name, data: structuredClone(data) });
      send(from, data);
    };
  }

  pick(list) {
    return list[Math.floor(this.random() * list.length)];
  }

  join() {
    const own = this.origin.tab();
    own.browser.chance = this.random();
    const types = this.pick([["*"], ["*"], ["a"], ["a", "b"]]);
    const checker = new Checker(this.hub, types);
    const client = new SharedSSE("/events", { name: "fuzz", backoff: 500, maxBackoff: 2000, ...own.sharing });
    const tab = { own, client, checker, isOpen: true, errors: [] };
    const guarded = (act) => (message) => {
      try {
        act(message.data, message);
        // A listener may leave in the middle of a batch.
        if (this.random() < 0.01 && tab.isOpen && !this.isCalm) this.close(tab);
      } catch (error) {
        tab.errors.push(error);
      }
    };
    for (const type of types) client.on(type, guarded((data, message) => message.type !== "snapshot" && checker.event(data)));
    client.on("snapshot", guarded((data) => checker.snapshot(data)));
    client.on("hub:gap", guarded((data) => checker.gap(JSON.parse(data).reason)));
    client.on("hub:open", guarded(() => { checker.part = undefined; }));
    client.open();
    this.tabs.push(tab);
  }

  close(tab) {
    tab.isOpen = false;
    tab.client.close();
  }

  get running() {
    return this.tabs.filter(({ own }) => !own.isCrashed && !own.isStalled);
  }

  async serve(all) {
    for (const { own } of this.tabs) {
      for (const request of own.browser.requests) {
        if (request.isAnswered || request.isCancelled || own.isCrashed || (!all && this.random() < 0.3)) continue;
        request.tab = own;
        const { end } = request;
        request.close = () => request.isCancelled || own.isCrashed || end();
        await this.hub.accept(request);
      }
    }
    await this.hub.pump(all);
    await settle();
    for (const { own, client, checker } of this.tabs) {
      // A tab without a position has not heard of the hub: a crash of the leader loses its place.
      const hasPlace = client.status.state === "open" && client.lastEventId !== "";
      if (checker.floor === undefined && hasPlace && !own.isStalled) checker.floor = this.hub.serial + 1;
    }
  }

  /** Posts a message that no tab may trust: of another shape, or posted before. */
  async disturb() {
    const { name, data } = this.pick(this.posted) ?? { name: "sse-shared 2 fuzz", data: { kind: "events" } };
    const kind = this.random();
    if (kind < 0.3) return this.origin.post(name, this.pick([null, 7, "x", [], {}, { kind: "unknown" }, { kind: ["events"] }]));
    const copy = structuredClone(data);
    if (kind < 0.7) {
      const field = this.pick(Object.keys(copy));
      const wrong = this.pick([Symbol.iterator.description, -1, 0.5, NaN, null, {}, [7], [[]]]);
      // A value of the same type could be a message of a tab.
      if (typeof wrong === typeof copy[field] && field !== "events") delete copy[field];
      else copy[field] = wrong;
      if (JSON.stringify(copy) === JSON.stringify(data)) return;
      if (copy.events?.length === 0 || (field === "events" && data.events.length === 0)) return;
    }
    await this.origin.post(name, copy);
  }

  async step() {
    const tab = this.pick(this.running);
    const act = this.random();
    if (act < 0.3) this.hub.publish(this.pick(["a", "b", "c"]));
    else if (act < 0.38 && this.tabs.filter(({ own }) => !own.isCrashed).length < MOST_TABS) this.join();
    else if (act < 0.46 && tab?.isOpen) this.close(tab);
    else if (act < 0.56 && tab && !tab.isOpen) {
      tab.isOpen = true;
      tab.client.open();
    } else if (act < 0.59 && tab) tab.own.crash();
    else if (act < 0.65 && tab) tab.own.stall();
    else if (act < 0.77) await this.wake();
    else if (act < 0.79) this.hub.cut();
    else if (act < 0.8) this.hub.restart();
    else if (act < 0.86) await this.disturb();
    else if (act < 0.88 && tab?.isOpen) tab.client.reconnect();
    else if (act < 0.96) await this.origin.pass(this.pick([500, 2000, 8000]), 500);
    if (this.random() < 0.8) await this.serve(false);
  }

  async wake() {
    const { own } = this.pick(this.tabs.filter((tab) => tab.own.isStalled && !tab.own.isCrashed)) ?? {};
    await own?.wake((count) => Math.floor(this.random() * count));
  }

  check(when) {
    for (const [at, { errors, checker }] of this.tabs.entries()) {
      if (errors.length > 0) throw new Error(`tab ${at}, ${when}: ${errors[0].message}\nreceived ${checker.told.join(" ")}`);
    }
  }

  /** Without faults, all tabs must come to an agreement. */
  async end() {
    this.isCalm = true;
    if (this.tabs.every(({ own }) => own.isCrashed)) this.join();
    for (const { own } of this.tabs) if (own.isStalled) await own.wake((count) => Math.floor(this.random() * count));
    for (const tab of this.tabs) {
      if (tab.isOpen || tab.own.isCrashed) continue;
      tab.isOpen = true;
      tab.client.open();
    }
    for (let round = 0; round < 30; round += 1) {
      await this.origin.pass(1000, 500);
      await this.serve(true);
    }
    for (const type of ["a", "b", "a"]) {
      this.hub.publish(type);
      await this.serve(true);
    }
    this.check("in the end");
    const tabs = this.tabs.filter(({ own }) => !own.isCrashed);
    assert.equal(tabs.filter(({ client }) => client.isLeader).length, 1, "one leader");
    await this.hub.pump();
    assert.equal(this.hub.connections.size, 1, "one stream");
    for (const { client, checker } of tabs) {
      assert.equal(client.status.state, "open");
      assert.equal(checker.told.at(-1), `${this.hub.serial}`, `received ${checker.told.join(" ")}`);
    }
  }
}

test(`${SEEDS.length} seeds: each event once and in order, or a gap`, async (t) => {
  const counts = { events: 0, gaps: 0, requests: 0 };
  const { random } = Math;
  t.after(() => { Math.random = random; });
  for (const seed of SEEDS) {
    // The names of tabs are random.
    Math.random = generator(-seed);
    const run = new Run(seed);
    try {
      run.join();
      for (let step = 0; step < STEPS; step += 1) {
        await run.step();
        run.check(`step ${step}`);
      }
      await run.end();
    } catch (error) {
      error.message = `SEED=${seed}: ${error.message}`;
      throw error;
    }
    for (const { own, checker } of run.tabs) {
      counts.requests += own.browser.requests.length;
      for (const what of checker.told) counts[what.startsWith("gap") ? "gaps" : "events"] += 1;
    }
  }
  t.diagnostic(JSON.stringify(counts));
});
