//! A small service, mounted in every way that the crate supports.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Query, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use futures_util::stream::{self, Stream};
use serde::Deserialize;
use sse_hub::{
    Event, EventStream, Hub, LastEventId, Refused, Subscriber, Subscription, TokioTimer,
};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tower_http::cors::CorsLayer;
use warp::Filter as _;

use crate::{bare, within};

/// The mount of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Adapter {
    Axum,
    Warp,
    Hyper,
    /// The router of axum behind `sse_hub::serve`.
    Direct,
}

impl Adapter {
    pub(crate) const ALL: [Self; 4] = [Self::Axum, Self::Warp, Self::Hyper, Self::Direct];
}

/// The allowed origin, if [`Mount::cors`] is set.
pub(crate) const ORIGIN: &str = "https://app.example";

pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The page that a browser opens before the stream.
pub(crate) const PAGE: &str = "<!doctype html><link rel=icon href='data:,'><title>page</title>";

/// The state behind the routes.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) hub: Hub,
    /// All requests for streams, in order.
    requests: Mutex<Vec<Asked>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) last: Option<String>,
    pub(crate) at: Instant,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Who {
    pub(crate) user: Option<String>,
    pub(crate) session: Option<String>,
    pub(crate) topics: Option<String>,
}

/// How many times `/gone` still answers with a stream, before the answer 204.
const STREAMS_BEFORE_GONE: usize = 2;

impl Service {
    /// `GET /events`.
    pub(crate) fn events(&self, who: Who, last: LastEventId) -> Result<Subscription, Refused> {
        let mut subscriber = Subscriber::new().resume(last);
        if let Some(user) = who.user {
            subscriber = subscriber.user(user);
        }
        if let Some(session) = who.session {
            subscriber = subscriber.session(session);
        }
        if let Some(topics) = who.topics {
            subscriber = subscriber.topics(topics.split(','));
        }
        self.hub.subscribe(subscriber)
    }

    /// `GET /own`: events with ids of their own. The last id is invalid.
    pub(crate) fn own() -> EventStream<impl Stream<Item = Event> + Send + Sync + 'static> {
        let events = [
            Event::new("token").data("a\rid: 9").id("answer-7.1_~"),
            Event::default().data("\n").id("x".repeat(Event::MAX_ID_LEN)),
            Event::new("slow").retry(Duration::from_millis(1_500)).comment("one line"),
            Event::new("token").data("never sent").id("7\n8"),
            Event::new("token").data("nor this"),
        ];
        EventStream::new(stream::iter(events), TokioTimer::new()).retry(Duration::from_secs(2))
    }

    /// `GET /gone`: a stream that ends at once and is requested again, and finally 204.
    pub(crate) fn gone(
        &self,
    ) -> Option<EventStream<impl Stream<Item = Event> + Send + Sync + 'static>> {
        if self.asked("/gone").len() > STREAMS_BEFORE_GONE {
            return None;
        }
        let events = stream::iter([Event::new("still").data("here")]);
        Some(EventStream::new(events, TokioTimer::new()).retry(Duration::from_millis(10)))
    }

    pub(crate) fn note(&self, uri: &Uri, headers: &HeaderMap) {
        let last = headers.get(LAST_EVENT_ID);
        let last = last.map(|last| String::from_utf8_lossy(last.as_bytes()).into_owned());
        let asked = Asked { path: uri.path().to_owned(), last, at: Instant::now() };
        self.requests.lock().unwrap().push(asked);
    }

    /// Returns the requests for a path so far.
    pub(crate) fn asked(&self, path: &str) -> Vec<Asked> {
        let requests = self.requests.lock().unwrap();
        requests.iter().filter(|asked| asked.path == path).cloned().collect()
    }
}

/// How a server is started.
#[derive(Clone)]
pub(crate) struct Mount {
    pub(crate) adapter: Adapter,
    pub(crate) cors: bool,
    /// By the loop of the tests over the adapter's service, instead of the adapter's own server.
    pub(crate) looped: Option<bare::Listening>,
    pub(crate) port: u16,
}

impl Mount {
    pub(crate) fn new(adapter: Adapter) -> Self {
        Self { adapter, cors: false, looped: None, port: 0 }
    }

    pub(crate) async fn start(self, hub: &Hub) -> Server {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = Arc::new(Service { hub: hub.clone(), requests: Mutex::default() });
        let (stop, stopped) = oneshot::channel();
        let serving = self.serve(listener, Arc::clone(&service), stopped);
        Server { service, address, stop, serving }
    }

    fn serve(
        self,
        listener: TcpListener,
        service: Arc<Service>,
        stopped: oneshot::Receiver<()>,
    ) -> JoinHandle<()> {
        let stopped = async {
            let _ = stopped.await;
        };
        match (self.adapter, self.looped) {
            (Adapter::Axum, None) => {
                let serving = axum::serve(listener, router(service, self.cors));
                let serving = serving.with_graceful_shutdown(stopped);
                tokio::spawn(async move { serving.await.unwrap() })
            }
            (Adapter::Axum, Some(listening)) => {
                let service = bare::from_tower(router(service, self.cors));
                tokio::spawn(bare::serve(listener, listening, service, stopped))
            }
            (Adapter::Warp, None) => {
                let serving = warp::serve(routes(service, self.cors)).incoming(listener);
                tokio::spawn(serving.graceful(stopped).run())
            }
            (Adapter::Warp, Some(listening)) => {
                let service = bare::from_tower(warp::service(routes(service, self.cors)));
                tokio::spawn(bare::serve(listener, listening, service, stopped))
            }
            (Adapter::Direct, listening) => {
                let router = router(service, self.cors);
                match listening.and_then(|listening| listening.tls) {
                    Some(tls) => {
                        let serving = sse_hub::serve(bare::over_tls(listener, tls), router);
                        let serving = serving.with_graceful_shutdown(stopped);
                        tokio::spawn(async move { serving.await.unwrap() })
                    }
                    None => {
                        let serving = sse_hub::serve(listener, router);
                        let serving = serving.with_graceful_shutdown(stopped);
                        tokio::spawn(async move { serving.await.unwrap() })
                    }
                }
            }
            (Adapter::Hyper, listening) => {
                let service = bare::service(service, self.cors);
                let listening = listening.unwrap_or_default();
                tokio::spawn(bare::serve(listener, listening, service, stopped))
            }
        }
    }
}

/// A service that runs until the drop.
pub(crate) struct Server {
    pub(crate) service: Arc<Service>,
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(adapter: Adapter, hub: &Hub) -> Self {
        Mount::new(adapter).start(hub).await
    }

    /// Closes the listener, waits for open responses, and closes all connections.
    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        within("the server stops", self.serving).await.unwrap();
    }
}

fn router(service: Arc<Service>, cors: bool) -> Router {
    async fn events(
        State(service): State<Arc<Service>>,
        Query(who): Query<Who>,
        last: LastEventId,
    ) -> Result<Subscription, Refused> {
        service.events(who, last)
    }
    let gone = |State(service): State<Arc<Service>>| async move {
        match service.gone() {
            Some(stream) => stream.into_response(),
            None => StatusCode::NO_CONTENT.into_response(),
        }
    };
    let noting = Arc::clone(&service);
    let note = axum::middleware::from_fn(
        move |request: axum::extract::Request, next: axum::middleware::Next| {
            noting.note(request.uri(), request.headers());
            next.run(request)
        },
    );
    let router = Router::new()
        .route("/", get(|| async { Html(PAGE) }))
        .route("/events", get(events))
        .route("/own", get(|| async { Service::own() }))
        .route("/gone", get(gone))
        .layer(note)
        .with_state(service);
    if !cors {
        return router;
    }
    let cors = CorsLayer::new()
        .allow_origin([HeaderValue::from_static(ORIGIN)])
        .allow_credentials(true)
        .allow_methods([Method::GET])
        .allow_headers([LAST_EVENT_ID, AUTHORIZATION]);
    router.layer(cors)
}

fn routes(
    service: Arc<Service>,
    cors: bool,
) -> warp::filters::BoxedFilter<(Box<dyn warp::Reply>,)> {
    let noting = Arc::clone(&service);
    let uri = warp::path::full().map(|path: warp::path::FullPath| {
        Uri::try_from(path.as_str()).expect("the request had this URI")
    });
    let note = warp::get()
        .and(uri)
        .and(warp::header::headers_cloned())
        .map(move |uri: Uri, headers: HeaderMap| noting.note(&uri, &headers))
        .untuple_one();
    let page = warp::path::end().map(|| boxed(warp::reply::html(PAGE)));
    let hub = Arc::clone(&service);
    let events = warp::path!("events")
        .and(warp::query::<Who>())
        .and(sse_hub::warp::last_event_id())
        .map(move |who, last| boxed(hub.events(who, last)));
    let own = warp::path!("own").map(|| boxed(Service::own()));
    let gone = warp::path!("gone").map(move || match service.gone() {
        Some(stream) => boxed(stream),
        None => boxed(StatusCode::NO_CONTENT),
    });
    let routes = note.and(page.or(events).unify().or(own).unify().or(gone).unify());
    if !cors {
        return routes.boxed();
    }
    let cors = warp::cors()
        .allow_origin(ORIGIN)
        .allow_credentials(true)
        .allow_method(Method::GET)
        .allow_headers([LAST_EVENT_ID, AUTHORIZATION]);
    // Warp's layer omits `vary`: a cache could serve a response to another origin.
    let vary = warp::reply::with::header("vary", "origin");
    routes.with(cors).with(vary).map(boxed).boxed()
}

fn boxed(reply: impl warp::Reply + 'static) -> Box<dyn warp::Reply> {
    Box::new(reply)
}

/// The page as a plain response.
pub(crate) fn page<B: From<&'static str>>() -> Result<Response<B>, Infallible> {
    let mut response = Response::new(PAGE.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    Ok(response)
}
