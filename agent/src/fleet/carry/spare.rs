//! The mark of a task that another agent could go on with: whoever cleans up leaves it alone for as long as the lease may hold.

use std::path::PathBuf;

use navvy_environment::run_dir;
use navvy_environment::survey::now;
use navvy_job::chain::chain;
use navvy_job::id::TaskId;
use navvy_journal::owner::Owner;
use navvy_journal::standing::Mark;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Carrying, Machine};

impl Carrying {
    /// From when on another agent could go on with the task, its mark says until when it is spared: as long as the lease
    /// holds, and some more.
    pub(super) fn spare(&self, task: TaskId) -> (watch::Sender<bool>, Sparing) {
        let (is_left, left) = watch::channel(false);
        let Machine { paths, owner, .. } = &self.machine;
        let place = run_dir::place(paths.runtime.as_deref(), run_dir::uid(), &task);
        (is_left, Sparing(tokio::spawn(spare(place, owner.clone(), self.good_until.clone(), left))))
    }
}

/// Who keeps the mark.
pub(super) struct Sparing(tokio::task::JoinHandle<()>);

impl Sparing {
    /// From now on nobody is to go on with the task: the mark is not written again.
    pub(super) async fn end(self) {
        self.0.abort();
        self.0.await.ok();
    }
}

async fn spare(
    place: PathBuf,
    owner: Owner,
    mut good_until: watch::Receiver<Instant>,
    mut is_left: watch::Receiver<bool>,
) {
    let mut was_left = false;
    loop {
        let says = *is_left.borrow_and_update();
        if std::mem::replace(&mut was_left, says) && !says {
            // What is left there is of an earlier step.
            run_dir::mark(&place, &Mark::Running(owner.clone())).ok();
        }
        if says {
            let rest = good_until.borrow_and_update().saturating_duration_since(Instant::now());
            // A processor waits for a third of a lease longer.
            let until = now() + (rest + rest / 3).as_secs() + 1;
            if let Err(error) = run_dir::mark(&place, &Mark::Adoptable(until, owner.clone())) {
                tracing::debug!("Another agent would not find the task: {}.", chain(&error));
            }
        }
        tokio::select! {
            Ok(()) = good_until.changed() => {}
            Ok(()) = is_left.changed() => {}
            else => return,
        }
    }
}
