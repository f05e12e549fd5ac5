//! What `ps`, `prune` and `rm` share: the way to the engine, and how a task is shown.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use navvy_docker::Engine;
use navvy_docker::endpoint;
use navvy_environment::survey::{Seen, Survey};
use navvy_job::chain::chain;
use navvy_journal::owner::Owner;
use navvy_journal::standing::Condition;
use navvy_ui::json::add_line;
use navvy_vm::pool::door::DoorSource;
use navvy_vm::{Fault, Machines};
use serde::Serialize;
use tokio::runtime::Runtime;

use super::CliError;
use crate::environment::Providers;
use crate::run_directory::RunDirectoryError;
use crate::settings::Settings;
use crate::settings::file::SettingsFile;
use crate::settings::vm::{VmTable, pool_socket};

/// Names the socket of a pool of machines.
const POOL: &str = "NAVVY_VM_POOL";

/// This process and what it can see.
pub struct Host {
    /// The engine's address. Why not: what is told of containers is then from files alone.
    pub engine: Result<String, CliError>,
    /// What is here of an engine and of machines.
    pub providers: Providers,
    pub here: Owner,
    pub survey: Survey,
}

impl Host {
    pub async fn look(settings: &Settings, docker: Option<&str>) -> Result<Self, CliError> {
        let here = Owner::this_process().map_err(|error| CliError::infra(&error))?;
        let (mut providers, machines) = (Providers::default(), machines(settings));
        let engine = match connect(settings, docker).await {
            Ok(engine) => {
                let address = engine.endpoint().to_string();
                providers.docker = Some(engine);
                Ok(address)
            }
            Err(error) => Err(error),
        };
        providers.machines = Some(machines?);
        let survey = providers.survey(&here, &settings.paths).await;
        Ok(Self { engine, providers, here, survey })
    }
}

/// What makes virtual machines, here or elsewhere, or takes them from a pool of this host. Nothing is looked at yet.
pub fn machines(settings: &Settings) -> Result<Machines, CliError> {
    let limit = vm_settings(settings)?.start_limit;
    let pool = match pool(settings)? {
        Some(named) => DoorSource::named(named, limit),
        None => DoorSource::usual(super::vm_pool::socket(settings), limit),
    };
    Ok(machines_without_pool(settings)?.with_pool(Arc::new(pool)))
}

/// The same, but that all machines are made: for a pool itself.
pub fn machines_without_pool(settings: &Settings) -> Result<Machines, CliError> {
    let made = vm_table(settings)?.made(settings, &vm_settings(settings)?);
    made.map_err(|fault| {
        let is_of_table = matches!(&fault, Fault::Setting { key, .. } if key.starts_with("vm."));
        let told = CliError::usage(chain(&fault));
        match settings.file.as_ref().filter(|_| is_of_table) {
            Some(file) => told.hint(format!("It is in {}.", file.display())),
            None => told,
        }
    })
}

/// What this host's user says about virtual machines, with what they do not say as usual.
pub fn vm_settings(settings: &Settings) -> Result<navvy_vm::Settings, CliError> {
    let table = super::image::table_of(settings)?;
    Ok(navvy_vm::Settings { table, ..vm_table(settings)?.machines(settings) })
}

/// The pool's socket that somebody has named: a variable goes before the settings.
fn pool(settings: &Settings) -> Result<Option<PathBuf>, CliError> {
    match settings.get(POOL).filter(|value| !value.is_empty()) {
        Some(named) => pool_socket(named).map(Some).map_err(|why| CliError::usage(format!("{POOL}={named}: {why}"))),
        None => Ok(vm_table(settings)?.pool),
    }
}

/// What this host's user says about virtual machines.
pub fn vm_table(settings: &Settings) -> Result<VmTable, CliError> {
    let file = SettingsFile::of_user(settings).map_err(|error| CliError::usage(chain(&error)))?;
    Ok(file.tables.vm)
}

/// The engine that words and environment name.
pub async fn connect(settings: &Settings, docker: Option<&str>) -> Result<Engine, CliError> {
    let inputs = endpoint::Inputs {
        flag: docker,
        environment: &settings.variables,
        home: settings.home.as_deref(),
        files: &endpoint::RealFiles,
    };
    Ok(Engine::connect(endpoint::find(&inputs)?).await?)
}

/// That logs have no place: why, and which variable names another.
pub fn no_log_directory(settings: &Settings, error: &RunDirectoryError) -> CliError {
    let there = error.path().ancestors().find(|above| above.exists());
    let why = there.map_or_else(String::new, |there| match there.is_dir() {
        true => format!("A directory has to be made in {}, and cannot be. ", there.display()),
        false => format!("{} is not a directory. ", there.display()),
    });
    let place = match settings.get("XDG_STATE_HOME").filter(|value| !value.is_empty()) {
        Some(set) => format!("XDG_STATE_HOME={set} says where logs are kept"),
        None => "Logs are kept in .local/state of your home directory".to_owned(),
    };
    let hint = format!("{why}{place}: set XDG_STATE_HOME to a directory that you may write in and that has room.");
    CliError::infra(error).hint(hint)
}

/// Carries out a short command.
pub fn block_on<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    finish(runtime()?, work)
}

/// All of a command's work on this thread, but for what blocks.
pub fn runtime() -> Result<Runtime, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(64).build();
    runtime.map_err(|error| CliError::infra(&error))
}

/// Carries out the work of a command, and then ends: a call of the system that never returns (a file server that is gone)
/// is left to the end of the process, which waits for none. A panic goes on at once: what blocks a thread may end only
/// with the containers that are removed then.
pub fn finish<T>(runtime: Runtime, work: impl Future<Output = T>) -> T {
    match catch_unwind(AssertUnwindSafe(|| runtime.block_on(work))) {
        Ok(done) => {
            // What was awaited is done. Threads beside it get a moment to put down what they have in hand.
            runtime.shutdown_timeout(std::time::Duration::from_millis(500));
            done
        }
        Err(panic) => {
            runtime.shutdown_background();
            resume_unwind(panic)
        }
    }
}

/// One value a line.
pub fn json_lines(values: impl IntoIterator<Item = impl Serialize>) -> Result<String, CliError> {
    let mut lines = Vec::new();
    for value in values {
        add_line(&mut lines, &value).map_err(|error| CliError::infra(&error))?;
    }
    String::from_utf8(lines).map_err(|error| CliError::infra(&error))
}

/// `build`, `build 2/4`; a dash where no journal tells.
pub fn job(seen: &Seen) -> String {
    match seen.known.as_ref().map(|known| &known.opening) {
        Some(opening) if opening.node_total > 1 => {
            format!("{} {}/{}", opening.job, opening.node_index + 1, opening.node_total)
        }
        Some(opening) => opening.job.clone(),
        None => "-".to_owned(),
    }
}

/// What becomes of a task, in words.
pub fn state(condition: &Condition, now: u64) -> String {
    match condition {
        Condition::Running(_) => "running".to_owned(),
        Condition::Kept(until) => format!("kept until {}", moment(*until, now)),
        Condition::Adoptable(until) => format!("adoptable until {}", moment(*until, now)),
        Condition::Dead => "dead".to_owned(),
        Condition::Foreign => "not ours".to_owned(),
    }
}

/// `14:05 (in 2 h 10 min)`.
fn moment(at: u64, now: u64) -> String {
    let seconds = i64::try_from(at).unwrap_or(i64::MAX);
    let zoned = jiff::Timestamp::from_second(seconds).map(|at| at.to_zoned(jiff::tz::TimeZone::system()));
    let left = span(at.saturating_sub(now));
    zoned.map_or_else(|_| left.clone(), |zoned| format!("{} ({left})", zoned.strftime("%Y-%m-%d %H:%M")))
}

/// `in 2 h 10 min`; every started minute counts.
fn span(seconds: u64) -> String {
    let minutes = seconds.div_ceil(60);
    match (minutes / 1440, minutes / 60 % 24, minutes % 60) {
        (0, 0, minutes) => format!("in {minutes} min"),
        (0, hours, 0) => format!("in {hours} h"),
        (0, hours, minutes) => format!("in {hours} h {minutes} min"),
        (days, 0, _) => format!("in {days} d"),
        (days, hours, _) => format!("in {days} d {hours} h"),
    }
}

/// `2 containers, 1 volume, sockets`.
pub fn objects(seen: &Seen) -> String {
    let count = |n: usize, one: &str| match n {
        0 => None,
        1 => Some(format!("1 {one}")),
        n => Some(format!("{n} {one}s")),
    };
    let sockets = seen.run_directory.as_ref().map(|_| "sockets".to_owned());
    let parts = [count(seen.containers.len(), "container"), count(seen.volumes.len(), "volume"), sockets];
    let words: Vec<_> = parts.into_iter().flatten().collect();
    if words.is_empty() { "no container".to_owned() } else { words.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name from a stranger's repository or image, in `ps`, `cache ls`, `cache explain`, `artifacts ls`, `tests`.
    #[test]
    fn no_json_brings_a_control_character_to_a_terminal() {
        let hostile = "a\u{9b}31m\u{9d}0;title\u{9c}\u{7f}\u{85}\u{1b}[2J©";
        let lines = json_lines([serde_json::json!({ "key": hostile, hostile: 1 })]).unwrap();
        assert!(!lines.trim_end().contains(char::is_control), "{lines:?}");
        let read: serde_json::Value = serde_json::from_str(&lines).unwrap();
        assert_eq!((&read["key"], &read[hostile]), (&serde_json::json!(hostile), &serde_json::json!(1)));
    }

    #[test]
    fn spans_are_as_exact_as_a_person_wants_them() {
        let shown = [1, 60, 61, 3600, 7800, 90_000, 172_800].map(span);
        let expected = ["in 1 min", "in 1 min", "in 2 min", "in 1 h", "in 2 h 10 min", "in 1 d 1 h", "in 2 d"];
        assert_eq!(shown, expected);
    }

    #[test]
    fn states_are_words() {
        assert_eq!(state(&Condition::Dead, 0), "dead");
        assert!(state(&Condition::Kept(7800), 0).ends_with("(in 2 h 10 min)"));
    }

    #[test]
    fn a_call_that_never_returns_holds_up_no_end() {
        let (done, ended) = std::sync::mpsc::channel();
        let (never, stuck) = std::sync::mpsc::channel::<()>();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let answer = finish(runtime, async {
                tokio::task::spawn_blocking(move || stuck.recv().ok());
                7
            });
            done.send(answer)
        });
        assert_eq!(ended.recv_timeout(std::time::Duration::from_secs(60)), Ok(7));
        drop(never);
    }
}
