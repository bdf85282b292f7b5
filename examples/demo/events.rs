//! What the demo sends.

use serde::{Deserialize, Serialize};
use sse_hub::{EventType, Payload};

/// Something for a person, a session or a tab to read.
#[derive(Serialize)]
pub(crate) struct Notification {
    pub(crate) title: String,
    pub(crate) message: String,
    /// Whom it was sent to, in words.
    pub(crate) to: String,
    /// When it was sent, in milliseconds since 1970.
    pub(crate) at: u64,
}

impl Payload for Notification {
    const TYPE: EventType = EventType::from_static("notification");
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    Info,
    Warning,
    Critical,
}

/// Something for everybody.
#[derive(Serialize)]
pub(crate) struct Alert {
    pub(crate) level: Level,
    pub(crate) message: String,
    pub(crate) at: u64,
}

impl Payload for Alert {
    const TYPE: EventType = EventType::from_static("alert");
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Progress {
    Running,
    Done,
}

/// How far a background job is.
#[derive(Serialize)]
pub(crate) struct Upload {
    pub(crate) job: String,
    pub(crate) file: String,
    pub(crate) percent: u32,
    pub(crate) state: Progress,
    pub(crate) at: u64,
}

impl Payload for Upload {
    const TYPE: EventType = EventType::from_static("upload");
}

/// One of many.
#[derive(Serialize)]
pub(crate) struct Tick {
    pub(crate) n: u32,
    pub(crate) at: u64,
    pub(crate) padding: String,
}

impl Payload for Tick {
    const TYPE: EventType = EventType::from_static("tick");
}

/// Who is online, told when that changes.
#[derive(Serialize)]
pub(crate) struct Presence {
    pub(crate) users: Vec<String>,
}

impl Payload for Presence {
    const TYPE: EventType = EventType::from_static("presence");
}
