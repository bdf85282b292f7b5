use std::array;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::end::EndReason;
use crate::error::RefusedCause;
use crate::log::log::Log;
use crate::log::routes::Routes;

/// What a hub holds and has done since it was built, as [`Hub::stats`](crate::Hub::stats) counts it.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Streams open now.
    pub clients: usize,
    /// Names that those go by: client ids, users, sessions and topics, and one for everybody.
    pub names: usize,
    /// Events retained, with those that were [looked back](crate::History) for.
    pub retained: usize,
    /// Names that those were published to.
    pub retained_names: usize,
    /// What those count towards [`Retain::bytes`](crate::Retain::bytes), and [`History::bytes`](crate::History::bytes).
    pub retained_bytes: usize,
    /// Events published.
    pub published: u64,
    /// Streams opened.
    pub opened: u64,
    /// Events read by streams: one for each stream that an event went to.
    pub delivered: u64,
    /// Bytes of events read by streams.
    pub bytes: u64,
    /// Of the events delivered, those that were joined to another: what batching saved in writes.
    pub merged: u64,
    /// How often a stream that was live fell behind its window and went on from the log.
    pub lagged: u64,
    /// How often a client was told of a gap.
    pub gaps: u64,
    /// With a backplane: events are held up, because what orders them cannot be reached.
    pub degraded: bool,
    /// With a backplane: how often the order went backwards or was cut, and everybody was told.
    pub resets: u64,
    /// With a backplane: entries that were no events, and left out.
    pub malformed: u64,
    /// With a backplane: events brought back from before what was retained, for clients that missed them.
    pub restored: u64,
    ended: [u64; EndReason::ALL.len()],
    refused: [u64; RefusedCause::COUNT],
    delays: Delays,
}

impl Stats {
    pub(super) fn new<T: Clone>(routes: &Routes<T>, log: &Log, counts: Counts, read: Read) -> Self {
        let Counts { published, opened, lagged, malformed, restored, ended, refused } = counts;
        let Read { events: delivered, bytes, items, gaps, delays } = read;
        Self {
            clients: routes.len(),
            names: routes.keys(),
            retained: log.len(),
            retained_names: log.keys(),
            retained_bytes: log.bytes(),
            published,
            opened,
            delivered,
            bytes,
            merged: delivered.saturating_sub(items),
            lagged,
            gaps,
            degraded: false,
            resets: 0,
            malformed,
            restored,
            ended,
            refused,
            delays,
        }
    }

    /// Streams that ended for this reason.
    #[must_use]
    pub const fn ended(&self, reason: EndReason) -> u64 {
        self.ended[reason as usize]
    }

    /// Clients refused for this cause, whatever it carries.
    #[must_use]
    pub const fn refused(&self, cause: RefusedCause) -> u64 {
        self.refused[cause.index()]
    }

    /// How long events take from being published to being read by a stream. One read in sixteen is measured.
    #[must_use]
    pub const fn delays(&self) -> &Delays {
        &self.delays
    }
}

/// What is counted under the state lock.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) published: u64,
    pub(super) opened: u64,
    pub(super) lagged: u64,
    pub(super) malformed: u64,
    pub(super) restored: u64,
    pub(super) ended: [u64; EndReason::ALL.len()],
    pub(super) refused: [u64; RefusedCause::COUNT],
}

/// What streams have read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Read {
    pub(super) events: u64,
    pub(super) bytes: u64,
    items: u64,
    gaps: u64,
    delays: Delays,
}

/// Times, counted by powers of two.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Delays {
    /// Bucket `n` counts those of less than 2^n microseconds that are in none before it.
    buckets: [u64; BUCKETS],
}

/// The last begins at 2^38 us, three days.
const BUCKETS: usize = 40;

impl Default for Delays {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS] }
    }
}

impl Delays {
    /// How many were measured.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// A time that this share of them (from 0 to 1) stayed below: exact to a factor of two. `None` without any.
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

    /// Upper bounds, and how many stayed below each but not below the one before.
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

/// Counts reads without a lock. Streams write to different stripes, so that they do not take each other's cache line
/// away with every event.
#[derive(Debug, Default)]
pub(super) struct Reads {
    stripes: [Stripe; 8],
}

#[derive(Debug)]
#[repr(align(128))]
struct Stripe {
    events: AtomicU64,
    bytes: AtomicU64,
    items: AtomicU64,
    gaps: AtomicU64,
    delays: [AtomicU64; BUCKETS],
}

impl Default for Stripe {
    fn default() -> Self {
        Self {
            events: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            items: AtomicU64::new(0),
            gaps: AtomicU64::new(0),
            delays: array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl Reads {
    /// A stream with this serial number has read so many events in one item.
    pub(super) fn count(&self, serial: u64, events: usize, bytes: usize) {
        let stripe = self.stripe(serial);
        stripe.events.fetch_add(events as u64, Ordering::Relaxed);
        stripe.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        stripe.items.fetch_add(1, Ordering::Relaxed);
    }

    /// A client was told of a gap.
    pub(super) fn gap(&self, serial: u64) {
        self.stripe(serial).gaps.fetch_add(1, Ordering::Relaxed);
    }

    /// It took an event so long to be read.
    pub(super) fn delay(&self, serial: u64, delay: Duration) {
        let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - micros.leading_zeros()) as usize;
        self.stripe(serial).delays[bucket.min(BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn sum(&self) -> Read {
        let mut sum = Read::default();
        for stripe in &self.stripes {
            sum.events += stripe.events.load(Ordering::Relaxed);
            sum.bytes += stripe.bytes.load(Ordering::Relaxed);
            sum.items += stripe.items.load(Ordering::Relaxed);
            sum.gaps += stripe.gaps.load(Ordering::Relaxed);
            for (total, part) in sum.delays.buckets.iter_mut().zip(&stripe.delays) {
                *total += part.load(Ordering::Relaxed);
            }
        }
        sum
    }

    fn stripe(&self, serial: u64) -> &Stripe {
        &self.stripes[serial as usize % self.stripes.len()]
    }
}
