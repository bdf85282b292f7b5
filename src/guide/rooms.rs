//! Rooms: pages join and leave topics while their stream is open, and begin with the last events.
//!
//! A room is a topic. A page that opens a room asks your server by a request, your server decides,
//! and the open stream of the page follows the topic from then on. The page needs one stream for
//! all its rooms.
//!
//! | to | use |
//! |---|---|
//! | let a page join or leave by a request | [`change_topics`](crate::http::change_topics), or [`Hub::follow`](crate::Hub::follow) without HTTP |
//! | let the application decide | [`Hub::join`](crate::Hub::join), [`Hub::leave`](crate::Hub::leave), for any audience |
//! | begin with the last events | `last` of the request, or [`Hub::join_with_last`](crate::Hub::join_with_last) |
//! | follow a room from the first frame on | [`Subscriber::topic`](crate::Subscriber::topic) in the handler of the stream |
//! | read the last events without a stream | [`Hub::recent`](crate::Hub::recent) |
//! | read on from a position without a stream | [`Hub::read`](crate::Hub::read); with a backplane [`Hub::read_with_history`](crate::Hub::read_with_history) |
//! | list the users in a room, and tell changes | [`Hub::users_in`](crate::Hub::users_in), [`Hub::watch_topics`](crate::Hub::watch_topics) |
//! | let only members publish | [`Hub::is_member`](crate::Hub::is_member) |
//! | remove a user at once | [`Hub::leave`](crate::Hub::leave) with the audience of the user |
//!
//! # The request of a page
//!
//! The page names its client id, from `hub:open`. `change_topics` checks that the client is
//! connected as the user and the session of the request, so a page cannot move the stream of
//! somebody else:
//!
#![cfg_attr(all(feature = "axum-serve", feature = "tokio"), doc = "```")]
#![cfg_attr(not(all(feature = "axum-serve", feature = "tokio")), doc = "```ignore")]
//! use std::collections::HashMap;
//! use axum::Router;
//! use axum::extract::{Query, State};
//! use axum::http::StatusCode;
//! use axum::http::request::Parts;
//! use axum::routing::{get, post};
//! use sse_hub::http::{ErrorResponse, change_topics};
//! use sse_hub::{Audience, Event, Hub, LastEventId, Refused, Subscriber, Subscription};
//!
//! # use axum::extract::FromRequestParts;
//! # #[derive(Clone, Copy)]
//! # struct User(u64);
//! # impl<S: Sync> FromRequestParts<S> for User {
//! #     type Rejection = StatusCode;
//! #     async fn from_request_parts(
//! #         _: &mut axum::http::request::Parts,
//! #         _: &S,
//! #     ) -> Result<Self, StatusCode> {
//! #         Ok(User(42))
//! #     }
//! # }
//! # impl User { fn may_enter(self, room: &str) -> bool { room.starts_with("room-") } }
//! /// `GET /events?client=...`. `User` is your extractor of the verified user. A page that returns
//! /// sends its client id, and the hub gives the page its topics back.
//! async fn events(
//!     user: User,
//!     State(hub): State<Hub>,
//!     Query(query): Query<HashMap<String, String>>,
//!     last: LastEventId,
//! ) -> Result<Subscription, Refused> {
//!     let mut who = Subscriber::new().user(user.0).resume(last);
//!     if let Some(client) = query.get("client").and_then(|id| id.parse().ok()) {
//!         who = who.client_id(client);
//!     }
//!     hub.subscribe(who)
//! }
//!
//! /// `POST /topics?client=...&topic=room-7&last=20`, and `DELETE` to leave.
//! async fn topics(
//!     user: User,
//!     State(hub): State<Hub>,
//!     parts: Parts,
//! ) -> Result<StatusCode, ErrorResponse> {
//!     let who = Subscriber::new().user(user.0); // The same names as in `events`.
//!     change_topics(&hub, &who, &parts, |room| user.may_enter(room))
//! }
//!
//! /// A user that loses the right to a room leaves on all pages, before the message.
//! fn expel(hub: &Hub, user: u64, room: &str) -> Result<(), Box<dyn std::error::Error>> {
//!     hub.leave(Audience::user(user), room)?;
//!     hub.send_to_topic(room, Event::new("left").data(user.to_string()))?;
//!     Ok(())
//! }
//!
//! fn app(hub: Hub) -> Router {
//!     let topics = post(topics).delete(topics);
//!     Router::new().route("/events", get(events)).route("/topics", topics).with_state(hub)
//! }
//! # let hub = Hub::builder(sse_hub::ManualTimer::new()).build()?;
//! # expel(&hub, 42, "room-7")?;
//! # let _ = app(hub);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The page
//!
//! The browser client sends these requests. The url function sends the client id with each request
//! for the stream, so the hub keeps the topics, and the stream resumes in the rooms, too. If the
//! hub could not keep the topics, `hub:open` does not say `resumed`, and the client asks for its
//! topics again:
//!
//! ```text
//! const url = ({ status }) => status.client ? `/events?client=${status.client}` : "/events";
//! const client = new SSEClient(url, { topics: "/topics" });
//! client.on("hub:open", (open) => open.json().resumed || clearRoom()); // `last` brings the lines.
//! client.on("line", (line) => append(line.json()));
//! client.open();
//! await client.join("room-7", { last: 20 });
//! client.leave("room-7");
//! ```
//!
//! # Joining with the last events
//!
//! The events are those that a follower of the room would have received. Events that are older than
//! the client's position come without an id, because an id would move the client back: after a
//! reconnect the browser would receive everything since that id again. So a client that is cut off
//! before it has read them does not get them again, and the page clears its list when it joins.
//!
//! # The members of a room
//!
//! With [`Presence::topics`](crate::Presence::topics), the hub knows the users in each room, on all
//! instances. A user with two tabs in a room is one member, and a page that reloads stays a member
//! for the grace period. A page that leaves the room is no member from then on.
//!
//! ```
//! use sse_hub::{Hub, ManualTimer, MembersError, Presence, Subscriber};
//!
//! /// `GET /rooms/{room}/members`, for a user that may enter the room.
//! fn members(hub: &Hub, room: &str) -> Result<Vec<String>, MembersError> {
//!     let members = hub.users_in(room)?.into_iter();
//!     Ok(members.map(|member| member.user.to_string()).collect())
//! }
//!
//! // A prefix selects the rooms. Other topics cost nothing.
//! let presence = Presence::default().topics(&["room-"]);
//! let hub = Hub::builder(ManualTimer::new()).presence(presence).build()?;
//! let tab = hub.subscribe(Subscriber::new().user(42))?;
//! hub.join(tab.client_id(), "room-7")?;
//! assert_eq!(members(&hub, "room-7")?, ["42"]);
//! hub.leave(tab.client_id(), "room-7")?;
//! assert!(members(&hub, "room-7")?.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Hub::watch_topics`](crate::Hub::watch_topics) reports each change: a task publishes the
//! changes to the room. The page joins the room first and then loads the list, so that no change is
//! lost in between.
//!
//! # Limits
//!
//! - A hub without a record of the client cannot keep the topics: after a restart, or for a native
//!   `EventSource`, which returns as another client. Until the repeated request, the page then
//!   receives no events of the room. The `last` of the request brings these, as far as the number
//!   reaches. If that is not enough, let the handler of the stream add the room with
//!   `Subscriber::topic`: then the stream resumes without a hole.
//! - A client has at most [`Limits::topics`](crate::Limits::topics) topics. More is a `400`.
//! - With several instances, a request can reach an instance other than that of the stream. The
//!   join takes effect everywhere, and the answer does not tell whether the client exists.
//! - A room with a history needs a database. The log is bounded, and the last events may have left
//!   it. With a backplane, `Hub::read_with_history` reaches back further, within
//!   [`History`](crate::History).
