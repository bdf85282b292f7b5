/// Settings that nothing could work with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedisConfigError {
    /// The address is none.
    #[error("the address of Redis cannot be used: {0}")]
    Address(#[source] redis::RedisError),
    /// The address begins with `rediss://`, and the feature for it is not on.
    #[error("an address that begins with `rediss://` needs the feature `redis-tls`")]
    Tls,
    /// The address ends with `#insecure`.
    #[error("an address that ends with `#insecure` is not supported: say whom to trust with `ca`")]
    Insecure,
    /// The certificates of `ca` or `identity` are none, or an address does not begin with `rediss://`.
    #[error("the certificates cannot be used: {0}")]
    Certificate(#[source] redis::RedisError),
    /// The master's name or the nodes of a cluster, with a socket in place of a host.
    #[error("sentinels and clusters are of hosts, and not of sockets")]
    Socket,
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
