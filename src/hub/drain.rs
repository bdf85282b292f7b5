use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::returning;
use super::shared::Shared;
#[cfg(feature = "serve")]
use super::waking::Waking;
use crate::core::client::Client;
use crate::core::deferred::Work;
use crate::core::end::{End, EndReason};
use crate::core::state::Lifecycle;
use crate::core::telemetry;
use crate::sync;
use crate::time::timer::Sleep;

/// The part of the period over which the ends of streams are spread. The rest is for servers that
/// take a moment to read the end.
const SPREAD: f64 = 0.9;

/// Resolves when the last stream has ended, as [`Hub::drain`](crate::Hub::drain) returns it.
///
/// # Cancel safety
///
/// The drain began with the call that returned this future. Dropping the future ends the waiting,
/// and the forced end of unread streams at the end of the period.
#[must_use = "unread streams end only if the drain is awaited"]
pub struct Drain {
    shared: Arc<Shared>,
    /// When the drain began, until its end is logged.
    began: Option<Instant>,
    /// When the remaining streams end by force.
    until: Option<Instant>,
    sleep: Option<Pin<Box<dyn Sleep>>>,
    /// The key of this task among those that wait for the last client.
    key: Option<usize>,
}

/// A hub whose clients a server wakes, and that the server drains when the server ends. Does not
/// keep the hub open.
#[cfg(feature = "serve")]
#[derive(Clone)]
pub(crate) struct Drainable(std::sync::Weak<Shared>);

#[cfg(feature = "serve")]
impl Drainable {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self(Arc::downgrade(shared))
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.0.ptr_eq(&other.0)
    }

    pub(crate) fn exists(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// Returns a future that wakes the clients of large broadcasts, or `None` if the hub is gone.
    pub(crate) fn waking(&self) -> Option<Waking> {
        Some(Waking::new(&self.0.upgrade()?))
    }

    /// Returns `None` if the hub has no clients.
    pub(crate) fn begin_drain(&self, over: Duration) -> Option<Drain> {
        let shared = self.0.upgrade()?;
        let is_empty = shared.state.lock().routes.len() == 0;
        (!is_empty).then(|| start(&shared, over))
    }
}

/// Refuses new clients, and schedules the end of every stream within the period.
pub(super) fn start(shared: &Arc<Shared>, over: Duration) -> Drain {
    let mut work = Work::begin(&shared.config);
    let now = work.now;
    let mut state = shared.state.lock();
    if state.lifecycle == Lifecycle::Open {
        state.lifecycle = Lifecycle::Draining;
    }
    work.extend(state.routes.iter().filter_map(|(_, client)| {
        let at = now.checked_add(over.mul_f64(SPREAD * client.id.spread()))?;
        client.lock().schedule_end(at, EndReason::Drained)
    }));
    let clients = state.routes.len();
    let announcement = returning::describe_all(&state, &shared.config);
    drop(state);
    work.run();
    // Before the first client moves: instances that were built later than it joined know it then.
    returning::announce(shared, announcement);
    telemetry::drain_started(clients, over);
    Drain {
        shared: Arc::clone(shared),
        began: Some(now),
        until: now.checked_add(over),
        sleep: None,
        key: None,
    }
}

/// Ends and forgets every client at once. Returns how many there were.
fn expel_all(shared: &Shared) -> usize {
    let mut work = Work::begin(&shared.config);
    let mut state = shared.state.lock();
    let slots: Vec<usize> = state.routes.iter().map(|(slot, _)| slot).collect();
    for &slot in &slots {
        // A stream whose poll is only late may still be read to its end.
        let end =
            |client: &Client| End::announced(EndReason::Drained, shared.config.retry(client.id));
        state.expel(slot, end, &mut work);
    }
    drop(state);
    work.run();
    slots.len()
}

impl Drain {
    /// Whether every client is gone. If not, the departure of the last client wakes this task.
    fn poll_gone(&mut self, cx: &Context<'_>) -> Poll<()> {
        // Cloned before the lock is taken: cloning a waker is foreign code.
        sync::assert_unlocked();
        let waker = cx.waker().clone();
        let mut state = self.shared.state.lock();
        if state.routes.len() == 0 {
            drop(state);
            return Poll::Ready(());
        }
        let waiting = &mut state.waiting_for_last;
        let old = match self.key.and_then(|key| waiting.get_mut(key)) {
            Some(known) => Some(std::mem::replace(known, waker)),
            None => {
                self.key = Some(waiting.insert(waker));
                None
            }
        };
        drop(state);
        drop(old);
        Poll::Pending
    }

    fn ended(&mut self, cut: usize) -> Poll<()> {
        if let Some(began) = self.began.take() {
            let took = self.shared.now().saturating_duration_since(began);
            telemetry::drain_ended(cut, took);
        }
        Poll::Ready(())
    }
}

impl Future for Drain {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.poll_gone(cx).is_ready() {
            return this.ended(0);
        }
        let Some(until) = this.until else { return Poll::Pending };
        loop {
            if until <= this.shared.now() {
                // The streams that are left are not read, or about to end.
                this.until = None;
                let cut = expel_all(&this.shared);
                return this.ended(cut);
            }
            let timer = &this.shared.config.timer;
            let sleep = this.sleep.get_or_insert_with(|| timer.sleep_until(until));
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            sleep.as_mut().reset(until);
        }
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let waker = self.shared.state.lock().waiting_for_last.try_remove(key);
        drop(waker);
    }
}

impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain").field("until", &self.until).finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "serve", not(sse_hub_loom)))]
mod tests {
    use super::*;
    use crate::hub::hub::Hub;
    use crate::hub::subscriber::Subscriber;
    use crate::time::manual::ManualTimer;

    #[test]
    fn server_drains_hubs_with_clients_and_forgets_gone_hubs() {
        let [hub, other] = [(); 2].map(|()| Hub::builder(ManualTimer::new()).build().unwrap());
        let [known, same, another] = [&hub, &hub, &other].map(|hub| Drainable::new(hub.shared()));
        assert!(known.is_same(&same) && !known.is_same(&another));
        let stream = hub.subscribe(Subscriber::new()).unwrap();
        assert!(known.exists() && known.waking().is_some());
        assert!(known.begin_drain(Duration::ZERO).is_some());
        assert!(another.begin_drain(Duration::ZERO).is_none(), "without clients");
        drop((hub, stream));
        assert!(!known.exists() && known.waking().is_none());
        assert!(known.begin_drain(Duration::ZERO).is_none());
    }
}
