//! Bytes to and from a store: parts side by side, memory bounded.
//!
//! ```text
//! put   stream ─▶ part being filled ─▶ at most PARALLEL parts on their way ─▶ complete      (any failure, or dropped: abort)
//! get   at most PARALLEL ranges on their way ─▶ in order ─▶ reader
//! ```
//!
//! Memory: [`Shape::part`] × ([`Shape::parallel`] + 1), 40 MiB by default, for bodies of any size.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _};
use object_store::{MultipartUpload, PutPayload};
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::bucket::Bucket;
use super::error::{Result, StorageError};
use super::layout;
use super::record::{Body, BodyId};

/// Most parts of an upload that S3 and its likes take.
const MOST_PARTS: u64 = 10_000;
/// Bytes of the largest body: no store takes parts of more than 5 GiB.
pub(super) const MOST_BYTES: u64 = MOST_PARTS * (5 << 30);

/// How a body is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Bytes of a part; all but the last have exactly these many. S3 takes no fewer than 5 MiB.
    pub part: usize,
    /// Parts on their way at once.
    pub parallel: usize,
}

impl Default for Shape {
    /// 10,000 parts of 8 MiB are 78 GiB. Four at once fill a gigabit at 200 ms of round trip, and hold 40 MiB.
    fn default() -> Self {
        Self { part: 8 << 20, parallel: 4 }
    }
}

/// Where bodies go to and come from.
#[async_trait]
pub trait Bodies: Send + Sync + fmt::Debug {
    /// A body in one piece.
    async fn put(&self, id: BodyId, bytes: Bytes) -> Result<()>;
    /// A body in parts.
    async fn begin(&self, id: BodyId) -> Result<Box<dyn MultipartUpload>>;
    /// Ends other uploads of a body that is complete: to begin one is tried again when its answer is lost, and then there
    /// are two.
    async fn tidy(&self, id: BodyId) -> Result<()>;
    /// # Errors
    /// [`StorageError::Missing`]
    async fn range(&self, id: BodyId, range: Range<u64>) -> Result<Bytes>;
    /// The store's name, for people.
    fn name(&self) -> &str;
}

#[async_trait]
impl Bodies for Bucket {
    async fn put(&self, id: BodyId, bytes: Bytes) -> Result<()> {
        self.put(&layout::body(id), in_slices(bytes)).await
    }

    async fn begin(&self, id: BodyId) -> Result<Box<dyn MultipartUpload>> {
        self.upload(&layout::body(id)).await
    }

    async fn tidy(&self, id: BodyId) -> Result<()> {
        self.abort_uploads(&layout::body(id)).await.map(drop)
    }

    async fn range(&self, id: BodyId, range: Range<u64>) -> Result<Bytes> {
        let missing = || StorageError::Missing { store: Bucket::name(self).to_owned(), id };
        match self.range(&layout::body(id), range.clone()).await {
            Ok(bytes) => bytes.ok_or_else(missing),
            // A store refuses a range that begins behind the end, each in its own words.
            Err(refused) => match self.size(&layout::body(id)).await {
                Ok(Some(size)) if size <= range.start => Err(StorageError::TooShort { id, expected: range.end }),
                Ok(None) => Err(missing()),
                _ => Err(refused),
            },
        }
    }

    fn name(&self) -> &str {
        Self::name(self)
    }
}

/// Each is written at once where a store is a directory. For more, the kernel takes pages of up to 2 MiB, which is slow in a
/// virtual machine whose host takes back such pages while they are free.
const SLICE: usize = 256 << 10;

pub(super) fn in_slices(mut bytes: Bytes) -> PutPayload {
    let slices = std::iter::from_fn(|| (!bytes.is_empty()).then(|| bytes.split_to(bytes.len().min(SLICE))));
    slices.collect()
}

/// A part that arrives behind the abort of its upload may bring it back: those on their way are waited for, but not for ever.
const PARTS_LIMIT: Duration = Duration::from_secs(3);

/// A store that says nothing for longer is not waited for. A caller that gave up still has to take back what it uploaded.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);

/// Writes and aborts whose caller did not wait for them. A store may carry out a request although it was broken off, and even
/// after the request that was to undo it; so each is carried to its end, and then undone.
#[derive(Debug, Clone, Default)]
pub struct Aborts(Arc<Mutex<JoinSet<()>>>);

impl Aborts {
    /// Does `write` to its end. If the caller is dropped meanwhile, `undo` takes back what it did.
    pub async fn finish<T, U>(
        &self,
        write: impl Future<Output = Result<T>> + Send + 'static,
        undo: impl FnOnce(T) -> U + Send + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
        U: Future<Output = ()> + Send,
    {
        let (sender, receiver) = oneshot::channel();
        self.set().spawn(async move {
            if let Err(Ok(done)) = sender.send(write.await) {
                undo(done).await;
            }
        });
        receiver.await.unwrap_or_else(|error| Err(StorageError::Source(io::Error::other(error))))
    }

    pub(super) fn begin(&self, upload: Box<dyn MultipartUpload>, mut sending: JoinSet<object_store::Result<()>>) {
        // Without a runtime the upload cannot be aborted here; a sweep will do it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let ending = async move {
                let ended = async { while sending.join_next().await.is_some() {} };
                tokio::time::timeout(PARTS_LIMIT, ended).await.ok();
                sending.shutdown().await;
                abort(upload).await;
            };
            self.set().spawn_on(ending, &runtime);
        }
    }

    /// Waits until all of them have ended, or [`SETTLE_LIMIT`] has passed: then they are broken off.
    pub async fn settle(&self) {
        let mut set = std::mem::take(&mut *self.set());
        let ended = async { while set.join_next().await.is_some() {} };
        if tokio::time::timeout(SETTLE_LIMIT, ended).await.is_err() {
            tracing::warn!("A store did not answer in time; requests to it were broken off.");
            set.shutdown().await;
        }
    }

    fn set(&self) -> std::sync::MutexGuard<'_, JoinSet<()>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

pub(super) async fn abort(mut upload: Box<dyn MultipartUpload>) {
    if let Err(error) = upload.abort().await {
        tracing::warn!(error = &error as &dyn std::error::Error, "An upload could not be aborted; a sweep will.");
    }
}

/// Uploads a stream of unknown length.
///
/// # Errors
/// The stream's own, the store's after all retries, and [`StorageError::TooLarge`]. Nothing is left behind but, in the worst
/// case, what a sweep removes.
pub async fn put<S>(bodies: &Arc<dyn Bodies>, aborts: &Aborts, id: BodyId, shape: Shape, stream: S) -> Result<Body>
where
    S: Stream<Item = io::Result<Bytes>> + Send,
{
    let mut stream = std::pin::pin!(stream);
    let mut filling = Filling::new(shape.part);
    let mut parts: Option<Parts> = None;
    while let Some(bytes) = stream.next().await {
        let mut bytes = bytes.map_err(StorageError::Source)?;
        while let Some(part) = filling.take_full(&mut bytes) {
            let parts = match &mut parts {
                Some(parts) => parts,
                none => none.insert(Parts::begin(bodies, aborts, id).await?),
            };
            parts.send(part, shape).await?;
        }
    }
    let (last, body) = filling.finish(id);
    match parts {
        None => {
            let bodies = bodies.clone();
            aborts.finish(async move { bodies.put(id, last).await }, async |()| {}).await?;
        }
        Some(parts) => {
            parts.finish(last, shape).await?;
            bodies.tidy(id).await?;
        }
    }
    Ok(body)
}

/// The part being filled, and the digest of all that has passed.
struct Filling {
    part: BytesMut,
    full: usize,
    digest: Sha256,
    size: u64,
}

impl Filling {
    fn new(full: usize) -> Self {
        Self { part: BytesMut::new(), full, digest: Sha256::new(), size: 0 }
    }

    /// Takes from `bytes` until it is empty. `Some`: a part is full, and more follows it.
    fn take_full(&mut self, bytes: &mut Bytes) -> Option<Bytes> {
        while !bytes.is_empty() {
            if self.part.len() == self.full {
                return Some(std::mem::take(&mut self.part).freeze());
            }
            self.take(bytes);
        }
        None
    }

    fn take(&mut self, bytes: &mut Bytes) {
        let taken = bytes.split_to(bytes.len().min(self.full - self.part.len()));
        if self.part.capacity() == 0 && self.size > 0 {
            // Growing by doubling would hold this part twice; the first may well stay small.
            self.part.reserve(self.full);
        }
        self.digest.update(&taken);
        self.size += taken.len() as u64;
        self.part.extend_from_slice(&taken);
    }

    fn finish(self, id: BodyId) -> (Bytes, Body) {
        let body = Body { id, size: self.size, sha256: hex(&self.digest.finalize()) };
        (self.part.freeze(), body)
    }
}

/// An upload in parts; aborted when dropped before its end.
struct Parts<'a> {
    upload: Option<Box<dyn MultipartUpload>>,
    sending: JoinSet<object_store::Result<()>>,
    sent: u64,
    store: String,
    aborts: &'a Aborts,
}

impl<'a> Parts<'a> {
    async fn begin(bodies: &Arc<dyn Bodies>, aborts: &'a Aborts, id: BodyId) -> Result<Self> {
        let beginning = bodies.clone();
        let upload = aborts.finish(async move { beginning.begin(id).await }, abort).await?;
        Ok(Self { upload: Some(upload), sending: JoinSet::new(), sent: 0, store: bodies.name().to_owned(), aborts })
    }

    /// Waits until fewer than all are on their way, then sends one more.
    async fn send(&mut self, part: Bytes, shape: Shape) -> Result<()> {
        if self.sent == MOST_PARTS {
            return Err(StorageError::TooLarge { most: MOST_PARTS * shape.part as u64, parts: MOST_PARTS });
        }
        while self.sending.len() >= shape.parallel {
            self.one_arrives().await?;
        }
        if let Some(upload) = &mut self.upload {
            self.sending.spawn(upload.put_part(in_slices(part)));
            self.sent += 1;
        }
        Ok(())
    }

    async fn one_arrives(&mut self) -> Result<()> {
        match self.sending.join_next().await {
            Some(Ok(Ok(()))) | None => Ok(()),
            Some(Ok(Err(source))) => Err(self.failed(source)),
            Some(Err(source)) => Err(self.failed(source.into())),
        }
    }

    async fn finish(mut self, last: Bytes, shape: Shape) -> Result<()> {
        if !last.is_empty() {
            self.send(last, shape).await?;
        }
        while !self.sending.is_empty() {
            self.one_arrives().await?;
        }
        let Some(mut upload) = self.upload.take() else { return Ok(()) };
        let store = self.store.clone();
        let completing = async move {
            let completed = upload.complete().await;
            if completed.is_err() {
                abort(upload).await;
            }
            completed.map(drop).map_err(|source| StorageError::of(store, "upload", source))
        };
        // A body that is whole is taken back with its reservation.
        self.aborts.finish(completing, async |()| {}).await
    }

    fn failed(&self, source: object_store::Error) -> StorageError {
        StorageError::of(self.store.clone(), "upload", source)
    }
}

impl Drop for Parts<'_> {
    fn drop(&mut self) {
        if let Some(upload) = self.upload.take() {
            self.aborts.begin(upload, std::mem::take(&mut self.sending));
        }
    }
}

/// A whole body, or a range, in order. Ends with an error where the bytes are not those that were stored; a whole
/// body's digest is known at its end only.
pub fn get(bodies: Arc<dyn Bodies>, body: &Body, range: Range<u64>, shape: Shape) -> BoxStream<'static, Result<Bytes>> {
    let id = body.id;
    let ranges = cut(range.clone(), shape.part as u64);
    let fetched = futures_util::stream::iter(ranges)
        .map(move |range| {
            let bodies = bodies.clone();
            // A task of its own: a range is fetched while the reader works on the one before.
            let mut fetch = Owned(tokio::spawn(async move { exactly(&*bodies, id, range).await }));
            async move { fetch.join().await }
        })
        .buffered(shape.parallel);
    if range == (0..body.size) { verified(fetched, body).boxed() } else { fetched.boxed() }
}

/// A task that ends when its handle is dropped.
#[derive(Debug)]
pub struct Owned<T>(pub tokio::task::JoinHandle<Result<T>>);

impl<T> Owned<T> {
    pub async fn join(&mut self) -> Result<T> {
        (&mut self.0).await.unwrap_or_else(|error| Err(StorageError::Source(io::Error::other(error))))
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub async fn exactly(bodies: &dyn Bodies, id: BodyId, range: Range<u64>) -> Result<Bytes> {
    let expected = range.end - range.start;
    let bytes = bodies.range(id, range).await?;
    let found = bytes.len() as u64;
    if found == expected { Ok(bytes) } else { Err(StorageError::WrongSize { id, expected, found }) }
}

/// One after the other: a size that is wrong must not cost memory before the first byte is there.
fn cut(range: Range<u64>, part: u64) -> impl Iterator<Item = Range<u64>> + Send {
    let mut start = range.start;
    std::iter::from_fn(move || {
        let end = range.end.min(start.saturating_add(part));
        let next = start..end;
        start = end;
        (!next.is_empty()).then_some(next)
    })
}

/// Passes everything on, and says at the end if it was not what was stored.
fn verified(
    stream: impl Stream<Item = Result<Bytes>> + Send + 'static,
    body: &Body,
) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    let state = (Box::pin(stream), Some(Sha256::new()), body.clone());
    futures_util::stream::unfold(state, |(mut stream, digest, body)| async move {
        let mut digest = digest?;
        match stream.next().await {
            Some(Ok(bytes)) => {
                digest.update(&bytes);
                Some((Ok(bytes), (stream, Some(digest), body)))
            }
            Some(Err(error)) => Some((Err(error), (stream, None, body))),
            None => {
                let found = hex(&digest.finalize());
                if found == body.sha256 {
                    return None;
                }
                let error = StorageError::WrongDigest { id: body.id, expected: body.sha256.clone(), found };
                Some((Err(error), (stream, None, body)))
            }
        }
    })
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::BoxFuture;

    use super::*;

    const SHAPE: Shape = Shape { part: 100, parallel: 3 };

    /// A store that takes and gives nothing until it is opened, and counts what it holds.
    #[derive(Debug, Clone, Default)]
    struct Stuck {
        held: Arc<AtomicUsize>,
        opens: Arc<tokio::sync::Notify>,
    }

    impl Stuck {
        async fn hold(&self) {
            self.held.fetch_add(1, Ordering::Relaxed);
            self.opens.notified().await;
        }
    }

    #[async_trait]
    impl Bodies for Stuck {
        async fn put(&self, _: BodyId, _: Bytes) -> Result<()> {
            Ok(())
        }

        async fn begin(&self, _: BodyId) -> Result<Box<dyn MultipartUpload>> {
            Ok(Box::new(self.clone()))
        }

        async fn tidy(&self, _: BodyId) -> Result<()> {
            Ok(())
        }

        async fn range(&self, _: BodyId, range: Range<u64>) -> Result<Bytes> {
            self.held.fetch_add(1, Ordering::Relaxed);
            Ok(vec![0; usize::try_from(range.end - range.start).unwrap()].into())
        }

        fn name(&self) -> &str {
            "stuck"
        }
    }

    #[async_trait]
    impl MultipartUpload for Stuck {
        fn put_part(&mut self, _: PutPayload) -> BoxFuture<'static, object_store::Result<()>> {
            let stuck = self.clone();
            Box::pin(async move {
                stuck.hold().await;
                Ok(())
            })
        }

        async fn complete(&mut self) -> object_store::Result<object_store::PutResult> {
            unreachable!("no part ever arrives")
        }

        async fn abort(&mut self) -> object_store::Result<()> {
            self.opens.notify_one();
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_takes_nothing_is_given_no_more_than_is_bounded() {
        let (stuck, aborts) = (Stuck::default(), Aborts::default());
        let read = Arc::new(AtomicUsize::new(0));
        let counted = read.clone();
        let endless = futures_util::stream::repeat_with(move || {
            counted.fetch_add(10, Ordering::Relaxed);
            Ok(Bytes::from_static(b"0123456789"))
        });
        let bodies: Arc<dyn Bodies> = Arc::new(stuck.clone());
        let mut upload = Box::pin(put(&bodies, &aborts, BodyId::random(), SHAPE, endless));
        for _ in 0..100 {
            tokio::select! {
                biased;
                ended = &mut upload => panic!("{ended:?}"),
                () = tokio::task::yield_now() => {}
            }
        }
        assert_eq!(stuck.held.load(Ordering::Relaxed), SHAPE.parallel);
        // Parts on their way, the one being filled, and the piece that did not fit.
        assert_eq!(read.load(Ordering::Relaxed), SHAPE.part * (SHAPE.parallel + 1) + 10);
        drop(upload);
        aborts.settle().await;
        // It was aborted, or this would wait for ever.
        stuck.opens.notified().await;
    }

    #[tokio::test]
    async fn a_reader_that_stops_reading_is_given_no_more_than_is_bounded() {
        let stuck = Stuck::default();
        let body = Body { id: BodyId::random(), size: 10_000, sha256: String::new() };
        let mut stream = get(Arc::new(stuck.clone()), &body, 0..10_000, SHAPE);
        assert_eq!(stream.next().await.unwrap().unwrap().len(), SHAPE.part);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(stuck.held.load(Ordering::Relaxed) <= SHAPE.parallel + 1);
    }

    #[test]
    fn a_body_is_cut_into_ranges_that_meet() {
        let cut = |range, part| cut(range, part).collect::<Vec<_>>();
        assert_eq!(cut(0..0, 10), []);
        assert_eq!(cut(0..10, 10), vec![0..10; 1]);
        assert_eq!(cut(3..25, 10), [3..13, 13..23, 23..25]);
    }

    #[test]
    fn parts_are_full_but_the_last() {
        let mut filling = Filling::new(4);
        let mut full = Vec::new();
        for piece in ["abc", "", "defghijkl", "m"] {
            let mut bytes = Bytes::from(piece);
            while let Some(part) = filling.take_full(&mut bytes) {
                full.push(part);
            }
            assert!(bytes.is_empty());
        }
        assert_eq!(full, ["abcd", "efgh", "ijkl"]);
        let (last, body) = filling.finish(BodyId::random());
        assert_eq!((last, body.size), (Bytes::from("m"), 13));
        assert_eq!(body.sha256, hex(&Sha256::digest("abcdefghijklm")));
    }
}
