//! Programs of this machine that images are made with.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Lines of a program that failed which its error tells.
const LAST_LINES: usize = 15;
/// Bytes of a line that count.
const LINE: u64 = 4096;

/// Ends what is running, from another thread.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    is_stopped: bool,
    running: Option<OwnedFd>,
}

impl Stop {
    /// Kills what runs, and lets nothing run that would begin now.
    pub fn stop(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.is_stopped = true;
        if let Some(running) = &state.running {
            _ = pidfd_send_signal(running, Signal::KILL);
        }
    }

    /// Whether it was asked for.
    pub fn is_stopped(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_stopped
    }

    fn runs(&self, child: &std::process::Child) {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pidfd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).running = pidfd;
        if self.is_stopped() {
            self.stop();
        }
    }

    fn ended(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).running = None;
    }
}

/// Those of `programs` that are not here. Root's programs are looked for where they are, whatever the search path says.
pub fn missing<'a>(programs: &[&'a str]) -> Vec<&'a str> {
    programs.iter().copied().filter(|program| find(program).is_none()).collect()
}

fn find(program: &str) -> Option<PathBuf> {
    let places = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    places.iter().map(|place| Path::new(place).join(program)).find(|path| path.is_file())
}

/// Runs a program for `seconds` at most, tells each line of what it says, and keeps the last ones for its error. With it goes everything
/// that it has started, also when this process is killed: it runs in a pid and a mount namespace of its own, where `alone` says so.
pub fn run(
    program: &Path,
    arguments: &[&OsStr],
    alone: bool,
    seconds: u32,
    stop: &Stop,
    say: &dyn Fn(&str),
) -> Result<(), String> {
    let mut command = Command::new("setpriv");
    // `timeout` is killed with this process, and what it runs with `timeout`.
    command.args(["--pdeathsig", "KILL", "timeout", "--signal=KILL"]).arg(seconds.to_string());
    command.args(["setpriv", "--pdeathsig", "KILL"]);
    if alone {
        command.args([
            "unshare",
            "--mount",
            "--propagation=private",
            "--pid",
            "--mount-proc",
            "--fork",
            "--kill-child=KILL",
        ]);
    }
    command.arg("--").arg(program).args(arguments);
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let failed = |error: std::io::Error| format!("{} could not be run: {error}", program.display());
    if stop.is_stopped() {
        return Err("it was stopped".into());
    }
    let mut child = command.spawn().map_err(failed)?;
    stop.runs(&child);
    let last = child.stderr.take().map(|said| listen(said, say)).unwrap_or_default();
    let status = child.wait().map_err(failed)?;
    stop.ended();
    match (stop.is_stopped(), status.code()) {
        (true, _) => Err("it was stopped".into()),
        (false, Some(0)) => Ok(()),
        // `timeout` ends by the signal that it sends.
        (false, None) if status.signal() == Some(Signal::KILL.as_raw()) => {
            Err(format!("it took longer than {seconds} s\n{last}"))
        }
        (false, _) => Err(format!("{} ended with {status}\n{last}", program.display())),
    }
}

/// Until nobody can write any more; returns the last lines.
fn listen(said: impl std::io::Read, say: &dyn Fn(&str)) -> String {
    let mut said = BufReader::new(said);
    let mut last = std::collections::VecDeque::new();
    let mut line = Vec::new();
    while said.by_ref().take(LINE).read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        say(&text);
        last.push_back(text);
        if last.len() > LAST_LINES {
            last.pop_front();
        }
    }
    Vec::from(last).join("\n")
}
