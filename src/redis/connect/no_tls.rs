//! What stands in the place of TLS where its feature is off.

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

pub(crate) fn have_cryptography() {}
