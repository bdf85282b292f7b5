//! A dashboard: gauges that change often, at the speed of each browser.
//!
//! A page wants the newest value of each gauge, and no history. [Conflated](crate::Event::conflate)
//! events do this: the log keeps the newest event of each key, a fast client sees every change, and
//! a slow client skips to the newest. A page that comes, or comes back, receives the current values
//! from the log.
//!
#![cfg_attr(feature = "json", doc = "```")]
#![cfg_attr(not(feature = "json"), doc = "```ignore")]
//! use std::error::Error;
//! use futures_util::{FutureExt as _, StreamExt as _};
//! use serde::Serialize;
//! use sse_hub::{
//!     Event, EventType, Hub, LastEventId, ManualTimer, Payload, Refused, Retain, Subscriber,
//!     Subscription,
//! };
//!
//! #[derive(Serialize)]
//! struct Gauge<'a> {
//!     name: &'a str,
//!     value: f64,
//! }
//!
//! impl Payload for Gauge<'_> {
//!     const TYPE: EventType = EventType::from_static("gauge");
//! }
//!
//! /// The number of gauges bounds the log.
//! const GAUGES: usize = 200;
//!
//! fn build() -> Result<Hub, sse_hub::ConfigError> {
//!     // Without an age: a gauge that does not change keeps its value.
//!     let retain = Retain::default().events(2 * GAUGES).age(None);
//!     // In a service: `TokioTimer::new()`.
//!     Hub::builder(ManualTimer::new()).retain(retain).build()
//! }
//!
//! fn set(hub: &Hub, team: &str, name: &str, value: f64) -> Result<(), Box<dyn Error>> {
//!     let gauge = Event::from_payload(&Gauge { name, value })?.conflate(name);
//!     hub.send_to_topic(format!("dashboard-{team}"), gauge)?;
//!     Ok(())
//! }
//!
//! /// `GET /dashboard/{team}/events`, after the rights of the user were checked.
//! fn events(hub: &Hub, team: &str, last: LastEventId) -> Result<Subscription, Refused> {
//!     let page = Subscriber::new().topic(format!("dashboard-{team}"));
//!     hub.subscribe(page.event_types(["gauge"]).replay_last(GAUGES).resume(last))
//! }
//!
//! let hub = build()?;
//! for value in [1.0, 2.0, 3.0] {
//!     set(&hub, "ops", "load", value)?;
//! }
//! set(&hub, "ops", "disk", 0.5)?;
//! let mut page = events(&hub, "ops", LastEventId::none())?;
//! let mut text = String::new();
//! while let Some(Some(item)) = page.next().now_or_never() {
//!     text += std::str::from_utf8(&item)?;
//! }
//! assert!(!text.contains(r#"{"name":"load","value":2.0}"#));
//! assert!(text.contains(r#"{"name":"load","value":3.0}"#));
//! assert!(text.contains(r#"{"name":"disk","value":0.5}"#));
//! # Ok::<(), Box<dyn Error>>(())
//! ```
//!
//! # The page
//!
//! Every event replaces the gauge of its name, so a gap needs no treatment beyond a reload of the
//! values, and a value that comes twice changes nothing:
//!
//! ```text
//! const stream = new EventSource(`/dashboard/${team}/events`);
//! stream.addEventListener("gauge", (event) => {
//!   const { name, value } = JSON.parse(event.data);
//!   gauges.get(name).draw(value);
//! });
//! stream.addEventListener("hub:gap", () => location.reload());
//! ```
//!
//! # The pace
//!
//! A value that changes a thousand times a second helps nobody. Sample at the source, four times a
//! second for numbers that people read, and publish only values that changed. Conflation limits the
//! cost of slow clients, not that of fast clients.
//!
//! # Limits
//!
//! - If the log evicts a gauge, a page that comes later does not see the gauge until its next
//!   change. The limits of [`Retain`](crate::Retain) must have room for all gauges of all teams.
//! - For history, such as a chart of the last hour, send a [snapshot](crate::guide::snapshots), and
//!   then the changes.
//! - Over [several instances](crate::guide::instances) each publish is an entry of Redis, also if
//!   its value is replaced at once.
