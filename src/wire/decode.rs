//! The decoder for frames that another instance encoded.
//!
//! A received frame goes to clients unchanged. A frame that could break a stream, or that poses as
//! one of the hub's own events, is refused here.

use super::event::EventType;
use super::frame::{RETRY_RANGE, Sealed};

/// Reads a frame without its id. Returns `None` if the encoder cannot have written it.
pub(crate) fn sealed(frame: &[u8]) -> Option<Sealed> {
    let text = std::str::from_utf8(frame).ok()?;
    if memchr::memchr(b'\r', frame).is_some() {
        return None;
    }
    let mut event_type = None;
    for (number, line) in text.strip_suffix('\n')?.split('\n').enumerate() {
        let known = match line.split_once(' ')? {
            ("event:", name) if number == 0 => {
                event_type = Some(name);
                EventType::new(name.to_owned()).is_ok()
            }
            ("data:" | ":", _) => true,
            ("retry:", digits) => is_retry(digits),
            _ => false,
        };
        if !known {
            return None;
        }
    }
    Some(Sealed::of(frame, event_type.map_or(0, str::len)))
}

/// Reads the type and the data of a frame of the log. Returns `None` if the frame has no data: a
/// client receives no event for a comment or a reconnect delay alone.
///
/// The data has LF line ends, as a client receives it.
pub(crate) fn stored(frame: &[u8]) -> Option<(String, String)> {
    let text = std::str::from_utf8(frame).ok()?;
    let mut event_type = None;
    let mut data: Option<String> = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("event: ") {
            event_type = Some(name);
        } else if let Some(line) = line.strip_prefix("data: ") {
            match &mut data {
                None => data = Some(line.to_owned()),
                Some(data) => {
                    data.push('\n');
                    data.push_str(line);
                }
            }
        }
    }
    Some((event_type.unwrap_or("message").to_owned(), data?))
}

/// Appends the data of a frame of the log to `text`. Returns `false`, and leaves `text` as it is,
/// if the frame has no data, or other fields than a type, data and an id.
pub(crate) fn append_text(frame: &[u8], text: &mut String) -> bool {
    let before = text.len();
    let mut has_data = false;
    let mut rest = frame;
    // Bytes, because this runs under locks for each event of a text.
    while let Some(end) = memchr::memchr(b'\n', rest) {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        if let Some(data) = line.strip_prefix(b"data: ") {
            let Ok(data) = std::str::from_utf8(data) else { break };
            if has_data {
                text.push('\n');
            }
            text.push_str(data);
            has_data = true;
        } else if line.starts_with(b"id: ") && has_data {
            // The id is the last field.
            return true;
        } else if !line.starts_with(b"event: ") {
            break;
        }
    }
    text.truncate(before);
    false
}

fn is_retry(digits: &str) -> bool {
    let range = RETRY_RANGE.start().as_millis()..=RETRY_RANGE.end().as_millis();
    digits.bytes().all(|byte| byte.is_ascii_digit())
        && digits.parse().is_ok_and(|millis: u128| range.contains(&millis))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::event::Event;
    use super::super::id::EventId;
    use super::*;

    #[test]
    fn an_encoded_frame_is_read_back() {
        for event in [
            Event::new("alert").data("a\r\nb\n").retry(Duration::from_secs(3)).comment("c: d"),
            Event::default().data(""),
            Event::new("id: 7").data("event: hub:open"),
            Event::default().comment("alone"),
            Event::default().retry(Duration::from_millis(1)),
        ] {
            let sealed = event.seal();
            let read = super::sealed(sealed.bytes()).expect("a frame");
            assert_eq!(read.bytes(), sealed.bytes());
            assert_eq!(read.event_type(), sealed.event_type());
        }
    }

    #[test]
    fn a_stored_frame_has_its_type_and_data() {
        let read = |event: Event| {
            let frame = event.seal().finish(EventId::new(1, 2)).into_bytes();
            stored(&frame)
        };
        let expected = |event_type: &str, data: &str| Some((event_type.into(), data.into()));
        for (data, read_data) in [
            ("", ""),
            ("a", "a"),
            (" a ", " a "),
            ("a\r\nb\rc\n", "a\nb\nc\n"),
            ("\n\n", "\n\n"),
            ("data: x\nid: 7\nevent: y", "data: x\nid: 7\nevent: y"),
            ("\u{85}\u{2028}\0", "\u{85}\u{2028}\0"),
        ] {
            assert_eq!(read(Event::new("t: u").data(data)), expected("t: u", read_data));
            let full = Event::default().data(data).comment("c\nd").retry(Duration::from_secs(1));
            assert_eq!(read(full), expected("message", read_data));
        }
        assert_eq!(read(Event::default().comment("data: x")), None);
        assert_eq!(read(Event::default().retry(Duration::from_secs(1))), None);
        assert_eq!(stored(b"data: \xff\n\n"), None);
    }

    #[test]
    fn text_of_adjacent_frames_is_joined() {
        let mut text = String::from("<");
        let mut append = |event: Event| {
            let frame = event.seal().finish(EventId::new(1, 2)).into_bytes();
            append_text(&frame, &mut text)
        };
        for data in ["a", "", "\n", "b\r\nc", " d ", "id: 7", "data: e"] {
            assert!(append(Event::new("token").data(data)), "{data:?}");
        }
        assert!(append(Event::default().data("f")));
        assert!(!append(Event::new("token").data("x").comment("c")));
        assert!(!append(Event::new("token").data("x").retry(Duration::from_secs(1))));
        assert!(!append(Event::default().comment("c")));
        assert_eq!(text, "<a\nb\nc d id: 7data: ef");
    }

    #[test]
    fn any_other_frame_is_refused() {
        let too_long = format!("event: {}\n", "x".repeat(EventType::MAX_LEN + 1));
        for frame in [
            "",
            "\n",
            "data: a",
            "data:a\n",
            "data: a\n\n",
            "data: a\n\nevent: b\n",
            "data: a\rid: 7\n",
            "id: 7\n",
            "data: a\nid: 7\n",
            "data: a\nevent: b\n",
            "event: \n",
            "event: hub:open\ndata: a\n",
            "event: a\0b\n",
            "retry: -1\n",
            "retry: +1\n",
            "retry: 0\n",
            "retry: 99999999999999999999999999999999999999999\n",
            "other: a\n",
            "data\n",
            &too_long,
        ] {
            assert!(super::sealed(frame.as_bytes()).is_none(), "{frame:?}");
        }
        assert!(super::sealed(b"data: \xff\n").is_none());
    }
}
