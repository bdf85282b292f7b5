//! The entries of the presence stream, and the elements of the sets. Anything may stand there: an
//! entry or element that no hub wrote is skipped, and never a panic.
//!
//! ```text
//! field c   changes of users:    how  user
//! field t   changes of members:  how  topic  user
//! name      length (4 bytes, little-endian)  text
//! how       0 joined | 1 + n left, for the reason with the index n
//! element   the text of a user | 255  topic  the text of a user
//! ```
//!
//! An older version does not know members. It skips the field `t`, and elements that are not UTF-8.

use std::borrow::Cow;
use std::sync::Arc;

use redis::{RedisResult, Value};

use crate::EndReason;
use crate::backplane::{Seat, UserChange};

/// The longest name of an instance, in bytes.
const NAME_LEN: usize = 64;

/// The first byte of a member in a set. No text begins with this byte.
const MEMBER: u8 = 255;

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
    let mut of_members = Some(Vec::new());
    for pair in fields.chunks_exact(2) {
        let value = &*pair[1];
        match &*pair[0] {
            b"i" => instance = name(value),
            b"v" => version = number(value),
            b"a" => step = Some(Step::Anew),
            b"c" => step = changes(value, false).map(Step::Changes),
            b"t" => of_members = changes(value, true),
            b"g" => step = Some(Step::Gone),
            // Of a later version.
            _ => {}
        }
    }
    let (mut step, of_members) = (step?, of_members?);
    if let Step::Changes(changes) = &mut step {
        changes.extend(of_members);
    }
    Some(News { instance: instance?, version: version?, step })
}

/// Returns the name of an instance, if the bytes can be a name.
pub(crate) fn name(bytes: &[u8]) -> Option<String> {
    let can_be = |bytes: &&[u8]| (1..=NAME_LEN).contains(&bytes.len());
    Some(bytes).filter(can_be).and_then(|bytes| String::from_utf8(bytes.to_vec()).ok())
}

pub(crate) fn number(bytes: &[u8]) -> Option<u64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// Changes in the form of an entry.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// The field `c`.
    pub(crate) users: Vec<u8>,
    /// The field `t`.
    pub(crate) members: Vec<u8>,
}

pub(crate) fn write(changes: &[UserChange]) -> Written {
    let mut written = Written::default();
    for change in changes {
        let how = match change {
            UserChange::Joined(_) => 0,
            UserChange::Left(_, reason) => {
                EndReason::ALL.iter().take_while(|of| *of != reason).count() + 1
            }
        };
        let Seat { user, topic } = change.seat();
        let buf = if topic.is_some() { &mut written.members } else { &mut written.users };
        buf.push(u8::try_from(how).unwrap_or(u8::MAX));
        topic.iter().chain([user]).for_each(|name| write_name(name, buf));
    }
    written
}

/// Returns the element of a seat in the set of an instance.
pub(crate) fn element(seat: &Seat) -> Cow<'_, [u8]> {
    let user = seat.user.as_bytes();
    let Some(topic) = &seat.topic else { return Cow::Borrowed(user) };
    let mut element = vec![MEMBER];
    write_name(topic, &mut element);
    element.extend_from_slice(user);
    Cow::Owned(element)
}

/// Returns the seat of an element, if a hub can have written the element.
pub(crate) fn seat(element: &[u8]) -> Option<Seat> {
    let Some(mut rest) = element.strip_prefix(&[MEMBER]) else {
        return Some(Seat::user(text(element)?));
    };
    let topic = read_name(&mut rest)?;
    Some(Seat::member(text(rest)?, topic))
}

fn write_name(name: &str, buf: &mut Vec<u8>) {
    buf.extend_from_slice(&u32::try_from(name.len()).unwrap_or(u32::MAX).to_le_bytes());
    buf.extend_from_slice(name.as_bytes());
}

/// Takes a name from the front of `rest`.
fn read_name(rest: &mut &[u8]) -> Option<Arc<str>> {
    let (len, after) = rest.split_first_chunk()?;
    let (name, after) = after.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    *rest = after;
    text(name)
}

fn text(bytes: &[u8]) -> Option<Arc<str>> {
    std::str::from_utf8(bytes).ok().map(Arc::from)
}

/// Returns all changes, or `None` if any of them is malformed.
fn changes(mut rest: &[u8], are_of_members: bool) -> Option<Vec<UserChange>> {
    let mut changes = Vec::new();
    while let Some((&how, after)) = rest.split_first() {
        rest = after;
        let topic = if are_of_members { Some(read_name(&mut rest)?) } else { None };
        let user = read_name(&mut rest)?;
        let seat = topic.map_or_else(|| Seat::user(&user), |topic| Seat::member(&user, topic));
        changes.push(match usize::from(how).checked_sub(1) {
            None => UserChange::Joined(seat),
            // A reason that this version does not know is a reason, too.
            Some(at) => {
                let reason = EndReason::ALL.get(at).copied().unwrap_or(EndReason::Left);
                UserChange::Left(seat, reason)
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

    fn seat_of_any_name() -> impl Strategy<Value = Seat> {
        let name = || prop_oneof!["[a-c:|]{1,4}", "\\PC{1,8}", Just("\0\0\0\u{1}a".to_owned())];
        (name(), prop::option::of(name())).prop_map(|(user, topic)| match topic {
            None => Seat::user(user),
            Some(topic) => Seat::member(user, topic),
        })
    }

    fn change() -> impl Strategy<Value = UserChange> {
        let reason = prop::option::of(prop::sample::select(EndReason::ALL.to_vec()));
        (seat_of_any_name(), reason).prop_map(|(seat, reason)| match reason {
            None => UserChange::Joined(seat),
            Some(reason) => UserChange::Left(seat, reason),
        })
    }

    proptest! {
        #[test]
        fn written_changes_are_read_back(all in vec(change(), 0..6)) {
            let Written { users, members } = write(&all);
            let is_of_member = |change: &UserChange| change.seat().topic.is_some();
            let (of_members, of_users): (Vec<_>, Vec<_>) = all.into_iter().partition(is_of_member);
            prop_assert_eq!(changes(&users, false), Some(of_users));
            prop_assert_eq!(changes(&members, true), Some(of_members));
        }

        #[test]
        fn any_bytes_are_read_or_refused(garbage in vec(any::<u8>(), 0..64)) {
            for of_members in [false, true] {
                if let Some(all) = changes(&garbage, of_members) {
                    let Written { users, members } = write(&all);
                    let written = if of_members { members } else { users };
                    prop_assert_eq!(changes(&written, of_members), Some(all));
                }
            }
            if let Some(seat) = seat(&garbage) {
                prop_assert_eq!(&*element(&seat), &garbage);
            }
        }

        #[test]
        fn elements_of_sets_are_read_back(of in seat_of_any_name()) {
            prop_assert_eq!(std::str::from_utf8(&element(&of)).is_ok(), of.topic.is_none());
            prop_assert_eq!(seat(&element(&of)), Some(of));
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
        let (ann, ann_in_r) = (b"\x00\x01\0\0\0a", b"\x00\x01\0\0\0r\x01\0\0\0a");
        let both =
            vec![UserChange::Joined(Seat::user("a")), UserChange::Joined(Seat::member("a", "r"))];
        let both = News { instance: "x".to_owned(), version: 7, step: Step::Changes(both) };
        let of_members_first = [&b"t"[..], ann_in_r, b"i", b"x", b"v", b"7", b"c", ann];
        assert_eq!(of(&of_members_first), Some(both));
        let refused: [&[&[u8]]; 12] = [
            &[],
            &[b"i"],
            &[b"i", b"x", b"v", b"7"],
            &[b"i", b"", b"v", b"7", b"a", b""],
            &[b"i", b"\xff", b"v", b"7", b"a", b""],
            &[b"i", &[b'x'; 65], b"v", b"7", b"a", b""],
            &[b"i", b"x", b"v", b"-7", b"a", b""],
            &[b"i", b"x", b"v", b"7", b"c", b"\x00\xff\xff\xff\xffx"],
            &[b"i", b"x", b"v", b"7", b"c", b"\x00\x01\x00\x00\x00\xff"],
            &[b"i", b"x", b"v", b"7", b"c", b"", b"t", ann],
            &[b"i", b"x", b"v", b"7", b"c", b"", b"t", &ann_in_r[..10]],
            &[b"i", b"x", b"v", b"7", b"t", ann_in_r],
        ];
        for fields in refused {
            assert_eq!(of(fields), None, "{fields:?}");
        }
    }

    #[test]
    fn malformed_elements_of_sets_are_skipped() {
        for element in [
            &b"\xff"[..],
            b"\xfe",
            b"\xff\x01\0\0",
            b"\xff\x02\0\0\0r",
            b"\xff\xff\xff\xff\xffr",
            b"\xff\x01\0\0\0\xffann",
            b"\xff\x01\0\0\0r\xff",
        ] {
            assert_eq!(seat(element), None, "{element:?}");
        }
        assert_eq!(seat(b"\xff\x01\0\0\0rann"), Some(Seat::member("ann", "r")));
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
