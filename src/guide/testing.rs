//! Testing your own code: read a stream like a page, and let hours pass in a moment.
//!
//! A hub needs no runtime and no network. [`ManualTimer`](crate::ManualTimer) is a clock that a
//! test advances. The feature `testing` adds the kit [`sse_hub::testing`](mod@crate::testing): a
//! [`Reader`](crate::testing::Reader) returns the events of a stream, and
//! [`Instances`](crate::testing::Instances) are several hubs in one process.
//!
//! ```toml
//! [dev-dependencies]
//! sse-hub = { version = "0.1", features = ["testing"] }
//! ```
//!
#![cfg_attr(feature = "testing", doc = "```")]
#![cfg_attr(not(feature = "testing"), doc = "```ignore")]
//! use sse_hub::testing::Reader;
//! use sse_hub::{Audience, Event, Hub, ManualTimer, PublishError, Subscriber};
//!
//! // The code under test takes the hub as an argument.
//! fn ship(hub: &Hub, order: u64) -> Result<(), PublishError> {
//!     let followers = Audience::topic(format!("order-{order}"));
//!     hub.publish(followers, Event::new("shipped").data("today"))?;
//!     Ok(())
//! }
//!
//! let hub = Hub::builder(ManualTimer::new()).build()?;
//! let mut follower = Reader::new(hub.subscribe(Subscriber::new().topic("order-17"))?);
//! let mut stranger = Reader::new(hub.subscribe(Subscriber::new().topic("order-18"))?);
//! ship(&hub, 17)?;
//! assert_eq!(follower.all_data(), ["today"]);
//! assert_eq!(stranger.all_data(), [""; 0]);
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
//! # A handler
//!
//! Call the router without a server, with `oneshot` of the crate `tower`, and read the response.
//! [`until`](crate::testing::Reader::until) waits, and fails the test after ten seconds with the
//! frames that came instead.
//!
#![cfg_attr(all(feature = "axum", feature = "testing"), doc = "```")]
#![cfg_attr(not(all(feature = "axum", feature = "testing")), doc = "```ignore")]
//! use axum::body::Body;
//! use axum::http::Request;
//! use axum::{Router, extract::State, routing::get};
//! use sse_hub::testing::Reader;
//! use sse_hub::{Event, Hub, LastEventId, ManualTimer, Refused, Subscriber, Subscription};
//! use tower::ServiceExt as _;
//!
//! async fn events(State(hub): State<Hub>, last: LastEventId) -> Result<Subscription, Refused> {
//!     hub.subscribe(Subscriber::new().user("42").resume(last))
//! }
//!
//! # futures_executor::block_on(async {
//! let hub = Hub::builder(ManualTimer::new()).build()?;
//! let app = Router::new().route("/events", get(events)).with_state(hub.clone());
//!
//! let first = Request::get("/events").body(Body::empty())?;
//! let mut tab = Reader::of_response(app.clone().oneshot(first).await?);
//! hub.send_to_user("42", Event::new("paid").data("1"))?;
//! let paid = tab.until("paid").await;
//! hub.send_to_user("42", Event::new("paid").data("2"))?;
//!
//! let again = Request::get("/events").header("last-event-id", paid.id.unwrap().to_string());
//! let mut tab = Reader::of_response(app.oneshot(again.body(Body::empty())?).await?);
//! assert!(tab.until("hub:open").await.is_resumed());
//! assert_eq!(tab.until("paid").await.data, "2");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # A lost connection, and a restart
//!
//! [`reconnect`](crate::testing::Reader::reconnect) comes back as a page does, with the last id and
//! the client id.
//!
#![cfg_attr(feature = "testing", doc = "```")]
#![cfg_attr(not(feature = "testing"), doc = "```ignore")]
//! use sse_hub::testing::Reader;
//! use sse_hub::{Event, Hub, ManualTimer, Subscriber};
//!
//! let hub = || Hub::builder(ManualTimer::new()).build();
//! let ann = || Subscriber::new().user("ann");
//! let before = hub()?;
//! let mut tab = Reader::new(before.subscribe(ann())?);
//! tab.cut();
//! before.send_to_user("ann", Event::new("paid").data("1"))?;
//! tab.reconnect(&before, ann())?;
//! assert_eq!(tab.all_data(), ["1"]);
//!
//! // A new process does not know the events of the old: the page must fetch its state.
//! let restarted = hub()?;
//! tab.reconnect(&restarted, ann())?;
//! let [open, gap] = <[_; 2]>::try_from(tab.all_ready()).unwrap();
//! assert_eq!((gap.event.as_str(), gap.reason()), ("hub:gap", Some("evicted")));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A slow client
//!
//! A reader that the test does not call is a client that does not read:
//!
#![cfg_attr(feature = "testing", doc = "```")]
#![cfg_attr(not(feature = "testing"), doc = "```ignore")]
//! use std::time::Duration;
//! use sse_hub::testing::Reader;
//! use sse_hub::{Audience, Event, Hub, ManualTimer, Retain, Subscriber};
//!
//! let (timer, minute) = (ManualTimer::new(), Duration::from_secs(60));
//! let retain = Retain::default().events(2);
//! let hub = Hub::builder(timer.clone()).retain(retain).stalled_after(minute).build()?;
//! let mut tab = Reader::new(hub.subscribe(Subscriber::new())?);
//! for number in ["1", "2", "3"] {
//!     hub.broadcast(Event::new("n").data(number))?;
//! }
//! let [open, gap, two, three] = <[_; 4]>::try_from(tab.all_ready()).unwrap();
//! assert_eq!((gap.reason(), two.data.as_str()), (Some("evicted"), "2"));
//!
//! hub.broadcast(Event::new("n").data("4"))?;
//! timer.advance(minute);
//! hub.broadcast(Event::new("n").data("5"))?;
//! assert_eq!(hub.count(Audience::all()), 0);
//! assert!(tab.has_ended());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Several instances
//!
//! Entries reach all instances at once, until the test [holds](crate::testing::Instance::hold) an
//! instance, [cuts](crate::testing::Instance::cut) it off, or
//! [kills](crate::testing::Instance::kill) it.
//!
#![cfg_attr(feature = "testing", doc = "```")]
#![cfg_attr(not(feature = "testing"), doc = "```ignore")]
//! use sse_hub::testing::{Instances, Reader};
//! use sse_hub::{Event, Hub, ManualTimer, Subscriber};
//!
//! let instances = Instances::new();
//! let here = instances.start(Hub::builder(ManualTimer::new()))?;
//! let there = instances.start(Hub::builder(ManualTimer::new()))?;
//! let mut tab = Reader::new(there.hub().subscribe(Subscriber::new().topic("news"))?);
//!
//! // An outage: events wait, and come when the engine is back.
//! here.cut();
//! here.hub().send_to_topic("news", Event::new("article").data("1"))?;
//! assert!(here.hub().stats().degraded);
//! assert_eq!(tab.all_data(), [""; 0]);
//! here.release();
//! assert_eq!(tab.all_data(), ["1"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Time
//!
//! Heartbeats, deadlines, grace periods and drains follow the timer:
//!
#![cfg_attr(feature = "testing", doc = "```")]
#![cfg_attr(not(feature = "testing"), doc = "```ignore")]
//! use std::time::Duration;
//! use sse_hub::testing::Reader;
//! use sse_hub::{Hub, ManualTimer, Subscriber};
//!
//! let timer = ManualTimer::new();
//! let hub = Hub::builder(timer.clone()).build()?;
//! let hour = Duration::from_secs(3600);
//! let mut tab = Reader::new(hub.subscribe(Subscriber::new().expires_in(hour))?);
//! assert_eq!(tab.all_ready()[0].event, "hub:open");
//!
//! timer.advance(hour);
//! assert_eq!(tab.all_ready()[0].reason(), Some("expired"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Situations worth a test
//!
//! | situation | how |
//! |---|---|
//! | a reconnect | [`Reader::cut`](crate::testing::Reader::cut), publish, [`reconnect`](crate::testing::Reader::reconnect) |
//! | a gap | [`Retain::events(1)`](crate::Retain::events), two events in the meantime |
//! | a refusal | [`Limits::clients(1)`](crate::Limits::clients), two clients |
//! | a logout during a subscription | call both in the bad order |
//! | a slow client | do not read, and advance the timer by [`stalled_after`](crate::HubBuilder::stalled_after) |
//! | a restart | [`reconnect`](crate::testing::Reader::reconnect) to a new hub |
//! | a backplane that is full | [`max_unsent`](crate::testing::Instances::max_unsent), [`cut`](crate::testing::Instance::cut) |
//! | an instance that is behind | [`hold`](crate::testing::Instance::hold), publish on another, connect |
//! | an open stream in a whole server | read until the frame arrives, with a deadline: never sleep |
//!
//! # Limits
//!
//! - The kit panics, as `assert!` does, and is for tests only. A reader is strict: a line that the
//!   encoder cannot write fails the test.
//! - With [`ManualTimer`](crate::ManualTimer), a task that awaits a sleep of the hub waits until a
//!   test advances the clock. `until` and `next` limit their wait by real time.
//! - The entries of [`Instances`](crate::testing::Instances) have no age, and the order has no
//!   limit. For faults of Redis itself, test with a Redis.
