//! `navvy shell` into a job that runs: a process of a person's own beside its steps.
//!
//! ```text
//! agent ─ Remember ─▶ supervisor's memory ─ Recall ─▶ the job's user, directory and variables ─▶ exec, followed by nobody else
//! ```
//!
//! The job does not wait for it, and does not know of it: when its environment ends, so does what runs in there.

use std::sync::Arc;

use navvy_environment::link::shared_link;
use navvy_environment::run_dir;
use navvy_environment::supervisor::{Client, ClientError, Connect};
use navvy_environment::survey::Seen;
use navvy_output::mask::Masks;

use super::args::run::ShellArgs;
use super::held;
use super::host::job;
use super::{CliError, out, own_words};
use crate::fleet::left::Caller;
use crate::settings::Settings;
use crate::task::{Left, Note, PERSON};
use crate::terminal;

/// As of a process that was killed.
const ENDED_WITH_JOB: u8 = 128 + 9;

pub async fn enter(settings: &Settings, arguments: &ShellArgs, seen: &Seen) -> Result<u8, CliError> {
    let link = link(settings, arguments, seen).await?;
    let left = recall(Arc::clone(&link), seen).await?;
    hide(&left);
    let wanted = terminal::wanted(settings.stdin_is_terminal, settings.stdout_is_terminal);
    let id = format!("{PERSON}{}", uuid::Uuid::new_v4());
    let exec = left.note.frame().person(None, &arguments.command, wanted, id);
    if settings.stderr_is_terminal && arguments.command.is_empty() {
        let job = &left.note.claim.job_name;
        terminal::announce(&own_words::masked(&format!("{job}: it runs on meanwhile, and ends without asking.")));
    }
    match terminal::connect(Client::new(link), exec).await {
        Ok((code, shown)) => out::settle(code, out::written(shown)),
        Err(error) if error.is_connection() => {
            own_words::say(format!("The job of task {} has ended, and this with it.\n", seen.task).as_bytes());
            Ok(ENDED_WITH_JOB)
        }
        Err(error) => Err(error.into()),
    }
}

async fn link(settings: &Settings, arguments: &ShellArgs, seen: &Seen) -> Result<Arc<dyn Connect>, CliError> {
    let gone = |error: std::io::Error| {
        CliError::infra_text(format!("the environment of task {} does not answer: {error}", seen.task))
            .hint("It is being made, or the job is ending.")
    };
    if run_dir::kept_secret(settings.paths.runtime.as_deref(), &seen.task).is_none() {
        return shared_link(&seen.task, &settings.paths).map_err(gone);
    }
    let known = seen.known.as_ref().ok_or_else(|| {
        CliError::infra_text(format!("the journal of task {} is not here: nothing is known about it", seen.task))
    })?;
    let engine = held::engine(settings, arguments.docker.as_deref(), known).await?;
    engine.link_of_left(&seen.task, &settings.paths).await.map_err(gone)
}

/// What its agent has left with the supervisor for another one: only a fleet's does.
async fn recall(link: Arc<dyn Connect>, seen: &Seen) -> Result<Left, CliError> {
    let recalled = tokio::task::spawn_blocking(move || Client::new(link).recall()).await;
    let refused = || {
        let why = format!("task {} ({}) is running, and cannot be entered now", seen.task, job(seen));
        CliError::usage(why).hint(
            "A fleet's task can be entered while its steps run; one of `navvy run` while it is held: --keep-on-fail, \
             --break-before.",
        )
    };
    match recalled.map_err(|error| CliError::infra(&error))? {
        Err(ClientError::Failed(_)) => Err(refused()),
        // A held task that `navvy retry` goes on with.
        Ok(bytes) if Note::parse(&bytes).is_ok() => Err(refused()),
        recalled => Left::parse(&recalled?).map_err(|error| CliError::infra(&error)),
    }
}

/// This program's own words tell none of the job's secrets.
fn hide(left: &Left) {
    let caller = serde_json::from_value::<Caller>(left.caller.clone()).ok();
    let masked = caller.map_or_else(|| left.note.masked.clone(), |caller| caller.masked);
    own_words::mask_with(&Masks::new(&masked));
}
