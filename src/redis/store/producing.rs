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
    /// The runs that the task has not taken yet.
    new: Mutex<Vec<(Arc<Producer>, Confirmation)>>,
    /// There are new runs.
    pub(crate) changed: Notify,
}

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
    /// The producer ended the run, or the run is another's or over. The first counts.
    over: Mutex<Option<RunError>>,
}

impl Producers {
    pub(crate) fn new(instance: InstanceId) -> Self {
        Self {
            instance,
            serials: AtomicU64::new(1),
            new: Mutex::new(Vec::new()),
            changed: Notify::new(),
        }
    }

    /// Returns a number that no earlier producer has.
    pub(crate) fn next_serial(&self) -> u64 {
        self.serials.fetch_add(1, Ordering::Relaxed)
    }

    /// Adds a run whose start waits for the confirmation.
    pub(crate) fn add(&self, producer: Arc<Producer>, start: Confirmation) {
        self.new.lock().push((producer, start));
        self.changed.notify_one();
    }

    pub(crate) fn take_new(&self) -> Vec<(Arc<Producer>, Confirmation)> {
        std::mem::take(&mut *self.new.lock())
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
        Self { serial, encoder, takes_over, verdict, stop, over: Mutex::new(None) }
    }

    /// Returns the error if the run is over for this producer.
    pub(crate) fn check(&self) -> Result<(), RunError> {
        self.over.lock().map_or(Ok(()), Err)
    }

    /// Ends the run by its producer, unless the run is over.
    pub(crate) fn end(&self) -> Result<(), RunError> {
        let mut over = self.over.lock();
        match *over {
            Some(error) => Err(error),
            None => {
                *over = Some(RunError::Ended);
                Ok(())
            }
        }
    }

    /// Takes the end back: it could not be sent.
    pub(crate) fn reopen(&self) {
        *self.over.lock() = None;
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
            let mut over = self.over.lock();
            let is_first = over.is_none();
            over.get_or_insert(error);
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
