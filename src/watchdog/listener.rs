use std::fmt;
use std::io;
use std::sync::Arc;

use ::axum::serve::Listener;
use socket2::SockRef;

use super::connection::{Shared, Watched};

/// A listener for axum's server that watches each accepted connection, made by
/// [`Watchdog::listen`](super::Watchdog::listen).
///
/// For axum's `ConnectInfo` of the peer's address, add `.tap_io(|_| ())`
/// (`axum::serve::ListenerExt`): axum knows the address type of the tapped listener.
pub struct WatchedListener<L> {
    listener: L,
    shared: Arc<Shared>,
}

impl<L> WatchedListener<L> {
    pub(super) fn new(listener: L, shared: Arc<Shared>) -> Self {
        Self { listener, shared }
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
        (Watched::tcp(socket, Arc::clone(&self.shared)), address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

impl<L: fmt::Debug> fmt::Debug for WatchedListener<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchedListener").field("listener", &self.listener).finish_non_exhaustive()
    }
}
