//! Refuses requests for other hosts.
//!
//! The demo listens on this machine only. A page of the web could still reach it: the host name of the
//! page can resolve to 127.0.0.1, and the browser then takes the page and the demo for one origin (DNS
//! rebinding). The page could send events to everybody. Such a request names the host of the page.

use axum::extract::Request;
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

pub(crate) async fn own_only(request: Request, next: Next) -> Response {
    if is_own(request.headers(), request.uri()) {
        return next.run(request).await;
    }
    (StatusCode::FORBIDDEN, "unknown host").into_response()
}

/// Returns true if the request is for this machine. With HTTP/2 the host is in the URI. If there are
/// several hosts, each must be this machine.
fn is_own(headers: &HeaderMap, uri: &Uri) -> bool {
    let of_headers = headers.get_all(HOST).iter().map(|host| host.to_str().ok()?.parse().ok());
    let of_uri = uri.authority().map(|authority| Some(authority.clone()));
    let mut hosts = of_headers.chain(of_uri).peekable();
    hosts.peek().is_some() && hosts.all(|host: Option<Authority>| host.is_some_and(is_this_machine))
}

fn is_this_machine(host: Authority) -> bool {
    let name = host.host().to_ascii_lowercase();
    matches!(name.as_str(), "localhost" | "127.0.0.1" | "[::1]")
}
