use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use super::shared::Shared;
use crate::core::deferred::Work;
use crate::sync;

/// The clients that are woken at a time: they delay an event for one client by less than a
/// millisecond, if each needs some microseconds.
const AT_ONCE: usize = 128;

/// Wakes the clients of large broadcasts, some at a time, and lets the runtime run these clients
/// before the next. Ends with the hub.
///
/// A hub that has such a future [leaves](crate::core::due::Due) the wakers of a large broadcast in
/// the inboxes. If there are more such futures, each of them wakes clients. Without such a future,
/// the hub wakes all clients by itself.
pub(crate) struct Waking {
    shared: Weak<Shared>,
    key: usize,
}

impl Waking {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        let key = shared.state.lock().due.begin();
        Self { shared: Arc::downgrade(shared), key }
    }
}

impl Future for Waking {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(shared) = self.shared.upgrade() else { return Poll::Ready(()) };
        // Cloned before the lock is taken: cloning a waker is foreign code.
        sync::assert_unlocked();
        let waker = cx.waker().clone();
        let mut work = Work::begin(&shared.config);
        let mut state = shared.state.lock();
        state.wake_due(AT_ONCE, &mut work);
        let (old, is_idle) = state.due.register(self.key, waker);
        drop(state);
        work.run();
        drop(old);
        if !is_idle {
            // The runtime runs the clients that were woken before this task.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Drop for Waking {
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else { return };
        let mut work = Work::begin_release(&shared.config);
        let mut state = shared.state.lock();
        let task = state.due.end(self.key);
        // Also the part of other futures: those may never be polled again.
        state.wake_due(usize::MAX, &mut work);
        drop(state);
        work.run();
        drop(task);
    }
}

#[cfg(all(test, not(sse_hub_loom)))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use futures_core::Stream as _;

    use super::*;
    use crate::hub::hub::Hub;
    use crate::hub::subscriber::Subscriber;
    use crate::hub::subscription::Subscription;
    use crate::time::manual::ManualTimer;
    use crate::wire::event::Event;

    const CLIENTS: usize = 2 * AT_ONCE + 100;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Count {
        fn take(&self) -> usize {
            self.0.swap(0, Ordering::Relaxed)
        }
    }

    struct Client {
        stream: Subscription,
        wakes: Arc<Count>,
    }

    impl Client {
        /// Reads until the stream is idle.
        fn read(&mut self) -> String {
            let waker = Waker::from(Arc::clone(&self.wakes));
            let mut read = Vec::new();
            while let Poll::Ready(Some(item)) =
                Pin::new(&mut self.stream).poll_next(&mut Context::from_waker(&waker))
            {
                read.extend_from_slice(&item);
            }
            String::from_utf8(read).unwrap()
        }
    }

    /// A hub with clients that wait. Each client is a user, with the number of the client.
    fn hub(clients: usize) -> (Hub, Vec<Client>) {
        let hub = Hub::builder(ManualTimer::new()).build().unwrap();
        let client = |user: usize| {
            let stream = hub.subscribe(Subscriber::new().user(user)).unwrap();
            let mut client = Client { stream, wakes: Arc::default() };
            client.read();
            client
        };
        let clients = (0..clients).map(client).collect();
        (hub, clients)
    }

    fn waking(clients: &[Client]) -> Waking {
        clients[0].stream.drainable().waking().unwrap()
    }

    /// Polls the future. Returns the clients that were woken.
    fn poll(waking: &mut Waking, task: &Arc<Count>, clients: &[Client]) -> Vec<usize> {
        let waker = Waker::from(Arc::clone(task));
        assert!(Pin::new(waking).poll(&mut Context::from_waker(&waker)).is_pending());
        woken(clients)
    }

    fn woken(clients: &[Client]) -> Vec<usize> {
        let woken = clients.iter().enumerate().filter(|(_, client)| client.wakes.take() > 0);
        woken.map(|(at, _)| at).collect()
    }

    #[test]
    fn large_broadcast_wakes_some_clients_at_a_time() {
        let (hub, mut clients) = hub(CLIENTS);
        let mut waking = waking(&clients);
        let task = Arc::default();
        assert!(poll(&mut waking, &task, &clients).is_empty());
        hub.broadcast(Event::new("all").data("1")).unwrap();
        hub.broadcast(Event::new("all").data("2")).unwrap();
        assert!(woken(&clients).is_empty());
        assert_eq!(task.take(), 1);
        let mut all = Vec::new();
        for expected in [AT_ONCE, AT_ONCE, 100] {
            let some = poll(&mut waking, &task, &clients);
            assert_eq!(some.len(), expected);
            assert_eq!(task.take(), usize::from(expected == AT_ONCE));
            for &at in &some {
                let read = clients[at].read();
                assert_eq!(read.matches("event: all\n").count(), 2, "{read}");
            }
            all.extend(some);
        }
        all.sort_unstable();
        assert!(all.into_iter().eq(0..CLIENTS), "each client once");
        assert!(poll(&mut waking, &task, &clients).is_empty());
        // The next broadcast finds all clients again.
        hub.broadcast(Event::new("all").data("3")).unwrap();
        assert_eq!((woken(&clients).len(), task.take()), (0, 1));
    }

    #[test]
    fn event_for_one_client_overtakes_a_broadcast() {
        let (hub, mut clients) = hub(CLIENTS);
        let mut waking = waking(&clients);
        let task = Arc::default();
        poll(&mut waking, &task, &clients);
        hub.broadcast(Event::new("all").data("1")).unwrap();
        let some = poll(&mut waking, &task, &clients);
        let late = (0..CLIENTS).find(|at| !some.contains(at)).unwrap();
        hub.send_to_user(late, Event::new("one").data("2")).unwrap();
        assert_eq!(woken(&clients), [late]);
        let read = clients[late].read();
        let at = |event: &str| read.find(event).unwrap_or_else(|| panic!("no {event}: {read}"));
        assert!(at("event: all\n") < at("event: one\n"), "in the order of the ids");
    }

    #[test]
    fn small_broadcast_wakes_at_once() {
        let (hub, clients) = hub(100);
        let mut waking = waking(&clients);
        let task = Arc::default();
        poll(&mut waking, &task, &clients);
        hub.broadcast(Event::new("all").data("1")).unwrap();
        assert_eq!((woken(&clients).len(), task.take()), (100, 0));
    }

    #[test]
    fn dropped_future_leaves_no_client_asleep() {
        let (hub, mut clients) = hub(CLIENTS);
        let mut first = waking(&clients);
        let task = Arc::default();
        poll(&mut first, &task, &clients);
        hub.broadcast(Event::new("all").data("1")).unwrap();
        poll(&mut first, &task, &clients);
        drop(first);
        assert_eq!(woken(&clients).len(), CLIENTS - AT_ONCE);
        clients.iter_mut().for_each(|client| _ = client.read());
        hub.broadcast(Event::new("all").data("2")).unwrap();
        assert_eq!(woken(&clients).len(), CLIENTS);
    }

    #[test]
    fn blocked_task_leaves_its_clients_to_another() {
        let (hub, mut clients) = hub(CLIENTS);
        let (mut blocked, mut other) = (waking(&clients), waking(&clients));
        let (blocked_task, task) = (Arc::default(), Arc::default());
        poll(&mut blocked, &blocked_task, &clients);
        poll(&mut other, &task, &clients);
        for round in 0..2 {
            hub.broadcast(Event::new("all").data("1")).unwrap();
            assert_eq!(blocked_task.take(), usize::from(round == 0));
            let mut all = 0;
            while task.take() > 0 {
                for at in poll(&mut other, &task, &clients) {
                    clients[at].read();
                    all += 1;
                }
            }
            assert_eq!(all, CLIENTS);
        }
        // The rest of a broadcast does not wait for the blocked task.
        hub.broadcast(Event::new("all").data("2")).unwrap();
        drop(other);
        assert_eq!(woken(&clients).len(), CLIENTS);
    }

    #[test]
    fn future_ends_with_the_hub() {
        let (hub, clients) = hub(1);
        let mut waking = waking(&clients);
        let task = Arc::default();
        poll(&mut waking, &task, &clients);
        drop((hub, clients));
        assert_eq!(task.take(), 1);
        assert!(Pin::new(&mut waking).poll(&mut Context::from_waker(Waker::noop())).is_ready());
    }

    #[test]
    fn client_in_a_freed_place_is_woken() {
        let (hub, mut clients) = hub(CLIENTS);
        let mut waking = waking(&clients);
        let task = Arc::default();
        poll(&mut waking, &task, &clients);
        // Half of the clients leave before they are woken, and others take their places.
        hub.broadcast(Event::new("all").data("1")).unwrap();
        for at in (0..CLIENTS).step_by(2) {
            clients[at].stream = hub.subscribe(Subscriber::new()).unwrap();
            clients[at].read();
        }
        hub.broadcast(Event::new("all").data("2")).unwrap();
        while task.take() > 0 {
            for at in poll(&mut waking, &task, &clients) {
                clients[at].read();
            }
        }
        hub.broadcast(Event::new("all").data("3")).unwrap();
        let mut all = 0;
        while task.take() > 0 {
            for at in poll(&mut waking, &task, &clients) {
                assert_eq!(clients[at].read().matches("event: all\ndata: 3\n").count(), 1);
                all += 1;
            }
        }
        assert_eq!(all, CLIENTS);
    }
}
