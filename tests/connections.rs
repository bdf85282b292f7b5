//! Connections that stall, break, or never ask: the watchdog cuts them, and other clients see no
//! effect.
#![cfg(all(feature = "axum-serve", feature = "tokio"))]

use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use axum::serve::ListenerExt as _;
use sse_hub::watchdog::{Cuts, Watchdog};
use sse_hub::{Audience, Event, Hub, HubBuilder, Retain, TokioTimer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

#[path = "support/busy.rs"]
mod busy;
mod sockets;
use busy::BusyClock;
use sockets::{Client, DEADLINE, Followed, Seen, Server, eventually, frame, publish, within};

const SECOND: Duration = Duration::from_secs(1);

/// The hub itself ends no stream, so that only the connection can.
fn hub() -> HubBuilder {
    Hub::builder(TokioTimer::new()).heartbeat(None).stalled_after(None)
}

/// A watchdog with `limit` for writes and requests, and a listener for it.
async fn listen(limit: Duration) -> (Watchdog, TcpListener) {
    let watchdog = Watchdog::builder(TokioTimer::new()).stalled_after(limit).request_within(limit);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    (watchdog.build().unwrap(), listener)
}

/// A server under a watchdog.
async fn watched(hub: &Hub, limit: Duration) -> (Server, Watchdog) {
    let (watchdog, listener) = listen(limit).await;
    (Server::start_on(watchdog.listen(listener), hub, pending()), watchdog)
}

/// A client with a small receive buffer.
async fn narrow(address: SocketAddr, path: &str) -> Client {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let socket = within("the connection", socket.connect(address)).await.unwrap();
    let mut client = Client::ask(socket, path, None, usize::MAX).await.unwrap();
    client.open().await;
    client
}

/// Returns the number of bytes that wait in the send queue of the server's socket for a client, or
/// `None` if the system knows no such socket, open or closing.
#[cfg(target_os = "linux")]
fn waiting_to_be_sent(server: SocketAddr, client: &Client) -> Option<u64> {
    let ends = format!(":{:04X} 0100007F:{:04X} ", server.port(), client.port());
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let line = sockets.lines().find(|line| line.contains(&ends))?;
    let queues = line.split_whitespace().nth(4)?;
    let (to_send, _) = queues.split_once(':')?;
    Some(u64::from_str_radix(to_send, 16).unwrap())
}

/// Raises the limit of open files of this process.
fn allow_files(count: u64) {
    let allowed = rlimit::increase_nofile_limit(count).unwrap();
    assert!(allowed >= count, "{count} open files are needed, and {allowed} allowed: raise it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_client_is_cut_beside_a_thousand_others() {
    const OTHERS: usize = 1000;
    const LIMIT: Duration = SECOND;
    allow_files(2 * OTHERS as u64 + 200);
    let hub = hub().retain(Retain::default().events(100_000).bytes(64 << 20)).build().unwrap();
    let (watchdog, listener) = listen(LIMIT).await;
    let alone = watchdog.listen(listener).tap_io(|io| {
        // The system must not give up the peer before the watchdog does.
        #[cfg(target_os = "linux")]
        socket2::SockRef::from(io.get_ref()).set_tcp_user_timeout(None).unwrap();
    });
    let server = Server::start_on(alone, &hub, pending());
    let mut others = JoinSet::new();
    for _ in 0..OTHERS {
        let mut client = server.get("/events", None).await;
        client.open().await;
        others.spawn(async move {
            let mut frames = Vec::new();
            while frames.last().is_none_or(|frame: &String| !frame.starts_with("event: end\n")) {
                frames.push(client.frame().await.expect("the stream goes on"));
            }
            frames
        });
    }
    let stalled = narrow(server.address, "/events?topics=bulk").await;
    assert_eq!(hub.stats().clients, OTHERS + 1);

    let (begun, busy) = (Instant::now(), BusyClock::start());
    // More than all buffers between server and client hold.
    let bulk = "x".repeat(64 << 10);
    for _ in 0..64 {
        let topic = sse_hub::Audience::topic("bulk");
        hub.publish(topic, Event::new("bulk").data(&*bulk)).unwrap();
    }
    let mut expected = Vec::new();
    let mut number = 0;
    let mut most = 0;
    while hub.stats().clients > OTHERS {
        assert!(begun.elapsed() < DEADLINE, "it is not cut");
        let id = publish(&hub, number);
        expected.push(frame("n", &number.to_string(), id));
        number += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
        #[cfg(target_os = "linux")]
        if let Some(held) = waiting_to_be_sent(server.address, &stalled) {
            most = most.max(held);
        }
    }
    let took = begun.elapsed();
    assert!(LIMIT <= took, "it was cut after {took:?}");
    let took = busy.elapsed();
    assert!(took < LIMIT + SECOND, "it was cut after {took:?}");
    assert_eq!(watchdog.cuts().stalled, 1);
    #[cfg(target_os = "linux")]
    {
        assert_eq!(waiting_to_be_sent(server.address, &stalled), None, "its socket is gone");
        assert!((1 << 10..128 << 10).contains(&most), "{most} bytes were held by the system");
    }

    let id = hub.publish_confirmed(Audience::all(), Event::new("end")).unwrap().id().unwrap();
    expected.push(frame("end", "", id));
    while let Some(frames) = within("the others have all", others.join_next()).await {
        assert_eq!(frames.unwrap(), expected);
    }
    assert_eq!(watchdog.cuts().idle + watchdog.cuts().no_request, 0);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_system_gives_up_a_client_of_little_traffic() {
    const LIMIT: Duration = SECOND;
    let hub = hub().build().unwrap();
    let (server, watchdog) = watched(&hub, LIMIT).await;
    let stalled = narrow(server.address, "/events").await;
    // More than the client's system takes, and less than the server's: every write finds room.
    for _ in 0..24 {
        hub.broadcast(Event::new("n").data("x".repeat(1 << 10))).unwrap();
    }
    let begun = BusyClock::start();
    eventually(DEADLINE, "it is gone", || hub.stats().clients == 0).await;
    let took = begun.elapsed();
    assert!(took < LIMIT + 2 * SECOND, "it was given up after {took:?}");
    assert_eq!(watchdog.cuts(), Cuts::default(), "by the system, not by the watchdog");
    assert_eq!(waiting_to_be_sent(server.address, &stalled), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_never_end_are_cut() {
    const SLOW: u64 = 200;
    const LIMIT: Duration = SECOND;
    let hub = hub().build().unwrap();
    let (server, watchdog) = watched(&hub, LIMIT).await;
    let mut live = server.get("/events", None).await;
    live.open().await;

    let (begun, busy) = (Instant::now(), BusyClock::start());
    let mut slow = JoinSet::new();
    for number in 0..SLOW {
        let mut socket =
            within("the connection", TcpStream::connect(server.address)).await.unwrap();
        slow.spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_millis(20));
            let mut answer = Vec::new();
            // A byte now and then, so that the connection is never silent. A quarter sends none.
            let request =
                b"GET /events HTTP/1.1\r\nhost: localhost\r\ncookie: ".iter().chain([&b'a'; 9_999]);
            for byte in request.skip(if number % 4 == 0 { usize::MAX } else { 0 }) {
                tick.tick().await;
                if socket.write_all(&[*byte]).await.is_err() {
                    break;
                }
            }
            // A reset counts as an end.
            let _ = socket.read_to_end(&mut answer).await;
            answer
        });
    }
    for number in 0.. {
        let id = publish(&hub, number);
        assert_eq!(live.frame().await.unwrap(), frame("n", &number.to_string(), id));
        if watchdog.cuts().no_request == SLOW {
            break;
        }
        assert!(begun.elapsed() < DEADLINE, "{:?}", watchdog.cuts());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = busy.elapsed();
    assert!(took < LIMIT + 2 * SECOND, "they were cut after {took:?}");
    while let Some(answer) = within("they are told", slow.join_next()).await {
        assert_eq!(answer.unwrap(), b"", "what is no request gets no answer");
    }
    assert_eq!(hub.stats().opened, 1);
}

/// A proxy that resets both connections after some bytes of the response, at any position.
async fn resetting(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for connection in 0u64.. {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = TcpStream::connect(server).await.unwrap();
            tokio::spawn(async move {
                for socket in [&near, &far] {
                    let socket = socket2::SockRef::from(socket);
                    socket.set_linger(Some(Duration::ZERO)).unwrap();
                }
                // The head and `hub:open` take less than 500 bytes. Behind them, cuts fall on every
                // position of a frame.
                let passed = 500 + (connection * 271) % 4_001;
                let ((from_near, mut to_near), (from_far, mut to_far)) =
                    (near.split(), far.split());
                let mut request = from_near;
                let mut answer = from_far.take(passed);
                tokio::select! {
                    _ = copy(&mut request, &mut to_far) => {}
                    _ = copy(&mut answer, &mut to_near) => {}
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resets_within_frames_lose_no_event() {
    const EVENTS: u64 = 10_000;
    let hub = hub().retain(Retain::default().events(20_000)).build().unwrap();
    let (server, _) = watched(&hub, 10 * SECOND).await;
    let proxy = resetting(server.address).await;

    let followed =
        Followed::follow(&hub, proxy, EVENTS, u64::from(u32::MAX), |chance| chance.below(50)).await;

    assert_eq!(followed.numbers().collect::<Vec<_>>(), (0..EVENTS).collect::<Vec<_>>());
    assert!(!followed.seen.iter().any(|seen| matches!(seen, Seen::Gap { .. })));
    assert!(followed.cuts_within_frames > 50, "{} cuts", followed.cuts_within_frames);
    eventually(DEADLINE, "the hub holds no client of them", || hub.stats().clients == 0).await;
}

/// Two network namespaces of this process, connected by a pair of devices: `here`, for a server,
/// and `there`, for clients. The machine's own network stays unchanged: a browser breaks all
/// connections when an address of the network comes or goes, and another test may use a browser.
#[cfg(target_os = "linux")]
struct Hosts {
    here: String,
    there: String,
}

#[cfg(target_os = "linux")]
impl Hosts {
    const HERE: Ipv4Addr = Ipv4Addr::new(10, 237, 91, 1);
    const THERE: Ipv4Addr = Ipv4Addr::new(10, 237, 91, 2);

    fn new() -> Self {
        let name = |host: &str| format!("sse-hub-{}-{host}", std::process::id());
        let hosts = Self { here: name("here"), there: name("there") };
        let Self { here, there } = &hosts;
        ip(&format!("netns add {here}"));
        ip(&format!("netns add {there}"));
        ip(&format!("-n {here} link add veth0 type veth peer name veth0 netns {there}"));
        for (host, address) in [(here, Self::HERE), (there, Self::THERE)] {
            ip(&format!("-n {host} addr add {address}/30 dev veth0"));
            ip(&format!("-n {host} link set veth0 up"));
        }
        hosts
    }
}

#[cfg(target_os = "linux")]
impl Drop for Hosts {
    fn drop(&mut self) {
        for host in [&self.here, &self.there] {
            // No program outlives a failed test.
            let list = std::process::Command::new("ip").args(["netns", "pids", host]).output();
            let list = String::from_utf8(list.unwrap().stdout).unwrap();
            for process in list.split_whitespace() {
                let _ = std::process::Command::new("kill").args(["-9", process]).status();
            }
            let _ = std::process::Command::new("ip").args(["netns", "del", host]).status();
        }
    }
}

#[cfg(target_os = "linux")]
fn ip(what: &str) {
    let status = std::process::Command::new("ip").args(what.split(' ')).status();
    let status = status.expect("`ip` runs: install iproute2");
    assert!(status.success(), "`ip {what}` fails: it needs the rights of root");
}

/// The variable that names the namespace `there` to a process in the namespace `here`.
#[cfg(target_os = "linux")]
const THERE: &str = "SSE_HUB_TEST_THERE";

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root, iproute2 and curl"]
async fn a_client_of_a_vanished_host_is_gone_in_time() {
    const LIMIT: Duration = Duration::from_secs(2);
    let Ok(there) = std::env::var(THERE) else {
        let hosts = Hosts::new();
        // This test again, as a process in the namespace.
        let mut command = tokio::process::Command::new("ip");
        command.args(["netns", "exec", &hosts.here]).arg(std::env::current_exe().unwrap());
        command.args(["a_client_of_a_vanished_host_is_gone_in_time", "--exact"]);
        command.args(["--include-ignored", "--nocapture"]).env(THERE, &hosts.there);
        let run = within("the test in the namespace", command.output()).await.unwrap();
        let [told, failed] = [run.stdout, run.stderr].map(|text| String::from_utf8(text).unwrap());
        assert!(told.contains("test result: ok. 1 passed"), "in the namespace:\n{told}{failed}");
        return print!("{told}");
    };
    // With events, the sent bytes are never acknowledged. Without events, no byte moves.
    for (with_events, bound) in [(true, LIMIT + 2 * SECOND), (false, 2 * LIMIT + 2 * SECOND)] {
        let hub = hub().build().unwrap();
        let watchdog = Watchdog::builder(TokioTimer::new())
            .stalled_after(LIMIT)
            .idle_after(2 * LIMIT)
            .build()
            .unwrap();
        let listener = TcpListener::bind((Hosts::HERE, 0)).await.unwrap();
        let server = Server::start_on(watchdog.listen(listener), &hub, pending());
        let mut curl = std::process::Command::new("ip");
        curl.args(["netns", "exec", &there, "curl", "-sN"]).stdout(std::process::Stdio::null());
        let mut curl = curl.arg(format!("http://{}/events", server.address)).spawn().unwrap();
        eventually(DEADLINE, "it is there", || hub.stats().clients == 1).await;

        // The address goes away, without a word to the peer.
        ip(&format!("-n {there} addr flush dev veth0"));
        let (begun, busy) = (Instant::now(), BusyClock::start());
        while hub.stats().clients > 0 {
            if with_events {
                hub.broadcast(Event::new("n")).unwrap();
            }
            let waits = busy.elapsed();
            assert!(waits < bound, "it is still there after {waits:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        println!("events: {with_events}: gone after {:?}, {:?}", begun.elapsed(), watchdog.cuts());
        curl.kill().unwrap();
        curl.wait().unwrap();
        ip(&format!("-n {there} addr add {}/30 dev veth0", Hosts::THERE));
    }
}
