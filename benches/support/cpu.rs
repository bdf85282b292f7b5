//! The processor time of the calling thread.
//!
//! Other programs on the machine do not count, apart from their effect on the caches. So a
//! comparison on a busy machine stays fair.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

pub(crate) fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("the clock starts at zero")
}
