//! `navvy config …`.

use std::io::Write as _;

use navvy_job::exit_code;

use super::CliError;
use super::args::{ConfigArgs, ConfigCommand, SourceArgs};
use super::source::{ConfigFile, compile, facts, inputs, orb_path};
use crate::checkout::variables::pipeline_values;
use crate::settings::Settings;
use crate::ui::sanitize::tame;

pub fn run(settings: &Settings, arguments: ConfigArgs) -> Result<u8, CliError> {
    match arguments.command {
        ConfigCommand::Validate(source) => validate(settings, &source),
    }
}

fn validate(settings: &Settings, arguments: &SourceArgs) -> Result<u8, CliError> {
    let here = std::env::current_dir().map_err(|error| CliError::infra(&error))?;
    let file = ConfigFile::find(arguments.file.as_deref(), &here)?;
    let facts = facts(&file)?;
    let inputs = inputs(arguments, orb_path(settings, &file)?, &facts, pipeline_values(&facts))?;
    compile(&file, &inputs)?;
    let line = format!("{}: valid\n", file.name);
    std::io::stdout().lock().write_all(tame(&line, false).as_bytes()).map_err(|error| CliError::infra(&error))?;
    Ok(exit_code::PASSED)
}
