use std::error::Error;
use std::fmt;
use std::mem;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

use super::connect::address::{Address, FoundBy, parse};
use super::connect::credentials::{AskCredentials, Credentials};
use super::connect::failover::MasterGeneration;
use super::connect::tls::Tls;
use super::driver::RedisBackplane;
use super::error::RedisConfigError;
use super::health::Health;
use super::publisher::RedisPublisher;
use super::shared::RedisShared;
use super::store::lease::Lease;
use super::store::outbox::Outbox;
use super::store::owed::Owed;
use super::store::producing::Producers;
use super::store::runs::RunStore;
use super::store::script::{Keep, Keys, Scripts};
use super::store::{FOR_EVER, millis};
use crate::backplane::InstanceId;
use crate::{ClientId, RunLimits};

/// Settings for a [`RedisBackplane`](super::RedisBackplane) or a
/// [`RedisPublisher`](super::RedisPublisher).
///
/// ```
/// use sse_hub::redis::Redis;
///
/// let backplane = Redis::new("redis://127.0.0.1:6379")?
///     .prefix("shop")
///     .keep_events(200_000)
///     .outbox(10_000, 8 << 20)
///     .build()?;
/// # Ok::<(), sse_hub::redis::RedisConfigError>(())
/// ```
#[must_use = "a builder does nothing until `build` is called"]
pub struct Redis {
    address: Address,
    tls: Tls,
    prefix: String,
    keep: Keep,
    outbox_events: usize,
    outbox_bytes: usize,
    remember: Duration,
    timeout: Duration,
    lease: Duration,
    runs: RunLimits,
}

const TIMEOUTS: (Duration, Duration) = (Duration::from_millis(4), Duration::from_secs(3600));
const LEASES: (Duration, Duration) = (Duration::from_millis(8), Duration::from_secs(24 * 3600));

impl Redis {
    /// Starts with an address: `redis://user:password@host:port/database`, `rediss://` for the same
    /// over TLS (feature `redis-tls`), or `unix:///path` for a socket.
    ///
    /// # Errors
    ///
    /// Returns [`RedisConfigError`] if the address is invalid. Does not connect.
    pub fn new(address: &str) -> Result<Self, RedisConfigError> {
        Ok(Self {
            address: Address::new(address)?,
            tls: Tls::default(),
            prefix: "sse-hub".to_owned(),
            keep: Keep::Events(100_000),
            outbox_events: 16_384,
            outbox_bytes: 16 << 20,
            remember: Duration::from_secs(24 * 3600),
            timeout: Duration::from_secs(2),
            lease: Duration::from_secs(10),
            runs: RunLimits::default(),
        })
    }

    /// Asks sentinels for the server with each connection. The host of the first address is then
    /// the *name* of the master, and the port is ignored. The user, the password, the database and
    /// TLS of the first address are for the master, and those of a sentinel's address for that
    /// sentinel.
    ///
    /// ```
    /// use sse_hub::redis::Redis;
    ///
    /// let backplane = Redis::new("redis://hub:secret@mymaster")?
    ///     .sentinels(["redis://10.0.0.1:26379", "redis://10.0.0.2:26379", "redis://10.0.0.3:26379"])?
    ///     .build()?;
    /// # Ok::<(), sse_hub::redis::RedisConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    pub fn sentinels<'a>(
        mut self,
        addresses: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, RedisConfigError> {
        let sentinels = addresses.into_iter().map(parse).collect::<Result<_, _>>()?;
        self.address.found_by = FoundBy::Sentinels(sentinels);
        Ok(self)
    }

    /// Treats the address as a node of a Redis Cluster: asks this node and `more` nodes, with each
    /// connection, for the owner of the keys. All keys of a prefix have the same owner. The user,
    /// the password and TLS of the first address are also for the owner.
    ///
    /// ```
    /// use sse_hub::redis::Redis;
    ///
    /// let backplane = Redis::new("redis://hub:secret@10.0.0.1:6379")?
    ///     .cluster(["redis://hub:secret@10.0.0.2:6379", "redis://hub:secret@10.0.0.3:6379"])?
    ///     .build()?;
    /// # Ok::<(), sse_hub::redis::RedisConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    pub fn cluster<'a>(
        mut self,
        more: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, RedisConfigError> {
        let nodes = more.into_iter().map(parse).collect::<Result<_, _>>()?;
        self.address.found_by = FoundBy::Nodes(nodes);
        Ok(self)
    }

    /// Asks `credentials` for the password with each connection, in place of the address's:
    /// for passwords that are rotated and tokens that expire. In a cluster they hold for all nodes;
    /// sentinels keep those of their own addresses.
    ///
    /// If the function fails, or takes longer than the [timeout](Self::timeout), the connection
    /// fails, and the function is asked again with the next attempt. An open connection stays open
    /// when the password is changed, until Redis closes the connection.
    ///
    /// ```
    /// use sse_hub::redis::{Credentials, Redis};
    ///
    /// let backplane = Redis::new("redis://127.0.0.1:6379")?
    ///     .credentials(|| async {
    ///         let password = std::fs::read_to_string("/run/secrets/redis")?;
    ///         Ok::<_, std::io::Error>(Credentials::new("hub", password.trim()))
    ///     })
    ///     .build()?;
    /// # Ok::<(), sse_hub::redis::RedisConfigError>(())
    /// ```
    pub fn credentials<F, A, E>(mut self, credentials: F) -> Self
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: Future<Output = Result<Credentials, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        self.address.credentials = Some(AskCredentials::new(credentials));
        self
    }

    /// Sets the authorities to trust, in PEM form, in place of those of the system. Needs an
    /// address that begins with `rediss://`.
    ///
    /// ```no_run
    /// use sse_hub::redis::Redis;
    ///
    /// let backplane = Redis::new("rediss://hub:secret@redis.internal:6380")?
    ///     .ca(std::fs::read("/etc/redis/ca.pem")?)
    ///     .build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "redis-tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis-tls")))]
    pub fn ca(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.tls.ca = Some(pem.into());
        self
    }

    /// Sets the client's certificate and key, in PEM form, for a server with
    /// `tls-auth-clients yes`.
    #[cfg(feature = "redis-tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis-tls")))]
    pub fn identity(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.tls.identity = Some((certificate.into(), key.into()));
        self
    }

    /// Sets the prefix of the names of all keys, which stands in braces. The default is `sse-hub`.
    /// Hubs with the same prefix are one hub, and hubs with different prefixes share nothing.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets about how many events Redis keeps. The default is 100,000. Set more than a hub
    /// [retains](crate::Retain), and more than are published while an instance is cut off. With
    /// `u64::MAX` Redis keeps all events, until the memory is full.
    pub fn keep_events(mut self, events: u64) -> Self {
        self.keep = Keep::Events(events);
        self
    }

    /// Sets about how long Redis keeps events, in place of how many.
    pub fn keep_for(mut self, age: Duration) -> Self {
        self.keep = Keep::Age(age);
        self
    }

    /// Sets how many events, and how many bytes of them, may wait to be acknowledged. The defaults
    /// are 16,384 events and 16 MiB. Beyond that, publishing returns
    /// [`PublishError::Backlog`](crate::PublishError::Backlog).
    pub fn outbox(mut self, events: usize, bytes: usize) -> Self {
        (self.outbox_events, self.outbox_bytes) = (events, bytes);
        self
    }

    /// Sets how long Redis remembers an [idempotency key](crate::Event::idempotency_key), and the
    /// latest batch of a publisher that is silent. The default is a day, and the most is a hundred
    /// years: a longer time is shortened to that.
    pub fn remember(mut self, time: Duration) -> Self {
        self.remember = time.min(FOR_EVER);
        self
    }

    /// Sets how long Redis may take to answer before the connection is replaced: from 4 ms to 1
    /// hour. The default is 2 seconds. A quarter of this time is the limit for making a connection.
    /// On a slow line an answer that cannot be made smaller gets up to 32 times as long.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how long an instance may be cut off from Redis before the other instances hold it for
    /// dead: from 8 ms to 1 day. The default is 10 seconds. Set several times the
    /// [timeout](Self::timeout). The [grace](crate::Presence) of a dead instance's users begins
    /// between five and seven quarters of this time after the death. The [runs](super#runs) of a
    /// dead instance end within two seconds after this time.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Sets the limits of the hubs for runs, for a [publisher](Self::publisher) that
    /// [starts runs](RedisPublisher::start_run). A hub uses [its own](crate::HubBuilder::runs): the
    /// setting has no effect there.
    pub fn run_limits(mut self, limits: RunLimits) -> Self {
        self.runs = limits;
        self
    }

    /// Checks the settings. Does not connect: [`RedisBackplane::run`] does.
    ///
    /// # Errors
    ///
    /// Returns [`RedisConfigError`] if a setting cannot work.
    pub fn build(self) -> Result<RedisBackplane, RedisConfigError> {
        Ok(RedisBackplane::new(self.into_shared()?))
    }

    /// Returns a handle that publishes to the hubs and reads nothing: for a program that serves no
    /// clients, such as a worker or a cron job. Must be called in a tokio runtime, where a task
    /// then sends the events. Each call makes a publisher with a connection of its own: clone the
    /// handle.
    ///
    /// Set [`prefix`](Self::prefix), [`keep_events`](Self::keep_events) or
    /// [`keep_for`](Self::keep_for), and [`remember`](Self::remember) as for the hubs: a publisher
    /// trims the stream, too. If the publisher starts runs, set [`lease`](Self::lease) and
    /// [`run_limits`](Self::run_limits), too.
    ///
    /// # Errors
    ///
    /// Returns [`RedisConfigError`] if a setting cannot work, or outside of a tokio runtime. Does
    /// not connect: the first event does.
    ///
    /// # A cron job
    ///
    /// ```no_run
    /// use sse_hub::Event;
    /// use sse_hub::redis::Redis;
    ///
    /// #[tokio::main(flavor = "current_thread")]
    /// async fn main() -> Result<(), Box<dyn std::error::Error>> {
    ///     let publisher = Redis::new("redis://127.0.0.1:6379")?.prefix("shop").publisher()?;
    ///     for order in ["17", "18", "19"] {
    ///         publisher.send_to_user(42, Event::new("shipped").data(order))?;
    ///     }
    ///     Ok(publisher.flush().await?)
    /// }
    /// ```
    pub fn publisher(self) -> Result<RedisPublisher, RedisConfigError> {
        let runtime = Handle::try_current().map_err(|_| RedisConfigError::NoRuntime)?;
        let limits = self.runs;
        let shared = self.into_shared()?;
        let mut instance = [0; 8];
        getrandom::fill(&mut instance).map_err(|_| RedisConfigError::NoRandomness)?;
        let producers = Producers::new(InstanceId::from_bytes(instance));
        // A publisher has no clients that could miss an event.
        shared.is_loaded.send_replace(true);
        Ok(RedisPublisher::start(shared, producers, limits, &runtime))
    }

    fn into_shared(mut self) -> Result<RedisShared, RedisConfigError> {
        self.check()?;
        mem::take(&mut self.tls).apply(self.address.servers_mut())?;
        let publisher = ClientId::random().map_err(|_| RedisConfigError::NoRandomness)?.to_string();
        let keys = Keys::new(&self.prefix, &publisher);
        let runs = RunStore::new(keys.runs.clone());
        Ok(RedisShared {
            presence: Lease::new(&self.prefix, &publisher, self.lease),
            scripts: Scripts::new(keys, self.keep, millis(self.remember)),
            outbox: Outbox::new(self.outbox_events, self.outbox_bytes),
            owed: Owed::default(),
            runs,
            runs_changed: Notify::new(),
            has_run_parts: AtomicBool::new(false),
            is_loaded: watch::Sender::new(false),
            is_running: AtomicBool::new(false),
            is_client_ahead: AtomicBool::new(false),
            history_wanted: Notify::new(),
            address: self.address,
            master: MasterGeneration::default(),
            timeout: self.timeout,
            health: Health::default(),
        })
    }

    /// Checks the settings, except for the certificates.
    fn check(&self) -> Result<(), RedisConfigError> {
        if self.prefix.is_empty() || self.prefix.contains(['{', '}']) {
            return Err(RedisConfigError::Prefix(self.prefix.clone()));
        }
        let at_least_1 = |setting, value: u64| match value {
            0 => Err(RedisConfigError::out_of_range(setting, value, "at least 1")),
            _ => Ok(()),
        };
        let at_least_1_ms = |setting, value: Duration| match millis(value) {
            0 => Err(RedisConfigError::out_of_range(setting, Shown(value), "at least 1 ms")),
            _ => Ok(()),
        };
        let within = |setting, value, (least, most), limit| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            Err(RedisConfigError::out_of_range(setting, Shown(value), limit))
        };
        match self.keep {
            Keep::Events(events) => at_least_1("keep_events", events)?,
            Keep::Age(age) => at_least_1_ms("keep_for", age)?,
        }
        at_least_1("outbox events", self.outbox_events as u64)?;
        at_least_1("outbox bytes", self.outbox_bytes as u64)?;
        at_least_1_ms("remember", self.remember)?;
        within("timeout", self.timeout, TIMEOUTS, "from 4 ms to 1 hour")?;
        within("lease", self.lease, LEASES, "from 8 ms to 1 day")?;
        self.address.check()
    }
}

/// A duration as errors show it.
struct Shown(Duration);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the address: that holds a password.
        f.debug_struct("Redis").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redis() -> Redis {
        Redis::new("redis://127.0.0.1").unwrap()
    }

    #[track_caller]
    fn refused(redis: Redis, parts: [&str; 3]) {
        let error = redis.build().unwrap_err();
        assert!(matches!(error, RedisConfigError::OutOfRange { .. }), "{error}");
        for part in parts {
            assert!(error.to_string().contains(part), "{error} does not name {part}");
        }
    }

    #[test]
    fn errors_name_setting_value_and_limit() {
        let ms = Duration::from_millis;
        refused(redis().timeout(ms(3)), ["`timeout`", "3ms", "from 4 ms"]);
        refused(redis().timeout(Duration::MAX), ["`timeout`", "18446744073709551615", "1 hour"]);
        refused(redis().timeout(TIMEOUTS.1 + ms(1)), ["`timeout`", "3600.001s", "1 hour"]);
        refused(redis().lease(ms(7)), ["`lease`", "7ms", "from 8 ms"]);
        refused(redis().lease(Duration::MAX), ["`lease`", "18446744073709551615", "1 day"]);
        refused(redis().keep_events(0), ["`keep_events`", "0", "at least 1"]);
        refused(redis().keep_for(Duration::ZERO), ["`keep_for`", "0ns", "at least 1 ms"]);
        refused(redis().remember(Duration::ZERO), ["`remember`", "0ns", "at least 1 ms"]);
        refused(redis().outbox(0, 1), ["`outbox events`", "0", "at least 1"]);
        refused(redis().outbox(1, 0), ["`outbox bytes`", "0", "at least 1"]);
        refused(redis().sentinels([]).unwrap(), ["`sentinels`", "0", "at least 1"]);
        let braces = redis().prefix("a{b").build().unwrap_err().to_string();
        assert!(braces.contains("`prefix`") && braces.contains("\"a{b\""), "{braces}");
    }

    #[test]
    fn limits_themselves_are_allowed() {
        for timeout in [TIMEOUTS.0, TIMEOUTS.1] {
            redis().timeout(timeout).build().unwrap();
        }
        for lease in [LEASES.0, LEASES.1] {
            redis().lease(lease).build().unwrap();
        }
        let ever = redis().remember(Duration::MAX).keep_for(Duration::MAX);
        assert_eq!(ever.remember, FOR_EVER);
        ever.build().unwrap();
        let all = redis().keep_events(u64::MAX).outbox(usize::MAX, usize::MAX);
        assert_eq!(all.keep.strategy().1, i64::MAX as u64);
        all.build().unwrap();
    }

    #[test]
    fn publisher_outside_of_a_runtime_is_an_error() {
        let error = redis().publisher().unwrap_err();
        assert!(matches!(error, RedisConfigError::NoRuntime), "{error}");
        assert!(error.to_string().contains("tokio runtime"), "{error}");
    }

    #[tokio::test]
    async fn publisher_checks_the_settings_too() {
        let error = redis().keep_events(0).publisher().unwrap_err();
        assert!(matches!(error, RedisConfigError::OutOfRange { .. }), "{error}");
    }

    #[test]
    fn debug_shows_no_password() {
        let shown = format!("{:?}", Credentials::new("hub", "secret"));
        assert!(shown.contains("hub") && !shown.contains("secret"), "{shown}");
    }
}
