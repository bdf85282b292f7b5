//! How much a read asks for.

use std::time::Duration;

use crate::redis::store::entry::{Content, Entry};

/// The size of an answer that a fast line brings.
const MOST_BYTES: usize = 1 << 20;

/// The size of the first answer, before the speed of the line is known.
const FIRST_BYTES: usize = 128 << 10;

/// The bytes of an entry in addition to its event, about.
const OVERHEAD: usize = 64;

/// The most entries in an answer.
const MOST_ENTRIES: usize = 2048;

/// The most entries in an answer whose bytes Redis cannot count.
const MOST_UNCOUNTED: usize = 256;

/// After a timeout, a read asks for this fraction of the bytes.
const SHRINK: usize = 8;

/// Adapts the size of reads to the line: an answer must arrive within the timeout, whatever the
/// speed of the line and the size of the events.
#[derive(Debug)]
pub(crate) struct ReadSize {
    bytes: usize,
    /// The size of the largest entry of late.
    largest: usize,
}

impl Default for ReadSize {
    fn default() -> Self {
        Self { bytes: FIRST_BYTES, largest: FIRST_BYTES }
    }
}

impl ReadSize {
    /// Returns how many bytes the next answer may have. An entry is read in any case.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns how many entries the next answer may have, of a script that counts bytes too.
    pub(crate) fn most_entries() -> usize {
        MOST_ENTRIES
    }

    /// Returns how many entries to ask for where Redis cannot count bytes (`XREAD`): as many as fit
    /// if all are as large as the largest of late.
    pub(crate) fn entries(&self) -> usize {
        (self.bytes / self.largest).clamp(1, MOST_UNCOUNTED)
    }

    /// Adapts to an answer. A quick answer doubles the size of the next.
    pub(crate) fn answered(&mut self, entries: &[Entry], took: Duration, timeout: Duration) {
        let len = |entry: &Entry| match &entry.content {
            Content::Link { bytes, .. } => bytes.len(),
            _ => 0,
        };
        self.answered_lens(entries.iter().map(len), took, timeout);
    }

    /// The same for entries of these lengths.
    pub(crate) fn answered_lens(
        &mut self,
        lens: impl Iterator<Item = usize> + Clone,
        took: Duration,
        timeout: Duration,
    ) {
        let sizes = lens.map(|len| len + OVERHEAD);
        let Some(largest) = sizes.clone().max() else { return };
        let bytes: usize = sizes.sum();
        // After some small events, large events may return.
        self.largest = largest.max(self.largest / 8 * 7);
        // An answer of twice the size takes twice the time: it must still be far from a timeout.
        if took < timeout / 8 && bytes >= self.bytes / 2 {
            self.bytes = (self.bytes * 2).min(MOST_BYTES);
        }
    }

    /// Asks for less after an answer that did not arrive in time. Returns `false` if the
    /// last read asked for a single entry: then only more time can help.
    pub(crate) fn timed_out(&mut self) -> bool {
        let could_shrink = self.bytes > 1;
        self.bytes = (self.bytes / SHRINK).max(1);
        could_shrink
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::store::entry::made::link;

    const TIMEOUT: Duration = Duration::from_secs(2);
    const FAST: Duration = Duration::from_millis(1);

    #[test]
    fn quick_answers_grow_up_to_a_megabyte() {
        let mut size = ReadSize::default();
        for _ in 0..9 {
            let full = vec![link(2, 1, &[0; 1000]); size.bytes() / 1000];
            size.answered(&full, FAST, TIMEOUT);
        }
        assert_eq!(size.bytes(), MOST_BYTES);
        let slow = Duration::from_secs(1);
        let mut size = ReadSize::default();
        size.answered(&[link(2, 1, &[0; FIRST_BYTES])], slow, TIMEOUT);
        assert_eq!(size.bytes(), FIRST_BYTES);
    }

    #[test]
    fn timeouts_shrink_down_to_one_entry() {
        let mut size = ReadSize::default();
        let mut shrinks = 0;
        while size.timed_out() {
            shrinks += 1;
            assert!(shrinks < 10);
        }
        assert_eq!((size.bytes(), size.entries()), (1, 1));
        assert!(!size.timed_out());
    }

    #[test]
    fn number_of_entries_follows_their_size() {
        let mut size = ReadSize::default();
        assert_eq!(size.entries(), 1, "nothing is known yet");
        for _ in 0..100 {
            size.answered(&[link(2, 1, &[0; 64])], FAST, TIMEOUT);
        }
        assert_eq!(size.entries(), MOST_UNCOUNTED);
        size.answered(&[link(2, 1, &[0; 1 << 20])], FAST, TIMEOUT);
        assert_eq!(size.entries(), 1);
    }
}
