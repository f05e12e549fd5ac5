//! One file per step attempt (and per service container) that holds exactly its bytes; beside it, the index that tells
//! which of them are whole, from which stream and when ([`super::segments`] has its form and its invariants).
//!
//! ```text
//! append ──▶ NNN-A.log, at once
//!    └─▶ open segment ──cut──▶ pending records ──▶ NNN-A.seg
//!          at another stream, at 256 KiB,            with a cut that is 50 ms after the last write,
//!          50 ms after the last cut                  every 256 KiB, every 128 records, at flush and seal
//! ```
//!
//! So a lone line is recorded at once, and of a flood no more than 50 ms or 256 KiB is ever without a record. The index
//! is made with the first byte: most steps of a long job say little, and one that says nothing costs nothing.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use navvy_protocol::frame::Stream;
use sha2::digest::common::hazmat::{SerializableState as _, SerializedState};
use sha2::{Digest as _, Sha256};

use super::disk_floor::{DiskFloor, DiskWatch};
use super::resumed_index::resume_index;
use super::segments::{Header, MAX_SEGMENT, SLOT, Seal, Segment, hex};

/// A segment that took its first byte this long after the last cut is cut at once.
const GRAIN_NS: u64 = 50_000_000;
/// Records that wait for their write at most.
const PENDING_LIMIT: usize = 128 * SLOT;

/// What a log holds up to some moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogDigest {
    /// Number of bytes.
    pub bytes: u64,
    /// Hexadecimal.
    pub sha256: String,
}

/// A place in a log at which another process can go on with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPoint {
    /// Bytes of the log.
    pub bytes: u64,
    /// The state of the digest of all of them. It holds up to 63 of the last ones.
    pub digest: Vec<u8>,
}

impl Default for LogPoint {
    fn default() -> Self {
        Self { bytes: 0, digest: Sha256::new().serialize().to_vec() }
    }
}

/// A log being written. Sealed when dropped, unless by a panic.
pub struct StepLog {
    file: File,
    path: PathBuf,
    created: Instant,
    disk: DiskWatch,
    index: Index,
    open: Option<Open>,
    bytes: u64,
    digest: Sha256,
    sealed: bool,
}

/// A segment that still grows.
struct Open {
    stream: Stream,
    ns: u64,
    length: usize,
    crc: crc32fast::Hasher,
}

impl StepLog {
    /// Creates `DIRECTORY/STEP-ATTEMPT.log`; fails if it exists: an attempt is run once.
    pub fn create(directory: &Path, step: usize, attempt: u32) -> io::Result<Self> {
        Self::create_at(Self::path_for(directory, step, attempt))
    }

    /// Creates `DIRECTORY/service-INDEX.log`; fails if it exists.
    pub fn create_service(directory: &Path, index: usize) -> io::Result<Self> {
        Self::create_at(Self::service_path_for(directory, index))
    }

    fn create_at(path: PathBuf) -> io::Result<Self> {
        Ok(Self::of_file(create_new(&path)?, path))
    }

    fn of_file(file: File, path: PathBuf) -> Self {
        let index = Index::new(path.with_extension("seg"));
        Self {
            file,
            path,
            created: Instant::now(),
            disk: DiskWatch::new(DiskFloor::default()),
            index,
            open: None,
            bytes: 0,
            digest: Sha256::new(),
            sealed: false,
        }
    }

    /// Goes on with a log that another process has left. What stands behind `point` is taken back: it is written again.
    ///
    /// # Errors
    /// The log is shorter than that, or cannot be read.
    pub fn resume(path: &Path, point: &LogPoint) -> io::Result<Self> {
        let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()));
        let digest = SerializedState::<Sha256>::try_from(&point.digest[..]).ok();
        let digest = digest.and_then(|state| Sha256::deserialize(&state).ok());
        let digest = digest.ok_or_else(|| invalid("the state of its digest is none"))?;
        let file = File::options().append(true).create(point.bytes == 0).mode(0o600).open(path)?;
        if file.metadata()?.len() < point.bytes {
            return Err(invalid("it is shorter than it was"));
        }
        file.set_len(point.bytes)?;
        let mut log = Self::of_file(file, path.to_owned());
        log.index = resume_index(path, point.bytes)?;
        (log.bytes, log.digest) = (point.bytes, digest);
        Ok(log)
    }

    /// The same for a log that nobody writes to any more: as it stands.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn close(path: &Path) -> io::Result<()> {
        let (mut digest, mut buffer) = (Sha256::new(), vec![0; MAX_SEGMENT]);
        let (mut file, mut bytes) = (navvy_plain_file::open(path)?, 0);
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    digest.update(&buffer[..count]);
                    bytes += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Self::resume(path, &LogPoint { bytes, digest: digest.serialize().to_vec() })?.seal()
    }

    /// Where the log stands, for another process.
    pub fn point(&self) -> LogPoint {
        LogPoint { bytes: self.bytes, digest: self.digest.serialize().to_vec() }
    }

    /// Sets another disk floor than the default.
    #[must_use]
    pub fn above(mut self, floor: DiskFloor) -> Self {
        self.disk = DiskWatch::new(floor);
        self
    }

    /// Where the log of a step attempt is.
    pub fn path_for(directory: &Path, step: usize, attempt: u32) -> PathBuf {
        directory.join(format!("{step:03}-{attempt}.log"))
    }

    /// Where the log of service container `index` is.
    pub fn service_path_for(directory: &Path, index: usize) -> PathBuf {
        directory.join(format!("service-{index}.log"))
    }

    /// File with the log's bytes; the index stands beside it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends bytes that were read at `nanoseconds` of a monotonic clock. On an error what was written before stays
    /// whole, and counts: also a part of `bytes`. Below the disk floor the error holds a
    /// [`super::DiskFloorReached`].
    pub fn append(&mut self, stream: Stream, nanoseconds: u64, bytes: &[u8]) -> io::Result<()> {
        if self.sealed {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the log is sealed"));
        }
        let (small, beyond) = bytes.split_at(DiskWatch::small(self.bytes, bytes.len()));
        self.write(stream, nanoseconds, small)?;
        if !beyond.is_empty() {
            self.disk.allows(&self.file, &self.path, self.bytes, beyond.len())?;
            self.write(stream, nanoseconds, beyond)?;
        }
        self.index.write_if_due(nanoseconds, self.bytes)
    }

    /// What fits is written, and counts.
    fn write(&mut self, stream: Stream, nanoseconds: u64, bytes: &[u8]) -> io::Result<()> {
        let (taken, written) = write_what_fits(&mut self.file, bytes);
        self.note(stream, nanoseconds, bytes.get(..taken).unwrap_or(bytes));
        written
    }

    /// Appends bytes of the agent's own, or of a source without a clock.
    pub fn append_now(&mut self, bytes: &[u8]) -> io::Result<()> {
        let ns = u64::try_from(self.created.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.append(Stream::Stdout, ns, bytes)
    }

    /// Digest of everything so far.
    pub fn digest(&self) -> LogDigest {
        LogDigest { bytes: self.bytes, sha256: hex(&self.digest.clone().finalize()) }
    }

    /// Records everything so far.
    pub fn flush(&mut self) -> io::Result<()> {
        self.cut();
        self.index.write(self.bytes)
    }

    /// Nothing more comes. May be asked again after an error.
    pub fn seal(&mut self) -> io::Result<()> {
        if !self.sealed {
            self.sealed = true;
            self.cut();
            if self.bytes > 0 {
                let sha256 = self.digest.clone().finalize().into();
                self.index.pending.extend(Seal { total: self.bytes, sha256 }.encode());
            }
        }
        self.index.write(self.bytes)
    }

    /// Takes bytes that are in the log into the digest and the segments.
    fn note(&mut self, stream: Stream, ns: u64, bytes: &[u8]) {
        self.digest.update(bytes);
        if self.open.as_ref().is_some_and(|open| open.stream != stream) {
            self.cut();
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let open = self.open.get_or_insert_with(|| Open { stream, ns, length: 0, crc: crc32fast::Hasher::new() });
            let (now, later) = rest.split_at(rest.len().min(MAX_SEGMENT.saturating_sub(open.length)));
            open.crc.update(now);
            open.length += now.len();
            self.bytes += now.len() as u64;
            rest = later;
            if open.length >= MAX_SEGMENT {
                self.cut();
            }
        }
        if self.index.cut_ns.is_none_or(|last| ns.saturating_sub(last) >= GRAIN_NS) {
            self.cut();
            self.index.cut_ns = Some(ns);
        }
    }

    fn cut(&mut self) {
        let Some(open) = self.open.take() else { return };
        let segment = Segment {
            stream: open.stream,
            end: self.bytes,
            length: u32::try_from(open.length).unwrap_or(u32::MAX),
            ns: open.ns,
            crc: open.crc.finalize(),
        };
        self.index.add(segment);
    }
}

impl Drop for StepLog {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let asked_before = self.sealed;
        if let Err(error) = self.seal()
            && !asked_before
        {
            tracing::warn!(log = %self.path.display(), %error, "A log could not be sealed.");
        }
    }
}

/// The file of records, made with the first one.
pub(super) struct Index {
    path: PathBuf,
    pub(super) file: Option<File>,
    /// Bytes of whole records in it.
    pub(super) length: u64,
    pending: Vec<u8>,
    /// When a segment was last cut for its time.
    cut_ns: Option<u64>,
    /// When, and at which length of the log, the records were last written.
    written_ns: Option<u64>,
    written_at: u64,
}

impl Index {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, file: None, length: 0, pending: Vec::new(), cut_ns: None, written_ns: None, written_at: 0 }
    }

    pub(super) fn add(&mut self, segment: Segment) {
        if self.length == 0 && self.pending.is_empty() {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let unix_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
            self.pending.extend(Header { unix_ns }.encode());
        }
        self.pending.extend(segment.encode());
    }

    fn write_if_due(&mut self, ns: u64, log_length: u64) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let due = self.written_ns.is_none_or(|last| ns.saturating_sub(last) >= GRAIN_NS)
            || log_length.saturating_sub(self.written_at) >= MAX_SEGMENT as u64
            || self.pending.len() >= PENDING_LIMIT;
        if !due {
            return Ok(());
        }
        self.written_ns = Some(ns);
        self.write(log_length)
    }

    /// All pending records, or none of them: they stay pending.
    fn write(&mut self, log_length: u64) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(create_new(&self.path)?),
        };
        if let Err(error) = file.write_all(&self.pending) {
            file.set_len(self.length)?;
            return Err(error);
        }
        self.length += self.pending.len() as u64;
        self.pending.clear();
        self.written_at = log_length;
        Ok(())
    }
}

/// Returns how many of `bytes` are in the file, and why not all.
fn write_what_fits(file: &mut File, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut taken = 0;
    while let Some(rest) = bytes.get(taken..)
        && !rest.is_empty()
    {
        match file.write(rest) {
            Ok(0) => return (taken, Err(io::ErrorKind::WriteZero.into())),
            Ok(length) => taken += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (taken, Err(error)),
        }
    }
    (taken, Ok(()))
}

/// The stream's name in events and files.
pub fn stream_name(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    }
}

/// Appending, so that what is taken back after a failed write leaves no hole.
fn create_new(path: &Path) -> io::Result<File> {
    let file = File::options().append(true).create_new(true).mode(0o600).open(path);
    file.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DiskFloorReached;

    const MS: u64 = 1_000_000;

    fn records(log: &Path) -> Vec<Segment> {
        let index = std::fs::read(log.with_extension("seg")).unwrap_or_default();
        let slots: Vec<&[u8; SLOT]> = index.as_chunks().0.iter().collect();
        slots.iter().filter_map(|slot| Segment::decode(slot)).collect()
    }

    fn sealed(log: &Path) -> Option<Seal> {
        let index = std::fs::read(log.with_extension("seg")).unwrap_or_default();
        match index.as_chunks::<SLOT>().0 {
            [.., first, second] => Seal::decode(first, second),
            _ => None,
        }
    }

    #[test]
    fn a_log_holds_exactly_the_bytes_and_its_index_tells_their_streams() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = StepLog::create(directory.path(), 3, 1).unwrap();
        log.append(Stream::Stdout, 1, b"a\xffb").unwrap();
        log.append(Stream::Stdout, 2, b"c").unwrap();
        log.append(Stream::Stderr, 3, b"d\n").unwrap();
        log.flush().unwrap();
        let path = directory.path().join("003-1.log");
        assert_eq!(std::fs::read(&path).unwrap(), b"a\xffbcd\n");
        let found: Vec<_> = records(&path).iter().map(|it| (it.stream, it.ns, it.end)).collect();
        assert_eq!(found, [(Stream::Stdout, 1, 3), (Stream::Stdout, 2, 4), (Stream::Stderr, 3, 6)]);
        assert_eq!((log.digest().bytes, sealed(&path)), (6, None));
        let sha256 = log.digest().sha256;
        drop(log);
        assert_eq!(sealed(&path).unwrap().hex(), sha256);
    }

    #[test]
    fn a_lone_line_is_recorded_at_once_and_a_flood_now_and_then() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = StepLog::create(directory.path(), 1, 1).unwrap();
        log.append(Stream::Stdout, MS, b"first").unwrap();
        assert_eq!(records(log.path()).len(), 1);
        log.append(Stream::Stdout, 2 * MS, b"soon").unwrap();
        assert_eq!(records(log.path()).len(), 1);
        log.append(Stream::Stdout, 60 * MS, b"later").unwrap();
        assert_eq!(records(log.path()).len(), 2);
        for _ in 0..10 {
            log.append(Stream::Stdout, 61 * MS, &[b'x'; 100_000]).unwrap();
        }
        let covered = records(log.path()).last().unwrap().end;
        assert!(log.digest().bytes - covered < MAX_SEGMENT as u64 + 100_000, "{covered}");
    }

    #[test]
    fn bytes_that_are_longer_than_a_segment_are_cut() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = StepLog::create(directory.path(), 1, 1).unwrap();
        log.append(Stream::Stdout, 0, &vec![1; MAX_SEGMENT * 2 + 5]).unwrap();
        log.seal().unwrap();
        let lengths: Vec<_> = records(log.path()).iter().map(|it| it.length as usize).collect();
        assert_eq!(lengths, [MAX_SEGMENT, MAX_SEGMENT, 5]);
    }

    #[test]
    fn a_step_that_says_nothing_has_no_index() {
        let directory = tempfile::tempdir().unwrap();
        let log = StepLog::create(directory.path(), 1, 1).unwrap();
        let path = log.path().to_owned();
        drop(log);
        assert!(path.exists() && !path.with_extension("seg").exists());
    }

    #[test]
    fn an_attempt_is_written_once_and_nothing_comes_after_the_seal() {
        let directory = tempfile::tempdir().unwrap();
        let mut first = StepLog::create(directory.path(), 1, 1).unwrap();
        assert!(StepLog::create(directory.path(), 1, 1).is_err());
        first.seal().unwrap();
        assert!(first.append(Stream::Stdout, 1, b"late").is_err());
    }

    /// What a reader of the log gets, however it was written.
    fn check(log: &Path, text: &[u8]) {
        assert_eq!(std::fs::read(log).unwrap(), text);
        let mut at = 0;
        for segment in records(log) {
            assert_eq!(segment.start(), at);
            let bytes = &text[at as usize..segment.end as usize];
            assert_eq!(crc32fast::hash(bytes), segment.crc);
            at = segment.end;
        }
        let seal = sealed(log).unwrap();
        assert_eq!((at, seal.total, seal.hex()), (text.len() as u64, text.len() as u64, hex(&Sha256::digest(text))));
    }

    #[test]
    fn a_log_goes_on_from_any_of_its_points_whatever_stands_behind_it() {
        let text: Vec<u8> = (0..700_000_u32).map(|at| (at * 31 + at / 251) as u8).collect();
        let directory = tempfile::tempdir().unwrap();
        for (nth, sealed_before) in (0..40).zip([true, false].into_iter().cycle()) {
            let mut log = StepLog::create(directory.path(), nth + 1, 1).unwrap();
            let path = log.path().to_owned();
            let (mut points, mut ns) = (vec![log.point()], 0);
            for piece in text.chunks(17_000 + nth * 977) {
                ns += nth as u64 * 4 * MS;
                log.append(if ns % 3 == 0 { Stream::Stdout } else { Stream::Stderr }, ns, piece).unwrap();
                points.push(log.point());
            }
            match sealed_before {
                true => drop(log),
                // As if it had been killed: nothing is recorded that was not.
                false => std::mem::forget(log),
            }
            let point = &points[nth * 7 % points.len()];
            let mut again = StepLog::resume(&path, point).unwrap();
            again.append(Stream::Stdout, ns + MS, &text[point.bytes as usize..]).unwrap();
            drop(again);
            check(&path, &text);
        }
    }

    #[test]
    fn a_log_whose_writer_was_killed_when_its_index_was_made_is_gone_on_with_and_closed() {
        for begun in [&b""[..], b"half a header"] {
            let directory = tempfile::tempdir().unwrap();
            let path = StepLog::path_for(directory.path(), 1, 1);
            std::fs::write(&path, "left\n").unwrap();
            std::fs::write(path.with_extension("seg"), begun).unwrap();
            StepLog::close(&path).unwrap();
            assert_eq!(sealed(&path).unwrap().total, 5);
        }
    }

    #[test]
    fn a_log_that_was_left_is_closed_as_it_stands_and_one_that_is_too_short_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = StepLog::create(directory.path(), 1, 1).unwrap();
        let path = log.path().to_owned();
        log.append(Stream::Stdout, 1, b"first").unwrap();
        log.append(Stream::Stdout, 2, b"second").unwrap();
        let point = log.point();
        std::mem::forget(log);
        StepLog::close(&path).unwrap();
        check(&path, b"firstsecond");
        File::options().write(true).open(&path).unwrap().set_len(3).unwrap();
        assert!(StepLog::resume(&path, &point).is_err());
        assert!(StepLog::resume(&path, &LogPoint { bytes: 1, digest: vec![1, 2] }).is_err());
    }

    #[test]
    fn below_the_floor_as_much_as_makes_a_small_log_is_written_and_sealed() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = StepLog::create(directory.path(), 1, 1).unwrap().above(DiskFloor(u64::MAX / 2));
        log.append(Stream::Stdout, 0, b"small").unwrap();
        // However large the piece is in which it comes.
        let error = log.append(Stream::Stdout, 0, &[7; 1 << 20]).unwrap_err();
        let small = 256 << 10;
        assert_eq!(DiskFloorReached::of(&error).unwrap().written, small, "{error}");
        assert!(log.append(Stream::Stdout, 0, &[7]).is_err());
        let path = log.path().to_owned();
        drop(log);
        let written = std::fs::read(&path).unwrap();
        assert!(written.starts_with(b"small\x07") && written.len() as u64 == small, "{} bytes", written.len());
        assert_eq!(sealed(&path).unwrap().total, small);
    }
}
