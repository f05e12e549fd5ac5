//! Results of tests: read from the job's files, shown, kept, and used to share out the tests of the next run.
//!
//! ```text
//! store_test_results ─▶ files ─▶ junit ─▶ Case* ─┬▶ summary          lines of the step
//!                                                └▶ keep             the store, a piece a step
//! next run: keep ─▶ results.json in the job's environment ─▶ circleci tests split --split-by=timings
//! ```
//!
//! `docs/tests.md` has it for users.

#![warn(missing_docs)]

mod brief;
pub mod collect;
mod encoding;
pub mod history;
pub mod junit;
pub mod keep;
mod place;
pub mod summary;
pub mod timings;

pub use timings::Timings;

/// One run of one test.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Case {
    /// As the report has it: what `circleci tests split` compares with.
    pub file: Option<String>,
    /// As the report has it.
    pub class: Option<String>,
    /// As the report has it.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Microseconds; `None` where the report does not say.
    pub micros: Option<u64>,
    /// What it said when it failed, or why it was skipped.
    pub message: Option<String>,
    /// Where it failed: `spec/cart_spec.rb:12`, or the file alone.
    pub place: Option<String>,
}

/// From good to bad.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// It ran and found nothing wrong.
    #[default]
    Passed,
    /// Passed, but not at once.
    Flaky,
    /// It was not run.
    Skipped,
    /// What it tests is not as it should be.
    Failed,
    /// Ended without a verdict.
    Errored,
}

impl Outcome {
    /// Does it make a test run fail?
    pub fn is_bad(self) -> bool {
        matches!(self, Self::Failed | Self::Errored)
    }
}

impl Case {
    /// Class and name, for people.
    pub fn title(&self) -> String {
        match &self.class {
            Some(class) if !self.name.starts_with(class.as_str()) => format!("{class} {}", self.name),
            _ => self.name.clone(),
        }
    }
}
