//! An event as it travels between instances: everything but its id, which is the place that it is given on the way.
//!
//! Names are length-delimited and typed, so nothing in a name can be taken for another. Whatever arrives is read
//! without a panic, in bounded time and depth: it may have been written by anybody who can write there.
//!
//! ```text
//! entry     version  conflation  audience  frame      the frame takes what is left
//! text      length (4 bytes, little-endian)  bytes
//! conflation  0 | 1 text
//! audience  0 | 1 client id (16 bytes) | 2 user | 3 session | 4 topic (a text each)
//!           | 5 count part* (any of) | 6 count part* (all of) | 7 whom not (except)
//! ```

use std::str;
use std::sync::Arc;

use super::audience::{Audience, ClientId, Key, Size, Who};
use crate::wire::event::Event;
use crate::wire::frame::Sealed;
use crate::wire::received;

/// The first byte of what this version writes. Another is another form, and not read.
const VERSION: u8 = 1;

/// An event on its way.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) audience: Audience,
    pub(crate) conflation: Option<Box<str>>,
    pub(crate) sealed: Sealed,
}

impl Packed {
    pub(crate) fn write(&self) -> Vec<u8> {
        let frame = self.sealed.bytes();
        let mut buf = Vec::with_capacity(frame.len() + 64);
        buf.push(VERSION);
        match &self.conflation {
            None => buf.push(0),
            Some(key) => {
                buf.push(1);
                put_text(&mut buf, key);
            }
        }
        put_who(&mut buf, &self.audience.who);
        buf.extend_from_slice(frame);
        buf
    }

    /// Reads what [`write`](Self::write) wrote; `None` if it cannot have.
    pub(crate) fn read(entry: &[u8]) -> Option<Self> {
        let mut rest = entry;
        if take_byte(&mut rest)? != VERSION {
            return None;
        }
        let conflation = match take_byte(&mut rest)? {
            0 => None,
            1 => Some(take_text(&mut rest).filter(|key| key.len() <= Event::MAX_KEY_LEN)?.into()),
            _ => return None,
        };
        let mut names = Audience::MAX_NAMES;
        let audience = take_audience(&mut rest, Audience::MAX_DEPTH, &mut names)?;
        Some(Self { audience, conflation, sealed: received::sealed(rest)? })
    }
}

pub(super) fn put_text(buf: &mut Vec<u8>, text: &str) {
    put_len(buf, text.len());
    buf.extend_from_slice(text.as_bytes());
}

/// Names and keys are limited, and an audience's parts are: all lengths are far below 2^32.
fn put_len(buf: &mut Vec<u8>, len: usize) {
    buf.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
}

pub(super) fn put_who(buf: &mut Vec<u8>, who: &Who) {
    match who {
        Who::Holds(Key::All) => buf.push(0),
        Who::Holds(Key::Client(id)) => {
            buf.push(1);
            buf.extend_from_slice(&id.0);
        }
        Who::Holds(Key::User(name)) => put_name(buf, 2, name),
        Who::Holds(Key::Session(name)) => put_name(buf, 3, name),
        Who::Holds(Key::Topic(name)) => put_name(buf, 4, name),
        Who::AnyOf(parts) => put_parts(buf, 5, parts),
        Who::AllOf(parts) => put_parts(buf, 6, parts),
        Who::Except(sides) => {
            buf.push(7);
            sides.iter().for_each(|side| put_who(buf, &side.who));
        }
    }
}

fn put_name(buf: &mut Vec<u8>, kind: u8, name: &str) {
    buf.push(kind);
    put_text(buf, name);
}

fn put_parts(buf: &mut Vec<u8>, kind: u8, parts: &[Who]) {
    buf.push(kind);
    put_len(buf, parts.len());
    parts.iter().for_each(|part| put_who(buf, part));
}

pub(super) fn take_byte(rest: &mut &[u8]) -> Option<u8> {
    rest.split_off_first().copied()
}

fn take_len(rest: &mut &[u8]) -> Option<usize> {
    let (len, after) = rest.split_first_chunk()?;
    *rest = after;
    usize::try_from(u32::from_le_bytes(*len)).ok()
}

/// A text of at least one byte.
pub(super) fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let len = take_len(rest).filter(|&len| len > 0)?;
    str::from_utf8(rest.split_off(..len)?).ok()
}

/// `names`: how many more there may be.
pub(super) fn take_audience(rest: &mut &[u8], depth: usize, names: &mut usize) -> Option<Audience> {
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
            let count = take_len(rest)?;
            *names = names.checked_sub(usize::from(count == 0))?;
            let mut size = Size { names: 0, depth: 0 };
            let mut parts = Vec::new();
            for _ in 0..count {
                let part = take_audience(rest, depth - 1, names)?;
                size = size.beside(part.size);
                parts.push(part.who);
            }
            let who = if kind == 5 { Who::AnyOf } else { Who::AllOf };
            let size = Size { names: size.names.max(1), depth: size.depth + 1 };
            return Some(Audience { who: who(Arc::new(parts)), size });
        }
        7 => {
            let whom = take_audience(rest, depth - 1, names)?;
            let not = take_audience(rest, depth - 1, names)?;
            let size = whom.size.around(not.size);
            return Some(Audience { who: Who::Except(Arc::new([whom, not])), size });
        }
        _ => return None,
    };
    *names = names.checked_sub(1)?;
    Some(Audience { who: Who::Holds(key), size: Size::ONE })
}

#[cfg(all(test, not(sse_hub_loom)))]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Names that look like lengths, separators, and each other.
    fn name() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-c_:|,\\-]{1,4}",
            "\\PC{1,8}",
            Just("\0\0\0\u{1}".to_owned()),
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
            (inner.clone(), inner, 0..3u8).prop_map(|(one, other, how)| match how {
                0 => one.or(other),
                1 => one.and(other),
                _ => one.except(other),
            })
        })
    }

    fn packed() -> impl Strategy<Value = Packed> {
        (audience(), prop::option::of(name()), prop::option::of("[a-z]{1,4}"), ".{0,40}").prop_map(
            |(audience, conflation, event_type, data)| {
                let event = event_type.map_or_else(Event::default, Event::new).data(data);
                Packed { audience, conflation: conflation.map(Into::into), sealed: event.seal() }
            },
        )
    }

    proptest! {
        #[test]
        fn an_event_is_the_same_on_the_other_side(packed in packed()) {
            let written = packed.write();
            let read = Packed::read(&written).expect("what was written");
            prop_assert_eq!(&read.audience, &packed.audience);
            // What was combined away still counts on the side that combined it.
            prop_assert!(read.audience.names() <= packed.audience.names());
            prop_assert!(read.audience.size.depth <= packed.audience.size.depth);
            prop_assert_eq!(&read.conflation, &packed.conflation);
            prop_assert_eq!(read.sealed.bytes(), packed.sealed.bytes());
            prop_assert_eq!(read.write(), written);
        }

        #[test]
        fn a_damaged_one_is_refused_or_another_valid_one(
            packed in packed(), at in any::<prop::sample::Index>(), byte: u8, cut: bool,
        ) {
            let mut written = packed.write();
            let at = at.index(written.len());
            if cut { written.truncate(at) } else { written[at] = byte }
            if let Some(read) = Packed::read(&written) {
                prop_assert_eq!(read.write(), written);
            }
        }

        #[test]
        fn garbage_never_panics(mut garbage in vec(any::<u8>(), 0..64), versioned: bool) {
            if versioned && !garbage.is_empty() {
                garbage[0] = VERSION;
            }
            let _ = Packed::read(&garbage);
        }
    }

    #[test]
    fn what_is_too_deep_or_too_large_is_refused() {
        let entry = |audience: &[u8]| [&[VERSION, 0], audience, b"data: x\n"].concat();
        assert!(Packed::read(&entry(&[0])).is_some());
        let nested = |depth: usize| [&[5, 1, 0, 0, 0].repeat(depth)[..], &[0]].concat();
        assert!(Packed::read(&entry(&nested(Audience::MAX_DEPTH - 1))).is_some());
        assert!(Packed::read(&entry(&nested(Audience::MAX_DEPTH))).is_none());
        assert!(Packed::read(&entry(&nested(1_000_000))).is_none());
        let wide = |count: u32| [&[5][..], &count.to_le_bytes(), &vec![0; count as usize]].concat();
        assert!(Packed::read(&entry(&wide(10_000))).is_some());
        assert!(Packed::read(&entry(&wide(10_001))).is_none());
        assert!(Packed::read(&entry(&[5, 255, 255, 255, 255])).is_none());
        assert!(Packed::read(&entry(&[2, 0, 0, 0, 0])).is_none(), "an empty name");
    }
}
