//! What the parts share, and the future that drives them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::RedisResult;
use redis::aio::MultiplexedConnection;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::address::Address;
use super::announcer::Announcer;
use super::config::{Redis, millis};
use super::history::Looks;
use super::lease::Lease;
use super::moves::Moves;
use super::observer::Observer;
use super::outbox::Outbox;
use super::reader::Reader;
use super::script::{Keys, Scripts};
use super::trouble::Troubles;
use crate::backplane::{Backplane, Feed, Outgoing, Unsent};
use crate::hub::hub::Hub;

/// Redis as a hub's [`backplane`](crate::HubBuilder::backplane): [`Redis`] builds it.
///
/// Clones are cheap and are the same. It is of one hub, which it is given to before it is [run](Self::run).
#[derive(Clone)]
pub struct RedisBackplane {
    shared: Arc<Shared>,
}

/// What the parts share.
pub(super) struct Shared {
    pub(super) scripts: Scripts,
    pub(super) presence: Lease,
    pub(super) outbox: Outbox,
    pub(super) is_loaded: watch::Sender<bool>,
    /// Somebody came ahead of what was read.
    pub(super) looks: AtomicBool,
    pub(super) looks_back: Looks,
    address: Address,
    pub(super) moves: Moves,
    pub(super) timeout: Duration,
    troubles: Troubles,
}

/// One of the two without which events are held up, each with a connection of its own.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    Reader,
    Outbox,
}

impl RedisBackplane {
    pub(super) fn new(settings: Redis, publisher: &str) -> Self {
        let keys = Keys::new(&settings.prefix, publisher);
        let remembers = [millis(settings.remember); 2];
        let shared = Shared {
            presence: Lease::new(&settings.prefix, publisher, settings.lease),
            scripts: Scripts::new(keys, settings.keep, remembers),
            outbox: Outbox::new(settings.outbox_events, settings.outbox_bytes),
            is_loaded: watch::Sender::new(false),
            looks: AtomicBool::new(false),
            looks_back: Looks::new(),
            address: settings.address,
            moves: Moves::default(),
            timeout: settings.timeout,
            troubles: Troubles::default(),
        };
        Self { shared: Arc::new(shared) }
    }

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
                watcher.moves.watch(&watcher.address, watcher.timeout).await;
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
        self.shared.looks_back.look_back();
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

impl Shared {
    pub(super) async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        self.address.connect(self.timeout, &self.scripts.keys().stream, &self.moves).await
    }

    /// A part of it is in trouble, or no longer.
    pub(super) fn tell(&self, feed: &Feed, part: Part, trouble: Option<&str>) {
        self.troubles.tell(feed, part, trouble);
    }
}

/// Waits longer with each failure, up to a quarter of a second, and by chance, so that many instances do not come back
/// at one moment.
#[derive(Debug, Default)]
pub(super) struct BackOff {
    failures: u32,
}

impl BackOff {
    const FIRST: Duration = Duration::from_millis(8);
    const MOST: Duration = Duration::from_millis(250);

    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    pub(super) async fn wait(&mut self) {
        let most = Self::FIRST.saturating_mul(1 << self.failures.min(5)).min(Self::MOST);
        self.failures = self.failures.saturating_add(1);
        let mut chance = [0; 2];
        // Without randomness all wait for as long.
        let _ = getrandom::fill(&mut chance);
        let share = f64::from(u16::from_ne_bytes(chance)) / f64::from(u16::MAX);
        tokio::time::sleep(most.mul_f64(1.0 - share)).await;
    }
}

impl fmt::Debug for RedisBackplane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the client: its address holds a password.
        f.debug_struct("RedisBackplane").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}
