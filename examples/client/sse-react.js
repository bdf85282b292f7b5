// SPDX-FileCopyrightText: The sse-hub contributors
// SPDX-License-Identifier: MIT OR Apache-2.0

/**
 * A React hook over {@link SSEClient} and {@link SharedSSE}.
 *
 * ```jsx
 * const { status, lastEvent, error, reconnect } = useSSE({
 *   url: "/events",
 *   userId,
 *   onGap: () => fetchOrders(),
 * });
 * ```
 *
 * @module
 */
import { useCallback, useEffect, useInsertionEffect, useMemo, useState, useSyncExternalStore } from "react";
import { IDLE, SSEClient, call } from "./sse-client.js";
import { SharedSSE } from "./sse-shared.js";

/** @typedef {import("./sse-client.js").Message} Message */
/** @typedef {import("./sse-client.js").Options} Options */
/** @typedef {import("./sse-client.js").Status} Status */
/** @typedef {import("./sse-shared.js").Sharing} Sharing */

/**
 * An application event: `{ type, data, id }`. `Events` maps each type to its data.
 *
 * @template Events
 * @typedef {{
 *   [Type in keyof Events & string]: { type: Type, data: Events[Type], id: string }
 * }[keyof Events & string]} SSEEvent
 */

/**
 * @template Events
 * @typedef {object} UseSSEOptions
 * @property {string} url
 * @property {string} [userId] sent as the query's `user`. Streams of different users are never
 *   shared
 * @property {string} [sessionId] sent as the query's `session`. Streams of different sessions are
 *   never shared
 * @property {readonly (keyof Events & string)[]} [events] only events of these types. Default: all
 *   types
 * @property {(event: SSEEvent<Events>) => void} [onMessage] called with each event, also if several
 *   arrive between two renders
 * @property {(reason: string, healed: boolean) => void} [onGap] called when events were missed:
 *   fetch the state again, unless the gap is `healed`: a snapshot with the state follows. The
 *   reason is the hub's, or `away` if the component returns to a stream that other
 *   components kept open meanwhile, or `shared` if another tab no longer has the missed events
 * @property {readonly string[]} [topics] topics that the stream follows while a component with the
 *   topic is mounted. A change does not reconnect. Needs `client.topics`, the address at which the
 *   server lets its clients join; not with `share`
 * @property {boolean} [enabled] false: no stream
 * @property {boolean} [share] true: all tabs of the browser with the same options share one stream.
 *   One tab holds the stream, and another tab takes over when that tab closes. If `headers` are
 *   given, `userId`, `sessionId` or `client.name` must be given, too
 * @property {Options & Sharing} [client] options of the client, read from the latest committed
 *   render when the stream opens. `headers` and `renew` are read again for each request. Other
 *   values of `headers` (if it is not a function), `mode`, `method`, `body` (if it is text),
 *   `credentials`, `lastEventIdParam` or `name` open another stream
 */

/**
 * @template Events
 * @typedef {object} UseSSE
 * @property {Status["state"]} status
 * @property {boolean} isConnected
 * @property {boolean} degraded true while the server cannot reach its other instances: events are
 *   delayed
 * @property {SSEEvent<Events> | undefined} lastEvent the latest event, at most one per frame
 * @property {Error | undefined} error why the stream is not connected; undefined while it is open
 * @property {Status} details the client's status
 * @property {() => void} reconnect
 * @property {() => void} close ends the stream for all components that share the client;
 *   `reconnect` opens it again
 */

/** @typedef {{ type: string, data: unknown, id: string }} AnyEvent */
/** @typedef {SSEClient | SharedSSE} Client */
/** @typedef {{ status: Status, lastEvent: AnyEvent | undefined }} Snapshot */

/**
 * The functions and the client's options of a committed render. A larger `order` is a later commit.
 *
 * @typedef {object} Committed
 * @property {number} order
 * @property {((event: AnyEvent) => void) | undefined} onMessage
 * @property {((reason: string, healed: boolean) => void) | undefined} onGap
 * @property {Options & Sharing} client
 */

/**
 * A component that uses the hook.
 *
 * @typedef {object} Member
 * @property {Committed} committed
 * @property {() => void} changed renders the component
 * @property {Left | undefined} left the stream that the component had last
 * @property {string} skipTo the component received the events up to this position from another
 *   stream
 */

/**
 * The end of a component's use of a stream.
 *
 * @typedef {object} Left
 * @property {Stream} stream
 * @property {string} position the stream's position at that time
 * @property {Status | undefined} ended the stream's status, if the stream must not be opened again
 */

/**
 * @typedef {object} Place
 * @property {string} key
 * @property {string} identity the url, the user and the session: a successor has the same identity
 * @property {string} group the name under which tabs share the stream, or empty
 */

/**
 * @typedef {object} State
 * @property {Client} client
 * @property {string} id the client id in the hub, from the predecessor until the hub assigns one
 * @property {boolean} isSucceeded true if another stream continues under the client id
 * @property {Set<Member>} members
 * @property {Snapshot} snapshot
 * @property {Options & Sharing} options those of the latest commit of any member
 * @property {string | undefined} sent the headers of the last request, if a function returned them
 * @property {Map<string, number>} topics the topics that the client has joined, and how many members
 *   want each
 * @property {number} retries attempts with other headers since the stream was open
 */

/** @typedef {Place & State} Stream */
/** @typedef {(stream: Stream, position: string) => Client} Make */

/** @type {Snapshot} */
const NOTHING = { status: IDLE, lastEvent: undefined };

/** The server refuses at most this many headers of a function in a row. */
const MAX_RETRIES = 5;

/** A frame that does not come delays a render by this, in milliseconds. */
const FRAME_TIMEOUT = 250;

/**
 * The open streams by key. The key holds all options that change the request.
 *
 * @type {Map<string, Stream>}
 */
const streams = new Map();

let commits = 0;

/**
 * Keeps a stream of events open while a component that uses it is mounted.
 *
 * Components with the same url, user, session, types and request options share one connection. The
 * first component opens the connection, and the last component to unmount closes it. Callbacks may
 * change with each render. Events that arrive between two frames cause one render with the latest
 * event; `onMessage` receives each event. If a callback throws, the error is passed to
 * `reportError`.
 *
 * # Changing options
 *
 * If the options of a component change, another stream replaces the component's stream. If the url,
 * the user and the session are the same, the new stream resumes from the position of the old
 * stream, with its client id. The same applies if `enabled` is set to false and to true again.
 *
 * # Closing
 *
 * A stream that `close` or the server ended for good stays closed when the options change. It opens
 * again by `reconnect`, if `enabled` is set to false and to true again, or for another url, user or
 * session.
 *
 * # Headers
 *
 * If `headers` is a function, the hook cannot compare its results. Components with different
 * functions share a stream only if `userId`, `sessionId` or `client.name` is given.
 *
 * With `share`, tabs share the stream, and `close` affects only this tab.
 *
 * Data is parsed as JSON. Data that is not JSON stays a string.
 *
 * @template {object} Events
 * @param {UseSSEOptions<Events>} options
 * @returns {UseSSE<Events>}
 */
export function useSSE(options) {
  const { url, userId, sessionId, events, topics = [], onMessage, onGap, enabled = true, share = false, client = {} } = options;
  const { headers, mode, method, body, credentials, lastEventIdParam, name } = client;
  const isNamed = Boolean(userId || sessionId || name);
  if (share && headers && !isNamed) throw new Error(UNNAMED);
  if (share && topics.length > 0) throw new Error(NOT_SHARED);
  // A component may create the function in each render, which must not reconnect. The number of the
  // first function stays part of the key.
  const first = useMemo(() => (typeof headers === "function" ? numberOf(headers) : 0), [typeof headers]);
  const headersKey = typeof headers === "function" ? (isNamed ? "function" : first) : textOf(headers);
  const bodyKey = typeof body === "string" || body instanceof URLSearchParams ? String(body) : null;
  const address = addressOf(url, userId, sessionId, events);
  const identity = JSON.stringify([url, userId || null, sessionId || null, method, bodyKey]);
  const key = JSON.stringify([identity, address, share, headersKey, mode, credentials, lastEventIdParam, name]);

  const [member] = useState(newMember);
  // Insertion effects run before all other effects: a stream that opens finds the options of the
  // committed render. A render that is discarded has no effects.
  useInsertionEffect(() => {
    commits += 1;
    member.committed = { order: commits, onMessage: /** @type {Committed["onMessage"]} */ (onMessage), onGap, client };
  });
  const subscribe = useCallback(
    (/** @type {() => void} */ changed) => {
      if (!enabled) {
        if (member.left) member.left.ended = undefined;
        return () => {};
      }
      member.changed = changed;
      const group = share ? name || address : "";
      return join(member, { key, identity, group }, (stream, position) => {
        const settings = settingsOf(stream, position);
        const from = () => withId(address, stream);
        return share ? new SharedSSE(from, { ...settings, name: group }) : new SSEClient(from, settings);
      });
    },
    [member, key, identity, address, share, name, enabled],
  );
  const read = () => (enabled ? (streams.get(key)?.snapshot ?? NOTHING) : NOTHING);
  const { status, lastEvent } = useSyncExternalStore(subscribe, read, () => NOTHING);
  useEffect(() => {
    if (enabled) void retryWithNewHeaders(streams.get(key));
  });
  const wanted = JSON.stringify([...new Set(topics)].sort());
  useEffect(() => {
    const stream = enabled ? streams.get(key) : undefined;
    return stream && follow(stream, JSON.parse(wanted));
  }, [key, enabled, wanted]);
  const actions = useMemo(
    () => ({
      reconnect: () => streams.get(key)?.client.reconnect(),
      close: () => streams.get(key)?.client.close(),
    }),
    [key],
  );
  const error = useMemo(() => errorOf(status), [status]);
  return {
    status: status.state,
    isConnected: status.state === "open",
    degraded: status.degraded,
    lastEvent: /** @type {SSEEvent<Events> | undefined} */ (lastEvent),
    error,
    details: status,
    ...actions,
  };
}

const UNNAMED =
  "useSSE: a shared stream with headers needs userId, sessionId or client.name: users must not share a stream";

const NOT_SHARED = "useSSE: a stream that tabs share cannot follow the topics of one component";

/** @returns {Member} */
const newMember = () => ({
  committed: { order: 0, onMessage: undefined, onGap: undefined, client: {} }, changed: () => {}, left: undefined, skipTo: "",
});

/** @type {WeakMap<object, number>} */
const numbers = new WeakMap();
let functions = 0;

/** Returns a number that belongs to this function alone. @param {() => unknown} value */
function numberOf(value) {
  const number = numbers.get(value) ?? (functions += 1);
  numbers.set(value, number);
  return number;
}

/** Returns a text that is equal for equal headers. @param {HeadersInit} [headers] */
function textOf(headers) {
  if (!headers) return null;
  try {
    return JSON.stringify([...new Headers(headers)]);
  } catch {
    // The request reports that the headers are invalid.
    return JSON.stringify(headers);
  }
}

/**
 * @param {string} url
 * @param {string} [user]
 * @param {string} [session]
 * @param {readonly string[]} [events]
 */
function addressOf(url, user, session, events) {
  const query = new URLSearchParams();
  if (user) query.set("user", user);
  if (session) query.set("session", session);
  if (events) query.set("events", [...new Set(events)].sort().join(","));
  const text = query.toString();
  return text ? withQuery(url, text) : url;
}

/** @param {string} url @param {string} more */
const withQuery = (url, more) => `${url}${url.includes("?") ? "&" : "?"}${more}`;

/**
 * Adds the client id: the hub replays the events that were addressed to this client meanwhile.
 *
 * @param {string} address @param {Stream} stream
 */
function withId(address, stream) {
  const id = idOf(stream);
  return id ? withQuery(address, `client=${encodeURIComponent(id)}`) : address;
}

/** @param {Stream} stream */
const idOf = ({ client, id }) => client.status.client || id;

/** Returns the options of the latest commit. @param {Stream} stream */
function optionsOf(stream) {
  let order = 0;
  for (const { committed } of stream.members) {
    if (committed.order < order) continue;
    order = committed.order;
    stream.options = committed.client;
  }
  return stream.options;
}

/**
 * Returns the client's options. Functions are looked up for each call.
 *
 * @param {Stream} stream
 * @param {string} position
 */
function settingsOf(stream, position) {
  const options = optionsOf(stream);
  const headers = async () => {
    const { headers: given } = optionsOf(stream);
    if (typeof given !== "function") return given ?? {};
    const result = await given();
    stream.sent = textOf(result) ?? "";
    return result;
  };
  return {
    ...options,
    lastEventId: position || options.lastEventId,
    headers: options.headers && headers,
    renew: (/** @type {number} */ code) => {
      const { renew } = optionsOf(stream);
      return renew ? renew(code) : false;
    },
  };
}

/**
 * Opens a stream again if the server refused its headers, and their function returns other headers
 * now.
 *
 * @param {Stream} [stream]
 */
async function retryWithNewHeaders(stream) {
  const isRefused = () => stream?.client.status.state === "closed" && stream.client.status.reason === "unauthorized";
  if (!stream || stream.sent === undefined || !isRefused()) return;
  const { headers } = optionsOf(stream);
  if (typeof headers !== "function") return;
  try {
    const text = textOf(await headers()) ?? "";
    if (text === stream.sent || stream.retries >= MAX_RETRIES || !isRefused() || streams.get(stream.key) !== stream) return;
    stream.retries += 1;
    stream.client.open();
  } catch {
    // No headers yet. The next render tries again.
  }
}

/**
 * Adds a member to a stream; the first member opens the stream. Returns a function that removes the
 * member.
 *
 * @param {Member} member @param {Place} place @param {Make} make
 */
function join(member, place, make) {
  const left = member.left?.stream.identity === place.identity ? member.left : undefined;
  member.left = undefined;
  member.skipTo = "";
  let stream = streams.get(place.key);
  if (!stream) {
    stream = start(member, place, make, left);
  } else {
    if (left) catchUp(member, stream, left);
    // `enabled` may be true again before the stream is removed: a stream that is closed must open.
    if (left && !left.ended && stream.members.size === 0) stream.client.open();
    stream.members.add(member);
  }
  const joined = stream;
  return () => leave(member, joined);
}

/** @param {Member} member @param {Stream} stream */
function leave(member, stream) {
  const { client, members, snapshot } = stream;
  // A stream that must stay closed has a client that never opened.
  const status = client.status.state === "idle" ? snapshot.status : client.status;
  const position = isAfter(member.skipTo, client.lastEventId) ? member.skipTo : client.lastEventId;
  member.left = { stream, position, ended: isEnded(status) ? status : undefined };
  members.delete(member);
  // StrictMode and a reordered list unsubscribe and subscribe again at once: that must not
  // reconnect.
  setTimeout(() => {
    if (members.size === 0) end(stream);
  });
}

/**
 * Follows topics for a member of a stream. Returns a function that ends this.
 *
 * @param {Stream} stream @param {string[]} topics
 */
function follow(stream, topics) {
  const { client, members, topics: counts } = stream;
  // A shared stream has no topics.
  if (!(client instanceof SSEClient)) return;
  for (const topic of topics) {
    const count = counts.get(topic);
    counts.set(topic, (count ?? 0) + 1);
    if (count === undefined) void client.join(topic);
  }
  return () => {
    for (const topic of topics) counts.set(topic, (counts.get(topic) ?? 1) - 1);
    // StrictMode and a reordered list end this and begin again at once: that must send no request.
    setTimeout(() => {
      for (const topic of topics) {
        if (counts.get(topic) !== 0) continue;
        counts.delete(topic);
        // Without members the stream closes. Another stream may continue under its client id.
        if (members.size > 0) client.leave(topic);
      }
    });
  };
}

/** @param {Stream} stream */
function end(stream) {
  if (streams.get(stream.key) === stream) streams.delete(stream.key);
  stream.client.close();
}

/** Returns whether the page or the server ended the stream on purpose. @param {Status} status */
const isEnded = ({ state, reason, detail }) =>
  state === "closed" && (reason === "close" || reason === "hub:end" || (reason === "http" && detail === "204"));

/**
 * Adapts a member that comes from another stream, or that was away, to the position of an open
 * stream.
 *
 * @param {Member} member @param {Stream} stream @param {Left} left
 */
function catchUp(member, { client: { lastEventId } }, { position }) {
  if (!position || position === lastEventId) return;
  if (isAfter(position, lastEventId)) member.skipTo = position;
  else call((reason) => member.committed.onGap?.(reason, false), "away");
}

/**
 * Returns whether an id of a hub, `a-b`, is after another.
 *
 * @param {string} id
 * @param {string} other
 */
function isAfter(id, other) {
  const form = /^(\d+)-(\d+)$/;
  const [, a, b] = form.exec(id) ?? [];
  const [, c, d] = form.exec(other) ?? [];
  if (!a || !b || !c || !d) return false;
  return a === c ? BigInt(b) > BigInt(d) : BigInt(a) > BigInt(c);
}

/**
 * Starts a stream, from the position of the predecessor if there is one.
 *
 * @param {Member} member @param {Place} place @param {Make} make @param {Left} [left]
 */
function start(member, place, make, left) {
  const members = new Set([member]);
  const stream = /** @type {Stream} */ ({ ...place, id: "", isSucceeded: false, members, options: {}, topics: new Map(), retries: 0 });
  const before = left?.stream;
  if (before && before.members.size === 0) {
    end(before);
    // Only one stream may continue under a client id. That of a shared stream belongs to all tabs.
    if (!before.isSucceeded && before.group === place.group) {
      stream.id = idOf(before);
      before.isSucceeded = true;
    }
  }
  const client = make(stream, left?.position ?? "");
  stream.client = client;
  stream.snapshot = { status: left?.ended ?? client.status, lastEvent: undefined };
  streams.set(place.key, stream);

  /** @type {AnyEvent | undefined} */
  let latest;
  let isDue = false;
  const renderSoon = () => {
    if (isDue) return;
    isDue = true;
    inNextFrame(() => {
      isDue = false;
      stream.snapshot = { status: client.status, lastEvent: latest };
      for (const { changed } of [...stream.members]) call(changed, undefined);
    });
  };
  client.on("*", (message) => {
    const event = { type: message.type, data: dataOf(message), id: message.id };
    latest = event;
    renderSoon();
    for (const each of [...stream.members]) {
      // A callback may have unmounted another component.
      if (stream.members.has(each) && isNew(event, each)) call((news) => each.committed.onMessage?.(news), event);
    }
  });
  client.on("hub:gap", (message) => {
    const { reason, healed } = Object(dataOf(message));
    for (const each of [...stream.members]) {
      call((why) => each.committed.onGap?.(why, healed === true), String(reason ?? ""));
    }
  });
  client.onStatus(({ state }) => {
    if (state === "open") stream.retries = 0;
    renderSoon();
  });
  if (!left?.ended) client.open();
  return stream;
}

/**
 * Returns whether the member did not receive the event from another stream.
 *
 * @param {AnyEvent} event
 * @param {Member} member
 */
function isNew({ id }, member) {
  if (!member.skipTo) return true;
  if (isAfter(member.skipTo, id)) return false;
  const isLast = id === member.skipTo;
  member.skipTo = "";
  return !isLast;
}

/**
 * Calls back in the next frame, or after {@link FRAME_TIMEOUT}. A page that is hidden or not drawn
 * has no frames.
 *
 * @param {() => void} callback
 */
function inNextFrame(callback) {
  let isDone = false;
  const run = () => {
    if (isDone) return;
    isDone = true;
    clearTimeout(timer);
    callback();
  };
  const timer = setTimeout(run, FRAME_TIMEOUT);
  if (!globalThis.document?.hidden) globalThis.requestAnimationFrame?.(run);
}

/** @param {Message} message @returns {unknown} */
function dataOf(message) {
  try {
    return message.json();
  } catch {
    return message.data;
  }
}

/** @param {Status} status */
function errorOf({ state, reason, detail }) {
  if (state === "open" || !reason || reason === "close" || reason === "reconnect") return undefined;
  return new Error(detail ? `${reason}: ${detail}` : reason);
}
