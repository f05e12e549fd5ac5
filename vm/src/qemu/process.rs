//! QEMU's process: started so that it outlives its agent, found again, ended.
//!
//! ```text
//! sh: enter the cgroup ─▶ setsid ─▶ QEMU          one process number all the way, its working directory the machine's
//! ```
//!
//! The process number is written down as soon as it is known; what an agent that was killed could not write down any more is found by
//! its working directory.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use navvy_environment::command;
use navvy_journal::owner::Owner;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt as _, Interest};
use tokio::process::{Child, Command};

use crate::error::Fault;

/// The shell's words: its arguments are cgroups' files, `--`, and the command.
const ENTER: &str = r#"while [ "$1" != -- ]; do echo $$ >"$1" || exit 97; shift; done; shift; exec setsid "$@""#;
/// Where a process is looked at, since it cannot be waited for.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
/// What is kept of what QEMU says.
const WORDS: usize = 4 << 10;

/// What QEMU says on its stderr: for errors.
#[derive(Clone, Default)]
pub struct Words(Arc<Mutex<Vec<u8>>>);

impl Words {
    /// On one line.
    pub fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let text = String::from_utf8_lossy(&bytes);
        text.split_whitespace().collect::<Vec<_>>().join(" ").chars().filter(|c| !c.is_control()).collect()
    }

    async fn read(self, mut from: tokio::process::ChildStderr) {
        let mut piece = [0; 1024];
        while let Ok(count @ 1..) = from.read(&mut piece).await {
            let mut words = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            words.extend(&piece[..count]);
            let surplus = words.len().saturating_sub(WORDS);
            words.drain(..surplus);
        }
    }
}

/// A machine's process, and what this process knows of it.
pub struct Started {
    /// `None`: another process has started it, and would be told how it ended.
    child: Option<Child>,
    pub process: Owner,
    pub words: Words,
}

impl Started {
    /// One that another process has started.
    pub fn of_another(process: Owner) -> Self {
        Self { child: None, process, words: Words::default() }
    }

    /// Was it started by another process?
    pub fn is_of_another(&self) -> bool {
        self.child.is_none()
    }

    /// Waits for its end. `Ok(None)`: it has ended, and how is not known here.
    pub async fn wait(&mut self) -> io::Result<Option<ExitStatus>> {
        match &mut self.child {
            Some(child) => child.wait().await.map(Some),
            None => {
                ended(&self.process).await;
                Ok(None)
            }
        }
    }

    /// Has it ended? If so, as [`Self::wait`] says it.
    pub fn try_wait(&mut self) -> io::Result<Option<Option<ExitStatus>>> {
        match &mut self.child {
            Some(child) => Ok(child.try_wait()?.map(Some)),
            None => Ok(open(&self.process)?.is_none().then_some(None)),
        }
    }
}

/// Starts a program in a machine's directory and in these cgroups (their `cgroup.procs`). Within a Tokio runtime only.
pub fn start(
    program: &Path,
    arguments: &[String],
    directory: &Path,
    cgroups: &[PathBuf],
    search_path: &str,
) -> Result<Started, Fault> {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(ENTER).arg("sh").args(cgroups).arg("--").arg(program).args(arguments);
    command.env_clear().env("PATH", command::absolute_directories(search_path)).current_dir(directory);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let doing = || Fault::host(format!("start {}", program.display()));
    let mut child = command.spawn().map_err(doing())?;
    let pid = child.id().ok_or_else(|| doing()(io::Error::other("it has ended at once")))?;
    let process = Owner::of_process(pid).map_err(doing())?;
    let words = Words::default();
    if let Some(stderr) = child.stderr.take() {
        tokio::spawn(words.clone().read(stderr));
    }
    Ok(Started { child: Some(child), process, words })
}

/// A descriptor of exactly this process; `None` if it has ended.
///
/// # Errors
/// It may live, and no descriptor is to be had.
fn open(process: &Owner) -> io::Result<Option<OwnedFd>> {
    let here = Owner::this_process()?;
    let same_kernel = process.machine == here.machine && process.boot == here.boot;
    if !same_kernel || process.pid_namespace != here.pid_namespace {
        return Ok(None);
    }
    let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
    let opened = match pidfd_open(pid, PidfdFlags::empty()) {
        Err(Errno::SRCH) => return Ok(None),
        opened => opened?,
    };
    // The number may be another's since; behind the descriptor it cannot become another's any more.
    Ok((!process.is_dead(&here)).then_some(opened))
}

/// Waits for the end of a process that may be another's child.
pub async fn ended(process: &Owner) {
    loop {
        match open(process) {
            Ok(None) => return,
            Ok(Some(opened)) => {
                if let Ok(watched) = registered(opened)
                    && watched.readable().await.is_ok()
                {
                    return;
                }
            }
            Err(_) => {}
        }
        // No descriptor was to be had, or to be registered: it is looked at again.
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

#[expect(unsafe_code, reason = "registering takes a promise that an owned descriptor keeps by itself")]
fn registered(process: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` always names the same open descriptor, which lives until it is dropped; the `AsyncFd` owns it.
    unsafe { AsyncFd::register_with_interest(process, Interest::READABLE) }.map_err(Into::into)
}

/// Processes that work in this directory: the machine's, whether it was written down or not.
///
/// # Errors
/// They cannot be listed.
pub fn within(directory: &Path) -> io::Result<Vec<Owner>> {
    let directory = match directory.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        directory => directory?,
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that has ended, or is hidden from us, is none of ours.
        if !std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == directory) {
            continue;
        }
        match Owner::of_process(pid) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            owner => found.push(owner?),
        }
    }
    Ok(found)
}

/// The same and the one that is written down, as far as they live, each with a descriptor. This process is not among them.
fn victims(directory: &Path, written: Option<&Owner>) -> io::Result<Vec<(Owner, OwnedFd)>> {
    let mut victims = within(directory)?;
    victims.retain(|victim| victim.pid != std::process::id());
    victims.extend(written.filter(|it| !victims.contains(it)).cloned());
    let opened = victims.into_iter().map(|victim| Ok(open(&victim)?.map(|opened| (victim, opened))));
    opened.filter_map(Result::transpose).collect()
}

/// Kills the machine's process, written down or not, and waits for its end. What still lives after `limit` is returned.
pub async fn kill(directory: &Path, written: Option<&Owner>, limit: Duration) -> Vec<String> {
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        let opened = match victims(directory, written) {
            Ok(opened) if opened.is_empty() => return Vec::new(),
            Ok(opened) => opened,
            Err(error) if tokio::time::Instant::now() >= deadline => {
                return vec![format!("processes in {} (they could not be looked for: {error})", directory.display())];
            }
            Err(_) => {
                tokio::time::sleep(BETWEEN_LOOKS).await;
                continue;
            }
        };
        for (_, process) in &opened {
            // One that has just ended needs no killing.
            let _gone = pidfd_send_signal(process, Signal::KILL);
        }
        for (victim, _) in &opened {
            if tokio::time::timeout_at(deadline, ended(victim)).await.is_err() {
                return vec![format!("process {} of a machine (it does not end)", victim.pid)];
            }
        }
        if tokio::time::Instant::now() >= deadline {
            return vec![format!("processes in {}", directory.display())];
        }
        // A shell that was just becoming QEMU is one process; nothing starts another. Looked at once more all the same.
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/usr/bin:/bin";

    #[tokio::test]
    async fn a_process_is_ended_by_its_number_and_one_that_nobody_wrote_down_by_its_directory() {
        let scratch = tempfile::tempdir().unwrap();
        let (one, other) = (scratch.path().join("one"), scratch.path().join("other"));
        for directory in [&one, &other] {
            std::fs::create_dir(directory).unwrap();
        }
        let sleep = |directory: &Path| start(Path::new("/bin/sleep"), &["1000".into()], directory, &[], PATH).unwrap();
        let (mut first, mut second, bystander) = (sleep(&one), sleep(&one), sleep(&other));
        assert_eq!(kill(&one, Some(&first.process), Duration::from_secs(10)).await, Vec::<String>::new());
        for started in [&mut first, &mut second] {
            use std::os::unix::process::ExitStatusExt as _;
            assert_eq!(started.wait().await.unwrap().unwrap().signal(), Some(9));
        }
        assert_eq!(within(&one).unwrap(), []);
        assert_eq!(within(&other).unwrap(), std::slice::from_ref(&bystander.process));
        // Another process that got the number later is not meant.
        let later = Owner { start_time: 0, ..bystander.process.clone() };
        assert_eq!(kill(&one, Some(&later), Duration::from_secs(10)).await, Vec::<String>::new());
        assert_eq!(within(&other).unwrap(), std::slice::from_ref(&bystander.process));
        kill(&other, None, Duration::from_secs(10)).await;
    }

    #[tokio::test]
    async fn it_has_a_session_of_its_own_and_what_it_says_is_kept() {
        let scratch = tempfile::tempdir().unwrap();
        let script = "ps -o sid= -p $$ >sid; echo wrong >&2; exit 3".to_owned();
        let mut started = start(Path::new("/bin/sh"), &["-c".into(), script], scratch.path(), &[], PATH).unwrap();
        assert_eq!(started.wait().await.unwrap().unwrap().code(), Some(3));
        let sid = std::fs::read_to_string(scratch.path().join("sid")).unwrap();
        assert_eq!(sid.trim(), started.process.pid.to_string());
        while started.words.text().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(started.words.text(), "wrong");
        let mut refused =
            start(Path::new("/bin/true"), &[], scratch.path(), &["/nonexistent/cgroup.procs".into()], PATH).unwrap();
        assert_eq!(refused.wait().await.unwrap().unwrap().code(), Some(97));
    }
}
