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
export declare class Message {
    /** The event type; `message` if the server sent no type. */
    type: string;
    /** The data; lines are joined by LF. */
    data: string;
    /** The id to resume from after this event; empty if the server has sent no id. */
    id: string;
    /** @param {string} type @param {string} data @param {string} id */
    constructor(type: string, data: string, id: string);
    /** Returns the data parsed as JSON. Throws if the data is not JSON. @returns {any} */
    json(): any;
}
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
export declare function createParser(onMessage: (message: Message) => void, { lastEventId, maxEventSize, onRetry, onId, onComment }?: {
    lastEventId?: string;
    maxEventSize?: number;
    onRetry?: (ms: number) => void;
    onId?: (id: string) => void;
    onComment?: () => void;
}): (bytes: Uint8Array) => void;
export type Status = {
    state: "idle" | "connecting" | "open" | "retrying" | "closed";
    /**
     * the cause of the last change; empty for a working stream
     */
    reason: string;
    detail: string;
    /**
     * the client's id in the hub; kept after the stream has ended
     */
    client: string;
    /**
     * whether the hub resumed at the last event; undefined if
     * the server is not a hub
     */
    resumed: boolean | undefined;
    /**
     * the time of the next attempt, as `Date.now` counts
     */
    retryAt: number | undefined;
    /**
     * true while the hub reports that events are delayed
     */
    degraded: boolean;
};
export type Environment = {
    fetch: (url: string, init: RequestInit) => Promise<Response>;
    setTimeout: (callback: () => void, ms: number) => any;
    clearTimeout: (handle: any) => void;
    now: () => number;
    /**
     * a number of at least 0 and less than 1
     */
    random: () => number;
    /**
     * whether the browser reports that it has no network
     */
    isOffline: () => boolean;
    EventSource: typeof EventSource | undefined;
    /**
     *   dispatches `online` and `offline`
     */
    window: Pick<EventTarget, "addEventListener" | "removeEventListener"> | undefined;
    document: (Pick<EventTarget, "addEventListener" | "removeEventListener"> & {
        hidden: boolean;
    }) | undefined;
};
export type Options = {
    /**
     * `native` uses the browser's `EventSource`: no headers, no
     * status codes, and only event types with a listener. The browser repeats requests itself; if the
     * browser gives up, the client creates a new `EventSource`, with the position in the query.
     * Silence is detected only if the hub's heartbeats are visible events. Default: `fetch`
     */
    mode?: "fetch" | "native";
    /**
     * default: GET
     */
    method?: string;
    /**
     * sent with each request; must not be a stream, which is readable once
     */
    body?: BodyInit;
    /**
     * a function is
     * called for each request
     */
    headers?: HeadersInit | (() => HeadersInit | Promise<HeadersInit>);
    credentials?: RequestCredentials;
    /**
     * the position to resume from with the first request
     */
    lastEventId?: string;
    /**
     * the query parameter for the position, in place of the
     * header. Native mode always uses the query; default there: `lastEventId`
     */
    lastEventIdParam?: string;
    /**
     * false: the client closes when its stream ends. Default: true
     */
    reconnect?: boolean;
    /**
     * the client closes if so many retries in a row fail. A stream that
     * is open for ten seconds resets the count. Default: no limit
     */
    maxRetries?: number;
    /**
     * renews the credentials after a 401 or 403. It
     * fails if it returns or resolves to false, or throws
     */
    renew?: (status: number) => unknown;
    /**
     * the first window of the random delay, in milliseconds. Default: 1000
     */
    backoff?: number;
    /**
     * the largest window, in milliseconds. Default: 30 000
     */
    maxBackoff?: number;
    /**
     * a stream without a byte for so many milliseconds is dead. 0: never.
     * Default: three heartbeats; see the module's "Dead connections"
     */
    silence?: number;
    /**
     * the address at which the server adds its clients to topics (`POST`) and
     * removes them (`DELETE`), with the query parameters `client`, `topic` and `last`; for `join`
     */
    topics?: string;
    /**
     * the largest event or line, in characters. Default: 16 Mi
     */
    maxEventSize?: number;
    /**
     * a query parameter that asks the server for short streams, such
     * as `lifetime=5`. The client adds the parameter after three streams in a row without a byte
     * (`buffered`), because a proxy that holds responses back delivers them when they end. The server
     * must end the stream after that time. Default: the client leaves the fourth stream open
     */
    shortStream?: string;
    environment?: Partial<Environment>;
};
export type Wanted = {
    /**
     * the most events to replay
     */
    last: number;
    /**
     * tells the page the server's answer
     */
    settle: (isFollowed: boolean) => void;
    /**
     * the server has added the client
     */
    isDone: boolean;
};
/** The listeners of each event type. */
export declare class Listeners {
    #private;
    /**
     * Adds a listener. Returns a function that removes it.
     *
     * @param {string} type @param {(message: Message) => void} listener
     */
    add(type: string, listener: (message: Message) => void): () => void;
    /**
     * Calls each listener of the type and, for an event of the application, each listener of `*`.
     *
     * @param {Message} message
     */
    tell(message: Message): void;
    types(): MapIterator<string>;
}
/** The types of a hub's own events. `*` listeners do not get these. */
export declare const HUB_EVENTS: string[];
/** The status before the first request. @type {Status} */
export declare const IDLE: Status;
export declare class SSEClient {
    #private;
    /** @type {Status} */
    status: Status;
    /** The id of the last event: the position to resume from. */
    lastEventId: string;
    /**
     * @param {string | ((client: SSEClient) => string | Promise<string>)} url the address. A function
     *   is called for each request, and may use `client.status.client`
     * @param {Options} [options]
     */
    constructor(url: string | ((client: SSEClient) => string | Promise<string>), options?: Options);
    /** True while the hub reports that events are delayed. The stream is open. */
    get degraded(): boolean;
    /**
     * Adds a listener for an event type, or with `*` for all types but the hub's own. Returns a
     * function that removes the listener.
     *
     * @param {string} type @param {(message: Message) => void} listener
     */
    on(type: string, listener: (message: Message) => void): () => void;
    /**
     * Calls `watcher` with each new status. Returns a function that removes the watcher.
     *
     * @param {(status: Status) => void} watcher
     */
    onStatus(watcher: (status: Status) => void): () => undefined;
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
    join(topic: string, { last }?: {
        last?: number;
    }): Promise<boolean>;
    /**
     * Leaves a topic, by a `DELETE` to the address in `topics`, which the client repeats like `join`.
     * Does nothing if the page has not joined the topic.
     *
     * @param {string} topic
     */
    leave(topic: string): void;
    /** Connects, and reconnects until `close()`. Does nothing if the client is already active. */
    open(): void;
    /** Connects again: at once, or one second after the last request. */
    reconnect(): void;
    /** Ends the stream and frees its resources. Listeners stay, for another `open()`. */
    close(): void;
}
/**
 * Calls a listener. An exception is reported, and does not stop the stream.
 *
 * @template T @param {(value: T) => void} listener @param {T} value
 */
export declare function call<T>(listener: (value: T) => void, value: T): void;
