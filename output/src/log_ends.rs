//! Length and digest of each log of a task, as its files say.

use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use navvy_job::event::{LogEnd, LogOf};
use navvy_plain_file as plain_file;
use sha2::{Digest as _, Sha256};

use super::segments::{SLOT, Seal, hex};

/// The logs in a task's directory, steps first. A directory that is not there has none.
///
/// # Errors
/// It cannot be listed.
pub fn logs_in(directory: &Path) -> io::Result<Vec<(LogOf, PathBuf)>> {
    let entries = plain_file::directory::entries(directory)?;
    let log = |entry: &fs::DirEntry| Some((LogOf::of_name(entry.file_name().to_str()?)?, entry.path()));
    let mut logs: Vec<_> = entries.iter().filter_map(log).collect();
    logs.sort();
    Ok(logs)
}

/// How the logs of a task ended. Reads their seals, not the logs. One whose seal cannot be read has no digest.
///
/// # Errors
/// They cannot be listed, or one cannot be looked at.
pub fn log_ends(directory: &Path) -> io::Result<Vec<LogEnd>> {
    let end = |(of, log): (LogOf, PathBuf)| {
        let bytes = fs::metadata(&log)?.len();
        let sha256 = sealed(&log, bytes).ok().flatten();
        Ok(LogEnd { of, log, bytes, sha256 })
    };
    logs_in(directory)?.into_iter().map(end).collect()
}

fn sealed(log: &Path, bytes: u64) -> io::Result<Option<String>> {
    let mut index = match plain_file::open(&log.with_extension("seg")) {
        Ok(index) => index,
        Err(error) if error.kind() == io::ErrorKind::NotFound && bytes == 0 => {
            return Ok(Some(hex(&Sha256::digest([]))));
        }
        Err(error) => return Err(error),
    };
    index.seek(SeekFrom::End(-2 * SLOT as i64))?;
    let (mut first, mut second) = ([0; SLOT], [0; SLOT]);
    index.read_exact(&mut first)?;
    index.read_exact(&mut second)?;
    Ok(Seal::decode(&first, &second).filter(|seal| seal.total == bytes).map(|seal| seal.hex()))
}

#[cfg(test)]
mod tests {
    use navvy_protocol::frame::Stream;

    use super::super::step_log::StepLog;
    use super::*;

    #[test]
    fn sealed_logs_have_their_digest_and_others_none() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        drop(StepLog::create(at, 1, 1).unwrap());
        let mut written = StepLog::create(at, 10, 2).unwrap();
        written.append(Stream::Stdout, 1, b"text").unwrap();
        let digest = written.digest().sha256;
        drop(written);
        let mut open = StepLog::create_service(at, 0).unwrap();
        open.append(Stream::Stdout, 1, b"still").unwrap();
        fs::write(at.join("unrelated.txt"), "").unwrap();
        let found: Vec<_> = log_ends(at).unwrap().into_iter().map(|it| (it.of, it.bytes, it.sha256)).collect();
        let empty = hex(&Sha256::digest([]));
        assert_eq!(
            found,
            [
                (LogOf::Step { step: 1, attempt: 1 }, 0, Some(empty)),
                (LogOf::Step { step: 10, attempt: 2 }, 4, Some(digest)),
                (LogOf::Service { service: 0 }, 5, None),
            ]
        );
    }

    #[test]
    fn logs_that_cannot_be_listed_are_not_none() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(log_ends(&directory.path().join("never made")).unwrap(), []);
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(log_ends(&file).unwrap_err().kind(), io::ErrorKind::NotADirectory);
        std::os::unix::fs::symlink("nowhere", directory.path().join("001-1.log")).unwrap();
        assert_eq!(log_ends(directory.path()).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
