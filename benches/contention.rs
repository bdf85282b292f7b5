//! How long connecting takes while another thread broadcasts to many clients without a pause.
//!
//! Prints the median, the 99th percentile and the maximum over a few thousand connects, for 0 and for 100,000 clients
//! (1,000 in a smoke run, `-- --test`).

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
}

fn measure(clients: usize, connects: usize) -> (u64, Vec<Duration>) {
    let hub = Hub::builder(ManualTimer::new())
        .retain(Retain::events(1024))
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
