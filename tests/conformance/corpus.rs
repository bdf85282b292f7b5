//! Events with bytes at which clients or servers have failed, and the callbacks that a client must
//! make.

use sse_hub::Event;

use crate::standard::Callback;

/// An event to publish.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    kind: Option<String>,
    pub(crate) data: String,
}

impl Entry {
    fn data(data: impl Into<String>) -> Self {
        Self { kind: None, data: data.into() }
    }

    fn kind(kind: impl Into<String>) -> Self {
        Self { kind: Some(kind.into()), data: "of a type".to_owned() }
    }

    pub(crate) fn event(&self) -> Event {
        let event = match &self.kind {
            Some(kind) => Event::new(kind),
            None => Event::default(),
        };
        event.data(&self.data)
    }

    /// By the rules of the standard, independent of the encoder: CRLF, CR and LF end lines, and the
    /// lines come back joined by LF.
    pub(crate) fn expected(&self, id: impl ToString) -> Callback {
        Callback {
            kind: self.kind.clone().unwrap_or_else(|| "message".to_owned()),
            data: self.data.replace("\r\n", "\n").replace('\r', "\n"),
            id: id.to_string(),
        }
    }
}

/// The types that a client with a list of types must listen to.
pub(crate) fn types() -> Vec<String> {
    let mut types: Vec<String> = entries().into_iter().filter_map(|entry| entry.kind).collect();
    types.sort_unstable();
    types.dedup();
    types
}

pub(crate) fn entries() -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut add = |data: &[&str]| entries.extend(data.iter().map(|&data| Entry::data(data)));
    add(&["plain", "", " ", "  ", "   three", " one", "\ttab", "trailing  "]);
    for end in ["\r", "\n", "\r\n"] {
        for text in ["{}", "{}a", "a{}", "a{}b", " {} ", "a{} b", "a{}  b", "é{}\u{1f600}"] {
            add(&[&text.replace("{}", end)]);
        }
        for next in ["\r", "\n", "\r\n"] {
            add(&[&[end, next].concat(), &["a", end, next, "b"].concat()]);
        }
        // Text that would become fields if a line end were missed.
        for field in
            ["id: 9-9", "event: forged", "retry: 1", "data: forged", ":", ": comment", "id"]
        {
            add(&[&["a", end, field].concat()]);
        }
        add(&[&["a", end, end, "data: forged", end, end].concat()]);
        add(&[&end.repeat(3), &["a", &end.repeat(4)].concat(), &[&end.repeat(2), "a"].concat()]);
    }
    // Characters that are no line ends, although some languages treat them so.
    for other in ["\u{2028}", "\u{2029}", "\u{85}", "\u{b}", "\u{c}", "\u{1c}", "\u{1d}", "\u{1e}"]
    {
        add(&[other, &["a", other, "b"].concat(), &["a", other, "data: c"].concat()]);
        // Also behind a real line end.
        add(&[&["a\n", other, "b", other, "data: c"].concat()]);
    }
    add(&["\u{feff}", "\u{feff}marked", "a\n\u{feff}b", "a\u{feff}", "\u{feff}\u{feff}twice"]);
    add(&[":", "::", ": comment", "a: b", "data: a", "id: 9-9", "event: forged", "retry: 1"]);
    add(&["\0", "a\0b", "\0\n\0", "a\n\0id: 9-9"]);
    add(&["\u{1f600}", "\u{10ffff}", "\u{1f469}\u{200d}\u{1f467}", "\u{202e}rtl", "e\u{301}"]);
    add(&[
        "\u{fffd}",
        "\u{fffe}\u{ffff}",
        "\u{d7ff}\u{e000}",
        "nan",
        "null",
        r#"{"json":"\n\u2028"}"#,
    ]);
    let controls: String = ('\0'..='\u{9f}').filter(|&c| c != '\r' && c != '\n').collect();
    add(&[&controls]);
    entries.extend(long().map(Entry::data));

    let longest = "t".repeat(256);
    let kinds = [
        "a",
        "A",
        "0",
        "message",
        "error",
        "open",
        "close",
        "two words",
        " leading",
        "trailing ",
        ":",
        "a:b",
        ": a",
        "data",
        "id",
        "event",
        "retry",
        "\u{e9}",
        "\u{1f600}",
        "\t",
        "a\u{2028}b",
        "a\u{85}b",
        "a\u{b}b",
        "\u{feff}marked",
        "__proto__",
        "constructor",
        "toString",
        "hasOwnProperty",
        "hub",
        "Hub:open",
        "null",
        "undefined",
        &longest,
    ];
    entries.extend(kinds.map(Entry::kind));
    // The event before has a type, which must not apply to the next event.
    entries.push(Entry::data("without a type again"));
    entries
}

/// Sizes around those of buffers: the hub's batch, sockets, the line buffers of clients.
fn long() -> impl Iterator<Item = String> {
    let one_line = [65_527, 65_536, 65_537, 100_000, 250_000].map(|length| "x".repeat(length));
    let lines = [
        // Characters of four bytes: most even pieces split them.
        format!("y{}", "\u{1f600}".repeat(25_000)),
        format!("{}\n", "z".repeat(79)).repeat(1_000),
        "\n".repeat(1_000),
        "a\r\nb\rc\nd".repeat(2_000),
    ];
    one_line.into_iter().chain(lines)
}

#[test]
fn corpus_is_large_and_valid() {
    let entries = entries();
    assert!(entries.len() >= 100, "{}", entries.len());
    for entry in &entries {
        entry.event().check().unwrap_or_else(|error| panic!("{entry:?}: {error}"));
    }
}
