//! Topics that a client asks for itself.

use std::sync::Arc;

use super::returning;
use super::shared::Shared;
use super::subscriber::Subscriber;
use super::topics;
use crate::error::FollowError;
use crate::log::audience::Audience;
use crate::log::key::{ClientId, Key};

/// Adds the client of this id to a topic, if the client is that of the subscriber.
pub(super) fn follow(
    shared: &Shared,
    who: &Subscriber,
    client: ClientId,
    topic: Arc<str>,
    last: usize,
) -> Result<(), FollowError> {
    topics::join(shared, own(shared, who, client)?, topic, last)?;
    Ok(())
}

/// Removes the client of this id from a topic, if the client is that of the subscriber.
pub(super) fn unfollow(
    shared: &Shared,
    who: &Subscriber,
    client: ClientId,
    topic: Arc<str>,
) -> Result<(), FollowError> {
    topics::leave(shared, own(shared, who, client)?, topic)?;
    Ok(())
}

/// Returns the audience of the client, if the client is that of the subscriber.
///
/// A client of another instance cannot be looked up here. Its instance applies the command to the
/// client only if the client has the user and the session of the subscriber.
fn own(shared: &Shared, who: &Subscriber, client: ClientId) -> Result<Audience, FollowError> {
    let owner = who.owner();
    let (is_own, is_elsewhere) = {
        let state = shared.state.lock();
        let is_own = returning::connection_of(&state, client, &owner).is_some();
        (is_own, state.routes.members(&Key::Client(client)).is_empty())
    };
    let has_names = owner.user.is_some() || owner.session.is_some();
    let may_be_elsewhere = is_elsewhere && has_names && shared.config.backplane.is_some();
    if !is_own && !may_be_elsewhere {
        return Err(FollowError::Denied);
    }
    let user = owner.user.map(Audience::user);
    let names = user.into_iter().chain(owner.session.map(Audience::session));
    Ok(names.fold(Audience::client(client), Audience::and))
}
