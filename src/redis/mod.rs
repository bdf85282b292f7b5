//! More than one instance: hubs that are one, over Redis Streams. Feature `redis`.
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
//! // Then listen. Without Redis after five seconds, too: it catches up.
//! let _ = tokio::time::timeout(Duration::from_secs(5), backplane.ready()).await;
//!
//! // As ever.
//! hub.broadcast(Event::new("alert").data("hello"))?;
//! # Ok(())
//! # }
//! ```
//!
//! Any number of instances behind any load balancer. A browser that reconnects to another one goes on there with its
//! native `Last-Event-ID`: nothing is lost and nothing comes twice.
//!
//! # How it works
//!
//! Every event is an entry of one stream, and the entry's id is the event's. Each instance publishes over one connection
//! and reads the stream by position over another (`XREAD BLOCK`): no pub/sub, so a lost connection costs time and never an
//! event. On its start an instance loads as much of the stream's end as its hub [retains](crate::Retain).
//!
//! What waits to be published goes out in batches, each one script, which Redis runs whole or not at all. It keeps the
//! number of each publisher's latest batch and the ids that this got: a batch whose answer was lost is sent again and
//! answered, and not added twice.
//!
//! Each entry names the one that was written before it. So an instance knows without asking whether what it reads
//! follows what it has, whatever became of the stream meanwhile.
//!
//! # What is promised
//!
//! - One order for all instances. Events that one thread publishes one after the other are in that order.
//! - A confirmed event ([`publish_confirmed`](crate::Hub::publish_confirmed)) is as durable as that Redis makes it: with
//!   `appendonly yes` and `appendfsync always` it is on its disk, with `everysec` the last second can be lost with the
//!   machine, and a replica that takes over lacks what it had not got.
//! - What Redis loses that any instance had read is told: `hub:gap` with the reason `reset` to every client of every
//!   instance. It can be told twice. What it lost before anybody had read it, nobody can know of.
//! - An unconfirmed event that was taken waits in the outbox, and is lost with its process.
//!
//! | what happens | what clients see |
//! |---|---|
//! | Redis is restarted, paused, cut off, refuses the password, is out of memory | nothing, and then all that was published |
//! | an instance dies | they come back to another and go on |
//! | Redis is emptied, goes back to an older dump, or a replica without the end takes over | `hub:gap`, `reset` |
//! | the stream is deleted or trimmed before an instance had read it | `hub:gap`, `reset` |
//! | an instance starts while Redis is away | streams are open; whoever came without an id gets `hub:gap`, `unknown`, when it is back |
//! | a client was away for longer than the hub retains | `hub:gap`, `evicted`, also if Redis still has it |
//! | a client comes with an id that Redis has not given | `hub:gap`, `unknown`, within about half of the [timeout](Redis::timeout) |
//!
//! While it cannot reach Redis a hub is [degraded](crate::Stats::degraded), says so to `tracing` (`backplane lost`, and
//! `backplane found again`), and tries again after a time by chance of up to 250 ms. Publishing goes on until the
//! [outbox](Redis::outbox) is full, and is then an error.
//!
//! # What does not reach across instances
//!
//! [`disconnect`](crate::Hub::disconnect), [`join`](crate::Hub::join) and [`leave`](crate::Hub::leave),
//! [presence](crate::Hub::watch), [`clients`](crate::Hub::clients), [`stats`](crate::Hub::stats) and
//! [`Receipt::matched`](crate::Receipt::matched) are each instance's own. To end a session everywhere, tell the other
//! instances by means of your own.
//!
//! # For whoever runs the Redis
//!
//! Redis 6.2 or later. Tested with 7.0.15, each under load and with the faults above:
//!
//! | where it is | how | what is tested |
//! |---|---|---|
//! | one server | [`Redis::new`] | with and without a password and by an ACL user; a replica that takes over at the same address |
//! | over TLS, feature `redis-tls` | `rediss://` | a CA of one's own (`ca`), a certificate of one's own (`identity`); another CA's certificate and one for another name are told to `tracing` and tried again. Not tested: the system's own CAs |
//! | Sentinel | [`Redis::sentinels`] | three sentinels: the master is killed, with and without events that its replica lacks; an ordered failover; the old master comes back; a sentinel names a replica. Not tested: TLS with it, a password of the sentinels' own |
//! | Cluster | [`Redis::cluster`] | three masters and a replica: the slot is moved under load, an ordered failover, the owner is killed. Not tested: TLS with it |
//!
//! A server is looked for with every connection: a replica that takes over, and a slot that has moved, are found when the old
//! connection fails or is answered `MOVED`, and the failover itself takes what it takes. Sentinels are also asked once in a
//! second, as an old master goes on for some ten seconds after an ordered failover. While the slot of its keys is being
//! moved a hub waits. All keys of a prefix are in one slot, so a hub is on one node of a cluster and is not spread over more;
//! `ASK` is not followed, and replicas are not read. Only the nodes and sentinels that were given are asked: give several.
//! Where an old master goes on alone with some of the instances, what they publish meanwhile is lost when it comes back, and
//! told (`min-replicas-to-write` bounds it).
//!
//! TLS is rustls with ring, which needs a C compiler and no cmake to build. If your program has installed another
//! `CryptoProvider` before it runs the backplane, that is used.
//!
//! | key | what | size |
//! |---|---|---|
//! | `{prefix}:events` | the stream | [`keep_events`](Redis::keep_events) times the event's frame and about 100 bytes |
//! | `{prefix}:last`, `{prefix}:mark` | positions | one each |
//! | `{prefix}:publisher:*` | each publisher's latest batch | one for each hub that was built in a [day](Redis::remember), up to 10 KiB |
//! | `{prefix}:once:*` | idempotency keys | one for each in a [day](Redis::remember) |
//!
//! Set `maxmemory-policy noeviction`: a key that is evicted is a history that is gone. Commands: `EVALSHA`, `EVAL`, `GET`,
//! `MGET`, `SET`, `TIME`, `XADD`, `XREAD`, `XREVRANGE`. As an ACL line:
//!
//! ```text
//! ACL SETUSER hub on >secret resetkeys ~{shop}:* resetchannels -@all +evalsha +eval +get +mget +set +time +xadd +xread +xrevrange
//! ```
//!
//! With sentinels also `+role`; in a cluster also `+cluster|keyslot +cluster|slots`.
//!
//! Whoever can write to the stream can publish to every client. What they write is checked to be whole frames, and not the
//! hub's own ones, and is left out otherwise ([counted](crate::Stats::malformed), and told to `tracing` once a minute at
//! most). Several hubs share a Redis under several prefixes.
//!
//! Instances of versions that write another form of event can run side by side: what one cannot read, its clients are told
//! as a gap.

mod address;
mod config;
mod driver;
mod entry;
mod moves;
mod outbox;
mod reader;
mod script;
mod tail;
#[cfg_attr(not(feature = "redis-tls"), path = "no_tls.rs")]
mod tls;
mod trouble;

pub use self::config::{Redis, RedisConfigError};
pub use self::driver::RedisBackplane;
