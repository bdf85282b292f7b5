//! The service without a framework, on hyper and `sse_hub::http`, and the loop that serves any of
//! the services over HTTP/2 and TLS, if their own servers cannot.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ORIGIN as ORIGIN_HEADER, VARY,
};
use axum::http::{HeaderValue, Method, Request, Response, StatusCode};
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper::service::{Service as HyperService, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use sse_hub::LastEventId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::servers::{ORIGIN, Service, Who, page};

/// The protocols of the loop: HTTP/1.1, and HTTP/2 if the client starts with HTTP/2 or TLS
/// negotiates HTTP/2.
#[derive(Clone, Default)]
pub(crate) struct Listening {
    pub(crate) tls: Option<TlsAcceptor>,
}

pub(crate) fn from_tower<S>(service: S) -> TowerToHyperService<S> {
    TowerToHyperService::new(service)
}

pub(crate) fn service(
    service: Arc<Service>,
    cors: bool,
) -> impl HyperService<
    Request<Incoming>,
    Response = Response<Body>,
    Error = Infallible,
    Future: Send + 'static,
> + Clone
+ Send
+ 'static {
    service_fn(move |request: Request<Incoming>| {
        let service = Arc::clone(&service);
        async move {
            let mut response = match request.method() {
                &Method::OPTIONS => Response::default(),
                _ => answer(&service, &request),
            };
            if cors {
                allow(&request, &mut response);
            }
            Ok::<_, Infallible>(response)
        }
    })
}

fn answer(service: &Service, request: &Request<Incoming>) -> Response<Body> {
    service.note(request.uri(), request.headers());
    match request.uri().path() {
        "/" => page().unwrap(),
        "/events" => {
            let last = LastEventId::from_request(request.headers(), request.uri());
            let who = who(request.uri().query().unwrap_or_default());
            sse_hub::http::into_response(service.events(who, last)).map(Body::new)
        }
        "/own" => sse_hub::http::stream_response(Service::own()).map(Body::new),
        "/gone" => match service.gone() {
            Some(stream) => sse_hub::http::stream_response(stream).map(Body::new),
            None => status(StatusCode::NO_CONTENT),
        },
        _ => status(StatusCode::NOT_FOUND),
    }
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::default();
    *response.status_mut() = status;
    response
}

/// The names in the tests contain no character that a query would encode.
fn who(query: &str) -> Who {
    let mut who = Who::default();
    for (name, value) in query.split('&').filter_map(|parameter| parameter.split_once('=')) {
        let value = Some(value.to_owned());
        match name {
            "user" => who.user = value,
            "session" => who.session = value,
            "topics" => who.topics = value,
            _ => {}
        }
    }
    who
}

fn allow(request: &Request<Incoming>, response: &mut Response<Body>) {
    let headers = response.headers_mut();
    // Also for other origins: a cache must not serve their responses to this origin.
    headers.insert(VARY, HeaderValue::from_static("origin"));
    if request.headers().get(ORIGIN_HEADER).is_none_or(|origin| origin != ORIGIN) {
        return;
    }
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static(ORIGIN));
    headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    if request.method() == Method::OPTIONS {
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET"));
        let allowed = HeaderValue::from_static("last-event-id, authorization");
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    }
}

/// A listener for `sse_hub::serve`. Each handshake has a task, because it may take long.
pub(crate) struct OverTls {
    accepted: UnboundedReceiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

pub(crate) fn over_tls(listener: TcpListener, tls: TlsAcceptor) -> OverTls {
    let address = listener.local_addr().unwrap();
    let (sender, accepted) = unbounded_channel();
    let accepting = tokio::spawn(async move {
        loop {
            let (socket, peer) = listener.accept().await.unwrap();
            let (tls, sender) = (tls.clone(), sender.clone());
            tokio::spawn(async move {
                // A browser that does not trust the certificate yet breaks the connection.
                if let Ok(socket) = tls.accept(socket).await {
                    let _ = sender.send((socket, peer));
                }
            });
        }
    });
    OverTls { accepted, address, accepting }
}

impl Listener for OverTls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        self.accepted.recv().await.expect("the task accepts until the drop")
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl Drop for OverTls {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

pub(crate) async fn serve<S, B>(
    listener: TcpListener,
    listening: Listening,
    service: S,
    stopped: impl Future<Output = ()>,
) where
    S: HyperService<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: hyper::body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let graceful = GracefulShutdown::new();
    let mut stopped = pin!(stopped);
    loop {
        let (socket, _) = tokio::select! {
            accepted = listener.accept() => accepted.unwrap(),
            () = &mut stopped => break,
        };
        let (service, watcher) = (service.clone(), graceful.watcher());
        let tls = listening.tls.clone();
        tokio::spawn(async move {
            match tls {
                None => connection(socket, service, watcher).await,
                // A browser that does not trust the certificate yet breaks the connection.
                Some(tls) => {
                    if let Ok(socket) = tls.accept(socket).await {
                        connection(socket, service, watcher).await;
                    }
                }
            }
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

async fn connection<I, S, B>(socket: I, service: S, watcher: hyper_util::server::graceful::Watcher)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: HyperService<Request<Incoming>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: hyper::body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let builder = auto::Builder::new(TokioExecutor::new());
    let serving = builder.serve_connection(TokioIo::new(socket), service).into_owned();
    // A closed connection is no failure.
    let _ = watcher.watch(serving).await;
}
