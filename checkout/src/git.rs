//! The one way this module runs `git`: read-only, in a git directory of our own making, and never for ever.
//!
//! A repository may be a stranger's, and git does what a repository's settings say: it runs filters, hooks, monitors,
//! helpers, and fetches what is missing. So git never sees those settings. It is given a [`Mirror`](super::mirror) as
//! its git directory, in which only settings are that we know, and what could still run something, out of the user's own
//! settings, is switched off by [`OFF`]. What a git that stands still waits for (a pipe in place of a file, a file
//! server that is gone) is not waited for: it is ended.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use navvy_environment::command::{absolute_directories, find, search_path};
use rustix::process::{Pid, Resource, Rlimit};

/// Bytes of git's stderr that are kept for the error.
const STDERR_CAP: usize = 16 * 1024;
/// No answer is longer: a history is asked for in pieces.
const STDOUT_CAP: u64 = 128 << 20;
/// A git that did nothing at all for this long is ended.
const STILL: Duration = Duration::from_secs(5);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// A killed process that the kernel cannot end (it waits for a disk) is left to it after this.
const KILLED: Duration = Duration::from_secs(1);
/// What git may allocate beside its index; files that it maps do not count.
const MEMORY: u64 = 224 << 20;

/// Settings that switch off everything that could run a program, ask the user or write, wherever else it may be switched on.
/// They go first by way of the environment, which wins over every file and is handed on to any git that git starts.
const OFF: [(&str, &str); 25] = [
    ("core.fsmonitor", "false"),
    ("core.hookspath", "/dev/null"),
    ("core.pager", "cat"),
    ("core.editor", "false"),
    ("core.askpass", "false"),
    ("core.sshcommand", "false"),
    ("core.gitproxy", ""),
    ("core.alternaterefscommand", ""),
    ("core.untrackedcache", "false"),
    ("core.splitindex", "false"),
    // Larger contents are neither compared nor held in memory.
    ("core.bigfilethreshold", "16m"),
    ("credential.helper", ""),
    ("diff.external", ""),
    ("diff.ignoresubmodules", "all"),
    ("diff.submodule", "short"),
    ("gc.auto", "0"),
    ("gpg.program", "false"),
    ("gpg.ssh.program", "false"),
    ("gpg.x509.program", "false"),
    ("log.showsignature", "false"),
    ("maintenance.auto", "false"),
    ("protocol.allow", "never"),
    ("status.submodulesummary", "false"),
    ("submodule.recurse", "false"),
    ("uploadpack.packobjectshook", ""),
];

/// The same for what is no setting.
const ENVIRONMENT: [(&str, &str); 10] = [
    // Never writes, not even a refreshed index.
    ("GIT_OPTIONAL_LOCKS", "0"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_NO_LAZY_FETCH", "1"),
    // No protocol at all, where git does not know the line before.
    ("GIT_ALLOW_PROTOCOL", ""),
    ("GIT_ASKPASS", "false"),
    ("SSH_ASKPASS", "false"),
    ("GIT_SSH_COMMAND", "false"),
    ("GIT_PAGER", "cat"),
    ("GIT_EDITOR", "false"),
    ("LC_ALL", "C"),
];

/// A `git` command that failed.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// There is no `git`, or it could not be started.
    #[error("failed to run `{command}`")]
    Spawn {
        /// The command line.
        command: String,
        /// What the system answered.
        source: io::Error,
    },
    /// git ended with anything but success.
    #[error("`{command}` in {} failed ({status}): {stderr}", directory.display())]
    Failed {
        /// The command line.
        command: String,
        /// Where it ran.
        directory: PathBuf,
        /// Its exit code, or the signal that ended it.
        status: ExitStatus,
        /// The beginning of what it wrote to stderr.
        stderr: String,
    },
    /// git made no progress and was killed.
    #[error(
        "`{command}` in {} did nothing for {} seconds and was ended. Is a named pipe called like one of git's files, \
         or does the disk not answer?", directory.display(), STILL.as_secs()
    )]
    StoodStill {
        /// The command line.
        command: String,
        /// Where it ran.
        directory: PathBuf,
    },
    /// The answer is longer than any that is expected.
    #[error("`{command}` in {} printed more than {} MiB", directory.display(), STDOUT_CAP >> 20)]
    TooLong {
        /// The command line.
        command: String,
        /// Where it ran.
        directory: PathBuf,
    },
    /// The repository could not be prepared for git to look at.
    #[error("{0}")]
    Repository(#[source] Box<super::CheckoutError>),
}

impl GitError {
    /// Is there no `git` program at all?
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Spawn { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

impl From<super::CheckoutError> for GitError {
    fn from(error: super::CheckoutError) -> Self {
        match error {
            super::CheckoutError::Git(error) => error,
            other => Self::Repository(Box::new(other)),
        }
    }
}

/// What git is run on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// How errors call it, and the working tree.
    pub(super) top: &'a Path,
    /// The git directory of our making; `None`: git has none.
    pub(super) git_dir: Option<&'a Path>,
    /// Settings beside [`OFF`], which win over every file.
    pub(super) settings: &'a [(String, String)],
    /// Bytes of the index, which git holds in memory several times over.
    pub(super) index: u64,
}

impl Place<'_> {
    /// Runs git to its end; what it printed, or the error with status and stderr.
    pub(super) fn output<S: AsRef<OsStr>>(self, arguments: &[S], input: Option<Vec<u8>>) -> Result<Vec<u8>, GitError> {
        let (status, stdout, stderr) = self.finish(arguments, input)?;
        if status.success() { Ok(stdout) } else { Err(self.failed(display(arguments), status, &stderr)) }
    }

    /// Like [`Self::output`], with exit code 1 meaning "nothing found".
    pub(super) fn query<S: AsRef<OsStr>>(
        self,
        arguments: &[S],
        input: Option<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>, GitError> {
        let (status, stdout, stderr) = self.finish(arguments, input)?;
        match status.code() {
            Some(0) => Ok(Some(stdout)),
            Some(1) => Ok(None),
            _ => Err(self.failed(display(arguments), status, &stderr)),
        }
    }

    fn finish<S: AsRef<OsStr>>(
        self,
        arguments: &[S],
        input: Option<Vec<u8>>,
    ) -> Result<(ExitStatus, Vec<u8>, Vec<u8>), GitError> {
        let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
        let mut running = self.start(arguments, stdin, Stdio::piped())?;
        // Written beside the reading, or both would wait for each other on more than a pipe's worth. A git that ends
        // early closes the pipe; its status tells why.
        if let Some((mut stdin, bytes)) = running.child.stdin.take().zip(input) {
            std::thread::spawn(move || io::Write::write_all(&mut stdin, &bytes));
        }
        let (told, answer) = mpsc::channel();
        if let Some(mut stdout) = running.child.stdout.take() {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                let read = stdout.by_ref().take(STDOUT_CAP + 1).read_to_end(&mut bytes);
                // Closed before the end is reported: then a git that has more to say ends.
                drop(stdout);
                told.send(read.map(|_| bytes))
            });
        }
        let (status, stderr) = running.wait()?;
        let spawn = |source| GitError::Spawn { command: display(arguments), source };
        // Its end has closed the pipe.
        let stdout = answer.recv().unwrap_or_else(|gone| Err(io::Error::other(gone))).map_err(spawn)?;
        if stdout.len() as u64 > STDOUT_CAP {
            return Err(GitError::TooLong { command: display(arguments), directory: self.top.to_owned() });
        }
        Ok((status, stdout, stderr))
    }

    /// Starts a git whose output goes into a file, to be read after its end: so it never waits for a reader.
    pub(super) fn start_into<S: AsRef<OsStr>>(self, arguments: &[S], output: File) -> Result<Running, GitError> {
        self.start(arguments, Stdio::null(), Stdio::from(output))
    }

    fn start<S: AsRef<OsStr>>(self, arguments: &[S], stdin: Stdio, stdout: Stdio) -> Result<Running, GitError> {
        let text = display(arguments);
        let spawn = |source| GitError::Spawn { command: text.clone(), source };
        let mut child = self.command(arguments).map_err(spawn)?.stdin(stdin).stdout(stdout).spawn().map_err(spawn)?;
        if let Some(pid) = pid_of(&child) {
            let most = Some(MEMORY + self.index.saturating_mul(6));
            // Where that is refused, its memory is as free as ours.
            let _ = rustix::process::prlimit(Some(pid), Resource::Data, Rlimit { current: most, maximum: most });
        }
        let stderr = child.stderr.take().map(|pipe| std::thread::spawn(move || drain(pipe)));
        Ok(Running { child, stderr, command: text, directory: self.top.to_owned() })
    }

    fn command<S: AsRef<OsStr>>(self, arguments: &[S]) -> io::Result<Command> {
        let search = absolute_directories(&search_path(std::env::var_os("PATH").as_deref()));
        let program = find("git", &search).ok_or(io::ErrorKind::NotFound)?;
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"GIT_") {
                command.env_remove(name);
            }
        }
        command.args(arguments).env("PATH", search).envs(ENVIRONMENT).stderr(Stdio::piped());
        match self.git_dir {
            Some(git_dir) => command.current_dir(self.top).env("GIT_DIR", git_dir).env("GIT_WORK_TREE", self.top),
            // Not the repository that this process happens to stand in.
            None => command.current_dir("/").env("GIT_DIR", "/dev/null"),
        };
        let own = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let mut count = 0;
        for (name, value) in OFF.into_iter().chain(own) {
            command.env(format!("GIT_CONFIG_KEY_{count}"), name).env(format!("GIT_CONFIG_VALUE_{count}"), value);
            count += 1;
        }
        command.env("GIT_CONFIG_COUNT", count.to_string());
        Ok(command)
    }

    fn failed(self, command: String, status: ExitStatus, stderr: &[u8]) -> GitError {
        GitError::Failed { command, directory: self.top.to_owned(), status, stderr: text(stderr) }
    }
}

/// A git that was started. Dropped early, it is killed.
pub(super) struct Running {
    child: Child,
    stderr: Option<JoinHandle<Vec<u8>>>,
    command: String,
    directory: PathBuf,
}

impl Running {
    /// Waits for its end, and that it was a good one.
    pub(super) fn finish(mut self) -> Result<(), GitError> {
        let (status, stderr) = self.wait()?;
        if status.success() {
            return Ok(());
        }
        let (command, directory) = (self.command.clone(), self.directory.clone());
        Err(GitError::Failed { command, directory, status, stderr: text(&stderr) })
    }

    fn wait(&mut self) -> Result<(ExitStatus, Vec<u8>), GitError> {
        let spawn = |source| GitError::Spawn { command: self.command.clone(), source };
        let Some(status) = wait_while_it_works(&mut self.child).map_err(spawn)? else {
            return Err(GitError::StoodStill { command: self.command.clone(), directory: self.directory.clone() });
        };
        let stderr = self.stderr.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        Ok((status, stderr))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After its end both are refused or immediate.
        if self.child.kill().is_ok() {
            let _ = wait_at_most(&mut self.child, KILLED);
        }
    }
}

/// The process's end; `None` if it had to be ended, since it no longer did anything.
fn wait_while_it_works(child: &mut Child) -> io::Result<Option<ExitStatus>> {
    let mut before = (work_of(child), Instant::now());
    loop {
        if let Some(status) = wait_at_most(child, LOOK)? {
            return Ok(Some(status));
        }
        let now = work_of(child);
        if now != before.0 {
            before = (now, Instant::now());
        } else if before.1.elapsed() >= STILL {
            child.kill()?;
            wait_at_most(child, KILLED)?;
            return Ok(None);
        }
    }
}

/// Its end, if that comes within the limit.
fn wait_at_most(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{PidfdFlags, pidfd_open};
    if let Some(status) = child.try_wait()? {
        return Ok(Some(status));
    }
    match pid_of(child).map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
        Some(Ok(end)) => {
            let limit = Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: limit.subsec_nanos().into() };
            // A signal to us is an early look.
            let _ = poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&limit));
        }
        // A kernel that does not tell of ends.
        _ => std::thread::sleep(limit.min(Duration::from_millis(20))),
    }
    child.try_wait()
}

/// What changes whenever one of the process's threads does anything: its time on processors.
fn work_of(child: &Child) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).into_iter().flatten().flatten();
    tasks.filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok()).collect()
}

fn pid_of(child: &Child) -> Option<Pid> {
    Pid::from_raw(child.id().cast_signed())
}

/// Reads a pipe to its end and keeps its beginning.
fn drain(mut pipe: impl io::Read) -> Vec<u8> {
    let mut kept = Vec::new();
    let _ = pipe.by_ref().take(STDERR_CAP as u64).read_to_end(&mut kept);
    let _ = io::copy(&mut pipe, &mut io::sink());
    kept
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
