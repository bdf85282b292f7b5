//! The options of TCP sockets. The listener is responsible for connections of another kind, such as
//! TLS.

use std::any::Any;

use tokio::net::{TcpListener, TcpStream};

use crate::watchdog::{self, Watchdog};

/// Sets the options of a listener. Returns whether accepted sockets inherit the options, which are
/// six system calls.
pub(super) fn prepare_listener<L: 'static>(listener: &L, watchdog: &Watchdog) -> bool {
    let listener = (listener as &dyn Any).downcast_ref::<TcpListener>();
    // Other systems do not promise this for all options.
    let Some(listener) = listener.filter(|_| cfg!(target_os = "linux")) else { return false };
    watchdog.prepare(listener);
    true
}

/// Sets the options of a socket, unless the socket has inherited the options: a connection can be
/// older than the server, and wait in the backlog of the listener.
pub(super) fn prepare<IO: 'static>(io: &IO, watchdog: &Watchdog, inherits: bool) {
    let Some(socket) = (io as &dyn Any).downcast_ref::<TcpStream>() else { return };
    if !inherits || !socket.nodelay().is_ok_and(|is_set| is_set) {
        watchdog.prepare(socket);
    }
}

/// Makes the system drop the unsent bytes when the connection is closed.
pub(super) fn reset<IO: 'static>(io: &IO) {
    if let Some(socket) = (io as &dyn Any).downcast_ref::<TcpStream>() {
        watchdog::reset(socket);
    }
}
