//! A webhook: another service sends a message, and the pages of the user show the message at once.
//!
//! The signature follows <https://www.standardwebhooks.com>. The signature covers the bytes of the
//! body, so verify it before parsing the JSON.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use sse_hub::http::ErrorResponse;
use sse_hub::{Audience, Event, EventType, Payload};

use crate::App;

/// The greatest age of a message. An older message may be a replay by an attacker.
const TOLERANCE: Duration = Duration::from_secs(5 * 60);

pub(crate) struct Webhooks {
    key: Hmac<Sha256>,
    seen: Mutex<Seen>,
}

impl Webhooks {
    pub(crate) fn new(secret: &str) -> Result<Self, &'static str> {
        let key = secret.strip_prefix("whsec_").and_then(|key| STANDARD.decode(key).ok());
        let key = key.ok_or("WEBHOOK_SECRET must be `whsec_` and a key in Base64")?;
        let key = Hmac::new_from_slice(&key).expect("a key of any length is valid");
        Ok(Self { key, seen: Mutex::default() })
    }

    /// Returns the id of the message if the signature is valid and recent.
    fn verify<'a>(&self, headers: &'a HeaderMap, body: &[u8]) -> Option<&'a str> {
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let (id, timestamp) = (header("webhook-id")?, header("webhook-timestamp")?);
        let signed = self.key.clone().chain_update(format!("{id}.{timestamp}.")).chain_update(body);
        // There are several signatures while the sender replaces the key.
        let mut signatures = header("webhook-signature")?.split(' ');
        let is_genuine = signatures.any(|signature| {
            let signature =
                signature.strip_prefix("v1,").and_then(|text| STANDARD.decode(text).ok());
            // Compares in constant time.
            signature.is_some_and(|signature| signed.clone().verify_slice(&signature).is_ok())
        });
        let at = UNIX_EPOCH.checked_add(Duration::from_secs(timestamp.parse().ok()?))?;
        let now = SystemTime::now();
        let apart = now.duration_since(at).or_else(|_| at.duration_since(now)).ok()?;
        (is_genuine && apart <= TOLERANCE).then_some(id)
    }
}

/// The ids of processed messages, here the last 10,000. In a service, write the id to a table of
/// the database, in the transaction that processes the message.
#[derive(Default)]
struct Seen {
    ids: HashSet<Arc<str>>,
    order: VecDeque<Arc<str>>,
}

impl Seen {
    fn insert(&mut self, id: &str) {
        let id: Arc<str> = id.into();
        self.ids.insert(Arc::clone(&id));
        self.order.push_back(id);
        if self.order.len() > 10_000
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}

#[derive(Deserialize)]
struct Message {
    user: String,
    order: String,
    state: String,
}

/// The event for pages. Not the message, which may contain more than pages may see.
#[derive(Serialize)]
struct OrderChanged {
    order: String,
    state: String,
}

impl Payload for OrderChanged {
    const TYPE: EventType = EventType::from_static("order");
}

/// Returns the topic of the pages that show an order, which may belong to several users.
pub(crate) fn topic_of(order: &str) -> String {
    format!("order:{order}")
}

pub(crate) async fn order(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, ErrorResponse> {
    let Some(id) = app.webhooks.verify(&headers, &body) else {
        return Err(StatusCode::UNAUTHORIZED.into());
    };
    let message = serde_json::from_slice(&body).map_err(|_| StatusCode::UNPROCESSABLE_ENTITY)?;
    let Message { user, order, state } = message;

    // Locked until the event is published, because the same message may arrive twice at once.
    let mut seen = app.webhooks.seen.lock();
    if seen.ids.contains(id) {
        // The same response as the first time: the sender did not receive the first.
        return Ok(StatusCode::NO_CONTENT);
    }
    let audience = Audience::user(user).or(Audience::topic(topic_of(&order)));
    // After a 503 the sender tries again, and reaches the next instance.
    app.hub.publish(audience, Event::from_payload(&OrderChanged { order, state })?)?;
    // Only now: a message that failed must be processed when the sender tries again.
    seen.insert(id);
    Ok(StatusCode::NO_CONTENT)
}
