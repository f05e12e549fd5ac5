//! The compiled pipeline as a document: `navvy config process --format json`.
//!
//! Everything is there, also where it is empty or null, so that a reader needs no defaults of its own. Environments are
//! lists of name and value in the order in which they count. `docs/pipeline.schema.json` is made from these types.

use std::collections::BTreeMap;

use navvy_job::compiled::{Container, Executor, Job, Origin, Step, StepKind, Variables, When};
use navvy_job::pipeline::{self, Pipeline, Requirement, Selection, WorkflowJobKind};
use serde::Serialize;

use crate::input::Inputs;

/// Changes when a reader of the document would have to.
pub const FORMAT: u32 = 1;

/// A compiled pipeline.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Document<'p> {
    /// Format of this document: 1.
    pub format: u32,
    /// The branch it was compiled for; null for a tag.
    pub branch: Option<&'p str>,
    /// The tag it was compiled for.
    pub tag: Option<&'p str>,
    /// `setup: true`: its only purpose is to make the config of another pipeline.
    pub setup: bool,
    /// In the order of the file; those that do not run included.
    pub workflows: Vec<Workflow<'p>>,
}

/// A graph of jobs.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Workflow<'p> {
    pub name: &'p str,
    /// Would a push of this branch or tag start it?
    pub runs: bool,
    /// Null if it runs.
    pub why_not: Option<&'p str>,
    /// 0 to 5.
    pub max_auto_reruns: u32,
    pub origin: &'p Origin,
    /// In the order of the file, matrices and job groups expanded.
    pub jobs: Vec<WorkflowJob<'p>>,
}

/// What happens when a job's turn comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum JobType {
    /// Its steps are run.
    Build,
    /// It waits for a person.
    Approval,
    /// It succeeds at once.
    NoOp,
    /// It is of a type that is not carried out, or of an orb that is not here.
    Unavailable,
}

/// One node of a workflow's graph.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WorkflowJob<'p> {
    /// Unique in its workflow; `CIRCLE_JOB`.
    pub name: &'p str,
    /// The key below `jobs:` that it was made from; for an approval its own name.
    pub definition: &'p str,
    #[serde(rename = "type")]
    pub kind: JobType,
    /// What it would take; null unless `type` is `unavailable`.
    pub unavailable: Option<&'p str>,
    /// Values by parameter, as text; empty without a matrix.
    pub matrix: &'p BTreeMap<String, String>,
    /// All must be met. Jobs that are left out are already dropped.
    pub requires: &'p [Requirement],
    /// Is it part of the workflow for this branch or tag?
    pub kept: bool,
    /// Null if it is kept.
    pub why_not: Option<&'p str>,
    /// In the order of the config: later ones win over equal variables.
    pub contexts: &'p [String],
    pub serial_group: Option<&'p str>,
    /// Null unless `type` is `build`, as are all that follow but the lists, which are empty.
    pub executor: Option<ExecutorKind>,
    /// Image of the primary container, or of the machine; null for a machine's default image.
    pub image: Option<&'p str>,
    /// Version of Xcode, for macOS.
    pub xcode: Option<&'p str>,
    pub docker_layer_caching: Option<bool>,
    /// Images of the service containers.
    pub services: Vec<&'p str>,
    /// All containers; the first is the primary one.
    pub containers: &'p [Container],
    /// As written; null for the executor's default.
    pub resource_class: Option<&'p str>,
    /// At least 1.
    pub parallelism: Option<u32>,
    /// As written: `~` is expanded inside of the environment.
    pub working_directory: Option<&'p str>,
    /// Shell of every `run` step without one of its own; null for the environment's default.
    pub shell: Option<&'p str>,
    /// Variables of executor and job, the job's winning.
    pub environment: &'p Variables,
    pub steps: Vec<WrittenStep<'p>>,
    pub origin: &'p Origin,
}

/// What a job runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ExecutorKind {
    Docker,
    Machine,
    Macos,
}

/// One step of a job.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WrittenStep<'p> {
    /// The step's key in the config: `run`, `checkout`, `save_cache`. `orb_command`: of an orb that is not here.
    pub kind: &'p str,
    /// Shown to people; for `run` without a name, the command's text.
    pub name: &'p str,
    pub when: When,
    /// What the step was given.
    pub settings: &'p StepKind,
    pub origin: &'p Origin,
}

impl<'p> Document<'p> {
    /// What `inputs` made of a config.
    pub fn new(pipeline: &'p Pipeline, inputs: &'p Inputs) -> Self {
        Self {
            format: FORMAT,
            branch: inputs.branch.as_deref(),
            tag: inputs.tag.as_deref(),
            setup: pipeline.setup,
            workflows: pipeline.workflows.iter().map(Workflow::new).collect(),
        }
    }

    /// Indented, with a line break at the end.
    pub fn to_json(&self) -> String {
        // No map of these types has keys that are not texts.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

impl<'p> Workflow<'p> {
    fn new(workflow: &'p pipeline::Workflow) -> Self {
        Self {
            name: &workflow.name,
            runs: workflow.selected.is_selected(),
            why_not: why_not(&workflow.selected),
            max_auto_reruns: workflow.max_auto_reruns,
            origin: &workflow.origin,
            jobs: workflow.jobs.iter().map(WorkflowJob::new).collect(),
        }
    }
}

fn why_not(selection: &Selection) -> Option<&str> {
    match selection {
        Selection::Selected => None,
        Selection::Left { reason } => Some(reason),
    }
}

impl<'p> WorkflowJob<'p> {
    fn new(job: &'p pipeline::WorkflowJob) -> Self {
        let bare = Self::bare(job);
        match &job.kind {
            WorkflowJobKind::Build { job } => bare.build(job),
            WorkflowJobKind::Approval => Self { kind: JobType::Approval, ..bare },
            WorkflowJobKind::NoOp => Self { kind: JobType::NoOp, ..bare },
            WorkflowJobKind::Unavailable { what } => {
                Self { kind: JobType::Unavailable, unavailable: Some(what), ..bare }
            }
        }
    }

    /// A job with nothing to run.
    fn bare(job: &'p pipeline::WorkflowJob) -> Self {
        static NO_VARIABLES: Variables = Variables::new();
        Self {
            name: &job.name,
            definition: &job.definition,
            kind: JobType::Build,
            unavailable: None,
            matrix: &job.matrix,
            requires: &job.requires,
            kept: job.selected.is_selected(),
            why_not: why_not(&job.selected),
            contexts: &job.contexts,
            serial_group: job.serial_group.as_deref(),
            executor: None,
            image: None,
            xcode: None,
            docker_layer_caching: None,
            services: Vec::new(),
            containers: &[],
            resource_class: None,
            parallelism: None,
            working_directory: None,
            shell: None,
            environment: &NO_VARIABLES,
            steps: Vec::new(),
            origin: &job.origin,
        }
    }

    fn build(self, job: &'p Job) -> Self {
        Self {
            resource_class: job.resource_class.as_deref(),
            parallelism: Some(job.parallelism),
            working_directory: Some(&job.working_directory),
            shell: job.shell.as_deref(),
            environment: &job.environment,
            steps: job.steps.iter().map(WrittenStep::new).collect(),
            ..self.within(&job.executor)
        }
    }

    fn within(self, executor: &'p Executor) -> Self {
        match executor {
            Executor::Docker { containers } => Self {
                executor: Some(ExecutorKind::Docker),
                image: containers.first().map(|container| container.image.as_str()),
                services: containers.iter().skip(1).map(|container| container.image.as_str()).collect(),
                containers,
                ..self
            },
            Executor::Machine { image, docker_layer_caching } => Self {
                executor: Some(ExecutorKind::Machine),
                image: image.as_deref(),
                docker_layer_caching: Some(*docker_layer_caching),
                ..self
            },
            Executor::Macos { xcode } => Self { executor: Some(ExecutorKind::Macos), xcode: xcode.as_deref(), ..self },
        }
    }
}

impl<'p> WrittenStep<'p> {
    fn new(step: &'p Step) -> Self {
        let kind = match &step.kind {
            StepKind::OrbCommand { .. } => "orb_command",
            kind => kind.key(),
        };
        Self { kind, name: &step.name, when: step.when, settings: &step.kind, origin: &step.origin }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::Source;
    use crate::testing::{committed, fixtures, valid};

    fn schema() -> serde_json::Value {
        let settings = schemars::generate::SchemaSettings::draft2020_12();
        let mut schema = settings.into_generator().into_root_schema_for::<Document<'_>>();
        schema.insert("$id".to_owned(), "urn:navvy:pipeline:1".into());
        schema.insert("title".to_owned(), "Output of `navvy config process --format json`".into());
        schema.to_value()
    }

    #[test]
    fn the_schema_in_docs_is_that_of_the_types() {
        committed("docs/pipeline.schema.json", &schema());
    }

    #[test]
    fn what_is_written_fits_the_schema() {
        let schema = schema();
        for (name, text) in fixtures() {
            let inputs = Inputs { allow_missing_orbs: true, ..Inputs::default() };
            let outcome = crate::compile(&Source { name: &name, text: &text }, &inputs);
            let pipeline = outcome.pipeline.unwrap();
            let document = serde_json::from_str(&Document::new(&pipeline, &inputs).to_json()).unwrap();
            assert_eq!(valid(&schema, &document), Vec::<String>::new(), "{name}");
        }
    }

    #[test]
    fn another_shape_does_not_fit_the_schema() {
        let wrong = serde_json::json!({"format": 1, "setup": false, "workflows": [{"name": "w", "runs": "yes"}]});
        assert!(!valid(&schema(), &wrong).is_empty());
    }
}
