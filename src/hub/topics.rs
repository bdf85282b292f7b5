//! The connected clients, and the topics that they follow.

use std::sync::Arc;

use super::crowd;
use super::joining::{self, Change, Found, Joined, Returns};
use super::shared::Shared;
use crate::core::backplane::{Backplane, Outgoing};
use crate::core::deferred::Work;
use crate::core::receipt::Affected;
use crate::core::state::State;
use crate::error::JoinError;
use crate::log::audience::Audience;
use crate::log::codec::{self, Action, Command};
use crate::log::key::{ClientId, Key};
use crate::log::recipients::Recipients;
use crate::sync;

/// A connected client, as [`Hub::clients`](crate::Hub::clients) lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientInfo {
    /// The client's id.
    pub client_id: ClientId,
    /// The client's user, if any.
    pub user: Option<Arc<str>>,
    /// The client's session, if any.
    pub session: Option<Arc<str>>,
    /// The topics that the client follows, in no particular order.
    pub topics: Vec<Arc<str>>,
    /// The runs that the client reads, in no particular order.
    pub runs: Vec<Arc<str>>,
}

/// Adds an audience's clients to a topic.
pub(super) fn join(
    shared: &Shared,
    audience: Audience,
    topic: Arc<str>,
    last: usize,
) -> Result<Affected, JoinError> {
    let limits = &shared.config.limits;
    let last = u32::try_from(last).unwrap_or(u32::MAX);
    audience.check(limits.name_len)?;
    let key = Key::Topic(Arc::clone(&topic));
    key.check(limits.name_len)?;
    let recipients = Recipients::new(&audience, &shared.hasher);
    let joined = Joined { topic: &key, last: last as usize, limit: limits.topics };
    let find = || {
        let clients = joining::find(shared, &recipients, &key);
        let has_room = clients.iter().all(|found| found.visit.has_room);
        has_room.then_some(clients).ok_or(JoinError::TooManyTopics { limit: limits.topics })
    };
    let Some(backplane) = &shared.config.backplane else {
        let returns = Returns::note(shared);
        return Ok(change(shared, &recipients, &find()?, Change::Join(joined), returns));
    };
    let clients = find()?;
    let changed = clients.iter().filter(|found| !found.visit.follows).count();
    send(&**backplane, Command { audience, action: Action::Join { topic, last } })?;
    Ok(Affected { matched: clients.len(), changed })
}

/// Removes an audience's clients from a topic.
pub(super) fn leave(
    shared: &Shared,
    audience: Audience,
    topic: Arc<str>,
) -> Result<Affected, JoinError> {
    audience.check(shared.config.limits.name_len)?;
    let key = Key::Topic(Arc::clone(&topic));
    let recipients = Recipients::new(&audience, &shared.hasher);
    let find = || joining::find(shared, &recipients, &key);
    let Some(backplane) = &shared.config.backplane else {
        let returns = Returns::note(shared);
        return Ok(change(shared, &recipients, &find(), Change::Leave(&key), returns));
    };
    let clients = find();
    let changed = clients.iter().filter(|found| found.visit.follows).count();
    // No client follows a topic without a name, and the name could not be sent.
    if key.check(usize::MAX).is_ok() {
        send(&**backplane, Command { audience, action: Action::Leave(topic) })?;
    }
    Ok(Affected { matched: clients.len(), changed })
}

/// Changes clients that were found, clients that are away, and clients that came back meanwhile.
/// Counts the first only.
fn change(
    shared: &Shared,
    audience: &Recipients,
    clients: &[Found],
    change: Change<'_>,
    returns: Returns<'_>,
) -> Affected {
    let changed = joining::change(shared, clients, change);
    let mut work = Work::begin(&shared.config);
    let mut state = shared.state.lock();
    let head = state.log.head();
    returns.change(&mut state, audience, change, head, &mut work);
    drop(state);
    work.run();
    Affected { matched: clients.len(), changed }
}

fn send(backplane: &dyn Backplane, command: Command) -> Result<(), JoinError> {
    sync::assert_unlocked();
    Ok(backplane.send(Outgoing::new(codec::write_command(&command), None))?)
}

/// Lists an audience's clients.
pub(super) fn clients(shared: &Shared, audience: &Audience) -> Vec<ClientInfo> {
    let recipients = Recipients::new(audience, &shared.hasher);
    let clients =
        crowd::find(shared, &recipients, |state, slot, client| info(state, slot, client.id));
    clients.into_iter().map(|found| found.visit).collect()
}

fn info(state: &State, slot: usize, client_id: ClientId) -> ClientInfo {
    let mut info =
        ClientInfo { client_id, user: None, session: None, topics: Vec::new(), runs: Vec::new() };
    for place in state.routes.memberships(slot) {
        match &place.key {
            Key::All | Key::Client(_) => {}
            Key::User(user) => info.user = Some(Arc::clone(user)),
            Key::Session(session) => info.session = Some(Arc::clone(session)),
            Key::Topic(topic) => info.topics.push(Arc::clone(topic)),
            Key::Run(run) => info.runs.push(Arc::clone(run)),
        }
    }
    info
}
