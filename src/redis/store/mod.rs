//! The keys in Redis: how they are written, and how their contents are read. Redis counts time in
//! milliseconds.

pub(crate) mod changes;
pub(crate) mod entry;
pub(crate) mod lease;
pub(crate) mod outbox;
pub(crate) mod owed;
pub(crate) mod producing;
pub(crate) mod runs;
pub(crate) mod script;
pub(crate) mod tail;
pub(crate) mod values;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A time to live that means "for ever". Redis refuses times that overflow the clock.
pub(crate) const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the milliseconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

#[cfg(test)]
mod tests {
    use std::slice;

    use redis::Value;

    use super::changes::{self, News, Step};
    use super::entry::{self, Content};
    use super::values::Values;
    use crate::backplane::Incoming;

    /// Parts of answers that random bytes do not find. A byte of 0x80 and above stands for a part.
    const WORDS: [&[u8]; 14] = [
        b"5-1",
        b"5-0",
        b"0-0",
        b"18446744073709551615-18446744073709551615",
        b"\x01\x00\x00data: x\n",
        b"\x02\x01\x00\x01\0\0\0t",
        b"\x02\x08\x01\0\0\0rinstance-serial--\x00data: x\n",
        b"\x02\x05positionpositionclient--client--\x00\x00\x00\0\0\0",
        b"\x03trace-trace-trace-trace--\x00\x00data: x\n",
        b"7-0 \x01\x00\x00data: x\n",
        b"\x00\x01\0\0\0a",
        b"\x01\x01\0\0\0r\x01\0\0\0a",
        b"\xff\x01\0\0\0rann",
        b"\x01\0\0\0",
    ];

    /// The most values around a value of a script.
    const MAX_DEPTH: usize = 8;

    /// Builds the values of an answer from pieces of a script. A piece is text, and a byte of 0xF8
    /// and above, which begins or ends an array, a map or the fields of an entry, or stands for a
    /// value.
    fn values(pieces: &mut dyn Iterator<Item = &[u8]>, depth: usize) -> Vec<Value> {
        let mut all = Vec::new();
        while let Some(piece) = pieces.next() {
            let (bytes, code) = match piece {
                [bytes @ .., code] if *code >= 0xF8 => (bytes, *code),
                bytes => (bytes, 0xFF),
            };
            if !bytes.is_empty() {
                let word = |byte: &u8| WORDS.get(usize::from(*byte).wrapping_sub(0x80));
                let part = |byte| word(byte).map_or_else(|| slice::from_ref(byte), |word| *word);
                all.push(Value::BulkString(bytes.iter().flat_map(part).copied().collect()));
            }
            match code {
                0xF8 if depth < MAX_DEPTH => all.push(Value::Array(values(pieces, depth + 1))),
                0xF9 if depth < MAX_DEPTH => {
                    let pairs = values(pieces, depth + 1);
                    let pairs =
                        pairs.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()));
                    all.push(Value::Map(pairs.collect()));
                }
                0xFA => break,
                0xFB => all.push(Value::Nil),
                0xFC => all.push(Value::Int(7)),
                0xFD => all.push(Value::BulkString(Vec::new())),
                0xFE if depth < MAX_DEPTH => {
                    let fields = Value::Array(values(pieces, depth + 1));
                    all.push(Value::Array(vec![text(b"5-1"), fields]));
                }
                _ => {}
            }
        }
        all
    }

    fn text(bytes: &[u8]) -> Value {
        Value::BulkString(bytes.to_vec())
    }

    /// Returns the entries as the answer to `XREAD`.
    fn stream(entries: Vec<Value>) -> Value {
        Value::Array(vec![Value::Array(vec![text(b"stream"), Value::Array(entries)])])
    }

    /// Checks an answer that any program may have led to: each reader reads or refuses each value.
    fn is_read_or_refused(values: Vec<Value>) {
        let _ = entry::read(Value::Array(values.clone()));
        let whole = Value::Array(values.clone());
        assert_eq!(entry::read(stream(values.clone())), entry::range(whole.clone()));
        if let Some(entries) = entry::range(whole.clone()) {
            assert_eq!(entries.len(), values.len());
            for entry in entries {
                match entry.content {
                    Content::Link { previous, bytes } => {
                        assert!(previous < entry.id);
                        let _ = Incoming::parse(&bytes);
                    }
                    Content::Reset { previous } => assert!(previous < entry.id),
                    Content::Malformed => {}
                }
            }
        }
        if let Some(entries) = entry::copied(whole) {
            assert_eq!(entries.len(), values.len());
        }

        for notice in changes::read(stream(values.clone())).into_iter().flatten() {
            let Some(News { instance, version, step: Step::Changes(all) }) = &notice.news else {
                continue;
            };
            // The news as a hub writes them are the same news.
            let version = version.to_string();
            let written = changes::write(all);
            let fields = [
                &b"i"[..],
                instance.as_bytes(),
                b"v",
                version.as_bytes(),
                b"c",
                &written.users,
                b"t",
                &written.members,
            ];
            let fields = Value::Array(fields.map(text).into());
            let entry = Value::Array(vec![text(notice.position.as_bytes()), fields]);
            let again = changes::read(stream(vec![entry])).unwrap();
            assert_eq!(again, [notice]);
        }
        for value in &values {
            if let Value::BulkString(bytes) = value
                && let Some(seat) = changes::seat(bytes)
            {
                assert_eq!(&*changes::element(&seat), bytes);
            }
        }

        let count = values.len() / 2;
        let horizon = 100;
        let values = Values::parse(values, horizon);
        assert!(values.events.len() + values.malformed <= count);
        assert!(values.events.iter().all(|(id, _)| id.epoch() <= horizon));
    }

    #[test]
    fn any_answer_is_read_or_refused() {
        bolero::check!().for_each(|script: &[u8]| {
            let mut pieces = script.split_inclusive(|&byte| byte >= 0xF8);
            is_read_or_refused(values(&mut pieces, 0));
        });
    }
}
