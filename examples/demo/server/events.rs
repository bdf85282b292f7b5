//! What the demo sends. Pages in TypeScript know it as `examples/react/src/events.ts`, which `tests/demo_types.rs` writes.

use serde::{Deserialize, Serialize};
use sse_hub::{EventType, Payload};
use ts_rs::TS;

/// Something for a person, a session or a tab to read.
#[derive(Serialize, TS)]
pub(crate) struct Notification {
    pub(crate) title: String,
    pub(crate) message: String,
    // Whom it was sent to, in words.
    pub(crate) to: String,
    // When it was sent, in milliseconds since 1970.
    #[ts(type = "number")]
    pub(crate) at: u64,
}

impl Payload for Notification {
    const TYPE: EventType = EventType::from_static("notification");
}

#[derive(Deserialize, Serialize, TS)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    Info,
    Warning,
    Critical,
}

/// Something for everybody.
#[derive(Serialize, TS)]
pub(crate) struct Alert {
    pub(crate) level: Level,
    pub(crate) message: String,
    #[ts(type = "number")]
    pub(crate) at: u64,
}

impl Payload for Alert {
    const TYPE: EventType = EventType::from_static("alert");
}

#[derive(Clone, Copy, Serialize, TS)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Progress {
    Running,
    Done,
}

/// How far a background job is.
#[derive(Serialize, TS)]
pub(crate) struct Upload {
    pub(crate) job: String,
    pub(crate) file: String,
    pub(crate) percent: u32,
    pub(crate) state: Progress,
    #[ts(type = "number")]
    pub(crate) at: u64,
}

impl Payload for Upload {
    const TYPE: EventType = EventType::from_static("upload");
}

/// One of many.
#[derive(Serialize, TS)]
pub(crate) struct Tick {
    pub(crate) n: u32,
    #[ts(type = "number")]
    pub(crate) at: u64,
    pub(crate) padding: String,
}

impl Payload for Tick {
    const TYPE: EventType = EventType::from_static("tick");
}

/// The users that are online, told when that changes.
#[derive(Serialize, TS)]
pub(crate) struct Presence {
    pub(crate) users: Vec<String>,
}

impl Payload for Presence {
    const TYPE: EventType = EventType::from_static("presence");
}
