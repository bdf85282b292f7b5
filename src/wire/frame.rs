//! The encoder: the only place that knows how an event looks on the wire.
//!
//! The rules are those of the WHATWG HTML standard, section 9.2 (server-sent events), and every line that is
//! written here ends in LF alone. `id:` is the last field of a frame, because some clients store it as soon as they
//! have read its line: a connection cut after an early `id:` would lose the event.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

use super::id::EventId;

/// Sent on an idle stream. One LF: the comment alone is silent in every client, while the blank line that a second
/// LF makes reaches the callbacks of some.
pub(crate) const HEARTBEAT: Bytes = Bytes::from_static(b":\n");

/// The same for pages that watch a native `EventSource`, which shows no comments.
pub(crate) const VISIBLE_HEARTBEAT: Bytes =
    Bytes::from_static(b"event: hub:heartbeat\ndata: {}\n\n");

const EVENT: &[u8] = b"event: ";
const DATA: &[u8] = b"data: ";
const RETRY: &[u8] = b"retry: ";
const COMMENT: &[u8] = b": ";
const ID: &[u8] = b"id: ";

/// What the last field and the blank line can take.
const TAIL: usize = ID.len() + EventId::MAX_LEN + 2;

/// Event types shorter than this wait for the data without a heap allocation of their own.
const INLINE_TYPE: usize = 32;

/// A frame as far as the application has told it: the type's line, then the data's.
///
/// Data is written where it will be sent from, in one pass, so that it is copied once from the caller to the wire.
#[derive(Debug, Clone, Default)]
pub(crate) struct Draft {
    event_type: SmallVec<[u8; INLINE_TYPE]>,
    /// Empty until data came; then the type's line and the data's.
    buf: BytesMut,
}

impl Draft {
    /// Sets the type, which holds no line break.
    pub(crate) fn set_type(&mut self, event_type: &str) {
        let old_line = self.type_line();
        self.event_type = SmallVec::from_slice(event_type.as_bytes());
        if !self.buf.is_empty() {
            let data = self.buf.split_off(old_line);
            self.start(data.len());
            self.buf.put_slice(&data);
        }
    }

    /// Sets the data: CRLF, CR and LF each end a line, and nothing else does.
    pub(crate) fn set_data(&mut self, data: &[u8]) {
        let Some(first) = memchr::memchr2(b'\r', b'\n', data) else {
            self.start(DATA.len() + data.len() + 1);
            put_line(&mut self.buf, DATA, data);
            return;
        };
        // Lines of 80 columns grow by a thirteenth; shorter ones make the buffer grow once or twice.
        self.start(data.len() + data.len() / 8);
        let (mut rest, mut end) = (data, Some(first));
        while let Some(at) = end {
            put_line(&mut self.buf, DATA, &rest[..at]);
            let broken_by = if rest[at..].starts_with(b"\r\n") { 2 } else { 1 };
            rest = &rest[at + broken_by..];
            end = memchr::memchr2(b'\r', b'\n', rest);
        }
        put_line(&mut self.buf, DATA, rest);
    }

    /// Sets the data to what `write` appends, which is expected to be one line.
    ///
    /// # Errors
    ///
    /// Those of `write`; the draft then has no data.
    #[cfg(feature = "json")]
    pub(crate) fn set_data_with<E>(
        &mut self,
        write: impl FnOnce(&mut BytesMut) -> Result<(), E>,
    ) -> Result<(), E> {
        self.start(128);
        self.buf.put_slice(DATA);
        let from = self.buf.len();
        if let Err(error) = write(&mut self.buf) {
            self.buf.clear();
            return Err(error);
        }
        if memchr::memchr2(b'\r', b'\n', &self.buf[from..]).is_some() {
            let lines = self.buf.split_off(from);
            self.set_data(&lines);
        } else {
            self.buf.put_u8(b'\n');
        }
        Ok(())
    }

    /// Whether neither a type nor data was set.
    pub(crate) fn is_empty(&self) -> bool {
        self.event_type.is_empty() && self.buf.is_empty()
    }

    /// Writes the other fields and makes room for the id.
    pub(crate) fn seal(mut self, retry: Option<Duration>, comment: Option<&str>) -> Sealed {
        if self.buf.is_empty() && !self.event_type.is_empty() {
            // Without a data line a browser would not dispatch the event.
            self.set_data(b"");
        }
        let mut buf = self.buf;
        if let Some(retry) = retry {
            put_retry(&mut buf, retry);
        }
        if let Some(comment) = comment {
            buf.reserve(COMMENT.len() + comment.len() + 1 + TAIL);
            put_line(&mut buf, COMMENT, comment.as_bytes());
        }
        buf.reserve(TAIL);
        if buf.capacity() > buf.len() + buf.len() / 4 + 2 * TAIL {
            // The log keeps the allocation, not the length: give back what growing took too much.
            let mut exact = BytesMut::with_capacity(buf.len() + TAIL);
            exact.put_slice(&buf);
            buf = exact;
        }
        Sealed { buf, type_len: self.event_type.len() }
    }

    fn type_line(&self) -> usize {
        if self.event_type.is_empty() { 0 } else { EVENT.len() + self.event_type.len() + 1 }
    }

    /// Empties the buffer, makes room for `more` bytes and the tail, and writes the type's line.
    fn start(&mut self, more: usize) {
        self.buf.clear();
        self.buf.reserve(self.type_line() + more + TAIL);
        if !self.event_type.is_empty() {
            put_line(&mut self.buf, EVENT, &self.event_type);
        }
    }
}

/// A frame that lacks only its id, with room for it.
#[derive(Debug)]
pub(crate) struct Sealed {
    buf: BytesMut,
    type_len: usize,
}

impl Sealed {
    /// How long the frame can get.
    pub(crate) fn max_len(&self) -> usize {
        self.buf.len() + TAIL
    }

    /// Writes the id and the blank line: no allocation, no scan.
    pub(crate) fn finish(mut self, id: EventId) -> Frame {
        put_id(&mut self.buf, id);
        Frame { bytes: self.buf.freeze(), type_len: self.type_len }
    }
}

/// An event's bytes on the wire.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    bytes: Bytes,
    type_len: usize,
}

impl Frame {
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The event's type, empty for a plain message.
    pub(crate) fn event_type(&self) -> &[u8] {
        if self.type_len == 0 { &[] } else { &self.bytes[EVENT.len()..][..self.type_len] }
    }
}

/// The first frame of a stream: who the client is, whether it goes on where it stopped, when to come back.
pub(crate) fn open(id: EventId, retry: Duration, client: &str, resumed: bool) -> Bytes {
    let mut buf = BytesMut::with_capacity(160);
    put_line(&mut buf, EVENT, b"hub:open");
    put_retry(&mut buf, retry);
    buf.put_slice(b"data: {\"client\":\"");
    buf.put_slice(client.as_bytes());
    buf.put_slice(if resumed { b"\",\"resumed\":true}\n" } else { b"\",\"resumed\":false}\n" });
    put_id(&mut buf, id);
    buf.freeze()
}

/// Tells a client that it missed events, and moves its position past them.
pub(crate) fn gap(id: EventId, reason: &str) -> Bytes {
    let mut buf = BytesMut::with_capacity(96);
    put_line(&mut buf, EVENT, b"hub:gap");
    put_reason(&mut buf, reason);
    put_id(&mut buf, id);
    buf.freeze()
}

/// The whole stream of a client that is not let in now.
#[cfg(feature = "http")]
pub(crate) fn refused(retry: Duration, reason: &str) -> Bytes {
    let mut buf = BytesMut::with_capacity(96);
    put_line(&mut buf, EVENT, b"hub:refused");
    put_retry(&mut buf, retry);
    put_reason(&mut buf, reason);
    buf.put_u8(b'\n');
    buf.freeze()
}

fn put_reason(buf: &mut BytesMut, reason: &str) {
    buf.put_slice(b"data: {\"reason\":\"");
    buf.put_slice(reason.as_bytes());
    buf.put_slice(b"\"}\n");
}

fn put_line(buf: &mut BytesMut, field: &[u8], value: &[u8]) {
    buf.reserve(field.len() + value.len() + 1);
    buf.put_slice(field);
    buf.put_slice(value);
    buf.put_u8(b'\n');
}

fn put_retry(buf: &mut BytesMut, retry: Duration) {
    let mut digits = itoa::Buffer::new();
    put_line(buf, RETRY, digits.format(retry.as_millis()).as_bytes());
}

fn put_id(buf: &mut BytesMut, EventId(a, b): EventId) {
    let mut digits = itoa::Buffer::new();
    buf.put_slice(ID);
    buf.put_slice(digits.format(a).as_bytes());
    buf.put_u8(b'-');
    buf.put_slice(digits.format(b).as_bytes());
    buf.put_slice(b"\n\n");
}
