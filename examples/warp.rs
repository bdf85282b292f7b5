//! The smallest useful server, on warp: what is posted to it appears in every page that listens.
//!
//! Run with
//!
//! ```text
//! cargo run --example warp --features warp,tokio -- --port 3002
//! ```
//!
//! and then, in two terminals,
//!
//! ```text
//! curl --no-buffer http://127.0.0.1:3002/events
//! curl --data hello http://127.0.0.1:3002/say
//! ```

use std::error::Error;
use std::num::ParseIntError;
use std::time::Duration;

use bytes::Bytes;
use sse_hub::{Event, Hub, LastEventId, Subscriber, TokioTimer};
use warp::http::StatusCode;
use warp::{Filter, Rejection, Reply};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let hub = Hub::builder(TokioTimer::new()).build()?;
    let routes = events(hub.clone()).or(say(hub.clone()));

    // Not `warp::serve(routes).bind(...)`, which panics where the port is taken.
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port()?)).await?;
    println!("listening on http://{}", listener.local_addr()?);
    warp::serve(routes)
        .incoming(listener)
        .graceful(async move {
            // If it cannot be waited for, that is a reason to stop as well.
            let _ = tokio::signal::ctrl_c().await;
            // The server waits for its streams, so end them: each page is told when to come back.
            hub.drain(Duration::from_secs(2)).await;
            hub.close();
        })
        .run()
        .await;
    Ok(())
}

/// `new EventSource("/events")` in a page ends up here, and again whenever its connection was lost.
fn events(hub: Hub) -> impl Filter<Extract = (impl Reply,), Error = Rejection> + Clone {
    warp::path!("events")
        .and(warp::get())
        .and(sse_hub::warp::last_event_id())
        // Let in or refused, it is the reply.
        .map(move |last: LastEventId| hub.subscribe(Subscriber::new().resume(last)))
}

fn say(hub: Hub) -> impl Filter<Extract = (impl Reply,), Error = Rejection> + Clone {
    warp::path!("say")
        .and(warp::post())
        .and(warp::body::content_length_limit(16 << 10))
        .and(warp::body::bytes())
        .map(move |text: Bytes| {
            let event = Event::new("said").data(String::from_utf8_lossy(&text));
            match hub.broadcast(event) {
                Ok(receipt) => warp::reply::with_status(
                    format!("{} listen\n", receipt.matched()),
                    StatusCode::OK,
                ),
                Err(error) => {
                    warp::reply::with_status(error.to_string(), StatusCode::INTERNAL_SERVER_ERROR)
                }
            }
        })
}

/// `--port 3002`, or else the variable `PORT`, or else 3002. 0 takes any that is free.
fn port() -> Result<u16, ParseIntError> {
    let given = std::env::args().skip_while(|argument| argument != "--port").nth(1);
    given.or_else(|| std::env::var("PORT").ok()).map_or(Ok(3002), |port| port.parse())
}
