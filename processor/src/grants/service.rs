//! The verbs of the store as calls of a task.
//!
//! What a task may do follows from its record and from two tables (`bodies`), never from a message:
//!
//! | what | is held by |
//! |---|---|
//! | project and scope | the store is opened in those of the record; an entry that a task tells of is read anew from the store, at a place of this project and of a scope that this one reads ([`Grants::known`]) |
//! | workspace | a layer of another workspace is refused in every verb that names a place |
//! | what a pipeline left | artifacts and results whose place names another pipeline are not reserved |
//! | writing | URLs, uploads, commit and abandonment only of a body that this task reserved, and for the place that it named then; none but abandonment and commit repeated once it is committed |
//! | reading | URLs only of bodies that an entry names which this task was shown, and of its pipeline's working tree |
//! | removing | entries of the own scope alone, and only what the store has there |
//!
//! Rows are written before the answer goes out, and a body's mark in the store before its row: a processor that dies in between
//! has promised nothing, and what it left is a sweep's. Whoever goes on reads the same rows.

use navvy_job::chain::chain;
use navvy_protocol::api::Submit;
use navvy_protocol::processor::v1;
use navvy_storage::{
    About, Body, BodyId, Commit, Entry, Grantor as _, Grants, Ledger as _, Listed, MOST_PARTS, ObjectPath, Objects,
    Piece, PieceKind, RESERVED_FOR, Reservation, Slot, StorageError, Verb,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row as _;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::bodies::{self, Reserved, Stage};
use crate::audit::grants::{By, GrantLog, Verb as Granted};
use crate::auth::{self, TaskAccess};
use crate::state::State;

/// Bytes of entries in one answer; the rest is asked for by `from`.
const PAGE: usize = 3 << 20;
/// Bytes of a key, a name or an id that a task sends.
const MOST_TEXT: usize = 4 << 10;
/// Keys of one question.
const MOST_KEYS: usize = 1000;

type Answer<T> = Result<Response<T>, Status>;

/// The service `Storage`.
#[derive(Debug, Clone)]
pub struct Granting {
    state: State,
    objects: Objects,
    log: GrantLog,
}

impl Granting {
    /// Over this store; what is granted is noted in the log.
    pub fn new(state: State, objects: Objects, log: GrantLog) -> Self {
        Self { state, objects, log }
    }

    /// Who asks. Each call begins with it.
    async fn enter(&self, metadata: &MetadataMap) -> Result<Entered<'_>, Status> {
        let access = auth::task(&self.state, metadata).await?;
        let grants = self.objects.grants(&access.project, access.scope.clone());
        Ok(Entered { state: &self.state, objects: &self.objects, log: &self.log, access, grants })
    }
}

/// Where a working tree is that was sent under this name. `None`: no tree has such a name.
pub fn tree_path(name: &str) -> Option<ObjectPath> {
    ObjectPath::read(&format!("v1/tree/{name}")).filter(|_| !name.contains('/'))
}

/// A call whose task is known.
struct Entered<'a> {
    state: &'a State,
    objects: &'a Objects,
    log: &'a GrantLog,
    access: TaskAccess,
    grants: Grants,
}

impl Entered<'_> {
    /// May the task name this place?
    fn allows(&self, slot: &Slot) -> Result<(), Status> {
        match slot {
            Slot::Cache { key } if key.len() > MOST_TEXT => Err(too_long("a key")),
            Slot::Piece(Piece { group, producer, .. }) if group.len().max(producer.len()) > MOST_TEXT => {
                Err(too_long("a name"))
            }
            Slot::Piece(Piece { of: PieceKind::Layer, group, .. }) if *group != self.access.workspace => Err(strange()),
            Slot::Cache { .. } | Slot::Piece(_) => Ok(()),
        }
    }

    /// May the task leave something at this place? What a pipeline left has its name in its place, and is its own tasks' to write.
    async fn may_leave(&self, slot: &Slot) -> Result<(), Status> {
        let Slot::Piece(Piece { of: PieceKind::Artifacts | PieceKind::TestResults, group, producer, .. }) = slot else {
            return Ok(());
        };
        let run = producer.split_once('/').map_or(producer.as_str(), |(run, _)| run);
        let select = "SELECT 1 FROM pipelines WHERE id IN ($1, $2) AND id <> $3 LIMIT 1";
        let query = sqlx::query(select).bind(group).bind(run).bind(&self.access.pipeline);
        match query.fetch_optional(self.state.pool()).await.map_err(|error| auth::failed(&error.into()))? {
            None => Ok(()),
            Some(_) => Err(Status::permission_denied("this would be another pipeline's")),
        }
    }

    /// A body that this task reserved, and how far it is.
    async fn reserved(&self, body: &str) -> Result<(BodyId, Reserved), Status> {
        let id = BodyId::read(body).ok_or_else(|| Status::invalid_argument("this is not the id of a body"))?;
        let reserved =
            bodies::reserved(self.state, &self.access.task, id).await.map_err(|error| auth::failed(&error))?;
        let reserved = reserved.ok_or_else(|| Status::permission_denied("this task has not reserved that body"))?;
        Ok((id, reserved))
    }

    /// A body that this task may still write.
    async fn writable(&self, body: &str) -> Result<BodyId, Status> {
        match self.reserved(body).await? {
            (_, Reserved { stage: Stage::Sealed, .. }) => {
                Err(Status::failed_precondition("the body is committed: it does not change any more"))
            }
            (_, Reserved { stage: Stage::Abandoned, .. }) => Err(given_up()),
            (_, reserved) if reserved.age > RESERVED_FOR => {
                Err(Status::failed_precondition("the reservation is too old: reserve anew"))
            }
            (id, _) => Ok(id),
        }
    }

    /// From now on the task may read what these entries name.
    async fn show<'e>(&self, entries: impl IntoIterator<Item = &'e Entry>) -> Result<(), Status> {
        let ids: Vec<BodyId> = entries.into_iter().map(|entry| entry.body().id).collect();
        let shown = bodies::show(self.state, &self.access.task, &ids).await;
        shown.map_err(|error| auth::failed(&error))
    }

    async fn shown(&self, entry: Option<Entry>) -> Answer<v1::EntryAnswer> {
        self.show(&entry).await?;
        let entry = entry.map(|entry| spelled(&entry)).transpose()?.unwrap_or_default();
        Ok(Response::new(v1::EntryAnswer { entry }))
    }

    /// Where a body is that this task may read.
    async fn readable(&self, body: &str) -> Result<ObjectPath, Status> {
        let refused = || Status::permission_denied("this task was not shown that body");
        let Some(id) = BodyId::read(body) else { return self.tree(body).await?.ok_or_else(refused) };
        let shown = bodies::is_shown(self.state, &self.access.task, id).await.map_err(|error| auth::failed(&error))?;
        if shown { Ok(ObjectPath::body(id)) } else { self.tree(body).await?.ok_or_else(refused) }
    }

    /// The working tree of the task's pipeline, if that is its name.
    async fn tree(&self, name: &str) -> Result<Option<ObjectPath>, Status> {
        let Some(path) = tree_path(name) else { return Ok(None) };
        let select = "SELECT submit FROM pipelines WHERE id = $1";
        let row = sqlx::query(select).bind(&self.access.pipeline).fetch_optional(self.state.pool()).await;
        let submit: Option<String> = match row.map(|row| row.map(|row| row.try_get(0))) {
            Ok(None) => None,
            Ok(Some(Ok(submit))) => Some(submit),
            Ok(Some(Err(error))) | Err(error) => return Err(auth::failed(&error.into())),
        };
        let submit: Option<Submit> = submit.and_then(|text| serde_json::from_str(&text).ok());
        Ok(submit.and_then(|submit| submit.tree).filter(|tree| tree == name).map(|_| path))
    }

    async fn commit(&self, asked: v1::CommitRequest) -> Answer<v1::CommitAnswer> {
        let (id, reserved) = self.reserved(&asked.body).await?;
        if reserved.stage == Stage::Abandoned {
            return Err(given_up());
        }
        if read::<Slot>("slot", &asked.slot)? != reserved.slot {
            return Err(Status::permission_denied("the body was reserved for another place"));
        }
        let body = Body { id, size: asked.size, sha256: asked.sha256 };
        if body.sha256.len() != 64 || !body.sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Status::invalid_argument("sha256 takes 64 hexadecimal characters"));
        }
        let mut about: About = read("about", &asked.about)?;
        about.producer.pipeline = Some(self.access.pipeline.clone());
        about.producer.task.clone_from(&self.access.task);
        if reserved.stage == Stage::Open {
            // An entry never points to less than was promised. A commit that is repeated may have lost: then its body is gone.
            if self.grants.size(id).await.map_err(|error| status(&error))? != Some(body.size) {
                return Err(Status::failed_precondition("the body that was uploaded does not have that size"));
            }
            // Another connection may have given it up meanwhile.
            let sealed = bodies::close(self.state, id, Stage::Sealed).await.map_err(|error| auth::failed(&error))?;
            if !sealed && self.reserved(&asked.body).await?.1.stage != Stage::Sealed {
                return Err(given_up());
            }
        }
        let reservation = Reservation::of_age(id, reserved.slot, reserved.age);
        let (entry, lost) =
            match self.grants.commit(&reservation, &body, about).await.map_err(|error| status(&error))? {
                Commit::Won(entry) => (entry, false),
                Commit::Lost(entry) => (entry, true),
                Commit::Newer { version } => {
                    return Ok(Response::new(v1::CommitAnswer { newer: version, lost: true, ..Default::default() }));
                }
            };
        self.show([&entry]).await?;
        Ok(Response::new(v1::CommitAnswer { entry: spelled(&entry)?, lost, newer: 0 }))
    }

    /// A URL goes out, once it is noted for what.
    async fn granted(&self, verb: Granted, path: &ObjectPath, url: String) -> Answer<v1::Url> {
        self.log.note(By::Task(&self.access), verb, path.as_str()).await?;
        crate::figures::GRANTS.count();
        Ok(Response::new(v1::Url { url }))
    }

    /// The entry that the task tells of, as the store has it, if the task may change it.
    async fn changeable(&self, entry: &[u8]) -> Result<Option<Entry>, Status> {
        let told: Entry = read("entry", entry)?;
        self.allows(&told.record.place)?;
        let known = self.grants.known(&told).await.map_err(|error| status(&error))?;
        Ok(known.filter(|known| known.own).map(|known| known.entry))
    }
}

#[tonic::async_trait]
impl v1::storage_server::Storage for Granting {
    async fn look_up(&self, request: Request<v1::LookUpRequest>) -> Answer<v1::LookUpAnswer> {
        let entered = self.enter(request.metadata()).await?;
        let keys = request.into_inner().keys;
        if keys.len() > MOST_KEYS || keys.iter().any(|key| key.len() > MOST_TEXT) {
            return Err(too_long("the list of keys"));
        }
        let hit = entered.grants.look_up(&keys).await.map_err(|error| status(&error))?;
        let Some(hit) = hit else { return Ok(Response::new(v1::LookUpAnswer::default())) };
        entered.show([&hit.entry]).await?;
        let nth = u32::try_from(hit.nth).unwrap_or(u32::MAX);
        Ok(Response::new(v1::LookUpAnswer { entry: spelled(&hit.entry)?, nth }))
    }

    async fn find(&self, request: Request<v1::FindRequest>) -> Answer<v1::EntryAnswer> {
        let entered = self.enter(request.metadata()).await?;
        let slot = read("slot", &request.into_inner().slot)?;
        entered.allows(&slot)?;
        entered.shown(entered.grants.find(&slot).await.map_err(|error| status(&error))?).await
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Answer<v1::ListAnswer> {
        let entered = self.enter(request.metadata()).await?;
        let v1::ListRequest { prefix, from } = request.into_inner();
        if prefix.len() > MOST_TEXT {
            return Err(too_long("a key"));
        }
        let all = entered.grants.list(&prefix).await.map_err(|error| status(&error))?;
        let (listed, total) = page(&all, from)?;
        Ok(Response::new(v1::ListAnswer { listed, total }))
    }

    async fn read(&self, request: Request<v1::ReadRequest>) -> Answer<v1::EntryAnswer> {
        let entered = self.enter(request.metadata()).await?;
        let listed: Listed = read("listed", &request.into_inner().listed)?;
        entered.shown(entered.grants.read(&listed).await.map_err(|error| status(&error))?).await
    }

    async fn pieces(&self, request: Request<v1::PiecesRequest>) -> Answer<v1::EntriesAnswer> {
        let entered = self.enter(request.metadata()).await?;
        let v1::PiecesRequest { kind, group, producers, all, from } = request.into_inner();
        let kind: PieceKind = serde_json::from_value(kind.into())
            .map_err(|_| Status::invalid_argument("kind is layer, artifacts or test_results"))?;
        let longest = producers.iter().map(String::len).max().unwrap_or(0);
        if producers.len() > MOST_KEYS || longest > MOST_TEXT {
            return Err(too_long("the list of producers"));
        }
        entered.allows(&Slot::Piece(Piece {
            of: kind,
            group: group.clone(),
            producer: String::new(),
            node: 0,
            step: 0,
        }))?;
        let producers = (!all).then_some(&*producers);
        let found = entered.grants.pieces(kind, &group, producers).await.map_err(|error| status(&error))?;
        let (entries, total) = page(&found, from)?;
        entered.show(found.iter().skip(from as usize).take(entries.len())).await?;
        Ok(Response::new(v1::EntriesAnswer { entries, total }))
    }

    async fn reserve(&self, request: Request<v1::ReserveRequest>) -> Answer<v1::ReserveAnswer> {
        let entered = self.enter(request.metadata()).await?;
        let slot: Slot = read("slot", &request.into_inner().slot)?;
        entered.allows(&slot)?;
        entered.may_leave(&slot).await?;
        let task = &entered.access.task;
        if bodies::open(&self.state, task).await.map_err(|error| auth::failed(&error))? >= bodies::MOST_OPEN {
            return Err(Status::resource_exhausted(format!(
                "this task has reserved {} bodies that it neither committed nor gave up",
                bodies::MOST_OPEN
            )));
        }
        let reservation = entered.grants.reserve(slot).await.map_err(|error| status(&error))?;
        if let Err(error) = bodies::reserve(&self.state, task, reservation.id, &reservation.place).await {
            entered.grants.abandon(&reservation).await.ok();
            return Err(auth::failed(&error));
        }
        Ok(Response::new(v1::ReserveAnswer { body: reservation.id.to_string() }))
    }

    async fn commit(&self, request: Request<v1::CommitRequest>) -> Answer<v1::CommitAnswer> {
        let entered = self.enter(request.metadata()).await?;
        entered.commit(request.into_inner()).await
    }

    async fn abandon(&self, request: Request<v1::AbandonRequest>) -> Answer<v1::Done> {
        let entered = self.enter(request.metadata()).await?;
        let (id, reserved) = entered.reserved(&request.into_inner().body).await?;
        // Closed first: of a commit and this, on two connections, one goes on.
        let closed = bodies::close(&self.state, id, Stage::Abandoned).await.map_err(|error| auth::failed(&error))?;
        if !closed && reserved.stage != Stage::Abandoned {
            return Err(Status::failed_precondition("the body is committed: remove its entry instead"));
        }
        let reservation = Reservation::of_age(id, reserved.slot, reserved.age);
        entered.grants.abandon(&reservation).await.map_err(|error| status(&error))?;
        Ok(Response::new(v1::Done {}))
    }

    async fn remove(&self, request: Request<v1::EntryRequest>) -> Answer<v1::Done> {
        let entered = self.enter(request.metadata()).await?;
        if let Some(entry) = entered.changeable(&request.into_inner().entry).await? {
            entered.grants.remove(&entry).await.map_err(|error| status(&error))?;
        }
        // Otherwise another entry is there, or none: what was to be removed is.
        Ok(Response::new(v1::Done {}))
    }

    async fn quarantine(&self, request: Request<v1::QuarantineRequest>) -> Answer<v1::Done> {
        let entered = self.enter(request.metadata()).await?;
        let v1::QuarantineRequest { entry, why } = request.into_inner();
        if why.len() > MOST_TEXT {
            return Err(too_long("a reason"));
        }
        // A fork's task does not take from the trusted scope what it calls damaged: whoever of that scope reads it next will.
        if let Some(entry) = entered.changeable(&entry).await? {
            entered.grants.quarantine(&entry, &why).await.map_err(|error| status(&error))?;
        }
        Ok(Response::new(v1::Done {}))
    }

    async fn put_url(&self, request: Request<v1::BodyRequest>) -> Answer<v1::Url> {
        let entered = self.enter(request.metadata()).await?;
        let v1::BodyRequest { body, length } = request.into_inner();
        let id = entered.writable(&body).await?;
        let url = entered.grants.put_url(id, length).await.map_err(|error| status(&error))?;
        entered.granted(Granted::Put, &ObjectPath::body(id), url).await
    }

    async fn get_url(&self, request: Request<v1::BodyRequest>) -> Answer<v1::Url> {
        let entered = self.enter(request.metadata()).await?;
        let path = entered.readable(&request.into_inner().body).await?;
        let url = entered.objects.url(&path, &Verb::Get).await.map_err(|error| status(&error))?;
        entered.granted(Granted::Get, &path, url).await
    }

    async fn begin_upload(&self, request: Request<v1::BodyRequest>) -> Answer<v1::Upload> {
        let entered = self.enter(request.metadata()).await?;
        let id = entered.writable(&request.into_inner().body).await?;
        let upload = entered.grants.begin(id).await.map_err(|error| status(&error))?;
        Ok(Response::new(v1::Upload { upload }))
    }

    async fn part_url(&self, request: Request<v1::PartRequest>) -> Answer<v1::Url> {
        let entered = self.enter(request.metadata()).await?;
        let v1::PartRequest { body, upload, part, length } = request.into_inner();
        let id = entered.writable(&body).await?;
        is_upload(&upload)?;
        let url = entered.grants.part_url(id, &upload, part, length).await.map_err(|error| status(&error))?;
        entered.granted(Granted::Part, &ObjectPath::body(id), url).await
    }

    async fn complete_upload(&self, request: Request<v1::CompleteUploadRequest>) -> Answer<v1::Done> {
        let entered = self.enter(request.metadata()).await?;
        let v1::CompleteUploadRequest { body, upload, tags } = request.into_inner();
        let id = entered.writable(&body).await?;
        is_upload(&upload)?;
        if tags.is_empty() || tags.len() > MOST_PARTS as usize {
            return Err(Status::invalid_argument(format!("an upload has 1 to {MOST_PARTS} parts")));
        }
        entered.grants.complete(id, &upload, tags).await.map_err(|error| status(&error))?;
        Ok(Response::new(v1::Done {}))
    }

    async fn abort_upload(&self, request: Request<v1::AbortUploadRequest>) -> Answer<v1::Done> {
        let entered = self.enter(request.metadata()).await?;
        let v1::AbortUploadRequest { body, upload } = request.into_inner();
        let (id, _) = entered.reserved(&body).await?;
        is_upload(&upload)?;
        entered.grants.abort(id, &upload).await.map_err(|error| status(&error))?;
        Ok(Response::new(v1::Done {}))
    }

    async fn describe(&self, request: Request<v1::DescribeRequest>) -> Answer<v1::StoreDescription> {
        self.enter(request.metadata()).await?;
        Ok(Response::new(v1::StoreDescription { name: self.objects.name().to_owned() }))
    }
}

/// An upload's id goes into a URL and, in a directory, into a path.
fn is_upload(upload: &str) -> Result<(), Status> {
    if upload.len() <= MOST_TEXT { Ok(()) } else { Err(too_long("the id of an upload")) }
}

fn read<T: DeserializeOwned>(what: &str, json: &[u8]) -> Result<T, Status> {
    serde_json::from_slice(json).map_err(|error| Status::invalid_argument(format!("{what} cannot be read: {error}")))
}

fn spelled<T: Serialize>(value: &T) -> Result<Vec<u8>, Status> {
    serde_json::to_vec(value).map_err(|error| Status::internal(format!("an answer cannot be written: {error}")))
}

/// As many as fit into an answer, but at least one; and how many there are.
fn page<T: Serialize>(all: &[T], from: u32) -> Result<(Vec<Vec<u8>>, u32), Status> {
    let (mut some, mut bytes) = (Vec::new(), 0);
    for value in all.iter().skip(from as usize) {
        let json = spelled(value)?;
        bytes += json.len();
        if bytes > PAGE && !some.is_empty() {
            break;
        }
        some.push(json);
    }
    Ok((some, u32::try_from(all.len()).unwrap_or(u32::MAX)))
}

fn too_long(what: &str) -> Status {
    Status::invalid_argument(format!("{what} is too long"))
}

fn given_up() -> Status {
    Status::failed_precondition("the body was given up: reserve anew")
}

/// The same for a workspace that is another's and one that is none.
fn strange() -> Status {
    Status::permission_denied("this task belongs to another workspace")
}

/// An error of the store as an agent sees it. Of these, only what may pass is tried again.
fn status(error: &StorageError) -> Status {
    use object_store::Error::{PermissionDenied, Unauthenticated};
    let why = chain(error);
    match error {
        StorageError::EmptyKey => Status::invalid_argument(why),
        StorageError::Store { source: PermissionDenied { .. } | Unauthenticated { .. }, .. }
        | StorageError::Clock { .. } => {
            tracing::error!("{why}.");
            Status::failed_precondition(why)
        }
        StorageError::Busy { .. } => Status::unavailable(why),
        StorageError::Store { .. } | StorageError::Transport(_) | StorageError::Source(_) => {
            tracing::warn!("{why}.");
            Status::unavailable(why)
        }
        _ => Status::failed_precondition(why),
    }
}
