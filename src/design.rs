//! How the hub is built, and why.
//!
//! # One idea
//!
//! *A hub is a log; a subscription is a reader of it.* Publishing encodes an event once, outside of every lock, gives it
//! the next id, appends it to the hub's bounded log, and hands a *weak* handle to each subscription that it is for. A
//! subscription that keeps up reads from its mailbox, a small window on the log's tail. One that falls behind, or comes back
//! with a `Last-Event-ID`, reads the log from its position until it has caught up. The log alone owns events.
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | event | what the application publishes: type, data, now and then a retry or a comment |
//! | frame | an event's bytes on the wire, encoded once |
//! | event id | a position in the hub's one order, `a-b`; issued by the hub, never by the caller |
//! | client | one open stream; it has an id, and may have a user, a session and topics |
//! | key | one of those, typed: what an event is addressed to and a client is registered under |
//! | audience | whom an event is for |
//! | subscription | the server's end of a client's stream |
//! | retention | how much the log keeps |
//! | resume, gap | going on after a `Last-Event-ID`; something for this client has left the log since |
//! | mailbox, window | what waits for a client: weak handles of the newest events |
//! | heartbeat | what is sent on a silent stream |
//! | backplane | the engine that orders and carries events between instances |
//!
//! # The house
//!
//! A folder is a floor. A file uses floors below its own, and on its own floor only what an arrow points at.
//!
//! ```text
//! edges    mount/  axum, warp -> http, stream;  listener -> watchdog -> watched
//!          redis/  driver -> announcer, observer, history, sender, reader -> tail, shared -> outbox, lease, config, trouble
//!                  lease -> changes, script -> config -> address -> moves, tls -> error;  tail, history -> entry
//!                  and, used by those above and using none: back_off, clock, unshared
//! hub      hub/    watch, metrics, look_back, exchange -> feed -> hub -> subscription, drain, ending, members, degraded
//!                  subscription -> admission;  they, commands and places -> shared -> catch_up -> state
//!                  state -> elsewhere, config -> presence, history, limits;  presence -> later -> telemetry, backplane -> end
//!                  shared -> recorded -> stats -> end;  and, used by those above: subscriber, receipt, link -> outage
//! log      log/    mailbox, history -> log -> lost -> audience <- routes, departed, packed <- command;  log -> retain
//! leaves   time/   tokio, manual -> timer <- heartbeat
//!          error -> wire/   received -> event -> frame -> id        sync
//! ```
//!
//! - `wire` knows how an event looks on the wire, and nothing of hubs. `frame` is the only place that writes bytes.
//! - `time` is where time comes in: a clock and a way to be woken.
//! - `log` is plain types behind `&mut self`, without locks, wakers, clocks or async. The instant is an argument.
//! - `hub` is the locked shell. `state` is what stands behind the locks, `shared` takes them, `subscription` is the
//!   `Stream`.
//! - `mount` puts streams into responses. Each adapter is a page over `http`.
//! - `redis` is an engine for the port of `hub`, with a guide for those who run it. `reader`, `sender`, `history`, `observer`
//!   and `announcer` are tasks, each with a connection, which `driver` starts; they know each other only by what is `shared`.
//!
//! `tests/layers.rs` holds that no floor uses one above it and no file one that uses it. A method stands where its words are
//! at home, as `State::disconnect` in `ending`; then its file is above all that it uses.
//!
//! In `wire` the arrow goes from `event` to `frame` so that an event *is* its frame in the making: data is written where
//! it will be sent from as soon as it is given, in one scan and one copy. An event that kept its parts for a later encoder
//! would copy the data twice.
//!
//! # Locks
//!
//! In this order; a thread that holds one takes only those after it:
//!
//! 1. the **ordering** lock, the publishers' own. Held from the issuing of an id until the event was handed to
//!    everybody, so that hand-outs come in id order.
//! 2. the **state** lock: the log and the routes. Registering a subscription and fixing its position happen under one
//!    hold of it; so do reading the log to its end and going live.
//! 3. a client's **inbox**: its mailbox and its waker.
//!
//! A large hand-out lets go of the state lock after every 256 clients, so a client that connects or reads the log meanwhile
//! waits for a piece and not for all. Three facts make that safe. A mailbox knows the newest position that it has accounted
//! for, and takes nothing at or before it: whoever connects between two pieces does not take the event under way twice.
//! Lists of members are walked from their end, and a member that leaves is replaced by the last: so one that moves has been
//! met already. And the ordering lock is still held: no later event overtakes.
//!
//! Wakers are woken, and dropped, when no lock is held: both are foreign code, and may publish. So is what listens to
//! `tracing`. What is found to be done under the locks is collected in a `Later` and run after them.
//!
//! # Invariants
//!
//! 1. A subscription's frames are in id order, without repeats.
//! 2. Registering a subscription and fixing its position in the log are one critical section.
//! 3. Audience and filter hold on replay exactly as they do live, judged against the identity of the new connection.
//! 4. The lock order, and no foreign code under a lock.
//! 5. Every queue is bounded, and the payload that a hub holds never exceeds its retention, and its history while it looks
//!    back.
//! 6. What a client misses is visible to it: a gap with a fresh id, or the end of its stream.
//! 7. The client's cursor is right from the first frame, which is `hub:open` with an id; `id:` is the last field of every
//!    frame. Names beginning `hub:` are the hub's own.
//! 8. Dropping a subscription frees its routes at once; a name without members or retained events is forgotten.
//! 9. A timer is not touched while its stream is busy: deadlines are compared by the clock and armed anew lazily.
//! 10. Features only add items.
//! 11. No `unsafe`.
//!
//! `tests/model.rs` holds 1, 3, 5 and 6 against a naive model, `tests/loom*.rs` hold 1, 2 and 4 under every interleaving of
//! a few threads, and the other tests are named after what they hold.
//!
//! # Gaps
//!
//! When an event leaves the log its place in the order is remembered by key, and by type within the key, as hashes: the
//! newest position that was lost to each. That answers exactly whether a client missed something, for any position and any
//! filter. The memory is bounded; past the bound the older half is forgotten, and older positions are answered with a gap,
//! to be safe. Not everybody who holds a key of an `and` or an `except` is in its audience, so the last 256 events lost to
//! such (of 4,096 names together) are remembered with it, and older ones as if they had been for all who hold their keys.
//! A position from before the hub's birth is always one.
//!
//! A gap's id is the newest lost position, unless something older is still retained for the client (where topics have
//! limits of their own): then it is the position before that, so that a client cut off right after the gap still gets it.
//! `hub:open` carries the position that the client came with: whoever is cut off between the two frames comes back to the
//! gap, and not as one that missed nothing.
//!
//! An id that is none of this hub's (garbage, or ahead of the order) says nothing of what the client has. It is told the gap
//! and goes on from now, without a replay that may repeat, and without being an amplifier for whoever sends such ids in a
//! loop. Its stream opens with `0-0`, which is read as such an id again. An id from an earlier life of the hub is older than
//! everything retained, all of which it gets.
//!
//! # Many instances
//!
//! With a [backplane](crate::backplane) the order comes from elsewhere: what is published goes out, gets its id there, and
//! comes back to every instance through its feed, which appends and hands out as publishing does alone. So all that is said
//! above holds of each instance, and a client that comes back may come to any.
//!
//! The form in which an event travels is the hub's own business, and bytes to the engine: so the port is small, and an
//! engine can be written outside of this crate. What arrives is checked as if anybody had written it. Nothing else of an
//! event is trusted to be what the encoder wrote.
//!
//! *Ahead.* A client can come with an id that its new instance has not read up to. It is let in at its own position and
//! takes nothing at or before it. Whether the id is of the order at all is known once the engine has found the order's end,
//! after the client came: if the id lies beyond, it is told a gap and goes on from now. Asking is the engine's, so that a
//! client neither waits for the next event to be told, nor is told on the word of an older answer.
//!
//! *Before the end was found.* Streams are open also while the engine cannot reach what orders the events. A client that
//! brought an id keeps its place. One that did not is told a gap when the order is found: nobody knows whether it came
//! before or after the last of the events that there are, and a gap too many is better than a loss that is not told.
//!
//! *Another order.* When an engine cannot show that what follows does follow (the order was emptied, or is an older one, or
//! a part of it is gone), the log begins anew at a floor that is newer than all that was handed out, and whoever stands
//! before it is told a gap. Ids never go back in a hub, whatever the engine says.
//!
//! *Looking back.* A client that stands before what the log holds is held, and the engine is told. What it brings, from the
//! newest back, is put into the log before what is there: so there is one path to read, and a crowd shares it. The log knows
//! the position after which it is whole: who stands at or after it goes on, and so does everybody once nothing more can
//! come. What was brought goes when it was not read for ten seconds. In Redis each read goes on where the oldest entry names
//! its predecessor, so that a break or a mark is known for what it is: what lies before is gone.
//!
//! *What is done to clients* is an entry of the order, so it comes after the same events and before the same on every
//! instance, and is done by each when it is read, also by the one that was asked. To do it there at once would end twice
//! whoever comes back between.
//!
//! *Who is online* needs no order. Each instance keeps a set in Redis and tells its changes by a version that is its own
//! number and only grows, so versions compare whatever became of the Redis; who has missed one reads the set and makes the
//! difference. An instance is gone when an observer that could look has seen no new sign of life for one and a half leases:
//! no clock is compared with another, so an outage of Redis, however long, is nobody's death. Left out: one that declares
//! another dead for all, which a clock that jumps would do to everybody.
//!
//! *Telling clients of an outage.* Whether it lasts is judged by the clock when the engine says it again, so no timer of a
//! stream is touched and one that comes and goes wakes nobody. A stream compares what it told with what is so: it is told the
//! newest state, once.
//!
//! *The id comes later.* A [`Receipt`](crate::Receipt) has no id then, and `publish_confirmed` waits for it. To wait in
//! `publish` would make the slowest Redis the speed of every handler; to make up ids and exchange them later would break
//! what a client keeps.
//!
//! *Over Redis.* Everything goes through one script, which takes a batch and answers with its ids. Alternatives were a
//! pipeline of `XADD` (a lost answer cannot be told from a lost command, so a retry is a repeat or a loss), `XADD` with
//! `IDMP` (Redis 8.6, which few have), and the publisher's number in the entry with the readers leaving out repeats (then
//! the same event has two ids, and a client that stands between them loses or repeats it). The script makes the retry
//! harmless where the order is made, for a `GET` and two `SET`s a batch.
//!
//! One batch is under way at a time. More would have to be answered in order across a lost connection, and a batch already
//! takes all that came while the one before was away: the more there is to send, the larger batches are.
//!
//! That what is read follows what was read could be asked (is the entry at my position still there?), at the cost of a
//! round trip for each read, or of a race. So each entry names the one before, by a position that is kept beside the stream
//! and not in it: it outlives the stream, and then tells those who have all from those who do not. An instance that finds
//! that what it has is of an older history writes a *mark* into the stream, because another that was behind could not know:
//! to that one the new history follows. A mark that is itself rolled back before anybody has read it tells nobody, and
//! neither does what was lost before anybody had read it.
//!
//! Ids are Redis's own (`*`), unless that would not be newer than what the publisher has seen or what was written last: then
//! the one right after. After a history was emptied ids begin in the next millisecond. So a clock that is set back, or a
//! replica that takes over with one that is behind, costs no order among what any publisher has seen. Two histories could
//! share an id only if the new clock is behind by more than the change took, and nobody who publishes had read that far.
//!
//! *Where Redis is* is asked with every connection, of all who may know at once; sentinels also once a second, because a
//! master that was ordered to step down answers as before for ten seconds.
//!
//! The driver is a future that the application spawns, and not a task that the builder spawned: a hub can be built where no
//! runtime is, who shuts down needs something to wait for, and a task that nobody holds dies unseen. It needs tokio, as the
//! crate `redis` does.
//!
//! `tests/backplane.rs` holds this against a model: hubs on one list, browsers that go from one to the other and are cut
//! off, hubs that start anew and look back, a list that is rolled back and trimmed. `tests/instances` holds presence against
//! one of sets. `tests/redis` holds it against a real Redis and its faults, under load: every client has every confirmed
//! event once and in order, or was told.
//!
//! # Time
//!
//! A stream arms its timer when it first falls silent and then leaves it alone. When the timer goes off at a deadline that has
//! since moved, it is armed for what is left. The clock is read when a stream is polled and has nothing to send, and then
//! only compared: while the armed deadline lies ahead and the task is the same, the wake-up is still to come. A stream that
//! is to end at a time reads it with every poll, so that it ends also if it is never silent. What is armed is
//! trusted to go off, and must not go off early: it would be taken for one that is still to come.
//!
//! # Sockets
//!
//! hyper does not poll a body while its own buffer is full (some 400 KiB), so what stalls is not seen from within a
//! stream. The hub sees that a client is not read, and forgets it; what stands around the socket sees that bytes do not
//! move, and cuts the connection. It is cut by a reset: closed in the usual way, a socket whose peer does not read would
//! stay in the system with all that it was to send.
//!
//! A socket has room again when a third of its buffer is free, and that buffer grows to 4 MiB: a reader of 10 KB/s would seem
//! to stand still for minutes. So the system is told to keep little that is unsent, which also bounds what each stalled
//! client costs the system. The head of the first request is recognised by its blank line and is not parsed otherwise.
//!
//! # Browsers
//!
//! `examples/client/sse-client.js` is the other half of the protocol. It waits for the server's `retry:` plus a random part of its
//! own window, and not for the longer of the two: those would come together again after the same time. When the page comes
//! into view it comes back at once, unless the server named the time: a drain that is spread over a minute would otherwise
//! end with the first glance. A displaced client does not come back, as two tabs would displace each other without end.
//!
//! Tabs that share a stream agree by a Web Lock, which a tab that crashes gives back. The next leader resumes from what *it*
//! has seen, so nothing needs to be handed over; what others have seen before is known by its id, as ids only grow.
//!
//! # Presence
//!
//! A user is online while they have a client, and for a grace period after the last. Routes know the first, so the roster
//! behind the state lock holds only who is away, by when their grace is over, and a ring of the latest events.
//!
//! Nothing runs when a grace is over. Whoever subscribes, leaves, asks or watches next finds it by the clock, and one who
//! waits has its own timer armed for the first. A grace that begins later is over later: so a departure wakes those who
//! watch, to arm their timers, only if nobody was away, and a return wakes nobody.
//!
//! The clock is read before the lock is taken, so a thread can come to the state with an older time than another has
//! acted on. An answer that somebody has left is therefore given only together with the event that says so: otherwise that
//! thread could find the user back in time, and no event would correct the answer.
//!
//! A watcher is a position in the ring and not a queue: what is bounded once is bounded for all. It finds expired graces
//! only when it has seen all that is there, so a crowd that leaves at once does not make it fall behind by itself.
//!
//! # Observability
//!
//! `tracing` events have the target `sse_hub` and carry no name of a user, a session or a topic. What crowds of clients can
//! cause is at `DEBUG`, so that they cannot fill a disk at the usual level; publishing and delivering are not told at all.
//!
//! | event | level | fields |
//! |---|---|---|
//! | `hub built` | `DEBUG` | `epoch`: the first part of its ids |
//! | `client opened` | `DEBUG` | `client`: its id; `has_user`; `start`: `fresh`, `resumed` or `gap` |
//! | `client ended` | `DEBUG` | `client`; `has_user`; `reason`: [`EndReason::as_str`](crate::EndReason::as_str) |
//! | `client refused` | `DEBUG` | `cause`: [`RefusedCause::as_str`](crate::RefusedCause::as_str) |
//! | `drain started` | `INFO` | `clients`; `over_ms` |
//! | `drain ended` | `INFO` | `cut`: clients that were left when the period was over; `took_ms` |
//! | `hub closed` | `INFO` | `clients`: streams that are still to end; `published` |
//! | `connection cut` | `DEBUG` | `reason`: `Cut::as_str` |
//! | `backplane lost` | `WARN` | `cause`; not more than once in ten seconds |
//! | `backplane found again` | `INFO` | if its loss was told |
//! | `history lost` | `WARN` | `floor`: where the order goes on; every client was told a gap |
//! | `who is online is not shared` | `WARN` | `cause`; once a minute at most |
//! | `who is online is shared again` | `INFO` | if that was told |
//! | ``more users of other instances than `Presence::elsewhere` allows: some are not seen`` | `WARN` | once in a hub's life |
//! | `no room for a topic` | `DEBUG` | `clients`: of this instance, which did not join; `limit` |
//! | `entries that are no events are left out` | `WARN` | once for a burst, and once in a minute |
//! | `the backplane ended before all was acknowledged` | `WARN` | `left`: how many events |
//! | `event stream failed` | `DEBUG` | `error`: of one's own stream, which is not told to the client unless asked |
//! | `event stream has an invalid event` | `DEBUG` | `error`: an [`EventError`](crate::EventError) |
//!
//! A client's id is a capability (see below): treat a log at `DEBUG` as one that holds some.
//!
//! A client has ended when the hub forgets it. Its stream can linger in a server that does not read it.
//!
//! Metrics (feature `metrics`) are recorded when they are collected, by `Hub::record_metrics`, from the same counts as
//! [`Hub::stats`](crate::Hub::stats). Recording as things happen would run a recorder's code for every delivery, beside the
//! locks that all clients share; and what is not scraped would cost as much.
//!
//! # Beside the usual
//!
//! - `getrandom` for client ids: they are capabilities (whoever knows one can be sent to), so they come from the operating
//!   system's generator and not from a hasher's seed.
//! - `wide` for finding the ends of lines: 64 bytes become a word of bits. 64 KiB of 80-column lines are encoded in
//!   5.3 us with it and in 7.5 us with `memchr2_iter`, in one run; and it needs no `unsafe` here.
//! - `slab`, `smallvec`, `itoa`, `memchr`: small libraries that do one thing better than a few lines of ours would.
//!
//! # Left out, on purpose
//!
//! Publishers that wait (one slow browser must not stall a server), a durable log, authentication (the handler knows who it
//! is), WebSocket, delta compression, wildcards in topics.
