//! Reads the stream backwards, for clients that come back from before the events that their hub
//! retains.
//!
//! The task does this for all clients of an instance: while a client waits, the task reads a piece
//! at most every 100 ms. Clients that come meanwhile are served by the same pieces. The task has a
//! connection of its own while a client waits, because a large answer must not delay publishing.

use std::sync::Arc;
use std::time::Duration;

use redis::RedisResult;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::read_size::ReadSize;
use crate::EventId;
use crate::backplane::{Feed, HistoryRequest, Incoming};
use crate::core::telemetry;
use crate::redis::connect::back_off::BackOff;
use crate::redis::connect::link::Link;
use crate::redis::shared::RedisShared;
use crate::redis::store;
use crate::redis::store::entry::{Content, Entry};
use crate::redis::store::script::{Page, Range};

/// The shortest time between two reads.
const PACE: Duration = Duration::from_millis(100);

/// A part of the stream, read backwards.
#[derive(Debug)]
struct Piece {
    /// All links after `floor`, in order.
    links: Vec<(EventId, Incoming)>,
    floor: EventId,
    /// The stream no longer has the entries up to `floor`, or this version cannot read them.
    is_gone: bool,
    /// The entry at `floor` is malformed.
    is_malformed: bool,
}

pub(crate) struct HistoryReader {
    shared: Arc<RedisShared>,
    feed: Feed,
    /// The next read must not begin before this.
    not_before: Option<Instant>,
    size: ReadSize,
}

impl HistoryReader {
    pub(crate) fn new(shared: Arc<RedisShared>, feed: Feed) -> Self {
        Self { shared, feed, not_before: None, size: ReadSize::default() }
    }

    /// Brings older events to the hub whenever clients want some.
    pub(crate) async fn run(mut self) {
        loop {
            self.shared.history_wanted.notified().await;
            let (mut link, mut back_off) = (Link::default(), BackOff::default());
            while self.feed.history_request().is_some() {
                if let Some(at) = self.not_before {
                    tokio::time::sleep_until(at).await;
                }
                // Asked again after the pause: clients that came meanwhile share the read.
                let Some(wanted) = self.feed.history_request() else { break };
                self.not_before = Some(Instant::now() + PACE);
                let span = telemetry::history_read();
                match self.read(wanted, &mut link).instrument(span.clone()).await {
                    Ok(piece) => {
                        back_off.reset();
                        telemetry::history_brought(&span, piece.links.len());
                        span.in_scope(|| self.deliver(wanted, piece));
                    }
                    // The reader reports an outage.
                    Err(error) => {
                        telemetry::history_failed(&span, error.category());
                        if error.is_timeout() && !self.size.timed_out() {
                            link.wait_longer();
                        }
                        link.failed(&error);
                        back_off.wait().await;
                    }
                }
            }
        }
    }

    async fn read(&mut self, wanted: HistoryRequest, link: &mut Link) -> RedisResult<Piece> {
        let HistoryRequest { upto, after, events: room, .. } = wanted;
        let start = Instant::now();
        let connection = link.get(&self.shared).await?;
        let range = Range::Back { from: upto, to: after };
        let most = ReadSize::most_entries().min(room.saturating_add(1));
        let read = self.shared.scripts.read(connection, range, most, self.size.bytes());
        let Page { entries, is_end } = read.await?;
        link.carried(&self.shared);
        self.size.answered(&entries, start.elapsed(), self.shared.timeout);
        Ok(follow(entries, wanted, is_end))
    }

    fn deliver(&self, wanted: HistoryRequest, piece: Piece) {
        let now = store::now();
        let age = |id: EventId| Duration::from_millis(now.saturating_sub(id.epoch()));
        let Piece { links, floor, is_gone, is_malformed } = piece;
        let links = links.into_iter().map(|(id, link)| (id, age(id), link));
        self.feed.restore(wanted.upto, floor, links);
        if is_malformed {
            self.feed.skip_malformed();
        }
        if is_gone {
            self.feed.gone(floor);
        }
    }
}

/// Follows the chain back through entries, of which the newest comes first. `is_end`: there are no
/// more entries in the wanted range.
fn follow(entries: Vec<Entry>, wanted: HistoryRequest, is_end: bool) -> Piece {
    let HistoryRequest { upto, after, .. } = wanted;
    let mut piece = Piece { links: Vec::new(), floor: upto, is_gone: false, is_malformed: false };
    for Entry { id, content } in entries {
        if piece.floor <= after {
            break;
        }
        let link = match content {
            Content::Link { previous, bytes } => {
                Incoming::parse(&bytes).ok().map(|link| (previous, link))
            }
            Content::Malformed => None,
            Content::Reset { .. } => {
                piece.is_gone = true;
                break;
            }
        };
        match link {
            Some((previous, link)) if id == piece.floor && previous < id => {
                piece.links.push((id, link));
                piece.floor = previous;
            }
            // No link of this version names a malformed entry.
            None if id > piece.floor => {}
            // The entry that the next link names is not there or is malformed, or the order went
            // backwards.
            _ => {
                piece.is_malformed = link.is_none() && id == piece.floor;
                piece.is_gone = true;
                break;
            }
        }
    }
    piece.is_gone |= is_end && piece.floor > after;
    piece.links.reverse();
    piece
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::store::entry::made::{at, command, event, link, malformed, reset};

    /// Events, floor, and whether the entries before are gone.
    fn found(entries: Vec<Entry>, after: u64, is_end: bool) -> (Vec<u64>, u64, bool) {
        let wanted = HistoryRequest { upto: at(9), after: at(after), events: 100 };
        let Piece { links, floor, is_gone, .. } = follow(entries, wanted, is_end);
        (links.into_iter().map(|(id, _)| id.epoch()).collect(), floor.epoch(), is_gone)
    }

    #[test]
    fn chain_is_followed_as_far_as_wanted() {
        let chain = || vec![event(9, 7), malformed(8), event(7, 4), event(4, 2)];
        assert_eq!(found(chain(), 1, false), (vec![4, 7, 9], 2, false));
        assert_eq!(found(chain(), 2, true), (vec![4, 7, 9], 2, false));
        assert_eq!(found(chain(), 5, false), (vec![7, 9], 4, false));
        assert_eq!(found(chain(), 1, true), (vec![4, 7, 9], 2, true), "trimmed");
    }

    #[test]
    fn commands_are_links() {
        let chain = vec![event(9, 8), command(8, 7), event(7, 6), command(6, 1)];
        assert_eq!(found(chain, 1, true), (vec![6, 7, 8, 9], 1, false));
        assert_eq!(found(vec![command(9, 5)], 1, false), (vec![9], 5, false));
    }

    #[test]
    fn chain_ends_at_breaks_and_resets() {
        assert_eq!(found(vec![], 1, true), (vec![], 9, true));
        assert_eq!(found(vec![event(8, 7)], 1, false), (vec![], 9, true));
        assert_eq!(found(vec![event(9, 7), event(5, 4)], 1, false), (vec![9], 7, true));
        let with_reset = vec![event(9, 7), reset(7, 5), event(5, 4)];
        assert_eq!(found(with_reset, 1, false), (vec![9], 7, true));
        assert_eq!(found(vec![event(9, 9)], 1, false), (vec![], 9, true), "names itself");
        assert_eq!(found(vec![event(9, 11)], 1, false), (vec![], 9, true), "names a later one");
    }

    #[test]
    fn malformed_entries_between_links_are_skipped() {
        let junk = |position, previous| link(position, previous, b"junk");
        let between = vec![event(9, 5), malformed(8), junk(7, 0), malformed(6), event(5, 1)];
        assert_eq!(found(between, 1, false), (vec![5, 9], 1, false));
        let last = vec![event(9, 5), malformed(8), malformed(7)];
        assert_eq!(found(last, 1, false), (vec![9], 5, false));
        assert!(found(vec![event(9, 5), event(7, 5), event(5, 1)], 1, false).2);
    }

    #[test]
    fn entries_before_named_malformed_entry_are_gone() {
        let read = |named: Entry| {
            let entries = vec![event(9, 5), malformed(7), named, event(3, 1)];
            let wanted = HistoryRequest { upto: at(9), after: at(1), events: 100 };
            let Piece { links, floor, is_gone, is_malformed } = follow(entries, wanted, false);
            (links.len(), floor.epoch(), is_gone, is_malformed)
        };
        for named in [malformed(5), link(5, 3, b"junk")] {
            assert_eq!(read(named), (1, 5, true, true));
        }
        assert_eq!(read(reset(5, 3)), (1, 5, true, false));
        assert_eq!(read(event(4, 3)), (1, 5, true, false), "the named entry is not there");
    }
}
