//! Publishing to the hubs from a program without a hub.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::error::{LastError, NotFlushed, NotFlushedCause};
use super::run::RedisRun;
use super::shared::RedisShared;
use super::store::outbox::Progress;
use super::store::producing::{Producer, Producers};
use super::store::script::CopyLimits;
use super::tasks::producers::Watch;
use super::tasks::sender::Sender;
use crate::backplane::{Encoder, Outgoing, SendError};
use crate::{
    Audience, ClientId, Confirmation, DisconnectError, Event, Goodbye, JoinError, Limits, Name,
    PublishError, Retain, RunError, RunLimits, RunOptions,
};

/// A flush fails after so many [timeouts](super::Redis::timeout) without an acknowledgement.
const FLUSH_TIMEOUTS: u32 = 5;

/// Publishes to the hubs on a Redis, and reads nothing. For workers and cron jobs. Built by
/// [`Redis::publisher`](super::Redis::publisher).
///
/// The methods have the names and the errors of [`Hub`](crate::Hub). They return no counts, because
/// a publisher knows no clients. Any thread may call them, async or not. An event is accepted into
/// the [outbox](super::Redis::outbox) and leaves at once. While Redis is away, events wait there
/// and are tried again, several times a second. Events and commands keep the order in which a
/// thread passed them, and [idempotency keys](Event::idempotency_key) work as for a hub.
///
/// Clones are cheap, and are the same publisher.
///
/// # What it costs
///
/// | | |
/// |---|---|
/// | connections to Redis | one, from the first event on; a second from the first run on; with sentinels another to a sentinel, once a second |
/// | commands | one `EVALSHA` for each batch, of up to 1,024 events or 512 KiB, and a `SET` before a batch with a [`join`](Self::join); `XREAD` never |
/// | memory | at most that of the outbox |
/// | keys | one record, `{prefix}:publisher:*`, for a [day](super::Redis::remember) |
///
/// # Failovers
///
/// After an ordered failover by sentinels, the publisher finds the new master within about a
/// second. Events that the old master confirms meanwhile are lost, and hubs report only the loss of
/// events that a hub has read. Set `min-replicas-to-write 1` at the servers: the old master has no
/// replica after the failover, and then refuses events.
///
/// # Ending
///
/// Await [`flush`](Self::flush) before the program ends. If the last handle is dropped, or the
/// runtime shuts down, the publisher ends at once: events that Redis has not acknowledged count as
/// lost, their confirmations resolve as [`Unconfirmed`](crate::Unconfirmed), and `tracing` says how
/// many there are (`publisher ended with unacknowledged events`). The count is exact: each accepted
/// event is acknowledged or counted. Redis can have taken a counted event whose answer was lost.
///
/// ```
/// use std::time::Duration;
/// use sse_hub::Event;
/// use sse_hub::redis::{NotFlushedCause, Redis};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // A typed error and the number of events say that no Redis is there.
/// let redis = Redis::new("redis://127.0.0.1:1")?.timeout(Duration::from_millis(20));
/// let publisher = redis.publisher()?;
/// publisher.send_to_user(42, Event::new("shipped").data("17"))?;
/// publisher.send_to_topic("orders", Event::new("shipped").data("17"))?;
/// let error = publisher.flush().await.unwrap_err();
/// assert_eq!(error.left, 2);
/// assert!(matches!(error.cause, NotFlushedCause::Failed(_)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RedisPublisher {
    owner: Arc<Owner>,
    encoder: Encoder,
}

/// Ends the publisher when the last handle is dropped.
struct Owner {
    shared: Arc<RedisShared>,
    producers: Arc<Producers>,
    runs: RunLimits,
    task: AbortHandle,
}

impl RedisPublisher {
    pub(super) fn start(
        shared: RedisShared,
        producers: Producers,
        runs: RunLimits,
        runtime: &Handle,
    ) -> Self {
        let (shared, producers) = (Arc::new(shared), Arc::new(producers));
        // Made here: a task that is dropped before its first poll must abandon the outbox, too, and
        // tell the producers of runs.
        let watch = Watch::new(Arc::clone(&shared), Arc::clone(&producers));
        let task = send(Abandons(Arc::clone(&shared)), watch, runs);
        let task = runtime.spawn(task).abort_handle();
        let encoder = Encoder::default().run_limits(&runs);
        Self { owner: Arc::new(Owner { shared, producers, runs, task }), encoder }
    }

    /// Takes the limits of the hubs, in place of the defaults: names are checked by
    /// [`Limits::name_len`] and events by [`Retain::bytes`], and events with a conflation key are
    /// kept as [values](super#values) if [`Retain::keep_latest`] is set, for which the publisher
    /// needs [more rights](super#for-the-operator-of-redis). The other limits have no effect. Other
    /// handles of the publisher keep their limits.
    ///
    /// Without this call a name may have 256 bytes and an event 16 MiB. Hubs with smaller limits
    /// have no client for a longer name, and cannot retain a larger event.
    #[must_use]
    pub fn limits(mut self, limits: &Limits, retain: &Retain) -> Self {
        self.encoder = Encoder::new(limits, retain).run_limits(&self.owner.runs);
        self
    }

    /// Publishes to every client.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`publish`](Self::publish).
    pub fn broadcast(&self, event: Event) -> Result<(), PublishError> {
        self.publish(Audience::all(), event)
    }

    /// Publishes to one client.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`publish`](Self::publish).
    pub fn send_to_client(&self, client: ClientId, event: Event) -> Result<(), PublishError> {
        self.publish(Audience::client(client), event)
    }

    /// Publishes to every client of a user.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`publish`](Self::publish).
    pub fn send_to_user(&self, user: impl Into<Name>, event: Event) -> Result<(), PublishError> {
        self.publish(Audience::user(user), event)
    }

    /// Publishes to every client of a session.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`publish`](Self::publish).
    pub fn send_to_session(
        &self,
        session: impl Into<Name>,
        event: Event,
    ) -> Result<(), PublishError> {
        self.publish(Audience::session(session), event)
    }

    /// Publishes to every client that follows a topic.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`publish`](Self::publish).
    pub fn send_to_topic(&self, topic: impl Into<Name>, event: Event) -> Result<(), PublishError> {
        self.publish(Audience::topic(topic), event)
    }

    /// Publishes to an audience. Never waits.
    ///
    /// # Errors
    ///
    /// Returns [`PublishError`] if the event or the audience is invalid,
    /// [`Backlog`](PublishError::Backlog) if the [outbox](super::Redis::outbox) is full, and
    /// [`Closed`](PublishError::Closed) if the runtime of the publisher has shut down. The event
    /// has no effect then.
    pub fn publish(&self, audience: impl Into<Audience>, event: Event) -> Result<(), PublishError> {
        Ok(self.push(self.encoder.event(audience, event)?)?)
    }

    /// Publishes to an audience, and returns a future of the event's id, as
    /// [`Hub::publish_confirmed`](crate::Hub::publish_confirmed) does.
    ///
    /// The event is handed over before this method returns. The future waits as long as Redis
    /// cannot be reached. A confirmed event is as durable as your Redis makes it.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`publish`](Self::publish).
    ///
    /// ```no_run
    /// use sse_hub::redis::Redis;
    /// use sse_hub::{Audience, Event};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let publisher = Redis::new("redis://127.0.0.1:6379")?.publisher()?;
    /// let paid = Event::new("paid").data("order 17").idempotency_key("webhook-8c1f");
    /// let id = publisher.publish_confirmed(Audience::user(42), paid)?.await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn publish_confirmed(
        &self,
        audience: impl Into<Audience>,
        event: Event,
    ) -> Result<Confirmation, PublishError> {
        let mut outgoing = self.encoder.event(audience, event)?;
        let confirmation = outgoing.confirmation();
        self.push(outgoing)?;
        Ok(confirmation)
    }

    /// Ends the streams of an audience at once, on every instance: see
    /// [`Hub::disconnect`](crate::Hub::disconnect).
    ///
    /// # Errors
    ///
    /// Returns [`DisconnectError`] if the audience or the last event is invalid, the outbox is
    /// full, or the runtime of the publisher has shut down. No stream ends then.
    pub fn disconnect(
        &self,
        who: impl Into<Audience>,
        goodbye: Goodbye,
    ) -> Result<(), DisconnectError> {
        Ok(self.push(self.encoder.disconnect(who, goodbye)?)?)
    }

    /// Completes the streams of an audience, on every instance: see
    /// [`Hub::finish`](crate::Hub::finish).
    ///
    /// # Errors
    ///
    /// Returns [`DisconnectError`] as [`disconnect`](Self::disconnect) does.
    ///
    /// ```
    /// use sse_hub::redis::RedisPublisher;
    /// use sse_hub::{Audience, Event, Goodbye};
    ///
    /// /// A job ends: its page gets the result, and does not come back.
    /// fn done(publisher: &RedisPublisher) -> Result<(), Box<dyn std::error::Error>> {
    ///     let result = Event::new("result").data("42 rows");
    ///     publisher.finish(Audience::topic("job-7"), Goodbye::new("done")?.event(result))?;
    ///     Ok(())
    /// }
    /// ```
    pub fn finish(
        &self,
        who: impl Into<Audience>,
        goodbye: Goodbye,
    ) -> Result<(), DisconnectError> {
        Ok(self.push(self.encoder.finish(who, goodbye)?)?)
    }

    /// Adds clients to a topic, on every instance: see [`Hub::join`](crate::Hub::join). A client
    /// that has as many topics as it may does not join, and the publisher does not learn that.
    ///
    /// # Errors
    ///
    /// Returns [`JoinError`] if the audience or the topic is invalid, the outbox is full, or the
    /// runtime of the publisher has shut down. No client joins then.
    pub fn join(&self, who: impl Into<Audience>, topic: impl Into<Name>) -> Result<(), JoinError> {
        self.join_with_last(who, topic, 0)
    }

    /// Adds clients to a topic, with the last events of the topic: see
    /// [`Hub::join_with_last`](crate::Hub::join_with_last).
    ///
    /// # Errors
    ///
    /// Returns the errors of [`join`](Self::join).
    pub fn join_with_last(
        &self,
        who: impl Into<Audience>,
        topic: impl Into<Name>,
        last: usize,
    ) -> Result<(), JoinError> {
        Ok(self.push(self.encoder.join(who, topic, last)?)?)
    }

    /// Removes clients from a topic, on every instance: see [`Hub::leave`](crate::Hub::leave).
    ///
    /// # Errors
    ///
    /// Returns the errors of [`join`](Self::join).
    pub fn leave(&self, who: impl Into<Audience>, topic: impl Into<Name>) -> Result<(), JoinError> {
        Ok(self.push(self.encoder.leave(who, topic)?)?)
    }

    /// Starts a run, or takes an open run over: see [`Hub::start_run`](crate::Hub::start_run). The
    /// publisher then renews a lease in Redis over a second connection, and needs
    /// [more rights](super#for-the-operator-of-redis). Set
    /// [`Redis::run_limits`](super::Redis::run_limits) and [`Redis::lease`](super::Redis::lease) as
    /// for the hubs.
    ///
    /// # Errors
    ///
    /// Returns [`RunError`] if the name or the appended type is invalid, the outbox is full, or the
    /// runtime of the publisher has shut down. If another run of the name is open,
    /// [`RedisRun::started`] says so.
    ///
    /// ```
    /// use sse_hub::redis::RedisPublisher;
    /// use sse_hub::{Event, RunError, RunOptions};
    ///
    /// async fn work(publisher: &RedisPublisher) -> Result<(), RunError> {
    ///     let run = publisher.start_run("job-7", RunOptions::default())?;
    ///     run.started().await?;
    ///     for percent in (0..100).step_by(10) {
    ///         if run.is_stopped() {
    ///             break;
    ///         }
    ///         // Work.
    ///         run.publish(Event::new("progress").data(percent.to_string()).conflate("progress"))?;
    ///     }
    ///     run.finish(None)
    /// }
    /// ```
    pub fn start_run(
        &self,
        name: impl Into<Name>,
        options: RunOptions,
    ) -> Result<RedisRun, RunError> {
        let Owner { shared, producers, .. } = &*self.owner;
        let serial = producers.next_serial();
        let encoder = self.encoder.run(name, producers.instance, serial)?;
        let mut start = encoder.begin(options.takes_over(), options.appended_type())?;
        let confirmation = start.confirmation();
        self.push(start)?;
        let producer = Arc::new(Producer::new(serial, encoder, options.takes_over()));
        producers.add(Arc::clone(&producer), confirmation);
        Ok(RedisRun::new(Arc::clone(shared), producer))
    }

    /// Asks the producer of a run to stop, on any instance: see
    /// [`Hub::stop_run`](crate::Hub::stop_run). The publisher does not learn whether a run of the
    /// name is open.
    ///
    /// # Errors
    ///
    /// Returns [`RunError`] if the name or the reason is invalid, the outbox is full, or the
    /// runtime of the publisher has shut down.
    pub fn stop_run(&self, name: impl Into<Name>, reason: &str) -> Result<(), RunError> {
        Ok(self.push(self.encoder.stop_run(name, reason)?)?)
    }

    /// Waits until Redis has acknowledged all events and commands that were accepted before this
    /// call. Must be awaited in a tokio runtime.
    ///
    /// Waits as long as Redis acknowledges events. The flush fails if Redis acknowledges none for
    /// five [timeouts](super::Redis::timeout), which is ten seconds by default.
    ///
    /// # Errors
    ///
    /// Returns [`NotFlushed`] with the number of events that are left, and the cause: for example
    /// because the server is absent, refuses the password, or does not answer. The publisher keeps
    /// the events and goes on trying: flush again, or drop the publisher to give them up.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends only the waiting. The events are sent all the same, so a limit of
    /// your own is safe: `tokio::time::timeout(limit, publisher.flush())`.
    pub fn flush(&self) -> impl Future<Output = Result<(), NotFlushed>> + Send + use<> {
        let shared = Arc::clone(&self.owner.shared);
        let count = shared.outbox.accepted();
        async move {
            let patience = shared.timeout.saturating_mul(FLUSH_TIMEOUTS);
            loop {
                // Before the look: an acknowledgement in between must end the wait.
                let moved = shared.outbox.moved.notified();
                let Progress { left, is_over } = shared.outbox.progress(count);
                if left == 0 {
                    return Ok(());
                }
                if is_over {
                    return Err(NotFlushed { left, cause: NotFlushedCause::Ended });
                }
                if tokio::time::timeout(patience, moved).await.is_err() {
                    return not_flushed(&shared, count);
                }
            }
        }
    }

    /// Returns how many events and commands are not acknowledged yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.owner.shared.outbox.len()
    }

    /// Returns the latest error for which events were held up: the server is absent, or refuses the
    /// password or a command. Returns `None` if there was none.
    #[must_use]
    pub fn last_error(&self) -> Option<LastError> {
        self.owner.shared.health.last_error()
    }

    fn push(&self, outgoing: Outgoing) -> Result<(), SendError> {
        self.owner.shared.outbox.push(outgoing)
    }
}

/// Ends a flush that has waited for too long.
fn not_flushed(shared: &RedisShared, count: u64) -> Result<(), NotFlushed> {
    // An acknowledgement can come at the last moment.
    let Progress { left, is_over } = shared.outbox.progress(count);
    let cause = match shared.health.last_error() {
        _ if left == 0 => return Ok(()),
        _ if is_over => NotFlushedCause::Ended,
        Some(error) if !error.is_resolved => NotFlushedCause::Failed(error.cause),
        _ => NotFlushedCause::NoAnswer,
    };
    Err(NotFlushed { left, cause })
}

/// Sends until the task is aborted.
async fn send(abandons: Abandons, watch: Watch, runs: RunLimits) {
    // The first local variable is dropped last: the sender, with the batch, must be gone when the
    // events that are left are counted.
    let abandons = abandons;
    let mut producing = pin!(watch.run());
    let shared = &abandons.0;
    let mut watching = pin!(async {
        shared.address.watch(shared.timeout, &shared.master).await;
        // There are no sentinels.
        std::future::pending::<()>().await;
    });
    let mut sending = pin!(Sender::new(Arc::clone(shared), None, CopyLimits::of(&runs)).run());
    std::future::poll_fn(|cx| {
        let _: Poll<()> = watching.as_mut().poll(cx);
        let _: Poll<()> = producing.as_mut().poll(cx);
        sending.as_mut().poll(cx)
    })
    .await;
}

/// Abandons the outbox when the task that sends is gone: the runtime has shut down, or the task
/// panicked.
struct Abandons(Arc<RedisShared>);

impl Drop for Abandons {
    fn drop(&mut self) {
        abandon(&self.0);
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Counted here and not by the task: on another thread the task would go on for a moment, or
        // the process could end before.
        abandon(&self.shared);
        self.task.abort();
    }
}

fn abandon(shared: &RedisShared) {
    let left = shared.outbox.abandon();
    if left > 0 {
        tracing::warn!(target: "sse_hub", left, "publisher ended with unacknowledged events");
    }
}

impl fmt::Debug for RedisPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the settings: the address holds a password.
        f.debug_struct("RedisPublisher").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}
