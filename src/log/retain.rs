//! How much the log keeps.

use std::time::Duration;

use crate::error::ConfigError;

/// The events that a hub keeps for clients that reconnect or fall behind.
///
/// By default 4096 events, at most 16 MiB, each for at most 5 minutes.
///
/// ```
/// use std::time::Duration;
/// use sse_hub::{Hub, ManualTimer, Retain};
///
/// let retain = Retain::default()
///     .events(10_000)
///     .per_topic(256)
///     .bytes(32 << 20)
///     .age(Duration::from_secs(600));
/// let hub = Hub::builder(ManualTimer::new()).retain(retain).build()?;
/// # Ok::<(), sse_hub::ConfigError>(())
/// ```
///
/// # Memory
///
/// The retention bounds the memory that a hub takes for events, however its clients behave. With a
/// backplane, [`History`](crate::History) allows more for a while. On 64 bits the bound is:
///
/// ```text
/// 1.25 * bytes  +  700 B * max(events, 1024)  +  2 MiB if audiences use `and` or `except`
/// ```
///
/// `bytes` counts for each event:
///
/// | part of the event | bytes |
/// |---|---|
/// | the frame | its length |
/// | the names in its audience | their length |
/// | each key of an audience with several names (`users`, `topics`, `or` ...) | 192 |
/// | each name in an audience with an `and` or an `except` | 128 |
/// | a conflation key | 192, its length, the length of the type, and 64 for each of several names |
///
/// An allocation can be a quarter larger than its frame: hence the factor. The cost per event is
/// the entry, its index, and the record of evicted events. The 2 MiB are the audiences of the last
/// 256 evicted events. For small events, 270 to 350 bytes per event are usual if the events are for
/// every client or for one topic, and 610 to 660 bytes if each event is for a different user. The
/// values of [`keep_latest`](Self::keep_latest) have a bound of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retain {
    pub(crate) events: usize,
    pub(crate) per_topic: Option<usize>,
    pub(crate) bytes: usize,
    pub(crate) age: Option<Duration>,
    /// The most values that are kept beyond the other limits; `None` for no values.
    keys: Option<usize>,
    value_bytes: usize,
}

/// The default of [`Retain::latest_bytes`].
const VALUE_BYTES: usize = 16 << 20;

/// The bound of the values that outlive the retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Values {
    pub(crate) keys: usize,
    pub(crate) bytes: usize,
}

impl Retain {
    /// Sets the most events. Must not be zero.
    #[must_use]
    pub const fn events(mut self, events: usize) -> Self {
        self.events = events;
        self
    }

    /// Sets the most events of each topic, so that a busy topic does not evict the others; `None`
    /// for no limit, the default. Must not be zero, and not more than [`events`](Self::events).
    #[must_use]
    pub fn per_topic(mut self, events: impl Into<Option<usize>>) -> Self {
        self.per_topic = events.into();
        self
    }

    /// Sets the most bytes of all events together, counted as in [Memory](Self#memory). Must not be
    /// zero. A larger event is refused.
    #[must_use]
    pub const fn bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }

    /// Sets the most time that an event is kept after it was published; `None` for no limit. Must
    /// not be zero. The hub evicts an old event when it is next used.
    #[must_use]
    pub fn age(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.age = age.into();
        self
    }

    /// Keeps the newest event of each conflation key ([`Event::conflate`]) also if the other limits
    /// would evict the event: of at most `keys` keys. `None`, the default, keeps no such events.
    /// Must not be zero.
    ///
    /// Such an event is the *value* of the key. A value stays until a later event of the key
    /// replaces the value. So a client that starts with [`Subscriber::latest`] receives every
    /// value, however old, and a client that comes back to an old position still gets the newest
    /// value of each key that changed meanwhile.
    ///
    /// [`Event::conflate`] defines a key: the audience, the type and the key of an event. If there
    /// are more than `keys` values beyond the other limits, or more than
    /// [`latest_bytes`](Self::latest_bytes), the oldest values are evicted. A client that
    /// could have received an evicted value is told a gap: if it starts with the values, at the
    /// start; if it comes back, after its position.
    ///
    /// The values take memory in addition to [Memory](Self#memory):
    ///
    /// ```text
    /// 1.25 * latest_bytes  +  700 B * max(keys, 1024)
    /// ```
    ///
    /// [`Stats::retained`](crate::Stats::retained) counts the values, too.
    ///
    /// ```
    /// use std::time::Duration;
    /// use futures_util::{FutureExt as _, StreamExt as _};
    /// use sse_hub::{Event, Hub, ManualTimer, Retain, Subscriber};
    ///
    /// let timer = ManualTimer::new();
    /// let retain = Retain::default().age(Duration::from_secs(60)).keep_latest(500);
    /// let hub = Hub::builder(timer.clone()).retain(retain).build()?;
    /// hub.broadcast(Event::new("price").conflate("ACME").data("17"))?;
    /// timer.advance(Duration::from_secs(3600));
    /// let mut page = hub.subscribe(Subscriber::new().latest())?;
    /// let first = page.next().now_or_never().flatten().unwrap();
    /// assert!(String::from_utf8_lossy(&first).contains("data: 17"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// [`Event::conflate`]: crate::Event::conflate
    /// [`Subscriber::latest`]: crate::Subscriber::latest
    #[must_use]
    pub fn keep_latest(mut self, keys: impl Into<Option<usize>>) -> Self {
        self.keys = keys.into();
        self
    }

    /// Sets the most bytes of the values that [`keep_latest`](Self::keep_latest) keeps, counted as
    /// in [Memory](Self#memory): 16 MiB by default. Must not be zero. A larger value is not kept.
    #[must_use]
    pub const fn latest_bytes(mut self, bytes: usize) -> Self {
        self.value_bytes = bytes;
        self
    }

    /// Returns the bound of the kept values. `None` if none are kept.
    pub(crate) const fn kept(&self) -> Option<Values> {
        match self.keys {
            Some(keys) => Some(Values { keys, bytes: self.value_bytes }),
            None => None,
        }
    }

    /// Adds an allowance, and removes the limits of topics and of age.
    pub(super) fn raised(mut self, by: Allowance) -> Self {
        self.events = self.events.saturating_add(by.events);
        self.bytes = self.bytes.saturating_add(by.bytes);
        (self.per_topic, self.age) = (None, None);
        self
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let zero = [
            ("Retain::events", self.events == 0),
            ("Retain::per_topic", self.per_topic == Some(0)),
            ("Retain::bytes", self.bytes == 0),
            ("Retain::age", self.age == Some(Duration::ZERO)),
            ("Retain::keep_latest", self.keys == Some(0)),
            ("Retain::latest_bytes", self.value_bytes == 0),
        ];
        if let Some((setting, _)) = zero.into_iter().find(|&(_, is_zero)| is_zero) {
            return Err(ConfigError::Zero { setting });
        }
        match self.per_topic {
            Some(per_topic) if per_topic > self.events => {
                Err(ConfigError::PerTopic { per_topic, events: self.events })
            }
            _ => Ok(()),
        }
    }
}

impl Default for Retain {
    /// 4096 events, at most 16 MiB, each for at most 5 minutes.
    fn default() -> Self {
        Self {
            events: 4096,
            per_topic: None,
            bytes: 16 << 20,
            age: Some(Duration::from_secs(300)),
            keys: None,
            value_bytes: VALUE_BYTES,
        }
    }
}

/// How much a hub keeps of its [runs](crate::Run), apart from the other events: neither evicts the
/// other.
///
/// | limit | default |
/// |---|---|
/// | [`keep`](Self::keep) | 10 minutes after the end of a run |
/// | [`bytes_per_run`](Self::bytes_per_run) | 8 MiB |
/// | [`bytes`](Self::bytes) | 64 MiB for all runs |
/// | [`runs`](Self::runs) | 10,000 runs, open or ended |
/// | [`wait`](Self::wait) | none: a client of an unknown run is refused |
///
/// ```
/// use std::time::Duration;
/// use sse_hub::{Hub, ManualTimer, RunLimits};
///
/// let limits = RunLimits::default().keep(Duration::from_secs(3600)).bytes(256 << 20);
/// let hub = Hub::builder(ManualTimer::new()).runs(limits).build()?;
/// # Ok::<(), sse_hub::ConfigError>(())
/// ```
///
/// # Memory
///
/// On 64 bits, the runs of a hub take at most:
///
/// ```text
/// 1.25 * bytes  +  1 KiB * runs  +  14 KiB * clients that do not read
/// ```
///
/// An event counts for the length of the frame and of the run's name, for 256 bytes, and for a
/// conflation key as in [`Retain`]. In a run that [appends](crate::RunOptions::append) text, an
/// event of the text counts for twice the length of the data and for 32 bytes. In addition, each
/// text of at most 16 KiB counts for 256 bytes. An answer of 10,000 tokens with 4 bytes each counts
/// for at most 0.42 MB.
///
/// The clients that have not read the newest events of a text hold these events: at most 8 for each
/// client, with a frame of at most 1 KiB each. Clients of the same run share the events. A client
/// for which more of these events wait holds none, and reads the text later. In a run that appends
/// nothing, clients take no such memory.
///
/// Beyond `bytes_per_run`, a run loses its oldest events. Beyond `bytes`, the runs that have ended
/// lose their oldest events, and then the open runs. A reader is told of a loss by a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunLimits {
    pub(crate) keep: Duration,
    pub(crate) bytes_per_run: usize,
    pub(crate) bytes: usize,
    pub(crate) runs: usize,
    /// `None`: not set.
    wait: Option<Wait>,
}

/// How long a client waits for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    No,
    For(Duration),
}

/// How long a client waits by default if the hub has a backplane: an instance that is behind gets
/// the start of a run within this time.
const WAIT: Duration = Duration::from_secs(2);

impl RunLimits {
    /// Sets how long a run is kept after its end: 10 minutes by default. With zero, a run is
    /// forgotten when the hub is next used after the end. An open run is kept however long it is
    /// silent.
    #[must_use]
    pub const fn keep(mut self, time: Duration) -> Self {
        self.keep = time;
        self
    }

    /// Sets the most bytes of each run, counted as in [Memory](Self#memory). Must not be zero. An
    /// event that counts for more is refused.
    #[must_use]
    pub const fn bytes_per_run(mut self, bytes: usize) -> Self {
        self.bytes_per_run = bytes;
        self
    }

    /// Sets the most bytes of all runs together, counted as in [Memory](Self#memory). Must not be
    /// zero.
    #[must_use]
    pub const fn bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }

    /// Sets the most runs, open or ended. Must not be zero. A new run takes the place of the run
    /// that ended first; if all runs are open, starting another is an error.
    #[must_use]
    pub const fn runs(mut self, runs: usize) -> Self {
        self.runs = runs;
        self
    }

    /// Sets how long a client waits for runs that are not known. With `None`, a client of an unknown
    /// run is refused. Must not be zero.
    ///
    /// The default is `None` for a hub alone. With a [backplane](crate::HubBuilder::backplane) the
    /// default is 2 seconds, because another instance may have started the run just now.
    ///
    /// A stream that waits ends with a final `hub:end`, with the reason `unknown-run`, if none of
    /// its runs starts within this time.
    #[must_use]
    pub fn wait(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.wait = Some(time.into().map_or(Wait::No, Wait::For));
        self
    }

    /// Returns how long a client waits for a run.
    pub(crate) fn wait_of(&self, has_backplane: bool) -> Option<Duration> {
        match self.wait {
            None => has_backplane.then_some(WAIT),
            Some(Wait::No) => None,
            Some(Wait::For(time)) => Some(time),
        }
    }

    /// Returns the most bytes of a run, and of an event in a run.
    pub(crate) fn per_run(&self) -> usize {
        self.bytes_per_run.min(self.bytes)
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let zero = [
            ("RunLimits::bytes_per_run", self.bytes_per_run == 0),
            ("RunLimits::bytes", self.bytes == 0),
            ("RunLimits::runs", self.runs == 0),
            ("RunLimits::wait", self.wait == Some(Wait::For(Duration::ZERO))),
        ];
        match zero.into_iter().find(|&(_, is_zero)| is_zero) {
            Some((setting, _)) => Err(ConfigError::Zero { setting }),
            None => Ok(()),
        }
    }
}

impl RunLimits {
    pub(crate) const DEFAULT: Self = Self {
        keep: Duration::from_secs(600),
        bytes_per_run: 8 << 20,
        bytes: 64 << 20,
        runs: 10_000,
        wait: None,
    };
}

impl Default for RunLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What the log may keep beyond its retention while it is raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowance {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
}
