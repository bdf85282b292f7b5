//! The smallest server of which several instances are one hub: start two, listen to both, and post
//! to either.
//!
//! Run with (a Redis must run at `REDIS_URL`, or else on this machine)
//!
//! ```text
//! cargo run --example cluster --features axum-serve,redis,tokio -- --port 3001
//! cargo run --example cluster --features axum-serve,redis,tokio -- --port 3002
//! curl -N localhost:3001/events & curl -d hello localhost:3002/
//! ```

mod common;

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use sse_hub::redis::Redis;
use sse_hub::watchdog::Watchdog;
use sse_hub::{
    Audience, Event, Hub, LastEventId, PublishError, Refused, Subscriber, Subscription, TokioTimer,
};
use tokio::net::TcpListener;
use tokio::time::timeout;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::var("REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".into());
    let backplane = Redis::new(&address)?.prefix("cluster-example").build()?;
    let builder = Hub::builder(TokioTimer::new()).backplane(backplane.clone());
    // Clients get `hub:degraded` if Redis is out of reach for longer than a moment.
    let hub = builder.announce_outages(true).build()?;
    let running = tokio::spawn(backplane.run(&hub));
    // Without Redis the server serves too, and catches up when Redis is back.
    if let Err(error) = backplane.ready_within(Duration::from_secs(5)).await {
        eprintln!("{error}");
    }

    let app =
        Router::new().route("/", post(say)).route("/events", get(events)).with_state(hub.clone());
    let listener = TcpListener::bind(("127.0.0.1", common::port(3001)?)).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let listener = Watchdog::new(TokioTimer::new()).listen(listener);
    let server = axum::serve(listener, app).with_graceful_shutdown(common::drained(hub));
    tokio::select! {
        served = server => served?,
        () = common::overdue() => {}
    }
    // Events of the last moment may still be in the outbox.
    timeout(Duration::from_secs(5), running).await??;
    Ok(())
}

async fn events(State(hub): State<Hub>, last: LastEventId) -> Result<Subscription, Refused> {
    hub.subscribe(Subscriber::new().resume(last))
}

/// Responds with the id when Redis has the event, or with `202` if that is not confirmed.
async fn say(State(hub): State<Hub>, text: String) -> Result<impl IntoResponse, PublishError> {
    let confirmation = hub.publish_confirmed(Audience::all(), Event::new("said").data(text))?;
    Ok(match confirmation.await {
        Ok(id) => (StatusCode::OK, format!("{id}\n")),
        Err(error) => (StatusCode::ACCEPTED, format!("{error}\n")),
    })
}
