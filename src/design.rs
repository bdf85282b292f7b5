//! How the crate is built, and why.
//!
//! # One idea
//!
//! *A hub is a log; a subscription is a reader of the log.*
//!
//! Publishing encodes an event once, outside of every lock. The hub gives the event the next id,
//! appends the event to the bounded log, and hands a *weak* handle to each subscription that the
//! event addresses. A subscription that keeps up reads the mailbox, a small window on the end of
//! the log. A subscription that falls behind, or resumes from a `Last-Event-ID`, reads the log from
//! the client's position until its end. Replay and live delivery are therefore one path, and a
//! resumed client cannot miss or repeat an event between the two. Only the log owns events: the
//! limits of the log bound the hub's memory, whatever the clients do.
//!
//! The core spawns no task, opens no connection and knows no runtime. Time enters through the
//! [`Timer`](crate::Timer) trait. Frameworks, sockets and Redis are at the edges, behind features.
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | event | a message that the application publishes: type, data, optional retry and comment |
//! | frame | the bytes of an event on the wire, encoded once |
//! | event id | a position in the hub's order, written `a-b`; issued by the hub, never by the caller |
//! | client | one open stream; has a client id, and may have a user, a session and topics |
//! | key, membership | a typed name that an event is addressed to; a client's holding of a key |
//! | audience | the clients that an event addresses |
//! | subscription | the server's end of a client's stream |
//! | log, retention | the bounded memory of events; how much of it is kept |
//! | cursor | the position up to which a client has received every event for it |
//! | resume, gap | continuing after a `Last-Event-ID`; a report that events for this client were evicted |
//! | mailbox, window | the position of a client; its bounded queue of handles to the newest events: weak, but for a few small events of a text |
//! | heartbeat | bytes sent on an idle stream |
//! | stalled | a client that does not read although events wait for it |
//! | run, producer | a stream of events with a name, a beginning and an end; the handle that publishes to it |
//! | part, copy | an entry of the order that belongs to a run; the parts of a run that an engine keeps |
//! | gone | of a run: open in an order that was replaced, and not in the new order |
//! | backplane, engine | the port to a program that orders and carries events between processes |
//! | instance | one process with a hub |
//! | order | the sequence of entries (events and commands) that all instances share |
//! | history read | fetching events from the backplane that are older than the log |
//! | seat, member | a user, or a user in a topic, as presence counts them; a user in a topic |
//! | lease | the time after which an instance without a sign of life counts as dead |
//! | drain | ending all streams over a period, each with a reconnect delay of its own |
//! | joined topic | a topic that the server added a client to; other topics are those of the request |
//! | away | of a client: between two connections, or connected to another instance |
//! | announcement | an entry of the order that lists clients of an instance with their topics |
//!
//! # The house
//!
//! A folder is a layer. A file uses only layers below its own and, in its own layer, only files
//! that the map shows further down. Method calls count like `use` lines: an inherent `impl` stands
//! in the file of the type, and other code is a free function. `tests/layers.rs` checks the map.
//! The exception is `HubBuilder::build`, in `hub/hub`: `Hub::builder` returns the builder and
//! `build` returns the hub, so two files cannot hold all methods of both without using each other.
//! The other builders stand with the product (`Watchdog`) or above it (`Redis`).
//!
//! ```text
//! EDGES   mount/ serve/ watchdog/ redis/ testing/     behind features
//!   axum, warp       adapters, a page each        http            responses, refusals, errors
//!   event_stream     a stream without a hub       topics          requests to join
//!   watchdog/        mod (settings) -> listener (for axum) -> connection (deadlines) -> requests
//!   serve/           mod (settings) -> accept -> connection (the task) -> stream (ours)
//!                    link (hyper's part) -> app (services);  open (the connections of a server)
//!   redis/           config (settings) -> driver (the future), publisher -> tasks/ -> shared
//!                    -> health, store/;  publisher -> run (a publisher's run);
//!                    format (the page for other languages);  lua/ (scripts)
//!     tasks/         reader, sender, history, announcer, observer, keeper, producers (of a
//!                    publisher): a loop each;  read_size
//!     store/         script -> entry, format;  runs -> script;  lease -> changes;  tail -> entry;
//!                    outbox;  owed (ids that the reader must meet);  values;
//!                    producing (a publisher's open runs)
//!     connect/       link (a task's connection);  address -> failover, credentials, tls;  back_off
//!   testing/         reader -> frame (streams as a page reads them)
//!                    instances -> order (an engine in memory)
//! HUB     hub/      takes the locks; the public face
//!   feed             the port: entries in         hub             the handle
//!   apply            entries to state             builder         settings to a hub
//!   subscription     the stream                   admission       lets clients in
//!   opening          the first frames, a snapshot
//!   disconnect       ends, close                  drain           ends over a period
//!   presence         the watch                    topics          join, leave, list
//!   metrics          recorded on request          subscriber      the client's request
//!   returning        clients that come back       waking          wakes many clients, in turns
//!   shared           publish, hand out, read      page            the log without a stream
//!   joining          clients of a topic           follow          topics of a request
//!   crowd            an audience's clients, in pieces
//!   run              a run's producer             reading         a run's readers
//!   parts            parts of runs to state       incoming        entries of the order
//! CORE    core/     plain types that the locks guard
//!   state            the state lock's contents    attendance      seats here and elsewhere
//!   held             history reads                ahead           clients ahead of the log
//!   roster           seats that are away          remote          seats of other instances
//!   deferred         work after the locks         config          settings of a hub
//!   client           a client for publishers      inbox           a client's mailbox, end, waker
//!   due              clients that a task wakes    extras          parts of few inboxes
//!   backplane        the port: entries out        receipt         receipt, confirmation
//!   seats            users and members, a map     encoder         events without a hub
//!   stats            counters                     settings        limits, history, presence
//!   telemetry        log events, spans            health          is the backplane reachable
//!   end              reasons, states of an end    pacing          a batch in a period
//!   run              a producer's verdict, stop
//! LOG     log/      events and addresses: no locks, wakers, clocks or async
//!   log              the bounded log              mailbox         cursor and window
//!   codec            bytes between instances      routes          clients by key
//!   pages            the log in pieces            kept            values beyond the retention
//!   evicted          record of lost events        entry           encoded, prepared, entry
//!   recipients       an audience, indexed         departed        clients that left recently
//!   audience         the algebra                  identity        memberships and filter
//!   hash             hashes of keys               retain          the retention setting
//!   key              client ids, keys             profile         a client with its topics
//!   name             the forms of a name          away            topics of clients that are away
//!   runs             the runs by name             run_log         a run's events and text
//!   merge            the events of several keys   names           look-ups in an audience
//!   producer         ids of instances, producers
//! PAGES   lib  design  guide/    documentation only; guide/proxies/: tested configurations
//! LEAVES  wire/ time/ error sync
//!   wire/            decode -> event -> frame -> id -> text         error    error types
//!                    event -> traceparent (the trace of an event)
//!   time/            deadline -> heartbeat;  tokio, hyper, manual -> timer;  epoch   sync     locks, loom
//! ```
//!
//! - `frame` is the only file that writes bytes of events, and `decode` the only file that reads
//!   them.
//! - An `Event` is a frame under construction: a builder writes data to the place that the frame is
//!   sent from, in one scan and one copy. An event that kept the parts would copy the data twice.
//! - `log` and `core` receive the time as an argument. `hub` reads the clock, before taking a lock.
//! - Functions of `core` take `&mut` types. The argument proves that the lock is held.
//! - `redis` uses the crate's public port, [`backplane`](crate::backplane), and for a span
//!   `core/telemetry`. Another crate can contain another engine.
//!
//! ## The paths of data
//!
//! **Publish to bytes, one hub: 16 files.** Encoding, hashing and the clock come before the locks.
//!
//! 1. Check and encode: `hub/hub`, `hub/shared`, `log/audience`, `wire/event`, `wire/frame`.
//! 2. Index and hash the audience: `log/entry`, `log/recipients`.
//! 3. Read the clock, then lock the order; issue the id; finish the frame: `core/deferred`,
//!    `log/entry`.
//! 4. Append, and hand out handles, which are weak but for events of a text: `core/state`,
//!    `log/log`, `log/routes`, `core/inbox`, `log/mailbox`.
//! 5. Unlock, wake, and return the count: `core/deferred`, `core/receipt`.
//! 6. Poll: `hub/subscription`, `core/inbox`, `core/end`, `log/mailbox`, and a single `Bytes`.
//!
//! A client that is behind adds `hub/shared` (`catch_up`), `core/state` (`read_log`), `log/log` and
//! `log/evicted` to step 6.
//!
//! **A `Last-Event-ID` to a place in the log: 13 files.** The id is parsed strictly before any
//! lock.
//!
//! 1. From the request: `mount/axum`, `mount/http`, `wire/id`.
//! 2. To the hub: `hub/hub`, `hub/subscriber`, `hub/subscription`.
//! 3. Check limits, register, and fix the position under one state lock: `hub/admission`,
//!    `core/state`, `log/routes`, `core/client`.
//! 4. Decide whether events are lost, and set the cursor: `log/log`, `log/evicted`, `log/mailbox`.
//!
//! **A Redis entry to a body of another instance: 18 files.** Each entry is parsed once.
//!
//! 1. Read and check the entry: `redis/tasks/reader`, `redis/connect/link`, `redis/store/script`,
//!    `redis/store/entry`.
//! 2. Decode: `hub/feed`, `log/codec`, `wire/decode`.
//! 3. Apply in order: `hub/apply`, `log/entry`, `hub/shared`, and from here as step 4 to 6 of
//!    publishing: `core/state`, `log/log`, `log/routes`, `core/inbox`, `log/mailbox`,
//!    `core/deferred`, `hub/subscription`.
//! 4. Into the response: `mount/http`.
//!
//! **A client behind the log to older events, and back to bytes: 19 files.** A client that connects
//! with an id older than the log adds `hub/hub`, `hub/subscriber` and `hub/admission`.
//!
//! 1. Poll, find that events are lost, and hold the client: `hub/subscription`, `core/inbox`,
//!    `log/mailbox`, `hub/shared`, `core/state`, `log/log`, `log/evicted`, `core/held`.
//! 2. Unlock, and notify the engine: `core/deferred`, `redis/driver`.
//! 3. Ask for the range, and read it: `redis/tasks/history`, `hub/feed`, `redis/connect/link`,
//!    `redis/store/script`, `redis/store/entry`.
//! 4. Parse, put the events before the log, release the client, and wake it: `hub/feed`,
//!    `log/codec`, `wire/decode`, `hub/apply`, `log/entry`, and from here back through step 1.
//!
//! # Locks
//!
//! A thread that holds a lock may take only the locks further down in this list:
//!
//! 1. The **ordering** lock: held from the issue of an id until the event is handed to every
//!    client. Events are therefore handed out in the order of their ids.
//! 2. The **state** lock: the log, the routes, and the rest of `core/state`. Registering a client
//!    and fixing the position happen under one hold. So do reading the log to the end and going
//!    live.
//! 3. An **inbox** lock: the mailbox, the end and the waker of each of 16 clients. A thread that
//!    holds this lock for a client must not take it for another client, which may be in the same
//!    block.
//!
//! No other lock is held while one of these is taken: the locks of the outbox, of a receipt, of a
//! run's producer, of the manual timer and of the metrics' last sample guard a few fields each.
//!
//! **Pieces of 256.** A hand-out to many clients releases the state lock after each 256 clients, so
//! that a client that connects waits for a piece only. The pieces count the clients of all keys of
//! the audience. For an `and` or an `except`, a piece looks up each key of each client (64 topics by
//! default) in a filter of at most 16 KiB. The ordering lock is held for all pieces, because a later
//! event must not overtake. Pieces are safe for three reasons:
//!
//! - A mailbox refuses events at or before the tail. A client that connects between two pieces
//!   already has a position after the event.
//! - Lists of members are walked from the end, and the last member takes the place of a member that
//!   leaves. A member that moves has already been visited.
//! - The publisher still holds the ordering lock. No later event can overtake.
//!
//! **Waiting.** A hand-out to 1,000 clients takes tens of microseconds, and so does the waking of a
//! parked thread. A single client that resumes takes the state lock a dozen times, for 5 to 10
//! microseconds each: if the publisher parked or waited each time, the hand-out would take three
//! times as long. So, in `sync`:
//!
//! - A thread that finds another lock than the ordering lock taken spins for longer than the usual
//!   hold, and parks after that.
//! - A hand-out that yields between two pieces lets a spinning thread in, without waking a
//!   thread. A parked thread gets the lock directly.
//! - Operations that are no publish (connecting, leaving, reading the log) let the hand-out that is
//!   under way go first, for a bounded time. A publisher then waits for the hold that was there
//!   before the publish, instead of a hold for each piece.
//! - The ordering lock is held for a whole hand-out, so publishers park for the lock at once. The
//!   lock has a type of its own, `LongMutex`, so that no publisher spins for the lock.
//! - A crowd that joins or leaves a topic takes the ordering lock for each piece of 64 clients, and
//!   hands the lock over to a publisher that waits. A publish waits for one such piece. The piece
//!   is smaller if its clients look at many events of the topic, for the last events. The clients
//!   share the list of these events, so most of them cost no allocation.
//! - `disconnect` and `finish` of a crowd hold the ordering lock while they end the streams, so
//!   that all streams end at one place among the events, and release the state lock between two
//!   pieces. The clients of a `disconnect` are forgotten after the ordering lock is released: their
//!   streams take no event any more.
//!
//! All work that grows with a request (hashing, sorting, checking) is done before the locks. Under
//! the locks a client with 64 topics costs a look-up for each. A list as long as a crowd is allocated
//! before the locks, too: after many frees, an allocator can tidy up for milliseconds before it
//! returns a large piece of memory.
//!
//! **Wake-ups in turns.** A runtime has one queue for each worker. If a broadcast woke 9,000
//! clients at once, an event for one of these clients would wait for the turn of the client: up to
//! 45 ms, if each client needs 5 us. Under direct serving, a task of the server (`hub/waking`)
//! therefore wakes the clients of a broadcast to more than `PIECE` clients. The hand-out leaves the
//! wakers in the inboxes, and the task takes `AT_ONCE` of them at a time, behind which the task
//! queues itself. So:
//!
//! - An event for one client finds the waker, and the client reads all events up to this event
//!   before the other clients of the broadcast have their turn. The order of ids holds, because a
//!   client always reads from the cursor.
//! - The queue of a worker does not overflow into the queue that all workers share, and a client
//!   is polled while the inbox is in a cache: the task has just taken the waker.
//! - Each server has such a task for each hub. Every task wakes the clients of all servers, so no
//!   client waits for a server whose runtime is blocked.
//! - The task ends with the hub or with the server, because the runtime of an ended server may run no
//!   task any more. A task that ends wakes all clients that are left. A hub without such a task wakes
//!   all clients by itself.
//!
//! **Memory in the order of use.** With many clients, a delivery costs as much as the cache lines
//! that are not in a cache. So the inboxes of 16 clients lie side by side in a block, in the order
//! in which clients come: a hand-out reads memory forward, and takes the lock of a block once. The
//! fields of a *live* client, with at most one event to read, are one cache line: the waker, the
//! tail, the handle and the time. A poll that returns an event registers the waker under the same
//! lock. The next poll then sees from a flag, without a lock, that nothing has come since: a thread
//! that changes an inbox takes the waker, and wakes. An inbox belongs to a subscription until the
//! subscription is dropped, also if the hub forgets the client earlier.
//!
//! **No foreign code under a lock.** Foreign code is all code that a user of the crate supplies:
//! wakers (waking, cloning and dropping), clocks, engines, recorders, `tracing` subscribers, and
//! iterators. Such code may call the hub, and would deadlock. `Work` in `core/deferred` enforces
//! the rule:
//!
//! - `Work::begin` reads the clock before a lock is taken. `work.now` is the time of the operation.
//! - Under the locks, functions collect wakers, evicted events, ended clients and notifications in
//!   `Work`.
//! - `Work::run` handles them when no lock is held. A waker that panics does not stop the others.
//!
//! Builds with debug assertions count the locks that a thread holds (`sync.rs`). Every call of
//! foreign code calls `sync::assert_unlocked`, which panics if the count is not zero, so each test
//! checks the rule. A subscription clones the waker before locking, and drops the replaced waker
//! after unlocking.
//!
//! # A client's states
//!
//! Two enums exclude impossible combinations. `Reading` in `log/mailbox` says how a client gets the
//! next events. `Ending` in `core/end` says whether the stream takes events. They meet in
//! `core/client` only.
//!
//! `Reading`:
//!
//! | from | to | when |
//! |---|---|---|
//! | (new) | `Window` | the client is at the end of the log, or ahead of it |
//! | (new) | `Log` | the client resumes before the end of the log, or begins with the last events, values or a run |
//! | `Window` | `Log` | the window is full, an event of the window was evicted, the window can pin no more events, or a client with a pace begins a batch |
//! | `Log` | `Window` | the client has read the log to its end, under the state lock |
//! | `Log` | `Held` | events for the client are lost, and the backplane may bring them |
//! | `Held` | `Log` | the log reaches back to the cursor, no more events can come, or `max_wait` is over |
//! | any | `Window`, `Log` | the order was replaced, and the cursor is still valid |
//! | any | `Gap` | the client is before the floor of a new order, its id is of no order, or the replay is capped |
//! | `Gap` | `Log`, `Window` | the gap is reported: to the log if events wait |
//!
//! A reader of a page (`Hub::read_with_history`) waits beside the clients in `Held`, and reads the
//! log when released: the log is the only source of events for both.
//!
//! A client in `Held` receives heartbeats only. New events move the tail, and do not wake the
//! stream. New events do not wake a client that rests either (see *A pace*): a client with a pace
//! has a `Pacing` of `core/pacing` beside `Reading`.
//!
//! `Ending`:
//!
//! | from | to | when |
//! |---|---|---|
//! | `Open` | `Backlog` | an end that delivers the backlog: drain, close, finish, lifetime, displaced |
//! | `Open` | `Over` | an end at once: disconnect, expiry, lagged, stalled |
//! | `Backlog` | `Over` | an end at once, also the deadline of the client; otherwise the first end counts |
//!
//! `Backlog` takes no events, and delivers those that were published before. `Over` has only the
//! last frames to send.
//!
//! # Invariants
//!
//! 1. A subscription's frames are in id order, without repeats.
//! 2. Registering a subscription and fixing the position in the log are a single critical section.
//! 3. Audience, event types and conflation hold on replay exactly as they do live, for the identity
//!    of the *new* connection.
//! 4. The lock order, and no foreign code under a lock.
//! 5. Every queue is bounded. The payload that a hub holds never exceeds [`Retain`](crate::Retain)
//!    (with the values), [`RunLimits`](crate::RunLimits), and during history reads
//!    [`History`](crate::History).
//! 6. Every loss is visible to the client concerned: by a gap with a fresh id, or by the end of the
//!    stream.
//! 7. The client's cursor is right from the first frame, which is `hub:open` with an id. `id:` is
//!    the last field of every frame. Names that begin with `hub:` belong to the hub.
//! 8. Dropping a subscription frees the routes at once. The hub forgets a name without members or
//!    retained events.
//! 9. A busy stream does not touch the timer. The clock decides whether a deadline has passed.
//! 10. Features only add items.
//! 11. No `unsafe`.
//!
//! `tests/model.rs` checks 1, 3, 5 and 6 against a naive model, `tests/loom*.rs` check 1, 2 and 4
//! in every interleaving of a few threads, and `tests/memory.rs` checks 5 with a counting
//! allocator. Other tests have the name of the behaviour that they check.
//!
//! # Gaps
//!
//! When the log evicts an event, `log/evicted` records the id by key, and by event type within the
//! key. The record keeps the newest lost id for each of them, so the answer to "did this client
//! miss an event after its position?" is exact for any position and filter. The record is bounded.
//! If the bound is reached, the older half is dropped, and clients from before the dropped rows get
//! a gap, to be safe. The hub may report a gap that is not needed. The reverse must never happen.
//!
//! - An `and` or `except` audience excludes some holders of its keys. The last 256 lost events with
//!   such an audience (of 4,096 names together) are kept with the audience. Older events count as
//!   lost for all holders of their keys.
//! - The id of a gap is the newest lost id. If the log still has an older event for the client
//!   (topics can have limits of their own), the id is the position before that event, so that a
//!   client that is cut off right after the gap still gets the event.
//! - A gap before a snapshot says `"healed": true`: the page is about to receive the state, and
//!   must not fetch it. Only the gap of the opening is healed: the snapshot does not know later
//!   losses.
//! - `hub:open` carries the client's own position. A client that is cut off between `hub:open` and
//!   `hub:gap` therefore comes back to the gap.
//! - A malformed id, or an id ahead of the order, does not say which events the client has. The
//!   client gets a gap and continues from the end of the log, without a replay that may repeat
//!   events or that amplifies a loop of requests. Such a stream opens with the id `0-0`, which is
//!   unknown again.
//! - An id from an earlier process is older than everything retained. The client gets a gap and
//!   then the whole log.
//! - A client that must not keep the client id gets a gap if events for that id were lost to it.
//!
//! Epochs of two hubs do not collide: each has a start time in milliseconds and six random digits
//! (`time/epoch`), unique within the process.
//!
//! # Values
//!
//! With [`Retain::keep_latest`](crate::Retain::keep_latest), an event with a conflation key that
//! the retention would evict moves to the *kept* values (`log/kept`), which are a part of the log
//! with a bound of their own. Every read of the log merges the retained events and the kept values
//! of the client's keys. So a value is not lost as long as the log keeps it, a client that resumes
//! gets it as any event, and there is no second way to read.
//!
//! - A client of [`Subscriber::latest`](crate::Subscriber::latest) reads the log from the
//!   beginning, and only values, up to the position where it was let in. From there the client
//!   reads as every other. The position is fixed under the lock under which the client is
//!   registered, so no event lies between. A value that is replaced meanwhile comes as a later
//!   event.
//! - The last value carries that position instead of its own id. With its own id, a client that
//!   comes back after a quiet time would get a gap for all that the log has evicted since the old
//!   value. A block with an id and no event would do the same, but clients take it for an event.
//! - A value that the bound evicts is lost for a client that asks for the values. The kept values
//!   have a record of their own of such losses: the record of the log also has events without a
//!   key, which this client does not miss. The record is by audience and type, as that of the log.
//! - With a backplane, the engine keeps the newest event of each key beside the order, and a hub
//!   loads them with the end of the order ([`Feed`](crate::backplane::Feed)). An engine that does
//!   not is reported to the clients as a gap.
//!
//! # A pace
//!
//! A client with a pace ([`Subscriber::at_most_every`](crate::Subscriber::at_most_every)) reads the
//! log up to its end, and then *rests* (`core/pacing`). The log holds each conflation key once, so
//! the batch is conflated without work of its own. A batch ends where the log ended when the batch
//! began: otherwise a batch of several items could have a key twice, and a busy log would leave no
//! rest. An event that comes during the rest moves the tail only, and wakes nobody; the timer of
//! the stream does. The stall of a client counts from the end of its rest. An end is not delayed.
//!
//! # Many instances
//!
//! With a [backplane](crate::backplane), the engine decides the order. Publishing sends an event to
//! the engine. The event gets the id there, and returns to every instance through a
//! [`Feed`](crate::backplane::Feed), which appends and hands out as a hub alone does. The
//! statements above therefore hold for each instance, and a client may reconnect to any instance.
//!
//! The form in which an event travels belongs to the hub, and is bytes to the engine. The port is
//! small, and another crate can implement an engine. `log/codec` and `wire/decode` check each byte
//! that comes back as if an attacker had written it.
//!
//! - **Ahead.** A client can have an id that the new instance has not read. The client is let in at
//!   the client's own position, and takes only later events. If the engine then finds that the
//!   order ends before that id, the client gets a gap and continues from the end. The question is
//!   asked after the client came, because an older answer proves nothing.
//! - **Before the first load.** Streams open also while the engine cannot be reached. A client with
//!   an id keeps the position. A client without an id gets a gap when the order is loaded, because
//!   the position among the existing events is unknown. A needless gap is better than an unreported
//!   loss.
//! - **Another order.** If the engine cannot show that the next entries follow, because the order
//!   was emptied, is an older copy, or lacks a part, the log is replaced. The new log begins at a
//!   floor after every id that was handed out, and clients before that floor get a gap. Ids never
//!   go backwards in a hub.
//! - **Commands** (disconnect, finish, join, leave) are entries of the order. They have the same
//!   place among the events on every instance, and each instance applies them when reading them,
//!   also the instance that sent them. If that instance applied a command at once, a client that
//!   returns could be ended twice.
//! - **Joined topics** return with the client, on every instance (`log/away`). An instance
//!   announces a client in the order when the client first joins a topic, and the other instances
//!   remember the client. From then on all instances apply the same joins and leaves. An instance
//!   without a record of a client must decide whether the client has no topics. The client gets a
//!   gap if
//!   - the instance forgot records, or started after joins that it has not read (the key `joins` in
//!     Redis says whether there were any),
//!   - a recent join may have reached the client on an instance that was killed before the
//!     announcement, or
//!   - the client is ahead.
//!
//!   A client that received nothing since the join is ahead, and its id does not say so. Therefore
//!   an instance that reads a join or an announcement for a client id looks whether a client has
//!   claimed the id in the last minute, and tells that client a gap. One case is not found: a
//!   client that moves twice, by way of an instance that is behind, before that instance has read
//!   the join.
//! - **Presence** needs no order. Each instance announces a set of seats with a version that only
//!   grows. A seat is a user, or a user in a topic: both have the same grace, bounds and lease, and
//!   travel in the same set. In Redis a member is an element that is not UTF-8, and its changes
//!   have a field of their own: an older version skips both, and still knows all users. An instance
//!   that missed a version reads the whole set. An instance counts as dead if no new sign of life
//!   came for 1.5 leases in which the observer could read, so no clock is compared with another,
//!   and an outage of Redis makes no instance dead. No instance declares another dead for all: a
//!   clock that jumps would end every user.
//! - **Outages.** The engine repeats the state, and the hub judges by the clock whether an outage
//!   lasts. So no timer of a stream is touched, and a short outage wakes no client. A stream
//!   compares the state last sent with the current state, and sends only the newest.
//! - **Ids come later.** A [`Receipt`](crate::Receipt) carries no id, and `publish_confirmed`
//!   returns a future for it. Waiting in `publish` would give every handler the speed of the
//!   slowest Redis. Temporary ids would break the positions that clients keep.
//!
//! `tests/backplane.rs` compares hubs on a list with a model: browsers change hubs and are cut off,
//! hubs start anew and read history, and the list is rolled back and trimmed. `tests/instances`
//! does the same for presence and runs. `tests/redis` runs a real Redis with faults, under load: every
//! client gets every confirmed event once and in order, or is told a gap.
//!
//! # History reads
//!
//! If a client has lost events that the backplane still has, the client is *held* (`core/held`).
//! The log is *raised*: the log may hold more than the retention, by the allowance of
//! [`History`](crate::History). The hub asks the engine for the entries before the log, and the
//! engine returns them in pieces, the newest piece first. Each piece becomes part of the log, so a
//! crowd of clients shares one read, and there is only one way to read.
//!
//! - The log knows the position after which no event is missing. A client at or after this position
//!   is released and reads the log. All clients are released if no more events can come.
//! - Losses up to the released position were already requested. The client does not request them
//!   again.
//! - A client waits for at most `max_wait`. After that time the loss is reported.
//! - The log returns to the retention 10 s after the last read of older events, 64 events for each
//!   publish or read, so no thread pays for the whole.
//! - A client that fell behind by itself is not held if the hub [ends lagging
//!   streams](crate::HubBuilder::end_lagging).
//!
//! # Runs
//!
//! A [`Run`](crate::Run) is a stream of events with a name, one producer, a beginning and an end.
//!
//! - **One order, one cursor.** A run is a key of a kind of its own, which no
//!   [`Audience`](crate::Audience) can name. The events of a run have ids of the hub's order, and
//!   are handed out as any event. A reader is an ordinary subscription.
//! - **A retention of its own.** `log/runs` keeps the events of the runs beside the other events:
//!   all of an open run, and for `keep` after the end, within bytes for each run and in total.
//!   Neither retention evicts events of the other. A run without items left keeps the id of the
//!   newest dropped event, so a gap is exact for any position.
//! - **A late reader** begins before the first event of the run, and holds the other keys from the
//!   end of the log on (`Membership::since`). The read of the log merges the events of the run with
//!   the other events by id. A first connection therefore gets the whole run and nothing else of
//!   the past. A client that is cut off within that past comes back with an ordinary position, and
//!   gets the events of its other names since that position, or a gap.
//! - **Text.** If a run appends text, `log/run_log` keeps the text of adjacent events in pieces,
//!   with the id and the end of each event, and no entry. A read cuts a piece at the reader's
//!   position, at the next event of another name, and at the reader's tail. So the result is exact
//!   for each reader, and a long answer is a few frames. The window of a live client pins the
//!   newest such events, `PINNED` at most, and the last client that reads an event frees it. If the
//!   log held the entries instead, the next publish would free them: 20 ms later, when they have
//!   left the caches.
//! - **Fencing.** A run has the id of its producer: the instance and a serial. Each publish compares
//!   the id under the state lock. A takeover gives the run another producer.
//! - **The end** is an event, `hub:run-end`, in the order. Under the same hold of the ordering
//!   lock, the streams that follow ended runs only are finished: `Ending` as for `Hub::finish`. A
//!   client that comes later has the end decided when the client is let in, and reads its backlog.
//!   A client that comes back after the end gets the status that stops an `EventSource`.
//! - **Stopping** sets a flag and wakes the producer, under a lock of the producer (`core/run`).
//!   The producer decides how the run ends. A silent run does not expire: only the producer knows.
//! - **Forgotten runs** leave a row in a record of their own, under the type `hub:run-end`, which
//!   every reader of runs admits. A stream that outlives its runs gets a gap. The record of evicted
//!   events would drop the rows after a history read, which brings no run back.
//!
//! ## Runs over a backplane
//!
//! *The order decides.* A start, a takeover, an event, a stop and an end are entries of the one
//! order, *parts* of the run. The state of a run is a function of the parts before a position. So
//! every instance that applies the rule of [`RunPartKind`](crate::backplane::RunPartKind) agrees on
//! the producer, without a question to another instance and without logic in the engine. Of two
//! starts of a name the first in the order counts; an event of a producer that was taken over has
//! no effect on any instance. A check in the engine would be a second rule for each engine, and a
//! lock for each name would add an answer to wait for before the first event.
//!
//! - **One rule.** `hub/parts` applies the parts. A hub alone calls it at once, under the ordering
//!   lock. A hub with a backplane calls it when the part comes back.
//! - **The verdict comes later.** [`Hub::start_run`](crate::Hub::start_run) stays synchronous, and
//!   [`Run::started`](crate::Run::started) waits for the order. Events are sent behind the start
//!   meanwhile, so the first token does not wait for the engine. An engine that ends without
//!   confirming the start resolves the wait with an error.
//! - **An end is never refused.** A `Run` that is dropped cannot try again later, and the run would
//!   stay open for the readers. So an engine that is full takes the end all the same.
//! - **A full hub** that reads the start of another instance does not keep the run: a hostile order
//!   must not fill the memory. If its own start finds no room, the hub sends the end, because other
//!   instances may have started the run.
//! - **A dead instance** cannot end its runs. An engine that finds the death calls
//!   [`Feed::lose_runs`](crate::backplane::Feed::lose_runs), on any number of instances: each sends
//!   the end `lost`, and the first end in the order counts. An instance that was only slow reads
//!   that end, too, and its producer gets an error.
//! - **A closed hub** ends its runs as abandoned before the engine ends, so a rolling update does
//!   not wait for a lease.
//!
//! *Copies.* The order is trimmed, and a run can be older than the part that a late instance reads.
//! So engines copy the parts of each run, and the hub loads the copies with the order. A copy
//! decides about its run up to the position at which the engine read it, and not the tail: the tail
//! has the starts that were refused, too, and does not say which run was open before the tail. The
//! model of `tests/instances` found that an instance which judged by the tail accepted a refused
//! start. Numbers in the events would show a hole in a copy, but two threads that publish to the
//! same run take numbers and places in the outbox in different orders. So the engine says which
//! events a copy has dropped. Events of the tail from before the copy may be of an older run
//! of the name, so the hub records them as lost.
//!
//! *A replaced order.* Runs of the copies go on. An open run that the new order lacks is *gone*: the
//! run takes no events, a new run may take the name, and every instance sends the end `lost` for
//! the readers. The end must be an entry of the order, because readers of topics need an event with
//! an id. Every instance sends it, since an instance that begins anew once more may miss the end
//! that another instance has read. A producer whose start had a place in the old order, and that is
//! no producer of the new order, is told that the run is lost. If the start comes all the same, the
//! end that was sent is behind the start.
//!
//! An instance that has only missed a part of the order finds runs gone, too. Later entries can be
//! the rest of such a run, up to an end that is not `lost`. They have no effect here, and each can
//! be the last. So the log notes the newest, and tells the readers a gap when the next run of the
//! name begins. Without a next run, the end `lost` is enough.
//!
//! # Time
//!
//! A stream arms the timer when the stream first becomes idle. The timer's waker is the client: if
//! the timer fires, the inbox notes this, and the task is woken. So a stream knows under the inbox
//! lock, which each poll takes for the events, whether a deadline may have passed. As long as the
//! timer has not fired, no deadline has passed, and the stream asks neither the clock nor the
//! timer. If the timer fires before the current deadline, the stream arms the timer for the
//! remaining time. The idle time counts from the publishing of the last event that was read. A
//! stream with a deadline reads the clock in every poll that looks for events, before the inbox
//! lock, so that a stream that is never idle ends too. A [`Sleep`](crate::Sleep) must fire at the
//! deadline or later. After an early wake-up, the stream would wait for the next wake-up.
//!
//! [`ManualTimer`](crate::ManualTimer) drives the tests: hours of heartbeats take milliseconds, and
//! no test sleeps.
//!
//! # Sockets
//!
//! hyper does not poll a body while hyper's buffer (about 400 KiB) is full. No timer inside a
//! stream can therefore notice a stalled client. Two parts outside the stream do:
//!
//! - The hub sees that events wait for a client that does not read, and forgets the client.
//!   Publishers, readers and heartbeats check this, so no task is needed.
//! - The watchdog around the socket sees that no byte moves, and cuts the connection by a reset. A
//!   socket that is closed in the usual way keeps the unsent bytes in the system while the peer
//!   does not read.
//!
//! A socket has room again when a third of its buffer is free, and the buffer grows to 4 MiB: a
//! reader of 10 KB/s would seem to stand still for minutes. The watchdog limits the unsent bytes to
//! 64 KiB. This also bounds the memory that the system spends on a stalled client.
//! `watchdog/requests` follows the heads of HTTP/1.1 and HTTP/2 requests, only as far as the
//! deadline of a request needs.
//!
//! # Direct serving
//!
//! [`serve`](crate::serve()) takes a stream from hyper once hyper has encoded the head.
//!
//! - hyper gets a body that never yields (`serve/link`). If hyper asks this body for a frame, the
//!   head is encoded, the response has a body, and earlier responses are in order before the head.
//!   A response to `HEAD` is therefore never taken over. From then on, the bytes that hyper writes
//!   are kept, so a full socket does not matter, and the head leaves with the first item.
//! - The body is polled as the layers wrapped it. To take the `Subscription` out of the wrappers
//!   would save a call through a pointer, and would hide the stream from the layers.
//! - An HTTP upgrade would free the connection, too, but has another head. An upgrade of the
//!   application needs a connection that `into_parts` cannot take apart, so a response that changes
//!   the protocol waits for one poll in which the connection is exchanged.
//! - A connection has one task to the end (`serve/connection`). A task keeps the memory of its
//!   largest state, so only the stream stands in the task. All other work is boxed: hyper, and
//!   sending what the socket has no room for. One task also means one waker: what hyper registered
//!   at the socket wakes the stream.
//! - A stream without unsent bytes has no deadline and no timer but its heartbeat. If the socket is
//!   full, and at the end, the connection is under the watchdog like hyper's connections.
//! - Services are boxed for each connection, and futures for each request. The cost is two
//!   allocations for a request, and no type of a connection needs the type of the service.
//! - On Linux the options are set on the listener, and accepted sockets inherit the options: six
//!   system calls less for a connection.
//! - hyper gets the first 24 bytes of a connection, which tell the version, alone, as under axum's
//!   server. hyper then doubles its buffer of 8 KiB for the rest. To read all at once would save
//!   that copy, 3,000 of 55,000 instructions for a connection, and would change the answers to
//!   damaged heads: `same::answers_are_axums_for_requests_cut_anywhere` fails with 2,000 cases.
//! - axum's `IncomingStream` has private fields and no public constructor, up to axum 0.8.9. Only
//!   axum's own accept loop makes values of the type, and that loop gives the socket to hyper.
//!   `serve` has a type of its own for the services that want it, and implements axum's `Connected`
//!   for addresses.
//!
//! `tests/serve/same.rs` sends requests that are cut, merged and damaged at every byte to both
//! servers, and compares the answers. `.ci/fuzz serve` searches for more requests by coverage.
//!
//! # Browsers
//!
//! `examples/client` contains the other half of the protocol, in `sse-client.js`.
//!
//! - The client waits for the server's `retry:` plus a random part of the client's own window,
//!   which doubles with each failure. The longer of the two would bring all clients back at the
//!   same time.
//! - If the page becomes visible, the client retries at once, unless the server named the delay:
//!   otherwise a drain over a minute would end at the first glance.
//! - A displaced client does not reconnect: two tabs would displace each other for ever.
//! - Any status but 200 closes a browser's `EventSource` for good, and 204 is the way to say so. A
//!   refusal that is temporary is therefore a stream with `hub:refused` by default
//!   ([`RefusalStyle`](crate::RefusalStyle)).
//! - Tabs that share a stream agree by a Web Lock, which the browser releases if a tab crashes. The
//!   next leader resumes from the tab's own position, so no state is handed over.
//!
//! # Presence
//!
//! A user is online while a client of the user is connected, and for a grace period after the last
//! client. The routes know the first part. The roster behind the state lock holds only users that
//! are away, the end of their grace period, and a ring of the latest events.
//!
//! - No task runs when a grace period is over. The next operation that subscribes, leaves, asks or
//!   watches finds that by the clock. A watcher arms a timer for the first grace period.
//! - A grace period that begins later ends later. So a departure wakes watchers only if no user was
//!   away before, and a return wakes no watcher.
//! - A thread can hold an older time than another thread that has already acted. The answer that a
//!   user has left is therefore given only together with the event.
//! - A watcher is a position in the ring, not a queue: one bound holds for all watchers. A watcher
//!   that falls behind the ring receives [`PresenceEvent::Missed`](crate::PresenceEvent).
//!
//! # Observability
//!
//! Events of `tracing` have the target `sse_hub`, and never carry the name of a user, a session or
//! a topic. Events that a crowd of clients can cause are `DEBUG`. Publishing and delivery are not
//! logged. Rate limits are the caller's (`core/health`, `redis/health`).
//!
//! | message | level | fields, and when |
//! |---|---|---|
//! | `hub built` | `DEBUG` | `epoch` |
//! | `client opened` | `DEBUG` | `client`, `has_user`, `start`: `fresh`, `resumed` or `gap` |
//! | `client ended` | `DEBUG` | `client`, `has_user`, `reason`: [`EndReason::as_str`](crate::EndReason::as_str) |
//! | `snapshot failed` | `DEBUG` | `client`; `error`: of the stream of [`Subscription::with_snapshot_stream`](crate::Subscription::with_snapshot_stream) |
//! | `client refused` | `DEBUG` | `cause`: [`RefusedCause::as_str`](crate::RefusedCause::as_str) |
//! | `drain started` | `INFO` | `clients`, `over_ms` |
//! | `drain ended` | `INFO` | `cut`: clients that were left at the end of the period; `took_ms` |
//! | `run ended` | `DEBUG` | `state`: [`RunState::as_str`](crate::RunState::as_str); `events` |
//! | `hub closed` | `INFO` | `clients`: streams that must still end; `published` |
//! | `backplane unreachable` | `WARN` | `cause`; at most once in 10 s |
//! | `backplane reachable again` | `INFO` | if the outage was logged |
//! | `order reset` | `WARN` | `floor`: where the order continues; every client gets a gap |
//! | `join rejected: topic limit` | `DEBUG` | `clients` of this instance, `limit` |
//! | ``remote users ignored: `Presence::max_remote_users` reached`` | `WARN` | `limit`; once in a hub's life |
//! | `stream polled outside of a tokio runtime: no heartbeats` | `ERROR` | once in a process |
//! | `request failed` | `DEBUG` | `error`, `status`: an error that became a response |
//! | `event stream failed` | `DEBUG` | `error`: of a stream without a hub |
//! | `event stream has an invalid event` | `DEBUG` | `error`: an [`EventError`](crate::EventError) |
//! | `connection cut` | `DEBUG` | `reason`: `Cut::as_str` |
//! | `connection closed without a reset` | `DEBUG` | `error`: the socket could not be reset |
//! | `socket option not set` | `DEBUG` | `option`, `error` |
//! | `connections are not accepted` | `WARN` | `error`: such as the limit of open files; once until the next is accepted |
//! | `connections are accepted again` | `INFO` | after the message before |
//! | `connection failed` | `TRACE` | `error` of hyper |
//! | `malformed stream entries skipped` | `WARN` | once for a burst, at most once a minute |
//! | `stream entries of an unknown format skipped` | `WARN` | `format`, `kind`: the first bytes of the entry; once for a burst, at most once a minute |
//! | `malformed idempotency keys replaced` | `WARN` | once for a burst, at most once a minute |
//! | `Redis is out of memory: the oldest events are removed` | `WARN` | `events`; at most once a minute |
//! | `presence sync failed` | `WARN` | `cause`; at most once a minute |
//! | `presence sync resumed` | `INFO` | if the failure was logged |
//! | `lease sync failed`, `lease sync resumed` | `WARN`, `INFO` | the same for the leases of runs |
//! | `backplane ended with unacknowledged events` | `WARN` | `left`: how many events |
//! | `publisher ended with unacknowledged events` | `WARN` | `left`: how many events |
//! | `publisher cannot reach Redis` | `WARN` | `cause`; at most once a minute |
//! | `publisher reaches Redis again` | `INFO` | if the outage was logged |
//! | `the hub was built without a backplane` | `ERROR` | `RedisBackplane::run` with such a hub |
//!
//! A client id is a capability: a program that knows an id can connect under that id, or publish to
//! the client. Treat a log at `DEBUG` as confidential. A client has ended when the hub forgets it.
//!
//! Spans are `TRACE`, with the same target. A span that no subscriber wants costs a load and a
//! comparison, so publishing has a span and delivering has none: one event can be a million
//! deliveries. Spans leave the process, for a tracing backend, so no span has a client id.
//!
//! | span | kind | covers | fields beside the common ones |
//! |---|---|---|---|
//! | `publish` | producer | a call that publishes, also to a run | `messaging.destination.template`, `messaging.message.id` (without a backplane), `messaging.sse_hub.matched` |
//! | `process` | consumer | an instance hands an event of the order out | the same; the id with a backplane |
//! | `subscribe` | | a client is let in or refused | `messaging.sse_hub.start`, as `client opened` |
//! | `history read` | client | the Redis engine reads a piece of older events | `messaging.batch.message_count` |
//!
//! The common fields are `messaging.system` (`sse_hub`), `messaging.operation.name` and
//! `messaging.operation.type`; after a failure `error.type` and `otel.status_code`. The names are
//! those of [OpenTelemetry's conventions for messaging][otel], version 1.42.0; the layer
//! `tracing-opentelemetry` reads `otel.name`, `otel.kind` and `otel.status_code`.
//! `messaging.destination.template` is the kind of the audience, such as `topic/{topic}`: names
//! are confidential, and their number is not bounded. `messaging.sse_hub.matched` is
//! [`Receipt::matched`](crate::Receipt::matched).
//!
//! `publish` and `process` have the field `traceparent` if the application
//! [set](crate::Event::traceparent) the trace of the event. The hub sets no trace by itself, because
//! `tracing` has none: a layer such as `tracing-opentelemetry` keeps it. The trace travels in the
//! entry of the event, and not in a field of its own beside the entry: the script that publishes,
//! which programs in other languages send, takes bytes only. The frame, the log and the history do
//! not have the trace, because deliveries have no span.
//!
//! [otel]: https://github.com/open-telemetry/semantic-conventions/blob/v1.42.0/docs/messaging/messaging-spans.md
//! The stream can remain for longer in a server that does not poll the stream.
//!
//! [`Hub::record_metrics`](crate::Hub) (feature `metrics`) records in each call, from the counts of
//! [`Hub::stats`](crate::Hub::stats). Recording at each delivery would run a recorder's code beside
//! the locks that all clients share.
//!
//! # Constants and why
//!
//! | name | value | file | why |
//! |---|---|---|---|
//! | `BATCH_BYTES` | 64 KiB | `core/config` | an item of a stream joins up to this: a write is worth its system call |
//! | `WINDOW_EVENTS` | 32 | `core/config` | a burst of this many events needs no read of the log |
//! | `STALLED_AFTER` | 60 s | `core/config` | a client that does not read ends after this |
//! | `RETRY`, `LEAST_RETRY` | 3 s, 0.75 | `core/config` | reconnect delay; each client waits 0.75 to 1.25 of it |
//! | `LIFETIME_SPREAD` | 0.1 | `core/config` | ends of long streams are spread over a tenth of the lifetime |
//! | `Retain` | 4096, 16 MiB, 300 s | `log/retain` | default retention |
//! | `RunLimits` | 10 min, 8 MiB, 64 MiB, 10,000 | `log/retain` | runs: after the end, each, all, how many |
//! | `WAIT` | 2 s | `log/retain` | for a run that may have started on another instance; a start comes back within a round trip to the backplane |
//! | `History` | 16,384, 16 MiB, 60 s | `core/settings` | default allowance and longest wait |
//! | `Limits` | 64, 64, 256 B, 4096 | `core/settings` | topics, event types and name length of a client; remembered clients |
//! | `Presence` | 10 s, 10,000, 4096, 10^6 | `core/settings` | grace, users away, events kept, remote users |
//! | `Heartbeat` | 15 s | `time/heartbeat` | shorter than the idle time of usual proxies |
//! | `AT_ONCE` | 128 clients | `hub/waking` | woken together: less than a millisecond at 5 us each |
//! | `PIECE` | 256 clients | `core/state` | for one hold of the state lock; 1 under loom |
//! | `BLOCK` | 16 clients | `core/inbox` | share a lock and lie side by side; 1 under loom |
//! | `MAX_EVENTS` | 64 | `log/entry` | events of one read of the log: 16 and 256 make publishers wait for longer |
//! | `VALUE_BYTES` | 16 MiB | `log/retain` | default bound of kept values, as of the retention |
//! | `MAX_PERIOD` | 1 h | `core/pacing` | the longest pace: most logs retain less |
//! | `PATIENCE`, `MAX_UNSENT` | 10 s, 1,000 | `testing` | the wait of a test, of real time; entries that an instance holds unsent |
//! | `LOOKED_AT` | 1024 events | `log/pages` | one hold of the state lock by `Hub::read`; one client of a join |
//! | `JOINED`, `LOOKED_AT` | 64 clients, 2048 events | `hub/joining` | join or leave a topic, and are looked at, in one hold of the locks |
//! | `FORGOTTEN` | 64 clients | `hub/disconnect` | are forgotten in one hold of the state lock |
//! | `LOADED` | 64 events | `hub/opening` | one item of a snapshot that the application reads meanwhile |
//! | `LOOKS`, `POLITE_LOOKS`, `PAUSES` | 128, 384, 4 | `sync` | how long threads spin: see *Waiting* |
//! | `TEXT_BYTES`, `TEXT_EVENTS` | 16 KiB, 4096 | `log/run_log` | a text is copied under the lock, and dropped as a whole |
//! | `TEXT_EVENT_BYTES`, `PINNED` | 1 KiB, 8 events | `log/run_log`, `log/mailbox` | a client that does not read pins so many events of a text |
//! | `EVENT_WEIGHT` and others | 32 to 256 B | `log/run_log` | the fixed cost counts against `RunLimits::bytes` |
//! | `MAX_FORGOTTEN` | 64 runs | `log/log` | runs that one operation forgets |
//! | `MAX_EXPELLED` | 64 clients | `core/state` | stalled clients that one operation ends |
//! | `RECENT`, `RECENT_NAMES` | 512, 8192 | `log/away` | commands that complete an announcement made before them |
//! | `MAX_CLAIMS` | 4096 | `log/away` | watched clients; beyond, a client that claims an unknown id gets a gap |
//! | `DOUBT` | 60 s | `log/away` | longer than an instance is behind another |
//! | `MAX_ANNOUNCEMENT_LEN` | 32 KiB | `log/codec` | the order has no large entries |
//! | `MIN_DEPARTED` | 1024 | `core/state` | the fewest departed client ids that are remembered |
//! | `MAX_EXPIRED` | 64 seats | `core/roster` | grace periods that one operation ends |
//! | `LINGER` | 10 s | `core/held` | older events stay this long after the last read |
//! | `MAX_READERS` | 4096 readers | `core/held` | pages that wait for older events: each piece looks at all |
//! | `MAX_LOWERED`, `_IDLE` | 64, 1024 | `hub/shared` | events freed by a publish or read; by a heartbeat |
//! | `LASTS`, `LOG_PERIOD` | 1 s, 10 s | `core/health` | an outage that clients hear of; log rate |
//! | `BACKLOG` | 4,096 | `serve/mod` | the most that Linux allows, unless it is set otherwise |
//! | `DRAIN_OVER`, `GRACE` | 2 s, 5 s | `serve/mod`, `serve/accept` | a server that ends: the drain, and what streams have after it |
//! | `RETRY_ACCEPT` | 1 s | `serve/accept` | until the next attempt at the limit of open files |
//! | `MAX_COPIED_BYTES` | 16 KiB | `serve/stream` | a copy costs less than a `writev` of three pieces |
//! | `MAX_ITEMS` | 32 | `serve/stream` | items of a stream before other tasks have a turn |
//! | `READ_BYTES` | 256 | `serve/stream` | a client has nothing to say during a stream |
//! | `MAX_REFUSALS`, `RETRY` | 64, 5 s | `serve/accept` | refusals at a time; delay of a refused client |
//! | `SPREAD` | 0.9 | `hub/drain` | the rest of the period is for servers that read late |
//! | `MEASURED_READS` | 16 | `hub/subscription` | one read in 16 measures its delay |
//! | `MAX_SAMPLE` | 4096 | `core/stats` | delays that one scrape records |
//! | `COMBINED`, `_NAMES` | 256, 4096 | `log/evicted` | lost `and`/`except` events: each check evaluates all |
//! | `EVICTED_ROWS_PER_EVENT` | 4 | `log/log` | exact gaps for two whole retentions |
//! | `MIN_EVICTED_ROWS` | 1024 | `log/log` | the same for hubs that retain few events |
//! | `MAX_NAMES`, `MAX_DEPTH` | 10,000, 32 | `log/audience` | bounds of one audience |
//! | `KEPT` | 1024 | `log/hash` | below this, unused memory is not returned |
//! | `KEY_WEIGHT` and others | 64 to 192 B | `log/entry` | names count against `Retain::bytes` |
//! | `MAX_REASON_LEN` | 64 B | `log/codec` | a reason of `hub:end` |
//! | `RETRY_RANGE` | 1 ms to 24 days | `wire/frame` | zero is a reconnect loop, and longer delays count as zero |
//! | `MAX_ID_LEN`, `MAX_KEY_LEN`, `MAX_LEN` | 128, 256, 256 B | `wire/event` | ids, keys and types that clients accept |
//! | `PER_MILLISECOND` | 10^6 | `time/epoch` | two processes that start together differ |
//! | `MAX_UNSENT_BYTES` | 64 KiB | `watchdog/connection` | unsent bytes of a socket: see *Sockets* |
//! | `LINE_LEN` | 256 B | `watchdog/requests` | a header line that the deadline looks at |
//! | limits of `Watchdog` | 30, 30, 120, 60 s | `watchdog/mod` | stalled, request, idle, keepalive |
//! | `BATCH_EVENTS`, `BATCH_BYTES` | 1024, 512 KiB | `redis/store/outbox` | a script blocks Redis: some milliseconds |
//! | `LEAST_BYTES` | 1 KiB | `redis/tasks/sender` | the smallest batch on a slow line |
//! | `FIRST_BYTES`, `MOST_BYTES` | 128 KiB, 1 MiB | `redis/tasks/read_size` | the first answer, and the largest |
//! | `MOST_ENTRIES`, `MOST_UNCOUNTED` | 2048, 256 | `redis/tasks/read_size` | the same in entries |
//! | `SHRINK` | 8 | `redis/tasks/read_size` | divides the size after a timeout |
//! | `PACE` | 100 ms | `redis/tasks/history`, `announcer` | a crowd shares a read; joins share an entry |
//! | `BATCH` | 1024 | `redis/tasks/announcer` | seats in one entry |
//! | `MOST_INSTANCES` | 4096 | `redis/tasks/observer` | bounds memory against forged instances |
//! | `CHUNK`, `STEP` | 64, 1024 | `redis/tasks/observer` | entries and seats in one read |
//! | `VALUES` | 64 | `redis/tasks/reader` | values in one answer: a slow line must carry an answer in time |
//! | `BEATS`, `CHECKS` | 4, 8 | `redis/store/lease`, `tasks/observer` | heartbeats and checks in a lease |
//! | `BEATS`, `LONGEST_BEAT` | 8, 400 ms | `redis/store/runs` | renewals in a lease of runs: a death is told two seconds after the lease |
//! | `HOLDS`, `PRUNE_EVERY` | 2, 4 | `redis/tasks/keeper` | renewals after the last run; ended runs are forgotten with every fourth check |
//! | `RECORDS`, `COPIES` | 256, 128 | `redis/store/runs` | records and copies in one answer |
//! | `PRUNES` | 16 | `redis/store/runs` | calls in which ended runs go at a time |
//! | `TRIES` | 12 | `redis/tasks/reader` | timeouts in which a read shrinks and waits longer, to the end |
//! | `OVERHEAD`, `LOOK_BACK` | 64 B, 16 | `redis/lua/runs.lua` | beside an entry of a copy; entries that are searched for an older value |
//! | `KEPT_ENTRIES` | 256 | `redis/store/lease` | an instance that misses more reads a set |
//! | `IDLE`, `RETRY_PAUSE` | 1 s, 1 s | `redis/connect/link` | see *A lost connection* |
//! | `PROBE_SHARE`, `MOST_PROBE` | 1/8, 1 s | `redis/connect/link` | the time of an idle connection for an answer |
//! | `FEW` | 8 names | `log/names` | fewer need no index |
//! | `MOST` | 4096 ids | `redis/store/owed` | of a reader that is behind: 64 KiB |
//! | `BITS` | 8 bits a name | `log/names` | one in eight other keys passes the filter at most; 16 KiB for 10,000 names |
//! | `MOST_DOUBLINGS` | 5 | `redis/connect/link` | how often a slow line gets more time |
//! | `CONNECT_SHARE` | 1/4 | `redis/connect/address` | of the timeout, for a connect |
//! | `SENTINEL_INTERVAL` | 1 s | `redis/connect/address` | an ordered failover is found by then |
//! | `KEEPALIVE_IDLE`, `_INTERVAL` | 15 s, 5 s | `redis/connect/address` | shorter than firewalls remember |
//! | `FIRST`, `MOST` | 8 ms, 250 ms | `redis/connect/back_off` | recovery within a second |
//! | `BLOCK_SHARE` | 1/2 | `redis/tasks/reader` | of the timeout; the rest is for the answer |
//! | `LASTING`, `QUIET` | 1 s, 60 s | `redis/health` | repeat of an outage; warnings of a kind |
//! | `FLUSH_TIMEOUTS` | 5 | `redis/publisher` | timeouts without an acknowledgement: a flush outlasts a restart of Redis |
//! | `HORIZON` | 10 years | `redis/lua/add.lua` | see *Forged data* |
//! | `TIMEOUTS`, `LEASES` | 4 ms to 1 h, 8 ms to 1 day | `redis/config` | outside, a hub could not work |
//!
//! # Dependencies beside the usual
//!
//! - `getrandom` for client ids. An id is a capability, so the bits come from the operating system
//!   and not from the seed of a hasher.
//! - `wide` for finding the ends of lines: 64 bytes become a word of bits. 64 KiB of 80-column
//!   lines take 5.7 us with `wide` and 7.5 us with `memchr2_iter`, in one run, and no `unsafe` is
//!   needed here.
//! - `slab`, `smallvec`, `itoa`, `memchr`: small libraries, each for one task.
//! - `socket2` for options of sockets that tokio does not set, `parking_lot` for locks that are not
//!   poisoned and can be yielded, and `loom` only under `cfg(sse_hub_loom)`.
//!
//! # API decisions
//!
//! | question | decision |
//! |---|---|
//! | errors in handlers | done: errors are responses under `axum` and replies under `warp` (`http::ErrorResponse`) |
//! | arguments that name clients | done: `impl Into<Audience>` everywhere; `From<&Audience>` and `From<ClientId>` |
//! | deadlines | done: `Subscriber::expires_in(Duration)` and `expires_at(SystemTime)`; `until(Instant)` stays for tests on a manual timer |
//! | reasons of ends | done: `Goodbye` carries the checked reason and the last event |
//! | ids of published events | done: `Receipt` only has `matched`; ids come from `publish_confirmed`, by `Confirmation::id` or by awaiting it |
//! | constructors and setters | done: `default()`, then setters: `Retain`, `Limits`, `History`, `Presence`, `Heartbeat` |
//! | settings that can be off | done: they take `impl Into<Option<T>>`: `heartbeat`, `history`, `presence`, `lifetime`, `stalled_after`, `Retain::age`, `per_topic`, and the limits of `Watchdog` |
//! | flags | done: `end_lagging(bool)`, `announce_outages(bool)`, `displace_oldest(bool)`, `visible(bool)`, `show_errors(bool)` |
//! | names of subscribers | done: `replay_last`, `event_types`, `client_id`, `is_resumed`, `with_snapshot` |
//! | responses | done: `http::into_response`, `stream_response`, `refusal` |
//! | the form of a refusal | done: `RefusalStyle`, `Refused::style` |
//! | `EndReason::ALL` | done: a slice, so that a new reason breaks no program |
//! | zero settings | done: `ConfigError::Zero { setting }`, one variant for five |
//! | names in `redis` | kept: `Redis` builds a `RedisBackplane`. `Redis::new`, `sentinels` and `cluster` need different arguments, which one builder could not require |
//! | outbox size | kept: `outbox(events, bytes)`, because both bound one queue |
//! | watchdog items | done: `sse_hub::watchdog` |
//! | `Event::id`, `conflate`, `idempotency_key` | kept on `Event`: the first words of each say where it applies. A hub refuses an id (`EventError::OwnId`); a stream without a hub ignores the keys |
//! | `LastEventId` | done: `is_first_connection` and `id`; `none` stays as a constructor |
//! | `EventId` fields | done: private; `new`, `epoch`, `seq`, `predecessor` |
//! | sessions in audiences | done: `Audience::sessions` |
//! | names | done: `impl Into<Name>` everywhere, also `is_online`. `Name` is a type, because `Arc<str>` has no conversion from `&String` and integers. Not `impl Display`: each publish would write and copy a name that is shared already |
//! | topics from the page | done: `Hub::follow` checks that the named client is that of the request's user and session, and answers every other id with the same error. For a client of another instance the command carries the user and the session, and its instance compares: a look-up would need an answer from each instance |
//! | joined topics after a reconnect | done: the client id brings them back, because only the id says which client it is. A join reaches clients that are away, because the application cannot know that a tab is between two connections. A leave reaches them, because a client that was removed must not return with the topic. The topics of a request always apply |
//! | joining with the last events | done: `Hub::join_with_last`. Events after the client's position are read from the log with their ids, as every other. Older events come first and without an id: a browser would resume from the older id and get everything since again. They are weak handles, so a client that does not read pins nothing, and an event that is evicted meanwhile is a gap at the same position |
//! | readers of runs | done: `Subscriber::run`. `Hub::follow` is for the topics that a page asks for. The end of a run is `Run::finish` or `Run::fail` by reference, so that an invalid last event does not abandon the run |
//! | reading without a stream | done: `Hub::read` takes a `&Subscriber`, so that a page and a stream are judged by the same value. A position of no order is `truncated` and begins at the end, as a stream does: a page that began at the oldest event would repeat events. `recent` takes names only, because an `and` or `except` says which clients an event is for, not which events a client has |
//! | older pages | done: `Hub::read_with_history`, a second method. `read` stays synchronous: a page that the log can answer needs no task, and `recent`, tests and publishers call it where nothing can wait. A wait shares the request, the bound and the release of the held clients (`core/held`); its future holds a key there instead of a slot. Too many waits are an error and not a `truncated` page, because the events are not lost. A closed hub or a silent backplane does truncate, as the stream gets a gap |
//! | `latest` and `at_most_every` | done: setters of `Subscriber`, so that `subscribe` returns the type that every adapter takes. `latest` with a snapshot is an error, as `replay_last` is. A period of zero is no pace and a period above an hour is an hour, because the period often comes from a request |
//! | a heartbeat with the position | done: `Heartbeat::position`, a visible event with an id. A block that has an id only would be enough by the standard, but 3 of the 12 clients of the suite dispatch an event for such a block (`tests/conformance/id_blocks`): `@microsoft/fetch-event-source`, `httpx-sse` and `sse-stream` |
//! | `replay_last` with a snapshot | done: an error on every request, also if the client resumes, so that a test of the handler finds it. The snapshot replaced the replay unseen |
//! | counts of clients | done: `join`, `leave`, `disconnect` and `finish` return `Affected`, not a number: `0` did not tell a client that is away from a client that follows the topic already |
//! | conversions | done: `Event::from_payload`, `Feed::new` |
//! | names of the port | done: `AheadUpTo`, `HistoryRequest`, `SendError`, `UserChange::Joined`, `Feed::tail_limits`, `replace_users`, `change_users`, `remove_instance`, and `on_` for notifications |
//! | names with a unit | done: `Stats::batched` and `delivered_bytes`, `Presence::max_away` and `event_buffer`, `HubBuilder::max_batch_bytes`. `HubBuilder::window` stays: its documentation names the unit |
//! | presence in topics | done: `Presence::topics` selects by `&'static` prefixes, so that `Presence` stays `Copy`. `Hub::watch_topics` is a watch of its own: in one watch, a crowd in the rooms would wake and overtake the watchers of users. `Hub::leave` ends a membership at once, because nobody reloads a page by leaving a room; a stream that ends has the grace period. `Hub::users_in` of a topic that is not selected is an error, and no list of the local part |
//! | `RefusedCause` | deliberately carries its limit: an operator reads the number in the message |
//! | `HubBuilder::backplane` | deliberately takes the engine by value, as the timer: an engine that the program also needs is a cheap clone |
//! | publishing | deliberately synchronous: it never waits, and never fails because no client listens |
//!
//! # Redis
//!
//! *Publishing* is a script that takes a batch and returns the ids. Alternatives were a pipeline of
//! `XADD` (a lost answer looks like a lost command, so a retry repeats or loses events), `XADD`
//! with `IDMP` (Redis 8.6, which few have), and the publisher's number in each entry, with readers
//! that skip repeats (then an event has two ids, and a client between them loses or repeats the
//! event). The script makes the retry harmless where the order is made, for a `GET` and two `SET`s
//! a batch.
//!
//! Batches go one at a time. Several would have to be answered in order across a lost connection,
//! and a batch takes all events that came while the previous batch was away: the more there is to
//! send, the larger the batches. The sender is a part of the driver's own future and not a task: if
//! the future is dropped, no task can confirm events after they are counted as lost.
//!
//! *The chain.* A reader must know that new entries follow the entries that it has. To ask whether
//! the last entry is still there would cost a round trip for each read, or a race. So each entry
//! names the previous entry, by a key beside the stream. The key outlives the stream, and then
//! tells readers that have all from readers that do not. A reader whose last entry is not in the
//! order any more adds a *reset* entry, because a reader that is behind cannot know: for that
//! reader the new order follows. A reset entry that is rolled back before any reader has read the
//! entry tells nobody, and so do events that are lost before any instance has read them.
//!
//! Two servers that are masters at the same time can give an id to different entries, and then the
//! chain of one seems to follow the other. So with each new connection a reader compares its last
//! entry.
//!
//! *Ids* are Redis's own (`*`), unless such an id is not greater than the ids that the publisher
//! has seen, or than the last id: then the successor. After an order is emptied, ids begin in the
//! next millisecond. So a clock that is set back, and a replica whose clock is behind, cost no
//! order among the events that any publisher has seen. Two orders could share an id only if the new
//! clock is behind by more than the change took, and no publisher had read that far.
//!
//! *Forged data.* Each value in Redis is read as if an attacker had written it. An id that is more
//! than ten years ahead of Redis's clock is malformed: otherwise a single entry with the greatest
//! id would lead all hubs to a position without a successor. Only Redis's own clock decides,
//! because a stream that ends with such an entry is made anew, and an instance with a wrong clock
//! must not cause that. Keys of a single event or publisher (`once:*`, `publisher:*`) are replaced
//! if no hub can have written them, so they cannot hold up other events. A wrong `last`, or a
//! stream of another type, is an error until an operator repairs the key: replacing would lose
//! events that are still there.
//!
//! *Reads* are a script that counts bytes: `XREAD` and `XRANGE` count entries only. The next answer
//! is as large as the line can carry, as far as known, within the timeout, and a timeout makes the
//! next answer eight times smaller, down to an entry; then only the time grows. Blocking reads
//! cannot be scripts. They are used only when nothing is left to read, and ask for as many entries
//! as fit if all are as large as the largest of late.
//!
//! *A lost connection is not an outage.* The first failure of a connection that had answered is
//! retried over a new connection, unreported, at most once a second. A connection that was idle for
//! a second has an eighth of the timeout for the first answer. All that is sent so can be sent
//! twice.
//!
//! *Runs.* The order decides who is the producer of a run, so Redis needs no lock. The copy of a run
//! is a second stream and not a second read of the main stream, because the main stream is trimmed
//! by the events of all. The script copies a part of a run only if the part has an effect, by the
//! rule of the hubs. If the script copied all parts, a fenced producer could fill the copy, and the
//! end by a superseded producer would expire the copy of an open run. A copy that cannot be written
//! is removed as a whole: an instance would not see the hole. Ended runs are removed by the task
//! that renews the lease, because a script must not use keys that the caller did not name.
//!
//! The lease of an instance is a key with a number that changes. As for presence, each instance
//! judges by its own clock since when the number is the same. Unlike presence, one instance then
//! ends the runs for all: a run has one end, and an instance that was cut off itself begins to
//! count anew.
//!
//! *A full Redis.* Redis decides when a script starts whether the memory is full. So the script
//! that publishes cannot make room for itself: the sender removes the oldest eighth of the stream
//! by another script, and sends again. An eighth at a time, so that no more history goes than must.
//!
//! *A publisher* is the sender with its outbox, without a feed. Its task is spawned when the handle
//! is made, unlike a hub's: a cron job would forget a future to spawn, and a flush that drives the
//! sender would leave a [`Confirmation`](crate::Confirmation) that is awaited without a flush
//! unresolved. So the handle needs a runtime from the start, which is a typed error. A task that is
//! aborted can go on for a moment. The outbox therefore decides under its lock whether an event is
//! acknowledged or counted as lost, and the handle counts when it is dropped, not the task.
//!
//! A Redis that goes back to an older state can lose events that were confirmed and that no reader
//! has read. The chain has no break then: the next entry names the last entry that is left. So the
//! sender of an instance notes the newest id of each answer in `store/owed`, and the reader of the
//! instance reports a reset when it passes such an id without the entry.
//!
//! A hub confirms no event after the reader of the hub has left an old master, so a reader has read
//! each confirmed event. A publisher has no reader, and finds the new master up to a second later
//! than the hubs. Events that the old master confirmed meanwhile are lost unreported:
//! `tests/redis/sentinel` showed that once in three ordered failovers, and not with
//! `min-replicas-to-write`, by which the old master refuses events.
//!
//! *Other languages.* `redis/format` documents the bytes and the script that hubs use. A smaller
//! script for others would be a second way to write the chain. Redis functions have names, but need
//! Redis 7 and a further right. The first byte of an entry is its version: a version field beside
//! the bytes would cost every entry a field, and tell no more.
//!
//! *Finding the server.* The `redis` crate (1.8.1) supports Sentinel and Cluster, and was tried.
//! The sentinel client of the crate reads the answers in the order of the list (`buffered` in
//! `sentinel.rs`), with fixed limits (1 s and 500 ms) that no setting changes: beside a first
//! sentinel that accepts and does not answer, each look-up took 1.00 s, and 1 to 4 ms without. The
//! crate does not say whether the named master has changed, which is asked once a second here,
//! because an old master confirms events for ten seconds after an ordered failover. The cluster
//! connection sends all commands for a node over one connection, so a `SET` beside a blocked
//! `XREAD` of 1 s took 0.95 s: each task would need a connection to each node, where one to the
//! owner is enough. The crate also retries without notice, so the tasks could not tell a lost
//! connection from an outage. So the look-up is ours, a page in `connect/address`: all sentinels or
//! nodes are asked at once, and the first answer counts.
//!
//! The driver is a future that the application spawns, and not a task that the builder spawns: a
//! hub can be built where no runtime is, a shutdown needs something to wait for, and a task that
//! nobody holds dies unseen. The future needs tokio, as the crate `redis` does.
//!
//! # Left out, on purpose
//!
//! - Publishers that wait: one slow browser must not stall a server.
//! - A durable log of the hub's own: Redis has one.
//! - Authentication: the handler knows the user. The example `auth_cors` shows cookies and tokens.
//! - WebSocket, delta compression, and wildcards in topics.
