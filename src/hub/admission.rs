//! Letting clients in.

use std::sync::Arc;

use super::config::Config;
use super::end::{End, EndReason, Until};
use super::later::Later;
use super::shared::Shared;
use super::state::{Client, Inbox, State};
use super::subscriber::Subscriber;
use super::telemetry;
use crate::error::{Refused, RefusedCause};
use crate::log::departed::Owner;
use crate::log::identity::Filter;
use crate::log::key::{ClientId, Key};
use crate::log::mailbox::Mailbox;
use crate::sync::Mutex;
use crate::wire::id::{EventId, Resume};

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
    /// Right after the client's own position, if what it missed can be brought from where the order is kept.
    Sought(EventId),
    /// After the client's own position, with a gap that the log tells as it is read.
    Behind(EventId),
    /// After a gap that is told at once.
    Gap {
        /// The position that leads a client that is cut off before the gap back to it.
        held: EventId,
        /// Where it goes on.
        now: EventId,
        reason: &'static str,
    },
}

impl Start {
    /// One word for it.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Fresh(_) => "fresh",
            Self::Resumed(_) | Self::Sought(_) => "resumed",
            Self::Behind(_) | Self::Gap { .. } => "gap",
        }
    }

    /// Where the stream goes on.
    pub(crate) fn position(self) -> EventId {
        match self {
            Self::Fresh(id) | Self::Resumed(id) | Self::Sought(id) | Self::Behind(id) => id,
            Self::Gap { now, .. } => now,
        }
    }
}

impl Shared {
    pub(crate) fn subscribe(&self, subscriber: Subscriber) -> Result<Admitted, Refused> {
        let mut later = Later::default();
        let has_user = subscriber.user.is_some();
        let admitted = self.admit(subscriber, &mut later);
        later.run();
        match &admitted {
            Ok(Admitted { client, start, .. }) => {
                telemetry::opened(client.id, has_user, start.as_str());
            }
            Err(refused) => telemetry::refused(refused.cause()),
        }
        admitted
    }

    fn admit(&self, subscriber: Subscriber, later: &mut Later) -> Result<Admitted, Refused> {
        let config = &self.config;
        let Ok(fresh) = ClientId::random() else {
            self.state.lock().counts.refused[RefusedCause::NoRandomness.index()] += 1;
            return Err(Refused::new(RefusedCause::NoRandomness, config.retry, config.refusals));
        };
        let Subscriber { client: claimed, user, session, topics, types, resume, last, until } =
            subscriber;
        let owner = Owner { user: user.clone(), session: session.clone() };
        let topic_count = topics.len();
        let filter = Filter::new(types.as_ref(), &self.hasher);
        let mut keys = vec![Key::All, Key::Client(fresh)];
        keys.extend(user.map(Key::User));
        keys.extend(session.map(Key::Session));
        keys.extend(topics.into_iter().map(Key::Topic));
        let checked = keys.iter().try_for_each(|key| key.check(config.limits.name_len));
        let now = config.timer.now();

        let mut evicted = Vec::new();
        let mut state = self.state.lock();
        state.expel_stalled(now, config, later);
        let room = match checked {
            Err(error) => Err(error.into()),
            Ok(()) if topic_count > config.limits.topics => {
                Err(RefusedCause::TooManyTopics { limit: config.limits.topics })
            }
            Ok(()) => state.make_room(&owner, config, later),
        };
        if let Err(cause) = room {
            state.counts.refused[cause.index()] += 1;
            return Err(Refused::new(cause, config.retry(fresh), config.refusals));
        }
        let mut id = fresh;
        if let Some(claimed) = claimed
            && state.departed.was(claimed, &owner)
            && state.routes.members(&Key::Client(claimed)).is_empty()
        {
            id = claimed;
            keys[1] = Key::Client(claimed);
        }

        state.log.expire(now, &mut evicted);
        state.counts.opened += 1;
        // The position is fixed and the client registered under one lock: what is appended from here on is handed to
        // it, and what is there already is not.
        let head = state.log.head();
        let client = Arc::new(Client {
            id,
            serial: state.counts.opened,
            filter,
            inbox: Mutex::new(Inbox::new(Mailbox::new(head, head, head, config.window, now))),
        });
        let slot = state.routes.add(keys, Arc::clone(&client));
        state.note_arrival(slot, now, later);
        let start = state.start(slot, resume, last, config);
        let mut inbox = client.inbox.lock();
        let missable = if let Start::Fresh(_) = start { head } else { EventId::ORIGIN };
        inbox.mailbox = Mailbox::new(start.position(), head, missable, config.window, now);
        let waits = inbox.mailbox.waiting_since().is_some();
        if let Some(at) = until {
            inbox.end_by(Until { at, reason: EndReason::Expired });
        }
        if let Some(at) = config.lifetime(fresh).and_then(|lifetime| now.checked_add(lifetime)) {
            inbox.end_by(Until { at, reason: EndReason::Lifetime });
        }
        drop(inbox);
        if waits {
            state.watch(slot, now, config);
        }
        let is_ahead = start.position() > head;
        if is_ahead {
            state.note_ahead(slot, client.serial, start.position());
        }
        drop(state);
        drop(evicted);
        if is_ahead && let Some(backplane) = &config.backplane {
            backplane.look_ahead();
        }
        Ok(Admitted { client, slot, start })
    }
}

impl State {
    /// Whether one more client may come in; the oldest of its user or session may have to go for it.
    fn make_room(
        &mut self,
        owner: &Owner,
        config: &Config,
        later: &mut Later,
    ) -> Result<(), RefusedCause> {
        let limits = &config.limits;
        if self.closed {
            return Err(RefusedCause::Closed);
        }
        if self.draining {
            return Err(RefusedCause::Draining);
        }
        let of_user = owner.user.clone().map(Key::User);
        let of_session = owner.session.clone().map(Key::Session);
        let full = [
            (of_user, limits.per_user, RefusedCause::UserFull { limit: limits.per_user }),
            (
                of_session,
                limits.per_session,
                RefusedCause::SessionFull { limit: limits.per_session },
            ),
        ];
        let at_limit = |state: &Self, key: &Option<Key>, limit| {
            key.as_ref().is_some_and(|key| state.routes.members(key).len() >= limit)
        };
        let crowded = |state: &Self| {
            full.iter().find(|(key, limit, _)| at_limit(state, key, *limit)).cloned()
        };
        // Refuses before it displaces: nobody has to go for a client that is not let in.
        let leaves_room = limits.displaces && crowded(self).is_some();
        if self.routes.len() >= limits.clients && !leaves_room {
            return Err(RefusedCause::Full { limit: limits.clients });
        }
        while let Some((key, _, cause)) = crowded(self) {
            let oldest = key.and_then(|key| {
                let members = self.routes.members(&key).iter();
                members.min_by_key(|member| member.reach.serial).map(|member| member.slot)
            });
            let Some(oldest) = oldest.filter(|_| limits.displaces) else { return Err(cause) };
            self.expel(
                oldest,
                |client| End::told(EndReason::Displaced, config.retry(client.id)),
                later,
            );
        }
        Ok(())
    }

    /// Where a client that was just added begins.
    fn start(&self, slot: usize, resume: Resume, last: usize, config: &Config) -> Start {
        let (head, replay) = (self.log.head(), config.limits.replay);
        let Some(client) = self.identity(slot) else { return Start::Fresh(head) };
        match resume {
            Resume::Fresh if last > 0 => {
                Start::Fresh(self.log.before_last(last.min(replay), client).0)
            }
            Resume::Fresh => Start::Fresh(head),
            Resume::After(id) if EventId::ORIGIN < id && id <= head => {
                if replay < self.log.len()
                    && let (now, true) = self.log.before_last(replay, client)
                    && now > id
                {
                    Start::Gap { held: id, now, reason: "capped" }
                } else if self.log.lost_since(id, client).is_none() {
                    Start::Resumed(id)
                } else if self.hopes_for(id, config) {
                    Start::Sought(id)
                } else {
                    Start::Behind(id)
                }
            }
            // Others have read further. Its own position counts until the order's end is found to lie before it.
            Resume::After(id) if id > head && config.backplane.is_some() => Start::Resumed(id),
            Resume::After(_) | Resume::Unknown => {
                Start::Gap { held: EventId::ORIGIN, now: head, reason: "unknown" }
            }
        }
    }
}
