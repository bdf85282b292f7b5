//! Sessions, and the tokens that prove that a request belongs to a session.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// The use of a token. The signature covers the purpose, so a token cannot pass for another kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Purpose {
    /// The cookie of a browser.
    Cookie,
    /// The `Authorization` header of any other client.
    Access,
    /// The URL of a stream. URLs end up in logs, so a ticket expires within seconds.
    Ticket,
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    purpose: Purpose,
    session: String,
    /// In milliseconds since 1970.
    expires: u64,
}

/// A login. Its id is a name and no secret: the proof is a signed token.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) id: Arc<str>,
    pub(crate) user: Arc<str>,
    expires: SystemTime,
}

impl Session {
    /// Returns the time at which the streams of the session must end.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.expires.duration_since(SystemTime::now()).unwrap_or_default()
    }
}

pub(crate) struct Sessions {
    /// A key of this process. Several instances need a shared secret.
    key: Hmac<Sha256>,
    open: Mutex<HashMap<Arc<str>, Session>>,
    pub(crate) last: Duration,
    pub(crate) tickets_last: Duration,
}

impl Sessions {
    pub(crate) fn new(last: Duration, tickets_last: Duration) -> Result<Self, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        let key = Hmac::new_from_slice(&key).expect("a key of any length is valid");
        Ok(Self { key, open: Mutex::default(), last, tickets_last })
    }

    pub(crate) fn open(&self, user: &str) -> Result<Session, getrandom::Error> {
        let mut id = [0; 16];
        getrandom::fill(&mut id)?;
        let now = SystemTime::now();
        let session = Session {
            id: URL_SAFE_NO_PAD.encode(id).into(),
            user: user.into(),
            expires: now + self.last,
        };
        let mut open = self.open.lock();
        open.retain(|_, session| session.expires > now);
        open.insert(Arc::clone(&session.id), session.clone());
        Ok(session)
    }

    pub(crate) fn close(&self, session: &Session) {
        self.open.lock().remove(&session.id);
    }

    /// Runs `then` if the session is open, and keeps the session open meanwhile. `then` must not
    /// block.
    pub(crate) fn while_open<T>(&self, session: &Session, then: impl FnOnce() -> T) -> Option<T> {
        let open = self.open.lock();
        open.contains_key(&session.id).then(then)
    }

    pub(crate) fn issue(&self, purpose: Purpose, session: &Session) -> String {
        let expires = match purpose {
            Purpose::Cookie | Purpose::Access => session.expires,
            Purpose::Ticket => session.expires.min(SystemTime::now() + self.tickets_last),
        };
        let claims = Claims { purpose, session: session.id.to_string(), expires: millis(expires) };
        let claims = serde_json::to_vec(&claims).expect("claims are JSON");
        let claims = URL_SAFE_NO_PAD.encode(claims);
        let signature = self.key.clone().chain_update(&claims).finalize().into_bytes();
        format!("{claims}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Returns the session that a token proves. The reason for a failure stays secret: only an
    /// attacker has a use for it.
    pub(crate) fn verify(&self, purpose: Purpose, token: &str) -> Option<Session> {
        let (claims, signature) = token.split_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        // Compares in constant time, before the claims are parsed.
        self.key.clone().chain_update(claims).verify_slice(&signature).ok()?;
        let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        if claims.purpose != purpose || claims.expires <= millis(SystemTime::now()) {
            return None;
        }
        // The session is not open after a logout. No token outlives the session.
        self.open.lock().get(claims.session.as_str()).cloned()
    }
}

fn millis(time: SystemTime) -> u64 {
    let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}
