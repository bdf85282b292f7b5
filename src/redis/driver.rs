//! The backplane, and the future that drives its parts.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::task::JoinSet;

use super::config::Redis;
use super::error::RedisConfigError;
use super::shared::Shared;
use super::store::clock::millis;
use super::tasks::announcer::Announcer;
use super::tasks::observer::Observer;
use super::tasks::reader::Reader;
use crate::backplane::{Backplane, Feed, Outgoing, Unsent};
use crate::hub::hub::Hub;
use crate::log::audience::ClientId;

/// Redis as a hub's [`backplane`](crate::HubBuilder::backplane): [`Redis`] builds it.
///
/// Clones are cheap and are the same. It is of one hub, which it is given to before it is [run](Self::run).
#[derive(Clone)]
pub struct RedisBackplane {
    shared: Arc<Shared>,
}

impl Redis {
    /// Checks the settings. Connects to nothing: [`RedisBackplane::run`] does.
    ///
    /// # Errors
    ///
    /// [`RedisConfigError`] names settings that nothing could work with.
    pub fn build(mut self) -> Result<RedisBackplane, RedisConfigError> {
        if self.prefix.is_empty() || self.prefix.contains(['{', '}']) {
            return Err(RedisConfigError::Prefix);
        }
        let (_, kept) = self.keep.strategy();
        let zero = [
            ("keep", kept == 0),
            ("outbox", self.outbox_events == 0 || self.outbox_bytes == 0),
            ("remember", millis(self.remember) == 0),
            ("timeout", millis(self.timeout) < 4),
            ("lease", millis(self.lease) < 8),
        ];
        if let Some((setting, _)) = zero.into_iter().find(|&(_, is_zero)| is_zero) {
            return Err(RedisConfigError::Zero(setting));
        }
        self.address.check()?;
        std::mem::take(&mut self.tls).apply(self.address.servers_mut())?;
        let publisher = ClientId::random().map_err(|_| RedisConfigError::NoRandomness)?;
        let shared = Shared::new(self, &publisher.to_string());
        Ok(RedisBackplane { shared: Arc::new(shared) })
    }
}

impl RedisBackplane {
    /// Connects the hub with Redis, for as long as it is awaited: spawn it, in a tokio runtime. Nothing is read or sent
    /// without.
    ///
    /// Never gives up: while Redis is away it tries again several times a second. Ends when the hub is closed and all
    /// that was published is acknowledged, and the other instances are told that its users are gone; if Redis is away
    /// then that may never be, so give it a limit.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it ends at once. What was not acknowledged is told to be [`Unconfirmed`](crate::Unconfirmed).
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
        let (shared, feed) = (Arc::clone(&self.shared), Feed::of(hub));
        // Made here, so that it is dropped also with a future that was never polled.
        let closes = Closes(Arc::clone(&shared));
        async move {
            let _closes = closes;
            let Some(feed) = feed else {
                tracing::error!(target: "sse_hub", "the hub was built without a backplane");
                return;
            };
            // Each returns whether it has an end of its own, which is waited for.
            let mut parts = JoinSet::new();
            let reader = Reader::new(Arc::clone(&shared), feed.clone());
            parts.spawn(async move {
                reader.run().await;
                // It notices the end of the hub late, or never.
                false
            });
            let (looks, of_older) = (Arc::clone(&shared), feed.clone());
            parts.spawn(async move {
                looks.look_back(&of_older).await;
                false
            });
            let (teller, outage) = (Arc::clone(&shared), feed.clone());
            parts.spawn(async move {
                teller.troubles.say_again(&outage).await;
                false
            });
            let watcher = Arc::clone(&shared);
            parts.spawn(async move {
                watcher.address.watch(watcher.timeout, &watcher.moves).await;
                false
            });
            let (sender, fed) = (Arc::clone(&shared), feed.clone());
            parts.spawn(async move {
                sender.send_all(&fed).await;
                true
            });
            let mut awaited = 1;
            if let Some(most) = feed.shares_presence() {
                let observer = Observer::new(Arc::clone(&shared), feed.clone(), most);
                parts.spawn(async move {
                    observer.run().await;
                    false
                });
                let announcer = Announcer::new(shared, feed);
                parts.spawn(async move {
                    announcer.run().await;
                    true
                });
                awaited += 1;
            }
            while awaited > 0
                && let Some(Ok(is_awaited)) = parts.join_next().await
            {
                awaited -= u32::from(is_awaited);
            }
        }
    }

    /// Waits until the hub has read the end of the stream. Clients that come earlier are let in, and wait; those without
    /// a `Last-Event-ID` are told a gap then, for nobody knows what they missed. So a server awaits this before it
    /// listens, with a limit, if it would rather serve without Redis than not at all.
    ///
    /// # Cancel safety
    ///
    /// Dropping it stops nothing but the waiting.
    pub async fn ready(&self) {
        // Its sender lives as long as `self`.
        let _ = self.shared.is_loaded.subscribe().wait_for(|loaded| *loaded).await;
    }

    /// How many events wait to be acknowledged.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.outbox.len()
    }
}

impl Backplane for RedisBackplane {
    fn send(&self, event: Outgoing) -> Result<(), Unsent> {
        self.shared.outbox.push(event)
    }

    fn look_ahead(&self) {
        self.shared.looks.store(true, Ordering::Release);
    }

    fn presence(&self) {
        self.shared.presence.changed.notify_one();
    }

    fn looks_back(&self) -> bool {
        true
    }

    fn look_back(&self) {
        self.shared.looks_back.notify_one();
    }

    fn close(&self) {
        self.shared.outbox.close();
        self.shared.presence.changed.notify_one();
    }
}

/// Nobody sends any more.
struct Closes(Arc<Shared>);

impl Drop for Closes {
    fn drop(&mut self) {
        let left = self.0.outbox.abandon();
        if left > 0 {
            tracing::warn!(target: "sse_hub", left, "the backplane ended before all was acknowledged");
        }
    }
}

impl fmt::Debug for RedisBackplane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the client: its address holds a password.
        f.debug_struct("RedisBackplane").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}
