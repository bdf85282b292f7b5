//! Shared by several tests: reading streams, and parsing frames.
#![allow(dead_code, reason = "no test uses all of it")]

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};
pub(crate) use sse_hub::testing::Frame;
use sse_hub::testing::Reader;
use sse_hub::{Event, EventId, Hub, HubBuilder, ManualTimer, Sleep, Subscription, Timer};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// Returns a hub and its manual timer.
pub(crate) fn hub_with(set: impl FnOnce(HubBuilder) -> HubBuilder) -> (Hub, ManualTimer) {
    let timer = ManualTimer::new();
    (set(Hub::builder(timer.clone())).build().unwrap(), timer)
}

pub(crate) fn event(data: impl ToString) -> Event {
    Event::new("x").data(data.to_string())
}

/// Broadcasts events with these numbers as data.
pub(crate) fn publish(hub: &Hub, numbers: impl IntoIterator<Item = usize>) {
    for number in numbers {
        hub.broadcast(event(number)).unwrap();
    }
}

/// Returns the data of events with these numbers.
pub(crate) fn names(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    numbers.into_iter().map(|number| number.to_string()).collect()
}

/// Reads at most this many items.
pub(crate) fn read_items(stream: &mut Subscription, items: usize) -> String {
    let items = (0..items).map_while(|_| poll(stream).flatten());
    items.map(|item| String::from_utf8(item.to_vec()).unwrap()).collect()
}

/// Returns the next item: `None` if no item is available, `Some(None)` at the end.
pub(crate) fn poll(stream: &mut Subscription) -> Option<Option<Bytes>> {
    let item = stream.next().now_or_never();
    // HTTP/1.1 ends a body with an empty chunk.
    assert!(item != Some(Some(Bytes::new())), "an empty item");
    item
}

/// Reads every available item.
pub(crate) fn read(stream: &mut Subscription) -> String {
    let mut text = String::new();
    while let Some(Some(bytes)) = poll(stream) {
        text += std::str::from_utf8(&bytes).unwrap();
    }
    text
}

/// Returns whether a fully read stream has ended.
pub(crate) fn has_ended(stream: &mut Subscription) -> bool {
    match poll(stream) {
        None => false,
        Some(None) => true,
        Some(Some(more)) => panic!("the stream still has an item: {more:?}"),
    }
}

/// Parses complete frames. Skips heartbeats.
pub(crate) fn frames(text: &str) -> Vec<Frame> {
    Reader::new(stream::iter([Bytes::copy_from_slice(text.as_bytes())])).all_ready()
}

/// Returns the data of the application's events.
pub(crate) fn data(text: &str) -> Vec<String> {
    Reader::new(stream::iter([Bytes::copy_from_slice(text.as_bytes())])).all_data()
}

/// Returns the id that a page would resume from after reading the text.
pub(crate) fn last_id(text: &str) -> EventId {
    frames(text).iter().rev().find_map(|frame| frame.id).expect("an id")
}

/// Returns the reasons of the gaps.
pub(crate) fn gaps(text: &str) -> Vec<String> {
    let frames = frames(text).into_iter().filter(|frame| frame.event == "hub:gap");
    frames.map(|gap| gap.reason().expect("a reason").to_owned()).collect()
}

/// Returns the reason of the end, which must be the last frame.
pub(crate) fn end(text: &str) -> Option<String> {
    let frames = frames(text);
    let ends = frames.iter().filter(|frame| frame.event == "hub:end").count();
    let last = frames.last().filter(|frame| frame.event == "hub:end");
    assert_eq!(ends, usize::from(last.is_some()), "the end must be the last frame: {text}");
    last.map(|end| end.reason().expect("a reason").to_owned())
}

/// A waker that counts wake-ups.
#[derive(Debug, Default)]
pub(crate) struct Woken(AtomicUsize);

impl Woken {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A waker that calls a function once.
struct OnWake(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Wake for OnWake {
    fn wake(self: Arc<Self>) {
        let call = self.0.lock().unwrap().take();
        call.into_iter().for_each(|call| call());
    }
}

/// Calls a function when the hub wakes a stream that has nothing to read: a task on the same thread
/// may run then, and call the hub.
pub(crate) fn call_on_wake(stream: &mut Subscription, call: impl FnOnce() + Send + 'static) {
    let waker = Waker::from(Arc::new(OnWake(Mutex::new(Some(Box::new(call))))));
    assert!(stream.poll_next_unpin(&mut Context::from_waker(&waker)).is_pending());
}

/// Polls with a new counting waker, and asserts that the stream waits.
pub(crate) fn wait(stream: &mut Subscription) -> Arc<Woken> {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let polled = stream.poll_next_unpin(&mut Context::from_waker(&waker));
    assert!(polled.is_pending(), "it waits: {polled:?}");
    woken
}

/// Fails instead of hanging if `test` deadlocks.
pub(crate) fn within(limit: Duration, test: impl FnOnce() + Send + 'static) {
    let (done, finished) = std::sync::mpsc::channel();
    let running = thread::spawn(move || {
        test();
        done.send(()).unwrap();
    });
    match finished.recv_timeout(limit) {
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("deadlocked"),
        _ => running.join().unwrap(),
    }
}

/// Counts the sleeps that are created, polled and reset.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counting {
    pub(crate) timer: ManualTimer,
    pub(crate) touched: Arc<AtomicUsize>,
}

impl Timer for Counting {
    fn now(&self) -> Instant {
        self.timer.now()
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.touched.fetch_add(1, Ordering::Relaxed);
        let sleep = self.timer.sleep_until(deadline);
        Box::pin(CountingSleep { sleep, touched: Arc::clone(&self.touched) })
    }
}

struct CountingSleep {
    sleep: Pin<Box<dyn Sleep>>,
    touched: Arc<AtomicUsize>,
}

impl Sleep for CountingSleep {
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.touched.fetch_add(1, Ordering::Relaxed);
        self.sleep.as_mut().poll(cx)
    }

    fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        self.touched.fetch_add(1, Ordering::Relaxed);
        self.sleep.as_mut().reset(deadline);
    }
}
