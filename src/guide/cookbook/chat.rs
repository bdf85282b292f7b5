//! A chat: lines appear in all open pages of a room, in one order, and a page that was away
//! continues.
//!
//! The database has the history, the hub has the last minutes, and the ids of the hub join the two.
//! The page opens its stream for the room directly, so that the stream resumes without a hole. For
//! many rooms in one stream, and for the list of members, see [`rooms`](crate::guide::rooms).
//!
#![cfg_attr(all(feature = "http", feature = "json"), doc = "```")]
#![cfg_attr(not(all(feature = "http", feature = "json")), doc = "```ignore")]
//! use serde::Serialize;
//! use sse_hub::http::ErrorResponse;
//! use sse_hub::{
//!     Audience, Event, EventType, Hub, LastEventId, ManualTimer, Payload, PublishError, Subscriber,
//!     Subscription,
//! };
//!
//! # #[derive(Default)]
//! # struct Database(std::sync::Mutex<Vec<Line>>);
//! # impl Database {
//! #     fn insert(&self, room: u64, author: u64, text: &str, nonce: &str) -> Line {
//! #         let mut lines = self.0.lock().unwrap();
//! #         let number = lines.len() as u64;
//! #         lines.push(Line { number, author, text: text.into(), nonce: nonce.into() });
//! #         lines[number as usize].clone()
//! #     }
//! #     fn last(&self, room: u64, count: usize) -> Vec<Line> { self.0.lock().unwrap().clone() }
//! # }
//! #[derive(Clone, Serialize)]
//! struct Line {
//!     number: u64,
//!     author: u64,
//!     text: String,
//!     /// Chosen by the page that wrote the line, so that this page recognises its own line.
//!     nonce: String,
//! }
//!
//! impl Payload for Line {
//!     const TYPE: EventType = EventType::from_static("line");
//! }
//!
//! fn topic(room: u64) -> String {
//!     format!("room-{room}")
//! }
//!
//! /// `POST /rooms/{room}/lines`. Writes first, and publishes then.
//! fn say(
//!     hub: &Hub,
//!     db: &Database,
//!     room: u64,
//!     author: u64,
//!     text: &str,
//!     nonce: &str,
//! ) -> Result<(), ErrorResponse> {
//!     let line = db.insert(room, author, text, nonce);
//!     hub.send_to_topic(topic(room), Event::from_payload(&line)?)?;
//!     Ok(())
//! }
//!
//! /// `POST /rooms/{room}/typing`. The newest sign of each author replaces the older signs.
//! fn typing(hub: &Hub, room: u64, author: u64) -> Result<(), PublishError> {
//!     let others = Audience::topic(topic(room)).except(Audience::user(author));
//!     let sign = Event::new("typing").data(author.to_string());
//!     hub.publish(others, sign.conflate(author.to_string()))?;
//!     Ok(())
//! }
//!
//! /// `GET /rooms/{room}/events`, after the rights of the user were checked.
//! fn events(
//!     hub: &Hub,
//!     db: &Database,
//!     room: u64,
//!     user: u64,
//!     last: LastEventId,
//! ) -> Result<Subscription, ErrorResponse> {
//!     let who = Subscriber::new().user(user).topic(topic(room)).resume(last);
//!     let stream = hub.subscribe(who)?;
//!     if stream.is_resumed() {
//!         return Ok(stream);
//!     }
//!     // A first visit, or a gap: the last lines, and then the live lines.
//!     let lines = Event::new("lines").json(&db.last(room, 50))?;
//!     Ok(stream.with_snapshot([lines])?)
//! }
//! # let (hub, db) = (Hub::builder(ManualTimer::new()).build()?, Database::default());
//! # say(&hub, &db, 7, 1, "Hello", "a1").unwrap();
//! # let stream = events(&hub, &db, 7, 2, LastEventId::none()).unwrap();
//! # typing(&hub, 7, 1)?;
//! # assert_eq!(hub.recent(Audience::topic("room-7"), 9)?[0].event_type, "line");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The page
//!
//! ```text
//! const stream = new EventSource(`/rooms/${room}/events`);
//! stream.addEventListener("lines", (lines) => replaceAll(JSON.parse(lines.data)));
//! stream.addEventListener("line", (event) => {
//!   const line = JSON.parse(event.data);
//!   // A line can come in the snapshot and live; a line of this page is on the screen already.
//!   if (!pending.delete(line.nonce) && !has(line.number)) append(line);
//! });
//! stream.addEventListener("typing", (sign) => showTyping(sign.data)); // Hide after some seconds.
//! ```
//!
//! A gap needs no code: the stream then carries a new snapshot, and `lines` replaces the list.
//! Older lines come from a request, such as `GET /rooms/7/lines?before=17`.
//!
//! # Limits
//!
//! - Two lines that are written at the same time can be published in the other order than the
//!   database numbers them. Sort by `number` in the page.
//! - A sign of typing is an event of the log. Send one in some seconds, not one for each key.
//! - A user that is removed from a room must also be disconnected, or [leave](crate::Hub::leave)
//!   the topic: the check of the handler covers only the beginning.
