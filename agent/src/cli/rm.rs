//! `navvy rm`: removes single tasks.

use navvy_environment::survey::{Seen, Survey, now};
use navvy_job::id::TaskId;
use navvy_journal::standing::Condition;

use super::CliError;
use super::args::host::RmArgs;
use super::host::{self, Host, job, state};
use super::logs;
use super::out::print;
use super::prune::{LIMIT, finish, removed};
use crate::environment::is_of_machines;
use crate::settings::Settings;

pub fn run(settings: &Settings, arguments: &RmArgs) -> Result<u8, CliError> {
    host::block_on(async {
        let host = Host::look(settings, arguments.docker.as_deref()).await?;
        let mut wanted: Vec<Seen> = Vec::new();
        for word in &arguments.tasks {
            let seen = find(settings, &host.survey, word)?;
            check(seen, arguments.force)?;
            check_named(seen, word)?;
            if !wanted.contains(seen) {
                wanted.push(seen.clone());
            }
        }
        // All or nothing so far; without an engine no container can be removed for good.
        if wanted.iter().any(|seen| !is_in_a_machine(seen)) {
            let engine = host.engine?;
            for seen in &wanted {
                check_engine(seen, &engine)?;
            }
        }
        let mut reaped = host.providers.remove_seen(wanted, &settings.paths, LIMIT).await;
        let printed = print(&removed(&reaped.removed));
        reaped.left.splice(0..0, host.survey.troubles);
        finish(None, &reaped.left, printed)
    })
}

/// The task that a word names: its id, a beginning of it, or its job.
pub fn find<'a>(settings: &Settings, survey: &'a Survey, word: &str) -> Result<&'a Seen, CliError> {
    let tasks = &survey.tasks;
    let name = |seen: &Seen| seen.known.as_ref().map(|known| known.opening.job.clone());
    let exact: Vec<_> = tasks.iter().filter(|seen| seen.task.as_str() == word).collect();
    let shown = |seen: &Seen| job(seen).replace(' ', "[") + "]";
    let is_named = |seen: &&Seen| name(seen).as_deref() == Some(word) || job(seen) == word || shown(seen) == word;
    let by_job: Vec<_> = tasks.iter().filter(is_named).collect();
    let by_start: Vec<_> =
        tasks.iter().filter(|seen| !word.is_empty() && seen.task.as_str().starts_with(word)).collect();
    let found = [exact, by_job, by_start].into_iter().find(|found| !found.is_empty()).unwrap_or_default();
    match &found[..] {
        [seen] => Ok(seen),
        [] => Err(survey.troubles.iter().fold(nowhere(settings, word), |error, trouble| {
            error.hint(format!("It may be there all the same: {trouble}."))
        })),
        several => {
            let list: Vec<_> = several.iter().map(|seen| format!("{} ({})", seen.task, job(seen))).collect();
            Err(CliError::usage(format!("{word} names several tasks: {}", list.join(", "))).hint("Name one by its id."))
        }
    }
}

/// A task whose logs are here has existed: the user who held it wants to know where it went.
fn nowhere(settings: &Settings, word: &str) -> CliError {
    match logs::label_of(settings, word) {
        Some(label) => CliError::usage(format!(
            "no task {word} on this host any more: {label} was removed, or its time is up and a later command tidied it away"
        ))
        .hint(format!("`navvy ps` lists what is here; `navvy logs {word}` still prints what it said.")),
        None => CliError::usage(format!("no task {word} on this host")).hint("`navvy ps` lists them."),
    }
}

/// The refusal of a task that this machine, or this version, cannot judge.
pub fn not_ours(task: &TaskId) -> CliError {
    CliError::usage(format!(
        "task {task} belongs to another machine or another version of navvy, or something of it cannot be read"
    ))
    .hint("`navvy ps` says what could not be read.")
}

fn check(seen: &Seen, force: bool) -> Result<(), CliError> {
    match &seen.condition {
        Condition::Foreign => Err(not_ours(&seen.task)),
        Condition::Running(owner) if !force => Err(CliError::usage(format!(
            "task {} ({}) is {}: process {} looks after it",
            seen.task,
            job(seen),
            state(&seen.condition, now()),
            owner.pid
        ))
        .hint("End that process, or remove the task under it with --force.")),
        _ => Ok(()),
    }
}

/// What another user keeps, or runs, goes by its whole name alone: a slip of the pen is not to hit it.
fn check_named(seen: &Seen, word: &str) -> Result<(), CliError> {
    if seen.is_own() || seen.condition == Condition::Dead || seen.task.as_str() == word {
        return Ok(());
    }
    let message = format!(
        "task {} is {}, and of another user or another state directory",
        seen.task,
        state(&seen.condition, now())
    );
    Err(CliError::usage(message).hint(format!("Name it in full if you mean it: navvy rm {}", seen.task)))
}

/// Do its steps run in a virtual machine, and in no container?
pub fn is_in_a_machine(seen: &Seen) -> bool {
    seen.known.as_ref().is_some_and(is_of_machines)
}

/// What is left of a task on another engine would be forgotten with its journal.
fn check_engine(seen: &Seen, engine: &str) -> Result<(), CliError> {
    match seen.known.as_ref().map(|known| known.opening.engine.as_str()) {
        Some(its) if its != engine && !is_in_a_machine(seen) && seen.containers.is_empty() => {
            Err(CliError::usage(format!("task {} is on the engine {its}, not on {engine}", seen.task))
                .hint(format!("Name that one: --docker {its}")))
        }
        _ => Ok(()),
    }
}
