//! The one way this module runs `git`: read-only, without hooks, prompts or the caller's `GIT_*` variables.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;

/// Of what git writes to stderr this much is kept for the error.
const STDERR_CAP: usize = 16 * 1024;

/// A `git` command that failed.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    #[error("failed to run `{command}`")]
    Spawn { command: String, source: io::Error },
    #[error("`{command}` in {} failed ({status}): {stderr}", directory.display())]
    Failed { command: String, directory: PathBuf, status: ExitStatus, stderr: String },
}

impl GitError {
    /// Is there no `git` program at all?
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Spawn { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Runs git to its end; what it printed, or the error with status and stderr.
pub(super) fn output<S: AsRef<OsStr>>(directory: &Path, arguments: &[S]) -> Result<Vec<u8>, GitError> {
    let (status, stdout, stderr) = finish(directory, arguments, None)?;
    if status.success() { Ok(stdout) } else { Err(failed(directory, arguments, status, &stderr)) }
}

/// Like [`output`], with something on its stdin, and exit code 1 meaning "nothing found".
pub(super) fn query<S: AsRef<OsStr>>(
    directory: &Path,
    arguments: &[S],
    input: Option<Vec<u8>>,
) -> Result<Option<Vec<u8>>, GitError> {
    let (status, stdout, stderr) = finish(directory, arguments, input)?;
    match status.code() {
        Some(0) => Ok(Some(stdout)),
        Some(1) => Ok(None),
        _ => Err(failed(directory, arguments, status, &stderr)),
    }
}

fn finish<S: AsRef<OsStr>>(
    directory: &Path,
    arguments: &[S],
    input: Option<Vec<u8>>,
) -> Result<(ExitStatus, Vec<u8>, Vec<u8>), GitError> {
    let spawn = |source| GitError::Spawn { command: display(arguments), source };
    let mut command = command(directory, arguments);
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().map_err(spawn)?;
    // Written beside the reading, or both would wait for each other on more than a pipe's worth.
    let writer = input.and_then(|bytes| {
        let mut stdin = child.stdin.take()?;
        Some(std::thread::spawn(move || io::Write::write_all(&mut stdin, &bytes)))
    });
    let output = child.wait_with_output().map_err(spawn)?;
    if let Some(writer) = writer {
        // A git that ends early closes the pipe; its status tells why.
        let _ = writer.join();
    }
    Ok((output.status, output.stdout, output.stderr))
}

/// A git command whose output is read while it runs. Dropped early, it is killed.
pub(super) struct Running {
    child: Child,
    stdout: Option<ChildStdout>,
    stderr: Option<JoinHandle<Vec<u8>>>,
    command: String,
    directory: PathBuf,
}

impl Running {
    pub(super) fn start<S: AsRef<OsStr>>(directory: &Path, arguments: &[S]) -> Result<Self, GitError> {
        let text = display(arguments);
        let mut child = command(directory, arguments)
            .spawn()
            .map_err(|source| GitError::Spawn { command: text.clone(), source })?;
        let stdout = child.stdout.take();
        let stderr = child.stderr.take().map(|pipe| std::thread::spawn(move || drain(pipe)));
        Ok(Self { child, stdout, stderr, command: text, directory: directory.to_owned() })
    }

    /// Its stdout; the second time nothing.
    pub(super) fn stdout(&mut self) -> Option<ChildStdout> {
        self.stdout.take()
    }

    /// Waits for its end, after its stdout has been read.
    pub(super) fn finish(mut self) -> Result<(), GitError> {
        let stderr = self.stderr.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        let status = self.child.wait().map_err(|source| GitError::Spawn { command: self.command.clone(), source })?;
        if status.success() {
            return Ok(());
        }
        let (command, directory) = (self.command.clone(), self.directory.clone());
        Err(GitError::Failed { command, directory, status, stderr: text(&stderr) })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After `finish` both are refused or immediate.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads a pipe to its end and keeps its beginning.
fn drain(mut pipe: impl io::Read) -> Vec<u8> {
    let mut kept = Vec::new();
    let _ = pipe.by_ref().take(STDERR_CAP as u64).read_to_end(&mut kept);
    let _ = io::copy(&mut pipe, &mut io::sink());
    kept
}

fn command<S: AsRef<OsStr>>(directory: &Path, arguments: &[S]) -> Command {
    let mut command = Command::new("git");
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"GIT_") {
            command.env_remove(name);
        }
    }
    command
        // No program of the repository's choice: neither a file system monitor nor hooks.
        .args(["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"])
        .args(arguments)
        .current_dir(directory)
        // Never writes, not even a refreshed index.
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_NO_LAZY_FETCH", "1")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn failed<S: AsRef<OsStr>>(directory: &Path, arguments: &[S], status: ExitStatus, stderr: &[u8]) -> GitError {
    GitError::Failed { command: display(arguments), directory: directory.to_owned(), status, stderr: text(stderr) }
}

fn display<S: AsRef<OsStr>>(arguments: &[S]) -> String {
    let mut line = OsString::from("git");
    for argument in arguments {
        line.push(" ");
        line.push(argument);
    }
    line.to_string_lossy().into_owned()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(STDERR_CAP)]).trim().to_owned()
}
