//! What is done to clients, as it travels between instances: an entry of the same order as the events, so that it comes
//! before the same events and after the same on every instance.
//!
//! ```text
//! entry     version  kind  audience  rest
//! rest      of kind 0: reason (a text)  frame of the last event, or nothing
//!           of kinds 1 and 2: topic (a text)
//! ```

use std::sync::Arc;

use super::audience::Audience;
use super::packed::{Packed, put_text, put_who, take_audience, take_byte, take_text};
use crate::wire::frame::Sealed;
use crate::wire::received;

/// The first byte, where an event has its own. A version that does not know it takes the entry for none of a hub's.
const VERSION: u8 = 2;

/// Done to the clients of an audience, wherever they are.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) who: Audience,
    pub(crate) what: What,
}

#[derive(Debug)]
pub(crate) enum What {
    /// Ends their streams, for a reason and after a last event.
    Disconnect {
        reason: Box<str>,
        last: Option<Sealed>,
    },
    Join(Arc<str>),
    Leave(Arc<str>),
}

/// What an entry of the order is.
#[derive(Debug)]
pub(crate) enum Received {
    Event(Packed),
    Command(Command),
}

impl Received {
    /// Reads what a hub wrote; `None` if none can have.
    pub(crate) fn read(entry: &[u8]) -> Option<Self> {
        if is_command(entry) {
            Command::read(entry).map(Self::Command)
        } else {
            Packed::read(entry).map(Self::Event)
        }
    }
}

/// Whether that is to be read as a command.
pub(crate) fn is_command(entry: &[u8]) -> bool {
    entry.first() == Some(&VERSION)
}

/// Whether a stream can end with that as its reason.
pub(crate) fn is_reason(reason: &str) -> bool {
    let of_a_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=64).contains(&reason.len()) && reason.bytes().all(of_a_word)
}

impl Command {
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut buf = vec![VERSION, self.what.kind()];
        put_who(&mut buf, &self.who.who);
        match &self.what {
            What::Disconnect { reason, last } => {
                put_text(&mut buf, reason);
                buf.extend_from_slice(last.as_ref().map_or(&[], Sealed::bytes));
            }
            What::Join(topic) | What::Leave(topic) => put_text(&mut buf, topic),
        }
        buf
    }

    /// Reads what [`write`](Self::write) wrote; `None` if it cannot have.
    fn read(entry: &[u8]) -> Option<Self> {
        let mut rest = entry;
        if take_byte(&mut rest)? != VERSION {
            return None;
        }
        let kind = take_byte(&mut rest)?;
        let mut names = Audience::MAX_NAMES;
        let who = take_audience(&mut rest, Audience::MAX_DEPTH, &mut names)?;
        let text = take_text(&mut rest)?;
        let what = match kind {
            0 if is_reason(text) => {
                let last = if rest.is_empty() { None } else { Some(received::sealed(rest)?) };
                What::Disconnect { reason: text.into(), last }
            }
            1 if rest.is_empty() => What::Join(text.into()),
            2 if rest.is_empty() => What::Leave(text.into()),
            _ => return None,
        };
        Some(Self { who, what })
    }
}

impl What {
    const fn kind(&self) -> u8 {
        match self {
            Self::Disconnect { .. } => 0,
            Self::Join(_) => 1,
            Self::Leave(_) => 2,
        }
    }
}

#[cfg(all(test, not(sse_hub_loom)))]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::event::Event;

    /// Names that look like lengths, kinds and lines.
    fn name() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-c:|]{1,4}",
            "\\PC{1,8}",
            Just("\0\0\0\u{1}\u{2}".to_owned()),
            Just("\r\nid: 7".into())
        ]
    }

    fn command() -> impl Strategy<Value = Command> {
        let who = prop_oneof![
            Just(Audience::all()),
            name().prop_map(Audience::user),
            (name(), name())
                .prop_map(|(user, topic)| Audience::user(user).except(Audience::topic(topic))),
        ];
        let last = prop::option::of(".{0,20}".prop_map(|data| Event::new("bye").data(data).seal()));
        let what = prop_oneof![
            ("[a-zA-Z0-9_-]{1,64}", last)
                .prop_map(|(reason, last)| What::Disconnect { reason: reason.into(), last }),
            name().prop_map(|topic| What::Join(topic.into())),
            name().prop_map(|topic| What::Leave(topic.into())),
        ];
        (who, what).prop_map(|(who, what)| Command { who, what })
    }

    fn read(entry: &[u8]) -> Option<Command> {
        match Received::read(entry)? {
            Received::Command(command) => Some(command),
            Received::Event(_) => None,
        }
    }

    proptest! {
        #[test]
        fn a_command_is_the_same_on_the_other_side(command in command()) {
            let written = command.write();
            let read = read(&written).expect("what was written");
            prop_assert_eq!(&read.who, &command.who);
            prop_assert_eq!(read.what.kind(), command.what.kind());
            prop_assert_eq!(read.write(), written);
        }

        #[test]
        fn a_damaged_one_is_refused_or_another_valid_one(
            command in command(), at in any::<prop::sample::Index>(), byte: u8, cut: bool,
        ) {
            let mut written = command.write();
            let at = at.index(written.len());
            if cut { written.truncate(at) } else { written[at] = byte }
            if let Some(read) = read(&written) {
                prop_assert_eq!(read.write(), written);
            }
        }

        #[test]
        fn garbage_never_panics(mut garbage in vec(any::<u8>(), 1..64)) {
            garbage[0] = VERSION;
            let _ = Received::read(&garbage);
        }
    }

    #[test]
    fn what_no_hub_does_is_refused() {
        let entry =
            |kind: u8, rest: &[u8]| read(&[&[VERSION, kind, 0][..], rest].concat()).is_some();
        assert!(entry(0, b"\x01\0\0\0x"));
        assert!(entry(0, b"\x01\0\0\0xdata: bye\n"));
        assert!(!entry(0, b"\x01\0\0\0xevent: hub:open\ndata: {}\n"), "the hub's own");
        assert!(!entry(0, b"\x01\0\0\0\""), "it would end the string that it is put into");
        assert!(entry(1, b"\x01\0\0\0x") && entry(2, b"\x01\0\0\0x"));
        assert!(!entry(1, b"\x01\0\0\0xdata: bye\n"), "more than a topic");
        assert!(!entry(1, b"\0\0\0\0") && !entry(3, b"\x01\0\0\0x"));
    }
}
