//! What a setup pipeline continues with: the workflows of another config.

use std::path::PathBuf;
use std::sync::Arc;

use navvy_job::selection::Chosen;

use super::plan::Builtins;
use crate::task::{Context, HoldPolicy, SourceNote};

/// What joins the run.
pub struct Continued {
    pub workflows: Vec<Chosen>,
    pub builtins: Builtins,
    pub config: PathBuf,
    /// For a retry of one of its jobs.
    pub source: SourceNote,
    pub warnings: Vec<String>,
}

/// What is needed of it while it runs.
pub(super) struct Second {
    /// Workflows from this one on are the continuation's.
    pub first: usize,
    pub builtins: Builtins,
    pub config: PathBuf,
    pub source: SourceNote,
}

impl Second {
    /// The variables of a workflow's tasks, if it is of the continuation.
    pub fn builtins_of(&self, workflow: usize) -> Option<&Builtins> {
        (workflow >= self.first).then_some(&self.builtins)
    }

    /// Tasks of the continuation tell of its config, not of the setup's.
    pub fn adapt(&self, workflow: usize, context: &mut Context) {
        if workflow < self.first {
            return;
        }
        context.config_name =
            self.config.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        context.hold = Arc::new(HoldPolicy { source: self.source.clone(), ..(*context.hold).clone() });
    }
}
