//! Behind nginx, Caddy, HAProxy and Apache, with the configurations of the guide: TLS, HTTP/2,
//! compression and timeouts, as a service on the internet has them.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::http::request::Builder;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::CertifiedKey;
use sse_hub::{Audience, Event, EventId, Goodbye, Heartbeat, Hub};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};

use crate::ports::Port;
use crate::servers::{Adapter, PAGE, Server};
use crate::{eventually, hub, within};

/// The tests of one proxy.
macro_rules! behind {
    ($name:ident, $kind:expr, $needs:literal) => {
        mod $name {
            use super::Kind;

            #[tokio::test]
            #[ignore = $needs]
            async fn events_arrive_at_once() {
                super::events_arrive_at_once($kind).await;
            }

            #[tokio::test]
            #[ignore = $needs]
            async fn client_resumes_by_header() {
                super::client_resumes_by_header($kind).await;
            }

            #[tokio::test]
            #[ignore = $needs]
            async fn heartbeats_outlive_the_idle_timeout() {
                super::heartbeats_outlive_the_idle_timeout($kind).await;
            }

            #[tokio::test]
            #[ignore = $needs]
            async fn departure_reaches_the_hub() {
                super::departure_reaches_the_hub($kind).await;
            }

            #[tokio::test]
            #[ignore = $needs]
            async fn stream_ends_with_its_last_frame() {
                super::stream_ends_with_its_last_frame($kind).await;
            }

            #[tokio::test]
            #[ignore = $needs]
            async fn seven_streams_share_a_connection() {
                super::seven_streams_share_a_connection($kind).await;
            }
        }
    };
}

behind!(nginx, Kind::Nginx, "needs nginx");
behind!(caddy, Kind::Caddy, "needs caddy");
behind!(haproxy, Kind::Haproxy, "needs haproxy");
behind!(apache, Kind::Apache, "needs apache2");

/// A heartbeat that is much shorter than the timeout of [`Proxy::impatient`].
const HEARTBEAT: Duration = Duration::from_millis(250);

/// The protocols between the client and the proxy.
const PROTOCOLS: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

/// No proxy buffers or compresses a stream, also if the client accepts compressed responses.
async fn events_arrive_at_once(kind: Kind) {
    const EVENTS: usize = 20;
    for adapter in [Adapter::Axum, Adapter::Direct] {
        let hub = hub().build().unwrap();
        let server = Server::start(adapter, &hub).await;
        let proxy = Proxy::start(kind, server.address).await;
        for version in PROTOCOLS {
            let mut client = proxy.connect(version).await;
            let mut stream = client.events(None).await;
            let mut delays = Vec::new();
            for number in 0..EVENTS {
                let published = Instant::now();
                let id = publish(&hub, number);
                stream.until(&format!("id: {id}\n\n")).await;
                delays.push(published.elapsed());
            }
            delays.sort_unstable();
            let (median, worst) = (delays[EVENTS / 2], delays[EVENTS - 1]);
            println!("{kind:?}, {adapter:?}, {version:?}: median {median:?}, worst {worst:?}");
            // Load delays some events. A buffer would hold back all.
            assert!(median < Duration::from_millis(100), "{adapter:?}, {version:?}: {delays:?}");
        }
    }
}

/// The missed event makes the first item long: Caddy compresses only responses that begin with 512
/// bytes.
async fn client_resumes_by_header(kind: Kind) {
    let hub = hub().build().unwrap();
    let server = Server::start(Adapter::Axum, &hub).await;
    let proxy = Proxy::start(kind, server.address).await;
    for version in PROTOCOLS {
        let seen = publish(&hub, "seen");
        let missed = publish(&hub, "missed ".repeat(1_000));
        let mut client = proxy.connect(version).await;
        let mut stream = client.events(Some(seen)).await;
        let replayed = stream.until(&format!("id: {missed}\n\n")).await;
        assert!(replayed.contains("\"resumed\":true"), "{version:?}: {replayed}");
        assert!(!replayed.contains("data: seen\n"), "{version:?}: {replayed}");
        let asked = server.service.asked("/events").pop().unwrap();
        assert_eq!(asked.last, Some(seen.to_string()), "{version:?}");
    }
}

/// The control shows that the timeout is in force: without heartbeats the proxy cuts the stream.
async fn heartbeats_outlive_the_idle_timeout(kind: Kind) {
    /// Twice the timeout of an impatient proxy, and more.
    const HEARTBEATS: usize = 12;
    for version in PROTOCOLS {
        let hub = hub().heartbeat(Heartbeat::default().every(HEARTBEAT)).build().unwrap();
        let server = Server::start(Adapter::Axum, &hub).await;
        let proxy = Proxy::impatient(kind, server.address).await;
        let mut client = proxy.connect(version).await;
        let mut stream = client.events(None).await;
        let opened = Instant::now();
        for _ in 0..HEARTBEATS {
            stream.until(":\n").await;
        }
        assert!(opened.elapsed() > 2 * IMPATIENCE, "{version:?}: {:?}", opened.elapsed());
        let id = publish(&hub, 0);
        stream.until(&format!("id: {id}\n\n")).await;
    }
    if !kind.has_idle_timeout() {
        return;
    }
    for version in PROTOCOLS {
        let silent = hub().build().unwrap();
        let server = Server::start(Adapter::Axum, &silent).await;
        let proxy = Proxy::impatient(kind, server.address).await;
        let mut client = proxy.connect(version).await;
        let mut stream = client.events(None).await;
        let cut = within("the proxy cuts an idle stream", stream.rest()).await;
        println!("{kind:?}, {version:?}: {cut:?}");
        eventually("the hub notices the cut", || silent.stats().clients == 0).await;
    }
}

/// A proxy may ignore `no-transform`: then the configuration decides, so the guide leaves streams
/// out of the list.
async fn listed_type_is_compressed(kind: Kind, is_compressed: bool) {
    let hub = hub().build().unwrap();
    let server = Server::start(Adapter::Axum, &hub).await;
    let listed = |text: String| replaced(&text, "application/json", "text/event-stream");
    let proxy = Proxy::with(kind, server.address, listed).await;
    let mut client = proxy.connect(Version::HTTP_2).await;
    let seen = publish(&hub, "seen");
    publish(&hub, "missed ".repeat(1_000));
    let request = client.request("/events").header("accept-encoding", "gzip");
    let response = client.send(request.header("last-event-id", seen.to_string())).await;
    assert_eq!(response.headers().contains_key("content-encoding"), is_compressed);
}

#[tokio::test]
#[ignore = "needs nginx"]
async fn nginx_compresses_listed_streams() {
    listed_type_is_compressed(Kind::Nginx, true).await;
}

#[tokio::test]
#[ignore = "needs caddy"]
async fn caddy_compresses_listed_streams() {
    listed_type_is_compressed(Kind::Caddy, true).await;
}

#[tokio::test]
#[ignore = "needs haproxy"]
async fn haproxy_compresses_no_stream() {
    listed_type_is_compressed(Kind::Haproxy, false).await;
}

#[tokio::test]
#[ignore = "needs apache2"]
async fn apache_compresses_listed_streams() {
    listed_type_is_compressed(Kind::Apache, true).await;
}

/// A new HTTP/2 connection of Apache serves six requests at a time.
#[tokio::test]
#[ignore = "needs apache2"]
async fn seventh_request_waits_on_a_new_apache_connection() {
    let hub = hub().build().unwrap();
    let server = Server::start(Adapter::Axum, &hub).await;
    let proxy = Proxy::start(Kind::Apache, server.address).await;
    let mut client = proxy.connect(Version::HTTP_2).await;
    let mut streams = Vec::new();
    for _ in 0..6 {
        streams.push(client.events(None).await);
    }
    let seventh = tokio::spawn(async move { (client.events(None).await, client) });
    // The proxy answers others in the meantime.
    let mut other = proxy.connect(Version::HTTP_2).await;
    for _ in 0..20 {
        other.page().await;
        let id = publish(&hub, 0);
        streams[0].until(&format!("id: {id}\n\n")).await;
    }
    assert!(!seventh.is_finished() && hub.stats().clients == 6);
    // A complete response makes room. A stream that the client resets does not.
    hub.finish(Audience::all(), Goodbye::from_static("done")).unwrap();
    within("the seventh stream", seventh).await.unwrap();
}

/// Apache needs a thread for each stream.
#[tokio::test]
#[ignore = "needs apache2"]
async fn streams_occupy_threads_of_apache() {
    let hub = hub().build().unwrap();
    let server = Server::start(Adapter::Axum, &hub).await;
    let few = |text: String| {
        let few = "ServerLimit 1\nThreadLimit 4\nThreadsPerChild 4\nMaxRequestWorkers 4\n";
        replaced(&text, "<VirtualHost", &format!("{few}<VirtualHost"))
    };
    let proxy = Arc::new(Proxy::with(Kind::Apache, server.address, few).await);
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut client = proxy.connect(Version::HTTP_11).await;
        open.push((client.events(None).await, client));
    }
    let behind = Arc::clone(&proxy);
    let fifth = tokio::spawn(async move {
        let mut client = behind.connect(Version::HTTP_11).await;
        (client.events(None).await, client)
    });
    for _ in 0..20 {
        let id = publish(&hub, 0);
        for (stream, _) in &mut open {
            stream.until(&format!("id: {id}\n\n")).await;
        }
    }
    assert!(!fifth.is_finished() && hub.stats().clients == 4);
    drop(open.pop());
    // Apache notices a departure when an event is sent.
    let publishing = async {
        while !fifth.is_finished() {
            publish(&hub, 0);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within("a free thread", publishing).await;
    fifth.await.unwrap();
}

/// With heartbeats: a proxy may notice a client that has gone only when the proxy writes.
async fn departure_reaches_the_hub(kind: Kind) {
    let hub = hub().heartbeat(Heartbeat::default().every(HEARTBEAT)).build().unwrap();
    let server = Server::start(Adapter::Axum, &hub).await;
    let proxy = Proxy::start(kind, server.address).await;
    for version in PROTOCOLS {
        let mut client = proxy.connect(version).await;
        let stream = client.events(None).await;
        assert_eq!(hub.stats().clients, 1, "{version:?}");
        drop((stream, client));
        let left = Instant::now();
        eventually("the hub notices the departure", || hub.stats().clients == 0).await;
        println!("{kind:?}, {version:?}: noticed after {:?}", left.elapsed());
    }
}

async fn stream_ends_with_its_last_frame(kind: Kind) {
    let hub = hub().build().unwrap();
    let server = Server::start(Adapter::Axum, &hub).await;
    let proxy = Proxy::start(kind, server.address).await;
    for version in PROTOCOLS {
        let mut client = proxy.connect(version).await;
        let mut stream = client.events(None).await;
        hub.finish(Audience::all(), Goodbye::from_static("done")).unwrap();
        let rest = within("the end", stream.rest()).await.expect("the response is complete");
        let end = "data: {\"reason\":\"done\",\"final\":true}\n\n";
        assert!(rest.contains("event: hub:end\n") && rest.ends_with(end), "{version:?}: {rest}");
    }
}

/// Over HTTP/1.1, browsers open six connections for all tabs of an origin.
///
/// Apache begins with six requests of an HTTP/2 connection at a time, and raises the limit as
/// requests complete, at most once in 100 ms. So the client loads pages first, as a browser does.
async fn seven_streams_share_a_connection(kind: Kind) {
    let hub = hub().build().unwrap();
    let server = Server::start(Adapter::Axum, &hub).await;
    let proxy = Proxy::start(kind, server.address).await;
    let mut client = proxy.connect(Version::HTTP_2).await;
    let connected = Instant::now();
    while connected.elapsed() < Duration::from_millis(300) {
        client.page().await;
    }
    let mut streams = Vec::new();
    for _ in 0..7 {
        streams.push(client.events(None).await);
    }
    let id = publish(&hub, 0);
    for stream in &mut streams {
        stream.until(&format!("id: {id}\n\n")).await;
    }
    assert_eq!(hub.stats().clients, 7);
}

pub(crate) fn publish(hub: &Hub, data: impl ToString) -> EventId {
    hub.publish_confirmed(Audience::all(), Event::new("n").data(data.to_string()))
        .unwrap()
        .id()
        .unwrap()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Nginx,
    Caddy,
    Haproxy,
    Apache,
}

/// The timeout of an impatient proxy, in place of the 60 seconds of the guide.
const IMPATIENCE: Duration = Duration::from_secs(1);

impl Kind {
    /// Caddy cuts an idle stream only if a timeout is set.
    fn has_idle_timeout(self) -> bool {
        self != Self::Caddy
    }

    /// Returns the configuration of the guide.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Nginx => include_str!("../../src/guide/proxies/nginx.conf"),
            Self::Caddy => include_str!("../../src/guide/proxies/Caddyfile"),
            Self::Haproxy => include_str!("../../src/guide/proxies/haproxy.cfg"),
            Self::Apache => include_str!("../../src/guide/proxies/apache.conf"),
        }
    }

    /// Replaces the addresses and the files.
    fn placed(self, place: &Place, server: SocketAddr) -> String {
        let (port, file) = (place.address.port(), |name| place.file(name));
        let mut text = replaced(self.text(), "127.0.0.1:3000", &server.to_string());
        text = replaced(&text, "/etc/ssl/shop.pem", &file("shop.pem"));
        if self != Self::Haproxy {
            text = replaced(&text, "/etc/ssl/shop.key", &file("shop.key"));
        }
        match self {
            Self::Nginx => replaced(&text, "listen 443", &format!("listen 127.0.0.1:{port}")),
            Self::Caddy => replaced(&text, "shop.example", &format!("https://shop.example:{port}")),
            Self::Haproxy => replaced(&text, "bind :443", &format!("bind 127.0.0.1:{port}")),
            Self::Apache => replaced(&text, "*:443", &place.address.to_string()),
        }
    }

    /// Shortens the timeouts to [`IMPATIENCE`].
    fn impatient(self, text: String) -> String {
        match self {
            Self::Nginx | Self::Haproxy => replaced(&text, "60s", "1s"),
            Self::Apache => replaced(&text, "ProxyTimeout 60", "ProxyTimeout 1"),
            Self::Caddy => text,
        }
    }

    /// The settings around the text of the guide: folders, and a process that can be killed.
    fn around(self, place: &Place, text: &str) -> String {
        match self {
            Self::Nginx => format!(
                "daemon off; master_process off; pid nginx.pid; error_log stderr; events {{}}\n\
                 http {{ access_log off;\n{text}}}\n"
            ),
            Self::Caddy => format!(
                "{{\nadmin off\nauto_https disable_redirects\n\
                 default_bind 127.0.0.1\n}}\n{text}"
            ),
            Self::Haproxy => text.to_owned(),
            Self::Apache => {
                const MODULES: &[&str] = &[
                    "authz_core",
                    "deflate",
                    "filter",
                    "http2",
                    "mpm_event",
                    "proxy",
                    "proxy_http",
                    "socache_shmcb",
                    "ssl",
                ];
                let load = |name| {
                    format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n")
                };
                let modules: String = MODULES.iter().map(load).collect();
                let folder = place.file("");
                format!(
                    "ServerRoot {folder}\nServerName shop.example\nDefaultRuntimeDir {folder}\n\
                     PidFile apache.pid\nErrorLog /dev/stderr\nUser www-data\nGroup www-data\n\
                     Listen {}\n{modules}{text}",
                    place.address
                )
            }
        }
    }

    fn command(self, place: &Place) -> Command {
        let (program, arguments): (_, &[&str]) = match self {
            Self::Nginx => ("nginx", &["-p", &place.file(""), "-c", &place.file("config")]),
            Self::Caddy => {
                ("caddy", &["run", "--adapter", "caddyfile", "--config", &place.file("config")])
            }
            Self::Haproxy => ("haproxy", &["-db", "-f", &place.file("config")]),
            Self::Apache => ("apache2", &["-X", "-f", &place.file("config")]),
        };
        let mut command = Command::new(program);
        // Caddy keeps files of its own in these folders.
        let folders = ["HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"];
        command.args(arguments).envs(folders.map(|name| (name, place.file(""))));
        command
    }
}

/// Replaces every `old`, which must be there.
pub(crate) fn replaced(text: &str, old: &str, new: &str) -> String {
    assert!(text.contains(old), "the configuration of the guide has no `{old}`:\n{text}");
    text.replace(old, new)
}

/// The folder of a proxy, with a certificate, and its address.
pub(crate) struct Place {
    pub(crate) address: SocketAddr,
    pub(crate) certificate: CertificateDer<'static>,
    folder: TempDir,
    _port: Port,
}

impl Place {
    fn new() -> Self {
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["shop.example".to_owned()]).unwrap();
        let (folder, port) = (TempDir::new().unwrap(), Port::take());
        let key = signing_key.serialize_pem();
        // HAProxy takes both from one file, and the others skip the key there.
        fs::write(folder.path().join("shop.pem"), cert.pem() + &key).unwrap();
        fs::write(folder.path().join("shop.key"), key).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.number()));
        Self { address, certificate: cert.der().clone(), folder, _port: port }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).into_os_string().into_string().unwrap()
    }
}

pub(crate) struct Proxy {
    pub(crate) place: Place,
    _process: Child,
}

impl Proxy {
    /// Starts a proxy with the configuration of the guide.
    pub(crate) async fn start(kind: Kind, server: SocketAddr) -> Self {
        Self::with(kind, server, |text| text).await
    }

    /// Starts a proxy that cuts a stream after [`IMPATIENCE`] without a byte.
    async fn impatient(kind: Kind, server: SocketAddr) -> Self {
        Self::with(kind, server, |text| kind.impatient(text)).await
    }

    /// Starts a proxy with the configuration that `change` returns.
    pub(crate) async fn with(
        kind: Kind,
        server: SocketAddr,
        change: impl Fn(String) -> String,
    ) -> Self {
        const ATTEMPTS: usize = 10;
        for _ in 0..ATTEMPTS {
            let place = Place::new();
            let text = change(kind.around(&place, &kind.placed(&place, server)));
            fs::write(place.file("config"), text).unwrap();
            if let Some(process) = listening(kind.command(&place), place.address).await {
                return Self { place, _process: process };
            }
        }
        panic!("{kind:?} ends at {ATTEMPTS} different ports");
    }

    async fn connect(&self, version: Version) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(self.place.certificate.clone()).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots);
        let mut config = config.with_no_client_auth();
        let protocol: &[u8] = if version == Version::HTTP_2 { b"h2" } else { b"http/1.1" };
        config.alpn_protocols = vec![protocol.into()];
        let name = "shop.example".try_into().unwrap();
        let connected = async {
            let socket = TcpStream::connect(self.place.address).await.unwrap();
            TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap()
        };
        let socket = within("the handshake", connected).await;
        assert_eq!(socket.get_ref().1.alpn_protocol(), Some(protocol));
        let socket = TokioIo::new(socket);
        let (sender, connection) = if version == Version::HTTP_2 {
            let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), socket);
            let (sender, connection) = handshake.await.unwrap();
            (Sender::Http2(sender), tokio::spawn(async { drop(connection.await) }))
        } else {
            let (sender, connection) = hyper::client::conn::http1::handshake(socket).await.unwrap();
            (Sender::Http1(sender), tokio::spawn(async { drop(connection.await) }))
        };
        Client { sender, version, connection: connection.abort_handle() }
    }
}

/// Starts a program, and waits until the program listens. Returns `None` if the program has ended:
/// another program has the port.
pub(crate) async fn listening(mut command: Command, address: SocketAddr) -> Option<Child> {
    let mut process = command.kill_on_drop(true).spawn().unwrap_or_else(|error| {
        panic!("cannot start {:?}, install it: {error}", command.as_std().get_program())
    });
    let listens = within("the program listens", async {
        loop {
            let is_open = TcpStream::connect(address).await.is_ok();
            // Asked after the connect: another program may have answered.
            if process.try_wait().unwrap().is_some() {
                return false;
            }
            if is_open {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    listens.then_some(process)
}

enum Sender {
    Http1(hyper::client::conn::http1::SendRequest<Empty<Bytes>>),
    Http2(hyper::client::conn::http2::SendRequest<Empty<Bytes>>),
}

/// A connection of a browser. Closes the connection on drop.
struct Client {
    sender: Sender,
    version: Version,
    connection: AbortHandle,
}

impl Client {
    fn request(&self, path: &str) -> Builder {
        match self.sender {
            Sender::Http1(_) => Request::get(path).header("host", "shop.example"),
            Sender::Http2(_) => Request::get(format!("https://shop.example{path}")),
        }
    }

    async fn send(&mut self, request: Builder) -> Response<Incoming> {
        let request = request.body(Empty::new()).unwrap();
        let sent = async {
            match &mut self.sender {
                Sender::Http1(sender) => sender.send_request(request).await,
                Sender::Http2(sender) => sender.send_request(request).await,
            }
        };
        let response = within("the head", sent).await.unwrap();
        assert_eq!((response.status().as_u16(), response.version()), (200, self.version));
        response
    }

    async fn page(&mut self) {
        let response = self.send(self.request("/")).await;
        let page = within("the page", response.into_body().collect()).await.unwrap();
        assert_eq!(page.to_bytes(), PAGE);
    }

    /// Opens a stream, as a browser that accepts compressed responses.
    async fn events(&mut self, last: Option<EventId>) -> Stream {
        let mut request = self
            .request("/events")
            .header("accept", "text/event-stream")
            .header("accept-encoding", "gzip, deflate, br, zstd");
        if let Some(last) = last {
            request = request.header("last-event-id", last.to_string());
        }
        let response = self.send(request).await;
        let headers = response.headers();
        assert_eq!(headers["content-type"], "text/event-stream");
        assert!(!headers.contains_key("content-encoding"), "compressed: {headers:?}");
        let mut stream = Stream { body: response.into_body(), unread: String::new() };
        let open = stream.until("\n\n").await;
        assert!(open.starts_with("event: hub:open\n"), "{open}");
        stream.unread.insert_str(0, &open);
        stream
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

struct Stream {
    body: Incoming,
    unread: String,
}

impl Stream {
    /// Reads more. Returns `false` at the end.
    async fn more(&mut self) -> Result<bool, hyper::Error> {
        let Some(frame) = self.body.frame().await else { return Ok(false) };
        if let Ok(data) = frame?.into_data() {
            self.unread += str::from_utf8(&data).expect("the events are ASCII");
        }
        Ok(true)
    }

    /// Returns the text up to this part, and the part itself.
    async fn until(&mut self, sought: &str) -> String {
        loop {
            if let Some(at) = self.unread.find(sought) {
                return self.unread.drain(..at + sought.len()).collect();
            }
            let more = within("more of the stream", self.more()).await.unwrap();
            assert!(more, "the stream ended before {sought:?}: {:?}", self.unread);
        }
    }

    /// Returns the rest of a stream that ends, or the error of a stream that is cut.
    async fn rest(&mut self) -> Result<String, hyper::Error> {
        while self.more().await? {}
        Ok(std::mem::take(&mut self.unread))
    }
}
