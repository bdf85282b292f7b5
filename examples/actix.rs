//! The smallest useful server on actix-web: each text that is posted appears in every page that
//! listens.
//!
//! This crate has no adapter for actix-web, and needs none: a [`Body`](sse_hub::http::Body) is a
//! `Stream` of `Bytes`, which actix-web takes. The function [`answer`] is the whole adapter.
//!
//! Run with
//!
//! ```text
//! cargo run --example actix --features http,tokio -- --port 3004
//! ```
//!
//! and then, in two terminals,
//!
//! ```text
//! curl --no-buffer http://127.0.0.1:3004/events
//! curl --data hello http://127.0.0.1:3004/say
//! ```

mod common;

use std::error::Error;

use actix_web::http::StatusCode;
use actix_web::rt::{self, System};
use actix_web::web::{self, Data};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use sse_hub::http::{Body, error_response, head_response, into_response};
use sse_hub::{Event, Hub, LastEventId, Subscriber, TokioTimer};

fn main() -> Result<(), Box<dyn Error>> {
    System::new().block_on(serve())
}

async fn serve() -> Result<(), Box<dyn Error>> {
    // actix-web runs on tokio, so the hub can use the timer of tokio.
    let hub = Hub::builder(TokioTimer::new()).build()?;
    let shared = hub.clone();
    let app = move || {
        // Each worker gets a clone of the hub, which is the same hub.
        App::new()
            .app_data(Data::new(shared.clone()))
            .route("/events", web::get().to(events))
            .route("/events", web::head().to(async || answer(head_response())))
            .route("/say", web::post().to(say))
    };
    let server = HttpServer::new(app)
        // A client that closes its connection has left. Without this line, actix-web notices that
        // only at the next write.
        .h1_allow_half_closed(false)
        // Small events must not wait for the acknowledgement of the event before.
        .tcp_nodelay(true)
        // The own signal handling of actix-web would wait for streams that do not end.
        .disable_signals()
        .shutdown_timeout(common::GRACE.as_secs())
        .bind(("127.0.0.1", common::port(3004)?))?;
    for address in server.addrs() {
        println!("listening on http://{address}");
    }
    // Before the server runs, so that no signal is missed.
    let drained = common::drained(hub);
    let server = server.run();

    let handle = server.handle();
    rt::spawn(async move {
        drained.await;
        handle.stop(true).await;
    });
    Ok(server.await?)
}

/// `new EventSource("/events")` in a page calls this handler, and again after a lost connection.
async fn events(hub: Data<Hub>, request: HttpRequest) -> HttpResponse {
    let header = request.headers().get("last-event-id").map(|value| value.as_bytes());
    let last = LastEventId::from_parts(header, request.query_string());
    answer(into_response(hub.subscribe(Subscriber::new().resume(last))))
}

async fn say(hub: Data<Hub>, text: String) -> HttpResponse {
    match hub.broadcast(Event::new("said").data(text)) {
        Ok(receipt) => HttpResponse::Ok().body(format!("{} listen\n", receipt.matched())),
        Err(error) => answer(error_response(error)),
    }
}

/// Converts a response. Status and headers are copied, because actix-web has types of its own for
/// them. The body needs no conversion.
fn answer(response: http::Response<Body>) -> HttpResponse {
    let (head, body) = response.into_parts();
    let status = StatusCode::from_u16(head.status.as_u16()).expect("the status is valid");
    let mut answer = HttpResponse::build(status);
    for (name, value) in &head.headers {
        answer.insert_header((name.as_str(), value.as_bytes()));
    }
    // actix-web ignores the header `connection`. A refusal while draining sets it.
    if head.headers.contains_key("connection") {
        answer.force_close();
    }
    answer.streaming(body)
}
