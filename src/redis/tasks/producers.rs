//! Keeps the lease of a publisher that has open runs, and tells the producers how the hubs decide.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use redis::RedisResult;
use tokio::time::{Instant, timeout_at};

use super::sync_health::SyncHealth;
use crate::redis::connect::link::Link;
use crate::redis::shared::RedisShared;
use crate::redis::store::producing::{Producer, Producers, Starting};
use crate::redis::store::runs::{Record, beat};
use crate::{RunError, RunState};

/// Watches the runs of a publisher, until the future is dropped.
pub(crate) struct Watch {
    shared: Arc<RedisShared>,
    producers: Arc<Producers>,
    link: Link,
    /// The runs whose start is in the stream.
    open: Vec<Arc<Producer>>,
    /// The runs whose start is on the way.
    starting: Vec<Starting>,
    renewal: u64,
    health: SyncHealth,
}

impl Watch {
    pub(crate) fn new(shared: Arc<RedisShared>, producers: Arc<Producers>) -> Self {
        let (link, health) = (Link::default(), SyncHealth::new("lease"));
        let (open, starting) = (Vec::new(), Vec::new());
        Self { shared, producers, link, open, starting, renewal: 0, health }
    }

    pub(crate) async fn run(mut self) {
        // When the next renewal is due.
        let mut due = Instant::now();
        loop {
            self.starting.extend(self.producers.take_new());
            // A run that its producer ended needs no lease.
            self.open.retain(|run| !run.is_settled());
            if self.open.is_empty() && self.starting.is_empty() {
                self.producers.changed.notified().await;
                continue;
            }
            let start = Instant::now();
            let is_due = start >= due;
            if !is_due && self.open.iter().all(|run| run.has_verdict()) {
                self.wait(due).await;
                continue;
            }
            let checked = self.check(is_due).await;
            if self.health.settle(&mut self.link, checked).await.is_some() && is_due {
                due = start + beat(self.shared.presence.lease);
            }
        }
    }

    /// Waits until a renewal is due, the start of a run is in the stream, or there are new runs.
    async fn wait(&mut self, due: Instant) {
        let (starting, open) = (&mut self.starting, &mut self.open);
        let mut changed = pin!(self.producers.changed.notified());
        let woken = std::future::poll_fn(|cx| {
            let before = starting.len();
            starting.retain_mut(|(run, confirmation)| match Pin::new(confirmation).poll(cx) {
                Poll::Pending => true,
                Poll::Ready(Ok(_)) => {
                    open.push(Arc::clone(run));
                    false
                }
                Poll::Ready(Err(_)) => {
                    run.close();
                    false
                }
            });
            if starting.len() < before { Poll::Ready(()) } else { changed.as_mut().poll(cx) }
        });
        let _ = timeout_at(due, woken).await;
    }

    /// Renews the lease, and looks at the records: of all runs, or only of the runs without a
    /// verdict. With many open runs, each start would otherwise read all records.
    async fn check(&mut self, of_all: bool) -> RedisResult<()> {
        let shared = Arc::clone(&self.shared);
        let connection = self.link.probe(&shared).await?;
        let runs = self.open.iter().filter(|run| of_all || !run.has_verdict());
        let runs: Vec<&Producer> = runs.map(|run| &**run).collect();
        let names: Vec<&str> = runs.iter().map(|run| &**run.encoder.name()).collect();
        let own = (self.producers.instance, self.renewal + 1);
        let lease = shared.presence.lease;
        let records = shared.runs.renew_and_look(connection, own, lease, &names).await?;
        self.link.answered();
        self.renewal += 1;
        for (run, record) in runs.into_iter().zip(records) {
            self.tell(run, record);
        }
        Ok(())
    }

    /// Tells a producer what the record of its run says.
    fn tell(&self, run: &Producer, record: Option<Record>) {
        match record {
            Some(record) if record.producer == self.producers.bytes_of(run) => {
                run.accept();
                if let Some(reason) = &record.stop {
                    run.stop(reason);
                }
                if !record.is_open {
                    run.lose(RunError::Lost, "lost");
                }
            }
            Some(_) => run.is_of_another(),
            // Redis is empty, or has not been able to copy the run. The hubs may know the run.
            None => {
                if run.lose(RunError::Lost, "lost") {
                    let _ = self.shared.outbox.push(run.encoder.end(RunState::Lost));
                }
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.producers.close();
        let starting = self.starting.drain(..).map(|(run, _)| run);
        self.open.drain(..).chain(starting).for_each(|run| run.close());
    }
}
