//! Instances that ask sentinels for the master.

use std::fmt::Write as _;
use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use redis::Value;
use sse_hub::redis::{Credentials, Redis};
use sse_hub::{Audience, Event, HubBuilder, Presence, Subscriber};
use tempfile::TempDir;

use crate::access;
use crate::busy::BusyClock;
use crate::degraded::told;
use crate::faults::check_recovery;
use crate::instances::allow_hub;
use crate::load::{Instance, Load, Source, until, until_within};
use crate::ports::Port;
use crate::server::{ATTEMPTS, DEADLINE, NO_PROGRAM, Nobody, Server, answers, connect, program};

/// Dropping the value kills the process.
struct Sentinel {
    child: Child,
    port: Port,
    _directory: TempDir,
}

impl Sentinel {
    fn of(master: &Server) -> Self {
        for _ in 0..ATTEMPTS {
            let (directory, port) = (TempDir::new().unwrap(), Port::take());
            let mut settings = format!("port {}\nbind 127.0.0.1\n", port.number());
            writeln!(settings, "dir {}", directory.path().display()).unwrap();
            writeln!(settings, "sentinel monitor mymaster 127.0.0.1 {} 2", master.port()).unwrap();
            settings += "sentinel down-after-milliseconds mymaster 500\n";
            settings += "sentinel failover-timeout mymaster 3000\n";
            let file = directory.path().join("sentinel.conf");
            fs::write(&file, settings).unwrap();
            let child = program()
                .arg(file)
                .arg("--sentinel")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect(NO_PROGRAM);
            let mut sentinel = Self { child, port, _directory: directory };
            if answers(&mut sentinel.child, sentinel.port.number()) {
                return sentinel;
            }
        }
        panic!("a sentinel exits at {ATTEMPTS} different ports");
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port.number())
    }

    fn ask(&self, command: &str) -> redis::RedisResult<Value> {
        let mut connection = connect(self.port.number(), DEADLINE)?;
        let mut parts = command.split(' ');
        let mut command = redis::cmd(parts.next().unwrap_or_default());
        command.arg(parts.collect::<Vec<_>>()).query(&mut connection)
    }

    /// Whether the sentinel can be part of a majority that promotes a replica.
    fn is_ready(&self) -> bool {
        let replicas = self.ask("SENTINEL REPLICAS mymaster");
        let knows_one = matches!(replicas, Ok(Value::Array(replicas)) if replicas.len() == 1);
        knows_one && self.ask("SENTINEL CKQUORUM mymaster").is_ok()
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The connections of two instances: each has two for events and two for presence.
const CONNECTIONS: usize = 8;

/// The name of the master, in place of a host.
const ADDRESS: &str = "redis://hub:secret@mymaster";

/// A master, its replica, and three sentinels.
struct Watched {
    master: Server,
    replica: Server,
    sentinels: [Sentinel; 3],
    nobody: Nobody,
}

impl Watched {
    async fn start() -> Self {
        let master = Server::start(&["--repl-diskless-sync-delay", "0"]);
        let replica = Server::start(&["--replicaof", &format!("127.0.0.1 {}", master.port())]);
        for server in [&master, &replica] {
            // Replication uses the default user, which may do all.
            allow_hub(server, "+role");
        }
        until("a replica that follows", || follows(&replica)).await;
        let sentinels = [(); 3].map(|()| Sentinel::of(&master));
        for sentinel in &sentinels {
            until("sentinels that know each other", || sentinel.is_ready()).await;
        }
        Self { master, replica, sentinels, nobody: Nobody::new() }
    }

    /// Whether a sentinel names the server as the master.
    fn names(&self, server: &Server) -> bool {
        let port = Value::BulkString(server.port().to_string().into_bytes());
        self.sentinels.iter().any(|sentinel| {
            let named = sentinel.ask("SENTINEL GET-MASTER-ADDR-BY-NAME mymaster");
            matches!(named, Ok(Value::Array(named)) if named.get(1) == Some(&port))
        })
    }

    /// Makes the replica the master. On a busy machine a sentinel can give a failover up, or do
    /// nothing for 30 seconds because its timer came late (the mode *tilt*).
    async fn fail_over(&self) {
        let mut asked_at = None::<Instant>;
        until_within(4 * DEADLINE, "another master", || {
            if asked_at.is_none_or(|at| at.elapsed() > Duration::from_secs(1)) {
                asked_at = Some(Instant::now());
                // An error if a failover is under way, or if the sentinel finds no replica now.
                let _ = self.sentinels[0].ask("SENTINEL FAILOVER mymaster");
            }
            self.names(&self.replica)
        })
        .await;
    }

    fn set(&self, redis: Redis) -> Redis {
        let nobody = format!("redis://127.0.0.1:{}", self.nobody.port());
        let urls = self.sentinels.each_ref().map(Sentinel::url);
        // Nothing listens at one of the addresses.
        let sentinels = urls.iter().chain([&nobody]).map(String::as_str);
        redis.prefix("shop").sentinels(sentinels).unwrap()
    }

    async fn instance(&self) -> Instance {
        let instance = Instance::with(
            ADDRESS,
            |redis| self.set(redis),
            |hub| hub.presence(Presence::default().grace(Duration::ZERO)),
        );
        instance.backplane.ready().await;
        instance
    }
}

fn follows(replica: &Server) -> bool {
    says(replica, "master_link_status:up")
}

fn is_master(server: &Server) -> bool {
    says(server, "role:master")
}

/// Sentinels close all connections of a server whose role they change, so the command may fail.
fn says(server: &Server, what: &str) -> bool {
    server.try_run::<String>("INFO replication").is_ok_and(|info| info.contains(what))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn master_is_killed_and_replica_takes_over() {
    let mut watched = Watched::start().await;
    let instances = [watched.instance().await, watched.instance().await];
    let load = Load::start(&instances.each_ref(), 4, 24);
    load.goes_on().await;
    let users = || watched.master.run::<String>("CLIENT LIST");
    until("all connections", || users().matches(" user=hub ").count() == CONNECTIONS).await;
    let killed = Instant::now();
    watched.master.kill();
    until("another master", || watched.names(&watched.replica)).await;
    let took_over = killed.elapsed();
    let took = load.goes_on().await;
    println!("failover: {took_over:?} until the sentinels had one, and {took:?} to find it");
    load.stop().await.check_after_two_masters();
    check_recovery(&[took]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn events_missing_at_the_new_master_are_reported() {
    let mut watched = Watched::start().await;
    let (here, there) = (watched.instance().await, watched.instance().await);
    let mut clients = [here.client(), there.client()];
    here.publish("1").await;
    for client in &mut clients {
        client.until("1").await;
    }
    let offset = |server: &Server| {
        let info: String = server.run("INFO replication");
        let line = info.lines().find_map(|line| line.strip_prefix("master_repl_offset:"));
        line.unwrap().to_owned()
    };
    until("a replica that has it", || offset(&watched.replica) == offset(&watched.master)).await;
    // Paused without a connection: a connection could bring the missing events later.
    until("a replica that is cut off", || {
        let _: u32 = watched.replica.run("CLIENT KILL TYPE master");
        watched.replica.pause();
        let is_off = watched.master.run::<String>("INFO replication").contains("slaves:0");
        if !is_off {
            watched.replica.resume();
        }
        is_off
    })
    .await;
    here.publish("lost").await;
    for client in &mut clients {
        client.until("lost").await;
    }
    watched.master.kill();
    watched.replica.resume();
    here.publish("2").await;
    for client in &mut clients {
        client.until_gap().await;
        assert_eq!(client.gaps[0], "reset");
    }
    // Events before both resets are part of the loss.
    here.until("the news", |hub| hub.stats().resets > 0).await;
    there.until("the news", |hub| hub.stats().resets > 0).await;
    here.publish("3").await;
    for client in &mut clients {
        client.until("3").await;
    }
    // The old master comes back, and acts as a master until a sentinel reconfigures it.
    watched.master.restart();
    assert!(is_master(&watched.master));
    here.publish("4").await;
    let _: u32 = watched.replica.run("CLIENT KILL TYPE normal SKIPME yes");
    there.publish("5").await;
    for client in &mut clients {
        client.until("5").await;
        // A sentinel that has not heard of the failover can lead to the old master: a reported
        // loss.
        let is_whole = client.names().ends_with(&["3", "4", "5"]);
        assert!(is_whole || client.gaps.len() > 1, "{:?}", client.names());
        assert!(client.gaps.iter().all(|reason| reason == "reset"), "{:?}", client.gaps);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn ordered_failover_is_found_soon() {
    let watched = Watched::start().await;
    let instances = [watched.instance().await, watched.instance().await];
    let load = Load::start(&instances.each_ref(), 4, 24);
    load.goes_on().await;
    watched.fail_over().await;
    let start = BusyClock::start();
    // The old master answers as before until it is reconfigured, after ten seconds or more.
    let users = || watched.replica.try_run::<String>("CLIENT LIST").unwrap_or_default();
    until("instances at the new one", || users().matches(" user=hub ").count() == CONNECTIONS)
        .await;
    println!("an ordered failover: found in {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    load.goes_on().await;
    load.stop().await.check_after_two_masters();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn publisher_finds_each_new_master() {
    let mut watched = Watched::start().await;
    let instance = watched.instance().await;
    let mut client = instance.client();
    let publisher = watched.set(Redis::new(ADDRESS).unwrap()).publisher().unwrap();
    let publish = async |name: &str| {
        let event = Event::new("n").data(name);
        let confirmation = publisher.publish_confirmed(Audience::all(), event).unwrap();
        tokio::time::timeout(DEADLINE, confirmation).await.expect("Redis answers").unwrap();
    };
    publish("1").await;
    client.until("1").await;
    let length = || watched.replica.run::<u32>("XLEN {shop}:events");
    until("a replica with the event", || length() == 1).await;
    watched.fail_over().await;
    // The old master answers as before for some ten seconds. Events there would be lost.
    let of_hub = |line: &&str| line.contains(" user=hub ") && line.contains(" cmd=eval");
    let start = BusyClock::start();
    let mut number = 0;
    until("a publisher at the new master", || {
        number += 1;
        publisher.broadcast(Event::new("n").data(number.to_string())).unwrap();
        let clients = watched.replica.try_run::<String>("CLIENT LIST").unwrap_or_default();
        clients.lines().filter(of_hub).count() >= 1 && publisher.waiting() == 0
    })
    .await;
    println!("an ordered failover: found in {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    publish("2").await;
    client.until("2").await;
    until("an old master that follows", || follows(&watched.master)).await;
    let newest = || watched.master.run::<String>("GET {shop}:last");
    until("a replica with the event", || {
        newest() == watched.replica.run::<String>("GET {shop}:last")
    })
    .await;
    until("sentinels that know each other", || watched.sentinels.iter().all(Sentinel::is_ready))
        .await;
    watched.replica.kill();
    publish("3").await;
    client.until("3").await;
    assert!(is_master(&watched.master));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn old_master_without_replica_confirms_nothing() {
    let watched = Watched::start().await;
    for server in [&watched.master, &watched.replica] {
        let _: String = server.run("CONFIG SET min-replicas-to-write 1");
    }
    let instance = watched.instance().await;
    let source = || {
        let publisher = watched.set(Redis::new(ADDRESS).unwrap()).publisher().unwrap();
        Source::Publisher(publisher)
    };
    let load = Load::of(&[&instance], vec![source(), source()], 4);
    load.goes_on().await;
    watched.fail_over().await;
    // The new master takes events when the old master follows, after some ten seconds.
    until("an old master that follows", || follows(&watched.master)).await;
    load.goes_on().await;
    // An event of the moment of the failover can be lost. Then a hub has read and reports it:
    // without the setting, publishers confirm events for up to a second that no hub reads.
    load.stop().await.check_after_two_masters();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn replica_named_by_a_sentinel_is_refused() {
    let (named, other) = (Server::start(&[]), Server::start(&["--repl-diskless-sync-delay", "0"]));
    // The stream to read is there.
    Instance::ready(&other.url()).await.publish("0").await;
    let _: String = named.run(&format!("REPLICAOF 127.0.0.1 {}", other.port()));
    until("a replica that follows", || follows(&named)).await;
    // A single sentinel cannot start a failover.
    let sentinel = Sentinel::of(&named);
    until("a sentinel that answers", || sentinel.ask("PING").is_ok()).await;
    let url = sentinel.url();
    let set = |redis: sse_hub::redis::Redis| redis.sentinels([&*url]).unwrap();
    let here =
        Instance::with("redis://mymaster", set, |hub: HubBuilder| hub.announce_outages(true));
    let mut client = here.hub.subscribe(Subscriber::new()).unwrap();
    assert_eq!(told(&mut client).await, r#"{"degraded":true}"#);
    assert_eq!(here.hub.stats().published, 0);
    let _: String = named.run("REPLICAOF NO ONE");
    here.publish("1").await;
    assert_eq!(told(&mut client).await, r#"{"degraded":false}"#);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn acl_lines_are_enough_at_sentinels_and_master() {
    let watched = Watched::start().await;
    let guide = include_str!("../../src/redis/mod.rs");
    let right = "+sentinel|get-master-addr-by-name";
    assert!(guide.contains(&format!("`{right}`, and no keys")));
    let mut urls = Vec::new();
    for sentinel in &watched.sentinels {
        let user = format!("ACL SETUSER finder on >found resetkeys resetchannels -@all {right}");
        sentinel.ask(&user).unwrap();
        urls.push(format!("redis://finder:found@127.0.0.1:{}", sentinel.port.number()));
    }
    let sentinels = || urls.iter().map(String::as_str);
    access::check("redis://hub:secret@mymaster", |redis| redis.sentinels(sentinels()).unwrap())
        .await;
    // At the master, the password of the function; at the sentinels, that of their addresses.
    let _: String = watched.master.run("ACL SETUSER hub resetpass >rotated");
    let ask = || async { Ok::<_, std::io::Error>(Credentials::new("hub", "rotated")) };
    access::check("redis://mymaster", |redis| {
        redis.sentinels(sentinels()).unwrap().credentials(ask)
    })
    .await;
    assert_eq!(access::denied(&watched.master), []);
    for sentinel in &watched.sentinels {
        assert_eq!(sentinel.ask("ACL LOG").unwrap(), Value::Array(Vec::new()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn silent_sentinel_delays_nothing() {
    let master = Server::start(&[]);
    let sentinel = Sentinel::of(&master);
    // Accepts connections and never answers.
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let urls = [format!("redis://{}", silent.local_addr().unwrap()), sentinel.url()];
    let set =
        |redis: sse_hub::redis::Redis| redis.sentinels(urls.iter().map(String::as_str)).unwrap();
    let start = BusyClock::start();
    let here = Instance::with("redis://mymaster", set, |hub| hub);
    here.publish("1").await;
    let took = start.elapsed();
    println!("beside a silent sentinel: {took:?}");
    // A connection that is not made is given up after a quarter of the timeout.
    assert!(took < Duration::from_secs(4), "{took:?}");
}
