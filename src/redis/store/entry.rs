//! Reads the entries of the stream. Anything may stand there: an entry that no hub wrote is
//! malformed, and never a panic.

use redis::Value;

use crate::EventId;

/// An entry of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: EventId,
    pub(crate) content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// An event or a command, and a link of the chain.
    Link {
        /// The id of the entry before.
        previous: EventId,
        /// The bytes that the hub reads. Their form is not checked yet.
        bytes: Vec<u8>,
    },
    /// Says that the order went backwards before this entry.
    Reset { previous: EventId },
    /// Not written by a hub.
    Malformed,
}

/// An entry of the copy of a run: the bytes that the hub reads, or `None` if no hub wrote the
/// entry.
pub(crate) type CopiedEntry = (EventId, Option<Vec<u8>>);

/// Returns the entries in the answer to `XREAD` of a stream, in order; `None` if the answer has
/// another form.
pub(crate) fn read(answer: Value) -> Option<Vec<Entry>> {
    let entries = match answer {
        Value::Nil => return Some(Vec::new()),
        Value::Array(streams) => match streams.into_iter().next()? {
            Value::Array(stream) => stream.into_iter().nth(1)?,
            _ => return None,
        },
        Value::Map(streams) => streams.into_iter().next()?.1,
        _ => return None,
    };
    range(entries)
}

/// Returns the entries in the answer to `XRANGE` or `XREVRANGE`.
pub(crate) fn range(answer: Value) -> Option<Vec<Entry>> {
    let Value::Array(entries) = answer else { return None };
    entries.into_iter().map(entry).collect()
}

/// Returns the entries of the copy of a run in the answer to `XRANGE`; `None` if the answer has
/// another form.
pub(crate) fn copied(answer: Value) -> Option<Vec<CopiedEntry>> {
    let Value::Array(entries) = answer else { return None };
    let entry = |entry: Value| {
        let Value::Array(parts) = entry else { return None };
        let mut parts = parts.into_iter();
        let id = id(&parts.next()?)?;
        let bytes = match parts.next() {
            Some(Value::Array(fields)) => match <[Value; 2]>::try_from(fields) {
                Ok([Value::BulkString(name), Value::BulkString(bytes)]) if name == b"e" => {
                    Some(bytes)
                }
                _ => None,
            },
            _ => None,
        };
        Some((id, bytes))
    };
    entries.into_iter().map(entry).collect()
}

/// An entry without an id fails the answer: the reader could not go on after it.
fn entry(value: Value) -> Option<Entry> {
    let Value::Array(parts) = value else { return None };
    let mut parts = parts.into_iter();
    let id = id(&parts.next()?)?;
    let content = parts.next().and_then(content).filter(|content| content.follows_before(id));
    Some(Entry { id, content: content.unwrap_or(Content::Malformed) })
}

impl Content {
    /// Whether the entry names an earlier entry, as all entries of a hub do. A forged predecessor
    /// must not become the position of a hub.
    fn follows_before(&self, id: EventId) -> bool {
        match self {
            Self::Link { previous, .. } | Self::Reset { previous } => *previous < id,
            Self::Malformed => true,
        }
    }
}

fn content(fields: Value) -> Option<Content> {
    let Value::Array(fields) = fields else { return None };
    let (mut previous, mut link, mut is_reset) = (None, None, false);
    let mut fields = fields.into_iter();
    while let (Some(Value::BulkString(name)), Some(value)) = (fields.next(), fields.next()) {
        match (&*name, value) {
            (b"p", value) => previous = id(&value),
            (b"e", Value::BulkString(value)) => link = Some(value),
            (b"r", _) => is_reset = true,
            // Of a later version.
            _ => {}
        }
    }
    let previous = previous?;
    match (link, is_reset) {
        (Some(bytes), false) => Some(Content::Link { previous, bytes }),
        (None, true) => Some(Content::Reset { previous }),
        _ => None,
    }
}

fn id(value: &Value) -> Option<EventId> {
    match value {
        Value::BulkString(bytes) => EventId::from_bytes(bytes).ok(),
        _ => None,
    }
}

/// Entries for the tests of the modules that read them: at a position, after another.
#[cfg(test)]
pub(crate) mod made {
    use super::*;

    pub(crate) fn at(position: u64) -> EventId {
        EventId::new(position, 0)
    }

    pub(crate) fn event(position: u64, previous: u64) -> Entry {
        link(position, previous, b"\x01\x00\x00data: x\n")
    }

    pub(crate) fn command(position: u64, previous: u64) -> Entry {
        link(position, previous, b"\x02\x01\x00\x01\0\0\0t")
    }

    pub(crate) fn link(position: u64, previous: u64, bytes: &[u8]) -> Entry {
        let content = Content::Link { previous: at(previous), bytes: bytes.to_vec() };
        Entry { id: at(position), content }
    }

    pub(crate) fn reset(position: u64, previous: u64) -> Entry {
        Entry { id: at(position), content: Content::Reset { previous: at(previous) } }
    }

    pub(crate) fn malformed(position: u64) -> Entry {
        Entry { id: at(position), content: Content::Malformed }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::backplane::{Incoming, Kind};

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn answer(fields: &[&str]) -> Value {
        let fields = Value::Array(fields.iter().copied().map(text).collect());
        Value::Array(vec![Value::Array(vec![text("5-1"), fields])])
    }

    fn of(fields: &[&str]) -> Content {
        range(answer(fields)).unwrap().remove(0).content
    }

    #[test]
    fn written_entries_are_read_beside_unknown_fields() {
        let link =
            |bytes: &[u8]| Content::Link { previous: EventId::new(5, 0), bytes: bytes.to_vec() };
        assert_eq!(of(&["e", "x", "p", "5-0"]), link(b"x"));
        assert_eq!(of(&["p", "5-0", "later", "y", "e", "x"]), link(b"x"));
        assert_eq!(of(&["e", "\u{2}x", "p", "5-0"]), link(b"\x02x"));
        let reset = Content::Reset { previous: EventId::new(0, 0) };
        assert_eq!(of(&["r", "4-9", "p", "0-0"]), reset);
    }

    #[test]
    fn other_fields_are_malformed_and_keep_their_position() {
        for fields in [
            &[][..],
            &["e"],
            &["e", "x"],
            &["p", "5-0"],
            &["e", "x", "p", "*"],
            &["e", "x", "p", "05-0"],
            &["e", "x", "r", "4-9", "p", "5-0"],
            &["r", "4-9", "p", "$"],
            &["e", "x", "p", "5-1"],
            &["e", "x", "p", "18446744073709551615-0"],
            &["r", "4-9", "p", "6-0"],
            &["", ""],
        ] {
            assert_eq!(of(fields), Content::Malformed, "{fields:?}");
        }
        let odd = Value::Array(vec![Value::Array(vec![text("5-1"), Value::Int(7)])]);
        let malformed = Entry { id: EventId::new(5, 1), content: Content::Malformed };
        assert_eq!(range(odd).unwrap()[0], malformed);
    }

    #[test]
    fn answers_of_both_protocols_are_read() {
        let entries = || answer(&["e", "x", "p", "5-0"]);
        let array = Value::Array(vec![Value::Array(vec![text("stream"), entries()])]);
        let map = Value::Map(vec![(text("stream"), entries())]);
        assert_eq!(read(array), range(entries()));
        assert_eq!(read(map), range(entries()));
        assert_eq!(read(Value::Nil), Some(vec![]));
        for other in [Value::Okay, Value::Array(vec![]), Value::Array(vec![Value::Okay])] {
            assert_eq!(read(other), None);
        }
        assert_eq!(range(Value::Nil), None);
    }

    #[test]
    fn kinds_are_told_apart() {
        let kind = |entry: &[u8]| Incoming::parse(entry).map(|entry| entry.kind()).ok();
        assert_eq!(kind(b"\x01\x00\x00data: x\n"), Some(Kind::Event));
        assert_eq!(kind(b"\x02\x01\x00\x01\0\0\0t"), Some(Kind::Command));
        assert_eq!(kind(b"\x02junk"), None);
        assert_eq!(kind(b""), None);
    }

    /// The values that a server, or an attacker who can write to the stream, can answer with.
    fn value() -> impl Strategy<Value = Value> {
        let field = prop_oneof![
            Just(b"e".to_vec()),
            Just(b"p".to_vec()),
            Just(b"r".to_vec()),
            Just(b"5-1".to_vec()),
            Just(b"18446744073709551615-18446744073709551615".to_vec()),
            "[0-9]{0,21}-[0-9]{0,21}".prop_map(String::into_bytes),
            vec(any::<u8>(), 0..24),
            Just(b"\x01\x00\x00data: x\n".to_vec()),
        ];
        let leaf = prop_oneof![
            8 => field.prop_map(Value::BulkString),
            1 => any::<i64>().prop_map(Value::Int),
            1 => Just(Value::Nil),
            1 => Just(Value::Okay),
            1 => ".{0,8}".prop_map(Value::SimpleString),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                4 => vec(inner.clone(), 0..8).prop_map(Value::Array),
                1 => vec((inner.clone(), inner), 0..3).prop_map(Value::Map),
            ]
        })
    }

    /// The answer to `XRANGE` of entries whose ids are whole, with any fields.
    fn entries() -> impl Strategy<Value = Vec<(EventId, Value)>> {
        vec(((any::<u64>(), any::<u64>()), value()), 0..6)
            .prop_map(|all| all.into_iter().map(|((a, b), v)| (EventId::new(a, b), v)).collect())
    }

    proptest! {
        #[test]
        fn any_answer_is_read_or_refused(answer in value()) {
            let read = read(answer.clone());
            for entry in read.into_iter().chain(range(answer)).flatten() {
                if let Content::Link { bytes, .. } = entry.content {
                    let _ = Incoming::parse(&bytes);
                }
            }
        }

        #[test]
        fn any_fields_keep_the_position(entries in entries()) {
            let answer = entries.iter().map(|(id, fields)| {
                Value::Array(vec![text(&id.to_string()), fields.clone()])
            });
            let read = range(Value::Array(answer.collect())).expect("ids are whole");
            let ids: Vec<_> = read.iter().map(|entry| entry.id).collect();
            prop_assert_eq!(ids, entries.iter().map(|(id, _)| *id).collect::<Vec<_>>());
        }

        #[test]
        fn damaged_links_are_no_panic(at in any::<prop::sample::Index>(), byte: u8, cut: bool) {
            for whole in [&b"\x01\x00\x00data: x\n"[..], b"\x02\x01\x00\x01\0\0\0t"] {
                let mut bytes = whole.to_vec();
                let at = at.index(bytes.len());
                bytes[at] = byte;
                if cut {
                    bytes.truncate(at);
                }
                let _ = Incoming::parse(&bytes);
            }
        }
    }
}
