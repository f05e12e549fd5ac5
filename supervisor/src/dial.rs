//! The control socket over stdin and stdout, for an agent that cannot reach it: many connections, one stream.
//!
//! ```text
//! stdin  ─▶ header, payload ─▶ channel's queue ─▶ its connection to control.sock
//! stdout ◀─ header, payload ◀─ (only while stdout keeps up) ◀────┘
//! ```
//!
//! One thread, one poll; the channels are those of [`crate::mux`].

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use navvy_protocol::mux::{MAGIC, MAX_DATA};
use navvy_protocol::{guest, place};

use crate::mux::Channels;
use crate::{cli, failure, sys};

/// A supervisor that has just been started listens within milliseconds. The agent waits twice as long for us, and has our words then.
const LISTENS_WITHIN: Duration = Duration::from_secs(5);
/// First and longest pause between two looks for it.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LONGEST_LOOK: Duration = Duration::from_millis(20);

const HELP: &str = "usage: navvy-supervisor dial [--guest] [--run-dir DIR] | dial --seed";

pub fn main(arguments: &[String]) -> ExitCode {
    let Some((socket, is_guest)) = socket(arguments) else { return cli::complain(cli::USAGE, HELP) };
    // The task's secret passes through here.
    sys::close_to_others();
    sys::limit_heap();
    match Dial::open(socket, is_guest).and_then(Dial::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli::complain(1, &format!("navvy-supervisor dial: {}", failure::text(&error))),
    }
}

/// Which socket is meant, and whether it is a machine's. `--seed`: the one through which a machine of a cloud takes its seed.
fn socket(arguments: &[String]) -> Option<(PathBuf, bool)> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (is_guest, rest) = match words.as_slice() {
        ["--seed"] => return Some((guest::SEED_SOCKET.into(), true)),
        ["--guest", rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let run_dir = match rest {
        [] => place::RUN_DIR,
        ["--run-dir", value] => value,
        [one] => one.strip_prefix("--run-dir=")?,
        _ => return None,
    };
    Some((Path::new(run_dir).join(place::CONTROL_SOCKET), is_guest))
}

struct Dial {
    control: Control,
    stdin: File,
    stdout: File,
    channels: Channels,
    stdin_open: bool,
}

/// The supervisor's socket.
struct Control {
    socket: PathBuf,
    /// The socket's inode, which stays the same if its name is changed; only uid 0 can reach it through `/proc`.
    held: Option<OwnedFd>,
    /// The supervisor of a machine need not be its first process: only uid 0 can be in its place.
    is_guest: bool,
}

impl Control {
    fn open(socket: PathBuf, is_guest: bool) -> Self {
        let held = sys::hold(&socket).ok().filter(|_| sys::uid() == 0);
        Self { socket, held, is_guest }
    }

    /// The same, once the supervisor listens: whoever has just started a container may be here before its first process has made
    /// its socket. A machine's supervisor has said that it listens.
    fn await_listening(socket: &Path) -> io::Result<Self> {
        let deadline = Instant::now() + LISTENS_WITHIN;
        let mut pause = FIRST_LOOK;
        loop {
            let control = Self::open(socket.to_owned(), false);
            match control.connect() {
                Ok(_) => return Ok(control),
                Err(error) if !is_too_early(&error) || Instant::now() >= deadline => {
                    return Err(io::Error::new(
                        error.kind(),
                        format!("no supervisor at {}: {error}", socket.display()),
                    ));
                }
                Err(_) => std::thread::sleep(pause),
            }
            pause = (pause * 2).min(LONGEST_LOOK);
        }
    }

    /// Connects, to the supervisor alone: uid 0 in the job can put a socket of its own under the name at any moment, and
    /// would be told the task's secret. In a machine uid 0 could read it from the supervisor's memory all the same.
    fn connect(&self) -> io::Result<UnixStream> {
        let held = self.held.as_ref().map(|held| PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd())));
        let stream = UnixStream::connect(held.as_ref().unwrap_or(&self.socket))?;
        let is_supervisor = match self.is_guest {
            true => sys::peer(&stream)?.uid == 0,
            false => !self.socket.starts_with(place::RUN_DIR) || sys::peer(&stream)?.pid == 1,
        };
        if is_supervisor {
            Ok(stream)
        } else {
            Err(io::Error::new(io::ErrorKind::PermissionDenied, "another process listens"))
        }
    }
}

/// Whether it is as before a socket is made, or between its making and the first look for callers.
fn is_too_early(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

impl Dial {
    fn open(socket: PathBuf, is_guest: bool) -> io::Result<Self> {
        // Own descriptions would be better, but not every user can reopen a pipe's; the process that shares them with us
        // (a daemon that carries stdio) does not read or write them itself.
        let duplicate = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().map(File::from);
        let (stdin, stdout) = (duplicate(io::stdin().as_fd())?, duplicate(io::stdout().as_fd())?);
        sys::set_nonblocking(&stdin)?;
        sys::set_nonblocking(&stdout)?;
        let control = match is_guest {
            true => Control::open(socket, true),
            false => Control::await_listening(&socket)?,
        };
        let mut dial = Self { control, stdin, stdout, channels: Channels::default(), stdin_open: true };
        dial.channels.out.push(MAGIC);
        Ok(dial)
    }

    /// Until the agent has closed stdin and every channel has ended, or stdout is gone.
    fn run(mut self) -> io::Result<()> {
        self.channels.out.write_to(&self.stdout)?;
        while self.stdin_open || !self.channels.is_empty() || self.channels.out.len() > 0 {
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> io::Result<()> {
        let stuck = self.channels.is_stuck();
        let mut entries = vec![
            sys::poll_entry(Some(self.stdin.as_fd()), libc::POLLIN, self.stdin_open && !stuck),
            sys::poll_entry(Some(self.stdout.as_fd()), libc::POLLOUT, self.channels.out.len() > 0),
        ];
        let (numbers, of_channels) = self.channels.poll_entries();
        entries.extend(of_channels);
        sys::poll(&mut entries, stuck.then_some(Duration::from_secs(1)));
        if entries[0].revents != 0 {
            self.read_stdin()?;
        }
        self.channels.serve_all(&numbers, &entries[2..]);
        self.channels.out.write_to(&self.stdout).map(drop)
    }

    fn read_stdin(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; MAX_DATA];
        match (&self.stdin).read(&mut buffer) {
            Ok(0) => {
                self.stdin_open = false;
                self.channels.drop_all();
            }
            Ok(count) => {
                self.channels.push_received(&buffer[..count]);
                let control = &self.control;
                self.channels.take_messages(&mut || control.connect()).map_err(io::Error::other)?;
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(words: &[&str]) -> Option<(String, bool)> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        socket(&words).map(|(socket, is_guest)| (socket.display().to_string(), is_guest))
    }

    #[test]
    fn words_name_one_socket_or_none() {
        assert_eq!(meant(&[]), Some(("/opt/navvy/run/control.sock".to_owned(), false)));
        assert_eq!(meant(&["--guest"]), Some(("/opt/navvy/run/control.sock".to_owned(), true)));
        assert_eq!(meant(&["--guest", "--run-dir=/r"]), Some(("/r/control.sock".to_owned(), true)));
        assert_eq!(meant(&["--run-dir", "/r"]), Some(("/r/control.sock".to_owned(), false)));
        assert_eq!(meant(&["--seed"]), Some(("/run/navvy/seed.sock".to_owned(), true)));
        for wrong in [&["--seed", "--guest"][..], &["--run-dir"], &["/r"], &["--guest", "--seed"]] {
            assert_eq!(meant(wrong), None, "{wrong:?}");
        }
    }
}
