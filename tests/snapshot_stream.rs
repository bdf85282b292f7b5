//! Snapshots that the application reads while they are sent.

mod support;

use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use futures_util::{FutureExt as _, Stream, StreamExt as _, stream};
use sse_hub::{
    Audience, Drain, Event, EventError, EventId, Goodbye, Heartbeat, Hub, LastEventId, Limits,
    Retain, Subscriber, Subscription,
};
use tokio::sync::mpsc::{self, UnboundedSender};

use support::{
    SECOND, data, end, event, frames, gaps, has_ended, hub_with, last_id, poll, publish, read, wait,
};

const ORIGIN: EventId = EventId::new(0, 0);

type Part = Result<Event, String>;

fn part(number: usize) -> Event {
    Event::new("snapshot").data(number.to_string())
}

fn parts(count: usize) -> impl Stream<Item = Part> + Send {
    stream::iter(1..=count).map(|number| Ok(part(number)))
}

/// Returns a stream of sent parts, and a handle that is dead after the stream was dropped.
fn channel() -> (UnboundedSender<Part>, impl Stream<Item = Part> + Send, Weak<()>) {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let alive = Arc::new(());
    let handle = Arc::downgrade(&alive);
    let parts = stream::poll_fn(move |cx| {
        let _ = &alive;
        receiver.poll_recv(cx)
    });
    (sender, parts, handle)
}

fn send(sender: &UnboundedSender<Part>, number: usize) {
    sender.send(Ok(part(number))).unwrap();
}

/// Subscribes with a snapshot from a channel, and reads the first item.
fn opened(hub: &Hub, who: Subscriber) -> (UnboundedSender<Part>, Subscription, Weak<()>) {
    let (sender, parts, handle) = channel();
    let stream = hub.subscribe(who).unwrap();
    let mut stream = stream.with_snapshot_stream(parts).unwrap();
    let opening = poll(&mut stream).unwrap().unwrap();
    assert!(opening.starts_with(b"event: hub:open\n"));
    (sender, stream, handle)
}

#[test]
fn stream_sends_the_same_snapshot_as_a_list() {
    for replay in [usize::MAX, 2] {
        for (window, batch) in [(1, 1), (32, 64 << 10)] {
            for count in [1, 2, 3, 64, 65, 66, 300] {
                let (hub, _) = hub_with(|hub| {
                    let hub = hub.retain(Retain::default().events(10)).window(window);
                    hub.limits(Limits::default().replay(replay)).max_batch_bytes(batch)
                });
                publish(&hub, 0..=30);
                let old = LastEventId::from(EventId::new(7, 7));
                for last in ["".into(), "garbage".into(), old, hub.position().into()] {
                    let texts = [false, true].map(|is_streamed| {
                        let stream = hub.subscribe(Subscriber::new().resume(last)).unwrap();
                        let id = stream.client_id().to_string();
                        let mut stream = if is_streamed {
                            stream.with_snapshot_stream(parts(count)).unwrap()
                        } else {
                            stream.with_snapshot((1..=count).map(part)).unwrap()
                        };
                        publish(&hub, [31]);
                        let text = read(&mut stream).replace(&id, "");
                        // Neither the reconnect delay nor the new event is the same.
                        let frames = frames(&text).into_iter().map(|mut frame| {
                            frame.retry = None;
                            frame.id = frame.id.filter(|&id| id != hub.position());
                            frame
                        });
                        (frames.collect::<Vec<_>>(), hub.position())
                    });
                    let [(listed, before), (mut streamed, _)] = texts;
                    // The second client subscribed after the event for the first.
                    for frame in &mut streamed {
                        frame.id =
                            frame.id.map(|id| if id == before { before.predecessor() } else { id });
                    }
                    assert_eq!(listed, streamed, "{count} parts after {last:?}");
                }
            }
        }
    }
}

#[test]
fn parts_come_as_the_application_has_them() {
    let (hub, _) = hub_with(|hub| hub);
    publish(&hub, [0]);
    let head = hub.position();
    let (sender, mut stream, handle) = opened(&hub, Subscriber::new());
    let woken = wait(&mut stream);
    send(&sender, 1);
    assert_eq!(woken.count(), 1);
    // Only the next part tells that the first is not the last.
    assert!(poll(&mut stream).is_none());
    send(&sender, 2);
    let text = read(&mut stream);
    assert_eq!((data(&text), frames(&text)[0].id), (vec!["1".to_owned()], None));
    publish(&hub, [10, 11]);
    assert!(poll(&mut stream).is_none(), "live events come after the snapshot");
    send(&sender, 3);
    let text = read(&mut stream);
    assert_eq!((data(&text), frames(&text)[0].id), (vec!["2".to_owned()], None));
    let woken = wait(&mut stream);
    drop(sender);
    assert_eq!(woken.count(), 1);
    let last = poll(&mut stream).unwrap().unwrap();
    let last = String::from_utf8(last.to_vec()).unwrap();
    assert_eq!((data(&last), last_id(&last)), (vec!["3".to_owned()], head));
    assert!(handle.upgrade().is_none(), "the application's stream is dropped");
    assert_eq!(data(&read(&mut stream)), ["10", "11"]);
    publish(&hub, [12]);
    assert_eq!(data(&read(&mut stream)), ["12"]);
}

#[test]
fn events_that_wait_follow_without_a_wake_up() {
    let (hub, _) = hub_with(|hub| hub);
    let (sender, mut stream, _) = opened(&hub, Subscriber::new());
    publish(&hub, [10]);
    // Registers the waker while an event waits.
    assert!(poll(&mut stream).is_none());
    drop(sender);
    poll(&mut stream).unwrap();
    assert_eq!(data(&read(&mut stream)), ["10"]);
}

#[test]
fn cut_client_returns_to_a_gap_until_the_last_part() {
    let (hub, _) = hub_with(|hub| hub);
    publish(&hub, 0..3);
    let (sender, mut stream, _) = opened(&hub, Subscriber::new().resume(hub.position()));
    assert!(stream.is_resumed(), "the handler may ask before it adds a snapshot");
    (1..=3).for_each(|number| send(&sender, number));
    let text = read(&mut stream);
    assert_eq!(data(&text), ["1", "2"]);
    assert!(frames(&text).iter().all(|frame| frame.id.is_none()));
    drop(sender);
    let text = read(&mut stream);
    let again = hub.subscribe(Subscriber::new().resume(last_id(&text))).unwrap();
    assert!(again.is_resumed());
    // `hub:open` had no position.
    let again = hub.subscribe(Subscriber::new().resume(ORIGIN)).unwrap();
    assert!(!again.is_resumed());
}

#[test]
fn empty_stream_is_an_empty_snapshot() {
    let (hub, _) = hub_with(|hub| hub);
    publish(&hub, 0..3);
    let head = hub.position();
    for last in ["garbage".into(), LastEventId::from(head)] {
        let stream = hub.subscribe(Subscriber::new().resume(last)).unwrap();
        let mut stream = stream.with_snapshot_stream(parts(0)).unwrap();
        let text = read(&mut stream);
        assert_eq!(frames(&text)[0].id, Some(ORIGIN));
        assert!(text.ends_with(&format!("\n\nid: {head}\n\n")), "{text}");
    }
    let text = {
        let stream = hub.subscribe(Subscriber::new()).unwrap();
        let stream = stream.with_snapshot([part(1)]).unwrap();
        read(&mut stream.with_snapshot_stream(parts(2)).unwrap())
    };
    assert_eq!(data(&text), ["1", "1", "2"]);
    assert_eq!(frames(&text).iter().filter(|frame| frame.id == Some(head)).count(), 1);
}

#[test]
fn failed_snapshot_ends_the_stream() {
    let refused = || Event::new("x").data("1").id("own");
    for (failure, reached) in [(Err("gone".to_owned()), 2), (Ok(refused()), 2)] {
        let (hub, _) = hub_with(|hub| hub);
        let (sender, mut stream, handle) = opened(&hub, Subscriber::new());
        (1..=reached + 1).for_each(|number| send(&sender, number));
        assert_eq!(data(&read(&mut stream)).len(), reached);
        sender.send(failure).unwrap();
        assert!(has_ended(&mut stream) && handle.upgrade().is_none());
        assert_eq!(hub.stats().clients, 0);
        assert!(has_ended(&mut stream));
    }
}

#[test]
fn stream_is_an_error_where_a_list_is() {
    let (hub, _) = hub_with(|hub| hub);
    let stream = hub.subscribe(Subscriber::new().replay_last(1)).unwrap();
    assert_eq!(stream.with_snapshot_stream(parts(1)).unwrap_err(), EventError::Replay);
    let mut stream = hub.subscribe(Subscriber::new()).unwrap();
    poll(&mut stream).unwrap();
    assert_eq!(stream.with_snapshot_stream(parts(1)).unwrap_err(), EventError::Late);
    let (_sender, stream, _) = opened(&hub, Subscriber::new());
    assert_eq!(stream.with_snapshot([part(1)]).unwrap_err(), EventError::Late);
    assert_eq!(hub.stats().clients, 0);
}

#[test]
fn waiting_snapshot_sends_heartbeats_and_never_stalls() {
    let every = Duration::from_secs(15);
    let (hub, timer) = hub_with(|hub| {
        let hub = hub.heartbeat(Heartbeat::default().every(every));
        hub.stalled_after(60 * SECOND).retain(Retain::default().age(None))
    });
    let (sender, mut stream, _) = opened(&hub, Subscriber::new());
    publish(&hub, [10]);
    assert!(poll(&mut stream).is_none());
    for _ in 0..1_000 {
        timer.advance(every);
        assert_eq!(poll(&mut stream).unwrap().unwrap(), ":\n");
        assert!(poll(&mut stream).is_none());
        // Another client's operation ends streams that stall.
        drop(hub.subscribe(Subscriber::new()).unwrap());
    }
    send(&sender, 1);
    drop(sender);
    assert_eq!(data(&read(&mut stream)), ["1", "10"]);
}

#[test]
fn client_that_does_not_read_its_snapshot_stalls() {
    let (hub, timer) = hub_with(|hub| hub.heartbeat(None).stalled_after(60 * SECOND));
    let (sender, mut stream, handle) = opened(&hub, Subscriber::new());
    publish(&hub, [10]);
    timer.advance(59 * SECOND);
    (1..=2).for_each(|number| send(&sender, number));
    assert_eq!(data(&read_one(&mut stream)), ["1"]);
    timer.advance(59 * SECOND);
    drop(hub.subscribe(Subscriber::new()).unwrap());
    assert_eq!(hub.stats().clients, 1, "the client has read a part");
    timer.advance(SECOND);
    drop(hub.subscribe(Subscriber::new()).unwrap());
    assert_eq!(hub.stats().clients, 0);
    assert!(has_ended(&mut stream) && handle.upgrade().is_none());
}

fn read_one(stream: &mut Subscription) -> String {
    String::from_utf8(poll(stream).unwrap().unwrap().to_vec()).unwrap()
}

#[test]
fn endless_snapshot_does_not_outlive_its_stream() {
    type End<'a> = (&'a str, &'a dyn Fn(&Hub, &Subscription) -> Option<Drain>);
    let ends: [End<'_>; 4] = [
        ("disconnected", &|hub, stream| {
            hub.disconnect(stream.client_id(), Goodbye::from_static("disconnected")).unwrap();
            None
        }),
        ("drained", &|hub, _| Some(hub.drain(10 * SECOND))),
        ("", &|hub, _| {
            hub.close();
            None
        }),
        ("expired", &|_, _| None),
    ];
    for (reason, end_it) in ends {
        for is_ready in [false, true] {
            let (hub, timer) = hub_with(|hub| hub.heartbeat(None));
            let who = Subscriber::new().expires_in(60 * SECOND);
            let alive = Arc::new(());
            let handle = Arc::downgrade(&alive);
            let endless = stream::poll_fn(move |_| {
                let _ = &alive;
                if is_ready { Poll::Ready(Some(Part::Ok(part(1)))) } else { Poll::Pending }
            });
            let stream = hub.subscribe(who).unwrap();
            let mut stream = stream.with_snapshot_stream(endless).unwrap();
            poll(&mut stream).unwrap();
            assert_eq!(poll(&mut stream).is_some(), is_ready);
            let mut drain = end_it(&hub, &stream);
            assert!(drain.as_mut().and_then(|drain| drain.now_or_never()).is_none());
            match reason {
                "expired" => timer.advance(60 * SECOND),
                "drained" => timer.advance(9 * SECOND),
                _ => {}
            }
            let text = read(&mut stream);
            assert_eq!(end(&text).unwrap_or_default(), reason, "{text}");
            assert!(frames(&text).iter().all(|frame| frame.id.is_none()), "{text}");
            assert!(has_ended(&mut stream) && handle.upgrade().is_none(), "{reason}");
        }
    }
    let (hub, _) = hub_with(|hub| hub);
    let (_sender, stream, handle) = opened(&hub, Subscriber::new());
    drop(stream);
    assert!(handle.upgrade().is_none());
}

#[test]
fn finished_stream_waits_for_its_snapshot() {
    let (hub, _) = hub_with(|hub| hub);
    let (sender, mut stream, _) = opened(&hub, Subscriber::new().topic("t"));
    publish(&hub, [10]);
    hub.finish(Audience::topic("t"), Goodbye::from_static("done")).unwrap();
    publish(&hub, [11]);
    assert!(poll(&mut stream).is_none());
    send(&sender, 1);
    drop(sender);
    let text = read(&mut stream);
    assert_eq!(data(&text), ["1", "10"]);
    assert!(frames(&text).pop().unwrap().is_final() && has_ended(&mut stream));
}

#[test]
fn events_lost_during_the_snapshot_are_a_gap() {
    let (hub, _) = hub_with(|hub| hub.retain(Retain::default().events(3)).window(2));
    let (sender, mut stream, _) = opened(&hub, Subscriber::new());
    publish(&hub, 10..20);
    send(&sender, 1);
    drop(sender);
    let text = read(&mut stream);
    assert_eq!(
        (data(&text), gaps(&text)),
        (support::names([1, 17, 18, 19]), vec!["evicted".into()])
    );
    assert!(!frames(&text)[1].is_healed(), "the snapshot began before: {text}");
}

#[test]
fn source_may_use_the_hub() {
    support::within(60 * SECOND, || {
        let (hub, _) = hub_with(|hub| hub);
        let inside = hub.clone();
        let rows = stream::iter(1..=3).map(move |number| {
            inside.broadcast(event(number)).unwrap();
            Part::Ok(part(inside.stats().clients))
        });
        let stream = hub.subscribe(Subscriber::new()).unwrap();
        let mut stream = stream.with_snapshot_stream(rows).unwrap();
        assert_eq!(data(&read(&mut stream)), ["1", "1", "1", "1", "2", "3"]);
    });
}
