//! The encoder: the only file that knows the bytes of an event on the wire.
//!
//! The format is that of the WHATWG HTML standard, section 9.2 (server-sent events). Every line
//! ends in LF. `id:` is the last field of a frame, because some clients store the id as soon as
//! they have read its line: if the connection breaks after an early `id:`, the event is lost.

use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;
use wide::u8x16;

use super::id::EventId;

/// The heartbeat of an idle stream. A single LF: some clients call the page's code for the blank
/// line that a second LF would end.
pub(crate) const HEARTBEAT: Bytes = Bytes::from_static(b":\n");

/// The heartbeat as an event, because a native `EventSource` does not show comments to the page.
pub(crate) const VISIBLE_HEARTBEAT: Bytes =
    Bytes::from_static(b"event: hub:heartbeat\ndata: {}\n\n");

/// The heartbeat as an event that moves the client to `position`.
pub(crate) fn heartbeat_at(position: EventId) -> Bytes {
    let mut buf = Vec::with_capacity(80);
    put_line(&mut buf, EVENT, b"hub:heartbeat");
    put_line(&mut buf, DATA, b"{}");
    put_id(&mut buf, position);
    buf.into()
}

/// Reports the start or the end of an outage of the backplane. Has no id, like a heartbeat: the
/// event is not part of the order.
pub(crate) const fn degraded(is_degraded: bool) -> Bytes {
    Bytes::from_static(if is_degraded {
        b"event: hub:degraded\ndata: {\"degraded\":true}\n\n"
    } else {
        b"event: hub:degraded\ndata: {\"degraded\":false}\n\n"
    })
}

/// The valid reconnection delays: from 1 ms to 2^31 - 1 ms (24 days). A client with a delay of zero
/// reconnects in a loop, and the timers of browsers treat a longer delay as zero.
pub(crate) const RETRY_RANGE: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_millis(i32::MAX as u64);

const EVENT: &[u8] = b"event: ";
const DATA: &[u8] = b"data: ";
/// Between two lines of data.
const NEXT_DATA: &[u8] = b"\ndata: ";
const RETRY: &[u8] = b"retry: ";
const COMMENT: &[u8] = b": ";
const ID: &[u8] = b"id: ";

/// The most bytes of the last field and the blank line.
const TAIL: usize = ID.len() + EventId::MAX_LEN + 2;

/// The first capacity of a frame. Most events fit, so that their frame takes one allocation.
const USUAL: usize = 256 + TAIL;

/// Bytes of data that are searched for line ends and then copied, before the next: half of the
/// smallest first-level cache.
const PIECE: usize = 16 << 10;

/// A frame under construction: the line of the type, then the lines of the data.
///
/// The data is encoded in one pass into the buffer that is sent, so it is copied once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Draft {
    buf: Vec<u8>,
    type_len: usize,
}

impl Draft {
    /// Sets the type, which must not contain a line break.
    #[inline]
    pub(crate) fn set_type(&mut self, event_type: &str) {
        let old_line = self.type_line();
        self.type_len = event_type.len();
        let mut buf = Vec::with_capacity(self.type_line() + (self.buf.len() - old_line).max(USUAL));
        put_line(&mut buf, EVENT, event_type.as_bytes());
        buf.extend_from_slice(&self.buf[old_line..]);
        self.buf = buf;
    }

    /// Sets the data. CRLF, CR and LF each end a line; no other character does.
    #[inline]
    pub(crate) fn set_data(&mut self, data: &[u8]) {
        self.start(data.len());
        self.buf.extend_from_slice(DATA);
        // Search and copy by pieces: the copy finds its piece in the fastest cache.
        let mut from = 0;
        for piece in data.chunks(PIECE) {
            if let Some(first) = memchr::memchr2(b'\r', b'\n', piece) {
                return self.put_lines(data, from, from + first);
            }
            self.buf.extend_from_slice(piece);
            from += piece.len();
        }
        self.buf.push(b'\n');
    }

    /// Appends `data[from..]` and ends the last line. `first` is the index of the first line end.
    fn put_lines(&mut self, data: &[u8], mut from: usize, first: usize) {
        self.buf.reserve(room(data, from, first));
        for_each_break(data, first, |at| {
            // The LF of a CRLF is found after its line has ended: skip it.
            if at >= from {
                self.buf.extend_from_slice(&data[from..at]);
                self.buf.extend_from_slice(NEXT_DATA);
                from = if data[at..].starts_with(b"\r\n") { at + 2 } else { at + 1 };
            }
        });
        self.buf.extend_from_slice(&data[from..]);
        self.buf.push(b'\n');
    }

    /// Sets the data to the bytes that `write` appends, which usually are one line.
    ///
    /// # Errors
    ///
    /// Returns the error of `write`. The draft then has no data.
    #[cfg(feature = "json")]
    pub(crate) fn set_data_with<E>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.start(128);
        self.buf.extend_from_slice(DATA);
        let from = self.buf.len();
        if let Err(error) = write(&mut self.buf) {
            self.buf.truncate(self.type_line());
            return Err(error);
        }
        if memchr::memchr2(b'\r', b'\n', &self.buf[from..]).is_some() {
            let lines = self.buf.split_off(from);
            self.set_data(&lines);
        } else {
            self.buf.push(b'\n');
        }
        Ok(())
    }

    /// Returns whether neither a type nor data was set.
    pub(crate) fn is_empty(&self) -> bool {
        self.buf.is_empty()
    }

    /// Writes the other fields and makes room for the id.
    #[inline]
    pub(crate) fn seal(mut self, retry: Option<Duration>, comment: Option<&str>) -> Sealed {
        if !self.is_empty() && self.buf.len() == self.type_line() {
            // A browser does not dispatch an event without a data line.
            self.set_data(b"");
        }
        let mut buf = self.buf;
        if let Some(retry) = retry {
            put_retry(&mut buf, retry);
        }
        if let Some(comment) = comment {
            put_line(&mut buf, COMMENT, comment.as_bytes());
        }
        buf.reserve(TAIL);
        if buf.capacity() > buf.len() + buf.len() / 4 + 3 * TAIL {
            // The log keeps the whole allocation: give the excess of a grown buffer back.
            buf.shrink_to(buf.len() + TAIL);
        }
        Sealed { buf, type_len: self.type_len }
    }

    fn type_line(&self) -> usize {
        if self.type_len == 0 { 0 } else { EVENT.len() + self.type_len + 1 }
    }

    /// Truncates the frame to the line of the type, and reserves a line of data and the tail.
    #[inline]
    fn start(&mut self, data_len: usize) {
        self.buf.truncate(self.type_line());
        self.buf.reserve_exact(DATA.len() + data_len + 1 + TAIL);
    }
}

/// A complete frame without its id, with capacity for it.
#[derive(Debug)]
pub(crate) struct Sealed {
    buf: Vec<u8>,
    type_len: usize,
}

impl Sealed {
    /// A frame of another instance, which must be [valid](super::decode).
    pub(super) fn of(frame: &[u8], type_len: usize) -> Self {
        let mut buf = Vec::with_capacity(frame.len() + TAIL);
        buf.extend_from_slice(frame);
        Self { buf, type_len }
    }

    /// The bytes without the id.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buf
    }

    /// The event's type; empty for a plain message.
    pub(crate) fn event_type(&self) -> &[u8] {
        if self.type_len == 0 { &[] } else { &self.buf[EVENT.len()..][..self.type_len] }
    }

    /// The most bytes that the frame can have with its id.
    pub(crate) fn max_len(&self) -> usize {
        self.buf.len() + TAIL
    }

    /// Writes the id and the blank line, without an allocation and without a scan of the frame.
    pub(crate) fn finish(mut self, id: EventId) -> Frame {
        put_id(&mut self.buf, id);
        Frame(self.buf.into())
    }

    /// Writes the id of a standalone event, if it has one, and the blank line.
    pub(crate) fn finish_with(mut self, own_id: Option<&str>) -> Bytes {
        if let Some(own_id) = own_id {
            put_line(&mut self.buf, ID, own_id.as_bytes());
        }
        self.finish_without_id()
    }

    #[inline]
    pub(crate) fn finish_without_id(mut self) -> Bytes {
        self.buf.push(b'\n');
        self.buf.into()
    }
}

/// An event's bytes on the wire.
#[derive(Debug, Clone)]
pub(crate) struct Frame(Bytes);

impl Frame {
    pub(crate) fn into_bytes(self) -> Bytes {
        self.0
    }

    pub(crate) fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// Returns the frame with another id.
    pub(crate) fn with_id(&self, id: EventId) -> Bytes {
        let mut buf = Vec::with_capacity(self.0.len() + TAIL);
        self.put_without_id(&mut buf);
        // The blank line follows the id.
        buf.pop();
        put_id(&mut buf, id);
        buf.into()
    }

    /// Appends the frame without its id.
    pub(crate) fn put_without_id(&self, buf: &mut Vec<u8>) {
        // The id is the last line, so the last match is its field.
        let end = memchr::memmem::rfind(&self.0, ID).unwrap_or(self.0.len());
        buf.extend_from_slice(&self.0[..end]);
        buf.push(b'\n');
    }
}

/// Returns the first frame of a stream: the client's id, whether the client resumes, the reconnect
/// delay, and the period of heartbeats, by which a client can tell an idle stream from a dead one.
pub(crate) fn open(
    id: EventId,
    retry: Duration,
    client: &str,
    resumed: bool,
    heartbeat: Option<Duration>,
) -> Bytes {
    let resumed: &[u8] = if resumed { b"true" } else { b"false" };
    let mut buf = Vec::with_capacity(192);
    put_line(&mut buf, EVENT, b"hub:open");
    put_retry(&mut buf, retry);
    for part in [b"data: {\"client\":\"", client.as_bytes(), b"\",\"resumed\":", resumed] {
        buf.extend_from_slice(part);
    }
    if let Some(heartbeat) = heartbeat {
        buf.extend_from_slice(b",\"heartbeat\":");
        buf.extend_from_slice(itoa::Buffer::new().format(heartbeat.as_millis()).as_bytes());
    }
    buf.extend_from_slice(b"}\n");
    put_id(&mut buf, id);
    buf.into()
}

/// Reports missed events, and moves the client's position past them.
pub(crate) fn gap(id: EventId, reason: &str) -> Bytes {
    let mut buf = Vec::with_capacity(96);
    put_line(&mut buf, EVENT, b"hub:gap");
    put_reason(&mut buf, reason);
    put_id(&mut buf, id);
    buf.into()
}

/// Reports missed events that the snapshot behind this frame replaces.
pub(crate) fn healed_gap(id: EventId, reason: &str) -> Bytes {
    let mut buf = Vec::with_capacity(112);
    put_line(&mut buf, EVENT, b"hub:gap");
    for part in ["data: {\"reason\":\"", reason, "\",\"healed\":true}\n"] {
        buf.extend_from_slice(part.as_bytes());
    }
    put_id(&mut buf, id);
    buf.into()
}

/// Returns the last frame of a stream: the reason of its end and the reconnect delay. After a final
/// end the client must not reconnect.
pub(crate) fn end(reason: &str, retry: Duration, is_final: bool) -> Bytes {
    let mut buf = Vec::with_capacity(112);
    put_line(&mut buf, EVENT, b"hub:end");
    put_retry(&mut buf, retry);
    if is_final {
        for part in ["data: {\"reason\":\"", reason, "\",\"final\":true}\n"] {
            buf.extend_from_slice(part.as_bytes());
        }
    } else {
        put_reason(&mut buf, reason);
    }
    buf.push(b'\n');
    buf.into()
}

/// The type of the last event of a run.
pub(crate) const RUN_END: &str = "hub:run-end";

/// Returns the last event of a run.
pub(crate) fn run_end(run: &str, reason: &str) -> Sealed {
    let mut data = String::with_capacity(run.len() + reason.len() + 32);
    data.push_str("{\"run\":\"");
    for letter in run.chars() {
        match letter {
            '"' | '\\' => data.extend(['\\', letter]),
            '\0'..='\x1f' => {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                data.push_str("\\u00");
                let digits = [letter as usize >> 4, letter as usize & 15];
                data.extend(digits.map(|digit| char::from(DIGITS[digit])));
            }
            _ => data.push(letter),
        }
    }
    for part in ["\",\"reason\":\"", reason, "\"}"] {
        data.push_str(part);
    }
    let mut draft = Draft::default();
    draft.set_type(RUN_END);
    draft.set_data(data.as_bytes());
    draft.seal(None, None)
}

/// The only frame of the stream for a refused client.
#[cfg(feature = "http")]
pub(crate) fn refused(retry: Duration, reason: &str) -> Bytes {
    let mut buf = Vec::with_capacity(96);
    put_line(&mut buf, EVENT, b"hub:refused");
    put_retry(&mut buf, retry);
    put_reason(&mut buf, reason);
    buf.push(b'\n');
    buf.into()
}

fn put_reason(buf: &mut Vec<u8>, reason: &str) {
    for part in ["data: {\"reason\":\"", reason, "\"}\n"] {
        buf.extend_from_slice(part.as_bytes());
    }
}

#[inline]
fn put_line(buf: &mut Vec<u8>, field: &[u8], value: &[u8]) {
    buf.reserve(field.len() + value.len() + 1);
    buf.extend_from_slice(field);
    buf.extend_from_slice(value);
    buf.push(b'\n');
}

fn put_retry(buf: &mut Vec<u8>, retry: Duration) {
    let mut digits = itoa::Buffer::new();
    put_line(buf, RETRY, digits.format(retry.as_millis()).as_bytes());
}

fn put_id(buf: &mut Vec<u8>, id: EventId) {
    let mut digits = itoa::Buffer::new();
    buf.extend_from_slice(ID);
    buf.extend_from_slice(digits.format(id.epoch()).as_bytes());
    buf.push(b'-');
    buf.extend_from_slice(digits.format(id.seq()).as_bytes());
    buf.extend_from_slice(b"\n\n");
}

/// Calls `ended` with the index of each CR and LF in `data`; `first` is the index of the first.
///
/// Makes one pass over blocks and turns each block into a word with one bit per byte. `memchr2_iter`
/// starts a search at each line end: to encode 64 KiB of 80-column lines takes 1.3 times as long with
/// it, 2 KiB of 20-column lines 1.6 times, and 64 KiB of 400-column lines 0.9 times.
fn for_each_break(data: &[u8], first: usize, mut ended: impl FnMut(usize)) {
    let mut at = first;
    while at < data.len() {
        let mut breaks = match data[at..].first_chunk::<BLOCK>() {
            Some(block) => breaks(block),
            None => {
                let mut last = [0; BLOCK];
                last[..data.len() - at].copy_from_slice(&data[at..]);
                breaks(&last)
            }
        };
        while breaks != 0 {
            ended(at + breaks.trailing_zeros() as usize);
            breaks &= breaks - 1;
        }
        at += BLOCK;
    }
}

/// Estimates the bytes that `data[from..]` takes in lines, with the tail, from the number of line
/// ends in the first blocks. `first` is the index of the first line end.
fn room(data: &[u8], from: usize, first: usize) -> usize {
    let rest = &data[first..];
    let (blocks, _) = rest.as_chunks();
    let sample = &blocks[..blocks.len().min(SAMPLE)];
    let found: u32 = sample.iter().map(|block| breaks(block).count_ones()).sum();
    let lines = rest.len() * found as usize / (sample.len() * BLOCK).max(1);
    // A reserve, because another allocation costs a copy of the whole frame.
    data.len() - from + (lines + lines / 8 + 1) * NEXT_DATA.len() + TAIL
}

/// Blocks of data whose line ends are counted for an estimate.
const SAMPLE: usize = 16;

/// Bytes in a block: one for each bit of a word.
const BLOCK: usize = 64;

/// Returns a word with a bit set for each byte that is CR or LF.
fn breaks(block: &[u8; BLOCK]) -> u64 {
    let (cr, lf) = (u8x16::splat(b'\r'), u8x16::splat(b'\n'));
    let (parts, _) = block.as_chunks();
    let bits = parts.iter().map(|&part| {
        let part = u8x16::new(part);
        u64::from((part.simd_eq(cr) | part.simd_eq(lf)).to_bitmask())
    });
    bits.rev().fold(0, |found, bits| found << 16 | bits)
}

#[cfg(all(test, feature = "json", not(sse_hub_loom)))]
mod tests {
    use super::*;

    #[test]
    fn frame_keeps_little_spare_memory() {
        for len in [1_000, 100_000] {
            let mut draft = Draft::default();
            let write = |buf: &mut Vec<u8>| {
                buf.reserve(4 * len);
                buf.resize(buf.len() + len, b'x');
                Ok::<(), ()>(())
            };
            draft.set_data_with(write).expect("no error");
            let kept = draft.seal(None, None).buf.capacity();
            assert!(kept <= len * 3 / 2, "{kept} bytes for {len}");
        }
    }
}
