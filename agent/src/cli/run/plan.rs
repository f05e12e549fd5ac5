//! From the words of `navvy run` to a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use navvy_checkout::GitFacts;
use navvy_checkout::variables::{INTERNAL_TASK_DATA, TaskNumbers, built_in, run_facts};
use navvy_config::NO_BRANCH;
use navvy_docker::proxies::configured;
use navvy_docker::{Engine, ImageSubstitutions};
use navvy_environment::allowed::Allowed;
use navvy_environment::egress::Egress;
use navvy_job::claim::{SshKey, TrustScope};
use navvy_job::compiled::{Step, StepKind};
use navvy_job::pipeline::{Pipeline, Selection, Workflow, WorkflowJob, WorkflowJobKind};
use navvy_job::resource::Size;
use navvy_job::selection::{self, Chosen, SelectionError, Wanted};
use navvy_output::mask::Masks;

use super::Session;
use crate::cli::CliError;
use crate::cli::args::run::{CheckoutMode, RunArgs};
use crate::cli::given::given;
use crate::cli::handed::{Desk, Handed, Users, add_user, named_contexts};
use crate::cli::source::{ConfigFile, why_no_branch};
use crate::cli::store::scope_here;
use crate::pipeline::claims::file_url;
use crate::pipeline::{Builtins, Contexts, Plan, Replacements, Vms, localise};
use crate::run_directory::RunDirectory;
use crate::settings::Settings;
use crate::step::handing::Handing;
use crate::step::kinds::handed::{check_engine, risk_of};
use crate::task::{BreakPoint, SourceNote};
use crate::{ssh_agent, ssh_key};

pub fn wanted(arguments: &RunArgs) -> Wanted {
    Wanted {
        workflow: arguments.workflow.clone(),
        jobs: arguments.jobs.clone(),
        with_requires: arguments.with_requires,
    }
}

pub fn replacements(images: &[String], machine_as: Option<&String>, vms: Vms) -> Result<Replacements, CliError> {
    let images = ImageSubstitutions::parse(images)
        .map_err(|error| CliError::usage(format!("--image: {}", navvy_job::chain::chain(&error))))?;
    Ok(Replacements { images, machine_as: machine_as.cloned(), vms })
}

/// What runs, and what is looked for in the config that a setup pipeline continues with.
///
/// A name that is not in the setup config itself may be in that one: then the setup runs as a push would run it.
///
/// `no_branch` says what is not run for want of a branch.
pub fn choose(
    pipeline: &Pipeline,
    wanted: &Wanted,
    no_branch: Option<&str>,
) -> Result<(Vec<Chosen>, Option<Wanted>), CliError> {
    let refused = |error: SelectionError| match (&error, no_branch) {
        (SelectionError::Nothing { .. }, Some(no_branch)) => CliError::config(error.to_string()).hint(no_branch),
        _ => CliError::config(error.to_string()),
    };
    let is_named = is_named(wanted);
    match selection::choose(pipeline, wanted) {
        Err(SelectionError::NoJob { .. } | SelectionError::NoWorkflow { .. }) if pipeline.setup => {
            let chosen = selection::choose(pipeline, &Wanted::default()).map_err(refused)?;
            Ok((chosen, Some(wanted.clone())))
        }
        chosen => Ok((chosen.map_err(refused)?, (!is_named).then(Wanted::default))),
    }
}

fn is_named(wanted: &Wanted) -> bool {
    wanted.workflow.is_some() || !wanted.jobs.is_empty()
}

/// What `--list` and `--graph` show: the whole pipeline, or what was named of it.
pub fn shown(pipeline: &Pipeline, wanted: &Wanted) -> Result<Pipeline, CliError> {
    if !is_named(wanted) {
        return Ok(pipeline.clone());
    }
    let (chosen, _) = choose(pipeline, wanted, None)?;
    Ok(Pipeline { workflows: chosen.into_iter().map(narrowed).collect(), ..pipeline.clone() })
}

/// The workflow with those jobs alone that take part.
fn narrowed(chosen: Chosen) -> Workflow {
    let Chosen { mut workflow, only, .. } = chosen;
    if let Some(only) = only {
        workflow.jobs.retain(|job| only.contains(&job.name));
        for job in &mut workflow.jobs {
            job.requires.retain(|requirement| only.contains(&requirement.job));
        }
    }
    workflow
}

/// What is not run because there is no branch, why there is none, and what to do.
pub fn no_branch(facts: &GitFacts, pipeline: &Pipeline, wanted: &Wanted) -> Option<String> {
    let is_meant = |workflow: &&Workflow| wanted.workflow.as_ref().is_none_or(|name| *name == workflow.name);
    // A workflow none of whose jobs runs is left out for that.
    let would_start = |workflow: &&Workflow| {
        workflow.selected.is_selected() || workflow.jobs.iter().all(|job| !job.selected.is_selected())
    };
    let wants_one = |job: &&WorkflowJob| match &job.selected {
        Selection::Left { reason } => reason.ends_with(NO_BRANCH),
        Selection::Selected => false,
    };
    let workflows = pipeline.workflows.iter().filter(is_meant).filter(would_start);
    let jobs = workflows.flat_map(|workflow| workflow.jobs.iter().filter(wants_one));
    // In several workflows they are still one name.
    let left: BTreeSet<&str> = jobs.map(|job| job.name.as_str()).collect();
    if left.is_empty() || !wanted.jobs.is_empty() {
        return None;
    }
    Some(format!(
        "{NO_BRANCH} ({}): not run are {}, whose branch filters let only some branches through, and what requires them; \
         --branch NAME acts as if that branch was pushed",
        why_no_branch(facts),
        left.into_iter().collect::<Vec<_>>().join(", ")
    ))
}

/// What a later retry needs to compile the config again.
pub fn source_note(arguments: &RunArgs, settings: &Settings, file: &ConfigFile) -> SourceNote {
    let source = &arguments.source;
    SourceNote {
        file: file.path.clone(),
        project: file.project().to_owned(),
        parameters: source.parameters.clone(),
        branch: source.branch.clone(),
        tag: source.tag.clone(),
        allow_missing_orbs: source.allows_missing_orbs(),
        checkout_git: arguments.checkout == CheckoutMode::Git,
        images: arguments.images.clone(),
        machine_as: arguments.machine_as.clone(),
        store: arguments.store.clone(),
        secrets_in_artifacts: arguments.secrets_in_artifacts.into(),
        handing: handing(arguments, settings),
    }
}

/// What of this machine jobs may have.
pub fn handing(arguments: &RunArgs, settings: &Settings) -> Handing {
    let ssh_agent = settings.get(AGENT_SOCKET).filter(|_| names_agent(arguments)).map(PathBuf::from);
    Handing { docker: arguments.remote_docker.is_some(), ssh_agent }
}

/// In place of a file. A file that is called so is written `./agent`.
const AGENT: &str = "agent";
pub const AGENT_SOCKET: &str = "SSH_AUTH_SOCK";

fn names_agent(arguments: &RunArgs) -> bool {
    arguments.ssh_keys.iter().any(|word| word == AGENT)
}

/// An agent that was named has to be there.
pub fn check_agent(arguments: &RunArgs, settings: &Settings) -> Result<(), CliError> {
    if !names_agent(arguments) {
        return Ok(());
    }
    let hint = "`eval $(ssh-agent)` starts one, `ssh-add` gives it keys; a key's file is given with `--ssh-key FILE`.";
    let Some(socket) = settings.get(AGENT_SOCKET).filter(|socket| !socket.is_empty()) else {
        return Err(CliError::usage("--ssh-key agent: you have no ssh-agent: SSH_AUTH_SOCK is not set").hint(hint));
    };
    let silent =
        |error| CliError::usage(format!("--ssh-key agent: no ssh-agent answers at {socket}: {error}")).hint(hint);
    ssh_agent::identities(socket.as_ref()).map(drop).map_err(silent)
}

/// What is worth knowing before jobs get it; an error when they cannot.
pub(super) fn risk(arguments: &RunArgs, engine: Option<&Engine>) -> Result<Option<String>, CliError> {
    let Some(engine) = engine.filter(|_| arguments.remote_docker.is_some()) else { return Ok(None) };
    check_engine(engine.endpoint()).map_err(|why| CliError::usage(format!("--remote-docker host: {why}")))?;
    Ok(Some(risk_of(engine.endpoint())))
}

/// How jobs reach the outside, and what of it cannot work.
pub(super) fn egress(
    arguments: &RunArgs,
    settings: &Settings,
    engine: Option<&Engine>,
) -> Result<(Arc<Egress>, Vec<String>), CliError> {
    let allowed = Allowed::parse(&arguments.allow_host);
    let allowed = allowed.map_err(|error| CliError::usage(format!("--allow-host: {error}")))?;
    let Some(engine) = engine else { return Ok(<(Arc<Egress>, Vec<String>)>::default()) };
    let (mut egress, mut warnings) = (Egress::default(), Vec::new());
    match configured(&settings.paths, &engine.endpoint().to_string()) {
        Ok(configured) => egress = Egress::of_docker_config(configured),
        Err(why) => warnings.push(format!("jobs get no proxies of docker's config file: {why}")),
    }
    if arguments.host_egress == Some(true) {
        egress = egress.with_host(&settings.variables, &settings.paths).map_err(|error| {
            let message = format!("--host-egress: {}", navvy_job::chain::chain(&error));
            CliError::usage(message).hint("`navvy doctor` tells what this host has.")
        })?;
    }
    let egress = egress.with_allowed(allowed);
    warnings.extend(egress.warnings());
    if engine.why_rules_are_not_ours().is_none() {
        warnings.extend(egress.closed_proxies());
    }
    Ok((Arc::new(egress), warnings))
}

/// What the jobs of a plan run in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// A Docker engine of this host's.
    pub engine: bool,
    /// A virtual machine: for a job's steps, or for its Docker engine.
    pub machines: bool,
}

/// What do the jobs of the plan need?
pub fn needs(chosen: &[Chosen], replacements: &Replacements) -> Needs {
    let mut needs = Needs::default();
    for job in chosen.iter().flat_map(takes_part) {
        let WorkflowJobKind::Build { job: build } = &job.kind else { continue };
        let Ok(local) = localise(build, replacements) else { continue };
        let is_in_a_machine = local.vm_image.is_some();
        let wants_docker = |step: &Step| matches!(step.kind, StepKind::SetupRemoteDocker { .. });
        needs.engine |= !is_in_a_machine;
        needs.machines |= is_in_a_machine || build.steps.iter().any(wants_docker);
    }
    needs
}

/// The jobs of a chosen workflow that would run.
pub fn takes_part(chosen: &Chosen) -> impl Iterator<Item = &WorkflowJob> {
    let is_asked = |job: &&WorkflowJob| chosen.only.as_ref().is_none_or(|only| only.contains(&job.name));
    chosen.workflow.jobs.iter().filter(|job| job.selected.is_selected()).filter(is_asked)
}

/// A break point that names no step of these jobs is a slip of the pen: what it was to stop would run.
pub fn check_break_points<'a>(
    arguments: &RunArgs,
    jobs: impl Iterator<Item = &'a WorkflowJob>,
) -> Result<(), CliError> {
    let jobs: Vec<&WorkflowJob> = jobs.collect();
    let names = |point: &BreakPoint, job: &WorkflowJob| match &job.kind {
        WorkflowJobKind::Build { job: build } => {
            build.steps.iter().enumerate().any(|(index, step)| point.is_before(&job.name, index + 1, &step.name))
        }
        _ => false,
    };
    for point in arguments.break_before.iter().map(|text| BreakPoint::parse(text)) {
        if !jobs.iter().any(|job| names(&point, job)) {
            return Err(CliError::usage(format!("--break-before {}: no job has such a step", point.text()))
                .hint("Name a step as `navvy run --dry-run` shows it, by number or name: STEP or JOB:STEP."));
        }
    }
    Ok(())
}

/// Everything the runner needs, and what is worth a warning.
pub(super) fn build(
    session: &Session<'_>,
    chosen: Vec<Chosen>,
    replacements: Replacements,
    machine: Size,
    directory: &RunDirectory,
    is_setup: bool,
) -> Result<(Plan, Vec<String>), CliError> {
    let arguments = session.arguments;
    let contexts = Contexts::load(&session.handed.contexts);
    let contexts = contexts.map_err(|error| CliError::config(navvy_job::chain::chain(&error)))?;
    let warnings = session.handed.warnings.iter().cloned().chain(not_given(session, &chosen)).collect();
    let plan = Plan {
        builtins: builtins(session, &chosen, directory),
        workflows: chosen,
        replacements,
        approvals: crate::pipeline::Approvals::default(),
        assume_passed: assumed(arguments)?,
        node_cap: arguments.parallelism,
        max_parallel: arguments.max_parallel,
        machine,
        overcommit: arguments.overcommit.unwrap_or_default(),
        job_limit: arguments.job_limit,
        scope: scope_here(&arguments.scope, session.file)?,
        given: given(&arguments.given, session.files, session.settings, &session.handed.env_files)?,
        contexts,
        ssh_keys: ssh_keys(session)?,
        continuation_key: is_setup.then(|| uuid::Uuid::new_v4().simple().to_string()),
    };
    Ok((plan, warnings))
}

/// What of these jobs later runs take over, if the user has not yet accepted the commit that they belong to.
pub fn not_accepted(facts: &GitFacts, scope: &TrustScope, chosen: &[Chosen]) -> Option<String> {
    let saves = |job: &WorkflowJob| match &job.kind {
        WorkflowJobKind::Build { job } => job.steps.iter().any(|step| matches!(step.kind, StepKind::SaveCache { .. })),
        _ => false,
    };
    let is_kept = !matches!(scope, TrustScope::Fork(_)) && chosen.iter().flat_map(takes_part).any(saves);
    // What git cannot tell, it cannot tell for better or worse.
    (is_kept && facts.is_pushed().ok()? == Some(false)).then(|| {
        let readers = if *scope == TrustScope::Trusted { "every scope" } else { "this directory" };
        format!(
            "no branch of origin that was fetched holds HEAD, and later runs of {readers} restore the caches that this one saves, \
             those with secrets too; if the commit is not your own (a pull request), --scope fork:NAME keeps them apart"
        )
    })
}

/// Names secrets whose values stay visible.
pub fn not_masked(masks: &Masks) -> Option<String> {
    values_are_not_masked(masks.unmasked(), "shorter than 4 characters: it occurs everywhere")
}

/// Names what was given as a secret, and is taken for none.
pub fn not_secret(names: &[String]) -> Option<String> {
    let why =
        "a boolean, the path of a public file, a CA file's name or a proxy without user and password is not a secret";
    values_are_not_masked(names, why)
}

fn values_are_not_masked(names: &[String], why: &str) -> Option<String> {
    let (what, are) = if names.len() == 1 { ("the value", "is") } else { ("the values", "are") };
    (!names.is_empty()).then(|| format!("{what} of {} {are} not masked: {why}", names.join(", ")))
}

/// The jobs that run, by the contexts that they ask for.
pub(super) fn context_users(chosen: &[Chosen]) -> Users {
    let mut users = Users::new();
    for job in chosen.iter().flat_map(takes_part) {
        add_user(&mut users, &job.name, &job.contexts);
    }
    users
}

/// What jobs get of the user's own; asks the user where that is possible.
///
/// What a setup pipeline continues with may ask for more: a secret has to be known before the first byte is shown.
pub(super) fn hand_out(
    desk: &Desk<'_>,
    settings: &Settings,
    arguments: &RunArgs,
    chosen: &[Chosen],
    is_setup: bool,
) -> Result<Handed, CliError> {
    let named = named_contexts(&arguments.contexts, settings.contexts.as_deref())?;
    Ok(desk.hand_out(named, &context_users(chosen), is_setup))
}

/// A warning for each context that jobs ask for and do not get.
pub(super) fn not_given(session: &Session<'_>, chosen: &[Chosen]) -> Vec<String> {
    session.handed.not_given(&context_users(chosen), session.settings.contexts.as_deref())
}

pub(super) fn assumed(arguments: &RunArgs) -> Result<BTreeSet<String>, CliError> {
    let name = |text: &String| {
        let name = text.strip_prefix("passed:").filter(|name| !name.is_empty());
        name.map(str::to_owned).ok_or_else(|| CliError::usage(format!("--assume {text}: expected passed:NAME")))
    };
    arguments.assume.iter().map(name).collect()
}

fn ssh_keys(session: &Session<'_>) -> Result<Vec<SshKey>, CliError> {
    let home = session.settings.home.as_deref();
    let read = |word: &String| {
        ssh_key::read(word, home)
            .map_err(|error| CliError::config(format!("--ssh-key: {}", navvy_job::chain::chain(&error))))
    };
    session.arguments.ssh_keys.iter().filter(|word| *word != AGENT).map(read).collect()
}

/// Ids of this run.
pub struct Identity {
    pub pipeline: String,
    random: uuid::Uuid,
}

impl Identity {
    pub fn new() -> Self {
        Self { pipeline: uuid::Uuid::new_v4().to_string(), random: uuid::Uuid::new_v4() }
    }

    /// For the run directory's name.
    pub fn random(&self) -> u32 {
        self.random.as_fields().0
    }
}

/// Runs on one machine have no numbers of their own.
pub const PIPELINE_NUMBER: u64 = 1;

pub(super) fn builtins(session: &Session<'_>, chosen: &[Chosen], directory: &RunDirectory) -> Builtins {
    let facts = session.facts.clone();
    let pipeline_id = session.identity.pipeline.clone();
    let build_url = file_url(directory.path());
    let user = session.settings.get("USER").map(str::to_owned);
    let workflows = WorkflowIds::new(chosen);
    Arc::new(move |task| {
        let workflow = &task.job.workflow;
        let upstream: Vec<String> = task.upstream.iter().map(|job| workflows.job(workflow, job)).collect();
        let workflow_id = workflows.workflow(workflow);
        let run = run_facts(&facts, &pipeline_id, &workflow_id, task.build_number);
        let numbers = TaskNumbers {
            run: &run,
            workflow_id: &workflow_id,
            job_id: &workflows.job(workflow, &task.job.job),
            job_name: &task.job.job,
            node_index: task.node_index,
            node_total: task.node_total,
            working_directory: task.working_directory,
            upstream_job_ids: &upstream,
            build_url: &build_url,
            user: user.as_deref(),
            internal_task_data: INTERNAL_TASK_DATA,
        };
        let variables = built_in(&facts, &numbers);
        (run, variables)
    })
}

/// An id for each workflow, and for each of its jobs.
struct WorkflowIds {
    ids: BTreeMap<String, (String, BTreeMap<String, String>)>,
}

impl WorkflowIds {
    fn new(chosen: &[Chosen]) -> Self {
        let fresh = || uuid::Uuid::new_v4().to_string();
        let jobs = |chosen: &Chosen| chosen.workflow.jobs.iter().map(|job| (job.name.clone(), fresh())).collect();
        Self { ids: chosen.iter().map(|it| (it.workflow.name.clone(), (fresh(), jobs(it)))).collect() }
    }

    fn workflow(&self, name: &str) -> String {
        self.ids.get(name).map(|(id, _)| id.clone()).unwrap_or_default()
    }

    fn job(&self, workflow: &str, job: &str) -> String {
        self.ids.get(workflow).and_then(|(_, jobs)| jobs.get(job)).cloned().unwrap_or_default()
    }
}

/// Processors and memory of this machine.
pub fn this_machine() -> Size {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    Size { millicpus: cpus * 1000, memory: kib.unwrap_or(4_u64 << 20) << 10 }
}
