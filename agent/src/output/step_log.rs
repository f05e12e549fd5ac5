//! One file per step attempt that holds exactly the step's bytes; beside it, what belongs to which stream and when.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use navvy_protocol::frame::Stream;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// A new line in the times file at most this often per stream change or pause.
const TIME_GRAIN_NS: u64 = 50_000_000;

/// What a log holds up to some moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogDigest {
    pub bytes: u64,
    /// Hexadecimal.
    pub sha256: String,
}

/// Bytes from `offset` on came from `stream`, first read at `ns` (monotonic clock of the environment).
#[derive(Serialize)]
struct TimeLine {
    offset: u64,
    stream: &'static str,
    ns: u64,
}

/// A log being written.
pub struct StepLog {
    file: File,
    path: PathBuf,
    /// Made with the first byte: most steps of a long job say little.
    times: Option<BufWriter<File>>,
    last: Option<(Stream, u64)>,
    bytes: u64,
    digest: Sha256,
}

impl StepLog {
    /// Creates `DIRECTORY/STEP-ATTEMPT.log`; fails if it exists: an attempt is run once.
    pub fn create(directory: &Path, step: usize, attempt: u32) -> io::Result<Self> {
        let path = Self::path_for(directory, step, attempt);
        let file = create_new(&path)?;
        Ok(Self { file, path, times: None, last: None, bytes: 0, digest: Sha256::new() })
    }

    /// Where the log of a step attempt is.
    pub fn path_for(directory: &Path, step: usize, attempt: u32) -> PathBuf {
        directory.join(format!("{step:03}-{attempt}.log"))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends. On an error what was written before stays whole.
    pub fn append(&mut self, stream: Stream, nanoseconds: u64, bytes: &[u8]) -> io::Result<()> {
        self.note_time(stream, nanoseconds)?;
        self.file.write_all(bytes)?;
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Digest of everything so far.
    pub fn digest(&self) -> LogDigest {
        let sha256 = self.digest.clone().finalize();
        LogDigest { bytes: self.bytes, sha256: sha256.iter().map(|byte| format!("{byte:02x}")).collect() }
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.times.as_mut().map_or(Ok(()), |times| times.flush())
    }

    fn note_time(&mut self, stream: Stream, ns: u64) -> io::Result<()> {
        let worth_it = match self.last {
            None => true,
            Some((last_stream, last_ns)) => last_stream != stream || ns.saturating_sub(last_ns) >= TIME_GRAIN_NS,
        };
        if !worth_it {
            return Ok(());
        }
        self.last = Some((stream, ns));
        let times = match &mut self.times {
            Some(times) => times,
            None => self.times.insert(BufWriter::new(create_new(&self.path.with_extension("times"))?)),
        };
        serde_json::to_writer(&mut *times, &TimeLine { offset: self.bytes, stream: name(stream), ns })?;
        times.write_all(b"\n")
    }
}

/// The stream's name in events and files.
pub fn name(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    }
}

fn create_new(path: &Path) -> io::Result<File> {
    let file = File::options().write(true).create_new(true).mode(0o600).open(path);
    file.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_holds_exactly_the_bytes_and_tells_their_streams() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = StepLog::create(directory.path(), 3, 1).unwrap();
        log.append(Stream::Stdout, 1, b"a\xffb").unwrap();
        log.append(Stream::Stdout, 2, b"c").unwrap();
        log.append(Stream::Stderr, 3, b"d\n").unwrap();
        log.flush().unwrap();
        assert_eq!(std::fs::read(directory.path().join("003-1.log")).unwrap(), b"a\xffbcd\n");
        let times = std::fs::read_to_string(directory.path().join("003-1.times")).unwrap();
        assert_eq!(times.lines().count(), 2);
        assert_eq!(log.digest().bytes, 6);
    }

    #[test]
    fn an_attempt_is_written_once() {
        let directory = tempfile::tempdir().unwrap();
        let _first = StepLog::create(directory.path(), 1, 1).unwrap();
        assert!(StepLog::create(directory.path(), 1, 1).is_err());
    }
}
