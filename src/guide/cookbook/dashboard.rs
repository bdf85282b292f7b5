//! A dashboard: gauges that change often, at the speed of each browser.
//!
//! A page wants the newest value of each gauge, and no history. Each change is a
//! [conflated](crate::Event::conflate) event, and three settings do the rest:
//! [`keep_latest`](crate::Retain::keep_latest) keeps the newest value of each gauge for as long as
//! nothing replaces it, [`latest`](crate::Subscriber::latest) begins a page with these values, and
//! [`at_most_every`](crate::Subscriber::at_most_every) sends a page at most one batch in a period.
//! The example `dashboard` is a whole server, with 500 symbols.
//!
#![cfg_attr(feature = "json", doc = "```")]
#![cfg_attr(not(feature = "json"), doc = "```ignore")]
//! use std::error::Error;
//! use std::time::Duration;
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
//! /// At least the gauges of all teams together.
//! const GAUGES: usize = 200;
//!
//! fn build() -> Result<Hub, sse_hub::ConfigError> {
//!     let retain = Retain::default().keep_latest(GAUGES);
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
//!     let page = Subscriber::new().topic(format!("dashboard-{team}")).event_types(["gauge"]);
//!     hub.subscribe(page.latest().at_most_every(Duration::from_millis(250)).resume(last))
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
//! Every event replaces the gauge of its name, so a value that comes twice changes nothing. After a
//! gap, the page reloads, and begins with the values:
//!
//! ```text
//! const stream = new EventSource(`/dashboard/${team}/events`);
//! let hasGauges = false;
//! stream.addEventListener("gauge", (event) => {
//!   hasGauges = true;
//!   const { name, value } = JSON.parse(event.data);
//!   gauges.get(name).draw(value);
//! });
//! // A gap before the first gauge: the hub lacks values, and a reload would not bring them.
//! stream.addEventListener("hub:gap", () => hasGauges && location.reload());
//! ```
//!
//! # The pace
//!
//! A value that changes a thousand times a second helps nobody: people read about four values a
//! second. `at_most_every` sets the pace of each page. A batch has the newest value of each gauge,
//! and the first value after a quiet time comes at once. The publisher still encodes and retains
//! every change, so sample at the source, too.
//!
//! # Limits
//!
//! - If there are more values than `keep_latest` allows, the oldest leave. A page that begins with
//!   the values then gets `hub:gap`.
//! - For history, such as a chart of the last hour, send a [snapshot](crate::guide::snapshots), and
//!   then the changes.
//! - Over [several instances](crate::guide::instances) each publish is an entry of Redis, also if
//!   its value is replaced at once.
