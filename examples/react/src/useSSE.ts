import { useCallback, useInsertionEffect, useMemo, useRef, useSyncExternalStore } from "react";
import { IDLE, SSEClient, type Message, type Options, type Status } from "sse-hub-client";
import { SharedSSE, type Sharing } from "sse-hub-client/shared";

/** An event of a map of types to what their data is: `{ type, data, id }` of one of them. */
export type SSEEvent<Events> = {
  [Type in keyof Events & string]: { type: Type; data: Events[Type]; id: string };
}[keyof Events & string];

export type UseSSEOptions<Events> = {
  url: string;
  userId?: string;
  sessionId?: string;
  /** Only events of these types; all, unless given. */
  events?: readonly (keyof Events & string)[];
  /** Is called with every event, also where several come between two renders. */
  onMessage?: (event: SSEEvent<Events>) => void;
  /** Events were missed: fetch the state anew. */
  onGap?: (reason: string) => void;
  /** False: no stream. */
  enabled?: boolean;
  /** True: one stream for all tabs of the browser that ask for the same. One of them holds it, and hands it over when it goes. */
  share?: boolean;
  /** How the stream is asked for. Components share one if all else is the same, and the first decides of these. */
  client?: Options & Sharing;
};

export type UseSSE<Events> = {
  status: Status["state"];
  isConnected: boolean;
  /** Events are held up: the server cannot reach its other instances, and what is published arrives when it can. */
  degraded: boolean;
  /** The latest, at most one for each frame. */
  lastEvent: SSEEvent<Events> | undefined;
  /** Why it is not connected, until it is. */
  error: Error | undefined;
  /** Where the client stands, in full. */
  details: Status;
  reconnect: () => void;
  /** Ends the stream for all components that share it; `reconnect` opens it again. */
  close: () => void;
};

/**
 * A stream of events for as long as a component that uses it is mounted.
 *
 * Components with the same url, user, session and types share one connection. It opens with the first of them and is freed
 * with the last. A callback may be another function in each render. Rendering is batched: many events between two frames are
 * one render, with the latest of them; `onMessage` sees all.
 *
 * With `share`, tabs have one stream together, and `close` is for this tab alone.
 *
 * Data is read as JSON. What is not is a string.
 */
export function useSSE<Events extends object>(options: UseSSEOptions<Events>): UseSSE<Events> {
  const { url, userId, sessionId, events, onMessage, onGap, enabled = true, share = false, client } = options;
  const address = addressOf(url, userId, sessionId, events);
  const key = `${share ? "shared" : "own"} ${address}`;
  const callbacks = useRef<Callbacks>({});
  // Before all effects, so that the first event finds the callbacks of this render; and not for a render that is discarded.
  useInsertionEffect(() => {
    callbacks.current = { onMessage: onMessage as Callbacks["onMessage"], onGap };
  });
  // Asked for when the component is mounted, and not for a render that may be discarded.
  const firstOptions = useRef(client);
  const subscribe = useCallback(
    (changed: () => void) => {
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
    lastEvent: lastEvent as SSEEvent<Events> | undefined,
    error,
    details: status,
    ...actions,
  };
}

type AnyEvent = { type: string; data: unknown; id: string };
type Callbacks = { onMessage?: (event: AnyEvent) => void; onGap?: (reason: string) => void };
type User = { changed: () => void; callbacks: { current: Callbacks } };
type Snapshot = { status: Status; lastEvent: AnyEvent | undefined };
type Client = SSEClient | SharedSSE;
type Stream = { client: Client; users: Set<User>; snapshot: Snapshot };

const NOTHING: Snapshot = { status: IDLE, lastEvent: undefined };

/** The streams that are used, by their address and whether they are shared with other tabs. */
const streams = new Map<string, Stream>();

function addressOf(url: string, user?: string, session?: string, events?: readonly string[]): string {
  const query = new URLSearchParams();
  if (user) query.set("user", user);
  if (session) query.set("session", session);
  if (events) query.set("events", [...new Set(events)].sort().join(","));
  const text = query.toString();
  return text ? withQuery(url, text) : url;
}

const withQuery = (url: string, more: string) => `${url}${url.includes("?") ? "&" : "?"}${more}`;

/** A client that returns keeps its id, and what was sent to it alone meanwhile. */
const withId = (address: string) => ({ status: { client } }: Client) => (client ? withQuery(address, `client=${client}`) : address);

const own = (address: string, options?: Options) => new SSEClient(withId(address), options);

const shared = (address: string, options?: Options & Sharing) => new SharedSSE(withId(address), { name: address, ...options });

/** Uses a stream, which is opened for the first. Returns what lets it go. */
function hold(key: string, make: () => Client, user: User): () => void {
  const stream = streams.get(key) ?? start(key, make());
  stream.users.add(user);
  return () => {
    stream.users.delete(user);
    // StrictMode, and a list that is rendered anew, let go and take it up again at once: that is no reason to connect anew.
    setTimeout(() => {
      if (stream.users.size > 0 || streams.get(key) !== stream) return;
      streams.delete(key);
      stream.client.close();
    });
  };
}

function start(key: string, client: Client): Stream {
  const stream: Stream = { client, users: new Set(), snapshot: { status: client.status, lastEvent: undefined } };
  streams.set(key, stream);

  let latest: AnyEvent | undefined;
  let isDue = false;
  const tellSoon = () => {
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
    tellSoon();
  });
  client.on("hub:gap", (message) => {
    for (const user of [...stream.users]) user.callbacks.current.onGap?.(message.json().reason);
  });
  client.onStatus(tellSoon);
  client.open();
  return stream;
}

/** A hidden page gets no frames. */
function inNextFrame(callback: () => void): void {
  if (document.hidden) setTimeout(callback, 250);
  else requestAnimationFrame(callback);
}

function dataOf(message: Message): unknown {
  try {
    return message.json();
  } catch {
    return message.data;
  }
}

function errorOf({ state, reason, detail }: Status): Error | undefined {
  if (state === "open" || !reason || reason === "close" || reason === "reconnect") return undefined;
  return new Error(detail ? `${reason}: ${detail}` : reason);
}
