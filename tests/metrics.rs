//! Values that a recorder of the `metrics` facade receives at a scrape.
#![cfg(feature = "metrics")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use metrics::with_local_recorder;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use sse_hub::testing::Instances;
use sse_hub::{
    EndReason, Event, Hub, HubBuilder, Limits, ManualTimer, Retain, RunState, Subscriber,
    Subscription,
};

const SECOND: Duration = Duration::from_secs(1);

fn builder(timer: &ManualTimer) -> HubBuilder {
    Hub::builder(timer.clone()).heartbeat(None)
}

fn drained(stream: &mut Subscription) {
    while let Some(Some(_)) = stream.next().now_or_never() {}
}

/// Returns the recorder's values by name and labels.
fn scrape(recorder: &DebuggingRecorder) -> BTreeMap<String, DebugValue> {
    let values = recorder.snapshotter().snapshot().into_vec().into_iter();
    let named = values.map(|(key, unit, description, value)| {
        let key = key.key();
        assert!(unit.is_some() && description.is_some(), "{key} is described");
        let labels = key.labels().map(|label| format!("{}={}", label.key(), label.value()));
        (format!("{}{:?}", key.name(), labels.collect::<Vec<_>>()), value)
    });
    named.collect()
}

fn one(name: &str) -> String {
    format!("{name}[]")
}

#[test]
fn scrape_matches_the_hub_counts() {
    let timer = ManualTimer::new();
    let hub = builder(&timer)
        .retain(Retain::default().events(2))
        .window(1)
        .limits(Limits::default().clients(2))
        .build()
        .unwrap();
    let recorder = DebuggingRecorder::new();
    let mut stream = hub.subscribe(Subscriber::new()).unwrap();
    drained(&mut stream);
    drop(hub.subscribe(Subscriber::new()));
    let _other = hub.subscribe(Subscriber::new()).unwrap();
    hub.subscribe(Subscriber::new()).unwrap_err();
    for _ in 0..3 {
        hub.broadcast(Event::new("x")).unwrap();
    }
    timer.advance(Duration::from_millis(3));
    drained(&mut stream);
    let stats = hub.stats();

    for _ in 0..2 {
        with_local_recorder(&recorder, || hub.record_metrics(&[]));
    }
    let values = scrape(&recorder);
    let counter = |name: &str| match values.get(name) {
        Some(DebugValue::Counter(count)) => *count,
        other => panic!("{name}: {other:?} of {:?}", values.keys()),
    };
    let gauge = |name: &str| match &values[&one(name)] {
        DebugValue::Gauge(value) => value.0,
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(gauge("sse_hub_clients"), 2.0);
    assert_eq!(gauge("sse_hub_retained_events"), 2.0);
    assert_eq!(gauge("sse_hub_retained_bytes"), stats.retained_bytes as f64);
    assert_eq!(counter(&one("sse_hub_published_total")), 3);
    assert_eq!(counter(&one("sse_hub_delivered_total")), 2);
    assert_eq!(counter(&one("sse_hub_bytes_total")), stats.delivered_bytes);
    assert_eq!(counter(&one("sse_hub_lagged_total")), 1);
    assert_eq!(counter(&one("sse_hub_gaps_total")), 1);
    assert_eq!(counter(r#"sse_hub_refused_total["cause=full"]"#), 1);
    assert_eq!(counter(r#"sse_hub_refused_total["cause=closed"]"#), 0);
    assert_eq!(counter(r#"sse_hub_ended_total["reason=left"]"#), 1);
    let total = |prefix: &str| values.keys().filter(|key| key.starts_with(prefix)).count();
    assert_eq!(total("sse_hub_ended_total"), EndReason::ALL.len());
    assert_eq!(total("sse_hub_refused_total"), 12);
    assert_eq!(total("sse_hub_ended_runs_total"), RunState::ALL.len() - 1, "not for open runs");
    let DebugValue::Histogram(delays) = &values[&one("sse_hub_delay_seconds")] else { panic!() };
    assert_eq!(delays.iter().map(|delay| delay.0).collect::<Vec<_>>(), [0.004_096]);
}

#[test]
fn labels_tell_hubs_apart() {
    let recorder = DebuggingRecorder::new();
    for (name, clients) in [("one", 1), ("two", 2)] {
        let hub = builder(&ManualTimer::new()).build().unwrap();
        let streams: Vec<_> = (0..clients).map(|_| hub.subscribe(Subscriber::new())).collect();
        with_local_recorder(&recorder, || hub.record_metrics(&[("hub", name)]));
        drop(streams);
    }
    let values = scrape(&recorder);
    for (name, clients) in [("one", 1.0), ("two", 2.0)] {
        let key = format!("sse_hub_clients[\"hub={name}\"]");
        assert!(matches!(&values[&key], DebugValue::Gauge(value) if value.0 == clients));
        assert!(
            values.contains_key(&format!("sse_hub_ended_total[\"hub={name}\", \"reason=left\"]"))
        );
    }
}

#[test]
fn late_scrape_samples_a_bounded_number_of_delays() {
    let timer = ManualTimer::new();
    let hub = builder(&timer).build().unwrap();
    let recorder = DebuggingRecorder::new();
    let recorded = || {
        with_local_recorder(&recorder, || hub.record_metrics(&[]));
        match scrape(&recorder).remove(&one("sse_hub_delay_seconds")) {
            Some(DebugValue::Histogram(delays)) => delays,
            _ => Vec::new(),
        }
    };
    // The delay of each stream's first read is measured.
    let read = |count: usize, delay| {
        let mut streams: Vec<_> = (0..count)
            .map(|_| {
                let mut stream = hub.subscribe(Subscriber::new()).unwrap();
                drained(&mut stream);
                stream
            })
            .collect();
        hub.broadcast(Event::new("x")).unwrap();
        timer.advance(delay);
        streams.iter_mut().for_each(drained);
    };
    read(9_999, Duration::from_millis(1));
    read(1, SECOND);
    let first = recorded();
    assert_eq!(first.len(), 3333, "every third");
    read(1, SECOND);
    let second = recorded();
    assert_eq!(second.len(), 2, "rare values must not be lost");
    assert!(second.iter().all(|delay| delay.0 > 1.0));
}

/// An alert on a metric that does not exist never fires.
#[test]
fn guide_explains_exactly_the_recorded_metrics() {
    // A hub with an engine records more metrics.
    let instance = Instances::new().start(builder(&ManualTimer::new())).unwrap();
    let recorder = DebuggingRecorder::new();
    with_local_recorder(&recorder, || instance.hub().record_metrics(&[]));
    let values = scrape(&recorder);
    let mut recorded: BTreeSet<_> =
        values.keys().map(|key| key.split('[').next().unwrap()).collect();
    // Recorded once a delay was measured.
    recorded.insert("sse_hub_delay_seconds");

    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide");
    let (mut count, mut explained) = (0, BTreeSet::new());
    for page in ["production.rs", "troubleshooting.rs"] {
        let text = std::fs::read_to_string(guide.join(page)).unwrap();
        for name in text.split('`').filter(|word| word.starts_with("sse_hub_")) {
            assert!(
                recorded.contains(name),
                "{page} names `{name}`, and a hub records {recorded:?}"
            );
            count += 1;
            if page == "production.rs" {
                explained.insert(name.to_owned());
            }
        }
    }
    assert!(count > 15, "the metrics were not found: {count}");
    let missing: Vec<_> = recorded.iter().filter(|it| !explained.contains(**it)).collect();
    assert!(missing.is_empty(), "the guide does not explain {missing:?}");
}
