//! A dashboard: 500 symbols at 20 updates a second each. A page begins with the newest price of
//! each symbol, and then gets the prices that changed, at most once in a period of the page.
//!
//! Run with
//!
//! ```text
//! cargo run --example dashboard --features serve -- --port 3008
//! ```
//!
//! and open <http://127.0.0.1:3008/>, or <http://127.0.0.1:3008/?ms=2000> for a slow page.

mod common;

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::response::Html;
use axum::routing::get;
use sse_hub::{
    Event, Hub, LastEventId, PublishError, Refused, Retain, Subscriber, Subscription, TokioTimer,
};

const SYMBOLS: usize = 500;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let retain = Retain::default().keep_latest(SYMBOLS);
    let hub = Hub::builder(TokioTimer::new()).retain(retain).build()?;
    let page = get(async || Html(include_str!("dashboard.html")));
    let app = Router::new().route("/", page).route("/prices", get(prices)).with_state(hub.clone());
    tokio::spawn(update(hub.clone()));
    common::serve(app, hub, common::port(3008)?).await
}

/// A page names the period in `ms`: a second by default.
async fn prices(
    State(hub): State<Hub>,
    Query(query): Query<Vec<(String, String)>>,
    last: LastEventId,
) -> Result<Subscription, Refused> {
    let ms = query.iter().find(|(name, _)| name == "ms").and_then(|(_, ms)| ms.parse().ok());
    let period = Duration::from_millis(ms.unwrap_or(1000));
    hub.subscribe(Subscriber::new().topic("prices").latest().at_most_every(period).resume(last))
}

/// Publishes prices until the hub is closed.
async fn update(hub: Hub) -> Result<(), PublishError> {
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    for round in 0.. {
        ticks.tick().await;
        for symbol in (0..SYMBOLS).map(|number| format!("S{number:03}")) {
            let price = Event::new("price").data(format!("{symbol} {round}")).conflate(symbol);
            hub.send_to_topic("prices", price)?;
        }
    }
    Ok(())
}
