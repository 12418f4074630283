//! Waits for a condition.

use std::{
    error::Error,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// A result, or an error that says in one line what is wrong.
pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// The longest time for a server to start, to stop, or to do what it was asked to do.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(60);

/// Waits until the condition holds. Returns false if it takes too long.
pub(crate) fn until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > limit {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
    true
}

/// Waits until the condition holds. If it takes too long, returns an error that names the condition.
pub(crate) fn for_condition(
    name: &str,
    limit: Duration,
    condition: impl FnMut() -> bool,
) -> io::Result<()> {
    if until(limit, condition) {
        return Ok(());
    }
    Err(io::Error::other(format!("not so after {limit:?}: {name}")))
}

/// Locks a mutex, even if it is poisoned. A panic of another thread leaves nothing half done here.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
