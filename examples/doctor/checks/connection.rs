//! Requests as a browser sends them, each over a connection of its own.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body as _, Incoming};
use hyper::header::{ACCEPT, ACCEPT_ENCODING, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use hyper::{Method, Request, StatusCode, Uri, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::stream::{End, Stream};

/// The longest time for a connection, a head, and the first frame.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// The protocols of a browser.
pub(crate) const PROTOCOLS: &[&[u8]] = &[b"h2", b"http/1.1"];

/// The stream to examine, and the requests' further headers.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) url: Uri,
    /// The address of the connection, instead of the host of the URL.
    pub(crate) connect: Option<String>,
    /// The origin of a page.
    pub(crate) origin: Option<HeaderValue>,
    /// Further headers, such as a cookie.
    pub(crate) headers: HeaderMap,
    /// The protocols that are offered to a TLS server, in this order.
    pub(crate) protocols: &'static [&'static [u8]],
    /// The certificates that are trusted.
    pub(crate) roots: Arc<RootCertStore>,
    /// How long to watch the stream. Without a time, as long as the checks need.
    pub(crate) window: Option<Duration>,
}

/// The reason why there is no response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection: the name has no address, or no program listens there.
    Connect(String),
    /// The TLS handshake failed.
    Tls(String),
    /// The connection broke before the end of the head.
    Transport(String),
    /// No head came within [`PATIENCE`].
    Silent,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) | Self::Tls(error) | Self::Transport(error) => f.write_str(error),
            Self::Silent => write!(f, "no response within {PATIENCE:?}"),
        }
    }
}

/// The head of a response.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    /// The time from the request.
    pub(crate) after: Duration,
}

impl Head {
    /// Returns the value of a header, or an empty text.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Returns true for an answer that `EventSource` accepts.
    pub(crate) fn is_stream(&self) -> bool {
        let media = self.get("content-type").split(';').next().unwrap_or_default().trim();
        self.status == StatusCode::OK && media.eq_ignore_ascii_case("text/event-stream")
    }

    /// Returns the compression of the body.
    pub(crate) fn compression(&self) -> Option<&str> {
        Some(self.get("content-encoding")).filter(|it| !it.is_empty() && *it != "identity")
    }
}

/// A response, with a body that is read piece by piece. The drop closes the connection.
pub(crate) struct Answer {
    pub(crate) head: Head,
    pub(crate) stream: Stream,
    body: Incoming,
    asked: Instant,
    connection: AbortHandle,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Target {
    /// Sends a request, and returns the response with its head.
    pub(crate) async fn ask(
        &self,
        method: Method,
        uri: &Uri,
        headers: &[(HeaderName, &str)],
    ) -> Result<Answer, Failure> {
        let mut request = Request::new(Empty::new());
        let host = uri.authority().map_or("", |authority| authority.as_str());
        *request.method_mut() = method;
        *request.uri_mut() = uri.clone();
        let own = request.headers_mut();
        if self.is_trusted(uri) {
            own.extend(self.headers.clone());
        }
        own.insert(HOST, HeaderValue::from_str(host).expect("an authority is a header value"));
        own.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        let compressions = HeaderValue::from_static("gzip, deflate, br, zstd");
        own.insert(ACCEPT_ENCODING, compressions);
        if let Some(origin) = &self.origin {
            own.insert(ORIGIN, origin.clone());
        }
        for (name, value) in headers {
            own.insert(name, HeaderValue::from_str(value).expect("the doctor's own value"));
        }
        let asked = Instant::now();
        let answered = timeout(PATIENCE, self.exchange(request, asked)).await;
        answered.unwrap_or(Err(Failure::Silent))
    }

    /// Returns true if the further headers may be sent there: a redirect must not lead a cookie or
    /// a token to another host, or past TLS.
    fn is_trusted(&self, uri: &Uri) -> bool {
        let is_tls = |uri: &Uri| uri.scheme_str() == Some("https");
        uri.host() == self.url.host() && (is_tls(uri) || !is_tls(&self.url))
    }

    async fn exchange(
        &self,
        request: Request<Empty<Bytes>>,
        asked: Instant,
    ) -> Result<Answer, Failure> {
        let uri = request.uri();
        let is_tls = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let socket = match &self.connect {
            Some(address) if uri.authority() == self.url.authority() => {
                TcpStream::connect(address.as_str()).await
            }
            _ => TcpStream::connect((host.as_str(), port)).await,
        };
        let socket = socket.map_err(|error| Failure::Connect(error.to_string()))?;
        if !is_tls {
            return http1(socket, request, asked).await;
        }
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::Tls(error.to_string()))?;
        let mut tls = tls.with_root_certificates(Arc::clone(&self.roots)).with_no_client_auth();
        tls.alpn_protocols = self.protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let failed = |error: &dyn fmt::Display| Failure::Tls(error.to_string());
        let name = ServerName::try_from(host).map_err(|error| failed(&error))?;
        let connected = TlsConnector::from(Arc::new(tls)).connect(name, socket).await;
        let socket = connected.map_err(|error| failed(&error))?;
        match socket.get_ref().1.alpn_protocol() {
            Some(b"h2") => http2(socket, request, asked).await,
            _ => http1(socket, request, asked).await,
        }
    }
}

async fn http1(
    socket: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    mut request: Request<Empty<Bytes>>,
    asked: Instant,
) -> Result<Answer, Failure> {
    // A server takes the host from the header.
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().expect("a part of a URI");
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(socket));
    let (mut sender, connection) = handshake.await.map_err(broken)?;
    let connection = tokio::spawn(async { drop(connection.await) }).abort_handle();
    answer(sender.send_request(request).await, asked, connection)
}

async fn http2(
    socket: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    mut request: Request<Empty<Bytes>>,
    asked: Instant,
) -> Result<Answer, Failure> {
    request.headers_mut().remove(HOST);
    let executor = TokioExecutor::new();
    let handshake = hyper::client::conn::http2::handshake(executor, TokioIo::new(socket));
    let (mut sender, connection) = handshake.await.map_err(broken)?;
    let connection = tokio::spawn(async { drop(connection.await) }).abort_handle();
    answer(sender.send_request(request).await, asked, connection)
}

fn answer(
    response: Result<hyper::Response<Incoming>, hyper::Error>,
    asked: Instant,
    connection: AbortHandle,
) -> Result<Answer, Failure> {
    let (parts, body) = match response {
        Ok(response) => response.into_parts(),
        Err(error) => {
            connection.abort();
            return Err(broken(error));
        }
    };
    let head = Head {
        status: parts.status,
        version: parts.version,
        headers: parts.headers,
        after: asked.elapsed(),
    };
    Ok(Answer { head, stream: Stream::default(), body, asked, connection })
}

fn broken(error: hyper::Error) -> Failure {
    Failure::Transport(told(&error))
}

/// Returns the texts of an error and its sources.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

impl Answer {
    /// The time since the request.
    pub(crate) fn elapsed(&self) -> Duration {
        self.asked.elapsed()
    }

    /// Reads more of the stream. Returns false at the end. Cancel safe: a piece is either summed up
    /// or not read.
    pub(crate) async fn more(&mut self) -> bool {
        let frame = self.body.frame().await;
        let error = match frame {
            Some(Ok(frame)) => {
                if let Some(bytes) = frame.data_ref() {
                    self.stream.push(self.asked.elapsed(), bytes);
                }
                return true;
            }
            Some(Err(error)) => Some(told(&error)),
            None => None,
        };
        self.stream.end = Some(End { at: self.asked.elapsed(), error });
        false
    }

    /// Reads until the condition holds, the stream ends, or the time is over.
    pub(crate) async fn read(&mut self, limit: Duration, until: impl Fn(&Stream) -> bool) {
        let reading = async { while !until(&self.stream) && self.more().await {} };
        let _ = timeout(limit, reading).await;
    }

    /// Returns the begin of a body that is no stream.
    pub(crate) async fn text(mut self) -> String {
        const ENOUGH: usize = 4096;
        let mut text = Vec::new();
        let reading = async {
            while text.len() < ENOUGH && !self.body.is_end_stream() {
                let Some(Ok(frame)) = self.body.frame().await else { break };
                text.extend_from_slice(frame.data_ref().map_or(&[], |bytes| bytes));
            }
        };
        let _ = timeout(PATIENCE, reading).await;
        text.truncate(ENOUGH);
        String::from_utf8_lossy(&text).into_owned()
    }
}
