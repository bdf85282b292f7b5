//! An interpreter of streams by section 9.2.6 of the HTML standard, written only from the text.

/// An event for a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Callback {
    pub(crate) kind: String,
    pub(crate) data: String,
    pub(crate) id: String,
}

/// An event source: the state that outlives connections, and the pending state of the current
/// connection.
#[derive(Default)]
pub(crate) struct EventSource {
    pub(crate) last_event_id: String,
    pub(crate) retry_ms: Option<u64>,
    started: bool,
    after_cr: bool,
    line: Vec<u8>,
    data: String,
    kind: String,
    id: String,
}

impl EventSource {
    /// Resets the pending fields after a lost connection.
    pub(crate) fn reconnect(&mut self) {
        *self = Self {
            last_event_id: self.last_event_id.clone(),
            retry_ms: self.retry_ms,
            id: self.last_event_id.clone(),
            ..Self::default()
        };
    }

    pub(crate) fn read(&mut self, bytes: &[u8]) -> Vec<Callback> {
        let mut callbacks = Vec::new();
        for &byte in bytes {
            let is_lf_of_crlf = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if is_lf_of_crlf => {}
                b'\r' | b'\n' => callbacks.extend(self.end_of_line()),
                _ => self.line.push(byte),
            }
        }
        callbacks
    }

    fn end_of_line(&mut self) -> Option<Callback> {
        let line = std::mem::take(&mut self.line);
        let mut line = String::from_utf8_lossy(&line).into_owned();
        // A byte order mark at the start of the stream is not part of the stream.
        if !std::mem::replace(&mut self.started, true) && line.starts_with('\u{feff}') {
            line.remove(0);
        }
        if line.is_empty() {
            return self.dispatch();
        }
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => value.clone_into(&mut self.kind),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.retry_ms = value.parse().ok().or(self.retry_ms);
            }
            // An unknown field, or a comment, which has an empty field name.
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<Callback> {
        self.last_event_id.clone_from(&self.id);
        let mut data = std::mem::take(&mut self.data);
        let kind = std::mem::take(&mut self.kind);
        data.pop()?;
        let kind = if kind.is_empty() { "message".to_owned() } else { kind };
        Some(Callback { kind, data, id: self.last_event_id.clone() })
    }
}

#[test]
fn examples_of_the_standard_hold() {
    let callback = |data: &str, id: &str| Callback {
        kind: "message".to_owned(),
        data: data.to_owned(),
        id: id.to_owned(),
    };
    let examples: [(&str, &[Callback]); 6] = [
        ("data: YHOO\ndata: +2\ndata: 10\n\n", &[callback("YHOO\n+2\n10", "")]),
        (
            ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
            &[
                callback("first event", "1"),
                callback("second event", ""),
                callback(" third event", ""),
            ],
        ),
        ("data\n\ndata\ndata\n\ndata:", &[callback("", ""), callback("\n", "")]),
        ("data:test\n\ndata: test\n\n", &[callback("test", ""), callback("test", "")]),
        // Cases from the grammar of the standard, not from its examples.
        (
            "\u{feff}data: a\rdata: b\r\n\ndata: \u{feff}c\r\r",
            &[callback("a\nb", ""), callback("\u{feff}c", "")],
        ),
        ("id: 1\n\nid: 2\0\ndata: x\n\n:\nretry: 7\nretry: x\nevent: e\n\n", &[callback("x", "1")]),
    ];
    for (stream, expected) in examples {
        // The result is the same if each byte arrives alone.
        for size in [stream.len(), 1] {
            let mut source = EventSource::default();
            let pieces = stream.as_bytes().chunks(size);
            let callbacks: Vec<_> = pieces.flat_map(|piece| source.read(piece)).collect();
            assert_eq!(callbacks, expected, "{stream:?}");
        }
    }
}
