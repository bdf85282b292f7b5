//! Topics that a page joins and leaves by requests.

use std::str;

use ::http::request::Parts;
use ::http::{Method, StatusCode};

use super::http::ErrorResponse;
use crate::hub::hub::Hub;
use crate::hub::subscriber::Subscriber;
use crate::log::key::ClientId;

/// Adds the client that a request names to a topic, or removes the client: for `POST` and `DELETE
/// /topics?client=...&topic=...`, as the head of the request says.
///
/// `POST` is [`join_topic`], and `DELETE` is [`leave_topic`]: these have the parameters and the
/// statuses. A page of another site can send a `GET` with the cookies of a user, so other methods
/// change nothing.
///
#[cfg_attr(feature = "axum-serve", doc = "```")]
#[cfg_attr(not(feature = "axum-serve"), doc = "```ignore")]
/// use axum::Router;
/// use axum::extract::State;
/// use axum::http::StatusCode;
/// use axum::http::request::Parts;
/// use axum::routing::post;
/// use sse_hub::http::{ErrorResponse, change_topics};
/// use sse_hub::{Hub, Subscriber};
///
/// async fn topics(State(hub): State<Hub>, parts: Parts) -> Result<StatusCode, ErrorResponse> {
///     let who = Subscriber::new().user(42); // The verified user, as in the handler of the stream.
///     change_topics(&hub, &who, &parts, |topic| topic.starts_with("room-"))
/// }
///
/// fn app(hub: Hub) -> Router {
///     Router::new().route("/topics", post(topics).delete(topics)).with_state(hub)
/// }
/// # let _ = app(Hub::builder(sse_hub::ManualTimer::new()).build()?);
/// # Ok::<(), sse_hub::ConfigError>(())
/// ```
///
/// # Errors
///
/// Returns the statuses of [`join_topic`], and `400` for a method other than `POST` and `DELETE`.
pub fn change_topics(
    hub: &Hub,
    who: &Subscriber,
    head: &Parts,
    authorize: impl FnOnce(&str) -> bool,
) -> Result<StatusCode, ErrorResponse> {
    let query = head.uri.query().unwrap_or_default();
    match head.method {
        Method::POST => join_topic(hub, who, query, authorize),
        Method::DELETE => leave_topic(hub, who, query),
        _ => Err(StatusCode::BAD_REQUEST.into()),
    }
}

/// Adds the client that a request names to a topic: for `POST /topics?client=...&topic=...`.
///
/// `who` is the verified identity of the request: the user and the session with which the handler
/// of the stream subscribes. `query` is the query of the request's URL:
///
/// | parameter | content |
/// |---|---|
/// | `client` | the client's id, from `hub:open` |
/// | `topic` | the topic, percent-encoded |
/// | `last` | optional: [replays](Hub::join_with_last) at most so many events of the topic |
///
/// `authorize` decides whether the identity may follow the topic.
///
/// The browser client of this project sends these requests, and sends them again after a reconnect:
/// see its option `topics`. Allow these requests only from the origins that may read the stream.
///
/// # Errors
///
/// | status | when |
/// |---|---|
/// | `400` | a parameter is missing or malformed, the topic's name is invalid, or the client would have too many topics |
/// | `403` | `authorize` says no, or the client is not connected as this user and session |
/// | `503` | as for [`Hub::join`] |
///
/// A request with the id of another user's client gets `403`, as a request with an unknown id does.
/// With a backplane, a client of another instance is not looked up: the status is
/// then `204` for each id, and only a client of `who` joins.
///
/// The topic is [joined](Hub::join): a client that returns with its id gets the topic back, and need
/// not ask again.
///
/// ```
/// use http::StatusCode;
/// use sse_hub::http::{ErrorResponse, join_topic, leave_topic};
/// use sse_hub::{Hub, ManualTimer, Subscriber};
///
/// /// `POST` and `DELETE /topics` of a server with axum, warp, or another. For these two, the
/// /// `Result` is the response.
/// fn topics(hub: &Hub, user: u64, method: &str, query: &str) -> Result<StatusCode, ErrorResponse> {
///     let who = Subscriber::new().user(user);
///     match method {
///         "POST" => join_topic(hub, &who, query, |topic| topic.starts_with("room-")),
///         _ => leave_topic(hub, &who, query),
///     }
/// }
///
/// let hub = Hub::builder(ManualTimer::new()).build()?;
/// let tab = hub.subscribe(Subscriber::new().user(42))?;
/// let query = format!("client={}&topic=room-7&last=20", tab.client_id());
/// assert_eq!(topics(&hub, 42, "POST", &query).unwrap(), StatusCode::NO_CONTENT);
/// assert_eq!(topics(&hub, 43, "POST", &query).unwrap_err().status(), StatusCode::FORBIDDEN);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn join_topic(
    hub: &Hub,
    who: &Subscriber,
    query: &str,
    authorize: impl FnOnce(&str) -> bool,
) -> Result<StatusCode, ErrorResponse> {
    let request = TopicRequest::read(query).ok_or(StatusCode::BAD_REQUEST)?;
    if !authorize(&request.topic) {
        return Err(StatusCode::FORBIDDEN.into());
    }
    hub.follow(who, request.client, request.topic, request.last)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes the client that a request names from a topic: for `DELETE /topics?client=...&topic=...`.
///
/// # Errors
///
/// Returns the statuses of [`join_topic`].
pub fn leave_topic(hub: &Hub, who: &Subscriber, query: &str) -> Result<StatusCode, ErrorResponse> {
    let request = TopicRequest::read(query).ok_or(StatusCode::BAD_REQUEST)?;
    hub.unfollow(who, request.client, request.topic)?;
    Ok(StatusCode::NO_CONTENT)
}

/// The parameters of a request.
#[derive(Debug, PartialEq, Eq)]
struct TopicRequest {
    client: ClientId,
    topic: String,
    last: usize,
}

impl TopicRequest {
    /// Reads a query. Returns `None` if a parameter is missing, malformed, or there twice: two
    /// readers of the request could take different values.
    fn read(query: &str) -> Option<Self> {
        let (mut client, mut topic, mut last) = (None, None, None);
        for parameter in query.split('&') {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let place = match decode(name)?.as_str() {
                "client" => &mut client,
                "topic" => &mut topic,
                "last" => &mut last,
                // Such as a token, or a parameter against caches.
                _ => continue,
            };
            if place.replace(decode(value)?).is_some() {
                return None;
            }
        }
        let last = last.map_or(Some(0), |last| last.parse::<u32>().ok())?;
        Some(Self { client: client?.parse().ok()?, topic: topic?, last: last as usize })
    }
}

/// Decodes the form of a query: `+` is a blank, and `%` begins the two digits of a byte. Returns
/// `None` if the text is malformed or no UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let (digits, after) = rest.split_first_chunk::<2>()?;
                rest = after;
                // `from_str_radix` would take a sign.
                let is_hex = digits.iter().all(u8::is_ascii_hexdigit);
                is_hex.then(|| u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok())??
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: &str = "00112233445566778899aabbccddeeff";

    fn read(query: &str) -> Option<(String, usize)> {
        let request = TopicRequest::read(query)?;
        assert_eq!(request.client.to_string(), CLIENT);
        Some((request.topic, request.last))
    }

    #[test]
    fn parameters_are_decoded() {
        for (query, topic, last) in [
            ("topic=a", "a", 0),
            ("topic=a&last=20", "a", 20),
            ("last=0&topic=", "", 0),
            ("topic=a+b%2Bc%26%3d%25", "a b+c&=%", 0),
            ("t%6Fpic=%C3%BC", "ü", 0),
            ("topic=ü&other=%41&&x", "ü", 0),
            ("topic=a=b", "a=b", 0),
        ] {
            let expected = Some((topic.to_owned(), last));
            assert_eq!(read(&format!("{query}&client={CLIENT}")), expected, "{query}");
            assert_eq!(read(&format!("client={CLIENT}&{query}")), expected, "{query}");
        }
    }

    #[test]
    fn malformed_queries_are_refused() {
        for query in [
            "",
            "topic=a",
            "topic=a&topic=a",
            "topic=a&last=-1",
            "topic=a&last=%2B1&last=2",
            "topic=a&last=4294967296",
            "topic=a&last=",
            "topic=%",
            "topic=%2",
            "topic=%+1",
            "topic=%zz",
            "topic=%FF",
            "topic=a&%=b",
        ] {
            let with_client = format!("{query}&client={CLIENT}");
            assert!(query == "topic=a" || read(&with_client).is_none(), "{query}");
            assert_eq!(read(query), None, "{query}");
        }
        assert_eq!(read("topic=a&client=00"), None);
        assert_eq!(read(&format!("topic=a&client={CLIENT}&client={CLIENT}")), None);
        assert_eq!(read(&format!("topic=a&client={}", CLIENT.to_uppercase())), None);
    }
}
