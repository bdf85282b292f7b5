//! Testing your own code: read a stream like a page, and let hours pass in a moment.
//!
//! A hub needs no runtime and no network. [`ManualTimer`](crate::ManualTimer) is a clock that a
//! test advances, and a [`Subscription`](crate::Subscription) is a stream that a test reads.
//!
//! ```
//! use futures_util::{FutureExt as _, StreamExt as _};
//! use sse_hub::{Audience, Event, Hub, ManualTimer, PublishError, Subscriber, Subscription};
//!
//! // The code under test takes the hub as an argument.
//! fn ship(hub: &Hub, order: u64) -> Result<(), PublishError> {
//!     let followers = Audience::topic(format!("order-{order}"));
//!     hub.publish(followers, Event::new("shipped").data("today"))?;
//!     Ok(())
//! }
//!
//! /// Returns the types and the data of all events that are ready.
//! fn read(stream: &mut Subscription) -> Vec<(String, String)> {
//!     let mut events = Vec::new();
//!     while let Some(Some(item)) = stream.next().now_or_never() {
//!         let text = String::from_utf8(item.to_vec()).unwrap();
//!         for frame in text.split_terminator("\n\n") {
//!             let field = |name| frame.lines().find_map(|line| line.strip_prefix(name));
//!             if let Some(event) = field("event: ").filter(|event| !event.starts_with("hub:")) {
//!                 events.push((event.to_owned(), field("data: ").unwrap_or_default().to_owned()));
//!             }
//!         }
//!     }
//!     events
//! }
//!
//! let hub = Hub::builder(ManualTimer::new()).build()?;
//! let mut follower = hub.subscribe(Subscriber::new().user(1).topic("order-17"))?;
//! let mut stranger = hub.subscribe(Subscriber::new().user(2).topic("order-18"))?;
//! ship(&hub, 17)?;
//! assert_eq!(read(&mut follower), [("shipped".to_owned(), "today".to_owned())]);
//! assert_eq!(read(&mut stranger), []);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Without a reader
//!
//! To check only *that* an event was published, read the log: [`recent`](crate::Hub::recent) for an
//! audience, [`recent_of`](crate::Hub::recent_of) for a type.
//!
//! ```
//! use sse_hub::{Event, Hub, ManualTimer};
//!
//! let hub = Hub::builder(ManualTimer::new()).build()?;
//! hub.send_to_user(42, Event::new("paid").data("17"))?;
//! assert_eq!(hub.recent_of("paid", 10)?[0].data, "17");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Time
//!
//! Heartbeats, deadlines, grace periods and drains follow the timer:
//!
//! ```
//! use std::time::Duration;
//! use futures_util::{FutureExt as _, StreamExt as _};
//! use sse_hub::{Hub, ManualTimer, Subscriber};
//!
//! let timer = ManualTimer::new();
//! let hub = Hub::builder(timer.clone()).build()?;
//! let hour = Duration::from_secs(3600);
//! let mut stream = hub.subscribe(Subscriber::new().expires_in(hour))?;
//! stream.next().now_or_never().expect("`hub:open` is ready at once");
//!
//! timer.advance(hour);
//! let end = stream.next().now_or_never().flatten().unwrap();
//! assert!(end.starts_with(b"event: hub:end\n"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Situations worth a test
//!
//! | situation | how |
//! |---|---|
//! | a reconnect | drop the subscription, publish, and subscribe with its [`position`](crate::Subscription::position) |
//! | a gap | [`Retain::events(1)`](crate::Retain::events), two events in the meantime |
//! | a refusal | [`Limits::clients(1)`](crate::Limits::clients), two clients |
//! | a logout during a subscription | call both in the bad order |
//! | a slow client | do not read, and advance the timer by [`stalled_after`](crate::HubBuilder::stalled_after) |
//! | two instances | two hubs on a list: `tests/backplane.rs` has such an engine |
//! | an open stream in a whole server | read until the frame arrives, with a deadline: never sleep |
//!
//! # Limits
//!
//! - An item of a stream can contain several frames, and a heartbeat is no frame: split at blank
//!   lines.
//! - Data of several lines is several `data:` fields. A parser for tests of such events must join
//!   them: use a crate such as `eventsource-stream`.
//! - With [`ManualTimer`](crate::ManualTimer), a task that awaits waits until a test advances the
//!   clock.
