//! `navvy config …`: a config looked at. Nothing is run, no engine is asked.
//!
//! ```text
//! words ─▶ Looked (file, inputs) ─▶ navvy_config::{compile, process, explain} ─▶ text on standard output
//!                                        └─ what is wrong: standard error, exit code 2
//! ```

mod explain;

use navvy_checkout::variables::{pipeline_numbers, pipeline_values};
use navvy_config::{Document, Inputs, Outcome};
use navvy_job::exit_code;
use navvy_ui::graph::Drawn;
use navvy_ui::sanitize::tame;

use super::args::config::{ConfigArgs, ConfigCommand, DiagnosticFormat, GraphArgs, LookArgs};
use super::args::config::{ProcessArgs, ProcessFormat, ValidateArgs};
use super::run::inspect::draw;
use super::run::plan::PIPELINE_NUMBER;
use super::source::{ConfigFile, count, facts, inputs, orb_path, settings_files, tell};
use super::{CliError, out};
use crate::settings::Settings;

/// Stands for the id that every run makes anew, so that what is printed is the same each time.
const NO_ID: &str = "00000000-0000-0000-0000-000000000000";

pub fn run(settings: &Settings, arguments: ConfigArgs) -> Result<u8, CliError> {
    match arguments.command {
        ConfigCommand::Validate(arguments) => validate(settings, &arguments),
        ConfigCommand::Process(arguments) => process(settings, &arguments),
        ConfigCommand::Graph(arguments) => graph(settings, &arguments),
        ConfigCommand::Explain(arguments) => explain::run(settings, &arguments),
        ConfigCommand::Schema => document(settings, &navvy_config::schema()),
    }
}

/// A config and what it is compiled with.
struct Looked {
    file: ConfigFile,
    inputs: Inputs,
}

impl Looked {
    fn at(settings: &Settings, arguments: &LookArgs) -> Result<Self, CliError> {
        let wanted = arguments.path.as_deref().or(arguments.source.file.as_deref());
        let file = ConfigFile::find(wanted, settings.here()?)?;
        let mut source = arguments.source.clone();
        let facts = facts(settings, &file, &source)?;
        source.fill_in(&settings_files(settings, &file)?);
        let mut values = pipeline_values(&facts);
        values.extend(pipeline_numbers(NO_ID, PIPELINE_NUMBER));
        let inputs = inputs(&source, orb_path(settings, &file)?, &facts, values)?;
        Ok(Self { file, inputs })
    }

    /// Tells what there is to say; ends the command if something is wrong.
    fn check(&self, outcome: &Outcome) -> Result<(), CliError> {
        tell(&outcome.render(&self.file.source()));
        match &outcome.pipeline {
            Some(_) => Ok(()),
            None => Err(CliError::config(format!("{}: {}", self.file.name, count(&outcome.diagnostics)))),
        }
    }
}

fn validate(settings: &Settings, arguments: &ValidateArgs) -> Result<u8, CliError> {
    let looked = Looked::at(settings, &arguments.look)?;
    let source = looked.file.source();
    // Who asks whether a file is right wants to know of all that it defines.
    let inputs = Inputs { tolerate_unreached: false, ..looked.inputs.clone() };
    let outcome = navvy_config::compile(&source, &inputs);
    let text = match arguments.format {
        DiagnosticFormat::Human => return validate_for_a_person(&looked, &outcome),
        DiagnosticFormat::Json => outcome.render_json(&source),
        DiagnosticFormat::Sarif => outcome.render_sarif(&source),
    };
    document(settings, &text)?;
    Ok(if outcome.pipeline.is_some() { exit_code::PASSED } else { exit_code::BAD_CONFIG })
}

fn validate_for_a_person(looked: &Looked, outcome: &Outcome) -> Result<u8, CliError> {
    looked.check(outcome)?;
    let warnings = match outcome.diagnostics.len() {
        0 => String::new(),
        _ => format!(", {}", count(&outcome.diagnostics)),
    };
    print(&format!("{}: valid{warnings}\n", looked.file.name))
}

fn process(settings: &Settings, arguments: &ProcessArgs) -> Result<u8, CliError> {
    if arguments.explain && arguments.format == ProcessFormat::Json {
        return Err(CliError::usage("--explain writes comments, and JSON has none")
            .hint("The document tells the origin of every job and step."));
    }
    let looked = Looked::at(settings, &arguments.look)?;
    let source = looked.file.source();
    let processed = navvy_config::process(&source, &looked.inputs, arguments.explain);
    looked.check(&processed.outcome)?;
    let text = match (arguments.format, &processed.outcome.pipeline) {
        (ProcessFormat::Json, Some(pipeline)) => Document::new(pipeline, &looked.inputs).to_json(),
        (_, _) => made(processed.text)?,
    };
    document(settings, &text)
}

fn graph(settings: &Settings, arguments: &GraphArgs) -> Result<u8, CliError> {
    let looked = Looked::at(settings, &arguments.look)?;
    let outcome = navvy_config::compile_whole(&looked.file.source(), &looked.inputs);
    looked.check(&outcome)?;
    let drawn = outcome.pipeline.map(|pipeline| draw(&pipeline, arguments.format, Drawn::All));
    document(settings, &made(drawn)?)
}

/// What a config without errors is made into.
fn made(text: Option<String>) -> Result<String, CliError> {
    text.ok_or_else(|| {
        CliError::infra_text("internal error: no pipeline, although the config is valid")
            .hint("That is a fault of Navvy: please report it with the config.")
    })
}

/// Prints words for a person.
fn print(text: &str) -> Result<u8, CliError> {
    write(tame(text, false).as_bytes())
}

/// Prints what programs read: as it is, but harmless where a terminal shows it.
fn document(settings: &Settings, text: &str) -> Result<u8, CliError> {
    if settings.stdout_is_terminal { print(text) } else { write(text.as_bytes()) }
}

fn write(bytes: &[u8]) -> Result<u8, CliError> {
    out::write(bytes)?;
    Ok(exit_code::PASSED)
}
