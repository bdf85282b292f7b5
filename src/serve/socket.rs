//! The options of TCP sockets. The listener is responsible for connections of another kind, such as
//! TLS.

use std::any::Any;

use tokio::net::TcpStream;

use crate::watchdog::{self, Watchdog};

/// Sets the options of a socket.
pub(super) fn prepare<IO: 'static>(io: &IO, watchdog: &Watchdog) {
    if let Some(socket) = (io as &dyn Any).downcast_ref::<TcpStream>() {
        watchdog.prepare(socket);
    }
}

/// Makes the system drop the unsent bytes when the connection is closed.
pub(super) fn reset<IO: 'static>(io: &IO) {
    if let Some(socket) = (io as &dyn Any).downcast_ref::<TcpStream>() {
        watchdog::reset(socket);
    }
}
