//! The newest event of each conflation key, as Redis keeps the events beside the stream.

use redis::Value;

use crate::EventId;
use crate::backplane::{Incoming, Kind};

/// The values that Redis has.
#[derive(Debug, Default)]
pub(crate) struct Values {
    pub(crate) events: Vec<(EventId, Incoming)>,
    /// No value was removed to make room for another.
    pub(crate) is_whole: bool,
    /// How many fields no hub has written.
    pub(crate) malformed: usize,
}

impl Values {
    /// Parses the fields of the hash. An id with a time after `horizon` is malformed.
    pub(crate) fn parse(fields: Vec<Value>, horizon: u64) -> Self {
        let mut values = Self { is_whole: true, ..Self::default() };
        let mut fields = fields.into_iter();
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            if matches!(&name, Value::BulkString(name) if name.is_empty()) {
                values.is_whole = false;
                continue;
            }
            match parse(&value).filter(|(id, _)| id.epoch() <= horizon) {
                Some(event) => values.events.push(event),
                // The value of a key is unknown now: a page that begins with the values lacks it.
                None => {
                    values.malformed += 1;
                    values.is_whole = false;
                }
            }
        }
        values
    }
}

/// Parses an id, a space, and the bytes of an event.
fn parse(value: &Value) -> Option<(EventId, Incoming)> {
    let Value::BulkString(bytes) = value else { return None };
    let space = bytes.iter().position(|&byte| byte == b' ')?;
    let id = EventId::from_bytes(&bytes[..space]).ok()?;
    let event = Incoming::parse(&bytes[space + 1..]).ok()?;
    (event.kind() == Kind::Event).then_some((id, event))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn field(bytes: &[u8]) -> Value {
        Value::BulkString(bytes.to_vec())
    }

    fn parsed(fields: &[&[u8]]) -> (Vec<u64>, bool, usize) {
        let fields = fields.iter().map(|bytes| field(bytes)).collect();
        let values = Values::parse(fields, 100);
        let ids = values.events.iter().map(|(id, _)| id.epoch()).collect();
        (ids, values.is_whole, values.malformed)
    }

    const EVENT: &[u8] = b"7-0 \x01\x00\x00data: x\n";

    #[test]
    fn values_have_an_id_and_an_event() {
        assert_eq!(parsed(&[b"a", EVENT, b"b", EVENT]), (vec![7, 7], true, 0));
        assert_eq!(parsed(&[b"a", EVENT, b"", b"7-0"]), (vec![7], false, 0));
        assert_eq!(parsed(&[]), (vec![], true, 0));
    }

    #[test]
    fn forged_values_are_skipped_and_counted() {
        let far = [b"101-0 ", &EVENT[4..]].concat();
        let command = b"7-0 \x02\x01\x00\x01\0\0\0t";
        for forged in [b"x", &EVENT[4..], b"7-0", b"7-0 ", &far, command] {
            assert_eq!(parsed(&[b"a", forged, b"b", EVENT]), (vec![7], false, 1), "{forged:?}");
        }
        assert_eq!(Values::parse(vec![Value::Nil, Value::Int(1)], 100).malformed, 1);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(fields in vec(vec(any::<u8>(), 0..40), 0..9)) {
            let count = fields.len() / 2;
            let values = Values::parse(fields.iter().map(|bytes| field(bytes)).collect(), u64::MAX);
            prop_assert!(values.events.len() + values.malformed <= count);
        }
    }
}
