//! Troubleshooting: from a symptom to its cause.
//!
//! Start with the doctor. It asks for the stream as a browser does, through every proxy in between,
//! and names each fault with the line to change:
//!
//! ```text
//! cargo run --example doctor -- https://shop.example/events
//! ```
//!
//! ```text
//! connection     ok           HTTP/2.0, the response after 24 ms
//! status         ok           200 OK
//! content type   ok           text/event-stream
//! compression    ok           none
//! first frame    ok           hub:open after 24 ms
//! timeouts       FAULT        cut after 10 s of silence; the heartbeat comes after 15 s, so allow at least 45 s
//!                             an idle timeout cuts the stream before a heartbeat comes
//!                             nginx    proxy_read_timeout 60s;
//!                             service  or a shorter period: `Heartbeat::default().every(...)`
//! second stream  ok           opens beside the first
//! resume         ok           the stream continues at the position of the first
//! ...
//! ```
//!
//! | option | for |
//! |---|---|
//! | `--header 'cookie: ...'` | a stream that needs a proof: copy the header from the network panel |
//! | `--origin https://app.example` | pages of another origin: the CORS headers and the preflight |
//! | `--for 300s` | timeouts that are longer than two heartbeats |
//! | `--connect 10.0.0.7:443` | another proxy than that of the host name |
//! | `--ca FILE` | certificates of your own issuer |
//!
//! The exit status is 0 without a fault, 1 with a fault, and 2 if there is nothing to examine. If
//! the doctor finds nothing, the cause is in the page or in the service: the tables below. A client
//! of the doctor counts as an open stream for a moment, also in presence.
//!
//! To look at the bytes themselves:
//!
//! ```text
//! curl --no-buffer --include http://127.0.0.1:3000/events
//! ```
//!
//! `event: hub:open` must appear at once, and a line with `:` after the heartbeat's period of
//! silence.
//!
//! # Events come late, or in bursts
//!
//! | sign | cause | remedy |
//! |---|---|---|
//! | nothing for long, then many events | the proxy buffers, or a layer collects the body | see [proxies](super::proxies); does the response still have `x-accel-buffering: no`? |
//! | the response has `content-encoding` | compression | leave out `text/event-stream` in the proxy, or the layer |
//! | each event about 40 ms late | Nagle's algorithm | set `TCP_NODELAY`: a [watchdog](mod@crate::watchdog) does this |
//! | delays grow with the clients | the process lacks processor time | watch `sse_hub_delay_seconds`, and look for work that blocks the runtime |
//! | only over several instances | Redis is slow or away | [`Stats::degraded`](crate::Stats::degraded), `backplane unreachable` in the log |
//!
//! # Streams end, or never open
//!
//! | sign | cause | remedy |
//! |---|---|---|
//! | ends after a fixed time of silence, often 60 seconds | an idle timeout that is shorter than the heartbeat, or no heartbeat | [`Heartbeat`](crate::Heartbeat), or the timeout of the proxy |
//! | `stream polled outside of a tokio runtime: no heartbeats` in the log | `TokioTimer` on another runtime | a [timer](super::mounting#other-runtimes) of that runtime |
//! | ends after a fixed time, also if busy | a total timeout of a proxy, a platform or a layer | raise it, or set a shorter [`lifetime`](crate::HubBuilder::lifetime), which costs nothing |
//! | the seventh tab hangs | six connections of HTTP/1.1 | [HTTP/2, or sharing](super::browser#six-connections) |
//! | `EventSource` stays closed | a status other than 200, or a wrong `content-type` | look into the network panel; `401`: [authentication](super::authentication) |
//! | a page of another origin gets nothing | a CORS header is missing | the [table](super::authentication#other-origins) |
//! | `hub:refused` again and again | a [limit](super::limits#refusals), or old connections that still count | the reason in its data; the client id of the page |
//! | two tabs reconnect in turns | `displace_oldest` with native `EventSource`, or two tabs with one client id | keep the client id for each tab, never in a cookie |
//! | connections are not accepted | open files are used up | `connections are not accepted` in the log; raise the limit |
//!
//! # Events are missing, or come twice
//!
//! | sign | cause | remedy |
//! |---|---|---|
//! | a client gets `hub:gap` after each reconnect | the log is too small, or the process restarted | [`Retain`](crate::Retain), or [several instances](super::instances) |
//! | all clients get `hub:gap` with `reset` | Redis lost the order | its persistence; `maxmemory-policy noeviction` |
//! | `resumed` is always `false` | the handler does not pass the `Last-Event-ID`, or the proxy drops it | extract `LastEventId`; try `curl --header "last-event-id: ..."`, directly and through the proxy |
//! | an event for one tab is lost after a reconnect | the tab has a new client id | [events for one tab](super::resuming#events-for-one-tab) |
//! | a topic's events stop after a reconnect | the page joined the topic, and returns without its client id | send the id, or let the handler add the [topics](super::targeting#topics-of-open-streams) |
//! | the page shows a change twice | the change is in the snapshot, too | changes carry new values: [snapshots](super::snapshots) |
//! | the page never sees a type | `addEventListener` has another name than the event | types are compared exactly; without a type: `message` |
//!
//! # Resources grow
//!
//! | sign | cause | remedy |
//! |---|---|---|
//! | memory grows up to a bound | the log fills | the equation of [`Retain`](crate::Retain) |
//! | memory grows with the connections | buffers of the server | [direct serving](mod@crate::serve) |
//! | `sse_hub_clients` is higher than the open pages | dead connections, or a proxy that hides them | a [watchdog](mod@crate::watchdog), a [lifetime](super::proxies#a-proxy-can-hide-a-dead-browser) |
//! | the process does not end | open streams | [drain](super::shutdown) before the server's graceful shutdown |
//!
//! # Ask with facts
//!
//! `{:?}` of [`Hub::stats`](crate::Hub::stats), the log at `DEBUG` for one client, and the bytes of
//! `curl` answer most questions. Remove client ids before you publish them.
