//! The other half of the port: ordered events in.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::apply;
use super::hub::Hub;
use super::incoming::{Incoming, Loaded, received};
use super::parts;
use super::shared::Shared;
use crate::core::ahead::AheadUpTo;
use crate::core::backplane::UserChange;
use crate::core::config::Config;
use crate::core::deferred::Work;
use crate::core::end::EndReason;
use crate::core::held::HistoryRequest;
use crate::core::seats::Seat;
use crate::core::state::State;
use crate::core::telemetry;
use crate::log::codec::Received;
use crate::log::key::Key;
use crate::log::producer::InstanceId;
use crate::wire::id::EventId;

/// Where an engine puts the events of the order: the other part of a
/// [`Backplane`](crate::backplane::Backplane).
///
/// The order is a sequence of entries with increasing ids. An engine [parses](Incoming::parse) each
/// entry once, [loads](Self::load) the end of the order once, and then [appends](Self::append)
/// the next entries. Until the first load, clients are let in and wait.
///
/// A feed does not keep the hub alive. After the hub is dropped, every method does nothing.
///
/// # Presence
///
/// An instance tells the others which users have clients on it, and which users are members of its
/// topics: each is a [`Seat`]. These reports are sets: a report that comes twice changes nothing,
/// and an engine that lost count can begin again with [every seat](Self::take_users).
///
/// ```
/// use sse_hub::backplane::{Backplane, Feed, Outgoing, SendError};
/// use sse_hub::{Hub, ManualTimer, Presence, Subscriber};
///
/// #[derive(Debug)]
/// struct Engine;
///
/// impl Backplane for Engine {
///     fn send(&self, event: Outgoing) -> Result<(), SendError> {
///         Ok(()) // An engine puts the event into the order.
///     }
/// }
///
/// let hub = || {
///     Hub::builder(ManualTimer::new()).presence(Presence::default()).backplane(Engine).build()
/// };
/// let (here, there) = (hub()?, hub()?);
/// let _tab = here.subscribe(Subscriber::new().user("ann"))?;
///
/// // When the engine is told that presence changed:
/// let (from, to) = (Feed::new(&here).unwrap(), Feed::new(&there).unwrap());
/// to.change_users("first", from.take_changes(1000));
/// assert!(there.is_online("ann"));
/// to.remove_instance("first");
/// assert_eq!(there.users()[0].other_instances, 0, "away, until the grace period is over");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Feed {
    shared: Weak<Shared>,
}

/// How much of the order is worth loading. The default is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TailLimits {
    /// The most events.
    pub events: usize,
    /// The most bytes of these events.
    pub bytes: usize,
    /// The greatest age of an event, if it is limited.
    pub age: Option<Duration>,
    /// The most [values](Loaded::latest), if the hub keeps values.
    pub values: Option<usize>,
    /// The most [runs](Loaded::runs).
    pub runs: usize,
    /// The most bytes of a run. The hub counts more for an entry than its length, so an engine may
    /// load less.
    pub bytes_per_run: usize,
    /// The most bytes of all runs.
    pub run_bytes: usize,
    /// How long an engine should keep the copy of a run after the end of the run.
    pub run_keep: Duration,
}

impl Feed {
    /// Creates the feed of a hub. Returns `None` if the hub was built without a
    /// [backplane](crate::HubBuilder::backplane).
    #[must_use]
    pub fn new(hub: &Hub) -> Option<Self> {
        let shared = hub.shared();
        shared.config.backplane.is_some().then(|| Self { shared: Arc::downgrade(shared) })
    }

    /// Begins with the end of the order, or with another order.
    ///
    /// The floor of `loaded` is the position before everything that is known. The hub forgets all
    /// earlier events. A client before the floor gets a gap and continues from the floor. So does a
    /// client that came before the first load without an id. Other clients continue where they are.
    ///
    /// Call this again if the next entries are not known to follow the entries before: the order
    /// went backwards, or part of it is gone. A floor that is not newer than every entry before is
    /// taken for one that is, so that no client sees ids go back.
    ///
    /// Commands of the tail change no open stream: they were for the clients of their time. They
    /// say which topics the clients have that return. A run that was open before and that `loaded`
    /// does not have ends as [lost](crate::RunState::Lost).
    ///
    /// ```
    /// use std::time::Duration;
    /// # use sse_hub::backplane::{Backplane, Outgoing, SendError};
    /// use sse_hub::backplane::{Feed, Incoming, Loaded};
    /// use sse_hub::{EventId, Hub, ManualTimer};
    ///
    /// # #[derive(Debug)]
    /// # struct Engine;
    /// # impl Backplane for Engine {
    /// #     fn send(&self, _: Outgoing) -> Result<(), SendError> {
    /// #         Ok(())
    /// #     }
    /// # }
    /// let hub = Hub::builder(ManualTimer::new()).backplane(Engine).build()?;
    /// let feed = Feed::new(&hub).unwrap();
    /// # let stored: Vec<(EventId, Duration, Vec<u8>)> = Vec::new();
    /// let tail = stored.iter().filter_map(|(id, age, bytes)| match Incoming::parse(bytes) {
    ///     Ok(entry) => Some((*id, *age, entry)),
    ///     Err(_) => {
    ///         feed.skip_malformed();
    ///         None
    ///     }
    /// });
    /// feed.load(Loaded::new(EventId::new(7, 0), tail));
    /// assert_eq!(feed.head(), EventId::new(7, 0));
    /// # Ok::<(), sse_hub::ConfigError>(())
    /// ```
    pub fn load(&self, loaded: Loaded) {
        if let Some(shared) = self.shared.upgrade() {
            apply::load(&shared, loaded);
        }
    }

    /// Applies the next entry of the order: hands out an event, applies a part of a
    /// [run](crate::Run), or applies a command to this hub's clients ([`Hub::disconnect`],
    /// [`Hub::finish`], [`Hub::join`], [`Hub::leave`]).
    ///
    /// An entry that is not newer than every entry before is skipped.
    pub fn append(&self, id: EventId, entry: Incoming) {
        let Some(shared) = self.shared.upgrade() else { return };
        match entry.0 {
            Received::Event(event) => apply::event(&shared, id, event),
            Received::Command(command) => apply::command(&shared, id, command),
            Received::Announcement(clients) => apply::announced(&shared, id, clients),
            Received::Run(entry) => apply::run(&shared, id, entry),
        }
    }

    /// Tells the hub that no entry that [joins](crate::backplane::Outgoing::joins) clients came
    /// before the part of the order that this hub reads. An engine that knows this must call the
    /// method after each [`load`](Self::load).
    ///
    /// Otherwise the hub does not know which topics the clients of other instances have joined. A
    /// client that comes with an unknown [client id](crate::Subscriber::client_id) then gets a gap.
    pub fn no_earlier_joins(&self) {
        if let Some(shared) = self.shared.upgrade() {
            apply::no_earlier_joins(&shared);
        }
    }

    /// Counts an entry that is malformed, and that the engine therefore skips.
    pub fn skip_malformed(&self) {
        if let Some(shared) = self.shared.upgrade() {
            apply::malformed(&shared);
        }
    }

    /// Returns the newest position: `0-0` before the first load.
    #[must_use]
    pub fn head(&self) -> EventId {
        self.shared.upgrade().map_or(EventId::ORIGIN, |shared| shared.state.lock().log.head())
    }

    /// Returns how much of the order is worth [loading](Self::load).
    #[must_use]
    pub fn tail_limits(&self) -> TailLimits {
        let shared = self.shared.upgrade();
        let Some(shared) = shared else { return TailLimits::default() };
        let Config { retain, runs, .. } = &shared.config;
        TailLimits {
            events: retain.events,
            bytes: retain.bytes,
            age: retain.age,
            values: retain.kept().map(|most| most.keys),
            runs: runs.runs,
            bytes_per_run: runs.per_run(),
            run_bytes: runs.bytes,
            run_keep: runs.keep,
        }
    }

    /// Returns a mark of the clients that have come so far with an id that the hub has not read up
    /// to. Returns `None` if there are none.
    ///
    /// Such a client was on an instance that has read further, or has an id of no order. The client
    /// is let in at that id, and waits until the hub has read up to the id. Take the mark
    /// first, then ask for the end of the order, then call [`disown`](Self::disown) with both.
    #[must_use]
    pub fn ahead(&self) -> Option<AheadUpTo> {
        let shared = self.shared.upgrade()?;
        let mut state = shared.state.lock();
        let state = &mut *state;
        state.ahead.mark(&state.log, &state.routes)
    }

    /// Tells a gap to the clients of `mark` whose id lies after `end`, the newest position of the
    /// order. Their ids are of no order, or the order went backwards.
    pub fn disown(&self, mark: AheadUpTo, end: EventId) {
        if let Some(shared) = self.shared.upgrade() {
            apply::disown(&shared, mark, end);
        }
    }

    /// Reports whether the engine can reach what orders the events: `None`, or a `cause` for people
    /// to read.
    ///
    /// The cause is logged at most once in ten seconds. An engine must repeat the report a second
    /// after a change: clients are [told](crate::HubBuilder::announce_outages) of a state that has
    /// lasted for a second, and only this call looks at the clock for that.
    pub fn degraded(&self, cause: Option<&str>) {
        let Some(shared) = self.shared.upgrade() else { return };
        if apply::health(&shared, cause.is_some()) {
            telemetry::degraded(cause);
        }
    }

    /// Returns whether the hub was closed: an engine has nothing more to do.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.upgrade().is_none_or(|shared| shared.order.lock().is_closed)
    }
}

/// # Older events
impl Feed {
    /// Returns the older events that clients and [pages](crate::Hub::read_with_history) wait for.
    ///
    /// Ask after [`Backplane::on_history_wanted`](crate::backplane::Backplane::on_history_wanted),
    /// and again after each answer until the result is `None`. One request covers every client and
    /// page that waits; the engine decides how often to read the order. An engine that cannot read
    /// must try again. A wait that takes [too long](crate::History::max_wait) ends by itself.
    #[must_use]
    pub fn history_request(&self) -> Option<HistoryRequest> {
        let shared = self.shared.upgrade()?;
        shared.config.history?;
        let mut work = Work::begin(&shared.config);
        let request = {
            let mut state = shared.state.lock();
            state.release_served(&mut work);
            state.held.request(&state.log)
        };
        work.run();
        request
    }

    /// Brings older events: *every* entry of the order after `floor` and up to `upto`, in order and
    /// with its age. `upto` must be that of the [request](Self::history_request).
    ///
    /// The hub ignores a piece that does not end where the log begins by now, and events for which
    /// the log has no room.
    ///
    /// A malformed entry may be an event. The engine must then bring the entries after the
    /// malformed entry only, with the id of the malformed entry as `floor`, and must call
    /// [`gone`](Self::gone) with that id.
    pub fn restore(
        &self,
        upto: EventId,
        floor: EventId,
        piece: impl IntoIterator<Item = (EventId, Duration, Incoming)>,
    ) {
        let Some(shared) = self.shared.upgrade() else { return };
        apply::restore(&shared, upto, floor, received(piece));
    }

    /// The order has no entries up to `position`. Clients that wait for them get a gap.
    pub fn gone(&self, position: EventId) {
        if let Some(shared) = self.shared.upgrade() {
            apply::gone(&shared, position);
        }
    }
}

/// # Runs
impl Feed {
    /// Returns the id of this hub, which names the instance in the parts of runs. After the hub is
    /// dropped, returns the id of no hub.
    #[must_use]
    pub fn instance(&self) -> InstanceId {
        let shared = self.shared.upgrade();
        shared.map_or(InstanceId::from_bytes([0; 8]), |shared| shared.instance)
    }

    /// Lists the instances with producers of open runs, this instance included, in no particular
    /// order.
    ///
    /// An engine that can find out that an instance has died must watch these instances, and call
    /// [`lose_runs`](Self::lose_runs).
    /// [`Backplane::on_runs_changed`](crate::backplane::Backplane::on_runs_changed) says when the
    /// list has changed.
    #[must_use]
    pub fn run_instances(&self) -> Vec<InstanceId> {
        let Some(shared) = self.shared.upgrade() else { return Vec::new() };
        apply::run_instances(&shared)
    }

    /// An instance has died: ends its open runs as [lost](crate::RunState::Lost).
    ///
    /// The ends are [sent](crate::backplane::Backplane::send), and have an effect when they come
    /// back. Every instance may call this for the same instance, and again: only the first end of a
    /// run counts.
    pub fn lose_runs(&self, instance: InstanceId) {
        if let Some(shared) = self.shared.upgrade() {
            parts::lose(&shared, instance);
        }
    }
}

/// # Users of other instances
impl Feed {
    /// Returns the most seats of other instances that the hub wants to know of. Returns `None` if
    /// the hub does not share [presence](crate::Presence).
    #[must_use]
    pub fn presence_limit(&self) -> Option<usize> {
        let shared = self.shared.upgrade()?;
        let presence = shared.config.presence?;
        let kinds = 1 + usize::from(!presence.topics.is_empty());
        Some(presence.max_remote_users.saturating_mul(kinds))
    }

    /// Returns whether the hub wants to know of the [members of
    /// topics](crate::Presence#members-of-topics). If not, it ignores their seats.
    #[must_use]
    pub fn wants_topics(&self) -> bool {
        let shared = self.shared.upgrade();
        shared.and_then(|shared| shared.config.presence).is_some_and(|it| !it.topics.is_empty())
    }

    /// Takes at most `most` seats that were taken or became empty since the last call, each once.
    ///
    /// [`Backplane::on_presence_changed`](crate::backplane::Backplane::on_presence_changed) says
    /// when there are changes. A user that came and left in between is not among them. The engine
    /// must announce the changes to the other instances.
    #[must_use]
    pub fn take_changes(&self, most: usize) -> Vec<UserChange> {
        let Some(shared) = self.shared.upgrade() else { return Vec::new() };
        let mut state = shared.state.lock();
        let remote = state.attendance.as_mut().and_then(|attendance| attendance.remote_mut());
        remote.map_or_else(Vec::new, |remote| remote.take_changes(most))
    }

    /// Lists every user that has clients on this instance, and every member of a topic. Later
    /// [changes](Self::take_changes) happened after this list.
    #[must_use]
    pub fn take_users(&self) -> Vec<Seat> {
        let Some(shared) = self.shared.upgrade() else { return Vec::new() };
        let mut state = shared.state.lock();
        let State { attendance, routes, .. } = &mut *state;
        let Some(attendance) = attendance else { return Vec::new() };
        let Some(remote) = attendance.remote_mut() else { return Vec::new() };
        remote.clear_changes();
        let users = routes.lists().filter_map(|(key, _)| match key {
            Key::User(user) => Some(Seat::user(user)),
            _ => None,
        });
        users.chain(attendance.local_members().iter()).collect()
    }

    /// Sets the seats of another instance: these are taken there, and no others.
    pub fn replace_users(&self, instance: &str, seats: impl IntoIterator<Item = Seat>) {
        let Some(shared) = self.shared.upgrade() else { return };
        let seats: HashSet<Seat> = seats.into_iter().collect();
        let mut gone = apply::seats_of(&shared, instance);
        gone.retain(|seat| !seats.contains(seat));
        let gone = gone.into_iter().map(|seat| UserChange::Left(seat, EndReason::Left));
        let changes = seats.into_iter().map(UserChange::Joined).chain(gone);
        apply::user_changes(&shared, instance, changes);
    }

    /// Applies changes of another instance's seats.
    pub fn change_users(&self, instance: &str, changes: impl IntoIterator<Item = UserChange>) {
        if let Some(shared) = self.shared.upgrade() {
            apply::user_changes(&shared, instance, changes);
        }
    }

    /// Forgets another instance that died, and the users there.
    pub fn remove_instance(&self, instance: &str) {
        let Some(shared) = self.shared.upgrade() else { return };
        let seats = apply::seats_of(&shared, instance).into_iter();
        let gone = seats.map(|seat| UserChange::Left(seat, EndReason::Vanished));
        apply::user_changes(&shared, instance, gone);
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").finish_non_exhaustive()
    }
}
