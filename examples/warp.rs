//! The smallest useful server on warp: each text that is posted appears in every page that listens.
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

mod common;

use std::error::Error;

use bytes::Bytes;
use sse_hub::{Event, Hub, LastEventId, Subscriber, TokioTimer};
use tokio::net::TcpSocket;
use warp::{Filter, Rejection, Reply};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let hub = Hub::builder(TokioTimer::new()).build()?;
    let routes = events(hub.clone()).or(say(hub.clone()));

    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    // Accepted sockets inherit this option. Without it, small events wait for an acknowledgement.
    socket.set_nodelay(true)?;
    socket.bind(([127, 0, 0, 1], common::port(3002)?).into())?;
    let listener = socket.listen(1024)?;
    println!("listening on http://{}", listener.local_addr()?);
    let server = warp::serve(routes).incoming(listener).graceful(common::drained(hub));
    tokio::select! {
        () = server.run() => {}
        () = common::overdue() => {}
    }
    Ok(())
}

/// `new EventSource("/events")` in a page sends this request, and again after a lost connection.
fn events(hub: Hub) -> impl Filter<Extract = (impl Reply,), Error = Rejection> + Clone {
    let path = warp::path!("events");
    let events = path
        .and(warp::get())
        .and(sse_hub::warp::last_event_id())
        // The `Result` is the reply: a stream or a refusal.
        .map(move |last: LastEventId| hub.subscribe(Subscriber::new().resume(last)));
    events.or(path.and(sse_hub::warp::head()))
}

fn say(hub: Hub) -> impl Filter<Extract = (impl Reply,), Error = Rejection> + Clone {
    warp::path!("say")
        .and(warp::post())
        .and(warp::body::content_length_limit(16 << 10))
        .and(warp::body::bytes())
        .map(move |text: Bytes| {
            let event = Event::new("said").data(String::from_utf8_lossy(&text));
            hub.broadcast(event).map(|receipt| format!("{} listen\n", receipt.matched()))
        })
}
