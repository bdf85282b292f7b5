//! Slow clients: a client that does not read delays no other client, and holds little memory.
//!
//! A publisher never waits. The hub keeps events only in its log, so a client that falls behind
//! costs its place in the log and a [window](crate::HubBuilder::window) of handles. A reader of a
//! text may hold a few small events, too: see [`RunLimits`](crate::RunLimits#memory). As the client
//! reads again, the stream continues from the log.
//!
//! | the client | happens | the client sees |
//! |---|---|---|
//! | reads too slowly for a burst | the stream reads the log | all events, later |
//! | stays behind for longer than the log reaches | events are lost to the client | `hub:gap`, and the events that are left |
//! | does not read at all for [a minute](crate::HubBuilder::stalled_after) | the hub forgets the client | the end of the connection; after a reconnect, its events |
//! | receives values that replace each other | [conflated](crate::Event::conflate) events skip old values | the newest value of each key |
//!
//! # Settings
//!
//! ```
//! use std::time::Duration;
//! use sse_hub::{Event, Hub, ManualTimer};
//!
//! let hub = Hub::builder(ManualTimer::new())
//!     .stalled_after(Duration::from_secs(30))
//!     // Ends the stream of a client that lost events, in place of `hub:gap` in the open stream.
//!     .end_lagging(true)
//!     .build()?;
//!
//! // A client that is behind receives the last price of each share only.
//! hub.send_to_topic("prices", Event::new("price").data("42.50").conflate("ACME"))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Subscriber::at_most_every`](crate::Subscriber::at_most_every) gives a client a pace on
//! purpose: at most one batch in a period, with the newest value of each key.
//!
//! # The connection of a client that does not read
//!
//! A server does not poll a stream while the connection is full, so the hub forgets the client, but
//! the connection stays with the server. A [watchdog](mod@crate::watchdog) sees that no byte moves,
//! and cuts the connection. [Direct serving](mod@crate::serve) includes a watchdog, and so does
//! `Watchdog::listen` for axum's server.
//!
//! Behind a proxy, the proxy reads as long as it has buffers: the hub sees a slow client late.
//!
//! # Count them
//!
//! | count | meaning |
//! |---|---|
//! | [`Stats::lagged`](crate::Stats::lagged) | streams that left the window and read the log: harmless, costs time |
//! | [`Stats::gaps`](crate::Stats::gaps) | reports of lost events: retain more, or send less |
//! | `stats.ended(`[`EndReason::Stalled`](crate::EndReason::Stalled)`)` | clients that did not read |
//! | [`Stats::delays`](crate::Stats::delays) | time from publish to read |
//!
//! # Limits
//!
//! - The hub notices a stalled client when events are published, clients connect or read the log,
//!   and other streams send heartbeats. A hub without any of these has nothing to free either.
//! - Conflation works within an audience and an event type: equal keys of different topics do not
//!   replace each other.
//! - A client that is behind by more than the log is told of the loss when it reads again, not
//!   before.
