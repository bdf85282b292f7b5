//! Targeting: reach a tab, a user, a session, a topic, or a combination of these.
//!
//! The handler of the stream says which names a client holds. A publisher names an
//! [`Audience`](crate::Audience), and the hub finds the clients. The cost follows the clients of
//! the audience, not the connected clients.
//!
//! | name | set by | stands for | survives a reconnect |
//! |---|---|---|---|
//! | client | the hub, in `hub:open` | one open stream, such as a tab | if the page sends the id again |
//! | user | [`Subscriber::user`](crate::Subscriber::user) | all tabs and devices of a person | yes |
//! | session | [`Subscriber::session`](crate::Subscriber::session) | the tabs of a login | yes |
//! | topic | [`Subscriber::topic`](crate::Subscriber::topic), [`Hub::join`](crate::Hub::join) | a subject that clients follow | if set by the handler, or if the page sends its client id again |
//!
//! ```
//! use sse_hub::{Audience, ClientId, Event, Hub, ManualTimer, PublishError, Subscriber};
//!
//! /// Tells all pages that show the order, except the tab that wrote the comment.
//! fn commented(
//!     hub: &Hub,
//!     author: u64,
//!     tab: ClientId,
//!     order: u64,
//!     text: &str,
//! ) -> Result<usize, PublishError> {
//!     // The request names the tab. The user makes sure that the tab is the author's.
//!     let own_tab = Audience::client(tab).and(Audience::user(author));
//!     let readers = Audience::topic(format!("order-{order}")).except(own_tab);
//!     Ok(hub.publish(readers, Event::new("comment").data(text))?.matched())
//! }
//!
//! let hub = Hub::builder(ManualTimer::new()).build()?;
//! let open = |user: u64| hub.subscribe(Subscriber::new().user(user).topic("order-17"));
//! let (author, reader) = (open(1)?, open(2)?);
//! assert_eq!(commented(&hub, 1, author.client_id(), 17, "Shipped")?, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Topics of open streams
//!
//! [`Hub::join`](crate::Hub::join) and [`Hub::leave`](crate::Hub::leave) change the topics of open
//! streams, also on other [instances](super::instances). The hub keeps joined topics for a client
//! that returns with its [client id](crate::Subscriber::client_id), as the same user and session.
//! Topics that every page of a user follows belong into the handler of the stream, which adds them
//! to the `Subscriber` of each request. [Rooms](super::rooms) has both.
//!
//! # Event types
//!
//! [`Subscriber::event_types`](crate::Subscriber::event_types) selects types, so that a client of a
//! busy topic receives only a part. Events of other types are not counted as missed.
//!
//! # Did the event reach anybody?
//!
//! A publish never fails because no client is connected: the hub keeps the event for clients that
//! return. [`Receipt::matched`](crate::Receipt::matched) counts the clients of this instance, and
//! [`Receipt::require_match`](crate::Receipt::require_match) makes an error of zero:
//!
//! ```
//! use sse_hub::{Event, Hub, ManualTimer};
//!
//! let hub = Hub::builder(ManualTimer::new()).build()?;
//! let sent = hub.send_to_user("42", Event::new("call").data("incoming"))?;
//! assert!(sent.require_match().is_err(), "no page is open: send an e-mail");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Limits
//!
//! - Names have no structure: there are no wildcards and no hierarchies. To reach all orders, let
//!   clients follow `orders` as well as `order-17`.
//! - An audience has at most [10,000 names](crate::Audience::MAX_NAMES). For more, use a topic.
//! - Gaps of `and` and `except` audiences are exact for the last 256 lost events. After that the
//!   hub may report a gap to a client that missed nothing.
//! - A client id from a request is not proof of anything: see
//!   [`authentication`](super::authentication).
