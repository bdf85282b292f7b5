//! What stands in the place of TLS where its feature is off.

use super::address::Address;
use super::config::RedisConfigError;

#[derive(Default)]
pub(super) struct Tls {}

impl Tls {
    pub(super) fn apply(self, _: &mut Address) -> Result<(), RedisConfigError> {
        Ok(())
    }
}

pub(super) fn have_cryptography() {}
