//! Time limits on a machine that other programs keep busy.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::time::{Duration, Instant};

/// A clock for a limit of real time. The clock leaves out the time for which threads of this
/// process waited for a processor. So a limit can be close to the promised time: the limit fails
/// for a late program, but not for a busy machine.
///
/// Without Linux, the clock leaves out no time.
#[derive(Debug)]
pub(crate) struct BusyClock {
    start: Instant,
    waited: HashMap<OsString, u64>,
}

impl BusyClock {
    pub(crate) fn start() -> Self {
        Self { start: Instant::now(), waited: waited() }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        let since = |(thread, waited): (OsString, u64)| {
            waited.saturating_sub(self.waited.get(&thread).copied().unwrap_or(0))
        };
        let waited = waited().into_iter().map(since).sum();
        self.start.elapsed().saturating_sub(Duration::from_nanos(waited))
    }
}

/// Returns for how many nanoseconds each thread of this process was ready to run, and did not.
fn waited() -> HashMap<OsString, u64> {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return HashMap::new() };
    let of = |thread: fs::DirEntry| {
        // The time that the thread ran, the time that it waited, and how often it ran.
        let times = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        Some((thread.file_name(), times.split_whitespace().nth(1)?.parse().ok()?))
    };
    threads.flatten().filter_map(of).collect()
}

#[test]
fn busy_clock_leaves_out_waits_for_a_processor() {
    let (clock, start) = (BusyClock::start(), Instant::now());
    let spin = || while start.elapsed() < Duration::from_millis(50) {};
    let processors = std::thread::available_parallelism().unwrap().get();
    std::thread::scope(|scope| {
        for _ in 0..4 * processors {
            scope.spawn(spin);
        }
        spin();
    });
    let (left, took) = (clock.elapsed(), start.elapsed());
    let is_measured = !waited().is_empty();
    assert!(left < took - Duration::from_millis(5) || !is_measured, "{left:?} of {took:?}");
}
