//! The description of a client for other instances, and for the time after the client has left.

use std::sync::Arc;

use super::identity::Membership;
use super::key::{ClientId, Key};
use crate::wire::id::EventId;

/// The user and the session of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) user: Option<Arc<str>>,
    pub(crate) session: Option<Arc<str>>,
}

/// A client with the owner and the topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Profile {
    pub(crate) id: ClientId,
    pub(crate) owner: Owner,
    pub(crate) topics: Vec<Followed>,
}

/// A topic of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Followed {
    pub(crate) topic: Arc<str>,
    /// The client follows the topic for events after this id.
    pub(crate) since: EventId,
    /// The server added the client to the topic. Otherwise only the client's request named it.
    pub(crate) is_joined: bool,
}

impl Owner {
    pub(crate) fn of(memberships: &[Membership]) -> Self {
        let mut owner = Self { user: None, session: None };
        for held in memberships {
            match &held.key {
                Key::User(user) => owner.user = Some(Arc::clone(user)),
                Key::Session(session) => owner.session = Some(Arc::clone(session)),
                Key::All | Key::Client(_) | Key::Topic(_) | Key::Run(_) => {}
            }
        }
        owner
    }
}

impl Profile {
    pub(crate) fn of(id: ClientId, memberships: &[Membership]) -> Self {
        let topics = memberships.iter().filter_map(|held| match &held.key {
            Key::Topic(topic) => {
                let (topic, since) = (Arc::clone(topic), held.since);
                Some(Followed { topic, since, is_joined: held.is_joined })
            }
            _ => None,
        });
        Self { id, owner: Owner::of(memberships), topics: topics.collect() }
    }

    /// The keys of the client that are no topics.
    pub(super) fn keys(&self) -> Vec<Key> {
        let user = self.owner.user.clone().map(Key::User);
        let session = self.owner.session.clone().map(Key::Session);
        let both = user.into_iter().chain(session);
        [Key::All, Key::Client(self.id)].into_iter().chain(both).collect()
    }
}
