//! Instances follow their keys to the node of a cluster that owns them.

use std::time::Instant;

use sse_hub::redis::{Credentials, Redis};

use crate::access;
use crate::faults::check_recovery;
use crate::instances::allow_hub;
use crate::load::{Instance, Load, Source, until};
use crate::server::{Nobody, PORT, Server};

/// Three masters with a third of the slots each, and a replica of the keys' owner.
struct Cluster {
    nodes: Vec<Server>,
    slot: u16,
    owner: usize,
    nobody: Nobody,
}

const REPLICA: usize = 3;

impl Cluster {
    async fn start() -> Self {
        let start = || {
            let node = ["--cluster-enabled", "yes", "--cluster-port", PORT];
            let quick = ["--cluster-node-timeout", "500", "--repl-diskless-sync-delay", "0"];
            Server::start(&[node, quick].concat())
        };
        let nodes: Vec<Server> = (0..4).map(|_| start()).collect();
        for (node, slots) in nodes.iter().zip(["0 5460", "5461 10922", "10923 16383"]) {
            let _: String = node.run(&format!("CLUSTER ADDSLOTSRANGE {slots}"));
        }
        for node in &nodes[1..] {
            let meet = format!("CLUSTER MEET 127.0.0.1 {} {}", node.port(), node.further_port(0));
            let _: String = nodes[0].run(&meet);
        }
        for node in &nodes {
            allow_hub(node, "+cluster|keyslot +cluster|slots");
            let knows_all = || info(node).contains("cluster_known_nodes:4");
            until("nodes that know each other", knows_all).await;
        }
        let slot: u16 = nodes[0].run("CLUSTER KEYSLOT {shop}:events");
        let owner = usize::from(slot / 5461).min(2);
        let cluster = Self { nodes, slot, owner, nobody: Nobody::new() };
        let replicate = format!("CLUSTER REPLICATE {}", cluster.id(owner));
        let of_the_owner = || cluster.nodes[REPLICA].try_run::<String>(&replicate).is_ok();
        until("a replica of the owner", of_the_owner).await;
        for node in &cluster.nodes {
            until("a cluster that works", || info(node).contains("cluster_state:ok")).await;
        }
        until("a replica that follows", || cluster.follows(REPLICA)).await;
        let all_know = || {
            let replicas =
                |node: &Server| node.run::<String>("CLUSTER NODES").matches("slave").count();
            cluster.nodes.iter().all(|node| replicas(node) == 1)
        };
        until("nodes that know of the replica", all_know).await;
        cluster
    }

    fn id(&self, node: usize) -> String {
        self.nodes[node].run("CLUSTER MYID")
    }

    fn follows(&self, node: usize) -> bool {
        self.nodes[node].run::<String>("INFO replication").contains("master_link_status:up")
    }

    fn is_master(&self, node: usize) -> bool {
        self.nodes[node].run::<String>("INFO replication").contains("role:master")
    }

    /// Returns a master that does not own the keys.
    fn other(&self) -> usize {
        (self.owner + 1) % 3
    }

    fn first(&self) -> String {
        format!("redis://hub:secret@127.0.0.1:{}", self.nobody.port())
    }

    fn set(&self, redis: Redis) -> Redis {
        let more = self.nodes[(self.owner + 2) % 3].port();
        redis.prefix("shop").cluster([&*format!("redis://hub:secret@127.0.0.1:{more}")]).unwrap()
    }

    /// Returns an instance that knows a node that never owned the keys, and an address without a
    /// node.
    async fn instance(&self) -> Instance {
        let instance = Instance::with(&self.first(), |redis| self.set(redis), |hub| hub);
        instance.backplane.ready().await;
        instance
    }
}

fn info(node: &Server) -> String {
    node.run("CLUSTER INFO")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn slot_moves_to_another_node_under_load() {
    let cluster = Cluster::start().await;
    let instances = [cluster.instance().await, cluster.instance().await];
    let load = Load::start(&instances.each_ref(), 4, 24);
    load.goes_on().await;
    let (from, to) = (cluster.owner, cluster.other());
    let (slot, source, target) = (cluster.slot, cluster.id(from), cluster.id(to));
    let set = |node: usize, what: &str| {
        let _: String = cluster.nodes[node].run(&format!("CLUSTER SETSLOT {slot} {what}"));
    };
    set(to, &format!("IMPORTING {source}"));
    set(from, &format!("MIGRATING {target}"));
    let port = cluster.nodes[to].port();
    let keys: Vec<String> = cluster.nodes[from].run(&format!("CLUSTER GETKEYSINSLOT {slot} 100"));
    assert!(keys.len() >= 3, "{keys:?}");
    for key in keys {
        // Between two keys, neither node has all.
        let _: String = cluster.nodes[from].run(&format!("MIGRATE 127.0.0.1 {port} {key} 0 5000"));
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let before = load.confirmed();
    set(to, &format!("NODE {target}"));
    set(from, &format!("NODE {target}"));
    set((cluster.owner + 2) % 3, &format!("NODE {target}"));
    let took = load.goes_on().await;
    println!("the slot has moved after {before} events, and is found in {took:?}");
    load.stop().await.check_exact();
    check_recovery(&[took]);
    let length: usize = cluster.nodes[to].run("XLEN {shop}:events");
    assert!(length > before, "{length}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn ordered_failover_of_the_owner() {
    let cluster = Cluster::start().await;
    let instances = [cluster.instance().await, cluster.instance().await];
    let load = Load::start(&instances.each_ref(), 4, 24);
    load.goes_on().await;
    let _: String = cluster.nodes[REPLICA].run("CLUSTER FAILOVER");
    until("another master", || cluster.is_master(REPLICA)).await;
    let took = load.goes_on().await;
    println!("an ordered failover: {took:?}");
    // The owner waits until the replica has all.
    load.stop().await.check_exact();
    check_recovery(&[took]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn publishers_follow_a_failover_of_the_owner() {
    let cluster = Cluster::start().await;
    let instance = cluster.instance().await;
    let redis = || cluster.set(Redis::new(&cluster.first()).unwrap());
    let source = || Source::Publisher(redis().publisher().unwrap());
    let load = Load::of(&[&instance], vec![source(), source()], 8);
    load.goes_on().await;
    let _: String = cluster.nodes[REPLICA].run("CLUSTER FAILOVER");
    until("another master", || cluster.is_master(REPLICA)).await;
    let took = load.goes_on().await;
    load.stop().await.check_exact();
    check_recovery(&[took]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn owner_is_killed_and_replica_takes_over() {
    let mut cluster = Cluster::start().await;
    let instances = [cluster.instance().await, cluster.instance().await];
    let load = Load::start(&instances.each_ref(), 4, 24);
    load.goes_on().await;
    let owner = cluster.owner;
    let killed = Instant::now();
    cluster.nodes[owner].kill();
    until("another master", || cluster.is_master(REPLICA)).await;
    let took_over = killed.elapsed();
    let took = load.goes_on().await;
    println!("failover: {took_over:?} until there was a master, and {took:?} to find it");
    load.stop().await.check_after_two_masters();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn acl_line_and_credentials_hold_for_all_nodes() {
    let cluster = Cluster::start().await;
    let ports: Vec<u16> = cluster.nodes.iter().map(Server::port).collect();
    // Each node leads to the owner.
    for port in &ports {
        let url = format!("redis://hub:secret@127.0.0.1:{port}");
        access::check(&url, |redis| redis.cluster([]).unwrap()).await;
    }
    for node in &cluster.nodes {
        let _: String = node.run("ACL SETUSER hub resetpass >rotated");
    }
    let nobody = format!("redis://127.0.0.1:{}", cluster.nobody.port());
    let other = format!("redis://hub:old@127.0.0.1:{}", ports[cluster.other()]);
    let set = |redis: Redis| {
        let ask = || async { Ok::<_, std::io::Error>(Credentials::new("hub", "rotated")) };
        redis.cluster([&*other]).unwrap().credentials(ask)
    };
    access::check(&nobody, set).await;
    for node in &cluster.nodes {
        assert_eq!(access::denied(node), []);
    }
}
