//! The service `Agents` of `navvy.processor.v1`: checks who speaks, and hands on.

#[cfg(test)]
mod recorded;
mod version;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use navvy_job::chain::chain;
use navvy_job::executor::ExecutorKinds;
use navvy_job::outcome::{CancelReason, Verdict};
use navvy_job::resource::Size;
use navvy_job::walk::TaskEnd;
use navvy_protocol::processor::{LONGEST_WAIT, v1};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::auth::{self, TaskAccess};
use crate::claims::{ClaimError, Claims, Ending, Launched, MachineRoom, Room, Taken, is_task};
use crate::conduct::{Canceling, ConductError};
use crate::launch::Launcher;
use crate::output::{Finished, Output};
use crate::state::{LogState, Scope, State, hash};

/// A runner that waits looks again after this, even if nobody has told it of a task: another processor may have queued one.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// How long a call waits for the digests of a task's logs.
const CHECK: Duration = Duration::from_secs(20);
/// An agent that never says which step it is at is no agent.
const LONGEST_NAME: usize = 200;

/// The service.
pub struct AgentsService {
    claims: Claims,
    output: Output,
    cancels: watch::Receiver<HashMap<String, Canceling>>,
    launcher: Option<Arc<Launcher>>,
    has_pool: bool,
}

impl AgentsService {
    /// Hands tasks out, takes output in; `cancels`: tasks that are to be canceled.
    pub fn new(claims: Claims, output: Output, cancels: watch::Receiver<HashMap<String, Canceling>>) -> Self {
        Self { claims, output, cancels, launcher: None, has_pool: false }
    }

    /// Agents may have been started by this.
    #[must_use]
    pub fn launched_by(self, launcher: Option<Arc<Launcher>>) -> Self {
        Self { launcher, ..self }
    }

    /// Tasks are told whether there is a pool of machines.
    #[must_use]
    pub fn with_pool(self, has_pool: bool) -> Self {
        Self { has_pool, ..self }
    }

    pub(crate) fn state(&self) -> &State {
        self.claims.conductor().state()
    }

    async fn access<T>(&self, request: &Request<T>) -> Result<TaskAccess, Status> {
        auth::task(self.state(), request.metadata()).await
    }

    /// By a runner: waits for a task of its class.
    async fn wait_for_task(&self, class: &str, asked: &v1::ClaimRequest) -> Result<Option<Taken>, Status> {
        let room = room(asked);
        self.claims.offered(&asked.agent_name, class, room.executors).await.map_err(status)?;
        self.wait(asked, || self.claims.take(class, room, &asked.agent_name)).await.map_err(status)
    }

    /// By an agent that was started for it: waits until no other job of the task's serial group runs.
    async fn launched(&self, asked: &v1::ClaimRequest, token: &str) -> Result<Option<Taken>, Status> {
        if !is_task(&asked.task) {
            return Err(Status::invalid_argument("a launch token takes one task: `task` must be its id"));
        }
        let take = || async {
            Ok(match self.claims.take_launched(&asked.task, token, &asked.agent_name).await? {
                Launched::Waits => None,
                Launched::Taken(taken) => Some(Some(taken)),
                Launched::Refused => Some(None),
            })
        };
        let Some(settled) = self.wait(asked, take).await.map_err(status)? else { return Ok(None) };
        let taken = settled.ok_or_else(|| {
            let why = "this task is not to be had with this token: another agent has it, the token was used before, or the \
                       task is over";
            Status::already_exists(why)
        })?;
        Ok(Some(*taken))
    }

    /// Tries again and again until something comes of it, or the time is over that the agent wants to wait.
    async fn wait<T, F>(&self, asked: &v1::ClaimRequest, take: impl Fn() -> F) -> Result<Option<T>, ClaimError>
    where
        F: Future<Output = Result<Option<T>, ClaimError>>,
    {
        let until = Instant::now() + Duration::from_millis(asked.wait_ms.into()).min(LONGEST_WAIT);
        let queued = self.claims.conductor().signals.queued.clone();
        loop {
            let told = queued.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            if let Some(taken) = take().await? {
                return Ok(Some(taken));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            tokio::time::timeout(left.min(LOOK_AGAIN), told).await.ok();
        }
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl v1::agents_server::Agents for AgentsService {
    async fn claim(&self, request: Request<v1::ClaimRequest>) -> Answer<v1::ClaimAnswer> {
        let token = auth::bearer(request.metadata())?.to_owned();
        let asked = request.into_inner();
        check_name(&asked.agent_name)?;
        let taken = match self.state().token(&token).await.map_err(|error| auth::failed(&error))? {
            Some(Scope::Class(class)) => {
                check_version(&asked)?;
                self.wait_for_task(&class, &asked).await?
            }
            Some(Scope::Launch(_)) => {
                check_version(&asked)?;
                self.launched(&asked, &token).await?
            }
            Some(_) => return Err(Status::permission_denied("this token takes no tasks")),
            None if self.was_launch(&token).await? => {
                return Err(Status::already_exists("this launch token was used before: another agent has the task"));
            }
            None => return Err(Status::unauthenticated("the token is unknown, or was revoked")),
        };
        let task = taken.map(|taken| claimed(taken, self.claims.lease()));
        let task = task.map(|task| v1::ClaimedTask { machine_pool: self.has_pool, ..task });
        Ok(Response::new(v1::ClaimAnswer { task }))
    }

    type AttendStream = ReceiverStream<Result<v1::Word, Status>>;

    async fn attend(&self, request: Request<Streaming<v1::Beat>>) -> Answer<Self::AttendStream> {
        let access = self.access(&request).await?;
        let (sender, receiver) = mpsc::channel(4);
        let attended = Attended {
            claims: self.claims.clone(),
            access: access.clone(),
            readers: self.output.hub().readers(&access.task),
            cancels: self.cancels.clone(),
            words: sender,
            written: "claimed".to_owned(),
        };
        tokio::spawn(attended.follow(request.into_inner()));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn record(&self, request: Request<v1::RecordRequest>) -> Answer<v1::RecordAnswer> {
        let access = self.access(&request).await?;
        let asked = request.into_inner();
        let recorded = self.claims.record(&access.task, access.fence, asked.first, &asked.events).await;
        Ok(Response::new(v1::RecordAnswer { next: recorded.map_err(status)? }))
    }

    type LiveStream = Pin<Box<dyn Stream<Item = Result<v1::LiveWord, Status>> + Send>>;

    async fn live(&self, request: Request<Streaming<v1::Chunk>>) -> Answer<Self::LiveStream> {
        let access = self.access(&request).await?;
        let mut chunks = request.into_inner();
        let (output, task) = (self.output.clone(), access.task.clone());
        tokio::spawn(async move {
            // What has no room, or no sense, is dropped: readers have the segments.
            while let Some(Ok(chunk)) = chunks.next().await {
                crate::figures::LIVE_BYTES.add(chunk.bytes.len() as u64);
                if let Err(error) = output.hub().push(&task, &chunk) {
                    tracing::debug!(task, "A live chunk was dropped: {error}.");
                }
            }
        });
        let readers = tokio_stream::wrappers::WatchStream::new(self.output.hub().readers(&access.task));
        Ok(Response::new(Box::pin(readers.map(|readers| Ok(v1::LiveWord { readers })))))
    }

    async fn grant_segment(&self, request: Request<v1::SegmentRequest>) -> Answer<v1::SegmentGrant> {
        let access = self.access(&request).await?;
        let segment = request.into_inner().segment.ok_or_else(|| Status::invalid_argument("no segment was named"))?;
        let grant = self.output.grant(&access, &segment).await?;
        Ok(Response::new(v1::SegmentGrant { object: grant.object, url: grant.url }))
    }

    async fn commit_segments(&self, request: Request<v1::CommitSegmentsRequest>) -> Answer<v1::DurableMarks> {
        let access = self.access(&request).await?;
        let marks = self.output.commit(&access, &request.into_inner().segments).await?;
        self.marks(&access, marks).await
    }

    async fn get_marks(&self, request: Request<v1::GetMarksRequest>) -> Answer<v1::DurableMarks> {
        let access = self.access(&request).await?;
        let marks = self.output.marks(&access.task).await?;
        self.marks(&access, marks).await
    }

    async fn finish(&self, request: Request<v1::FinishRequest>) -> Answer<v1::FinishAnswer> {
        let (access, has_ended) = auth::task_or_ended(self.state(), request.metadata()).await?;
        if has_ended {
            return self.ended_before(&access).await;
        }
        let asked = request.into_inner();
        let unread = |what| move |error: serde_json::Error| status(ClaimError::Sent { what, why: error.to_string() });
        let end: TaskEnd = serde_json::from_slice(&asked.end).map_err(unread("the task's end"))?;
        let end = self.with_reason(&access, end).await?;
        let continuation = match asked.continuation.as_slice() {
            [] => None,
            json => Some(serde_json::from_slice(json).map_err(unread("the continuation"))?),
        };
        let mut missing = match self.output.finish(&access, &asked.logs, CHECK).await? {
            Finished::Complete => Vec::new(),
            Finished::Incomplete(missing) => missing,
            Finished::Checking { checked, bytes } => {
                let why =
                    format!("the logs' digests are being compared, {checked} of {bytes} bytes so far: call again");
                return Err(Status::unavailable(why));
            }
        };
        let known = self.claims.next_event(&access.task).await.map_err(status)?;
        if known < asked.events {
            missing.push(format!("{} of {} events", asked.events - known, asked.events));
        }
        let output = if missing.is_empty() { "complete".into() } else { format!("incomplete: {}", missing.join("; ")) };
        let (fidelity, warnings) = (asked.fidelity, asked.warnings);
        let ending = Ending { end, continuation, fidelity, warnings, output };
        self.claims.finish(&access.task, access.fence, ending).await.map_err(status)?;
        Ok(Response::new(v1::FinishAnswer { complete: missing.is_empty(), missing }))
    }
}

impl AgentsService {
    async fn marks(&self, access: &TaskAccess, marks: Vec<LogState>) -> Answer<v1::DurableMarks> {
        let marks = marks.into_iter().map(|it| v1::DurableMark { log: it.log, durable: it.durable }).collect();
        let next_event = self.claims.next_event(&access.task).await.map_err(status)?;
        Ok(Response::new(v1::DurableMarks { marks, next_event }))
    }

    /// The report again: its first answer was lost, or the processor ended the task itself.
    async fn ended_before(&self, access: &TaskAccess) -> Answer<v1::FinishAnswer> {
        let select = "SELECT output FROM tasks WHERE id = $1";
        let row = sqlx::query(select).bind(&access.task).fetch_one(self.state().pool()).await;
        let output = row.and_then(|row| sqlx::Row::try_get::<Option<String>, _>(&row, 0));
        let output = output.map_err(|error| auth::failed(&error.into()))?.unwrap_or_default();
        let complete = output == "complete";
        Ok(Response::new(v1::FinishAnswer { complete, missing: if complete { Vec::new() } else { vec![output] } }))
    }

    /// An agent whose machine asks it to stop does not hear why; the scheduler that started it knows.
    async fn with_reason(&self, access: &TaskAccess, end: TaskEnd) -> Result<TaskEnd, Status> {
        if !matches!(end.verdict, Verdict::Canceled { reason: CancelReason::Shutdown }) {
            return Ok(end);
        }
        let drained = match &self.launcher {
            Some(launcher) => launcher.was_drained(&access.task, access.fence).await,
            None => self.claims.was_drained(&access.task, access.fence).await.map_err(status)?,
        };
        let reason = if drained { CancelReason::Drain } else { CancelReason::Shutdown };
        Ok(TaskEnd { verdict: Verdict::Canceled { reason }, ..end })
    }

    /// Was this a launch token once?
    async fn was_launch(&self, token: &str) -> Result<bool, Status> {
        let select = "SELECT COUNT(*) FROM tokens WHERE hash = $1 AND kind = 'launch' AND used_ms IS NOT NULL";
        let row = sqlx::query(select).bind(hash(token)).fetch_one(self.state().pool()).await;
        let count = row.and_then(|row| sqlx::Row::try_get::<i64, _>(&row, 0));
        Ok(count.map_err(|error| auth::failed(&error.into()))? > 0)
    }
}

/// An agent that keeps its lease.
struct Attended {
    claims: Claims,
    access: TaskAccess,
    readers: watch::Receiver<u32>,
    cancels: watch::Receiver<HashMap<String, Canceling>>,
    words: mpsc::Sender<Result<v1::Word, Status>>,
    /// Where the task is, as far as that is written down: the agent begins no step before that is `running`.
    written: String,
}

impl Attended {
    async fn follow(mut self, mut beats: Streaming<v1::Beat>) {
        // What the agent was told of a wish to cancel.
        let mut told = None;
        loop {
            let word = tokio::select! {
                beat = beats.next() => match beat {
                    Some(Ok(beat)) => self.beaten(&beat.state).await,
                    _ => return,
                },
                Ok(()) = self.cancels.changed() => match self.canceled() {
                    canceled if canceled != told => Ok(self.word(canceled)),
                    _ => continue,
                },
                Ok(()) = self.readers.changed() => Ok(self.word(told)),
                else => return,
            };
            if let Ok(word) = &word {
                told = self.canceled().filter(|_| word.cancel.is_some()).or(told);
            }
            let is_over = word.is_err();
            if self.words.send(word).await.is_err() || is_over {
                return;
            }
        }
    }

    async fn beaten(&mut self, state: &str) -> Result<v1::Word, Status> {
        match self.claims.beat(&self.access.task, self.access.fence, state).await {
            Ok(beaten) => {
                state.clone_into(&mut self.written);
                Ok(self.word(beaten.cancel))
            }
            Err(error) => Err(status(error)),
        }
    }

    fn canceled(&self) -> Option<Canceling> {
        self.cancels.borrow().get(&self.access.task).copied()
    }

    fn word(&self, cancel: Option<Canceling>) -> v1::Word {
        let reason = |cancel: &Canceling| {
            serde_json::to_value(cancel.reason)
                .ok()
                .and_then(|word| word.as_str().map(str::to_owned))
                .unwrap_or_default()
        };
        v1::Word {
            lease_ms: millis(self.claims.lease()),
            cancel: cancel.map(|cancel| v1::Cancel { reason: reason(&cancel), at_once: cancel.at_once }),
            readers: *self.readers.borrow(),
            state: self.written.clone(),
        }
    }
}

fn claimed(taken: Taken, lease: Duration) -> v1::ClaimedTask {
    let variables = taken.given.variables.into_iter();
    let ssh_keys = taken.given.ssh_keys.into_iter();
    v1::ClaimedTask {
        claim: serde_json::to_vec(&taken.claim).unwrap_or_default(),
        secrets: Some(v1::Secrets {
            variables: variables.map(|(name, value)| v1::Variable { name, value, public: false }).collect(),
            ssh_keys: ssh_keys
                .map(|key| v1::SshKey {
                    host: key.host.unwrap_or_default(),
                    text: key.text,
                    md5: key.md5,
                    sha256: key.sha256,
                })
                .collect(),
            masked: Vec::new(),
        }),
        token: taken.token,
        lease_ms: millis(lease),
        workflow: taken.workflow,
        resource_class: taken.class,
        notes: Vec::new(),
        checkout: Some(match taken.tree {
            Some(tree) => v1::claimed_task::Checkout::Tree(tree),
            None => v1::claimed_task::Checkout::Git(true),
        }),
        resumed: false,
        config_name: taken.config_name,
        traceparent: taken.traceparent,
        machine_pool: false,
    }
}

fn room(asked: &v1::ClaimRequest) -> Room {
    let size = match (asked.room_millicpus, asked.room_memory) {
        (0, 0) => Room::LARGEST,
        (millicpus, memory) => Size { millicpus, memory },
    };
    let executors = ExecutorKinds::told(asked.executors.iter().map(String::as_str));
    let machines = match v1::MachineRoom::try_from(asked.machine_room) {
        Ok(v1::MachineRoom::Shared) => MachineRoom::Shared,
        Ok(v1::MachineRoom::Elsewhere) => MachineRoom::Elsewhere,
        // A newer agent's word means something that this version does not know.
        Ok(v1::MachineRoom::NoneNow) | Err(_) => MachineRoom::NoneNow,
    };
    Room { size, executors, machines }
}

fn check_name(name: &str) -> Result<(), Status> {
    match name.len() <= LONGEST_NAME && !name.chars().any(char::is_control) {
        true => Ok(()),
        false => Err(Status::invalid_argument(format!(
            "an agent's name has at most {LONGEST_NAME} bytes and no control characters"
        ))),
    }
}

/// Nothing is handed out to an agent that would not understand it.
fn check_version(asked: &v1::ClaimRequest) -> Result<(), Status> {
    version::understands(&asked.agent_version, version::OURS).map_err(Status::failed_precondition)
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// An error as an agent sees it: may it try again, or is its task lost?
fn status(error: ClaimError) -> Status {
    match error {
        ClaimError::Lost(_) => Status::failed_precondition(error.to_string()),
        ClaimError::Sent { .. } => Status::invalid_argument(error.to_string()),
        ClaimError::Conduct(ConductError::NoPipeline(_) | ConductError::Over(..)) => {
            Status::failed_precondition(error.to_string())
        }
        ClaimError::State(error) | ClaimError::Conduct(ConductError::State(error)) => auth::failed(&error),
        ClaimError::Conduct(_) | ClaimError::Secrets(_) => {
            tracing::error!("{}.", chain(&error));
            Status::internal(chain(&error))
        }
    }
}

#[cfg(test)]
mod attacks;
