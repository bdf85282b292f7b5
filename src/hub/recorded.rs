use std::iter;

use super::stats::Delays;

/// How many measurements are sampled at once, at most.
const MOST: u64 = 4096;

/// How many delays of each bucket have been recorded in metrics.
#[derive(Debug, Default)]
pub(super) struct Recorded(Vec<u64>);

impl Recorded {
    /// What is new since it was last asked: values, and how often each is to be recorded.
    pub(super) fn sample(&mut self, delays: &Delays) -> Vec<(f64, usize)> {
        self.0.resize(delays.buckets().count(), 0);
        let fresh = |(known, (_, count)): (&u64, (_, u64))| count.saturating_sub(*known);
        let all: u64 = self.0.iter().zip(delays.buckets()).map(fresh).sum();
        let stride = all.div_ceil(MOST).max(1);
        let mut sample = Vec::new();
        for (known, (bound, count)) in iter::zip(&mut self.0, delays.buckets()) {
            // A rest stays for the next call: what is rare comes late rather than never.
            let times = count.saturating_sub(*known) / stride;
            *known += times * stride;
            if times > 0 {
                sample.push((bound.as_secs_f64(), times as usize));
            }
        }
        sample
    }
}
