//! Pushes events to browsers over Server-Sent Events.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod design;
mod error;
mod hub;
mod log;
mod mount;
mod sync;
mod time;
mod wire;

#[cfg(feature = "http")]
pub mod http {
    //! Streams over HTTP, for any server whose responses are `http::Response`s of `http_body::Body`s.

    pub use crate::mount::http::{Body, refusal, respond, response};
}

pub use crate::error::{ConfigError, NameError, NameKind, PublishError, Refused, RefusedCause};
pub use crate::hub::hub::{Hub, HubBuilder};
pub use crate::hub::receipt::{Receipt, Unmatched};
pub use crate::hub::stats::Stats;
pub use crate::hub::subscriber::Subscriber;
pub use crate::hub::subscription::Subscription;
pub use crate::log::audience::{Audience, ClientId, ParseClientIdError};
pub use crate::log::log::Retain;
pub use crate::time::heartbeat::Heartbeat;
pub use crate::time::manual::ManualTimer;
pub use crate::time::timer::{Sleep, Timer};
#[cfg(feature = "tokio")]
pub use crate::time::tokio::TokioTimer;
pub use crate::wire::event::{Event, EventError, EventType, InvalidEventType};
#[cfg(feature = "json")]
pub use crate::wire::event::{JsonError, Payload};
pub use crate::wire::id::{EventId, LastEventId, ParseEventIdError};
