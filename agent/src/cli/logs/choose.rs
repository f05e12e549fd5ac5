//! From words to a run, a task and its logs; an error names what there is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use navvy_job::event::LogOf;

use super::super::CliError;
use super::record::{LogRecord, RunRecord, TaskRecord};

/// Names that an error lists at most.
const LISTED: usize = 12;

/// The runs of a state directory.
pub struct Runs {
    directory: PathBuf,
    latest: PathBuf,
}

impl Runs {
    pub fn of(state: &Path) -> Self {
        Self { directory: state.join("runs"), latest: state.join("latest") }
    }

    /// The run of that name or beginning; without one, the newest.
    pub fn choose(&self, word: Option<&str>) -> Result<RunRecord, CliError> {
        let names = self.names()?;
        let name = match word {
            Some(word) => self.named(&names, word)?,
            None => self.newest(&names).ok_or_else(|| {
                CliError::usage(format!("there is no run in {}", self.directory.display()))
                    .hint("`navvy run` makes one; XDG_STATE_HOME says where they are looked for.")
            })?,
        };
        self.read(&name)
    }

    /// The run with a task of that beginning, wherever it is: newest first.
    pub fn with_task(&self, word: &str) -> Result<Vec<(String, String)>, CliError> {
        let mut found = Vec::new();
        for run in self.names()?.into_iter().rev() {
            let tasks = entries(&self.directory.join(&run)).unwrap_or_default();
            found.extend(tasks.into_iter().filter(|task| task.starts_with(word)).map(|task| (run.clone(), task)));
        }
        Ok(found)
    }

    pub fn read(&self, name: &str) -> Result<RunRecord, CliError> {
        let directory = self.directory.join(name);
        RunRecord::read(&directory).map_err(|error| unreadable(&directory, &error))
    }

    /// Oldest first.
    fn names(&self) -> Result<Vec<String>, CliError> {
        match entries(&self.directory) {
            Ok(names) => Ok(names),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(unreadable(&self.directory, &error)),
        }
    }

    fn newest(&self, names: &[String]) -> Option<String> {
        let target = fs::read_link(&self.latest).ok();
        let latest = target.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
        names.iter().find(|name| Some(name.as_str()) == latest).or(names.last()).cloned()
    }

    fn named(&self, names: &[String], word: &str) -> Result<String, CliError> {
        let fits: Vec<&String> = names.iter().filter(|name| !word.is_empty() && name.starts_with(word)).collect();
        match fits.as_slice() {
            [name] => Ok((*name).clone()),
            _ if names.iter().any(|name| name == word) => Ok(word.to_owned()),
            [] => Err(CliError::usage(format!("there is no run `{word}` in {}", self.directory.display()))
                .hint(format!("The newest are: {}.", listed(names.iter().rev())))),
            several => Err(CliError::usage(format!("`{word}` begins the names of {} runs", several.len()))
                .hint(format!("They are: {}.", listed(several.iter().rev())))),
        }
    }
}

/// The task of a run that is called so, or whose id begins so.
pub fn task<'a>(run: &'a RunRecord, word: &str) -> Result<Option<&'a TaskRecord>, CliError> {
    let called: Vec<&TaskRecord> = run.tasks.iter().filter(|task| task.is_called(word)).collect();
    let fits = match called.is_empty() {
        true => run.tasks.iter().filter(|task| !word.is_empty() && task.id.as_str().starts_with(word)).collect(),
        false => called,
    };
    match fits.as_slice() {
        [] => Ok(None),
        [task] => Ok(Some(task)),
        several => {
            let names = several.iter().map(|task| format!("{} ({})", task.id, task.label()));
            Err(CliError::usage(format!("`{word}` is {} tasks of this run", several.len()))
                .hint(format!("Name one by its id: {}.", listed(names))))
        }
    }
}

/// That there is no such task anywhere.
pub fn no_task(run: &RunRecord, word: &str) -> CliError {
    let name = run.directory.file_name().unwrap_or_default().display();
    let error = CliError::usage(format!("run {name} has no job or task `{word}`"));
    if run.tasks.is_empty() {
        return error.hint("None of its tasks has started.");
    }
    let names = run.tasks.iter().map(|task| format!("{} ({})", task.label(), task.id));
    error.hint(format!("It has: {}.", listed(names)))
}

/// The logs of a task that `word` names: `3` (its last attempt), `3-1`, `service:NAME`.
pub fn logs<'a>(task: &'a TaskRecord, word: Option<&str>) -> Result<Vec<&'a LogRecord>, CliError> {
    let Some(word) = word else { return Ok(task.logs.iter().collect()) };
    let found = match (word.strip_prefix("service:"), numbers(word)) {
        (Some(name), _) => task.logs.iter().find(|log| is_service(log, name)),
        (None, Some((step, attempt))) => {
            let fits = |log: &&LogRecord| match log.of {
                LogOf::Step { step: number, attempt: tried } => number == step && attempt.is_none_or(|it| it == tried),
                LogOf::Service { .. } => false,
            };
            task.logs.iter().rev().find(fits)
        }
        (None, None) => None,
    };
    found.map(|log| vec![log]).ok_or_else(|| {
        CliError::usage(format!("{} (task {}) has no log `{word}`", task.label(), task.id)).hint(
            match task.logs.len() {
                0 => "It has none yet.".to_owned(),
                _ => format!("It has: {}.", listed(task.logs.iter().map(LogRecord::word))),
            },
        )
    })
}

fn is_service(log: &LogRecord, name: &str) -> bool {
    match log.of {
        LogOf::Service { service } => log.name == name || service.to_string() == name,
        LogOf::Step { .. } => false,
    }
}

fn numbers(word: &str) -> Option<(usize, Option<u32>)> {
    match word.split_once('-') {
        Some((step, attempt)) => Some((step.parse().ok()?, Some(attempt.parse().ok()?))),
        None => Some((word.parse().ok()?, None)),
    }
}

/// Names of sub-directories, sorted.
fn entries(directory: &Path) -> io::Result<Vec<String>> {
    let directories = fs::read_dir(directory)?.flatten().filter(|entry| entry.file_type().is_ok_and(|it| it.is_dir()));
    let mut names: Vec<String> = directories.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

fn unreadable(path: &Path, error: &io::Error) -> CliError {
    let message = CliError::infra_text(format!("{} could not be read: {error}", path.display()));
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            message.hint("A run's logs are readable by its owner alone: ask as the user who ran it.")
        }
        _ => message,
    }
}

fn listed(names: impl IntoIterator<Item = impl ToString>) -> String {
    let mut names: Vec<String> = names.into_iter().map(|name| name.to_string()).collect();
    if names.is_empty() {
        return "none".to_owned();
    }
    let more = names.len().saturating_sub(LISTED);
    names.truncate(LISTED);
    match more {
        0 => names.join(", "),
        more => format!("{}, and {more} more", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: &str = "aaaa000000000001";

    fn state() -> tempfile::TempDir {
        let state = tempfile::tempdir().unwrap();
        for (run, task) in [("20260101-000000-00000001", TASK), ("20260102-000000-00000002", "aaaa000000000002")] {
            let task = state.path().join("runs").join(run).join(task);
            fs::create_dir_all(&task).unwrap();
            for name in ["001-1.log", "001-2.log", "002-1.log", "service-0.log"] {
                fs::write(task.join(name), "").unwrap();
            }
        }
        state
    }

    #[test]
    fn runs_are_chosen_by_a_beginning_and_the_newest_without_one() {
        let state = state();
        let runs = Runs::of(state.path());
        let name = |word| runs.choose(word).map(|run| run.directory.file_name().unwrap().to_owned());
        assert_eq!(name(None).unwrap(), "20260102-000000-00000002");
        assert_eq!(name(Some("20260101")).unwrap(), "20260101-000000-00000001");
        let unknown = name(Some("../runs")).unwrap_err().render();
        assert!(unknown.contains("no run `../runs`") && unknown.contains("20260102-000000-00000002"), "{unknown}");
        assert!(name(Some("2026")).unwrap_err().render().contains("2 runs"));
        let none = Runs::of(Path::new("/nonexistent")).choose(None).unwrap_err().render();
        assert!(none.contains("no run in /nonexistent/runs"), "{none}");
    }

    #[test]
    fn tasks_are_found_by_a_beginning_of_their_id_in_all_runs() {
        let state = state();
        let runs = Runs::of(state.path());
        let run = runs.choose(None).unwrap();
        assert_eq!(task(&run, "aaaa").unwrap().unwrap().id.as_str(), "aaaa000000000002");
        assert!(task(&run, TASK).unwrap().is_none());
        assert_eq!(runs.with_task(TASK).unwrap(), [("20260101-000000-00000001".to_owned(), TASK.to_owned())]);
        assert!(no_task(&run, "x").render().contains("aaaa000000000002"));
    }

    #[test]
    fn a_step_s_number_means_its_last_attempt() {
        let state = state();
        let run = Runs::of(state.path()).choose(None).unwrap();
        let words = |word| {
            let found = logs(&run.tasks[0], word).map_err(|error| error.render());
            found.map(|logs| logs.iter().map(|log| log.word()).collect::<Vec<_>>())
        };
        assert_eq!(words(None).unwrap(), ["1", "1-2", "2", "service:0"]);
        assert_eq!(words(Some("1")).unwrap(), ["1-2"]);
        assert_eq!(words(Some("1-1")).unwrap(), ["1"]);
        assert_eq!(words(Some("service:0")).unwrap(), ["service:0"]);
        for word in ["3", "1-3", "service:1", "x", "1-x"] {
            let said = words(Some(word)).unwrap_err();
            assert!(said.contains(word) && said.contains("1, 1-2, 2, service:0"), "{said}");
        }
    }
}
