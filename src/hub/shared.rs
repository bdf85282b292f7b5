//! What a hub and its subscriptions share.
//!
//! Lock order: the *ordering* lock, then the *state* lock, then a client's *inbox*. A thread that holds one takes
//! only those after it. Wakers are woken, and dropped, when none is held: both are foreign code.
//!
//! The ordering lock is the publishers' own and is held from the issuing of an id until its event has been handed to
//! everybody, so hand-outs come in id order. The state lock is let go of between the pieces of a large hand-out, so
//! that a client that connects or catches up meanwhile waits for a piece of it and not for all.

use std::sync::Arc;
use std::task::Waker;

use crate::error::{PublishError, Refused, RefusedCause};
use crate::hub::config::Config;
use crate::hub::receipt::Receipt;
use crate::hub::stats::Stats;
use crate::hub::subscriber::Subscriber;
use crate::log::audience::{Audience, ClientId, Filter, Key};
use crate::log::log::{Entry, Log};
use crate::log::lost::Marker;
use crate::log::mailbox::Mailbox;
use crate::log::routes::Routes;
use crate::sync::{self, Mutex, MutexGuard};
use crate::wire::event::Event;
use crate::wire::id::{EventId, Resume};

/// How many clients are handed an event before the state lock is let go of. One, where loom looks at every order.
const PIECE: usize = if cfg!(sse_hub_loom) { 1 } else { 256 };

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    marker: Marker,
    order: Mutex<Order>,
    state: Mutex<State>,
}

/// Behind the ordering lock.
#[derive(Debug)]
struct Order {
    last: EventId,
    closed: bool,
    /// Events on their way out, dropped when the state lock is released. Kept for its allocation.
    evicted: Vec<Arc<Entry>>,
}

/// Behind the state lock.
#[derive(Debug)]
struct State {
    log: Log,
    routes: Routes<Arc<Client>>,
    closed: bool,
    published: u64,
    opened: u64,
}

/// One open stream, as publishers see it.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: ClientId,
    keys: Box<[Key]>,
    filter: Filter,
    pub(crate) inbox: Mutex<Inbox>,
}

/// Behind the inbox lock.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) mailbox: Mailbox,
    /// Who waits for the mailbox to fill. Taken by whoever fills it.
    pub(crate) waker: Option<Waker>,
    /// No event will come any more.
    pub(crate) closed: bool,
}

/// A client just let in.
pub(crate) struct Admitted {
    pub(crate) client: Arc<Client>,
    pub(crate) slot: usize,
    pub(crate) start: Start,
}

/// Where a stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// A first connection, after this event.
    Fresh(EventId),
    /// Right after the client's own position.
    Resumed(EventId),
    /// After the client's own position, with a gap that the log tells as it is read.
    Behind(EventId),
    /// The client's position is none of this hub's: after this event, with a gap before it.
    Lost(EventId),
}

impl Shared {
    /// `birth`: the position before the first event.
    pub(crate) fn new(config: Config, birth: EventId) -> Self {
        let marker = Marker::default();
        let log = Log::new(config.retain, birth, marker.clone());
        let state = State { log, routes: Routes::new(), closed: false, published: 0, opened: 0 };
        let order = Order { last: birth, closed: false, evicted: Vec::new() };
        Self { config, marker, order: Mutex::new(order), state: Mutex::new(state) }
    }

    pub(crate) fn publish(
        &self,
        audience: Audience,
        event: Event,
    ) -> Result<Receipt, PublishError> {
        audience.check()?;
        event.check()?;
        let sealed = event.seal();
        let (bytes, limit) = (sealed.max_len(), self.config.retain.bytes);
        if bytes > limit {
            return Err(PublishError::TooLarge { bytes, limit });
        }

        let mut wakers = Vec::new();
        let receipt = {
            let mut order = self.order.lock();
            if order.closed {
                return Err(PublishError::Closed);
            }
            let EventId(epoch, count) = order.last;
            let id = EventId(epoch, count + 1);
            order.last = id;
            let frame = sealed.finish(id);
            let now = self.config.timer.now();
            let entry = Arc::new(Entry::new(id, frame, audience, now, &self.marker));

            let mut state = self.state.lock();
            state.log.append(Arc::clone(&entry), &mut order.evicted);
            state.published += 1;
            let matched = self.hand_out(state, &entry, &mut wakers);
            order.evicted.clear();
            Receipt { id, matched }
        };
        wakers.into_iter().for_each(Waker::wake);
        Ok(receipt)
    }

    /// Hands an appended event to everybody it is for, piece by piece, and counts them.
    ///
    /// The ordering lock is held. Lists are walked from their end: see [`Routes::remove`]. Whoever connects between
    /// two pieces has a position after the event and does not take it.
    fn hand_out<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        entry: &Arc<Entry>,
        wakers: &mut Vec<Waker>,
    ) -> usize {
        let mut matched = 0;
        for key in entry.audience.keys() {
            let mut left = usize::MAX;
            loop {
                let members = state.routes.members(key);
                left = left.min(members.len());
                let piece = left.saturating_sub(PIECE)..left;
                left = piece.start;
                for member in members[piece].iter().rev() {
                    matched += usize::from(member.reach.give(entry, wakers));
                }
                if left == 0 {
                    break;
                }
                state = sync::let_others(&self.state, state);
            }
        }
        matched
    }

    pub(crate) fn subscribe(&self, subscriber: Subscriber) -> Result<Admitted, Refused> {
        let id = ClientId::random()
            .map_err(|_| Refused::new(RefusedCause::NoRandomness, self.config.retry))?;
        let refused = |cause| Refused::new(cause, self.config.retry(id));
        let Subscriber { user, session, topics, filter, resume } = subscriber;
        let mut keys = vec![Key::All, Key::Client(id)];
        keys.extend(user.map(Key::User));
        keys.extend(session.map(Key::Session));
        keys.extend(topics.into_iter().map(Key::Topic));
        keys.iter().try_for_each(Key::check).map_err(|error| refused(error.into()))?;
        let keys = keys.into_boxed_slice();
        let now = self.config.timer.now();

        let mut evicted = Vec::new();
        let mut state = self.state.lock();
        if state.closed {
            return Err(refused(RefusedCause::Closed));
        }
        state.log.expire(now, &mut evicted);
        // The position is fixed and the client registered under one lock: what is appended from here on is handed
        // to it, and what is there already is not.
        let head = state.log.head();
        let (cursor, start) = match resume {
            Resume::Fresh => (head, Start::Fresh(head)),
            Resume::After(id) if EventId::ORIGIN < id && id <= head => {
                let lost = state.log.lost_since(id, &keys, &filter);
                (id, if lost.is_some() { Start::Behind(id) } else { Start::Resumed(id) })
            }
            Resume::After(_) | Resume::Unknown => (head, Start::Lost(head)),
        };
        let mailbox = Mailbox::new(cursor, head, self.config.window);
        let inbox = Mutex::new(Inbox { mailbox, waker: None, closed: false });
        let client = Arc::new(Client { id, keys, filter, inbox });
        let slot = state.routes.add(&client.keys, Arc::clone(&client));
        state.opened += 1;
        drop(state);
        drop(evicted);
        Ok(Admitted { client, slot, start })
    }

    /// Forgets a client.
    pub(crate) fn leave(&self, slot: usize) {
        // What comes back holds a waker, which is dropped when the lock is released.
        let client = self.state.lock().routes.remove(slot);
        drop(client);
    }

    /// Reads the log for a client that is behind, and returns where it stands after what it missed, if it did.
    pub(crate) fn catch_up(&self, client: &Client, out: &mut Vec<Arc<Entry>>) -> Option<EventId> {
        let now = self.config.timer.now();
        let mut evicted = Vec::new();
        let mut state = self.state.lock();
        state.log.expire(now, &mut evicted);
        let log = &state.log;
        let mut inbox = client.inbox.lock();
        let cursor = inbox.mailbox.cursor();
        let all = log.read(cursor, &client.keys, &client.filter, self.config.batch, out);
        let lost = log.lost_since(cursor, &client.keys, &client.filter);
        let gap = lost.map(|lost| {
            // Where topics have limits of their own, what is retained can be older than what was lost. The client is
            // to get that too, also if it is cut off right after the gap and comes back with its id.
            out.first().map_or(lost, |first| lost.min(first.id.before()))
        });
        if all {
            inbox.mailbox.catch_up(log.head());
        } else if let Some(last) = out.last() {
            inbox.mailbox.advance(last.id);
        }
        drop(inbox);
        drop(state);
        drop(evicted);
        gap
    }

    /// Ends the hub: nothing is published or let in any more, and streams end after what was published before.
    pub(crate) fn close(&self) {
        let mut order = self.order.lock();
        if order.closed {
            return;
        }
        order.closed = true;
        let mut state = self.state.lock();
        state.closed = true;
        let wakers: Vec<Waker> = state
            .routes
            .iter()
            .filter_map(|client| {
                let mut inbox = client.inbox.lock();
                inbox.closed = true;
                inbox.waker.take()
            })
            .collect();
        drop(state);
        drop(order);
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn stats(&self) -> Stats {
        let state = self.state.lock();
        Stats {
            clients: state.routes.len(),
            names: state.routes.keys(),
            retained: state.log.len(),
            retained_names: state.log.keys(),
            retained_bytes: state.log.bytes(),
            published: state.published,
            opened: state.opened,
        }
    }
}

impl Client {
    /// Hands it an event, unless its filter does not want it or it has it already.
    fn give(&self, entry: &Arc<Entry>, wakers: &mut Vec<Waker>) -> bool {
        if !self.filter.admits(entry.frame.event_type()) {
            return false;
        }
        let mut inbox = self.inbox.lock();
        let is_new = inbox.mailbox.push(entry);
        if is_new {
            wakers.extend(inbox.waker.take());
        }
        is_new
    }
}
