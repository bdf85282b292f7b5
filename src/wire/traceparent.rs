//! The trace context that an event carries between instances, in the form of [W3C Trace Context].
//!
//! [W3C Trace Context]: https://www.w3.org/TR/2021/REC-trace-context-1-20211123/#traceparent-header

use std::fmt;

/// The characters of version 00: `00-`, 32 of the trace id, `-`, 16 of the parent id, `-`, 2 of
/// the flags.
const TEXT_LEN: usize = 55;

/// The only flag of version 00: the caller may have recorded the trace.
const SAMPLED: u8 = 1;

/// A valid `traceparent`: the trace id (16 bytes), the parent id (8 bytes) and the flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Traceparent([u8; Self::LEN]);

impl Traceparent {
    /// The length in an entry, in bytes.
    pub(crate) const LEN: usize = 25;

    /// Parses the text of a header. Returns `None` if the standard demands to ignore the text.
    ///
    /// A later version may have more fields, which this version must not forward. So a later
    /// version becomes version 00, as the standard says, with the flag that version 00 knows.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (known, rest) = text.as_bytes().split_at_checked(TEXT_LEN)?;
        let [v0, v1, b'-', ids @ .., b'-', f0, f1] = known else { return None };
        let (trace, parent) = ids.split_at_checked(32)?;
        let parent = parent.strip_prefix(b"-")?;
        let version = byte(*v0, *v1)?;
        let is_whole = match version {
            0 => rest.is_empty(),
            u8::MAX => false,
            _ => rest.is_empty() || rest.starts_with(b"-"),
        };
        let mut bytes = [0; Self::LEN];
        let digits = trace.chunks(2).chain(parent.chunks(2));
        for (byte_at, pair) in bytes.iter_mut().zip(digits) {
            *byte_at = byte(pair[0], pair[1])?;
        }
        let flags = byte(*f0, *f1)?;
        bytes[Self::LEN - 1] = if version == 0 { flags } else { flags & SAMPLED };
        Self::from_bytes(&bytes).filter(|_| is_whole)
    }

    /// Returns `None` if the trace id or the parent id is zero, which the standard forbids.
    pub(crate) fn from_bytes(bytes: &[u8; Self::LEN]) -> Option<Self> {
        let is_set = |part: &[u8]| part.iter().any(|&byte| byte != 0);
        (is_set(&bytes[..16]) && is_set(&bytes[16..24])).then_some(Self(*bytes))
    }

    pub(crate) fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

/// The value of two hexadecimal digits in lower case.
fn byte(high: u8, low: u8) -> Option<u8> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    Some(digit(high)? << 4 | digit(low)?)
}

impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        for (at, byte) in self.0.iter().enumerate() {
            // The parent id and the flags begin here.
            let dash = if matches!(at, 16 | 24) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

#[cfg(all(test, not(sse_hub_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The example of the standard.
    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn parsed(text: &str) -> Option<String> {
        Traceparent::parse(text).map(|parsed| parsed.to_string())
    }

    #[test]
    fn valid_texts_are_kept() {
        for flags in ["00", "01", "03", "ff"] {
            let text = format!("{}{flags}", &VALID[..53]);
            assert_eq!(parsed(&text), Some(text.clone()));
        }
    }

    #[test]
    fn invalid_texts_are_refused() {
        let zeros = |from: usize, to: usize| {
            format!("{}{}{}", &VALID[..from], "0".repeat(to - from), &VALID[to..])
        };
        assert_eq!(parsed(&zeros(3, 35)), None, "no trace id");
        assert_eq!(parsed(&zeros(36, 52)), None, "no parent id");
        assert!(parsed(&zeros(4, 35)).is_some() && parsed(&zeros(36, 51)).is_some());
        assert_eq!(parsed(&VALID.to_uppercase()), None);
        assert_eq!(parsed(&VALID.replacen("00", "ff", 1)), None, "the version that is forbidden");
        for text in ["", " ", "00", &VALID[..54], &format!(" {VALID}"), &format!("{VALID} ")] {
            assert_eq!(parsed(text), None, "{text:?}");
        }
        assert_eq!(parsed(&format!("{VALID}-what")), None, "version 00 has no more fields");
        for at in 0..VALID.len() {
            for other in ["g", "G", "/", ":", "`", "\u{e9}", "\n"] {
                let text = format!("{}{other}{}", &VALID[..at], &VALID[at + 1..]);
                assert_eq!(parsed(&text), None, "{text:?}");
            }
        }
    }

    #[test]
    fn later_version_becomes_version_00() {
        for rest in ["", "-", "-what-more"] {
            let later = format!("cc{}{rest}", VALID[2..].replace("-01", "-ff"));
            assert_eq!(parsed(&later).as_deref(), Some(VALID));
        }
        assert_eq!(parsed(&format!("cc{}.", &VALID[2..])), None);
    }

    proptest! {
        #[test]
        fn text_and_bytes_agree(bytes: [u8; Traceparent::LEN]) {
            prop_assume!(bytes[0] != 0 && bytes[16] != 0);
            let read = Traceparent::from_bytes(&bytes).unwrap();
            prop_assert_eq!(Traceparent::parse(&read.to_string()), Some(read));
            prop_assert_eq!(read.as_bytes(), &bytes);
        }
    }
}
