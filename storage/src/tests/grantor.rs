//! A grantor in this process: it has the bucket, whoever asks it gets URLs. What a processor will do.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use object_store::multipart::PartId;
use object_store::signer::{Method, SignedUrlOptions};

use super::super::*;

const SIGNED_FOR: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Signing {
    index: Index,
    bucket: Arc<Bucket>,
}

impl Signing {
    pub fn new(bucket: Arc<Bucket>, project: &str, scope: TrustScope) -> Self {
        Self { index: Index::new(bucket.clone(), project, scope), bucket }
    }

    async fn sign(&self, method: Method, id: BodyId, options: SignedUrlOptions) -> Result<String> {
        let signer = self.bucket.signer().expect("a store that can sign");
        let path = self.bucket.full(&layout::body(id));
        let signed = signer.signed_url_opts(method, &path, SIGNED_FOR, &options).await;
        Ok(signed.map_err(self.bucket.failed("sign"))?.to_string())
    }

    fn multipart(&self) -> &dyn object_store::multipart::MultipartStore {
        self.bucket.multipart().expect("a store that takes parts")
    }
}

#[async_trait]
impl Grantor for Signing {
    async fn put_url(&self, id: BodyId) -> Result<String> {
        self.sign(Method::PUT, id, SignedUrlOptions::new()).await
    }

    async fn get_url(&self, id: BodyId) -> Result<String> {
        self.sign(Method::GET, id, SignedUrlOptions::new()).await
    }

    async fn begin(&self, id: BodyId) -> Result<String> {
        let path = self.bucket.full(&layout::body(id));
        self.multipart().create_multipart(&path).await.map_err(self.bucket.failed("begin an upload"))
    }

    async fn part_url(&self, id: BodyId, upload: &str, part: usize) -> Result<String> {
        let number = (part + 1).to_string();
        let options = SignedUrlOptions::new().with_query([("partNumber", number.as_str()), ("uploadId", upload)]);
        self.sign(Method::PUT, id, options).await
    }

    async fn complete(&self, id: BodyId, upload: &str, tags: Vec<String>) -> Result<()> {
        let parts = tags.into_iter().map(|content_id| PartId { content_id }).collect();
        let path = self.bucket.full(&layout::body(id));
        match self.multipart().complete_multipart(&path, &upload.to_owned(), parts).await {
            // It was completed already, and the answer was lost.
            Err(object_store::Error::NotFound { .. }) if self.bucket.exists(&layout::body(id)).await? => {}
            ended => drop(ended.map_err(self.bucket.failed("end an upload"))?),
        }
        self.bucket.tidy(id).await
    }

    async fn abort(&self, id: BodyId, upload: &str) -> Result<()> {
        let path = self.bucket.full(&layout::body(id));
        let aborted = self.multipart().abort_multipart(&path, &upload.to_owned()).await;
        aborted.map_err(self.bucket.failed("abort an upload"))
    }

    fn store_name(&self) -> &str {
        self.bucket.name()
    }
}

/// Names are the index's affair: every verb is handed on.
#[async_trait]
impl Ledger for Signing {
    async fn look_up(&self, keys: &[String]) -> Result<Option<Hit>> {
        self.index.look_up(keys).await
    }

    async fn find(&self, place: &Slot) -> Result<Option<Entry>> {
        self.index.find(place).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        self.index.list(prefix).await
    }

    async fn read(&self, listed: &Listed) -> Result<Option<Entry>> {
        self.index.read(listed).await
    }

    async fn pieces(&self, kind: PieceKind, group: &str, producers: Option<&[String]>) -> Result<Vec<Entry>> {
        self.index.pieces(kind, group, producers).await
    }

    async fn reserve(&self, place: Slot) -> Result<Reservation> {
        self.index.reserve(place).await
    }

    async fn commit(&self, reservation: &Reservation, body: &Body, about: About) -> Result<Commit> {
        self.index.commit(reservation, body, about).await
    }

    async fn abandon(&self, reservation: &Reservation) -> Result<()> {
        self.index.abandon(reservation).await
    }

    async fn remove(&self, entry: &Entry) -> Result<()> {
        self.index.remove(entry).await
    }

    async fn quarantine(&self, entry: &Entry, why: &str) -> Result<()> {
        self.index.quarantine(entry, why).await
    }
}
