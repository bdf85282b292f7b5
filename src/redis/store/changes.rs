//! What stands in the stream of who comes and goes. Anything may: what no hub has written is left out, and never a panic.
//!
//! ```text
//! change    how  length (4 bytes, little-endian)  name
//! how       0 came | 1 + n gone, for the reason that has the place n
//! ```

use redis::{RedisResult, Value};

use crate::EndReason;
use crate::backplane::Change;

/// An entry of the stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) position: String,
    /// Whose, which version, and what; nothing, if no hub has written it.
    pub(crate) what: Option<(String, u64, What)>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// The set was begun anew.
    Anew,
    Changes(Vec<Change>),
    /// The instance has ended.
    Gone,
}

/// The entries in the answer to `XREAD` of one stream.
pub(crate) fn read(answer: Value) -> RedisResult<Vec<News>> {
    type Fields = Option<Vec<Vec<u8>>>;
    type Streams = Option<Vec<(Vec<u8>, Vec<(String, Fields)>)>>;

    let streams: Streams = redis::from_redis_value(answer)?;
    let entries = streams.into_iter().flatten().flat_map(|(_, entries)| entries);
    let news = |(position, fields): (String, Fields)| News {
        position,
        what: fields.and_then(|fields| what(&fields)),
    };
    Ok(entries.map(news).collect())
}

fn what(fields: &[Vec<u8>]) -> Option<(String, u64, What)> {
    let (mut instance, mut version, mut what) = (None, None, None);
    for pair in fields.chunks_exact(2) {
        let value = &*pair[1];
        match &*pair[0] {
            b"i" => instance = name(value),
            b"v" => version = number(value),
            b"a" => what = Some(What::Anew),
            b"c" => what = changes(value).map(What::Changes),
            b"g" => what = Some(What::Gone),
            // Of a later version.
            _ => {}
        }
    }
    Some((instance?, version?, what?))
}

/// The name of an instance.
pub(crate) fn name(bytes: &[u8]) -> Option<String> {
    let of_a_name = |bytes: &&[u8]| (1..=64).contains(&bytes.len());
    Some(bytes).filter(of_a_name).and_then(|bytes| String::from_utf8(bytes.to_vec()).ok())
}

pub(crate) fn number(bytes: &[u8]) -> Option<u64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

pub(crate) fn write(changes: &[Change]) -> Vec<u8> {
    let mut buf = Vec::new();
    for change in changes {
        let how = match change {
            Change::Came(_) => 0,
            Change::Gone(_, reason) => {
                EndReason::ALL.iter().take_while(|of| *of != reason).count() + 1
            }
        };
        buf.push(u8::try_from(how).unwrap_or(u8::MAX));
        let name = change.user().as_bytes();
        buf.extend_from_slice(&u32::try_from(name.len()).unwrap_or(u32::MAX).to_le_bytes());
        buf.extend_from_slice(name);
    }
    buf
}

/// All of them, or nothing if one is none.
fn changes(mut rest: &[u8]) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    while let Some((&how, after)) = rest.split_first() {
        let (len, after) = after.split_first_chunk()?;
        let (name, after) = after.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        rest = after;
        let user = std::str::from_utf8(name).ok()?.into();
        changes.push(match usize::from(how).checked_sub(1) {
            None => Change::Came(user),
            // A reason that this version does not know is one all the same.
            Some(at) => {
                let reason = EndReason::ALL.get(at).copied().unwrap_or(EndReason::Left);
                Change::Gone(user, reason)
            }
        });
    }
    Some(changes)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn change() -> impl Strategy<Value = Change> {
        let user = prop_oneof!["[a-c:|]{1,4}", "\\PC{1,8}", Just("\0\0\0\u{1}a".to_owned())];
        (user, prop::option::of(prop::sample::select(EndReason::ALL.to_vec()))).prop_map(
            |(user, reason)| match reason {
                None => Change::Came(user.into()),
                Some(reason) => Change::Gone(user.into(), reason),
            },
        )
    }

    proptest! {
        #[test]
        fn changes_are_the_same_on_the_other_side(all in vec(change(), 0..6)) {
            prop_assert_eq!(changes(&write(&all)), Some(all));
        }

        #[test]
        fn garbage_never_panics(garbage in vec(any::<u8>(), 0..64)) {
            if let Some(all) = changes(&garbage) {
                prop_assert_eq!(changes(&write(&all)), Some(all));
            }
        }
    }

    fn of(fields: &[&[u8]]) -> Option<(String, u64, What)> {
        what(&fields.iter().map(|field| field.to_vec()).collect::<Vec<_>>())
    }

    #[test]
    fn what_a_hub_writes_is_read_and_all_else_is_nothing() {
        let anew = Some(("x".to_owned(), 7, What::Anew));
        assert_eq!(of(&[b"i", b"x", b"v", b"7", b"a", b""]), anew);
        assert_eq!(of(&[b"later", b"\xff", b"i", b"x", b"v", b"7", b"a", b""]), anew);
        let refused: [&[&[u8]]; 9] = [
            &[],
            &[b"i"],
            &[b"i", b"x", b"v", b"7"],
            &[b"i", b"", b"v", b"7", b"a", b""],
            &[b"i", b"\xff", b"v", b"7", b"a", b""],
            &[b"i", &[b'x'; 65], b"v", b"7", b"a", b""],
            &[b"i", b"x", b"v", b"-7", b"a", b""],
            &[b"i", b"x", b"v", b"7", b"c", b"\x00\xff\xff\xff\xffx"],
            &[b"i", b"x", b"v", b"7", b"c", b"\x00\x01\x00\x00\x00\xff"],
        ];
        for fields in refused {
            assert_eq!(of(fields), None, "{fields:?}");
        }
    }
    #[test]
    fn both_forms_of_an_answer_are_read_and_no_other() {
        let text = |text: &str| Value::BulkString(text.into());
        let texts = |all: &[&str]| Value::Array(all.iter().copied().map(text).collect());
        let entry = |fields| Value::Array(vec![text("5-1"), fields]);
        let entries =
            || Value::Array(vec![entry(texts(&["i", "x", "v", "7", "g", ""])), entry(Value::Nil)]);
        let news = |what| News { position: "5-1".to_owned(), what };
        let all = || vec![news(Some(("x".to_owned(), 7, What::Gone))), news(None)];
        let array = Value::Array(vec![Value::Array(vec![text("stream"), entries()])]);
        let map = Value::Map(vec![(text("stream"), entries())]);
        assert_eq!(read(array).unwrap(), all());
        assert_eq!(read(map).unwrap(), all());
        assert_eq!(read(Value::Nil).unwrap(), []);
        assert!(read(Value::Okay).is_err());
    }
}
