//! Connections above the limit of the server.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use ::http::header::ACCEPT;
use ::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;

use super::open::Open;
use super::socket;
use crate::mount::http::{Body, server_is_full};

/// The connections that get a refusal at a time. Any more are closed.
const MAX_REFUSALS: usize = 64;

/// The delay before a refused client tries again.
const RETRY: Duration = Duration::from_secs(5);

/// The connections that are being refused.
pub(super) struct Refusals {
    open: Arc<Open>,
    places: Arc<Semaphore>,
}

impl Refusals {
    pub(super) fn new(open: &Arc<Open>) -> Self {
        let places = Arc::new(Semaphore::new(MAX_REFUSALS));
        Self { open: Arc::clone(open), places }
    }

    /// Answers the first request of a connection with a refusal.
    pub(super) fn refuse<IO>(&self, io: IO)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return };
        let io = TokioIo::new(self.open.watchdog().watch_prepared(io, socket::reset));
        let refusing = http1::Builder::new().serve_connection(io, service_fn(refusal));
        tokio::spawn(async move {
            // An error is the client's: the client is gone, or speaks no HTTP/1.
            let _ = refusing.await;
            drop(place);
        });
    }
}

/// Refuses a stream by a stream: any status but 200 closes a browser's `EventSource` for good.
async fn refusal(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let takes_stream = request.headers().get_all(ACCEPT).iter().any(|accept| {
        accept.as_bytes().windows(17).any(|part| part.eq_ignore_ascii_case(b"text/event-stream"))
    });
    Ok(server_is_full(takes_stream, RETRY))
}
