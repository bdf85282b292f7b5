//! Authentication: the owner of a stream, and the origins that may open streams.
//!
//! A hub authenticates nobody. The handler verifies the request, as for every other route, and puts
//! only verified names into the [`Subscriber`](crate::Subscriber). The example `auth_cors` is a
//! whole server with cookies, tokens, tickets, logout and CORS.
//!
//! | client | proof | why |
//! |---|---|---|
//! | a page of your origin with `EventSource` | the session cookie | the browser sends the cookie by itself |
//! | a page of your origin with the [browser client](super::browser) | a cookie, or `Authorization` | `fetch` can set headers |
//! | a page of another origin with `EventSource` | a ticket in the URL, for one use within seconds | `EventSource` sets no headers, and many browsers block third-party cookies |
//! | a mobile application, another service | `Authorization` | |
//!
//! # The session ends, the stream must end
//!
//! An open stream outlives the check at its beginning. Three steps close the hole:
//!
//! 1. Give the stream the deadline of its token, with [`expires_in`](crate::Subscriber::expires_in)
//!    or [`expires_at`](crate::Subscriber::expires_at).
//! 2. At logout, delete the session first, and then [disconnect](crate::Hub::disconnect) it.
//! 3. After subscribing, check the session again. A logout between the first check and the
//!    subscription found no stream to end.
//!
//! ```
//! use std::time::Duration;
//! use sse_hub::{
//!     Audience, DisconnectError, Event, Goodbye, Hub, LastEventId, Refused, Subscriber,
//!     Subscription,
//! };
//!
//! # struct Session { id: String, user: u64, remaining: Duration }
//! # struct Sessions;
//! # impl Sessions {
//! #     fn is_open(&self, session: &Session) -> bool { true }
//! #     fn delete(&self, session: &Session) {}
//! # }
//! /// The handler of the stream, after the cookie or the token was verified.
//! fn events(
//!     hub: &Hub,
//!     sessions: &Sessions,
//!     session: &Session,
//!     last: LastEventId,
//! ) -> Result<Option<Subscription>, Refused> {
//!     let who = Subscriber::new()
//!         .user(session.user)
//!         .session(&session.id)
//!         .expires_in(session.remaining)
//!         .resume(last);
//!     let stream = hub.subscribe(who)?;
//!     // `None` becomes a `401`. Dropping the stream ends it.
//!     Ok(sessions.is_open(session).then_some(stream))
//! }
//!
//! fn logout(hub: &Hub, sessions: &Sessions, session: &Session) -> Result<(), DisconnectError> {
//!     sessions.delete(session);
//!     let goodbye = Goodbye::from_static("logout").event(Event::new("logged-out"));
//!     hub.disconnect(Audience::session(&session.id), goodbye)?;
//!     Ok(())
//! }
//! ```
//!
//! With a session library:
//!
//! - Use a random name from the session's record in [`session`](crate::Subscriber::session), not the
//!   id of the session, which is the secret of the cookie.
//! - Write the deadline into the record at the login. `tower-sessions` 0.15 (for axum 0.8) computes
//!   `Session::expiry_date` from the time of the request.
//! - In step 3, load the record again: `Session::load` of `tower-sessions` asks the store.
//! - `tower-sessions` 0.15 removes a cookie without the attribute `Secure`. Browsers refuse such a
//!   removal if the name begins with `__Host-`, and keep the cookie of the deleted session.
//!
//! # Ids from a request prove nothing
//!
//! A client id, a topic or a user in a URL or a body is a wish of the sender.
//!
//! - To address a tab that a request names, add the verified user:
//!   `Audience::client(id).and(Audience::user(me))`. Otherwise a request can aim at the tab of
//!   another user.
//! - [`Subscriber::client_id`](crate::Subscriber::client_id) needs no such care: the hub checks
//!   that the id belonged to the same user and session.
//! - Check each topic against the rights of the user before `Subscriber::topic`.
//!   [`join_topic`](crate::http::join_topic) takes your check as an argument.
//! - A client id is a capability for clients without a user and a session: do not log it.
//!
//! # Other origins
//!
//! CORS lets a page of another origin *read* a response. It does not stop the request: a browser
//! may open a stream with your user's cookie for any page. So refuse unknown `Origin`s before
//! subscribing.
//!
//! | header | value |
//! |---|---|
//! | `access-control-allow-origin` | the exact origin from a list, never `*` |
//! | `access-control-allow-credentials` | `true`, if cookies are sent |
//! | `access-control-allow-headers` | `authorization`, `cache-control`, `last-event-id`, `content-type` |
//! | `vary` | `origin`, so that no cache answers one origin with the response for another |
//!
//! A native `EventSource` needs no permission for its headers. Clients with `fetch`, and polyfills,
//! send `last-event-id` and often `cache-control`, and a preflight without these fails.
//!
//! With tower-http, `CorsLayer` does all of this if the origins are listed. With warp:
//!
//! - Never combine `warp::cors().allow_any_origin()` with `.allow_credentials(true)`: warp then
//!   reflects every origin, so any page can read the streams of your users with their cookies. List
//!   the origins with `allow_origins`.
//! - `warp::cors()` sends no `vary: origin`. Add `warp::reply::with::header("vary", "origin")`.
//!
//! # Answers to a request without proof
//!
//! - `401` if the page can log in again. `EventSource` stops for good, and its page sees `CLOSED`
//!   in `onerror`; the browser client calls `renew`.
//! - [`stop_response`](crate::http::stop_response), a `204`, if no later request can succeed. Never
//!   for an expired session: the client could not tell the answer from the regular end of a stream.
//!
//! # Limits
//!
//! - URLs end up in logs of proxies. A ticket in a URL must expire within seconds, be of no use for
//!   other routes, and open one stream only. A native `EventSource` that reconnects with a used
//!   ticket gets a `401`, and its page asks for another ticket.
//! - With several instances, [`disconnect`](crate::Hub::disconnect) needs the backplane. A deadline
//!   needs nothing.
//! - Tabs that share a stream share its identity: see [`browser`](super::browser).
