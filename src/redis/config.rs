use std::fmt;
use std::time::Duration;

use redis::Client;

use super::driver::RedisBackplane;
use crate::log::audience::ClientId;

/// Settings for a [`RedisBackplane`].
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
    pub(super) client: Client,
    pub(super) prefix: String,
    pub(super) keep: Keep,
    pub(super) outbox_events: usize,
    pub(super) outbox_bytes: usize,
    pub(super) remember: Duration,
    pub(super) timeout: Duration,
    pub(super) lease: Duration,
}

/// What the stream is trimmed to, roughly.
#[derive(Debug, Clone, Copy)]
pub(super) enum Keep {
    Events(u64),
    Age(Duration),
}

impl Keep {
    /// As `XADD` takes it; an age in milliseconds, for the script to count back.
    pub(super) fn strategy(self) -> (&'static str, u64) {
        match self {
            Self::Events(events) => ("MAXLEN", events),
            Self::Age(age) => ("MINID", millis(age)),
        }
    }
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Settings that nothing could work with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedisConfigError {
    /// The address is none, or asks for what is not compiled in, such as TLS.
    #[error("the address of Redis cannot be used: {0}")]
    Address(#[from] redis::RedisError),
    /// The prefix could not be told from what follows it.
    #[error("the prefix is empty or contains `{{` or `}}`")]
    Prefix,
    /// Nothing could be sent, kept or waited for.
    #[error("`{0}` is zero")]
    Zero(&'static str),
    /// The operating system gave no random bytes for the publisher's name.
    #[error("the operating system gives no random bytes")]
    NoRandomness,
}

impl Redis {
    /// Starts with an address: `redis://user:password@host:port/database`, or `unix:///path` for a socket.
    ///
    /// # Errors
    ///
    /// [`RedisConfigError::Address`]. Nothing is connected to yet.
    pub fn new(address: &str) -> Result<Self, RedisConfigError> {
        Ok(Self {
            client: Client::open(address)?,
            prefix: "sse-hub".to_owned(),
            keep: Keep::Events(100_000),
            outbox_events: 16_384,
            outbox_bytes: 16 << 20,
            remember: Duration::from_secs(24 * 3600),
            timeout: Duration::from_secs(2),
            lease: Duration::from_secs(10),
        })
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

    /// Checks the settings. Connects to nothing: [`RedisBackplane::run`] does.
    ///
    /// # Errors
    ///
    /// [`RedisConfigError`] names settings that nothing could work with.
    pub fn build(self) -> Result<RedisBackplane, RedisConfigError> {
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
        let publisher = ClientId::random().map_err(|_| RedisConfigError::NoRandomness)?;
        Ok(RedisBackplane::new(self, &publisher.to_string()))
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the client: its address holds a password.
        f.debug_struct("Redis").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}
