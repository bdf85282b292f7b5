//! Connections that are closed, or go dead, while nothing happens.

use std::time::Duration;

use sse_hub::{Presence, Subscriber};

use crate::busy::BusyClock;
use crate::load::{Instance, until};
use crate::server::{Server, Wire};
use crate::told::Told;

/// The idle times, in seconds, of the connections whose last command was a script: all but those
/// that read.
fn idle(server: &Server) -> Vec<u64> {
    let clients: String = server.run("CLIENT LIST");
    let scripts = clients.lines().filter(|line| line.contains(" cmd=eval"));
    let of = |line: &str| line.split(" idle=").nth(1)?.split(' ').next()?.parse().ok();
    scripts.filter_map(of).collect()
}

// On a single thread, where `tracing` is recorded.
#[tokio::test]
#[ignore = "needs redis-server"]
async fn connections_closed_while_idle_are_no_outage() {
    let (told, _guard) = Told::record();
    let server = Server::start(&["--timeout", "1"]);
    let here = Instance::with(
        &server.url(),
        // Heartbeats that are rarer than the server's timeout.
        |redis| redis.lease(Duration::from_secs(12)),
        |hub| hub.presence(Presence::default().grace(Duration::ZERO)),
    );
    here.backplane.ready().await;
    let mut client = here.client();
    for round in 0..3 {
        let name = format!("{round}");
        let _tab = here.hub.subscribe(Subscriber::new().user(name.clone())).unwrap();
        let start = BusyClock::start();
        here.publish(&name).await;
        assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
        client.until(&name).await;
        let users = || server.run::<String>("CLIENT LIST").matches(" cmd=eval").count();
        until("closed connections", || users() == 0).await;
    }
    here.publish("end").await;
    for word in ["backplane unreachable", "presence sync failed", "is not shared"] {
        assert!(!told.contains(word), "{}", told.text());
    }
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn connections_forgotten_by_a_firewall_are_no_outage() {
    let (told, _guard) = Told::record();
    let server = Server::start(&[]);
    let wire = Wire::to(&server).await;
    let patience = Duration::from_secs(8);
    let here = Instance::with(&wire.url(), |redis| redis.timeout(patience), |hub| hub);
    here.backplane.ready().await;
    let mut client = here.client();
    here.publish("1").await;
    client.until("1").await;
    until("an idle connection", || idle(&server).iter().any(|seconds| *seconds >= 2)).await;
    wire.forget();
    let start = BusyClock::start();
    here.publish("2").await;
    let took = start.elapsed();
    println!("over a forgotten connection: {took:?}");
    assert!(took < patience / 2, "{took:?}");
    client.until("2").await;
    here.publish("3").await;
    client.until("3").await;
    assert!(!told.contains("backplane unreachable"), "{}", told.text());
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn sockets_have_keepalive() {
    let server = Server::start(&[]);
    let here = Instance::ready(&server.url()).await;
    here.publish("1").await;
    let to = format!("0100007F:{:04X}", server.port());
    // The kernel shows the running timer of each socket: 2 is keepalive, 1 is a byte on its way.
    let with_keepalive = || {
        let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
        let sockets = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        sockets.filter(|parts| parts[2] == to && parts[5].starts_with("02:")).count()
    };
    until("keepalive on both connections", || with_keepalive() == 2).await;
}
