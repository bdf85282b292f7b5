//! Known faults of clients: the wrong callbacks and the reasons. If a client is fixed, the test
//! fails, and the entry here must be removed.

use crate::proxy::Anatomy;
use crate::standard::Callback;

#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) client: &'static str,
    pub(crate) damage: Damage,
    pub(crate) cause: &'static str,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Damage {
    /// The callback that the client makes of an event.
    Corpus(fn(Callback) -> Callback),
    /// Returns true if the client loses an event when the item is cut after this many bytes.
    Cuts(fn(Anatomy, usize) -> bool),
    /// The client does not reconnect after a cut. The application must create a new client.
    GivesUp,
}

pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        client: "@microsoft/fetch-event-source",
        damage: Damage::Corpus(without_marks),
        cause: "a byte order mark at the start of a line's value is dropped: it decodes each value with a new \
                `TextDecoder`, which takes it for the start of a stream",
    },
    Fault {
        client: "@microsoft/fetch-event-source",
        damage: Damage::Corpus(without_leading_lines),
        cause: "empty lines at the start of data are dropped: it asks whether there is data yet by whether the data is \
                empty",
    },
    Fault {
        client: "@microsoft/fetch-event-source",
        damage: Damage::Cuts(|anatomy, after| after + 1 == anatomy.frames_end),
        cause: "an event that is cut between its id and its blank line is lost: it keeps an id when it has read its \
                line, and not with the event",
    },
    Fault {
        client: "requests-sse",
        damage: Damage::Corpus(trimmed),
        cause: "spaces at the start of a line's value and empty lines at the end of data are dropped: it strips all, \
                where the standard takes one",
    },
    Fault {
        client: "aiohttp-sse-client",
        damage: Damage::Corpus(trimmed),
        cause: "spaces at the start of a line's value and empty lines at the end of data are dropped: it strips all, \
                where the standard takes one",
    },
    Fault {
        client: "aiohttp-sse-client",
        damage: Damage::GivesUp,
        cause: "it comes back only after a stream that ended: a connection that was cut is a `ClientPayloadError` for \
                the application, which must make a new one with the last id",
    },
];

fn each_line(data: &str, change: impl Fn(&str) -> &str) -> String {
    let lines: Vec<_> = data.split('\n').map(change).collect();
    lines.join("\n")
}

fn without_marks(Callback { kind, data, id }: Callback) -> Callback {
    fn without_mark(text: &str) -> &str {
        text.strip_prefix('\u{feff}').unwrap_or(text)
    }
    Callback { kind: without_mark(&kind).to_owned(), data: each_line(&data, without_mark), id }
}

fn without_leading_lines(callback: Callback) -> Callback {
    Callback { data: callback.data.trim_start_matches('\n').to_owned(), ..callback }
}

fn trimmed(Callback { kind, data, id }: Callback) -> Callback {
    let data = each_line(&data, |line| line.trim_start_matches(' '));
    let data = data.trim_end_matches('\n').to_owned();
    Callback { kind: kind.trim_start_matches(' ').to_owned(), data, id }
}

pub(crate) fn of(client: &str) -> impl Iterator<Item = &'static Fault> {
    FAULTS.iter().filter(move |fault| fault.client == client)
}
