//! `navvy shell` into a job that runs: a process of a person's own beside its steps.
//!
//! ```text
//! agent ─ Remember ─▶ supervisor's memory ─ Recall ─▶ the job's user, directory and variables ─▶ exec, followed by nobody else
//! ```
//!
//! The job does not wait for it, and does not know of it: when its environment ends, so does what runs in there. A connection that
//! breaks says nothing yet: only a supervisor that can no longer be called has ended.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use navvy_environment::link::shared_link;
use navvy_environment::run_dir;
use navvy_environment::supervisor::{Client, ClientError, Connect};
use navvy_environment::survey::Seen;
use navvy_output::mask::Masks;

use super::args::run::ShellArgs;
use super::held;
use super::host::{self, job};
use super::{CliError, out, own_words};
use crate::environment::is_of_machines;
use crate::fleet::left::Caller;
use crate::settings::Settings;
use crate::task::{Left, Note, PERSON};
use crate::terminal;

/// As of a process that was killed.
const ENDED_WITH_JOB: u8 = 128 + 9;
/// A supervisor that ends lets go of its connections before its socket: it is called so often, with so long between, before it counts as
/// alive.
const CALLS: usize = 10;
const BETWEEN_CALLS: Duration = Duration::from_millis(200);

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
    let client = Client::new(link);
    match terminal::connect(client.clone(), exec).await {
        Ok((code, shown)) => out::settle(code, out::written(shown)),
        Err(error) if error.is_connection() && has_ended(&client).await => {
            own_words::say(format!("The job of task {} has ended, and this with it.\n", seen.task).as_bytes());
            Ok(ENDED_WITH_JOB)
        }
        Err(error) if error.is_connection() => Err(CliError::infra(&error)
            .hint("The connection was lost; that the job has ended is not known. Call `navvy shell` again.")),
        Err(error) => Err(error.into()),
    }
}

/// Is the job's supervisor gone, and not only one connection to it?
async fn has_ended(client: &Client) -> bool {
    for call in 0..CALLS {
        if call > 0 {
            tokio::time::sleep(BETWEEN_CALLS).await;
        }
        let called = client.clone();
        match tokio::task::spawn_blocking(move || called.ask_for_life()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return is_gone(&error),
            Err(_) => return false,
        }
    }
    false
}

/// Nobody is there to be called. An engine that does not answer, or a supervisor that is stopped, may still have the job.
fn is_gone(error: &ClientError) -> bool {
    match error {
        ClientError::Closed => true,
        ClientError::Unreachable { source } => matches!(
            source.kind(),
            ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
        ),
        _ => false,
    }
}

async fn link(settings: &Settings, arguments: &ShellArgs, seen: &Seen) -> Result<Arc<dyn Connect>, CliError> {
    let gone = |error: std::io::Error| {
        CliError::infra_text(format!("the environment of task {} does not answer: {error}", seen.task))
            .hint("It is being made, or the job is ending.")
    };
    if seen.known.as_ref().is_some_and(is_of_machines) {
        return host::machines(settings)?.link_of_running(&seen.task, &settings.paths).await.map_err(gone);
    }
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

#[cfg(test)]
mod tests {
    use std::io;
    use std::os::unix::net::UnixStream;

    use navvy_protocol::frame::{self, FrameKind};
    use navvy_protocol::supervisor::Hello;

    use super::*;

    /// Greets, as a supervisor does, or refuses.
    struct Door(Option<ErrorKind>);

    impl Connect for Door {
        fn connect(&self) -> io::Result<UnixStream> {
            if let Some(refused) = self.0 {
                return Err(refused.into());
            }
            let (ours, mut theirs) = UnixStream::pair()?;
            std::thread::spawn(move || {
                // Who asks has gone before the greeting is taken: that is no matter.
                frame::read(&mut theirs, &mut Vec::new()).ok();
                frame::write_message(&mut theirs, FrameKind::Hello, &Hello::new(None)).ok();
                io::copy(&mut theirs, &mut io::sink()).ok();
            });
            Ok(ours)
        }

        fn secret(&self) -> Option<&str> {
            None
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_has_ended_when_its_supervisor_cannot_be_called_any_more_and_not_before() {
        let ended = async |refused| has_ended(&Client::new(Arc::new(Door(refused)))).await;
        assert!(!ended(None).await, "only a connection was lost");
        for gone in [ErrorKind::NotFound, ErrorKind::ConnectionRefused, ErrorKind::ConnectionReset] {
            assert!(ended(Some(gone)).await, "{gone}");
        }
        // An engine that is being restarted; a machine that is busy.
        for unknown in [ErrorKind::NotConnected, ErrorKind::TimedOut, ErrorKind::PermissionDenied] {
            assert!(!ended(Some(unknown)).await, "{unknown}");
        }
    }
}
