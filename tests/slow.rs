//! Clients that do not read stay within the memory limits.

use futures_util::{FutureExt as _, StreamExt as _};
use sse_hub::{Audience, Event, Hub, ManualTimer, Retain, Subscriber, Subscription};

const CLIENTS: usize = 10_000;
const TOPICS: usize = 1_000;
const EVENTS: usize = 1_000_000;
const RETAINED: usize = 4 << 20;

/// Returns the resident memory in bytes, if the system tells it.
fn resident() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<usize>().ok().map(|kib| kib * 1024)
}

#[test]
fn stalled_clients_and_million_events_stay_within_retention() {
    let hub = Hub::builder(ManualTimer::new())
        .retain(Retain::default().events(1 << 20).bytes(RETAINED))
        .stalled_after(None)
        .build()
        .unwrap();
    let connect = |client: usize| {
        let topic = (client % TOPICS).to_string();
        let mut stream = hub.subscribe(Subscriber::new().topic(topic)).unwrap();
        stream.next().now_or_never().unwrap();
        stream
    };
    let mut stalled: Vec<Subscription> = (0..CLIENTS).map(connect).collect();
    let publish = |event: usize| {
        let event_of = Event::default().data("x".repeat(1000));
        let topic = Audience::topic((event % TOPICS).to_string());
        let receipt = hub.publish(topic, event_of).unwrap();
        assert_eq!(receipt.matched(), CLIENTS / TOPICS);
    };
    // By now the log is full and every window was filled.
    (0..EVENTS / 10).for_each(publish);
    let before = resident();
    (EVENTS / 10..EVENTS).for_each(publish);
    let after = resident();

    let stats = hub.stats();
    assert!(stats.retained_bytes <= RETAINED);
    println!("{EVENTS} events of 1 KB, {CLIENTS} stalled: {} B retained", stats.retained_bytes);
    if let (Some(before), Some(after)) = (before, after) {
        let grown = after.saturating_sub(before);
        println!("resident memory: {before} B at a tenth of them, {grown} B more at the end");
        assert!(grown < RETAINED, "900 MB of events were published, and {grown} bytes remained");
    }
    for stream in stalled.iter_mut().step_by(997) {
        let item = stream.next().now_or_never().unwrap().unwrap();
        assert!(item.starts_with(b"event: hub:gap\n"), "a gap must precede the next event");
    }
}
