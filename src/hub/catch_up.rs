//! Reading the log, by whoever is behind.

use std::mem;
use std::sync::Arc;
use std::time::Instant;

use super::config::Config;
use super::state::{Client, State};
use crate::log::entry::Entry;
use crate::log::identity::Identity;
use crate::wire::id::EventId;

/// What a client that was behind has learned from the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CaughtUp {
    /// Where it stands after what it missed, if it did.
    pub(crate) gap: Option<EventId>,
    /// It has read the log to its end.
    pub(crate) is_live: bool,
    /// It is held, because what it missed may be brought, and has read nothing.
    pub(crate) is_held: bool,
}

impl State {
    /// Reads the log for a client that is behind; `None` if it was forgotten, and its slot may be somebody else's.
    ///
    /// What it missed is looked back for, if that may be.
    pub(super) fn read_log(
        &mut self,
        slot: usize,
        client: &Arc<Client>,
        may_look_back: bool,
        now: Instant,
        config: &Config,
        out: &mut Vec<Arc<Entry>>,
    ) -> Option<CaughtUp> {
        if !self.has(slot, client) {
            return None;
        }
        let identity =
            Identity { memberships: self.routes.memberships(slot), filter: &client.filter };
        let mut inbox = client.inbox.lock();
        let (cursor, told) = (inbox.mailbox.cursor(), inbox.mailbox.told());
        let nothing = CaughtUp { gap: None, is_live: false, is_held: false };
        if !inbox.mailbox.reads_the_log() {
            // The order has begun anew since it was found to be behind: it is to be told so first, and what has come
            // since waits in its window.
            return Some(nothing);
        }
        let replay = config.limits.replay;
        if mem::take(&mut inbox.is_back)
            && replay < self.log.len()
            && let (at, true) = self.log.before_last(replay, identity)
            && at > cursor
        {
            inbox.mailbox.jump(at, self.log.head(), "capped", now);
            return Some(nothing);
        }
        let lost = self.log.lost_since(told, identity);
        if may_look_back
            && lost.is_some_and(|lost| lost > inbox.sought)
            && let Some(history) = config.history
            && self.can_look_back(told, config)
        {
            inbox.held = Some(history.until(now));
            drop(inbox);
            self.note_behind(slot, client, told, now, config);
            return Some(CaughtUp { is_held: true, ..nothing });
        }
        if self.log.reaches_back(cursor) {
            self.link.used = Some(now);
        }
        let lags = inbox.mailbox.starts_reading_the_log();
        let mut is_live = self.log.read(cursor, identity, config.batch, out);
        if inbox.end.is_some() {
            // What was published since it was to end is for whoever comes back.
            let rest = out.partition_point(|entry| entry.id <= inbox.mailbox.tail());
            is_live |= rest < out.len();
            out.truncate(rest);
        }
        let gap = lost.map(|lost| {
            // Where topics have limits of their own, what is retained can be older than what was lost. The client is
            // to get that too, also if it is cut off right after the gap and comes back with its id.
            out.first().map_or(lost, |first| lost.min(first.id.predecessor()))
        });
        if is_live {
            inbox.mailbox.catch_up(self.log.head());
        } else if let Some(last) = out.last() {
            inbox.mailbox.advance(last.id, now);
        }
        self.counts.lagged += u64::from(lags);
        Some(CaughtUp { gap, is_live, is_held: false })
    }
}
