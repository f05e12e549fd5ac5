//! A config written out: `navvy config process`.
//!
//! ```text
//! plain tree ──jobs, workflows──▶ YAML tree with comments ──write──▶ text
//! ```
//!
//! The text says in plain version 2 what the config says with parameters, commands, executors, matrices and conditions:
//! one job for every job of a workflow that is not equal to another, under the name that it has there. Compiled again
//! for the same branch or tag it gives the same pipeline. Where version 2 has no words for something (a setup config,
//! orbs that are not here, unlike jobs of one name in several workflows) the text is of version 2.1, and its `<<` are
//! escaped.

mod comments;
mod jobs;
#[cfg(test)]
mod tests;
mod workflows;
mod write;
mod yaml;

use std::sync::Arc;

use crate::Outcome;
use crate::input::{Inputs, Source};
use crate::resolve::PlainPipeline;
pub(crate) use comments::Comments;
use jobs::Jobs;
pub(crate) use jobs::{source_of, written_variable};
pub(crate) use write::document;
use yaml::Entry;
pub(crate) use yaml::{Entry as YamlEntry, Yaml};

/// A config written out, and its diagnostics.
#[derive(Debug, Clone)]
pub struct Processed {
    /// The pipeline and all diagnostics.
    pub outcome: Outcome,
    /// `None` exactly if one of the diagnostics is an error.
    pub text: Option<String>,
}

/// Compiles as [`crate::compile()`] does, and writes out what the config amounts to. With `explain`, comments tell where
/// everything came from.
pub fn process(source: &Source<'_>, inputs: &Inputs, explain: bool) -> Processed {
    let mut text = None;
    let outcome = crate::compile_with(source, inputs, true, &mut |context, plain, _| {
        let comments = Comments { context, source: source.name, wanted: explain, record: context.recorded() };
        text = Some(pipeline(&comments, plain));
    });
    Processed { outcome, text }
}

fn pipeline(comments: &Comments<'_>, plain: &PlainPipeline) -> String {
    let used = jobs::missing_orbs(plain);
    let missing = comments.record.missing_orbs.iter();
    let orbs = missing.filter(|(alias, _)| used.contains(&***alias)).collect::<Vec<_>>();
    let jobs = Jobs::of(comments, plain);
    // A workflow of this name would be taken for the version of version 2.
    let odd_name = plain.workflows.iter().any(|workflow| &*workflow.name == "version");
    let needs_2_1 = plain.setup || !orbs.is_empty() || jobs.has_renamed() || odd_name;
    let workflows = workflows::workflows(comments, plain, &jobs, needs_2_1);
    let version = if needs_2_1 { "2.1" } else { "2" };
    let mut entries = vec![Entry::new("version", Yaml::Plain(version.to_owned()))];
    if plain.setup {
        entries.push(Entry::new("setup", Yaml::Plain("true".to_owned())));
    }
    if !orbs.is_empty() {
        entries.push(Entry::new("orbs", self::orbs(&orbs)));
    }
    entries.push(Entry::new("jobs", Yaml::Map(jobs.into_entries())));
    entries.push(Entry::new("workflows", workflows));
    write::document(&entries, needs_2_1)
}

/// References as they were written.
fn orbs(orbs: &[(&Arc<str>, &Arc<str>)]) -> Yaml {
    Yaml::Map(
        orbs.iter().map(|(alias, reference)| Entry::new(&***alias, Yaml::Plain(write::scalar(reference)))).collect(),
    )
}
