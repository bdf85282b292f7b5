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
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{Html, Result};
use axum::routing::{get, post};
use futures_util::StreamExt as _;
use serde::Deserialize;
use sse_hub::http::change_topics;
use sse_hub::{
    Event, Hub, LastEventId, Presence, Subscriber, Subscription, TokioTimer, TopicEvent,
};

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
    tokio::spawn(announce(hub.clone()));
    common::serve(app, hub, common::port(3009)?).await
}

async fn events(hub: State<Hub>, who: Query<Who>, last: LastEventId) -> Result<Subscription> {
    Ok(hub.subscribe(Subscriber::new().user(&who.user).resume(last))?)
}

/// Enters a room, or leaves. The query has the client, the topic, and how many events the page
/// wants.
async fn topics(hub: State<Hub>, who: Query<Who>, parts: Parts) -> Result<StatusCode> {
    let who = Subscriber::new().user(&who.user);
    Ok(change_topics(&hub, &who, &parts, |topic| topic.starts_with("room-"))?)
}

/// A request to `/rooms` names the room without the prefix, and so cannot name another topic.
async fn members(hub: State<Hub>, Path(room): Path<String>) -> Result<String> {
    let members = hub.users_in(format!("room-{room}"))?;
    Ok(members.iter().map(|member| &*member.user).collect::<Vec<_>>().join("\n"))
}

async fn say(hub: State<Hub>, room: Path<String>, who: Query<Who>, text: String) -> Result<()> {
    let (user, topic) = (&who.user, format!("room-{}", *room));
    if !hub.is_member(user, &topic)? {
        return Err(StatusCode::FORBIDDEN.into());
    }
    hub.send_to_topic(topic, Event::new("line").data(format!("{user}: {text}")))?;
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
