//! File trees into an archive: walked in order, read and compressed on several threads, written as one stream.
//!
//! ```text
//!  planner ──jobs──▶ worker × N ──frames──▶ caller's thread ──▶ sink
//!  walks, stats,      opens, reads,          puts them in order, keeps the manifest
//!  cuts into frames   digests, compresses
//!     ▲                                          │
//!     └────────────── a token a job ◀────────────┘
//! ```
//!
//! A job is what becomes one frame: many small files, or a piece of a large one. A job needs a token, which comes back
//! when its frame has been written; so no more than [`Options::in_flight`] frames are in memory, each with its plain
//! and compressed bytes at most. The digest of a large file goes from the worker of one piece to that of the next.
//!
//! What changes meanwhile: a file has the size that it had when it was opened, and is cut or filled with zeros to that;
//! one that is gone or unreadable is left out. Each is reported as a [`Warning`].

mod attributes;
mod fill;
mod plan;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Scope};

use crate::entry::{Entry, Kind, Shown};
use crate::error::PackError;
use crate::format::{self, Announcement, Digest, Footer, START};
use crate::manifest::{self, Frame};
pub use attributes::SPACE as USER_ATTRIBUTES;
use fill::Filler;
use plan::{Job, Planner};

/// A tree, file or link to pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// A directory. It may be reached through links.
    pub root: PathBuf,
    /// Below it, and not through links. Empty: the directory itself.
    pub path: Vec<u8>,
    /// Its path in the archive. Empty: the archive's root; then `path` is a directory.
    pub name: Vec<u8>,
}

impl Source {
    /// Named in the archive as it is below `root`.
    pub fn beneath(root: impl Into<PathBuf>, path: impl Into<Vec<u8>>) -> Self {
        let path = path.into();
        Self { root: root.into(), name: path.clone(), path }
    }

    /// What stands at `path`, under another name. A link at its end is packed as a link.
    pub fn named(path: &Path, name: impl Into<Vec<u8>>) -> Self {
        use std::os::unix::ffi::OsStrExt as _;
        let name = name.into();
        match (path.parent(), path.file_name()) {
            (Some(parent), Some(last)) => {
                let root = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
                Self { root: root.to_owned(), path: last.as_bytes().to_vec(), name }
            }
            _ => Self { root: path.to_owned(), path: Vec::new(), name },
        }
    }
}

/// How to pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// That read and compress.
    pub threads: usize,
    /// Level of zstd.
    pub level: i32,
    /// Plain bytes that a frame is meant to have; brought within 64 KiB and 12 MiB. To read one file, its frame is
    /// fetched whole: small frames suit small files that are read one by one.
    pub frame: usize,
}

impl Options {
    /// zstd's level for caches and workspaces.
    pub const LEVEL: i32 = 3;
    /// Bytes of the tar in one frame.
    pub const FRAME: usize = 4 << 20;

    /// Options with that level and frame size; at least one thread.
    pub fn new(threads: usize) -> Self {
        Self { threads: threads.max(1), level: Self::LEVEL, frame: Self::FRAME }
    }

    fn frame(&self) -> usize {
        self.frame.clamp(64 << 10, 12 << 20).next_multiple_of(format::BLOCK)
    }

    /// Frames in memory at once.
    pub fn in_flight(&self) -> usize {
        self.threads + 2
    }
}

/// Something that was not packed, or not as it stands there now.
#[derive(Debug)]
pub struct Warning {
    /// Path in the archive.
    pub path: Vec<u8>,
    /// What is wrong.
    pub trouble: Trouble,
}

/// Why something was not packed, or not as it stood there.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// There is nothing at the path.
    #[error("it does not exist")]
    Missing,
    /// It was listed, and gone when it was opened.
    #[error("it vanished while it was being packed")]
    Vanished,
    /// Opening or reading it failed.
    #[error("it cannot be read")]
    Unreadable(#[source] io::Error),
    /// A socket, a FIFO or a device.
    #[error("it is neither a file nor a directory nor a link")]
    Special,
    /// Only as much was packed as it had held at first.
    #[error("it grew while it was being packed, and was cut")]
    Grew,
    /// Zeros stand for what it lacked at the end.
    #[error("it shrank while it was being packed, and was filled with zeros")]
    Shrank,
    /// Its name cannot be packed; the text says why.
    #[error("{0}")]
    Name(&'static str),
    /// The entry was packed without them.
    #[error("its extended attributes are too long to be kept")]
    Attributes,
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", Shown(&self.path), self.trouble)?;
        if let Trouble::Unreadable(error) = &self.trouble { write!(f, ": {error}") } else { Ok(()) }
    }
}

/// What was packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Entries in the archive.
    pub entries: u64,
    /// Files, without further names of one file.
    pub files: u64,
    /// Bytes of files, holes included.
    pub bytes: u64,
    /// Bytes of the archive.
    pub archive: u64,
    /// The footer that was written.
    pub footer: Footer,
}

/// Packs the sources in the order of their names. One that lies below another by its name is left to that one.
pub fn pack(
    sources: &[Source],
    options: &Options,
    sink: impl Write,
    warn: &mut dyn FnMut(Warning),
) -> Result<Summary, PackError> {
    let trees = plan::open(sources, warn);
    let pool = Pool::default();
    let (token, tokens) = sync_channel(options.in_flight());
    let (job, jobs) = sync_channel(options.in_flight());
    let (done, results) = channel();
    let jobs = Mutex::new(jobs);
    let (trees, pool, jobs) = (&trees, &pool, &jobs);
    // Moved into it: what is left when it ends early is dropped, and the threads notice.
    thread::scope(move |scope| {
        let planner = Planner::new(trees, options.frame(), token, job);
        spawn(scope, move || planner.run())?;
        for _ in 0..options.threads.max(1) {
            let (done, filler) = (done.clone(), Filler::new(trees, options.level));
            spawn(scope, move || work(filler, jobs, pool, &done))?;
        }
        drop(done);
        Collector::new(sink, warn, pool).run(&results, &tokens)
    })
}

fn spawn<'scope>(scope: &'scope Scope<'scope, '_>, work: impl FnOnce() + Send + 'scope) -> Result<(), PackError> {
    thread::Builder::new().spawn_scoped(scope, work).map(drop).map_err(PackError::Thread)
}

/// Buffers that were written out, to be filled again: fresh memory costs a fault a page.
#[derive(Default)]
struct Pool(Mutex<Vec<Vec<u8>>>);

impl Pool {
    fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn give(&self, buffer: Vec<u8>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

/// The result of a job.
struct Filled {
    job: u32,
    /// Length of the frame's plain bytes; 0: none of the job's files could be packed, and there is no frame.
    plain: u32,
    compressed: Vec<u8>,
    digest: Digest,
    /// Those that end in it; their frames are numbers of jobs.
    entries: Vec<Entry>,
    warnings: Vec<Warning>,
    last: bool,
}

/// A worker's life. `None` sent: it has panicked.
fn work(mut filler: Filler<'_>, jobs: &Mutex<Receiver<Job>>, pool: &Pool, done: &Sender<Option<Filled>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        let filled = catch_unwind(AssertUnwindSafe(|| filler.fill(job, pool.take()))).ok();
        if done.send(filled).is_err() {
            return;
        }
    }
}

struct Collector<'a, W> {
    sink: W,
    warn: &'a mut dyn FnMut(Warning),
    pool: &'a Pool,
    manifest: manifest::Writer,
    offset: u64,
    plain: u64,
    frames: u32,
    /// Jobs of which nothing was left.
    empty: u32,
    files: u64,
    bytes: u64,
}

impl<'a, W: Write> Collector<'a, W> {
    fn new(sink: W, warn: &'a mut dyn FnMut(Warning), pool: &'a Pool) -> Self {
        let manifest = manifest::Writer::new();
        Self { sink, warn, pool, manifest, offset: 0, plain: 0, frames: 0, empty: 0, files: 0, bytes: 0 }
    }

    fn run(mut self, results: &Receiver<Option<Filled>>, tokens: &Receiver<()>) -> Result<Summary, PackError> {
        self.write(&START)?;
        let (mut early, mut next) = (BTreeMap::new(), 0);
        for filled in results {
            let filled = filled.ok_or(PackError::Bug)?;
            early.insert(filled.job, filled);
            while let Some(filled) = early.remove(&next) {
                next += 1;
                let last = filled.last;
                self.add(filled)?;
                if last {
                    return self.finish();
                }
                let _ = tokens.recv();
            }
        }
        // The planner ended without an end.
        Err(if next >= format::FRAMES_CAP { PackError::TooLarge } else { PackError::Bug })
    }

    fn add(&mut self, mut filled: Filled) -> Result<(), PackError> {
        filled.warnings.drain(..).for_each(&mut *self.warn);
        if filled.plain == 0 {
            self.empty += 1;
            return Ok(());
        }
        let (frame, compressed, plain) = (self.frames, filled.compressed.len() as u32, filled.plain);
        let announcement = Announcement { frame, compressed, plain, digest: filled.digest };
        self.write(&announcement.encode())?;
        self.manifest.frame(&Frame::announced(&announcement, self.offset));
        self.write(&filled.compressed)?;
        self.pool.give(filled.compressed);
        self.frames += 1;
        self.plain += u64::from(plain);
        for mut entry in filled.entries {
            if let Kind::File(content) = &mut entry.kind {
                // A large file's jobs follow each other, and none of them is empty.
                content.place.frame -= self.empty;
                self.files += 1;
                self.bytes += content.size;
            }
            self.manifest.entry(&entry);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Summary, PackError> {
        self.manifest.end_part();
        let bytes = std::mem::take(&mut self.manifest.bytes);
        let footer = Footer {
            manifest_offset: self.offset,
            manifest_length: bytes.len() as u64,
            frames: self.frames.into(),
            entries: self.manifest.entries,
            plain: self.plain,
            manifest_digest: format::digest(&bytes),
        };
        self.write(&bytes)?;
        self.write(&footer.encode())?;
        self.sink.flush().map_err(PackError::Sink)?;
        let Self { files, bytes, offset: archive, .. } = self;
        Ok(Summary { entries: footer.entries, files, bytes, archive, footer })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        self.sink.write_all(bytes).map_err(PackError::Sink)?;
        self.offset += bytes.len() as u64;
        Ok(())
    }
}
