//! A chat: rooms with members, and the last lines for a page that enters a room.
//!
//! Run with
//!
//! ```text
//! cargo run --example chat --features serve -- --port 3009
//! ```
//!
//! and open <http://127.0.0.1:3009/?user=ann> and <http://127.0.0.1:3009/?user=bob>.

mod common;

use std::error::Error;

use axum::Router;
use axum::extract::{Path, Query, RawQuery, State};
use axum::http::{Method, StatusCode};
use axum::response::Html;
use axum::routing::{get, post};
use futures_util::StreamExt as _;
use serde::Deserialize;
use sse_hub::http::{ErrorResponse, join_topic, leave_topic};
use sse_hub::{
    Event, Hub, LastEventId, MembersError, Presence, Refused, Subscriber, Subscription, TokioTimer,
    TopicEvent,
};
use tokio::net::TcpListener;

/// Stands for the authentication of your service: a request that names a user is of that user.
#[derive(Deserialize)]
struct Who {
    user: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let presence = Presence::default().topics(&["room-"]);
    let hub = Hub::builder(TokioTimer::new()).presence(presence).build()?;
    let app = Router::new()
        .route("/", get(async || Html(include_str!("chat.html"))))
        .route("/events", get(events))
        .route("/topics", post(topics).delete(topics))
        .route("/rooms/{room}", get(members).post(say))
        .with_state(hub.clone());
    let listener = TcpListener::bind(("127.0.0.1", common::port(3009)?)).await?;
    println!("listening on http://{}", listener.local_addr()?);
    tokio::spawn(announce(hub.clone()));
    tokio::select! {
        served = sse_hub::serve(listener, app).with_graceful_shutdown(common::drained(hub)) => Ok(served?),
        () = common::overdue() => Ok(()),
    }
}

/// A request to `/rooms` names the room without the prefix, and so cannot name another topic.
fn topic(room: &str) -> String {
    format!("room-{room}")
}

async fn events(
    State(hub): State<Hub>,
    Query(who): Query<Who>,
    last: LastEventId,
) -> Result<Subscription, Refused> {
    hub.subscribe(Subscriber::new().user(who.user).resume(last))
}

/// Enters a room, or leaves. The query has the client, the topic, and how many events the page
/// wants.
async fn topics(
    State(hub): State<Hub>,
    Query(who): Query<Who>,
    method: Method,
    RawQuery(query): RawQuery,
) -> Result<StatusCode, ErrorResponse> {
    let (who, query) = (Subscriber::new().user(who.user), query.unwrap_or_default());
    match method {
        Method::POST => join_topic(&hub, &who, &query, |topic| topic.starts_with("room-")),
        _ => leave_topic(&hub, &who, &query),
    }
}

async fn members(State(hub): State<Hub>, Path(room): Path<String>) -> Result<String, MembersError> {
    let members = hub.users_in(topic(&room))?;
    Ok(members.iter().map(|member| &*member.user).collect::<Vec<_>>().join("\n"))
}

async fn say(
    State(hub): State<Hub>,
    Path(room): Path<String>,
    Query(Who { user }): Query<Who>,
    text: String,
) -> Result<(), ErrorResponse> {
    if hub.users_in(topic(&room))?.iter().all(|member| *member.user != *user) {
        return Err(StatusCode::FORBIDDEN.into());
    }
    hub.send_to_topic(topic(&room), Event::new("line").data(format!("{user}: {text}")))?;
    Ok(())
}

/// Tells the members of each room when another member comes or goes.
async fn announce(hub: Hub) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut changes = hub.watch_topics()?;
    while let Some(change) = changes.next().await {
        if let TopicEvent::Joined { topic, .. } | TopicEvent::Left { topic, .. } = change {
            hub.send_to_topic(&topic, Event::new("members").data(&topic).conflate(&*topic))?;
        }
    }
    Ok(())
}
