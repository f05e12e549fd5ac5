//! How many connections are open, and for how long none has been.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::lock;

/// How many connections are open, and since when none.
pub struct Presences(Mutex<(usize, Instant)>);

/// One open connection.
pub struct Presence(Arc<Presences>);

impl Presence {
    /// The presence of a connection that is refused at once.
    pub fn uncounted() -> Self {
        Self(Arc::new(Presences::new()))
    }
}

impl Presences {
    pub fn new() -> Self {
        Self(Mutex::new((0, Instant::now())))
    }

    pub fn enter(self: &Arc<Self>, cap: usize) -> Option<Presence> {
        let mut state = lock(&self.0);
        (state.0 < cap).then(|| {
            state.0 += 1;
            Presence(Arc::clone(self))
        })
    }

    /// How long it has been quiet.
    pub fn idle(&self) -> Option<Duration> {
        let state = lock(&self.0);
        (state.0 == 0).then(|| state.1.elapsed())
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut state = lock(&self.0.0);
        *state = (state.0.saturating_sub(1), Instant::now());
    }
}
