//! The command line: one file a command. Turns words into values, errors into advice and exit codes.

use navvy_ui::sanitize::tame;

mod agent;
mod args;
mod artifacts;
mod cache;
mod cache_explain;
mod completions;
mod config;
mod contexts;
mod doctor;
mod error;
mod fleet;
mod follow;
mod given;
mod handed;
mod held;
mod host;
mod host_check;
mod idle_code;
mod image;
mod login;
mod logs;
mod machines;
mod nomad_config;
mod orb;
mod out;
mod own_words;
mod panicked;
mod pipelines;
mod processor;
mod prune;
mod ps;
mod retry;
mod rm;
mod run;
mod runner;
mod runner_token;
mod running;
mod scheduled;
mod shell;
mod source;
mod store;
mod submit;
mod tests;
mod view;
mod vm_pool;

use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};

use clap::Parser as _;
use navvy_job::exit_code;
use tracing::level_filters::LevelFilter;

use args::host::HostCommand;
use args::{Cli, Command};
pub use error::CliError;

use crate::settings::Settings;

/// Carries out a command line; returns the process's exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    log_to_stderr(usual_level(&cli.command));
    own_words::keep_panics_readable();
    let settings = Settings { elsewhere: cli.elsewhere(), ..Settings::from_process() };
    let docker = makes_tasks(&cli.command);
    let code = ended(panicked::caught(&settings, docker, || carry_out(&settings, cli.command)));
    own_words::settle();
    code
}

/// The exit code; an error is printed.
fn ended(done: Result<u8, CliError>) -> u8 {
    done.unwrap_or_else(|error| {
        report(&error);
        error.exit_code()
    })
}

/// How the engine is reached, of a command that makes something there.
fn makes_tasks(command: &Command) -> Option<Option<String>> {
    match command {
        Command::Run(arguments) => Some(arguments.docker.clone()),
        Command::Retry(arguments) => Some(arguments.docker.clone()),
        Command::Agent(arguments) => Some(arguments.machine.docker.clone()),
        Command::Runner(arguments) => Some(arguments.machine.docker.clone()),
        _ => None,
    }
}

fn carry_out(settings: &Settings, command: Command) -> Result<u8, CliError> {
    match command {
        Command::Run(arguments) => run::run(settings, *arguments),
        Command::Shell(arguments) => shell::run(settings, &arguments),
        Command::Retry(arguments) => retry::run(settings, &arguments),
        Command::Config(arguments) => config::run(settings, arguments),
        Command::Orb(arguments) => orb::run(settings, arguments),
        Command::Ps(arguments) => ps::run(settings, &arguments),
        Command::Artifacts(arguments) => artifacts::run(settings, &arguments),
        Command::Cache(arguments) => cache::run(settings, &arguments),
        Command::Prune(arguments) => prune::run(settings, &arguments),
        Command::Rm(arguments) => rm::run(settings, &arguments),
        Command::Logs(arguments) => logs::run(settings, &arguments),
        Command::Tests(arguments) => tests::run(settings, &arguments),
        Command::Login(arguments) => login::run(settings, &arguments),
        Command::Logout => login::forget(settings),
        Command::Submit(arguments) => submit::run(settings, *arguments),
        Command::Follow(arguments) => follow::run(settings, &arguments),
        Command::Pipelines(arguments) => pipelines::run(settings, arguments.command),
        Command::Context(arguments) => contexts::run(settings, arguments.command),
        Command::Project(arguments) => contexts::run_project(settings, arguments.command),
        Command::RunnerToken(arguments) => runner_token::run(settings, &arguments),
        Command::Doctor(arguments) => doctor::run(settings, &arguments),
        Command::Host(arguments) => match arguments.command {
            HostCommand::Check(arguments) => host_check::run(settings, &arguments),
            HostCommand::NomadConfig(arguments) => nomad_config::run(settings, &arguments),
        },
        Command::Image(arguments) => image::run(settings, arguments),
        Command::VmPool(arguments) => vm_pool::run(settings, arguments),
        Command::Agent(arguments) => agent::run(settings, &arguments),
        Command::Runner(arguments) => runner::run(settings, &arguments),
        Command::Completions(arguments) => completions::run(&arguments),
    }
}

/// `--help` and `--version` are no errors; anything else is.
fn usage(error: &clap::Error) -> u8 {
    if error.use_stderr() {
        // When this fails, there is nowhere left to report it.
        error.print().ok();
        return exit_code::USAGE;
    }
    ended(out::written(error.print().and_then(|()| std::io::stdout().flush())).map(|()| exit_code::PASSED))
}

fn report(error: &CliError) {
    // It may quote a config, an engine or a registry.
    own_words::say(tame(&own_words::masked(&error.render()), false).as_bytes());
}

/// A scheduler shows its agent's log to people who ask what becomes of a task.
fn usual_level(command: &Command) -> LevelFilter {
    match command {
        Command::Agent(arguments) if arguments.scheduled.is_some() => LevelFilter::INFO,
        // It is a service: its log is all that is seen of it.
        Command::VmPool(arguments) if arguments.serves() => LevelFilter::INFO,
        _ => LevelFilter::WARN,
    }
}

/// `NAVVY_LOG=debug` shows what the program itself does.
fn log_to_stderr(usual: LevelFilter) {
    let builder =
        || tracing_subscriber::EnvFilter::builder().with_default_directive(usual.into()).with_env_var("NAVVY_LOG");
    // The library's own words about a wrong filter, or about a line that could not be written, panic where standard error
    // takes nothing (a full disk).
    let (filter, wrong) = match builder().try_from_env() {
        Ok(filter) => (filter, None),
        Err(error) => (builder().parse_lossy(""), std::env::var_os("NAVVY_LOG").map(|_| error)),
    };
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(own_words::stderr);
    let ansi = std::io::stderr().is_terminal();
    subscriber.log_internal_errors(false).with_ansi(ansi).with_target(false).init();
    if let Some(error) = wrong {
        tracing::warn!("NAVVY_LOG is not understood, and counts as not set: {error}.");
    }
}
