//! Length and digest of each log of a task, as its files say.

use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use navvy_job::event::{LogEnd, LogOf};
use navvy_plain_file as plain_file;
use sha2::{Digest as _, Sha256};

use super::segments::{SLOT, Seal, hex};

/// The logs in a task's directory, steps first. What cannot be read is left out.
pub fn logs_in(directory: &Path) -> Vec<(LogOf, PathBuf)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut logs: Vec<_> =
        entries.filter_map(|entry| Some((LogOf::of_name(entry.file_name().to_str()?)?, entry.path()))).collect();
    logs.sort();
    logs
}

/// How the logs of a task ended. Reads their seals, not the logs.
pub fn log_ends(directory: &Path) -> Vec<LogEnd> {
    let end = |(of, log): (LogOf, PathBuf)| {
        let bytes = fs::metadata(&log).ok()?.len();
        let sha256 = sealed(&log, bytes).ok().flatten();
        Some(LogEnd { of, log, bytes, sha256 })
    };
    logs_in(directory).into_iter().filter_map(end).collect()
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
        let found: Vec<_> = log_ends(at).into_iter().map(|it| (it.of, it.bytes, it.sha256)).collect();
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
}
