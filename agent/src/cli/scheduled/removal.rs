//! `navvy agent --scheduled DIR --remove`: all that a task has left on this host goes, whatever it was doing. For after the last kill of
//! its agent: nothing is told to the processor, which learns from the lease.

use std::path::{Path, PathBuf};
use std::time::Duration;

use navvy_docker::Engine;
use navvy_environment::cgroup::{self, Parent};
use navvy_environment::run_dir;
use navvy_environment::survey::{Seen, Survey, survey_files};
use navvy_job::exit_code;
use navvy_job::id::TaskId;
use navvy_job::scheduled::Host;
use navvy_journal::owner::Owner;
use navvy_journal::standing::Mark;
use navvy_journal::{self as journal, Ending};
use tokio::time::Instant;

use crate::cli::args::fleet::AgentArgs;
use crate::cli::{CliError, host};
use crate::environment::is_of_machines;
use crate::scheduled::directory::Directory;
use crate::settings::Settings;

/// What an engine was asked to make is there within this, or never.
const LATECOMERS: Duration = Duration::from_secs(5);
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);
/// What the engine has is removed within this.
const LIMIT: Duration = Duration::from_secs(30);

pub fn run(settings: &Settings, arguments: &AgentArgs, path: &Path) -> Result<u8, CliError> {
    let host = Directory::open(path)?.host()?;
    let task = host.task.parse::<TaskId>().map_err(|error| CliError::usage(error.to_string()))?;
    let parent = host.cgroup.as_deref().map(Parent::read).transpose();
    let parent = parent.map_err(|error| CliError::usage(error.to_string()))?;
    let docker = arguments.machine.docker.as_deref();
    let mut left = host::block_on(remove(settings, docker, &task, parent.as_ref()))?;
    // Not where the agent itself removes: it sits there.
    let leaf = parent.map_or(Ok(()), |parent| parent.remove_leaf());
    left.extend(leaf.err().map(|(path, error)| format!("cgroup {} ({error})", path.display())));
    match left.is_empty() {
        true => Ok(exit_code::PASSED),
        false => Err(CliError::infra_text(format!("of task {task} there is still: {}", left.join(", ")))
            .hint("`navvy prune` removes it, once it can be removed.")),
    }
}

/// An agent's error, with what could not be removed of its task.
pub fn after(
    error: CliError,
    settings: &Settings,
    docker: Option<&str>,
    host: &Host,
    parent: Option<&Parent>,
) -> CliError {
    let Ok(task) = host.task.parse::<TaskId>() else { return error };
    match host::block_on(remove(settings, docker, &task, parent)) {
        Ok(left) if left.is_empty() => error,
        Ok(left) => error.hint(format!("There is still: {}.", left.join(", "))),
        Err(why) => error.hint(why.in_one_line()),
    }
}

/// Returns what is left.
///
/// # Errors
/// Its agent lives.
pub async fn remove(
    settings: &Settings,
    docker: Option<&str>,
    task: &TaskId,
    parent: Option<&Parent>,
) -> Result<Vec<String>, CliError> {
    let log = journal::path(&settings.paths.state, task);
    let is_held = journal::is_held(&log);
    if is_held.map_err(|error| CliError::infra_text(format!("journal {} could not be read: {error}", log.display())))? {
        let lives = CliError::usage(format!("a process still looks after task {task}: its journal is locked"));
        return Err(lives.hint("End the agent first: SIGTERM, and SIGKILL past its time."));
    }
    let spool = spool_of(&settings.paths.state, &log);
    let in_a_machine =
        journal::load(&log).ok().and_then(|read| read.known()).is_some_and(|known| is_of_machines(&known));
    let machines = host::machines(settings)?;
    // Of a job in containers, too: it may have had its Docker engine in one.
    let mut left = machines.remove_machines(task, &settings.paths, LIMIT).await;
    left.extend(match host::connect(settings, docker).await {
        Ok(engine) => from_engine(&engine, settings, task).await,
        Err(_) if in_a_machine && left.is_empty() => machines.remove_task(task, &settings.paths, LIMIT).await,
        Err(_) if in_a_machine => Vec::new(),
        Err(error) => without_engine(settings, task, error.message()).await,
    });
    let parents = parent.cloned();
    let groups = tokio::task::spawn_blocking({
        let task = task.clone();
        move || parents.map(|parent| of_cgroups(&task, &parent))
    });
    left.extend(groups.await.map_err(|error| CliError::infra(&error))?.into_iter().flatten());
    let spool = spool.unwrap_or_else(|why| {
        left.push(format!("journal {}, and the output that it may be of ({why})", log.display()));
        None
    });
    if !left.is_empty() {
        // The journal says where the rest is.
        return Ok(left);
    }
    let failed = |what: &str, path: &Path, error: std::io::Error| format!("{what} {} ({error})", path.display());
    if let Some(spool) = spool {
        match std::fs::remove_dir_all(&spool) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => left.push(failed("spool", &spool, error)),
            _ => {}
        }
    }
    if left.is_empty() {
        left.extend(journal::remove(&log).err().map(|error| failed("journal", &log, error)));
    }
    Ok(left)
}

/// An engine goes on with what a killed agent had asked it for: of a task that was being made, something may come a moment later.
async fn from_engine(engine: &Engine, settings: &Settings, task: &TaskId) -> Vec<String> {
    let was_being_made = match run_dir::marked(settings.paths.runtime.as_deref(), run_dir::uid()) {
        Ok(marks) => marks.iter().any(|(marked, mark)| marked == task && !matches!(mark, Some(Mark::Adoptable(..)))),
        Err(_) => true,
    };
    let mut left = engine.remove_task(task, &settings.paths, LIMIT).await;
    let deadline = Instant::now() + LATECOMERS;
    while was_being_made && Instant::now() < deadline {
        tokio::time::sleep(BETWEEN_LOOKS).await;
        left = engine.remove_task(task, &settings.paths, LIMIT).await;
    }
    left
}

/// The run's directory, which is below our own. Without a journal there is none.
fn spool_of(state: &Path, log: &Path) -> Result<Option<PathBuf>, String> {
    let reading = match journal::load(log) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        reading => reading.map_err(|error| error.to_string())?,
    };
    match (reading.known(), reading.ending) {
        (Some(known), _) => {
            let run = known.opening.logs.parent().map(Path::to_owned);
            Ok(run.filter(|run| run.parent() == Some(&state.join("runs"))))
        }
        // Its agent was killed before it had begun anything.
        (None, Ending::Whole | Ending::Torn { .. }) => Ok(None),
        (None, Ending::Damaged { .. }) => Err("it is damaged".to_owned()),
        (None, Ending::Newer { version }) => Err(format!("a newer version of Navvy wrote it (form {version})")),
    }
}

/// Files alone; containers are named, and so is why they were not looked for.
async fn without_engine(settings: &Settings, task: &TaskId, why: &str) -> Vec<String> {
    let Ok(here) = Owner::this_process() else { return vec![format!("all of it ({why})")] };
    let Survey { tasks, troubles } = survey_files(&here, &settings.paths);
    let seen: Vec<Seen> = tasks.into_iter().filter(|seen| seen.task == *task).collect();
    let run = run_dir::place(settings.paths.runtime.as_deref(), run_dir::uid(), task);
    if seen.is_empty() && troubles.is_empty() && !run.exists() {
        // Nothing was made that would not have left a mark.
        return Vec::new();
    }
    let mut left = navvy_docker::survey::remove_files_only(&seen, &settings.paths).await;
    left.extend(troubles);
    left.push(format!("perhaps containers of its ({why})"));
    left
}

/// Below the cgroup that was given; that itself is its maker's.
fn of_cgroups(task: &TaskId, parent: &Parent) -> Vec<String> {
    let own = cgroup::remove(&cgroup::Place::of(task, Some(parent)));
    own.err().map(|(path, error)| format!("cgroup {} ({error})", path.display())).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_that_is_not_understood_does_not_say_that_there_is_no_output() {
        let state = tempfile::tempdir().unwrap();
        let log = state.path().join("task.journal");
        assert_eq!(spool_of(state.path(), &log), Ok(None));
        std::fs::write(&log, "").unwrap();
        assert_eq!(spool_of(state.path(), &log), Ok(None));
        std::fs::remove_file(&log).unwrap();
        std::fs::create_dir(&log).unwrap();
        assert!(spool_of(state.path(), &log).is_err());
    }
}
