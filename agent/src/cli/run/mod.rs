//! `navvy run`: from words to a plan, from the plan's end to an exit code.
//!
//! ```text
//! config ─▶ pipeline ─▶ choose ─▶ plan ─▶ PipelineRun ─▶ Finished ─▶ removals ─▶ summary, exit code
//!              └─ --list, --graph, --dry-run end here
//! ```

mod approvals;
mod continuing;
pub(super) mod ending;
pub(super) mod forced;
pub(super) mod inspect;
mod names;
pub(super) mod plan;
pub(super) mod show;
pub(super) mod signals;

use std::sync::Arc;
use std::time::{Duration, Instant};

use continuing::Continuing;
use names::Unknown;
use navvy_checkout::CheckoutSource;
use navvy_checkout::variables::{pipeline_numbers, pipeline_values};
use navvy_checkout::{GitFacts, WorkingTree};
use navvy_config::Inputs;
use navvy_docker::Engine;
use navvy_environment::HostPaths;
use navvy_environment::egress::Egress;
use navvy_environment::request::IDLE_LIMIT;
use navvy_environment::survey::survey_files;
use navvy_job::chain::chain;
use navvy_job::event::{Event, JobRef, Summary};
use navvy_job::figures;
use navvy_job::outcome::{Blame, RunEnd};
use navvy_job::pipeline::Pipeline;
use navvy_job::resource::Size;
use navvy_job::selection::{Chosen, Wanted};
use navvy_journal::owner::Owner;
use navvy_journal::standing::Condition;
use navvy_output::DiskFloor;
use navvy_results::Timings;
use show::{Opening, Show};

use super::args::parse_duration;
use super::args::run::{CheckoutMode, RunArgs};
use super::handed::{Desk, Handed, Users};
use super::host;
use super::source::{ConfigFile, compile, facts, inputs, orb_path, settings_files};
use super::{CliError, machines, out, store};
use crate::environment::Providers;
use crate::oom;
use crate::pipeline::{Finished, PipelineRun, Removals, Replacements, secrets_of_proxies};
use crate::run_directory::RunDirectory;
use crate::run_store::RunStore;
use crate::settings::Settings;
use crate::settings::file::SettingsFiles;
use crate::spool::Spool;
use crate::step::handing::RemoteDocker;
use crate::task::{BreakPoint, Context, HoldPolicy};
use crate::terminal::Stage;
use navvy_job::figures::read_size;

pub fn run(settings: &Settings, mut arguments: RunArgs) -> Result<u8, CliError> {
    if arguments.shell_on_fail && !(settings.stdin_is_terminal && settings.stdout_is_terminal) {
        let hint = "`--keep-on-fail` keeps the environment for a `navvy shell` later.";
        return Err(CliError::usage("--shell-on-fail needs a terminal").hint(hint));
    }
    let file = ConfigFile::find(arguments.source.file.as_deref(), settings.here()?)?;
    let files = settings_files(settings, &file)?;
    let images = arguments.images.clone();
    arguments.fill_in(&files);
    let facts = facts(settings, &file, &arguments.source)?;
    let identity = plan::Identity::new();
    let mut values = pipeline_values(&facts);
    values.extend(pipeline_numbers(&identity.pipeline, plan::PIPELINE_NUMBER));
    let inputs = inputs(&arguments.source, orb_path(settings, &file)?, &facts, values)?;
    let pipeline = compile(&file, &inputs)?;
    let vms = machines::vms_of_run(settings)?;
    let replacements = plan::replacements(&arguments.images, arguments.machine_as.as_ref(), vms)?;
    let unknown = names::unknown(&arguments, &images, &pipeline)?;
    // What a setup pipeline continues with is not known yet: names and steps may be in there.
    if !pipeline.setup {
        names::refuse(&unknown)?;
    }
    let wanted = plan::wanted(&arguments);
    if arguments.list || arguments.graph.is_some() {
        let shown = plan::shown(&pipeline, &wanted)?;
        if !pipeline.setup {
            plan::check_break_points(&arguments, shown.workflows.iter().flat_map(|workflow| &workflow.jobs))?;
        }
        return print(&inspect::shown(&arguments, &shown, &replacements));
    }
    let no_branch = plan::no_branch(&facts, &pipeline, &wanted);
    let (chosen, later) = plan::choose(&pipeline, &wanted, no_branch.as_deref())?;
    if !pipeline.setup {
        plan::check_break_points(&arguments, chosen.iter().flat_map(plan::takes_part))?;
    }
    if arguments.dry_run {
        return print(&inspect::dry_run(&chosen, &replacements));
    }
    plan::check_agent(&arguments, settings)?;
    let desk = Desk::new(settings, &files, &file, &facts, &arguments.scope)?.asking(!arguments.view.json);
    let handed = plan::hand_out(&desk, settings, &arguments, &chosen, pipeline.setup)?;
    let floor = floor(settings, arguments.disk_floor)?;
    let store = store::chosen(settings, arguments.store.as_deref())?;
    let session = Session {
        settings,
        arguments: &arguments,
        images: &images,
        file: &file,
        files: &files,
        facts: &facts,
        inputs,
        identity,
        handed,
        floor,
        idle_limit: idle_limit(settings)?,
        store,
        later,
        unknown,
        no_branch,
    };
    host::finish(host::runtime()?, session.carry_out(&pipeline, chosen, replacements))
}

fn print(text: &str) -> Result<u8, CliError> {
    out::print(&navvy_ui::sanitize::tame(text, true))?;
    Ok(navvy_job::exit_code::PASSED)
}

/// One invocation.
struct Session<'a> {
    settings: &'a Settings,
    arguments: &'a RunArgs,
    /// `FROM=TO` of the command line alone.
    images: &'a [String],
    file: &'a ConfigFile,
    files: &'a SettingsFiles,
    facts: &'a GitFacts,
    inputs: Inputs,
    identity: plan::Identity,
    /// What jobs get of the user's own.
    handed: Handed,
    floor: DiskFloor,
    idle_limit: Duration,
    store: RunStore,
    /// What to choose from a continuation, if one is to be carried out.
    later: Option<Wanted>,
    /// Names of the command line that a setup config has not.
    unknown: Vec<Unknown>,
    /// What is not run for want of a branch.
    no_branch: Option<String>,
}

/// Where jobs run, and what they reach from there.
struct Site {
    /// The engine is `None` where no job of the plan needs one.
    providers: Providers,
    egress: Arc<Egress>,
    /// What `setup_remote_docker` gives, or why nothing.
    remote_docker: Arc<Result<RemoteDocker, String>>,
    /// What the tasks share.
    machine: Size,
    owner: Owner,
}

impl Session<'_> {
    async fn carry_out(
        self,
        pipeline: &Pipeline,
        chosen: Vec<Chosen>,
        replacements: Replacements,
    ) -> Result<u8, CliError> {
        let (site, of_site) = self.site(&chosen, &replacements).await?;
        let directory = RunDirectory::create(&self.settings.paths.state, self.identity.random())
            .map_err(|error| host::no_log_directory(self.settings, &error))?;
        let users = plan::context_users(&chosen);
        let not_accepted = plan::not_accepted(self.facts, &self.arguments.scope, &chosen);
        let (mut plan, mut warnings) =
            plan::build(&self, chosen, replacements.clone(), site.machine, &directory, pipeline.setup)?;
        warnings.extend(of_site.into_iter().chain(self.no_branch.clone()).chain(not_accepted));
        let (mut masked, not_secret) = plan.masked();
        masked.extend(secrets_of_proxies(site.egress.variables().all()));
        let stage = self.arguments.shell_on_fail.then(Stage::default);
        let show = self.opening(directory, stage.clone()).open(&masked)?;
        plan.approvals = approvals::approvals(self.arguments, self.settings.stdin_is_terminal);
        let context = self.context(&site, &show, HoldPolicy { masked, ..self.hold(stage) });
        let pipeline_run =
            PipelineRun::new(plan, context, show.bus.clone(), show.directory.clone(), show.stop.receiver());
        self.announce(&show, pipeline_run.job_references(), &warnings, &not_secret);
        let (started, reaper) = (Instant::now(), reap(&site.providers, &self.settings.paths));
        let mut continuing = Continuing {
            session: &self,
            directory: &show.directory,
            masks: &show.masks,
            wanted: self.later.clone(),
            replacements,
            has_engine: site.providers.docker.is_some(),
            users,
            told: Vec::new(),
            failed: None,
        };
        let (mut finished, removals) = pipeline_run.run(&mut |continuation| continuing.go_on(continuation)).await;
        let Continuing { told, users, failed, .. } = continuing;
        finished.end = finished.end.max(match failed {
            Some(Blame::Config) => RunEnd::BadConfig,
            Some(_) => RunEnd::Infra,
            None => RunEnd::Passed,
        });
        finished.fidelity.extend(site.egress.notes());
        if !finished.was_continued {
            warnings.extend(names::warnings(&self.unknown));
        }
        self.clear_away(&site, &show, &mut finished, removals).await;
        self.end_reaping(&site, reaper, started.elapsed()).await;
        let mut summary = ending::summary(finished, pipeline.setup, &show.directory, warnings, started.elapsed());
        self.tell_given(&mut summary, &users);
        show.close(summary, &told)
    }

    /// And what the user is to know of it.
    async fn site(
        &self,
        chosen: &[Chosen],
        replacements: &Replacements,
    ) -> Result<(Site, impl Iterator<Item = String> + use<>), CliError> {
        let needs = plan::needs(chosen, replacements);
        let engine = if needs.engine { Some(self.connect().await?) } else { None };
        if needs.engine || needs.machines {
            oom::spare_this_process();
        }
        if let Some(engine) = &engine {
            // A job that cannot have it says why.
            engine.supervisor(&self.settings.paths).ok();
        }
        let risk = plan::risk(self.arguments, engine.as_ref())?;
        let (egress, blocked) = plan::egress(self.arguments, self.settings, engine.as_ref())?;
        let machine = self.machine(engine.as_ref()).await?;
        let owner = Owner::this_process().map_err(|error| CliError::infra(&error))?;
        let machines = Some(host::machines(self.settings)?);
        let providers = Providers::new(engine, machines);
        let remote_docker = Arc::new(machines::remote_docker(&replacements.vms, machine));
        Ok((Site { providers, egress, remote_docker, machine, owner }, risk.into_iter().chain(blocked)))
    }

    fn opening(&self, directory: RunDirectory, stage: Option<Stage>) -> Opening<'_> {
        let RunArgs { view, docker, .. } = self.arguments;
        Opening { settings: self.settings, view, docker: docker.as_deref(), directory, stage }
    }

    fn announce(&self, show: &Show<'_>, jobs: Vec<JobRef>, warnings: &[String], not_secret: &[String]) {
        let logs = show.directory.path().to_owned();
        let started = Event::RunStarted { logs, config: self.file.path.clone(), jobs };
        let of_masks = plan::not_masked(&show.masks).into_iter().chain(plan::not_secret(not_secret));
        let warnings = warnings.iter().cloned().chain(of_masks);
        let warnings = warnings.map(|message| Event::Warning { task: None, message });
        show.started(std::iter::once(started).chain(warnings));
    }

    /// Every job has its verdict: what the run made is removed.
    async fn clear_away(&self, site: &Site, show: &Show<'_>, finished: &mut Finished, removals: Removals) {
        show.stop.jobs_are_over();
        let workspaces = self.remove_workspaces(finished);
        let (leftovers, ()) = tokio::join!(removals.finish(show.stop.receiver()), workspaces);
        finished.leftovers = leftovers;
        if finished.lost {
            let removed = site.providers.remove_own(&site.owner, &self.settings.paths, REAP_LIMIT).await;
            finished.leftovers.extend(removed.left);
        }
    }

    /// The reaper had the whole run's time.
    async fn end_reaping(&self, site: &Site, reaper: tokio::task::JoinHandle<()>, lasted: Duration) {
        tokio::time::timeout(REAP_LIMIT, reaper).await.ok();
        self.reap_again(&site.providers, &site.owner, lasted).await;
    }

    /// Which jobs got what of the user's own.
    fn tell_given(&self, summary: &mut Summary, users: &Users) {
        summary.contexts_given = self.handed.given(users);
        summary.env_files_given = self.handed.env_files.iter().cloned().collect();
    }

    /// No later job attaches them, unless one is held and continues.
    async fn remove_workspaces(&self, finished: &Finished) {
        if finished.jobs.iter().any(|job| !job.held.is_empty()) {
            return;
        }
        let trouble = match tokio::time::timeout(WORKSPACES_LIMIT, self.store.remove_workspaces()).await {
            Ok(removed) => removed.err().map(|error| chain(&error)),
            Err(_) => Some("the store did not answer".to_owned()),
        };
        if let Some(why) = trouble {
            tracing::warn!("The run's workspace could not be removed from the store: {why}.");
        }
    }

    /// Again at the end, for what died meanwhile. Marks and journals tell for nothing whether there is reason to; other
    /// users' tasks are worth a request only after a run that took much longer than that.
    async fn reap_again(&self, providers: &Providers, here: &Owner, lasted: Duration) {
        let paths = &self.settings.paths;
        let files = survey_files(here, paths);
        let has_dead = files.tasks.iter().any(|seen| seen.condition == Condition::Dead);
        if lasted > LONG_RUN || has_dead || !files.troubles.is_empty() {
            let reaped = tokio::time::timeout(REAP_LIMIT, providers.reap(here, paths, REAP_LIMIT)).await;
            let unseen = |_| {
                tracing::warn!(
                    "What dead runs have left was not looked at within {REAP_LIMIT:?}; `navvy prune` does it."
                )
            };
            tell_left(&reaped.map_err(unseen).unwrap_or_default());
        }
    }

    async fn connect(&self) -> Result<Engine, CliError> {
        host::connect(self.settings, self.arguments.docker.as_deref()).await
    }

    /// The machine that tasks share: this one, or the engine's where that is another.
    async fn machine(&self, engine: Option<&Engine>) -> Result<Size, CliError> {
        machine_of(engine).await
    }

    fn context(&self, site: &Site, show: &Show<'_>, hold: HoldPolicy) -> Context {
        Context {
            providers: site.providers.clone(),
            bus: show.bus.clone(),
            feed: show.feed,
            directory: show.directory.path().to_owned(),
            paths: Arc::new(self.settings.paths.clone()),
            owner: site.owner.clone(),
            checkout: self.checkout(),
            pull: self.arguments.pull.into(),
            no_tty: self.arguments.no_tty,
            floor: self.floor,
            cgroup: None,
            idle_limit: self.idle_limit,
            config_name: self.file.name.clone(),
            stop: show.stop.receiver(),
            hold: Arc::new(hold),
            store: self.store.clone(),
            secrets_in_artifacts: self.arguments.secrets_in_artifacts.into(),
            handing: plan::handing(self.arguments, self.settings),
            egress: Arc::clone(&site.egress),
            remote_docker: Arc::clone(&site.remote_docker),
            timings: Timings::default(),
            spool: Spool::default(),
            leaving: None,
        }
    }

    fn hold(&self, stage: Option<Stage>) -> HoldPolicy {
        let arguments = self.arguments;
        HoldPolicy {
            on_fail: arguments.keep_on_fail,
            break_before: arguments.break_before.iter().map(|text| BreakPoint::parse(text)).collect(),
            stage,
            source: plan::source_note(arguments, self.settings, self.file),
            ..HoldPolicy::default()
        }
    }

    fn checkout(&self) -> CheckoutSource {
        match self.arguments.checkout {
            CheckoutMode::Git => CheckoutSource::Git,
            CheckoutMode::Copy => match WorkingTree::open(self.file.project(), self.settings.elsewhere) {
                Ok(tree) => CheckoutSource::WorkingTree(Arc::new(tree)),
                Err(error) => CheckoutSource::Unavailable(navvy_job::chain::chain(&error)),
            },
        }
    }
}

/// What dead runs left is removed within this, or the next run tries again.
const REAP_LIMIT: Duration = Duration::from_secs(10);
/// A run that is over does not wait longer for a store.
const WORKSPACES_LIMIT: Duration = Duration::from_secs(10);
/// After a run of this length the reaper asks the engine again.
const LONG_RUN: Duration = Duration::from_secs(60);

/// Removes what dead owners left on this host, beside what else is done.
pub(super) fn reap(providers: &Providers, paths: &HostPaths) -> tokio::task::JoinHandle<()> {
    let (providers, paths) = (providers.clone(), paths.clone());
    tokio::spawn(async move {
        let Ok(here) = Owner::this_process() else { return };
        tell_left(&providers.reap(&here, &paths, REAP_LIMIT).await);
    })
}

/// The machine that tasks share: this one, or the engine's where that is another.
pub(super) async fn machine_of(engine: Option<&Engine>) -> Result<Size, CliError> {
    match engine {
        Some(engine) if !engine.endpoint().looks_local() => {
            let info = engine.info().await?;
            Ok(Size { millicpus: info.cpus * 1000, memory: info.memory })
        }
        _ => Ok(plan::this_machine()),
    }
}

fn tell_left(left: &[String]) {
    for left in left {
        tracing::warn!("{left} was left by a run that is dead, and could not be removed.");
    }
}

/// The flag's, else `NAVVY_DISK_FLOOR`, else the default.
pub(super) fn floor(settings: &Settings, flag: Option<u64>) -> Result<DiskFloor, CliError> {
    let variable = settings.get(DISK_FLOOR).filter(|text| !text.is_empty()).map(read_size).transpose();
    let variable = variable.map_err(|why| CliError::usage(format!("{DISK_FLOOR}: {why}")))?;
    Ok(flag.or(variable).map_or_else(DiskFloor::default, DiskFloor))
}

const DISK_FLOOR: &str = "NAVVY_DISK_FLOOR";

/// `NAVVY_IDLE_LIMIT`, else the default.
pub(super) fn idle_limit(settings: &Settings) -> Result<Duration, CliError> {
    let text = settings.get(NAME_OF_IDLE_LIMIT).filter(|text| !text.is_empty());
    match text.map(parse_duration).transpose() {
        Ok(limit) if limit.is_some_and(|limit| limit < LEAST_IDLE_LIMIT) => Err(CliError::usage(format!(
            "{NAME_OF_IDLE_LIMIT}: at least {} is needed",
            figures::limit(LEAST_IDLE_LIMIT)
        ))),
        Ok(limit) => Ok(limit.unwrap_or(IDLE_LIMIT)),
        Err(why) => Err(CliError::usage(format!("{NAME_OF_IDLE_LIMIT}: {why}"))),
    }
}

const NAME_OF_IDLE_LIMIT: &str = "NAVVY_IDLE_LIMIT";
/// An agent on a machine that is at its limits is late by seconds.
const LEAST_IDLE_LIMIT: Duration = Duration::from_secs(5);
