//! What the server does with a connection that is a TCP socket. A connection of another kind, such
//! as TLS, is the business of its listener.

use std::any::Any;

use tokio::net::{TcpListener, TcpStream};

use crate::watchdog::{self, Watchdog};

/// Sets the options of a socket, unless its listener has them.
pub(super) fn prepare<IO: 'static>(io: &IO, watchdog: &Watchdog) {
    if let Some(socket) = (io as &dyn Any).downcast_ref::<TcpStream>()
        && !watchdog::is_prepared(socket)
    {
        watchdog.prepare(socket);
    }
}

/// Sets the options of a listener. On Linux, connections inherit them: six system calls less for
/// each. Connections that wait since before have none.
pub(super) fn prepare_listener<L: 'static>(listener: &L, watchdog: &Watchdog) {
    if let Some(socket) = (listener as &dyn Any).downcast_ref::<TcpListener>() {
        watchdog.prepare(socket);
    }
}

/// Makes the system drop the unsent bytes when the connection is closed.
pub(super) fn reset<IO: 'static>(io: &IO) {
    if let Some(socket) = (io as &dyn Any).downcast_ref::<TcpStream>() {
        watchdog::reset(socket);
    }
}
