/**
 * One stream for all tabs of a browser: one of them holds it, and tells the others what comes.
 *
 * A browser allows six connections to an origin over HTTP/1.1, and a hub counts each tab that has one. It has the face of
 * {@link SSEClient}; give it a name for each stream that differs, such as one for each user.
 *
 * ```js
 * const client = new SharedSSE("/events", { name: `events of ${user}` });
 * ```
 *
 * # Handing over
 *
 * The tab that has the Web Lock is the leader. When it is closed or crashes, the next gets the lock and goes on from the last
 * event that *it* was told of. What it was not told of yet comes again then, and whoever was told already ignores it: the
 * ids of a hub only grow. Where there are no Web Locks (without https) each tab has a stream of its own.
 *
 * @module
 */
import { Message } from "./sse-client.js";
export type Status = import("./sse-client.js").Status;
export type Options = import("./sse-client.js").Options;
export type Said = {
    kind: "hello";
} | {
    kind: "reconnect";
} | {
    kind: "events";
    events: [type: string, data: string, id: string | null][];
} | {
    kind: "status";
    status: Status;
    lastEventId: string;
};
export type Sharing = {
    /**
     * tabs with the same share a stream: the url, unless given
     */
    name?: string;
    locks?: LockManager;
    BroadcastChannel?: typeof BroadcastChannel;
};
/** @typedef {import("./sse-client.js").Status} Status */
/** @typedef {import("./sse-client.js").Options} Options */
/**
 * What tabs tell each other. Of an event that has no id of its own the id is null.
 *
 * @typedef {{ kind: "hello" } | { kind: "reconnect" } |
 *   { kind: "events", events: [type: string, data: string, id: string | null][] } |
 *   { kind: "status", status: Status, lastEventId: string }} Said
 */
/**
 * @typedef {object} Sharing
 * @property {string} [name] tabs with the same share a stream: the url, unless given
 * @property {LockManager} [locks]
 * @property {typeof BroadcastChannel} [BroadcastChannel]
 */
export declare class SharedSSE {
    #private;
    /** @type {Status} */
    status: Status;
    /** The position of the last event that this tab has seen. */
    lastEventId: string;
    /**
     * @param {string | ((client: SharedSSE) => string | Promise<string>)} url as an {@link SSEClient} takes it; the id in
     *   `client.status.client` is that of the stream so far, also if another tab held it
     * @param {Options & Sharing} [options]
     */
    constructor(url: string | ((client: SharedSSE) => string | Promise<string>), { name, locks, BroadcastChannel, ...options }?: Options & Sharing);
    /** Whether this tab holds the stream. */
    get isLeader(): boolean;
    /** Whether events are held up, as the hub has told the tab that holds the stream. */
    get degraded(): boolean;
    /** @param {string} type @param {(message: Message) => void} listener */
    on(type: string, listener: (message: Message) => void): () => void;
    /** @param {(status: Status) => void} watcher */
    onStatus(watcher: (status: Status) => void): () => undefined;
    /** Takes part: follows the leader, or becomes it. */
    open(): void;
    /** Asks anew, whoever holds the stream. */
    reconnect(): void;
    /** Takes no part any more. The others go on. */
    close(): void;
}
