// SPDX-FileCopyrightText: The sse-hub contributors
// SPDX-License-Identifier: MIT OR Apache-2.0

/**
 * A client for Server-Sent Events: it reconnects, resumes, and notices a stream that has silently died.
 *
 * One file without dependencies or a build step; copy it, or import it. It understands the events of an sse-hub
 * (`hub:open`, `hub:gap`, `hub:degraded`, `hub:refused`, `hub:end`, `hub:error`) and works with any other server, too.
 *
 * ```js
 * const client = new SSEClient("/events", {
 *   headers: () => ({ authorization: `Bearer ${token}` }),
 *   renew: async () => { token = await fetchToken(); },
 * });
 * client.on("order", (event) => show(event.json()));
 * client.on("hub:gap", () => fetchOrdersAnew());
 * client.onStatus(({ state, reason, degraded }) => draw(state, reason, degraded));
 * client.open();
 * ```
 *
 * {@link SSEClient} is the client, with its {@link Options} and {@link Status}; {@link createParser} is its parser alone. Types
 * are in `sse-client.d.ts`, and `sse-shared.js` shares one stream between tabs.
 *
 * # Coming back
 *
 * A stream that is lost, ended or silent is asked for again after a while: the server's `retry:`, and on top a random part
 * of a window that doubles with each failure up to a cap. A browser that comes back online or a page that is seen again
 * asks at once, but at most once a second, and not when it was the server that named the time. While the browser says that
 * it is offline, nothing is asked for, unless somebody looks at the page or the page itself asks: browsers can be wrong. It
 * resumes by `Last-Event-ID`, in the header, or in the query where a header would cost a preflight.
 *
 * It stops for good on 204, on a status that no repetition mends, on `hub:error`, and when a newer client has displaced it
 * (two tabs would displace each other without end); on 401 and 403 when `renew` is not given or does not help. Then it is
 * `closed`, and says why; `open()` starts it again.
 *
 * @module
 */

/** An event as it came. */
export class Message {
  /** @param {string} type @param {string} data @param {string} id */
  constructor(type, data, id) {
    /** Its type, `message` if it has none. */
    this.type = type;
    /** Its data, lines joined by LF. */
    this.data = data;
    /** The position to resume from once it was seen, empty if the server sent none so far. */
    this.id = id;
  }

  /** Its data, read as JSON. Throws if it is not. @returns {any} */
  json() {
    return JSON.parse(this.data);
  }
}

const DECODE = { stream: true };

/**
 * Takes a stream apart by the rules of the WHATWG HTML standard, section 9.2.6.
 *
 * @param {(message: Message) => void} onMessage is called with each event
 * @param {{ lastEventId?: string, onRetry?: (ms: number) => void, onId?: (id: string) => void }} [options] where the
 *   stream goes on; what hears of `retry:`, and of an id that came without data
 * @returns {(bytes: Uint8Array) => void} takes the bytes as they come, cut anywhere
 */
export function createParser(onMessage, { lastEventId = "", onRetry, onId } = {}) {
  // It removes the one BOM that may be there, and holds back a character that was cut.
  const decoder = new TextDecoder();
  let begun = "";
  let endedInCr = false;
  let type = "";
  let data = "";
  let hasData = false;
  let id = lastEventId;

  /** @param {string} text @param {number} from @param {number} to */
  function takeLine(text, from, to) {
    if (from === to) return dispatch();
    const first = text.charCodeAt(from);
    if (first === 58 /* : */) return;
    // The three that nearly all lines are, without an intermediate string.
    if (isData(text, from)) return addData(text.slice(valueAt(text, from + 5), to));
    if (first === 105 /* i */ && text.startsWith("id:", from)) return setId(text.slice(valueAt(text, from + 3), to));
    if (first === 101 /* e */ && text.startsWith("event:", from)) {
      type = text.slice(valueAt(text, from + 6), to);
      return;
    }
    const line = text.slice(from, to);
    // A field's name alone is a field without a value.
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
        // Most events have one line of data, and many nothing after it: those take no detour.
        if (!isCr && !hasData && text.charCodeAt(end + 1) === 10 && isData(text, from)) {
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
        // The blank line after it, as most lines are short and a search has its price.
        dispatch();
        from += 1;
      }
      if (lf < from) lf = text.indexOf("\n", from);
    }
    begun += text.slice(from);
  };
}

/** Whether a line begins with data. Compared so, for `startsWith` takes up to a fifth longer for the whole stream. @param {string} text @param {number} at */
function isData(text, at) {
  return (
    text.charCodeAt(at) === 100 && text.charCodeAt(at + 1) === 97 && text.charCodeAt(at + 2) === 116 &&
    text.charCodeAt(at + 3) === 97 && text.charCodeAt(at + 4) === 58
  );
}

/** @param {string} text @param {number} at */
function valueAt(text, at) {
  return text.charCodeAt(at) === 32 ? at + 1 : at;
}

/**
 * Where a client stands. A new frozen object with every change.
 *
 * | `reason` | what happened | `detail` |
 * |---|---|---|
 * | `network` | the connection was refused or lost | the error's text |
 * | `eof` | the stream ended without a word | |
 * | `silent` | no byte came for `silence` | |
 * | `offline` | the browser is offline, or was in between | |
 * | `http` | the server answered with this status | the status |
 * | `content-type` | the answer is no event stream | its type |
 * | `unauthorized` | 401 or 403: `connecting` while credentials are renewed, `closed` if they are not | the status |
 * | `hub:refused`, `hub:end`, `hub:error` | the hub said so | its reason, such as `full` or `drained` |
 * | `reconnect`, `close` | the page asked for it | |
 *
 * @typedef {object} Status
 * @property {"idle" | "connecting" | "open" | "retrying" | "closed"} state
 * @property {string} reason why it is not open, empty if nothing has happened
 * @property {string} detail
 * @property {string} client this stream's id in the hub, kept after its end
 * @property {boolean | undefined} resumed whether the hub went on where the stream had stopped; undefined if it is none
 * @property {number | undefined} retryAt when it tries again, in milliseconds as of `Date.now`; undefined while it waits to
 *   be online
 * @property {boolean} degraded whether the hub has said, on this stream, that events are held up: what is published arrives
 *   later
 */

/**
 * What it takes from its surroundings. Replace it in tests.
 *
 * @typedef {object} Environment
 * @property {(url: string, init: RequestInit) => Promise<Response>} fetch
 * @property {(callback: () => void, ms: number) => any} setTimeout
 * @property {(handle: any) => void} clearTimeout
 * @property {() => number} now
 * @property {() => number} random from 0 up to 1
 * @property {() => boolean} isOffline whether the browser is sure that it has no network
 * @property {typeof EventSource | undefined} EventSource
 * @property {Pick<EventTarget, "addEventListener" | "removeEventListener"> | undefined} window tells `online`, `offline`
 * @property {(Pick<EventTarget, "addEventListener" | "removeEventListener"> & { hidden: boolean }) | undefined} document
 */

/**
 * @typedef {object} Options
 * @property {"fetch" | "native"} [mode] `native` uses the browser's `EventSource`: no headers, no status codes, its own
 *   reconnecting, and only types that something listens for; silence is noticed if heartbeats are visible events
 * @property {string} [method]
 * @property {BodyInit} [body] sent with each request; a stream cannot be sent twice
 * @property {HeadersInit | (() => HeadersInit | Promise<HeadersInit>)} [headers] asked for each request, if it is a function
 * @property {RequestCredentials} [credentials]
 * @property {string} [lastEventId] where to go on
 * @property {string} [lastEventIdParam] the query's parameter for it, in place of the header
 * @property {boolean} [reconnect] false: whatever ends the stream closes the client
 * @property {(status: number) => unknown} [renew] on 401 and 403: renews the credentials, and returns or resolves to false if
 *   it cannot
 * @property {number} [backoff] the first window for a random delay, in milliseconds: 1000
 * @property {number} [maxBackoff] the largest: 30 000
 * @property {number} [silence] after so many milliseconds without a byte a stream is dead: 45 000, three heartbeats of a
 *   hub. 0 turns it off
 * @property {Partial<Environment>} [environment]
 */

/** Between two attempts there is at least this. */
const LEAST_GAP = 1000;
/** No delay is shorter, whatever the server and chance say. */
const LEAST_DELAY = 100;
/** A longer `retry:` is taken for this: a browser's timers take 25 days for zero. */
const MOST_RETRY = 86_400_000;
/** A stream that was open for this long was a success, and the windows start anew. */
const STABLE = 10_000;
/** A server that says nothing at first is taken to have opened the stream after this. */
const SILENT_OPEN = 500;

/** Who listens for what. */
export class Listeners {
  /** @type {Map<string, Set<(message: Message) => void>>} */
  #byType = new Map();

  /** Returns what removes it. @param {string} type @param {(message: Message) => void} listener */
  add(type, listener) {
    const listeners = this.#byType.get(type) ?? new Set();
    this.#byType.set(type, listeners.add(listener));
    return () => {
      listeners.delete(listener);
      if (listeners.size === 0 && this.#byType.get(type) === listeners) this.#byType.delete(type);
    };
  }

  /** @param {Message} message */
  tell(message) {
    for (const listener of [...(this.#byType.get(message.type) ?? [])]) call(listener, message);
    if (message.type.startsWith("hub:")) return;
    for (const listener of [...(this.#byType.get("*") ?? [])]) call(listener, message);
  }

  types() {
    return this.#byType.keys();
  }
}

/** A status that is worth another try. @param {number} code */
const isTemporary = (code) => code >= 500 || code === 408 || code === 425 || code === 429;

/** Ends that the server told to wait after. @param {string} reason */
const isToldToWait = (reason) => reason.startsWith("hub:") || reason === "http";

const HUB_EVENTS = ["hub:open", "hub:gap", "hub:degraded", "hub:refused", "hub:end", "hub:error", "hub:heartbeat"];

/** Before anything has happened. @type {Status} */
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
    window,
    document,
  };
}

export class SSEClient {
  /** @type {Status} */
  status = IDLE;
  /** The position of the last event that was seen: where it resumes. */
  lastEventId;

  #url;
  #options;
  #env;
  #listeners = new Listeners();
  /** @type {Set<(status: Status) => void>} */
  #watchers = new Set();
  /** Undoes the attempt under way; a new one for each. @type {AbortController | undefined} */
  #attempt;
  /** @type {EventSource | undefined} */
  #source;
  #attemptedAt = -Infinity;
  #openedAt = Infinity;
  #lastByteAt = 0;
  #failures = 0;
  #retryFloor = 0;
  #hasRenewed = false;
  #wasOffline = false;
  #hearsSilence = false;
  /** @type {any} */
  #retryTimer;
  /** @type {any} */
  #silenceTimer;
  /** @type {any} */
  #openTimer;

  /**
   * @param {string | ((client: SSEClient) => string | Promise<string>)} url what to ask for; a function is asked for each
   *   request, and may put `client.status.client` into it
   * @param {Options} [options]
   */
  constructor(url, options = {}) {
    this.#url = url;
    this.#options = options;
    this.#env = { ...surroundings(), ...options.environment };
    this.lastEventId = options.lastEventId ?? "";
  }

  /** Whether events are held up, as `hub:degraded` said: the stream is open, and what is published comes later. */
  get degraded() {
    return this.status.degraded;
  }

  /**
   * Listens for events of a type, or for all of the application's with `*`. Returns what ends it.
   *
   * @param {string} type @param {(message: Message) => void} listener
   */
  on(type, listener) {
    this.#source?.addEventListener(type, this.#onNative);
    return this.#listeners.add(type, listener);
  }

  /** Is told each change of `status`. Returns what ends it. @param {(status: Status) => void} watcher */
  onStatus(watcher) {
    this.#watchers.add(watcher);
    return () => void this.#watchers.delete(watcher);
  }

  /** Connects, and stays connected. Does nothing while it is. */
  open() {
    const { state } = this.status;
    if (state !== "idle" && state !== "closed") return;
    this.#env.window?.addEventListener("online", this.#onOnline);
    this.#env.window?.addEventListener("offline", this.#onOffline);
    this.#env.document?.addEventListener("visibilitychange", this.#onVisible);
    this.#failures = 0;
    this.#hasRenewed = false;
    this.#soon("", "");
  }

  /** Asks anew, at once unless it did within the last second. */
  reconnect() {
    if (this.status.state === "idle" || this.status.state === "closed") return this.open();
    this.#letGo();
    this.#soon("reconnect", "");
  }

  /** Ends the stream and frees all that it holds. Listeners stay, for another `open()`. */
  close() {
    if (this.status.state !== "idle") this.#stop("close", "");
  }

  /** @param {Status["state"]} state @param {string} reason @param {string} detail @param {Partial<Status>} [more] */
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

  /** Ends the attempt under way and all timers. */
  #letGo() {
    this.#attempt?.abort();
    this.#source?.close();
    this.#attempt = this.#source = undefined;
    const { clearTimeout } = this.#env;
    [this.#retryTimer, this.#silenceTimer, this.#openTimer].forEach(clearTimeout);
    if (this.#env.now() - this.#openedAt >= STABLE) this.#failures = 0;
    this.#openedAt = Infinity;
  }

  /** @param {string} reason @param {unknown} detail @param {number} [floor] what the server asked for besides `retry:` */
  #retry(reason, detail, floor = 0) {
    this.#letGo();
    const { reconnect = true, backoff = 1000, maxBackoff = 30_000 } = this.#options;
    if (!reconnect) return this.#stop(reason, String(detail));
    if (this.#env.isOffline() && !isToldToWait(reason)) return this.#awaitNetwork();
    const window = Math.min(maxBackoff, backoff * 2 ** this.#failures);
    this.#failures += 1;
    const asked = Math.max(this.#retryFloor, Math.min(floor, MOST_RETRY));
    this.#wait(Math.max(LEAST_DELAY, asked + this.#env.random() * window), reason, String(detail));
  }

  /** @param {string} reason @param {string} detail */
  #soon(reason, detail) {
    const wait = this.#attemptedAt + LEAST_GAP - this.#env.now();
    // A clock that was set back must not make it wait for longer.
    if (wait > 0) this.#wait(Math.min(wait, LEAST_GAP), reason, detail);
    else void this.#connect(reason, detail);
  }

  /** @param {number} ms @param {string} reason @param {string} detail */
  #wait(ms, reason, detail) {
    const { setTimeout, clearTimeout, now } = this.#env;
    clearTimeout(this.#retryTimer);
    this.#retryTimer = setTimeout(() => {
      if (this.#env.isOffline()) this.#awaitNetwork();
      else void this.#connect(reason, detail);
    }, ms);
    this.#set("retrying", reason, detail, { retryAt: now() + ms });
  }

  /** Asks for nothing until the browser is online, or somebody looks at the page: a browser can be wrong about it. */
  #awaitNetwork() {
    this.#env.clearTimeout(this.#retryTimer);
    this.#set("retrying", "offline", "");
  }

  /** @param {string} reason @param {string} detail */
  async #connect(reason, detail) {
    const attempt = new AbortController();
    this.#attempt = attempt;
    this.#attemptedAt = this.#lastByteAt = this.#env.now();
    this.#wasOffline = false;
    // After credentials were renewed it says so already.
    if (this.status.state !== "connecting" || this.status.reason !== reason) this.#set("connecting", reason, detail);
    try {
      // A watcher may have closed it.
      if (attempt.signal.aborted) return;
      this.#guard();
      const url = typeof this.#url === "function" ? await this.#url(this) : this.#url;
      if (attempt.signal.aborted) return;
      await (this.#options.mode === "native" ? this.#listen(url) : this.#read(url, attempt.signal));
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
    if (lastEventIdParam) url = this.#withPosition(url, lastEventIdParam);
    // A header is bytes, and the standard wants UTF-8.
    else if (this.lastEventId) headers.set("last-event-id", String.fromCharCode(...new TextEncoder().encode(this.lastEventId)));
    const response = await this.#env.fetch(url, { method, body, credentials, headers, signal, cache: "no-store" });
    if (signal.aborted) return;
    const { status } = response;
    if (status === 401 || status === 403) return await this.#renew(status, signal);
    if (status !== 200) {
      const seconds = Number(response.headers.get("retry-after")) || 0;
      return isTemporary(status) ? this.#retry("http", status, seconds * 1000) : this.#stop("http", String(status));
    }
    const contentType = response.headers.get("content-type") ?? "";
    if (!/^text\/event-stream *(;|$)/i.test(contentType)) return this.#stop("content-type", contentType);
    if (response.body) await this.#readBody(response.body.getReader(), signal);
    if (!signal.aborted) this.#retry("eof", "");
  }

  /** @param {ReadableStreamDefaultReader<Uint8Array>} reader @param {AbortSignal} signal */
  async #readBody(reader, signal) {
    // What came in one chunk with the event that made the page close the client is not seen any more, nor skipped.
    const push = createParser((message) => signal.aborted || this.#take(message), {
      lastEventId: this.lastEventId,
      onRetry: (ms) => { this.#retryFloor = Math.min(ms, MOST_RETRY); },
      onId: (id) => { if (!signal.aborted) this.lastEventId = id; },
    });
    this.#seen();
    this.#openTimer = this.#env.setTimeout(() => this.#opened(), SILENT_OPEN);
    for (;;) {
      const { done, value } = await reader.read();
      if (signal.aborted || done) return;
      this.#seen();
      push(value);
      if (signal.aborted) return;
      this.#opened();
    }
  }

  /** @param {number} status @param {AbortSignal} signal */
  async #renew(status, signal) {
    const { renew } = this.#options;
    // Once, until a stream was open: what does not help will not help again.
    if (!renew || this.#hasRenewed) return this.#stop("unauthorized", String(status));
    this.#hasRenewed = true;
    // It may ask somebody for a password, which takes as long as it takes.
    this.#env.clearTimeout(this.#silenceTimer);
    this.#silenceTimer = undefined;
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
    this.#letGo();
    void this.#connect("unauthorized", String(status));
  }

  /** The browser's own `EventSource` reads, and comes back by itself. @param {string} url */
  #listen(url) {
    const { EventSource: Native } = this.#env;
    if (!Native) throw new Error("there is no EventSource here");
    const withCredentials = this.#options.credentials === "include";
    const param = this.#options.lastEventIdParam ?? "lastEventId";
    const source = new Native(this.#withPosition(url, param), { withCredentials });
    this.#source = source;
    for (const type of new Set([...HUB_EVENTS, "message", ...this.#listeners.types()])) {
      source.addEventListener(type, this.#onNative);
    }
    source.onopen = () => {
      this.#seen();
      // What follows at once may be that the hub refuses it.
      this.#env.clearTimeout(this.#openTimer);
      this.#openTimer = this.#env.setTimeout(() => this.#opened(), SILENT_OPEN);
    };
    source.onerror = (event) => {
      if ("data" in event) return; // An event of this name that the application sent.
      this.#env.clearTimeout(this.#openTimer);
      if (source.readyState === Native.CLOSED) this.#stop("http", "");
      else if (this.status.state !== "retrying") this.#set("retrying", this.#env.isOffline() ? "offline" : "network", "");
    };
  }

  /** @param {Event} event */
  #onNative = (event) => {
    if (!("data" in event) || event.target !== this.#source) return;
    const { type, data, lastEventId } = /** @type {MessageEvent<string>} */ (event);
    this.#seen();
    if (type === "hub:heartbeat") this.#hearsSilence = true;
    this.#take(new Message(type, data, lastEventId));
    if (this.#source && !this.status.reason.startsWith("hub:")) this.#opened();
  };

  /** @param {string} url @param {string} param */
  #withPosition(url, param) {
    if (!this.lastEventId) return url;
    return `${url}${url.includes("?") ? "&" : "?"}${param}=${encodeURIComponent(this.lastEventId)}`;
  }

  /** @param {Message} message */
  #take(message) {
    const { type } = message;
    // A native stream that was made anew knows nothing of the ids before.
    if (message.id || !this.#source) this.lastEventId = message.id;
    const before = this.#attempt;
    const said = type.startsWith("hub:") ? told(message) : {};
    if (type === "hub:open") this.#opened({ client: said.client ?? "", resumed: said.resumed });
    else if (type === "hub:degraded") this.#degrade(said.degraded === true);
    this.#listeners.tell(message);
    // A listener may have closed it, or asked anew.
    if (this.#attempt !== before) return;
    const isLast = type === "hub:error" || (type === "hub:end" && said.reason === "displaced");
    if (isLast) this.#stop(type, said.reason ?? "");
    else if (type === "hub:refused" || type === "hub:end") {
      // The browser ends and repeats a native one itself.
      if (this.#source) this.#set("retrying", type, said.reason ?? "");
      else this.#retry(type, said.reason ?? "");
    }
  }

  /** @param {Partial<Status>} [more] */
  #opened(more) {
    this.#env.clearTimeout(this.#openTimer);
    if (this.status.state === "open" && !more) return;
    this.#openedAt = this.#env.now();
    this.#hasRenewed = false;
    this.#set("open", "", "", more ?? { resumed: undefined });
  }

  /** @param {boolean} degraded */
  #degrade(degraded) {
    this.#opened();
    if (degraded !== this.degraded) this.#set("open", "", "", { degraded });
  }

  #seen() {
    this.#lastByteAt = this.#env.now();
    this.#wasOffline = false;
  }

  /** Looks again when the silence would be too long, and not with every byte. */
  #guard() {
    const { now, setTimeout, clearTimeout } = this.#env;
    const { silence = 45_000, mode } = this.#options;
    if (!silence) return;
    const left = this.#lastByteAt + silence - now();
    clearTimeout(this.#silenceTimer);
    // A native stream shows no comments: if its heartbeats are some, silence means nothing.
    const isDeaf = mode === "native" && !this.#hearsSilence;
    if (left > 0 || isDeaf) {
      // Not for longer than the silence, also if the clock was set back.
      this.#silenceTimer = setTimeout(() => this.#guard(), left > 0 ? Math.min(left, silence) : silence);
    } else {
      this.#retry("silent", "");
    }
  }

  #onOffline = () => {
    this.#wasOffline = true;
    const { state, reason } = this.status;
    if (state === "retrying" && !this.#source && !isToldToWait(reason)) this.#awaitNetwork();
  };

  #onOnline = () => {
    // The address may be another now, which would be noticed only by the silence. Resuming costs little.
    if (this.#isUnderWay() && this.#wasOffline) {
      this.#letGo();
      this.#soon("offline", "");
    } else {
      this.#wake();
    }
  };

  #onVisible = () => {
    if (this.#env.document?.hidden) return;
    // The page may have slept, and its timers with it.
    if (this.#isUnderWay()) this.#guard();
    this.#wake();
  };

  /** Whether there is a stream, or a request for one; while credentials are renewed there is not. */
  #isUnderWay() {
    const { state } = this.status;
    return state === "open" || (state === "connecting" && this.#silenceTimer !== undefined);
  }

  #wake() {
    const { state, reason, detail } = this.status;
    if (state === "retrying" && !this.#source && !isToldToWait(reason)) this.#soon(reason, detail);
  }
}

/** What an event of the hub says. @param {Message} message @returns {{ client?: string, resumed?: boolean, reason?: string, degraded?: boolean }} */
function told(message) {
  try {
    return Object(message.json());
  } catch {
    return {};
  }
}

/** A listener that throws does not stop the stream. @template T @param {(value: T) => void} listener @param {T} value */
export function call(listener, value) {
  try {
    listener(value);
  } catch (error) {
    const report = globalThis.reportError ?? console.error;
    report(error);
  }
}
