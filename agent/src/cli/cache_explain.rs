//! `navvy cache explain`: why restore steps find a cache, or not.

use std::collections::BTreeMap;

use navvy_checkout::GitFacts;
use navvy_checkout::variables::{
    INTERNAL_TASK_DATA, TaskNumbers, built_in, pipeline_numbers, pipeline_values, project_id, run_facts,
};
use navvy_job::chain::chain;
use navvy_job::claim::TrustScope;
use navvy_job::compiled::{Job, Step, StepKind, Variables};
use navvy_job::exit_code;
use navvy_job::pipeline::{Pipeline, Selection, WorkflowJob, WorkflowJobKind};
use navvy_job::selection::{self, Wanted};

use super::args::store::CacheExplainArgs;
use super::given::given;
use super::handed::{Desk, Handed, Users, add_user};
use super::host::{block_on, json_lines};
use super::out::print;
use super::run::plan;
use super::source::{ConfigFile, compile, facts, inputs, orb_path, settings_files};
use super::store::{chosen, scope_here};
use super::{CliError, own_words};
use crate::caches::explain::Explainer;
use crate::caches::here::{Ask, Saver};
use crate::caches::here::{Here, OF_THE_RUN, Site};
use crate::pipeline::Contexts;
use crate::run_store::RunStore;
use crate::settings::Settings;
use crate::settings::file::SettingsFiles;

/// The job of a key that is given by itself.
const NO_JOB: &str = "-";

pub fn run(settings: &Settings, arguments: &CacheExplainArgs) -> Result<u8, CliError> {
    let file = ConfigFile::find(arguments.source.file.as_deref(), settings.here()?)?;
    let facts = facts(settings, &file, &arguments.source)?;
    let mut values = pipeline_values(&facts);
    values.extend(pipeline_numbers(&plan::Identity::new().pipeline, plan::PIPELINE_NUMBER));
    let mut source = arguments.source.clone();
    let files = settings_files(settings, &file)?;
    source.fill_in(&files);
    let inputs = inputs(&source, orb_path(settings, &file)?, &facts, values)?;
    let pipeline = compile(&file, &inputs)?;
    let users = context_users(&pipeline);
    let desk = Desk::new(settings, &files, &file, &facts, &arguments.scope)?;
    let handed = desk.hand_out(BTreeMap::new(), &users, false);
    handed.tell(&users, settings.contexts.as_deref());
    let looker = Looker { settings, arguments, file: &file, files: &files, facts: &facts, handed };
    let (asks, savers) = (looker.asks(&pipeline)?, looker.savers(&pipeline)?);
    let store = chosen(settings, arguments.store.as_deref())?;
    let scope = scope_here(&arguments.scope, &file)?;
    block_on(explain(arguments, scope, &store, facts, &asks, savers))
}

async fn explain(
    arguments: &CacheExplainArgs,
    scope: TrustScope,
    run_store: &RunStore,
    facts: GitFacts,
    asks: &[Ask],
    savers: Vec<Saver>,
) -> Result<u8, CliError> {
    let project = project_id(&facts);
    let store = run_store.open(&project, &scope)?;
    let mut explainer = Explainer::new(Here::new(facts), scope.clone(), store, savers).await?;
    for other in run_store.scopes(&project).await? {
        if scope.chain().all(|read| read != other) {
            explainer.others.push((other.clone(), run_store.open(&project, &other)?));
        }
    }
    explainer.aside = run_store.put_aside(&project).await?;
    for (nth, ask) in asks.iter().enumerate() {
        let told = explainer.explain(ask).await?;
        let gap = if nth == 0 { "" } else { "\n" };
        let text = if arguments.json { json_lines([&told])? } else { format!("{gap}{}", told.text()) };
        print(&own_words::masked(&text))?;
    }
    Ok(exit_code::PASSED)
}

/// Finds what is to be explained.
struct Looker<'a> {
    settings: &'a Settings,
    arguments: &'a CacheExplainArgs,
    file: &'a ConfigFile,
    files: &'a SettingsFiles,
    facts: &'a GitFacts,
    /// What a run here would get of the user's own.
    handed: Handed,
}

impl Looker<'_> {
    /// The restore steps; with `--key` that key, as the job would look for it.
    fn asks(&self, pipeline: &Pipeline) -> Result<Vec<Ask>, CliError> {
        let jobs = self.jobs(pipeline)?;
        if let Some(key) = &self.arguments.key {
            return Ok(vec![self.key(key, &jobs)?]);
        }
        let mut asks: Vec<Ask> = Vec::new();
        for (workflow, job, build) in jobs {
            for (nth, step) in build.steps.iter().enumerate() {
                let StepKind::RestoreCache { keys } = &step.kind else { continue };
                asks.push(Ask {
                    workflow: workflow.to_owned(),
                    job: job.name.clone(),
                    step: nth + 1,
                    name: step.name.clone(),
                    place: self.place(step),
                    keys: keys.clone(),
                    site: self.site(job, build, nth)?,
                });
            }
        }
        if asks.is_empty() {
            let of =
                self.arguments.job.as_ref().map_or("no job that runs".to_owned(), |job| format!("job {job}, which"));
            let has = if self.arguments.job.is_some() { "has no" } else { "has a" };
            return Err(CliError::config(format!("{}: {of} {has} restore_cache step", self.file.name))
                .hint("`--key KEY` explains a key by itself; `navvy cache ls` lists what there is."));
        }
        Ok(asks)
    }

    fn key(&self, key: &str, jobs: &[(&str, &WorkflowJob, &Job)]) -> Result<Ask, CliError> {
        let named = jobs.first().filter(|_| self.arguments.job.is_some());
        let site = match named {
            Some((_, job, build)) => self.site(job, build, build.steps.len())?,
            None => Site {
                working_directory: navvy_job::compiled::DEFAULT_WORKING_DIRECTORY.to_owned(),
                checkouts: vec![None],
                variables: self.variables(NO_JOB, 1, navvy_job::compiled::DEFAULT_WORKING_DIRECTORY, &[])?,
            },
        };
        Ok(Ask {
            workflow: named.map_or_else(String::new, |(workflow, ..)| (*workflow).to_owned()),
            job: named.map_or_else(|| NO_JOB.to_owned(), |(_, job, _)| job.name.clone()),
            step: 0,
            name: String::new(),
            place: String::new(),
            keys: vec![key.to_owned()],
            site,
        })
    }

    /// Those that run; a named one in any case, but explained once if it runs nowhere.
    fn jobs<'p>(&self, pipeline: &'p Pipeline) -> Result<Vec<(&'p str, &'p WorkflowJob, &'p Job)>, CliError> {
        let wanted = self.arguments.job.as_deref();
        let is_wanted = |job: &WorkflowJob, runs: bool| match wanted {
            Some(name) => job.name == name || job.definition == name,
            None => runs,
        };
        let found: Vec<_> = builds(pipeline).filter(|(_, job, _, left)| is_wanted(job, left.is_none())).collect();
        if let (Some(name), true) = (wanted, found.is_empty()) {
            let wanted = Wanted { jobs: vec![name.to_owned()], ..Wanted::default() };
            return Err(match selection::choose(pipeline, &wanted) {
                Err(error) => CliError::config(error.to_string()),
                Ok(_) => CliError::config(format!("job {name} has no steps")),
            });
        }
        Ok(worth_explaining(found))
    }

    fn savers(&self, pipeline: &Pipeline) -> Result<Vec<Saver>, CliError> {
        let mut savers = Vec::new();
        for (_, job, build, left) in builds(pipeline) {
            for (nth, step) in build.steps.iter().enumerate() {
                let StepKind::SaveCache { key, .. } = &step.kind else { continue };
                let (template, site) = (key.clone(), self.site(job, build, nth)?);
                let (job, place) = (job.name.clone(), self.place(step));
                savers.push(Saver { job, place, template, when: step.when, site, left: left.clone() });
            }
        }
        Ok(savers)
    }

    fn place(&self, step: &Step) -> String {
        let file = step.origin.file.as_deref().unwrap_or(&self.file.name);
        format!("{file}:{}", step.origin.line)
    }

    /// What the step before which `nth` others stand sees.
    fn site(&self, job: &WorkflowJob, build: &Job, nth: usize) -> Result<Site, CliError> {
        let checkout = |step: &Step| match &step.kind {
            StepKind::Checkout(checkout) => Some(checkout.path.clone()),
            _ => None,
        };
        let working_directory = build.working_directory.clone();
        let variables = self.variables(&job.name, build.parallelism, &working_directory, &job.contexts)?;
        Ok(Site {
            checkouts: build.steps.iter().take(nth).filter_map(checkout).collect(),
            working_directory,
            variables,
        })
    }

    /// As `navvy run` would set them, but for what every run has anew.
    fn variables(
        &self,
        job: &str,
        parallelism: u32,
        working_directory: &str,
        contexts: &[String],
    ) -> Result<BTreeMap<String, String>, CliError> {
        let numbers = TaskNumbers {
            run: &run_facts(self.facts, "", "", 0),
            workflow_id: "",
            job_id: "",
            job_name: job,
            node_index: 0,
            node_total: parallelism,
            working_directory,
            upstream_job_ids: &[],
            build_url: "",
            user: self.settings.get("USER"),
            internal_task_data: INTERNAL_TASK_DATA,
        };
        let mut builtin = built_in(self.facts, &numbers);
        builtin.retain(|(name, _)| !OF_THE_RUN.contains(&name.as_str()));
        Ok(self.secrets(contexts)?.into_iter().chain(builtin).collect())
    }

    fn secrets(&self, contexts: &[String]) -> Result<Variables, CliError> {
        let asked = self.handed.contexts.iter().filter(|(name, _)| contexts.contains(name));
        let loaded = Contexts::load(asked).map_err(|error| CliError::config(chain(&error)))?;
        let given = given(&self.arguments.given, self.files, self.settings, &self.handed.env_files)?;
        Ok(given.with_contexts(loaded.variables(contexts)))
    }
}

/// Workflows that would not run only repeat what is said of those that would. If none would, one stands for all.
fn worth_explaining<'p>(
    found: Vec<(&'p str, &'p WorkflowJob, &'p Job, Option<String>)>,
) -> Vec<(&'p str, &'p WorkflowJob, &'p Job)> {
    let runs = found.iter().any(|(.., left)| left.is_none());
    let first = found.first().map(|(workflow, ..)| *workflow);
    let is_worth = |workflow: &str, left: &Option<String>| match runs {
        true => left.is_none(),
        false => Some(workflow) == first,
    };
    found
        .into_iter()
        .filter(|(workflow, _, _, left)| is_worth(workflow, left))
        .map(|(workflow, job, build, _)| (workflow, job, build))
        .collect()
}

/// Jobs with steps, by the contexts that they ask for.
fn context_users(pipeline: &Pipeline) -> Users {
    let mut users = Users::new();
    for (_, job, ..) in builds(pipeline) {
        add_user(&mut users, &job.name, &job.contexts);
    }
    users
}

/// Every job with steps, and why it does not run.
fn builds(pipeline: &Pipeline) -> impl Iterator<Item = (&str, &WorkflowJob, &Job, Option<String>)> {
    let why = |selection: &Selection| match selection {
        Selection::Selected => None,
        Selection::Left { reason } => Some(reason.clone()),
    };
    pipeline.workflows.iter().flat_map(move |workflow| {
        workflow.jobs.iter().filter_map(move |job| {
            let WorkflowJobKind::Build { job: build } = &job.kind else { return None };
            Some((workflow.name.as_str(), job, &**build, why(&workflow.selected).or_else(|| why(&job.selected))))
        })
    })
}
