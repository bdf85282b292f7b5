//! Behind a proxy: a tested configuration for nginx, Caddy, HAProxy and Apache.
//!
//! Each configuration below ends TLS, speaks HTTP/2 to browsers, compresses pages and leaves
//! streams alone. `tests/conformance/proxies.rs` starts each proxy with exactly this text, apart
//! from the addresses and the files, in the version of Debian 12 (nginx 1.22, Caddy 2.6, HAProxy
//! 2.6, Apache 2.4), and checks over HTTP/1.1 and HTTP/2:
//!
//! - An event arrives at once, also if the client accepts compressed responses.
//! - `Last-Event-ID` reaches the service, and the stream resumes.
//! - Heartbeats keep an idle stream for longer than the timeout of the proxy. Without heartbeats,
//!   the proxy cuts the stream (Caddy has no such timeout by default).
//! - If the client leaves, the hub notices.
//! - A stream that the hub finishes arrives complete.
//! - Seven streams share an HTTP/2 connection. Browsers open only six connections to an origin over
//!   HTTP/1.1, for all tabs together.
//!
//! # The rules behind the configurations
//!
//! | concern | the service | the proxy |
//! |---|---|---|
//! | buffering | sends `x-accel-buffering: no` | nginx obeys the header; the others forward at once |
//! | compression | sends `cache-control: no-transform` | HAProxy obeys the header; in the others, leave `text/event-stream` out of the types |
//! | idle timeout | sends a [heartbeat](crate::Heartbeat) after 15 idle seconds | every idle timeout between the browser and the service must be at least three heartbeats |
//! | protocol | speaks HTTP/1.1, and HTTP/2 if your server does | HTTP/1.1 to the service: over HTTP/1.0 a stream has no marked end |
//! | lost clients | [`lifetime`](crate::HubBuilder::lifetime) ends every stream after a while | see [below](#a-proxy-can-hide-a-dead-browser) |
//!
//! # nginx
//!
//! ```text
#![doc = include_str!("proxies/nginx.conf")]
//! ```
//!
//! After a reload, the old workers of nginx serve the open streams until the streams end. A
//! [`lifetime`](crate::HubBuilder::lifetime), or `worker_shutdown_timeout` in nginx, bounds the
//! time of the old workers. From nginx 1.25.1 on, `http2 on;` replaces the word `http2` of
//! `listen`.
//!
//! # Caddy
//!
//! ```text
#![doc = include_str!("proxies/Caddyfile")]
//! ```
//!
//! Without a list, `encode` of Caddy 2.6 compresses every stream whose first item has 512 bytes:
//! streams that resume, but not those that a developer tries first.
//!
//! # HAProxy
//!
//! ```text
#![doc = include_str!("proxies/haproxy.cfg")]
//! ```
//!
//! `timeout tunnel` does not apply to streams. Over HTTP/1.1, HAProxy notices that a browser has
//! left when the next event or heartbeat is sent.
//!
//! # Apache
//!
//! ```text
#![doc = include_str!("proxies/apache.conf")]
//! ```
//!
//! - Each open stream occupies a thread of Apache, also under `mpm_event`. So `MaxRequestWorkers`
//!   bounds streams and all other requests together: raise the setting, or use another proxy for
//!   many streams.
//! - An HTTP/2 connection begins with six requests at a time; the seventh waits. Apache raises the
//!   limit as responses complete, so a page that loads its files first has room for more streams.
//! - Apache notices that a browser has left when the next event or heartbeat is sent.
//!
//! # Lines that break streams
//!
//! The example `doctor` finds these faults from outside, and names the line: see
//! [`troubleshooting`](super::troubleshooting). `tests/conformance/doctor` breaks the configurations
//! above in these ways, and checks the doctor's answer. Only the compression of HAProxy needs a
//! service without `no-transform`.
//!
//! | fault | nginx | Caddy | HAProxy | Apache |
//! |---|---|---|---|---|
//! | held back | remove `proxy_ignore_headers X-Accel-Buffering;`, or add `proxy_buffering off;` | remove `buffer_responses` from `reverse_proxy` | remove `http-response wait-for-body` | remove `SetOutputFilter` with a filter of `ExtFilterDefine` |
//! | compressed | remove `text/event-stream` from `gzip_types` | add to `encode`: `match { header Content-Type text/html* }`, with every type except text/event-stream | remove `text/event-stream` from `compression type` | remove `text/event-stream` from `AddOutputFilterByType DEFLATE` |
//! | cut while idle | `proxy_read_timeout 60s;` | remove `read_timeout` from `transport http` | `timeout server 60s` | `ProxyTimeout 60` |
//! | cut while busy | – | remove `write` from `timeouts` of the global `servers` | – | – |
//! | a second stream waits | – | – | raise `maxconn` of the `server` line | raise `MaxRequestWorkers` |
//! | answered by a cache | add `proxy_cache off;` to the location of streams | – | – | – |
//! | may be cached | remove `proxy_hide_header cache-control;` | remove `header_down Cache-Control` from `reverse_proxy` | remove `http-response set-header cache-control` | remove `Header set Cache-Control` |
//! | `Last-Event-ID` is lost | remove `proxy_set_header last-event-id "";` | remove `header_up -Last-Event-ID` from `reverse_proxy` | remove `http-request del-header last-event-id` | remove `RequestHeader unset Last-Event-ID` |
//! | wrong type | remove `proxy_hide_header content-type;` | remove `header_down Content-Type` from `reverse_proxy` | remove `http-response set-header content-type` | remove `Header set Content-Type` |
//! | no origin is allowed | remove `proxy_hide_header access-control-allow-origin;` | remove `header_down -Access-Control-Allow-Origin` from `reverse_proxy` | remove `http-response del-header access-control-allow-origin` | remove `Header unset Access-Control-Allow-Origin` |
//! | two origins are allowed | remove `add_header access-control-allow-origin` | remove `header_down +Access-Control-Allow-Origin` | remove `http-response add-header access-control-allow-origin` | remove `Header add Access-Control-Allow-Origin` |
//! | no HTTP/2 | `listen 443 ssl http2;` | remove `protocols` from the global `servers` | `bind :443 ssl crt /etc/ssl/shop.pem alpn h2,http/1.1` | `Protocols h2 http/1.1` |
//!
//! - nginx with `proxy_ignore_headers X-Accel-Buffering;` holds streams back over HTTP/1.1 with TLS,
//!   but not over HTTP/2. So try both protocols.
//! - In HAProxy, `timeout server` cuts an idle stream, and `timeout client` alone does not.
//!
//! # A proxy can hide a dead browser
//!
//! The hub sees the connection of the proxy, not that of the browser. If a browser vanishes without
//! a word (a laptop that sleeps, a phone without a signal), the proxy still acknowledges what the
//! service sends, until the proxy's own connection to the browser fails. In this time the client
//! counts as connected, takes a place of its user's [limit](crate::Limits::per_user), and is online
//! for [presence](crate::Presence).
//!
//! - Let the page send its client id, and give the id to
//!   [`Subscriber::client_id`](crate::Subscriber::client_id): a tab that returns then replaces its
//!   old connection. [The browser's side](super::browser) shows the page's part.
//! - Set a lifetime, which ends every stream. A browser that is there reconnects and loses nothing:
//!
//! ```
//! use std::time::Duration;
//! use sse_hub::{Heartbeat, Hub, ManualTimer};
//!
//! let hub = Hub::builder(ManualTimer::new())
//!     .heartbeat(Heartbeat::default().every(Duration::from_secs(15)))
//!     .lifetime(Duration::from_secs(30 * 60))
//!     .build()?;
//! # Ok::<(), sse_hub::ConfigError>(())
//! ```
//!
//! # Limits
//!
//! - A chain of proxies has the shortest timeout of its members. A content delivery network counts
//!   as a proxy: look for its idle timeout, and for a setting that buffers responses.
//! - The proxy's address is the peer of every connection. Read the client's address from
//!   `X-Forwarded-For` only if the proxy sets that header itself.
//! - If events arrive late or in bursts, see [`troubleshooting`](super::troubleshooting).
