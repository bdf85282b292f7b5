//! The user name and the password, asked for with each connection.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use redis::{ConnectionInfo, ErrorKind, RedisResult};

/// How the backplane logs in to Redis:
/// [`Redis::credentials`](super::super::config::Redis::credentials) asks for it.
///
/// `Debug` hides the password.
#[derive(Clone)]
pub struct Credentials {
    user: Option<String>,
    password: String,
}

impl Credentials {
    /// Logs in as an ACL user.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: Some(user.into()), password: password.into() }
    }

    /// Logs in as the user of the address, or as the default user if the address names none.
    pub fn password(password: impl Into<String>) -> Self {
        Self { user: None, password: password.into() }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

type Answer = Result<Credentials, Box<dyn Error + Send + Sync>>;

/// The application's function.
#[derive(Clone)]
pub(crate) struct AskCredentials(
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync>,
);

impl AskCredentials {
    pub(crate) fn new<F, A, E>(ask: F) -> Self
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: Future<Output = Result<Credentials, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        Self(Arc::new(move || {
            let answer = ask();
            Box::pin(async move { answer.await.map_err(Into::into) })
        }))
    }

    /// Asks, and waits for at most `timeout`.
    pub(crate) async fn ask(&self, timeout: Duration) -> RedisResult<Credentials> {
        let refused = |why: String| (ErrorKind::AuthenticationFailed, "no credentials", why).into();
        match tokio::time::timeout(timeout, (self.0)()).await {
            Ok(Ok(credentials)) => Ok(credentials),
            Ok(Err(error)) => Err(refused(error.to_string())),
            Err(_) => Err(refused(format!("the function did not answer within {timeout:?}"))),
        }
    }
}

impl Credentials {
    /// Returns the same server with these credentials.
    pub(crate) fn apply(&self, server: ConnectionInfo) -> ConnectionInfo {
        let mut settings = server.redis_settings().clone().set_password(&self.password);
        if let Some(user) = &self.user {
            settings = settings.set_username(user);
        }
        server.set_redis_settings(settings)
    }
}
