//! Steps: started once each, followed by any agent that asks, remembered until the job ends.
//!
//! ```text
//!            ┌─ connection thread that brought the request becomes the exec's owner ─┐
//! Exec ──▶ Registry.claim ─▶ launch ─▶ Running ─▶ Exited ─▶ Ended ─▶ all acknowledged: thread ends
//! Attach ─▶ mail to the owner (or, after its end, answered from the record)
//! Stop, Signal ─▶ processes below the keeper, found in /proc
//! ```
//!
//! The [`pump`] owns an exec's descriptors and its [`ring`]; everybody else sees an [`Exec`](Record) record behind
//! a lock.

pub mod keeper;
pub mod launch;
mod pump;
mod ring;
mod stop;
mod streams;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use navvy_protocol::frame::FrameKind;
use navvy_protocol::supervisor::{
    ACK_NOTE_CAP, Acknowledged, Exec, ExecStatus, Exit, Exited, Failure, FailureKind, Reply, Usage,
};

use crate::control::connection::Connection;
use crate::init::Init;
use crate::sys::{Event, Pid};
use crate::{failure, lock, users};

pub use stop::{signal, stop, stop_all};

/// More than can end between a step's start and its record.
const ORPHANS_KEPT: usize = 64;

/// What is known of one exec.
pub struct Record {
    id: String,
    state: Mutex<State>,
    /// Notified when nothing of the exec runs any more.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// 0 until it is started.
    keeper: Pid,
    step: Pid,
    output: u64,
    acknowledged: Option<Acknowledged>,
    exited: Option<Exited>,
    /// No process of it is left.
    gone: bool,
    /// And all of its output was read.
    ended: bool,
    /// Raised when mail or an orphan's status has come. Gone with the owner: then nothing is unacknowledged.
    owner: Option<Arc<Event>>,
    attaches: Vec<Attach>,
    /// It was asked to end, with TERM: that is done once.
    asked_to_end: bool,
    /// The step's status, if its keeper was killed and we had to take it.
    orphan: Option<i32>,
}

/// A connection that wants to follow.
pub struct Attach {
    pub connection: Connection,
    pub offset: u64,
    pub note: Option<String>,
}

impl Record {
    fn new(id: String, owner: Arc<Event>) -> Self {
        let state = State { owner: Some(owner), ..State::default() };
        Self { id, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn status(&self) -> ExecStatus {
        let state = lock(&self.state);
        ExecStatus {
            id: self.id.clone(),
            pid: state.step as u32,
            output: state.output,
            exited: state.exited.clone(),
            ended: state.ended,
            acknowledged: state.acknowledged.clone(),
        }
    }

    /// The agent has everything before `offset`. A note that is too long counts as none.
    fn acknowledge(&self, offset: u64, note: Option<String>) {
        let note = note.filter(|note| note.len() <= ACK_NOTE_CAP);
        lock(&self.state).acknowledged = Some(Acknowledged { offset, note });
    }

    fn keeper(&self) -> Pid {
        lock(&self.state).keeper
    }

    fn is_gone(&self) -> bool {
        lock(&self.state).gone
    }

    /// Is this the first time? Before the step is started, no process can be asked.
    fn ask_to_end(&self) -> bool {
        let mut state = lock(&self.state);
        state.keeper != 0 && !std::mem::replace(&mut state.asked_to_end, true)
    }

    /// Waits until nothing of it runs, or for a while.
    fn wait_gone(&self, limit: Duration) {
        let state = lock(&self.state);
        drop(self.changed.wait_timeout_while(state, limit, |state| !state.gone));
    }
}

/// Every exec of this job.
#[derive(Default)]
pub struct Registry {
    records: Mutex<HashMap<String, Arc<Record>>>,
    /// The latest orphans that ended: a step may kill its keeper and end before it is on record.
    orphans: Mutex<VecDeque<(Pid, i32)>>,
}

impl Registry {
    /// Takes an id for ever: no step runs twice.
    fn claim(&self, id: &str, owner: Arc<Event>) -> Result<Arc<Record>, Failure> {
        let mut records = lock(&self.records);
        if records.contains_key(id) {
            return Err(Failure::new(FailureKind::Duplicate, format!("exec {id:?} was started before")));
        }
        let record = Arc::new(Record::new(id.to_owned(), owner));
        records.insert(id.to_owned(), Arc::clone(&record));
        Ok(record)
    }

    /// What could not be started leaves no trace, so that it may be tried again.
    fn release(&self, id: &str) {
        lock(&self.records).remove(id);
    }

    pub fn get(&self, id: &str) -> Result<Arc<Record>, Failure> {
        let found = lock(&self.records).get(id).cloned();
        found.ok_or_else(|| Failure::new(FailureKind::NoSuchExec, format!("there is no exec {id:?}")))
    }

    fn all(&self) -> Vec<Arc<Record>> {
        lock(&self.records).values().cloned().collect()
    }

    fn recent_orphan(&self, pid: Pid) -> Option<i32> {
        lock(&self.orphans).iter().find(|(orphan, _)| *orphan == pid).map(|(_, status)| *status)
    }

    pub fn list(&self) -> Reply {
        Reply::Execs { execs: self.all().iter().map(|record| record.status()).collect() }
    }

    /// A process that had lost its parent ended. If it is a step, its keeper was killed.
    pub fn orphan_ended(&self, pid: Pid, status: i32) {
        let mut orphans = lock(&self.orphans);
        orphans.truncate(ORPHANS_KEPT - 1);
        orphans.push_front((pid, status));
        drop(orphans);
        for record in self.all() {
            let mut state = lock(&record.state);
            if state.step == pid && state.exited.is_none() {
                state.orphan = Some(status);
                state.owner.iter().for_each(|owner| owner.raise());
            }
        }
    }
}

/// Starts an exec and stays with it on this thread until everything is sent and acknowledged.
pub fn run(init: &Arc<Init>, exec: &Exec, connection: Connection) {
    match begin(init, exec) {
        Ok(pump) => pump.run(connection),
        Err(failure) => connection.answer(&Reply::Failed(failure)),
    }
}

fn begin(init: &Arc<Init>, exec: &Exec) -> Result<pump::Pump, Failure> {
    let mail = Arc::new(Event::new().map_err(|error| failure::no_process(&error))?);
    let record = init.execs.claim(&exec.id, Arc::clone(&mail))?;
    let started = start(init, exec, &record, mail);
    if started.is_err() {
        init.execs.release(&exec.id);
    }
    started
}

fn start(init: &Arc<Init>, exec: &Exec, record: &Arc<Record>, mail: Arc<Event>) -> Result<pump::Pump, Failure> {
    let user = users::look_up(exec.user.as_deref())?;
    let (streams, ends) = streams::Streams::open(exec, &user)?;
    let kills = exec.watch_memory.then(|| init.memory.kills());
    let kept = launch::start(exec, &user, &ends, init.apart())?;
    let mut state = lock(&record.state);
    (state.keeper, state.step) = (kept.keeper, kept.step);
    drop(state);
    Ok(pump::Pump::new(Arc::clone(init), Arc::clone(record), mail, streams, kept, kills))
}

/// Hands the connection to the exec's owner, or answers from the record when the owner has ended.
pub fn attach(init: &Arc<Init>, id: &str, attach: Attach) {
    let record = match init.execs.get(id) {
        Ok(record) => record,
        Err(failure) => return attach.connection.answer(&Reply::Failed(failure)),
    };
    let mut state = lock(&record.state);
    if let Some(owner) = state.owner.clone() {
        state.attaches.push(attach);
        return owner.raise();
    }
    let Attach { connection, offset, .. } = attach;
    let (step, output, exited) = (state.step, state.output, state.exited.clone());
    drop(state);
    retell(connection, offset, step, output, exited);
}

/// The story of an exec whose every byte was acknowledged.
fn retell(mut connection: Connection, offset: u64, step: Pid, output: u64, exited: Option<Exited>) {
    if offset != output {
        return connection.answer(&Reply::Failed(wrong_offset(offset, output)));
    }
    connection.push(FrameKind::Reply, &Reply::Started { pid: step as u32 });
    if let Some(exited) = exited {
        connection.push(FrameKind::Reply, &Reply::Exited(exited));
    }
    connection.answer(&Reply::Ended { output });
}

fn wrong_offset(offset: u64, output: u64) -> Failure {
    failure::invalid(format!(
        "output from byte {offset} on is not here: of {output} bytes, those acknowledged are forgotten"
    ))
}

fn exit_of(status: i32) -> Exit {
    if libc::WIFSIGNALED(status) { Exit::Signal(libc::WTERMSIG(status)) } else { Exit::Code(libc::WEXITSTATUS(status)) }
}

fn usage(user_us: u64, system_us: u64, max_rss: u64) -> Usage {
    Usage { user_ms: user_us / 1000, system_ms: system_us / 1000, max_rss }
}
