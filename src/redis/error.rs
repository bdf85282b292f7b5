use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

/// [`Redis`](super::Redis) has settings that cannot work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedisConfigError {
    /// The address cannot be parsed.
    #[error("invalid address of Redis: {0}")]
    Address(#[source] redis::RedisError),
    /// The address begins with `rediss://`, and the feature `redis-tls` is off.
    #[error("an address that begins with `rediss://` needs the feature `redis-tls`")]
    Tls,
    /// The address ends with `#insecure`.
    #[error("an address that ends with `#insecure` is not supported: set the authority with `ca`")]
    Insecure,
    /// `ca` or `identity` holds no certificate, or an address does not begin with `rediss://`.
    #[error("invalid certificates: {0}")]
    Certificate(#[source] redis::RedisError),
    /// The master's name or a node of a cluster is the path of a socket.
    #[error("sentinels and clusters need host names, not paths of sockets")]
    Socket,
    /// The prefix is empty or contains a brace.
    #[error("invalid `prefix` {0:?}: must not be empty, and must not contain `{{` or `}}`")]
    Prefix(String),
    /// A number or a duration is outside of the range that can work.
    #[error("invalid `{setting}` {value}: must be {limit}")]
    OutOfRange {
        /// The name of the setting.
        setting: &'static str,
        /// The refused value.
        value: String,
        /// The range of allowed values.
        limit: &'static str,
    },
    /// [`Redis::publisher`](super::Redis::publisher) was called outside of a tokio runtime.
    #[error("`Redis::publisher` needs a tokio runtime: call it in one")]
    NoRuntime,
    /// The operating system gave no random bytes for the publisher's name.
    #[error("the operating system gives no random bytes")]
    NoRandomness,
}

impl RedisConfigError {
    pub(crate) fn out_of_range(
        setting: &'static str,
        value: impl fmt::Display,
        limit: &'static str,
    ) -> Self {
        Self::OutOfRange { setting, value: value.to_string(), limit }
    }
}

/// The backplane was not ready within the given time: see
/// [`RedisBackplane::ready_within`](super::RedisBackplane::ready_within).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the backplane is not ready: {cause}")]
#[non_exhaustive]
pub struct NotReady {
    /// Why the hub has not read the end of the stream.
    pub cause: NotReadyCause,
}

/// Why the backplane is [not ready](NotReady).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotReadyCause {
    /// Nobody awaits the future of [`RedisBackplane::run`](super::RedisBackplane::run), or the
    /// future has ended.
    #[error("`RedisBackplane::run` does not run")]
    NotRunning,
    /// The latest attempt failed: the server is absent, or refuses the password or a command.
    #[error("{0}")]
    Failed(Arc<str>),
    /// The server has not answered so far, and no attempt has failed.
    #[error("no answer from Redis within the time")]
    NoAnswer,
}

/// Redis has not acknowledged all events: see
/// [`RedisPublisher::flush`](super::RedisPublisher::flush).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unacknowledged events: {left}; {cause}")]
#[non_exhaustive]
pub struct NotFlushed {
    /// How many events that were accepted before the flush are not acknowledged.
    pub left: u64,
    /// Why these events are not acknowledged.
    pub cause: NotFlushedCause,
}

/// Why Redis has [not acknowledged](NotFlushed) all events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotFlushedCause {
    /// The latest attempt failed: the server is absent, or refuses the password or a command. The
    /// publisher goes on trying.
    #[error("{0}")]
    Failed(Arc<str>),
    /// The server has not answered for too long, and no attempt has failed. The publisher goes on
    /// trying.
    #[error("no answer from Redis within the time")]
    NoAnswer,
    /// The publisher has ended, and the events are lost or in doubt: the last handle was dropped,
    /// or the runtime has shut down.
    #[error("the publisher has ended")]
    Ended,
}

/// The latest error of a backplane or a publisher: see
/// [`RedisBackplane::last_error`](super::RedisBackplane::last_error) and
/// [`RedisPublisher::last_error`](super::RedisPublisher::last_error).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
#[non_exhaustive]
pub struct LastError {
    /// The error, for people to read. Contains no password.
    pub cause: Arc<str>,
    /// When the error last occurred, by the clock of the system.
    pub at: SystemTime,
    /// Whether the backplane or the publisher has worked since.
    pub is_resolved: bool,
}
