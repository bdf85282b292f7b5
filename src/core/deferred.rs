//! Work of a hub operation that must run after the locks are released.

use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use smallvec::SmallVec;
use tracing::level_filters::LevelFilter;

use super::backplane::Outgoing;
use super::config::Config;
use super::end::EndReason;
use super::run::{Producer, Told};
use super::telemetry;
use crate::log::codec::{RunAction, RunEntry};
use crate::log::entry::Entry;
use crate::log::key::ClientId;
use crate::log::producer::ProducerId;
use crate::log::run_log::RunLog;
use crate::log::runs::RunState;
use crate::sync::{self, contain_panic};

/// An operation on a hub: the settings, the time, and the work to do after the locks.
///
/// [`begin`](Self::begin) reads the clock before any lock is taken, because the clock is foreign
/// code. Under the locks, functions collect wakers, evicted events and notifications here.
/// [`run`](Self::run) then handles them, when no lock is held.
#[derive(Debug)]
#[must_use = "tasks are woken only if `run` is called"]
pub(crate) struct Work<'a> {
    pub(crate) config: &'a Config,
    pub(crate) now: Instant,
    /// Events to free: a log of many events must not be freed under a lock.
    pub(crate) evicted: Vec<Arc<Entry>>,
    /// The events of forgotten runs, to free them.
    pub(crate) forgotten: Vec<RunLog>,
    /// Most operations wake a few tasks.
    wakers: SmallVec<[Waker; 4]>,
    ended: Vec<Ended>,
    /// Changes to tell producers of runs.
    told: Vec<(Arc<Producer>, Told)>,
    /// Ends of runs to send to the backplane.
    run_ends: Vec<RunEntry>,
    runs_changed: bool,
    presence_changed: bool,
    history_wanted: bool,
    client_ahead: bool,
}

/// A client that was forgotten.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) client: ClientId,
    pub(crate) has_user: bool,
    pub(crate) reason: EndReason,
}

impl<'a> Work<'a> {
    pub(crate) fn begin(config: &'a Config) -> Self {
        Self::at(config, config.now())
    }

    /// Begins an operation that must not fail, because it frees a client or closes the hub, perhaps
    /// while the thread unwinds. If the clock panics, the system's time stands in.
    pub(crate) fn begin_release(config: &'a Config) -> Self {
        sync::assert_unlocked();
        let mut now = None;
        contain_panic(|| now = Some(config.now()));
        Self::at(config, now.unwrap_or_else(Instant::now))
    }

    fn at(config: &'a Config, now: Instant) -> Self {
        Self {
            config,
            now,
            evicted: Vec::new(),
            forgotten: Vec::new(),
            wakers: SmallVec::new(),
            ended: Vec::new(),
            told: Vec::new(),
            run_ends: Vec::new(),
            runs_changed: false,
            presence_changed: false,
            history_wanted: false,
            client_ahead: false,
        }
    }

    /// Reports a client that was forgotten.
    pub(crate) fn report_end(&mut self, ended: Ended) {
        // The level is a number; asking the `tracing` subscriber would run foreign code. All
        // clients may end in one operation, usually without a reader of the reports.
        if LevelFilter::current() >= LevelFilter::DEBUG {
            self.ended.push(ended);
        }
    }

    /// Makes room for the wakers of a list of clients, so that the list of wakers grows once.
    pub(crate) fn expect_wakers(&mut self, clients: usize) {
        self.wakers.reserve(clients);
    }

    /// Wakes a task after the locks are released.
    #[inline]
    pub(crate) fn wake_later(&mut self, waker: Option<Waker>) {
        if let Some(waker) = waker {
            self.wakers.push(waker);
        }
    }

    /// Tells a producer of a run a change.
    pub(crate) fn tell(&mut self, producer: Arc<Producer>, told: Told) {
        self.told.push((producer, told));
    }

    /// Sends the end of a run to the backplane.
    pub(crate) fn send_run_end(&mut self, name: Arc<str>, producer: ProducerId, state: RunState) {
        self.run_ends.push(RunEntry { name, action: RunAction::End { producer, state } });
    }

    /// Tells the backplane that other instances have producers of open runs than before.
    pub(crate) fn note_runs_changed(&mut self) {
        self.runs_changed = true;
    }

    /// Tells the backplane that users came or left.
    pub(crate) fn note_presence_changed(&mut self) {
        self.presence_changed = true;
    }

    /// Tells the backplane that clients or readers wait for older events.
    pub(crate) fn note_history_wanted(&mut self) {
        self.history_wanted = true;
    }

    /// Tells the backplane that a client came with an id that the log has not reached.
    pub(crate) fn note_client_ahead(&mut self) {
        self.client_ahead = true;
    }

    /// Wakes the tasks and sends the notifications. No lock may be held.
    pub(crate) fn run(self) {
        sync::assert_unlocked();
        drop(self.evicted);
        drop(self.forgotten);
        for waker in self.wakers {
            contain_panic(|| waker.wake());
        }
        for (producer, told) in self.told {
            for waker in producer.tell(told) {
                contain_panic(|| waker.wake());
            }
        }
        if let Some(backplane) = &self.config.backplane {
            for end in self.run_ends {
                // A closed engine takes no end: then no instance has the start, or the lease ends
                // the run.
                contain_panic(|| {
                    let _ = backplane.send(Outgoing::of_run(&end));
                });
            }
            if self.runs_changed {
                contain_panic(|| backplane.on_runs_changed());
            }
            if self.presence_changed {
                contain_panic(|| backplane.on_presence_changed());
            }
            if self.client_ahead {
                contain_panic(|| backplane.on_client_ahead());
            }
            if self.history_wanted {
                contain_panic(|| backplane.on_history_wanted());
            }
        }
        for Ended { client, has_user, reason } in self.ended {
            contain_panic(|| telemetry::ended(client, has_user, reason));
        }
    }
}

impl Extend<Waker> for Work<'_> {
    fn extend<T: IntoIterator<Item = Waker>>(&mut self, wakers: T) {
        self.wakers.extend(wakers);
    }
}
