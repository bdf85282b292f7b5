//! A suite of behaviours on every runtime: tokio with several threads and with a single thread,
//! smol, and no runtime.

mod runtime;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{Either, select};
use futures_util::{FutureExt as _, StreamExt as _};
use runtime::{Bare, Runtime, Task};
use sse_hub::{
    EndReason, Event, Heartbeat, Hub, HubBuilder, Presence, PresenceEvent, RefusedCause,
    Subscriber, Subscription, Timer as _,
};
use support::{Frame, frames, within};

/// The limit for steps that take milliseconds on an idle machine.
const DEADLINE: Duration = Duration::from_secs(60);

macro_rules! suite {
    ($($(#[$only:meta])* $name:ident on $runtime:ty;)*) => {$(
        $(#[$only])*
        mod $name {
            use super::*;

            tests! {
                $runtime:
                stream_opens_at_once,
                many_tasks_see_one_order,
                silent_stream_gets_heartbeats_on_time,
                client_resumes_its_position,
                drain_ends_all_streams_in_time,
                stream_ends_at_its_deadline,
                watch_sees_users_join_and_leave,
                dropped_next_loses_no_event,
                moved_subscription_wakes_its_new_task,
                heartbeat_wakes_the_current_task,
                stalled_client_ends_without_delaying_others,
            }
        }
    )*};
}

macro_rules! tests {
    ($runtime:ty: $($behaviour:ident,)*) => {$(
        #[test]
        fn $behaviour() {
            within(DEADLINE, || {
                let runtime = <$runtime>::start();
                runtime.block_on(super::$behaviour(&runtime));
            });
        }
    )*};
}

suite! {
    #[cfg(feature = "tokio")]
    tokio_with_many_threads on runtime::with_tokio::ManyThreads;
    #[cfg(feature = "tokio")]
    tokio_with_one_thread on runtime::with_tokio::OneThread;
    #[cfg(feature = "hyper")]
    smol on runtime::Smol;
    no_runtime on Bare;
}

async fn stream_opens_at_once<R: Runtime>(runtime: &R) {
    let hub = hub(runtime).build().unwrap();
    let mut stream = hub.subscribe(Subscriber::new()).unwrap();
    assert_eq!(hub.stats().clients, 1);
    // No other step is needed, neither on this task nor on another.
    let opening = stream.next().now_or_never().expect("the opening is available at once").unwrap();
    let [open] = &*frames(str::from_utf8(&opening).unwrap()) else { panic!("{opening:?}") };
    assert_eq!(open.event, "hub:open");
    assert!(open.id.is_some() && open.retry.is_some());

    let other = hub.subscribe(Subscriber::new()).unwrap();
    let client = other.client_id();
    let (opening, mut other) = runtime.spawn(read_one(other)).await;
    assert!(opening.data.contains(&client.to_string()), "{opening:?}");
    assert!(other.next().now_or_never().is_none(), "the stream must have no other item");
    drop((stream, other));
    assert_eq!(hub.stats().clients, 0);
}

async fn many_tasks_see_one_order<R: Runtime>(runtime: &R) {
    const EACH: usize = 100;
    let hub = hub(runtime).build().unwrap();
    let readers: Vec<Task<Vec<Frame>>> = (0..3)
        .map(|_| {
            let mut stream = opened(&hub, Subscriber::new());
            runtime.spawn(async move { read(&mut stream, 2 * EACH).await })
        })
        .collect();
    let publishers = ["a", "b"].map(|publisher| {
        let hub = hub.clone();
        runtime.spawn(async move {
            for number in 0..EACH {
                hub.broadcast(Event::new(publisher).data(number.to_string())).unwrap();
                yield_now().await;
            }
        })
    });
    for publisher in publishers {
        publisher.await;
    }
    let mut orders = BTreeSet::new();
    for reader in readers {
        let frames = reader.await;
        assert!(frames.is_sorted_by(|one, next| one.id < next.id), "ids must rise");
        for publisher in ["a", "b"] {
            let of = frames.iter().filter(|frame| frame.event == publisher);
            let numbers: Vec<usize> = of.map(|frame| frame.data.parse().unwrap()).collect();
            assert_eq!(numbers, (0..EACH).collect::<Vec<_>>());
        }
        orders
            .insert(frames.into_iter().map(|frame| (frame.event, frame.data)).collect::<Vec<_>>());
    }
    assert_eq!(orders.len(), 1);
}

async fn silent_stream_gets_heartbeats_on_time<R: Runtime>(runtime: &R) {
    const BEATS: u32 = 3;
    let timer = runtime.timer();
    let heartbeat = Heartbeat::default().every(R::WHILE);
    let hub = hub(runtime).heartbeat(heartbeat).build().unwrap();
    let mut stream = opened(&hub, Subscriber::new());
    let silent_since = timer.now();
    let clock = timer.clone();
    let reading = runtime.spawn(async move {
        let mut beats = Vec::new();
        for _ in 0..BEATS {
            beats.push((stream.next().await.unwrap(), clock.now()));
        }
        beats
    });
    for _ in 0..BEATS {
        until("it waits", || runtime.is_waited_for()).await;
        runtime.pass(R::WHILE);
    }
    for (beat, (bytes, at)) in (1..).zip(reading.await) {
        assert_eq!(bytes, ":\n");
        let after = at - silent_since;
        assert!(after >= R::WHILE * beat, "heartbeat {beat} came after {after:?}");
    }
}

async fn client_resumes_its_position<R: Runtime>(runtime: &R) {
    let hub = hub(runtime).build().unwrap();
    let ann = || Subscriber::new().user("ann");
    let stream = opened(&hub, ann());
    hub.send_to_user("ann", text("seen")).unwrap();
    let (seen, stream) = runtime.spawn(read_one(stream)).await;
    assert_eq!(seen.data, "seen");
    drop(stream);

    // More events than the window of a client, so that the client reads the log while others
    // publish.
    for number in 0..100 {
        hub.send_to_user("ann", text(&number.to_string())).unwrap();
        hub.send_to_user("bob", text("for another user")).unwrap();
    }
    let mut back = hub.subscribe(ann().resume(seen.id.unwrap())).unwrap();
    assert!(back.is_resumed());
    let publishing = hub.clone();
    let publisher = runtime.spawn(async move {
        for number in 100..200 {
            publishing.send_to_user("ann", text(&number.to_string())).unwrap();
            yield_now().await;
        }
    });
    let frames = runtime.spawn(async move { read(&mut back, 201).await }).await;
    publisher.await;
    assert_eq!(frames[0].event, "hub:open");
    let numbers: Vec<usize> = frames[1..].iter().map(|frame| frame.data.parse().unwrap()).collect();
    assert_eq!(numbers, (0..200).collect::<Vec<_>>());
}

async fn drain_ends_all_streams_in_time<R: Runtime>(runtime: &R) {
    // The last tenth leaves room for late reads on a busy machine.
    let over = R::WHILE * 50;
    let hub = hub(runtime).build().unwrap();
    let readers: Vec<Task<Vec<Frame>>> = (0..20)
        .map(|_| {
            let mut stream = opened(&hub, Subscriber::new());
            runtime.spawn(async move { read_to_the_end(&mut stream).await })
        })
        .collect();
    hub.broadcast(text("before")).unwrap();
    // The clients wait again, for longer than the drain allows.
    until("all clients have read", || hub.stats().delivered == 20).await;
    let draining = runtime.spawn(hub.drain(over));
    assert_eq!(hub.subscribe(Subscriber::new()).unwrap_err().cause(), RefusedCause::Draining);
    until("somebody waits", || runtime.is_waited_for()).await;
    runtime.pass(over.mul_f64(0.9));
    draining.await;
    assert_eq!(hub.stats().clients, 0);
    for reader in readers {
        let frames = reader.await;
        let [before, end] = &*frames else { panic!("{frames:?}") };
        assert_eq!(before.data, "before");
        assert_eq!((end.event.as_str(), end.reason()), ("hub:end", Some("drained")));
    }
}

async fn stream_ends_at_its_deadline<R: Runtime>(runtime: &R) {
    let timer = runtime.timer();
    let hub = hub(runtime).build().unwrap();
    // The stream opens first.
    let span = R::WHILE * 10;
    let deadline = timer.now() + span;
    let mut stream = opened(&hub, Subscriber::new().until(deadline));
    let clock = timer.clone();
    let reading = runtime.spawn(async move { (read_to_the_end(&mut stream).await, clock.now()) });
    until("it waits", || runtime.is_waited_for()).await;
    runtime.pass(span);
    let (frames, at) = reading.await;
    let [end] = &*frames else { panic!("{frames:?}") };
    assert_eq!((end.event.as_str(), end.reason()), ("hub:end", Some("expired")));
    assert!(at >= deadline, "the stream ended before the deadline");
    assert_eq!(hub.stats().clients, 0);
}

async fn watch_sees_users_join_and_leave<R: Runtime>(runtime: &R) {
    let (timer, grace) = (runtime.timer(), R::WHILE * 10);
    let hub = hub(runtime).presence(Presence::default().grace(grace)).build().unwrap();
    let mut watch = hub.watch().unwrap();
    let clock = timer.clone();
    let watching = runtime.spawn(async move {
        let joined = watch.next().await.unwrap();
        let left = watch.next().await.unwrap();
        (joined, left, clock.now())
    });
    let tab = hub.subscribe(Subscriber::new().user("ann")).unwrap();
    // Before the drop: the grace must not begin earlier than this.
    let gone = timer.now();
    drop(tab);
    assert!(hub.is_online("ann"), "the user is online during the grace");
    until("the watcher waits", || runtime.is_waited_for()).await;
    runtime.pass(grace);
    let (joined, left, at) = watching.await;
    assert_eq!(joined, PresenceEvent::Joined { user: "ann".into() });
    assert_eq!(left, PresenceEvent::Left { user: "ann".into(), reason: EndReason::Left });
    assert!(at >= gone + grace, "the user left before the end of the grace");
    assert!(!hub.is_online("ann"));
}

async fn dropped_next_loses_no_event<R: Runtime>(runtime: &R) {
    const EVENTS: usize = 100;
    let hub = hub(runtime).build().unwrap();
    let mut stream = opened(&hub, Subscriber::new());
    let dropped = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&dropped);
    let reading = runtime.spawn(async move {
        let mut read = Vec::new();
        while read.len() < EVENTS {
            match select(stream.next(), pin!(yield_now())).await {
                Either::Left((item, _)) => read.extend(frames_of(item)),
                Either::Right(_) => drop(count.fetch_add(1, Ordering::Relaxed)),
            }
        }
        read
    });
    for number in 0..EVENTS {
        // A subscription was dropped since the last event. With threads, the next drop may be in
        // progress.
        let before = dropped.load(Ordering::Relaxed);
        until("a next is dropped", || dropped.load(Ordering::Relaxed) > before).await;
        hub.broadcast(text(&number.to_string())).unwrap();
    }
    let read = reading.await;
    let numbers: Vec<usize> = read.iter().map(|frame| frame.data.parse().unwrap()).collect();
    assert_eq!(numbers, (0..EVENTS).collect::<Vec<_>>());
}

async fn moved_subscription_wakes_its_new_task<R: Runtime>(runtime: &R) {
    let hub = hub(runtime).build().unwrap();
    let mut stream = opened(&hub, Subscriber::new());
    for number in 0..20 {
        // The first task waits for the stream and gives the stream away. The wake must reach the
        // second task.
        stream = runtime.spawn(waited_for(stream)).await;
        let waits = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&waits);
        let reading = runtime.spawn(async move {
            let stream = waited_for(stream).await;
            told.store(true, Ordering::Release);
            read_one(stream).await
        });
        until("it waits", || waits.load(Ordering::Acquire)).await;
        let data = number.to_string();
        hub.broadcast(text(&data)).unwrap();
        let (frame, back) = reading.await;
        assert_eq!(frame.data, data);
        stream = back;
    }
}

async fn heartbeat_wakes_the_current_task<R: Runtime>(runtime: &R) {
    // Long enough that both tasks have waited before the heartbeat is due.
    let every = R::WHILE * 10;
    let hub = hub(runtime).heartbeat(Heartbeat::default().every(every)).build().unwrap();
    // The timer of the stream is armed for a task that has ended.
    let stream = opened(&hub, Subscriber::new());
    let stream = runtime.spawn(waited_for(stream)).await;
    let waits = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&waits);
    let reading = runtime.spawn(async move {
        let mut stream = waited_for(stream).await;
        told.store(true, Ordering::Release);
        stream.next().await
    });
    until("it waits", || waits.load(Ordering::Acquire)).await;
    runtime.pass(every);
    assert_eq!(reading.await.unwrap(), ":\n");
}

async fn stalled_client_ends_without_delaying_others<R: Runtime>(runtime: &R) {
    // Longer than a busy machine delays a reader.
    let limit = R::WHILE * 20;
    let hub = hub(runtime).stalled_after(limit).build().unwrap();
    let mut stalled = opened(&hub, Subscriber::new());
    let mut reader = opened(&hub, Subscriber::new());
    let reading = runtime.spawn(async move { read_to_the_end(&mut reader).await });
    let ended = || hub.stats().ended(EndReason::Stalled);

    let began = runtime.timer().now();
    hub.broadcast(text("1")).unwrap();
    let mut published = 1;
    until("the reader has read", || hub.stats().delivered == published).await;
    runtime.pass(limit);
    // The hub notices a stalled client when publishing to other clients.
    until("the stalled client is noticed", || {
        if hub.stats().delivered == published {
            published += 1;
            hub.broadcast(text(&published.to_string())).unwrap();
        }
        ended() == 1
    })
    .await;
    assert!(runtime.timer().now() >= began + limit, "the client ended before the limit");
    assert_eq!(hub.stats().clients, 1);
    assert_eq!(read_to_the_end(&mut stalled).await, []);

    hub.close();
    let frames = reading.await;
    let numbers: Vec<u64> = frames.iter().map(|frame| frame.data.parse().unwrap()).collect();
    assert_eq!(numbers, (1..=published).collect::<Vec<_>>());
}

fn hub(runtime: &impl Runtime) -> HubBuilder {
    // A heartbeat would come between frames if a test is slow.
    Hub::builder(runtime.timer()).heartbeat(None)
}

fn text(text: &str) -> Event {
    Event::default().data(text)
}

fn opened(hub: &Hub, who: Subscriber) -> Subscription {
    let mut stream = hub.subscribe(who).unwrap();
    let opening = stream.next().now_or_never().flatten().expect("the opening is available at once");
    assert!(opening.starts_with(b"event: hub:open\n"));
    stream
}

fn frames_of(item: Option<Bytes>) -> Vec<Frame> {
    frames(str::from_utf8(&item.expect("the stream must not end")).unwrap())
}

async fn read(stream: &mut Subscription, count: usize) -> Vec<Frame> {
    let mut read = Vec::new();
    while read.len() < count {
        read.extend(frames_of(stream.next().await));
    }
    read
}

async fn read_one(mut stream: Subscription) -> (Frame, Subscription) {
    let [frame] = read(&mut stream, 1).await.try_into().expect("exactly one frame");
    (frame, stream)
}

async fn read_to_the_end(stream: &mut Subscription) -> Vec<Frame> {
    let mut read = Vec::new();
    while let Some(item) = stream.next().await {
        read.extend(frames_of(Some(item)));
    }
    read
}

/// Returns the stream after a task that runs this function has begun to wait for the stream.
async fn waited_for(mut stream: Subscription) -> Subscription {
    poll_fn(|cx| {
        assert!(stream.poll_next_unpin(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    stream
}

/// Yields to the other tasks.
async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < DEADLINE, "not within the deadline: {what}");
        yield_now().await;
    }
}
