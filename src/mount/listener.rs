use std::io;

use ::axum::serve::Listener;
use socket2::SockRef;

use super::watchdog::Watchdog;
use super::watched::Watched;

/// A listener for axum's server, each of whose connections is watched: [`Watchdog::listen`] makes it.
///
/// For axum's `ConnectInfo` of the peer's address, add `.tap_io(|_| ())` (`axum::serve::ListenerExt`): axum knows the
/// address of such a listener, whatever it listens with.
#[derive(Debug)]
pub struct WatchedListener<L> {
    listener: L,
    watchdog: Watchdog,
}

impl Watchdog {
    /// Watches every connection that a listener accepts, for axum's server.
    ///
    /// A crowd that connects at once waits in the listener's queue, which is 1,024 for tokio's `TcpListener::bind`;
    /// `TcpSocket::listen` takes a number of its own.
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
