//! `navvy run`: from words to a plan, from the plan's end to an exit code.
//!
//! ```text
//! config ─▶ pipeline ─▶ choose ─▶ plan ─▶ Runner ─▶ Finished ─▶ summary, exit code
//!              └─ --list, --graph, --dry-run end here
//! ```

mod approvals;
mod ending;
mod inspect;
mod plan;
mod signals;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use navvy_config::Inputs;
use navvy_job::pipeline::Pipeline;
use navvy_job::resource::Size;

use super::args::{CheckoutMode, Color, RunArgs};
use super::source::{ConfigFile, compile, facts, inputs};
use super::view::Viewer;
use super::{CliError, own_words};
use crate::bus::{self, Bus};
use crate::checkout::variables::{pipeline_numbers, pipeline_values};
use crate::checkout::{GitFacts, WorkingTree};
use crate::environment::docker::Engine;
use crate::environment::endpoint;
use crate::environment::owner::Owner;
use crate::event::Event;
use crate::output::{self, Feed, RunDirectory};
use crate::pipeline::{Chosen, Runner, choose};
use crate::settings::Settings;
use crate::task::{CheckoutSource, Context};
use crate::ui::{self, Kind};

pub fn run(settings: &Settings, arguments: RunArgs) -> Result<u8, CliError> {
    let here = std::env::current_dir().map_err(|error| CliError::infra(&error))?;
    let file = ConfigFile::find(arguments.source.file.as_deref(), &here)?;
    let facts = facts(&file)?;
    let identity = plan::Identity::new();
    let mut values = pipeline_values(&facts);
    values.extend(pipeline_numbers(&identity.pipeline, plan::PIPELINE_NUMBER));
    let inputs = inputs(&arguments.source, &facts, values)?;
    let pipeline = compile(&file, &inputs)?;
    let replacements = plan::replacements(&arguments)?;
    if let Some(text) = inspect::before_choosing(&arguments, &pipeline, &replacements) {
        return print(&text);
    }
    let chosen = choose(&pipeline, &plan::wanted(&arguments)).map_err(|error| CliError::config(error.to_string()))?;
    if arguments.dry_run {
        return print(&inspect::dry_run(&chosen, &replacements));
    }
    let session = Session { settings, arguments: &arguments, file: &file, facts: &facts, inputs, identity };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(64)
        .build()
        .map_err(|error| CliError::infra(&error))?;
    runtime.block_on(session.carry_out(&pipeline, chosen, replacements))
}

fn print(text: &str) -> Result<u8, CliError> {
    // A reader that has seen enough (`| head`) is no error.
    std::io::stdout().lock().write_all(text.as_bytes()).ok();
    Ok(navvy_job::exit_code::PASSED)
}

/// One invocation.
struct Session<'a> {
    settings: &'a Settings,
    arguments: &'a RunArgs,
    file: &'a ConfigFile,
    facts: &'a GitFacts,
    inputs: Inputs,
    identity: plan::Identity,
}

impl Session<'_> {
    async fn carry_out(
        self,
        pipeline: &Pipeline,
        chosen: Vec<Chosen>,
        replacements: crate::pipeline::Replacements,
    ) -> Result<u8, CliError> {
        let engine = if plan::needs_engine(&chosen, &replacements) { Some(self.connect().await?) } else { None };
        let machine = self.machine(engine.as_ref()).await?;
        let directory = RunDirectory::create(&self.settings.paths.state, self.identity.random())
            .map_err(|error| CliError::infra(&error))?;
        let (mut plan, warnings) = plan::build(&self, chosen, replacements, machine, &directory)?;
        let stop = signals::watch()?;
        let masks = plan.masks();
        own_words::mask_with(&masks);
        let (bus, events) = bus::channel(masks.clone());
        let (kind, writer) = self.view();
        let options = self.options(kind);
        let viewer = Viewer::start(events, kind, options, writer, directory.events())
            .map_err(|error| CliError::infra(&error))?;
        plan.approvals = approvals::approvals(self.arguments, self.settings.stdin_is_terminal);
        let owner = Owner::this_process().map_err(|error| CliError::infra(&error))?;
        let context = engine.as_ref().map(|engine| self.context(engine, &bus, &directory, kind, &stop, owner));
        let reaper = engine.as_ref().map(|engine| self.reap(engine));
        let runner = Runner::new(plan, context, bus.clone(), directory.clone(), stop.receiver());
        bus.send(Event::RunStarted {
            logs: directory.path().to_owned(),
            config: self.file.path.clone(),
            jobs: runner.job_references(),
        });
        for message in &warnings {
            bus.send(Event::Warning { task: None, message: message.clone() });
        }
        if let Some(message) = plan::not_masked(&masks) {
            bus.send(Event::Warning { task: None, message });
        }
        stop.lift_back_pressure(bus.clone());
        let started = std::time::Instant::now();
        let finished = runner.run().await;
        if let Some(reaper) = reaper {
            // It had the whole run's time.
            tokio::time::timeout(REAP_LIMIT, reaper).await.ok();
        }
        let mut summary = ending::summary(finished, pipeline, &directory, warnings, started.elapsed());
        summary.secrets = self.arguments.secrets_report.then(|| masks.report());
        let code = summary.exit_code;
        bus.send(Event::RunEnded(Box::new(summary)));
        drop(bus);
        stop.finish();
        let trouble = viewer.join();
        if let Some(trouble) = trouble {
            tracing::warn!("{trouble}.");
        }
        output::retain(&self.settings.paths.state);
        Ok(code)
    }

    /// Removes what dead owners left on this host, beside the run.
    fn reap(&self, engine: &Engine) -> tokio::task::JoinHandle<()> {
        let (engine, paths) = (engine.clone(), self.settings.paths.clone());
        tokio::spawn(async move {
            let Ok(here) = Owner::this_process() else { return };
            for left in engine.reap(&here, &paths, REAP_LIMIT).await {
                tracing::warn!("{left} was left by a run that is dead, and could not be removed.");
            }
        })
    }

    async fn connect(&self) -> Result<Engine, CliError> {
        let inputs = endpoint::Inputs {
            flag: self.arguments.docker.as_deref(),
            environment: &self.settings.variables,
            home: self.settings.home.as_deref(),
            files: &endpoint::RealFiles,
        };
        let found = endpoint::find(&inputs).map_err(|error| CliError::docker(&error))?;
        Engine::connect(found).await.map_err(|error| CliError::docker(&error))
    }

    /// The machine that tasks share: this one, or the engine's where that is another.
    async fn machine(&self, engine: Option<&Engine>) -> Result<Size, CliError> {
        match engine {
            Some(engine) if !engine.endpoint().looks_local() => {
                let info = engine.info().await.map_err(|error| CliError::docker(&error))?;
                Ok(Size { millicpus: info.cpus * 1000, memory: info.memory })
            }
            _ => Ok(plan::this_machine()),
        }
    }

    fn context(
        &self,
        engine: &Engine,
        bus: &Bus,
        directory: &RunDirectory,
        kind: Kind,
        stop: &signals::StopWatch,
        owner: Owner,
    ) -> Context {
        Context {
            engine: engine.clone(),
            bus: bus.clone(),
            feed: self.feed(kind),
            directory: directory.path().to_owned(),
            paths: Arc::new(self.settings.paths.clone()),
            owner,
            checkout: self.checkout(),
            pull: self.arguments.pull.into(),
            no_tty: self.arguments.no_tty,
            config_name: self.file.name.clone(),
            stop: stop.receiver(),
        }
    }

    fn checkout(&self) -> CheckoutSource {
        match self.arguments.checkout {
            CheckoutMode::Git => CheckoutSource::Git,
            CheckoutMode::Copy => match WorkingTree::open(&self.file.project()) {
                Ok(tree) => CheckoutSource::WorkingTree(Arc::new(tree)),
                Err(error) => CheckoutSource::Unavailable(crate::chain::chain(&error)),
            },
        }
    }

    /// Which view, and where it is drawn. A live view goes to stderr; lines and events go to stdout.
    fn view(&self) -> (Kind, Box<dyn Write + Send>) {
        let arguments = self.arguments;
        let dumb = self.settings.get("TERM").is_none_or(|term| term == "dumb");
        let live = self.settings.stdout_is_terminal && self.settings.stderr_is_terminal && !dumb;
        match () {
            () if arguments.json => (Kind::Json, Box::new(std::io::stdout())),
            () if arguments.quiet => (Kind::Quiet, Box::new(std::io::stdout())),
            () if live && !arguments.plain => (Kind::Live, Box::new(std::io::stderr())),
            () => (Kind::Plain, Box::new(std::io::stdout())),
        }
    }

    fn options(&self, kind: Kind) -> ui::Options {
        let terminal =
            if kind == Kind::Live { self.settings.stderr_is_terminal } else { self.settings.stdout_is_terminal };
        let color = match self.arguments.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && self.settings.wants_color(),
        };
        let size = if terminal { ui::stderr_size } else { no_size };
        ui::Options { color, size, show_output: self.arguments.verbose }
    }

    fn feed(&self, kind: Kind) -> Feed {
        match kind {
            Kind::Quiet => Feed::Nothing,
            Kind::Live if !self.arguments.verbose => Feed::Tail,
            _ => Feed::All,
        }
    }
}

/// What dead runs left is removed within this, or the next run tries again.
const REAP_LIMIT: Duration = Duration::from_secs(10);

fn no_size() -> Option<ui::Size> {
    None
}
