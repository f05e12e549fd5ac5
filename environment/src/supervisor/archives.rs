//! File trees as archives, out of an environment and into it; and files that a step looks at itself.

use std::cell::Cell;
use std::io::{self, Write as _};
use std::time::Duration;

use bytes::Bytes;
use navvy_protocol::frame::FrameKind;
use navvy_protocol::supervisor::{ArchiveLimits, Extracted, Packed, Reply, Request, Trees};

use super::client::{Client, ClientError, DATA_CHUNK, DataWriter, unexpected};

/// A disk that is silent for this long while trees are packed or unpacked is silent for ever.
const SILENCE: Duration = Duration::from_secs(600);

/// What comes next of an archive that is sent.
#[derive(Debug)]
pub enum Fed {
    /// The next bytes, in order.
    Piece(Bytes),
    /// That was all of it.
    End,
    /// There will be no more, and that was not all.
    Broken,
}

impl Client {
    /// Packs these trees; `sink` gets the archive piece by piece and says whether it takes more. `None`: it did not.
    pub fn pack(
        &self,
        trees: Trees,
        user: Option<String>,
        sink: &mut dyn FnMut(Bytes) -> bool,
    ) -> Result<Option<Packed>, ClientError> {
        let mut conversation = self.open(&Request::Pack { trees, user })?;
        conversation.limit = SILENCE;
        loop {
            match conversation.receive()? {
                FrameKind::Data if conversation.buffer.is_empty() => break,
                FrameKind::Data => {
                    if !sink(std::mem::take(&mut conversation.buffer).into()) {
                        return Ok(None);
                    }
                }
                FrameKind::Reply => return Err(unexpected(conversation.message(FrameKind::Reply)?)),
                _ => return Err(ClientError::WrongReply),
            }
        }
        match conversation.reply()? {
            Reply::Packed(packed) => Ok(Some(packed)),
            other => Err(unexpected(other)),
        }
    }

    /// Unpacks the archive that `source` brings to where these trees are; `passed_over` are paths in the archive, each
    /// ended by NUL. `None`: the source broke, and the archive was not unpacked to its end.
    pub fn extract(
        &self,
        trees: Trees,
        user: Option<String>,
        limits: ArchiveLimits,
        passed_over: &[u8],
        source: &mut dyn FnMut() -> Fed,
    ) -> Result<Option<Extracted>, ClientError> {
        let request = Request::Extract { trees, user, limits, passed_over: passed_over.len() as u64 };
        let mut conversation = self.open(&request)?;
        let stalled = Cell::new(false);
        let sent = send(DataWriter { stream: &conversation.stream, stalled: &stalled }, passed_over, source);
        match sent {
            Ok(false) => return Ok(None),
            Ok(true) => conversation.end_stream()?,
            Err(_) if stalled.get() => return Err(ClientError::TimedOut { limit: self.limits().send }),
            // The other side hung up: its own words tell why, if it left any.
            Err(source) => return Err(conversation.last_words().unwrap_or(ClientError::Unreachable { source })),
        }
        conversation.limit = SILENCE;
        match conversation.reply()? {
            Reply::Extracted(extracted) => Ok(Some(extracted)),
            other => Err(unexpected(other)),
        }
    }

    /// SHA-256 of a file, in hexadecimal.
    pub fn checksum(&self, path: &str, user: Option<String>) -> Result<String, ClientError> {
        let mut conversation = self.open(&Request::Checksum { paths: vec![path.to_owned()], user })?;
        conversation.limit = SILENCE;
        match conversation.reply()? {
            Reply::Checksums { sha256 } => sha256.into_iter().next().ok_or(ClientError::WrongReply),
            other => Err(unexpected(other)),
        }
    }

    /// The whole of a file that has at most `cap` bytes.
    pub fn read(&self, path: &str, user: Option<String>, cap: usize) -> Result<Vec<u8>, ClientError> {
        let mut conversation = self.open(&Request::Read { path: path.to_owned(), user })?;
        let bytes = conversation.receive_stream(cap)?;
        match conversation.reply()? {
            Reply::Done => Ok(bytes),
            other => Err(unexpected(other)),
        }
    }
}

/// `false`: the source broke.
fn send(mut writer: DataWriter<'_>, passed_over: &[u8], source: &mut dyn FnMut() -> Fed) -> io::Result<bool> {
    for chunk in passed_over.chunks(DATA_CHUNK) {
        writer.write_all(chunk)?;
    }
    loop {
        match source() {
            Fed::Piece(piece) => piece.chunks(DATA_CHUNK).try_for_each(|chunk| writer.write_all(chunk))?,
            Fed::End => return Ok(true),
            Fed::Broken => return Ok(false),
        }
    }
}
