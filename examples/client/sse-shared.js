// SPDX-FileCopyrightText: The sse-hub contributors
// SPDX-License-Identifier: MIT OR Apache-2.0

/**
 * One stream for all tabs of a browser. One tab, the leader, holds the stream and passes its events
 * to the other tabs, the followers.
 *
 * Use {@link SharedSSE} where many tabs are open: a browser allows six connections per origin over
 * HTTP/1.1, and a hub counts each stream against its limits. The methods are those of
 * {@link SSEClient}, without `join` and `leave`: the tabs may follow different topics.
 *
 * ```js
 * const client = new SharedSSE("/events", { name: `events of ${user}`, headers });
 * ```
 *
 * # Which tabs share
 *
 * Tabs with the same `name` share a stream, so the name must contain everything that selects the
 * events: the user, and the topics if tabs differ in them. Without a name, tabs with the same url,
 * method, credentials and mode share. If the url is a function, or `headers` or a `body` are given,
 * the constructor throws a {@link NameRequiredError} unless there is a name: the tabs of two users
 * could share.
 *
 * # Handing over
 *
 * The tab that holds the Web Lock is the leader. When the leader closes or crashes, another tab
 * gets the lock and resumes from its own position. Followers also ask a leader that was quiet for 3
 * seconds for a sign of life. If the leader does not answer, because the page is in a loop or behind
 * `alert()`, a follower steals the lock. The old leader becomes a follower when the page wakes.
 * Events that two leaders sent are delivered once.
 *
 * # Joining and returning
 *
 * Each tab keeps the last 1,000 events, up to a million characters. A tab that joins with a
 * position (`lastEventId`, or because the tab returns from `close()` or from the back-forward cache)
 * gets the events after that position from the leader. If the leader no longer has these events,
 * the tab gets a local `hub:gap` with the reason `shared`: the page must fetch its state again.
 *
 * A tab that joins without a position gets the snapshot that the stream began with, if there was
 * one, and the events since; or the gap, if the leader no longer has the snapshot. If there was no
 * snapshot, the tab starts with the next event.
 *
 * # Limits
 *
 * - Positions are ordered if the ids have the form of a hub (`7-12`). Other ids are only compared
 *   for equality: after a change of leader, a tab that is not at the leader's position gets the
 *   gap.
 * - `mode: "native"` delivers only types that a tab listens for. The leader listens for the types
 *   of all tabs; a tab that returns with a type that is new to the leader gets the gap.
 * - Without Web Locks or `BroadcastChannel` (a page without https) each tab has a stream of its
 *   own.
 *
 * @module
 */
import { HUB_EVENTS, IDLE, Listeners, Message, SSEClient, call } from "./sse-client.js";

/** @typedef {import("./sse-client.js").Status} Status */
/** @typedef {import("./sse-client.js").Options} Options */

/**
 * An event on the channel. The id is null if the event does not move the position.
 *
 * @typedef {[type: string, data: string, id: string | null]} Told
 */

/**
 * The leader's state, sent with each of its messages except `events`.
 *
 * @typedef {object} Standing
 * @property {number} term grows with each change of leader. Followers ignore messages with a lower
 *   term
 * @property {string} leader
 * @property {number} next the serial of the leader's next event
 * @property {Status} status
 * @property {string} position
 * @property {number} since the number of events after `position` that have no id
 * @property {boolean} hasSnapshot
 */

/**
 * The messages on the channel. `hello` asks for the events after a place, and for a sign of life.
 *
 * @typedef {{ kind: "hello", from: string, position: string, since: number, isFresh: boolean, types: string[] }} Hello
 * @typedef {{ kind: "events", term: number, leader: string, serial: number, events: Told[] }} Events
 * @typedef {{ kind: "status", isFinal: boolean } & Standing} Announcement
 * @typedef {{ kind: "welcome", to: string, fate: "follows" | "ahead" | "gap", events: Told[], types: string[] } & Standing} Welcome
 * @typedef {Hello | { kind: "types", types: string[] } | { kind: "reconnect" } | Events | Announcement | Welcome} Said
 */

/**
 * @typedef {object} Sharing
 * @property {string} [name] tabs with the same name share a stream. Required if the url is a
 *   function, or if `headers` or `body` are given. Default: the url
 * @property {LockManager} [locks]
 * @property {typeof BroadcastChannel} [BroadcastChannel]
 */

/** A follower asks a leader that was quiet for this many milliseconds for a sign of life. */
const QUIET = 3000;
/**
 * The milliseconds that a follower waits for the answer. A follower takes over if two questions
 * remain without an answer; without a position, if three do.
 */
const PATIENCE = 1500;
/** The milliseconds in which a page that slept reads the messages that waited for it. */
const WAKING = 100;
/**
 * After this many milliseconds, a tab whose position stays ahead of the leader's is taken to be of
 * another order of ids.
 */
const AHEAD = 10_000;
/** The limits of the backlog of each tab: events, and characters. */
const MOST_EVENTS = 1000;
const MOST_CHARACTERS = 1_000_000;
/** The cost of an event of the backlog besides the texts, in characters. */
const OVERHEAD = 100;
/**
 * A term is a time in milliseconds. A term further ahead of the clock is malformed: no later term
 * could exceed it.
 */
const FARTHEST_TERM = 365 * 86_400_000;

const STATES = ["idle", "connecting", "open", "retrying", "closed"];
const FORWARDED = ["*", ...HUB_EVENTS];
/** The position of a stream that is receiving its snapshot. */
const ORIGIN = "0-0";
const LOCAL_GAP = '{"reason":"shared"}';

/**
 * Thrown by the constructor of {@link SharedSSE} if the options do not tell which tabs may share a
 * stream.
 */
export class NameRequiredError extends TypeError {
  /** @param {string} why */
  constructor(why) {
    super(`SharedSSE needs the option \`name\` because ${why}: give each user's stream a name, such as \`events of \${user}\``);
    this.name = "NameRequiredError";
  }
}

export class SharedSSE {
  /** @type {Status} */
  status = IDLE;
  /** The position of the last event that this tab received. */
  lastEventId;

  #url;
  #options;
  #name;
  #locks;
  #Channel;
  #listeners = new Listeners();
  /** @type {Set<(status: Status) => void>} */
  #watchers = new Set();
  /** The types that any tab listens for; filled in native mode only. @type {Set<string>} */
  #types = new Set();
  #tab = randomName();
  /**
   * The object changes with each `open()`; undefined while the tab takes no part.
   *
   * @type {object | undefined}
   */
  #membership;
  /** Whether the page is in the back-forward cache, and must join again when it is shown. */
  #isSuspended = false;
  /** @type {BroadcastChannel | undefined} */
  #channel;
  /**
   * The place in the queue for the lock, or the lock.
   *
   * @type {{ isHeld: boolean, giveUp: () => void } | undefined}
   */
  #claim;
  /** The leader's client. Undefined in a follower. @type {SSEClient | undefined} */
  #client;
  #backlog;

  /** The greatest term that this tab knows of, and its leader. */
  #term = 0;
  #leader = "";
  /**
   * The leader before, while its last messages may still arrive.
   *
   * @type {{ term: number, leader: string, next: number } | undefined}
   */
  #former;
  /**
   * The serial of the leader's next event. Undefined while this tab waits for a welcome.
   *
   * @type {number | undefined}
   */
  #next;
  /**
   * Whether this tab has ever received the leader's place or led. Without that, an empty position
   * means "from now on".
   */
  #hasJoined = false;
  #isFresh = true;
  /**
   * When this tab began to drop events that are not after its position; undefined if it drops none.
   *
   * @type {number | undefined}
   */
  #skipsSince;

  /**
   * Whether this tab must be told a gap as soon as the leader, which has no position yet, has one.
   */
  #owesGap = false;

  /** The name of the last `hello` that was not answered. */
  #asked = "";
  #asks = 0;
  /** The number of `hello`s since the leader was heard. */
  #unanswered = 0;
  #heardAt = 0;
  #dueAt = 0;
  /** @type {any} */
  #timer;

  /** The leader's events that were not sent to the followers yet. @type {Told[]} */
  #pending = [];
  /** The number of events that this leader has sent. */
  #sent = 0;
  /** The position of the leader's client before the event under way. */
  #before = "";

  /**
   * @param {string | ((client: SharedSSE) => string | Promise<string>)} url as for {@link SSEClient}. `client.status.client`
   *   is the id of the shared stream, also if another tab held the stream
   * @param {Options & Sharing} [options]
   */
  constructor(url, { name, locks = globalThis.navigator?.locks, BroadcastChannel = globalThis.BroadcastChannel, ...options } = {}) {
    this.#url = url;
    this.#options = options;
    const isNative = options.mode === "native";
    // Streams of the two modes do not deliver the same types.
    this.#name = `sse-shared 2${isNative ? " native" : ""} ${name || defaultName(url, options)}`;
    this.#locks = locks;
    this.#Channel = BroadcastChannel;
    this.lastEventId = options.lastEventId ?? "";
    this.#backlog = new Backlog(this.lastEventId);
  }

  /** Whether this tab holds the stream. */
  get isLeader() {
    return this.#client !== undefined;
  }

  /** Whether the hub has announced that events are delayed. */
  get degraded() {
    return this.status.degraded;
  }

  /**
   * Listens for events of a type, or for all application events with `*`. Returns a function that
   * removes the listener.
   *
   * @param {string} type @param {(message: Message) => void} listener
   */
  on(type, listener) {
    if (this.#learn([type])) this.#post({ kind: "types", types: [type] });
    return this.#listeners.add(type, listener);
  }

  /**
   * Calls `watcher` with each change of `status`. Returns a function that removes it.
   *
   * @param {(status: Status) => void} watcher
   */
  onStatus(watcher) {
    this.#watchers.add(watcher);
    return () => void this.#watchers.delete(watcher);
  }

  /**
   * Joins the other tabs: follows the leader, or becomes the leader. If the stream is closed, asks
   * for it again.
   */
  open() {
    if (this.#isSuspended) return;
    if (this.#membership) {
      if (this.status.state === "closed") this.reconnect();
      return;
    }
    this.#membership = {};
    globalThis.addEventListener?.("pagehide", this.#onPageHide);
    globalThis.addEventListener?.("pageshow", this.#onPageShow);
    if (!this.#locks || !this.#Channel) return this.#lead();
    this.#channel = new this.#Channel(this.#name);
    this.#channel.onmessage = ({ data }) => this.#hear(data);
    this.#isFresh = this.lastEventId === "" && !this.#hasJoined;
    this.#follow();
    // The state is unknown until another tab answers.
    if (this.status.state !== "connecting") this.#setStatus({ ...this.status, state: "connecting", reason: "", detail: "" });
  }

  /** Asks the server again, whichever tab holds the stream. */
  reconnect() {
    if (this.#client) this.#client.reconnect();
    else if (this.#membership) this.#post({ kind: "reconnect" });
    else this.open();
  }

  /** Leaves. The other tabs keep the stream. */
  close() {
    if (!this.#membership && !this.#isSuspended) return;
    this.#leave();
    this.#setStatus({ ...this.status, state: "closed", reason: "close", detail: "", retryAt: undefined });
  }

  #leave() {
    globalThis.removeEventListener?.("pagehide", this.#onPageHide);
    globalThis.removeEventListener?.("pageshow", this.#onPageShow);
    this.#isSuspended = false;
    this.#membership = undefined;
    this.#flush();
    this.#retire();
    this.#channel?.close();
    this.#channel = undefined;
    this.#clearTimer();
    this.#asked = "";
    this.#owesGap = false;
    this.#next = this.#former = undefined;
  }

  /** Moves the position by ids that came without an event. */
  #catchUp() {
    const position = this.#client?.lastEventId;
    if (position === undefined || position === this.#before || !isAfter(position, this.lastEventId)) return;
    this.#before = position;
    this.#adopt(position, 0);
  }

  /** Ends the stream of this tab, and gives up the lock or the place in the queue. */
  #retire() {
    this.#catchUp();
    const client = this.#client;
    const claim = this.#claim;
    this.#client = this.#claim = undefined;
    this.#pending = [];
    client?.close();
    claim?.giveUp();
  }

  /* ---------- the lock ---------- */

  #follow() {
    this.#next = undefined;
    this.#unanswered = 0;
    this.#heardAt = this.#now();
    this.#dueAt = Infinity;
    this.#queue({});
    if (this.#client || !this.#channel) return;
    this.#ask();
    this.#watch(PATIENCE);
  }

  /** Waits for the lock, or steals it. @param {{ steal?: boolean }} how */
  #queue(how) {
    this.#claim?.giveUp();
    const queued = new AbortController();
    const claim = { isHeld: false, giveUp: () => queued.abort() };
    this.#claim = claim;
    const held = () => new Promise((release) => {
      claim.giveUp = () => release(undefined);
      if (this.#claim !== claim) return release(undefined);
      claim.isHeld = true;
      // After a sleep, the notice that the lock is stolen may still wait.
      if (this.#now() - this.#dueAt > PATIENCE) this.#later(() => this.#lead(), WAKING);
      else this.#lead();
    });
    // Browsers refuse a signal together with `steal`.
    const request = async () => this.#locks?.request(this.#name, how.steal ? how : { signal: queued.signal }, held);
    request().catch(() => {
      if (this.#claim !== claim) return;
      if (claim.isHeld) this.#stepDown();
      else this.#standAlone();
    });
  }

  /** Another tab has stolen the lock while this tab did nothing. */
  #stepDown() {
    this.#retire();
    this.#follow();
  }

  /** This kind of page has no locks, so messages of other tabs are not about its stream. */
  #standAlone() {
    this.#channel?.close();
    this.#channel = undefined;
    if (!this.#hasJoined || this.#isFresh) this.#adopt(this.#options.lastEventId ?? "", 0);
    this.status = IDLE;
    this.#lead();
  }

  #lead() {
    this.#clearTimer();
    this.#term = Math.max(Math.floor(this.#now()), this.#term + 1);
    this.#leader = this.#tab;
    this.#asked = "";
    this.#owesGap = false;
    this.#next = this.#former = undefined;
    this.#sent = 0;
    this.#isFresh = false;
    this.#hasJoined = true;
    this.#before = this.lastEventId;
    const url = this.#url;
    const client = new SSEClient(typeof url === "function" ? () => url(this) : url, { ...this.#options, lastEventId: this.lastEventId });
    this.#client = client;
    for (const type of FORWARDED) client.on(type, (message) => this.#take(client, message));
    for (const type of this.#types) client.on(type, () => {});
    client.onStatus((own) => {
      if (this.#client !== client) return;
      // Until the stream is open, the client id is that of the stream before.
      const status = { ...own, client: own.client || this.status.client };
      this.#flush();
      this.#post({ kind: "status", isFinal: false, ...this.#standing(status) });
      this.#setStatus(status);
    });
    client.open();
  }

  /* ---------- the leader ---------- */

  /** @param {SSEClient} client @param {Message} message */
  #take(client, { type, data }) {
    if (this.#client !== client) return;
    const position = client.lastEventId;
    const isReset = resets(type, data);
    const own = isReset || position !== this.#before ? position : null;
    this.#before = position;
    // The hub resumes from the position that it was asked for, or before. A stream that did not
    // resume is not filtered.
    if (type === "hub:open" && !isReset) this.#skipsSince = this.#now();
    let id = this.#admit(type, data, own, isReset);
    if (id === undefined) {
      if (!this.#hasSkippedLong()) return;
      // The ids are of another order than the position.
      [type, data, id] = ["hub:gap", LOCAL_GAP, position];
      this.#admit(type, data, id, true);
    }
    if (this.#pending.length === 0) queueMicrotask(() => this.#flush());
    this.#pending.push([type, data, id]);
    this.#tell(type, data);
    if (this.#client !== client || type !== "hub:end") return;
    const { final, reason } = parse(data);
    if (final === true) this.#finish({ ...this.status, state: "closed", reason: type, detail: String(reason ?? ""), retryAt: undefined });
  }

  /** The server will send no more: closes the stream of all tabs. @param {Status} status */
  #finish(status) {
    this.#flush();
    if (this.#client) this.#post({ kind: "status", isFinal: true, ...this.#standing(status) });
    this.#leave();
    this.#setStatus(status);
  }

  #flush() {
    const events = this.#pending;
    if (events.length === 0) return;
    this.#pending = [];
    this.#post({ kind: "events", term: this.#term, leader: this.#leader, serial: this.#sent, events });
    this.#sent += events.length;
  }

  /** @param {Status} status @returns {Standing} */
  #standing(status) {
    const { position, since, hasSnapshot } = this.#backlog;
    return { term: this.#term, leader: this.#leader, next: this.#sent, status, position, since, hasSnapshot };
  }

  /** Answers with the events after the follower's place. @param {Hello} hello */
  #welcome({ from, position, since, isFresh, types }) {
    this.#flush();
    this.#catchUp();
    const hasNewTypes = this.#learn(types);
    const backlog = this.#backlog;
    let events = isFresh ? backlog.fromSnapshot() : backlog.after(position, since);
    // The tab waits for a gap or a snapshot that the leader's stream does not have.
    if (isFresh && position !== "" && events?.length === 0) events = undefined;
    // The stream did not carry these types so far.
    if (hasNewTypes && !isFresh && position !== backlog.position) events = undefined;
    const fate = events === undefined ? "gap" : events === "ahead" ? "ahead" : "follows";
    this.#post({
      kind: "welcome", to: from, fate, events: Array.isArray(events) ? events : [], types: [...this.#types], ...this.#standing(this.status),
    });
  }

  /* ---------- the channel ---------- */

  /** @param {Said} said */
  #post(said) {
    this.#channel?.postMessage(said);
  }

  /** Any script of the origin can post on the channel. @param {unknown} data */
  #hear(data) {
    const said = read(data);
    if (!said) return;
    if (said.kind === "types") this.#learn(said.types);
    else if (said.kind === "reconnect") this.#client?.reconnect();
    else if (said.kind === "hello") {
      if (this.#client) return this.#welcome(said);
      this.#learn(said.types);
      // This tab waits for the same sign of life.
      if (this.#unanswered > 0) return;
      this.#unanswered = 1;
      this.#watch(PATIENCE);
    } else {
      this.#hearLeader(said);
    }
  }

  /** @param {Events | Announcement | Welcome} said */
  #hearLeader(said) {
    const { term, leader } = said;
    if (term > this.#now() + FARTHEST_TERM || leader === this.#tab) return;
    if (term < this.#term || (term === this.#term && leader < this.#leader)) return this.#hearFormer(said);
    if (term !== this.#term || leader !== this.#leader) {
      if (this.#client) this.#stepDown();
      if (this.#next !== undefined) this.#former = { term: this.#term, leader: this.#leader, next: this.#next };
      this.#term = term;
      this.#leader = leader;
      this.#next = undefined;
      this.#owesGap = false;
      // The new leader may not have heard the question.
      if (said.kind !== "welcome" || said.to !== this.#asked) this.#asked = "";
    }
    this.#unanswered = 0;
    this.#heardAt = this.#now();
    if (said.kind === "events") this.#hearEvents(said);
    else this.#hearStanding(said);
  }

  /** @param {Events} said */
  #hearEvents({ serial, events }) {
    // The welcome will contain these events.
    if (this.#next === undefined) return this.#asked ? undefined : this.#ask();
    if (serial !== this.#next || this.#hasSkippedLong()) return this.#askForDifference();
    this.#next += events.length;
    this.#receive(events);
  }

  /** @param {Announcement | Welcome} said */
  #hearStanding(said) {
    const { position, since, next } = said;
    const membership = this.#membership;
    const isMine = said.kind === "welcome" && said.to === this.#asked;
    const isFinal = said.kind === "status" && said.isFinal;
    if (isFinal) {
      if (this.#next !== next) this.#lose(position, since);
      if (this.#membership === membership) this.#finish(said.status);
      return;
    }
    this.#setStatus(said.status);
    if (this.#membership !== membership || this.#client) return;
    if (isMine) this.#asked = "";
    if (this.#next === undefined && isMine) return this.#join(said);
    if (this.#next === undefined) {
      // A new leader at this tab's place needs no welcome.
      const isHere = position === this.lastEventId && since === this.#backlog.since;
      if (isHere && position !== ORIGIN && !this.#isFresh) this.#next = next;
      else if (!this.#asked) this.#ask();
      return;
    }
    if (this.#next !== next) return this.#askForDifference();
    if (this.#owesGap) {
      if (position !== "") this.#lose(position, since);
    } else if (this.#skipsSince === undefined) this.#adopt(position, since);
    else if (isMine && said.fate === "ahead" && this.#hasSkippedLong()) this.#lose(position, since);
  }

  /** @param {Welcome} said */
  #join({ fate, events, types, position, since, next, hasSnapshot }) {
    const membership = this.#membership;
    this.#learn(types);
    this.#next = next;
    this.#isFresh = false;
    this.#hasJoined = true;
    if (fate === "gap" && position === "") {
      // A page that fetched its state now could miss what comes before the leader's stream is open.
      this.#owesGap = true;
    } else if (fate === "gap") {
      this.#lose(position, since);
    } else if (fate === "ahead") {
      if (this.#hasSkippedLong()) this.#lose(position, since);
      else this.#skipsSince ??= this.#now();
    } else {
      // The leader knows this tab's place, so all of these are news.
      this.#skipsSince = undefined;
      this.#receive(events);
      if (this.#membership !== membership) return;
      this.#adopt(position, since);
    }
    this.#backlog.hasSnapshot = hasSnapshot;
  }

  /**
   * Takes the last events of the leader before, which the new leader will repeat.
   *
   * @param {Events | Announcement | Welcome} said
   */
  #hearFormer(said) {
    const former = this.#former;
    if (this.#client || this.#owesGap || said.kind !== "events" || former?.leader !== said.leader || former.term !== said.term) return;
    const { serial, events } = said;
    const isNews = events.every(([type, , id]) => id !== null && !isOfStream(type) && isAfter(id, this.lastEventId));
    if (serial !== former.next || !isNews) return;
    former.next += events.length;
    this.#receive(events);
    this.#former = former;
    this.#skipsSince ??= this.#now();
    // A welcome for the place before would repeat these events.
    if (this.#asked) this.#askForDifference();
  }

  /** Says hello: asks for a sign of life, and for the events after this tab's place. */
  #ask() {
    this.#unanswered += 1;
    this.#asked = `${this.#tab} ${(this.#asks += 1)}`;
    const { position, since } = this.#backlog;
    // Each snapshot has the same places, so a tab within a snapshot needs all of it.
    const isFresh = this.#isFresh || position === ORIGIN;
    this.#post({ kind: "hello", from: this.#asked, position, since, isFresh, types: [...this.#types] });
  }

  #askForDifference() {
    this.#next = undefined;
    this.#ask();
  }

  /* ---------- events ---------- */

  /** @param {Told[]} events */
  #receive(events) {
    const membership = this.#membership;
    for (const [type, data, id] of events) {
      // A listener may leave. The position says which events are missing when the tab returns.
      if (this.#membership !== membership) return;
      const isReset = resets(type, data);
      const owesGap = this.#owesGap;
      if (owesGap && isReset) this.#backlog.clear();
      else if (owesGap) this.#lose("", 0);
      if (this.#membership !== membership) return;
      this.#owesGap = false;
      if (this.#admit(type, data, id, isReset) === undefined) continue;
      this.#former = undefined;
      this.#tell(type, data);
      // Without a snapshot, the gap is told; also if the listener has left, because the position
      // has moved.
      if (owesGap && type === "hub:open" && id !== ORIGIN) this.#tell("hub:gap", LOCAL_GAP);
    }
  }

  /**
   * Records an event. Returns the id if the event moves the position, null if it does not, and
   * undefined if this tab has received the event before.
   *
   * @param {string} type @param {string} data @param {string | null} id @param {boolean} isReset
   */
  #admit(type, data, id, isReset) {
    const backlog = this.#backlog;
    if (isReset) {
      this.#skipsSince = undefined;
    } else if (this.#skipsSince !== undefined && id !== null) {
      if (isAfter(id, backlog.position)) {
        this.#skipsSince = undefined;
      } else if (isOfStream(type)) {
        id = null;
      } else {
        if (id === backlog.position) {
          this.#skipsSince = undefined;
          backlog.since = 0;
        }
        return undefined;
      }
    }
    if (isReset || !isOfStream(type) || type === "hub:gap") backlog.push(type, data, id, isReset);
    else if (id !== null) backlog.move(id, 0);
    this.lastEventId = backlog.position;
    return id;
  }

  /** @param {string} type @param {string} data */
  #tell(type, data) {
    this.#listeners.tell(new Message(type, data, this.lastEventId));
  }

  /** Whether the leader's position has stayed behind this tab's for too long. */
  #hasSkippedLong() {
    const { state, degraded } = this.status;
    if (this.#skipsSince === undefined) return false;
    if (state !== "open" || degraded) this.#skipsSince = this.#now();
    return this.#now() - this.#skipsSince >= AHEAD;
  }

  /**
   * Tells a gap, and goes on from the leader's place.
   *
   * @param {string} position @param {number} since
   */
  #lose(position, since) {
    this.#backlog.clear();
    this.#skipsSince = this.#former = undefined;
    this.#owesGap = false;
    this.#adopt(position, since);
    this.#tell("hub:gap", LOCAL_GAP);
  }

  /** @param {string} position @param {number} since */
  #adopt(position, since) {
    this.#backlog.move(position, since);
    this.lastEventId = position;
  }

  /**
   * In native mode: adds types to those of all tabs. Returns whether any is new.
   *
   * @param {string[]} types
   */
  #learn(types) {
    if (this.#options.mode !== "native") return false;
    const fresh = types.filter((type) => type !== "*" && !type.startsWith("hub:") && !this.#types.has(type));
    for (const type of fresh) {
      this.#types.add(type);
      this.#client?.on(type, () => {});
    }
    return fresh.length > 0;
  }

  /** @param {Status} status */
  #setStatus(status) {
    this.status = Object.freeze(status);
    for (const watcher of [...this.#watchers]) call(watcher, status);
  }

  /* ---------- time ---------- */

  #now() {
    return (this.#options.environment?.now ?? Date.now)();
  }

  /**
   * Looks after the leader later. A random part keeps the followers from asking all at once.
   *
   * @param {number} ms
   */
  #watch(ms) {
    const { random = Math.random } = this.#options.environment ?? {};
    const wait = ms + (random() * ms) / 4;
    this.#dueAt = this.#now() + wait;
    this.#later(() => this.#look(), wait);
  }

  /** @param {() => void} callback @param {number} ms */
  #later(callback, ms) {
    this.#clearTimer();
    const { setTimeout = globalThis.setTimeout } = this.#options.environment ?? {};
    this.#timer = setTimeout(callback, ms);
  }

  #clearTimer() {
    const { clearTimeout = globalThis.clearTimeout } = this.#options.environment ?? {};
    clearTimeout(this.#timer);
  }

  #look() {
    const quiet = this.#now() - this.#heardAt;
    if (this.#unanswered === 0 && quiet < QUIET) return this.#watch(Math.min(QUIET - quiet, QUIET));
    // A page that slept must first read the waiting answers: ask once more.
    const isLate = this.#now() - this.#dueAt > PATIENCE;
    // A tab with a position goes first: it resumes the stream for all.
    const asks = this.#isFresh ? 3 : 2;
    if (this.#unanswered > asks || (this.#unanswered === asks && !isLate)) return this.#queue({ steal: true });
    this.#ask();
    this.#watch(PATIENCE);
  }

  /* ---------- the page ---------- */

  // A page in the back-forward cache must neither lead nor follow. A closed stream stays closed.
  #onPageHide = (/** @type {Event} */ event) => {
    if (!(/** @type {PageTransitionEvent} */ (event).persisted)) return;
    const isClosed = this.status.state === "closed";
    this.#leave();
    if (isClosed) return;
    this.#isSuspended = true;
    globalThis.addEventListener("pageshow", this.#onPageShow);
  };

  #onPageShow = () => {
    if (!this.#isSuspended) return;
    this.#isSuspended = false;
    this.open();
  };
}

/**
 * The last events of a tab, and its place: the position, and the number of events after it that
 * have no id.
 */
class Backlog {
  position;
  since = 0;
  /** Whether the stream began with a snapshot, also if the snapshot has left the backlog. */
  hasSnapshot = false;
  /**
   * Each event with the place before it.
   *
   * @type {{ told: Told, isReset: boolean, position: string, since: number }[]}
   */
  #entries = [];
  #characters = 0;

  /** @param {string} position */
  constructor(position) {
    this.position = position;
  }

  /**
   * @param {string} type @param {string} data @param {string | null} id @param {boolean} isReset
   */
  push(type, data, id, isReset) {
    const { position, since } = this;
    this.#entries.push({ told: [type, data, id], isReset, position, since });
    this.move(id ?? position, id === null ? since + 1 : 0);
    if (type === "hub:open") this.hasSnapshot = id === ORIGIN;
    this.#characters += cost(type, data);
    while (this.#characters > MOST_CHARACTERS || this.#entries.length > MOST_EVENTS) {
      const [first] = this.#entries.splice(0, 1);
      if (first) this.#characters -= cost(first.told[0], first.told[1]);
    }
  }

  /** @param {string} position @param {number} since */
  move(position, since) {
    this.position = position;
    this.since = since;
  }

  /** Forgets all events, and the place: no other place leads to the next event. */
  clear() {
    this.#entries = [];
    this.#characters = 0;
    this.move("", -1);
  }

  /**
   * Returns the events after a place, `ahead` if the place is after all of them, or undefined if
   * they are not all here.
   *
   * @param {string} position @param {number} since
   */
  after(position, since) {
    const entries = this.#entries;
    for (let at = entries.length; at >= 0; at -= 1) {
      const place = entries[at] ?? this;
      if (place.position === position && place.since === since) return this.#from(at);
    }
    if (!isOrdered(position)) return undefined;
    // No event has this id. Ids before a reset cannot be compared with ids after it.
    for (let at = entries.length; at >= 0 && !entries[at]?.isReset; at -= 1) {
      const place = entries[at] ?? this;
      // Within a snapshot no place is after another.
      if (place.position === ORIGIN) return undefined;
      if (!isOrdered(place.position) || isAfter(place.position, position)) continue;
      return at === entries.length && place.position !== position ? "ahead" : this.#from(at);
    }
    return undefined;
  }

  /**
   * Returns the snapshot and the events after it, none if there was no snapshot, or undefined if it
   * is no longer here.
   */
  fromSnapshot() {
    const entries = this.#entries;
    for (let at = entries.length - 1; at >= 0; at -= 1) {
      const [type, , id] = entries[at]?.told ?? [];
      if (type === "hub:open") return id === ORIGIN ? this.#from(at) : [];
    }
    return this.hasSnapshot ? undefined : [];
  }

  /** @param {number} at @returns {Told[]} */
  #from(at) {
    return this.#entries.slice(at).map(({ told }) => told);
  }
}

/** @param {string} type @param {string} data */
const cost = (type, data) => type.length + data.length + OVERHEAD;

/** Returns a name that tells tabs apart. */
const randomName = () => `${Math.random()}`;

/** Returns the name for tabs that were given none. @param {unknown} url @param {Options} options */
function defaultName(url, { headers, body, method = "GET", credentials = "same-origin" }) {
  if (typeof url !== "string") throw new NameRequiredError("the url is a function");
  if (headers) throw new NameRequiredError("`headers` are given");
  if (body !== undefined && body !== null) throw new NameRequiredError("a `body` is given");
  const more = `${method === "GET" ? "" : ` ${method}`}${credentials === "same-origin" ? "" : ` ${credentials}`}`;
  // A relative url names another resource in another folder.
  const base = globalThis.document?.baseURI ?? globalThis.location?.href;
  if (/^(\/|[a-z][a-z\d+.-]*:)/i.test(url) || !base) return `${url}${more}`;
  const { pathname, search } = new URL(url, base);
  return `${pathname}${search}${more}`;
}

/**
 * Whether the order of ids starts anew with this event, so that no position before can be compared.
 *
 * @param {string} type @param {string} data
 */
function resets(type, data) {
  if (type === "hub:open") return parse(data).resumed !== true;
  if (type !== "hub:gap") return false;
  const { reason } = parse(data);
  return reason === "unknown" || reason === "reset";
}

/**
 * Whether an event of the hub is about a single stream. The end of a run is not: the log has this
 * event, as those of the application, so a tab that missed the end receives it once.
 *
 * @param {string} type
 */
const isOfStream = (type) => type.startsWith("hub:") && type !== "hub:run-end";

/**
 * Returns the fields of an event of the hub; none if the data is no JSON.
 *
 * @param {string} data @returns {Record<string, unknown>}
 */
function parse(data) {
  try {
    return Object(JSON.parse(data));
  } catch {
    return {};
  }
}

/** Whether an id has the form of a hub's. @param {string} id */
const isOrdered = (id) => /^\d+-\d+$/.test(id);

/**
 * Whether an id comes after another. Ids of another form are only compared for equality.
 *
 * @param {string} id @param {string} other
 */
function isAfter(id, other) {
  if (!isOrdered(id) || !isOrdered(other)) return id !== other;
  const [[a = "", b = ""], [c = "", d = ""]] = [id.split("-"), other.split("-")];
  return (compare(a, c) || compare(b, d)) > 0;
}

/** Compares numbers of up to 64 bits without leading zeros. @param {string} a @param {string} b */
function compare(a, b) {
  return a.length - b.length || (a < b ? -1 : a > b ? 1 : 0);
}

/* ---------- reading messages ---------- */

/** @param {unknown} value */
const isText = (value) => typeof value === "string";
/** @param {unknown} value */
const isFlag = (value) => typeof value === "boolean";
/** @param {unknown} value */
const isCount = (value) => Number.isSafeInteger(value) && Number(value) >= 0;
/** @param {unknown} value */
const isTexts = (value) => Array.isArray(value) && value.every(isText);
/** @param {unknown} value */
const isTold = (value) => Array.isArray(value) && isText(value[0]) && isText(value[1]) && (value[2] === null || isText(value[2]));
/** @param {unknown} value */
const isToldList = (value) => Array.isArray(value) && value.every(isTold);

/** @param {unknown} value */
function isStatus(value) {
  const { state, reason, detail, client, resumed, retryAt, degraded } = Object(value);
  return STATES.includes(state) && [reason, detail, client].every(isText) && isFlag(degraded)
    && (resumed === undefined || isFlag(resumed)) && (retryAt === undefined || typeof retryAt === "number");
}

const LEADER = { term: isCount, leader: isText };
const STANDING = { ...LEADER, next: isCount, status: isStatus, position: isText, since: isCount, hasSnapshot: isFlag };

/**
 * The fields of each kind of message.
 *
 * @type {Record<string, Record<string, (value: unknown) => boolean>>}
 */
const SHAPES = {
  hello: { from: isText, position: isText, since: isCount, isFresh: isFlag, types: isTexts },
  types: { types: isTexts },
  reconnect: {},
  events: { ...LEADER, serial: isCount, events: isToldList },
  status: { ...STANDING, isFinal: isFlag },
  welcome: { ...STANDING, to: isText, fate: (value) => ["follows", "ahead", "gap"].includes(String(value)), events: isToldList, types: isTexts },
};

/**
 * Returns the message, or undefined if it is malformed.
 *
 * @param {unknown} data @returns {Said | undefined}
 */
function read(data) {
  const said = Object(data);
  const shape = Object.hasOwn(SHAPES, said.kind) ? SHAPES[said.kind] : undefined;
  return shape && Object.entries(shape).every(([field, fits]) => fits(said[field])) ? said : undefined;
}
