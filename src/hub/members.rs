//! Who is connected, and who follows what.

use std::sync::Arc;

use super::backplane::{Outgoing, Unsent};
use super::shared::Shared;
use super::state::State;
use crate::error::JoinError;
use crate::log::audience::Audience;
use crate::log::codec::{Action, Command};
use crate::log::key::{ClientId, Key};

/// A client that is connected, as [`Hub::clients`](crate::Hub::clients) lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientInfo {
    /// Its id.
    pub client: ClientId,
    /// Its user, if it has one.
    pub user: Option<Arc<str>>,
    /// Its session, if it has one.
    pub session: Option<Arc<str>>,
    /// The topics that it follows, in no particular order.
    pub topics: Vec<Arc<str>>,
}

impl Shared {
    /// Adds an audience's clients to a topic, and counts those that were not in it.
    pub(crate) fn join(&self, audience: &Audience, topic: Arc<str>) -> Result<usize, JoinError> {
        let limits = &self.config.limits;
        audience.check(limits.name_len)?;
        let key = Key::Topic(topic.clone());
        key.check(limits.name_len)?;
        let mut state = self.state.lock();
        let slots = state.matching(audience);
        if !slots.iter().all(|&slot| state.has_room(slot, &key, limits.topics)) {
            return Err(JoinError::TooManyTopics { limit: limits.topics });
        }
        let Some(backplane) = &self.config.backplane else { return Ok(state.join(slots, &key)) };
        let new = slots.into_iter().filter(|&slot| !state.follows(slot, &key)).count();
        drop(state);
        let command = Command { audience: audience.clone(), action: Action::Join(topic) };
        backplane.send(Outgoing::of(&command)).map_err(not_sent)?;
        Ok(new)
    }

    /// Takes an audience's clients from a topic, and counts those that were in it.
    pub(crate) fn leave_topic(
        &self,
        audience: &Audience,
        topic: Arc<str>,
    ) -> Result<usize, JoinError> {
        audience.check(self.config.limits.name_len)?;
        let key = Key::Topic(topic.clone());
        let mut state = self.state.lock();
        let slots = state.matching(audience);
        let Some(backplane) = &self.config.backplane else { return Ok(state.leave(slots, &key)) };
        let known = slots.into_iter().filter(|&slot| state.follows(slot, &key)).count();
        drop(state);
        // An empty name is nobody's topic, and has no form to travel in.
        if key.check(usize::MAX).is_ok() {
            let command = Command { audience: audience.clone(), action: Action::Leave(topic) };
            backplane.send(Outgoing::of(&command)).map_err(not_sent)?;
        }
        Ok(known)
    }

    /// Lists an audience's clients.
    pub(crate) fn clients(&self, audience: &Audience) -> Vec<ClientInfo> {
        let state = self.state.lock();
        let slots = state.matching(audience).into_iter();
        slots.filter_map(|slot| Some(state.info(slot, state.routes.get(slot)?.id))).collect()
    }

    /// Counts an audience's clients.
    pub(crate) fn count(&self, audience: &Audience) -> usize {
        let state = self.state.lock();
        match audience.key() {
            Some(key) => state.routes.members(key).len(),
            None => state.matching(audience).len(),
        }
    }
}

fn not_sent(unsent: Unsent) -> JoinError {
    match unsent {
        Unsent::Full => JoinError::Backlog,
        Unsent::Closed => JoinError::Closed,
    }
}

impl State {
    /// Adds clients to a topic, for what comes after all that is in the log, and counts those that were not in it.
    pub(super) fn join(&mut self, slots: Vec<usize>, topic: &Key) -> usize {
        let head = self.log.head();
        self.last_join = head;
        slots.into_iter().filter(|&slot| self.routes.join(slot, topic.clone(), head)).count()
    }

    /// Takes clients from a topic, and counts those that were in it.
    pub(super) fn leave(&mut self, slots: Vec<usize>, topic: &Key) -> usize {
        slots.into_iter().filter(|&slot| self.routes.leave(slot, topic)).count()
    }

    fn follows(&self, slot: usize, topic: &Key) -> bool {
        self.routes.memberships(slot).iter().any(|place| place.key == *topic)
    }

    /// Whether a client can follow this topic, too.
    pub(super) fn has_room(&self, slot: usize, topic: &Key, limit: usize) -> bool {
        let is_topic = |key: &Key| matches!(key, Key::Topic(_));
        let places = self.routes.memberships(slot);
        let topics = places.iter().filter(|place| is_topic(&place.key)).count();
        topics < limit || self.follows(slot, topic)
    }

    fn info(&self, slot: usize, client: ClientId) -> ClientInfo {
        let mut info = ClientInfo { client, user: None, session: None, topics: Vec::new() };
        for place in self.routes.memberships(slot) {
            match &place.key {
                Key::All | Key::Client(_) => {}
                Key::User(user) => info.user = Some(Arc::clone(user)),
                Key::Session(session) => info.session = Some(Arc::clone(session)),
                Key::Topic(topic) => info.topics.push(Arc::clone(topic)),
            }
        }
        info
    }
}
