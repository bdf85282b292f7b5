//! The frames of a stream, and their parser.

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::time::Duration;

use crate::log::key::ClientId;
use crate::wire::id::EventId;

/// The letters of data that a failure shows of each frame.
const SHOWN_LETTERS: usize = 80;

/// An event or a notice of the hub, as a page receives it.
///
/// ```
/// use sse_hub::testing::Reader;
/// use sse_hub::{Audience, Event, Goodbye, Hub, ManualTimer, Subscriber};
///
/// let hub = Hub::builder(ManualTimer::new()).build()?;
/// let mut tab = Reader::new(hub.subscribe(Subscriber::new())?);
/// hub.broadcast(Event::new("note").data("two\r\nlines").comment("for people"))?;
/// let [open, note] = <[_; 2]>::try_from(tab.all_ready()).unwrap();
/// assert!(!open.is_resumed());
/// assert_eq!(note.data, "two\nlines");
/// assert_eq!(note.comment.as_deref(), Some("for people"));
///
/// hub.disconnect(Audience::all(), Goodbye::from_static("logout"))?;
/// let end = tab.try_next().unwrap();
/// assert_eq!((end.event.as_str(), end.reason()), ("hub:end", Some("logout")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Frame {
    /// The type: `message` if the event has none. Empty if the frame has no data: then a page
    /// receives no event.
    pub event: String,
    /// The data. Several lines are joined by LF.
    pub data: String,
    /// The id that a hub issued.
    pub id: Option<EventId>,
    /// The id of the application, in a stream without a hub ([`Event::id`](crate::Event::id)).
    pub own_id: Option<String>,
    /// The delay after which the page reconnects.
    pub retry: Option<Duration>,
    /// The comment. Several lines are joined by LF.
    pub comment: Option<String>,
}

impl Frame {
    /// Returns whether the hub wrote the frame, and not the application.
    #[must_use]
    pub fn is_of_hub(&self) -> bool {
        self.event.starts_with("hub:")
    }

    /// Returns the client id in `hub:open`.
    #[must_use]
    pub fn client_id(&self) -> Option<ClientId> {
        self.of_hub("hub:open", "\"client\":\"")?.split('"').next()?.parse().ok()
    }

    /// Returns whether this is a `hub:open` that continues after the client's id.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.of_hub("hub:open", "\"resumed\":true").is_some()
    }

    /// Returns the reason in `hub:gap`, `hub:end`, `hub:run-end` or `hub:refused`.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        let of_hub = self.is_of_hub().then_some(&*self.data)?;
        // The name of a run comes before, and can contain these bytes only with a backslash.
        of_hub.split_once("\"reason\":\"")?.1.split('"').next()
    }

    /// Returns whether this is a `hub:gap` with a snapshot behind, which replaces the lost events.
    #[must_use]
    pub fn is_healed(&self) -> bool {
        self.of_hub("hub:gap", "\"healed\":true").is_some()
    }

    /// Returns whether this is a `hub:end` after which the page must not come back.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.of_hub("hub:end", "\"final\":true").is_some()
    }

    /// Returns the data behind `field`, if this is a frame of this type.
    fn of_hub(&self, event_type: &str, field: &str) -> Option<&str> {
        let data = (self.event == event_type).then_some(&*self.data)?;
        data.split_once(field).map(|(_, rest)| rest)
    }
}

/// A line: the type, the data, shortened, and the id.
impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: String = self.data.chars().take(SHOWN_LETTERS).collect();
        let more = if shown.len() < self.data.len() { "..." } else { "" };
        write!(f, "{} {shown:?}{more}", self.event)?;
        self.id.iter().try_for_each(|id| write!(f, " {id}"))
    }
}

/// Reads lines. As strict as the encoder, so that no test passes on a broken stream.
#[derive(Debug, Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    /// The frame that has begun.
    frame: Option<Frame>,
    has_data: bool,
}

impl Parser {
    pub(super) fn read(
        &mut self,
        bytes: &[u8],
        frames: &mut VecDeque<Frame>,
        heartbeats: &mut usize,
    ) -> Result<(), String> {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.line.extend_from_slice(piece);
            if self.line.pop_if(|last| *last == b'\n').is_some() {
                let line = mem::take(&mut self.line);
                let line = str::from_utf8(&line).map_err(|_| malformed(&line))?;
                match (line, &self.frame) {
                    // A heartbeat, and not the begin of a frame.
                    (":", None) => *heartbeats += 1,
                    ("", _) => frames.extend(self.frame.take().map(|frame| self.finish(frame))),
                    _ => self.field(line)?,
                }
            }
        }
        Ok(())
    }

    fn field(&mut self, line: &str) -> Result<(), String> {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        let frame = self.frame.get_or_insert_default();
        match name {
            _ if line.contains('\r') => return Err(malformed(line.as_bytes())),
            "" => frame.comment = Some(joined(frame.comment.take(), value)),
            "event" => value.clone_into(&mut frame.event),
            "data" => {
                let before =
                    mem::replace(&mut self.has_data, true).then(|| mem::take(&mut frame.data));
                frame.data = joined(before, value);
            }
            "id" => {
                frame.id = value.parse().ok();
                frame.own_id = frame.id.is_none().then(|| value.to_owned());
            }
            "retry" => {
                let millis = value.parse().map_err(|_| malformed(line.as_bytes()))?;
                frame.retry = Some(Duration::from_millis(millis));
            }
            _ => return Err(malformed(line.as_bytes())),
        }
        Ok(())
    }

    fn finish(&mut self, mut frame: Frame) -> Frame {
        match mem::take(&mut self.has_data) {
            true if frame.event.is_empty() => "message".clone_into(&mut frame.event),
            true => {}
            false => frame.event.clear(),
        }
        frame
    }

    pub(super) fn end(&self) -> Result<(), String> {
        match (&self.frame, &*self.line) {
            (None, b"") => Ok(()),
            (frame, line) => Err(format!(
                "the stream ended within a frame: {frame:?} \"{}\"",
                line.escape_ascii()
            )),
        }
    }
}

/// Joins the lines of a field.
fn joined(lines: Option<String>, line: &str) -> String {
    match lines {
        None => line.to_owned(),
        Some(lines) => lines + "\n" + line,
    }
}

fn malformed(line: &[u8]) -> String {
    format!("a line that is none of an event stream: \"{}\"", line.escape_ascii())
}
