//! Several hubs in one process, on an order in memory.

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::order::{Order, Step};
use crate::backplane::{
    Backplane, Feed, HistoryRequest, Incoming, InstanceId, Loaded, Outgoing, RunCopy, RunPartKind,
    SendError, UserChange,
};
use crate::error::ConfigError;
use crate::hub::builder::HubBuilder;
use crate::hub::hub::Hub;
use crate::sync::Mutex;
use crate::wire::id::EventId;

/// The default of [`Instances::max_unsent`].
const MAX_UNSENT: usize = 1000;

/// The most rounds until an instance has nothing to do: a hub that never comes to rest is a fault.
const MAX_ROUNDS: usize = 10_000;

type Aged = (EventId, Duration, Incoming);

/// Several hubs in one process that act as a single hub, as instances of a service do.
///
/// The order of events is a list in memory, behind the public port
/// [`Backplane`](crate::backplane::Backplane). The list carries presence, values, runs, commands
/// and idempotency keys, too. By default every entry reaches every hub before `publish` returns,
/// unless another thread is delivering. A test can [hold](Instance::hold) an instance,
/// [cut](Instance::cut) it off, [kill](Instance::kill) it, and [trim](Self::trim) or
/// [roll back](Self::roll_back) the order.
///
/// Clones share the order.
///
/// ```
/// use sse_hub::testing::{Instances, Reader};
/// use sse_hub::{Event, Hub, ManualTimer, Subscriber};
///
/// let instances = Instances::new();
/// let here = instances.start(Hub::builder(ManualTimer::new()))?;
/// let there = instances.start(Hub::builder(ManualTimer::new()))?;
/// let ann = || Subscriber::new().user("ann");
/// let mut tab = Reader::new(here.hub().subscribe(ann())?);
/// there.hub().send_to_user("ann", Event::new("paid").data("1"))?;
/// assert_eq!(tab.all_data(), ["1"]);
///
/// here.kill();
/// there.hub().send_to_user("ann", Event::new("paid").data("2"))?;
/// tab.reconnect(there.hub(), ann())?;
/// assert_eq!(tab.all_data(), ["2"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Instances {
    shared: Arc<Shared>,
}

impl Instances {
    /// Creates an empty order. Each instance begins live.
    #[must_use]
    pub fn new() -> Self {
        Self::with(Link::Live)
    }

    /// Creates an empty order. Each instance begins [held](Instance::hold).
    #[must_use]
    pub fn held() -> Self {
        Self::with(Link::Held)
    }

    fn with(first_link: Link) -> Self {
        let state = State {
            order: Order::default(),
            members: Vec::new(),
            told: Vec::new(),
            first_link,
            max_unsent: MAX_UNSENT,
            is_wanted: false,
        };
        let shared = Shared { turn: parking_lot::Mutex::new(()), state: Mutex::new(state) };
        Self { shared: Arc::new(shared) }
    }

    /// Sets the most entries that an instance may hold unsent: 1,000 by default. With more,
    /// publishing fails with [`PublishError::Backlog`](crate::PublishError::Backlog).
    #[must_use]
    pub fn max_unsent(self, entries: usize) -> Self {
        self.shared.state.lock().max_unsent = entries;
        self
    }

    /// Builds a hub on the order, in place of the builder's backplane.
    ///
    /// # Errors
    ///
    /// As [`HubBuilder::build`](crate::HubBuilder::build).
    pub fn start(&self, hub: HubBuilder) -> Result<Instance, ConfigError> {
        let index = {
            let mut state = self.shared.state.lock();
            let link = state.first_link;
            state.members.push(Member::new(link));
            state.members.len() - 1
        };
        let port = Port { shared: Arc::clone(&self.shared), index };
        let hub = hub.backplane(port.clone()).build()?;
        self.shared.state.lock().members[index].feed = Feed::new(&hub);
        let instance = Instance { hub, port };
        if self.shared.state.lock().first_link == Link::Live {
            instance.release();
        }
        Ok(instance)
    }

    /// Sends, reads and delivers until no instance has anything to do, held instances included.
    /// Instances that are cut off or dead stay so.
    ///
    /// # Panics
    ///
    /// Panics if the instances do not come to rest.
    pub fn settle(&self) {
        let turn = self.shared.turn.lock();
        self.shared.settle(|link| matches!(link, Link::Live | Link::Held));
        drop(turn);
        self.shared.run();
    }

    /// Returns the ids of the entries, the oldest first. Commands are entries, too.
    #[must_use]
    pub fn ids(&self) -> Vec<EventId> {
        let state = self.shared.state.lock();
        state.order.entries.iter().map(|placed| placed.id).collect()
    }

    /// Returns the end of the order: the id of the newest entry, also if it was trimmed.
    #[must_use]
    pub fn end(&self) -> EventId {
        self.shared.state.lock().order.last
    }

    /// Removes the oldest entries, as a stream with a bounded length does, and returns their ids.
    pub fn trim(&self, count: usize) -> Vec<EventId> {
        self.shared.state.lock().order.trim(count)
    }

    /// Removes the newest entries, as a failover to an older copy does, and returns their ids.
    ///
    /// An instance finds out with its next entry or [read](Instance::read). Its clients that may
    /// have a lost event get a gap.
    pub fn roll_back(&self, count: usize) -> Vec<EventId> {
        self.shared.state.lock().order.roll_back(count)
    }
}

impl Default for Instances {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Instances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.state.lock();
        f.debug_struct("Instances")
            .field("end", &state.order.last)
            .field("entries", &state.order.entries.len())
            .field("members", &state.members.iter().map(|member| member.link).collect::<Vec<_>>())
            .finish()
    }
}

/// A hub on the order of [`Instances`].
///
/// Dropping the value changes nothing: the hub lives on in its clones.
#[derive(Debug)]
pub struct Instance {
    hub: Hub,
    port: Port,
}

impl Instance {
    /// Returns the hub.
    #[must_use]
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Stops sending and reading, as a slow network does. The test moves entries with
    /// [`send`](Self::send) and [`read`](Self::read), or all with [`Instances::settle`].
    pub fn hold(&self) {
        self.port.set_link(Link::Held);
    }

    /// Goes on after [`hold`](Self::hold) or [`cut`](Self::cut): sends and reads all that is left.
    pub fn release(&self) {
        if self.port.set_link(Link::Live) {
            self.port.shared.run();
            self.port.feed().degraded(None);
        }
    }

    /// Cuts the instance off: the hub is [degraded](crate::Stats::degraded), and keeps the entries
    /// that it has to send until it is [released](Self::release).
    ///
    /// With [`announce_outages`](crate::HubBuilder::announce_outages), the hub tells its clients of
    /// an outage that lasts for a second: advance the clock, and call this again. The same holds
    /// for [`release`](Self::release) at the end of the outage.
    pub fn cut(&self) {
        if self.port.set_link(Link::Cut) {
            self.port.feed().degraded(Some("cut off by the test"));
        }
    }

    /// Kills the instance, as SIGKILL does. The unsent entries are lost, the instance sends nothing
    /// any more, its users leave the other instances, and its open [runs](crate::Run) end as
    /// [lost](crate::RunState::Lost). Its streams fall silent: the test
    /// [cuts](super::Reader::cut) their readers.
    pub fn kill(&self) {
        self.port.set_link(Link::Dead);
        let instance = self.port.feed().instance();
        let unsent = {
            let mut state = self.port.shared.state.lock();
            state.told.push((self.port.index, Told::Dead(instance)));
            mem::take(&mut state.members[self.port.index].unsent)
        };
        // After unlocking: the end of a confirmation wakes its publisher.
        drop(unsent);
        self.port.shared.run();
    }

    /// Returns the number of entries that are not in the order yet.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.port.shared.state.lock().members[self.port.index].unsent.len()
    }

    /// Puts the unsent entries of a [held](Self::hold) instance into the order, and confirms them.
    pub fn send(&self) {
        self.port.step(|shared, index| shared.send(index));
    }

    /// Reads at most `count` entries into the hub of a [held](Self::hold) instance. The first call
    /// finds the end of the order, and also loads the newest entries.
    pub fn read(&self, count: usize) {
        self.port.step(|shared, index| shared.read(index, count));
    }

    /// Reads at most `count` older entries for the clients of a [held](Self::hold) instance that
    /// wait for them. Returns `None` if no client waits.
    #[must_use = "the clients wait until the entries are delivered"]
    pub fn look_back(&self, count: usize) -> Option<Older> {
        self.port.shared.look_back(self.port.index, count)
    }
}

/// Older entries that [`Instance::look_back`] found, on their way to the hub.
#[derive(Debug)]
#[must_use = "the clients wait until the entries are delivered"]
pub struct Older {
    feed: Feed,
    upto: EventId,
    floor: EventId,
    piece: VecDeque<Aged>,
    /// The order has no earlier entries that follow without a break.
    is_all: bool,
}

impl Older {
    /// Delivers the entries.
    pub fn deliver(self) {
        self.feed.restore(self.upto, self.floor, self.piece);
        if self.is_all {
            self.feed.gone(self.floor);
        }
    }
}

/// The engine of one hub.
#[derive(Debug, Clone)]
struct Port {
    shared: Arc<Shared>,
    index: usize,
}

impl Port {
    fn feed(&self) -> Feed {
        let feed = self.shared.state.lock().members[self.index].feed.clone();
        feed.expect("the feed is set before an `Instance` exists")
    }

    /// Returns whether the instance lives.
    fn set_link(&self, to: Link) -> bool {
        let link = &mut self.shared.state.lock().members[self.index].link;
        let is_alive = *link != Link::Dead;
        if is_alive {
            *link = to;
        }
        is_alive
    }

    /// Runs a step of the test, and then the other instances.
    fn step(&self, step: impl FnOnce(&Shared, usize) -> bool) {
        let turn = self.shared.turn.lock();
        step(&self.shared, self.index);
        drop(turn);
        self.shared.run();
    }
}

impl Backplane for Port {
    fn send(&self, entry: Outgoing) -> Result<(), SendError> {
        {
            let mut state = self.shared.state.lock();
            let most = state.max_unsent;
            let member = &mut state.members[self.index];
            if member.is_closed || member.link == Link::Dead {
                return Err(SendError::Closed);
            }
            // A run that is dropped cannot send its end again.
            let is_end = entry.run().is_some_and(|part| part.kind == RunPartKind::End);
            if member.unsent.len() >= most && !is_end {
                return Err(SendError::Full);
            }
            member.unsent.push_back(entry);
        }
        self.shared.run();
        Ok(())
    }

    fn on_client_ahead(&self) {
        self.shared.run();
    }

    fn on_presence_changed(&self) {
        self.shared.run();
    }

    fn supports_history(&self) -> bool {
        true
    }

    fn on_history_wanted(&self) {
        self.shared.run();
    }

    fn on_close(&self) {
        {
            let mut state = self.shared.state.lock();
            state.members[self.index].is_closed = true;
            state.told.push((self.index, Told::Closed));
        }
        self.shared.run();
    }
}

#[derive(Debug)]
struct Shared {
    /// Held by the thread that moves entries: a hub must get them in their order. Not a lock of the
    /// hub, because wakers run meanwhile.
    turn: parking_lot::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    order: Order,
    members: Vec<Member>,
    /// What the instances tell each other beside the order, by the index of the instance.
    told: Vec<(usize, Told)>,
    first_link: Link,
    max_unsent: usize,
    /// There may be something to do since the thread with the turn began its last pass.
    is_wanted: bool,
}

#[derive(Debug)]
struct Member {
    /// `None` until the hub is built.
    feed: Option<Feed>,
    link: Link,
    is_closed: bool,
    unsent: VecDeque<Outgoing>,
    /// The last position that was read. `None` before the first read.
    at: Option<EventId>,
    /// How many entries of [`State::told`] were read.
    told: usize,
}

impl Member {
    fn new(link: Link) -> Self {
        Self { feed: None, link, is_closed: false, unsent: VecDeque::new(), at: None, told: 0 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Live,
    /// The test moves the entries.
    Held,
    Cut,
    Dead,
}

#[derive(Debug, Clone)]
enum Told {
    Changes(Vec<UserChange>),
    /// The hub was closed.
    Closed,
    /// The instance was killed.
    Dead(InstanceId),
}

impl Shared {
    /// Moves the entries of the live instances, unless a thread does so already: then that thread
    /// goes on. The hub calls this within a call of a feed, so this must not wait.
    fn run(&self) {
        self.state.lock().is_wanted = true;
        while self.state.lock().is_wanted {
            let Some(turn) = self.turn.try_lock() else { return };
            while mem::take(&mut self.state.lock().is_wanted) {
                self.settle(|link| link == Link::Live);
            }
            drop(turn);
            // Another thread may have failed to take the turn just before.
        }
    }

    /// Moves entries until nothing is left to do. The caller has the turn.
    fn settle(&self, is_moved: impl Fn(Link) -> bool) {
        for _ in 0..MAX_ROUNDS {
            let moved: Vec<usize> = {
                let state = self.state.lock();
                let members = state.members.iter().enumerate();
                members
                    .filter(|(_, member)| is_moved(member.link))
                    .map(|(index, _)| index)
                    .collect()
            };
            let steps = moved.into_iter().map(|index| self.step(index));
            if steps.fold(0, |count, has_moved| count + usize::from(has_moved)) == 0 {
                return;
            }
        }
        panic!("the instances do not come to rest");
    }

    /// Sends and reads all entries of an instance. Returns whether there were any.
    fn step(&self, index: usize) -> bool {
        let has_sent = self.send(index);
        let has_read = self.read(index, usize::MAX);
        self.look(index);
        let older = self.look_back(index, usize::MAX);
        let has_older = older.is_some();
        older.into_iter().for_each(Older::deliver);
        let has_told = self.tell(index);
        has_sent || has_read || has_older || has_told
    }

    fn feed(&self, index: usize) -> Option<Feed> {
        self.state.lock().members[index].feed.clone()
    }

    fn send(&self, index: usize) -> bool {
        let placed: Vec<(Outgoing, EventId)> = {
            let mut state = self.state.lock();
            let State { order, members, .. } = &mut *state;
            let Member { unsent, at, .. } = &mut members[index];
            let floor = at.unwrap_or_default();
            let place = |entry: Outgoing| {
                let id = order.place_event(&entry, floor);
                (entry, id)
            };
            unsent.drain(..).map(place).collect()
        };
        let has_sent = !placed.is_empty();
        placed.into_iter().for_each(|(entry, id)| entry.confirm(id));
        has_sent
    }

    fn read(&self, index: usize, count: usize) -> bool {
        let Some(feed) = self.feed(index) else { return false };
        let tail = feed.tail_limits().events;
        let steps = {
            let mut state = self.state.lock();
            let State { order, members, .. } = &mut *state;
            order.read(&mut members[index].at, count, tail)
        };
        let has_read = !steps.is_empty();
        for step in steps {
            match step {
                Step::Append(id, entry) => feed.append(id, parse(&entry)),
                Step::Load(load) => {
                    let aged = |entries: Vec<(EventId, Bytes)>| {
                        entries.into_iter().map(|(id, entry)| (id, Duration::ZERO, parse(&entry)))
                    };
                    let copies = load.copies.into_iter();
                    let copies = copies.map(|copy| RunCopy::new(load.end, aged(copy)));
                    let loaded = Loaded::new(load.floor, aged(load.tail));
                    let loaded = loaded.latest(aged(load.values), true);
                    feed.load(loaded.runs(load.end, copies));
                    if !load.has_joins {
                        feed.no_earlier_joins();
                    }
                }
            }
        }
        has_read
    }

    /// Tells a gap to clients with an id beyond the end of the order.
    fn look(&self, index: usize) {
        let Some(feed) = self.feed(index) else { return };
        if let Some(mark) = feed.ahead() {
            let end = self.state.lock().order.last;
            feed.disown(mark, end);
        }
    }

    fn look_back(&self, index: usize, count: usize) -> Option<Older> {
        let feed = self.feed(index)?;
        let HistoryRequest { upto, after, .. } = feed.history_request()?;
        let (found, floor, is_all) = self.state.lock().order.before(upto, after, count);
        let piece = found.into_iter().map(|(id, entry)| (id, Duration::ZERO, parse(&entry)));
        Some(Older { feed, upto, floor, piece: piece.collect(), is_all })
    }

    /// Tells the changes of an instance to the others, and theirs to the instance.
    fn tell(&self, index: usize) -> bool {
        let Some(feed) = self.feed(index) else { return false };
        let changes = feed.take_changes(usize::MAX);
        let has_changes = !changes.is_empty();
        let told: Vec<(usize, Told)> = {
            let mut state = self.state.lock();
            if has_changes {
                state.told.push((index, Told::Changes(changes)));
            }
            let State { told, members, .. } = &mut *state;
            let from = mem::replace(&mut members[index].told, told.len());
            told[from..].iter().filter(|(of, _)| *of != index).cloned().collect()
        };
        for (of, told) in &told {
            let of = of.to_string();
            match told.clone() {
                Told::Changes(changes) => feed.change_users(&of, changes),
                Told::Closed => feed.replace_users(&of, []),
                Told::Dead(instance) => {
                    feed.remove_instance(&of);
                    feed.lose_runs(instance);
                }
            }
        }
        has_changes || !told.is_empty()
    }
}

/// Parses an entry of a hub of this process.
fn parse(entry: &Bytes) -> Incoming {
    Incoming::parse(entry).expect("a hub wrote the entry")
}
