//! More than one instance: any number of processes act as one hub, over one Redis.
//!
//! Use several instances for rolling updates without gaps, for a machine that may fail, and for
//! more clients than one process holds. A browser may reconnect to any instance and resumes there
//! with its native `Last-Event-ID`.
//!
#![cfg_attr(all(feature = "redis", feature = "tokio"), doc = "```no_run")]
#![cfg_attr(not(all(feature = "redis", feature = "tokio")), doc = "```ignore")]
//! use std::time::Duration;
//! use sse_hub::redis::Redis;
//! use sse_hub::{Hub, TokioTimer};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let backplane = Redis::new("redis://127.0.0.1:6379")?.prefix("shop").build()?;
//! let hub = Hub::builder(TokioTimer::new()).backplane(backplane.clone()).build()?;
//! let running = tokio::spawn(backplane.run(&hub));
//! // Serves without Redis, too, and catches up when Redis is back.
//! if let Err(error) = backplane.ready_within(Duration::from_secs(5)).await {
//!     eprintln!("{error}");
//! }
//! // Serve, and at the end drain and close the hub. Then wait for events that are not sent yet:
//! running.await?;
//! # Ok(())
//! # }
//! ```
//!
//! [`sse_hub::redis`](mod@crate::redis) is the reference: guarantees, faults, Sentinel, Cluster,
//! TLS, the rights that an instance needs, and the memory of Redis. The example `cluster` is a
//! whole server.
//!
//! # What changes for the application
//!
//! | | one process | several |
//! |---|---|---|
//! | the id of an event | known at once | [`publish_confirmed`](crate::Hub::publish_confirmed) resolves when Redis has the event |
//! | counts (`matched`, [`count`](crate::Hub::count), [`stats`](crate::Hub::stats), [`Limits`](crate::Limits)) | of the hub | of this instance |
//! | [`disconnect`](crate::Hub::disconnect), [`finish`](crate::Hub::finish), [`join`](crate::Hub::join), [`leave`](crate::Hub::leave) | at once | everywhere, at one place in the order |
//! | [runs](super::runs#several-instances) | decided at once | decided by the order: [`Run::started`](crate::Run::started) waits |
//! | [presence](crate::Presence), and [members of rooms](super::rooms#the-members-of-a-room) | of the hub | of all instances |
//! | [runs](super::runs) | of the hub | one producer of a name on all instances, and readers on each; a dead instance's runs end as [lost](crate::RunState::Lost) |
//! | a restart | a gap for every client | clients resume |
//! | an outage of Redis | | events wait; [`announce_outages`](crate::HubBuilder::announce_outages) tells clients |
//!
//! # Programs without clients
//!
//! A worker or a cron job needs no hub. A [`RedisPublisher`](crate::redis::RedisPublisher) has the
//! publishing methods of a hub, one connection, and reads nothing:
//!
#![cfg_attr(all(feature = "redis", feature = "tokio"), doc = "```no_run")]
#![cfg_attr(not(all(feature = "redis", feature = "tokio")), doc = "```ignore")]
//! use sse_hub::Event;
//! use sse_hub::redis::Redis;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let publisher = Redis::new("redis://127.0.0.1:6379")?.prefix("shop").publisher()?;
//! publisher.send_to_user(42, Event::new("report").data("ready"))?;
//! publisher.flush().await?; // Before the program ends.
//! # Ok(())
//! # }
//! ```
//!
//! Programs in other languages publish by a script and a documented
//! [format](mod@crate::redis::format); `examples/publish.py` is such a program.
//!
//! # The ceiling
//!
//! **Every instance reads every event of its prefix**, whether a client of this instance wants the
//! event or not. **One Redis node orders a prefix**, also in a cluster. So more instances carry
//! more clients, but not more events:
//!
//! - The rate of events is bounded by one node of Redis and by the reading of one instance.
//! - The traffic of Redis is the rate, times the size, times the instances.
//! - Each instance has a log of its own in memory.
//!
//! `benches/README.md` has measured rates, and the command to measure yours (`cargo bench
//! --all-features --bench redis`).
//!
//! # Before the ceiling
//!
//! In this order:
//!
//! 1. Send less. An event that names the changed thing is smaller than the thing. Publish values
//!    that change often at a fixed pace, and [conflate](crate::Event::conflate) them.
//! 2. Split by subject. A hub for each kind of traffic, such as `shop:prices` and `shop:orders`,
//!    each with a prefix of its own, and a route of its own: a page opens the streams that it
//!    needs.
//! 3. Split by tenant. Choose the prefix by a hash of the tenant, and route a tenant's requests to
//!    the instances of its prefix. The prefixes may be on different Redis nodes.
//!
//! Two prefixes have no common order, and ids of one prefix mean nothing to the other.
//!
//! # Another engine
//!
//! [`backplane`](crate::backplane) is the port. An engine must put entries into one order, give
//! each an increasing id, and deliver all of them to every instance.
//!
//! # Limits
//!
//! - No sticky sessions are needed, and none hurt.
//! - A client that is between two instances when a command is sent can be missed: the handler must
//!   decide again when the client returns.
//! - Give all instances the same [`Retain`](crate::Retain). Otherwise the replay of a client
//!   depends on the instance.
