use std::fmt;
use std::time::Duration;

use super::connect::address::{Address, FoundBy, parse};
use super::connect::tls::Tls;
use super::error::RedisConfigError;
use super::store::clock::millis;

/// Settings for a [`RedisBackplane`](super::RedisBackplane).
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
    pub(crate) address: Address,
    pub(crate) tls: Tls,
    pub(crate) prefix: String,
    pub(crate) keep: Keep,
    pub(crate) outbox_events: usize,
    pub(crate) outbox_bytes: usize,
    pub(crate) remember: Duration,
    pub(crate) timeout: Duration,
    pub(crate) lease: Duration,
}

/// What the stream is trimmed to, roughly.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Keep {
    Events(u64),
    Age(Duration),
}

impl Keep {
    /// As `XADD` takes it; an age in milliseconds, for the script to count back.
    pub(crate) fn strategy(self) -> (&'static str, u64) {
        match self {
            Self::Events(events) => ("MAXLEN", events),
            Self::Age(age) => ("MINID", millis(age)),
        }
    }
}

impl Redis {
    /// Starts with an address: `redis://user:password@host:port/database`, `rediss://` for the same over TLS (feature
    /// `redis-tls`), or `unix:///path` for a socket.
    ///
    /// # Errors
    ///
    /// [`RedisConfigError`] names what the address cannot be. Nothing is connected to yet.
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
        })
    }

    /// Asks sentinels for the server with every connection. The host of the address that was given first is then the
    /// *name* of the master, and its port means nothing; its user, password, database and TLS are for the master, and
    /// those of a sentinel's address for that sentinel.
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

    /// The address is a node's of a Redis Cluster: asks it and `more` nodes, with every connection, for the one that owns
    /// the keys. All keys of a prefix have one owner. The user, the password and TLS of the first address are for the owner
    /// too.
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

    /// The certificates of those who may vouch for the server, in PEM form, in place of those that the system trusts. Needs
    /// an address that begins with `rediss://`.
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

    /// The certificate that a server with `tls-auth-clients yes` asks for, and its key, in PEM form.
    #[cfg(feature = "redis-tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis-tls")))]
    pub fn identity(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.tls.identity = Some((certificate.into(), key.into()));
        self
    }

    /// What the names of all keys begin with, in braces: `sse-hub`, unless set. Hubs with the same prefix are one hub,
    /// and those with others know nothing of them.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// About how many events Redis keeps: 100 000, unless set. Should be more than a hub
    /// [retains](crate::Retain), and more than are published while an instance is cut off.
    pub fn keep_events(mut self, events: u64) -> Self {
        self.keep = Keep::Events(events);
        self
    }

    /// For about how long Redis keeps events, in place of how many.
    pub fn keep_for(mut self, age: Duration) -> Self {
        self.keep = Keep::Age(age);
        self
    }

    /// How many events, and how many bytes of them, may wait to be acknowledged: 16 384 and 16 MiB, unless set. Beyond
    /// that publishing is an error: [`PublishError::Backlog`](crate::PublishError::Backlog).
    pub fn outbox(mut self, events: usize, bytes: usize) -> Self {
        (self.outbox_events, self.outbox_bytes) = (events, bytes);
        self
    }

    /// How long Redis remembers [idempotency keys](crate::Event::idempotency_key), and what a publisher that it does not
    /// hear from had sent: a day, unless set.
    pub fn remember(mut self, time: Duration) -> Self {
        self.remember = time;
        self
    }

    /// How long Redis may take to answer before the connection is given up for another: 2 seconds, unless set. A
    /// connection may take a quarter of it to be made.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// For how long an instance may be cut off from Redis before the others take it for dead: 10 seconds, unless set.
    /// Should be several times the [timeout](Self::timeout). The users of one that has died leave when the
    /// [grace](crate::Presence) is over that begins between five and seven quarters of this later.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the client: its address holds a password.
        f.debug_struct("Redis").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}
