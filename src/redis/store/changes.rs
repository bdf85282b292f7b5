//! The entries of the presence stream. Anything may stand there: an entry that no hub wrote is
//! skipped, and never a panic.
//!
//! ```text
//! change    how  length (4 bytes, little-endian)  name
//! how       0 joined | 1 + n left, for the reason with the index n
//! ```

use redis::{RedisResult, Value};

use crate::EndReason;
use crate::backplane::UserChange;

/// The longest name of an instance, in bytes.
const NAME_LEN: usize = 64;

/// An entry of the stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) position: String,
    /// `None` if no hub wrote the entry.
    pub(crate) news: Option<News>,
}

/// News of an instance.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) instance: String,
    pub(crate) version: u64,
    pub(crate) step: Step,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The set begins anew.
    Anew,
    Changes(Vec<UserChange>),
    /// The instance has ended.
    Gone,
}

/// Returns the entries in the answer to `XREAD` of a stream.
pub(crate) fn read(answer: Value) -> RedisResult<Vec<Notice>> {
    type Fields = Option<Vec<Vec<u8>>>;
    type Streams = Option<Vec<(Vec<u8>, Vec<(String, Fields)>)>>;

    let streams: Streams = redis::from_redis_value(answer)?;
    let entries = streams.into_iter().flatten().flat_map(|(_, entries)| entries);
    let notice = |(position, fields): (String, Fields)| Notice {
        position,
        news: fields.and_then(|fields| news(&fields)),
    };
    Ok(entries.map(notice).collect())
}

fn news(fields: &[Vec<u8>]) -> Option<News> {
    let (mut instance, mut version, mut step) = (None, None, None);
    for pair in fields.chunks_exact(2) {
        let value = &*pair[1];
        match &*pair[0] {
            b"i" => instance = name(value),
            b"v" => version = number(value),
            b"a" => step = Some(Step::Anew),
            b"c" => step = changes(value).map(Step::Changes),
            b"g" => step = Some(Step::Gone),
            // Of a later version.
            _ => {}
        }
    }
    Some(News { instance: instance?, version: version?, step: step? })
}

/// Returns the name of an instance, if the bytes can be a name.
pub(crate) fn name(bytes: &[u8]) -> Option<String> {
    let can_be = |bytes: &&[u8]| (1..=NAME_LEN).contains(&bytes.len());
    Some(bytes).filter(can_be).and_then(|bytes| String::from_utf8(bytes.to_vec()).ok())
}

pub(crate) fn number(bytes: &[u8]) -> Option<u64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

pub(crate) fn write(changes: &[UserChange]) -> Vec<u8> {
    let mut buf = Vec::new();
    for change in changes {
        let how = match change {
            UserChange::Joined(_) => 0,
            UserChange::Left(_, reason) => {
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

/// Returns all changes, or `None` if any of them is malformed.
fn changes(mut rest: &[u8]) -> Option<Vec<UserChange>> {
    let mut changes = Vec::new();
    while let Some((&how, after)) = rest.split_first() {
        let (len, after) = after.split_first_chunk()?;
        let (name, after) = after.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        rest = after;
        let user = std::str::from_utf8(name).ok()?.into();
        changes.push(match usize::from(how).checked_sub(1) {
            None => UserChange::Joined(user),
            // A reason that this version does not know is a reason, too.
            Some(at) => {
                let reason = EndReason::ALL.get(at).copied().unwrap_or(EndReason::Left);
                UserChange::Left(user, reason)
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

    fn change() -> impl Strategy<Value = UserChange> {
        let user = prop_oneof!["[a-c:|]{1,4}", "\\PC{1,8}", Just("\0\0\0\u{1}a".to_owned())];
        (user, prop::option::of(prop::sample::select(EndReason::ALL.to_vec()))).prop_map(
            |(user, reason)| match reason {
                None => UserChange::Joined(user.into()),
                Some(reason) => UserChange::Left(user.into(), reason),
            },
        )
    }

    proptest! {
        #[test]
        fn written_changes_are_read_back(all in vec(change(), 0..6)) {
            prop_assert_eq!(changes(&write(&all)), Some(all));
        }

        #[test]
        fn any_bytes_are_read_or_refused(garbage in vec(any::<u8>(), 0..64)) {
            if let Some(all) = changes(&garbage) {
                prop_assert_eq!(changes(&write(&all)), Some(all));
            }
        }
    }

    fn of(fields: &[&[u8]]) -> Option<News> {
        news(&fields.iter().map(|field| field.to_vec()).collect::<Vec<_>>())
    }

    #[test]
    fn written_news_are_read_and_others_are_not() {
        let anew = Some(News { instance: "x".to_owned(), version: 7, step: Step::Anew });
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
    fn answers_of_both_protocols_are_read() {
        let text = |text: &str| Value::BulkString(text.into());
        let texts = |all: &[&str]| Value::Array(all.iter().copied().map(text).collect());
        let entry = |fields| Value::Array(vec![text("5-1"), fields]);
        let entries =
            || Value::Array(vec![entry(texts(&["i", "x", "v", "7", "g", ""])), entry(Value::Nil)]);
        let notice = |news| Notice { position: "5-1".to_owned(), news };
        let gone = || News { instance: "x".to_owned(), version: 7, step: Step::Gone };
        let all = || vec![notice(Some(gone())), notice(None)];
        let array = Value::Array(vec![Value::Array(vec![text("stream"), entries()])]);
        let map = Value::Map(vec![(text("stream"), entries())]);
        assert_eq!(read(array).unwrap(), all());
        assert_eq!(read(map).unwrap(), all());
        assert_eq!(read(Value::Nil).unwrap(), []);
        assert!(read(Value::Okay).is_err());
    }
}
