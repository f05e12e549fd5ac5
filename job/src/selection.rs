//! Which workflows and jobs of a pipeline a run takes part in. Pure.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::pipeline::{Pipeline, Selection, Workflow};

/// What was asked on the command line.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// `--workflow`.
    pub workflow: Option<String>,
    /// `--job`, as often as it was given.
    pub jobs: Vec<String>,
    /// `--with-requires`: beside `jobs`, those that they require take part.
    pub with_requires: bool,
}

/// A workflow that takes part, and which of its jobs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Chosen {
    /// It is whole: `only` tells which jobs are left.
    pub workflow: Workflow,
    /// `None` means all that its filters leave.
    pub only: Option<BTreeSet<String>>,
    /// Things asked for that a push would not have started.
    pub notes: Vec<String>,
}

/// What was asked for cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// No workflow of this name.
    #[error("there is no workflow `{name}`{hint}; this config has: {known}")]
    NoWorkflow {
        /// What was asked for.
        name: String,
        /// ` (did you mean …)`, or nothing.
        hint: String,
        /// Those that there are.
        known: String,
    },
    /// No job of this name.
    #[error("there is no job `{name}`{hint}; see `navvy run --list`")]
    NoJob {
        /// What was asked for.
        name: String,
        /// ` (did you mean …)`, or nothing.
        hint: String,
    },
    /// Nothing is left of the pipeline.
    #[error("this config has no workflow that a push of this branch or tag would start:\n{reasons}")]
    Nothing {
        /// Why each workflow is left out, a line each.
        reasons: String,
    },
    #[error(
        "workflow `{name}` cannot run: there are mistakes in it, warnings alone only as long as its condition leaves it out"
    )]
    /// A workflow with mistakes that its own condition leaves out.
    Flawed {
        /// Its name.
        name: String,
    },
}

/// Picks what runs.
pub fn choose(pipeline: &Pipeline, wanted: &Wanted) -> Result<Vec<Chosen>, SelectionError> {
    let mut workflows = pick_workflows(pipeline, wanted)?;
    if !wanted.jobs.is_empty() {
        workflows = pick_jobs(workflows, wanted)?;
    }
    if workflows.is_empty() {
        let reasons = pipeline.workflows.iter().map(why_left).collect::<Vec<_>>().join("\n");
        return Err(SelectionError::Nothing { reasons });
    }
    Ok(workflows)
}

fn pick_workflows(pipeline: &Pipeline, wanted: &Wanted) -> Result<Vec<Chosen>, SelectionError> {
    let chosen = |workflow: &Workflow, notes| Chosen { workflow: workflow.clone(), only: None, notes };
    if let Some(name) = &wanted.workflow {
        let Some(workflow) = pipeline.workflows.iter().find(|workflow| workflow.name == *name) else {
            return Err(no_workflow(pipeline, name));
        };
        if workflow.flawed {
            return Err(SelectionError::Flawed { name: name.clone() });
        }
        let notes = match &workflow.selected {
            Selection::Selected => vec![],
            Selection::Left { reason } => vec![format!("workflow `{name}` would not start: {reason}")],
        };
        return Ok(vec![chosen(workflow, notes)]);
    }
    let any_job_asked = !wanted.jobs.is_empty();
    let takes_part = |workflow: &&Workflow| {
        any_job_asked || (workflow.selected.is_selected() && workflow.jobs.iter().any(|j| j.selected.is_selected()))
    };
    Ok(pipeline.workflows.iter().filter(takes_part).map(|workflow| chosen(workflow, vec![])).collect())
}

/// Narrows workflows down to the named jobs. A job in several workflows is run in the first that a push would start.
fn pick_jobs(workflows: Vec<Chosen>, wanted: &Wanted) -> Result<Vec<Chosen>, SelectionError> {
    let mut chosen: Vec<Chosen> = Vec::new();
    for name in &wanted.jobs {
        let mut places: Vec<&Chosen> =
            workflows.iter().filter(|c| c.workflow.jobs.iter().any(|j| j.name == *name)).collect();
        places.sort_by_key(|c| (!c.workflow.selected.is_selected(), c.workflow.flawed));
        let Some(place) = places.first() else { return Err(no_job(&workflows, name)) };
        if place.workflow.flawed {
            return Err(SelectionError::Flawed { name: place.workflow.name.clone() });
        }
        let position = chosen.iter().position(|c| c.workflow.name == place.workflow.name);
        let index = position.unwrap_or_else(|| {
            chosen.push(Chosen { only: Some(BTreeSet::new()), ..(*place).clone() });
            chosen.len() - 1
        });
        add_job(&mut chosen[index], name, wanted.with_requires);
    }
    Ok(chosen)
}

fn add_job(chosen: &mut Chosen, name: &str, with_requires: bool) {
    let mut pending = vec![name.to_owned()];
    while let Some(name) = pending.pop() {
        let Some(job) = chosen.workflow.jobs.iter_mut().find(|job| job.name == name) else { continue };
        if !chosen.only.get_or_insert_default().insert(name.clone()) {
            continue;
        }
        if let Selection::Left { reason } = &job.selected {
            chosen.notes.push(format!("job `{name}` would not run: {reason}"));
            job.selected = Selection::Selected;
        }
        if with_requires {
            pending.extend(job.requires.iter().map(|requirement| requirement.job.clone()));
        }
    }
}

fn why_left(workflow: &Workflow) -> String {
    let reason = match &workflow.selected {
        Selection::Left { reason } => reason.clone(),
        Selection::Selected => "its filters leave out every job".to_owned(),
    };
    format!("  {}: {reason}", workflow.name)
}

fn no_workflow(pipeline: &Pipeline, name: &str) -> SelectionError {
    let names: Vec<&str> = pipeline.workflows.iter().map(|workflow| workflow.name.as_str()).collect();
    SelectionError::NoWorkflow { name: name.to_owned(), hint: hint(name, &names), known: names.join(", ") }
}

fn no_job(workflows: &[Chosen], name: &str) -> SelectionError {
    let names: Vec<&str> =
        workflows.iter().flat_map(|chosen| chosen.workflow.jobs.iter().map(|job| job.name.as_str())).collect();
    SelectionError::NoJob { name: name.to_owned(), hint: hint(name, &names) }
}

/// ` (did you mean `x`?)` when a known name is near.
fn hint(name: &str, known: &[&str]) -> String {
    nearest(name, known).map(|near| format!(" (did you mean `{near}`?)")).unwrap_or_default()
}

/// The known name that comes nearest, if one is near enough to have been meant.
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let near = known.iter().map(|candidate| (strsim::jaro_winkler(name, candidate), *candidate));
    let (similarity, candidate) = near.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (similarity > 0.8).then_some(candidate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made::{self, job_after};
    use crate::pipeline::WorkflowJob;

    fn job(name: &str, requires: &[&str], selected: Selection) -> WorkflowJob {
        WorkflowJob { selected, ..job_after(name, requires) }
    }

    fn pipeline() -> Pipeline {
        let left = || Selection::Left { reason: "runs on a schedule only".into() };
        let workflow = |name: &str, selected, jobs| Workflow { selected, ..made::workflow(name, jobs) };
        let ci = vec![
            job("build", &[], Selection::Selected),
            job("test", &["build"], Selection::Selected),
            job("deploy", &["test"], left()),
        ];
        let nightly = vec![job("soak", &[], Selection::Selected)];
        Pipeline {
            setup: false,
            workflows: vec![workflow("ci", Selection::Selected, ci), workflow("nightly", left(), nightly)],
        }
    }

    #[test]
    fn without_a_name_everything_runs_that_a_push_would_start() {
        let chosen = choose(&pipeline(), &Wanted::default()).unwrap();
        assert_eq!(chosen.iter().map(|c| c.workflow.name.as_str()).collect::<Vec<_>>(), ["ci"]);
    }

    #[test]
    fn a_named_workflow_runs_and_says_that_a_push_would_not_have_started_it() {
        let wanted = Wanted { workflow: Some("nightly".into()), ..Wanted::default() };
        let chosen = choose(&pipeline(), &wanted).unwrap();
        assert_eq!(chosen[0].notes, ["workflow `nightly` would not start: runs on a schedule only"]);
    }

    #[test]
    fn a_job_comes_alone_or_with_what_it_requires() {
        let alone = Wanted { jobs: vec!["deploy".into()], ..Wanted::default() };
        let only = choose(&pipeline(), &alone).unwrap()[0].only.clone().unwrap();
        assert_eq!(only, BTreeSet::from(["deploy".to_owned()]));
        let with = Wanted { with_requires: true, ..alone };
        assert_eq!(choose(&pipeline(), &with).unwrap()[0].only.as_ref().unwrap().len(), 3);
    }

    #[test]
    fn nothing_of_a_flawed_workflow_runs() {
        let mut pipeline = pipeline();
        pipeline.workflows[1].flawed = true;
        let asked = |wanted: &Wanted| choose(&pipeline, wanted).map(|chosen| chosen[0].workflow.name.clone());
        let flawed = Err(SelectionError::Flawed { name: "nightly".into() });
        assert_eq!(asked(&Wanted { workflow: Some("nightly".into()), ..Wanted::default() }), flawed);
        assert_eq!(asked(&Wanted { jobs: vec!["soak".into()], ..Wanted::default() }), flawed);
        assert_eq!(asked(&Wanted::default()), Ok("ci".to_owned()));
        let mut twice = pipeline.clone();
        let left = Selection::Left { reason: "its condition".into() };
        twice.workflows.push(Workflow {
            name: "weekly".into(),
            flawed: false,
            selected: left,
            ..twice.workflows[1].clone()
        });
        let wanted = Wanted { jobs: vec!["soak".into()], ..Wanted::default() };
        assert_eq!(choose(&twice, &wanted).unwrap()[0].workflow.name, "weekly");
    }

    #[test]
    fn typos_get_a_neighbour() {
        let wanted = Wanted { jobs: vec!["biuld".into()], ..Wanted::default() };
        let text = choose(&pipeline(), &wanted).unwrap_err().to_string();
        assert!(text.contains("did you mean `build`?"), "{text}");
        let wanted = Wanted { workflow: Some("x".into()), ..Wanted::default() };
        assert_eq!(
            choose(&pipeline(), &wanted).unwrap_err().to_string(),
            "there is no workflow `x`; this config has: ci, nightly"
        );
    }
}
