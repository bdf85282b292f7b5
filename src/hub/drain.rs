use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::end::{End, EndReason, Until};
use super::later::Later;
use super::shared::Shared;
use super::state::Client;
use super::telemetry;
use crate::time::timer::Sleep;

/// Ready when the last stream is gone: [`Hub::drain`](crate::Hub::drain) makes it.
///
/// # Cancel safety
///
/// The draining began with the call that made it. Dropping it stops nothing but the waiting, and what makes streams that
/// are not read go at the end of the period.
#[must_use = "streams that are not read end only if it is awaited"]
pub struct Drain {
    shared: Arc<Shared>,
    /// Gone once its end was told.
    began: Option<Instant>,
    /// When all that is left is ended.
    until: Option<Instant>,
    sleep: Option<Pin<Box<dyn Sleep>>>,
    /// Its place among those who wait.
    place: Option<usize>,
}

impl Shared {
    pub(crate) fn drain(self: &Arc<Self>, over: Duration) -> Drain {
        let now = self.config.timer.now();
        let mut state = self.state.lock();
        state.draining = true;
        let mut later = Later::default();
        later.extend(state.routes.iter().filter_map(|(_, client)| {
            let mut inbox = client.inbox.lock();
            // The last tenth is for those whose server takes a while to read them.
            if let Some(at) = now.checked_add(over.mul_f64(0.9 * client.id.spread())) {
                inbox.end_by(Until { at, reason: EndReason::Drained });
            }
            // It is to arm its timer anew.
            inbox.waker.take()
        }));
        let clients = state.routes.len();
        drop(state);
        later.run();
        telemetry::drain_started(clients, over);
        Drain {
            shared: Arc::clone(self),
            began: Some(now),
            until: now.checked_add(over),
            sleep: None,
            place: None,
        }
    }

    /// Ends and forgets all streams at once, and counts them.
    fn expel_all(&self) -> usize {
        let mut later = Later::default();
        let mut state = self.state.lock();
        let slots: Vec<usize> = state.routes.iter().map(|(slot, _)| slot).collect();
        for &slot in &slots {
            // One that was only slow to be polled may still be read to its end.
            let end = |client: &Client| End::told(EndReason::Drained, self.config.retry(client.id));
            state.expel(slot, end, &mut later);
        }
        drop(state);
        later.run();
        slots.len()
    }
}

impl Drain {
    /// Whether all are gone; otherwise whoever goes last wakes this task.
    fn poll_gone(&mut self, cx: &Context<'_>) -> Poll<()> {
        let waker = cx.waker().clone();
        let mut state = self.shared.state.lock();
        if state.routes.len() == 0 {
            return Poll::Ready(());
        }
        let waiting = &mut state.waiting_for_last;
        let old = match self.place.and_then(|place| waiting.get_mut(place)) {
            Some(known) => Some(std::mem::replace(known, waker)),
            None => {
                self.place = Some(waiting.insert(waker));
                None
            }
        };
        drop(state);
        drop(old);
        Poll::Pending
    }

    fn ended(&mut self, cut: usize) -> Poll<()> {
        if let Some(began) = self.began.take() {
            let took = self.shared.config.timer.now().saturating_duration_since(began);
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
        let timer = &this.shared.config.timer;
        loop {
            if until <= timer.now() {
                // Whatever is left is not read, or just about to end.
                this.until = None;
                let cut = this.shared.expel_all();
                return this.ended(cut);
            }
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
        let Some(place) = self.place else { return };
        let waker = self.shared.state.lock().waiting_for_last.try_remove(place);
        drop(waker);
    }
}

impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain").field("until", &self.until).finish_non_exhaustive()
    }
}
