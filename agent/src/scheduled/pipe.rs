//! Writing to where perhaps nobody reads: a pipe of a driver's, whose reader comes and goes.
//!
//! ```text
//! writers ─push─▶ at most ROOM bytes ─▶ a thread of its own ─▶ FIFO, O_NONBLOCK
//!                    │ full: the rest is dropped, and counted       │ nobody reads (ENXIO, EPIPE): opened by path again, now and then
//!                    └─▶ `[navvy: 123 bytes were dropped …]` ◀──────┤ the reader does not keep up (EAGAIN): what waits, waits
//!                                                                   └ the path names another: that one is written to
//! ```
//!
//! A writer never waits, never fails, and does nothing but copy. What is dropped is whole writes. A line of the agent's log is one
//! write, so that none of them is cut; a step's output comes in pieces of any size, so that one of its lines may be, and the notice
//! stands on a line of its own behind it. Whoever begins to read in the middle of a write gets its rest.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

/// Bytes that wait for a reader, at most.
const ROOM: usize = 256 << 10;
/// A path that nobody reads is tried again so often.
const BETWEEN_TRIES: Duration = Duration::from_millis(250);
/// Major and minor number of `/dev/null`.
const NULL: (u32, u32) = (1, 3);

/// Cheap to clone; the thread ends with the last of them.
#[derive(Clone)]
pub struct Pipe(Arc<Handle>);

struct Handle(Arc<Shared>);

struct Shared {
    path: PathBuf,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Since the last notice.
    dropped: u64,
    /// Taken out of `waiting`, and not written yet.
    at_hand: bool,
    /// Nobody reads now.
    away: bool,
    over: bool,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.lock().over = true;
        self.0.changed.notify_all();
    }
}

/// Could this be written to? Missing is fine: it may come.
///
/// # Errors
/// It is something that no driver gives.
pub fn check(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) => is_fit(&found),
    }
}

fn is_fit(found: &std::fs::Metadata) -> io::Result<()> {
    let kind = found.file_type();
    let device = (rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev()));
    match kind.is_fifo() || kind.is_file() || (kind.is_char_device() && device == NULL) {
        true => Ok(()),
        false => Err(io::Error::other("it is neither a FIFO nor a file nor /dev/null")),
    }
}

impl Pipe {
    /// # Errors
    /// The path is unfit, or the system gives no thread.
    pub fn to(path: &Path) -> io::Result<Self> {
        check(path)?;
        let shared = Arc::new(Shared { path: path.to_owned(), queue: Mutex::default(), changed: Condvar::new() });
        let writing = Arc::clone(&shared);
        std::thread::Builder::new().name("pipe".to_owned()).spawn(move || Writer::new(writing).run())?;
        Ok(Self(Arc::new(Handle(shared))))
    }

    /// Puts bytes on their way, whole or not at all.
    pub fn push(&self, bytes: &[u8]) {
        let shared = &self.0.0;
        let mut queue = shared.lock();
        if bytes.is_empty() {
            return;
        }
        if queue.bytes + bytes.len() > ROOM {
            queue.dropped += bytes.len() as u64;
            return;
        }
        queue.bytes += bytes.len();
        queue.waiting.push_back(bytes.to_owned());
        shared.changed.notify_all();
    }

    /// Waits until what was pushed is written, as long as somebody reads, and up to `limit`.
    pub fn settle(&self, limit: Duration) {
        let (shared, deadline) = (&self.0.0, Instant::now() + limit);
        let mut queue = shared.lock();
        while !queue.is_idle() && !queue.away {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            queue = shared.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Queue {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && !self.at_hand && self.dropped == 0
    }

    /// The next bytes; after those that waited, how many were dropped behind them.
    fn take(&mut self) -> Option<Vec<u8>> {
        let next = match self.waiting.pop_front() {
            Some(bytes) => {
                self.bytes -= bytes.len();
                Some(bytes)
            }
            None if self.dropped > 0 => {
                let dropped = std::mem::take(&mut self.dropped);
                Some(format!("\n[navvy: {dropped} bytes were dropped here: nobody read them in time]\n").into_bytes())
            }
            None => None,
        };
        self.at_hand = next.is_some();
        next
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for bytes. `None`: nothing comes any more.
    fn next(&self) -> Option<Vec<u8>> {
        let mut queue = self.lock();
        loop {
            if let Some(bytes) = queue.take() {
                return Some(bytes);
            }
            self.changed.notify_all();
            if queue.over {
                return None;
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Is another try worth while? Nobody waits for what nobody reads.
    fn pause(&self) -> bool {
        let mut queue = self.lock();
        queue.away = true;
        self.changed.notify_all();
        let deadline = Instant::now() + BETWEEN_TRIES;
        while !queue.over {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            queue = self.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        !queue.over
    }
}

/// The thread's own.
struct Writer {
    shared: Arc<Shared>,
    file: Option<File>,
}

/// Why a write came to nothing.
enum Trouble {
    /// The reader does not keep up.
    Full,
    /// There is no reader, or no file.
    Away,
}

impl Writer {
    fn new(shared: Arc<Shared>) -> Self {
        Self { shared, file: None }
    }

    fn run(mut self) {
        while let Some(bytes) = self.shared.next() {
            if !self.deliver(&bytes) {
                return;
            }
        }
    }

    /// Until all of it is written. `false`: nobody reads, and nobody writes any more.
    fn deliver(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            match self.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(Trouble::Full) => {
                    if self.shared.lock().over {
                        return false;
                    }
                    self.wait_for_reader();
                }
                Err(Trouble::Away) => {
                    self.file = None;
                    if !self.shared.pause() {
                        return false;
                    }
                }
            }
        }
        self.shared.lock().at_hand = false;
        true
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, Trouble> {
        if self.file.as_ref().is_none_or(|file| is_made_anew(file, &self.shared.path)) {
            // What was there before is written to for as long as nothing else can be.
            self.file = open(&self.shared.path).ok().or_else(|| self.file.take());
            self.shared.lock().away = self.file.is_none();
        }
        let file = self.file.as_mut().ok_or(Trouble::Away)?;
        loop {
            match file.write(bytes) {
                Ok(0) => return Err(Trouble::Away),
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(Trouble::Full),
                // A pipe without a reader; a full disk.
                Err(_) => return Err(Trouble::Away),
            }
        }
    }

    /// Not for longer than between two tries: a reader that is killed is no room, and an error is for the next write.
    fn wait_for_reader(&self) {
        let Some(file) = &self.file else { return };
        let limit = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };
        poll(&mut [PollFd::from_borrowed_fd(file.as_fd(), PollFlags::OUT)], Some(&limit)).ok();
    }
}

/// Does the path name something else by now? Somebody may still hold the old one open, and read it no more.
fn is_made_anew(file: &File, path: &Path) -> bool {
    navvy_plain_file::is_at(file, path).is_ok_and(|is_at| !is_at)
}

/// A FIFO without a reader is no error that waits: it fails at once.
fn open(path: &Path) -> io::Result<File> {
    check(path)?;
    let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file = File::options().append(true).custom_flags(flags).open(path)?;
    // What is there now may not be what was looked at.
    is_fit(&file.metadata()?)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    fn fifo() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        (directory, path)
    }

    fn reader(path: &Path) -> File {
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap();
        File::options().read(true).custom_flags(flags).open(path).unwrap()
    }

    /// Waits until nobody has it open for reading: a child of another test has what this process had when it was forked, until it is
    /// another program.
    fn until_nobody_reads(path: &Path) {
        let deadline = Instant::now() + SOON;
        while open(path).is_ok() {
            assert!(Instant::now() < deadline, "somebody still reads {}", path.display());
            std::thread::yield_now();
        }
    }

    /// Reads until `end` came. Waits for bytes and for a writer, up to a limit that decides nothing but how a failure looks.
    fn read_until(file: &mut File, end: &str) -> String {
        let (mut text, deadline) = (Vec::new(), Instant::now() + SOON);
        let mut buffer = [0; 4096];
        while !String::from_utf8_lossy(&text).contains(end) {
            assert!(Instant::now() < deadline, "{end:?} never came: {:?}", String::from_utf8_lossy(&text));
            match file.read(&mut buffer) {
                Ok(count) if count > 0 => text.extend_from_slice(&buffer[..count]),
                _ => std::thread::yield_now(),
            }
        }
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_pipe_that_nobody_reads_holds_nobody_up_and_takes_no_more_than_its_room() {
        let (_directory, path) = fifo();
        let pipe = Pipe::to(&path).unwrap();
        let line = [b'x'; 1 << 10];
        for _ in 0..4096 {
            pipe.push(&line);
        }
        pipe.settle(SOON);
        {
            let queue = pipe.0.0.lock();
            assert!(queue.bytes <= ROOM && queue.dropped > 3 << 20, "{} {}", queue.bytes, queue.dropped);
        }
        // Who comes now gets what waited, and is told how much is missing.
        let mut reader = reader(&path);
        let text = read_until(&mut reader, "bytes were dropped here");
        let missing = text.split("[navvy: ").nth(1).unwrap().split(' ').next().unwrap().parse::<usize>().unwrap();
        assert_eq!(text.matches('x').count() + missing, (4 << 20));
    }

    #[test]
    fn a_reader_that_comes_back_gets_what_is_written_from_then_on() {
        let (_directory, path) = fifo();
        let mut first = reader(&path);
        let pipe = Pipe::to(&path).unwrap();
        pipe.push(b"one\n");
        assert_eq!(read_until(&mut first, "one\n"), "one\n");
        drop(first);
        until_nobody_reads(&path);
        pipe.push(b"two\n");
        pipe.settle(SOON);
        assert!(pipe.0.0.lock().away, "nobody reads, and nobody waits for it");
        let mut second = reader(&path);
        pipe.push(b"three\n");
        assert_eq!(read_until(&mut second, "three\n"), "two\nthree\n");
    }

    #[test]
    fn a_pipe_that_is_made_anew_is_opened_by_its_path() {
        let (_directory, path) = fifo();
        let first = reader(&path);
        let pipe = Pipe::to(&path).unwrap();
        pipe.push(b"one\n");
        pipe.settle(SOON);
        // Somebody may hold the old one open: a process that is being ended, or one between fork and exec.
        let _held = first;
        std::fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let mut second = reader(&path);
        pipe.push(b"two\n");
        assert_eq!(read_until(&mut second, "two\n"), "two\n");
    }

    #[test]
    fn only_what_a_driver_gives_is_written_to() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "before\n").unwrap();
        let pipe = Pipe::to(&file).unwrap();
        pipe.push(b"behind\n");
        pipe.settle(SOON);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "before\nbehind\n");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        for wrong in [link.as_path(), directory.path(), Path::new("/dev/zero"), Path::new("/dev/tty")] {
            assert!(Pipe::to(wrong).is_err(), "{}", wrong.display());
        }
        assert!(Pipe::to(Path::new("/dev/null")).is_ok() && Pipe::to(&directory.path().join("none")).is_ok());
    }
}
