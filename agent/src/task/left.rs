//! What a task leaves with its supervisor while it runs, so that another agent can go on with it should this one be killed.
//!
//! ```text
//! environment ready, and before each attempt at a step ─▶ Remember { caller, note, progress } ─▶ memory of the supervisor
//! each acknowledgement of output ─▶ Place: bytes of the masked log, its digest, what the masks hold ─▶ the same
//!
//! killed ─▶ the next agent: Recall, List ─▶ Left, LeftLogs ─▶ going_on
//! ```
//!
//! It holds secrets: none of it is ever on a disk. That a step was started, and how it ended, only the supervisor knows for
//! certain; what is left here says what came before it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use navvy_environment::run_dir;
use navvy_environment::supervisor::Client;
use navvy_job::chain::chain;
use navvy_job::event::LogEnd;
use navvy_job::outcome::{SkipReason, Verdict};
use navvy_output::{LogPoint, StepLog, log_ends};
use navvy_protocol::frame::Stream;
use navvy_protocol::in_job::Lack;
use navvy_protocol::supervisor::ExecStatus;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::Task;
use super::note::{KeyNote, Note, NoteError, VERSION};
use super::prepare::Ready;
use super::steps::Standing;

/// The version of [`Left`].
const LEFT_VERSION: u32 = 1;
/// How often a task's logs are looked at before nobody knows what they are.
const LOOKS: u32 = 20;
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
/// Bytes that the masks hold, of both streams, are noted up to this; more of them cannot be gone on with.
const MOST_HELD: usize = 1 << 10;

/// What a task's caller adds, and how it learns that there is something to go on with.
#[derive(Clone)]
pub struct Leaving {
    /// The caller's own, as JSON.
    pub caller: Arc<str>,
    /// True once another agent could go on.
    pub is_left: watch::Sender<bool>,
}

/// How far a task is, before an attempt at a step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Progress {
    /// From 1; 0: no step was begun.
    pub step: usize,
    pub attempt: u32,
    /// Milliseconds of the machine's uptime at which the job's time began.
    begun_ms: u64,
    pub(super) failed: bool,
    pub(super) halted: bool,
    pub(super) over: bool,
    pub(super) lacks: BTreeSet<Lack>,
    pub(super) verdict: Verdict,
    pub(super) skipped: BTreeMap<SkipReason, usize>,
    pub(super) fidelity: Vec<String>,
    pub(super) failed_log: Option<PathBuf>,
    pub(super) cut_short: bool,
    pub(super) warnings: usize,
    pub(super) repeated: Vec<String>,
}

/// All that another agent needs.
#[derive(Deserialize)]
pub struct Left {
    left: u32,
    /// The caller's own.
    pub caller: serde_json::Value,
    pub note: Note,
    pub progress: Progress,
}

/// Why nobody can go on with a task.
#[derive(Debug, thiserror::Error)]
pub enum LeftError {
    #[error("what its agent left is not understood")]
    Parse { source: serde_json::Error },
    #[error("it was left by a newer navvy (version {found}); use that one")]
    Version { found: u32 },
    #[error(transparent)]
    Note(#[from] NoteError),
}

impl Left {
    /// # Errors
    /// It is none, or one of a newer version.
    pub fn parse(bytes: &[u8]) -> Result<Self, LeftError> {
        let left: Self = serde_json::from_slice(bytes).map_err(|source| LeftError::Parse { source })?;
        if left.left > LEFT_VERSION {
            return Err(LeftError::Version { found: left.left });
        }
        left.note.check()?;
        Ok(left)
    }
}

impl Progress {
    /// How long the job has had its time.
    pub(super) fn elapsed(&self) -> std::time::Duration {
        std::time::Duration::from_millis(uptime_ms().saturating_sub(self.begun_ms))
    }
}

/// The clock that all processes of this machine share, and nobody sets.
fn uptime_ms() -> u64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = text.split_whitespace().next().and_then(|word| word.parse::<f64>().ok()).unwrap_or_default();
    (seconds * 1000.0) as u64
}

impl Task {
    /// What does not change from here on. `None`: nobody is to go on with the task.
    pub(super) fn begin_leaving(&self, ready: &Ready) -> Option<Arc<str>> {
        let leaving = self.context.leaving.as_ref()?;
        let (runtime, task) = (self.context.paths.runtime.as_deref(), &self.claim.task);
        if let Some(secret) = ready.environment.link().secret()
            && let Err(error) = run_dir::keep_secret(runtime, task, secret)
        {
            tracing::debug!("Nobody could go on with the task: {}.", chain(&error));
            return None;
        }
        let note = Note {
            version: VERSION,
            claim: self.claim.clone(),
            secrets: self.secrets.variables().clone(),
            ssh_keys: self.secrets.ssh_keys().iter().cloned().map(KeyNote::of).collect(),
            masked: self.context.hold.masked.clone(),
            reference: self.reference.clone(),
            step: 1,
            before: true,
            attempts: 0,
            lingering: Vec::new(),
            working_directory: ready.frame.working_directory.clone(),
            account: ready.frame.account.clone(),
            inheritance: ready.environment.inheritance(),
            no_tty: ready.frame.no_tty,
            handed: ready.handed.notes(),
            time_s: 0,
            source: self.context.hold.source.clone(),
        };
        let note = serde_json::to_string(&note).ok()?;
        Some(format!(r#"{{"left":{LEFT_VERSION},"caller":{},"note":{note},"progress":"#, leaving.caller).into())
    }

    /// Written before the attempt begins. Trouble costs nothing but that nobody can go on with the task.
    pub(super) async fn leave_progress(&self, client: &Client, step: usize, attempt: u32, standing: &Standing) {
        let (Some(leaving), Some(head)) = (&self.context.leaving, &self.left_head) else { return };
        let progress = self.progress(step, attempt, standing);
        let Ok(progress) = serde_json::to_string(&progress) else { return };
        let (client, bytes) = (client.clone(), format!("{head}{progress}}}").into_bytes());
        let left = tokio::task::spawn_blocking(move || client.remember(&bytes)).await;
        let is_left = match left {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::debug!("Nobody could go on with the task: {}.", chain(&error));
                false
            }
            Err(_) => false,
        };
        leaving.is_left.send_replace(is_left);
    }

    fn progress(&self, step: usize, attempt: u32, standing: &Standing) -> Progress {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let result = &self.result;
        Progress {
            step,
            attempt,
            begun_ms: uptime_ms().saturating_sub(elapsed),
            failed: standing.failed,
            halted: standing.halted,
            over: standing.over,
            lacks: standing.lacks.clone(),
            verdict: result.verdict.clone(),
            skipped: result.skipped.clone(),
            fidelity: result.fidelity.clone(),
            failed_log: result.failed_log.clone(),
            cut_short: result.cut_short,
            warnings: self.voice.warnings(),
            repeated: self.voice.repeated(),
        }
    }
}

/// Where a step's log stands behind the bytes that were acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    bytes: u64,
    digest: String,
    /// What the masks of each stream hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    held: Vec<HeldBack>,
}

/// Bytes that may yet become a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBack {
    is_stderr: bool,
    bytes: String,
    covered: usize,
}

impl Place {
    /// `None`: more is held than is noted.
    pub fn new(point: &LogPoint, held: [(Stream, (&[u8], usize)); 2]) -> Option<Self> {
        let all: usize = held.iter().map(|(_, (bytes, _))| bytes.len()).sum();
        let held = held.into_iter().filter(|(_, (bytes, _))| !bytes.is_empty());
        let back = |(stream, (bytes, covered)): (Stream, (&[u8], usize))| HeldBack {
            is_stderr: stream == Stream::Stderr,
            bytes: hex(bytes),
            covered,
        };
        (all <= MOST_HELD).then(|| Self {
            bytes: point.bytes,
            digest: hex(&point.digest),
            held: held.map(back).collect(),
        })
    }

    fn point(&self) -> Option<LogPoint> {
        Some(LogPoint { bytes: self.bytes, digest: unhex(&self.digest)? })
    }

    fn held(&self) -> Option<Vec<(Stream, Vec<u8>, usize)>> {
        let one = |held: &HeldBack| {
            let stream = if held.is_stderr { Stream::Stderr } else { Stream::Stdout };
            Some((stream, unhex(&held.bytes)?, held.covered))
        };
        self.held.iter().map(one).collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").ok();
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let (digits, []) = text.as_bytes().as_chunks::<2>() else { return None };
    digits.iter().map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// A log to go on with.
pub struct LeftLog {
    pub log: StepLog,
    /// Bytes of the exec's output that are in it.
    pub offset: u64,
    pub held: Vec<(Stream, Vec<u8>, usize)>,
}

/// What a task's agent left of logs and execs.
#[derive(Default)]
pub struct LeftLogs {
    /// By the id of their exec: those that are not written to their end.
    pub open: BTreeMap<String, LeftLog>,
    /// Execs that cannot be gone on with, and why.
    pub broken: BTreeMap<String, String>,
}

/// How the logs of a task ended. Where they cannot be looked at they are looked at again: a process without descriptors may have some
/// in a moment.
///
/// # Errors
/// They could not be listed in all that time.
pub async fn ends_in(directory: &Path) -> io::Result<Vec<LogEnd>> {
    for _ in 1..LOOKS {
        if let Ok(ends) = log_ends(directory) {
            return Ok(ends);
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
    log_ends(directory)
}

impl LeftLogs {
    /// Cuts each log of an exec to what was acknowledged of it, and closes all others. `is_exec`: the step at hand is one that
    /// the supervisor runs, which may not have been started yet. `ends`: as [`ends_in`] has them.
    pub fn take_up(
        directory: &Path,
        ends: Vec<LogEnd>,
        execs: &[ExecStatus],
        progress: &Progress,
        is_exec: bool,
    ) -> Self {
        let mut left = Self::default();
        let current = format!("{}-{}", progress.step, progress.attempt);
        let (id, pid, output, exited, ended, acknowledged) = (current.clone(), 0, 0, None, false, None);
        let unstarted = ExecStatus { id, pid, output, exited, ended, acknowledged };
        let is_missing = is_exec && progress.step > 0 && execs.iter().all(|exec| exec.id != current);
        let unsealed: Vec<PathBuf> = ends.into_iter().filter(|end| end.sha256.is_none()).map(|end| end.log).collect();
        let mut gone_on = Vec::new();
        for exec in execs.iter().chain(is_missing.then_some(&unstarted)) {
            let Some((step, attempt)) = step_of(&exec.id) else { continue };
            let path = StepLog::path_for(directory, step, attempt);
            if exec.id != current && exec.ended && !unsealed.contains(&path) {
                continue;
            }
            match open(&path, exec) {
                Ok(log) => {
                    gone_on.push(path);
                    left.open.insert(exec.id.clone(), log);
                }
                Err(why) => drop(left.broken.insert(exec.id.clone(), why)),
            }
        }
        for path in unsealed.iter().filter(|path| !gone_on.contains(path)) {
            if let Err(error) = StepLog::close(path) {
                tracing::warn!(log = %path.display(), %error, "A log that was left could not be sealed.");
            }
        }
        left
    }
}

fn open(path: &Path, exec: &ExecStatus) -> Result<LeftLog, String> {
    let (offset, place) = match &exec.acknowledged {
        None => (0, None),
        Some(acknowledged) => {
            let place = acknowledged.note.as_deref().and_then(|note| serde_json::from_str::<Place>(note).ok());
            (acknowledged.offset, Some(place.ok_or("its agent was killed in the midst of a long secret")?))
        }
    };
    let damaged = "what its agent noted of its log is not understood";
    let point = place.as_ref().map_or(Some(LogPoint::default()), Place::point).ok_or(damaged)?;
    let held = place.as_ref().map_or(Some(Vec::new()), Place::held).ok_or(damaged)?;
    let log = StepLog::resume(path, &point).map_err(|error| format!("its log cannot be gone on with: {error}"))?;
    Ok(LeftLog { log, offset, held })
}

/// Step and attempt of an exec; none of a person's.
pub(super) fn step_of(exec: &str) -> Option<(usize, u32)> {
    let (step, attempt) = exec.split_once('-')?;
    Some((step.parse().ok()?, attempt.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_says_what_the_masks_hold_and_nothing_of_a_long_secret() {
        let point = LogPoint { bytes: 7, digest: vec![0, 255] };
        let nothing: (&[u8], usize) = (b"", 0);
        let place = Place::new(&point, [(Stream::Stdout, (b"hunt", 1)), (Stream::Stderr, nothing)]).unwrap();
        let read: Place = serde_json::from_str(&serde_json::to_string(&place).unwrap()).unwrap();
        assert_eq!(
            (read.point(), read.held()),
            (Some(point.clone()), Some(vec![(Stream::Stdout, b"hunt".to_vec(), 1)]))
        );
        let long = vec![0; MOST_HELD + 1];
        assert_eq!(Place::new(&point, [(Stream::Stdout, nothing), (Stream::Stderr, (&long, 0))]), None);
        assert_eq!((unhex("0"), unhex("0g"), step_of("person-1")), (None, None, None));
    }
}
