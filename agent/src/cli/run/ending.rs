//! The end of a run: exit code and summary.

use std::time::Duration;

use navvy_job::event::Summary;

use crate::pipeline::Finished;
use crate::run_directory::RunDirectory;

/// `missing` tells what was asked for and is not here: contexts.
pub fn summary(
    finished: Finished,
    setup: bool,
    directory: &RunDirectory,
    missing: Vec<String>,
    duration: Duration,
) -> Summary {
    let mut fidelity = general_notes(setup, &finished);
    fidelity.extend(missing);
    fidelity.extend(finished.fidelity.lines());
    Summary {
        exit_code: finished.end.exit_code(),
        duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        jobs: finished.jobs,
        logs: directory.path().to_owned(),
        fidelity,
        warnings: finished.warnings,
        leftovers: finished.leftovers,
        contexts_given: Vec::new(),
        env_files_given: Vec::new(),
        secrets: None,
    }
}

/// Differences that concern the whole run.
fn general_notes(setup: bool, finished: &Finished) -> Vec<String> {
    let mut notes = Vec::new();
    if std::env::consts::ARCH != "x86_64" {
        notes.push(format!("architecture: jobs ran on {}, the default there is x86_64", std::env::consts::ARCH));
    }
    if setup && !finished.was_continued {
        notes.push("this is a setup config, and none of its jobs continued the pipeline".to_owned());
    }
    let skipped: usize = finished.jobs.iter().map(|job| job.skipped_steps).sum();
    if skipped > 0 {
        let plural = if skipped == 1 { "step was" } else { "steps were" };
        notes.push(format!("{skipped} {plural} skipped"));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_that_was_continued_is_not_said_to_have_ended_there() {
        let notes = |setup, was_continued| general_notes(setup, &Finished { was_continued, ..Finished::default() });
        let ended = |notes: Vec<String>| notes.iter().any(|note| note.contains("none of its jobs continued"));
        assert!(ended(notes(true, false)));
        assert!(!ended(notes(true, true)) && !ended(notes(false, false)));
    }
}
