import { SSEClient } from "./sse-client.js";
import { SharedSSE } from "./sse-shared.js";
export type Message = import("./sse-client.js").Message;
export type Options = import("./sse-client.js").Options;
export type Status = import("./sse-client.js").Status;
export type Sharing = import("./sse-shared.js").Sharing;
export type SSEEvent<Events> = {
    [Type in keyof Events & string]: {
        type: Type;
        data: Events[Type];
        id: string;
    };
}[keyof Events & string];
export type UseSSEOptions<Events> = {
    url: string;
    /**
     * sent as the query's `user`
     */
    userId?: string;
    /**
     * sent as the query's `session`
     */
    sessionId?: string;
    /**
     * only events of these types. Default: all types
     */
    events?: readonly (keyof Events & string)[];
    /**
     * called with each event, also if several arrive between two renders
     */
    onMessage?: (event: SSEEvent<Events>) => void;
    /**
     * called when events were missed: fetch the state again
     */
    onGap?: (reason: string) => void;
    /**
     * false: no stream
     */
    enabled?: boolean;
    /**
     * true: all tabs of the browser with the same options share one stream. One tab holds the stream,
     * and another tab takes over when that tab closes
     */
    share?: boolean;
    /**
     * options of the client. Components with otherwise equal options share one client, and
     * the first component's `client` applies
     */
    client?: Options & Sharing;
};
export type UseSSE<Events> = {
    status: Status["state"];
    isConnected: boolean;
    /**
     * true while the server cannot reach its other instances: events are delayed
     */
    degraded: boolean;
    /**
     * the latest event, at most one per frame
     */
    lastEvent: SSEEvent<Events> | undefined;
    /**
     * why the stream is not connected; undefined while it is open
     */
    error: Error | undefined;
    /**
     * the client's status
     */
    details: Status;
    reconnect: () => void;
    /**
     * ends the stream for all components that share the client; `reconnect` opens it again
     */
    close: () => void;
};
export type AnyEvent = {
    type: string;
    data: unknown;
    id: string;
};
export type Callbacks = {
    onMessage?: (event: AnyEvent) => void;
    onGap?: (reason: string) => void;
};
export type User = {
    changed: () => void;
    callbacks: {
        current: Callbacks;
    };
};
export type Snapshot = {
    status: Status;
    lastEvent: AnyEvent | undefined;
};
export type Client = SSEClient | SharedSSE;
export type Stream = {
    client: Client;
    users: Set<User>;
    snapshot: Snapshot;
};
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
export declare function useSSE<Events extends object>(options: UseSSEOptions<Events>): UseSSE<Events>;
