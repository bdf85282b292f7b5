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
     * sent as the query's `user`. Streams of different users are never
     * shared
     */
    userId?: string;
    /**
     * sent as the query's `session`. Streams of different sessions are
     * never shared
     */
    sessionId?: string;
    /**
     * only events of these types. Default: all
     * types
     */
    events?: readonly (keyof Events & string)[];
    /**
     * called with each event, also if several
     * arrive between two renders
     */
    onMessage?: (event: SSEEvent<Events>) => void;
    /**
     * called when events were missed:
     * fetch the state again, unless the gap is `healed`: a snapshot with the state follows. The
     * reason is the hub's, or `away` if the component returns to a stream that other
     * components kept open meanwhile, or `shared` if another tab no longer has the missed events
     */
    onGap?: (reason: string, healed: boolean) => void;
    /**
     * topics that the stream follows while a component with the
     * topic is mounted. A change does not reconnect. Needs `client.topics`, the address at which the
     * server lets its clients join; not with `share`
     */
    topics?: readonly string[];
    /**
     * false: no stream
     */
    enabled?: boolean;
    /**
     * true: all tabs of the browser with the same options share one stream.
     * One tab holds the stream, and another tab takes over when that tab closes. If `headers` are
     * given, `userId`, `sessionId` or `client.name` must be given, too
     */
    share?: boolean;
    /**
     * options of the client, read from the latest committed
     * render when the stream opens. `headers` and `renew` are read again for each request. Other
     * values of `headers` (if it is not a function), `mode`, `method`, `body` (if it is text),
     * `credentials`, `lastEventIdParam` or `name` open another stream
     */
    client?: Options & Sharing;
};
export type UseSSE<Events> = {
    status: Status["state"];
    isConnected: boolean;
    /**
     * true while the server cannot reach its other instances: events are
     * delayed
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
     * ends the stream for all components that share the client;
     * `reconnect` opens it again
     */
    close: () => void;
};
export type AnyEvent = {
    type: string;
    data: unknown;
    id: string;
};
export type Client = SSEClient | SharedSSE;
export type Snapshot = {
    status: Status;
    lastEvent: AnyEvent | undefined;
};
export type Committed = {
    order: number;
    onMessage: ((event: AnyEvent) => void) | undefined;
    onGap: ((reason: string, healed: boolean) => void) | undefined;
    client: Options & Sharing;
};
export type Member = {
    committed: Committed;
    /**
     * renders the component
     */
    changed: () => void;
    /**
     * the stream that the component had last
     */
    left: Left | undefined;
    /**
     * the component received the events up to this position from another
     * stream
     */
    skipTo: string;
};
export type Left = {
    stream: Stream;
    /**
     * the stream's position at that time
     */
    position: string;
    /**
     * the stream's status, if the stream must not be opened again
     */
    ended: Status | undefined;
};
export type Place = {
    key: string;
    /**
     * the url, the user and the session: a successor has the same identity
     */
    identity: string;
    /**
     * the name under which tabs share the stream, or empty
     */
    group: string;
};
export type State = {
    client: Client;
    /**
     * the client id in the hub, from the predecessor until the hub assigns one
     */
    id: string;
    /**
     * true if another stream continues under the client id
     */
    isSucceeded: boolean;
    members: Set<Member>;
    snapshot: Snapshot;
    /**
     * those of the latest commit of any member
     */
    options: Options & Sharing;
    /**
     * the headers of the last request, if a function returned them
     */
    sent: string | undefined;
    /**
     * the topics that the client has joined, and how many members
     * want each
     */
    topics: Map<string, number>;
    /**
     * attempts with other headers since the stream was open
     */
    retries: number;
};
export type Stream = Place & State;
export type Make = (stream: Stream, position: string) => Client;
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
export declare function useSSE<Events extends object>(options: UseSSEOptions<Events>): UseSSE<Events>;
