//! Objects by somebody else's requests: what stands behind the URLs that this process serves itself.
//!
//! ```text
//! receive   stream ─▶ file in the making ─▶ as long as was said? ─▶ synced, renamed       (anything else: removed)
//! send      file ─▶ pieces ─▶ reader
//! ```
//!
//! A directory's files are written and read piece by piece: memory is [`PIECE`] for each request, whatever its size. For any
//! other store a request is held as a whole, and is therefore small.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};

use bytes::{Bytes, BytesMut};
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _};
use object_store::multipart::PartId;

use super::error::{Result, StorageError};
use super::objects::{ObjectPath, Objects, Verb};
use super::{layout, parts, private};

/// Bytes that are written or read at once.
const PIECE: usize = 256 << 10;
/// Bytes of the largest request that is handed on to a store that is no directory: it is held in memory.
pub const MOST_HELD: u64 = 64 << 20;

/// An object, or a range of it, on its way to a reader.
pub struct Sent {
    /// Bytes of the whole object.
    pub size: u64,
    /// What of it comes.
    pub range: Range<u64>,
    /// Its bytes. It ends with an error where the object turns out to be shorter.
    pub bytes: BoxStream<'static, io::Result<Bytes>>,
}

impl std::fmt::Debug for Sent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sent").field("size", &self.size).field("range", &self.range).finish_non_exhaustive()
    }
}

impl Objects {
    /// Takes an object or a part of an upload: all of it, or nothing. The store's tag of it. `Get` takes nothing.
    ///
    /// # Errors
    /// The stream's own, the store's, [`StorageError::Length`], and [`StorageError::NoUpload`] where no such upload is open.
    /// A body is taken only while its mark is there: once it is committed it does not change any more, and once it is given up
    /// nobody would find it.
    pub async fn receive<S>(&self, path: &ObjectPath, verb: &Verb, stream: S) -> Result<String>
    where
        S: Stream<Item = io::Result<Bytes>> + Send,
    {
        let (Verb::Put { length } | Verb::Part { length, .. }) = *verb else { return Err(self.no_upload(path)) };
        let Some(root) = self.bucket.as_directory() else { return self.hand_on(path, verb, length, stream).await };
        let mark = self.mark(path).await?;
        if mark.is_none() && path.as_body().is_some() {
            return Err(self.no_upload(path));
        }
        let failed = || self.bucket.failed("take an object");
        let (target, staged) = match verb {
            Verb::Part { upload, part, .. } => {
                let (target, staged) = parts::part(root, path, upload, *part).ok_or_else(|| self.no_upload(path))?;
                (Some(target), staged)
            }
            _ => (None, parts::staged(root, path)),
        };
        let staged = Staged(staged);
        if target.is_none() {
            parts::make_parent(&staged.0).map_err(|error| failed()(parts::of_files(error)))?;
        }
        let file = self.write(&staged.0, path, length, stream).await?;
        let (root, named) = (root.to_owned(), path.clone());
        let done = tokio::task::spawn_blocking(move || match target {
            // What is joined later is synced then.
            Some(target) => std::fs::rename(&staged.0, target).map_err(|_| parts::no_upload(&named)),
            None => file.sync_all().map_err(parts::of_files).and_then(|()| parts::finish(&root, &named, &staged.0)),
        });
        match done.await.unwrap_or_else(|error| Err(error.into())) {
            Err(object_store::Error::NotFound { .. }) => return Err(self.no_upload(path)),
            done => done.map_err(failed())?,
        }
        self.mark_again(path, mark).await?;
        Ok(parts::tag(length))
    }

    fn no_upload(&self, path: &ObjectPath) -> StorageError {
        StorageError::NoUpload { path: path.to_string() }
    }

    /// What stands in a body's mark. `None`: it was committed, or given up; so it is with all that is no body.
    pub(super) async fn mark(&self, path: &ObjectPath) -> Result<Option<Bytes>> {
        let Some(id) = path.as_body() else { return Ok(None) };
        Ok(self.bucket.read(&layout::reserved(id)).await?.map(|(bytes, _)| bytes))
    }

    /// A body was written while its mark went. Whether it was committed (by the answer to another attempt) or given up, a
    /// sweep finds out by the mark.
    pub(super) async fn mark_again(&self, path: &ObjectPath, mark: Option<Bytes>) -> Result<()> {
        let (Some(id), Some(mark)) = (path.as_body(), mark) else { return Ok(()) };
        if self.bucket.exists(&layout::reserved(id)).await? {
            return Ok(());
        }
        self.bucket.write(&layout::reserved(id), mark).await
    }

    /// Writes exactly `length` bytes to a new file.
    async fn write<S>(&self, to: &FilePath, path: &ObjectPath, length: u64, stream: S) -> Result<File>
    where
        S: Stream<Item = io::Result<Bytes>> + Send,
    {
        let failed = |error: io::Error| self.bucket.failed("take an object")(parts::of_files(error));
        let mut file = create(to.to_owned()).await.map_err(|error| match error.kind() {
            // The upload was given up meanwhile.
            io::ErrorKind::NotFound => self.no_upload(path),
            _ => failed(error),
        })?;
        let mut stream = std::pin::pin!(stream);
        let (mut waiting, mut held, mut taken) = (Vec::new(), 0, 0_u64);
        loop {
            let next = stream.next().await.transpose().map_err(StorageError::Source)?;
            let ends = next.is_none();
            if let Some(bytes) = next {
                taken += bytes.len() as u64;
                if taken > length {
                    return Err(StorageError::Length { expected: length, found: taken });
                }
                held += bytes.len();
                waiting.push(bytes);
            }
            if held >= PIECE || ends {
                file = append(file, std::mem::take(&mut waiting)).await.map_err(failed)?;
                held = 0;
            }
            if ends {
                break;
            }
        }
        if taken == length { Ok(file) } else { Err(StorageError::Length { expected: length, found: taken }) }
    }

    /// For a store that neither signs nor is a directory.
    async fn hand_on<S>(&self, path: &ObjectPath, verb: &Verb, length: u64, stream: S) -> Result<String>
    where
        S: Stream<Item = io::Result<Bytes>> + Send,
    {
        if length > MOST_HELD {
            return Err(StorageError::TooLong { path: path.to_string(), most: MOST_HELD });
        }
        let mut stream = std::pin::pin!(stream);
        let mut held = BytesMut::new();
        while let Some(bytes) = stream.next().await {
            held.extend_from_slice(&bytes.map_err(StorageError::Source)?);
            if held.len() as u64 > length {
                return Err(StorageError::Length { expected: length, found: held.len() as u64 });
            }
        }
        if (held.len() as u64) < length {
            return Err(StorageError::Length { expected: length, found: held.len() as u64 });
        }
        let bytes = held.freeze();
        let Verb::Part { upload, part, .. } = verb else {
            self.put(path, bytes).await?;
            return Ok(parts::tag(length));
        };
        let takes_none = || StorageError::TakesNoParts { store: self.name().to_owned() };
        let cloud = self.bucket.multipart().ok_or_else(takes_none)?;
        let payload = super::transfer::in_slices(bytes);
        let put = cloud.put_part(&self.bucket.full(path.as_str()), upload, *part as usize, payload).await;
        let PartId { content_id } = put.map_err(self.bucket.failed("upload a part"))?;
        Ok(content_id)
    }

    /// Gives an object, or what there is of a range of it. `None`: there is no such object.
    ///
    /// # Errors
    /// The store's, and [`StorageError::Range`] where the range begins behind the object's end.
    pub async fn send(&self, path: &ObjectPath, range: Option<Range<u64>>) -> Result<Option<Sent>> {
        let failed = || self.bucket.failed("read an object");
        let opened = match self.bucket.as_directory() {
            Some(root) => open(root.join(path.as_str())).await.map_err(|error| failed()(parts::of_files(error)))?,
            None => self.size(path).await?.map(|size| (None, size)),
        };
        let Some((file, size)) = opened else { return Ok(None) };
        let range = match range {
            None => 0..size,
            Some(range) if range.start >= size => return Err(StorageError::Range { size }),
            Some(range) => range.start..range.end.min(size),
        };
        let bytes = match file {
            Some(file) => pieces(file, range.clone()).boxed(),
            None => self.pieces_of(path, range.clone()),
        };
        Ok(Some(Sent { size, range, bytes }))
    }

    /// By one request for each piece.
    fn pieces_of(&self, path: &ObjectPath, range: Range<u64>) -> BoxStream<'static, io::Result<Bytes>> {
        let (objects, path) = (self.clone(), path.clone());
        futures_util::stream::try_unfold(range, move |left| {
            let (objects, path) = (objects.clone(), path.clone());
            async move {
                if left.is_empty() {
                    return Ok(None);
                }
                let end = left.end.min(left.start.saturating_add(HANDED_ON));
                let read = objects.get_range(&path, left.start..end).await;
                let bytes = read.map_err(io::Error::other)?.unwrap_or_default();
                if bytes.len() as u64 != end - left.start {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(Some((bytes, end..left.end)))
            }
        })
        .boxed()
    }
}

/// Bytes of one request to a store whose objects are handed on.
const HANDED_ON: u64 = 8 << 20;

/// A file in the making, which goes unless it was renamed.
struct Staged(PathBuf);

impl Drop for Staged {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}

/// Works on a file where that holds up no other task.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

async fn create(path: PathBuf) -> io::Result<File> {
    blocking(move || private::create_new(&path)).await
}

async fn append(mut file: File, pieces: Vec<Bytes>) -> io::Result<File> {
    blocking(move || {
        for piece in pieces {
            file.write_all(&piece)?;
        }
        Ok(file)
    })
    .await
}

async fn open(path: PathBuf) -> io::Result<Option<(Option<File>, u64)>> {
    blocking(move || {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let size = file.metadata()?.len();
        Ok(Some((Some(file), size)))
    })
    .await
}

fn pieces(file: File, range: Range<u64>) -> impl Stream<Item = io::Result<Bytes>> + Send {
    futures_util::stream::try_unfold((file, range, false), |(mut file, left, begun)| async move {
        if left.is_empty() {
            return Ok(None);
        }
        let most = usize::try_from(left.end - left.start).unwrap_or(PIECE).min(PIECE);
        let read = blocking(move || {
            if !begun {
                file.seek(io::SeekFrom::Start(left.start))?;
            }
            let mut piece = vec![0; most];
            file.read_exact(&mut piece)?;
            Ok((file, piece))
        });
        let (file, piece) = read.await?;
        let next = left.start + piece.len() as u64;
        Ok(Some((Bytes::from(piece), (file, next..left.end, true))))
    })
}
