//! The codec between instances: the bytes in which events and commands travel through a backplane.
//!
//! The bytes hold everything but the id, which the backplane assigns. Names have a length and a
//! type, so no name can be mistaken for another. Reading never panics and takes bounded time and
//! depth, because any program with access to the backplane can have written the bytes.
//!
//! The guide of the Redis engine documents the bytes for publishers in other languages
//! (`redis/format.md`), with examples that are run. A change needs a new first byte, or a new kind
//! of command: programs that this repository does not know write the present form.
//!
//! ```text
//! event       1  conflation  audience  frame      the frame takes the rest
//!             3  trace  conflation  audience  frame
//! command     2  kind  audience  rest
//!             kind 0, disconnect; kind 3, finish: reason (a text), then the frame of the last
//!             event or nothing
//!             kind 1, join; kind 2, leave: topic (a text)
//!             kind 4, join with a replay: topic (a text)  events (4 bytes)
//! clients     2  5  position  client*             the clients with topics of an instance
//! run         2  kind  run (a text)  rest         a part of the run of this name
//!             kind 6, start; kind 7, take over: producer  the type of texts (optional)
//!             kind 8, event: producer  conflation  frame
//!             kind 9, stop: reason (a text)
//!             kind 10, end: producer  state       1 finished | 2 failed | 3 stopped
//!                                                 | 4 abandoned | 5 lost
//! producer    instance (8 bytes)  serial (8 bytes, little-endian)
//! client      client id (16 bytes)  optional user  optional session  count (4 bytes)  topic*
//! topic       0, of the request | 1, joined  position  text
//! trace       trace id (16 bytes)  parent id (8 bytes)  flags (1 byte)
//! position    16 bytes, little-endian
//! optional    0 | 1 text
//! text        length (4 bytes, little-endian)  bytes
//! conflation  0 | 1 text
//! audience    0 | 1 client id (16 bytes) | 2 user | 3 session | 4 topic (a text each)
//!             | 5 count part* (any of) | 6 count part* (all of) | 7 included excluded (except)
//! ```

use std::str;
use std::sync::Arc;

use super::audience::{Audience, Expr, Size};
use super::entry::Encoded;
use super::key::{ClientId, Key};
use super::producer::ProducerId;
use super::profile::{Followed, Owner, Profile};
use super::runs::RunState;
use crate::wire::decode;
use crate::wire::event::{Event, EventType};
use crate::wire::frame::Sealed;
use crate::wire::id::EventId;
use crate::wire::traceparent::Traceparent;

/// The first byte of an event. Another first byte is another format, which this version skips.
const EVENT: u8 = 1;

/// The first byte of an event of a trace. A version without traces skips the entry, so an event
/// without a trace keeps the older form.
const TRACED: u8 = 3;

/// The first byte of a command. A version without commands skips the entry as malformed.
const COMMAND: u8 = 2;

/// The second byte of an announcement. A version without announcements skips the entry.
const ANNOUNCEMENT: u8 = 5;

/// The second bytes of the parts of runs. A version without runs skips these entries.
const RUN_START: u8 = 6;
const RUN_TAKE_OVER: u8 = 7;
const RUN_EVENT: u8 = 8;
const RUN_STOP: u8 = 9;
const RUN_END: u8 = 10;

/// The greatest kind that this version knows.
const LAST_KIND: u8 = RUN_END;

/// An announcement of several clients is not longer, so that the order has no large entries.
const MAX_ANNOUNCEMENT_LEN: usize = 32 << 10;

/// The longest reason of a disconnect, in bytes.
const MAX_REASON_LEN: usize = 64;

/// An entry of the order, as another instance wrote it.
#[derive(Debug)]
pub(crate) enum Received {
    Event(Encoded),
    Command(Command),
    Announcement(Announcement),
    Run(RunEntry),
}

/// A part of a run.
#[derive(Debug)]
pub(crate) struct RunEntry {
    pub(crate) name: Arc<str>,
    pub(crate) action: RunAction,
}

/// An action on the run of a name.
#[derive(Debug)]
pub(crate) enum RunAction {
    /// Begins a run. `takes_over`: an open run of the name gets the producer instead.
    Start {
        producer: ProducerId,
        takes_over: bool,
        /// The type whose adjacent events are one text.
        appends: Option<Box<str>>,
    },
    /// An event of the producer.
    Event { producer: ProducerId, conflation: Option<Box<str>>, sealed: Sealed },
    /// Asks the producer to stop.
    Stop { reason: Arc<str> },
    /// Ends the run of the producer. The state is not [`RunState::Open`].
    End { producer: ProducerId, state: RunState },
}

/// The kinds of the parts of a run.
///
/// Every hub applies the parts of a name in the order of their ids, by the same rule:
///
/// | part | if a run of the name is open | if not |
/// |---|---|---|
/// | `Start` | no effect: the start is refused | the run begins |
/// | `TakeOver` | the producer of the entry replaces the older | the run begins |
/// | `Event`, `End` | no effect if the producer is another | no effect |
/// | `Stop` | the first counts | no effect |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RunPartKind {
    /// A run begins.
    Start,
    /// A run begins, or gets another producer.
    TakeOver,
    /// An event of the run.
    Event,
    /// The producer must stop.
    Stop,
    /// The run ends.
    End,
}

/// The parts of an entry that an engine needs to keep a copy of each run: see
/// [`Outgoing::run`](crate::backplane::Outgoing::run).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunPart<'a> {
    /// The name of the run.
    pub name: &'a str,
    /// The kind of the part.
    pub kind: RunPartKind,
    /// Bytes that name the producer. The first 8 are those of the
    /// [instance](crate::backplane::Feed::instance). Empty for a [`Stop`](RunPartKind::Stop).
    pub producer: &'a [u8],
}

/// The clients of an instance that have joined topics, as they were at a position.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Announcement {
    pub(crate) as_of: EventId,
    pub(crate) clients: Vec<Profile>,
}

/// An action on the clients of an audience, on every instance.
///
/// A command is an entry of the same order as the events, so every instance applies it between the
/// same two events.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) audience: Audience,
    pub(crate) action: Action,
}

/// How the application ends a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndKind {
    /// At once. The client may come back.
    Disconnect,
    /// After its backlog. The client must not come back.
    Finish,
}

#[derive(Debug)]
pub(crate) enum Action {
    /// Ends the streams for a reason, after a last event.
    End {
        kind: EndKind,
        reason: Box<str>,
        last: Option<Sealed>,
    },
    Join {
        topic: Arc<str>,
        /// The most events of the topic that each client gets.
        last: u32,
    },
    Leave(Arc<str>),
}

impl Received {
    /// Reads an entry. Returns `None` if this version cannot have written the entry.
    pub(crate) fn read(entry: &[u8]) -> Option<Self> {
        match *entry.first()? {
            EVENT | TRACED => read_event(entry).map(Self::Event),
            COMMAND if entry.get(1) == Some(&ANNOUNCEMENT) => {
                read_announcement(entry).map(Self::Announcement)
            }
            COMMAND if run_kind(entry).is_some() => read_run(entry).map(Self::Run),
            COMMAND => read_command(entry).map(Self::Command),
            _ => None,
        }
    }
}

/// Returns whether an entry that this version has written lets clients join topics.
pub(crate) fn joins(entry: &[u8]) -> bool {
    // A join without and with a replay, and an announcement of clients that have joined.
    matches!(entry, [COMMAND, 1 | 4 | ANNOUNCEMENT, ..])
}

/// Returns whether this version knows the format of an entry, which the first byte names, and for a
/// command the second. A cut entry has no other format.
pub(crate) const fn is_known_format(entry: &[u8]) -> bool {
    match entry {
        [COMMAND, kind, ..] => *kind <= LAST_KIND,
        [] | [EVENT | COMMAND | TRACED, ..] => true,
        _ => false,
    }
}

/// Returns whether a stream can end with this reason. The reason is put into JSON unescaped.
pub(crate) const fn is_reason(reason: &[u8]) -> bool {
    if reason.is_empty() || reason.len() > MAX_REASON_LEN {
        return false;
    }
    let mut at = 0;
    while at < reason.len() {
        if !(reason[at].is_ascii_alphanumeric() || matches!(reason[at], b'-' | b'_')) {
            return false;
        }
        at += 1;
    }
    true
}

pub(crate) fn write_event(event: &Encoded) -> Vec<u8> {
    let frame = event.sealed.bytes();
    // Room for the header with an average audience: most entries take one allocation.
    let mut buf = Vec::with_capacity(frame.len() + 64 + Traceparent::LEN);
    match &event.trace {
        None => buf.push(EVENT),
        Some(trace) => {
            buf.push(TRACED);
            buf.extend_from_slice(trace.as_bytes());
        }
    }
    put_optional(&mut buf, event.conflation.as_deref());
    put_expr(&mut buf, &event.audience.expr);
    buf.extend_from_slice(frame);
    buf
}

/// Returns bytes that name the value that an event sets; `None` if the event has no conflation key.
/// The bytes are the same on every instance.
pub(crate) fn value_of(event: &Encoded) -> Option<Box<[u8]>> {
    let key = event.conflation.as_ref()?;
    let mut buf = Vec::with_capacity(key.len() + 64);
    put_len(&mut buf, event.sealed.event_type().len());
    buf.extend_from_slice(event.sealed.event_type());
    put_text(&mut buf, key);
    put_expr(&mut buf, &event.audience.expr);
    Some(buf.into())
}

fn read_event(entry: &[u8]) -> Option<Encoded> {
    let mut rest = entry;
    let trace = match take_byte(&mut rest)? {
        EVENT => None,
        TRACED => {
            let (trace, after) = rest.split_first_chunk()?;
            rest = after;
            Some(Traceparent::from_bytes(trace)?.into())
        }
        _ => return None,
    };
    let conflation = take_conflation(&mut rest)?;
    let mut names = Audience::MAX_NAMES;
    let audience = take_audience(&mut rest, Audience::MAX_DEPTH, &mut names)?;
    Some(Encoded { audience, conflation, trace, sealed: decode::sealed(rest)? })
}

pub(crate) fn write_command(command: &Command) -> Vec<u8> {
    let mut buf = vec![COMMAND, command.action.kind()];
    put_expr(&mut buf, &command.audience.expr);
    match &command.action {
        Action::End { reason, last, .. } => {
            put_text(&mut buf, reason);
            buf.extend_from_slice(last.as_ref().map_or(&[], Sealed::bytes));
        }
        Action::Join { topic, last } => {
            put_text(&mut buf, topic);
            if *last > 0 {
                buf.extend_from_slice(&last.to_le_bytes());
            }
        }
        Action::Leave(topic) => put_text(&mut buf, topic),
    }
    buf
}

fn read_command(entry: &[u8]) -> Option<Command> {
    let mut rest = entry;
    if take_byte(&mut rest)? != COMMAND {
        return None;
    }
    let kind = take_byte(&mut rest)?;
    let mut names = Audience::MAX_NAMES;
    let audience = take_audience(&mut rest, Audience::MAX_DEPTH, &mut names)?;
    let text = take_text(&mut rest)?;
    let action = match kind {
        0 | 3 if is_reason(text.as_bytes()) => {
            let last = if rest.is_empty() { None } else { Some(decode::sealed(rest)?) };
            let kind = if kind == 0 { EndKind::Disconnect } else { EndKind::Finish };
            Action::End { kind, reason: text.into(), last }
        }
        1 if rest.is_empty() => Action::Join { topic: text.into(), last: 0 },
        4 => {
            let last = u32::from_le_bytes(rest.try_into().ok()?);
            (last > 0).then(|| Action::Join { topic: text.into(), last })?
        }
        2 if rest.is_empty() => Action::Leave(text.into()),
        _ => return None,
    };
    Some(Command { audience, action })
}

/// Writes a part of a run.
pub(crate) fn write_run(entry: &RunEntry) -> Vec<u8> {
    let RunEntry { name, action } = entry;
    let head = |kind, frame: &[u8]| {
        // Room for the kind, the producer and a short key: most entries take one allocation.
        let mut buf = Vec::with_capacity(name.len() + frame.len() + 64);
        buf.extend_from_slice(&[COMMAND, kind]);
        put_text(&mut buf, name);
        buf
    };
    match action {
        RunAction::Start { producer, takes_over, appends } => {
            let mut buf = head(if *takes_over { RUN_TAKE_OVER } else { RUN_START }, &[]);
            buf.extend_from_slice(&producer.to_bytes());
            put_optional(&mut buf, appends.as_deref());
            buf
        }
        RunAction::Event { producer, conflation, sealed } => {
            let mut buf = head(RUN_EVENT, sealed.bytes());
            buf.extend_from_slice(&producer.to_bytes());
            put_optional(&mut buf, conflation.as_deref());
            buf.extend_from_slice(sealed.bytes());
            buf
        }
        RunAction::Stop { reason } => {
            let mut buf = head(RUN_STOP, &[]);
            put_text(&mut buf, reason);
            buf
        }
        RunAction::End { producer, state } => {
            let mut buf = head(RUN_END, &[]);
            buf.extend_from_slice(&producer.to_bytes());
            buf.push(*state as u8);
            buf
        }
    }
}

fn read_run(entry: &[u8]) -> Option<RunEntry> {
    let (kind, name, mut rest) = take_run_head(entry)?;
    let action = match kind {
        RunPartKind::Start | RunPartKind::TakeOver => {
            let producer = take_producer(&mut rest)?;
            let appends = take_optional(&mut rest)?;
            let is_type = appends.is_none_or(|name| EventType::new(name.to_owned()).is_ok());
            let takes_over = kind == RunPartKind::TakeOver;
            (is_type && rest.is_empty()).then(|| RunAction::Start {
                producer,
                takes_over,
                appends: appends.map(Into::into),
            })?
        }
        RunPartKind::Event => {
            let producer = take_producer(&mut rest)?;
            let conflation = take_conflation(&mut rest)?;
            RunAction::Event { producer, conflation, sealed: decode::sealed(rest)? }
        }
        RunPartKind::Stop => {
            let reason = take_text(&mut rest).filter(|reason| is_reason(reason.as_bytes()))?;
            rest.is_empty().then(|| RunAction::Stop { reason: reason.into() })?
        }
        RunPartKind::End => {
            let producer = take_producer(&mut rest)?;
            let &[state] = rest else { return None };
            let state = *RunState::ALL.get(usize::from(state))?;
            (state != RunState::Open).then_some(RunAction::End { producer, state })?
        }
    };
    Some(RunEntry { name: name.into(), action })
}

/// Returns the name, the kind and the producer of an entry that is a part of a run.
pub(crate) fn run_part(entry: &[u8]) -> Option<RunPart<'_>> {
    let (kind, name, rest) = take_run_head(entry)?;
    let len = if kind == RunPartKind::Stop { 0 } else { ProducerId::LEN };
    Some(RunPart { name, kind, producer: rest.get(..len)? })
}

const fn run_kind(entry: &[u8]) -> Option<RunPartKind> {
    match entry {
        [COMMAND, RUN_START, ..] => Some(RunPartKind::Start),
        [COMMAND, RUN_TAKE_OVER, ..] => Some(RunPartKind::TakeOver),
        [COMMAND, RUN_EVENT, ..] => Some(RunPartKind::Event),
        [COMMAND, RUN_STOP, ..] => Some(RunPartKind::Stop),
        [COMMAND, RUN_END, ..] => Some(RunPartKind::End),
        _ => None,
    }
}

/// Returns the kind and the name of a part of a run, and the bytes after the name.
fn take_run_head(entry: &[u8]) -> Option<(RunPartKind, &str, &[u8])> {
    let kind = run_kind(entry)?;
    let mut rest = entry.get(2..)?;
    let name = take_text(&mut rest)?;
    Some((kind, name, rest))
}

/// Writes clients into as many entries as needed, each with the number of its clients.
pub(crate) fn write_announcements(announcement: &Announcement) -> Vec<(Vec<u8>, usize)> {
    let mut entries: Vec<(Vec<u8>, usize)> = Vec::new();
    for client in &announcement.clients {
        let mut buf = Vec::new();
        buf.extend_from_slice(&client.id.0);
        put_optional(&mut buf, client.owner.user.as_deref());
        put_optional(&mut buf, client.owner.session.as_deref());
        put_len(&mut buf, client.topics.len());
        for Followed { topic, since, is_joined } in &client.topics {
            buf.push(u8::from(*is_joined));
            put_position(&mut buf, *since);
            put_text(&mut buf, topic);
        }
        match entries.last_mut() {
            Some((entry, count)) if entry.len() + buf.len() <= MAX_ANNOUNCEMENT_LEN => {
                entry.extend_from_slice(&buf);
                *count += 1;
            }
            _ => {
                let mut entry = vec![COMMAND, ANNOUNCEMENT];
                put_position(&mut entry, announcement.as_of);
                entry.extend_from_slice(&buf);
                entries.push((entry, 1));
            }
        }
    }
    entries
}

fn read_announcement(entry: &[u8]) -> Option<Announcement> {
    let mut rest = entry.strip_prefix(&[COMMAND, ANNOUNCEMENT])?;
    let as_of = take_position(&mut rest)?;
    let mut clients = Vec::new();
    while !rest.is_empty() {
        let (id, after) = rest.split_first_chunk()?;
        rest = after;
        let mut name = || Some(take_optional(&mut rest)?.map(Arc::from));
        let (user, session) = (name()?, name()?);
        let mut topics = Vec::new();
        for _ in 0..take_len(&mut rest)? {
            let is_joined = take_flag(&mut rest)?;
            let since = take_position(&mut rest)?;
            topics.push(Followed { topic: take_text(&mut rest)?.into(), since, is_joined });
        }
        clients.push(Profile { id: ClientId(*id), owner: Owner { user, session }, topics });
    }
    (!clients.is_empty()).then_some(Announcement { as_of, clients })
}

impl Action {
    const fn kind(&self) -> u8 {
        match self {
            Self::End { kind: EndKind::Disconnect, .. } => 0,
            Self::End { kind: EndKind::Finish, .. } => 3,
            // A version without replays skips the command of a join with a replay.
            Self::Join { last: 0, .. } => 1,
            Self::Join { .. } => 4,
            Self::Leave(_) => 2,
        }
    }
}

fn put_text(buf: &mut Vec<u8>, text: &str) {
    put_len(buf, text.len());
    buf.extend_from_slice(text.as_bytes());
}

fn put_optional(buf: &mut Vec<u8>, text: Option<&str>) {
    buf.push(u8::from(text.is_some()));
    if let Some(text) = text {
        put_text(buf, text);
    }
}

fn put_position(buf: &mut Vec<u8>, position: EventId) {
    buf.extend_from_slice(&position.epoch().to_le_bytes());
    buf.extend_from_slice(&position.seq().to_le_bytes());
}

/// All lengths are far below 2^32, because names, keys and the parts of an audience are limited.
fn put_len(buf: &mut Vec<u8>, len: usize) {
    buf.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_expr(buf: &mut Vec<u8>, expr: &Expr) {
    match expr {
        Expr::Holds(Key::All) => buf.push(0),
        Expr::Holds(Key::Client(id)) => {
            buf.push(1);
            buf.extend_from_slice(&id.0);
        }
        Expr::Holds(Key::User(name)) => put_name(buf, 2, name),
        Expr::Holds(Key::Session(name)) => put_name(buf, 3, name),
        Expr::Holds(Key::Topic(name)) => put_name(buf, 4, name),
        // The events of runs travel as parts of the run: no version reads this kind.
        Expr::Holds(Key::Run(name)) => put_name(buf, u8::MAX, name),
        Expr::AnyOf(parts) => put_parts(buf, 5, parts),
        Expr::AllOf(parts) => put_parts(buf, 6, parts),
        Expr::Except(sides) => {
            buf.push(7);
            sides.iter().for_each(|side| put_expr(buf, &side.expr));
        }
    }
}

fn put_name(buf: &mut Vec<u8>, kind: u8, name: &str) {
    buf.push(kind);
    put_text(buf, name);
}

fn put_parts(buf: &mut Vec<u8>, kind: u8, parts: &[Expr]) {
    buf.push(kind);
    put_len(buf, parts.len());
    parts.iter().for_each(|part| put_expr(buf, part));
}

fn take_byte(rest: &mut &[u8]) -> Option<u8> {
    rest.split_off_first().copied()
}

fn take_flag(rest: &mut &[u8]) -> Option<bool> {
    match take_byte(rest)? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

/// Takes a text or nothing. The outer option is `None` if there is neither.
fn take_optional<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a str>> {
    if take_flag(rest)? { Some(Some(take_text(rest)?)) } else { Some(None) }
}

/// Takes a conflation key or nothing, as [`take_optional`] does.
fn take_conflation(rest: &mut &[u8]) -> Option<Option<Box<str>>> {
    let key = take_optional(rest)?;
    let is_valid = key.is_none_or(|key| key.len() <= Event::MAX_KEY_LEN);
    is_valid.then(|| key.map(Into::into))
}

fn take_producer(rest: &mut &[u8]) -> Option<ProducerId> {
    let (bytes, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(ProducerId::from_bytes(bytes))
}

fn take_position(rest: &mut &[u8]) -> Option<EventId> {
    let mut number = || {
        let (number, after) = rest.split_first_chunk()?;
        *rest = after;
        Some(u64::from_le_bytes(*number))
    };
    Some(EventId::new(number()?, number()?))
}

fn take_len(rest: &mut &[u8]) -> Option<usize> {
    let (len, after) = rest.split_first_chunk()?;
    *rest = after;
    usize::try_from(u32::from_le_bytes(*len)).ok()
}

/// Takes a text of at least one byte.
fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let len = take_len(rest).filter(|&len| len > 0)?;
    str::from_utf8(rest.split_off(..len)?).ok()
}

/// Takes an audience of at most `depth` levels; `names` counts down the names that it may have.
fn take_audience(rest: &mut &[u8], depth: usize, names: &mut usize) -> Option<Audience> {
    if depth == 0 {
        return None;
    }
    let kind = take_byte(rest)?;
    let key = match kind {
        0 => Key::All,
        1 => {
            let (id, after) = rest.split_first_chunk()?;
            *rest = after;
            Key::Client(ClientId(*id))
        }
        2 => Key::User(take_text(rest)?.into()),
        3 => Key::Session(take_text(rest)?.into()),
        4 => Key::Topic(take_text(rest)?.into()),
        5 | 6 => {
            // An `or` of nothing addresses nobody. No hub writes an `and` of nothing.
            let count = take_len(rest).filter(|&count| kind == 5 || count > 0)?;
            *names = names.checked_sub(usize::from(count == 0))?;
            // As `Audience::or` and `and` count: a part takes a level, also if there is none.
            let mut size = Size { names: 0, depth: 1 };
            let mut parts = Vec::new();
            for _ in 0..count {
                let part = take_audience(rest, depth - 1, names)?;
                size = size.beside(part.size);
                parts.push(part.expr);
            }
            let join = if kind == 5 { Expr::AnyOf } else { Expr::AllOf };
            let size = Size { names: size.names.max(1), depth: size.depth + 1 };
            return Some(Audience { expr: join(Arc::new(parts)), size });
        }
        7 => {
            let included = take_audience(rest, depth - 1, names)?;
            let excluded = take_audience(rest, depth - 1, names)?;
            let size = included.size.around(excluded.size);
            return Some(Audience { expr: Expr::Except(Arc::new([included, excluded])), size });
        }
        _ => return None,
    };
    *names = names.checked_sub(1)?;
    Some(Audience { expr: Expr::Holds(key), size: Size::ONE })
}

#[cfg(all(test, not(sse_hub_loom)))]
mod tests {
    use std::convert::Infallible;

    use eventsource_stream::Eventsource as _;
    use futures_util::{FutureExt as _, StreamExt as _, stream};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;
    use crate::log::producer::InstanceId;

    /// Names that look like lengths, kinds, separators, lines, and each other.
    fn name() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-c_:|,\\-]{1,4}",
            "\\PC{1,8}",
            Just("\0\0\0\u{1}\u{2}".to_owned()),
            Just("\r\nid: 7".to_owned()),
            Just("x".repeat(256)),
        ]
    }

    fn audience() -> impl Strategy<Value = Audience> {
        let leaf = prop_oneof![
            Just(Audience::all()),
            Just(Audience::client("00112233445566778899aabbccddeeff".parse().unwrap())),
            name().prop_map(Audience::user),
            name().prop_map(Audience::session),
            name().prop_map(Audience::topic),
            vec(name(), 0..4).prop_map(Audience::users),
        ];
        leaf.prop_recursive(5, 32, 3, |inner| {
            (inner.clone(), inner, 0..3u8).prop_map(|(left, right, operation)| match operation {
                0 => left.or(right),
                1 => left.and(right),
                _ => left.except(right),
            })
        })
    }

    fn event() -> impl Strategy<Value = Encoded> {
        let trace = any::<[u8; Traceparent::LEN]>();
        let trace = prop::option::of(
            trace.prop_filter_map("zero", |it| Traceparent::from_bytes(&it).map(Box::new)),
        );
        let parts = (prop::option::of(name()), prop::option::of("[a-z]{1,4}"), ".{0,40}");
        (audience(), trace, parts).prop_map(|(audience, trace, (conflation, event_type, data))| {
            let event = event_type.map_or_else(Event::default, Event::new).data(data);
            let conflation = conflation.map(Into::into);
            Encoded { audience, conflation, trace, sealed: event.seal() }
        })
    }

    fn command() -> impl Strategy<Value = Command> {
        let last = prop::option::of(".{0,20}".prop_map(|data| Event::new("bye").data(data).seal()));
        let action = prop_oneof![
            ("[a-zA-Z0-9_-]{1,64}", last, any::<bool>()).prop_map(|(reason, last, is_final)| {
                Action::End {
                    kind: if is_final { EndKind::Finish } else { EndKind::Disconnect },
                    reason: reason.into(),
                    last,
                }
            }),
            (name(), prop_oneof![Just(0), any::<u32>()])
                .prop_map(|(topic, last)| Action::Join { topic: topic.into(), last }),
            name().prop_map(|topic| Action::Leave(topic.into())),
        ];
        (audience(), action).prop_map(|(audience, action)| Command { audience, action })
    }

    fn announcement() -> impl Strategy<Value = Announcement> {
        let position = || (any::<u64>(), any::<u64>()).prop_map(|(a, b)| EventId::new(a, b));
        let topic = (name(), position(), any::<bool>()).prop_map(|(topic, since, is_joined)| {
            Followed { topic: topic.into(), since, is_joined }
        });
        let text = || prop::option::of(name().prop_map(Arc::from));
        let client = (any::<[u8; 16]>(), text(), text(), vec(topic, 0..4)).prop_map(
            |(id, user, session, topics)| Profile {
                id: ClientId(id),
                owner: Owner { user, session },
                topics,
            },
        );
        (position(), vec(client, 1..4)).prop_map(|(as_of, clients)| Announcement { as_of, clients })
    }

    fn run_entry() -> impl Strategy<Value = RunEntry> {
        let producer = || {
            (any::<[u8; 8]>(), any::<u64>()).prop_map(|(instance, serial)| ProducerId {
                instance: InstanceId::from_bytes(instance),
                serial,
            })
        };
        let appends = prop::option::of("[a-z]{1,4}".prop_map(Into::into));
        let state = prop::sample::select(&RunState::ALL[1..]);
        let action = prop_oneof![
            (producer(), any::<bool>(), appends).prop_map(|(producer, takes_over, appends)| {
                RunAction::Start { producer, takes_over, appends }
            }),
            (producer(), event()).prop_map(|(producer, event)| {
                let Encoded { conflation, sealed, .. } = event;
                RunAction::Event { producer, conflation, sealed }
            }),
            "[a-zA-Z0-9_-]{1,64}".prop_map(|reason| RunAction::Stop { reason: reason.into() }),
            (producer(), state).prop_map(|(producer, state)| RunAction::End { producer, state }),
        ];
        (name(), action).prop_map(|(name, action)| RunEntry { name: name.into(), action })
    }

    fn entry() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            run_entry().prop_map(|entry| write_run(&entry)),
            announcement().prop_map(|clients| write_announcements(&clients).remove(0).0),
            event().prop_map(|event| write_event(&event)),
            command().prop_map(|command| write_command(&command)),
        ]
    }

    /// A change of an entry's bytes.
    #[derive(Debug, Clone)]
    enum Damage {
        Set(Index, u8),
        Insert(Index, u8),
        Remove(Index),
        Truncate(Index),
        /// Continues with a part of another entry.
        Splice(Index, Index),
        Append(Vec<u8>),
        /// Repeats the rest.
        Repeat(Index),
    }

    /// Small numbers are kinds and lengths.
    fn damage() -> impl Strategy<Value = Damage> {
        let byte = || prop_oneof![any::<u8>(), 0..8u8, Just(b'\n')];
        prop_oneof![
            4 => (any::<Index>(), byte()).prop_map(|(at, byte)| Damage::Set(at, byte)),
            2 => (any::<Index>(), byte()).prop_map(|(at, byte)| Damage::Insert(at, byte)),
            2 => any::<Index>().prop_map(Damage::Remove),
            1 => any::<Index>().prop_map(Damage::Truncate),
            2 => any::<(Index, Index)>().prop_map(|(at, from)| Damage::Splice(at, from)),
            3 => vec(byte(), 1..5).prop_map(Damage::Append),
            1 => any::<Index>().prop_map(Damage::Repeat),
        ]
    }

    impl Damage {
        fn to(&self, mut bytes: Vec<u8>, other: &[u8]) -> Vec<u8> {
            // The end is a place, too.
            let place = |at: &Index| at.index(bytes.len() + 1);
            match self {
                Self::Set(at, byte) if place(at) < bytes.len() => {
                    let at = place(at);
                    bytes[at] = *byte;
                }
                Self::Remove(at) if place(at) < bytes.len() => {
                    bytes.remove(place(at));
                }
                Self::Set(..) | Self::Remove(_) => {}
                Self::Insert(at, byte) => bytes.insert(place(at), *byte),
                Self::Truncate(at) => bytes.truncate(place(at)),
                Self::Splice(at, from) => {
                    bytes.truncate(place(at));
                    bytes.extend_from_slice(&other[from.index(other.len() + 1)..]);
                }
                Self::Append(more) => bytes.extend_from_slice(more),
                Self::Repeat(at) => bytes.extend_from_within(place(at)..),
            }
            bytes
        }
    }

    fn write(received: &Received) -> Vec<u8> {
        match received {
            Received::Event(event) => write_event(event),
            Received::Command(command) => write_command(command),
            Received::Announcement(clients) => write_announcements(clients).remove(0).0,
            Received::Run(entry) => write_run(entry),
        }
    }

    proptest! {
        #[test]
        fn an_event_survives_the_trip(event in event()) {
            let written = write_event(&event);
            let Some(Received::Event(read)) = Received::read(&written) else {
                panic!("not read: {written:?}");
            };
            prop_assert_eq!(&read.audience, &event.audience);
            // The builder also counts names that a chain merged, so its size can be larger.
            prop_assert!(read.audience.size.names <= event.audience.size.names);
            prop_assert_eq!(read.audience.size.depth, event.audience.size.depth);
            prop_assert_eq!(&read.conflation, &event.conflation);
            prop_assert_eq!(&read.trace, &event.trace);
            prop_assert_eq!(read.sealed.bytes(), event.sealed.bytes());
            prop_assert!(!joins(&written));
            prop_assert_eq!(write_event(&read), written);
        }

        #[test]
        fn a_command_survives_the_trip(command in command()) {
            let written = write_command(&command);
            let Some(Received::Command(read)) = Received::read(&written) else {
                panic!("not read: {written:?}");
            };
            prop_assert_eq!(&read.audience, &command.audience);
            prop_assert_eq!(read.action.kind(), command.action.kind());
            prop_assert!(is_known_format(&written));
            prop_assert_eq!(joins(&written), matches!(command.action, Action::Join { .. }));
            prop_assert_eq!(write_command(&read), written);
        }

        #[test]
        fn an_announcement_survives_the_trip(announcement in announcement()) {
            let written = write_announcements(&announcement);
            prop_assert_eq!(written.len(), 1);
            prop_assert!(joins(&written[0].0));
            let Some(Received::Announcement(read)) = Received::read(&written[0].0) else {
                panic!("not read: {written:?}");
            };
            prop_assert_eq!(read, announcement);
        }

        #[test]
        fn a_part_of_a_run_survives_the_trip(entry in run_entry()) {
            let written = write_run(&entry);
            prop_assert!(is_known_format(&written) && !joins(&written));
            let Some(Received::Run(read)) = Received::read(&written) else {
                panic!("not read: {written:?}");
            };
            prop_assert_eq!(&read.name, &entry.name);
            prop_assert_eq!(format!("{:?}", read.action), format!("{:?}", entry.action));
            prop_assert_eq!(write_run(&read), &*written);
            let part = run_part(&written).unwrap();
            prop_assert_eq!(part.name, &*entry.name);
            let (kind, producer) = match entry.action {
                RunAction::Start { producer, takes_over: false, .. } => {
                    (RunPartKind::Start, Some(producer))
                }
                RunAction::Start { producer, .. } => (RunPartKind::TakeOver, Some(producer)),
                RunAction::Event { producer, .. } => (RunPartKind::Event, Some(producer)),
                RunAction::Stop { .. } => (RunPartKind::Stop, None),
                RunAction::End { producer, .. } => (RunPartKind::End, Some(producer)),
            };
            prop_assert_eq!(part.kind, kind);
            let bytes = producer.map(ProducerId::to_bytes);
            prop_assert_eq!(part.producer, bytes.as_ref().map_or(&[][..], |bytes| bytes));
        }

        #[test]
        fn only_parts_of_runs_name_a_run(event in event(), command in command()) {
            prop_assert!(run_part(&write_event(&event)).is_none());
            prop_assert!(run_part(&write_command(&command)).is_none());
        }

        #[test]
        fn a_damaged_entry_is_refused_or_valid(
            written in entry(), other in entry(), damages in vec(damage(), 1..4),
        ) {
            let damaged = damages.iter().fold(written, |bytes, damage| damage.to(bytes, &other));
            is_refused_or_valid(&damaged);
        }
    }

    /// Checks an entry that any program may have written: the codec refuses the entry, or writes
    /// the same bytes again.
    fn is_refused_or_valid(entry: &[u8]) {
        let Some(read) = Received::read(entry) else { return };
        assert_eq!(write(&read), entry);
        assert!(is_known_format(entry));
        let is_run = matches!(read, Received::Run(_));
        assert_eq!(run_part(entry).is_some(), is_run);
        let frame = match read {
            Received::Event(event) => Some(event.sealed),
            Received::Run(RunEntry { action: RunAction::Event { sealed, .. }, .. }) => Some(sealed),
            Received::Command(Command { action: Action::End { last, .. }, .. }) => last,
            Received::Run(_) | Received::Command(_) | Received::Announcement(_) => None,
        };
        frame.into_iter().for_each(is_one_event);
    }

    /// Checks that a frame of another program is one event to a foreign parser, as the log stores
    /// the event, and that only its own id is an id.
    fn is_one_event(sealed: Sealed) {
        let [id, other] = [EventId::new(1, 2), EventId::new(u64::MAX, 3)];
        let text = String::from_utf8(sealed.bytes().to_vec()).unwrap();
        let frame = sealed.finish(id);
        let mut without_id = Vec::new();
        frame.put_without_id(&mut without_id);
        assert_eq!(without_id, format!("{text}\n").into_bytes());
        assert_eq!(frame.with_id(other), format!("{text}id: {other}\n\n"));

        let bytes = frame.into_bytes();
        let events = stream::iter([Ok::<_, Infallible>(bytes.clone())]).eventsource();
        let events: Vec<_> = events.collect().now_or_never().expect("all bytes are there");
        let events = events.into_iter().map(|event| {
            let event = event.expect("an event");
            assert_eq!(event.id, id.to_string());
            assert!(!event.event.starts_with("hub:"));
            (event.event, event.data)
        });
        assert_eq!(events.collect::<Vec<_>>(), Vec::from_iter(decode::stored(&bytes)));
    }

    #[test]
    fn garbage_is_refused_or_valid() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let mut entry = bytes.to_vec();
            // The first bytes of entries are below 4.
            if let Some(first) = entry.first_mut() {
                *first %= 5;
            }
            is_refused_or_valid(&entry);
        });
    }

    #[test]
    fn announcements_of_many_clients_are_split() {
        let client = |id: u8, topics: usize| {
            let topic = |number| Followed {
                topic: format!("{number:0>100}").into(),
                since: EventId::new(7, 0),
                is_joined: true,
            };
            let topics = (0..topics).map(topic).collect();
            Profile { id: ClientId([id; 16]), owner: Owner { user: None, session: None }, topics }
        };
        // Larger than an entry, and then many small clients.
        let clients: Vec<_> =
            (0..250).map(|id| client(id, if id == 0 { 400 } else { 3 })).collect();
        let written = write_announcements(&Announcement { as_of: EventId::new(9, 0), clients });
        assert_eq!(written[0].1, 1);
        assert!(written[1..].iter().all(|(entry, _)| entry.len() <= MAX_ANNOUNCEMENT_LEN));
        assert_eq!(written.len(), 4, "as few as possible");
        let mut ids = Vec::new();
        for (entry, count) in &written {
            let Some(Received::Announcement(read)) = Received::read(entry) else {
                panic!("not read: {entry:?}");
            };
            assert_eq!((read.as_of, read.clients.len()), (EventId::new(9, 0), *count));
            ids.extend(read.clients.iter().map(|client| client.id.0[0]));
        }
        assert!(ids.into_iter().eq(0..250));
    }

    #[test]
    fn a_too_deep_or_too_large_audience_is_refused() {
        let is_read = |audience: &[u8]| {
            Received::read(&[&[EVENT, 0], audience, b"data: x\n"].concat()).is_some()
        };
        assert!(is_read(&[0]));
        // An `or`, and the two sides of an `except`.
        let operations: [(&[u8], &[u8]); 3] =
            [(&[5, 1, 0, 0, 0], &[]), (&[7], &[0]), (&[7, 0], &[])];
        for (before, after) in operations {
            let nested =
                |depth: usize| [&before.repeat(depth), &[0][..], &after.repeat(depth)].concat();
            assert!(is_read(&nested(Audience::MAX_DEPTH - 1)));
            assert!(!is_read(&nested(Audience::MAX_DEPTH)));
            assert!(!is_read(&nested(1_000_000)));
        }
        let wide = |count: u32| [&[5][..], &count.to_le_bytes(), &vec![0; count as usize]].concat();
        assert!(is_read(&wide(10_000)));
        assert!(!is_read(&wide(10_001)));
        assert!(!is_read(&[5, 255, 255, 255, 255]));
        assert!(!is_read(&[2, 0, 0, 0, 0]), "an empty name");
        assert!(is_read(&[5, 0, 0, 0, 0]), "an `or` of nothing");
        assert!(!is_read(&[6, 0, 0, 0, 0]), "an `and` of nothing");
    }

    #[test]
    fn a_later_format_is_not_a_malformed_entry() {
        for later in [&b"\x00"[..], b"\x04\x00\x00data: x\n", b"\xff", b"\x02\x0b", b"\x02\xff\x00"]
        {
            assert!(!is_known_format(later), "{later:?}");
            assert!(Received::read(later).is_none(), "{later:?}");
        }
        let cuts = [
            &b""[..],
            b"\x01",
            b"\x01\x00",
            b"\x02",
            b"\x02\x05",
            b"\x02\x0a",
            b"\x01\x09",
            b"\x03",
        ];
        for cut in cuts {
            assert!(is_known_format(cut), "{cut:?}");
            assert!(Received::read(cut).is_none(), "{cut:?}");
        }
    }

    #[test]
    fn a_trace_leaves_the_rest_of_the_entry_unchanged() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let event = |trace: Option<&str>| Encoded {
            audience: Audience::user("7"),
            conflation: Some("key".into()),
            trace: trace.map(|text| Traceparent::parse(text).unwrap().into()),
            sealed: Event::new("x").data("y").seal(),
        };
        let (plain, traced) = (write_event(&event(None)), write_event(&event(Some(text))));
        assert_eq!((plain[0], traced[0]), (EVENT, TRACED));
        assert_eq!(plain[1..], traced[1 + Traceparent::LEN..]);
        assert_eq!(value_of(&event(None)), value_of(&event(Some(text))));
        // A trace id of zero is no trace.
        let forged = [&[TRACED][..], &[0; 16], &traced[17..]].concat();
        assert!(Received::read(&traced).is_some() && Received::read(&forged).is_none());
        assert!(is_known_format(&forged));
    }

    #[test]
    fn a_too_long_conflation_key_is_refused() {
        let is_read = |head: &[u8], len: usize| {
            let key = [&[1][..], &(len as u32).to_le_bytes(), &vec![b'k'; len]].concat();
            let audience: &[u8] = if head[0] == EVENT { &[0] } else { &[] };
            Received::read(&[head, &key, audience, b"data: x\n"].concat()).is_some()
        };
        let part = [&[COMMAND, RUN_EVENT][..], b"\x01\0\0\0x", &[7; ProducerId::LEN]].concat();
        for head in [&[EVENT][..], &part] {
            assert!(is_read(head, Event::MAX_KEY_LEN));
            assert!(!is_read(head, Event::MAX_KEY_LEN + 1));
        }
    }

    #[test]
    fn a_command_of_no_hub_is_refused() {
        let is_read = |kind: u8, rest: &[u8]| {
            Received::read(&[&[COMMAND, kind, 0][..], rest].concat()).is_some()
        };
        assert!(is_read(0, b"\x01\0\0\0x") && is_read(3, b"\x01\0\0\0x"));
        assert!(is_read(0, b"\x01\0\0\0xdata: bye\n"));
        assert!(!is_read(0, b"\x01\0\0\0xevent: hub:open\ndata: {}\n"), "a reserved type");
        assert!(!is_read(0, b"\x01\0\0\0\""), "the reason would end its JSON string");
        assert!(is_read(1, b"\x01\0\0\0x") && is_read(2, b"\x01\0\0\0x"));
        assert!(!is_read(1, b"\x01\0\0\0xdata: bye\n"), "bytes after the topic");
        assert!(is_read(4, b"\x01\0\0\0x\x01\0\0\0"));
        assert!(!is_read(4, b"\x01\0\0\0x\0\0\0\0"), "no event to replay");
        assert!(!is_read(4, b"\x01\0\0\0x") && !is_read(4, b"\x01\0\0\0x\x01\0\0\0\0"));
        assert!(!is_read(1, b"\0\0\0\0") && !is_read(5, b"\x01\0\0\0x"));
    }

    #[test]
    fn a_part_of_a_run_of_no_hub_is_refused() {
        let producer = [7; ProducerId::LEN];
        let is_read = |kind: u8, parts: &[&[u8]]| {
            Received::read(&[&[COMMAND, kind][..], b"\x01\0\0\0x", &parts.concat()].concat())
                .is_some()
        };
        assert!(is_read(6, &[&producer, &[0]]) && is_read(7, &[&producer, b"\x01\x01\0\0\0t"]));
        assert!(!is_read(6, &[&producer, &[2]]) && !is_read(6, &[&producer[1..], &[0]]));
        assert!(!is_read(6, &[&producer, &[0, 0]]), "bytes after the start");
        assert!(!is_read(6, &[&producer, b"\x01\x01\0\0\0\n"]), "a type with a line end");
        assert!(!is_read(6, &[&producer, b"\x01\x04\0\0\0hub:"]), "a reserved type");
        assert!(is_read(8, &[&producer, &[0], b"data: x\n"]));
        assert!(!is_read(8, &[&producer, &[0], b"event: hub:run-end\ndata: {}\n"]));
        assert!(!is_read(8, &[&producer, &[0]]), "no frame");
        assert!(is_read(9, &[b"\x01\0\0\0x"]));
        assert!(!is_read(9, &[b"\x01\0\0\0\""]) && !is_read(9, &[b"\x01\0\0\0xx"]));
        assert!((1..=5).all(|state| is_read(10, &[&producer, &[state]])));
        assert!(!is_read(10, &[&producer, &[0]]), "an open run is no end");
        assert!(!is_read(10, &[&producer, &[6]]) && !is_read(10, &[&producer, &[1, 1]]));
        assert!(Received::read(&[COMMAND, 9, 0, 0, 0, 0, 1, 0, 0, 0, b'x']).is_none(), "no name");
    }
}
