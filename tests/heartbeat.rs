//! Heartbeats, with a clock that the tests advance.

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use sse_hub::{Event, Heartbeat, Hub, ManualTimer, Retain, Subscriber, Subscription, Timer};
use support::{Counting, data, event, hub_with, last_id, names, publish, read};

const SECOND: Duration = Duration::from_secs(1);
const EVERY: Duration = Duration::from_secs(15);

fn stream(timer: impl Timer, heartbeat: impl Into<Option<Heartbeat>>) -> (Hub, Subscription) {
    let hub = Hub::builder(timer).heartbeat(heartbeat).build().unwrap();
    let mut stream = hub.subscribe(Subscriber::new()).unwrap();
    assert!(ready(&mut stream).unwrap().starts_with(b"event: hub:open\n"));
    (hub, stream)
}

fn ready(stream: &mut Subscription) -> Option<Bytes> {
    stream.next().now_or_never().map(|item| item.expect("the hub is open"))
}

#[test]
fn an_idle_stream_gets_comments() {
    let timer = ManualTimer::new();
    let (_hub, mut stream) = stream(timer.clone(), Heartbeat::default().every(EVERY));
    for _ in 0..1000 {
        assert_eq!(ready(&mut stream), None);
        timer.advance(EVERY - SECOND);
        assert_eq!(ready(&mut stream), None);
        timer.advance(SECOND);
        assert_eq!(ready(&mut stream).unwrap(), ":\n");
    }
}

#[test]
fn an_event_restarts_the_idle_time() {
    let timer = ManualTimer::new();
    let (hub, mut stream) = stream(timer.clone(), Heartbeat::default().every(EVERY));
    assert_eq!(ready(&mut stream), None);
    for _ in 0..10 {
        timer.advance(EVERY - SECOND);
        hub.broadcast(Event::new("x")).unwrap();
        assert!(ready(&mut stream).unwrap().starts_with(b"event: x\n"));
        assert_eq!(ready(&mut stream), None);
    }
    timer.advance(EVERY - SECOND);
    assert_eq!(ready(&mut stream), None);
    timer.advance(SECOND);
    assert_eq!(ready(&mut stream).unwrap(), ":\n");
}

#[test]
fn events_that_waited_count_as_idle_time() {
    let timer = ManualTimer::new();
    let (hub, mut stream) = stream(timer.clone(), Heartbeat::default().every(EVERY));
    assert_eq!(ready(&mut stream), None);
    publish(&hub, [1, 2]);
    timer.advance(EVERY - SECOND);
    assert!(ready(&mut stream).is_some());
    assert_eq!(ready(&mut stream), None);
    timer.advance(SECOND);
    assert_eq!(ready(&mut stream).unwrap(), ":\n");
}

#[test]
fn a_late_heartbeat_is_sent_once() {
    let timer = ManualTimer::new();
    let (_hub, mut stream) = stream(timer.clone(), Heartbeat::default().every(EVERY));
    assert_eq!(ready(&mut stream), None);
    timer.advance(EVERY * 10);
    assert_eq!(ready(&mut stream).unwrap(), ":\n");
    assert_eq!(ready(&mut stream), None);
}

#[test]
fn events_go_before_a_due_heartbeat() {
    let timer = ManualTimer::new();
    let (hub, mut stream) = stream(timer.clone(), Heartbeat::default().every(EVERY));
    assert_eq!(ready(&mut stream), None);
    hub.broadcast(Event::new("x")).unwrap();
    timer.advance(EVERY);
    assert!(ready(&mut stream).unwrap().starts_with(b"event: x\n"));
    assert_eq!(ready(&mut stream), None);
}

#[test]
fn visible_heartbeat_is_an_event() {
    let timer = ManualTimer::new();
    let (_hub, mut stream) = stream(timer.clone(), Heartbeat::default().every(EVERY).visible(true));
    assert_eq!(ready(&mut stream), None);
    timer.advance(EVERY);
    assert_eq!(ready(&mut stream).unwrap(), "event: hub:heartbeat\ndata: {}\n\n");
}

#[test]
fn disabled_heartbeats_arm_no_timer() {
    let timer = ManualTimer::new();
    let (_hub, mut stream) = stream(timer.clone(), None);
    assert_eq!(ready(&mut stream), None);
    assert_eq!(timer.next_deadline(), None);
    timer.advance(EVERY * 1000);
    assert_eq!(ready(&mut stream), None);
}

#[test]
fn dropped_stream_leaves_no_deadline() {
    let timer = ManualTimer::new();
    let (_hub, mut stream) = stream(timer.clone(), Heartbeat::default().every(EVERY));
    assert_eq!(ready(&mut stream), None);
    assert_eq!(timer.next_deadline(), Some(timer.now() + EVERY));
    drop(stream);
    assert_eq!(timer.next_deadline(), None);
}

#[test]
fn busy_stream_does_not_touch_its_timer() {
    let timer = Counting::default();
    let (hub, mut stream) = stream(timer.clone(), Heartbeat::default().every(EVERY));
    assert_eq!(ready(&mut stream), None);
    let touched = timer.touched.swap(0, Ordering::Relaxed);
    assert!(touched > 0, "the first silence must arm the timer");

    // One hour with an event every second: the timer fires at each old deadline and is armed for
    // the remaining time.
    for _ in 0..3600 {
        timer.timer.advance(SECOND);
        hub.broadcast(Event::new("x")).unwrap();
        assert!(ready(&mut stream).unwrap().starts_with(b"event: x\n"));
        assert_eq!(ready(&mut stream), None);
    }
    let touched = timer.touched.load(Ordering::Relaxed);
    assert!(
        touched <= 2 * 3600 / 15,
        "reset and polled at most once every 15 s, not {touched} times"
    );
}

fn with_position() -> (Hub, ManualTimer) {
    hub_with(|hub| {
        let heartbeat = Heartbeat::default().every(10 * SECOND).position(true);
        hub.heartbeat(heartbeat).retain(Retain::default().events(2))
    })
}

#[test]
fn heartbeat_with_position_keeps_the_cursor_fresh() {
    let (hub, timer) = with_position();
    let mut stream = hub.subscribe(Subscriber::new().topic("quiet")).unwrap();
    read(&mut stream);
    for number in 1..=9 {
        hub.send_to_topic("busy", event(number)).unwrap();
    }
    timer.advance(10 * SECOND);
    let text = read(&mut stream);
    let position = hub.position();
    assert_eq!(text, format!("event: hub:heartbeat\ndata: {{}}\nid: {position}\n\n"));
    assert_eq!(stream.position(), position);
    // Later events still come, and the client resumes from the heartbeat.
    hub.send_to_topic("quiet", event(10)).unwrap();
    assert_eq!(data(&read(&mut stream)), names([10]));
    let mut back = hub.subscribe(Subscriber::new().topic("quiet").resume(position)).unwrap();
    assert!(back.is_resumed());
    assert_eq!(data(&read(&mut back)), names([10]));
}

#[test]
fn heartbeat_with_position_skips_no_waiting_event() {
    let (hub, timer) = with_position();
    let request = || Subscriber::new().at_most_every(60 * SECOND);
    let mut stream = hub.subscribe(request()).unwrap();
    publish(&hub, [1]);
    let before = last_id(&read(&mut stream));
    publish(&hub, [2]);
    timer.advance(10 * SECOND);
    let text = read(&mut stream);
    assert_eq!((last_id(&text), data(&text)), (before, names([])), "event 2 waits: {text}");
    timer.advance(50 * SECOND);
    assert!(data(&read(&mut stream)).contains(&"2".to_owned()));
}

#[cfg(feature = "hyper")]
#[tokio::test(start_paused = true)]
async fn timer_of_hyper_drives_heartbeats() {
    let timer = sse_hub::HyperTimer::new(hyper_util::rt::TokioTimer::new());
    let (hub, mut stream) = stream(timer, Heartbeat::default().every(EVERY));
    let start = tokio::time::Instant::now();
    for number in 1..=100 {
        if number == 50 {
            hub.broadcast(Event::new("x")).unwrap();
            assert!(stream.next().await.unwrap().starts_with(b"event: x\n"));
        }
        assert_eq!(stream.next().await.unwrap(), ":\n");
        // tokio rounds up to milliseconds.
        let late = start.elapsed().checked_sub(EVERY * number).expect("no heartbeat is early");
        assert!(late < SECOND, "{late:?}");
    }
}
