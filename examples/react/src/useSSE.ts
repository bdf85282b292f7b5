import { useCallback, useInsertionEffect, useMemo, useRef, useSyncExternalStore } from "react";
import { SSEClient, type Message, type Options, type Status } from "sse-hub-client";

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
  /** How the stream is asked for. Components share one if all else is the same, and the first decides of these. */
  client?: Options;
};

export type UseSSE<Events> = {
  status: Status["state"];
  isConnected: boolean;
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
 * Data is read as JSON. What is not is a string.
 */
export function useSSE<Events extends object>(options: UseSSEOptions<Events>): UseSSE<Events> {
  const { url, userId, sessionId, events, onMessage, onGap, enabled = true, client } = options;
  const address = addressOf(url, userId, sessionId, events);
  const callbacks = useRef<Callbacks>({});
  // Before all effects, so that the first event finds the callbacks of this render; and not for a render that is discarded.
  useInsertionEffect(() => {
    callbacks.current = { onMessage: onMessage as Callbacks["onMessage"], onGap };
  });
  // Asked for when the component is mounted, and not for a render that may be discarded.
  const firstOptions = useRef(client);
  const subscribe = useCallback(
    (changed: () => void) => (enabled ? hold(address, firstOptions.current, { changed, callbacks }) : () => {}),
    [address, enabled],
  );
  const read = () => (enabled ? (streams.get(address)?.snapshot ?? NOTHING) : NOTHING);
  const { status, lastEvent } = useSyncExternalStore(subscribe, read, () => NOTHING);
  const actions = useMemo(
    () => ({
      reconnect: () => streams.get(address)?.client.reconnect(),
      close: () => streams.get(address)?.client.close(),
    }),
    [address],
  );
  const error = useMemo(() => errorOf(status), [status]);
  return {
    status: status.state,
    isConnected: status.state === "open",
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
type Stream = { client: SSEClient; users: Set<User>; snapshot: Snapshot };

const IDLE: Status = { state: "idle", reason: "", detail: "", client: "", resumed: undefined, retryAt: undefined };
const NOTHING: Snapshot = { status: IDLE, lastEvent: undefined };

/** The streams that are used, by their address. */
const streams = new Map<string, Stream>();

function addressOf(url: string, user?: string, session?: string, events?: readonly string[]): string {
  const query = new URLSearchParams();
  if (user) query.set("user", user);
  if (session) query.set("session", session);
  if (events) query.set("events", [...new Set(events)].sort().join(","));
  const text = query.toString();
  if (!text) return url;
  return `${url}${url.includes("?") ? "&" : "?"}${text}`;
}

/** Uses the stream of an address, which is opened for the first. Returns what lets it go. */
function hold(address: string, options: Options | undefined, user: User): () => void {
  const stream = streams.get(address) ?? start(address, options);
  stream.users.add(user);
  return () => {
    stream.users.delete(user);
    // StrictMode, and a list that is rendered anew, let go and take it up again at once: that is no reason to connect anew.
    setTimeout(() => {
      if (stream.users.size > 0 || streams.get(address) !== stream) return;
      streams.delete(address);
      stream.client.close();
    });
  };
}

function start(address: string, options?: Options): Stream {
  // A client that returns keeps its id, and what was sent to it alone meanwhile.
  const url = ({ status }: SSEClient) => (status.client ? `${address}${address.includes("?") ? "&" : "?"}client=${status.client}` : address);
  const client = new SSEClient(url, options);
  const stream: Stream = { client, users: new Set(), snapshot: { status: client.status, lastEvent: undefined } };
  streams.set(address, stream);

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
