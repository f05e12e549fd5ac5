//! A lock that is seen held need not be: who looks whether it is, holds it for a moment, and so does a child that another thread has just
//! started, from its fork to the program that it becomes.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(2);
/// Whoever holds a lock for longer, a quarter of a second, means to.
const TRIES: u32 = 125;

/// Locks a file for this process alone. Waits a moment, so not on a runtime's own thread.
///
/// # Errors
/// [`TryLockError::WouldBlock`]: somebody means to hold it.
pub fn claim(file: &File) -> Result<(), TryLockError> {
    patiently(|| file.try_lock())
}

/// Locks a file together with others who do so. Waits like [`claim`].
///
/// # Errors
/// [`TryLockError::WouldBlock`]: somebody means to hold it alone.
pub fn share(file: &File) -> Result<(), TryLockError> {
    patiently(|| file.try_lock_shared())
}

/// Does a process hold this file's lock for itself? Nobody holds that of a file which is not there.
///
/// # Errors
/// It is there, or may be, and cannot be asked.
pub fn is_held(path: &Path) -> io::Result<bool> {
    let file = match super::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn patiently(mut lock: impl FnMut() -> Result<(), TryLockError>) -> Result<(), TryLockError> {
    // Counted in tries, not by the clock: where the whole process stood still, that was one of them.
    for _ in 0..TRIES {
        match lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
            locked => return locked,
        }
    }
    lock()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_held_for_a_moment_is_waited_for_and_one_that_is_meant_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let (other, own) = (File::create(&path).unwrap(), File::open(&path).unwrap());
        other.try_lock().unwrap();
        assert!(matches!(claim(&own), Err(TryLockError::WouldBlock)));
        // What a child inherits: one more descriptor of the same open file.
        let inherited = other.try_clone().unwrap();
        drop(other);
        let child = std::thread::spawn(move || {
            std::thread::sleep(PAUSE * TRIES / 10);
            drop(inherited);
        });
        share(&own).unwrap();
        child.join().unwrap();
        claim(&own).unwrap();
    }
}
