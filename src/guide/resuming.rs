//! Resuming: a client that reconnects receives every event since its last, or hears of the loss.
//!
//! The hub gives each event an id. A browser sends the last id that it received as `Last-Event-ID`
//! when it reconnects. The handler passes the id to the hub, and the hub continues there:
//!
//! ```
//! use futures_util::{FutureExt as _, StreamExt as _};
//! use sse_hub::{Event, Hub, LastEventId, ManualTimer, Refused, Subscriber, Subscription};
//!
//! fn events(hub: &Hub, user: u64, last: LastEventId) -> Result<Subscription, Refused> {
//!     hub.subscribe(Subscriber::new().user(user).resume(last))
//! }
//!
//! # fn read(mut stream: Subscription) -> Result<String, std::string::FromUtf8Error> {
//! #     let items = std::iter::from_fn(|| stream.next().now_or_never().flatten());
//! #     String::from_utf8(items.flat_map(Vec::from).collect())
//! # }
//! let hub = Hub::builder(ManualTimer::new()).build()?;
//! let tab = events(&hub, 42, LastEventId::none())?;
//! let position = tab.position().to_string();
//! drop(tab); // The connection is lost.
//!
//! hub.send_to_user(42, Event::new("paid").data("order 17"))?;
//! let text = read(events(&hub, 42, LastEventId::from(position.as_str()))?)?;
//! assert!(text.contains("\"resumed\":true") && text.contains("data: order 17\n"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - No event is lost or repeated where the replay and the live events meet.
//! - The identity of the *new* connection decides which events are replayed. A user that lost a
//!   right does not receive events of the past either.
//! - The position is right from the first frame: `hub:open` carries an id.
//!
//! # Gaps
//!
//! The hub retains a bounded log. If events for a client left the log, `hub:gap` says so before the
//! next event:
//!
//! | reason | cause |
//! |---|---|
//! | `evicted` | events for this client left the log |
//! | `unknown` | the id is malformed, or of another hub |
//! | `capped` | the replay would exceed [`Limits::replay`](crate::Limits::replay): the newest events follow |
//! | `reset` | the order of the [backplane](super::instances) was replaced |
//!
//! The page then fetches the state again. With `"healed": true` a [snapshot](super::snapshots)
//! follows, and the page must not fetch. The hub may report a gap that is not needed; it never
//! leaves out a gap. `hub:open` says `"resumed": false` on a first connection and after a gap.
//!
//! ```text
//! stream.addEventListener("hub:gap", (gap) => JSON.parse(gap.data).healed || fetchOrders());
//! ```
//!
//! # How long must the log reach?
//!
//! For as long as a client is usually away: a lost connection returns within seconds, a laptop that
//! sleeps after hours. Retain minutes, and let the page fetch the state after a longer absence.
//!
//! ```
//! use std::time::Duration;
//! use sse_hub::{Hub, ManualTimer, Retain};
//!
//! let retain = Retain::default()
//!     .events(20_000)
//!     .bytes(32 << 20)
//!     .age(Duration::from_secs(600))
//!     .per_topic(1_000); // A busy topic does not evict the events of the others.
//! let hub = Hub::builder(ManualTimer::new()).retain(retain).build()?;
//! # Ok::<(), sse_hub::ConfigError>(())
//! ```
//!
//! [`Retain`](crate::Retain) has the equation of the memory. Compare
//! [`retained`](crate::Stats::retained) with the limit, and watch the count of
//! [gaps](super::production).
//!
//! # Without a stream
//!
//! A webhook, a long poll or a server that renders reads pages, judged as a stream of that client
//! would be. Each page says where the next begins, and whether events are missing:
//!
//! | the handler | use | events that left the log |
//! |---|---|---|
//! | needs the page now | [`Hub::read`](crate::Hub::read) | [`truncated`](crate::Page::truncated) |
//! | can wait for the [backplane](super::instances) | [`Hub::read_with_history`](crate::Hub::read_with_history) | are brought back, within [`History`](crate::History) |
//!
//! # Events for one tab
//!
//! A native `EventSource` gets a new client id with each connection, so events for the old id are
//! gone. Address the session or the user, or let the page send its id, and pass the id to
//! [`Subscriber::client_id`](crate::Subscriber::client_id), as [the browser's side](super::browser)
//! shows.
//!
//! # Clients for which nothing is published
//!
//! Such a client keeps the id of its last event, while the log moves on. The hub remembers which
//! events it evicted, so the answer stays exact for a long time, but not for ever. With
//! [`Heartbeat::position`](crate::Heartbeat::position), each heartbeat carries the current
//! position, and the client comes back to that.
//!
//! # Limits
//!
//! - After a restart of a process without a backplane, all ids are old. Every client that had an id
//!   gets a gap, and then the events of the new process. Over [Redis](super::instances) clients
//!   resume.
//! - A browser waits for the `retry:` of `hub:open` between attempts: about three seconds,
//!   different for each client. [`HubBuilder::retry`](crate::HubBuilder::retry) sets the delay.
//! - A client that cannot keep an id, such as a script with `curl`, starts anew each time.
