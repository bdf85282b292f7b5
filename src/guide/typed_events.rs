//! Typed events: a Rust type for each event, and the same type in the page.
//!
//! A [`Payload`](crate::Payload) binds a type to its event type, so a publisher cannot send an
//! order under the name of an alert. The name is checked when the program is compiled.
//!
#![cfg_attr(feature = "json", doc = "```")]
#![cfg_attr(not(feature = "json"), doc = "```ignore")]
//! use serde::Serialize;
//! use sse_hub::{Audience, Event, EventType, Hub, ManualTimer, Payload, Subscriber};
//!
//! #[derive(Serialize)]
//! struct OrderShipped {
//!     order: u64,
//!     parcels: u32,
//! }
//!
//! impl Payload for OrderShipped {
//!     const TYPE: EventType = EventType::from_static("order-shipped");
//! }
//!
//! let hub = Hub::builder(ManualTimer::new()).build()?;
//! let shipped = Event::from_payload(&OrderShipped { order: 17, parcels: 2 })?;
//! hub.publish(Audience::topic("orders"), shipped)?;
//!
//! // A page that shows only deliveries selects the type.
//! let page = Subscriber::new().topic("orders").event_types([OrderShipped::TYPE]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! In the page, `addEventListener` takes the event type, and the data is JSON:
//!
//! ```text
//! stream.addEventListener("order-shipped", (event) => show(JSON.parse(event.data)));
//! ```
//!
//! # Types for TypeScript
//!
//! Derive the TypeScript types from the Rust types with the crate `ts-rs`, and let a test compare
//! the generated file with the committed file. The demo does this in `tests/demo_types.rs`: a
//! change of a payload then fails the test until the page's types are generated anew. The hook
//! `useSSE` of `sse-hub-client/react` takes a map of event types as its type parameter.
//!
//! # Changing a payload
//!
//! Pages stay open for days. Instances of two versions run side by side during an update, and
//! retained events outlive both. So treat payloads as an API:
//!
//! - Add fields, and let the page have a default for a field that is missing.
//! - Do not change the meaning of a field. Publish a new event type beside the old type until no
//!   page listens to the old type.
//!
//! # Other formats
//!
//! - [`Event::json`](crate::Event::json) sends any `Serialize` value under a type that is known
//!   only at run time.
//! - [`Event::data`](crate::Event::data) sends text. Line breaks become LF, and everything else
//!   arrives unchanged.
//! - Encode binary data as text, for example in Base64.
//!
//! # Limits
//!
//! - `hub:` begins the events of the hub and is refused. Avoid `open` and `error`: a browser
//!   dispatches its own events under these names.
//! - An event must fit into [`Retain::bytes`](crate::Retain::bytes). Send ids of large things, and
//!   let the page fetch them: a retained event takes memory until its eviction.
//! - A payload that does not serialise is an error of `from_payload`, and no event is sent.
