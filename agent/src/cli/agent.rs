//! `navvy agent`: one task of a processor, then the end. The exit code speaks of the agent alone: a job that fails is reported,
//! and no failure of the agent.

use std::path::Path;
use std::time::Duration;

use navvy_job::resource::Size;
use navvy_journal::owner::Owner;
use serde::Deserialize;

use super::args::fleet::{AgentArgs, ProcessorArgs};
use super::fleet::{self, agent_name, bearer, one_time_text, tell, token_file};
use super::run::forced::LastResort;
use super::run::signals;
use super::{CliError, host, scheduled};
use crate::fleet::carry::{Machine, carry, go_on};
use crate::fleet::claiming::{Claimed, Wish, claim};
use crate::fleet::connection::{Address, Bearer, Processor};
use crate::fleet::left::left_tasks;
use crate::fleet::persist::Pauses;
use crate::scheduled::Scheduled;
use crate::settings::Settings;

/// A claim file is never longer.
const MAX_CLAIM: u64 = 64 << 10;
/// The form of claim files that is written and read.
const VERSION: u32 = 1;
/// A processor that cannot be reached is called again for so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// One call waits so long for the task's turn.
const TURN: Duration = Duration::from_secs(20);

/// What a scheduler starts an agent with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimFile {
    version: u32,
    /// The processor's address.
    pub processor: String,
    pub task: String,
    /// A launch token: for this task, for one use.
    pub token: String,
}

/// What is to be claimed, and where.
pub struct Launch {
    pub address: Address,
    /// The same in words.
    pub named: ProcessorArgs,
    pub task: String,
    /// It may be used, or gone, where the agent before was killed.
    pub token: Result<Bearer, CliError>,
}

pub fn run(settings: &Settings, arguments: &AgentArgs) -> Result<u8, CliError> {
    if let Some(directory) = &arguments.scheduled {
        return scheduled::run(settings, arguments, directory);
    }
    let last = LastResort::new(settings, arguments.machine.docker.as_deref());
    carry_out(settings, arguments, launch(settings, arguments)?, Scheduled::default(), None, last, &mut false)
}

/// `most`: what the task gets at most, beside what the machine has. `has_task` becomes true once the task is this agent's: from then on
/// what it has on this machine is kept until it was told of.
pub fn carry_out(
    settings: &Settings,
    arguments: &AgentArgs,
    Launch { address, named, task, token }: Launch,
    scheduled: Scheduled,
    most: Option<Size>,
    last: LastResort,
    has_task: &mut bool,
) -> Result<u8, CliError> {
    let here = Owner::this_process().map_err(|error| CliError::infra(&error))?;
    let left = left_tasks(&settings.paths, &here).map_err(|error| CliError::infra(&error))?;
    let is_left = left.iter().any(|left| left.as_str() == task);
    // An agent that goes on with a task needs no token of its own.
    let token = if is_left { token } else { Ok(token?) };
    host::finish(host::runtime()?, async {
        let processor = fleet::processor(&address)?;
        let stop = signals::watch(last)?;
        let engine = fleet::engine(settings, arguments.machine.docker.as_deref()).await?;
        let whole = fleet::whole_machine(engine.as_ref()).await?;
        let room = most.map_or(whole, |most| most.clamp_to(whole));
        let machine = fleet::machine(settings, &arguments.machine, &named, engine, room).await?;
        let machine = Machine { scheduled, ..machine };
        // Its agent may have been killed: then its launch token is used, and this one goes on.
        let left = fleet::take_over_left(&machine, &processor, Some(&task)).await;
        fleet::reap_dead(&machine);
        if let Some(found) = left.into_iter().next() {
            *has_task = true;
            let carried = go_on(&processor, &machine, found, stop.receiver(), Box::new(())).await;
            tell(&task, carried)?;
            return Ok(navvy_job::exit_code::PASSED);
        }
        let token = token?;
        let mut stopped = stop.receiver();
        let claimed = tokio::select! {
            claimed = take(&processor, &task, &token) => claimed?,
            Ok(_) = stopped.wait_for(Option::is_some) => return Ok(navvy_job::exit_code::CANCELED),
        };
        *has_task = true;
        let carried = carry(&processor, &machine, claimed, stop.receiver(), Box::new(())).await;
        tell(&task, carried)?;
        Ok(navvy_job::exit_code::PASSED)
    })
}

fn launch(settings: &Settings, arguments: &AgentArgs) -> Result<Launch, CliError> {
    if let Some(path) = &arguments.claim {
        let ClaimFile { processor, task, token, .. } = claim_file(path)?;
        let named = ProcessorArgs { processor: Some(processor), ..arguments.processor.clone() };
        return Ok(Launch { address: fleet::address(settings, &named)?, named, task, token: bearer(&token) });
    }
    let Some(task) = arguments.task.clone() else { return Err(CliError::usage("no task is named").hint("--task ID")) };
    let address = fleet::address(settings, &arguments.processor)?;
    let token = token_file(settings, arguments.token_file.as_deref());
    let token = token.and_then(|path| bearer(&one_time_text(&path, "the token", MAX_CLAIM)?));
    Ok(Launch { address, named: arguments.processor.clone(), task, token })
}

pub fn claim_file(path: &Path) -> Result<ClaimFile, CliError> {
    let text = one_time_text(path, "the claim file", MAX_CLAIM)?;
    let wrong = |why: String| {
        CliError::usage(format!("the claim file {} is none: {why}", path.display()))
            .hint("It is JSON with version, processor, task and token.")
    };
    // The library's own words may quote the token.
    let file: ClaimFile = serde_json::from_str(&text)
        .map_err(|error| wrong(format!("line {}, column {} is not as it should be", error.line(), error.column())))?;
    match file.version {
        VERSION => Ok(file),
        other => Err(wrong(format!("it has version {other}, and this agent reads {VERSION}"))),
    }
}

/// Takes the task. A processor that is not there yet is waited for, and another job of the task's serial group as long as it
/// runs.
async fn take(processor: &Processor, task: &str, token: &Bearer) -> Result<Claimed, CliError> {
    let (begun, mut pauses) = (tokio::time::Instant::now(), Pauses::default());
    loop {
        let wish = Wish::Task(task.to_owned());
        match claim(processor, token, &agent_name(), &wish, TURN).await {
            Ok(Some(claimed)) => return Ok(claimed),
            Ok(None) => tracing::info!("Task {task} waits: another job of its serial group comes first."),
            Err(error) if error.is_passing() && begun.elapsed() < PATIENCE => {
                tracing::warn!("{error}; it is asked again.");
                tokio::time::sleep(pauses.another()).await
            }
            Err(error) => return Err(CliError::infra_text(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn read(text: &str) -> Result<ClaimFile, CliError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("claim.json");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let read = claim_file(&path);
        assert!(!path.exists());
        read
    }

    #[test]
    fn a_claim_file_is_strict_and_its_token_is_told_nowhere() {
        let good = r#"{"version": 1, "processor": "https://h:8585", "task": "0123456789abcdef", "token": "hunter2"}"#;
        let file = read(good).unwrap_or_else(|error| panic!("{}", error.render()));
        assert_eq!((file.task.as_str(), file.token.as_str()), ("0123456789abcdef", "hunter2"));
        for (wrong, why) in [
            (good.replace("\"version\": 1", "\"version\": 2"), "version 2"),
            (good.replace("\"task\"", "\"tsak\""), "line 1"),
            (good.replace("\"hunter2\"", "hunter2"), "line 1"),
            (good.replace("\"hunter2\"", "[\"hunter2\"]"), "line 1"),
        ] {
            let Err(error) = read(&wrong) else { panic!("{wrong} was read") };
            let told = error.render();
            assert!(told.contains(why) && !told.contains("hunter2"), "{told}");
        }
    }
}
