//! Limits and refusals: bounds on clients and memory, and answers that bring a browser back.
//!
//! A hub without limits lets everybody in. Set at least the limits of a user, so that one script
//! cannot take all places:
//!
//! ```
//! use sse_hub::{Hub, Limits, ManualTimer, RefusalStyle, Retain};
//!
//! let hub = Hub::builder(ManualTimer::new())
//!     .limits(Limits::default().clients(50_000).per_user(20).per_session(10).replay(1_000))
//!     .retain(Retain::default().events(10_000).bytes(32 << 20))
//!     .refusals(RefusalStyle::Stream)
//!     .build()?;
//! # Ok::<(), sse_hub::ConfigError>(())
//! ```
//!
//! # The bounds
//!
//! | bounds | setting | default |
//! |---|---|---|
//! | clients in total, of a user, of a session | [`Limits`](crate::Limits) | none |
//! | topics and selected types of a client, length of names | [`Limits`](crate::Limits) | 64, 64, 256 bytes |
//! | a replay | [`Limits::replay`](crate::Limits::replay) | none |
//! | clients that are away, with joined topics | [`Limits::remembered`](crate::Limits::remembered) | 4,096 |
//! | events in memory | [`Retain`](crate::Retain) | 4,096 events, 16 MiB, 5 minutes |
//! | values beyond these limits | [`Retain::keep_latest`](crate::Retain::keep_latest) | off; 16 MiB if on |
//! | runs, and their events | [`RunLimits`](crate::RunLimits) | 10,000 runs, 8 MiB each, 64 MiB together, 10 minutes after the end |
//! | older events that are read back from a backplane | [`History`](crate::History) | 16,384 events, 16 MiB |
//! | pages that wait for older events, [`Hub::read_with_history`](crate::Hub::read_with_history) | fixed | 4,096 |
//! | names of an audience | [`Audience::MAX_NAMES`](crate::Audience::MAX_NAMES) | 10,000 |
//! | connections, with direct serving | [`max_connections`](crate::serve::Serve::max_connections) | none |
//! | open files of the process | the system's `LimitNOFILE` or `ulimit -n` | often 1,024: set more than your clients |
//!
//! [`HubBuilder`](crate::HubBuilder) says how much memory a client takes, and `Retain` has the
//! equation of the log.
//!
//! # Refusals
//!
//! A browser's `EventSource` never comes back after a status other than 200. So a client that may
//! try again gets, by default, a stream of a single event with status 200:
//!
//! ```text
//! event: hub:refused
//! retry: 4127
//! data: {"reason":"user-full"}
//! ```
//!
//! | reason | cause | the client |
//! |---|---|---|
//! | `full`, `user-full`, `session-full` | a limit on clients | returns after `retry` |
//! | `draining`, `closed` | this instance [ends](super::shutdown) | returns, to another instance |
//! | `unavailable` | the system has no random bytes for a client id | returns |
//! | status `400` | an invalid name, or too many topics or types | must not return |
//! | status `404` | no [run](super::runs) has this name | must not return |
//! | status `204` | the runs have ended, and the client has every event | must not return |
//!
//! [`RefusalStyle::Status`](crate::RefusalStyle::Status) answers `503`, or `429` at a limit of the
//! user or the session, with `retry-after`: for clients that handle statuses, such as the [browser
//! client](super::browser) and mobile applications.
//!
//! # The newest tab wins
//!
//! [`Limits::displace_oldest`](crate::Limits::displace_oldest) ends the oldest client of the user
//! in place of a refusal. The browser client of this project does not return after `displaced`. A
//! native `EventSource` does: two tabs would displace each other for ever.
//!
//! # Limits of the limits
//!
//! - Limits count the clients of one instance.
//! - A client that reconnects before the hub notices the end of its old connection counts twice:
//!   leave room, or let the page send its [client id](super::resuming#events-for-one-tab).
//! - Requests that fail in your handler never reach the hub. Limit them by rate, as all requests.
