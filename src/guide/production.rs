//! Production: observe a hub, and hear of trouble before your users do.
//!
//! [`Hub::record_metrics`](crate::Hub::record_metrics) (feature `metrics`) writes the hub's
//! counters to the recorder of the `metrics` facade, such as that of `metrics-exporter-prometheus`.
//! Call the method before each scrape, or at a fixed pace. Without the feature,
//! [`Hub::stats`](crate::Hub::stats) has the same numbers.
//!
#![cfg_attr(all(feature = "metrics", feature = "tokio"), doc = "```no_run")]
#![cfg_attr(not(all(feature = "metrics", feature = "tokio")), doc = "```ignore")]
//! use std::time::Duration;
//! use sse_hub::Hub;
//!
//! async fn record(hub: Hub) {
//!     let mut ticks = tokio::time::interval(Duration::from_secs(10));
//!     loop {
//!         ticks.tick().await;
//!         hub.record_metrics(&[("hub", "shop")]);
//!     }
//! }
//! ```
//!
//! # Metrics, and alerts on them
//!
//! | metric | meaning | alert |
//! |---|---|---|
//! | `sse_hub_clients` | open streams | falls by half within five minutes; or is at the [limit](super::limits) |
//! | `sse_hub_refused_total`, by `cause` | clients that were not let in | `full`, `user-full` or `session-full` rises; `name` and `topics` rise: a page is broken |
//! | `sse_hub_ended_total`, by `reason` | streams that ended | `stalled` or `lagged` is a large part of all; `displaced` rises quickly: tabs displace each other |
//! | `sse_hub_gaps_total` | losses that clients were told | rises outside of restarts: retain more, or send less |
//! | `sse_hub_lagged_total` | streams that left their window | rises together with the delay |
//! | `sse_hub_delay_seconds` | from publish to read, sampled | the 99th percentile is above a second |
//! | `sse_hub_published_total` | events published; with a backplane, events that were read | is zero although the service works |
//! | `sse_hub_delivered_total`, `sse_hub_bytes_total` | deliveries, and their bytes | |
//! | `sse_hub_retained_events`, `sse_hub_retained_bytes` | the log | bytes at the limit of [`Retain`](crate::Retain) with an age far below its limit: the log is too small |
//! | `sse_hub_runs`, `sse_hub_run_bytes` | open [runs](super::runs), and the bytes of all runs | runs rise for hours: producers hang; bytes at the limit of [`RunLimits`](crate::RunLimits) |
//! | `sse_hub_ended_runs_total`, by `state` | runs that ended | `failed`, `abandoned` or `lost` is a large part of all |
//! | `sse_hub_degraded` | 1: the backplane cannot be reached | 1 for a minute |
//! | `sse_hub_resets_total` | replaced orders: every client got a gap | any |
//! | `sse_hub_malformed_total` | entries that were skipped | any: a foreign program writes to the keys |
//! | `sse_hub_restored_total` | older events that were read back | rises all the time: retain more |
//!
//! The last four exist only with a backplane. The example `metrics` is a server with these metrics.
//! Beside it, in `examples/metrics`, are
//!
//! | file | for |
//! |---|---|
//! | `prometheus.yml` | Prometheus: scrapes the example, and evaluates the alerts |
//! | `alerts.yml` | the alerts of the table: compare the thresholds with a usual week of yours |
//! | `alerts_test.yml` | each alert fires on its trouble, and not on a usual day: `promtool test rules` |
//! | `dashboard.json` | a dashboard to import into Grafana: all metrics of the table |
//! | `dashboard.png` | the queries of the dashboard under load, drawn by Prometheus |
//!
//! No alert watches the bytes of the log and of runs: only your program knows their limits.
//!
//! Let the exporter write `sse_hub_delay_seconds` as a histogram, with powers of two of
//! microseconds as bounds, as the example does: the quantiles of a summary cannot be combined over
//! instances. Count also the connections that the watchdog cuts
//! ([`Watchdog::cuts`](crate::watchdog::Watchdog::cuts)), the open files and the memory of the
//! process.
//!
//! # Logs
//!
//! Events of `tracing` have the target `sse_hub`. [`design`](crate::design#observability) lists
//! every message. Alert on `ERROR` and `WARN`: each is rare, and limited in its rate. `DEBUG`
//! contains client ids: treat such a log as confidential.
//!
//! # Traces
//!
//! The same target has spans at `TRACE`, with the names of OpenTelemetry's conventions for
//! messaging: `publish`, `subscribe`, `process` (an instance hands out an event of the backplane)
//! and `history read`. [`design`](crate::design#observability) lists their fields. Deliveries have
//! no spans. Let only the layer that exports traces have the level `TRACE`, and the log stays as it
//! is:
//!
//! ```
//! use tracing_subscriber::filter::{LevelFilter, Targets};
//! use tracing_subscriber::fmt;
//! use tracing_subscriber::layer::{Layer, SubscriberExt as _};
//!
//! // In place of the second layer: `tracing_opentelemetry::layer().with_tracer(...)`.
//! let export = fmt::layer().with_filter(Targets::new().with_target("sse_hub", LevelFilter::TRACE));
//! let subscriber = tracing_subscriber::registry()
//!     .with(fmt::layer().with_filter(LevelFilter::INFO))
//!     .with(export);
//! # drop(subscriber);
//! ```
//!
//! `tracing` keeps no trace context, so the hub forwards the context that your program gives:
//! [`Event::traceparent`](crate::Event::traceparent). With a backplane, the span `process` of every
//! instance then has the field `traceparent`, by which the trace of the request that published is
//! found. Clients do not receive the context.
//!
//! # Readiness and liveness
//!
//! - *Live*: the process answers. Do not restart a process because Redis is away.
//! - *Ready*: the hub takes clients, so not [draining](super::shutdown). Leave a
//!   [degraded](crate::Stats::degraded) instance in service: its clients would find the same outage
//!   elsewhere.
//!
//! # Before the first day
//!
//! | check | why |
//! |---|---|
//! | open files: more than the clients, twice behind a proxy on the same machine | each stream is a socket |
//! | [`Limits`](crate::Limits) per user and session | a script in a loop takes all places |
//! | [`Retain`](crate::Retain) for the usual absence | gaps cost a request of each client |
//! | a [watchdog](mod@crate::watchdog), or [direct serving](mod@crate::serve) | dead connections stay for hours otherwise |
//! | the [proxy](super::proxies): timeouts, compression, HTTP/2 | the usual reasons of "works on my machine" |
//! | an end in [order](super::shutdown), tried with open streams | otherwise each update is a storm |
//! | the page after `hub:gap`, tried by hand | the rarest path, and the most expensive |
//!
//! # Limits
//!
//! - A hub has one log for all tenants, and its metrics have no label for users or topics: their
//!   number has no bound.
//! - Delays are measured at one read in sixteen, to powers of two, and end where the server takes
//!   the bytes: the network is not in them.
//! - Counters begin with the process.
