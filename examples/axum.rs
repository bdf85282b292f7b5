//! The smallest useful server: each text that is posted appears in every page that listens.
//!
//! Run with
//!
//! ```text
//! cargo run --example axum --features serve -- --port 3001
//! ```
//!
//! (with `--via axum` behind axum's own server)
//!
//! and then, in two terminals,
//!
//! ```text
//! curl --no-buffer http://127.0.0.1:3001/events
//! curl --data hello http://127.0.0.1:3001/say
//! ```

mod common;

use std::error::Error;

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use sse_hub::watchdog::Watchdog;
use sse_hub::{
    Event, Hub, LastEventId, PublishError, Refused, Subscriber, Subscription, TokioTimer,
};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let hub = Hub::builder(TokioTimer::new()).build()?;
    let app = Router::new()
        .route("/events", get(events))
        .route("/say", post(say))
        .with_state(hub.clone());

    let listener = TcpListener::bind(("127.0.0.1", common::port(3001)?)).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let drained = common::drained(hub);
    let serving = async {
        if common::is_via_axum() {
            // Cuts connections that make no progress, and sets TCP_NODELAY, so that small events do
            // not wait.
            let listener = Watchdog::new(TokioTimer::new()).listen(listener);
            axum::serve(listener, app).with_graceful_shutdown(drained).await
        } else {
            // Does the same, and writes each stream straight to its socket.
            sse_hub::serve(listener, app).with_graceful_shutdown(drained).await
        }
    };
    tokio::select! {
        served = serving => Ok(served?),
        () = common::overdue() => Ok(()),
    }
}

/// `new EventSource("/events")` in a page calls this handler, and again after a lost connection.
async fn events(State(hub): State<Hub>, last: LastEventId) -> Result<Subscription, Refused> {
    hub.subscribe(Subscriber::new().resume(last))
}

async fn say(State(hub): State<Hub>, text: String) -> Result<String, PublishError> {
    let receipt = hub.broadcast(Event::new("said").data(text))?;
    Ok(format!("{} listen\n", receipt.matched()))
}
