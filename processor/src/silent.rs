//! Connections that have said nothing yet, the oldest first: they give way to whoever comes after them.
//!
//! ```text
//! admitted ─▶ Turn, in the row ─┬─ its first words come ─▶ the turn is dropped, and is in the row no more
//!                               └─ no place is free for another one ─▶ the oldest turn is over ─▶ its connection ends
//! ```

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Context;

use futures_util::task::AtomicWaker;

/// The row. Connections that speak leave it as they get to its front; so it is as long as those that came within the time
/// that a silent one has.
#[derive(Debug, Default)]
pub struct Silent(Mutex<VecDeque<Weak<Turn>>>);

/// A silent connection's part of it.
#[derive(Debug, Default)]
pub struct Turn {
    is_over: AtomicBool,
    waker: AtomicWaker,
}

impl Silent {
    /// A connection comes in.
    pub fn enter(&self) -> Arc<Turn> {
        let turn = Arc::new(Turn::default());
        let mut row = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while row.front().is_some_and(|front| front.strong_count() == 0) {
            row.pop_front();
        }
        row.push_back(Arc::downgrade(&turn));
        turn
    }

    /// The oldest has to go. `false`: none is silent.
    pub fn end_oldest(&self) -> bool {
        let mut row = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = std::iter::from_fn(|| row.pop_front()).find_map(|turn| turn.upgrade());
        oldest.is_some_and(|turn| {
            turn.is_over.store(true, Ordering::Release);
            turn.waker.wake();
            true
        })
    }
}

impl Turn {
    /// Whoever polls is woken when it is over.
    pub fn is_over(&self, context: &Context<'_>) -> bool {
        self.waker.register(context.waker());
        self.is_over.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_that_is_silent_goes_first_and_who_has_spoken_never() {
        let silent = Silent::default();
        let [first, second, third] = [silent.enter(), silent.enter(), silent.enter()];
        drop(first);
        let context = Context::from_waker(std::task::Waker::noop());
        assert!(silent.end_oldest());
        assert_eq!((second.is_over(&context), third.is_over(&context)), (true, false));
        assert!(silent.end_oldest() && third.is_over(&context));
        assert!(!silent.end_oldest());
        drop((second, third));
        for _ in 0..1000 {
            drop(silent.enter());
        }
        assert!(silent.0.lock().unwrap().len() <= 1, "those that have spoken take no room");
    }
}
