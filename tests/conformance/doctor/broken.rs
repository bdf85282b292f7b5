//! Sound configurations of proxies, and configurations with a fault that the doctor must name, with
//! the line to change.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{HeaderMap, HeaderValue};
use sse_hub::{Heartbeat, Hub, Limits, Subscriber};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::rustls::RootCertStore;

use super::checks::advice::{Cause, Place};
use super::checks::connection::{PROTOCOLS, Target};
use super::checks::judge::{Finding, Verdict, judge};
use super::checks::probe::examine;
use super::checks::report::{faults, report};
use crate::nginx::Nginx;
use crate::proxies::{Kind, Proxy, publish, replaced};
use crate::servers::{Adapter, Mount, ORIGIN, Server};
use crate::{hub, within};

/// Far below the timeouts of the guide.
const HEARTBEAT: Duration = Duration::from_millis(250);

/// A hub and its service, with an event that makes the first item of a replay long.
struct Service {
    server: Server,
    _hub: Hub,
}

impl Service {
    async fn start(heartbeat: Duration) -> Self {
        let hub = hub().heartbeat(Heartbeat::default().every(heartbeat)).build().unwrap();
        publish(&hub, "retained ".repeat(1_000));
        let server = Mount { cors: true, ..Mount::new(Adapter::Axum) }.start(&hub).await;
        Self { server, _hub: hub }
    }
}

/// Returns the target of a doctor that asks as a page of the allowed origin.
fn target(url: String) -> Target {
    Target {
        url: url.parse().unwrap(),
        connect: None,
        origin: Some(HeaderValue::from_static(ORIGIN)),
        headers: HeaderMap::new(),
        protocols: PROTOCOLS,
        roots: Arc::new(RootCertStore::empty()),
        window: None,
    }
}

fn target_behind(proxy: &Proxy) -> Target {
    let address = proxy.place.address;
    let mut roots = RootCertStore::empty();
    roots.add(proxy.place.certificate.clone()).unwrap();
    Target {
        connect: Some(address.to_string()),
        roots: Arc::new(roots),
        ..target(format!("https://shop.example:{}/events", address.port()))
    }
}

/// Returns the proxy that names itself, and the findings.
async fn examined(target: &Target) -> (Option<Place>, Vec<Finding>) {
    let facts = within("the examination", examine(target)).await;
    let findings = judge(&facts);
    let proxy = facts.first.ok().and_then(|head| Place::of_proxy(&head.headers));
    println!("{}", report(&findings, proxy));
    (proxy, findings)
}

/// The services of the tests do not allow `cache-control` in a preflight.
const NO_CACHE_CONTROL: Cause = Cause::CorsPreflight;

/// Asserts that all checks were made, and that these advices are the only findings.
fn is_sound(findings: &[Finding], advices: &[Cause]) {
    let mut given = Vec::new();
    for finding in findings {
        match finding.verdict {
            Verdict::Ok => {}
            Verdict::Advice(cause) => given.push(cause),
            Verdict::Fault(_) | Verdict::NotChecked => panic!("{finding:?}"),
        }
    }
    assert_eq!((findings.len(), &given[..]), (13, advices));
}

async fn guide_is_sound(kind: Kind) {
    let service = Service::start(HEARTBEAT).await;
    let proxy = Proxy::start(kind, service.server.address).await;
    let (_, findings) = examined(&target_behind(&proxy)).await;
    is_sound(&findings, &[NO_CACHE_CONTROL]);
}

#[tokio::test]
#[ignore = "needs nginx"]
async fn nginx_of_the_guide_is_sound() {
    guide_is_sound(Kind::Nginx).await;
}

#[tokio::test]
#[ignore = "needs caddy"]
async fn caddy_of_the_guide_is_sound() {
    guide_is_sound(Kind::Caddy).await;
}

#[tokio::test]
#[ignore = "needs haproxy"]
async fn haproxy_of_the_guide_is_sound() {
    guide_is_sound(Kind::Haproxy).await;
}

#[tokio::test]
#[ignore = "needs apache2"]
async fn apache_of_the_guide_is_sound() {
    guide_is_sound(Kind::Apache).await;
}

#[tokio::test]
#[ignore = "needs nginx"]
async fn nginx_without_settings_is_sound() {
    let service = Service::start(HEARTBEAT).await;
    let nginx = Nginx::in_front_of(service.server.address).await;
    let (_, findings) = examined(&target(format!("http://{}/events", nginx.address))).await;
    is_sound(&findings, &[Cause::SixConnections, NO_CACHE_CONTROL]);
}

#[tokio::test]
async fn services_without_a_proxy_are_sound() {
    for adapter in Adapter::ALL {
        let hub = hub().heartbeat(Heartbeat::default().every(HEARTBEAT)).build().unwrap();
        publish(&hub, "retained ".repeat(1_000));
        let server = Mount { cors: true, ..Mount::new(adapter) }.start(&hub).await;
        let (_, findings) = examined(&target(format!("http://{}/events", server.address))).await;
        is_sound(&findings, &[Cause::SixConnections, NO_CACHE_CONTROL]);
    }
}

/// Following the doctor's line for the fault of `nginx_that_buffers`.
#[tokio::test]
#[ignore = "needs nginx"]
async fn proxy_buffering_off_mends_nginx() {
    let service = Service::start(HEARTBEAT).await;
    let lines = "proxy_ignore_headers X-Accel-Buffering;\nproxy_buffering off;";
    let proxy = Proxy::with(Kind::Nginx, service.server.address, add(lines, "proxy_pass")).await;
    let (_, findings) = examined(&target_behind(&proxy)).await;
    is_sound(&findings, &[NO_CACHE_CONTROL]);
}

/// A configuration of the guide with a fault.
struct Broken<C> {
    kind: Kind,
    change: C,
    heartbeat: Duration,
    window: Option<Duration>,
}

impl<C: Fn(String) -> String> Broken<C> {
    fn new(kind: Kind, change: C) -> Self {
        Self { kind, change, heartbeat: HEARTBEAT, window: None }
    }

    /// Asserts that the doctor names this fault and no other, and that the line for the proxy
    /// contains `named`.
    async fn is(self, cause: Cause, named: &str) {
        let (recognised, findings) = self.examined().await;
        assert_eq!(faults(&findings), [cause]);
        self.is_named(cause, named, recognised);
    }

    /// Asserts that the doctor finds no fault, and gives this advice.
    async fn advises(self, cause: Cause, named: &str) {
        let (recognised, findings) = self.examined().await;
        assert_eq!(faults(&findings), []);
        let is_given = |finding: &Finding| finding.verdict == Verdict::Advice(cause);
        assert_eq!(findings.iter().filter(|finding| is_given(finding)).count(), 1);
        self.is_named(cause, named, recognised);
    }

    async fn examined(&self) -> (Option<Place>, Vec<Finding>) {
        let service = Service::start(self.heartbeat).await;
        let proxy = Proxy::with(self.kind, service.server.address, &self.change).await;
        examined(&Target { window: self.window, ..target_behind(&proxy) }).await
    }

    fn is_named(&self, cause: Cause, named: &str, recognised: Option<Place>) {
        let place = self.kind.place();
        assert!(recognised.is_none_or(|recognised| recognised == place), "{recognised:?}");
        let line = cause.advice().lines(recognised).find(|&(at, _)| at == place);
        let (_, line) = line.expect("a line for the proxy");
        assert!(line.contains(named), "{line}");
    }
}

/// Replaces a text of the guide.
fn swap(old: &str, new: &str) -> impl Fn(String) -> String {
    move |text| replaced(&text, old, new)
}

/// Adds a line before a text of the guide.
fn add(line: &str, before: &str) -> impl Fn(String) -> String {
    move |text| replaced(&text, before, &format!("{line}\n{before}"))
}

/// Adds a line to the block of `reverse_proxy`, the last of the guide's Caddyfile.
fn in_reverse_proxy(line: &str) -> impl Fn(String) -> String {
    move |text| {
        let start = text.trim_end().strip_suffix("\n}").expect("the block of the site");
        assert!(start.lines().last().is_some_and(|last| last.contains("reverse_proxy")), "{text}");
        format!("{start} {{\n{line}\n}}\n}}\n")
    }
}

fn with_module(name: &str, line: &str) -> impl Fn(String) -> String {
    let load = format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n{line}");
    move |text| add(&load, "<VirtualHost")(text)
}

impl Kind {
    fn place(self) -> Place {
        match self {
            Self::Nginx => Place::Nginx,
            Self::Caddy => Place::Caddy,
            Self::Haproxy => Place::Haproxy,
            Self::Apache => Place::Apache,
        }
    }
}

/// A test for each configuration: the change of the guide's text, the fault, and a part of the
/// doctor's line.
macro_rules! broken {
    ($(
        $name:ident, $needs:literal, $kind:ident, $change:expr,
        $is:ident $cause:ident, $named:literal;
    )*) => {
        $(
            #[tokio::test]
            #[ignore = $needs]
            async fn $name() {
                Broken::new(Kind::$kind, $change).$is(Cause::$cause, $named).await;
            }
        )*
    };
}

broken! {
    nginx_that_buffers, "needs nginx", Nginx,
        add("proxy_ignore_headers X-Accel-Buffering;", "proxy_pass"),
        is Buffering, "proxy_ignore_headers X-Accel-Buffering;";
    caddy_that_buffers, "needs caddy", Caddy,
        in_reverse_proxy("buffer_responses"),
        is Buffering, "buffer_responses";
    haproxy_that_buffers, "needs haproxy", Haproxy,
        add("http-response wait-for-body time 1h at-least 10000", "server one"),
        is Buffering, "http-response wait-for-body";
    apache_that_buffers, "needs apache2", Apache,
        with_module("ext_filter", "ExtFilterDefine f mode=output cmd=/bin/cat\nSetOutputFilter f"),
        is Buffering, "ExtFilterDefine";

    nginx_that_compresses, "needs nginx", Nginx,
        swap("application/json", "text/event-stream"),
        is Compression, "`text/event-stream` from `gzip_types`";
    caddy_that_compresses, "needs caddy", Caddy,
        swap("application/json", "text/event-stream"),
        is Compression, "match { header Content-Type";
    apache_that_compresses, "needs apache2", Apache,
        swap("application/json", "text/event-stream"),
        is Compression, "AddOutputFilterByType DEFLATE";

    nginx_that_drops_the_header, "needs nginx", Nginx,
        add("proxy_set_header last-event-id \"\";", "proxy_pass"),
        is LastEventId, "proxy_set_header last-event-id \"\";";
    caddy_that_drops_the_header, "needs caddy", Caddy,
        in_reverse_proxy("header_up -Last-Event-ID"),
        is LastEventId, "header_up -Last-Event-ID";
    haproxy_that_drops_the_header, "needs haproxy", Haproxy,
        add("http-request del-header last-event-id", "server one"),
        is LastEventId, "http-request del-header last-event-id";
    apache_that_drops_the_header, "needs apache2", Apache,
        with_module("headers", "RequestHeader unset Last-Event-ID"),
        is LastEventId, "RequestHeader unset Last-Event-ID";

    nginx_that_hides_the_type, "needs nginx", Nginx,
        add("proxy_hide_header content-type;", "proxy_pass"),
        is ContentType, "proxy_hide_header content-type;";
    caddy_that_changes_the_type, "needs caddy", Caddy,
        in_reverse_proxy("header_down Content-Type text/plain"),
        is ContentType, "header_down Content-Type";
    haproxy_that_changes_the_type, "needs haproxy", Haproxy,
        add("http-response set-header content-type text/plain", "server one"),
        is ContentType, "http-response set-header content-type";
    apache_that_changes_the_type, "needs apache2", Apache,
        with_module("headers", "Header set Content-Type text/plain"),
        is ContentType, "Header set Content-Type";
    nginx_with_a_login_page, "needs nginx", Nginx,
        add(
            "location = /events { return 302 /login; }
            location = /login { default_type text/html; return 200 '<title>Sign in</title>'; }",
            "location / {",
        ),
        is Html, "proxy_pass http://shop;";
    nginx_without_the_service, "needs nginx", Nginx,
        // Nothing listens at this address.
        swap("server 127.0.0.1:", "server 127.0.0.2:"),
        is Upstream, "server 127.0.0.1:3000;";

    nginx_that_adds_an_origin, "needs nginx", Nginx,
        add("add_header access-control-allow-origin *;", "proxy_pass"),
        is CorsTwice, "add_header access-control-allow-origin";
    caddy_that_adds_an_origin, "needs caddy", Caddy,
        in_reverse_proxy("header_down +Access-Control-Allow-Origin *"),
        is CorsTwice, "header_down +Access-Control-Allow-Origin";
    haproxy_that_adds_an_origin, "needs haproxy", Haproxy,
        add("http-response add-header access-control-allow-origin *", "server one"),
        is CorsTwice, "http-response add-header access-control-allow-origin";
    apache_that_adds_an_origin, "needs apache2", Apache,
        with_module("headers", "Header add Access-Control-Allow-Origin *"),
        is CorsTwice, "Header add Access-Control-Allow-Origin";
    nginx_that_removes_the_origin, "needs nginx", Nginx,
        add("proxy_hide_header access-control-allow-origin;", "proxy_pass"),
        is CorsMissing, "proxy_hide_header access-control-allow-origin;";
    caddy_that_removes_the_origin, "needs caddy", Caddy,
        in_reverse_proxy("header_down -Access-Control-Allow-Origin"),
        is CorsMissing, "header_down -Access-Control-Allow-Origin";
    apache_that_removes_the_origin, "needs apache2", Apache,
        with_module("headers", "Header unset Access-Control-Allow-Origin"),
        is CorsMissing, "Header unset Access-Control-Allow-Origin";
    haproxy_that_removes_the_origin, "needs haproxy", Haproxy,
        add("http-response del-header access-control-allow-origin", "server one"),
        is CorsMissing, "http-response del-header access-control-allow-origin";

    apache_with_one_thread, "needs apache2", Apache,
        add(
            "ServerLimit 1\nThreadLimit 1\nThreadsPerChild 1\nMaxRequestWorkers 1",
            "<VirtualHost",
        ),
        is Waiting, "MaxRequestWorkers";
    haproxy_with_one_connection, "needs haproxy", Haproxy,
        add("default-server maxconn 1\ntimeout queue 60s", "server one"),
        is Waiting, "maxconn";
    haproxy_with_a_short_queue, "needs haproxy", Haproxy,
        add("default-server maxconn 1\ntimeout queue 1s", "server one"),
        is Waiting, "maxconn";

    nginx_that_hides_cache_control, "needs nginx", Nginx,
        add("proxy_hide_header cache-control;", "proxy_pass"),
        advises Cacheable, "proxy_hide_header cache-control;";
    caddy_that_changes_cache_control, "needs caddy", Caddy,
        in_reverse_proxy("header_down Cache-Control max-age=60"),
        advises Cacheable, "header_down Cache-Control";
    haproxy_that_changes_cache_control, "needs haproxy", Haproxy,
        add("http-response set-header cache-control max-age=60", "server one"),
        advises Cacheable, "http-response set-header cache-control";
    apache_that_changes_cache_control, "needs apache2", Apache,
        with_module("headers", "Header set Cache-Control max-age=60"),
        advises Cacheable, "Header set Cache-Control";

    nginx_without_http_2, "needs nginx", Nginx,
        swap(" ssl http2;", " ssl;"),
        advises SixConnections, "listen 443 ssl http2;";
    haproxy_without_http_2, "needs haproxy", Haproxy,
        swap("alpn h2,http/1.1", "alpn http/1.1"),
        advises SixConnections, "alpn h2,http/1.1";
    apache_without_http_2, "needs apache2", Apache,
        swap("Protocols h2 http/1.1", "Protocols http/1.1"),
        advises SixConnections, "Protocols h2 http/1.1";
    caddy_without_http_2, "needs caddy", Caddy,
        add("servers {\nprotocols h1\n}", "admin off"),
        advises SixConnections, "protocols";
}

/// Longer than the timeouts of an impatient proxy.
const RARE: Duration = Duration::from_secs(3);

#[tokio::test]
#[ignore = "needs nginx"]
async fn nginx_with_a_short_idle_timeout() {
    let change = swap("proxy_read_timeout 60s", "proxy_read_timeout 1s");
    let broken = Broken { heartbeat: RARE, ..Broken::new(Kind::Nginx, change) };
    broken.is(Cause::IdleTimeout, "proxy_read_timeout").await;
}

#[tokio::test]
#[ignore = "needs haproxy"]
async fn haproxy_with_a_short_idle_timeout() {
    let change = swap("timeout server 60s", "timeout server 1s");
    let broken = Broken { heartbeat: RARE, ..Broken::new(Kind::Haproxy, change) };
    broken.is(Cause::IdleTimeout, "timeout server 60s").await;
}

#[tokio::test]
#[ignore = "needs apache2"]
async fn apache_with_a_short_idle_timeout() {
    let change = swap("ProxyTimeout 60", "ProxyTimeout 1");
    let broken = Broken { heartbeat: RARE, ..Broken::new(Kind::Apache, change) };
    broken.is(Cause::IdleTimeout, "ProxyTimeout 60").await;
}

#[tokio::test]
#[ignore = "needs caddy"]
async fn caddy_with_a_short_idle_timeout() {
    let change = in_reverse_proxy("transport http {\nread_timeout 1s\n}");
    let broken = Broken { heartbeat: RARE, ..Broken::new(Kind::Caddy, change) };
    broken.is(Cause::IdleTimeout, "`read_timeout` from `transport http`").await;
}

#[tokio::test]
#[ignore = "needs caddy"]
async fn caddy_with_a_total_timeout() {
    let change = add("servers {\ntimeouts {\nwrite 3s\n}\n}", "admin off");
    let broken =
        Broken { window: Some(Duration::from_secs(6)), ..Broken::new(Kind::Caddy, change) };
    broken.is(Cause::TotalTimeout, "`write` from `timeouts`").await;
}

/// nginx stores a stream that is complete, such as a refusal, if the configuration ignores the
/// headers of the service.
#[tokio::test]
#[ignore = "needs nginx"]
async fn nginx_that_caches() {
    let hub = hub().limits(Limits::default().clients(1)).build().unwrap();
    let _full = hub.subscribe(Subscriber::new()).unwrap();
    let server = Server::start(Adapter::Axum, &hub).await;
    let cache = "proxy_cache streams; proxy_cache_valid 200 1h; \
                 proxy_ignore_headers cache-control x-accel-buffering; \
                 add_header x-cache-status $upstream_cache_status;";
    let change = |text: String| {
        let text = add("proxy_cache_path cache keys_zone=streams:1m;", "upstream shop")(text);
        add(cache, "proxy_pass")(text)
    };
    let proxy = Proxy::with(Kind::Nginx, server.address, change).await;
    let target = Target { origin: None, ..target_behind(&proxy) };
    for expected in [&[Cause::Refused][..], &[Cause::Refused, Cause::Cached]] {
        let (_, findings) = examined(&target).await;
        assert_eq!(faults(&findings), expected);
    }
}

#[tokio::test]
#[ignore = "needs nginx"]
async fn certificate_of_an_unknown_issuer() {
    let service = Service::start(HEARTBEAT).await;
    let proxy = Proxy::start(Kind::Nginx, service.server.address).await;
    let target = Target { roots: Arc::new(RootCertStore::empty()), ..target_behind(&proxy) };
    let (_, findings) = examined(&target).await;
    assert_eq!(faults(&findings), [Cause::Tls]);
}

/// A redirect must not lead the user's cookie to another host.
#[tokio::test]
async fn cookie_stays_with_its_host() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        let mut heads = Vec::new();
        for location in ["127.0.0.1", "localhost", ""] {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 4096];
            let length = socket.read(&mut head).await.unwrap();
            heads.push(String::from_utf8_lossy(&head[..length]).into_owned());
            let answer = match location {
                "" => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
                host => format!(
                    "HTTP/1.1 302 Found\r\nlocation: http://{host}:{port}/\r\n\
                     content-length: 0\r\n\r\n"
                ),
            };
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
        heads
    });
    let mut target = target(format!("http://127.0.0.1:{port}/events"));
    target.headers.insert("cookie", HeaderValue::from_static("session=secret"));
    let (_, findings) = examined(&target).await;
    assert_eq!(faults(&findings), [Cause::Status]);
    let heads = within("three requests", served).await.unwrap();
    let has_cookie: Vec<_> = heads.iter().map(|head| head.contains("session=secret")).collect();
    assert_eq!(has_cookie, [true, true, false]);
}
