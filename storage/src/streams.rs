//! Objects that are written from a stream of unknown length: all of it, or nothing, and nothing is left open.
//!
//! ```text
//! PATH.upload ─▶ parts, one after the other ─▶ complete ─▶ PATH.upload goes
//!                  └─ an error, or dropped: aborted beside
//! ```
//!
//! Clouds keep the parts of an upload that nobody ends, and some list it only to who names its whole path. So whatever a process
//! that was killed has left is found by the mark beside it ([`Objects::take_back`]).

use std::io;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use jiff::Timestamp;
use object_store::MultipartUpload;
use tokio::task::JoinSet;

use super::error::{Result, StorageError};
use super::objects::{ObjectPath, Objects};
use super::transfer::{Aborts, abort, in_slices};

/// Bytes of a part.
const PIECE: usize = 8 << 20;
/// End of a mark's path.
const MARK: &str = ".upload";

/// An upload that is aborted when it is dropped before its end.
struct Open {
    upload: Option<Box<dyn MultipartUpload>>,
    sending: JoinSet<object_store::Result<()>>,
    aborts: Aborts,
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(upload) = self.upload.take() {
            self.aborts.begin(upload, std::mem::take(&mut self.sending));
        }
    }
}

impl ObjectPath {
    /// The object that this is the mark of.
    pub fn as_mark(&self) -> Option<Self> {
        Self::read(self.as_str().strip_suffix(MARK)?)
    }

    fn mark(&self) -> Option<Self> {
        Self::read(&format!("{self}{MARK}"))
    }
}

impl Objects {
    /// Writes an object from a stream of unknown length, of at most `most` bytes: all of it, or nothing. Its length.
    ///
    /// # Errors
    /// The stream's own, the store's, and [`StorageError::TooLong`].
    pub async fn put_stream<S>(&self, path: &ObjectPath, most: u64, stream: S) -> Result<u64>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + Unpin,
    {
        let mark = path.mark().ok_or_else(|| StorageError::NoUpload { path: path.to_string() })?;
        self.put(&mark, Bytes::from_static(b"{}")).await?;
        let (bucket, to) = (self.bucket.clone(), path.clone());
        let upload = self.aborts.finish(async move { bucket.upload(to.as_str()).await }, abort).await?;
        let mut open = Open { upload: Some(upload), sending: JoinSet::new(), aborts: self.aborts.clone() };
        let length = self.send_pieces(path, most, stream, &mut open).await?;
        let Some(mut upload) = open.upload.take() else { return Ok(length) };
        let (failed, bucket, made) = (self.bucket.failed("end an upload"), self.bucket.clone(), path.clone());
        let completing = async move {
            let completed = upload.complete().await;
            if completed.is_err() {
                abort(upload).await;
            }
            completed.map(drop).map_err(failed)
        };
        // Nobody knows the name of an object whose sender has gone.
        let undo = async move |()| drop(bucket.remove(made.as_str()).await);
        self.aborts.finish(completing, undo).await?;
        self.remove(&mark).await?;
        Ok(length)
    }

    async fn send_pieces<S>(&self, path: &ObjectPath, most: u64, mut stream: S, open: &mut Open) -> Result<u64>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + Unpin,
    {
        let (mut piece, mut length) = (Vec::new(), 0_u64);
        while let Some(bytes) = stream.next().await {
            let bytes = bytes.map_err(StorageError::Source)?;
            length += bytes.len() as u64;
            if length > most {
                return Err(StorageError::TooLong { path: path.to_string(), most });
            }
            piece.extend_from_slice(&bytes);
            if piece.len() >= PIECE {
                self.send_piece(std::mem::take(&mut piece), open).await?;
            }
        }
        if !piece.is_empty() {
            self.send_piece(piece, open).await?;
        }
        Ok(length)
    }

    /// By a task of its own: a part that is broken off could still arrive, behind the abort.
    async fn send_piece(&self, piece: Vec<u8>, open: &mut Open) -> Result<()> {
        if let Some(upload) = &mut open.upload {
            open.sending.spawn(upload.put_part(in_slices(piece.into())));
        }
        match open.sending.join_next().await {
            Some(Ok(sent)) => sent.map_err(self.bucket.failed("upload")),
            Some(Err(error)) => Err(StorageError::Source(io::Error::other(error))),
            None => Ok(()),
        }
    }

    /// Takes back what a process that was killed has left of an object that it was writing from a stream; `mark` is older
    /// than any process writes. Whether the object itself is there does not matter: it stays.
    ///
    /// # Errors
    /// The store's; then the mark stays.
    pub async fn take_back(&self, mark: &ObjectPath, older_than: Timestamp) -> Result<u64> {
        let Some(path) = mark.as_mark() else { return Ok(0) };
        let uploads = self.bucket.abort_uploads(path.as_str()).await?;
        let staged = self.bucket.sweep_staged(path.as_str(), older_than).await.staged;
        self.remove(mark).await?;
        Ok(uploads + staged)
    }

    /// Waits until uploads that were dropped have been taken back; 5 s at most.
    pub async fn settle(&self) {
        self.aborts.settle().await;
    }
}
