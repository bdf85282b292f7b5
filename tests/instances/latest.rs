//! The values of conflation keys on several instances: an instance that starts later has them, too.

use std::collections::BTreeMap;

use futures_util::{FutureExt as _, StreamExt as _};
use proptest::collection::vec;
use proptest::prelude::*;
use sse_hub::backplane::Loaded;
use sse_hub::{Event, EventId, Retain, Subscriber, Subscription};

use crate::order::{Instance, Order};
use crate::support::{data, event, frames, gaps, names, read};

const INSTANCES: usize = 2;

/// Retains two events beside the values.
fn instance() -> Instance {
    Instance::new(Retain::default().events(2).age(None).keep_latest(20))
}

fn settled(order: &mut Order) -> Instance {
    let mut instance = instance();
    instance.settle(order);
    instance
}

fn price(instance: &Instance, symbol: &str, value: usize) {
    instance.hub.broadcast(event(value).conflate(symbol)).unwrap();
}

#[test]
fn late_instance_has_the_values() {
    let mut order = Order::default();
    let mut early = settled(&mut order);
    price(&early, "a", 1);
    price(&early, "b", 2);
    price(&early, "a", 3);
    (4..=30).for_each(|number| {
        early.hub.broadcast(event(number)).unwrap();
    });
    early.settle(&mut order);
    order.trim(20);
    let late = settled(&mut order);
    let text = read(&mut late.hub.subscribe(Subscriber::new().latest()).unwrap());
    assert_eq!((data(&text), gaps(&text)), (names([2, 3]), vec![]));
}

#[test]
fn engine_is_told_how_many_values_to_keep() {
    for (retain, most) in [(Retain::default().keep_latest(20), 20), (Retain::default(), 0)] {
        let instance = Instance::new(retain);
        price(&instance, "a", 1);
        let sent = instance.outbox.0.lock().unwrap().pop_front().unwrap();
        assert_eq!((sent.value_of().is_some(), sent.most_values()), (most > 0, most));
    }
}

#[test]
fn client_before_the_first_load_begins_with_the_values() {
    let mut order = Order::default();
    let mut early = settled(&mut order);
    price(&early, "a", 1);
    early.settle(&mut order);
    let mut late = instance();
    let mut stream = late.hub.subscribe(Subscriber::new().latest()).unwrap();
    let mut text = read(&mut stream);
    assert_eq!(data(&text), names([]));
    late.settle(&mut order);
    text += &read(&mut stream);
    assert_eq!((data(&text), gaps(&text)), (names([1]), vec!["unknown".to_owned()]));
}

#[test]
fn new_order_keeps_the_values() {
    let mut order = Order::default();
    let mut here = settled(&mut order);
    price(&here, "a", 1);
    here.settle(&mut order);
    here.begin_with_values(&order, order.last);
    let text = read(&mut here.hub.subscribe(Subscriber::new().latest()).unwrap());
    assert_eq!((data(&text), gaps(&text)), (names([1]), vec![]));
}

#[test]
fn engine_without_values_is_told_as_a_gap() {
    let mut order = Order::default();
    let here = settled(&mut order);
    here.feed.load(Loaded::new(order.last, []));
    let text = read(&mut here.hub.subscribe(Subscriber::new().latest()).unwrap());
    assert_eq!((data(&text), gaps(&text)), (names([]), vec!["evicted".to_owned()]));
}

#[derive(Debug, Clone)]
enum Op {
    Publish {
        at: usize,
        key: Option<usize>,
    },
    /// Reads some entries of the order.
    Catch {
        at: usize,
        count: usize,
    },
    Restart {
        at: usize,
    },
    Connect {
        at: usize,
    },
    /// Moves the client, which comes back with its id, to an instance.
    Move {
        at: usize,
    },
    Read,
    Trim {
        count: usize,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let at = || 0..INSTANCES;
    prop_oneof![
        8 => (at(), prop::option::weighted(0.7, 0..5usize))
            .prop_map(|(at, key)| Op::Publish { at, key }),
        6 => (at(), 1..5usize).prop_map(|(at, count)| Op::Catch { at, count }),
        1 => at().prop_map(|at| Op::Restart { at }),
        1 => at().prop_map(|at| Op::Connect { at }),
        2 => at().prop_map(|at| Op::Move { at }),
        3 => Just(Op::Read),
        1 => (1..5usize).prop_map(|count| Op::Trim { count }),
    ]
}

/// A page that shows the newest value of each key.
#[derive(Default)]
struct Page {
    stream: Option<Subscription>,
    last: Option<EventId>,
    shown: BTreeMap<usize, usize>,
    gaps: usize,
}

impl Page {
    fn connect(&mut self, instance: &Instance) {
        let mut request = Subscriber::new().latest();
        if let Some(last) = self.last {
            request = request.resume(last);
        }
        self.stream = Some(instance.hub.subscribe(request).unwrap());
    }

    fn read(&mut self, keys: &[Option<usize>]) {
        let Some(stream) = &mut self.stream else { return };
        while let Some(Some(item)) = stream.next().now_or_never() {
            for frame in frames(std::str::from_utf8(&item).unwrap()) {
                self.last = frame.id;
                self.gaps += usize::from(frame.event == "hub:gap");
                let Ok(number) = frame.data.parse::<usize>() else { continue };
                let Some(key) = keys[number] else { continue };
                let older = self.shown.insert(key, number);
                assert!(older < Some(number), "{older:?} came before {number}");
            }
        }
    }
}

proptest! {
    #[test]
    fn page_shows_the_newest_values_wherever_it_connects(ops in vec(op(), 1..80)) {
        let mut order = Order::default();
        let mut instances: Vec<_> = (0..INSTANCES).map(|_| settled(&mut order)).collect();
        let (mut keys, mut page) = (Vec::new(), Page::default());
        page.connect(&instances[0]);
        for op in &ops {
            match *op {
                Op::Publish { at, key } => {
                    let event = Event::new("n").data(keys.len().to_string());
                    let event = match key {
                        Some(key) => event.conflate(key.to_string()),
                        None => event,
                    };
                    instances[at].hub.broadcast(event).unwrap();
                    instances[at].flush(&mut order);
                    keys.push(key);
                }
                Op::Catch { at, count } => {
                    instances[at].read(&mut order, count);
                    instances[at].look(&order);
                }
                Op::Restart { at } => {
                    instances[at] = settled(&mut order);
                    // Its clients go to another instance.
                    page.read(&keys);
                    page.connect(&instances[(at + 1) % INSTANCES]);
                }
                Op::Connect { at } => {
                    page = Page::default();
                    page.connect(&instances[at]);
                }
                Op::Move { at } => page.connect(&instances[at]),
                Op::Read => page.read(&keys),
                // An instance that has not read the trimmed entries would begin anew.
                Op::Trim { count } => {
                    instances.iter_mut().for_each(|instance| instance.read(&mut order, usize::MAX));
                    order.trim(count);
                }
            }
        }
        for instance in &mut instances {
            instance.settle(&mut order);
        }
        page.read(&keys);
        let newest: BTreeMap<usize, usize> =
            keys.iter().enumerate().filter_map(|(number, key)| Some(((*key)?, number))).collect();
        prop_assert_eq!(&page.shown, &newest, "after {} gaps", page.gaps);
    }
}
