//! How a task is taken.
//!
//! ```text
//! launch token, task ───────▶ Claim ─▶ Claimed: the claim, its secrets, the task's own token
//! runner's token, free room ─▶  (waits)  └─ or nothing within the time
//! ```
//!
//! What a processor sends is checked before any of it is used.

use std::time::Duration;

use navvy_job::claim::{Claim, Secrets, SshKey};
use navvy_job::compiled::Variables;
use navvy_job::executor::ExecutorKinds;
use navvy_job::resource::Size;
use navvy_protocol::processor::trace::{self, TraceParent};
use navvy_protocol::processor::v1::claimed_task::Checkout;
use navvy_protocol::processor::v1::{self, ClaimRequest, ClaimedTask, MachineRoom};
use navvy_protocol::processor::{CALL_DEADLINE, LONGEST_WAIT};
use tokio::time::Instant;
use tonic::{Code, Status};

use super::connection::{Bearer, CallError, Processor, Session, is_passing, within};

/// What an agent says that can carry out nothing now. It is no executor's word.
const NOTHING: &str = "nothing";

/// A task that was taken, and not looked at yet.
pub struct Claimed {
    pub task: ClaimedTask,
    /// When it came: its lease is counted from then.
    pub asked: Instant,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub enum Wish {
    /// The one task that a launch token is for.
    Task(String),
    /// Any of these classes that fits into the room, and that needs one of these executors.
    Classes { classes: Vec<String>, room: Size, executors: ExecutorKinds, machine_room: MachineRoom },
}

/// Why there is no task.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error("task {task} is taken: its launch token was used before. A token is for one agent")]
    Taken { task: String },
    #[error(transparent)]
    Call(CallError),
}

impl ClaimError {
    /// Might it go well in a moment?
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Call(error) if is_passing(&Status::new(error.code, "")))
    }
}

/// What a task's claim holds, read and checked.
pub struct Work {
    pub claim: Claim,
    pub secrets: Secrets,
    /// Values that nobody may see, with their names.
    pub masked: Variables,
    pub checkout: Option<Checkout>,
    pub workflow: String,
    pub resource_class: String,
    pub notes: Vec<String>,
    pub config_name: String,
    /// The processor keeps machines ready.
    pub has_pool: bool,
}

/// The trace of a task; `None`: it has none, or its processor is older.
pub fn trace_of(task: &ClaimedTask) -> Option<TraceParent> {
    TraceParent::read(&task.traceparent)
}

/// The same of a claim that was read.
pub fn trace_in(claim: &Claim) -> Option<TraceParent> {
    let variables = claim.builtin_variables.iter();
    variables.rev().find(|(name, _)| name == trace::VARIABLE).and_then(|(_, value)| TraceParent::read(value))
}

/// Waits for a task, up to `wait`. `None`: there was none.
///
/// # Errors
/// The processor cannot be reached, or refuses.
pub async fn claim(
    processor: &Processor,
    token: &Bearer,
    name: &str,
    wish: &Wish,
    wait: Duration,
) -> Result<Option<Claimed>, ClaimError> {
    let wait = wait.min(LONGEST_WAIT);
    let nothing = Size { millicpus: 0, memory: 0 };
    let (task, classes, room, executors, machine_room) = match wish {
        Wish::Task(task) => (task.clone(), Vec::new(), nothing, Vec::new(), MachineRoom::Shared),
        Wish::Classes { classes, room, executors, machine_room } => {
            (String::new(), classes.clone(), *room, words(*executors), *machine_room)
        }
    };
    let request = ClaimRequest {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        agent_name: name.to_owned(),
        task: task.clone(),
        classes,
        wait_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
        room_millicpus: room.millicpus,
        room_memory: room.memory,
        executors,
        machine_room: machine_room.into(),
    };
    let mut agents = processor.agents(token);
    match within(wait + CALL_DEADLINE, agents.claim(request)).await {
        // The call may have waited: the lease begins when the task is there, which is not before now by more than the way back.
        // The first beat renews it within moments.
        Ok(answer) => Ok(answer.into_inner().task.map(|task| Claimed { task, asked: Instant::now() })),
        Err(status) if status.code() == Code::AlreadyExists => Err(ClaimError::Taken { task }),
        Err(status) => Err(ClaimError::Call(processor.explain(&status))),
    }
}

/// As they cross the wire. No word at all would stand for containers, as of older agents: who has nothing says so.
fn words(executors: ExecutorKinds) -> Vec<String> {
    match executors.is_empty() {
        true => vec![NOTHING.to_owned()],
        false => executors.iter().map(|kind| kind.word().to_owned()).collect(),
    }
}

impl Claimed {
    /// The way to the processor in the name of this task.
    ///
    /// # Errors
    /// Its token is none.
    pub fn session(&self, processor: &Processor) -> Result<Session, super::connection::ConnectionError> {
        Ok(Session { processor: processor.clone(), bearer: Bearer::new(&self.task.token)? })
    }

    /// The task's id, for people; empty where the claim cannot be read.
    pub fn name(&self) -> String {
        self.peek().map(|claim| claim.task.to_string()).unwrap_or_default()
    }

    /// The claim, not checked yet; `None`: it cannot be read.
    pub fn peek(&self) -> Option<Claim> {
        serde_json::from_slice(&self.task.claim).ok()
    }

    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.task.lease_ms.into())
    }

    /// Reads what was claimed.
    ///
    /// # Errors
    /// Why it cannot be carried out here, in words.
    pub fn read(self) -> Result<Work, String> {
        let trace = trace_of(&self.task);
        let ClaimedTask {
            claim,
            secrets,
            token,
            workflow,
            resource_class,
            notes,
            checkout,
            config_name,
            machine_pool: has_pool,
            ..
        } = self.task;
        let mut claim: Claim = serde_json::from_slice(&claim)
            .map_err(|error| format!("the claim cannot be read by navvy {}: {error}", env!("CARGO_PKG_VERSION")))?;
        claim.validate().map_err(|error| error.to_string())?;
        if let Some(trace) = trace {
            claim.builtin_variables.push((trace::VARIABLE.to_owned(), trace.to_string()));
        }
        let v1::Secrets { variables, ssh_keys, masked } = secrets.unwrap_or_default();
        let keys: Vec<SshKey> = ssh_keys.into_iter().map(ssh_key).collect();
        let mut hidden = secret_ones(variables.iter().chain(&masked));
        hidden.extend(keys.iter().map(|key| (format!("SSH key {}", key.md5), key.text.clone())));
        hidden.push(("the task's token".to_owned(), token));
        let given = variables.into_iter().map(|variable| (variable.name, variable.value)).collect();
        Ok(Work {
            claim,
            secrets: Secrets::new(given).with_ssh_keys(keys),
            masked: hidden,
            checkout,
            workflow,
            resource_class,
            notes,
            config_name,
            has_pool,
        })
    }
}

fn secret_ones<'a>(variables: impl Iterator<Item = &'a v1::Variable>) -> Variables {
    variables.filter(|variable| !variable.public).map(|it| (it.name.clone(), it.value.clone())).collect()
}

fn ssh_key(key: v1::SshKey) -> SshKey {
    let v1::SshKey { host, text, md5, sha256 } = key;
    SshKey { host: (!host.is_empty()).then_some(host), text, md5, sha256 }
}

#[cfg(test)]
mod tests {
    use navvy_job::executor::ExecutorKind;

    use super::*;

    #[test]
    fn who_has_nothing_is_not_taken_for_an_older_agent() {
        let read = |kinds: ExecutorKinds| ExecutorKinds::told(words(kinds).iter().map(String::as_str));
        assert!(read(ExecutorKinds::default()).is_empty());
        let machines: ExecutorKinds = [ExecutorKind::Machine].into_iter().collect();
        assert_eq!(read(machines), machines);
        assert_eq!(read(ExecutorKinds::ALL), ExecutorKinds::ALL);
    }
}
