//! A stream, summed up while it is read.

use std::time::Duration;

use serde::Deserialize;

/// The data of `hub:open`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Open {
    pub(crate) client: String,
    pub(crate) resumed: bool,
    /// In milliseconds. Absent if the hub sends no heartbeats.
    pub(crate) heartbeat: Option<u64>,
}

impl Open {
    pub(crate) fn period(&self) -> Option<Duration> {
        self.heartbeat.map(Duration::from_millis)
    }
}

#[derive(Deserialize)]
struct Reason {
    reason: String,
}

/// The end of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) at: Duration,
    /// The error, if the response is incomplete.
    pub(crate) error: Option<String>,
}

/// The parts of a stream that the checks need. All times begin with the request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stream {
    pub(crate) open: Option<(Duration, Open)>,
    /// The id of the last event.
    pub(crate) position: Option<String>,
    /// The reasons of `hub:gap`, `hub:refused` and `hub:end`.
    pub(crate) gap: Option<String>,
    pub(crate) refused: Option<String>,
    pub(crate) farewell: Option<String>,
    pub(crate) heartbeats: usize,
    pub(crate) bytes: usize,
    /// When the last bytes came.
    pub(crate) heard: Option<Duration>,
    /// The longest time between two pieces of bytes.
    pub(crate) silence: Duration,
    pub(crate) end: Option<End>,
    line: Vec<u8>,
    event: String,
    data: String,
    id: Option<String>,
}

/// The longest part of a line that is kept: the lines of the hub's own events are shorter.
const LINE: usize = 1024;

impl Stream {
    pub(crate) fn push(&mut self, at: Duration, bytes: &[u8]) {
        // HAProxy ends a stream that it cuts with an empty piece.
        if bytes.is_empty() {
            return;
        }
        if let Some(heard) = self.heard {
            self.silence = self.silence.max(at.saturating_sub(heard));
        }
        self.heard = Some(at);
        self.bytes += bytes.len();
        for &byte in bytes {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut self.line);
                    self.take_line(at, String::from_utf8_lossy(&line).trim_end_matches('\r'));
                }
                _ if self.line.len() < LINE => self.line.push(byte),
                _ => {}
            }
        }
    }

    fn take_line(&mut self, at: Duration, line: &str) {
        match (line, line.split_once(": ")) {
            ("", _) => self.dispatch(at),
            // The heartbeat has no text, unlike the comment of an event.
            (":", _) => self.heartbeats += 1,
            (_, Some(("event", event))) => self.event = event.to_owned(),
            (_, Some(("data", data))) => self.data = data.to_owned(),
            (_, Some(("id", id))) => self.id = Some(id.to_owned()),
            _ => {}
        }
    }

    fn dispatch(&mut self, at: Duration) {
        let (event, data) = (std::mem::take(&mut self.event), std::mem::take(&mut self.data));
        let reason = || serde_json::from_str(&data).ok().map(|Reason { reason }| reason);
        match event.as_str() {
            "hub:open" if self.open.is_none() => {
                self.open = serde_json::from_str(&data).ok().map(|open| (at, open));
            }
            "hub:gap" => self.gap = reason(),
            "hub:refused" => self.refused = reason(),
            "hub:end" => self.farewell = reason(),
            "hub:heartbeat" => self.heartbeats += 1,
            _ => {}
        }
        if let Some(id) = self.id.take() {
            self.position = Some(id);
        }
    }

    /// Returns the longest silence, with that before `now`.
    pub(crate) fn silence_until(&self, now: Duration) -> Duration {
        let current = self.heard.map_or(Duration::ZERO, |heard| now.saturating_sub(heard));
        self.silence.max(current)
    }

    pub(crate) fn period(&self) -> Option<Duration> {
        self.open.as_ref().and_then(|(_, open)| open.period())
    }
}
