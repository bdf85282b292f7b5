// SPDX-FileCopyrightText: The sse-hub contributors
// SPDX-License-Identifier: MIT OR Apache-2.0

/**
 * A React hook over {@link SSEClient} and {@link SharedSSE}.
 *
 * ```jsx
 * const { status, lastEvent, error, reconnect } = useSSE({ url: "/events", userId, onGap: () => fetchOrders() });
 * ```
 *
 * @module
 */
import { useCallback, useInsertionEffect, useMemo, useRef, useSyncExternalStore } from "react";
import { IDLE, SSEClient } from "./sse-client.js";
import { SharedSSE } from "./sse-shared.js";

/** @typedef {import("./sse-client.js").Message} Message */
/** @typedef {import("./sse-client.js").Options} Options */
/** @typedef {import("./sse-client.js").Status} Status */
/** @typedef {import("./sse-shared.js").Sharing} Sharing */

/**
 * An application event: `{ type, data, id }`. `Events` maps each type to its data.
 *
 * @template Events
 * @typedef {{ [Type in keyof Events & string]: { type: Type, data: Events[Type], id: string } }[keyof Events & string]} SSEEvent
 */

/**
 * @template Events
 * @typedef {object} UseSSEOptions
 * @property {string} url
 * @property {string} [userId] sent as the query's `user`
 * @property {string} [sessionId] sent as the query's `session`
 * @property {readonly (keyof Events & string)[]} [events] only events of these types. Default: all types
 * @property {(event: SSEEvent<Events>) => void} [onMessage] called with each event, also if several arrive between two renders
 * @property {(reason: string) => void} [onGap] called when events were missed: fetch the state again
 * @property {boolean} [enabled] false: no stream
 * @property {boolean} [share] true: all tabs of the browser with the same options share one stream. One tab holds the stream,
 *   and another tab takes over when that tab closes
 * @property {Options & Sharing} [client] options of the client. Components with otherwise equal options share one client, and
 *   the first component's `client` applies
 */

/**
 * @template Events
 * @typedef {object} UseSSE
 * @property {Status["state"]} status
 * @property {boolean} isConnected
 * @property {boolean} degraded true while the server cannot reach its other instances: events are delayed
 * @property {SSEEvent<Events> | undefined} lastEvent the latest event, at most one per frame
 * @property {Error | undefined} error why the stream is not connected; undefined while it is open
 * @property {Status} details the client's status
 * @property {() => void} reconnect
 * @property {() => void} close ends the stream for all components that share the client; `reconnect` opens it again
 */

/** @typedef {{ type: string, data: unknown, id: string }} AnyEvent */
/** @typedef {{ onMessage?: (event: AnyEvent) => void, onGap?: (reason: string) => void }} Callbacks */
/** @typedef {{ changed: () => void, callbacks: { current: Callbacks } }} User */
/** @typedef {{ status: Status, lastEvent: AnyEvent | undefined }} Snapshot */
/** @typedef {SSEClient | SharedSSE} Client */
/** @typedef {{ client: Client, users: Set<User>, snapshot: Snapshot }} Stream */

/** @type {Snapshot} */
const NOTHING = { status: IDLE, lastEvent: undefined };

/** The streams in use. The key is the address, and whether other tabs share the stream. @type {Map<string, Stream>} */
const streams = new Map();

/**
 * Keeps a stream of events open while a component that uses it is mounted.
 *
 * Components with the same url, user, session and types share one connection. The first component opens the connection, and the
 * last component to unmount closes it. Callbacks may change with each render. Events that arrive between two frames cause one
 * render with the latest event; `onMessage` receives each event.
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
  const { url, userId, sessionId, events, onMessage, onGap, enabled = true, share = false, client } = options;
  const address = addressOf(url, userId, sessionId, events);
  const key = `${share ? "shared" : "own"} ${address}`;
  const callbacks = useRef(/** @type {Callbacks} */ ({}));
  // Insertion effects run before all other effects: the first event finds the callbacks of the committed render.
  useInsertionEffect(() => {
    callbacks.current = { onMessage: /** @type {Callbacks["onMessage"]} */ (onMessage), onGap };
  });
  // Read on mount, because a render may be discarded.
  const firstOptions = useRef(client);
  const subscribe = useCallback(
    (/** @type {() => void} */ changed) => {
      if (!enabled) return () => {};
      return hold(key, () => (share ? shared : own)(address, firstOptions.current), { changed, callbacks });
    },
    [key, address, share, enabled],
  );
  const read = () => (enabled ? (streams.get(key)?.snapshot ?? NOTHING) : NOTHING);
  const { status, lastEvent } = useSyncExternalStore(subscribe, read, () => NOTHING);
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

/** @param {string} url @param {string} [user] @param {string} [session] @param {readonly string[]} [events] */
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
 * Sends the client id again after a reconnect: the hub replays the events that were addressed to this client meanwhile.
 *
 * @param {string} address @returns {(client: Client) => string}
 */
const withId = (address) => ({ status: { client } }) => (client ? withQuery(address, `client=${client}`) : address);

/** @param {string} address @param {Options} [options] */
const own = (address, options) => new SSEClient(withId(address), options);

/** @param {string} address @param {Options & Sharing} [options] */
const shared = (address, options) => new SharedSSE(withId(address), { name: address, ...options });

/** Adds a user to a stream; the first user opens it. Returns a function that removes the user. @param {string} key @param {() => Client} make @param {User} user */
function hold(key, make, user) {
  const stream = streams.get(key) ?? start(key, make());
  stream.users.add(user);
  return () => {
    stream.users.delete(user);
    // StrictMode and a reordered list unsubscribe and subscribe again at once: that must not reconnect.
    setTimeout(() => {
      if (stream.users.size > 0 || streams.get(key) !== stream) return;
      streams.delete(key);
      stream.client.close();
    });
  };
}

/** @param {string} key @param {Client} client @returns {Stream} */
function start(key, client) {
  /** @type {Stream} */
  const stream = { client, users: new Set(), snapshot: { status: client.status, lastEvent: undefined } };
  streams.set(key, stream);

  /** @type {AnyEvent | undefined} */
  let latest;
  let isDue = false;
  const renderSoon = () => {
    if (isDue) return;
    isDue = true;
    inNextFrame(() => {
      isDue = false;
      stream.snapshot = { status: client.status, lastEvent: latest };
      for (const user of [...stream.users]) user.changed();
    });
  };
  client.on("*", (message) => {
    const event = { type: message.type, data: dataOf(message), id: message.id };
    latest = event;
    for (const user of [...stream.users]) user.callbacks.current.onMessage?.(event);
    renderSoon();
  });
  client.on("hub:gap", (message) => {
    for (const user of [...stream.users]) user.callbacks.current.onGap?.(message.json().reason);
  });
  client.onStatus(renderSoon);
  client.open();
  return stream;
}

/** Calls back in the next frame. A hidden page has no frames. @param {() => void} callback */
function inNextFrame(callback) {
  if (document.hidden) setTimeout(callback, 250);
  else requestAnimationFrame(callback);
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
