// SPDX-FileCopyrightText: The sse-hub contributors
// SPDX-License-Identifier: MIT OR Apache-2.0

/**
 * A client for Server-Sent Events that reconnects, resumes from the last event, and detects dead
 * connections.
 *
 * The module has no dependencies and needs no build step. The client works with every SSE server,
 * and handles the events of an sse-hub:
 *
 * | event | the client |
 * |---|---|
 * | `hub:open` | sets `client` and `resumed` in the status, and learns the heartbeat |
 * | `hub:gap` | does nothing by itself: the page must fetch its state again, unless `healed` is true |
 * | `hub:degraded` | sets `degraded` in the status |
 * | `hub:heartbeat` | takes the event as a sign of life |
 * | `hub:refused` | reconnects after the server's `retry:` |
 * | `hub:run-end` | does nothing by itself: a run of the stream has ended, `run` with its `reason` |
 * | `hub:end` | reconnects, or closes if the end is final or the reason is `displaced` |
 * | `hub:error` | closes |
 *
 * A listener for such a type gets the event. A listener for `*` does not.
 *
 * ```js
 * const client = new SSEClient("/events", {
 *   headers: () => ({ authorization: `Bearer ${token}` }),
 *   renew: async () => { token = await fetchToken(); },
 * });
 * client.on("order", (event) => show(event.json()));
 * client.on("hub:gap", () => fetchOrders());
 * client.onStatus(({ state, reason, degraded }) => draw(state, reason, degraded));
 * client.open();
 * ```
 *
 * {@link SSEClient} takes {@link Options} and reports its {@link Status}. {@link createParser} is
 * the parser alone. `sse-shared.js` shares one stream between tabs.
 *
 * # Reconnecting
 *
 * The client reconnects if a stream ends, fails, or is silent for too long. The delay is the
 * server's `retry:` plus a random part of a window, which doubles with each failure up to
 * `maxBackoff`. When the browser comes online or the page is shown, a waiting client reconnects at
 * once, but at most once per second, and not before a time that the server named. While the browser
 * reports that it is offline, the delay is one to five minutes: the report can be wrong.
 *
 * The client sends the id of the last event in the `Last-Event-ID` header, or in the query if
 * `lastEventIdParam` is set. A request cannot carry an id of more than about 2,000 characters, or
 * with control characters: the client then asks without a position.
 *
 * # Dead connections
 *
 * An sse-hub tells its heartbeat interval in `hub:open`. A stream without a byte for three
 * intervals is dead. For other servers the client learns the interval from comments, and waits for
 * three intervals, but at least 45 seconds. A server that sends no comments is not watched. If the
 * page is shown after more than one interval without a byte, the client resumes at once.
 *
 * # Topics
 *
 * With the option `topics`, `join` and `leave` change the topics of the open stream. If the stream's
 * address carries the client's id (`status.client`) and the server passes the id to
 * `Subscriber::client_id`, the hub keeps the topics across a reconnect, with the events in between,
 * and the client sends no request for a topic. If the hub did not resume the client, or gave it
 * another id, the client sends a request for each topic again. Events that were published to a topic
 * in between are then lost unless `last` replays them: clear the topic's list at such a `hub:open`,
 * as the replay may contain events that the page has.
 *
 * # Closing
 *
 * The client stops, with a reason in its status, if
 *
 * - the page calls `close()`, or the server answers 204;
 * - the hub ends the stream with `"final": true`, with `hub:error`, or because a newer client took
 *   over its id (two tabs would displace each other for ever);
 * - the server answers 401 or 403, and `renew` is missing or does not help;
 * - the server's first answer is another permanent status or is not an event stream. After a stream
 *   has been open, such an answer may be temporary, and is retried up to five times;
 * - an event is larger than `maxEventSize`, or `maxRetries` is reached.
 *
 * `open()` starts the client again.
 *
 * @module
 */

/** A received event. */
export class Message {
  /** @param {string} type @param {string} data @param {string} id */
  constructor(type, data, id) {
    /** The event type; `message` if the server sent no type. */
    this.type = type;
    /** The data; lines are joined by LF. */
    this.data = data;
    /** The id to resume from after this event; empty if the server has sent no id. */
    this.id = id;
  }

  /** Returns the data parsed as JSON. Throws if the data is not JSON. @returns {any} */
  json() {
    return JSON.parse(this.data);
  }
}

const DECODE = { stream: true };

/** The default limit on the size of an event, in characters: 16 MiB of ASCII. */
const MAX_EVENT_SIZE = 16 * 1024 * 1024;

/**
 * Parses an event stream by the rules of the WHATWG HTML standard, section 9.2.6.
 *
 * @param {(message: Message) => void} onMessage called with each event
 * @param {{ lastEventId?: string, maxEventSize?: number, onRetry?: (ms: number) => void,
 *   onId?: (id: string) => void, onComment?: () => void }} [options] `lastEventId` is the id before
 *   the first event. `onId` is called with the id after a block without data
 * @returns {(bytes: Uint8Array) => void} a function that takes the next bytes. Bytes may be split
 *   anywhere. It throws a `RangeError` if an event exceeds `maxEventSize` characters (16 Mi)
 */
export function createParser(onMessage, { lastEventId = "", maxEventSize = MAX_EVENT_SIZE, onRetry, onId, onComment } = {}) {
  // Removes one leading BOM, and keeps an incomplete character for the next call.
  const decoder = new TextDecoder();
  let begun = "";
  let endedInCr = false;
  let type = "";
  let data = "";
  let hasData = false;
  let id = lastEventId;
  /** Characters of the event's complete lines. */
  let size = 0;

  /** @param {number} more */
  function grow(more) {
    size += more;
    if (size > maxEventSize) throw new RangeError(`event exceeds ${maxEventSize} characters`);
  }

  /** @param {string} text @param {number} from @param {number} to */
  function takeLine(text, from, to) {
    if (from === to) return dispatch();
    const first = text.charCodeAt(from);
    if (first === 58 /* : */) return onComment?.();
    grow(to - from);
    // Nearly all lines have one of these three fields: do not create an intermediate string.
    if (isData(text, from)) return addData(text.slice(valueAt(text, from + 5), to));
    if (first === 105 /* i */ && text.startsWith("id:", from)) return setId(text.slice(valueAt(text, from + 3), to));
    if (first === 101 /* e */ && text.startsWith("event:", from)) {
      type = text.slice(valueAt(text, from + 6), to);
      return;
    }
    const line = text.slice(from, to);
    // A line without a colon is a field with an empty value.
    if (line === "data") addData("");
    else if (line === "event") type = "";
    else if (line === "id") setId("");
    else if (line.startsWith("retry:")) {
      const digits = line.slice(valueAt(line, 6));
      if (/^[0-9]+$/.test(digits)) onRetry?.(Number(digits));
    }
  }

  /** @param {string} line */
  function addData(line) {
    data = hasData ? `${data}\n${line}` : line;
    hasData = true;
  }

  /** @param {string} value */
  function setId(value) {
    if (!value.includes("\0")) id = value;
  }

  function dispatch() {
    size = 0;
    if (hasData) {
      hasData = false;
      emit(data);
    } else {
      type = "";
      onId?.(id);
    }
  }

  /** @param {string} whole */
  function emit(whole) {
    const message = new Message(type || "message", whole, id);
    type = "";
    onMessage(message);
  }

  return function push(bytes) {
    const text = decoder.decode(bytes, DECODE);
    if (text === "") return;
    let from = endedInCr && text.charCodeAt(0) === 10 ? 1 : 0;
    endedInCr = false;
    let lf = text.indexOf("\n", from);
    let cr = text.indexOf("\r", from);
    while (lf >= 0 || cr >= 0) {
      const isCr = cr >= 0 && (lf < 0 || cr < lf);
      const end = isCr ? cr : lf;
      if (begun === "") {
        // Fast path: the last line of an event with one data line.
        if (!isCr && !hasData && text.charCodeAt(end + 1) === 10 && isData(text, from)) {
          grow(end - from);
          size = 0;
          emit(text.slice(valueAt(text, from + 5), end));
          from = end + 2;
          lf = text.indexOf("\n", from);
          continue;
        }
        takeLine(text, from, end);
      } else {
        const line = begun + text.slice(from, end);
        begun = "";
        takeLine(line, 0, line.length);
      }
      from = end + 1;
      if (isCr) {
        endedInCr = from === text.length;
        if (lf === from) from += 1;
        cr = text.indexOf("\r", from);
      } else if (text.charCodeAt(from) === 10) {
        // A blank line follows. Most lines are short, and a search has a fixed cost.
        dispatch();
        from += 1;
      }
      if (lf < from) lf = text.indexOf("\n", from);
    }
    const rest = text.slice(from);
    // Do not keep the text of a comment: it may have no end.
    if (begun === "") begun = rest.charCodeAt(0) === 58 ? ":" : rest;
    else if (begun !== ":") begun += rest;
    if (size + begun.length > maxEventSize) grow(begun.length);
  };
}

/**
 * Whether a data line starts at `at`. `startsWith` makes parsing up to 20 % slower.
 *
 * @param {string} text @param {number} at
 */
function isData(text, at) {
  return (
    text.charCodeAt(at) === 100 && text.charCodeAt(at + 1) === 97 && text.charCodeAt(at + 2) === 116 &&
    text.charCodeAt(at + 3) === 97 && text.charCodeAt(at + 4) === 58
  );
}

/**
 * Returns the start of a field's value, after an optional space.
 *
 * @param {string} text @param {number} at
 */
function valueAt(text, at) {
  return text.charCodeAt(at) === 32 ? at + 1 : at;
}

/**
 * The state of a client. Each change creates a new frozen object.
 *
 * | `reason` | meaning | `detail` |
 * |---|---|---|
 * | `network` | the connection was refused or lost | the error's text |
 * | `eof` | the server ended the stream without an event | |
 * | `silent` | no byte arrived for too long | |
 * | `offline` | the browser is or was offline | |
 * | `http` | the server answered with this status | the status |
 * | `content-type` | the answer is not an event stream | its content type |
 * | `unauthorized` | 401 or 403: `connecting` while `renew` runs, then `closed` | the status |
 * | `no-data` | `open`: the response has begun, but no byte has arrived yet | |
 * | `buffered` | no byte arrived on three streams in a row: a proxy may hold responses back | |
 * | `too-large` | an event exceeds `maxEventSize` | the limit |
 * | `hub:refused`, `hub:end`, `hub:error` | the hub sent this event | its reason, as `full` |
 * | `reconnect`, `close` | the page called this method | |
 *
 * @typedef {object} Status
 * @property {"idle" | "connecting" | "open" | "retrying" | "closed"} state
 * @property {string} reason the cause of the last change; empty for a working stream
 * @property {string} detail
 * @property {string} client the client's id in the hub; kept after the stream has ended
 * @property {boolean | undefined} resumed whether the hub resumed at the last event; undefined if
 *   the server is not a hub
 * @property {number | undefined} retryAt the time of the next attempt, as `Date.now` counts
 * @property {boolean} degraded true while the hub reports that events are delayed
 */

/**
 * The functions and objects of the browser that the client uses. Tests replace them.
 *
 * @typedef {object} Environment
 * @property {(url: string, init: RequestInit) => Promise<Response>} fetch
 * @property {(callback: () => void, ms: number) => any} setTimeout
 * @property {(handle: any) => void} clearTimeout
 * @property {() => number} now
 * @property {() => number} random a number of at least 0 and less than 1
 * @property {() => boolean} isOffline whether the browser reports that it has no network
 * @property {typeof EventSource | undefined} EventSource
 * @property {Pick<EventTarget, "addEventListener" | "removeEventListener"> | undefined} window
 *   dispatches `online` and `offline`
 * @property {(Pick<EventTarget, "addEventListener" | "removeEventListener"> & { hidden: boolean })
 *   | undefined} document
 */

/**
 * @typedef {object} Options
 * @property {"fetch" | "native"} [mode] `native` uses the browser's `EventSource`: no headers, no
 *   status codes, and only event types with a listener. The browser repeats requests itself; if the
 *   browser gives up, the client creates a new `EventSource`, with the position in the query.
 *   Silence is detected only if the hub's heartbeats are visible events. Default: `fetch`
 * @property {string} [method] default: GET
 * @property {BodyInit} [body] sent with each request; must not be a stream, which is readable once
 * @property {HeadersInit | (() => HeadersInit | Promise<HeadersInit>)} [headers] a function is
 *   called for each request
 * @property {RequestCredentials} [credentials]
 * @property {string} [lastEventId] the position to resume from with the first request
 * @property {string} [lastEventIdParam] the query parameter for the position, in place of the
 *   header. Native mode always uses the query; default there: `lastEventId`
 * @property {boolean} [reconnect] false: the client closes when its stream ends. Default: true
 * @property {number} [maxRetries] the client closes if so many retries in a row fail. A stream that
 *   is open for ten seconds resets the count. Default: no limit
 * @property {(status: number) => unknown} [renew] renews the credentials after a 401 or 403. It
 *   fails if it returns or resolves to false, or throws
 * @property {number} [backoff] the first window of the random delay, in milliseconds. Default: 1000
 * @property {number} [maxBackoff] the largest window, in milliseconds. Default: 30 000
 * @property {number} [silence] a stream without a byte for so many milliseconds is dead. 0: never.
 *   Default: three heartbeats; see the module's "Dead connections"
 * @property {string} [topics] the address at which the server adds its clients to topics (`POST`) and
 *   removes them (`DELETE`), with the query parameters `client`, `topic` and `last`; for `join`
 * @property {number} [maxEventSize] the largest event or line, in characters. Default: 16 Mi
 * @property {string} [shortStream] a query parameter that asks the server for short streams, such
 *   as `lifetime=5`. The client adds the parameter after three streams in a row without a byte
 *   (`buffered`), because a proxy that holds responses back delivers them when they end. The server
 *   must end the stream after that time. Default: the client leaves the fourth stream open
 * @property {Partial<Environment>} [environment]
 */

/**
 * A topic that the page follows.
 *
 * @typedef {object} Wanted
 * @property {number} last the most events to replay
 * @property {(isFollowed: boolean) => void} settle tells the page the server's answer
 * @property {boolean} isDone the server has added the client
 */

/** The least time between two requests. Times are in milliseconds. */
const MIN_INTERVAL = 1000;
/** The least delay before a retry. */
const MIN_DELAY = 100;
/** The longest timer and delay, a day: browsers run a timer of more than 25 days at once. */
const MAX_DELAY = 86_400_000;
/** The longest delay by a `Retry-After` date: the clocks may differ. */
const MAX_DATED_DELAY = 3_600_000;
/** While the browser is offline: the delay before the first retry, and the longest. */
const OFFLINE_DELAY = 60_000;
const MAX_OFFLINE_DELAY = 300_000;
/** A stream that is open for so long resets the count of failures. */
const STABLE = 10_000;
/** A response without a byte counts as open after this time. */
const SILENT_OPEN = 500;
/** The heartbeat of a hub by default. */
const HEARTBEAT = 15_000;
/** The silence after which a request, or a stream of unknown heartbeat, is dead. */
const SILENCE = 3 * HEARTBEAT;
/** So many streams in a row without a byte are reported as `buffered`. */
const MAX_UNHEARD = 3;
/** After a stream was open, so many permanent statuses or other content types are retried. */
const MAX_STRAYS = 5;
/** Servers and proxies accept request heads of about 8 KiB. */
const MAX_POSITION = 2000;

/** The listeners of each event type. */
export class Listeners {
  /** @type {Map<string, Set<(message: Message) => void>>} */
  #byType = new Map();

  /**
   * Adds a listener. Returns a function that removes it.
   *
   * @param {string} type @param {(message: Message) => void} listener
   */
  add(type, listener) {
    const listeners = this.#byType.get(type) ?? new Set();
    this.#byType.set(type, listeners.add(listener));
    return () => {
      listeners.delete(listener);
      if (listeners.size === 0 && this.#byType.get(type) === listeners) this.#byType.delete(type);
    };
  }

  /**
   * Calls each listener of the type and, for an event of the application, each listener of `*`.
   *
   * @param {Message} message
   */
  tell(message) {
    const { type } = message;
    for (const listener of [...(this.#byType.get(type) ?? [])]) call(listener, message);
    if (type === "*" || type.startsWith("hub:")) return;
    for (const listener of [...(this.#byType.get("*") ?? [])]) call(listener, message);
  }

  types() {
    return this.#byType.keys();
  }
}

/** @param {number} code */
const isTemporary = (code) => code >= 500 || code === 408 || code === 425 || code === 429;

/** Whether the server named the time of the next attempt. @param {string} reason */
const isToldToWait = (reason) => reason.startsWith("hub:") || reason === "http";

/** The types of a hub's own events. `*` listeners do not get these. */
export const HUB_EVENTS = ["hub:open", "hub:gap", "hub:degraded", "hub:refused", "hub:end", "hub:error", "hub:heartbeat", "hub:run-end"];

/** The status before the first request. @type {Status} */
export const IDLE = Object.freeze({
  state: "idle", reason: "", detail: "", client: "", resumed: undefined, retryAt: undefined, degraded: false,
});

/** @returns {Environment} */
function surroundings() {
  const { window, document, EventSource } = globalThis;
  return {
    fetch: (url, init) => fetch(url, init),
    setTimeout: (callback, ms) => setTimeout(callback, ms),
    clearTimeout: (handle) => clearTimeout(handle),
    now: () => Date.now(),
    random: () => Math.random(),
    isOffline: () => globalThis.navigator?.onLine === false,
    EventSource,
    // React Native has a `window` without events.
    window: "addEventListener" in globalThis ? window : undefined,
    document,
  };
}

export class SSEClient {
  /** @type {Status} */
  status = IDLE;
  /** The id of the last event: the position to resume from. */
  lastEventId;

  #url;
  #options;
  #env;
  #listeners = new Listeners();
  /** @type {Set<(status: Status) => void>} */
  #watchers = new Set();
  /** Aborts the current attempt. Each attempt has its own. @type {AbortController | undefined} */
  #attempt;
  /** @type {EventSource | undefined} */
  #source;
  #attemptedAt = -Infinity;
  /** Infinity while the stream is not open. */
  #openedAt = Infinity;
  /** The time of the last byte, of the response's head, or of the request. */
  #aliveAt = 0;
  /** Attempts in a row without a stable stream. */
  #failures = 0;
  /** Answers in a row, since a stream was open, that are not a stream. */
  #strays = 0;
  /** Whether a stream was open since `open()`. */
  #wasOpen = false;
  /** The server's `retry:`. */
  #retryFloor = 0;
  #hasRenewed = false;
  #isRenewing = false;
  /** Whether the browser went offline since the last byte. */
  #wasOffline = false;

  /** Whether the server accepted the current attempt, and whether a byte or event arrived. */
  #isAccepted = false;
  #isHeard = false;
  /** Attempts in a row that brought no byte. */
  #unheard = 0;
  /** Whether `shortStream` is in use. */
  #isShort = false;

  /** The heartbeat that `hub:open` told; 0: none. */
  #heartbeat = 0;
  /** The silence to allow if the hub tells no heartbeat; 0: no comment has arrived. */
  #learned = 0;
  /** Whether `#learned` comes from the time between two comments. */
  #isMeasured = false;
  /** The time of the stream's last comment; 0: none. */
  #commentAt = 0;
  /** The silence before the latest chunk. */
  #quiet = 0;
  /** In native mode: whether heartbeats are visible. */
  #hearsHeartbeats = false;

  /** The topics that the page follows; undefined for a topic to leave. @type {Map<string, Wanted | undefined>} */
  #topics = new Map();
  /** The client's id in the open stream; undefined before `hub:open`. @type {{ client: string } | undefined} */
  #session;
  /** The topics for which requests are under way, with the session. @type {Map<string, object>} */
  #syncing = new Map();
  /** @type {Set<any>} */
  #topicTimers = new Set();

  /** @type {any} */
  #retryTimer;
  /** @type {any} */
  #silenceTimer;
  /** @type {any} */
  #openTimer;

  /**
   * @param {string | ((client: SSEClient) => string | Promise<string>)} url the address. A function
   *   is called for each request, and may use `client.status.client`
   * @param {Options} [options]
   */
  constructor(url, options = {}) {
    this.#url = url;
    this.#options = options;
    this.#env = { ...surroundings(), ...options.environment };
    this.lastEventId = options.lastEventId ?? "";
  }

  /** True while the hub reports that events are delayed. The stream is open. */
  get degraded() {
    return this.status.degraded;
  }

  /**
   * Adds a listener for an event type, or with `*` for all types but the hub's own. Returns a
   * function that removes the listener.
   *
   * @param {string} type @param {(message: Message) => void} listener
   */
  on(type, listener) {
    this.#source?.addEventListener(type, this.#onNative);
    return this.#listeners.add(type, listener);
  }

  /**
   * Calls `watcher` with each new status. Returns a function that removes the watcher.
   *
   * @param {(status: Status) => void} watcher
   */
  onStatus(watcher) {
    this.#watchers.add(watcher);
    return () => void this.#watchers.delete(watcher);
  }

  /**
   * Follows a topic until `leave`, also after each reconnect. The option `topics` must be set.
   *
   * Sends a `POST` to the address in `topics`, once the stream is open. If the request fails, or the
   * status is temporary (408, 425, 429, 5xx), the client repeats the request.
   *
   * @param {string} topic
   * @param {{ last?: number }} [options] `last`: the server replays at most so many events of the
   *   topic, also if the client must ask again after a reconnect
   * @returns {Promise<boolean>} true when the server has added the client. False if the server
   *   refused, and the client does not ask again, also after a reconnect; or if the page has called
   *   `join` or `leave` for the topic since
   */
  join(topic, { last = 0 } = {}) {
    if (this.#options.topics === undefined) throw new TypeError("join needs the option `topics`");
    this.#topics.get(topic)?.settle(false);
    return new Promise((settle) => {
      this.#topics.set(topic, { last, settle, isDone: false });
      void this.#sync(topic);
    });
  }

  /**
   * Leaves a topic, by a `DELETE` to the address in `topics`, which the client repeats like `join`.
   * Does nothing if the page has not joined the topic.
   *
   * @param {string} topic
   */
  leave(topic) {
    const wanted = this.#topics.get(topic);
    if (!wanted) return;
    this.#topics.set(topic, undefined);
    wanted.settle(false);
    void this.#sync(topic);
  }

  /** Connects, and reconnects until `close()`. Does nothing if the client is already active. */
  open() {
    const { state } = this.status;
    if (state !== "idle" && state !== "closed") return;
    this.#env.window?.addEventListener("online", this.#onOnline);
    this.#env.window?.addEventListener("offline", this.#onOffline);
    this.#env.document?.addEventListener("visibilitychange", this.#onVisible);
    this.#failures = this.#strays = this.#unheard = 0;
    this.#hasRenewed = this.#wasOpen = this.#isShort = false;
    this.#soon("", "");
  }

  /** Connects again: at once, or one second after the last request. */
  reconnect() {
    if (this.status.state === "idle" || this.status.state === "closed") return this.open();
    this.#letGo();
    this.#soon("reconnect", "");
  }

  /** Ends the stream and frees its resources. Listeners stay, for another `open()`. */
  close() {
    if (this.status.state !== "idle") this.#stop("close", "");
  }

  /**
   * @param {Status["state"]} state @param {string} reason @param {string} detail
   * @param {Partial<Status>} [more]
   */
  #set(state, reason, detail, more) {
    const { client, resumed } = this.status;
    this.status = Object.freeze({ client, resumed, retryAt: undefined, degraded: false, ...more, state, reason, detail });
    for (const watcher of [...this.#watchers]) call(watcher, this.status);
  }

  /** @param {string} reason @param {string} detail */
  #stop(reason, detail) {
    this.#letGo();
    this.#env.window?.removeEventListener("online", this.#onOnline);
    this.#env.window?.removeEventListener("offline", this.#onOffline);
    this.#env.document?.removeEventListener("visibilitychange", this.#onVisible);
    this.#set("closed", reason, detail);
  }

  /** Ends the current attempt and all timers. */
  #letGo() {
    this.#attempt?.abort();
    this.#source?.close();
    this.#attempt = this.#source = this.#session = undefined;
    this.#isRenewing = false;
    const { clearTimeout } = this.#env;
    [this.#retryTimer, this.#silenceTimer, this.#openTimer, ...this.#topicTimers].forEach(clearTimeout);
    this.#topicTimers.clear();
    this.#syncing.clear();
    this.#leaveOpen();
  }

  #leaveOpen() {
    if (this.#env.now() - this.#openedAt >= STABLE) this.#failures = 0;
    this.#openedAt = Infinity;
  }

  /** Counts a failure. Returns whether the client must not try again. */
  #isSpent() {
    const { reconnect = true, maxRetries = Infinity } = this.#options;
    this.#failures += 1;
    return !reconnect || this.#failures > maxRetries;
  }

  /**
   * @param {string} reason @param {unknown} detail
   * @param {number} [floor] the delay that the server asked for by `Retry-After`
   */
  #retry(reason, detail, floor = 0) {
    const { backoff = 1000, maxBackoff = 30_000, shortStream } = this.#options;
    this.#letGo();
    if (!this.#isHeard && (this.#isAccepted || reason === "silent") && ++this.#unheard >= MAX_UNHEARD) {
      reason = "buffered";
      this.#isShort = shortStream !== undefined;
    }
    // A short stream that brought data is a success.
    if (this.#isShort && this.#isHeard) this.#failures = 0;
    const doubled = 2 ** Math.min(this.#failures, 30);
    if (this.#isSpent()) return this.#stop(reason, String(detail));
    const asked = Math.max(this.#retryFloor, Math.min(floor, MAX_DELAY));
    const ms = Math.max(MIN_DELAY, asked + this.#env.random() * Math.min(maxBackoff, backoff * doubled));
    if (this.#env.isOffline() && !isToldToWait(reason)) this.#waitOffline(ms);
    else this.#wait(ms, reason, String(detail));
  }

  /** @param {string} reason @param {string} detail */
  #soon(reason, detail) {
    const wait = this.#attemptedAt + MIN_INTERVAL - this.#env.now();
    // If the clock was set back, do not wait for longer.
    if (wait > 0) this.#wait(Math.min(wait, MIN_INTERVAL), reason, detail);
    else void this.#connect(reason, detail);
  }

  /** @param {number} ms @param {string} reason @param {string} detail */
  #wait(ms, reason, detail) {
    this.#env.clearTimeout(this.#retryTimer);
    this.#retryTimer = this.#after(ms, () => void this.#connect(reason, detail));
    this.#set("retrying", reason, detail, { retryAt: this.#env.now() + ms });
  }

  /** Waits for longer than `ms`, as the next attempt will probably fail. @param {number} ms */
  #waitOffline(ms) {
    const stretched = OFFLINE_DELAY * 2 ** Math.min(Math.max(this.#failures - 1, 0), 3) + ms;
    this.#wait(Math.max(ms, Math.min(stretched, MAX_OFFLINE_DELAY)), "offline", "");
  }

  /** @param {number} ms @param {() => void} callback */
  #after(ms, callback) {
    return this.#env.setTimeout(callback, Math.min(ms, MAX_DELAY));
  }

  /** @param {string} reason @param {string} detail */
  async #connect(reason, detail) {
    // A page that comes online or is shown ends a wait: its timer must not connect a second time.
    this.#letGo();
    const attempt = new AbortController();
    this.#attempt = attempt;
    this.#attemptedAt = this.#aliveAt = this.#env.now();
    this.#wasOffline = this.#isAccepted = this.#isHeard = false;
    this.#commentAt = 0;
    // After credentials were renewed, the status is already set.
    if (this.status.state !== "connecting" || this.status.reason !== reason) this.#set("connecting", reason, detail);
    try {
      // A watcher may have closed the client.
      if (attempt.signal.aborted) return;
      this.#guard();
      let url = typeof this.#url === "function" ? await this.#url(this) : this.#url;
      if (attempt.signal.aborted) return;
      const { mode, shortStream = "" } = this.#options;
      const [name = "", value = ""] = shortStream.split("=");
      if (this.#isShort) url = withParam(url, name, value);
      await (mode === "native" ? this.#listen(url) : this.#read(url, attempt.signal));
    } catch (error) {
      if (!attempt.signal.aborted) this.#retry("network", error instanceof Error ? error.message : error);
    }
  }

  /** @param {string} url @param {AbortSignal} signal */
  async #read(url, signal) {
    const { headers: given, lastEventIdParam, method, body, credentials } = this.#options;
    const headers = new Headers(typeof given === "function" ? await given() : given);
    if (signal.aborted) return;
    if (!headers.has("accept")) headers.set("accept", "text/event-stream");
    const position = sendable(this.lastEventId);
    if (position && lastEventIdParam) url = withParam(url, lastEventIdParam, position);
    // A header consists of bytes; the standard demands UTF-8.
    else if (position) headers.set("last-event-id", String.fromCharCode(...new TextEncoder().encode(position)));
    const response = await this.#env.fetch(url, { method, body, credentials, headers, signal, cache: "no-store" });
    if (signal.aborted) return;
    const { status } = response;
    if (status === 401 || status === 403) return await this.#renew(status, signal);
    const contentType = response.headers.get("content-type") ?? "";
    if (status !== 200) return this.#answered(response, "http", String(status));
    if (!/^text\/event-stream *(;|$)/i.test(contentType)) return this.#answered(response, "content-type", contentType);
    this.#accepted();
    if (response.body) await this.#readBody(response.body.getReader(), signal);
    if (!signal.aborted) this.#retry("eof", "");
  }

  /**
   * Handles an answer that is not a stream.
   *
   * @param {Response} response @param {string} reason @param {string} detail
   */
  #answered({ status, headers }, reason, detail) {
    if (!isTemporary(status)) {
      // After a stream was open, the server may be restarting, or a proxy reloading.
      if (status === 204 || !this.#wasOpen || this.#strays >= MAX_STRAYS) return this.#stop(reason, detail);
      this.#strays += 1;
    }
    this.#retry(reason, detail, retryAfter(headers, this.#env.now()));
  }

  /** @param {ReadableStreamDefaultReader<Uint8Array>} reader @param {AbortSignal} signal */
  async #readBody(reader, signal) {
    // If a listener closes the client, the later events of the same chunk are neither delivered nor
    // skipped: the position stays before them.
    const push = createParser((message) => signal.aborted || this.#take(message), {
      lastEventId: this.lastEventId,
      maxEventSize: this.#options.maxEventSize,
      onRetry: (ms) => { this.#retryFloor = Math.min(ms, MAX_DELAY); },
      onId: (id) => { if (!signal.aborted) this.lastEventId = id; },
      onComment: () => { if (!signal.aborted) this.#onComment(); },
    });
    // Early versions of `expo/fetch` ignore the signal after the head of the response.
    signal.addEventListener("abort", () => void reader.cancel().catch(() => {}));
    this.#openTimer = this.#after(SILENT_OPEN, () => this.#opened());
    for (;;) {
      const { done, value } = await reader.read();
      if (signal.aborted || done) return;
      this.#heard();
      try {
        push(value);
      } catch (error) {
        if (!signal.aborted) this.#stop("too-large", error instanceof Error ? error.message : String(error));
      }
      if (signal.aborted) return;
      this.#opened();
    }
  }

  /** @param {number} status @param {AbortSignal} signal */
  async #renew(status, signal) {
    const { renew } = this.#options;
    // Once per open stream: if new credentials do not help, newer ones will not either.
    if (!renew || this.#hasRenewed) return this.#stop("unauthorized", String(status));
    this.#hasRenewed = true;
    // The function may ask for a password, which takes any time.
    this.#env.clearTimeout(this.#silenceTimer);
    this.#isRenewing = true;
    this.#set("connecting", "unauthorized", String(status));
    if (signal.aborted) return;
    let renewed;
    try {
      renewed = await renew(status);
    } catch {
      renewed = false;
    }
    if (signal.aborted) return;
    if (renewed === false) return this.#stop("unauthorized", String(status));
    void this.#connect("unauthorized", String(status));
  }

  /** Reads by the browser's `EventSource`, which repeats requests itself. @param {string} url */
  #listen(url) {
    const { EventSource: Native } = this.#env;
    if (!Native) throw new Error("this environment has no EventSource");
    const withCredentials = this.#options.credentials === "include";
    const param = this.#options.lastEventIdParam ?? "lastEventId";
    const position = sendable(this.lastEventId);
    const source = new Native(position ? withParam(url, param, position) : url, { withCredentials });
    this.#source = source;
    for (const type of new Set([...HUB_EVENTS, "message", ...this.#listeners.types()])) {
      source.addEventListener(type, this.#onNative);
    }
    source.onopen = () => {
      this.#accepted();
      // Comments are invisible: no data says nothing.
      this.#isHeard = true;
      // Wait: the hub may refuse the client with its first event.
      this.#env.clearTimeout(this.#openTimer);
      this.#openTimer = this.#after(SILENT_OPEN, () => this.#opened());
    };
    source.onerror = (event) => {
      if ("data" in event) return; // The application's own event of this name.
      this.#env.clearTimeout(this.#openTimer);
      const { state, reason } = this.status;
      const why = state === "retrying" ? reason : "network";
      if (source.readyState === Native.CLOSED) return this.#retry(why, "");
      this.#leaveOpen();
      if (this.#isSpent()) this.#stop(why, "");
      else if (state !== "retrying") this.#set("retrying", this.#env.isOffline() ? "offline" : why, "");
    };
  }

  /** @param {Event} event */
  #onNative = (event) => {
    if (!("data" in event) || event.target !== this.#source) return;
    const { type, data, lastEventId } = /** @type {MessageEvent<string>} */ (event);
    this.#heard();
    if (type === "hub:heartbeat" && !this.#hearsHeartbeats) {
      this.#hearsHeartbeats = true;
      this.#guard();
    }
    this.#take(new Message(type, data, lastEventId));
    if (this.#source && !this.status.reason.startsWith("hub:")) this.#opened();
  };

  /** @param {Message} message */
  #take(message) {
    const { type } = message;
    if (type === "hub:heartbeat") this.#onComment();
    // A new native stream does not know the id of the stream before it.
    if (message.id || !this.#source) this.lastEventId = message.id;
    const before = this.#attempt;
    const said = type.startsWith("hub:") ? contentOf(message) : {};
    if (type === "hub:open") this.#greeted(said);
    else if (type === "hub:degraded") this.#degrade(said.degraded === true);
    this.#listeners.tell(message);
    // A listener may have closed the client, or reconnected.
    if (this.#attempt !== before) return;
    const reason = typeof said.reason === "string" ? said.reason : "";
    const isLast = type === "hub:error" || (type === "hub:end" && (said.final === true || reason === "displaced"));
    if (isLast) this.#stop(type, reason);
    else if (type === "hub:refused" || type === "hub:end") {
      // The browser ends a native stream and repeats its request.
      if (this.#source && this.#options.reconnect !== false) this.#set("retrying", type, reason);
      else this.#retry(type, reason);
    }
  }

  /** Handles `hub:open`. @param {Record<string, unknown>} said */
  #greeted({ client, resumed, heartbeat }) {
    this.#heartbeat = typeof heartbeat === "number" && heartbeat > 0 ? heartbeat : 0;
    this.#guard();
    const session = { client: typeof client === "string" ? client : "" };
    this.#session = session;
    // The hub has kept the topics of a client that returned with its id, also those left since.
    const isSame = client === this.status.client;
    this.#opened({ ...session, resumed: typeof resumed === "boolean" ? resumed : undefined });
    // A watcher may have closed the client.
    if (this.#session === session) for (const [topic, wanted] of this.#topics) {
      if (isSame ? !resumed || !wanted?.isDone : wanted) void this.#sync(topic);
    }
  }

  /**
   * Asks the server for the state of a topic that the page wants, until the server has answered.
   *
   * @param {string} topic
   */
  async #sync(topic) {
    const session = this.#session;
    // After `hub:open`, and after a request that is under way, the topic is looked at again.
    if (!session?.client || this.#syncing.get(topic) === session) return;
    this.#syncing.set(topic, session);
    for (let failures = 0; ; ) {
      const wanted = this.#topics.get(topic);
      const status = await this.#requestTopic(topic, wanted, session.client);
      // The stream of the next `hub:open` has other topics.
      if (this.#session !== session) return;
      if (this.#topics.get(topic) !== wanted) continue;
      if (status && !isTemporary(status)) {
        this.#syncing.delete(topic);
        const isDone = status >= 200 && status < 300;
        if (wanted && isDone) wanted.isDone = true;
        else this.#topics.delete(topic);
        return wanted?.settle(isDone);
      }
      await this.#pause(failures);
      if (this.#session !== session) return;
      failures += 1;
    }
  }

  /**
   * Returns the status of the answer; 0 if there is none.
   *
   * @param {string} topic @param {Wanted | undefined} wanted @param {string} client
   */
  async #requestTopic(topic, wanted, client) {
    const { topics = "", headers: given, credentials } = this.#options;
    const signal = this.#attempt?.signal;
    let url = withParam(withParam(topics, "client", client), "topic", topic);
    if (wanted?.last) url = withParam(url, "last", String(wanted.last));
    try {
      const headers = new Headers(typeof given === "function" ? await given() : given);
      const method = wanted ? "POST" : "DELETE";
      return (await this.#env.fetch(url, { method, credentials, headers, signal, cache: "no-store" })).status;
    } catch {
      return 0;
    }
  }

  /** Waits before a request for a topic is repeated. @param {number} failures */
  #pause(failures) {
    const { backoff = 1000, maxBackoff = 30_000 } = this.#options;
    const ms = Math.min(maxBackoff, backoff * 2 ** Math.min(failures, 30)) * (0.5 + this.#env.random() / 2);
    return new Promise((done) => {
      const timer = this.#after(Math.max(MIN_DELAY, ms), () => done(this.#topicTimers.delete(timer)));
      this.#topicTimers.add(timer);
    });
  }

  /** @param {Partial<Status>} [more] */
  #opened(more) {
    this.#env.clearTimeout(this.#openTimer);
    const reason = this.#isHeard ? "" : this.#unheard >= MAX_UNHEARD ? "buffered" : "no-data";
    if (this.status.state === "open" && this.status.reason === reason && !more) return;
    this.#openedAt = this.#env.now();
    this.#hasRenewed = false;
    this.#wasOpen = true;
    this.#strays = 0;
    this.#set("open", reason, "", more ?? { resumed: undefined });
  }

  /** @param {boolean} degraded */
  #degrade(degraded) {
    this.#opened();
    // A watcher may have closed the client.
    if (this.status.state === "open" && degraded !== this.degraded) this.#set("open", "", "", { degraded });
  }

  #accepted() {
    this.#isAccepted = true;
    this.#aliveAt = this.#env.now();
    this.#wasOffline = false;
  }

  #heard() {
    const now = this.#env.now();
    this.#quiet = now - this.#aliveAt;
    this.#aliveAt = now;
    this.#wasOffline = false;
    this.#isHeard = true;
    if (!this.#isShort) this.#unheard = 0;
  }

  /** Handles a comment or visible heartbeat: learns the interval if the server does not tell it. */
  #onComment() {
    const quiet = this.#quiet;
    // Further comments of the same chunk follow at once.
    this.#quiet = 0;
    // A comment directly after other bytes is a greeting or padding.
    if (quiet < MIN_INTERVAL) return;
    if (this.#commentAt) {
      // Events in between only lengthen the time between two comments: the least is the interval.
      const measured = Math.max(SILENCE, 3 * (this.#aliveAt - this.#commentAt));
      this.#learned = this.#isMeasured ? Math.min(this.#learned, measured) : measured;
      this.#isMeasured = true;
    } else if (!this.#isMeasured) this.#learned = Math.max(this.#learned, SILENCE, 3 * quiet);
    this.#commentAt = this.#aliveAt;
    this.#guard();
  }

  /** Returns the silence after which the stream is dead; 0: never. */
  #patience() {
    const { silence, mode } = this.#options;
    // A native stream hides comments: if these are the heartbeats, silence means nothing.
    if (mode === "native" && !this.#hearsHeartbeats) return 0;
    if (silence !== undefined) return silence;
    // After a few streams without a byte, leave the stream open: data may come late.
    if (!this.#isHeard) return this.#isAccepted && !this.#isShort && this.#unheard >= MAX_UNHEARD ? 0 : SILENCE;
    if (this.#heartbeat) return Math.max(MIN_INTERVAL, 3 * this.#heartbeat);
    return this.#learned;
  }

  /** Ends a silent stream. Checks again when the silence would be too long, not with each byte. */
  #guard() {
    this.#env.clearTimeout(this.#silenceTimer);
    const patience = this.#patience();
    if (!patience) return;
    const left = this.#aliveAt + patience - this.#env.now();
    // If the clock was set back, do not wait for longer than the patience.
    if (left > 0) this.#silenceTimer = this.#after(Math.min(left, patience), () => this.#guard());
    else {
      // The learned interval may be too short: wait for longer the next time, and measure again.
      if (this.#isHeard) this.#learned *= 2;
      this.#isMeasured = false;
      this.#retry("silent", "");
    }
  }

  #onOffline = () => {
    this.#wasOffline = true;
    const { state, reason, retryAt } = this.status;
    const isStretched = reason === "offline" || isToldToWait(reason);
    if (state === "retrying" && !this.#source && !isStretched) this.#waitOffline(Math.max(0, (retryAt ?? 0) - this.#env.now()));
  };

  #onOnline = () => {
    // The address may have changed, which only silence would reveal. Resuming costs little.
    if (this.#isUnderWay() && this.#wasOffline) {
      this.#letGo();
      this.#soon("offline", "");
    } else {
      this.#wake();
    }
  };

  #onVisible = () => {
    if (this.#env.document?.hidden) return;
    if (this.#isUnderWay()) this.#check();
    this.#wake();
  };

  /** Checks a stream whose page, with its timers and its connection, may have been suspended. */
  #check() {
    const { silence, mode } = this.#options;
    if (this.#source && this.#source.readyState === this.#env.EventSource?.CLOSED) return this.#retry("network", "");
    const isDeaf = silence === 0 || (mode === "native" && !this.#hearsHeartbeats);
    // If the heartbeat is unknown, only a stream with a position can resume without loss.
    const interval = this.#heartbeat || this.#learned / 3 || (this.lastEventId ? HEARTBEAT : Infinity);
    if (isDeaf || this.status.state !== "open" || this.#env.now() - this.#aliveAt <= interval) return this.#guard();
    this.#letGo();
    this.#soon("silent", "");
  }

  /** Whether there is a stream or a request. While credentials are renewed, there is none. */
  #isUnderWay() {
    const { state } = this.status;
    return state === "open" || (state === "connecting" && !this.#isRenewing);
  }

  /** Ends a wait, unless the server named its time. */
  #wake() {
    const { state, reason, detail } = this.status;
    if (state === "retrying" && !this.#source && !isToldToWait(reason)) this.#soon(reason, detail);
  }
}

/**
 * Returns the data of an event of the hub; an empty object if the data is malformed.
 *
 * @param {Message} message @returns {Record<string, unknown>}
 */
function contentOf(message) {
  try {
    return Object(message.json());
  } catch {
    return {};
  }
}

/** Returns the position if a request can carry it, and "" if not. @param {string} id */
function sendable(id) {
  return id.length > MAX_POSITION || /[\0-\x08\x0a-\x1f\x7f\ud800-\udfff]/u.test(id) ? "" : id;
}

/**
 * Returns `url` with the query parameter set, in place of all parameters of this name.
 *
 * @param {string} url @param {string} name @param {string} value
 */
function withParam(url, name, value) {
  const [, path = "", query = "", fragment = ""] = /^([^?#]*)\??([^#]*)(.*)$/s.exec(url) ?? [];
  const others = query.split("&").filter((part) => part && !new URLSearchParams(part).has(name));
  return `${path}?${[...others, `${encodeURIComponent(name)}=${encodeURIComponent(value)}`].join("&")}${fragment}`;
}

/**
 * Returns the delay that `Retry-After` asks for, in milliseconds; 0 if none.
 *
 * @param {Headers} headers @param {number} now
 */
function retryAfter(headers, now) {
  const text = headers.get("retry-after") ?? "";
  if (/^\d+$/.test(text)) return Number(text) * 1000;
  // The response's own date comes from the same clock.
  const ms = Date.parse(text) - (Date.parse(headers.get("date") ?? "") || now);
  return Math.min(Math.max(ms, 0) || 0, MAX_DATED_DELAY);
}

/**
 * Calls a listener. An exception is reported, and does not stop the stream.
 *
 * @template T @param {(value: T) => void} listener @param {T} value
 */
export function call(listener, value) {
  try {
    listener(value);
  } catch (error) {
    const report = globalThis.reportError ?? console.error;
    report(error);
  }
}
