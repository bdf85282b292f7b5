//! Replaces [`tls`](super::tls) where the feature `redis-tls` is off.

use redis::ConnectionInfo;

use crate::redis::error::RedisConfigError;

#[derive(Default)]
pub(crate) struct Tls {}

impl Tls {
    pub(crate) fn apply<'a>(
        self,
        _: impl Iterator<Item = &'a mut ConnectionInfo>,
    ) -> Result<(), RedisConfigError> {
        Ok(())
    }
}

pub(crate) fn install_crypto_provider() {}
