//! The locks: `parking_lot`'s, or loom's under `--cfg sse_hub_loom`.
//!
//! Handles to log entries use [`std::sync::Weak`], which loom does not model, so `Arc` is the standard one in
//! both builds; what loom explores is every order of taking these locks.

#[cfg(not(sse_hub_loom))]
pub(crate) use parking_lot::{Mutex, MutexGuard};

/// Lets go of a lock for whoever waits for it, and takes it again.
#[cfg(not(sse_hub_loom))]
pub(crate) fn let_others<'a, T>(
    _: &'a Mutex<T>,
    mut guard: MutexGuard<'a, T>,
) -> MutexGuard<'a, T> {
    // Without handing over, the thread that holds the lock would mostly be the next to have it, too.
    MutexGuard::bump(&mut guard);
    guard
}

#[cfg(sse_hub_loom)]
pub(crate) fn let_others<'a, T>(lock: &'a Mutex<T>, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    drop(guard);
    lock.lock()
}

#[cfg(sse_hub_loom)]
pub(crate) use self::model::{Mutex, MutexGuard};

#[cfg(sse_hub_loom)]
mod model {
    pub(crate) use loom::sync::MutexGuard;

    /// loom's mutex with `parking_lot`'s face: a lock that cannot be poisoned.
    #[derive(Debug)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("a loom model panicked while it held a lock")
        }
    }
}
