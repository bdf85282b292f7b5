//! Ids reveal the volume of events: the facts that a client can learn from the numbers, and how to
//! avoid that.
//!
//! Every frame carries an id such as `1795451695341123456-17`, and every client sees ids from its
//! `hub:open` on. A client that connects twice learns how many events the hub published in between,
//! for all users together, without receiving one of them.
//!
//! | hub | the first number | the second number |
//! |---|---|---|
//! | alone | the start of the process, and six random digits | counts the events since |
//! | over Redis | the time of the event in milliseconds | counts the events of that millisecond |
//!
//! So a hub alone reveals the rate of events and the time of the last restart. Over Redis the ids
//! reveal the time of the latest event, and little about the rate.
//!
//! # Does it matter?
//!
//! For a dashboard of your own company: no. For a service with tenants that compete: a tenant could
//! plot the business of all. Then use a hub for each tenant. A hub spawns no task.
//!
//! ```
//! use std::collections::HashMap;
//! use std::sync::Mutex;
//! use sse_hub::{ConfigError, Hub, ManualTimer};
//!
//! #[derive(Default)]
//! struct Hubs {
//!     by_tenant: Mutex<HashMap<String, Hub>>,
//! }
//!
//! impl Hubs {
//!     /// Returns the hub of a tenant that the request has proven.
//!     fn of(&self, tenant: &str) -> Result<Hub, ConfigError> {
//!         let mut hubs = self.by_tenant.lock().unwrap();
//!         if let Some(hub) = hubs.get(tenant) {
//!             return Ok(hub.clone());
//!         }
//!         // In a service: `TokioTimer::new()`.
//!         let hub = Hub::builder(ManualTimer::new()).build()?;
//!         hubs.insert(tenant.to_owned(), hub.clone());
//!         Ok(hub)
//!     }
//! }
//!
//! let hubs = Hubs::default();
//! hubs.of("acme")?.broadcast(sse_hub::Event::new("news"))?;
//! assert_eq!(hubs.of("acme")?.stats().published, 1);
//! assert_eq!(hubs.of("other")?.stats().published, 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Separate hubs also keep the tenants' events apart in memory: a busy tenant does not evict the
//! events of the others, and a programming error in an audience cannot reach another tenant.
//!
//! # Client ids
//!
//! A client id is 128 random bits and reveals nothing. The id is a capability, though: for a client
//! without a user and a session, a program that knows the id can connect under the id. See
//! [`authentication`](super::authentication#ids-from-a-request-prove-nothing).
//!
//! # Limits
//!
//! - Sizes and times of frames remain visible on the network, also under TLS.
//! - Each hub has limits, metrics and a drain of its own: loop over the hubs.
