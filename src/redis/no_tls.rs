//! What stands in the place of TLS where its feature is off.

use redis::ConnectionInfo;

use super::error::RedisConfigError;

#[derive(Default)]
pub(super) struct Tls {}

impl Tls {
    pub(super) fn apply<'a>(
        self,
        _: impl Iterator<Item = &'a mut ConnectionInfo>,
    ) -> Result<(), RedisConfigError> {
        Ok(())
    }
}

pub(super) fn have_cryptography() {}
