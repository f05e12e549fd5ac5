//! The network in which a bench's engine lives: this machine's, or that of an engine of the story's own.

use std::sync::Arc;
use std::thread;

use crate::engine::PrivateEngine;
use crate::sys;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Network(pub(crate) Option<Arc<PrivateEngine>>);

impl Network {
    /// Does something there. Programs, threads and sockets that it makes stay there.
    #[track_caller]
    pub fn enter<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let Some(engine) = &self.0 else { return act() };
        let network = engine.network();
        thread::scope(|scope| {
            let acting = scope.spawn(|| {
                sys::enter_network(&network).expect("root may enter a network");
                act()
            });
            acting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}
