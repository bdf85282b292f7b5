//! Direct serving.

mod accept;
mod answer;
mod app;
mod connection;
mod link;
mod open;
mod refuse;
mod socket;
mod stream;

use std::fmt;
use std::future::{self, Pending};
use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use ::axum::serve::Listener;

pub use self::app::{IncomingStream, RequestBody, Serves, kind};
use crate::time::tokio::TokioTimer;
use crate::watchdog::Watchdog;

/// The default of [`Serve::backlog`]: the most that Linux allows, unless it is set otherwise.
const BACKLOG: u32 = 4096;

/// The default of [`Serve::drain_over`].
const DRAIN_OVER: Duration = Duration::from_secs(2);

/// Serves `service` on `listener`, as `axum::serve` does, and writes streams of this crate straight
/// to their sockets: see the [module](self).
pub fn serve<L, M, K>(listener: L, service: M) -> Serve<L, M, K>
where
    L: Listener,
    M: Serves<L, K>,
{
    let watchdog = Watchdog::builder(TokioTimer::new()).idle_after(Duration::MAX);
    let settings = Settings {
        watchdog: watchdog.build().expect("no limit is zero"),
        backlog: BACKLOG,
        max_connections: usize::MAX,
        drain_over: Some(DRAIN_OVER),
    };
    Serve { listener, service, settings, signal: future::pending(), kind: PhantomData }
}

/// A server that was not started, as [`serve()`] returns it. Await it to serve.
#[must_use = "a server does nothing unless it is awaited"]
pub struct Serve<L, M, K, F = Pending<()>> {
    listener: L,
    service: M,
    settings: Settings,
    signal: F,
    kind: PhantomData<fn() -> K>,
}

#[derive(Debug)]
struct Settings {
    watchdog: Watchdog,
    backlog: u32,
    max_connections: usize,
    drain_over: Option<Duration>,
}

impl<L: Listener, M, K, F> Serve<L, M, K, F> {
    /// Ends the server when `signal` completes.
    pub fn with_graceful_shutdown<S>(self, signal: S) -> Serve<L, M, K, S>
    where
        S: Future<Output = ()> + Send + 'static,
    {
        let Self { listener, service, settings, signal: _, kind } = self;
        Serve { listener, service, settings, signal, kind }
    }

    /// Sets the watchdog of the connections.
    pub fn watchdog(mut self, watchdog: Watchdog) -> Self {
        self.settings.watchdog = watchdog;
        self
    }

    /// Sets the backlog.
    pub fn backlog(mut self, connections: u32) -> Self {
        self.settings.backlog = connections;
        self
    }

    /// Sets the most open connections.
    pub fn max_connections(mut self, max: usize) -> Self {
        self.settings.max_connections = max;
        self
    }

    /// Sets the period over which the hubs are drained.
    pub fn drain_over(mut self, over: impl Into<Option<Duration>>) -> Self {
        self.settings.drain_over = over.into();
        self
    }

    /// Returns the address of the listener.
    pub fn local_addr(&self) -> io::Result<L::Addr> {
        self.listener.local_addr()
    }
}

impl<L, M, K, F> IntoFuture for Serve<L, M, K, F>
where
    L: Listener,
    M: Serves<L, K>,
    K: 'static,
    F: Future<Output = ()> + Send + 'static,
{
    type Output = io::Result<()>;
    type IntoFuture = Serving;

    fn into_future(self) -> Serving {
        let Self { listener, service, settings, signal, kind: _ } = self;
        let serving = accept::serve::<L, M, K>(listener, service, settings, signal);
        Serving(Box::pin(async move {
            serving.await;
            Ok(())
        }))
    }
}

impl<L: fmt::Debug, M, K, F> fmt::Debug for Serve<L, M, K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve")
            .field("listener", &self.listener)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// A running server: the future of [`Serve`].
#[must_use = "futures do nothing unless polled"]
pub struct Serving(Pin<Box<dyn Future<Output = io::Result<()>> + Send>>);

impl Future for Serving {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving").finish_non_exhaustive()
    }
}
