//! `navvy prune`: removes what dead runs left on this host and in the store.

use std::path::Path;
use std::time::Duration;

use navvy_docker::survey;
use navvy_environment::survey::{Reaped, Seen, now};
use navvy_job::chain::chain;
use navvy_job::exit_code;
use navvy_job::figures::bytes;
use navvy_journal::standing::Condition;
use navvy_storage::{SWEEP_AFTER, Swept, Unswept};
use navvy_vm::layers;

use super::CliError;
use super::args::host::PruneArgs;
use super::host::{self, Host, job, objects, state};
use super::out::print;
use super::rm::is_in_a_machine;
use super::store;
use crate::settings::Settings;

/// For all of it together; a second try costs a person less than waiting.
pub const LIMIT: Duration = Duration::from_secs(60);

pub fn run(settings: &Settings, arguments: &PruneArgs) -> Result<u8, CliError> {
    host::block_on(async {
        let host = Host::look(settings, arguments.docker.as_deref()).await?;
        let (doomed, spared): (Vec<_>, Vec<_>) =
            host.survey.tasks.into_iter().partition(|seen| is_doomed(seen, arguments.kept));
        if !arguments.dry_run {
            navvy_environment::survey::sweep(&host.here, &settings.paths);
        }
        // All is done, whether or not it can be printed.
        let mut told = String::new();
        let mut reaped = match &host.engine {
            _ if arguments.dry_run => {
                told.push_str(&would_remove(&doomed));
                Reaped::default()
            }
            Ok(_) => host.providers.remove_seen(doomed, &settings.paths, LIMIT).await,
            Err(_) => {
                let (machines, others): (Vec<_>, Vec<_>) = doomed.into_iter().partition(is_in_a_machine);
                let mut reaped = host.providers.remove_seen(machines, &settings.paths, LIMIT).await;
                reaped.left.extend(survey::remove_files_only(&others, &settings.paths).await);
                reaped
            }
        };
        reaped.left.splice(0..0, host.survey.troubles);
        if !arguments.dry_run {
            told.push_str(&removed(&reaped.removed));
        }
        told.push_str(&kept(&spared));
        if !arguments.dry_run {
            let (layers, not_removed) = layers::prune(&settings.paths.state, host::vm_table(settings)?.layers());
            told.push_str(&told_of_layers(&layers));
            reaped.left.extend(not_removed);
        }
        told.push_str(&listed_layers(&settings.paths.state, &mut reaped.left));
        // Before the store is asked, which may take a while.
        let mut printed = print(&told);
        if !arguments.dry_run {
            let swept = sweep(settings, arguments.store.as_deref(), &mut reaped.left).await?;
            printed = printed.and(print(&swept));
        }
        finish(host.engine.err(), &reaped.left, printed)
    })
}

/// Removes from the store uploads that were never committed, entries that were put aside, layers of dead runs, once they
/// are old enough. A store that has never been used is not made for this.
async fn sweep(settings: &Settings, flag: Option<&str>, left: &mut Vec<String>) -> Result<String, CliError> {
    let store = store::chosen(settings, flag)?;
    let Some(name) = store.in_use() else { return Ok(String::new()) };
    let sweeping = async { (store.sweep(SWEEP_AFTER).await, store.remove_old_layers().await) };
    let Ok((uploads, layers)) = tokio::time::timeout(LIMIT, sweeping).await else {
        left.push(format!("given-up uploads in store {name} (it did not answer within {LIMIT:?})"));
        return Ok(String::new());
    };
    let mut swept = Swept::default();
    for (what, of_those) in [("given-up uploads", uploads), ("workspace layers", layers)] {
        match of_those {
            Ok(more) => swept = swept.and(more),
            Err(error) => left.push(format!("{what} in store {name} ({})", chain(&error))),
        }
    }
    left.extend(unswept(&name, &swept.failed));
    Ok(told(&name, &swept))
}

fn told_of_layers(removed: &[layers::Seen]) -> String {
    let one = |seen: &layers::Seen| {
        format!("Removed Docker layers of project {}, slot {} ({}).\n", seen.project, seen.slot, bytes(seen.size))
    };
    removed.iter().map(one).collect()
}

/// Volumes that cannot be listed are left, which the removal may have said already.
fn listed_layers(state: &Path, left: &mut Vec<String>) -> String {
    match layers::list(state) {
        Ok(kept) => kept_layers(&kept),
        Err(error) => {
            let why = chain(&error);
            if !left.iter().any(|said| said.contains(&why)) {
                left.push(format!("volumes of Docker's layers that could not be listed ({why})"));
            }
            String::new()
        }
    }
}

fn kept_layers(kept: &[layers::Seen]) -> String {
    let size: u64 = kept.iter().map(|seen| seen.size).sum();
    let in_use = kept.iter().filter(|seen| seen.in_use).count();
    match kept.len() {
        0 => String::new(),
        count => format!("Kept Docker layers: {count} volumes, {in_use} of them in use ({}).\n", bytes(size)),
    }
}

/// So many are named.
const NAMED: usize = 5;

/// What stays in the store.
fn unswept(name: &str, failed: &[Unswept]) -> Vec<String> {
    let one = |Unswept { path, why }: &Unswept| format!("{} in store {name} ({why})", navvy_ui::sanitize::clean(path));
    let mut told: Vec<String> = failed.iter().take(NAMED).map(one).collect();
    if failed.len() > NAMED {
        told.push(format!("{} more objects in store {name}", failed.len() - NAMED));
    }
    told
}

/// Nothing if there was nothing.
fn told(name: &str, swept: &Swept) -> String {
    let Swept { bodies, uploads, quarantined, staged, layers, failed: _ } = *swept;
    let counts = [
        (bodies, "bodies"),
        (uploads, "open uploads"),
        (quarantined, "damaged caches"),
        (staged, "unfinished files"),
        (layers, "workspace layers"),
    ];
    let what: Vec<String> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{what}: {count}")).collect();
    if what.is_empty() { String::new() } else { format!("Swept store {name}; {}.\n", what.join(", ")) }
}

/// A kept task is removed only if it is this user's own: another's has to be named to `navvy rm`.
fn is_doomed(seen: &Seen, kept_too: bool) -> bool {
    match seen.condition {
        Condition::Dead => true,
        Condition::Kept(_) | Condition::Adoptable(_) => kept_too && seen.is_own(),
        Condition::Running(_) | Condition::Foreign => false,
    }
}

fn named(seen: &Seen) -> String {
    format!("task {} ({}): {}", seen.task, navvy_ui::sanitize::first_line(&job(seen)), objects(seen))
}

fn would_remove(tasks: &[Seen]) -> String {
    match tasks {
        [] => "Nothing to remove.\n".to_owned(),
        tasks => tasks.iter().map(|seen| format!("Would remove {}.\n", named(seen))).collect(),
    }
}

pub fn removed(tasks: &[Seen]) -> String {
    match tasks {
        [] => "Nothing removed.\n".to_owned(),
        tasks => tasks.iter().map(|seen| format!("Removed {}.\n", named(seen))).collect(),
    }
}

/// What a person may wonder why it is still here.
fn kept(tasks: &[Seen]) -> String {
    let held = tasks.iter().filter(|seen| matches!(seen.condition, Condition::Kept(_) | Condition::Adoptable(_)));
    let other = |seen: &Seen| match seen.is_own() {
        true => String::new(),
        false => format!("; it was kept by another user, or from another state directory: `navvy rm {}`", seen.task),
    };
    held.map(|seen| format!("Spared {}, {}{}.\n", named(seen), state(&seen.condition, now()), other(seen))).collect()
}

/// The exit code, or the error that says what is left or was not printed.
pub fn finish(engine: Option<CliError>, left: &[String], printed: Result<(), CliError>) -> Result<u8, CliError> {
    match (engine, left) {
        (Some(error), _) => {
            Err(error.hint("Containers could not be looked at; sockets and cgroups of dead tasks were."))
        }
        (None, []) => printed.map(|()| exit_code::PASSED),
        (None, left) => Err(CliError::infra_text(format!("could not remove {}", left.join(", ")))
            .hint("`navvy prune` tries again; a container that stays needs a look at the Docker engine itself.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_that_cannot_be_listed_are_named_once() {
        let state = tempfile::tempdir().unwrap();
        let mut left = Vec::new();
        assert_eq!((listed_layers(state.path(), &mut left), left.len()), (String::new(), 0));
        std::fs::write(layers::directory(state.path()), "").unwrap();
        assert_eq!(listed_layers(state.path(), &mut left), "");
        assert!(left.len() == 1 && left[0].contains("failed to list"), "{left:?}");
        let (_, mut said) = layers::prune(state.path(), layers::Keeping::default());
        assert_eq!((listed_layers(state.path(), &mut said), said.len()), (String::new(), 1));
    }
}
