//! The loop that accepts connections, and the end of the server.

use std::any::Any;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::axum::serve::Listener;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};

use super::Settings;
use super::app::{IncomingStream, Serves};
use super::connection::Connection;
use super::open::{Open, Place, Stage};
use super::{refuse, socket};

/// The longest time until the next attempt, if the system has no resources for a connection. A
/// connection that closes frees some, and ends the wait.
const RETRY_ACCEPT: Duration = Duration::from_secs(1);

/// The time that streams have to end by themselves after the drain.
const GRACE: Duration = Duration::from_secs(5);

/// Serves until the signal, and then until the last connection is closed.
pub(super) async fn serve<L, M, K>(
    mut listener: L,
    mut services: M,
    settings: Settings,
    signal: impl Future<Output = ()>,
) where
    L: Listener,
    M: Serves<L, K>,
{
    set_backlog(&listener, settings.backlog);
    socket::prepare_listener(&listener, &settings.watchdog);
    let open = Arc::new(Open::new(settings.watchdog));
    let refusals = refuse::Refusals::new(&open);
    let mut signal = pin!(signal);
    let mut is_failing = false;
    loop {
        let accepted = {
            let accept = pin!(accept(&mut listener, &open, &mut is_failing));
            poll_first(signal.as_mut(), accept).await
        };
        let Some((io, address)) = accepted else { break };
        socket::prepare(&io, open.watchdog());
        if open.count() >= settings.max_connections {
            refusals.refuse(io);
            continue;
        }
        services.ready().await;
        let app = services.app(IncomingStream::new(&io, &address)).await;
        let place = Place::new(Arc::clone(&open));
        tokio::spawn(Connection::accepted(io, place, app));
    }
    // New connections go to another instance from now on.
    drop(listener);
    drop(services);
    end(&open, settings.drain_over).await;
}

/// Ends all connections: streams with their hubs, other connections after their responses.
async fn end(open: &Open, drain_over: Option<Duration>) {
    open.enter(Stage::Ending);
    let drains = drain_over.map_or_else(Vec::new, |over| open.drain_hubs(over));
    let streams_end = async {
        for drain in drains {
            drain.await;
        }
        tokio::time::sleep(GRACE).await;
        open.enter(Stage::Over);
        std::future::pending::<()>().await;
    };
    poll_first(pin!(open.all_closed()), pin!(streams_end)).await;
}

/// Returns the output of `second`, or `None` if `first` is ready.
async fn poll_first<T>(
    mut first: Pin<&mut impl Future<Output = ()>>,
    mut second: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    poll_fn(|cx: &mut Context<'_>| match first.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(None),
        Poll::Pending => second.as_mut().poll(cx).map(Some),
    })
    .await
}

/// Accepts a connection. Errors of tokio's TCP listener are handled here, and those of other
/// listeners by the listener.
async fn accept<L: Listener>(
    listener: &mut L,
    open: &Open,
    is_failing: &mut bool,
) -> (L::Io, L::Addr) {
    let Some(tcp) = (&mut *listener as &mut dyn Any).downcast_mut::<TcpListener>() else {
        return listener.accept().await;
    };
    loop {
        match TcpListener::accept(tcp).await {
            Ok(accepted) => {
                if std::mem::take(is_failing) {
                    tracing::info!(target: "sse_hub", "connections are accepted again");
                }
                return same(accepted);
            }
            // The client is gone already.
            Err(error) if is_of_connection(&error) => {}
            Err(error) => {
                if !std::mem::replace(is_failing, true) {
                    tracing::warn!(target: "sse_hub", %error, "connections are not accepted");
                }
                let wait = pin!(tokio::time::sleep(RETRY_ACCEPT));
                poll_first(pin!(open.closed()), wait).await;
            }
        }
    }
}

/// Returns the connection as the listener's own types, which are these.
fn same<T: 'static>(accepted: (TcpStream, SocketAddr)) -> T {
    let mut accepted = Some(accepted);
    let accepted = (&mut accepted as &mut dyn Any).downcast_mut::<Option<T>>();
    accepted.and_then(Option::take).expect("the listener is tokio's")
}

fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// A listener can listen again, with another backlog.
fn set_backlog<L: 'static>(listener: &L, backlog: u32) {
    let Some(tcp) = (listener as &dyn Any).downcast_ref::<TcpListener>() else { return };
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    if let Err(error) = SockRef::from(tcp).listen(backlog) {
        tracing::debug!(target: "sse_hub", option = "backlog", %error, "socket option not set");
    }
}
