//! The one way to run a program of this machine: with a deadline, and failing with status and stderr.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// The search path of a user who has no `PATH`.
const USUAL_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// How a program failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The search path has no file of this name.
    #[error("no program {program} on PATH")]
    NotFound {
        /// Its name.
        program: String,
    },
    /// The program was found but could not be run, or its output not be read.
    #[error("failed to start {program}")]
    Start {
        /// Its name.
        program: String,
        /// What the system answered.
        source: io::Error,
    },
    /// The program was killed at its deadline.
    #[error("{program} did not end within {limit:?}")]
    TimedOut {
        /// Its name.
        program: String,
        /// The time it had.
        limit: Duration,
    },
    /// The program ended with anything but success.
    #[error("{program} ended with {status}: {stderr}")]
    Failed {
        /// Its name.
        program: String,
        /// Its exit code, or the signal that ended it.
        status: ExitStatus,
        /// The beginning of its stderr; of its stdout if that is empty.
        stderr: String,
    },
}

/// Runs a program to its end and returns what it wrote to stdout.
pub async fn run(
    program: &str,
    arguments: &[&str],
    input: &[u8],
    search_path: &str,
    limit: Duration,
) -> Result<Vec<u8>, CommandError> {
    let found = find(program, search_path).ok_or_else(|| CommandError::NotFound { program: program.to_owned() })?;
    let start = |source| CommandError::Start { program: program.to_owned(), source };
    let mut command = Command::new(found);
    command.args(arguments).env("PATH", absolute_directories(search_path)).kill_on_drop(true);
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().map_err(start)?;
    let stdin = child.stdin.take();
    let work = async move {
        if let Some(mut stdin) = stdin {
            // A program that does not read its input tells why by its status.
            let _unread = stdin.write_all(input).await;
        }
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(limit, work)
        .await
        .map_err(|_| CommandError::TimedOut { program: program.to_owned(), limit })?
        .map_err(start)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    // Credential helpers speak of what went wrong on stdout.
    let words = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    let stderr = String::from_utf8_lossy(words).trim().chars().take(500).collect();
    Err(CommandError::Failed { program: program.to_owned(), status: output.status, stderr })
}

/// Where a program is; system directories are looked at, too, since users' paths often lack them. Directories of the path
/// that depend on the current directory are not: a stranger's repository may have a program of that name.
pub fn find(program: &str, search_path: &str) -> Option<PathBuf> {
    let search_path = absolute_directories(search_path);
    let directories = search_path.split(':').chain(["/usr/sbin", "/sbin"]).filter(|directory| !directory.is_empty());
    directories.map(|directory| Path::new(directory).join(program)).find(|path| path.is_file())
}

/// The search path that a variable gives; the usual one if there is no variable. A directory whose name is not UTF-8 is skipped.
pub fn search_path(given: Option<&OsStr>) -> String {
    let Some(given) = given else { return USUAL_PATH.to_owned() };
    std::env::split_paths(given)
        .filter_map(|path| path.into_os_string().into_string().ok())
        .collect::<Vec<_>>()
        .join(":")
}

/// A search path without those of its directories that depend on the current directory.
pub fn absolute_directories(search_path: &str) -> String {
    let absolute = search_path.split(':').filter(|directory| directory.starts_with('/'));
    absolute.collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn a_directory_that_is_no_text_hides_no_other() {
        assert_eq!(search_path(Some(OsStr::from_bytes(b"/a:/b\xff:/usr/bin"))), "/a:/usr/bin");
        assert_eq!(search_path(None), USUAL_PATH);
    }

    #[test]
    fn no_program_is_taken_from_where_somebody_stands() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("tool"), "").unwrap();
        let here = std::env::current_dir().unwrap();
        let up: String = here.components().skip(1).map(|_| "../").collect();
        let relative = format!("{up}{}", place.path().display().to_string().trim_start_matches('/'));
        assert!(Path::new(&relative).join("tool").is_file());
        assert_eq!(find("tool", &format!("{relative}:.:")), None);
        assert_eq!(find("tool", &place.path().display().to_string()), Some(place.path().join("tool")));
        assert_eq!(absolute_directories(".::bin:/usr/bin:./x:/bin"), "/usr/bin:/bin");
    }
}
