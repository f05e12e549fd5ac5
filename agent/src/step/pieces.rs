//! An archive on its way to the store, read on a thread of its own.

use std::io::{self, Read};

use bytes::Bytes;
use navvy_job::chain::chain;
use tokio::sync::mpsc;

use crate::artifacts::guard::{Findings, Guard};
use crate::artifacts::read::{self, Limits, Sink};

/// Pieces that wait for the thread that looks through them.
const PIECES: usize = 2;

/// An archive that comes in pieces.
pub struct Pieces {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Pieces {
    pub fn new(pieces: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self { pieces, piece: Bytes::new() }
    }

    /// Is there any more of it?
    pub fn fill(&mut self) -> io::Result<bool> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv().transpose()? {
                Some(piece) => self.piece = piece,
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

impl Read for Pieces {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.fill()?;
        let piece = self.piece.split_to(self.piece.len().min(to.len()));
        to[..piece.len()].copy_from_slice(&piece);
        Ok(piece.len())
    }
}

/// Looks through the files of an archive that is stored as it is.
pub struct Lookout {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    looking: tokio::task::JoinHandle<Findings>,
}

impl Lookout {
    /// Within a Tokio runtime only. `prefix` stands before each path, for people.
    pub fn new(guard: Guard, prefix: &'static str) -> Self {
        let (sender, pieces) = mpsc::channel(PIECES);
        let looking = tokio::task::spawn_blocking(move || {
            let mut files = Files { guard, prefix };
            let limits = Limits { bytes: u64::MAX, entries: u64::MAX };
            let read = read::read(Pieces::new(pieces), limits, &mut files);
            let mut findings = files.guard.finish();
            findings.unseen.extend(read.err().map(|error| format!("the rest of the archive ({})", chain(&error))));
            findings
        });
        Self { pieces: sender, looking }
    }

    /// Where each piece of the archive goes, too.
    pub fn pieces(&self) -> mpsc::Sender<io::Result<Bytes>> {
        self.pieces.clone()
    }

    /// Once no more pieces come.
    pub async fn findings(self) -> Findings {
        drop(self.pieces);
        let broken = "the archive (a thread of the agent ended unexpectedly)";
        self.looking.await.unwrap_or_else(|_| Findings { unseen: vec![broken.to_owned()], ..Findings::default() })
    }
}

struct Files {
    guard: Guard,
    prefix: &'static str,
}

impl Sink for Files {
    fn begin(&mut self, path: &[u8]) -> io::Result<()> {
        self.guard.begin([self.prefix.as_bytes(), path].concat());
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.guard.bytes(bytes, &mut |_| {});
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        self.guard.end(&mut |_| {});
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use navvy_output::mask::Masks;

    use super::*;
    use crate::artifacts::guard::SecretPolicy;

    #[tokio::test]
    async fn an_archive_that_cannot_be_read_was_not_looked_through() {
        let masks = Masks::new(&[("TOKEN".to_owned(), "hunter2hunter2".to_owned())]);
        let guard = Guard::that_tells(masks, SecretPolicy::Mask, "cache", "build", 1).unwrap();
        let lookout = Lookout::new(guard, "");
        lookout.pieces().send(Ok(Bytes::from_static(b"this is no archive"))).await.unwrap();
        let findings = lookout.findings().await;
        assert!(findings.unseen[0].starts_with("the rest of the archive ("), "{:?}", findings.unseen);
    }
}
