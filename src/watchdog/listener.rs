use std::io;

use ::axum::serve::Listener;
use socket2::SockRef;

use super::Watchdog;
use super::connection::Watched;

/// A listener for axum's server that watches each accepted connection. [`Watchdog::listen`] makes
/// it.
///
/// For axum's `ConnectInfo` of the peer's address, add `.tap_io(|_| ())`
/// (`axum::serve::ListenerExt`): axum knows the address type of the tapped listener.
#[derive(Debug)]
pub struct WatchedListener<L> {
    listener: L,
    watchdog: Watchdog,
}

// Here and not with the other methods: they need no feature, and this file uses theirs.
impl Watchdog {
    /// Watches every connection that `listener` accepts, for axum's server.
    ///
    /// If more clients connect at once than the listener's backlog holds, their systems retry after
    /// a second or more. The backlog is 1,024 for tokio's `TcpListener::bind`, and
    /// `TcpSocket::listen` sets another.
    ///
    /// ```no_run
    /// # async fn serve(app: axum::Router) -> Result<(), Box<dyn std::error::Error>> {
    /// use sse_hub::TokioTimer;
    /// use sse_hub::watchdog::Watchdog;
    ///
    /// let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    /// let listener = Watchdog::new(TokioTimer::new()).listen(listener);
    /// axum::serve(listener, app).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn listen<L>(&self, listener: L) -> WatchedListener<L>
    where
        L: Listener,
        for<'a> SockRef<'a>: From<&'a L::Io>,
    {
        WatchedListener { listener, watchdog: self.clone() }
    }
}

impl<L> Listener for WatchedListener<L>
where
    L: Listener,
    for<'a> SockRef<'a>: From<&'a L::Io>,
{
    type Io = Watched<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (socket, address) = self.listener.accept().await;
        (self.watchdog.watch_tcp(socket), address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
