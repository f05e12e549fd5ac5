//! Thousands of small files as one body: few requests to store them, one to fetch any of them.
//!
//! ```text
//! body      file₁ file₂ … fileₙ MANIFEST        stored as they come, back to back; what they are called stands in the manifest
//! manifest  one JSON object a line, in the order of the files
//! entry     details: manifest.offset, manifest.size, files
//! ```
//!
//! A file has an id, its number in the body: its name never becomes part of a path in a store. So names that are not UTF-8, hold `#`
//! or `/..`, or that are a file here and a directory there, are as good as any.

use std::io;
use std::ops::Range;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::ledger::{About, Commit, Reservation};
use super::record::{Body, Entry};
use super::transfer::{Owned, hex};
use super::{Result, StorageError, Store};

const OFFSET: &str = "manifest.offset";
const SIZE: &str = "manifest.size";
const FILES: &str = "files";
/// Files are handed on in buffers of about this size.
const BUFFER: usize = 256 << 10;
/// Bytes of the largest manifest: ten million files' worth. This code writes no larger one.
const MOST_MANIFEST: u64 = 2 << 30;
/// Bytes of a manifest that are read at once by who does not want all of it.
const SOME: u64 = 1 << 20;
/// No line of a manifest is longer: a path has 4096 bytes, and one that is no text takes four characters for each.
const LONGEST_LINE: u64 = 64 << 10;

/// One stored file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFile {
    /// Its number in its body, from 0.
    pub id: u64,
    /// Its name among the artifacts of its job.
    pub name: Name,
    /// Where it begins in the body. Several names of one file are in one place.
    pub offset: u64,
    /// In bytes.
    pub size: u64,
    /// In hexadecimal.
    pub sha256: String,
    /// Media type that it is served with, such as `text/html`.
    pub content_type: String,
}

impl StoredFile {
    /// Its bytes in the body.
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset.saturating_add(self.size)
    }
}

/// The producer of a job's artifacts in its run's group: both are names of any characters.
pub fn producer(workflow: &str, job: &str) -> String {
    format!("{}:{workflow}:{job}", workflow.len())
}

/// Some of a set's files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SomeFiles {
    /// Where the line of each begins in the manifest, and the file.
    pub files: Vec<(u64, StoredFile)>,
    /// Where the next ones begin; `None`: there are no more.
    pub next: Option<u64>,
}

/// A name as the job's file system had it: any bytes. Written as text where it is UTF-8, else as numbers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "Spelled", into = "Spelled")]
pub struct Name(pub Vec<u8>);

impl From<&str> for Name {
    fn from(name: &str) -> Self {
        Self(name.as_bytes().to_vec())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Spelled {
    Text(String),
    Bytes(Vec<u8>),
}

impl From<Name> for Spelled {
    fn from(name: Name) -> Self {
        String::from_utf8(name.0).map_or_else(|error| Self::Bytes(error.into_bytes()), Self::Text)
    }
}

impl From<Spelled> for Name {
    fn from(spelled: Spelled) -> Self {
        match spelled {
            Spelled::Text(text) => Self(text.into_bytes()),
            Spelled::Bytes(bytes) => Self(bytes),
        }
    }
}

/// A set of files on its way to the store.
#[derive(Debug)]
pub struct Packing {
    sender: mpsc::Sender<io::Result<Bytes>>,
    /// Ends with this set: what was not committed is not completed either.
    upload: Owned<Body>,
    reservation: Reservation,
    store: Store,
    buffer: BytesMut,
    offset: u64,
    files: Vec<StoredFile>,
}

impl Store {
    /// Begins a set of files for the reserved place. It is visible once [`Packing::commit`] has won.
    pub fn pack(&self, reservation: Reservation) -> Packing {
        // Two buffers between the files and the part that is being filled.
        let (sender, receiver) = mpsc::channel(2);
        let (store, reserved) = (self.clone(), reservation.clone());
        let upload = Owned(tokio::spawn(async move {
            let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
                Some((receiver.recv().await?, receiver))
            });
            store.put(&reserved, stream).await
        }));
        let store = self.clone();
        Packing { sender, upload, reservation, store, buffer: BytesMut::new(), offset: 0, files: Vec::new() }
    }

    /// What a set holds.
    ///
    /// # Errors
    /// [`StorageError::Foreign`] if the entry was not made by [`Packing`].
    pub async fn files(&self, entry: &Entry) -> Result<Vec<StoredFile>> {
        let place = self.manifest(entry)?;
        let mut manifest = Vec::new();
        let mut stream = self.get_part(entry.body(), place.clone());
        while let Some(bytes) = stream.next().await {
            manifest.extend_from_slice(&bytes?);
        }
        let lines = manifest.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| self.file_of_line(entry, &place, line)).collect()
    }

    /// Some of the files of a set, so that nobody has to hold a long list: those whose lines in its manifest begin at or behind
    /// `from`, in about 1 MiB of it; and where the next ones begin, if there are more. 0 is the first.
    ///
    /// # Errors
    /// As for [`Self::files`].
    pub async fn some_files(&self, entry: &Entry, from: u64) -> Result<SomeFiles> {
        let place = self.manifest(entry)?;
        let start = place.start.saturating_add(from).min(place.end);
        let range = start..place.end.min(start + SOME);
        let bytes = if range.is_empty() { Bytes::new() } else { self.get_range(entry.body(), range.clone()).await? };
        let mut some = SomeFiles::default();
        let mut at = from;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if line.last() != Some(&b'\n') {
                break;
            }
            some.files.push((at, self.file_of_line(entry, &place, line)?));
            at += line.len() as u64;
        }
        let end = place.end - place.start;
        match some.files.is_empty() && at < end {
            true => Err(self.foreign(entry, "a line of its manifest has no end")),
            false => Ok(SomeFiles { next: (at < end).then_some(at), ..some }),
        }
    }

    /// The file whose line in the manifest begins at `at`. `None`: no line begins there.
    ///
    /// # Errors
    /// As for [`Self::files`].
    pub async fn file_at(&self, entry: &Entry, at: u64) -> Result<Option<StoredFile>> {
        let place = self.manifest(entry)?;
        let Some(start) = place.start.checked_add(at).filter(|start| *start < place.end) else { return Ok(None) };
        // The end of the line before it shows that one begins there.
        let before = start.saturating_sub(1).max(place.start);
        let bytes = self.get_range(entry.body(), before..place.end.min(start + LONGEST_LINE)).await?;
        let (end_before, line) = bytes.split_at(usize::try_from(start - before).unwrap_or(0));
        let Some(end) =
            line.iter().position(|byte| *byte == b'\n').filter(|_| !matches!(end_before, [byte] if *byte != b'\n'))
        else {
            return Ok(None);
        };
        self.file_of_line(entry, &place, &line[..end]).map(Some)
    }

    /// Where the manifest is in the body.
    fn manifest(&self, entry: &Entry) -> Result<Range<u64>> {
        let number = |name: &str| entry.record.details.get(name)?.parse::<u64>().ok();
        let (offset, size) = number(OFFSET).zip(number(SIZE)).ok_or_else(|| self.foreign(entry, "no manifest"))?;
        if size > MOST_MANIFEST || offset.checked_add(size) != Some(entry.body().size) {
            return Err(self.foreign(entry, "its manifest is not at its end"));
        }
        Ok(offset..offset + size)
    }

    fn file_of_line(&self, entry: &Entry, manifest: &Range<u64>, line: &[u8]) -> Result<StoredFile> {
        let file: StoredFile = serde_json::from_slice(line).map_err(|error| self.foreign(entry, &error.to_string()))?;
        match file.offset.checked_add(file.size).is_some_and(|end| end <= manifest.start) {
            true => Ok(file),
            false => Err(self.foreign(entry, "a file in its manifest ends beyond the files")),
        }
    }

    fn foreign(&self, entry: &Entry, why: &str) -> StorageError {
        StorageError::Foreign {
            store: self.name().to_owned(),
            path: format!("body {}", entry.body().id),
            why: why.to_owned(),
        }
    }

    /// One file of a set, by one request.
    ///
    /// # Errors
    /// [`StorageError::WrongDigest`] if it is not what was stored.
    pub async fn file(&self, body: &Body, file: &StoredFile) -> Result<Bytes> {
        let bytes = if file.size == 0 { Bytes::new() } else { self.get_range(body, file.range()).await? };
        let found = hex(&Sha256::digest(&bytes));
        if found == file.sha256 {
            return Ok(bytes);
        }
        Err(StorageError::WrongDigest { id: body.id, expected: file.sha256.clone(), found })
    }
}

impl Packing {
    /// Adds one file. Its id.
    ///
    /// # Errors
    /// Its own, and the store's; after either the set is lost and [`Packing::abandon`] is due.
    pub async fn add<S>(&mut self, name: Name, content_type: &str, content: S) -> Result<u64>
    where
        S: Stream<Item = io::Result<Bytes>> + Send,
    {
        let mut content = std::pin::pin!(content);
        let (begins, mut digest) = (self.offset, Sha256::new());
        while let Some(bytes) = content.next().await {
            let bytes = bytes.map_err(StorageError::Source)?;
            digest.update(&bytes);
            self.send(&bytes).await?;
        }
        let id = self.files.len() as u64;
        self.files.push(StoredFile {
            id,
            name,
            offset: begins,
            size: self.offset - begins,
            sha256: hex(&digest.finalize()),
            content_type: content_type.to_owned(),
        });
        Ok(id)
    }

    /// Adds another name of a file that is there already: it takes no more room. Returns its id; `None` if there is no such
    /// file.
    pub fn add_name(&mut self, name: Name, content_type: &str, of: u64) -> Option<u64> {
        let file = self.files.get(usize::try_from(of).ok()?)?;
        let id = self.files.len() as u64;
        let named = StoredFile { id, name, content_type: content_type.to_owned(), ..file.clone() };
        self.files.push(named);
        Some(id)
    }

    /// The files so far.
    pub fn files(&self) -> &[StoredFile] {
        &self.files
    }

    /// Ends the set with its manifest and makes it visible.
    ///
    /// # Errors
    /// The store's. What an upload that failed has left is removed; what a commit that failed has left is a sweep's.
    pub async fn commit(mut self, mut about: About) -> Result<Commit> {
        if let Err(error) = self.end(&mut about).await {
            self.abandon().await.ok();
            return Err(error);
        }
        let Self { sender, mut upload, reservation, store, .. } = self;
        drop(sender);
        match upload.join().await {
            Ok(body) => store.commit(&reservation, &body, about).await,
            Err(error) => {
                store.settle().await;
                store.abandon(&reservation).await.ok();
                Err(error)
            }
        }
    }

    /// Sends the manifest.
    async fn end(&mut self, about: &mut About) -> Result<()> {
        let begins = self.offset;
        for file in std::mem::take(&mut self.files) {
            about.details.insert(FILES.to_owned(), (file.id + 1).to_string());
            let mut line = serde_json::to_vec(&file).unwrap_or_default();
            line.push(b'\n');
            self.send(&line).await?;
        }
        about.details.insert(OFFSET.to_owned(), begins.to_string());
        about.details.insert(SIZE.to_owned(), (self.offset - begins).to_string());
        self.flush().await
    }

    /// Gives the set up, and removes the files that were uploaded.
    pub async fn abandon(self) -> Result<()> {
        let Self { sender, mut upload, reservation, store, .. } = self;
        // One that has failed may have been joined already, when it took nothing more.
        if !upload.0.is_finished() {
            // It must not take the end of its input for the end of the set.
            sender.send(Err(io::Error::other("given up"))).await.unwrap_or_default();
            drop(upload.join().await);
        }
        store.settle().await;
        store.abandon(&reservation).await
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.offset += bytes.len() as u64;
        for piece in bytes.chunks(BUFFER) {
            self.buffer.put_slice(piece);
            if self.buffer.len() >= BUFFER {
                self.flush().await?;
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        let buffer = std::mem::take(&mut self.buffer).freeze();
        if !buffer.is_empty() && self.sender.send(Ok(buffer)).await.is_err() {
            // It takes nothing more: it has failed, and says why.
            return self.upload.join().await.map(drop);
        }
        Ok(())
    }
}

/// Media type of a file, by the end of its name. Only types that a browser shows without running code in them: all other
/// text is plain text, and the rest a download.
pub fn content_type(name: &[u8]) -> &'static str {
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    let end = name.rsplit('/').next().and_then(|file| file.rsplit_once('.')).map_or("", |(_, end)| end);
    match end {
        "json" => "application/json",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "bmp" => "image/bmp",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        "mp3" => "audio/mpeg",
        "ogg" => "audio/ogg",
        "wav" => "audio/wav",
        "txt" | "log" | "md" | "csv" | "tap" | "xml" | "yml" | "yaml" | "toml" | "html" | "htm" | "css" | "js"
        | "mjs" | "svg" | "sh" | "rs" | "go" | "rb" | "py" | "ts" | "java" | "c" | "h" | "diff" | "patch" => {
            "text/plain; charset=utf-8"
        }
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_any_bytes_comes_back() {
        for name in [&b"a/b#1"[..], b"", b"\xff\xfe/..", "é\n".as_bytes(), b"../../etc/passwd"] {
            let name = Name(name.to_vec());
            let text = serde_json::to_string(&name).unwrap();
            assert!(!text.contains('\n'));
            assert_eq!(serde_json::from_str::<Name>(&text).unwrap(), name);
        }
    }

    #[test]
    fn what_could_run_is_shown_as_text() {
        assert_eq!(content_type(b"report/index.HTML"), "text/plain; charset=utf-8");
        assert_eq!(content_type(b"x.svg"), "text/plain; charset=utf-8");
        assert_eq!(content_type(b"shot.png"), "image/png");
        assert_eq!(content_type(b"a.b/core"), "application/octet-stream");
        assert_eq!(content_type(b"\xff.json"), "application/json");
    }
}
