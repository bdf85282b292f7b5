//! What clients and publishers cost each other.
//!
//! - How long connecting takes while another thread broadcasts without a pause, beside 0 and beside 100,000 clients.
//! - How long 900 clients wait for a broadcast, if another 100 read too and if those do not: each is timed from the
//!   publishing to its own read, one after the other. The two are measured in turns, so that a change of the machine's
//!   pace is in both.
//!
//! Prints medians and 99th percentiles; `-- --test` is a short run with fewer clients.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::{FutureExt as _, StreamExt as _};
use sse_hub::{Event, Hub, ManualTimer, Retain, Subscriber, Subscription};

fn main() {
    let smoke = std::env::args().any(|argument| argument == "--test");
    let (crowd, connects) = if smoke { (1_000, 200) } else { (100_000, 5_000) };
    for clients in [0, crowd] {
        let (broadcasts, mut times) = measure(clients, connects);
        times.sort_unstable();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        println!(
            "connect beside {clients} clients: median {:?}, p99 {:?}, max {:?} over {connects} connects, \
             {broadcasts} broadcasts meanwhile",
            at(0.5),
            at(0.99),
            at(1.0),
        );
    }

    let rounds = if smoke { 20 } else { 2_000 };
    let [all_read, some_stall] = stalled(rounds).map(|mut times| {
        times.sort_unstable();
        [0.5, 0.99].map(|share| times[((times.len() - 1) as f64 * share) as usize])
    });
    println!(
        "900 clients wait for a broadcast: median {:?}, p99 {:?} if 100 more read too; median {:?}, p99 {:?} if those \
         stall (p99 x {:.3})",
        all_read[0],
        all_read[1],
        some_stall[0],
        some_stall[1],
        some_stall[1].as_secs_f64() / all_read[1].as_secs_f64(),
    );
}

/// Times from publishing to reading of 900 clients: if another 100 read too, and if those do not.
fn stalled(rounds: usize) -> [Vec<Duration>; 2] {
    let group = || {
        let hub = Hub::builder(ManualTimer::new()).build().expect("the settings are valid");
        let connect = |_| hub.subscribe(Subscriber::new()).expect("the hub is open");
        let mut streams: Vec<Subscription> = (0..1_000).map(connect).collect();
        for stream in &mut streams {
            stream.next().now_or_never().expect("the opening is there at once");
        }
        (hub, streams)
    };
    let mut groups = [group(), group()];
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..2 * rounds {
        let which = round % 2;
        let (hub, streams) = &mut groups[which];
        let start = Instant::now();
        hub.broadcast(Event::new("notification").data("x")).expect("valid");
        for stream in &mut streams[..900] {
            stream.next().now_or_never().expect("it was published");
            times[which].push(start.elapsed());
        }
        if which == 0 {
            for stream in &mut streams[900..] {
                stream.next().now_or_never().expect("it was published");
            }
        }
    }
    times
}

fn measure(clients: usize, connects: usize) -> (u64, Vec<Duration>) {
    let hub = Hub::builder(ManualTimer::new())
        .retain(Retain::default().events(1024))
        .build()
        .expect("the settings are valid");
    let connect = || hub.subscribe(Subscriber::new().user("42")).expect("the hub is open");
    let mut crowd: Vec<Subscription> = (0..clients).map(|_| connect()).collect();
    for stream in &mut crowd {
        stream.next().now_or_never().expect("the opening is there at once");
    }
    let done = AtomicBool::new(false);
    let before = hub.stats().published;
    let times = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                hub.broadcast(Event::new("notification").data("x")).expect("valid");
            }
        });
        while hub.stats().published == before {
            thread::yield_now();
        }
        let times = (0..connects).map(|_| {
            let start = Instant::now();
            let stream = connect();
            let took = start.elapsed();
            drop(stream);
            // Connects come one by one, and not as fast as they can.
            thread::sleep(Duration::from_micros(100));
            took
        });
        let times = times.collect();
        done.store(true, Ordering::Relaxed);
        times
    });
    (hub.stats().published - before, times)
}
