//! TLS on the way to Redis.

use redis::{Client, ClientTlsConfig, ConnectionInfo, ErrorKind, TlsCertificates};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::redis::error::RedisConfigError;

/// Whom to believe, and who one is.
#[derive(Default)]
pub(crate) struct Tls {
    pub(crate) ca: Option<Vec<u8>>,
    /// A certificate, and its key.
    pub(crate) identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Tls {
    /// Adds the certificates to whatever is connected to.
    pub(crate) fn apply<'a>(
        self,
        servers: impl Iterator<Item = &'a mut ConnectionInfo>,
    ) -> Result<(), RedisConfigError> {
        if self.ca.is_none() && self.identity.is_none() {
            return Ok(());
        }
        let has_one = |pem: &Vec<u8>| CertificateDer::pem_slice_iter(pem).next().is_some();
        if !self
            .ca
            .iter()
            .chain(self.identity.iter().map(|(certificate, _)| certificate))
            .all(has_one)
        {
            let error = (ErrorKind::InvalidClientConfig, "there is no certificate in it");
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

/// The client asks for the process's cryptography, and panics if that is to be guessed from more than one that is compiled
/// in. Whoever wants another has installed it before anything is connected to.
pub(crate) fn have_cryptography() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // An error says that somebody else was faster.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}
