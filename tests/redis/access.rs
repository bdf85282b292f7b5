//! Users, passwords that change, and the rights that each form of address needs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sse_hub::redis::{Credentials, Redis};
use sse_hub::{Event, Hub, Presence, RunOptions, RunState, Subscriber};
use tempfile::TempDir;

use crate::instances::allow_hub;
use crate::load::{Instance, until};
use crate::runs::Reader;
use crate::server::Server;

fn with_presence(url: &str, set: impl FnOnce(Redis) -> Redis) -> Instance {
    let presence = Presence::default().grace(Duration::ZERO).topics(&["room-"]);
    Instance::with(url, |redis| set(redis.prefix("shop")), |hub| hub.presence(presence))
}

/// Uses all that a hub does over one address, with the user of the guide's ACL line.
pub(crate) async fn check(url: &str, set: impl Fn(Redis) -> Redis) {
    let (here, there) = (with_presence(url, &set), with_presence(url, &set));
    let both = async {
        here.backplane.ready().await;
        there.backplane.ready().await;
    };
    tokio::time::timeout(crate::server::DEADLINE, both).await.expect(url);
    let mut client = there.client();
    let tab = here.hub.subscribe(Subscriber::new().user("ann").topic("room-1")).unwrap();
    here.publish("1").await;
    client.until("1").await;
    there.until("ann", |hub| hub.is_online("ann")).await;
    let members = |hub: &Hub| hub.users_in("room-1").unwrap().len();
    there.until("ann in the room", |hub| members(hub) == 1).await;
    let run = here.hub.start_run("job", RunOptions::default()).unwrap();
    run.started().await.unwrap();
    run.publish(Event::new("n").data("a part")).unwrap();
    // The name had a run in an earlier check.
    let is_open = |hub: &Hub| hub.run("job").is_some_and(|run| run.state == RunState::Open);
    there.until("the run", is_open).await;
    let mut reader = Reader::of("job");
    reader.connect(&there.hub);
    run.finish(None).unwrap();
    assert_eq!(reader.until_end().await, "finished");
    drop(tab);
    there.until("her end", |hub| !hub.is_online("ann") && members(hub) == 0).await;
    for instance in [&here, &there] {
        instance.until("a hub that works", |hub| !hub.stats().degraded).await;
    }
}

/// Denied commands, as `ACL LOG` has them. The default user of `server` may do all.
pub(crate) fn denied(server: &Server) -> Vec<redis::Value> {
    server.run("ACL LOG")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn acl_line_is_enough_for_each_address() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("redis.sock");
    let server = Server::start(&["--unixsocket", socket.to_str().unwrap()]);
    let (socket, port) = (socket.display(), server.port());
    allow_hub(&server, "");
    for url in [
        format!("redis://hub:secret@127.0.0.1:{port}"),
        format!("redis://hub:secret@localhost:{port}/0"),
        format!("redis://hub:secret@127.0.0.1:{port}/?protocol=resp3"),
        format!("valkey://hub:secret@127.0.0.1:{port}"),
        format!("unix://{socket}?user=hub&pass=secret"),
        format!("redis+unix://{socket}?user=hub&pass=secret&protocol=resp3"),
    ] {
        check(&url, |redis| redis).await;
        assert_eq!(denied(&server), [], "{url}");
    }
    allow_hub(&server, "+select");
    for url in [
        format!("redis://hub:secret@127.0.0.1:{port}/5"),
        format!("redis://hub:secret@127.0.0.1:{port}/6?protocol=resp3"),
        format!("unix://{socket}?db=7&user=hub&pass=secret"),
    ] {
        check(&url, |redis| redis).await;
        assert_eq!(denied(&server), [], "{url}");
    }
}

/// A password that the application knows, and how often it was asked for.
#[derive(Clone, Default)]
struct Vault {
    password: Arc<Mutex<Option<String>>>,
    asked: Arc<AtomicUsize>,
}

impl Vault {
    fn set(&self, password: Option<&str>) {
        *self.password.lock().unwrap() = password.map(str::to_owned);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    fn give(&self, redis: Redis) -> Redis {
        let vault = self.clone();
        redis.credentials(move || {
            let vault = vault.clone();
            async move {
                vault.asked.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                let password = vault.password.lock().unwrap().clone();
                password.map(|password| Credentials::new("hub", password)).ok_or("sealed")
            }
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn next_connection_asks_for_the_changed_password() {
    let server = Server::start(&[]);
    allow_hub(&server, "");
    let vault = Vault::default();
    vault.set(Some("secret"));
    // Those of the address are not used.
    let url = format!("redis://nobody:wrong@127.0.0.1:{}", server.port());
    let here = with_presence(&url, |redis| vault.give(redis));
    here.backplane.ready().await;
    let mut client = here.client();
    here.publish("0").await;
    for round in 1..4 {
        let password = format!("rotated-{round}");
        let _: String = server.run(&format!("ACL SETUSER hub resetpass >{password}"));
        vault.set(Some(&password));
        let before = vault.asked();
        let _: u32 = server.run("CLIENT KILL USER hub");
        here.publish(&round.to_string()).await;
        client.until(&round.to_string()).await;
        until("a new question", || vault.asked() > before).await;
    }
    assert_eq!(client.gaps, [""; 0]);
    here.until("a hub that works", |hub| !hub.stats().degraded).await;

    // The server knows the new password before the application does, and the other way round.
    let _: String = server.run("ACL SETUSER hub resetpass >next");
    let _: u32 = server.run("CLIENT KILL USER hub");
    here.hub.broadcast(Event::new("n").data("waits")).unwrap();
    here.until("a hub that knows", |hub| hub.stats().degraded).await;
    vault.set(None);
    let before = vault.asked();
    until("further questions", || vault.asked() > before + 2).await;
    vault.set(Some("next"));
    client.until("waits").await;
    here.until("a hub that is back", |hub| !hub.stats().degraded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn credentials_that_never_come_are_given_up() {
    let server = Server::start(&[]);
    allow_hub(&server, "");
    let asked = Arc::new(AtomicUsize::new(0));
    let set = |redis: Redis| {
        let asked = Arc::clone(&asked);
        redis.prefix("shop").timeout(Duration::from_millis(100)).credentials(move || {
            let hangs = asked.fetch_add(1, Ordering::Relaxed) < 3;
            async move {
                if hangs {
                    std::future::pending::<()>().await;
                }
                Ok::<_, std::io::Error>(Credentials::password("secret"))
            }
        })
    };
    // The user is that of the address.
    let url = format!("redis://hub:wrong@127.0.0.1:{}", server.port());
    let here = Instance::with(&url, set, |hub| hub);
    here.publish("1").await;
    assert!(asked.load(Ordering::Relaxed) > 3);
}
