//! Who is connected, and who follows what.

use std::sync::Arc;

use super::shared::Shared;
use super::state::State;
use crate::error::JoinError;
use crate::log::audience::{Audience, ClientId, Key};

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
        let key = Key::Topic(topic);
        key.check(limits.name_len)?;
        let mut state = self.state.lock();
        let head = state.log.head();
        let slots = state.matching(audience);
        let is_topic = |key: &Key| matches!(key, Key::Topic(_));
        let topics = |slot: &usize| {
            let places = state.routes.places(*slot);
            let follows = places.iter().any(|place| place.key == key);
            let topics = places.iter().filter(|place| is_topic(&place.key)).count();
            if follows { 0 } else { topics + 1 }
        };
        if slots.iter().map(topics).any(|topics| topics > limits.topics) {
            return Err(JoinError::TooManyTopics { limit: limits.topics });
        }
        state.last_join = head;
        let joined = slots.into_iter().filter(|&slot| state.routes.join(slot, key.clone(), head));
        Ok(joined.count())
    }

    /// Takes an audience's clients from a topic, and counts those that were in it.
    pub(crate) fn leave_topic(
        &self,
        audience: &Audience,
        topic: Arc<str>,
    ) -> Result<usize, JoinError> {
        audience.check(self.config.limits.name_len)?;
        let key = Key::Topic(topic);
        let mut state = self.state.lock();
        let slots = state.matching(audience);
        Ok(slots.into_iter().filter(|&slot| state.routes.leave(slot, &key)).count())
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

impl State {
    fn info(&self, slot: usize, client: ClientId) -> ClientInfo {
        let mut info = ClientInfo { client, user: None, session: None, topics: Vec::new() };
        for place in self.routes.places(slot) {
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
