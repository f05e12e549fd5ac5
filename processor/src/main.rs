//! The processor: turns words into settings, and errors into exit codes.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use navvy_job::exit_code;
use navvy_processor::serve;
use navvy_processor::settings::{Cli, Command, Settings};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            error.print().ok();
            return ExitCode::from(if error.use_stderr() { exit_code::USAGE } else { exit_code::PASSED });
        }
    };
    log_to_stderr();
    let Command::Serve(arguments) = cli.command;
    // What is no text cannot be a setting of ours.
    let variables: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let settings = match Settings::gather(&arguments, &variables) {
        Ok(settings) => settings,
        Err(errors) => return refused(&errors.to_string(), exit_code::USAGE),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refused(&error.to_string(), exit_code::INFRA),
    };
    match runtime.block_on(serve::serve(settings)) {
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
