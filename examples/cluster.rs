//! The smallest cluster: start two servers, open streams at both, and post to either.
//!
//! Needs a Redis. Run with
//!
//! ```text
//! cargo run --example cluster --features axum,redis,tokio -- 3001
//! cargo run --example cluster --features axum,redis,tokio -- 3002
//! curl -N localhost:3001/events & curl -d hello localhost:3002/
//! ```

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use sse_hub::redis::Redis;
use sse_hub::{Audience, Event, Hub, LastEventId, Refused, Subscriber, Subscription, TokioTimer};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port: u16 = std::env::args().nth(1).as_deref().unwrap_or("3001").parse()?;
    let address = std::env::var("REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".into());

    let backplane = Redis::new(&address)?.prefix("cluster-example").build()?;
    let builder = Hub::builder(TokioTimer::new()).backplane(backplane.clone());
    // Clients get `hub:degraded` when Redis is away for longer than a second, and when it is back.
    let hub = builder.tell_degraded().build()?;
    let running = tokio::spawn(backplane.run(&hub));
    // Without Redis, serve for now: the hub catches up when Redis is there.
    if tokio::time::timeout(Duration::from_secs(5), backplane.ready()).await.is_err() {
        eprintln!("there is no Redis yet where REDIS_URL says");
    }

    let app =
        Router::new().route("/", post(say)).route("/events", get(events)).with_state(hub.clone());
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("http://{}", listener.local_addr()?);
    let shutdown = async move {
        let _ = tokio::signal::ctrl_c().await;
        hub.drain(Duration::from_secs(2)).await;
        hub.close();
    };
    axum::serve(listener, app).with_graceful_shutdown(shutdown).await?;
    // Wait until the last events are sent.
    tokio::time::timeout(Duration::from_secs(5), running).await??;
    Ok(())
}

async fn events(State(hub): State<Hub>, last: LastEventId) -> Result<Subscription, Refused> {
    hub.subscribe(Subscriber::new().resume(last))
}

/// Returns the id once Redis has the event.
async fn say(State(hub): State<Hub>, text: String) -> Result<String, String> {
    let event = Event::new("said").data(text);
    let confirmation =
        hub.publish_confirmed(Audience::all(), event).map_err(|error| error.to_string())?;
    confirmation.await.map(|id| format!("{id}\n")).map_err(|error| error.to_string())
}
