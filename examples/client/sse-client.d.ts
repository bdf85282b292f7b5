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
export declare class Message {
    /** Its type, `message` if it has none. */
    type: string;
    /** Its data, lines joined by LF. */
    data: string;
    /** The position to resume from once it was seen, empty if the server sent none so far. */
    id: string;
    /** @param {string} type @param {string} data @param {string} id */
    constructor(type: string, data: string, id: string);
    /** Its data, read as JSON. Throws if it is not. @returns {any} */
    json(): any;
}
/**
 * Takes a stream apart by the rules of the WHATWG HTML standard, section 9.2.6.
 *
 * @param {(message: Message) => void} onMessage is called with each event
 * @param {{ lastEventId?: string, onRetry?: (ms: number) => void, onId?: (id: string) => void }} [options] where the
 *   stream goes on; what hears of `retry:`, and of an id that came without data
 * @returns {(bytes: Uint8Array) => void} takes the bytes as they come, cut anywhere
 */
export declare function createParser(onMessage: (message: Message) => void, { lastEventId, onRetry, onId }?: {
    lastEventId?: string;
    onRetry?: (ms: number) => void;
    onId?: (id: string) => void;
}): (bytes: Uint8Array) => void;
export type Status = {
    state: "idle" | "connecting" | "open" | "retrying" | "closed";
    /**
     * why it is not open, empty if nothing has happened
     */
    reason: string;
    detail: string;
    /**
     * this stream's id in the hub, kept after its end
     */
    client: string;
    /**
     * whether the hub went on where the stream had stopped; undefined if it is none
     */
    resumed: boolean | undefined;
    /**
     * when it tries again, in milliseconds as of `Date.now`; undefined while it waits to
     * be online
     */
    retryAt: number | undefined;
    /**
     * whether the hub has said, on this stream, that events are held up: what is published arrives
     * later
     */
    degraded: boolean;
};
export type Environment = {
    fetch: (url: string, init: RequestInit) => Promise<Response>;
    setTimeout: (callback: () => void, ms: number) => any;
    clearTimeout: (handle: any) => void;
    now: () => number;
    /**
     * from 0 up to 1
     */
    random: () => number;
    /**
     * whether the browser is sure that it has no network
     */
    isOffline: () => boolean;
    EventSource: typeof EventSource | undefined;
    /**
     * tells `online`, `offline`
     */
    window: Pick<EventTarget, "addEventListener" | "removeEventListener"> | undefined;
    document: (Pick<EventTarget, "addEventListener" | "removeEventListener"> & {
        hidden: boolean;
    }) | undefined;
};
export type Options = {
    /**
     * `native` uses the browser's `EventSource`: no headers, no status codes, its own
     * reconnecting, and only types that something listens for; silence is noticed if heartbeats are visible events
     */
    mode?: "fetch" | "native";
    method?: string;
    /**
     * sent with each request; a stream cannot be sent twice
     */
    body?: BodyInit;
    /**
     * asked for each request, if it is a function
     */
    headers?: HeadersInit | (() => HeadersInit | Promise<HeadersInit>);
    credentials?: RequestCredentials;
    /**
     * where to go on
     */
    lastEventId?: string;
    /**
     * the query's parameter for it, in place of the header
     */
    lastEventIdParam?: string;
    /**
     * false: whatever ends the stream closes the client
     */
    reconnect?: boolean;
    /**
     * on 401 and 403: renews the credentials, and returns or resolves to false if
     * it cannot
     */
    renew?: (status: number) => unknown;
    /**
     * the first window for a random delay, in milliseconds: 1000
     */
    backoff?: number;
    /**
     * the largest: 30 000
     */
    maxBackoff?: number;
    /**
     * after so many milliseconds without a byte a stream is dead: 45 000, three heartbeats of a
     * hub. 0 turns it off
     */
    silence?: number;
    environment?: Partial<Environment>;
};
/** Who listens for what. */
export declare class Listeners {
    #private;
    /** Returns what removes it. @param {string} type @param {(message: Message) => void} listener */
    add(type: string, listener: (message: Message) => void): () => void;
    /** @param {Message} message */
    tell(message: Message): void;
    types(): MapIterator<string>;
}
/** Before anything has happened. @type {Status} */
export declare const IDLE: Status;
export declare class SSEClient {
    #private;
    /** @type {Status} */
    status: Status;
    /** The position of the last event that was seen: where it resumes. */
    lastEventId: string;
    /**
     * @param {string | ((client: SSEClient) => string | Promise<string>)} url what to ask for; a function is asked for each
     *   request, and may put `client.status.client` into it
     * @param {Options} [options]
     */
    constructor(url: string | ((client: SSEClient) => string | Promise<string>), options?: Options);
    /** Whether events are held up, as `hub:degraded` said: the stream is open, and what is published comes later. */
    get degraded(): boolean;
    /**
     * Listens for events of a type, or for all of the application's with `*`. Returns what ends it.
     *
     * @param {string} type @param {(message: Message) => void} listener
     */
    on(type: string, listener: (message: Message) => void): () => void;
    /** Is told each change of `status`. Returns what ends it. @param {(status: Status) => void} watcher */
    onStatus(watcher: (status: Status) => void): () => undefined;
    /** Connects, and stays connected. Does nothing while it is. */
    open(): void;
    /** Asks anew, at once unless it did within the last second. */
    reconnect(): void;
    /** Ends the stream and frees all that it holds. Listeners stay, for another `open()`. */
    close(): void;
}
/** A listener that throws does not stop the stream. @template T @param {(value: T) => void} listener @param {T} value */
export declare function call<T>(listener: (value: T) => void, value: T): void;
