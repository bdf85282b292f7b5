//! TLS on the way to Redis.

use redis::{Client, ClientTlsConfig, ErrorKind, TlsCertificates};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::address::{Address, FoundBy};
use super::config::{Redis, RedisConfigError};

/// Whom to believe, and who one is.
#[derive(Default)]
pub(super) struct Tls {
    ca: Option<Vec<u8>>,
    identity: Option<ClientTlsConfig>,
}

impl Redis {
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
    #[cfg_attr(docsrs, doc(cfg(feature = "redis-tls")))]
    pub fn ca(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.tls.ca = Some(pem.into());
        self
    }

    /// The certificate that a server with `tls-auth-clients yes` asks for, and its key, in PEM form.
    #[cfg_attr(docsrs, doc(cfg(feature = "redis-tls")))]
    pub fn identity(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        let (client_cert, client_key) = (certificate.into(), key.into());
        self.tls.identity = Some(ClientTlsConfig { client_cert, client_key });
        self
    }
}

impl Tls {
    /// Adds the certificates to whatever is connected to.
    pub(super) fn apply(self, address: &mut Address) -> Result<(), RedisConfigError> {
        if self.ca.is_none() && self.identity.is_none() {
            return Ok(());
        }
        let has_one = |pem: &Vec<u8>| CertificateDer::pem_slice_iter(pem).next().is_some();
        if !self.ca.iter().chain(self.identity.iter().map(|own| &own.client_cert)).all(has_one) {
            let error = (ErrorKind::InvalidClientConfig, "there is no certificate in it");
            return Err(RedisConfigError::Certificate(error.into()));
        }
        let certificates = TlsCertificates { client_tls: self.identity, root_cert: self.ca };
        let others = match &mut address.found_by {
            FoundBy::Address => &mut [][..],
            FoundBy::Sentinels(others) | FoundBy::Nodes(others) => others,
        };
        for server in std::iter::once(&mut address.server).chain(others) {
            let client = Client::build_with_tls(server.clone(), certificates.clone())
                .map_err(RedisConfigError::Certificate)?;
            *server = client.get_connection_info().clone();
        }
        Ok(())
    }
}

/// The client asks for the process's cryptography, and panics if that is to be guessed from more than one that is compiled
/// in. Whoever wants another has installed it before anything is connected to.
pub(super) fn have_cryptography() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // An error says that somebody else was faster.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}
