//! A webhook: another service tells something, and whoever it is about sees it at once.
//!
//! Signed as <https://www.standardwebhooks.com> says. What is signed is the body as it came: it is read as JSON only after.

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
use sse_hub::{Audience, Event, EventType, Payload, PublishError};

use crate::{App, Failed};

/// A message that is older was kept by somebody to be sent again.
const TOLERANCE: Duration = Duration::from_secs(5 * 60);

pub(crate) struct Webhooks {
    key: Hmac<Sha256>,
    seen: Mutex<Seen>,
}

impl Webhooks {
    pub(crate) fn new(secret: &str) -> Result<Self, &'static str> {
        let key = secret.strip_prefix("whsec_").and_then(|key| STANDARD.decode(key).ok());
        let key = key.ok_or("WEBHOOK_SECRET is `whsec_` and a key in Base64")?;
        let key = Hmac::new_from_slice(&key).expect("a key may have any length");
        Ok(Self { key, seen: Mutex::default() })
    }

    /// The message's id, if it is from who holds the key, and new.
    fn verify<'a>(&self, headers: &'a HeaderMap, body: &[u8]) -> Option<&'a str> {
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let (id, timestamp) = (header("webhook-id")?, header("webhook-timestamp")?);
        let signed = self.key.clone().chain_update(format!("{id}.{timestamp}.")).chain_update(body);
        // Several, while the key is being replaced.
        let mut signatures = header("webhook-signature")?.split(' ');
        let is_genuine = signatures.any(|signature| {
            let signature =
                signature.strip_prefix("v1,").and_then(|text| STANDARD.decode(text).ok());
            // In constant time.
            signature.is_some_and(|signature| signed.clone().verify_slice(&signature).is_ok())
        });
        let at = UNIX_EPOCH.checked_add(Duration::from_secs(timestamp.parse().ok()?))?;
        let now = SystemTime::now();
        let apart = now.duration_since(at).or_else(|_| at.duration_since(now)).ok()?;
        (is_genuine && apart <= TOLERANCE).then_some(id)
    }
}

/// Messages that were dealt with. Here the last 10 000; in a service a table of the database, which the message's id is
/// written to in the transaction that does what it says.
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

/// What pages get of it: not the message itself, which may say more than they should know.
#[derive(Serialize)]
struct OrderChanged {
    order: String,
    state: String,
}

impl Payload for OrderChanged {
    const TYPE: EventType = EventType::from_static("order");
}

/// Whoever looks at the order, whose it may not be.
pub(crate) fn topic_of(order: &str) -> String {
    format!("order:{order}")
}

pub(crate) async fn order(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, Failed> {
    let Some(id) = app.webhooks.verify(&headers, &body) else {
        return Err(Failed(StatusCode::UNAUTHORIZED, "not signed, or too old".to_owned()));
    };
    let Message { user, order, state } = serde_json::from_slice(&body)?;

    // Held until it is published, which waits for nobody: the same message may come twice at once.
    let mut seen = app.webhooks.seen.lock();
    if seen.ids.contains(id) {
        // As the first time: its sender missed the answer.
        return Ok(StatusCode::NO_CONTENT);
    }
    let audience = Audience::user(user).or(Audience::topic(topic_of(&order)));
    app.hub.publish(audience, Event::from_payload(&OrderChanged { order, state })?).map_err(
        |error| {
            let status = match error {
                // Its sender tries again, and finds the next instance.
                PublishError::Closed => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::UNPROCESSABLE_ENTITY,
            };
            Failed(status, error.to_string())
        },
    )?;
    // Only now: what failed is to be tried again.
    seen.insert(id);
    Ok(StatusCode::NO_CONTENT)
}
