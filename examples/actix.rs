//! The smallest useful server on actix-web: what is posted to it appears in every page that listens.
//!
//! This crate has no adapter for actix-web. It needs none: [`answer`] is all there is to it, since a
//! [`Body`](sse_hub::http::Body) is a `Stream` of `Bytes`, which actix-web takes.
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

use std::error::Error;
use std::num::ParseIntError;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::rt::{self, System};
use actix_web::web::{self, Data};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use sse_hub::{Event, Hub, LastEventId, Subscriber, TokioTimer};

fn main() -> Result<(), Box<dyn Error>> {
    System::new().block_on(serve())
}

async fn serve() -> Result<(), Box<dyn Error>> {
    // actix-web runs on tokio, so the hub has its time from there.
    let hub = Hub::builder(TokioTimer::new()).build()?;
    let shared = hub.clone();
    let app = move || {
        // Made once for each worker: a clone of the hub is the same hub.
        App::new()
            .app_data(Data::new(shared.clone()))
            .route("/events", web::get().to(events))
            .route("/say", web::post().to(say))
    };
    // Its own handling of signals would wait for the streams, which do not end by themselves.
    let server = HttpServer::new(app).disable_signals().bind(("127.0.0.1", port()?))?;
    for address in server.addrs() {
        println!("listening on http://{address}");
    }
    let server = server.run();

    let handle = server.handle();
    rt::spawn(async move {
        // If it cannot be waited for, that is a reason to stop as well.
        let _ = rt::signal::ctrl_c().await;
        hub.drain(Duration::from_secs(2)).await;
        hub.close();
        handle.stop(true).await;
    });
    Ok(server.await?)
}

/// `new EventSource("/events")` in a page ends up here, and again whenever its connection was lost.
async fn events(hub: Data<Hub>, request: HttpRequest) -> HttpResponse {
    let header = request.headers().get("last-event-id").map(|value| value.as_bytes());
    let last = LastEventId::from_parts(header, request.query_string());
    // Let in or refused, it is the response.
    answer(sse_hub::http::into_response(hub.subscribe(Subscriber::new().resume(last))))
}

/// The recipe: status and headers go over one by one, since actix-web has types of its own for them, and the body as it is.
fn answer(response: http::Response<sse_hub::http::Body>) -> HttpResponse {
    let (head, body) = response.into_parts();
    let status = StatusCode::from_u16(head.status.as_u16()).expect("a status is one everywhere");
    let mut answer = HttpResponse::build(status);
    for (name, value) in &head.headers {
        answer.insert_header((name.as_str(), value.as_bytes()));
    }
    answer.streaming(body)
}

async fn say(hub: Data<Hub>, text: String) -> HttpResponse {
    match hub.broadcast(Event::new("said").data(text)) {
        Ok(receipt) => HttpResponse::Ok().body(format!("{} listen\n", receipt.matched())),
        Err(error) => HttpResponse::InternalServerError().body(error.to_string()),
    }
}

/// `--port 3004`, or else the variable `PORT`, or else 3004. 0 takes any that is free.
fn port() -> Result<u16, ParseIntError> {
    let given = std::env::args().skip_while(|argument| argument != "--port").nth(1);
    given.or_else(|| std::env::var("PORT").ok()).map_or(Ok(3004), |port| port.parse())
}
