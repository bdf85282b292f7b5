//! Snapshots: a page that shows state needs the state, and then its changes, without a hole
//! between.
//!
//! | the state | use | the page |
//! |---|---|---|
//! | is small, and the stream may carry it | [a snapshot in the stream](#in-the-stream) | needs no other request |
//! | comes from an endpoint that exists | [a position with the state](#beside-the-stream) | drops events up to the position |
//! | *is* the last events, such as lines of a log | [the last events](#the-last-events) | shows them |
//! | *is* the newest value of each key, such as prices | [the values](#the-values) | replaces each value |
//! | is rendered by the server | [`Hub::read`](crate::Hub::read) | opens its stream at the page's position |
//!
//! # In the stream
//!
//! Subscribe first, and then read the state. The hub holds the changes in the meantime, and the
//! client receives the snapshot before them:
//!
//! ```
//! use sse_hub::{Event, Hub, LastEventId, Subscriber, Subscription};
//!
//! # async fn read_orders() -> Result<String, std::io::Error> { Ok("[17, 18]".into()) }
//! async fn orders(
//!     hub: &Hub,
//!     last: LastEventId,
//! ) -> Result<Subscription, Box<dyn std::error::Error>> {
//!     let stream = hub.subscribe(Subscriber::new().topic("orders").resume(last))?;
//!     if stream.is_resumed() {
//!         return Ok(stream); // The client has the state, and receives the changes since.
//!     }
//!     let orders = read_orders().await?;
//!     Ok(stream.with_snapshot([Event::new("orders").data(orders)])?)
//! }
//! ```
//!
//! In a handler, [`ErrorResponse`](crate::http::ErrorResponse) takes both errors.
//!
//! A change that was made between the two steps is in the snapshot and comes once more as an event:
//! let changes carry the new value, not a difference. If the client missed events, the `hub:gap`
//! before the snapshot says `"healed": true`.
//!
//! For thousands of rows, [`with_snapshot_stream`](crate::Subscription::with_snapshot_stream) takes
//! a stream, such as the rows of a query, and polls it only as fast as the client reads.
//!
//! # Beside the stream
//!
//! Take the position first, then read the state, and answer with both. A page that has opened its
//! stream before drops the events with an id up to the position:
//!
//! ```
//! use sse_hub::{Hub, ManualTimer};
//!
//! # fn read_orders() -> &'static str { "[17,18]" }
//! /// The answer of `GET /orders`.
//! fn orders(hub: &Hub) -> String {
//!     let position = hub.position(); // Before the read: the state has every change up to here.
//!     let orders = read_orders();
//!     format!(r#"{{"orders":{orders},"position":"{position}"}}"#)
//! }
//! # let hub = Hub::builder(ManualTimer::new()).build()?;
//! # assert!(orders(&hub).starts_with(r#"{"orders":[17,18],"position":""#));
//! # Ok::<(), sse_hub::ConfigError>(())
//! ```
//!
//! This is correct only if each change is written before its event is published. Ids compare as two
//! numbers, not as text: `9-1` is before `10-0`.
//!
//! # The last events
//!
//! [`Subscriber::replay_last`](crate::Subscriber::replay_last) begins a first connection with the
//! last events that the client would have received, and
//! [`Hub::join_with_last`](crate::Hub::join_with_last) does the same when a client joins a topic.
//!
//! # The values
//!
//! If the state is a set of values that replace each other, such as prices, give the events a
//! [conflation key](crate::Event::conflate). [`Retain::keep_latest`](crate::Retain::keep_latest)
//! keeps the newest event of each key, and [`Subscriber::latest`](crate::Subscriber::latest) begins
//! a first connection with these: see the [dashboard](super::cookbook::dashboard).
//!
//! # Limits
//!
//! - A stream begins with a snapshot, or with the last events or the values. Both is an error.
//! - A snapshot is not retained. A client that is cut off before the whole snapshot was sent gets a
//!   gap and the next snapshot.
//! - The hub does not know later losses: only the gap directly before a snapshot is healed.
//! - A snapshot that takes longer than the log reaches is followed by a gap.
//! - Each of many clients that return together reads a snapshot of its own from your database. Put
//!   large state behind a cacheable request, with a position.
