//! The backplane, and the future that runs the tasks.

use std::fmt;
use std::panic;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};

use super::error::{LastError, NotReady, NotReadyCause};
use super::shared::RedisShared;
use super::store::script::CopyLimits;
use super::tasks::announcer::Announcer;
use super::tasks::history::HistoryReader;
use super::tasks::keeper::Keeper;
use super::tasks::observer::Observer;
use super::tasks::reader::Reader;
use super::tasks::sender::Sender;
use crate::Hub;
use crate::backplane::{Backplane, Feed, Outgoing, SendError, TailLimits};

/// Redis as the [backplane](crate::HubBuilder::backplane) of a hub. Built by
/// [`Redis::build`](super::Redis::build).
///
/// Clones are cheap, and are the same backplane. Each hub needs a backplane of its own, which must
/// be given to the hub before it is [run](Self::run).
#[derive(Clone)]
pub struct RedisBackplane {
    shared: Arc<RedisShared>,
}

impl RedisBackplane {
    pub(super) fn new(shared: RedisShared) -> Self {
        Self { shared: Arc::new(shared) }
    }

    /// Connects the hub with Redis while the returned future is awaited. Spawn it, in a tokio
    /// runtime. Otherwise nothing is read or sent.
    ///
    /// While Redis is away, the future tries again several times a second, without end. The future
    /// ends when the hub was closed, all events are acknowledged, and the other instances know that
    /// the users of this instance are gone. If Redis is away then, that may never be: set a limit.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the backplane ends at once. Events that Redis has not acknowledged
    /// are [`Unconfirmed`](crate::Unconfirmed), and `tracing` says how many those are.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use sse_hub::redis::Redis;
    /// use sse_hub::{Hub, TokioTimer};
    ///
    /// # async fn shutdown_signal() {}
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let backplane = Redis::new("redis://127.0.0.1:6379")?.build()?;
    /// let hub = Hub::builder(TokioTimer::new()).backplane(backplane.clone()).build()?;
    /// let running = tokio::spawn(backplane.run(&hub));
    ///
    /// // Serve.
    /// shutdown_signal().await;
    ///
    /// hub.drain(Duration::from_secs(10)).await;
    /// hub.close();
    /// tokio::time::timeout(Duration::from_secs(5), running).await??;
    /// # Ok(())
    /// # }
    /// ```
    pub fn run(&self, hub: &Hub) -> impl Future<Output = ()> + Send + use<> {
        let (shared, feed) = (Arc::clone(&self.shared), Feed::new(hub));
        // Made here: a future that is dropped before its first poll must abandon the outbox too.
        let abandons = Abandons(Arc::clone(&shared));
        async move {
            // The first local variable is dropped last: the sender, with the batch, must be gone
            // when the events that are left are counted.
            let _abandons = abandons;
            let Some(feed) = feed else {
                tracing::error!(target: "sse_hub", "the hub was built without a backplane");
                return;
            };
            shared.is_running.store(true, Ordering::Release);
            run(shared, feed).await;
        }
    }

    /// Waits until the hub has read the end of the stream.
    ///
    /// Clients that come earlier are let in, and wait. Those without a `Last-Event-ID` then get a
    /// gap, because nobody knows which events they missed. So a server should await this before it
    /// listens, with a limit if it must serve without Redis.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn ready(&self) {
        // The sender of this channel lives as long as `self`.
        let _ = self.shared.is_loaded.subscribe().wait_for(|loaded| *loaded).await;
    }

    /// Waits until the hub has read the end of the stream, for at most `limit`.
    ///
    /// Must be awaited in a tokio runtime, as [`run`](Self::run). The backplane goes on trying
    /// after an error. Once the hub has read the end of the stream, the result stays `Ok`, also
    /// while Redis is away: [`Stats::degraded`](crate::Stats::degraded) and
    /// [`last_error`](Self::last_error) say whether it is. To ask without waiting, set a limit of
    /// zero.
    ///
    /// # Errors
    ///
    /// Returns [`NotReady`] with the cause if the time is over: for example because the server is
    /// absent, refuses the password, or does not answer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    ///
    /// ```
    /// use std::time::Duration;
    /// use sse_hub::redis::{NotReadyCause, Redis};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let backplane = Redis::new("redis://127.0.0.1:6379")?.build()?;
    /// let error = backplane.ready_within(Duration::ZERO).await.unwrap_err();
    /// assert_eq!(error.cause, NotReadyCause::NotRunning, "`run` was not spawned");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn ready_within(&self, limit: Duration) -> Result<(), NotReady> {
        if tokio::time::timeout(limit, self.ready()).await.is_ok() {
            return Ok(());
        }
        let cause = match self.last_error() {
            _ if !self.shared.is_running.load(Ordering::Acquire) => NotReadyCause::NotRunning,
            Some(error) => NotReadyCause::Failed(error.cause),
            None => NotReadyCause::NoAnswer,
        };
        Err(NotReady { cause })
    }

    /// Returns the latest error for which events were held up: the server is absent, or refuses the
    /// password or a command. Returns `None` if there was none.
    ///
    /// ```
    /// # fn health(backplane: &sse_hub::redis::RedisBackplane) -> (u16, String) {
    /// // GET /health
    /// match backplane.last_error() {
    ///     Some(error) if !error.is_resolved => (503, error.to_string()),
    ///     _ => (200, "ok".to_owned()),
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn last_error(&self) -> Option<LastError> {
        self.shared.health.last_error()
    }

    /// Returns how many events are not acknowledged yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.outbox.len()
    }
}

/// Runs the tasks until the sender, the announcer and the keeper have ended. The other tasks notice
/// the end of the hub late or never, and are aborted then.
async fn run(shared: Arc<RedisShared>, feed: Feed) {
    let mut background = JoinSet::new();
    let TailLimits { bytes_per_run, run_bytes: bytes, run_keep: keep, .. } = feed.tail_limits();
    let run_limits = CopyLimits { bytes_per_run, bytes, keep };
    let (mut telling, most_users) = (JoinSet::new(), feed.presence_limit());
    background.spawn(Reader::new(Arc::clone(&shared), feed.clone()).run());
    background.spawn(HistoryReader::new(Arc::clone(&shared), feed.clone()).run());
    background.spawn(repeat_health(Arc::clone(&shared), feed.clone()));
    background.spawn(watch_sentinels(Arc::clone(&shared)));
    if let Some(most) = most_users {
        background.spawn(Observer::new(Arc::clone(&shared), feed.clone(), most).run());
        telling.spawn(Announcer::new(Arc::clone(&shared), feed.clone()).run());
    }
    telling.spawn(Keeper::new(Arc::clone(&shared), feed.clone()).run());
    let mut ending = pin!(async {
        // Not spawned: a task that is aborted can go on for a moment, and confirm events that were
        // already counted as lost.
        Sender::new(Arc::clone(&shared), Some(feed), run_limits).run().await;
        // The keeper ends after the last entry of a run.
        shared.runs_changed.notify_one();
        while let Some(ended) = telling.join_next().await {
            resume_panic(ended);
        }
    });
    std::future::poll_fn(|cx| {
        // A panic of any task ends all: without a reader, for example, a hub would be silent for no
        // visible reason.
        while let Poll::Ready(Some(ended)) = background.poll_join_next(cx) {
            resume_panic(ended);
        }
        ending.as_mut().poll(cx)
    })
    .await;
}

/// Goes on with the panic of a task. A task that was cancelled is no panic: the runtime shuts down.
fn resume_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        panic::resume_unwind(panic);
    }
}

async fn repeat_health(shared: Arc<RedisShared>, feed: Feed) {
    shared.health.repeat(&feed).await;
}

async fn watch_sentinels(shared: Arc<RedisShared>) {
    shared.address.watch(shared.timeout, &shared.master).await;
}

impl Backplane for RedisBackplane {
    fn send(&self, event: Outgoing) -> Result<(), SendError> {
        self.shared.outbox.push(event)
    }

    fn on_client_ahead(&self) {
        self.shared.is_client_ahead.store(true, Ordering::Release);
    }

    fn on_presence_changed(&self) {
        self.shared.presence.changed.notify_one();
    }

    fn on_runs_changed(&self) {
        self.shared.runs_changed.notify_one();
    }

    fn supports_history(&self) -> bool {
        true
    }

    fn on_history_wanted(&self) {
        self.shared.history_wanted.notify_one();
    }

    fn on_close(&self) {
        self.shared.outbox.close();
        self.shared.presence.changed.notify_one();
    }
}

/// Abandons the outbox when the future that sends is gone.
struct Abandons(Arc<RedisShared>);

impl Drop for Abandons {
    fn drop(&mut self) {
        self.0.is_running.store(false, Ordering::Release);
        let left = self.0.outbox.abandon();
        if left > 0 {
            tracing::warn!(target: "sse_hub", left, "backplane ended with unacknowledged events");
        }
    }
}

impl fmt::Debug for RedisBackplane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the settings: the address holds a password.
        f.debug_struct("RedisBackplane").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}
