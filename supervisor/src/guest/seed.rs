//! The conversation before the first step: lines on the seed's port, or on its socket.
//!
//! ```text
//! a host is there ─▶ Ready (once on the port; on the socket, to each caller)
//! an empty line   ─▶ Ready: for a host that comes later and does not know what was said before
//! Warm ─▶ Warmed │ Seed ─▶ Seeded │ anything else, and a second Seed ─▶ Failed
//! ```

use std::fs::{self, DirBuilder};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use navvy_protocol::guest::{LINE_CAP, SEED_PORT, Said, Seed, Told, VERSION};

use super::apply::{self, Refusal};
use super::{Guest, Stage, find, port, program, say, services};
use crate::{failure, lock, sys};

/// A machine of a cloud has no such port, and gets its seed through the socket.
const PORT_LIMIT: Duration = Duration::from_secs(120);
/// Whoever seeds a machine through the socket says so at once.
const PATIENCE: Duration = Duration::from_secs(30);
/// For a Docker engine to start under emulation.
const WARM_LIMIT: Duration = Duration::from_secs(100);
const PIECE: usize = 16 << 10;
/// Used once before a snapshot: their pages are in memory then, and their code is translated.
const WARMED: [&[&str]; 4] = [
    &["bash", "-c", "true | cat"],
    &["git", "--version"],
    &["sudo", "-n", "-u", "circleci", "bash", "-lc", "true"],
    &["tar", "--version"],
];

/// Serves the port for ever, where there is one: nobody else can open it then.
pub fn serve_port(guest: &Arc<Guest>) {
    let file = match find::open(SEED_PORT, guest.settings.seed_port.as_deref(), PORT_LIMIT) {
        Ok(Some(file)) => file,
        Ok(None) => return,
        Err(error) => return say(&format!("cannot open the port {SEED_PORT}: {}", failure::text(&error))),
    };
    let mut lines = Lines::default();
    let mut is_greeted = false;
    loop {
        let mut entries = [sys::poll_entry(Some(file.as_fd()), libc::POLLIN, true)];
        // Without a host the kernel says so at once, and wakes nobody when one comes.
        sys::poll(&mut entries, Some(if is_greeted { Duration::from_secs(3600) } else { Duration::ZERO }));
        let is_alone = entries[0].revents & (libc::POLLHUP | libc::POLLERR) != 0;
        if !is_alone && !is_greeted {
            is_greeted = answer(&file, &ready()).is_ok();
        }
        let heard = lines.read(&file);
        while let Some(line) = lines.next() {
            let said = reply(guest, line, true);
            // A host that does not read its answer is gone.
            let _ = answer(&file, &said);
        }
        if is_alone && !heard {
            lines = Lines::default();
            std::thread::sleep(port::PAUSE);
        }
    }
}

/// Serves the socket until the machine is seeded.
pub fn serve_socket(guest: &Arc<Guest>) {
    let path = &guest.settings.seed_socket;
    let listener = match bind(path) {
        Ok(listener) => listener,
        Err(error) => return say(&format!("cannot listen on {}: {}", path.display(), failure::text(&error))),
    };
    while *lock(&guest.stage) != Stage::Seeded {
        match listener.accept() {
            // A caller that goes away has nothing to be told.
            Ok((stream, _)) => converse(guest, &stream).unwrap_or_default(),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    let _ = fs::remove_file(path);
}

/// For uid 0 alone from its first moment on.
fn bind(path: &std::path::Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let _ = fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, PermissionsExt::from_mode(0o600))?;
    Ok(listener)
}

fn converse(guest: &Arc<Guest>, stream: &UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    if sys::peer(stream)?.uid != sys::uid() {
        return Ok(());
    }
    answer(stream, &ready())?;
    let mut lines = Lines::default();
    while lines.read(stream) {
        while let Some(line) = lines.next() {
            answer(stream, &reply(guest, line, false))?;
        }
    }
    Ok(())
}

fn ready() -> Said {
    Said::Ready { version: VERSION }
}

/// Waits for a reader that is slow, but not for ever.
fn answer<T: AsFd>(to: &T, said: &Said) -> io::Result<()>
where
    for<'a> &'a T: Write,
{
    let mut line = serde_json::to_vec(said)?;
    line.push(b'\n');
    let deadline = Instant::now() + PATIENCE;
    let mut rest = line.as_slice();
    while !rest.is_empty() {
        match { to }.write(rest) {
            Ok(count) => rest = &rest[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                sys::poll(&mut [sys::poll_entry(Some(to.as_fd()), libc::POLLOUT, true)], Some(Duration::from_secs(1)));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn failed(message: impl Into<String>) -> Said {
    Said::Failed { message: message.into() }
}

fn reply(guest: &Arc<Guest>, line: Line, on_port: bool) -> Said {
    let arrived = Instant::now();
    let Line::Whole(line) = line else { return failed(format!("a line is longer than {LINE_CAP} bytes")) };
    if line.is_empty() {
        return ready();
    }
    match serde_json::from_slice(&line) {
        Ok(Told::Warm) => warm(guest),
        Ok(Told::Seed(seed)) => be_seeded(guest, &seed, arrived, on_port),
        // Not what the line says: it may hold a secret.
        Err(error) => failed(format!(
            "the line is not understood: at byte {} it is neither \"warm\" nor a whole \"seed\" of version {VERSION}",
            error.column()
        )),
    }
}

fn be_seeded(guest: &Arc<Guest>, seed: &Seed, arrived: Instant, on_port: bool) -> Said {
    match &mut *lock(&guest.stage) {
        stage @ Stage::Fresh => *stage = Stage::Begun,
        Stage::Begun => return failed("a seed was begun before, and is not begun twice: make a new machine"),
        Stage::Seeded => return failed("this machine is a task's already, and is seeded once"),
    }
    let (stage, said) = match apply::apply(guest, seed, arrived, on_port) {
        Ok(()) => (Stage::Seeded, Said::Seeded { time_ns: apply::clock() }),
        Err(Refusal::Untouched(why)) => (Stage::Fresh, failed(why)),
        Err(Refusal::Half(why)) => {
            say(&format!("the seed failed: {why}"));
            (Stage::Begun, failed(why))
        }
    };
    *lock(&guest.stage) = stage;
    said
}

fn warm(guest: &Guest) -> Said {
    if *lock(&guest.stage) != Stage::Fresh {
        return failed("only a machine without a seed is warmed");
    }
    if !guest.settings.is_trial {
        for argv in WARMED {
            // What the image does not have needs no warming.
            let _ = program::run(argv, Duration::from_secs(30));
        }
        let started = match guest.services.start_docker(&[]) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Said::Warmed,
            started => started.and_then(|()| services::await_docker(WARM_LIMIT)),
        };
        if let Err(error) = started {
            return failed(format!("cannot warm the Docker engine: {}", failure::text(&error)));
        }
        let _ = program::run(&["docker", "version"], Duration::from_secs(60));
    }
    Said::Warmed
}

/// Lines of a stream, however its bytes come.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    /// In front of them no line ends.
    searched: usize,
    /// The rest of a line that was too long is passed over.
    is_skipping: bool,
}

/// One line without its end.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Whole(Vec<u8>),
    TooLong,
}

impl Lines {
    /// Reads once. False when there was nothing, or it is the end.
    fn read(&mut self, mut from: impl Read) -> bool {
        let before = self.bytes.len();
        self.bytes.resize(before + PIECE, 0);
        let count = from.read(&mut self.bytes[before..]).unwrap_or(0);
        self.bytes.truncate(before + count);
        count > 0
    }

    fn next(&mut self) -> Option<Line> {
        loop {
            let Some(at) = self.bytes[self.searched..].iter().position(|byte| *byte == b'\n') else {
                self.searched = self.bytes.len();
                if self.bytes.len() < LINE_CAP {
                    return None;
                }
                self.bytes = Vec::new();
                self.searched = 0;
                let is_news = !std::mem::replace(&mut self.is_skipping, true);
                return is_news.then_some(Line::TooLong);
            };
            let end = self.searched + at;
            self.searched = 0;
            let line: Vec<u8> = self.bytes.drain(..=end).take(end).collect();
            if !std::mem::take(&mut self.is_skipping) {
                return Some(if line.len() < LINE_CAP { Line::Whole(line) } else { Line::TooLong });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(stream: &[u8]) -> (Vec<Line>, usize) {
        let (mut lines, mut all, mut rest, mut most) = (Lines::default(), Vec::new(), stream, 0);
        while lines.read(&mut rest) {
            while let Some(line) = lines.next() {
                all.push(line);
            }
            most = most.max(lines.bytes.capacity());
        }
        (all, most)
    }

    #[test]
    fn lines_come_whole_and_none_is_endless() {
        let whole = |text: &str| Line::Whole(text.as_bytes().to_vec());
        assert_eq!(lines_of(b"one\n\ntwo\nhalf").0, [whole("one"), whole(""), whole("two")]);
        let long = [vec![b'x'; 3 * LINE_CAP], b"\nafter\n".to_vec()].concat();
        let (all, most) = lines_of(&long);
        assert_eq!(all, [Line::TooLong, whole("after")]);
        assert!(most <= 4 * LINE_CAP, "{most}");
        let most_allowed = [vec![b'x'; LINE_CAP - 1], b"\n".to_vec()].concat();
        assert_eq!(lines_of(&most_allowed).0, [Line::Whole(vec![b'x'; LINE_CAP - 1])]);
    }
}
