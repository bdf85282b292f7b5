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
//! A client that comes back from before what its hub retains waits, with heartbeats, while the instance reads the stream
//! backwards (`XREVRANGE`), as far as [`History`](crate::History) allows. It reads about a megabyte at a time, and at most
//! once in 100 ms for all its clients together: whoever comes meanwhile is served by what is read already, and those that
//! missed least go on first. What was read becomes part of the hub's log for a while, and is read again for nobody.
//! Clients that are connected and fall behind what is retained are served likewise.
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
//! | a client was away for longer than the hub retains | what it missed, after a moment |
//! | for longer than Redis keeps, or than [`History`](crate::History) allows | `hub:gap`, `evicted`, and then what there is |
//! | Redis does not answer meanwhile | nothing, until it does; after a [minute](crate::History::wait) `hub:gap`, `evicted` |
//! | a client comes with an id that Redis has not given | `hub:gap`, `unknown`, within about half of the [timeout](Redis::timeout) |
//!
//! While it cannot reach Redis a hub is [degraded](crate::Stats::degraded), says so to `tracing` (`backplane lost`, and
//! `backplane found again`), and tries again after a time by chance of up to 250 ms. Publishing goes on until the
//! [outbox](Redis::outbox) is full, and is then an error. If it is [set to](crate::HubBuilder::tell_degraded), the hub tells
//! its clients of an outage that lasts for a second, and of its end, with a `hub:degraded` event.
//!
//! # Who is online, and what is done to clients
//!
//! [`disconnect`](crate::Hub::disconnect), [`join`](crate::Hub::join) and [`leave`](crate::Hub::leave) reach clients wherever
//! they are: each is an entry of the stream, in one order with the events, and is done by every instance when it reads
//! that. So what is published to a topic after a `join` reaches whom it joined. It takes what an event takes, waits in the
//! outbox while Redis is away, and shares an event's fate: an instance that starts later, or that Redis has lost it before,
//! does not do it. Nor is it done to a client that is between two instances at that moment: whoever lets clients in decides
//! about those.
//!
//! A hub with [presence](crate::HubBuilder::presence) shares who is online with all others that have it. Each instance keeps
//! a set of its users in Redis and tells what changes, every tenth of a second at most, in a small stream of its own. One
//! that has missed something reads the set.
//!
//! | what happens | who is online |
//! |---|---|
//! | a user comes or goes | is known everywhere within some 100 ms |
//! | an instance is closed | its users are away at once: they have left after the [grace](crate::Presence), unless they come elsewhere |
//! | an instance dies, or is cut off for longer | the same, between 5 and 7 quarters of the [lease](Redis::lease) later |
//! | an instance is cut off for less than the lease | nothing |
//! | one that was cut off comes back | its users join again; it kept what it knew of the others, and hears of what has changed |
//! | Redis is away from all, for however long, emptied, or goes back to an older dump | nothing: each instance tells anew who is there |
//!
//! Instances that cannot be reached through Redis are not reached otherwise: while it is away, who comes and goes is told
//! where it happens, and elsewhere when it is back. With a grace of zero a user that changes instances can be seen to
//! leave and join.
//!
//! [`clients`](crate::Hub::clients), [`count`](crate::Hub::count), [`stats`](crate::Hub::stats),
//! [`Receipt::matched`](crate::Receipt::matched) and what `disconnect`, `join` and `leave` return count the clients of the
//! instance that is asked; [limits](crate::Limits), [`drain`](crate::Hub::drain) and [`close`](crate::Hub::close) are its own.
//!
//! # For whoever runs the Redis
//!
//! Redis 6.2 or later. Tested with 7.0.15: what happens above with one server, and of the others what is named.
//!
//! | where it is | how | what is tested |
//! |---|---|---|
//! | one server | [`Redis::new`] | all of the above, over TCP and a Unix socket, without a password and by the ACL user below; a replica that takes over at the same address |
//! | over TLS, feature `redis-tls` | `rediss://` | a CA of one's own (`ca`), a certificate of one's own (`identity`); another CA's certificate and one for another name are told to `tracing` and tried again. Not tested: the system's own CAs |
//! | Sentinel | [`Redis::sentinels`] | three sentinels: the master is killed, with and without events that its replica lacks; an ordered failover; the old master comes back; a sentinel names a replica. Not tested: TLS with it, a password of the sentinels' own |
//! | Cluster | [`Redis::cluster`] | three masters and a replica: the slot is moved under load, an ordered failover, the owner is killed. Not tested: TLS with it |
//!
//! A server is looked for with every connection: a replica that takes over, and a slot that has moved, are found when the old
//! connection fails or is answered `MOVED`, and the failover itself takes what it takes. Sentinels are also asked once in a
//! second, as an old master goes on for some ten seconds after an ordered failover. While the slot of its keys is being
//! moved a hub waits. All keys of a prefix are in one slot, so a hub is on one node of a cluster and is not spread over more;
//! `ASK` is not followed, and replicas are not read. Only the nodes and sentinels that were given are asked: give several.
//! A sentinel that has not heard of a failover yet, which takes some seconds, can lead an instance to an old master that is
//! back. What is published to a server that others take for no master, there or where an old one goes on alone, is lost when
//! it follows the new one, and told (`min-replicas-to-write` bounds it).
//!
//! TLS is rustls with ring, which needs a C compiler and no cmake to build. If your program has installed another
//! `CryptoProvider` before it runs the backplane, that is used.
//!
//! | key | what | size |
//! |---|---|---|
//! | `{prefix}:events` | the stream | [`keep_events`](Redis::keep_events) times the event's frame and about 100 bytes |
//! | `{prefix}:last`, `{prefix}:mark` | positions | one each |
//! | `{prefix}:publisher:*` | each publisher's latest batch | one for each hub that was built in a [day](Redis::remember), up to 21 KiB |
//! | `{prefix}:once:*` | idempotency keys | one for each in a [day](Redis::remember) |
//! | `{prefix}:users:*` | who is online, with presence: a set for each instance, which expires after two [leases](Redis::lease) | its users |
//! | `{prefix}:instances` | which instances there are | one for each, and for twenty leases after its death |
//! | `{prefix}:presence` | who came and went last | about 256 entries, each of up to 1024 users |
//!
//! Set `maxmemory-policy noeviction`: a key that is evicted is a history that is gone. Commands: `EVALSHA`, `EVAL`, `GET`,
//! `SET`, `TIME`, `XADD`, `XDEL`, `XREAD`, `XREVRANGE`; and with presence `DEL`, `HDEL`, `HGET`, `HGETALL`, `HSET`, `PEXPIRE`,
//! `SADD`, `SCARD`, `SREM`, `SSCAN`. Each instance has two connections, and four with presence; one more while it looks back.
//! As an ACL line:
//!
//! ```text
//! ACL SETUSER hub on >secret resetkeys ~{shop}:* resetchannels -@all +evalsha +eval +get +set +time +xadd +xdel +xread +xrevrange +del +hdel +hget +hgetall +hset +pexpire +sadd +scard +srem +sscan
//! ```
//!
//! With sentinels also `+role`; in a cluster also `+cluster|keyslot +cluster|slots`.
//!
//! Whoever can write to the streams can publish to every client, end their streams and say who is online. What they write
//! is checked to be whole frames, and not the hub's own ones, and is left out otherwise
//! ([counted](crate::Stats::malformed), and told to `tracing` once a minute at most). Several hubs share a Redis under several
//! prefixes.
//!
//! Instances of versions that write another form of event can run side by side: what one cannot read, its clients are told
//! as a gap.

mod config;
mod connect;
mod driver;
mod error;
mod health;
mod shared;
mod store;
mod tasks;
mod unshared;

pub use self::config::Redis;
pub use self::driver::RedisBackplane;
pub use self::error::RedisConfigError;
