//! Follows the requests of a connection by the bytes that its peer sends, as far as a deadline for
//! their heads needs: where a head begins, where it ends, and how long the body behind it is.

use std::time::Instant;

use memchr::memchr;

/// The longest part of a header line that is kept. The lines that matter are shorter.
const LINE_LEN: usize = 256;

const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// The rest of the HTTP/2 preface after its first blank line: `SM`, CR, LF, CR, LF.
const H2_PREFACE_REST: u64 = 6;

/// The requests of a connection.
#[derive(Debug)]
pub(super) struct Requests {
    state: State,
    /// The time at which the unfinished head began. `None` between heads.
    since: Option<Instant>,
    /// The beginning of the response that would agree to another protocol, if a request asked for
    /// it.
    upgrade: Option<&'static [u8]>,
}

#[derive(Debug)]
enum State {
    /// In or before the head of an HTTP/1 request.
    Head(Head),
    /// In a body of which this many bytes are missing.
    Body(u64),
    /// In the line of a chunk's size, which is this number so far.
    ChunkSize { size: u64, digits_end: bool },
    /// In a chunk of which this many bytes are missing.
    Chunk(u64),
    /// In the line end after a chunk.
    ChunkEnd,
    /// In the trailers after the last chunk: true if the line is not empty.
    Trailers { in_line: bool },
    /// In the rest of the HTTP/2 preface.
    Preface(u64),
    /// Behind the HTTP/2 preface.
    Frames(Frames),
    /// The bytes are those of another protocol.
    Upgraded,
}

/// The head of an HTTP/1 request, up to its blank line.
#[derive(Debug, Default)]
struct Head {
    /// The beginning of the current line.
    line: Vec<u8>,
    /// The request line is complete.
    has_request_line: bool,
    is_h2: bool,
    upgrade: Option<&'static [u8]>,
    is_chunked: bool,
    length: u64,
}

/// The frames of an HTTP/2 connection.
#[derive(Debug, Default)]
struct Frames {
    /// The 9 bytes of a frame's header, as far as they were read.
    header: Vec<u8>,
    /// How many bytes of the frame's payload are missing.
    payload: u64,
    /// A header block has begun, and is not complete.
    in_block: bool,
}

impl Requests {
    /// The first head is due from `now` on.
    pub(super) fn new(now: Instant) -> Self {
        Self { state: State::Head(Head::default()), since: Some(now), upgrade: None }
    }

    /// Returns the time at which the unfinished head began, if there is one.
    pub(super) fn head_since(&self) -> Option<Instant> {
        self.since
    }

    /// Takes bytes that the peer sent. Returns false if they are empty lines before a request,
    /// which mean nothing and must not keep a connection.
    pub(super) fn read(&mut self, mut bytes: &[u8], now: Instant) -> bool {
        let mut has_content = false;
        while let [first, rest @ ..] = bytes {
            has_content |= !(self.is_before_head() && matches!(first, b'\r' | b'\n'));
            bytes = match &mut self.state {
                State::Upgraded => return true,
                State::Body(missing) | State::Chunk(missing) | State::Preface(missing) => {
                    let taken = bytes.len().min(usize::try_from(*missing).unwrap_or(usize::MAX));
                    *missing -= taken as u64;
                    if *missing == 0 {
                        self.end_of_run();
                    }
                    &bytes[taken..]
                }
                State::Frames(frames) => frames.read(bytes, &mut self.since, now),
                State::Head(head) if !head.line.is_empty() && *first != b'\n' => {
                    let (line, rest) = bytes.split_at(memchr(b'\n', bytes).unwrap_or(bytes.len()));
                    let room = LINE_LEN - head.line.len();
                    head.line.extend_from_slice(&line[..line.len().min(room)]);
                    rest
                }
                _ => {
                    self.read_byte(*first, now);
                    rest
                }
            };
        }
        has_content
    }

    /// Takes bytes that the server wrote: the beginning of one write.
    pub(super) fn written(&mut self, bytes: &[u8]) {
        if self.upgrade.is_some_and(|agreement| bytes.starts_with(agreement)) {
            self.state = State::Upgraded;
            self.since = None;
        }
    }

    fn is_before_head(&self) -> bool {
        matches!(&self.state, State::Head(head) if !head.has_request_line && head.line.is_empty())
    }

    fn read_byte(&mut self, byte: u8, now: Instant) {
        match &mut self.state {
            State::Head(head) if byte == b'\n' => {
                if let Some(next) = head.end_line() {
                    self.upgrade = head.upgrade.or(self.upgrade);
                    self.since = match next {
                        // The preface is a part of the first head.
                        State::Preface(_) => self.since,
                        _ => None,
                    };
                    self.state = next;
                }
            }
            State::Head(head) => {
                if head.line.len() < LINE_LEN && (byte != b'\r' || !head.line.is_empty()) {
                    self.since.get_or_insert(now);
                    head.line.push(byte);
                }
            }
            State::ChunkSize { size: 0, .. } if byte == b'\n' => {
                self.state = State::Trailers { in_line: false };
                self.since = Some(now);
            }
            State::ChunkSize { size, .. } if byte == b'\n' => self.state = State::Chunk(*size),
            State::ChunkSize { size, digits_end } => match char::from(byte).to_digit(16) {
                Some(digit) if !*digits_end => {
                    *size = size.saturating_mul(16).saturating_add(digit.into());
                }
                _ => *digits_end = true,
            },
            State::ChunkEnd if byte == b'\n' => self.state = State::first_chunk(),
            State::Trailers { in_line: false } if byte == b'\n' => self.between_requests(),
            State::Trailers { in_line } => *in_line = !matches!(byte, b'\r' | b'\n'),
            State::ChunkEnd
            | State::Body(_)
            | State::Chunk(_)
            | State::Preface(_)
            | State::Frames(_)
            | State::Upgraded => {}
        }
    }

    /// All bytes of a run of known length were read.
    fn end_of_run(&mut self) {
        match self.state {
            State::Chunk(_) => self.state = State::ChunkEnd,
            State::Preface(_) => {
                self.state = State::Frames(Frames::default());
                self.since = None;
            }
            _ => self.between_requests(),
        }
    }

    /// The next bytes are those of a new request.
    pub(super) fn between_requests(&mut self) {
        self.state = State::Head(Head::default());
        self.since = None;
    }
}

impl State {
    fn first_chunk() -> Self {
        Self::ChunkSize { size: 0, digits_end: false }
    }
}

impl Head {
    /// Ends a line. Returns the state after the head, if the line was the last of the head.
    fn end_line(&mut self) -> Option<State> {
        let mut line = std::mem::take(&mut self.line);
        while line.last() == Some(&b'\r') {
            line.pop();
        }
        match (line.is_empty(), self.has_request_line) {
            // An empty line before a request means nothing.
            (true, false) => {}
            (true, true) => return Some(self.end()),
            (false, false) => {
                self.has_request_line = true;
                self.is_h2 = line.starts_with(H2_PREFACE);
                self.upgrade = line.starts_with(b"CONNECT ").then_some(b"HTTP/1.1 200");
            }
            (false, true) => self.read_field(&line),
        }
        // Keep the allocation for the next line.
        line.clear();
        self.line = line;
        None
    }

    fn read_field(&mut self, line: &[u8]) {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { return };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            // A server refuses a length that is not a number, and closes the connection.
            let length = str::from_utf8(value).ok().and_then(|value| value.parse().ok());
            self.length = length.unwrap_or(0);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.is_chunked = value.to_ascii_lowercase().ends_with(b"chunked");
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            self.upgrade = Some(b"HTTP/1.1 101");
        }
    }

    fn end(&self) -> State {
        match self {
            Self { is_h2: true, .. } => State::Preface(H2_PREFACE_REST),
            Self { is_chunked: true, .. } => State::first_chunk(),
            Self { length: 0, .. } => State::Head(Self::default()),
            Self { length, .. } => State::Body(*length),
        }
    }
}

impl Frames {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const CONTINUATION: u8 = 9;
    const END_HEADERS: u8 = 4;

    /// Takes bytes of one frame, and returns the rest.
    ///
    /// A header block, and every frame that is not `DATA`, must arrive in time. `DATA` is a body.
    fn read<'a>(&mut self, bytes: &'a [u8], since: &mut Option<Instant>, now: Instant) -> &'a [u8] {
        let taken = if self.payload > 0 {
            let taken = bytes.len().min(usize::try_from(self.payload).unwrap_or(usize::MAX));
            self.payload -= taken as u64;
            taken
        } else {
            since.get_or_insert(now);
            let taken = bytes.len().min(9 - self.header.len());
            self.header.extend_from_slice(&bytes[..taken]);
            if let [a, b, c, kind, flags, ..] = *self.header
                && self.header.len() == 9
            {
                self.header.clear();
                self.payload = u64::from(u32::from_be_bytes([0, a, b, c]));
                if matches!(kind, Self::HEADERS | Self::CONTINUATION) {
                    self.in_block = flags & Self::END_HEADERS == 0;
                }
                if kind == Self::DATA && !self.in_block {
                    *since = None;
                }
            }
            taken
        };
        if self.payload == 0 && self.header.is_empty() && !self.in_block {
            *since = None;
        }
        &bytes[taken..]
    }
}

#[cfg(all(test, not(sse_hub_loom)))]
mod tests {
    use std::slice;

    use super::*;

    /// Returns the state after all pieces, and whether any piece has content.
    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, now: Instant) -> (String, bool) {
        let mut requests = Requests::new(now);
        let mut has_content = false;
        for piece in pieces {
            has_content |= requests.read(piece, now);
        }
        (format!("{requests:?}"), has_content)
    }

    /// Parts of requests that random bytes do not find. A byte of 0x80 and above stands for a part.
    const WORDS: [&[u8]; 10] = [
        b"GET / HTTP/1.1\r\n",
        b"content-length: 3\r\n",
        b"transfer-encoding: chunked\r\n",
        b"upgrade: x\r\n",
        b"\r\n\r\n",
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x00\x00\x01\x01\x04\x00\x00\x00\x01x",
        b"\x00\x00\x01\x01\x00\x00\x00\x00\x01\xff",
    ];

    #[test]
    fn requests_are_the_same_however_split() {
        bolero::check!().for_each(|script: &[u8]| {
            let word = |byte: &u8| WORDS.get(usize::from(*byte).wrapping_sub(0x80));
            let part = |byte| word(byte).map_or_else(|| slice::from_ref(byte), |word| *word);
            let bytes: Vec<u8> = script.iter().flat_map(part).copied().collect();
            let now = Instant::now();
            let whole = read([&*bytes], now);
            assert_eq!(read(bytes.chunks(1), now), whole);
            assert_eq!(read(bytes.chunks(7), now), whole);
        });
    }
}
