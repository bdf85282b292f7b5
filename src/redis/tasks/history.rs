//! Reads the stream backwards, for clients that come back from before what their hub retains.
//!
//! One task of an instance does, for all its clients: while somebody waits it reads the next piece, and not more often
//! than every 100 ms. Whoever comes meanwhile is served by the same pieces. Over a connection of its own, for as long as
//! somebody waits: a large answer is not to hold up what is published.

use std::time::Duration;

use redis::RedisResult;
use redis::aio::MultiplexedConnection;
use tokio::time::Instant;

use crate::backplane::{Feed, Wanted};
use crate::redis::connect::back_off::BackOff;
use crate::redis::shared::Shared;
use crate::redis::store::clock;
use crate::redis::store::entry::{self, Content, Entry, is_event};
use crate::redis::store::script::unexpected;
use crate::wire::id::EventId;

/// How long there is between two reads at least.
const PACE: Duration = Duration::from_millis(100);

/// How many bytes one read is meant to bring.
const READ_BYTES: usize = 1 << 20;

/// Of unknown size.
const FIRST: usize = 256;
const MOST: usize = 2048;
const FEWEST: usize = 16;

/// What was read.
#[derive(Debug, PartialEq, Eq)]
struct Piece {
    /// All that a hub wrote after `floor`, in order.
    events: Vec<(EventId, Vec<u8>)>,
    floor: EventId,
    /// What lies up to `floor` is not there.
    is_gone: bool,
}

impl Shared {
    /// Brings older events to the hub whenever it wants some.
    pub(crate) async fn look_back(&self, feed: &Feed) {
        let mut history = Reading { pace: None, count: FIRST };
        loop {
            self.looks_back.notified().await;
            let mut connection = None;
            let mut back_off = BackOff::default();
            while feed.wanted().is_some() {
                // Who comes meanwhile is in the same read.
                if let Some(next) = history.pace {
                    tokio::time::sleep_until(next).await;
                }
                let Some(wanted) = feed.wanted() else { break };
                history.pace = Some(Instant::now() + PACE);
                let Ok(piece) = history.read(self, wanted, &mut connection).await else {
                    // The reader says so if Redis is away. Or it was too much for the time there is.
                    connection = None;
                    history.count = (history.count / 8).max(FEWEST);
                    back_off.wait().await;
                    continue;
                };
                back_off.reset();
                let now = clock::now();
                let age = |id: EventId| Duration::from_millis(now.saturating_sub(id.0));
                let Piece { events, floor, is_gone } = piece;
                feed.restore(
                    wanted.upto,
                    floor,
                    events.into_iter().map(|(id, event)| (id, age(id), event)),
                );
                if is_gone {
                    feed.gone(floor);
                }
            }
        }
    }
}

struct Reading {
    /// When to read next at the earliest.
    pace: Option<Instant>,
    /// How many entries to read.
    count: usize,
}

impl Reading {
    async fn read(
        &mut self,
        shared: &Shared,
        wanted: Wanted,
        connection: &mut Option<MultiplexedConnection>,
    ) -> RedisResult<Piece> {
        let connection = match connection {
            Some(connection) => connection,
            None => connection.insert(shared.connect().await?),
        };
        let Wanted { upto, after, events: room, .. } = wanted;
        let count = self.count.min(room.saturating_add(1));
        let mut command = redis::cmd("XREVRANGE");
        command.arg(&shared.scripts.keys().stream).arg(upto.to_string()).arg(after.to_string());
        let answer = command.arg("COUNT").arg(count).query_async(connection).await?;
        let entries = entry::range(answer).ok_or_else(|| unexpected("a stream"))?;
        let is_end = entries.len() < count;
        self.adapt(&entries);
        Ok(follow(entries, wanted, is_end))
    }

    /// Reads as many the next time as make an answer of the usual size.
    fn adapt(&mut self, entries: &[Entry]) {
        const BESIDE: usize = 64;
        let size = |entry: &Entry| match &entry.content {
            Content::Event { event, .. } | Content::Command { event, .. } => event.len() + BESIDE,
            _ => BESIDE,
        };
        if !entries.is_empty() {
            let mean = entries.iter().map(size).sum::<usize>() / entries.len();
            // Not at once from many small ones to what may be as many large ones.
            let most = (self.count * 8).min(MOST);
            self.count = (READ_BYTES / mean.max(1)).clamp(FEWEST, most);
        }
    }
}

/// Follows the chain back through entries, the newest of which comes first. `is_end`: there are no more up to where it is
/// wanted.
fn follow(entries: Vec<Entry>, wanted: Wanted, is_end: bool) -> Piece {
    let Wanted { upto, after, .. } = wanted;
    let mut piece = Piece { events: Vec::new(), floor: upto, is_gone: false };
    for Entry { id, content } in entries {
        if piece.floor <= after {
            break;
        }
        match content {
            Content::Event { previous, event } | Content::Command { previous, event }
                if id == piece.floor && previous < id =>
            {
                piece.events.push((id, event));
                piece.floor = previous;
            }
            Content::Garbage if id > piece.floor => {}
            Content::Event { event, .. } | Content::Command { event, .. }
                if id > piece.floor && !is_event(&event) => {}
            // What the next names is not there, or the order went backwards.
            _ => {
                piece.is_gone = true;
                break;
            }
        }
    }
    piece.is_gone |= is_end && piece.floor > after;
    piece.events.reverse();
    piece
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::store::entry::made::{at, command, event, garbage, mark};

    /// Events, floor, and whether what lies before is gone.
    fn found(entries: Vec<Entry>, after: u64, is_end: bool) -> (Vec<u64>, u64, bool) {
        let wanted = Wanted { upto: at(9), after: at(after), events: 100 };
        let Piece { events, floor, is_gone } = follow(entries, wanted, is_end);
        (events.into_iter().map(|(id, _)| id.0).collect(), floor.0, is_gone)
    }

    #[test]
    fn a_chain_is_followed_as_far_as_it_is_wanted() {
        let chain = || vec![event(9, 7), garbage(8), event(7, 4), event(4, 2)];
        assert_eq!(found(chain(), 1, false), (vec![4, 7, 9], 2, false));
        assert_eq!(found(chain(), 2, true), (vec![4, 7, 9], 2, false));
        assert_eq!(found(chain(), 5, false), (vec![7, 9], 4, false));
        assert_eq!(found(chain(), 1, true), (vec![4, 7, 9], 2, true), "trimmed");
    }

    #[test]
    fn what_was_done_to_clients_is_a_link() {
        let chain = vec![event(9, 8), command(8, 7), event(7, 6), command(6, 1)];
        assert_eq!(found(chain, 1, true), (vec![6, 7, 8, 9], 1, false));
        assert_eq!(found(vec![command(9, 5)], 1, false), (vec![9], 5, false));
    }

    #[test]
    fn it_ends_where_something_is_missing_or_went_backwards() {
        assert_eq!(found(vec![], 1, true), (vec![], 9, true));
        assert_eq!(found(vec![event(8, 7)], 1, false), (vec![], 9, true));
        assert_eq!(found(vec![event(9, 7), event(5, 4)], 1, false), (vec![9], 7, true));
        assert_eq!(found(vec![event(9, 7), mark(7, 5), event(5, 4)], 1, false), (vec![9], 7, true));
        assert_eq!(found(vec![event(9, 9)], 1, false), (vec![], 9, true), "it names itself");
        assert_eq!(found(vec![event(9, 11)], 1, false), (vec![], 9, true), "it names a later one");
    }

    #[test]
    fn garbage_is_passed_over_where_nothing_names_it() {
        let junk = |position, previous| {
            let content = Content::Event { previous: at(previous), event: b"junk".to_vec() };
            Entry { id: at(position), content }
        };
        let between = vec![event(9, 5), garbage(8), junk(7, 0), garbage(6), event(5, 1)];
        assert_eq!(found(between, 1, false), (vec![5, 9], 1, false));
        assert_eq!(found(vec![event(9, 5), garbage(8), garbage(7)], 1, false), (vec![9], 5, false));
        assert!(found(vec![event(9, 5), garbage(5), event(3, 1)], 1, false).2);
        assert!(found(vec![event(9, 5), event(7, 5), event(5, 1)], 1, false).2);
    }

    #[test]
    fn an_answer_is_of_the_usual_size_whatever_the_events_are() {
        let of = |size: usize| {
            let content = Content::Event { previous: at(1), event: vec![0; size] };
            [Entry { id: at(2), content }]
        };
        let mut reading = Reading { pace: None, count: FIRST };
        reading.adapt(&of(64));
        assert_eq!(reading.count, MOST);
        reading.adapt(&of(1 << 20));
        assert_eq!(reading.count, FEWEST);
        reading.adapt(&of(64));
        assert_eq!(reading.count, 8 * FEWEST, "not at once");
    }
}
