//! User management: the list of online users, and the end of an account.

use std::collections::HashSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use serde::Serialize;
use sse_hub::http::ErrorResponse;
use sse_hub::{Audience, Event, EventType, Goodbye, Hub, Payload, PresenceEvent, PresenceWatch};

use crate::{App, Caller, jobs};

/// The topic of the admins. The server decides at connect time which clients join.
pub(crate) const ADMINS: &str = "admins";

/// Stands for your database.
#[derive(Default)]
pub(crate) struct Users {
    deactivated: Mutex<HashSet<String>>,
}

impl Users {
    /// Calls `then` if the user is active, and keeps the user active meanwhile. `then` must not
    /// block.
    pub(crate) fn while_active<T>(
        &self,
        user: &str,
        then: impl FnOnce() -> T,
    ) -> Result<T, StatusCode> {
        let deactivated = self.deactivated.lock();
        if deactivated.contains(user) { Err(StatusCode::FORBIDDEN) } else { Ok(then()) }
    }
}

/// A request by an admin.
pub(crate) struct Admin;

impl FromRequestParts<Arc<App>> for Admin {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, StatusCode> {
        let caller = Caller::from_request_parts(parts, app).await?;
        if caller.is_admin() { Ok(Self) } else { Err(StatusCode::FORBIDDEN) }
    }
}

#[derive(Serialize)]
struct Deactivated<'a> {
    user: &'a str,
    streams: usize,
    jobs: usize,
}

impl Payload for Deactivated<'_> {
    const TYPE: EventType = EventType::from_static("user-deactivated");
}

pub(crate) async fn deactivate(
    State(app): State<Arc<App>>,
    _: Admin,
    Path(user): Path<String>,
) -> Result<StatusCode, ErrorResponse> {
    // First of all: a page that connects at this moment is refused, or is found and disconnected. A
    // job that starts at this moment is refused, or is found and stopped.
    app.users.deactivated.lock().insert(user.clone());
    let goodbye = Event::new("account-closed").data("Ask your administrator.");
    let who = Audience::user(&*user);
    let ended = app.hub.disconnect(&who, Goodbye::from_static("deactivated").event(goodbye))?;
    let jobs = jobs::stop_all(&app.hub, &user);
    let deactivated = Deactivated { user: &user, streams: ended.changed, jobs };
    app.hub.publish(Audience::topic(ADMINS), Event::from_payload(&deactivated)?)?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Serialize)]
pub(crate) struct Online {
    user: String,
    /// 0 while the user reloads the page.
    streams: usize,
}

pub(crate) async fn online(State(app): State<Arc<App>>, _: Admin) -> Json<Vec<Online>> {
    let users = app.hub.users().into_iter();
    let mut online: Vec<_> =
        users.map(|info| Online { user: info.user.to_string(), streams: info.clients }).collect();
    online.sort_unstable_by(|one, other| one.user.cmp(&other.user));
    Json(online)
}

#[derive(Serialize)]
struct Changed<'a> {
    user: &'a str,
    online: bool,
}

impl Payload for Changed<'_> {
    const TYPE: EventType = EventType::from_static("user-changed");
}

/// Publishes changes of presence. A page fetches the list when the stream is open, and then applies
/// the changes.
pub(crate) async fn tell_admins(hub: Hub, mut watch: PresenceWatch) {
    // The watch ends when the hub is closed.
    while let Some(seen) = watch.next().await {
        let event = match seen {
            PresenceEvent::Joined { user } => {
                Event::from_payload(&Changed { user: &user, online: true })
            }
            PresenceEvent::Left { user, .. } => {
                Event::from_payload(&Changed { user: &user, online: false })
            }
            // Too many changes to send each: pages fetch the list again.
            _ => Ok(Event::new("users-changed")),
        };
        let Ok(event) = event else { continue };
        if let Err(error) = hub.publish(Audience::topic(ADMINS), event) {
            tracing::warn!(%error, "presence change not published");
        }
    }
}
