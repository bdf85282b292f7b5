// SPDX-FileCopyrightText: The sse-hub contributors
// SPDX-License-Identifier: MIT OR Apache-2.0

/**
 * One stream for all tabs of a browser: one of them holds it, and tells the others what comes.
 *
 * A browser allows six connections to an origin over HTTP/1.1, and a hub counts each tab that has one. It has the face of
 * {@link SSEClient}; give it a name for each stream that differs, such as one for each user.
 *
 * ```js
 * const client = new SharedSSE("/events", { name: `events of ${user}` });
 * ```
 *
 * # Handing over
 *
 * The tab that has the Web Lock is the leader. When it is closed or crashes, the next gets the lock and goes on from the last
 * event that *it* was told of. What it was not told of yet comes again then, and whoever was told already ignores it: the
 * ids of a hub only grow. Where there are no Web Locks (without https) each tab has a stream of its own.
 *
 * @module
 */
import { IDLE, Listeners, Message, SSEClient, call } from "./sse-client.js";

/** @typedef {import("./sse-client.js").Status} Status */
/** @typedef {import("./sse-client.js").Options} Options */

/**
 * What tabs tell each other. Of an event that has no id of its own the id is null.
 *
 * @typedef {{ kind: "hello" } | { kind: "reconnect" } |
 *   { kind: "events", events: [type: string, data: string, id: string | null][] } |
 *   { kind: "status", status: Status, lastEventId: string }} Said
 */

/**
 * @typedef {object} Sharing
 * @property {string} [name] tabs with the same share a stream: the url, unless given
 * @property {LockManager} [locks]
 * @property {typeof BroadcastChannel} [BroadcastChannel]
 */

export class SharedSSE {
  /** @type {Status} */
  status = IDLE;
  /** The position of the last event that this tab has seen. */
  lastEventId;

  #url;
  #options;
  #name;
  #locks;
  #Channel;
  #listeners = new Listeners();
  /** @type {Set<(status: Status) => void>} */
  #watchers = new Set();
  /** @type {BroadcastChannel | undefined} */
  #channel;
  /** Ends the wait for the lock, or the holding of it. @type {AbortController | undefined} */
  #membership;
  /** Of the leader. @type {SSEClient | undefined} */
  #client;
  /** What the others are to be told. @type {[type: string, data: string, id: string | null][]} */
  #pending = [];

  /**
   * @param {string | ((client: SharedSSE) => string | Promise<string>)} url as an {@link SSEClient} takes it; the id in
   *   `client.status.client` is that of the stream so far, also if another tab held it
   * @param {Options & Sharing} [options]
   */
  constructor(url, { name, locks = globalThis.navigator?.locks, BroadcastChannel = globalThis.BroadcastChannel, ...options } = {}) {
    this.#url = url;
    this.#options = options;
    this.#name = `sse-shared ${name ?? url}`;
    this.#locks = locks;
    this.#Channel = BroadcastChannel;
    this.lastEventId = options.lastEventId ?? "";
  }

  /** Whether this tab holds the stream. */
  get isLeader() {
    return this.#client !== undefined;
  }

  /** Whether events are held up, as the hub has told the tab that holds the stream. */
  get degraded() {
    return this.status.degraded;
  }

  /** @param {string} type @param {(message: Message) => void} listener */
  on(type, listener) {
    return this.#listeners.add(type, listener);
  }

  /** @param {(status: Status) => void} watcher */
  onStatus(watcher) {
    this.#watchers.add(watcher);
    return () => void this.#watchers.delete(watcher);
  }

  /** Takes part: follows the leader, or becomes it. */
  open() {
    if (this.#membership) return;
    const membership = new AbortController();
    this.#membership = membership;
    globalThis.addEventListener?.("pagehide", this.#onPageHide);
    if (!this.#locks || !this.#Channel) return this.#lead();
    this.#channel = new this.#Channel(this.#name);
    this.#channel.onmessage = ({ data }) => this.#hear(data);
    this.#tell({ kind: "hello" });
    const { signal } = membership;
    const held = () => new Promise((release) => {
      signal.addEventListener("abort", release);
      if (signal.aborted) release(undefined);
      else this.#lead();
    });
    this.#locks.request(this.#name, { signal }, held).catch(() => {
      if (signal.aborted) return;
      // There are no locks for a page of this kind: what other tabs say of their streams is not about this one.
      this.#channel?.close();
      this.#channel = undefined;
      this.status = IDLE;
      this.#lead();
    });
    // As long as nobody has answered, it waits.
    if (this.status.state !== "connecting") this.#setStatus({ ...this.status, state: "connecting", reason: "", detail: "" });
  }

  /** Asks anew, whoever holds the stream. */
  reconnect() {
    if (this.#client) this.#client.reconnect();
    else if (this.#membership) this.#tell({ kind: "reconnect" });
    else this.open();
  }

  /** Takes no part any more. The others go on. */
  close() {
    if (!this.#membership) return;
    this.#leave();
    this.#setStatus({ ...this.status, state: "closed", reason: "close", detail: "", retryAt: undefined });
  }

  #leave() {
    globalThis.removeEventListener?.("pagehide", this.#onPageHide);
    const client = this.#client;
    this.#client = undefined;
    client?.close();
    this.#flush();
    this.#channel?.close();
    this.#channel = undefined;
    this.#membership?.abort();
    this.#membership = undefined;
  }

  #lead() {
    const url = this.#url;
    const client = new SSEClient(typeof url === "function" ? () => url(this) : url, { ...this.#options, lastEventId: this.lastEventId });
    this.#client = client;
    let before = this.lastEventId;
    const take = (/** @type {Message} */ message) => {
      if (this.#client !== client) return;
      const id = message.id === before ? null : message.id;
      before = message.id;
      if (this.#pending.length === 0) queueMicrotask(() => this.#flush());
      this.#pending.push([message.type, message.data, id]);
      this.#deliver(message.type, message.data, id);
    };
    client.on("*", take);
    for (const type of ["open", "gap", "refused", "end", "error", "degraded"]) client.on(`hub:${type}`, take);
    client.onStatus((own) => {
      if (this.#client !== client) return;
      // Until it is open, the client is who it was in the tab before.
      const status = { ...own, client: own.client || this.status.client };
      this.#flush();
      this.#tell({ kind: "status", status, lastEventId: this.lastEventId });
      this.#setStatus(status);
    });
    client.open();
  }

  /** @param {Said} said */
  #tell(said) {
    this.#channel?.postMessage(said);
  }

  #flush() {
    if (this.#pending.length === 0) return;
    this.#tell({ kind: "events", events: this.#pending });
    this.#pending = [];
  }

  /** @param {Said} said */
  #hear(said) {
    if (this.#client) {
      // What a leader before this one has told late comes again by the stream.
      if (said.kind === "hello") {
        this.#flush();
        this.#tell({ kind: "status", status: this.status, lastEventId: this.lastEventId });
      } else if (said.kind === "reconnect") {
        this.#client.reconnect();
      }
    } else if (said.kind === "events") {
      for (const [type, data, id] of said.events) this.#deliver(type, data, id);
    } else if (said.kind === "status") {
      if (!this.lastEventId) this.lastEventId = said.lastEventId;
      this.#setStatus(said.status);
    }
  }

  /** @param {string} type @param {string} data @param {string | null} id */
  #deliver(type, data, id) {
    if (id !== null) {
      const isNews = isAfter(id, this.lastEventId);
      if (!isNews && !type.startsWith("hub:")) return;
      // Of a position that the hub does not know nothing follows.
      if (isNews || (type === "hub:gap" && data.includes('"unknown"'))) this.lastEventId = id;
    }
    this.#listeners.tell(new Message(type, data, this.lastEventId));
  }

  /** @param {Status} status */
  #setStatus(status) {
    this.status = Object.freeze(status);
    for (const watcher of [...this.#watchers]) call(watcher, status);
  }

  // A page that is kept for the way back must neither lead nor follow.
  #onPageHide = (/** @type {Event} */ event) => {
    if (!(/** @type {PageTransitionEvent} */ (event).persisted)) return;
    this.#leave();
    globalThis.addEventListener("pageshow", () => this.open(), { once: true });
  };
}

/** Whether an id of a hub, `a-b`, comes after another. Ids of other servers are only told apart. @param {string} id @param {string} other */
function isAfter(id, other) {
  const [form, [a = "", b = ""], [c = "", d = ""]] = [/^\d+-\d+$/, id.split("-"), other.split("-")];
  if (!form.test(id) || !form.test(other)) return id !== other;
  return (compare(a, c) || compare(b, d)) > 0;
}

/** Compares numbers of up to 64 bits, which have no leading zeros. @param {string} a @param {string} b */
function compare(a, b) {
  return a.length - b.length || (a < b ? -1 : a > b ? 1 : 0);
}
