//! Sessions, and the three proofs that a request belongs to a session.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::http::HeaderMap;
use axum_extra::extract::PrivateCookieJar;
use axum_extra::extract::cookie::{Cookie, Key, SameSite};
use cookie::CookieJar;
use parking_lot::Mutex;

/// With this prefix, browsers accept the cookie only from this host, over TLS or from the same
/// machine.
const COOKIE: &str = "__Host-session";

/// The name under which access tokens are encrypted. The encryption authenticates the name with
/// the value, so a cookie cannot pass for an access token.
const ACCESS: &str = "access";

/// A login. Its id is a name and no secret: the proofs are secret.
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
    /// A key of this process. Several instances need a shared key, and shared tables.
    key: Key,
    open: Mutex<HashMap<Arc<str>, Session>>,
    /// The tickets that were not used, with the ids of their sessions and their expiry.
    tickets: Mutex<HashMap<String, (Arc<str>, SystemTime)>>,
    pub(crate) last: Duration,
    pub(crate) tickets_last: Duration,
}

impl Sessions {
    pub(crate) fn new(last: Duration, tickets_last: Duration) -> Self {
        let (key, open, tickets) = (Key::generate(), Mutex::default(), Mutex::default());
        Self { key, open, tickets, last, tickets_last }
    }

    pub(crate) fn open(&self, user: &str) -> Result<Session, getrandom::Error> {
        let now = SystemTime::now();
        let session = Session { id: random()?.into(), user: user.into(), expires: now + self.last };
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

    fn find(&self, id: &str) -> Option<Session> {
        let open = self.open.lock();
        open.get(id).filter(|session| session.expires > SystemTime::now()).cloned()
    }

    /// Sets the cookie of `session` in a browser.
    pub(crate) fn set_cookie(&self, session: &Session) -> PrivateCookieJar {
        PrivateCookieJar::new(self.key.clone()).add(self.cookie(&session.id))
    }

    /// Removes the cookie from a browser that sent `headers`.
    pub(crate) fn remove_cookie(&self, headers: &HeaderMap) -> PrivateCookieJar {
        PrivateCookieJar::from_headers(headers, self.key.clone()).remove(self.cookie(""))
    }

    /// Returns the session that the cookie among `headers` proves.
    pub(crate) fn by_cookie(&self, headers: &HeaderMap) -> Option<Session> {
        let cookie = PrivateCookieJar::from_headers(headers, self.key.clone()).get(COOKIE)?;
        self.find(cookie.value())
    }

    /// `HttpOnly`: scripts cannot read the cookie. `SameSite=Strict`: browsers do not send it with
    /// requests that another site starts. `Secure`: browsers do not send it over a plain
    /// connection, and without the attribute they refuse this name, also in a removal.
    fn cookie(&self, id: &str) -> Cookie<'static> {
        Cookie::build((COOKIE, id.to_owned()))
            .path("/")
            .http_only(true)
            .secure(true)
            .same_site(SameSite::Strict)
            .max_age(self.last.try_into().unwrap_or(cookie::time::Duration::MAX))
            .build()
    }

    /// Returns a token for the `Authorization` header.
    pub(crate) fn access(&self, session: &Session) -> String {
        let mut jar = CookieJar::new();
        jar.private_mut(&self.key).add((ACCESS, session.id.to_string()));
        jar.get(ACCESS).map(|token| token.value().to_owned()).unwrap_or_default()
    }

    /// Returns the session that an access token proves. The reason for a failure stays secret: only
    /// an attacker has a use for it.
    pub(crate) fn by_access(&self, token: &str) -> Option<Session> {
        let token = Cookie::new(ACCESS, token.to_owned());
        self.find(CookieJar::new().private(&self.key).decrypt(token)?.value())
    }

    /// Returns a ticket for one stream. URLs end up in logs, so a ticket is for one use, and expires
    /// within seconds.
    pub(crate) fn ticket(&self, session: &Session) -> Result<String, getrandom::Error> {
        let (ticket, now) = (random()?, SystemTime::now());
        let mut tickets = self.tickets.lock();
        tickets.retain(|_, (_, expires)| *expires > now);
        tickets.insert(ticket.clone(), (Arc::clone(&session.id), now + self.tickets_last));
        Ok(ticket)
    }

    /// Returns the session of a ticket, and uses the ticket up.
    pub(crate) fn by_ticket(&self, ticket: &str) -> Option<Session> {
        let (session, expires) = self.tickets.lock().remove(ticket)?;
        // The session is not open after a logout.
        if expires > SystemTime::now() { self.find(&session) } else { None }
    }
}

/// Returns 128 random bits as text.
fn random() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}
