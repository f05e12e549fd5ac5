//! Waiting for what has no event: looked at again and again until a deadline.

use std::thread;
use std::time::{Duration, Instant};

const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Waits until `look` finds something; panics with `what` once `limit` is over.
#[track_caller]
pub fn eventually<T>(what: &str, limit: Duration, look: impl FnMut() -> Option<T>) -> T {
    looked_at(BETWEEN_LOOKS, what, limit, look)
}

/// The same with fewer looks, where each costs a process.
#[track_caller]
pub fn seldom<T>(what: &str, limit: Duration, look: impl FnMut() -> Option<T>) -> T {
    looked_at(BETWEEN_LOOKS * 8, what, limit, look)
}

#[track_caller]
fn looked_at<T>(pause: Duration, what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        thread::sleep(pause);
    }
}
