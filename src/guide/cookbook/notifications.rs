//! A notification centre: items of a user appear on all tabs and devices, and disappear everywhere
//! when one of them marks the items as read.
//!
//! The database is the truth. The hub tells open pages of changes, and a page that missed changes
//! fetches the list. Three rules make this correct:
//!
//! 1. Write first, publish then.
//! 2. Take the [position](crate::Hub::position) before reading the list.
//! 3. Events carry the new state (`unread: 3`), not the difference (`unread + 1`).
//!
#![cfg_attr(feature = "json", doc = "```")]
#![cfg_attr(not(feature = "json"), doc = "```ignore")]
//! use std::error::Error;
//! use serde::Serialize;
//! use sse_hub::{
//!     Event, EventType, Hub, LastEventId, ManualTimer, Payload, Refused, Subscriber, Subscription,
//! };
//!
//! # #[derive(Default)]
//! # struct Database(std::sync::Mutex<Vec<Notification>>);
//! # impl Database {
//! #     fn insert(&self, user: u64, title: &str) -> Notification {
//! #         let mut items = self.0.lock().unwrap();
//! #         let item = Notification { id: items.len() as u64, title: title.into() };
//! #         items.push(item.clone());
//! #         item
//! #     }
//! #     fn mark_read(&self, user: u64, up_to: u64) {
//! #         self.0.lock().unwrap().retain(|item| item.id > up_to);
//! #     }
//! #     fn unread(&self, user: u64) -> Vec<Notification> { self.0.lock().unwrap().clone() }
//! # }
//! #[derive(Clone, Serialize)]
//! struct Notification {
//!     id: u64,
//!     title: String,
//! }
//!
//! #[derive(Serialize)]
//! struct Unread {
//!     count: usize,
//! }
//!
//! impl Payload for Notification {
//!     const TYPE: EventType = EventType::from_static("notification");
//! }
//!
//! impl Payload for Unread {
//!     const TYPE: EventType = EventType::from_static("unread");
//! }
//!
//! /// From anywhere in the service: a job, a webhook, another request.
//! fn notify(hub: &Hub, db: &Database, user: u64, title: &str) -> Result<(), Box<dyn Error>> {
//!     let item = db.insert(user, title);
//!     let sent = hub.send_to_user(user, Event::from_payload(&item)?)?;
//!     count(hub, db, user)?;
//!     if sent.matched() == 0 {
//!         // No page is open on this instance: perhaps send an e-mail later.
//!     }
//!     Ok(())
//! }
//!
//! /// `POST /notifications/read`: the badge changes on all devices.
//! fn mark_read(hub: &Hub, db: &Database, user: u64, up_to: u64) -> Result<(), Box<dyn Error>> {
//!     db.mark_read(user, up_to);
//!     count(hub, db, user)
//! }
//!
//! /// A client that is behind needs only the newest count.
//! fn count(hub: &Hub, db: &Database, user: u64) -> Result<(), Box<dyn Error>> {
//!     let unread = Unread { count: db.unread(user).len() };
//!     hub.send_to_user(user, Event::from_payload(&unread)?.conflate("unread"))?;
//!     Ok(())
//! }
//!
//! /// `GET /notifications`: the list, and the position up to which events are contained in it.
//! fn list(hub: &Hub, db: &Database, user: u64) -> Result<String, Box<dyn Error>> {
//!     let position = hub.position();
//!     let items = serde_json::to_string(&db.unread(user))?;
//!     Ok(format!(r#"{{"items":{items},"position":"{position}"}}"#))
//! }
//!
//! /// `GET /events`.
//! fn events(hub: &Hub, user: u64, last: LastEventId) -> Result<Subscription, Refused> {
//!     hub.subscribe(Subscriber::new().user(user).resume(last))
//! }
//! # let (hub, db) = (Hub::builder(ManualTimer::new()).build()?, Database::default());
//! # let tab = events(&hub, 42, LastEventId::none())?;
//! # notify(&hub, &db, 42, "Your report is ready")?;
//! # mark_read(&hub, &db, 42, 0)?;
//! # assert_eq!(hub.recent_of("unread", 9)?.len(), 1);
//! # assert!(list(&hub, &db, 42)?.starts_with(r#"{"items":[],"position":""#));
//! # Ok::<(), Box<dyn Error>>(())
//! ```
//!
//! # The page
//!
//! The page opens the stream first, and then fetches the list. Events up to the position of the
//! list are in the list already:
//!
//! ```text
//! let position; // Unknown while a list is fetched: events wait.
//! let fetches = 0;
//! const waiting = [];
//!
//! async function fetchList() {
//!   const current = ++fetches;
//!   position = undefined;
//!   const list = await (await fetch("/notifications")).json();
//!   if (current !== fetches) return; // Another fetch has begun since.
//!   position = list.position;
//!   show(list.items);
//!   waiting.splice(0).forEach(add);
//! }
//! const numbers = (id) => id.split("-").map(BigInt);
//! function isAfter(id, other) {
//!   const [[a, b], [c, d]] = [numbers(id), numbers(other)];
//!   return a > c || (a === c && b > d);
//! }
//! function add(event) {
//!   if (position === undefined) waiting.push(event);
//!   else if (isAfter(event.lastEventId, position)) prepend(JSON.parse(event.data));
//! }
//! const stream = new EventSource("/events");
//! stream.addEventListener("notification", add);
//! stream.addEventListener("unread", (event) => badge(JSON.parse(event.data).count));
//! stream.addEventListener("hub:gap", fetchList);
//! fetchList();
//! ```
//!
//! # Limits
//!
//! - Two threads that publish counts can do so in the other order than they read them. Read the
//!   count and publish under one lock of the user, or let the page fetch the count after an item.
//! - [`matched`](crate::Receipt::matched) counts the clients of this instance. With several, decide
//!   about e-mails by [`is_online`](crate::Hub::is_online), with [presence](crate::Presence) on.
//! - A job that may run twice must not notify twice: set an [idempotency
//!   key](crate::Event::idempotency_key), which needs a backplane, or let the database decide.
