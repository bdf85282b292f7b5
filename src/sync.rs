//! The locks: `parking_lot`'s, or loom's under `--cfg sse_hub_loom`.
//!
//! Foreign code (a waker, a clock, a backplane, a `tracing` subscriber, an iterator of the caller)
//! must run while this thread holds no lock: foreign code may call the hub, and would deadlock.
//! Builds with debug assertions count the locks that a thread holds, and [`assert_unlocked`] panics
//! if there is one. Every call of foreign code asserts, so every test checks the rule.
//!
//! Handles to log entries use [`std::sync::Weak`], which loom does not model, so `Arc` is the
//! standard one in both builds. loom explores every order of taking these locks.
//!
//! # Waiting
//!
//! Waking a parked thread takes tens of microseconds, and most holds take a few. So a thread that
//! finds a [`Mutex`] taken spins for about the longest usual hold, and parks after that. A thread
//! that [yields](yield_lock) a lock lets a spinning thread in without waking a thread. The ordering
//! lock is a [`LongMutex`], because a publisher holds that lock for a whole hand-out: other
//! publishers park, and other threads let the hand-out go first for a bounded time
//! ([`LongMutex::let_pass`]).

use std::ops::{Deref, DerefMut};
use std::panic::{self, AssertUnwindSafe};
#[cfg(not(sse_hub_loom))]
use std::{
    hint,
    sync::atomic::{AtomicU32, Ordering},
};

#[cfg(sse_hub_loom)]
use self::model as lock;
#[cfg(not(sse_hub_loom))]
use parking_lot as lock;

/// How often a thread looks at a taken lock before parking. With [`PAUSES`], 10 to 25 microseconds
/// on current processors: longer than a piece of a hand-out or a read of the log.
#[cfg(not(sse_hub_loom))]
const LOOKS: usize = 128;

/// How often a thread looks that lets another thread go first: 40 to 75 microseconds.
#[cfg(not(sse_hub_loom))]
const POLITE_LOOKS: usize = 3 * LOOKS;

/// The pauses of the processor between two looks. Fewer would slow down the thread that holds the
/// lock, which writes to the same cache line.
#[cfg(not(sse_hub_loom))]
const PAUSES: usize = 4;

/// A lock that every thread holds for a short time. The lock cannot be poisoned.
#[derive(Debug)]
pub(crate) struct Mutex<T> {
    lock: lock::Mutex<T>,
    /// How many threads spin for the lock.
    #[cfg(not(sse_hub_loom))]
    spinning: AtomicU32,
}

/// A lock that threads hold for long. The lock cannot be poisoned.
#[derive(Debug)]
pub(crate) struct LongMutex<T> {
    lock: lock::Mutex<T>,
    /// How often the lock was taken. Written under the lock.
    #[cfg(not(sse_hub_loom))]
    turns: AtomicU32,
}

/// Access to the value of a [`Mutex`] or a [`LongMutex`]. Dropping the guard unlocks.
#[derive(Debug)]
#[must_use = "dropping the guard unlocks at once"]
pub(crate) struct MutexGuard<'a, T> {
    guard: lock::MutexGuard<'a, T>,
    // Dropped after the guard: the thread counts the lock until it is released.
    _held: held::Held,
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            lock: lock::Mutex::new(value),
            #[cfg(not(sse_hub_loom))]
            spinning: AtomicU32::new(0),
        }
    }

    /// Takes the lock. A thread that finds the lock taken spins before it parks.
    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        #[cfg(not(sse_hub_loom))]
        let guard = self.lock.try_lock().unwrap_or_else(|| self.spin());
        #[cfg(sse_hub_loom)]
        let guard = self.lock.lock();
        MutexGuard { guard, _held: held::Held::new() }
    }

    #[cfg(not(sse_hub_loom))]
    #[cold]
    fn spin(&self) -> lock::MutexGuard<'_, T> {
        self.spinning.fetch_add(1, Ordering::Relaxed);
        let mut looks = (0..LOOKS).map(|_| {
            pause();
            self.lock.try_lock()
        });
        let guard = looks.find_map(|guard| guard);
        self.spinning.fetch_sub(1, Ordering::Relaxed);
        guard.unwrap_or_else(|| self.lock.lock())
    }
}

impl<T> LongMutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            lock: lock::Mutex::new(value),
            #[cfg(not(sse_hub_loom))]
            turns: AtomicU32::new(0),
        }
    }

    /// Takes the lock. A thread that finds the lock taken parks without spinning for long.
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        let guard = self.lock.lock();
        #[cfg(not(sse_hub_loom))]
        self.turns.store(self.turns.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        MutexGuard { guard, _held: held::Held::new() }
    }

    /// Waits for a bounded time until the thread that holds the lock releases the lock.
    #[inline]
    pub(crate) fn let_pass(&self) {
        #[cfg(not(sse_hub_loom))]
        if self.lock.is_locked() {
            let turn = self.turns.load(Ordering::Relaxed);
            // The next publisher may take the lock at once. Do not wait for that thread, too.
            let is_held = || {
                pause();
                self.lock.is_locked() && self.turns.load(Ordering::Relaxed) == turn
            };
            let _ = (0..POLITE_LOOKS).all(|_| is_held());
        }
    }
}

impl<T> MutexGuard<'_, T> {
    /// Unlocks, and gives the lock to the thread that has been parked longest. Otherwise a thread
    /// that takes a lock in a loop could overtake a parked thread for a millisecond.
    pub(crate) fn hand_over(self) {
        #[cfg(not(sse_hub_loom))]
        lock::MutexGuard::unlock_fair(self.guard);
        #[cfg(sse_hub_loom)]
        drop(self);
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

#[cfg(not(sse_hub_loom))]
fn pause() {
    (0..PAUSES).for_each(|_| hint::spin_loop());
}

/// Releases a lock for a thread that waits for the lock, and takes the lock again.
#[cfg(not(sse_hub_loom))]
pub(crate) fn yield_lock<'a, T>(
    mutex: &'a Mutex<T>,
    mut guard: MutexGuard<'a, T>,
) -> MutexGuard<'a, T> {
    let is_wanted = || mutex.spinning.load(Ordering::Relaxed) > 0;
    if !is_wanted() {
        // Hands the lock to a parked thread, if any. A plain unlock and lock would mostly
        // give the lock to this thread again.
        lock::MutexGuard::bump(&mut guard.guard);
        return guard;
    }
    drop(guard);
    for _ in 0..2 * PAUSES {
        // A spinning thread looks within this time, unless the system has suspended the thread.
        if mutex.lock.is_locked() || !is_wanted() {
            break;
        }
        hint::spin_loop();
    }
    mutex.lock()
}

#[cfg(sse_hub_loom)]
pub(crate) fn yield_lock<'a, T>(
    mutex: &'a Mutex<T>,
    guard: MutexGuard<'a, T>,
) -> MutexGuard<'a, T> {
    drop(guard);
    mutex.lock()
}

/// Panics if this thread holds a lock of a hub. Does nothing without debug assertions.
#[inline]
pub(crate) fn assert_unlocked() {
    held::assert_none();
}

/// Runs foreign code. If it panics, the panic ends here: the panic hook has reported it, and the
/// other tasks of the same operation must still be woken.
pub(crate) fn contain_panic(foreign: impl FnOnce()) {
    let _ = panic::catch_unwind(AssertUnwindSafe(foreign));
}

#[cfg(all(debug_assertions, not(sse_hub_loom)))]
mod held {
    use std::cell::Cell;

    thread_local! {
        /// How many locks of hubs this thread holds.
        static HELD: Cell<usize> = const { Cell::new(0) };
    }

    /// A lock that this thread holds.
    #[derive(Debug)]
    pub(super) struct Held(());

    impl Held {
        pub(super) fn new() -> Self {
            HELD.set(HELD.get() + 1);
            Self(())
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            HELD.set(HELD.get() - 1);
        }
    }

    pub(super) fn assert_none() {
        // A thread that unwinds may still hold a lock: a second panic would abort the process.
        assert!(HELD.get() == 0 || std::thread::panicking(), "foreign code runs under a lock");
    }
}

#[cfg(not(all(debug_assertions, not(sse_hub_loom))))]
mod held {
    /// Without debug assertions nothing is counted. loom has threads of its own.
    #[derive(Debug)]
    pub(super) struct Held(());

    impl Held {
        pub(super) fn new() -> Self {
            Self(())
        }
    }

    pub(super) fn assert_none() {}
}

#[cfg(sse_hub_loom)]
mod model {
    pub(super) use loom::sync::MutexGuard;

    /// loom's mutex with `parking_lot`'s interface: a lock that cannot be poisoned.
    #[derive(Debug)]
    pub(super) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(super) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(super) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("a loom model panicked while it held a lock")
        }
    }
}

#[cfg(all(test, debug_assertions, not(sse_hub_loom)))]
mod tests {
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn yielded_lock_reaches_a_waiting_thread() {
        let mutex = Mutex::new(0);
        let deadline = Instant::now() + Duration::from_secs(60);
        thread::scope(|scope| {
            let mut guard = mutex.lock();
            // Either spins or parks.
            for waiting in 1..=100 {
                scope.spawn(|| *mutex.lock() += 1);
                while *guard < waiting {
                    assert!(Instant::now() < deadline, "thread {waiting} never gets the lock");
                    guard = yield_lock(&mutex, guard);
                }
            }
        });
    }

    #[test]
    fn letting_pass_is_bounded() {
        let mutex = LongMutex::new(());
        let held = mutex.lock();
        thread::scope(|scope| scope.spawn(|| mutex.let_pass()).join()).unwrap();
        held.hand_over();
        mutex.let_pass();
    }

    #[test]
    fn a_held_lock_is_noticed() {
        let mutex = Mutex::new(1);
        assert_unlocked();
        let guard = yield_lock(&mutex, mutex.lock());
        assert!(std::panic::catch_unwind(assert_unlocked).is_err());
        drop(guard);
        assert_unlocked();
    }
}
