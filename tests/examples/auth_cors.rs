//! The rules of the example.

use std::thread;

use serde_json::json;

use crate::client::{Request, Response};
use crate::server::Server;

/// An origin that the example allows.
const FRIEND: &str = "https://app.example.com";
const STRANGER: &str = "https://app.example.com.evil.example";

fn start() -> Server {
    Server::start("auth_cors")
}

/// Logs in as a page of the same site. Returns the cookie for later requests.
fn cookie(server: &Server) -> String {
    let login = json!({ "user": "ann", "password": "demo" });
    let response = server.post("/login").json(&login);
    assert_eq!(response.status, 204);
    let cookie = response.header("set-cookie").expect("a cookie");
    cookie.split(';').next().unwrap().to_owned()
}

fn token(server: &Server) -> String {
    let login = json!({ "user": "ann", "password": "demo" });
    let answer = server.post("/token").json(&login).json();
    answer["token"].as_str().expect("a token").to_owned()
}

fn ticket(server: &Server, bearer: &str) -> String {
    let response = server.post("/ticket").header("authorization", bearer).send();
    assert_eq!(response.status, 200);
    response.json()["ticket"].as_str().expect("a ticket").to_owned()
}

fn with_ticket(server: &Server, ticket: &str) -> Request {
    server.get(&format!("/events?ticket={ticket}"))
}

#[track_caller]
fn is_unauthorized(response: Response) {
    assert_eq!((response.status, response.header("www-authenticate")), (401, Some("Bearer")));
    assert_ne!(response.header("content-type"), Some("text/event-stream"));
}

#[test]
fn session_cookie_opens_the_stream() {
    let server = start();
    let login = json!({ "user": "ann", "password": "demo" });
    let response = server.post("/login").json(&login);
    let set = response.header("set-cookie").unwrap();
    let (cookie, attributes) = set.split_once("; ").unwrap();
    assert!(cookie.starts_with("__Host-session="), "{set}");
    let mut attributes: Vec<_> = attributes.split("; ").collect();
    attributes.sort_unstable();
    // Without `Domain`, the cookie is for this host alone.
    assert_eq!(attributes, ["HttpOnly", "Max-Age=3600", "Path=/", "SameSite=Strict", "Secure"]);

    // The browser has other cookies too.
    let cookies = format!("theme=dark; {cookie}; lang=en");
    let (mut page, _) = server.get("/events").header("cookie", &cookies).send().opened();
    let note = server.post("/note").header("cookie", cookie).json(&json!({ "text": "hello" }));
    assert_eq!(note.status, 204);
    let note = page.frame();
    assert_eq!((note.event.as_str(), note.data.as_str()), ("note", "hello"));
}

#[test]
fn login_takes_json_and_no_form() {
    let server = start();
    let wrong = json!({ "user": "ann", "password": "guess" });
    let response = server.post("/login").json(&wrong);
    assert_eq!((response.status, response.header("set-cookie")), (401, None));
    let form = server.post("/login").header("content-type", "application/x-www-form-urlencoded");
    let response = form.body("user=ann&password=demo");
    assert_eq!((response.status, response.header("set-cookie")), (415, None));
    // A form of another site can send this content type.
    let text = server.post("/login").header("content-type", "text/plain");
    assert_eq!(text.body(r#"{"user":"ann","password":"demo"}"#).status, 415);
}

#[test]
fn request_without_proof_gets_401() {
    let server = start();
    is_unauthorized(server.get("/events").send());
    is_unauthorized(server.get("/events").header("cookie", "__Host-session=x.y").send());
    is_unauthorized(server.get("/events").header("cookie", "__Host-session=").send());
    is_unauthorized(server.get("/events?ticket=").send());
    is_unauthorized(server.get("/events").header("authorization", "Basic YW5uOmRlbW8=").send());
    is_unauthorized(server.post("/ticket").send());
    is_unauthorized(server.post("/logout").send());
}

#[test]
fn token_opens_the_stream() {
    let server = start();
    let bearer = format!("Bearer {}", token(&server));
    let (mut stream, open) = server.get("/events").header("authorization", &bearer).send().opened();
    let note = server.post("/note").header("authorization", &bearer);
    assert_eq!(note.json(&json!({ "text": "one" })).status, 204);
    assert_eq!(stream.frame().data, "one");

    // The stream resumes.
    drop(stream);
    let back = server.get("/events").header("authorization", &bearer);
    let last = open.id.unwrap().to_string();
    let (mut stream, open) = back.header("last-event-id", &last).send().opened();
    assert!(open.data.contains("\"resumed\":true"));
    assert_eq!(stream.frame().data, "one");

    // A valid cookie must not replace an invalid token: the request would act for another user.
    let request = server.get("/events").header("cookie", &cookie(&server));
    is_unauthorized(request.header("authorization", "Bearer x.y").send());
}

#[test]
fn ticket_opens_the_stream() {
    let server = start();
    let bearer = format!("Bearer {}", token(&server));
    let request = server.post("/ticket").header("authorization", &bearer).header("origin", FRIEND);
    let response = request.send();
    assert_eq!(response.header("access-control-allow-origin"), Some(FRIEND));
    let ticket = response.json()["ticket"].as_str().unwrap().to_owned();

    let response = with_ticket(&server, &ticket).header("origin", FRIEND).send();
    assert_eq!(response.header("access-control-allow-origin"), Some(FRIEND));
    assert_eq!(response.header("access-control-allow-credentials"), Some("true"));
    let vary = response.header("vary").unwrap_or_default().to_owned();
    assert!(vary.split(", ").any(|name| name == "origin"), "vary: {vary}");
    let (mut stream, _) = response.opened();
    let note = server.post("/note").header("authorization", &bearer);
    assert_eq!(note.json(&json!({ "text": "hello" })).status, 204);
    assert_eq!(stream.frame().data, "hello");
}

#[test]
fn ticket_is_short_lived_and_for_streams_only() {
    let server = Server::start_with("auth_cors", &[("TICKET_SECONDS", "0")]);
    let bearer = format!("Bearer {}", token(&server));
    let expired = ticket(&server, &bearer);
    is_unauthorized(with_ticket(&server, &expired).send());
    // A cookie does not replace the ticket either.
    let request = with_ticket(&server, &expired).header("cookie", &cookie(&server));
    is_unauthorized(request.send());

    let server = start();
    let access = token(&server);
    let good = ticket(&server, &format!("Bearer {access}"));
    // No token passes for another kind.
    let bearer = format!("Bearer {good}");
    is_unauthorized(server.post("/ticket").header("authorization", &bearer).send());
    is_unauthorized(server.get("/events").header("authorization", &bearer).send());
    is_unauthorized(with_ticket(&server, &access).send());
    let as_cookie = format!("__Host-session={good}");
    is_unauthorized(server.post("/ticket").header("cookie", &as_cookie).send());
    is_unauthorized(server.post(&format!("/ticket?ticket={good}")).send());
    drop(with_ticket(&server, &good).send().opened());
}

#[test]
fn ticket_opens_one_stream_only() {
    const AT_ONCE: usize = 8;
    let server = start();
    let bearer = format!("Bearer {}", token(&server));
    let good = ticket(&server, &bearer);
    // Requests at the same time: one of them gets the stream.
    let statuses: Vec<u16> = thread::scope(|scope| {
        let requests = [(); AT_ONCE].map(|()| with_ticket(&server, &good));
        let requests = requests.map(|request| scope.spawn(|| request.send().status));
        requests.into_iter().map(|request| request.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|&&status| status == 200).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|&&status| status == 401).count(), AT_ONCE - 1);
    is_unauthorized(with_ticket(&server, &good).send());
    // Another ticket of the session is unaffected.
    drop(with_ticket(&server, &ticket(&server, &bearer)).send().opened());
}

/// Returns parts and mixtures of a proof, and the proof with another character at each position.
fn forgeries(good: &str, other: &str) -> Vec<String> {
    assert_ne!(good, other);
    let half = good.len() / 2;
    let mut forged = vec![
        good[..half].to_owned(),
        good[half..].to_owned(),
        format!("{}{}", &good[..half], &other[half..]),
        format!("{}{}", &other[..half], &good[half..]),
        format!("{good}{good}"),
        "%00.%ff".to_owned(),
    ];
    for at in 0..good.len() {
        let changed = if good.as_bytes()[at] == b'A' { "B" } else { "A" };
        forged.push(format!("{}{changed}{}", &good[..at], &good[at + 1..]));
    }
    forged
}

#[test]
fn forged_proofs_are_refused() {
    let server = start();
    let (access, other) = (token(&server), token(&server));
    let (bearer, other_bearer) = (format!("Bearer {access}"), format!("Bearer {other}"));
    let good = ticket(&server, &bearer);
    for forged in forgeries(&good, &ticket(&server, &other_bearer)) {
        is_unauthorized(with_ticket(&server, &forged).send());
    }
    for forged in forgeries(&access, &other) {
        let forged = format!("Bearer {forged}");
        is_unauthorized(server.get("/events").header("authorization", &forged).send());
    }
    let (mine, name) = (cookie(&server), "__Host-session=");
    let [value, other] = [&mine, &cookie(&server)].map(|cookie| cookie[name.len()..].to_owned());
    for forged in forgeries(&value, &other) {
        let forged = format!("{name}{forged}");
        is_unauthorized(server.get("/events").header("cookie", &forged).send());
    }
    // A cookie is no access token, and the reverse.
    let as_bearer = format!("Bearer {value}");
    is_unauthorized(server.get("/events").header("authorization", &as_bearer).send());
    let as_cookie = format!("{name}{access}");
    is_unauthorized(server.get("/events").header("cookie", &as_cookie).send());

    // The proofs of another server have another key, or are not in the table here.
    let elsewhere = start();
    let foreign = format!("Bearer {}", token(&elsewhere));
    is_unauthorized(server.get("/events").header("authorization", &foreign).send());
    is_unauthorized(server.get("/events").header("cookie", &cookie(&elsewhere)).send());
    is_unauthorized(with_ticket(&server, &ticket(&elsewhere, &foreign)).send());
    drop(with_ticket(&server, &good).send().opened());
}

#[test]
fn unknown_origin_is_refused() {
    let server = start();
    let cookie = cookie(&server);
    let (mut mine, _) = server.get("/events").header("cookie", &cookie).send().opened();

    let with_cookie = |path: &str| server.get(path).header("cookie", &cookie);
    let good = ticket(&server, &format!("Bearer {}", token(&server)));
    let requests = [
        with_cookie("/events").header("origin", STRANGER),
        with_cookie("/events").header("origin", "null"),
        with_cookie("/events").header("origin", "https://example.com"),
        with_cookie("/events").header("origin", "http://app.example.com"),
        with_cookie("/events").header("origin", "https://app.example.com:8443"),
        with_ticket(&server, &good).header("origin", STRANGER),
        // An image of another page sends no origin.
        with_cookie("/events").header("sec-fetch-site", "cross-site"),
        with_cookie("/events").header("sec-fetch-site", "same-site"),
        server.post("/logout").header("cookie", &cookie).header("origin", STRANGER),
    ];
    for request in requests {
        let response = request.send();
        assert_eq!(response.status, 403);
        assert_eq!(response.header("access-control-allow-origin"), None);
    }
    // The logout had no effect either.
    let note = server.post("/note").header("cookie", &cookie);
    assert_eq!(note.json(&json!({ "text": "still here" })).status, 204);
    assert_eq!(mine.frame().data, "still here");

    // The same requests from allowed origins, with and without `sec-fetch-site`.
    let own = format!("http://{}", server.address);
    for request in [
        with_cookie("/events").header("origin", FRIEND).header("sec-fetch-site", "cross-site"),
        with_cookie("/events").header("origin", &own).header("sec-fetch-site", "same-origin"),
        with_cookie("/events").header("sec-fetch-site", "same-origin"),
    ] {
        drop(request.send().opened());
    }
}

#[test]
fn preflight_allows_known_origins_and_headers() {
    let server = start();
    let preflight = |origin| {
        let request = server.options("/events").header("origin", origin);
        let request = request.header("access-control-request-method", "GET");
        let headers = "authorization,cache-control,last-event-id";
        request.header("access-control-request-headers", headers).send()
    };
    let response = preflight(FRIEND);
    assert_eq!(response.status, 200);
    assert_eq!(response.header("access-control-allow-origin"), Some(FRIEND));
    assert_eq!(response.header("access-control-allow-credentials"), Some("true"));
    let allowed = response.header("access-control-allow-headers").unwrap();
    for header in ["authorization", "cache-control", "last-event-id", "content-type"] {
        assert!(allowed.split(',').any(|name| name == header), "{header} of {allowed}");
    }
    let methods = response.header("access-control-allow-methods").unwrap();
    assert_eq!(methods, "GET,POST");

    assert_eq!(preflight(STRANGER).header("access-control-allow-origin"), None);
    // Pages of allowed origins can read refusals too.
    let response = server.get("/events").header("origin", FRIEND).send();
    assert_eq!(response.header("access-control-allow-origin"), Some(FRIEND));
    is_unauthorized(response);
}

#[test]
fn logout_ends_streams_and_tokens() {
    let server = start();
    let cookie = cookie(&server);
    let access = token(&server);
    let bearer = format!("Bearer {access}");
    let good = ticket(&server, &bearer);
    let open = |name: &str, value: &str| {
        let (stream, _) = server.get("/events").header(name, value).send().opened();
        stream
    };
    let mut tabs = [open("cookie", &cookie), open("cookie", &cookie)];
    let mut other = open("authorization", &bearer);

    let response = server.post("/logout").header("cookie", &cookie).send();
    assert_eq!(response.status, 204);
    let gone = response.header("set-cookie").unwrap();
    assert!(gone.starts_with("__Host-session=; "), "{gone}");
    assert!(gone.contains("Max-Age=0"), "{gone}");
    // Browsers refuse this name without the attribute, so the cookie would stay.
    assert!(gone.contains("Secure"), "{gone}");
    for tab in &mut tabs {
        assert_eq!(tab.frame().event, "logged-out");
        let end = tab.frame();
        assert_eq!((end.event.as_str(), end.reason()), ("hub:end", Some("logout")));
        assert_eq!(tab.next_frame(), None);
    }
    is_unauthorized(server.get("/events").header("cookie", &cookie).send());

    // The user's other session is unaffected.
    let note = server.post("/note").header("authorization", &bearer);
    assert_eq!(note.json(&json!({ "text": "here" })).status, 204);
    assert_eq!(other.frame().data, "here");

    // A ticket ends with the session, before the ticket's own expiry.
    let unused = ticket(&server, &bearer);
    let (mut by_ticket, _) = with_ticket(&server, &good).send().opened();
    assert_eq!(by_ticket.frame().event, "unread");
    assert_eq!(server.post("/logout").header("authorization", &bearer).send().status, 204);
    assert_eq!(by_ticket.frame().event, "logged-out");
    is_unauthorized(with_ticket(&server, &unused).send());
    is_unauthorized(server.get("/events").header("authorization", &bearer).send());
}

#[test]
fn opening_page_gets_the_count_of_unread_notes() {
    let server = start();
    let cookie = cookie(&server);
    let request = |path: &str| server.post(path).header("cookie", &cookie);
    let open = || server.get("/events").header("cookie", &cookie);
    let shown = |page: &mut Response| {
        let frame = page.frame();
        (frame.event, frame.data)
    };
    let is = |event: &str, data: &str| (event.to_owned(), data.to_owned());
    for text in ["one", "two"] {
        assert_eq!(request("/note").json(&json!({ "text": text })).status, 204);
    }
    let (mut page, _) = open().send().opened();
    let unread = page.frame();
    assert_eq!((unread.event.as_str(), unread.data.as_str()), ("unread", "2"));
    assert_eq!(request("/note").json(&json!({ "text": "three" })).status, 204);
    assert_eq!(shown(&mut page), is("note", "three"));
    // A page that comes back gets the note that it missed, and no count.
    let last = unread.id.unwrap().to_string();
    let (mut back, open_frame) = open().header("last-event-id", &last).send().opened();
    assert!(open_frame.data.contains("\"resumed\":true"), "{open_frame:?}");
    assert_eq!(shown(&mut back), is("note", "three"));
    // Another page of the user reads them.
    assert_eq!(request("/read").send().status, 204);
    assert_eq!(shown(&mut page), is("unread", "0"));
    let (mut late, _) = open().send().opened();
    assert_eq!(request("/note").json(&json!({ "text": "four" })).status, 204);
    assert_eq!(shown(&mut late), is("note", "four"));
}

#[test]
fn stream_ends_when_its_session_expires() {
    let server = Server::start_with("auth_cors", &[("SESSION_SECONDS", "4")]);
    let bearer = format!("Bearer {}", token(&server));
    let (good, unused) = (ticket(&server, &bearer), ticket(&server, &bearer));
    let (mut by_token, _) = server.get("/events").header("authorization", &bearer).send().opened();
    let (mut by_ticket, _) = with_ticket(&server, &good).send().opened();
    for stream in [&mut by_token, &mut by_ticket] {
        let end = stream.frame();
        assert_eq!((end.event.as_str(), end.reason()), ("hub:end", Some("expired")));
        assert_eq!(stream.next_frame(), None);
    }
    is_unauthorized(server.get("/events").header("authorization", &bearer).send());
    is_unauthorized(with_ticket(&server, &unused).send());
}
