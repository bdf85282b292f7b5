//! The smallest useful server: what is posted to it appears in every page that listens.
//!
//! Run with
//!
//! ```text
//! cargo run --example axum --features axum,tokio -- --port 3001
//! ```
//!
//! and then, in two terminals,
//!
//! ```text
//! curl --no-buffer http://127.0.0.1:3001/events
//! curl --data hello http://127.0.0.1:3001/say
//! ```

use std::error::Error;
use std::num::ParseIntError;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use sse_hub::{Event, Hub, LastEventId, Refused, Subscriber, Subscription, TokioTimer};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let hub = Hub::builder(TokioTimer::new()).build()?;
    let app = Router::new()
        .route("/events", get(events))
        .route("/say", post(say))
        .with_state(hub.clone());

    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port()?)).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            // If it cannot be waited for, that is a reason to stop as well.
            let _ = tokio::signal::ctrl_c().await;
            // The server waits for its streams, so end them: each page is told when to come back.
            hub.drain(Duration::from_secs(2)).await;
            hub.close();
        })
        .await?;
    Ok(())
}

/// `new EventSource("/events")` in a page ends up here, and again whenever its connection was lost.
async fn events(State(hub): State<Hub>, last: LastEventId) -> Result<Subscription, Refused> {
    hub.subscribe(Subscriber::new().resume(last))
}

async fn say(State(hub): State<Hub>, text: String) -> Result<String, String> {
    let receipt =
        hub.broadcast(Event::new("said").data(text)).map_err(|error| error.to_string())?;
    Ok(format!("{} listen\n", receipt.matched()))
}

/// `--port 3001`, or else the variable `PORT`, or else 3001. 0 takes any that is free.
fn port() -> Result<u16, ParseIntError> {
    let given = std::env::args().skip_while(|argument| argument != "--port").nth(1);
    given.or_else(|| std::env::var("PORT").ok()).map_or(Ok(3001), |port| port.parse())
}
