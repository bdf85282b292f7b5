use std::fmt;

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
