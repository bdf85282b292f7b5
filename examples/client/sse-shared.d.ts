/**
 * One stream for all tabs of a browser. One tab, the leader, holds the stream and passes its events
 * to the other tabs, the followers.
 *
 * Use {@link SharedSSE} where many tabs are open: a browser allows six connections per origin over
 * HTTP/1.1, and a hub counts each stream against its limits. The methods are those of
 * {@link SSEClient}, without `join` and `leave`: the tabs may follow different topics.
 *
 * ```js
 * const client = new SharedSSE("/events", { name: `events of ${user}`, headers });
 * ```
 *
 * # Which tabs share
 *
 * Tabs with the same `name` share a stream, so the name must contain everything that selects the
 * events: the user, and the topics if tabs differ in them. Without a name, tabs with the same url,
 * method, credentials and mode share. If the url is a function, or `headers` or a `body` are given,
 * the constructor throws a {@link NameRequiredError} unless there is a name: the tabs of two users
 * could share.
 *
 * # Handing over
 *
 * The tab that holds the Web Lock is the leader. When the leader closes or crashes, another tab
 * gets the lock and resumes from its own position. Followers also ask a leader that was quiet for 3
 * seconds for a sign of life. If the leader does not answer, because the page is in a loop or behind
 * `alert()`, a follower steals the lock. The old leader becomes a follower when the page wakes.
 * Events that two leaders sent are delivered once.
 *
 * # Joining and returning
 *
 * Each tab keeps the last 1,000 events, up to a million characters. A tab that joins with a
 * position (`lastEventId`, or because the tab returns from `close()` or from the back-forward cache)
 * gets the events after that position from the leader. If the leader no longer has these events,
 * the tab gets a local `hub:gap` with the reason `shared`: the page must fetch its state again.
 *
 * A tab that joins without a position gets the snapshot that the stream began with, if there was
 * one, and the events since; or the gap, if the leader no longer has the snapshot. If there was no
 * snapshot, the tab starts with the next event.
 *
 * # Limits
 *
 * - Positions are ordered if the ids have the form of a hub (`7-12`). Other ids are only compared
 *   for equality: after a change of leader, a tab that is not at the leader's position gets the
 *   gap.
 * - `mode: "native"` delivers only types that a tab listens for. The leader listens for the types
 *   of all tabs; a tab that returns with a type that is new to the leader gets the gap.
 * - Without Web Locks or `BroadcastChannel` (a page without https) each tab has a stream of its
 *   own.
 *
 * @module
 */
import { Message } from "./sse-client.js";
export type Status = import("./sse-client.js").Status;
export type Options = import("./sse-client.js").Options;
export type Told = [type: string, data: string, id: string | null];
export type Standing = {
    /**
     * grows with each change of leader. Followers ignore messages with a lower
     * term
     */
    term: number;
    leader: string;
    /**
     * the serial of the leader's next event
     */
    next: number;
    status: Status;
    position: string;
    /**
     * the number of events after `position` that have no id
     */
    since: number;
    hasSnapshot: boolean;
};
export type Hello = {
    kind: "hello";
    from: string;
    position: string;
    since: number;
    isFresh: boolean;
    types: string[];
};
export type Events = {
    kind: "events";
    term: number;
    leader: string;
    serial: number;
    events: Told[];
};
export type Announcement = {
    kind: "status";
    isFinal: boolean;
} & Standing;
export type Welcome = {
    kind: "welcome";
    to: string;
    fate: "follows" | "ahead" | "gap";
    events: Told[];
    types: string[];
} & Standing;
export type Said = Hello | {
    kind: "types";
    types: string[];
} | {
    kind: "reconnect";
} | Events | Announcement | Welcome;
export type Sharing = {
    /**
     * tabs with the same name share a stream. Required if the url is a
     * function, or if `headers` or `body` are given. Default: the url
     */
    name?: string;
    locks?: LockManager;
    BroadcastChannel?: typeof BroadcastChannel;
};
/**
 * Thrown by the constructor of {@link SharedSSE} if the options do not tell which tabs may share a
 * stream.
 */
export declare class NameRequiredError extends TypeError {
    /** @param {string} why */
    constructor(why: string);
}
export declare class SharedSSE {
    #private;
    /** @type {Status} */
    status: Status;
    /** The position of the last event that this tab received. */
    lastEventId: string;
    /**
     * @param {string | ((client: SharedSSE) => string | Promise<string>)} url as for {@link SSEClient}. `client.status.client`
     *   is the id of the shared stream, also if another tab held the stream
     * @param {Options & Sharing} [options]
     */
    constructor(url: string | ((client: SharedSSE) => string | Promise<string>), { name, locks, BroadcastChannel, ...options }?: Options & Sharing);
    /** Whether this tab holds the stream. */
    get isLeader(): boolean;
    /** Whether the hub has announced that events are delayed. */
    get degraded(): boolean;
    /**
     * Listens for events of a type, or for all application events with `*`. Returns a function that
     * removes the listener.
     *
     * @param {string} type @param {(message: Message) => void} listener
     */
    on(type: string, listener: (message: Message) => void): () => void;
    /**
     * Calls `watcher` with each change of `status`. Returns a function that removes it.
     *
     * @param {(status: Status) => void} watcher
     */
    onStatus(watcher: (status: Status) => void): () => undefined;
    /**
     * Joins the other tabs: follows the leader, or becomes the leader. If the stream is closed, asks
     * for it again.
     */
    open(): void;
    /** Asks the server again, whichever tab holds the stream. */
    reconnect(): void;
    /** Leaves. The other tabs keep the stream. */
    close(): void;
}
