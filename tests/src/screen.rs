//! A terminal that nobody's session has yet, as a task driver makes one for a command of its operator's.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::deadline::{eventually, seldom};

/// A command on a terminal.
pub struct Screen {
    terminal: File,
    child: Child,
    shown: Vec<u8>,
}

impl Screen {
    /// Starts it; it is killed when this is dropped.
    #[track_caller]
    pub fn start(mut command: Command, columns: u16, rows: u16) -> Self {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&terminal).and_then(|()| unlockpt(&terminal)).expect("its other end");
        let name = ptsname(&terminal, Vec::new()).expect("a name");
        let other: OwnedFd =
            rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).expect("it opens");
        let of = || Stdio::from(other.try_clone().expect("a copy"));
        set_size(&terminal, columns, rows);
        let child = command.env("TERM", "xterm").stdin(of()).stdout(of()).stderr(of()).spawn().expect("it starts");
        rustix::io::ioctl_fionbio(&terminal, true).expect("it never waits");
        Self { terminal: File::from(terminal), child, shown: Vec::new() }
    }

    /// Its new size.
    pub fn resize(&self, columns: u16, rows: u16) {
        set_size(&self.terminal, columns, rows);
    }

    /// Types this.
    #[track_caller]
    pub fn types(&mut self, text: &str) {
        self.terminal.write_all(text.as_bytes()).expect("a terminal takes what is typed");
    }

    /// Waits until it shows this; all that it has shown so far.
    #[track_caller]
    pub fn shows(&mut self, text: &str, limit: Duration) -> String {
        eventually(&format!("{text:?} on the terminal"), limit, || self.has_shown(text))
    }

    /// The same, where something is typed again as long as it does not.
    #[track_caller]
    pub fn shows_if_typed(&mut self, text: &str, typed: &str, limit: Duration) -> String {
        seldom(&format!("{text:?} on the terminal"), limit, || {
            let shown = self.has_shown(text);
            if shown.is_none() {
                self.types(typed);
            }
            shown
        })
    }

    fn has_shown(&mut self, text: &str) -> Option<String> {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = self.terminal.read(&mut buffer) {
            self.shown.extend_from_slice(&buffer[..count]);
        }
        let shown = String::from_utf8_lossy(&self.shown).into_owned();
        shown.contains(text).then_some(shown)
    }

    /// Waits for its end. Its exit code.
    #[track_caller]
    pub fn end(&mut self, limit: Duration) -> Option<i32> {
        eventually("the end of the command", limit, || self.child.try_wait().expect("it can be waited for")).code()
    }
}

fn set_size(terminal: impl std::os::fd::AsFd, columns: u16, rows: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).expect("a terminal has a size");
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
