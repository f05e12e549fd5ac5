//! `navvy completions SHELL`.

use clap::CommandFactory as _;
use navvy_job::exit_code;

use super::args::{Cli, CompletionsArgs};
use super::{CliError, out};

pub fn run(arguments: &CompletionsArgs) -> Result<u8, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "navvy", &mut script);
    out::write(&script)?;
    Ok(exit_code::PASSED)
}
