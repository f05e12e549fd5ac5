//! `navvy agent --scheduled DIR`: the agent of a scheduler's task driver. What it does is `navvy agent`'s; where, and what the driver
//! learns of it, stands in DIR (docs/host.md).
//!
//! ```text
//! DIR believed? ─▶ host.json ─▶ place taken, pipes opened ─▶ claim.json, or the task that is left ─▶ as `navvy agent`
//!                    └──────────────────── whatever happens from here on ─────────────────────────────────▶ exit.json
//! ```

mod removal;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use navvy_environment::cgroup::Parent;
use navvy_job::scheduled::{Exit, Host, files};

use crate::cli::agent::{self, Launch};
use crate::cli::args::fleet::{AgentArgs, ProcessorArgs};
use crate::cli::run::forced::{LastResort, LastWord};
use crate::cli::{CliError, fleet, own_words, panicked};
use crate::scheduled::directory::{Directory, DirectoryError};
use crate::scheduled::onlooker::{Onlooker, in_words};
use crate::scheduled::pipe::Pipe;
use crate::scheduled::{Scheduled, place};
use crate::settings::Settings;

/// Environments that this agent has.
const ENVIRONMENTS: [&str; 2] = ["docker", "vm"];
/// The agent's last words are waited for no longer.
const LAST_WORDS: Duration = Duration::from_millis(500);

impl From<DirectoryError> for CliError {
    fn from(error: DirectoryError) -> Self {
        Self::usage(error.to_string()).hint(error.advice())
    }
}

pub fn run(settings: &Settings, arguments: &AgentArgs, path: &Path) -> Result<u8, CliError> {
    if arguments.remove {
        return removal::run(settings, arguments, path);
    }
    let directory = Directory::open(path)?;
    directory.check_writable()?;
    directory.forget_exit();
    let mut onlooker = None;
    let docker = arguments.machine.docker.clone();
    let ended = panicked::caught(settings, Some(docker), || carry_out(settings, arguments, &directory, &mut onlooker));
    let exit = exit_of(&ended, onlooker.as_ref());
    if let Some(onlooker) = &onlooker {
        onlooker.end(&exit.message);
    }
    let last = directory.exit(&exit);
    if let Err(error) = &last {
        tracing::error!(%error, "What became of the task could not be written for the driver.");
    }
    ended
}

/// All that can be done about an error is to tell it: here, and by its exit code.
fn exit_of(ended: &Result<u8, CliError>, onlooker: Option<&Onlooker>) -> Exit {
    let verdict = onlooker.and_then(Onlooker::verdict).map(|verdict| in_words(&verdict));
    let (code, message) = match ended {
        Ok(code) => (*code, verdict.unwrap_or_else(|| "The agent was told to end before it had the task.".to_owned())),
        Err(error) => (error.exit_code(), error.in_one_line()),
    };
    let message = own_words::masked(&message).into_owned();
    Exit { code, message, oom_killed: onlooker.is_some_and(Onlooker::oom_killed) }
}

fn carry_out(
    settings: &Settings,
    arguments: &AgentArgs,
    directory: &Directory,
    told: &mut Option<Onlooker>,
) -> Result<u8, CliError> {
    let host = directory.host()?;
    if !ENVIRONMENTS.contains(&host.environment.as_str()) {
        let refused = format!("the environment `{}` is none that this agent has", host.environment);
        return Err(CliError::usage(refused).hint(format!("It has `{}`.", ENVIRONMENTS.join("` and `"))));
    }
    let cgroup = host.cgroup.as_deref().map(Parent::read).transpose();
    let cgroup = cgroup.map_err(|error| CliError::usage(error.to_string()))?;
    if let Some(pipe) = pipe(host.stderr.as_deref(), "stderr")? {
        own_words::send_to(pipe);
    }
    place::take(cgroup.as_ref()).map_err(|error| CliError::infra(&error))?;
    let output = pipe(host.stdout.as_deref(), "stdout")?;
    let progress = directory.path_of(files::PROGRESS);
    let onlooker = Onlooker::new(&progress, output.clone(), cgroup.clone())
        .map_err(|error| CliError::usage(format!("{} cannot be written: {error}", progress.display())))?;
    *told = Some(onlooker.clone());
    let scheduled = Scheduled { cgroup, pids: host.pids, onlooker: Some(onlooker.clone()) };
    let launch = launch(settings, arguments, directory, &host)?;
    let has_claim = launch.token.is_ok();
    let mut has_task = false;
    let last = LastResort::new(settings, arguments.machine.docker.as_deref());
    let last = last.with_last_word(last_word(directory.clone(), onlooker));
    let (docker, parent) = (arguments.machine.docker.as_deref(), scheduled.cgroup.clone());
    let mut ended = agent::carry_out(settings, arguments, launch, scheduled, host.size, last, &mut has_task);
    if !has_claim
        && !has_task
        && let Err(error) = ended
    {
        // An agent that was killed before anybody could go on with its task may have made something. What is gone on with is kept if it
        // could not be told of: it may be the only copy of the output.
        ended = Err(removal::after(error, settings, docker, &host, parent.as_ref()));
    }
    if let Some(output) = output {
        output.settle(LAST_WORDS);
    }
    ended
}

/// Of an agent whose main thread is stuck.
fn last_word(directory: Directory, onlooker: Onlooker) -> LastWord {
    Arc::new(move |code, message| {
        let exit = Exit { code, message: message.to_owned(), oom_killed: onlooker.oom_killed() };
        if let Err(error) = directory.exit(&exit) {
            tracing::error!(%error, "What became of the task could not be written for the driver.");
        }
    })
}

fn pipe(path: Option<&Path>, what: &str) -> Result<Option<Pipe>, CliError> {
    let opened = path.map(|path| Pipe::to(path).map_err(|error| (path, error))).transpose();
    opened.map_err(|(path, error)| CliError::usage(format!("host.{what} {} is unfit: {error}", path.display())))
}

fn launch(settings: &Settings, arguments: &AgentArgs, directory: &Directory, host: &Host) -> Result<Launch, CliError> {
    let (processor, ca) = (Some(host.processor.clone()), host.processor_ca.clone());
    let named = ProcessorArgs { processor, ca, ..arguments.processor.clone() };
    let address = fleet::address(settings, &named)?;
    let path = directory.path_of(files::CLAIM);
    let token = match path.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let why =
                format!("there is no {}, and nothing of task {} is left to go on with", path.display(), host.task);
            Err(CliError::infra_text(why)
                .hint("A processor hands a task out again whose agent is gone before its steps began."))
        }
        _ => {
            let claim = agent::claim_file(&path)?;
            if (&claim.task, &claim.processor) != (&host.task, &host.processor) {
                let why = format!("{} is for another task or processor than {}", files::CLAIM, files::HOST);
                return Err(CliError::usage(why));
            }
            fleet::bearer(&claim.token)
        }
    };
    Ok(Launch { address, named, task: host.task.clone(), token })
}
