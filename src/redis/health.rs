//! The health of the backplane: which tasks are in trouble, and when that is reported.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::error::LastError;
use crate::backplane::Feed;

/// The hub tells clients of an outage that has lasted for this long. The hub reads the clock when
/// [`Feed::degraded`] is called, so the state must be repeated after this time.
const LASTING: Duration = Duration::from_secs(1);

/// The shortest time between two warnings of the same kind.
const QUIET: Duration = Duration::from_secs(60);

/// A task without which events are held up.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part {
    Reader,
    Sender,
}

/// Whether events are held up, and why.
#[derive(Debug, Default)]
pub(crate) struct Health {
    known: Mutex<Known>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Known {
    /// For each part, the reason of the trouble.
    causes: [Option<Arc<str>>; 2],
    /// The latest trouble of any part, and when that was reported.
    latest: Option<(Arc<str>, SystemTime)>,
    /// The last report to the hub.
    reported: Option<bool>,
    /// For a publisher without a hub: the outage in the log.
    outage: Outage,
}

impl Health {
    /// Records that a part is in trouble, or works. Tells the hub if that changes the whole;
    /// without a hub, logs the change.
    pub(crate) fn report(&self, feed: Option<&Feed>, part: Part, trouble: Option<&str>) {
        let trouble = trouble.map(|cause| (Arc::from(cause), SystemTime::now()));
        let has_changed = {
            let mut known = self.known.lock();
            known.causes[part as usize] = trouble.as_ref().map(|(cause, _)| Arc::clone(cause));
            if trouble.is_some() {
                known.latest = trouble;
            }
            let is_degraded = known.causes.iter().any(Option::is_some);
            known.reported.replace(is_degraded) != Some(is_degraded)
        };
        match feed {
            Some(feed) if has_changed => {
                self.tell(feed);
                self.changed.notify_one();
            }
            Some(_) => {}
            None => self.log(),
        }
    }

    fn log(&self) {
        let (cause, news) = {
            let mut known = self.known.lock();
            let cause = known.causes.iter().flatten().next().cloned();
            let news = known.outage.report(cause.is_some());
            (cause, news)
        };
        match (news, cause) {
            (Some(News::Begins), Some(cause)) => {
                tracing::warn!(target: "sse_hub", %cause, "publisher cannot reach Redis");
            }
            (Some(News::Ends), _) => {
                tracing::info!(target: "sse_hub", "publisher reaches Redis again");
            }
            _ => {}
        }
    }

    /// Returns the latest trouble.
    pub(crate) fn last_error(&self) -> Option<LastError> {
        let known = self.known.lock();
        let (cause, at) = known.latest.clone()?;
        let is_resolved = known.causes.iter().all(Option::is_none);
        Some(LastError { cause, at, is_resolved })
    }

    /// Repeats each report once the state has lasted.
    pub(crate) async fn repeat(&self, feed: &Feed) {
        loop {
            self.changed.notified().await;
            tokio::time::sleep(LASTING).await;
            self.tell(feed);
        }
    }

    fn tell(&self, feed: &Feed) {
        let cause = self.known.lock().causes.iter().flatten().next().cloned();
        feed.degraded(cause.as_deref());
    }
}

/// Decides when an outage is logged: the begin at most once a minute, and the end if the begin was
/// logged.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    reported: Option<Instant>,
    is_reported: bool,
}

/// The message to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    Begins,
    Ends,
}

impl Outage {
    pub(crate) fn report(&mut self, is_trouble: bool) -> Option<News> {
        if is_trouble && !self.is_reported && is_due(self.reported) {
            (self.reported, self.is_reported) = (Some(Instant::now()), true);
            return Some(News::Begins);
        }
        if !is_trouble && std::mem::take(&mut self.is_reported) {
            return Some(News::Ends);
        }
        None
    }
}

/// Warns once of a burst, however long the burst is.
#[derive(Debug, Default)]
pub(crate) struct Burst {
    last: Option<Instant>,
}

impl Burst {
    /// Calls `warn` if the last call is more than a minute ago.
    pub(crate) fn warn(&mut self, warn: impl FnOnce()) {
        if is_due(self.last.replace(Instant::now())) {
            warn();
        }
    }
}

fn is_due(last: Option<Instant>) -> bool {
    last.is_none_or(|at| at.elapsed() >= QUIET)
}
