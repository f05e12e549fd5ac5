//! The processor: turns words into settings, and errors into exit codes.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use navvy_job::exit_code;
use navvy_processor::settings::{BackupArgs, Cli, Command, ServeArgs, Settings};
use navvy_processor::{backup, serve};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            error.print().ok();
            return ExitCode::from(if error.use_stderr() { exit_code::USAGE } else { exit_code::PASSED });
        }
    };
    log_to_stderr();
    // What is no text cannot be a setting of ours.
    let variables: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refused(&error.to_string(), exit_code::INFRA),
    };
    match cli.command {
        Command::Serve(arguments) => match Settings::gather(&arguments, &variables) {
            Ok(settings) => ended(runtime.block_on(serve::serve(settings))),
            Err(errors) => refused(&errors.to_string(), exit_code::USAGE),
        },
        Command::Backup(arguments) => with_data(&arguments, &variables, |settings| {
            let keys = chained(runtime.block_on(backup::backup(&settings.data, &arguments.directory)))?;
            Ok(backup::told_of_backup(keys.as_deref(), settings.secrets_key.as_deref()))
        }),
        Command::Restore(arguments) => with_data(&arguments, &variables, |settings| {
            let keys = chained(runtime.block_on(backup::restore(&arguments.directory, &settings.data)))?;
            Ok(backup::told_of_restore(keys.as_deref(), settings.secrets_key.as_deref()))
        }),
    }
}

/// Carries out what needs the data directory alone, and says what came of it.
fn with_data(
    arguments: &BackupArgs,
    variables: &BTreeMap<String, String>,
    work: impl FnOnce(&Settings) -> Result<String, String>,
) -> ExitCode {
    let serve = ServeArgs { data: arguments.data.clone(), ..ServeArgs::default() };
    match Settings::gather(&serve, variables) {
        Ok(settings) => ended(work(&settings).and_then(|told| {
            let printed = writeln!(std::io::stdout().lock(), "{told}");
            printed.map_err(|error| format!("it was done, and that could not be printed: {error}; it says: {told}"))
        })),
        Err(errors) => refused(&errors.to_string(), exit_code::USAGE),
    }
}

fn chained<T, E: std::error::Error>(done: Result<T, E>) -> Result<T, String> {
    done.map_err(|error| navvy_job::chain::chain(&error))
}

fn ended<E: std::fmt::Display>(done: Result<(), E>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::from(exit_code::PASSED),
        Err(error) => refused(&error.to_string(), exit_code::INFRA),
    }
}

fn refused(why: &str, code: u8) -> ExitCode {
    let mut stderr = std::io::stderr().lock();
    for line in why.lines() {
        writeln!(stderr, "Error: {line}").ok();
    }
    ExitCode::from(code)
}

/// `NAVVY_LOG=debug` shows more.
fn log_to_stderr() {
    let info = tracing::level_filters::LevelFilter::INFO;
    let filter = tracing_subscriber::EnvFilter::builder().with_default_directive(info.into()).with_env_var("NAVVY_LOG");
    let filter = filter.try_from_env().unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}
