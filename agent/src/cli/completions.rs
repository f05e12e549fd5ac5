//! `navvy completions SHELL`.

use std::io::Write as _;

use clap::CommandFactory as _;
use navvy_job::exit_code;

use super::CliError;
use super::args::{Cli, CompletionsArgs};

pub fn run(arguments: &CompletionsArgs) -> Result<u8, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "navvy", &mut script);
    std::io::stdout().lock().write_all(&script).map_err(|error| CliError::infra(&error))?;
    Ok(exit_code::PASSED)
}
