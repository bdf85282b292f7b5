//! Wake-ups: which task, how often, and without a lock held.

mod support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use futures_util::{FutureExt as _, Stream as _, StreamExt as _};
use sse_hub::{Event, Heartbeat, Hub, ManualTimer, Retain, Subscriber, Subscription};
use support::within;

fn hub() -> Hub {
    Hub::builder(ManualTimer::new()).build().unwrap()
}

fn opened(hub: &Hub) -> Subscription {
    let mut stream = hub.subscribe(Subscriber::new()).unwrap();
    stream.next().now_or_never().expect("the opening is available at once");
    stream
}

fn poll(stream: &mut Subscription, waker: &Waker) -> Poll<Option<bytes::Bytes>> {
    std::pin::Pin::new(stream).poll_next(&mut Context::from_waker(waker))
}

/// Counts wake-ups.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Count {
    fn take(&self) -> usize {
        self.0.swap(0, Ordering::SeqCst)
    }
}

fn text(text: &str) -> Event {
    Event::default().data(text)
}

#[test]
fn burst_wakes_a_waiting_stream_once() {
    let hub = hub();
    let mut stream = opened(&hub);
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));

    assert!(poll(&mut stream, &waker).is_pending());
    for _ in 0..10 {
        hub.broadcast(text("x")).unwrap();
    }
    assert_eq!(count.take(), 1);

    let Poll::Ready(Some(batch)) = poll(&mut stream, &waker) else { panic!("ten events wait") };
    assert_eq!(batch.windows(3).filter(|bytes| bytes == b"id:").count(), 10);
    assert!(poll(&mut stream, &waker).is_pending());
    hub.broadcast(text("x")).unwrap();
    assert_eq!(count.take(), 1);
}

#[test]
fn event_for_others_wakes_no_task() {
    let hub = hub();
    let mut stream = hub.subscribe(Subscriber::new().user("a").event_types(["wanted"])).unwrap();
    stream.next().now_or_never().unwrap();
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    assert!(poll(&mut stream, &waker).is_pending());

    assert_eq!(hub.send_to_user("b", Event::new("wanted")).unwrap().matched(), 0);
    assert_eq!(hub.send_to_user("a", Event::new("other")).unwrap().matched(), 0);
    assert_eq!(count.take(), 0);
    assert_eq!(hub.send_to_user("a", Event::new("wanted")).unwrap().matched(), 1);
    assert_eq!(count.take(), 1);
}

#[test]
fn moved_stream_wakes_its_new_task() {
    let hub = hub();
    let mut stream = opened(&hub);
    let (first, second) = (Arc::new(Count::default()), Arc::new(Count::default()));
    assert!(poll(&mut stream, &Waker::from(Arc::clone(&first))).is_pending());

    let mut stream = thread::scope(|scope| {
        let moved = scope.spawn(|| {
            assert!(poll(&mut stream, &Waker::from(Arc::clone(&second))).is_pending());
            stream
        });
        moved.join().unwrap()
    });
    hub.broadcast(text("x")).unwrap();
    assert_eq!((first.take(), second.take()), (0, 1));
    assert!(poll(&mut stream, Waker::noop()).is_ready());
}

/// A clone of a waker may not equal the waker: `Waker::will_wake` promises nothing. The vtable of
/// `Waker::noop` has an address of its own in each crate.
#[test]
fn waker_may_differ_from_its_clone() {
    within(Duration::from_secs(60), || {
        let hub = Hub::builder(ManualTimer::new()).heartbeat(None).build().unwrap();
        let mut stream = opened(&hub);
        for _ in 0..3 {
            hub.broadcast(text("x")).unwrap();
            assert!(poll(&mut stream, Waker::noop()).is_ready());
            assert!(poll(&mut stream, Waker::noop()).is_pending());
            assert!(poll(&mut stream, Waker::noop()).is_pending());
        }
    });
}

#[test]
fn heartbeat_wakes_the_latest_task() {
    let timer = ManualTimer::new();
    let hub = Hub::builder(timer.clone())
        .heartbeat(Heartbeat::default().every(Duration::from_secs(15)))
        .build()
        .unwrap();
    let mut stream = opened(&hub);
    let (first, second) = (Arc::new(Count::default()), Arc::new(Count::default()));
    assert!(poll(&mut stream, &Waker::from(Arc::clone(&first))).is_pending());
    assert!(poll(&mut stream, &Waker::from(Arc::clone(&second))).is_pending());
    timer.advance(Duration::from_secs(15));
    assert_eq!((first.take(), second.take()), (0, 1));
}

/// Publishes from `wake` and from its destructor, like an executor that runs tasks in place.
struct Publishes {
    hub: Hub,
    left: AtomicUsize,
}

impl Wake for Publishes {
    fn wake(self: Arc<Self>) {
        let left = self.left.load(Ordering::SeqCst);
        if left > 0 {
            self.left.store(left - 1, Ordering::SeqCst);
            let _ = self.hub.broadcast(text("from wake"));
        }
    }
}

impl Drop for Publishes {
    fn drop(&mut self) {
        // A closed hub refuses the event, after taking the same locks.
        let _ = self.hub.broadcast(text("from drop"));
    }
}

#[test]
fn waker_that_publishes_does_not_deadlock() {
    within(Duration::from_secs(10), || {
        // Disable heartbeats, because their timer would hold wakers too.
        let hub = Hub::builder(ManualTimer::new()).heartbeat(None).build().unwrap();
        let publisher = |left| {
            Waker::from(Arc::new(Publishes { hub: hub.clone(), left: AtomicUsize::new(left) }))
        };
        let (mut a, mut b) = (opened(&hub), opened(&hub));
        assert!(poll(&mut a, &publisher(3)).is_pending());
        assert!(poll(&mut b, &publisher(3)).is_pending());
        hub.broadcast(text("first")).unwrap();
        assert_eq!(
            hub.stats().published,
            1 + 2 + 2,
            "each waker must publish when woken and when dropped"
        );

        for stream in [&mut a, &mut b] {
            while poll(stream, Waker::noop()).is_ready() {}
        }
        let published = hub.stats().published;
        assert!(poll(&mut a, &publisher(0)).is_pending());
        // The last handle of that waker is dropped when another waker replaces it.
        assert!(poll(&mut a, Waker::noop()).is_pending());
        assert_eq!(hub.stats().published, published + 1, "the replaced waker must publish");
        while poll(&mut a, Waker::noop()).is_ready() {}
        assert!(poll(&mut a, &publisher(0)).is_pending());
        drop(a);
        assert_eq!(
            hub.stats().published,
            published + 2,
            "the waker of the dropped stream must publish"
        );
        hub.close();
    });
}

#[test]
fn publishers_and_readers_on_threads_lose_nothing() {
    const EVENTS: usize = 2_000;
    const PUBLISHERS: usize = 4;
    let hub = Hub::builder(ManualTimer::new())
        .retain(Retain::default().events(EVENTS * PUBLISHERS))
        .window(4)
        .build()
        .unwrap();
    let orders = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..4 {
            let mut stream = opened(&hub);
            scope.spawn(|| {
                let mut order = Vec::new();
                futures_executor::block_on(async {
                    while order.len() < EVENTS * PUBLISHERS {
                        let batch = stream.next().await.expect("the hub is open");
                        let batch = std::str::from_utf8(&batch).unwrap().to_owned();
                        assert!(!batch.contains("hub:gap"));
                        order.extend(
                            batch
                                .lines()
                                .filter_map(|line| line.strip_prefix("id: ").map(str::to_owned)),
                        );
                    }
                });
                drop(stream);
                orders.lock().unwrap().push(order);
            });
        }
        for _ in 0..PUBLISHERS {
            scope.spawn(|| {
                for _ in 0..EVENTS {
                    assert!(hub.broadcast(text("x")).unwrap().matched() <= 4);
                }
            });
        }
    });
    let orders = orders.into_inner().unwrap();
    assert_eq!(orders.len(), 4);
    let ids: Vec<sse_hub::EventId> = orders[0].iter().map(|id| id.parse().unwrap()).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "ids must rise without repeats");
    assert!(orders.iter().all(|order| order == &orders[0]), "all readers must see the same order");
    assert_eq!(hub.stats().clients, 0);
}

#[test]
fn reconnects_during_large_deliveries_lose_no_event() {
    const STEADY: usize = 2_000;
    const EVENTS: usize = 200;
    let hub = Hub::builder(ManualTimer::new()).window(EVENTS).build().unwrap();
    let mut steady: Vec<Subscription> = (0..STEADY).map(|_| opened(&hub)).collect();
    let published = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..EVENTS {
                hub.broadcast(text("x")).unwrap();
            }
            published.store(true, Ordering::SeqCst);
        });
        for _ in 0..2 {
            scope.spawn(|| {
                let mut passing = std::collections::VecDeque::new();
                while !published.load(Ordering::SeqCst) {
                    passing.push_back(hub.subscribe(Subscriber::new()).unwrap());
                    if passing.len() > 50 {
                        passing.pop_front();
                    }
                }
            });
        }
    });
    for stream in &mut steady {
        let mut ids = 0;
        while let Some(Some(batch)) = stream.next().now_or_never() {
            ids += batch.windows(4).filter(|bytes| bytes == b"\nid:").count();
        }
        assert_eq!(ids, EVENTS);
    }
}
