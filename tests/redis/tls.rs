//! Redis over TLS.

use std::fs;

use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use sse_hub::redis::{Redis, RedisConfigError};
use tempfile::TempDir;

use crate::load::{Instance, Load, until};
use crate::server::{DEADLINE, PORT, Server};
use crate::told::Told;

/// A certificate authority.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// Returns a certificate for a name, and the key.
    fn vouch(&self, name: &str) -> [String; 2] {
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        [params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem()]
    }
}

/// A server with a plain and a TLS port, and its files.
struct Secure {
    server: Server,
    files: TempDir,
    port: u16,
}

impl Secure {
    fn start(authority: &Authority, name: &str, asks_for_clients: &str) -> Self {
        let files = TempDir::new().unwrap();
        fs::write(files.path().join("ca"), authority.pem()).unwrap();
        write(&files, authority.vouch(name));
        let path = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
        let server = Server::start(&[
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--tls-port",
            PORT,
            "--tls-auth-clients",
            asks_for_clients,
            "--tls-ca-cert-file",
            &path("ca"),
            "--tls-cert-file",
            &path("cert"),
            "--tls-key-file",
            &path("key"),
        ]);
        Self { port: server.further_port(0), server, files }
    }

    /// Replaces the certificate.
    fn exchange(&self, certificate: [String; 2]) {
        write(&self.files, certificate);
        let path = self.files.path().join("cert");
        let _: String =
            self.server.run(&format!("CONFIG SET tls-cert-file {}", path.to_str().unwrap()));
    }

    fn url(&self) -> String {
        format!("rediss://127.0.0.1:{}", self.port)
    }

    fn instance(&self, set: impl FnOnce(Redis) -> Redis) -> Instance {
        Instance::with(&self.url(), set, |hub| hub)
    }
}

fn write(files: &TempDir, [certificate, key]: [String; 2]) {
    fs::write(files.path().join("cert"), certificate).unwrap();
    fs::write(files.path().join("key"), key).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn own_authority_also_after_a_restart() {
    let authority = Authority::new("ours");
    let mut secure = Secure::start(&authority, "127.0.0.1", "no");
    // The other instance reads the same stream without TLS.
    let instances =
        [secure.instance(|redis| redis.ca(authority.pem())), Instance::new(&secure.server.url())];
    for instance in &instances {
        instance.backplane.ready().await;
    }
    let load = Load::start(&instances.each_ref(), 4, 24);
    load.goes_on().await;
    secure.server.kill();
    secure.server.restart();
    load.goes_on().await;
    load.stop().await.check_exact();
    let clients: String = secure.server.run("CLIENT LIST");
    let over_tls = clients.lines().filter(|line| line.contains(&format!(":{} ", secure.port)));
    assert_eq!(over_tls.count(), 2, "{clients}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn publisher_sends_over_tls() {
    let authority = Authority::new("ours");
    let secure = Secure::start(&authority, "127.0.0.1", "yes");
    // The instance reads the same stream without TLS.
    let instance = Instance::ready(&secure.server.url()).await;
    let mut client = instance.client();
    let [certificate, key] = authority.vouch("publisher");
    let redis = Redis::new(&secure.url()).unwrap().ca(authority.pem()).identity(certificate, key);
    let publisher = redis.publisher().unwrap();
    publisher.broadcast(sse_hub::Event::new("n").data("1")).unwrap();
    tokio::time::timeout(DEADLINE, publisher.flush()).await.unwrap().unwrap();
    client.until("1").await;
    let clients: String = secure.server.run("CLIENT LIST");
    let over_tls = clients.lines().filter(|line| line.contains(&format!(":{} ", secure.port)));
    assert_eq!(over_tls.count(), 1, "{clients}");
}

// On a single thread, where `tracing` is recorded.
#[tokio::test]
#[ignore = "needs redis-server"]
async fn wrong_certificate_is_an_outage_until_replaced() {
    let (authority, other) = (Authority::new("ours"), Authority::new("another"));
    for (of, name, cause) in [
        (&other, "127.0.0.1", "UnknownIssuer"),
        (&authority, "redis.example", "not valid for name"),
    ] {
        let (told, _guard) = Told::record();
        let secure = Secure::start(of, name, "no");
        // A busy machine must not take the time for the handshake.
        let patient = std::time::Duration::from_secs(40);
        let here = secure.instance(|redis| redis.ca(authority.pem()).timeout(patient));
        let mut client = here.client();
        here.hub.broadcast(sse_hub::Event::new("n").data("1")).unwrap();
        until("the cause", || told.contains("backplane unreachable")).await;
        let said = told.text();
        assert!(said.contains(cause), "{said}");
        assert!(here.hub.stats().degraded);

        secure.exchange(authority.vouch("127.0.0.1"));
        client.until("1").await;
        here.until("a hub that is back", |hub| !hub.stats().degraded).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn client_certificate_is_sent_on_request() {
    let authority = Authority::new("ours");
    let secure = Secure::start(&authority, "127.0.0.1", "yes");
    let nobody = secure.instance(|redis| redis.ca(authority.pem()));
    let [certificate, key] = authority.vouch("hub");
    let here = secure.instance(|redis| redis.ca(authority.pem()).identity(certificate, key));
    let mut client = here.client();
    here.publish("1").await;
    client.until("1").await;
    nobody.until("a hub that knows", |hub| hub.stats().degraded).await;
    assert_eq!(nobody.hub.stats().published, 0);
}

#[test]
fn invalid_certificates_are_errors_of_build() {
    let authority = Authority::new("ours");
    let [certificate, key] = authority.vouch("hub");
    let secure = || Redis::new("rediss://127.0.0.1").unwrap();
    let without_tls = Redis::new("redis://127.0.0.1").unwrap().ca(authority.pem());
    let sentinel = secure().sentinels(["redis://127.0.0.1"]).unwrap().ca(authority.pem());
    for settings in [
        without_tls,
        sentinel,
        secure().ca("garbage"),
        secure().identity("garbage", &*key),
        secure().identity(&*certificate, "garbage"),
    ] {
        let error = settings.build().unwrap_err();
        assert!(matches!(error, RedisConfigError::Certificate(_)), "{error}");
    }
    assert!(secure().ca(authority.pem()).identity(certificate, key).build().is_ok());
    let insecure = Redis::new("rediss://127.0.0.1/#insecure").unwrap_err();
    assert!(matches!(insecure, RedisConfigError::Insecure), "{insecure}");
}
