//! `navvy retry`: a held task goes on in the same environment, to a new verdict.
//!
//! ```text
//! held ─▶ note ─▶ (config again) ─▶ from which step ─▶ adopt ─▶ resume ─▶ summary, exit code
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use navvy_checkout::CheckoutSource;
use navvy_checkout::WorkingTree;
use navvy_checkout::variables::{pipeline_numbers, pipeline_values};
use navvy_environment::request::IDLE_LIMIT;
use navvy_environment::request::PullPolicy;
use navvy_environment::survey::now;
use navvy_job::compiled::Job;
use navvy_job::event::{Event, TaskRef};
use navvy_job::pipeline::WorkflowJobKind;
use navvy_job::walk::{Gathered, gather};
use navvy_journal::HeldStep;
use navvy_output::DiskFloor;
use navvy_results::Timings;

use super::args::SourceArgs;
use super::args::run::RetryArgs;
use super::held::Held;
use super::host;
use super::run::show::{Opening, Show};
use super::run::{ending, floor, plan};
use super::source::{ConfigFile, STDIN, compile, facts, inputs, orb_path};
use super::store;
use super::{CliError, machines, own_words};
use crate::bus;
use crate::environment::{Adopted, HoldError, Providers};
use crate::pipeline::{Ended, Finished, Removals, localise};
use crate::run_directory::RunDirectory;
use crate::run_store::RunStore;
use crate::settings::Settings;
use crate::spool::Spool;
use crate::step::handing::{Handing, RemoteDocker};
use crate::task::{self, Context, HoldPolicy, Note, Resumed, TaskResult, is_step};

pub fn run(settings: &Settings, arguments: &RetryArgs) -> Result<u8, CliError> {
    host::block_on(async {
        let mut held = Held::find(settings, &arguments.task, arguments.docker.as_deref()).await?;
        let mut notes = Vec::new();
        if arguments.with_edits {
            take_edits(settings, &mut held.note, arguments.from.is_some(), &mut notes)?;
        }
        let from = first_step(&held.note, arguments.from.as_deref())?;
        go_on(settings, arguments, held, from, notes).await
    })
}

/// The step to go on from, from 1.
fn first_step(note: &Note, word: Option<&str>) -> Result<usize, CliError> {
    let steps = &note.claim.job.steps;
    let Some(word) = word else { return Ok(note.step) };
    let found = steps.iter().enumerate().find(|(index, step)| is_step(word, index + 1, &step.name));
    found.map(|(index, _)| index + 1).ok_or_else(|| {
        let list: Vec<String> =
            steps.iter().enumerate().map(|(index, step)| format!("{}. {}", index + 1, step.name)).collect();
        CliError::usage(format!("--from {word}: job {} has no such step", note.claim.job_name))
            .hint(format!("It has: {}", list.join(", ")))
    })
}

/// Compiles the config as it is now and takes the job's steps from it; looks for the step that it is held at unless
/// another one `is_named`.
fn take_edits(settings: &Settings, note: &mut Note, is_named: bool, notes: &mut Vec<String>) -> Result<(), CliError> {
    let job = compile_again(settings, note)?;
    if !is_named {
        note.step = held_step(note, &job, notes)?;
    }
    if job.executor != note.claim.job.executor {
        notes.push("the job asks for another environment now; the held one is as it was made".to_owned());
    }
    note.claim.job = Job { executor: note.claim.job.executor.clone(), ..job };
    Ok(())
}

/// The step that it is held at, by its name, else by its number, in the job as it is now.
fn held_step(note: &Note, job: &Job, notes: &mut Vec<String>) -> Result<usize, CliError> {
    let old = note.held_at().map(|step| step.name.clone()).unwrap_or_default();
    let fits = |number: usize| job.steps.get(number - 1).is_some_and(|step| step.name == old);
    let nearest = (1..=job.steps.len()).filter(|number| fits(*number)).min_by_key(|n| n.abs_diff(note.step));
    match nearest {
        Some(number) => Ok(number),
        None if note.step <= job.steps.len() => {
            notes.push(format!("step {} was {old}; it has another name now", note.step));
            Ok(note.step)
        }
        None => {
            let (name, count) = (&note.claim.job_name, job.steps.len());
            Err(CliError::usage(format!("job {name} has no step {old} any more, and only {count} steps"))
                .hint("Name the step to go on from: --from STEP."))
        }
    }
}

fn compile_again(settings: &Settings, note: &Note) -> Result<Job, CliError> {
    let source = &note.source;
    if source.file.as_os_str() == STDIN {
        return Err(CliError::usage(
            "--with-edits: the run's config came from standard input, and cannot be read again",
        )
        .hint("Without --with-edits the job continues with its steps as they were."));
    }
    let file = ConfigFile::of_project(settings, &source.file, &source.project)?;
    let words = SourceArgs {
        file: Some(source.file.clone()),
        parameters: source.parameters.clone(),
        branch: source.branch.clone(),
        tag: source.tag.clone(),
        allow_missing_orbs: Some(source.allow_missing_orbs),
    };
    let facts = facts(settings, &file, &words)?;
    let mut values: BTreeMap<_, _> = pipeline_values(&facts);
    values.extend(pipeline_numbers(&plan::Identity::new().pipeline, plan::PIPELINE_NUMBER));
    let pipeline = compile(&file, &inputs(&words, orb_path(settings, &file)?, &facts, values)?)?;
    let (workflow, job) = (&note.reference.job.workflow, &note.reference.job.job);
    let workflows = pipeline.workflows.iter().filter(|known| known.name == *workflow && !known.flawed);
    let found = workflows.flat_map(|workflow| &workflow.jobs).find(|known| known.name == *job);
    let Some(WorkflowJobKind::Build { job: build }) = found.map(|found| &found.kind) else {
        return Err(CliError::config(format!("{}: workflow {workflow} has no job {job} any more", file.name)));
    };
    let vms = machines::vms(settings)?;
    let replacements = plan::replacements(&source.images, source.machine_as.as_ref(), vms)?;
    let local = localise(build, &replacements);
    local.map(|local| local.job).map_err(|needs| CliError::config(format!("job {job} needs {needs} now")))
}

async fn go_on(
    settings: &Settings,
    arguments: &RetryArgs,
    held: Held,
    from: usize,
    notes: Vec<String>,
) -> Result<u8, CliError> {
    let started = Instant::now();
    // A task that is ours and cannot be resumed would be removed with us.
    RunDirectory::check(&settings.paths.state).map_err(|error| host::no_log_directory(settings, &error))?;
    let floor = floor(settings, arguments.disk_floor)?;
    let store = store::chosen(settings, held.note.source.store.as_deref())?;
    let providers = held.providers(settings, arguments.docker.as_deref()).await?;
    // Nothing is made before the task is ours.
    let adopted = adopt(settings, &providers, &held, from).await?;
    let remote_docker = machines::remote_docker(&machines::vms(settings)?, plan::this_machine());
    let means = Means { providers, floor, store, remote_docker };
    let directory = RunDirectory::create(&settings.paths.state, plan::Identity::new().random())
        .map_err(|error| host::no_log_directory(settings, &error))?;
    let task_directory = directory.task(&held.note.claim.task);
    let task_directory = task_directory.map_err(|error| host::no_log_directory(settings, &error))?;
    let docker = arguments.docker.as_deref();
    let show = Opening { settings, view: &arguments.view, docker, directory, stage: None };
    let show = show.open(&held.note.masked)?;
    show.started(first_events(&held.note, &show.directory, &notes));
    let context = context(settings, arguments, &held, means, &show, task_directory);
    let Held { note, link, .. } = held;
    let reference = note.reference.clone();
    let (result, removal) = task::resume(Resumed { note, adopted, link, from }, context).await;
    show.stop.jobs_are_over();
    let mut finished = finished(reference, result, &show.bus);
    let mut removals = Removals::new(show.bus.clone());
    removal.into_iter().for_each(|removal| removals.begin(removal));
    finished.leftovers = removals.finish(show.stop.receiver()).await;
    let summary = ending::summary(finished, false, &show.directory, notes, started.elapsed());
    show.close(summary, &[])
}

async fn adopt(settings: &Settings, providers: &Providers, held: &Held, from: usize) -> Result<Adopted, CliError> {
    let note = &held.note;
    let time = note.claim.limits.job + note.time();
    let step = HeldStep { number: from, name: own_words::masked(name_of(note, from)).into_owned() };
    let until = now() + time.as_secs();
    let provider = providers.of_known(&held.known);
    let adopted = provider.adopt_task(&note.claim.task, until, step, &held.here, &settings.paths).await;
    adopted.map_err(|error| not_ours(note, error))
}

/// What the rest of the task is carried out with.
struct Means {
    providers: Providers,
    remote_docker: Result<RemoteDocker, String>,
    floor: DiskFloor,
    store: RunStore,
}

fn context(
    settings: &Settings,
    arguments: &RetryArgs,
    held: &Held,
    means: Means,
    show: &Show<'_>,
    directory: PathBuf,
) -> Context {
    let Means { providers, floor, store, remote_docker } = means;
    let note = &held.note;
    let file = note.source.file.file_name();
    Context {
        providers,
        bus: show.bus.clone(),
        feed: show.feed,
        directory,
        paths: Arc::new(settings.paths.clone()),
        owner: held.here.clone(),
        checkout: checkout(settings, note),
        pull: PullPolicy::Never,
        no_tty: note.no_tty,
        config_name: file.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        floor,
        // The environment was told its own when it was made.
        cgroup: None,
        idle_limit: IDLE_LIMIT,
        stop: show.stop.receiver(),
        store,
        secrets_in_artifacts: note.source.secrets_in_artifacts,
        handing: handing(settings, note),
        // The environment was given its own when it was made.
        egress: Arc::default(),
        remote_docker: Arc::new(remote_docker),
        timings: Timings::default(),
        spool: Spool::default(),
        leaving: None,
        hold: Arc::new(HoldPolicy {
            on_fail: Some(arguments.keep.unwrap_or(note.time())),
            source: note.source.clone(),
            masked: note.masked.clone(),
            ..HoldPolicy::default()
        }),
    }
}

fn name_of(note: &Note, step: usize) -> &str {
    note.claim.job.steps.get(step - 1).map(|step| step.name.as_str()).unwrap_or_default()
}

fn not_ours(note: &Note, error: HoldError) -> CliError {
    let (task, job) = (&note.claim.task, &note.claim.job_name);
    match error.is_busy() {
        true => CliError::usage(format!("task {task} ({job}) is being retried by another process"))
            .hint("`navvy ps` tells which."),
        false => error.into(),
    }
}

fn first_events(note: &Note, directory: &RunDirectory, notes: &[String]) -> Vec<Event> {
    let run = Event::RunStarted {
        logs: directory.path().to_owned(),
        config: note.source.file.clone(),
        jobs: vec![note.reference.job.clone()],
    };
    let task = Event::TaskStarted {
        task: note.reference.clone(),
        image: Some("the held environment".to_owned()),
        resource_class: note.claim.job.resource_class.clone().unwrap_or_else(|| "as before".to_owned()),
        size: note.claim.limits.size,
        steps: note.claim.job.steps.iter().map(|step| step.name.clone()).collect(),
    };
    let warning = |message: &String| Event::Warning { task: Some(note.reference.clone()), message: message.clone() };
    [run, task].into_iter().chain(notes.iter().map(warning)).collect()
}

fn checkout(settings: &Settings, note: &Note) -> CheckoutSource {
    if note.source.checkout_git {
        return CheckoutSource::Git;
    }
    match WorkingTree::open(&note.source.project, settings.elsewhere) {
        Ok(tree) => CheckoutSource::WorkingTree(Arc::new(tree)),
        Err(error) => CheckoutSource::Unavailable(navvy_job::chain::chain(&error)),
    }
}

/// What the run was asked to hand out: the ssh-agent is that of the user who retries.
fn handing(settings: &Settings, note: &Note) -> Handing {
    let Handing { docker, ssh_agent } = note.source.handing.clone();
    let ours = settings.get(plan::AGENT_SOCKET).filter(|socket| !socket.is_empty()).map(std::path::PathBuf::from);
    Handing { docker, ssh_agent: ssh_agent.map(|named| ours.unwrap_or(named)) }
}

fn finished(reference: TaskRef, result: TaskResult, bus: &bus::Bus) -> Finished {
    let Ended { end, continuation: _, fidelity, repeated } = result.into();
    let Gathered { run_end, summary, .. } = gather(reference.job.clone(), &[end]);
    bus.send(Event::JobEnded { job: reference.job.clone(), end: summary.end.clone() });
    let mut finished = Finished { end: run_end, warnings: repeated, ..Finished::default() };
    for note in fidelity {
        finished.fidelity.add_of(&reference.job.job, note);
    }
    finished.fidelity.add(format!("jobs that require {} were not run; `navvy run` runs them", reference.job.job));
    finished.jobs.push(summary);
    finished
}

#[cfg(test)]
mod tests {
    use navvy_job::outcome::Verdict;

    use super::*;
    use navvy_job::event::{JobRef, TaskRef};
    use navvy_output::mask::Masks;

    #[test]
    fn warnings_that_the_report_repeats_are_in_the_summary_of_a_retry() {
        let reference = TaskRef {
            task: "0123456789abcdef".parse().unwrap(),
            job: JobRef { workflow: "main".into(), job: "unit".into() },
            node_index: 0,
            node_total: 1,
        };
        let result = TaskResult { repeated: vec!["unit: no tests".into()], ..TaskResult::new(Verdict::Passed) };
        let (bus, _events) = bus::channel(Masks::new(&[]));
        assert_eq!(finished(reference, result, &bus).warnings, ["unit: no tests"]);
    }
}
