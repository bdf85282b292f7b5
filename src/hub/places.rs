//! Where clients stand in an order that comes from elsewhere: ahead of what the hub has read, or in one that is gone.

use std::sync::Arc;
use std::time::Instant;

use super::later::Later;
use super::link::{Ahead, Mark};
use super::shared::Shared;
use super::state::State;
use crate::wire::id::EventId;

impl State {
    /// The log was replaced by one that begins after `floor`: finds everybody's place in it.
    pub(super) fn move_to(
        &mut self,
        floor: EventId,
        is_first: bool,
        now: Instant,
        shared: &Shared,
        later: &mut Later,
    ) {
        let reason = if is_first { "evicted" } else { "reset" };
        let head = self.log.head();
        let mut waiting = Vec::new();
        self.link.behind.clear();
        let mut behind = Vec::new();
        for (slot, client) in self.routes.iter() {
            let mut inbox = client.inbox.lock();
            if inbox.end.is_some() {
                continue;
            }
            inbox.let_go();
            let mailbox = &mut inbox.mailbox;
            match mailbox.cursor() {
                // It came when nobody knew where now is.
                EventId::ORIGIN => mailbox.jump(head, head, "unknown", now),
                // What lies before may be there, unless the order is another.
                cursor
                    if cursor < floor
                        && let Some(history) = shared.config.history.filter(|_| is_first) =>
                {
                    mailbox.restart(head, now);
                    let told = mailbox.told();
                    inbox.held = Some(history.until(now));
                    behind.push((slot, Arc::clone(client), told));
                }
                cursor if cursor < floor => mailbox.jump(floor, head, reason, now),
                _ => mailbox.restart(head, now),
            }
            if inbox.mailbox.waiting_since().is_some() {
                waiting.push(slot);
                later.extend(inbox.waker.take());
            }
        }
        for slot in waiting {
            self.watch(slot, now, &shared.config);
        }
        for (slot, client, told) in behind {
            self.note_behind(slot, &client, told, now, &shared.config);
        }
    }

    /// A client was let in after an id that the log has not come to.
    pub(super) fn note_ahead(&mut self, slot: usize, serial: u64, id: EventId) {
        let crowd = 2 * self.routes.len() + 64;
        self.link.ahead.push(Ahead { slot, serial, id });
        if self.link.ahead.len() > crowd {
            self.forget_who_is_not_ahead();
        }
    }

    pub(super) fn ahead(&mut self) -> Option<Mark> {
        self.forget_who_is_not_ahead();
        self.link.ahead.last().map(|last| Mark(last.serial))
    }

    fn forget_who_is_not_ahead(&mut self) {
        let (routes, head) = (&self.routes, self.log.head());
        self.link.ahead.retain(|ahead| {
            let is_here =
                routes.get(ahead.slot).is_some_and(|client| client.serial == ahead.serial);
            is_here && ahead.id > head
        });
    }

    pub(super) fn disown(
        &mut self,
        mark: Mark,
        end: EventId,
        now: Instant,
        shared: &Shared,
        later: &mut Later,
    ) {
        if !self.link.loaded {
            // Where now is, nobody knows yet.
            return;
        }
        self.forget_who_is_not_ahead();
        let head = self.log.head();
        let of_no_order = |ahead: &mut Ahead| ahead.serial <= mark.0 && ahead.id > end;
        let disowned: Vec<Ahead> = self.link.ahead.extract_if(.., of_no_order).collect();
        for Ahead { slot, .. } in disowned {
            if let Some(client) = self.routes.get(slot) {
                let mut inbox = client.inbox.lock();
                if inbox.end.is_none() {
                    // Not at the hub's own head: what lies between that and the end it may have had.
                    inbox.mailbox.jump(head.max(end), head, "unknown", now);
                    later.extend(inbox.waker.take());
                }
            }
            self.watch(slot, now, &shared.config);
        }
    }
}
