//! Entries of the order that came back from the engine, and a part of the order to begin with.

use std::time::Duration;

use crate::log::codec::{self, Received};
use crate::wire::id::EventId;

/// An entry of the order with its id and age.
pub(super) type Aged = (EventId, Duration, Received);

/// The kind of an entry of the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// An event.
    Event,
    /// A message to every hub: to disconnect clients, for example, or which topics clients joined.
    Command,
    /// A part of a [run](crate::Run). The hub keeps these apart from other events.
    Run,
}

/// An entry that no hub has written, or a hub of a later version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", if *.is_unknown { "entry of an unknown format" } else { "malformed entry" })]
pub struct Malformed {
    is_unknown: bool,
}

impl Malformed {
    /// Returns whether the entry names a format, or a kind of command, that this version does not
    /// know. Then a later version has probably written the entry: update this instance.
    ///
    /// ```
    /// use sse_hub::backplane::Incoming;
    ///
    /// assert!(Incoming::parse(b"\x7f of a later version").unwrap_err().is_unknown_format());
    /// assert!(!Incoming::parse(b"\x01 is a known format").unwrap_err().is_unknown_format());
    /// ```
    #[must_use]
    pub const fn is_unknown_format(self) -> bool {
        self.is_unknown
    }
}

/// An entry that came back from the order: parsed, checked, and ready for a
/// [`Feed`](crate::backplane::Feed).
///
/// ```
/// use sse_hub::backplane::Incoming;
///
/// assert!(Incoming::parse(b"not an entry of a hub").is_err());
/// ```
#[derive(Debug)]
pub struct Incoming(pub(super) Received);

impl Incoming {
    /// Parses the bytes of an [`Outgoing::entry`](crate::backplane::Outgoing::entry). Any program
    /// can have written the bytes: parsing never panics, and takes bounded time and memory.
    ///
    /// # Errors
    ///
    /// Returns [`Malformed`] if a hub of this version cannot have written the bytes. The engine
    /// must then call [`Feed::skip_malformed`](crate::backplane::Feed::skip_malformed).
    pub fn parse(entry: &[u8]) -> Result<Self, Malformed> {
        let malformed = || Malformed { is_unknown: !codec::is_known_format(entry) };
        Received::read(entry).map(Self).ok_or_else(malformed)
    }

    /// Returns the kind of the entry.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.0 {
            Received::Event(_) => Kind::Event,
            Received::Run(_) => Kind::Run,
            Received::Command(_) | Received::Announcement(_) => Kind::Command,
        }
    }
}

/// A part of the order that a hub [begins](crate::backplane::Feed::load) with, and what the engine
/// kept from before that part.
///
/// ```
/// use std::time::Duration;
/// # use sse_hub::backplane::{Backplane, Outgoing, SendError};
/// use sse_hub::backplane::{Feed, Incoming, Loaded, RunCopy};
/// use sse_hub::{EventId, Hub, ManualTimer, Retain};
///
/// # #[derive(Debug)]
/// # struct Engine;
/// # impl Backplane for Engine {
/// #     fn send(&self, _: Outgoing) -> Result<(), SendError> {
/// #         Ok(())
/// #     }
/// # }
/// let retain = Retain::default().keep_latest(500);
/// let hub = Hub::builder(ManualTimer::new()).retain(retain).backplane(Engine).build()?;
/// let feed = Feed::new(&hub).unwrap();
/// # let tail: Vec<(EventId, Duration, Incoming)> = Vec::new();
/// # let values: Vec<(EventId, Duration, Incoming)> = Vec::new();
/// # let copies: Vec<Vec<(EventId, Duration, Incoming)>> = Vec::new();
/// let (floor, end) = (EventId::new(7, 0), EventId::new(9, 0));
/// let copies = copies.into_iter().map(|entries| RunCopy::new(end, entries));
/// feed.load(Loaded::new(floor, tail).latest(values, true).runs(end, copies));
/// assert_eq!(feed.head(), floor);
/// # Ok::<(), sse_hub::ConfigError>(())
/// ```
#[derive(Debug)]
#[must_use = "the hub begins when this is loaded"]
pub struct Loaded {
    pub(super) floor: EventId,
    pub(super) tail: Vec<Aged>,
    pub(super) values: Vec<Aged>,
    /// The engine lacks no value.
    pub(super) has_all_values: bool,
    /// The copies of the runs, and the position up to which there is no other open run. `None` if
    /// the engine keeps no copies.
    pub(super) runs: Option<(EventId, Vec<RunCopy>)>,
}

impl Loaded {
    /// Takes the end of the order. Between `floor` and the first entry of `tail` the order has no
    /// entry. Each entry comes with its age. An entry that is malformed must be left out and
    /// [counted](crate::backplane::Feed::skip_malformed).
    pub fn new(
        floor: EventId,
        tail: impl IntoIterator<Item = (EventId, Duration, Incoming)>,
    ) -> Self {
        let (tail, values) = (received(tail), Vec::new());
        Self { floor, tail, values, has_all_values: false, runs: None }
    }

    /// Adds the values of the conflation keys
    /// ([`Outgoing::value_of`](crate::backplane::Outgoing::value_of)) from before the floor. For a
    /// hub that [keeps values](crate::Retain::keep_latest).
    ///
    /// `latest` must have the newest event of each key at or before the floor, in any order, unless
    /// the key has a later event in the tail, or later. So an engine must read the values *after*
    /// the tail: a value that changes meanwhile is then newer than the tail, and comes by
    /// [`append`](crate::backplane::Feed::append). Events after the floor are ignored. `is_whole`
    /// is `false` if the engine lacks values: a client that
    /// [begins with the values](crate::Subscriber::latest) is then told a gap, as it is if this
    /// method is not called.
    pub fn latest(
        mut self,
        latest: impl IntoIterator<Item = (EventId, Duration, Incoming)>,
        is_whole: bool,
    ) -> Self {
        (self.values, self.has_all_values) = (received(latest), is_whole);
        self
    }

    /// Adds the copies of the runs ([`Outgoing::run`](crate::backplane::Outgoing::run)), in any
    /// order. `upto` must be the newest position of the order when the engine read which copies
    /// there are.
    ///
    /// All open runs must have a copy: the hub takes a name without a copy for a name without an
    /// open run at `upto`. Without this call, the hub knows the runs that start in the tail or
    /// later, and can accept the start of a run that is open.
    pub fn runs(mut self, upto: EventId, copies: impl IntoIterator<Item = RunCopy>) -> Self {
        // Foreign code, which must run before a lock is taken.
        self.runs = Some((upto, copies.into_iter().collect()));
        self
    }
}

/// The entries of a run that an engine copied.
#[derive(Debug)]
pub struct RunCopy {
    /// The copy has all entries up to here that have an effect.
    pub(super) upto: EventId,
    pub(super) entries: Vec<Aged>,
    /// The newest dropped event.
    pub(super) lost: EventId,
}

impl RunCopy {
    /// Takes the entries of a run, in order and with their ages. `upto` must be the newest position
    /// of the order when the engine read the copy. Entries before a start have no effect.
    ///
    /// Up to `upto` the copy decides which starts have an effect: the entries of the tail do not
    /// say whether the run was open before. Entries after the tail are welcome.
    #[must_use]
    pub fn new(
        upto: EventId,
        entries: impl IntoIterator<Item = (EventId, Duration, Incoming)>,
    ) -> Self {
        Self { upto, entries: received(entries), lost: EventId::ORIGIN }
    }

    /// Notes that the copy lacks the events of the run up to `lost`. Readers of the run get a gap.
    /// The copy must have every later entry, and all parts that are no events.
    #[must_use]
    pub fn lost(mut self, lost: EventId) -> Self {
        self.lost = lost;
        self
    }
}

/// Collects entries. The iterator is foreign code: it must run before a lock is taken.
pub(super) fn received(
    entries: impl IntoIterator<Item = (EventId, Duration, Incoming)>,
) -> Vec<Aged> {
    entries.into_iter().map(|(id, age, entry)| (id, age, entry.0)).collect()
}
