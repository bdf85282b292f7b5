//! A backplane on Redis Streams: any number of instances act as one hub. Feature `redis`.
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
//! // Then listen. If Redis does not answer within five seconds, serve without it for now.
//! let _ = tokio::time::timeout(Duration::from_secs(5), backplane.ready()).await;
//!
//! // Publish as with a hub alone.
//! hub.broadcast(Event::new("alert").data("hello"))?;
//! # Ok(())
//! # }
//! ```
//!
//! The instances may stand behind any load balancer. A browser that reconnects to another instance
//! resumes there with its native `Last-Event-ID`: no event is lost and none is repeated.
//!
//! # How it works
//!
//! Each event is an entry of one stream, and the id of the entry is the id of the event. An instance
//! publishes over one connection and reads the stream by position over another (`XREAD BLOCK`). It
//! uses no pub/sub, so a lost connection costs time and never an event. When an instance starts, it
//! loads the end of the stream, as much as its hub [retains](crate::Retain).
//!
//! Events are published in batches. Each batch is one script, which Redis runs as a whole or not at
//! all. Redis remembers the number and the ids of each publisher's latest batch. So if the answer to
//! a batch is lost, the batch is sent again, and is answered but not added twice.
//!
//! Each entry names the entry before it. So an instance knows whether the entries that it reads
//! follow the ones that it has, whatever happened to the stream.
//!
//! A client may come back from before the events that its hub retains. Then it waits, with
//! heartbeats, while the instance reads the stream backwards, as far as
//! [`History`](crate::History) allows. The instance reads at most a megabyte at a time, at most once
//! in 100 ms, and once for all clients that wait. The events that it reads become part of the hub's
//! log for a while. The same holds for connected clients that fall behind the retained events.
//!
//! The size of each read adapts to the line. If an answer does not arrive within the
//! [timeout](Redis::timeout), the next read asks for less, down to one entry.
//!
//! # Guarantees
//!
//! - All instances have one order. Events that one thread publishes keep their order.
//! - A confirmed event ([`publish_confirmed`](crate::Hub::publish_confirmed)) is as durable as your
//!   Redis makes it. With `appendonly yes` and `appendfsync always` it is on disk. With `everysec`
//!   the last second can be lost with the machine. A replica that takes over lacks the events that
//!   it had not received.
//! - If Redis loses events that any instance has read, every client of every instance gets
//!   `hub:gap` with the reason `reset`, possibly twice. Nobody can know of events that Redis lost
//!   before any instance had read them.
//! - An unconfirmed event waits in the outbox, and is lost with its process. When a process ends in
//!   order, `tracing` says how many events Redis had not acknowledged.
//!
//! | if | then clients see |
//! |---|---|
//! | Redis restarts, pauses, is cut off or refuses the password | nothing, and later all events |
//! | Redis closes an idle connection, or a firewall forgets it | nothing: the first failure of a connection that worked is retried over a new one |
//! | the memory of Redis is full (`maxmemory`) | nothing: the oldest eighth of the stream is removed until there is room, and `tracing` says so; clients that had not got these events see `hub:gap` |
//! | an instance dies | they reconnect to another instance and resume |
//! | Redis is emptied, goes back to an older dump, or a replica without the end takes over | `hub:gap`, `reset` |
//! | the stream is deleted or trimmed before an instance has read it | `hub:gap`, `reset` |
//! | an instance starts while Redis is away | open streams; clients without an id get `hub:gap`, `unknown`, when Redis is back |
//! | a client was away for longer than the hub retains | the events that it missed, after a moment |
//! | for longer than Redis keeps, or than [`History`](crate::History) allows | `hub:gap`, `evicted`, and then the events that there are |
//! | Redis does not answer meanwhile | nothing until it does, or after a [minute](crate::History::wait) `hub:gap`, `evicted` |
//! | a client comes with an id that Redis has not given | `hub:gap`, `unknown`, within about half of the [timeout](Redis::timeout) |
//!
//! While an instance cannot reach Redis, its hub is [degraded](crate::Stats::degraded). `tracing`
//! says `backplane lost`, and later `backplane found again`. The instance tries again after a random
//! time of up to 250 ms. Publishing goes on until the [outbox](Redis::outbox) is full, and is an
//! error then. A hub that is [set to](crate::HubBuilder::tell_degraded) sends its clients
//! `hub:degraded` when an outage has lasted for a second, and again when it ends.
//!
//! # Presence, and commands to clients
//!
//! [`disconnect`](crate::Hub::disconnect), [`join`](crate::Hub::join) and
//! [`leave`](crate::Hub::leave) reach clients on all instances. Each call is an entry of the stream,
//! in one order with the events, and each instance obeys when it reads the entry. So an event that is
//! published to a topic after a `join` reaches the clients that joined. A command waits in the outbox
//! while Redis is away. An instance that starts later does not obey, and neither does one whose Redis
//! has lost the entry. A client that is between two instances at that moment is not reached: your
//! handler must decide about it when it comes back.
//!
//! Hubs with [presence](crate::HubBuilder::presence) share their users with each other. Each
//! instance keeps a set of its users in Redis, and announces changes at most ten times a second in a
//! small stream. An instance that has missed an announcement reads the set.
//!
//! | if | then |
//! |---|---|
//! | a user joins or leaves | all instances know within some 100 ms |
//! | an instance is closed | its users are away at once, and leave when the [grace](crate::Presence) is over, unless they join elsewhere |
//! | an instance dies, or is cut off for longer than the lease | the same, between 5 and 7 quarters of the [lease](Redis::lease) later |
//! | an instance is cut off for less than the lease | nothing |
//! | an instance comes back after that | its users join again; it has kept the other users, and catches up |
//! | Redis is away from all instances, is emptied, or goes back to an older dump | nothing: each instance announces its users again |
//!
//! While Redis is away, an instance sees its own users only change. With a grace of zero, a user that
//! changes instances can be seen to leave and to join.
//!
//! [`clients`](crate::Hub::clients), [`count`](crate::Hub::count), [`stats`](crate::Hub::stats),
//! [`Receipt::matched`](crate::Receipt::matched) and the results of `disconnect`, `join` and `leave`
//! count the clients of this instance. [Limits](crate::Limits), [`drain`](crate::Hub::drain) and
//! [`close`](crate::Hub::close) are for this instance.
//!
//! # For the operator of Redis
//!
//! Redis 6.2 or later. Tested with 7.0.15: all of the above with one server, and of the others:
//!
//! | server | setting | tested |
//! |---|---|---|
//! | one server | [`Redis::new`] | TCP and a Unix socket, a database other than 0, with and without a password; a replica that takes over at the same address |
//! | over TLS, feature `redis-tls` | `rediss://` | an own authority (`ca`), a client certificate (`identity`); a wrong certificate is reported to `tracing`, and tried again. Not tested: the system's authorities |
//! | Sentinel | [`Redis::sentinels`] | three sentinels: the master is killed, with and without events that its replica lacks; an ordered failover; the old master comes back; a sentinel names a replica; ACL users at the sentinels. Not tested: with TLS |
//! | Cluster | [`Redis::cluster`] | three masters and a replica: the slot is moved under load, an ordered failover, the owner is killed. Not tested: with TLS |
//!
//! Each connection looks the server up again. So a replica that takes over, or a slot that has moved,
//! is found when the old connection fails or answers `MOVED`. Sentinels are also asked once a second,
//! because an old master answers for some ten seconds after an ordered failover. While the slot of
//! its keys moves, a hub waits. All keys of a prefix are in one slot, so a hub uses one node of a
//! cluster. It does not follow `ASK`, and does not read from replicas. Only the given nodes and
//! sentinels are asked: give several. For some seconds, a sentinel that has not heard of a failover
//! can lead an instance to an old master that is back. Events that are published there are lost when
//! the old master follows the new one, and are reported (`min-replicas-to-write` limits this).
//!
//! TLS is rustls with ring, which needs a C compiler and no cmake to build. If your program has
//! installed another `CryptoProvider` before it runs the backplane, that one is used.
//!
//! Passwords that change, and tokens that expire: see [`Redis::credentials`].
//!
//! | key | holds | size |
//! |---|---|---|
//! | `{prefix}:events` | the stream | [`keep_events`](Redis::keep_events) times the event's frame and about 100 bytes |
//! | `{prefix}:last`, `{prefix}:reset` | positions | one each |
//! | `{prefix}:publisher:*` | each publisher's latest batch | one for each hub that was built in a [day](Redis::remember), up to 21 KiB |
//! | `{prefix}:once:*` | idempotency keys | one for each in a [day](Redis::remember) |
//! | `{prefix}:users:*` | with presence: the set of an instance's users, which expires after two [leases](Redis::lease) | its users |
//! | `{prefix}:instances` | the instances | one for each, until twenty leases after its death |
//! | `{prefix}:presence` | announcements | about 256 entries, each of up to 1024 users |
//!
//! Set `maxmemory-policy noeviction`: with another policy Redis can evict the whole stream, which is
//! one key. Each instance has two connections, four with presence, and one more while a client waits
//! for older events. TCP keepalive is on. The rights that an instance needs, as an ACL line:
//!
//! ```text
//! ACL SETUSER hub on >secret resetkeys ~{shop}:* resetchannels -@all +evalsha +eval +get +set +del +time +xadd +xdel +xlen +xrange +xread +xrevrange +xtrim +hdel +hget +hgetall +hset +pexpire +sadd +scard +srem +sscan
//! ```
//!
//! Without presence, the rights from `+hdel` on are not needed. Further rights:
//!
//! - for a database other than 0, also of a socket: `+select`
//! - with sentinels, at the master and its replicas: `+role`
//! - at a sentinel that has users of its own: `+sentinel|get-master-addr-by-name`, and no keys
//! - in a cluster, at all nodes: `+cluster|keyslot +cluster|slots`
//!
//! A client that can write to the keys can publish to all clients, end their streams, and forge
//! presence. The hub checks that entries are whole frames with plausible ids, and that they are not
//! the hub's own frames. It skips others, [counts](crate::Stats::malformed) them, and warns of them
//! at most once a minute. If a forged entry stands so far in the future (ten years) that the stream
//! has no room for others, the stream is made anew with its newest plausible entries. A key that
//! holds a value of another type is reported; the keys of single events and publishers are replaced.
//! Several hubs share a Redis under different prefixes.
//!
//! Instances of different versions can run side by side: events that an older version cannot read
//! are gaps for its clients.

mod config;
mod connect;
mod driver;
mod error;
mod health;
mod shared;
mod store;
mod tasks;

pub use self::config::Redis;
pub use self::connect::credentials::Credentials;
pub use self::driver::RedisBackplane;
pub use self::error::RedisConfigError;
