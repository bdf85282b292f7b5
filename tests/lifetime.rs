//! Clients that disconnect leave nothing behind, in the hub's counts and in the process's memory.

use std::process::Command;

use futures_util::{FutureExt as _, StreamExt as _};
use sse_hub::{Audience, Event, Hub, Limits, ManualTimer, Retain, Subscriber, Subscription};

const RETAINED: usize = 256;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

#[test]
fn hundred_thousand_clients_leave_no_memory() {
    const CYCLES: usize = 100_000;
    // The log and its memory of evicted events are full long before the last client.
    const WARM_UP: usize = 10_000;
    // Measured: 100 to 144 KiB, all before cycle 50,000, and 0 up to cycle 300,000. The smallest
    // allocation takes 32 bytes: a leak in each cycle would be 2.7 MiB.
    const GROWTH: usize = MIB;

    if !runs_alone("hundred_thousand_clients_leave_no_memory") {
        return;
    }
    let timer = ManualTimer::new();
    let hub = hub(&timer);
    let mut warm = 0;
    for number in 0..CYCLES {
        if number == WARM_UP {
            warm = resident();
        }
        let mut client = connect(&hub, number);
        if number % 4 == 0 {
            assert_eq!(publish(&hub, &client, number), 1);
            assert!(client.next().now_or_never().is_some());
        }
        drop(client);

        let stats = hub.stats();
        assert_eq!((stats.clients, stats.client_names), (0, 0));
        assert!(stats.retained_names <= stats.retained && stats.retained <= RETAINED, "{stats:?}");
    }
    assert_eq!(hub.stats().opened, CYCLES as u64);
    assert_eq!(hub.stats().retained, RETAINED);
    assert_eq!(timer.next_deadline(), None);
    let grown = resident().saturating_sub(warm);
    assert!(grown <= GROWTH, "{} KiB more than after the warm-up", grown / KIB);
}

#[test]
fn second_crowd_takes_no_more_memory() {
    const CLIENTS: usize = 10_000;
    // Measured: a crowd takes 19 MiB, and the second takes 0.9 MiB more, the space between
    // allocations. Later crowds take 2.7 to 3.9 MiB more than the first, without further growth.
    const GROWTH: usize = 4 * MIB;

    if !runs_alone("second_crowd_takes_no_more_memory") {
        return;
    }
    let timer = ManualTimer::new();
    let hub = hub(&timer);
    let mut peaks = Vec::new();
    for round in 0..2 {
        let mut clients: Vec<Subscription> =
            (0..CLIENTS).map(|number| connect(&hub, round * CLIENTS + number)).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(publish(&hub, client, round * CLIENTS + number), 1);
        }
        for _ in 0..10 {
            let receipt = hub.broadcast(Event::new("all").data("everybody")).unwrap();
            assert_eq!(receipt.matched(), CLIENTS);
        }
        for client in &mut clients {
            while client.next().now_or_never().is_some() {}
        }
        let stats = hub.stats();
        assert_eq!(stats.clients, CLIENTS);
        // An event for all clients, and an event for each client id, user, session and topic.
        assert_eq!(stats.client_names, 1 + 4 * CLIENTS);
        assert!(stats.retained_names <= stats.retained && stats.retained <= RETAINED, "{stats:?}");
        peaks.push(resident());

        if round == 0 {
            drop(clients);
        } else {
            clients.into_iter().rev().for_each(drop);
        }
        let stats = hub.stats();
        assert_eq!((stats.clients, stats.client_names), (0, 0));
        assert!(stats.retained_names <= stats.retained && stats.retained <= RETAINED, "{stats:?}");
        assert_eq!(timer.next_deadline(), None);
    }
    let grown = peaks[1].saturating_sub(peaks[0]);
    assert!(grown <= GROWTH, "{} KiB more than the first time", grown / KIB);
}

fn hub(timer: &ManualTimer) -> Hub {
    // The memory of remembered clients is bounded, and `memory.rs` checks the bound. Few are
    // remembered here, so that records are dropped all the time and do not hide other growth.
    let limits = Limits::default().remembered(64);
    let retain = Retain::default().events(RETAINED);
    Hub::builder(timer.clone()).retain(retain).limits(limits).build().unwrap()
}

/// Connects a client with its own names.
fn connect(hub: &Hub, number: usize) -> Subscription {
    let subscriber = Subscriber::new()
        .user(format!("user {number}"))
        .session(format!("session {number}"))
        .topic(format!("topic {number}"));
    let mut client = hub.subscribe(subscriber).unwrap();
    assert!(client.next().now_or_never().is_some());
    assert!(client.next().now_or_never().is_none());
    client
}

fn publish(hub: &Hub, client: &Subscription, number: usize) -> usize {
    let audience = match number / 4 % 4 {
        0 => Audience::user(format!("user {number}")),
        1 => Audience::session(format!("session {number}")),
        2 => Audience::topic(format!("topic {number}")),
        _ => Audience::client(client.client_id()),
    };
    hub.publish(audience, Event::new("n").data("for one")).unwrap().matched()
}

/// Returns whether this process runs only this test, so that its memory can be measured. If not,
/// starts such a process and returns after the test has passed there.
fn runs_alone(test: &str) -> bool {
    const ALONE: &str = "SSE_HUB_TEST_RUNS_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let this = std::env::current_exe().unwrap();
    let run = Command::new(this).args([test, "--exact", "--nocapture"]).env(ALONE, "").output();
    let run = run.unwrap();
    let (told, failed) =
        (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    // A run without a matching test succeeds too.
    assert!(told.contains("test result: ok. 1 passed"), "in its own process:\n{told}{failed}");
    false
}

/// Returns the resident memory of this process in bytes. Returns zero if the system does not tell.
fn resident() -> usize {
    if !cfg!(target_os = "linux") {
        return 0;
    }
    // The second field of `statm` counts pages of varying size. This field counts kilobytes.
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    resident.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * KIB
}
