//! The agent's process: this plugin's child, or that of a plugin which was here before.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use navvy_journal::owner::Owner;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;

use crate::directory::{Directory, Record};
use crate::log::warning;
use crate::pipes;
use crate::ready::ready;

/// Between two looks at a process that cannot be waited for.
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// A way to one process, and to no other that has its number later.
#[derive(Debug, Clone)]
pub struct Handle(Arc<OwnedFd>);

impl Handle {
    /// Sends it a signal. One that has ended needs none.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.0, signal) {
            Err(rustix::io::Errno::SRCH) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// An agent that runs.
#[derive(Debug)]
pub struct Process {
    handle: Handle,
    /// Who it is, for the plugin after this one.
    pub owner: Owner,
    /// `None`: another process's child.
    child: Option<Child>,
}

impl Process {
    /// Starts an agent for what is in the directory.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(directory: &Directory, record: &Record) -> io::Result<Self> {
        let mut command = Command::new(&record.agent_path);
        command.arg("agent").arg("--scheduled").arg(directory.path());
        command.env_clear().envs(record.environment.iter().map(|(name, value)| (name, value))).current_dir("/");
        command.stdin(Stdio::null()).stderr(directory.agent_err()?);
        // The agent writes nothing there. It keeps the pipe open: a reader that never had a writer holds up a task's end.
        command.stdout(pipes::open(&record.pipes[0]).map_or_else(Stdio::null, Stdio::from));
        let mut child = command.spawn()?;
        // A child that has not been waited for keeps its number.
        let seen = Owner::of_process(child.id()).and_then(|owner| Ok((owner, open(child.id())?)));
        match seen {
            Ok((owner, handle)) => Ok(Self { handle, owner, child: Some(child) }),
            Err(error) => {
                // Nobody would look after it.
                child.kill().and_then(|()| child.wait()).ok();
                Err(error)
            }
        }
    }

    /// Finds one that another plugin has started; `None`: it has ended.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn find(owner: &Owner) -> io::Result<Option<Self>> {
        let here = Owner::this_process()?;
        // Another machine's, boot's or namespace's numbers mean other processes here.
        let is_of_here =
            (&owner.machine, &owner.boot, owner.pid_namespace) == (&here.machine, &here.boot, here.pid_namespace);
        // What is hidden from us is another user's process by now: an agent is always this user's own.
        let is_hidden =
            Owner::of_process(owner.pid).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
        if !is_of_here || is_hidden || owner.is_dead(&here) {
            return Ok(None);
        }
        let handle = match open(owner.pid) {
            Ok(handle) => handle,
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => return Ok(None),
            Err(error) => return Err(error),
        };
        // The number may have gone to another process between the two.
        Ok((!owner.is_dead(&here)).then(|| Self { handle, owner: owner.clone(), child: None }))
    }

    /// Finds the agent of a directory by what it was started with: a plugin that ended right after it had started one has written
    /// down nothing of it.
    ///
    /// # Errors
    /// The processes of this machine cannot be listed.
    pub fn of_directory(directory: &Directory) -> io::Result<Option<Self>> {
        for entry in std::fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            if !is_agent_of(pid, directory)? {
                continue;
            }
            let owner = match Owner::of_process(pid) {
                // It has ended meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                owner => owner?,
            };
            let found = Self::find(&owner)?;
            if found.is_some() && is_agent_of(pid, directory)? {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The way to it.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits for its end. `None`: how it ended, only its own parent is told.
    pub async fn ended(&mut self) -> Option<ExitStatus> {
        if let Err(error) = self.wait().await {
            // Without descriptors, say. It lives until it is seen to be dead: a second agent beside it would be worse than a late end.
            warning!(
                "The end of process {} is looked for again and again, since it cannot be waited for: {error}",
                self.owner.pid
            );
            while !self.has_ended() {
                tokio::time::sleep(BETWEEN_LOOKS).await;
            }
        }
        self.child.as_mut().and_then(|child| child.wait().ok())
    }

    async fn wait(&self) -> io::Result<()> {
        let readiness = ready(self.handle.0.try_clone()?, Interest::READABLE)?;
        readiness.readable().await.map(drop)
    }

    fn has_ended(&self) -> bool {
        Owner::this_process().is_ok_and(|here| self.owner.is_dead(&here))
    }

    /// Ends one that cannot be looked after.
    pub fn abandon(mut self) {
        // It may have ended by itself.
        let _gone = self.handle.signal(Signal::KILL);
        if let Some(child) = &mut self.child {
            child.wait().ok();
        }
    }
}

fn is_agent_of(pid: u32, directory: &Directory) -> io::Result<bool> {
    let words = match std::fs::read(format!("/proc/{pid}/cmdline")) {
        Err(error) if is_none_of_ours(&error) => return Ok(false),
        words => words?,
    };
    let words: Vec<&[u8]> = words.split(|&byte| byte == 0).collect();
    let place = directory.path().as_os_str().as_encoded_bytes();
    let is_of_it = words.windows(2).any(|two| two == [b"--scheduled".as_slice(), place]);
    Ok(is_of_it && !words.contains(&b"--remove".as_slice()))
}

/// Between two looks a process may have ended, and some systems hide those of other users.
fn is_none_of_ours(error: &io::Error) -> bool {
    use io::ErrorKind::{NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | PermissionDenied)
        || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

fn open(pid: u32) -> io::Result<Handle> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(Handle(Arc::new(pidfd_open(pid, PidfdFlags::empty())?)))
}
