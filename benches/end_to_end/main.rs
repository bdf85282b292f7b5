//! Streams over TCP: the hub against other servers, and against the price of the kernel.
//!
//! ```text
//! cargo bench --all-features --bench end_to_end                 everything: about six minutes
//! cargo bench --all-features --bench end_to_end -- streams/9000 churn --peer=axum
//! cargo bench --all-features --bench end_to_end -- --test       some seconds, few clients
//! ```
//!
//! A server is a process on the first processor, and the load is a process on the second. The
//! servers take turns within each round, and each figure is the median over the rounds. A ratio
//! compares with the bare loop in the same round, so load on the machine changes figures more than
//! ratios.
//!
//! | server | |
//! |---|---|
//! | bare send | a loop that calls `send` for each client and event |
//! | axum Sse | axum's `Sse` over `tokio::sync::broadcast` |
//! | hub on axum::serve | a `Subscription` as the response of a handler |
//! | hub on serve | the same router on `sse_hub::serve` |
//!
//! | bench | measures |
//! |---|---|
//! | `streams/N` | `memory`: resident memory for each idle client. The kernel's buffers are not counted |
//! | | `single`: CPU time of the server for each delivery of an event of 200 bytes, and the time from publishing to the read of each client. The next event follows when all clients have the last |
//! | | `burst`: the same CPU time, if 16 events are published at once |
//! | `connect/N` | the time until `N` clients are in that connect at once, and the CPU time for each |
//! | `targeted/N` | the delay of 1,000 events a second for one user each, while 10 events a second go to all |
//! | `churn/N` | growth of memory, descriptors and tasks, and events lost by `N` other clients, while 2,000 clients a second connect and leave after 100 ms |
//!
//! `churn` runs for the last server only, unless the bench is named.
//!
//! Results are also written to `bench-results/end_to_end.tsv` in the target directory, except those
//! of `--test`. Needs Linux and `taskset`.

mod event;
mod load;
mod pair;
mod results;
mod server;

use std::time::{Duration, Instant};
use std::{env, thread};

use load::{Churned, Connected, Delivered, ServerState};
use pair::{LOAD, Pair, SERVER, Usage};
use results::{At, Results, median};
use server::Peer;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Descriptors of a process that are no clients.
const OTHER_DESCRIPTORS: u64 = 200;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match *arguments.iter().map(String::as_str).collect::<Vec<_>>() {
        [SERVER, peer] => return Ok(server::run(peer.parse()?)?),
        [LOAD, clients, commands] => return load::run(clients.parse()?, commands.parse()?),
        _ => {}
    }
    let limit = rlimit::increase_nofile_limit(u64::MAX)?;
    let plan = Plan::new(&arguments, limit);
    let mut results = Results::default();
    let begun = Instant::now();
    for clients in plan.streams {
        if plan.runs("streams", clients) {
            streams(&plan, clients, &mut results)?;
        }
    }
    if plan.runs("connect", plan.many) {
        connect(&plan, &mut results)?;
    }
    if plan.runs("targeted", plan.many) {
        targeted(&plan, &mut results)?;
    }
    if plan.runs("churn", plan.few) {
        churn(&plan, &mut results)?;
    }
    println!("{}\n\n{:.0} s", results.tables(), begun.elapsed().as_secs_f64());
    if !plan.is_smoke {
        println!("{}", results.save()?.display());
    }
    Ok(())
}

struct Plan {
    filters: Vec<String>,
    /// Parts of the names of servers; all servers if empty.
    peers: Vec<String>,
    is_smoke: bool,
    /// How often all servers take their turn.
    rounds: usize,
    streams: [u64; 3],
    few: u64,
    many: u64,
    /// For each turn.
    deliveries: u64,
    targeted: Duration,
    churn: Duration,
    churn_rate: u64,
}

impl Plan {
    fn new(arguments: &[String], descriptors: u64) -> Self {
        let peers = arguments.iter().filter_map(|argument| argument.strip_prefix("--peer="));
        let peers = peers.map(str::to_owned).collect();
        let filters = arguments.iter().filter(|argument| !argument.starts_with('-'));
        let filters = filters.cloned().collect();
        if arguments.iter().any(|argument| argument == "--test") {
            return Self {
                filters,
                peers,
                is_smoke: true,
                rounds: 1,
                streams: [40, 60, 80],
                few: 40,
                many: 60,
                deliveries: 400,
                targeted: Duration::from_millis(200),
                churn: Duration::from_secs(1),
                churn_rate: 200,
            };
        }
        let most = descriptors.saturating_sub(OTHER_DESCRIPTORS) / 100 * 100;
        let many = most.min(9_000);
        Self {
            filters,
            peers,
            is_smoke: false,
            rounds: 3,
            streams: [1_000, many, most.min(100_000)],
            few: 1_000,
            many,
            deliveries: 250_000,
            targeted: Duration::from_secs(3),
            churn: Duration::from_secs(60),
            churn_rate: 2_000,
        }
    }

    /// Returns the servers to compare. The bare loop is the measure for the others, so always first.
    fn peers(&self) -> impl Iterator<Item = Peer> {
        Peer::ALL.iter().copied().filter(|&peer| {
            let is_named = self.peers.iter().any(|part| peer.name().contains(&**part));
            peer == Peer::Bare || self.peers.is_empty() || is_named
        })
    }

    /// Whether a filter selects the bench by a part of its name, or there is no filter.
    fn runs(&self, bench: &str, clients: u64) -> bool {
        let name = format!("{bench}/{clients}");
        let runs = self.filters.is_empty() || self.is_named(&name);
        if runs {
            eprintln!("{name}");
        }
        runs
    }

    fn is_named(&self, name: &str) -> bool {
        self.filters.iter().any(|filter| name.contains(&**filter))
    }
}

/// A turn of a server.
#[derive(Default)]
struct Turns {
    single: Vec<f64>,
    burst: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
}

fn streams(plan: &Plan, clients: u64, results: &mut Results) -> Result<()> {
    let mut servers = Vec::new();
    for peer in plan.peers() {
        let (pair, memory) = Pair::start_with(peer, clients, false)?;
        let at = At { bench: "memory", peer: peer.name(), clients };
        results.add(at, "memory", memory, "B");
        servers.push((pair, Turns::default()));
    }
    let singles = (plan.deliveries / clients).max(1);
    let bursts = (plan.deliveries / (8 * clients)).max(1);
    for _ in 0..plan.rounds {
        for (server, turns) in &mut servers {
            // The processor's caches hold the data of the last server.
            server.ask::<Delivered>("all 2 1")?;
            let (cpu, seen) = per_delivery(server, &format!("all {singles} 1"))?;
            turns.single.push(cpu);
            turns.p50.push(seen.p50 as f64);
            turns.p99.push(seen.p99 as f64);
            turns.burst.push(per_delivery(server, &format!("all {bursts} 16"))?.0);
        }
    }
    let first = &servers[0].1;
    for (server, turns) in &servers {
        let at = At { bench: "single", peer: server.peer.name(), clients };
        let metric = ["cpu_per_delivery", "cpu_ratio"];
        results.add_rounds(at, metric, (&turns.single, &first.single), "ns");
        results.add_rounds(at, ["p50", "p50_ratio"], (&turns.p50, &first.p50), "ns");
        results.add_rounds(at, ["p99", "p99_ratio"], (&turns.p99, &first.p99), "ns");
    }
    for (server, turns) in &servers {
        let at = At { bench: "burst", peer: server.peer.name(), clients };
        let metric = ["cpu_burst16", "cpu_ratio"];
        results.add_rounds(at, metric, (&turns.burst, &first.burst), "ns");
    }
    Ok(())
}

/// Returns the server's CPU time for each delivery, in nanoseconds.
fn per_delivery(server: &mut Pair, command: &str) -> Result<(f64, Delivered)> {
    let before = server.usage()?;
    let seen: Delivered = server.ask(command)?;
    let after = server.usage()?;
    Ok(((after.cpu - before.cpu) as f64 / seen.count as f64, seen))
}

fn connect(plan: &Plan, results: &mut Results) -> Result<()> {
    let clients = plan.many;
    let mut peers: Vec<_> = plan.peers().map(|peer| (peer, Vec::new(), Vec::new())).collect();
    for _ in 0..plan.rounds {
        for (peer, times, cpu) in &mut peers {
            let mut server = Pair::start(*peer)?;
            let before = server.usage()?;
            let connected: Connected = server.ask(&format!("connect {clients} {clients} 0"))?;
            let used = server.usage()?.cpu - before.cpu;
            times.push(connected.took as f64 / 1e6);
            cpu.push(used as f64 / clients as f64);
        }
    }
    let (_, first_times, first_cpu) = &peers[0];
    for (peer, times, cpu) in &peers {
        let at = At { bench: "connect", peer: peer.name(), clients };
        results.add_rounds(at, ["time", "time_ratio"], (times, first_times), "ms");
        results.add_rounds(at, ["cpu", "cpu_ratio"], (cpu, first_cpu), "ns");
    }
    Ok(())
}

fn targeted(plan: &Plan, results: &mut Results) -> Result<()> {
    let clients = plan.many;
    let mut servers = Vec::new();
    for peer in plan.peers().filter(|peer| peer.has_users()) {
        let (pair, _) = Pair::start_with(peer, clients, true)?;
        servers.push((pair, Vec::new()));
    }
    let command = format!("one {} 1000 100000", plan.targeted.as_millis());
    for _ in 0..plan.rounds {
        for (server, seen) in &mut servers {
            seen.push(server.ask::<Delivered>(&command)?);
        }
    }
    for (server, seen) in &servers {
        let at = At { bench: "targeted", peer: server.peer.name(), clients };
        let mut add = |metric, of: fn(&Delivered) -> u64| {
            let values = seen.iter().map(|seen| of(seen) as f64 / 1e3).collect();
            results.add(at, metric, median(values), "us");
        };
        add("p50", |seen| seen.p50);
        add("p99", |seen| seen.p99);
        add("max", |seen| seen.max);
        add("asked_p50", |seen| seen.asked_p50);
        add("asked_p99", |seen| seen.asked_p99);
    }
    Ok(())
}

fn churn(plan: &Plan, results: &mut Results) -> Result<()> {
    let clients = plan.few;
    let all = plan.is_smoke || plan.is_named(&format!("churn/{clients}"));
    let last = plan.peers().last();
    for peer in plan.peers().filter(|&peer| all || Some(peer) == last) {
        let (mut server, _) = Pair::start_with(peer, clients, false)?;
        let before = (server.usage()?, server.ask::<ServerState>("state")?);
        let (seconds, rate) = (plan.churn.as_secs(), plan.churn_rate);
        server.send(&format!("churn {seconds} {rate} 20"))?;
        // The clients that are connected at a time vary: compare means.
        let mut quarters = [0.0; 4];
        for quarter in &mut quarters {
            for _ in 0..20 {
                thread::sleep(plan.churn / 80);
                *quarter += server.usage()?.memory as f64 / 20.0;
            }
        }
        let churned: Churned = server.answer()?;
        let after = settled(&mut server, before)?;
        let at = At { bench: "churn", peer: peer.name(), clients };
        let grown = |before: u64, after: u64| after as f64 - before as f64;
        results.add(at, "connects", churned.connected as f64 / seconds as f64, "1/s");
        results.add(at, "failed", churned.failed as f64, "clients");
        results.add(at, "delivered", churned.delivered as f64, "events");
        results.add(at, "lost", churned.faults as f64, "events");
        results.add(at, "memory_growth", quarters[3] - quarters[1], "B");
        let descriptors = grown(before.0.descriptors, after.0.descriptors);
        results.add(at, "descriptors_growth", descriptors, "descriptors");
        results.add(at, "tasks_growth", grown(before.1.tasks, after.1.tasks), "tasks");
        results.add(at, "clients_growth", grown(before.1.clients, after.1.clients), "clients");
    }
    Ok(())
}

/// Returns the usage and the state of a server once they are as before, or after five seconds.
fn settled(server: &mut Pair, before: (Usage, ServerState)) -> Result<(Usage, ServerState)> {
    let begun = Instant::now();
    loop {
        let after = (server.usage()?, server.ask::<ServerState>("state")?);
        let is_settled = after.0.descriptors <= before.0.descriptors
            && after.1.tasks <= before.1.tasks
            && after.1.clients <= before.1.clients;
        if is_settled || begun.elapsed() > Duration::from_secs(5) {
            return Ok(after);
        }
        thread::sleep(Duration::from_millis(20));
    }
}
