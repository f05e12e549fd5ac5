//! A value that one thread will have and others wait for. A promise that is given up ends their wait, too.

use std::sync::{Arc, OnceLock};

pub struct Promise<T>(Arc<OnceLock<Option<T>>>);

#[derive(Debug)]
pub struct Awaited<T>(Arc<OnceLock<Option<T>>>);

impl<T> Clone for Awaited<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

pub fn promise<T>() -> (Promise<T>, Awaited<T>) {
    let cell = Arc::new(OnceLock::new());
    (Promise(Arc::clone(&cell)), Awaited(cell))
}

impl<T> Promise<T> {
    pub fn keep(self, value: T) {
        let _ = self.0.set(Some(value));
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        let _ = self.0.set(None);
    }
}

impl<T> Awaited<T> {
    /// `None`: it was given up.
    pub fn wait(&self) -> Option<&T> {
        self.0.wait().as_ref()
    }
}
