//! Counters of a hub, and the snapshot of them that users see.

use std::array;
use std::fmt;
#[cfg(feature = "metrics")]
use std::iter;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[cfg(feature = "json")]
use serde::ser::{Serialize, SerializeStruct as _, Serializer};

use super::end::EndReason;
use crate::error::RefusedCause;
use crate::log::log::Log;
use crate::log::routes::Routes;
use crate::log::runs::RunState;

/// A snapshot of a hub's counters, as [`Hub::stats`](crate::Hub::stats) returns it.
///
/// Counters count from the creation of the hub.
///
/// ```
/// use sse_hub::{EndReason, Hub, ManualTimer, Subscriber};
///
/// let hub = Hub::builder(ManualTimer::new()).build()?;
/// drop(hub.subscribe(Subscriber::new())?);
/// let stats = hub.stats();
/// assert_eq!((stats.clients, stats.opened), (0, 1));
/// assert_eq!(stats.ended(EndReason::Left), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// `{:?}` shows the reasons and the causes that occurred by their words. With the feature `json`, a
/// `Stats` is `Serialize`: `ended`, `refused` and `ended_runs` are maps that have every word, and `delays` is a
/// list of the buckets that counted a delay.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Open streams.
    pub clients: usize,
    /// Names with open streams: client ids, users, sessions and topics, and one for all clients.
    pub client_names: usize,
    /// Events in the log, [older events](crate::History) included.
    pub retained: usize,
    /// Names that the retained events are addressed to.
    pub retained_names: usize,
    /// Bytes of the retained events, as [`Retain::bytes`](crate::Retain::bytes) and
    /// [`History::bytes`](crate::History::bytes) count them.
    pub retained_bytes: usize,
    /// Open [runs](crate::Run).
    pub runs: usize,
    /// Runs that the hub keeps, open or ended.
    pub retained_runs: usize,
    /// Bytes of the events of runs, as [`RunLimits::bytes`](crate::RunLimits::bytes) counts them.
    /// The fields of other retained events do not include these.
    pub run_bytes: usize,
    /// Runs that were started. With a backplane: runs of all instances, as far as this instance read
    /// their starts. So it is for runs that ended.
    pub started_runs: u64,
    /// Events published. With a backplane: events of all instances that this instance read.
    pub published: u64,
    /// Streams opened.
    pub opened: u64,
    /// Events delivered: each event counts once for every stream that read it.
    pub delivered: u64,
    /// Bytes of the delivered events.
    pub delivered_bytes: u64,
    /// Delivered events that shared an item with an earlier event: writes saved by batching.
    pub batched: u64,
    /// How often a stream that kept up fell behind its window, and read the log. Does not count
    /// streams that have more events of a [text](crate::RunOptions::append) to read than a client
    /// may hold.
    pub lagged: u64,
    /// How often a client was told of a gap.
    pub gaps: u64,
    /// With a backplane: whether the backplane cannot be reached.
    pub degraded: bool,
    /// With a backplane: how often the order was replaced, and every client got a gap.
    pub resets: u64,
    /// With a backplane: entries that were skipped because they are malformed.
    pub malformed: u64,
    /// With a backplane: older events that were read back into the log.
    pub restored: u64,
    ended: [u64; EndReason::COUNT],
    refused: [u64; RefusedCause::COUNT],
    ended_runs: [u64; RunState::COUNT],
    delays: Delays,
}

impl Stats {
    pub(crate) fn new<T: Clone>(
        routes: &Routes<T>,
        log: &Log,
        counts: Counts,
        read: Read,
        rare: &Rare,
    ) -> Self {
        let Counts { published, opened, lagged, malformed, restored, resets, .. } = counts;
        let Counts { ended, refused, runs: mut ended_runs, .. } = counts;
        let Read { events: delivered, bytes, items } = read;
        let (gaps, delays) = rare.sum();
        let runs = log.runs();
        let started_runs = mem::take(&mut ended_runs[RunState::Open as usize]);
        Self {
            clients: routes.len(),
            client_names: routes.keys(),
            retained: log.len(),
            retained_names: log.keys(),
            retained_bytes: log.bytes(),
            runs: runs.open(),
            retained_runs: runs.len(),
            run_bytes: runs.bytes(),
            started_runs,
            published,
            opened,
            delivered,
            delivered_bytes: bytes,
            batched: delivered.saturating_sub(items),
            lagged,
            gaps,
            degraded: false,
            resets,
            malformed,
            restored,
            ended,
            refused,
            ended_runs,
            delays,
        }
    }

    /// Returns how many streams ended for this reason.
    #[must_use]
    pub const fn ended(&self, reason: EndReason) -> u64 {
        self.ended[reason as usize]
    }

    /// Returns how many clients were refused for this cause, whatever its limit.
    #[must_use]
    pub const fn refused(&self, cause: RefusedCause) -> u64 {
        self.refused[cause.index()]
    }

    /// Returns how many runs ended in this state; 0 for [`RunState::Open`].
    #[must_use]
    pub const fn ended_runs(&self, state: RunState) -> u64 {
        self.ended_runs[state as usize]
    }

    /// Returns how long events took from being published to being read. One read in sixteen is
    /// measured.
    #[must_use]
    pub const fn delays(&self) -> &Delays {
        &self.delays
    }

    /// Returns each reason of an end with its word and count.
    fn ended_by_word(&self) -> impl Iterator<Item = (&'static str, u64)> {
        EndReason::ALL.iter().map(|&reason| (reason.as_str(), self.ended(reason)))
    }

    /// Returns each state of ended runs with its word and count.
    fn ended_runs_by_word(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let ends = RunState::ALL.iter().filter(|&&state| state != RunState::Open);
        ends.map(|&state| (state.as_str(), self.ended_runs(state)))
    }

    /// Returns each cause of a refusal with its word and count.
    fn refused_by_word(&self) -> impl Iterator<Item = (&'static str, u64)> {
        RefusedCause::EACH.into_iter().map(|cause| (cause.as_str(), self.refused(cause)))
    }
}

impl fmt::Debug for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let occurred = |&(_, count): &(&'static str, u64)| count > 0;
        let mut shown = f.debug_struct("Stats");
        shown.field("clients", &self.clients);
        shown.field("client_names", &self.client_names);
        shown.field("retained", &self.retained);
        shown.field("retained_names", &self.retained_names);
        shown.field("retained_bytes", &self.retained_bytes);
        shown.field("runs", &self.runs);
        shown.field("retained_runs", &self.retained_runs);
        shown.field("run_bytes", &self.run_bytes);
        shown.field("started_runs", &self.started_runs);
        shown.field("published", &self.published);
        shown.field("opened", &self.opened);
        shown.field("delivered", &self.delivered);
        shown.field("delivered_bytes", &self.delivered_bytes);
        shown.field("batched", &self.batched);
        shown.field("lagged", &self.lagged);
        shown.field("gaps", &self.gaps);
        shown.field("degraded", &self.degraded);
        shown.field("resets", &self.resets);
        shown.field("malformed", &self.malformed);
        shown.field("restored", &self.restored);
        shown.field("ended", &Words(self.ended_by_word().filter(occurred).collect()));
        shown.field("refused", &Words(self.refused_by_word().filter(occurred).collect()));
        shown.field("ended_runs", &Words(self.ended_runs_by_word().filter(occurred).collect()));
        shown.field("delays", &self.delays).finish()
    }
}

/// Feature `json`.
#[cfg(feature = "json")]
impl Serialize for Stats {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut stats = serializer.serialize_struct("Stats", 24)?;
        stats.serialize_field("clients", &self.clients)?;
        stats.serialize_field("client_names", &self.client_names)?;
        stats.serialize_field("retained", &self.retained)?;
        stats.serialize_field("retained_names", &self.retained_names)?;
        stats.serialize_field("retained_bytes", &self.retained_bytes)?;
        stats.serialize_field("runs", &self.runs)?;
        stats.serialize_field("retained_runs", &self.retained_runs)?;
        stats.serialize_field("run_bytes", &self.run_bytes)?;
        stats.serialize_field("started_runs", &self.started_runs)?;
        stats.serialize_field("published", &self.published)?;
        stats.serialize_field("opened", &self.opened)?;
        stats.serialize_field("delivered", &self.delivered)?;
        stats.serialize_field("delivered_bytes", &self.delivered_bytes)?;
        stats.serialize_field("batched", &self.batched)?;
        stats.serialize_field("lagged", &self.lagged)?;
        stats.serialize_field("gaps", &self.gaps)?;
        stats.serialize_field("degraded", &self.degraded)?;
        stats.serialize_field("resets", &self.resets)?;
        stats.serialize_field("malformed", &self.malformed)?;
        stats.serialize_field("restored", &self.restored)?;
        stats.serialize_field("ended", &Words(self.ended_by_word().collect()))?;
        stats.serialize_field("refused", &Words(self.refused_by_word().collect()))?;
        stats.serialize_field("ended_runs", &Words(self.ended_runs_by_word().collect()))?;
        stats.serialize_field("delays", &self.delays)?;
        stats.end()
    }
}

/// Counts by their words.
struct Words(Vec<(&'static str, u64)>);

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().copied()).finish()
    }
}

#[cfg(feature = "json")]
impl Serialize for Words {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

/// The counters that the state lock guards.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) published: u64,
    pub(crate) opened: u64,
    pub(crate) lagged: u64,
    pub(crate) malformed: u64,
    pub(crate) restored: u64,
    pub(crate) resets: u64,
    pub(crate) ended: [u64; EndReason::COUNT],
    pub(crate) refused: [u64; RefusedCause::COUNT],
    /// How many runs were started (at the place of [`RunState::Open`]), and how many ended in each
    /// other state.
    pub(crate) runs: [u64; RunState::COUNT],
}

/// The reads of some streams.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Read {
    events: u64,
    bytes: u64,
    items: u64,
}

impl Read {
    /// Counts an item of `events` events and `bytes` bytes.
    pub(crate) fn add(&mut self, events: usize, bytes: usize) {
        self.events += events as u64;
        self.bytes += bytes as u64;
        self.items += 1;
    }

    /// Adds the counts of other streams.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.events += other.events;
        self.bytes += other.bytes;
        self.items += other.items;
    }
}

/// A histogram of delays, by powers of two.
///
/// ```
/// # let hub = sse_hub::Hub::builder(sse_hub::ManualTimer::new()).build().unwrap();
/// let stats = hub.stats();
/// let p99 = stats.delays().quantile(0.99);
/// assert!(p99.is_none(), "no event was read yet");
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Delays {
    /// Bucket `n` counts delays below 2^n microseconds that no earlier bucket counts.
    buckets: [u64; BUCKETS],
}

/// The last bucket begins at 2^38 us, three days.
const BUCKETS: usize = 40;

impl Default for Delays {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS] }
    }
}

impl Delays {
    /// Returns how many delays were measured.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Returns a bound that the given share of delays (0 to 1) stayed below, exact to a factor of
    /// two. Returns `None` if nothing was measured.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let rank = (self.count() as f64 * share.clamp(0.0, 1.0)).ceil().max(1.0) as u64;
        let mut below = 0;
        let bucket = self.buckets.iter().position(|count| {
            below += count;
            below >= rank
        });
        bucket.map(|bucket| Duration::from_micros(1 << bucket))
    }

    /// Returns the buckets: an upper bound, and how many delays are below it and in no earlier
    /// bucket.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        let bound = |bucket: usize| Duration::from_micros(1 << bucket);
        self.buckets.into_iter().enumerate().map(move |(bucket, count)| (bound(bucket), count))
    }
}

impl fmt::Debug for Delays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.buckets().filter(|&(_, count)| count > 0)).finish()
    }
}

/// A list of the buckets that counted a delay, each with `below_us`, its upper bound in
/// microseconds, and `count`. Feature `json`.
#[cfg(feature = "json")]
impl Serialize for Delays {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let filled = self.buckets().filter(|&(_, count)| count > 0);
        serializer.collect_seq(filled.map(|(bound, count)| Bucket { bound, count }))
    }
}

#[cfg(feature = "json")]
struct Bucket {
    bound: Duration,
    count: u64,
}

#[cfg(feature = "json")]
impl Serialize for Bucket {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bucket = serializer.serialize_struct("Bucket", 2)?;
        bucket.serialize_field("below_us", &(self.bound.as_micros() as u64))?;
        bucket.serialize_field("count", &self.count)?;
        bucket.end()
    }
}

/// Counts gaps and measured delays without a lock. Streams write to different stripes: a shared
/// cache line would bounce between processors.
#[derive(Debug, Default)]
pub(crate) struct Rare {
    stripes: [Stripe; 8],
}

#[derive(Debug)]
#[repr(align(128))]
struct Stripe {
    gaps: AtomicU64,
    delays: [AtomicU64; BUCKETS],
}

impl Default for Stripe {
    fn default() -> Self {
        Self { gaps: AtomicU64::new(0), delays: array::from_fn(|_| AtomicU64::new(0)) }
    }
}

impl Rare {
    /// The client with this serial number was told of a gap.
    pub(crate) fn gap(&self, serial: u64) {
        self.stripe(serial).gaps.fetch_add(1, Ordering::Relaxed);
    }

    /// An event was read after `delay`.
    pub(crate) fn delay(&self, serial: u64, delay: Duration) {
        let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - micros.leading_zeros()) as usize;
        self.stripe(serial).delays[bucket.min(BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of gaps, and the delays.
    fn sum(&self) -> (u64, Delays) {
        let (mut gaps, mut delays) = (0, Delays::default());
        for stripe in &self.stripes {
            gaps += stripe.gaps.load(Ordering::Relaxed);
            for (total, part) in delays.buckets.iter_mut().zip(&stripe.delays) {
                *total += part.load(Ordering::Relaxed);
            }
        }
        (gaps, delays)
    }

    fn stripe(&self, serial: u64) -> &Stripe {
        &self.stripes[serial as usize % self.stripes.len()]
    }
}

/// The most delays that one call records into metrics.
#[cfg(feature = "metrics")]
const MAX_SAMPLE: u64 = 4096;

/// How many delays of each bucket have been recorded into metrics.
#[cfg(feature = "metrics")]
#[derive(Debug, Default)]
pub(crate) struct Recorded(Vec<u64>);

#[cfg(feature = "metrics")]
impl Recorded {
    /// Returns the delays since the last call: values, and how often each must be recorded. Above
    /// [`MAX_SAMPLE`] delays, returns a sample in proportion.
    pub(crate) fn sample(&mut self, delays: &Delays) -> Vec<(f64, usize)> {
        self.0.resize(delays.buckets().count(), 0);
        let fresh = |(known, (_, count)): (&u64, (_, u64))| count.saturating_sub(*known);
        let all: u64 = self.0.iter().zip(delays.buckets()).map(fresh).sum();
        let stride = all.div_ceil(MAX_SAMPLE).max(1);
        let mut sample = Vec::new();
        for (known, (bound, count)) in iter::zip(&mut self.0, delays.buckets()) {
            // The remainder stays for the next call: a rare delay is recorded late, not never.
            let times = count.saturating_sub(*known) / stride;
            *known += times * stride;
            if times > 0 {
                sample.push((bound.as_secs_f64(), times as usize));
            }
        }
        sample
    }
}
