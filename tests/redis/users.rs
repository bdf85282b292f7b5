//! Presence and commands with instances that are processes and are killed.

use std::time::{Duration, Instant};

use axum::extract::{Query, State};
use axum::{Router, routing};
use sse_hub::{Audience, Event, Goodbye, Hub, LastEventId, Refused, Subscriber, Subscription};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::busy::BusyClock;
use crate::presence::{self, GRACE, LEASE};
use crate::processes::{Process, URL, serve};
use crate::server::{DEADLINE, Server};
use crate::support::{Frame, frames};

/// Not a test: the other tests run this as a process.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs redis-server"]
async fn instance() {
    let Ok(url) = std::env::var(URL) else { return };
    let instance = presence::instance(&url);
    instance.backplane.ready().await;
    let app = Router::new()
        .route("/events", routing::get(events))
        .route("/publish", routing::post(publish))
        .route("/join", routing::post(join))
        .route("/leave", routing::post(leave))
        .route("/disconnect", routing::post(disconnect))
        .with_state(instance.hub.clone());
    serve(app).await;
}

#[derive(serde::Deserialize)]
struct Ask {
    user: String,
    #[serde(default)]
    topic: String,
}

async fn events(
    State(hub): State<Hub>,
    Query(Ask { user, .. }): Query<Ask>,
    last: LastEventId,
) -> Result<Subscription, Refused> {
    hub.subscribe(Subscriber::new().user(user).resume(last))
}

async fn publish(State(hub): State<Hub>, Query(Ask { user, topic }): Query<Ask>) -> String {
    let event = Event::new("n").data(user);
    let confirmation = hub.publish_confirmed(Audience::topic(topic), event).unwrap();
    confirmation.await.unwrap().to_string()
}

async fn join(State(hub): State<Hub>, Query(Ask { user, topic }): Query<Ask>) -> String {
    hub.join(Audience::user(user), topic).unwrap().changed.to_string()
}

async fn leave(State(hub): State<Hub>, Query(Ask { user, topic }): Query<Ask>) -> String {
    hub.leave(Audience::user(user), topic).unwrap().changed.to_string()
}

async fn disconnect(State(hub): State<Hub>, Query(Ask { user, .. }): Query<Ask>) -> String {
    let goodbye = Event::new("bye").data("bye");
    hub.disconnect(Audience::user(user), Goodbye::from_static("kicked").event(goodbye))
        .unwrap()
        .changed
        .to_string()
}

async fn send(port: u16, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream
        .write_all(format!("{request} HTTP/1.0\r\nhost: localhost\r\n\r\n").as_bytes())
        .await
        .unwrap();
    stream
}

async fn post(port: u16, request: &str) -> String {
    let mut answer = String::new();
    let mut stream = send(port, &format!("POST {request}")).await;
    timeout(DEADLINE, stream.read_to_string(&mut answer)).await.expect("an answer").unwrap();
    answer.rsplit("\r\n\r\n").next().unwrap().to_owned()
}

/// A tab that reads its stream over a socket.
pub(crate) struct Tab {
    stream: TcpStream,
    text: String,
}

impl Tab {
    pub(crate) async fn open(port: u16, user: &str) -> Self {
        let stream = send(port, &format!("GET /events?user={user}")).await;
        let mut tab = Self { stream, text: String::new() };
        tab.until("it is open", |frames| !frames.is_empty()).await;
        tab
    }

    /// Reads until the condition holds. Panics at the end of the stream.
    pub(crate) async fn until(&mut self, what: &str, is_so: impl Fn(&[Frame]) -> bool) {
        let start = Instant::now();
        let mut buffer = [0; 4096];
        while !is_so(&self.frames()) {
            let left = DEADLINE.saturating_sub(start.elapsed());
            let read = timeout(left, self.stream.read(&mut buffer)).await.expect(what).unwrap();
            assert!(read > 0, "the stream ended before {what}: {}", self.text);
            self.text += std::str::from_utf8(&buffer[..read]).unwrap();
        }
    }

    pub(crate) fn frames(&self) -> Vec<Frame> {
        let body = self.text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let whole = body.rfind("\n\n").map_or(0, |end| end + 2);
        frames(&body[..whole])
    }

    fn data(&self) -> Vec<String> {
        let frames = self.frames().into_iter();
        frames.filter(|frame| !frame.is_of_hub()).map(|frame| frame.data).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn users_of_killed_instance_leave_after_lease() {
    let server = Server::start(&[]);
    let here = presence::instance(&server.url());
    let mut watch = here.hub.watch().unwrap();
    let (mut first, second) =
        (Process::of(&server, "users::instance"), Process::of(&server, "users::instance"));
    let _tabs = [
        Tab::open(first.port, "ann").await,
        Tab::open(first.port, "bob").await,
        Tab::open(second.port, "bob").await,
    ];
    here.until("both", |hub| {
        hub.users().iter().map(|user| user.other_instances).sum::<usize>() == 3
    })
    .await;
    let mut all = presence::seen(&mut watch);
    all.sort();
    assert_eq!(all, ["ann", "bob"]);

    let (start, busy) = (Instant::now(), BusyClock::start());
    first.kill();
    here.until("ann has left", |hub| !hub.is_online("ann")).await;
    let took = start.elapsed();
    println!("kill -9: users have left after {took:?} (lease {LEASE:?}, grace {GRACE:?})");
    assert!(took >= LEASE + GRACE, "{took:?}");
    // Seven quarters of the lease, and the time to read about it.
    let took = busy.elapsed();
    assert!(took < LEASE * 3 + GRACE, "{took:?}");
    let all = presence::seen(&mut watch);
    assert_eq!(all, ["-ann"], "bob is elsewhere");

    // A new process starts without the old users.
    let again = Process::of(&server, "users::instance");
    let _ann = Tab::open(again.port, "ann").await;
    here.until("ann", |hub| hub.is_online("ann")).await;
    tokio::time::sleep(LEASE * 2 + Duration::from_millis(200)).await;
    assert_eq!(presence::seen(&mut watch), ["ann"]);
    drop(second);
    here.until("bob has left", |hub| !hub.is_online("bob")).await;
    assert_eq!(presence::seen(&mut watch), ["-bob"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn commands_reach_users_at_other_processes() {
    let server = Server::start(&[]);
    let instances = [(); 2].map(|()| Process::of(&server, "users::instance"));
    let [here, there] = instances.each_ref().map(|instance| instance.port);
    let mut hers = [Tab::open(here, "ann").await, Tab::open(there, "ann").await];
    let mut bob = Tab::open(there, "bob").await;
    // A confirmed event comes before the next command, at any instance.
    for round in 0..20 {
        let (one, other) = if round % 2 == 0 { (here, there) } else { (there, here) };
        post(one, "/join?user=ann&topic=t").await;
        post(one, &format!("/publish?topic=t&user=in-{round}")).await;
        post(other, &format!("/publish?topic=t&user=too-{round}")).await;
        post(other, "/leave?user=ann&topic=t").await;
        post(other, &format!("/publish?topic=t&user=out-{round}")).await;
    }
    post(here, "/join?user=ann&topic=t").await;
    post(here, "/join?user=bob&topic=t").await;
    post(here, "/publish?topic=t&user=end").await;
    bob.until("the end", |frames| frames.iter().any(|frame| frame.data == "end")).await;
    assert_eq!(bob.data(), ["end"]);
    let mut expected: Vec<String> =
        (0..20).flat_map(|round| [format!("in-{round}"), format!("too-{round}")]).collect();
    expected.push("end".to_owned());
    for tab in &mut hers {
        tab.until("the end", |frames| frames.iter().any(|frame| frame.data == "end")).await;
        assert_eq!(tab.data(), expected);
    }

    let start = Instant::now();
    assert_eq!(post(here, "/disconnect?user=ann").await, "1");
    for tab in &mut hers {
        tab.until("the end", |frames| frames.iter().any(|frame| frame.event == "hub:end")).await;
        let frames = tab.frames();
        let last: Vec<_> = frames[frames.len() - 2..].iter().map(|frame| &*frame.event).collect();
        assert_eq!(
            (last, frames.last().unwrap().reason()),
            (vec!["bye", "hub:end"], Some("kicked"))
        );
        let mut rest = Vec::new();
        timeout(DEADLINE, tab.stream.read_to_end(&mut rest)).await.expect("an end").unwrap();
    }
    println!("a disconnect has reached both processes after {:?}", start.elapsed());
    post(here, "/publish?topic=t&user=still-here").await;
    bob.until("him", |frames| frames.iter().any(|frame| frame.data == "still-here")).await;
}
