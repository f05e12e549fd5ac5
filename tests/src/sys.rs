//! The few calls of the kernel that the standard library does not have.

use libc::{SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGSTOP, SIGTERM};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    Interrupt,
    Terminate,
    Hangup,
    Kill,
    /// It is not run any more until [`Signal::Continue`].
    Stop,
    Continue,
}

impl Signal {
    fn number(self) -> i32 {
        match self {
            Self::Interrupt => SIGINT,
            Self::Terminate => SIGTERM,
            Self::Hangup => SIGHUP,
            Self::Kill => SIGKILL,
            Self::Stop => SIGSTOP,
            Self::Continue => SIGCONT,
        }
    }
}

/// Sends a signal to a process that the caller has started and not yet waited for, or one below it.
pub fn signal(pid: u32, signal: Signal) {
    kill(pid, 1, signal);
}

/// The same to the whole group that such a process leads.
pub fn signal_group(leader: u32, signal: Signal) {
    kill(leader, -1, signal);
}

#[expect(unsafe_code, reason = "the standard library only knows SIGKILL")]
fn kill(pid: u32, sign: libc::pid_t, signal: Signal) {
    let pid = libc::pid_t::try_from(pid).expect("a pid fits");
    assert!(pid > 1, "refusing to signal process {pid}");
    // SAFETY: kill takes plain numbers and touches no memory of ours.
    unsafe { libc::kill(sign * pid, signal.number()) };
}

/// Moves the calling thread, and what it starts from now on, into a network namespace.
#[expect(unsafe_code, reason = "the standard library knows no namespaces")]
pub fn enter_network(namespace: &std::fs::File) -> std::io::Result<()> {
    use std::os::fd::AsRawFd as _;
    // SAFETY: setns takes plain numbers and touches no memory of ours.
    match unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Is the caller root? Stories that need another user, a mount or an engine of their own ask.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}
