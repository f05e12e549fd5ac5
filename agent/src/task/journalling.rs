//! What a task writes into its journal.
//!
//! The journal's first records must be on disk before anything is made: a disk that has no room for them fails the task.
//! Only `navvy ps` and a successor miss later ones: a disk that fills up midway costs a warning. The mark
//! in the runtime directory, by which reapers go, takes no disk.

use navvy_environment::{cgroup, run_dir};
use navvy_job::chain::chain;
use navvy_job::outcome::Verdict;
use navvy_job::state::TaskState;
use navvy_journal::{Entry, JournalError, Opening, VerdictKind};

use super::Task;

impl Task {
    pub(super) fn opening(&self) -> Opening {
        let (task, reference, context) = (&self.claim.task, &self.reference, &self.context);
        Opening {
            version: Opening::VERSION,
            task: task.clone(),
            workflow: reference.job.workflow.clone(),
            job: reference.job.job.clone(),
            node_index: reference.node_index,
            node_total: reference.node_total,
            owner: context.owner.clone(),
            engine: self.provider.name(),
            logs: context.directory.clone(),
            run_directory: run_dir::place(context.paths.runtime.as_deref(), run_dir::uid(), task),
            containers: format!("navvy-{task}-"),
            cgroup: cgroup::Place::of(task, context.cgroup.as_ref()).text(),
        }
    }

    /// The record of a move. A task that has passed so far has no verdict before its steps are over.
    pub(super) fn moved(&self, state: TaskState) -> Entry {
        let known = match &self.result.verdict {
            Verdict::Passed => matches!(state, TaskState::Reporting | TaskState::Releasing | TaskState::Done),
            _ => true,
        };
        Entry::State { state, verdict: known.then(|| VerdictKind::from(&self.result.verdict)) }
    }

    /// The first failure is reported by the caller, which made nothing because of it; for later ones one warning is enough. The file is
    /// removed at the end all the same.
    pub(super) fn journal_failed(&mut self, error: &JournalError) {
        let is_told = std::mem::replace(&mut self.is_journal_broken, true);
        if !is_told && self.course.state() != TaskState::Preparing {
            self.warn(format!("{}; the task goes on without it", chain(error)));
        }
    }

    /// A task of which nothing is left needs no journal. What is left is the reaper's, once this process has ended.
    pub(super) async fn end_journal(&mut self, is_all_gone: bool) {
        let Some(journal) = &self.journal else { return };
        let ended = match is_all_gone {
            true => journal.remove().await,
            false => journal.record(self.moved(TaskState::Done)).await,
        };
        if let Err(error) = ended {
            tracing::warn!("{}", chain(&error));
        }
    }
}
