//! `navvy shell`: a person in a held environment, in the failing step's directory, user and variables; or in a job that runs, with what
//! all of its steps have.
//!
//! What is typed and shown goes from terminal to terminal: it is neither masked nor written down.

use navvy_environment::run_dir;
use navvy_environment::supervisor::Client;
use navvy_environment::survey::survey_files;
use navvy_journal::owner::Owner;
use navvy_journal::standing::Condition;

use super::args::run::ShellArgs;
use super::held::Held;
use super::host;
use super::rm::find;
use super::{CliError, out, own_words, running};
use crate::settings::Settings;
use crate::task::PERSON;
use crate::terminal;

pub fn run(settings: &Settings, arguments: &ShellArgs) -> Result<u8, CliError> {
    host::block_on(async {
        let (here, docker) =
            (Owner::this_process().map_err(|error| CliError::infra(&error))?, arguments.docker.as_deref());
        let survey = survey_files(&here, &settings.paths);
        let seen = find(settings, &survey, &arguments.task)?;
        if let Condition::Running(_) = &seen.condition {
            return running::enter(settings, arguments, seen).await;
        }
        let held = Held::of(settings, seen, here, docker).await?;
        let wanted = terminal::wanted(settings.stdin_is_terminal, settings.stdout_is_terminal);
        let id = format!("{PERSON}{}", uuid::Uuid::new_v4());
        let exec = held.note.frame().person(held.note.run(), &arguments.command, wanted, id);
        if settings.stderr_is_terminal && arguments.command.is_empty() {
            terminal::announce(&own_words::masked(&welcome(&held)));
        }
        // A reaper sees that a person is here, also when the time is up meanwhile.
        let visit = run_dir::visit(settings.paths.runtime.as_deref(), &held.note.claim.task);
        let visit = visit.map_err(|error| CliError::infra(&error))?;
        let ended = terminal::connect(Client::new(held.link), exec).await;
        drop(visit);
        let (code, shown) = ended.map_err(|error| CliError::infra(&error))?;
        out::settle(code, out::written(shown))
    })
}

fn welcome(held: &Held) -> String {
    let (note, task) = (&held.note, &held.note.claim.task);
    let name = note.held_at().map(|step| step.name.as_str()).unwrap_or_default();
    let how = if note.before { "held before" } else { "as it was when it failed at" };
    format!(
        "{}: {how} step {}, {name}. Leave with `exit`; `navvy retry {task}` continues the job.",
        note.claim.job_name, note.step
    )
}
