//! The open runs of a publisher without a hub.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::backplane::{InstanceId, RunEncoder};
use crate::{Confirmation, RunError};

/// The runs of a publisher.
#[derive(Debug)]
pub(crate) struct Producers {
    pub(crate) instance: InstanceId,
    serials: AtomicU64,
    /// The runs that the task has not taken yet. `None` after the end of the task.
    new: Mutex<Option<Vec<Starting>>>,
    /// There are new runs.
    pub(crate) changed: Notify,
}

/// A run whose start waits for the confirmation.
pub(crate) type Starting = (Arc<Producer>, Confirmation);

/// The producer of a run.
#[derive(Debug)]
pub(crate) struct Producer {
    serial: u64,
    pub(crate) encoder: RunEncoder,
    takes_over: bool,
    /// Whether the start had an effect, once that is known.
    verdict: watch::Sender<Option<Result<(), RunError>>>,
    /// Why the producer must stop.
    stop: watch::Sender<Option<Arc<str>>>,
    phase: Mutex<Phase>,
}

/// How far the run is, for the producer.
#[derive(Debug, Clone, Copy)]
enum Phase {
    Open,
    /// The producer ends the run, and the end is not yet in the outbox.
    Ending,
    /// The producer publishes no more. The first reason counts.
    Over(RunError),
}

impl Producers {
    pub(crate) fn new(instance: InstanceId) -> Self {
        Self {
            instance,
            serials: AtomicU64::new(1),
            new: Mutex::new(Some(Vec::new())),
            changed: Notify::new(),
        }
    }

    /// Returns a number that no earlier producer has.
    pub(crate) fn next_serial(&self) -> u64 {
        self.serials.fetch_add(1, Ordering::Relaxed)
    }

    /// Adds a run whose start waits for the confirmation. After the end of the task, closes the run:
    /// nobody else would.
    pub(crate) fn add(&self, producer: Arc<Producer>, start: Confirmation) {
        if let Some(new) = &mut *self.new.lock() {
            new.push((Arc::clone(&producer), start));
        } else {
            producer.close();
        }
        self.changed.notify_one();
    }

    pub(crate) fn take_new(&self) -> Vec<Starting> {
        self.new.lock().as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Closes the new runs, and all that are added from now on.
    pub(crate) fn close(&self) {
        let new = self.new.lock().take();
        new.into_iter().flatten().for_each(|(run, _)| run.close());
    }

    /// Returns the bytes that name a producer.
    pub(crate) fn bytes_of(&self, producer: &Producer) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.instance.to_bytes());
        bytes[8..].copy_from_slice(&producer.serial.to_le_bytes());
        bytes
    }
}

impl Producer {
    pub(crate) fn new(serial: u64, encoder: RunEncoder, takes_over: bool) -> Self {
        let (verdict, stop) = (watch::Sender::new(None), watch::Sender::new(None));
        Self { serial, encoder, takes_over, verdict, stop, phase: Mutex::new(Phase::Open) }
    }

    /// Returns an error if the producer publishes no more.
    pub(crate) fn check(&self) -> Result<(), RunError> {
        self.phase.lock().check()
    }

    /// Returns whether the run needs to be watched no more.
    pub(crate) fn is_settled(&self) -> bool {
        matches!(*self.phase.lock(), Phase::Over(_)) && self.has_verdict()
    }

    /// Begins the end of the run by the producer. Returns an error if the run is over. The caller
    /// must send the end, and then call [`settle_end`](Self::settle_end).
    pub(crate) fn begin_end(&self) -> Result<(), RunError> {
        let mut phase = self.phase.lock();
        phase.check()?;
        *phase = Phase::Ending;
        Ok(())
    }

    /// Ends the run if the end was sent, and opens the run again otherwise. A run that was lost
    /// meanwhile stays lost.
    pub(crate) fn settle_end(&self, is_sent: bool) {
        let mut phase = self.phase.lock();
        if let Phase::Ending = *phase {
            *phase = if is_sent { Phase::Over(RunError::Ended) } else { Phase::Open };
        }
    }

    pub(crate) fn has_verdict(&self) -> bool {
        self.verdict.borrow().is_some()
    }

    /// The start had an effect.
    pub(crate) fn accept(&self) {
        self.verdict.send_if_modified(|verdict| verdict.replace(Ok(())).is_none());
    }

    /// Asks the producer to stop. The first reason counts.
    pub(crate) fn stop(&self, reason: &str) {
        self.stop.send_if_modified(|stop| {
            let is_first = stop.is_none();
            stop.get_or_insert_with(|| reason.into());
            is_first
        });
    }

    /// The run is over for this producer. Returns `false` if it was over before.
    pub(crate) fn lose(&self, error: RunError, reason: &str) -> bool {
        let is_first = {
            let mut phase = self.phase.lock();
            let is_first = !matches!(*phase, Phase::Over(_));
            if is_first {
                *phase = Phase::Over(error);
            }
            is_first
        };
        self.verdict.send_if_modified(|verdict| {
            let is_first = verdict.is_none();
            verdict.get_or_insert(Err(error));
            is_first
        });
        self.stop(reason);
        is_first
    }

    /// The publisher has ended.
    pub(crate) fn close(&self) {
        self.lose(RunError::Closed, "closed");
    }

    /// Another producer has the run: it was refused here, or was taken over.
    pub(crate) fn is_of_another(&self) {
        if self.has_verdict() || self.takes_over {
            self.accept();
            self.lose(RunError::Superseded, "superseded");
        } else {
            self.lose(RunError::Open, "refused");
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.borrow().is_some()
    }

    pub(crate) fn verdict(&self) -> watch::Receiver<Option<Result<(), RunError>>> {
        self.verdict.subscribe()
    }

    pub(crate) fn stopping(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.stop.subscribe()
    }
}

impl Phase {
    fn check(self) -> Result<(), RunError> {
        match self {
            Self::Open => Ok(()),
            Self::Ending => Err(RunError::Ended),
            Self::Over(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RunState;
    use crate::backplane::Encoder;

    fn started() -> Producer {
        let encoder = Encoder::default().run("a", InstanceId::from_bytes([1; 8]), 1).unwrap();
        let producer = Producer::new(1, encoder, false);
        producer.accept();
        producer
    }

    #[test]
    fn refused_end_leaves_the_run_open_and_watched() {
        let producer = started();
        producer.begin_end().unwrap();
        assert_eq!(producer.check(), Err(RunError::Ended));
        assert!(!producer.is_settled(), "the end can still be refused");
        producer.settle_end(false);
        assert_eq!((producer.check(), producer.is_settled()), (Ok(()), false));
        producer.begin_end().unwrap();
        producer.settle_end(true);
        assert_eq!(producer.begin_end(), Err(RunError::Ended));
        assert!(producer.is_settled());
        assert!(!producer.lose(RunError::Lost, "lost"));
        assert_eq!(producer.check(), Err(RunError::Ended));
    }

    #[test]
    fn loss_counts_during_a_refused_end() {
        let producer = started();
        producer.begin_end().unwrap();
        assert!(producer.lose(RunError::Lost, "lost"));
        producer.settle_end(false);
        assert_eq!(producer.check(), Err(RunError::Lost));
        assert!(producer.is_settled() && producer.is_stopped());
    }

    #[test]
    fn run_that_starts_after_the_publisher_is_closed() {
        let producers = Producers::new(InstanceId::from_bytes([1; 8]));
        let encoder = started().encoder;
        let add = || {
            let run = Arc::new(Producer::new(1, encoder.clone(), false));
            let confirmation = encoder.end(RunState::Lost).confirmation();
            producers.add(Arc::clone(&run), confirmation);
            run
        };
        let early = add();
        assert_eq!(early.check(), Ok(()));
        producers.close();
        for run in [early, add()] {
            assert_eq!(run.check(), Err(RunError::Closed));
            assert_eq!(*run.verdict().borrow(), Some(Err(RunError::Closed)));
        }
    }

    #[test]
    fn ended_run_without_a_verdict_is_not_settled() {
        let encoder = started().encoder;
        let producer = Producer::new(1, encoder, false);
        producer.begin_end().unwrap();
        producer.settle_end(true);
        assert!(!producer.is_settled(), "the start can still be refused");
        producer.is_of_another();
        assert_eq!(*producer.verdict().borrow(), Some(Err(RunError::Open)));
        assert!(producer.is_settled());
    }
}
