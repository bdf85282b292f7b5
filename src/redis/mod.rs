//! A backplane on Redis Streams: any number of instances act as a single hub. Feature `redis`.
//!
//! ```no_run
//! use std::time::Duration;
//! use sse_hub::redis::Redis;
//! use sse_hub::{Event, Hub, TokioTimer};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let backplane = Redis::new("redis://127.0.0.1:6379")?.prefix("shop").build()?;
//! let hub = Hub::builder(TokioTimer::new()).backplane(backplane.clone()).build()?;
//! let running = tokio::spawn(backplane.run(&hub));
//! // Then listen. If Redis is not ready within five seconds, say why, and serve without it for now.
//! if let Err(error) = backplane.ready_within(Duration::from_secs(5)).await {
//!     eprintln!("{error}");
//! }
//!
//! // Publish as with a hub alone.
//! hub.broadcast(Event::new("alert").data("hello"))?;
//! # Ok(())
//! # }
//! ```
//!
//! The instances may stand behind any load balancer. A browser that reconnects to another instance
//! resumes there with the native `Last-Event-ID`: no event is lost, and no event is repeated.
//!
//! [`guide::instances`](crate::guide::instances) says what changes for the application, and how far
//! one prefix reaches.
//!
//! # How the backplane works
//!
//! Each event is an entry of a stream, and the id of the entry is the id of the event. An instance
//! publishes over a connection and reads the stream by position over another (`XREAD BLOCK`).
//! Pub/sub is not used, so a lost connection costs time and never an event. When an instance
//! starts, the hub loads the end of the stream, as much as the hub [retains](crate::Retain).
//!
//! Events are published in batches. Each batch is a script, which Redis runs as a whole or not at
//! all. Redis remembers the number and the ids of each publisher's latest batch. So if the answer
//! to a batch is lost, the batch is sent again, and is answered but not added twice.
//!
//! Each entry names the previous entry. So an instance knows whether new entries follow the known
//! entries, whatever happened to the stream.
//!
//! A client may come back from before the events that the hub retains. Then the client waits, with
//! heartbeats, while the instance reads the stream backwards, as far as [`History`](crate::History)
//! allows. The instance reads at most a megabyte at a time, at most once in 100 ms, and once for
//! all clients that wait. These events become part of the hub's log for a while. The same holds for
//! connected clients that fall behind the retained events.
//!
//! The size of each read adapts to the line. If an answer does not arrive within the
//! [timeout](Redis::timeout), the next read asks for less, down to a single entry.
//!
//! # Guarantees
//!
//! - All instances have the same order. Events that a thread publishes keep their order.
//! - A confirmed event ([`publish_confirmed`](crate::Hub::publish_confirmed)) is as durable as your
//!   Redis makes it. With `appendonly yes` and `appendfsync always` the event is on disk. With
//!   `everysec` the last second can be lost with the machine. A replica that takes over lacks the
//!   events that had not arrived there.
//! - If Redis loses events that any instance has read, or that Redis has confirmed to an instance
//!   that still runs, every client of every instance gets `hub:gap` with the reason `reset`,
//!   possibly twice. Of other lost events nobody knows: those of an instance that has ended or of a
//!   [`RedisPublisher`], if no instance has read the events.
//! - An unconfirmed event waits in the outbox, and is lost with the process. When a process ends in
//!   order, `tracing` says how many events Redis had not acknowledged.
//!
//! In detail:
//!
//! - If Redis restarts, pauses, is cut off or refuses the password: clients see nothing, and later
//!   all events.
//! - If Redis closes or a firewall forgets an idle connection: clients see nothing. The first
//!   failure of a connection that worked is retried over a new connection.
//! - If the memory of Redis is full (`maxmemory`): the oldest eighth of the stream is removed, and
//!   again until there is room, and `tracing` says so. Clients that had not got these events see
//!   `hub:gap`.
//! - If an instance dies: clients reconnect to another instance and resume.
//! - If Redis is emptied, goes back to an older dump, or a replica without the end takes over:
//!   `hub:gap`, `reset`.
//! - If the stream is deleted, or trimmed beyond an instance's position: `hub:gap`, `reset`.
//! - If an instance starts while Redis is away: open streams; clients without an id get `hub:gap`,
//!   `unknown`, when Redis is back.
//! - If a client was away for longer than the hub retains: the missed events, after a moment.
//! - If a client was away for longer than Redis keeps, or than [`History`](crate::History) allows:
//!   `hub:gap`, `evicted`, and then the events that there are.
//! - If Redis does not answer while a client waits for older events: nothing until then, or after a
//!   [minute](crate::History::max_wait) `hub:gap`, `evicted`.
//! - If a client comes with an id that Redis has not given: `hub:gap`, `unknown`, within about half
//!   of the [timeout](Redis::timeout).
//!
//! While an instance cannot reach Redis, the hub is [degraded](crate::Stats::degraded). `tracing`
//! says `backplane unreachable`, and later `backplane reachable again`, and
//! [`last_error`](RedisBackplane::last_error) returns the cause. The instance tries again after a
//! random time of up to 250 ms. Publishing goes on until the [outbox](Redis::outbox) is
//! full, and is an error then. A hub that [announces outages](crate::HubBuilder::announce_outages)
//! sends its clients `hub:degraded` when an outage has lasted for a second, and again at the end of
//! the outage.
//!
//! # Values
//!
//! With [`Retain::keep_latest`](crate::Retain::keep_latest), Redis keeps the newest event of each
//! conflation key beside the stream, in the script that publishes the event. So an instance that
//! starts later, or finds another order, begins with the values, however short the stream is. Set
//! `keep_latest` to the same number on every instance: an instance without the setting does not
//! write the values. Beyond the number, Redis removes the oldest value, and clients that
//! [begin with the values](crate::Subscriber::latest) on an instance that starts later get
//! `hub:gap`, `evicted`. An event that was published before the setting is not a value. A
//! [`RedisPublisher`] writes the values if [`limits`](RedisPublisher::limits) has the same
//! `Retain`.
//!
//! # Runs
//!
//! A [run](crate::Run) has its producer on one instance, and readers on all. Each part of a run
//! (the start, an event, a request to stop, the end) is an entry of the stream, so all instances
//! agree on the producer: of two instances that start a run of the same name, one gets
//! [`RunError::Open`](crate::RunError::Open).
//!
//! The script that publishes a part also copies it to a stream of the run's own. So an instance
//! that starts later finds each run from its beginning, however short the main stream is. Set
//! [`RunLimits`](crate::RunLimits) to the same values on every instance. The limits hold for the
//! copies, where an event counts for its bytes and for 64:
//!
//! - Beyond [`bytes_per_run`](crate::RunLimits::bytes_per_run), a copy loses its oldest events. An
//!   instance that starts later tells the loss by `hub:gap`.
//! - Beyond [`bytes`](crate::RunLimits::bytes), the runs that ended first are removed within some
//!   seconds. If the open runs alone have more bytes, each loses its oldest events when it gets
//!   another.
//! - An event that replaces an older event of its [conflation key](crate::Event::conflate) removes
//!   the older event from the copy, if that is among the latest 16.
//!
//! An instance with open runs renews a lease in Redis several times a second. If an instance dies,
//! or is cut off for longer than the [lease](Redis::lease), its runs end as
//! [`Lost`](crate::RunState::Lost), within two seconds after the end of the lease. The events from
//! before are exact. A producer that is alive all the same learns of the end when its instance
//! reaches Redis again: [`stopped`](crate::Run::stopped) resolves, and publishing is an error.
//!
//! - If Redis restarts, or an instance is cut off for less than the lease: nothing.
//! - If an instance is closed: its runs end as [`Abandoned`](crate::RunState::Abandoned) at once.
//! - If Redis is emptied: the runs end as `Lost`, after `hub:gap`.
//! - If all instances die: the next instance ends the runs, a lease after its start.
//!
//! # Programs without clients
//!
//! A worker or a cron job publishes without a hub: [`Redis::publisher`] returns a
//! [`RedisPublisher`], which has a single connection and reads nothing. Programs in other languages
//! publish by the script and the bytes that the guide [`format`](mod@format) documents.
//!
//! # Presence, and commands to clients
//!
//! [`disconnect`](crate::Hub::disconnect), [`join`](crate::Hub::join) and
//! [`leave`](crate::Hub::leave) reach clients on all instances. Each call is an entry of the
//! stream, in the same order as the events, and each instance obeys the entry when reading it. So
//! an event that is published to a topic after a `join` reaches the clients that joined. A command
//! waits in the outbox while Redis is away. An instance that starts later applies earlier commands
//! to no open stream, and no instance obeys an entry that Redis has lost. A client that is between
//! two instances at that moment joins and leaves as [`join`](crate::Hub::join) says, and is not
//! disconnected: your handler must decide when the client comes back.
//!
//! Hubs with [presence](crate::HubBuilder::presence) share their users with each other, and the
//! [members of topics](crate::Presence#members-of-topics). Each instance keeps a set of local users
//! and members in Redis, and announces changes at most ten times a second in a small stream. An
//! instance that has missed an announcement reads the set. For members the following holds as for
//! users.
//!
//! - If a user joins or leaves: all instances know within some 100 ms.
//! - If an instance is closed: the users are away at once, and leave when the
//!   [grace](crate::Presence) is over, unless they join elsewhere.
//! - If an instance dies, or is cut off for longer than the lease: the same, between 5 and 7
//!   quarters of the [lease](Redis::lease) later.
//! - If an instance is cut off for less than the lease: nothing.
//! - If an instance comes back after a longer cut: the users join again; the instance has kept the
//!   other users, and catches up.
//! - If Redis is away from all instances, is emptied, or goes back to an older dump: nothing: each
//!   instance announces the users again.
//!
//! While Redis is away, an instance sees changes of local users only. With a grace of zero, a user
//! that changes instances can be seen to leave and to join.
//!
//! [`clients`](crate::Hub::clients), [`count`](crate::Hub::count), [`stats`](crate::Hub::stats),
//! [`Receipt::matched`](crate::Receipt::matched) and the results of `disconnect`, `join` and
//! `leave` count the clients of this instance. [Limits](crate::Limits),
//! [`drain`](crate::Hub::drain) and [`close`](crate::Hub::close) are for this instance.
//!
//! # For the operator of Redis
//!
//! Redis 6.2 or later, or Valkey. Each change is tested with Redis 7.0.15, and with Valkey 9.1.2
//! except for TLS: all of the above with a single server, and of the others as listed. In November
//! 2026 the same tests passed with Redis 8.2.3, and those of a single server with Redis 6.2.14.
//!
//! - a single server, [`Redis::new`]: TCP and a Unix socket, a database other than 0, with and
//!   without a password; a replica that takes over at the same address.
//! - over TLS, feature `redis-tls`, `rediss://`: an own authority (`ca`), a client certificate
//!   (`identity`); a wrong certificate is reported to `tracing`, and tried again. Not tested: the
//!   system's authorities.
//! - Sentinel, [`Redis::sentinels`]: three sentinels: the master is killed, with and without events
//!   that the replica lacks; an ordered failover; the old master comes back; a sentinel names a
//!   replica; ACL users at the sentinels. Not tested: with TLS.
//! - Cluster, [`Redis::cluster`]: three masters and a replica: the slot is moved under load, an
//!   ordered failover, the owner is killed. Not tested: with TLS.
//!
//! Each connection looks the server up again. So a replica that takes over, or a slot that has
//! moved, is found when the old connection fails or answers `MOVED`. Sentinels are also asked once
//! a second, because an old master answers for some ten seconds after an ordered failover. While
//! the slot of the keys moves, a hub waits. All keys of a prefix are in the same slot, so a hub
//! uses a single node of a cluster. A hub does not follow `ASK`, and does not read from replicas.
//! Only the given nodes and sentinels are asked: give several. For some seconds, a sentinel that
//! has not heard of a failover can lead an instance to an old master that is back. Events that are
//! published there are lost when the old master becomes a replica, and are reported
//! (`min-replicas-to-write` limits this).
//!
//! TLS is rustls with ring, which needs a C compiler and no cmake to build. If your program has
//! installed another `CryptoProvider` before, the backplane uses that.
//!
//! Passwords that change, and tokens that expire: see [`Redis::credentials`].
//!
//! - `{prefix}:events`: the stream; [`keep_events`](Redis::keep_events) times the event's frame and
//!   about 100 bytes.
//! - `{prefix}:last`, `{prefix}:reset`: positions; 1 each.
//! - `{prefix}:joins`: `1` if a client was ever to [join](crate::Hub::join) a topic.
//! - `{prefix}:publisher:*`: each publisher's latest batch; 1 for each hub or publisher that was
//!   built in a [day](Redis::remember), up to 21 KiB.
//! - `{prefix}:once:*`: idempotency keys; 1 for each in a [day](Redis::remember).
//! - `{prefix}:latest`, `{prefix}:latest-order`: with [`keep_latest`](crate::Retain::keep_latest):
//!   the newest event of each conflation key, of as many keys; for each the frame, three times the
//!   key and the audience, and about 200 bytes.
//! - `{prefix}:run:*`: the copy of each [run](#runs), open or ended. An event takes its frame, the
//!   name of the run, and about 60 bytes. Each copy has at most
//!   [`RunLimits::bytes_per_run`](crate::RunLimits::bytes_per_run), and all together have about
//!   [`RunLimits::bytes`](crate::RunLimits::bytes). An ended run expires after
//!   [`RunLimits::keep`](crate::RunLimits::keep).
//! - `{prefix}:runs`, `{prefix}:runs-ended`: a record of each run; 150 bytes and twice the name.
//! - `{prefix}:runs-of:*`: the leases of the instances with open runs, which expire after two
//!   [leases](Redis::lease); 100 bytes for each.
//! - `{prefix}:users:*`: with presence: the set of an instance's users and members of topics, which
//!   expires after two [leases](Redis::lease); the users, and each pair of a user and a topic.
//! - `{prefix}:instances`: the instances; 1 for each, until twenty leases after the death.
//! - `{prefix}:presence`: announcements; about 256 entries, each of up to 1024 users and members.
//!
//! Set `maxmemory-policy noeviction`: with another policy Redis can evict the stream, which is a
//! single key. Each instance has two connections, four with presence, another from the first run
//! on, and another while a client waits for older events. TCP keepalive is on. The rights that an
//! instance needs, as an ACL line:
//!
//! ```text
//! ACL SETUSER hub on >secret resetkeys ~{shop}:* resetchannels -@all +evalsha +eval +get +set +del +time +xadd +xdel +xlen +xrange +xread +xrevrange +xtrim +hdel +hscan +hset +zadd +zcard +zpopmin +hget +mget +pexpire +hgetall +sadd +scard +srem +sscan
//! ```
//!
//! | without | not needed |
//! |---|---|
//! | presence | the rights from `+hgetall` on |
//! | presence and runs | the rights from `+hget` on |
//! | presence, runs and [values](crate::Retain::keep_latest) | the rights from `+hdel` on |
//!
//! Further rights, also of publishers:
//!
//! - for a database other than 0, also of a socket: `+select`
//! - with sentinels, at the master and its replicas: `+role`
//! - at a sentinel that has ACL users: `+sentinel|get-master-addr-by-name`, and no keys
//! - in a cluster, at all nodes: `+cluster|keyslot +cluster|slots`
//!
//! A [publisher](Redis::publisher), in any language, needs fewer rights:
//!
//! ```text
//! ACL SETUSER worker on >secret resetkeys ~{shop}:* resetchannels -@all +evalsha +eval +get +set +del +time +xadd +xdel +xlen +xrevrange +xtrim
//! ```
//!
//! A publisher that writes [values](#values) also needs `+hdel +hset +zadd +zcard +zpopmin`. A
//! publisher that starts [runs](#runs) also needs `+hdel +hget +hset +pexpire +xrange +zadd`.
//!
//! A client that can write to the keys can publish to all clients, end their streams, and forge
//! presence. The hub checks that entries are whole frames with plausible ids, and that they are not
//! the hub's own frames. Others are skipped, [counted](crate::Stats::malformed), and reported to
//! `tracing` at most once a minute, as `malformed stream entries skipped`, or as `stream entries of
//! an unknown format skipped` if a later version wrote them. If a forged entry stands so far in the
//! future (ten years) that the stream has no room for others, the stream is made anew from the
//! newest plausible entries. A key of another type is reported; the keys of values, single events
//! and publishers are replaced. Several hubs share a Redis under different prefixes.
//!
//! Instances of different versions can run side by side: events that an older version cannot read
//! are gaps for its clients. An older version knows the users of all instances, and no members of
//! topics.

mod config;
mod connect;
mod driver;
mod error;
pub mod format;
mod health;
mod publisher;
mod run;
mod shared;
mod store;
mod tasks;

pub use self::config::Redis;
pub use self::connect::credentials::Credentials;
pub use self::driver::RedisBackplane;
pub use self::error::{
    LastError, NotFlushed, NotFlushedCause, NotReady, NotReadyCause, RedisConfigError,
};
pub use self::publisher::RedisPublisher;
pub use self::run::RedisRun;
