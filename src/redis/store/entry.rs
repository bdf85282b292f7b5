//! Reading what stands in the stream. Anything may: what no hub has written is garbage, and never a panic.

use redis::Value;

use crate::log::command::{Received, is_command};
use crate::wire::id::EventId;

/// An entry of the stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: EventId,
    pub(crate) content: Content,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Event {
        /// The id of the entry before.
        previous: EventId,
        event: Vec<u8>,
    },
    /// What was done to clients: a link of the chain, and no event.
    Command {
        previous: EventId,
        event: Vec<u8>,
    },
    /// The order went backwards.
    Mark {
        previous: EventId,
    },
    Garbage,
}

/// The entries in the answer to `XREAD` of one stream, in order.
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

/// The entries in the answer to `XRANGE` or `XREVRANGE`.
pub(crate) fn range(answer: Value) -> Option<Vec<Entry>> {
    let Value::Array(entries) = answer else { return None };
    entries.into_iter().map(entry).collect()
}

/// Only an entry without an id is none at all.
fn entry(value: Value) -> Option<Entry> {
    let Value::Array(parts) = value else { return None };
    let mut parts = parts.into_iter();
    let id = id(&parts.next()?)?;
    let content = parts.next().and_then(content).unwrap_or(Content::Garbage);
    Some(Entry { id, content })
}

fn content(fields: Value) -> Option<Content> {
    let Value::Array(fields) = fields else { return None };
    let (mut previous, mut event, mut is_mark) = (None, None, false);
    let mut fields = fields.into_iter();
    while let (Some(Value::BulkString(name)), Some(value)) = (fields.next(), fields.next()) {
        match (&*name, value) {
            (b"p", value) => previous = id(&value),
            (b"e", Value::BulkString(value)) => event = Some(value),
            (b"m", _) => is_mark = true,
            // Of a later version.
            _ => {}
        }
    }
    let previous = previous?;
    match (event, is_mark) {
        (Some(event), false) if is_command(&event) => Some(Content::Command { previous, event }),
        (Some(event), false) => Some(Content::Event { previous, event }),
        (None, true) => Some(Content::Mark { previous }),
        _ => None,
    }
}

/// Whether a hub has written that, and this version can read it.
pub(crate) fn is_event(event: &[u8]) -> bool {
    Received::read(event).is_some()
}

fn id(value: &Value) -> Option<EventId> {
    match value {
        Value::BulkString(bytes) => EventId::from_bytes(bytes).ok(),
        _ => None,
    }
}

/// Entries as tests of what reads them want them: at a position, and after another.
#[cfg(test)]
pub(crate) mod made {
    use super::*;

    pub(crate) fn at(position: u64) -> EventId {
        EventId(position, 0)
    }

    pub(crate) fn event(position: u64, previous: u64) -> Entry {
        let event = b"\x01\x00\x00data: x\n".to_vec();
        Entry { id: at(position), content: Content::Event { previous: at(previous), event } }
    }

    pub(crate) fn command(position: u64, previous: u64) -> Entry {
        let event = b"\x02\x01\x00\x01\0\0\0t".to_vec();
        Entry { id: at(position), content: Content::Command { previous: at(previous), event } }
    }

    pub(crate) fn mark(position: u64, previous: u64) -> Entry {
        Entry { id: at(position), content: Content::Mark { previous: at(previous) } }
    }

    pub(crate) fn garbage(position: u64) -> Entry {
        Entry { id: at(position), content: Content::Garbage }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn what_a_hub_writes_is_read_whatever_else_stands_beside_it() {
        let event = Content::Event { previous: EventId(5, 0), event: b"x".to_vec() };
        assert_eq!(of(&["e", "x", "p", "5-0"]), event);
        assert_eq!(of(&["p", "5-0", "later", "y", "e", "x"]), event);
        let command = Content::Command { previous: EventId(5, 0), event: b"\x02x".to_vec() };
        assert_eq!(of(&["e", "\u{2}x", "p", "5-0"]), command);
        let mark = Content::Mark { previous: EventId(0, 0) };
        assert_eq!(of(&["m", "4-9", "p", "0-0"]), mark);
    }

    #[test]
    fn all_else_is_garbage_with_a_place() {
        for fields in [
            &[][..],
            &["e"],
            &["e", "x"],
            &["p", "5-0"],
            &["e", "x", "p", "*"],
            &["e", "x", "p", "05-0"],
            &["e", "x", "m", "4-9", "p", "5-0"],
            &["m", "4-9", "p", "$"],
            &["", ""],
        ] {
            assert_eq!(of(fields), Content::Garbage, "{fields:?}");
        }
        let odd = Value::Array(vec![Value::Array(vec![text("5-1"), Value::Int(7)])]);
        assert_eq!(range(odd).unwrap()[0], Entry { id: EventId(5, 1), content: Content::Garbage });
    }

    #[test]
    fn both_forms_of_an_answer_are_read_and_no_other() {
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
}
