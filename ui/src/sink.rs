//! The way out: bytes gathered, written at once, and a reader who left is reported once.

use std::io::{self, ErrorKind, Write};

/// Output could not be written. The view is mute from then on.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The reader of our output has left (`navvy run | head`).
    #[error("the reader of the output has gone")]
    BrokenPipe,
    /// A full disk, or another error of the system's.
    #[error("failed to write output")]
    Write(#[source] io::Error),
}

/// A writer that stays silent after its first error.
#[derive(Debug)]
pub struct Sink<W> {
    /// `None` after an error.
    writer: Option<W>,
}

impl<W: Write> Sink<W> {
    pub fn new(writer: W) -> Self {
        Self { writer: Some(writer) }
    }

    /// Writes everything gathered in `bytes` and empties it.
    pub fn write(&mut self, bytes: &mut Vec<u8>) -> Result<(), ViewError> {
        let Some(writer) = self.writer.as_mut() else {
            bytes.clear();
            return Ok(());
        };
        if bytes.is_empty() {
            return Ok(());
        }
        let written = writer.write_all(bytes).and_then(|()| writer.flush());
        bytes.clear();
        written.map_err(|error| self.silence(error))
    }

    fn silence(&mut self, error: io::Error) -> ViewError {
        self.writer = None;
        match error.kind() {
            ErrorKind::BrokenPipe => ViewError::BrokenPipe,
            _ => ViewError::Write(error),
        }
    }
}

#[cfg(test)]
impl Sink<Vec<u8>> {
    pub fn written(&self) -> &[u8] {
        self.writer.as_deref().unwrap_or_default()
    }
}
