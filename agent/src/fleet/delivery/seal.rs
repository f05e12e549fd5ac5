//! A range of a log becomes an object, and a durable range goes from the disk. All of it blocks.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use bytes::Bytes;
use rustix::fs::FallocateFlags;
use sha2::{Digest as _, Sha256};

/// Fast: a step's output is compressed while it is written, on the machine that runs the step.
const LEVEL: i32 = 1;
/// The step's output, which other threads of this process read and mask, comes first where processors are scarce.
const NICENESS: i32 = 10;
/// File systems keep files in blocks: what does not fill one cannot go.
const BLOCK: u64 = 4096;

/// A segment as it goes into the store.
#[derive(Debug)]
pub struct Sealed {
    /// One zstd frame.
    pub object: Bytes,
    /// Of the bytes before compression.
    pub sha256: [u8; 32],
}

/// Reads a range of a log and compresses it.
///
/// # Errors
/// The log cannot be read, or is shorter.
pub fn seal(log: &Path, range: &Range<u64>) -> io::Result<Sealed> {
    let length = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
    let mut plain = vec![0; length];
    navvy_plain_file::open(log)?.read_exact_at(&mut plain, range.start)?;
    let sha256 = Sha256::digest(&plain).into();
    let mut object = Vec::with_capacity(zstd_safe::compress_bound(length));
    let compressed = zstd_safe::compress(&mut object, &plain, LEVEL);
    compressed.map_err(|code| io::Error::other(zstd_safe::get_error_name(code)))?;
    object.shrink_to_fit();
    Ok(Sealed { object: object.into(), sha256 })
}

/// Does work that blocks on a thread of its own, which yields to the step's. None of the runtime's: a thread that was made nice
/// stays so.
///
/// # Errors
/// The work's, or there is no thread for it.
pub async fn aside<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let (answer, answered) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("seal".to_owned()).spawn(move || {
        // Of this thread alone. Where that is not allowed, it is as good as the others.
        rustix::process::setpriority_process(None, NICENESS).ok();
        answer.send(work()).ok();
    })?;
    answered.await.unwrap_or_else(|_| Err(io::Error::other("a thread ended unexpectedly")))
}

/// Gives the blocks of a range back to the disk; the log keeps its length. Returns up to where it is gone.
///
/// # Errors
/// The file system cannot do it.
pub fn drop_range(log: &Path, range: Range<u64>) -> io::Result<u64> {
    let end = range.end / BLOCK * BLOCK;
    if range.start < end {
        let file = File::options().write(true).open(log)?;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(file, flags, range.start, end - range.start)?;
    }
    Ok(end.max(range.start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_holds_exactly_its_range() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("001-1.log");
        let text = b"0123456789".repeat(1000);
        std::fs::write(&log, &text).unwrap();
        let sealed = seal(&log, &(5..9995)).unwrap();
        let mut plain = Vec::with_capacity(text.len());
        zstd_safe::decompress(&mut plain, &sealed.object).unwrap();
        assert_eq!(plain, &text[5..9995]);
        assert_eq!(sealed.sha256[..], Sha256::digest(&plain)[..]);
        assert!(sealed.object.len() < plain.len() / 10);
        assert!(seal(&log, &(0..10_001)).is_err());
    }

    #[tokio::test]
    async fn work_aside_yields_and_leaves_other_threads_as_they_are() {
        let nice = || rustix::process::getpriority_process(None).map_err(io::Error::from);
        let before = nice().unwrap();
        assert_eq!(aside(nice).await.unwrap(), NICENESS.max(before));
        assert_eq!(nice().unwrap(), before);
        let panicked = aside(|| -> io::Result<()> { panic!("a bug") }).await;
        assert_eq!(panicked.unwrap_err().to_string(), "a thread ended unexpectedly");
    }

    #[test]
    fn what_goes_from_the_disk_leaves_the_rest_where_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("001-1.log");
        std::fs::write(&log, vec![b'x'; 3 * BLOCK as usize]).unwrap();
        let gone = match drop_range(&log, 0..2 * BLOCK + 100) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return,
            gone => gone.unwrap(),
        };
        assert_eq!(gone, 2 * BLOCK);
        let left = std::fs::read(&log).unwrap();
        assert_eq!(left.len(), 3 * BLOCK as usize);
        assert!(left[..2 * BLOCK as usize].iter().all(|byte| *byte == 0));
        assert!(left[2 * BLOCK as usize..].iter().all(|byte| *byte == b'x'));
        assert_eq!(drop_range(&log, 2 * BLOCK..2 * BLOCK + 5).unwrap(), 2 * BLOCK);
    }
}
