//! What is done to clients wherever they are: it was sent into the order of the events, and is done by each hub when it
//! comes out again. Also by the one that sent it: then it has its place among the events there as elsewhere.

use super::later::Later;
use super::shared::Shared;
use super::telemetry;
use crate::log::codec::{Action, Command};
use crate::log::key::Key;
use crate::wire::frame::Sealed;
use crate::wire::id::EventId;

impl Shared {
    /// Does what the order brings.
    pub(super) fn obey(&self, id: EventId, command: Command) {
        let Command { audience, action } = command;
        let limits = &self.config.limits;
        let mut later = Later::default();
        let mut without_room = 0;
        {
            let mut order = self.order.lock();
            // As with events: nothing is in order before the first load.
            if order.closed || id <= order.last || order.last == EventId::ORIGIN {
                return;
            }
            order.last = id;
            let mut state = self.state.lock();
            state.log.pass(id);
            match action {
                Action::Disconnect { reason, last } => {
                    let last = last.map(Sealed::finish_without_id).unwrap_or_default();
                    state.disconnect(&audience, &reason, &last, &self.config, &mut later);
                }
                Action::Join(topic) => {
                    let (key, mut slots) = (Key::Topic(topic), state.matching(&audience));
                    let all = slots.len();
                    // The other hub can have other limits.
                    let is_name = key.check(limits.name_len).is_ok();
                    slots.retain(|&slot| is_name && state.has_room(slot, &key, limits.topics));
                    without_room = all - slots.len();
                    state.join(slots, &key);
                }
                Action::Leave(topic) => {
                    let slots = state.matching(&audience);
                    state.leave(slots, &Key::Topic(topic));
                }
            }
        }
        later.run();
        if without_room > 0 {
            telemetry::not_joined(without_room, limits.topics);
        }
    }
}
