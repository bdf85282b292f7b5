//! A hub that Prometheus observes: `/metrics`, with a dashboard for Grafana (`dashboard.json`) and
//! alert rules for Prometheus (`alerts.yml`) beside this file.
//!
//! Run with
//!
//! ```text
//! cargo run --example metrics --features metrics,redis,serve -- --port 3009
//! prometheus --config.file=examples/metrics/prometheus.yml --storage.tsdb.path=$(mktemp -d)
//! ```
//!
//! and cause some load:
//!
//! ```text
//! curl --no-buffer '127.0.0.1:3009/events?topic=orders' &
//! curl --data shipped '127.0.0.1:3009/topics/orders'
//! curl 127.0.0.1:3009/metrics
//! ```
//!
//! Import the dashboard in Grafana, with a Prometheus as its data source. If the variable
//! `REDIS_URL` is set, instances with the same Redis are one hub, and the metrics of a backplane
//! exist.

#[path = "../common/mod.rs"]
mod common;

use std::env;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde::Deserialize;
use sse_hub::redis::Redis;
use sse_hub::{
    Event, Hub, LastEventId, PublishError, Refused, Subscriber, Subscription, TokioTimer,
};
use tokio::net::TcpListener;
use tokio::time::timeout;

struct App {
    hub: Hub,
    prometheus: PrometheusHandle,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Without buckets, the exporter writes a summary, and quantiles of several instances cannot be
    // combined.
    let delay = Matcher::Full("sse_hub_delay_seconds".into());
    let prometheus =
        PrometheusBuilder::new().set_buckets_for_metric(delay, &buckets())?.install_recorder()?;

    let mut builder = Hub::builder(TokioTimer::new());
    let mut backplane = None;
    if let Ok(address) = env::var("REDIS_URL") {
        let redis = Redis::new(&address)?.prefix("metrics-example").build()?;
        builder = builder.backplane(redis.clone());
        backplane = Some(redis);
    }
    let hub = builder.build()?;
    let running = backplane.map(|backplane| tokio::spawn(backplane.run(&hub)));

    let app = Router::new()
        .route("/events", get(events))
        .route("/topics/{topic}", post(say))
        // Let only Prometheus reach this path, at your proxy or on a port of its own.
        .route("/metrics", get(scrape))
        .with_state(Arc::new(App { hub: hub.clone(), prometheus }));
    let listener = TcpListener::bind(("127.0.0.1", common::port(3009)?)).await?;
    println!("listening on http://{}", listener.local_addr()?);
    tokio::select! {
        served = sse_hub::serve(listener, app).with_graceful_shutdown(common::drained(hub)) => served?,
        () = common::overdue() => {}
    }
    if let Some(running) = running {
        // Events of the last moment may still be in the outbox.
        timeout(Duration::from_secs(5), running).await??;
    }
    Ok(())
}

/// Returns the bounds of the histogram's buckets in seconds: from a quarter of a millisecond to 16
/// seconds. The hub rounds each delay up to a power of two of microseconds, so other bounds would
/// put delays into a bucket that is too high.
fn buckets() -> Vec<f64> {
    (8..=24).map(|exponent| Duration::from_micros(1 << exponent).as_secs_f64()).collect()
}

async fn scrape(State(app): State<Arc<App>>) -> impl IntoResponse {
    // Several hubs in a process need a label each. Prometheus adds labels for the instance.
    app.hub.record_metrics(&[("hub", "example")]);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], app.prometheus.render())
}

#[derive(Deserialize)]
struct Page {
    topic: Option<String>,
}

async fn events(
    State(app): State<Arc<App>>,
    Query(Page { topic }): Query<Page>,
    last: LastEventId,
) -> Result<Subscription, Refused> {
    app.hub.subscribe(Subscriber::new().topics(topic).resume(last))
}

async fn say(
    State(app): State<Arc<App>>,
    Path(topic): Path<String>,
    text: String,
) -> Result<StatusCode, PublishError> {
    app.hub.send_to_topic(topic, Event::new("said").data(text))?;
    Ok(StatusCode::NO_CONTENT)
}
