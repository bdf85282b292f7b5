//! The locks: `parking_lot`'s, or loom's under `--cfg sse_hub_loom`.
//!
//! Foreign code (a waker, a clock, a backplane, a `tracing` subscriber, an iterator of the caller)
//! must run while this thread holds no lock: foreign code may call the hub, and would deadlock.
//! Builds with debug assertions count the locks that a thread holds, and [`assert_unlocked`] panics
//! if there is one. Every call of foreign code asserts, so every test checks the rule.
//!
//! Handles to log entries use [`std::sync::Weak`], which loom does not model, so `Arc` is the
//! standard one in both builds. loom explores every order of taking these locks.

use std::ops::{Deref, DerefMut};
use std::panic::{self, AssertUnwindSafe};

#[cfg(sse_hub_loom)]
use self::model as lock;
#[cfg(not(sse_hub_loom))]
use parking_lot as lock;

/// A lock that cannot be poisoned.
#[derive(Debug)]
pub(crate) struct Mutex<T>(lock::Mutex<T>);

/// Access to the value of a [`Mutex`]. Dropping the guard unlocks.
#[derive(Debug)]
#[must_use = "dropping the guard unlocks at once"]
pub(crate) struct MutexGuard<'a, T> {
    guard: lock::MutexGuard<'a, T>,
    // Dropped after the guard: the thread counts the lock until it is released.
    _held: held::Held,
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(lock::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { guard: self.0.lock(), _held: held::Held::new() }
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

/// Releases a lock for the threads that wait for it, and takes it again.
#[cfg(not(sse_hub_loom))]
pub(crate) fn yield_lock<'a, T>(
    _: &'a Mutex<T>,
    mut guard: MutexGuard<'a, T>,
) -> MutexGuard<'a, T> {
    // A plain unlock and lock would mostly give the lock to this thread again.
    lock::MutexGuard::bump(&mut guard.guard);
    guard
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

    /// One lock that this thread holds.
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
    use super::*;

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
