//! Coming from axum's `Sse`, from a broadcast of your own, or from Mercure.
//!
//! # From `axum::response::sse`
//!
//! `Sse` encodes a stream for one client. If each stream belongs to one request, such as the answer
//! of a model, replace `Sse` by [`EventStream`](crate::EventStream): heartbeats, a final event and
//! errors for the page are included. If several clients receive the same events, use a hub.
//!
//! | axum | here |
//! |---|---|
//! | `Sse::new(stream)` | `EventStream::new(stream, TokioTimer::new())`, or [`Hub::subscribe`](crate::Hub::subscribe) |
//! | `.keep_alive(KeepAlive::default())` | on by default; [`Heartbeat`](crate::Heartbeat) |
//! | `Event::default().event("x").data("y")` | the same, or `Event::new("x").data("y")` |
//! | `Event::json_data(value)` | [`Event::json`](crate::Event::json) |
//! | `Event::id` | the hub issues ids; for an `EventStream`, [`Event::id`](crate::Event::id) |
//! | a panic for a line break in `event` or `id` | an error before any byte is sent |
//! | CRLF in data becomes two line breaks | one line break |
//!
//! # From a broadcast of your own
//!
//! A `tokio::sync::broadcast` with a task or a stream for each client becomes a hub:
//!
//! ```
//! use sse_hub::{Event, Hub, LastEventId, PublishError, Refused, Subscriber, Subscription};
//!
//! // let (sender, _) = broadcast::channel(1024);   ->  Hub::builder(timer).build()?
//! // sender.send(text).ok();
//! fn publish(hub: &Hub, text: &str) -> Result<(), PublishError> {
//!     hub.broadcast(Event::default().data(text))?;
//!     Ok(())
//! }
//!
//! // BroadcastStream::new(sender.subscribe()).filter_map(...)
//! fn events(hub: &Hub, last: LastEventId) -> Result<Subscription, Refused> {
//!     hub.subscribe(Subscriber::new().resume(last))
//! }
//! ```
//!
//! | in the broadcast | in the hub |
//! |---|---|
//! | `RecvError::Lagged` | the client reads the log; if that is not enough, `hub:gap` |
//! | a filter in each client's stream | an [audience](super::targeting): clients that are not addressed are not woken |
//! | a `HashMap<UserId, Sender>` behind a lock | [`send_to_user`](crate::Hub::send_to_user); a client that leaves is removed |
//! | `sender.receiver_count()` | [`Hub::count`](crate::Hub::count), [`Hub::stats`](crate::Hub::stats) |
//! | a reconnect begins anew | the stream [resumes](super::resuming) |
//! | dropping the sender ends all streams | [`Hub::drain`](crate::Hub::drain), [`Hub::close`](crate::Hub::close) |
//!
//! # From Mercure
//!
//! Mercure is a hub beside the service, with its own protocol. This hub is a part of the service:
//! there is no second deployment, and rights are Rust code in place of tokens with topic selectors.
//!
//! | Mercure | here |
//! |---|---|
//! | `POST /.well-known/mercure` by the publisher | a call of [`Hub::publish`](crate::Hub::publish); from other programs a [publisher](super::instances#programs-without-clients) |
//! | topics as URLs, with URI templates | topics as exact names; no patterns |
//! | private updates, `mercure.subscribe` in a JWT | the handler decides the user and the topics of each client |
//! | `topic` parameters of the request | your handler reads and checks them, then [`Subscriber::topics`](crate::Subscriber::topics) |
//! | history of the transport, `lastEventID` | [`Retain`](crate::Retain), and [Redis](super::instances) for a longer history; the header, or the parameters `lastEventId`, `last_event_id` and `last-event-id` |
//! | the subscription API | [presence](crate::Presence) for users, [`Hub::clients`](crate::Hub::clients) |
//! | several nodes, in the paid editions | the feature `redis` |
//!
//! Pages keep `EventSource`. Change the URL, and listen for event types in place of `message` where
//! the publisher sets a type. To move step by step, publish to both hubs for as long as old pages
//! are open.
//!
//! # You may not need a hub
//!
//! - Messages from the page to the server: plain requests do. Many small ones a second, such as the
//!   moves of a game, call for WebSocket.
//! - A single page that asks once a minute: polling is simpler.
//! - Delivery to closed browsers: web push. A hub tells you that [no page is
//!   open](super::targeting#did-the-event-reach-anybody).
