//! TLS to Redis.

use redis::{Client, ClientTlsConfig, ConnectionInfo, ErrorKind, TlsCertificates};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::redis::error::RedisConfigError;

/// The certificates that are set.
#[derive(Default)]
pub(crate) struct Tls {
    /// The authorities to trust, in place of those of the system.
    pub(crate) ca: Option<Vec<u8>>,
    /// The client's certificate and key.
    pub(crate) identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Tls {
    /// Adds the certificates to all servers.
    pub(crate) fn apply<'a>(
        self,
        servers: impl Iterator<Item = &'a mut ConnectionInfo>,
    ) -> Result<(), RedisConfigError> {
        if self.ca.is_none() && self.identity.is_none() {
            return Ok(());
        }
        // The client would accept a file without a certificate, and fail with each connection.
        let has_certificate = |pem: &Vec<u8>| CertificateDer::pem_slice_iter(pem).next().is_some();
        let client_certificate = self.identity.iter().map(|(certificate, _)| certificate);
        if !self.ca.iter().chain(client_certificate).all(has_certificate) {
            let error = (ErrorKind::InvalidClientConfig, "there is no certificate in the file");
            return Err(RedisConfigError::Certificate(error.into()));
        }
        let client_tls = self
            .identity
            .map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
        let certificates = TlsCertificates { client_tls, root_cert: self.ca };
        for server in servers {
            let client = Client::build_with_tls(server.clone(), certificates.clone())
                .map_err(RedisConfigError::Certificate)?;
            *server = client.get_connection_info().clone();
        }
        Ok(())
    }
}

/// Installs ring as the process's cryptography, unless the application has installed another.
///
/// The client panics if the process has none and several are compiled in.
pub(crate) fn install_crypto_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // An error means that another thread was faster.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}
