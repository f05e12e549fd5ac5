//! The store of a fleet's task: the processor does every verb, and signs the URLs.
//!
//! ```text
//! steps ─▶ navvy_storage::Store ─┬─ names: Storage calls with the task's token ─▶ processor
//!                                └─ bytes: PUT and GET by the URLs that it signs ─▶ store
//! ```
//!
//! A call that the processor could not carry out now is tried again; every call of it may be: what was done already is done.
//! Only a reservation and the beginning of an upload leave something behind when their answer is lost, for a sweep.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use navvy_protocol::processor::v1::storage_client::StorageClient;
use navvy_protocol::processor::{CALL_DEADLINE, MAX_MESSAGE, v1};
use navvy_storage::{
    About, Body, BodyId, Commit, Entry, Grantor, Hit, Ledger, Listed, Patience, PieceKind, Reservation, Result,
    Retries, Slot, StorageError,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

/// A method of the client as a function of client and request.
macro_rules! call {
    ($method:ident) => {
        |mut client: StorageClient<Channel>, request| async move { client.$method(request).await }
    };
}

/// A list that changes while it is read page by page is read anew, as often as this.
const READ_ANEW: usize = 5;

/// The processor, as far as the store is concerned.
#[derive(Clone)]
pub struct Remote {
    client: StorageClient<Channel>,
    authorization: MetadataValue<Ascii>,
    retries: Retries,
    name: String,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Remote {
    /// Speaks for the task whose token stands in `authorization`.
    pub fn new(channel: Channel, authorization: MetadataValue<Ascii>, retries: Retries) -> Self {
        let client = StorageClient::new(channel);
        let client = client.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
        Self { client, authorization, retries, name: "the processor's store".to_owned() }
    }

    /// Asks for the store's name, for people.
    ///
    /// # Errors
    /// The processor's, after all retries; so it is with every verb.
    pub async fn named(mut self) -> Result<Self> {
        let described = self.call("ask for the store's name", v1::DescribeRequest {}, call!(describe)).await?;
        self.name = described.name;
        Ok(self)
    }

    /// A URL to GET the working tree that was sent with the task's pipeline.
    ///
    /// # Errors
    /// The processor's, after all retries.
    pub async fn tree_url(&self, name: &str) -> Result<String> {
        let question = v1::BodyRequest { body: name.to_owned(), length: 0 };
        Ok(self.call("ask for the working tree", question, call!(get_url)).await?.url)
    }

    /// One call, tried again while that may help.
    async fn call<Q, A, F>(
        &self,
        verb: &'static str,
        question: Q,
        ask: impl Fn(StorageClient<Channel>, Request<Q>) -> F,
    ) -> Result<A>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let mut patience = Patience::new(self.retries);
        loop {
            let mut request = Request::new(question.clone());
            request.set_timeout(CALL_DEADLINE);
            request.metadata_mut().insert("authorization", self.authorization.clone());
            // A connection that says nothing at all is not waited for either.
            let asked = tokio::time::timeout(CALL_DEADLINE + GRACE, ask(self.client.clone(), request));
            match asked.await.unwrap_or_else(|_| Err(Status::deadline_exceeded("the processor does not answer"))) {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) if may_pass(&status) && patience.wait().await => {}
                Err(status) => return Err(refused(verb, status.message())),
            }
        }
    }
}

/// A list that comes page by page. One that changes in between is asked for from its beginning: an entry must not be missed.
struct Pages<A> {
    verb: &'static str,
    all: Vec<A>,
    expected: Option<u32>,
    begun: usize,
}

impl<A: DeserializeOwned> Pages<A> {
    fn new(verb: &'static str) -> Self {
        Self { verb, all: Vec::new(), expected: None, begun: 1 }
    }

    /// How many there are already.
    fn from(&self) -> u32 {
        u32::try_from(self.all.len()).unwrap_or(u32::MAX)
    }

    /// Takes a page. Whether it was the last.
    fn take(&mut self, page: &[Vec<u8>], total: u32) -> Result<bool> {
        if *self.expected.get_or_insert(total) != total || (page.is_empty() && self.from() < total) {
            if self.begun == READ_ANEW {
                return Err(refused(self.verb, "the list changes while it is read"));
            }
            *self = Self { begun: self.begun + 1, ..Self::new(self.verb) };
            return Ok(false);
        }
        for json in page {
            self.all.push(read(self.verb, json)?);
        }
        Ok(self.from() >= total)
    }
}

/// What the deadline leaves the processor's answer for its way.
const GRACE: Duration = Duration::from_secs(2);

/// Whether another attempt may go better.
fn may_pass(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded)
}

fn refused(verb: &'static str, why: &str) -> StorageError {
    StorageError::Grant { verb, why: why.to_owned() }
}

fn read<T: DeserializeOwned>(verb: &'static str, json: &[u8]) -> Result<T> {
    let read = serde_json::from_slice(json);
    read.map_err(|error| refused(verb, &format!("the processor's answer cannot be read: {error}")))
}

fn spelled<T: Serialize>(verb: &'static str, value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| refused(verb, &error.to_string()))
}

/// JSON of an entry, or nothing.
fn entry(verb: &'static str, json: &[u8]) -> Result<Option<Entry>> {
    if json.is_empty() { Ok(None) } else { read(verb, json).map(Some) }
}

#[async_trait]
impl Ledger for Remote {
    async fn look_up(&self, keys: &[String]) -> Result<Option<Hit>> {
        let verb = "look up a cache";
        let answer = self.call(verb, v1::LookUpRequest { keys: keys.to_owned() }, call!(look_up)).await?;
        let hit = |entry| Hit { nth: answer.nth as usize, entry };
        Ok(entry(verb, &answer.entry)?.map(hit))
    }

    async fn find(&self, place: &Slot) -> Result<Option<Entry>> {
        let verb = "find an entry";
        let answer = self.call(verb, v1::FindRequest { slot: spelled(verb, place)? }, call!(find)).await?;
        entry(verb, &answer.entry)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        let verb = "list caches";
        let mut pages = Pages::new(verb);
        loop {
            let asked = v1::ListRequest { prefix: prefix.to_owned(), from: pages.from() };
            let answer = self.call(verb, asked, call!(list)).await?;
            if pages.take(&answer.listed, answer.total)? {
                return Ok(pages.all);
            }
        }
    }

    async fn read(&self, listed: &Listed) -> Result<Option<Entry>> {
        let verb = "read an entry";
        let answer = self.call(verb, v1::ReadRequest { listed: spelled(verb, listed)? }, call!(read)).await?;
        entry(verb, &answer.entry)
    }

    async fn pieces(&self, kind: PieceKind, group: &str, producers: Option<&[String]>) -> Result<Vec<Entry>> {
        let verb = "list entries";
        let kind = match kind {
            PieceKind::Layer => "layer",
            PieceKind::Artifacts => "artifacts",
            PieceKind::TestResults => "test_results",
        };
        let asked = v1::PiecesRequest {
            kind: kind.to_owned(),
            group: group.to_owned(),
            producers: producers.unwrap_or_default().to_vec(),
            all: producers.is_none(),
            from: 0,
        };
        let mut pages = Pages::new(verb);
        loop {
            let asked = v1::PiecesRequest { from: pages.from(), ..asked.clone() };
            let answer = self.call(verb, asked, call!(pieces)).await?;
            if pages.take(&answer.entries, answer.total)? {
                return Ok(pages.all);
            }
        }
    }

    async fn reserve(&self, place: Slot) -> Result<Reservation> {
        let verb = "reserve a body";
        if matches!(&place, Slot::Cache { key } if key.is_empty()) {
            return Err(StorageError::EmptyKey);
        }
        let answer = self.call(verb, v1::ReserveRequest { slot: spelled(verb, &place)? }, call!(reserve)).await?;
        let id = BodyId::read(&answer.body).ok_or_else(|| refused(verb, "the processor gave no body's id"))?;
        Ok(Reservation::of_age(id, place, Duration::ZERO))
    }

    async fn commit(&self, reservation: &Reservation, body: &Body, about: About) -> Result<Commit> {
        let verb = "commit a body";
        let asked = v1::CommitRequest {
            body: reservation.id.to_string(),
            slot: spelled(verb, &reservation.place)?,
            size: body.size,
            sha256: body.sha256.clone(),
            about: spelled(verb, &about)?,
        };
        let answer = self.call(verb, asked, call!(commit)).await?;
        if answer.newer > 0 {
            return Ok(Commit::Newer { version: answer.newer });
        }
        let entry = read(verb, &answer.entry)?;
        Ok(if answer.lost { Commit::Lost(entry) } else { Commit::Won(entry) })
    }

    async fn abandon(&self, reservation: &Reservation) -> Result<()> {
        let verb = "give a body up";
        let slot = spelled(verb, &reservation.place)?;
        let asked = v1::AbandonRequest { body: reservation.id.to_string(), slot };
        self.call(verb, asked, call!(abandon)).await.map(drop)
    }

    async fn remove(&self, entry: &Entry) -> Result<()> {
        let verb = "remove an entry";
        self.call(verb, v1::EntryRequest { entry: spelled(verb, entry)? }, call!(remove)).await.map(drop)
    }

    async fn quarantine(&self, entry: &Entry, why: &str) -> Result<()> {
        let verb = "put an entry aside";
        let asked =
            v1::QuarantineRequest { entry: spelled(verb, entry)?, why: why.chars().take(MOST_REASON).collect() };
        self.call(verb, asked, call!(quarantine)).await.map(drop)
    }
}

/// Characters of a reason.
const MOST_REASON: usize = 1000;

#[async_trait]
impl Grantor for Remote {
    async fn put_url(&self, id: BodyId, length: u64) -> Result<String> {
        let asked = v1::BodyRequest { body: id.to_string(), length };
        Ok(self.call("ask where to put a body", asked, call!(put_url)).await?.url)
    }

    async fn get_url(&self, id: BodyId) -> Result<String> {
        let asked = v1::BodyRequest { body: id.to_string(), length: 0 };
        Ok(self.call("ask where to get a body", asked, call!(get_url)).await?.url)
    }

    async fn begin(&self, id: BodyId) -> Result<String> {
        let asked = v1::BodyRequest { body: id.to_string(), length: 0 };
        Ok(self.call("begin an upload", asked, call!(begin_upload)).await?.upload)
    }

    async fn part_url(&self, id: BodyId, upload: &str, part: u32, length: u64) -> Result<String> {
        let asked = v1::PartRequest { body: id.to_string(), upload: upload.to_owned(), part, length };
        Ok(self.call("ask where to put a part", asked, call!(part_url)).await?.url)
    }

    async fn complete(&self, id: BodyId, upload: &str, tags: Vec<String>) -> Result<()> {
        let asked = v1::CompleteUploadRequest { body: id.to_string(), upload: upload.to_owned(), tags };
        self.call("end an upload", asked, call!(complete_upload)).await.map(drop)
    }

    async fn abort(&self, id: BodyId, upload: &str) -> Result<()> {
        let asked = v1::AbortUploadRequest { body: id.to_string(), upload: upload.to_owned() };
        self.call("give an upload up", asked, call!(abort_upload)).await.map(drop)
    }

    fn store_name(&self) -> &str {
        &self.name
    }
}
