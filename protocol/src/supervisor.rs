//! The messages between agent and supervisor.
//!
//! One connection an activity. Both sides send [`Hello`] first; the agent sends its [`Request`] right behind it.
//!
//! ```text
//! Exec     ─▶ Reply::Started, Output*, Reply::Exited, Output*, Reply::Ended      (agent: Data*, Control*)
//! Attach   ─▶ the same from an offset on
//! Read     ─▶ Data*, empty Data, Reply::Done
//! Write    ◀─ Data*, empty Data;   ─▶ Reply::Done
//! Unpack   ◀─ Data* (a tar), empty Data;   ─▶ Reply::Unpacked
//! Pack     ─▶ Data* (an archive, or nothing), empty Data, Reply::Packed
//! Extract  ◀─ Data* (paths to pass over, an archive), empty Data;   ─▶ Reply::Extracted
//! Keep     ◀─ Data* (a note), empty Data;   ─▶ Reply::Done
//! Recall   ─▶ Data* (the note), empty Data, Reply::Done
//! Continuation ─▶ Data* (a [`Continuation`] as JSON, or nothing), empty Data, Reply::Done
//! Relay    ─▶ Reply::Done, Reply::Called*, until the agent hangs up
//! Take     ◀─▶ Data*, empty Data, each way by itself
//! Glob     ─▶ Data* (paths, each ended by NUL), empty Data, Reply::Found
//! others   ─▶ one Reply
//! ```
//!
//! Any of them may end in [`Reply::Failed`] instead.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::in_job::Lack;

/// The version this code speaks. Both sides name theirs in [`Hello`]; the lower one counts.
pub const VERSION: u32 = 1;
/// The lowest version this code still understands.
pub const OLDEST_VERSION: u32 = 1;
/// What this code can do beside the version's basics.
pub const CAPABILITIES: [&str; 0] = [];

/// Exit code of a supervisor that nobody has called for its idle limit. Nothing in the job ends it like this.
pub const ABANDONED: u8 = 75;
/// Bytes of the longest note of [`Request::Keep`].
pub const NOTE_CAP: usize = 16 << 20;

/// Bytes of the longest configuration that a setup pipeline is continued with.
pub const MAX_CONFIGURATION: usize = 8 << 20;
/// Bytes of the longest stream of [`Request::Continuation`].
pub const CONTINUATION_CAP: usize = 3 * MAX_CONFIGURATION;

/// What a setup pipeline goes on with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Continuation {
    /// The config's text.
    pub configuration: String,
    /// Pipeline parameters by name.
    pub parameters: serde_json::Map<String, serde_json::Value>,
}

/// First frame in each direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub version: u32,
    pub capabilities: Vec<String>,
    /// The task's secret; needed where the supervisor cannot see that the caller is outside its pid namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

impl Hello {
    pub fn new(secret: Option<String>) -> Self {
        Self { version: VERSION, capabilities: CAPABILITIES.map(str::to_owned).to_vec(), secret }
    }
}

/// What the agent wants on this connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    Exec(Exec),
    /// Go on with an exec's output from byte `offset`.
    Attach {
        exec: String,
        offset: u64,
    },
    /// Every exec of this task.
    List,
    /// Send a signal to a step's processes.
    Signal {
        exec: String,
        signal: i32,
    },
    /// End a step with everything it started: TERM once, grace, KILL, repeated until nothing new appears. What it starts
    /// after TERM is its clean-up, and runs until grace is over.
    Stop {
        exec: String,
        grace_ms: u64,
    },
    Read {
        path: String,
        user: Option<String>,
    },
    /// Write a file anew: whole or not at all.
    Write {
        path: String,
        user: Option<String>,
        mode: u32,
    },
    /// Make a directory and its parents, owned by the user.
    MakeDirectory {
        path: String,
        user: Option<String>,
    },
    /// Unpack a tar stream below `root`, as the user.
    Unpack {
        root: String,
        user: Option<String>,
    },
    /// Pack what is there of these trees into one archive (`navvy-archive`), as the user.
    Pack {
        trees: Trees,
        user: Option<String>,
    },
    /// Unpack an archive, as the user, to where these trees are and nowhere else. Nothing of it is written before its
    /// digest fits.
    Extract {
        trees: Trees,
        user: Option<String>,
        limits: ArchiveLimits,
        /// So many bytes come before the archive: paths of entries to pass over, each ended by NUL.
        passed_over: u64,
    },
    /// SHA-256 of files.
    Checksum {
        paths: Vec<String>,
        user: Option<String>,
    },
    Glob {
        root: String,
        patterns: Vec<String>,
        user: Option<String>,
    },
    /// Memory, processor time and processes of the environment now.
    Sample,
    /// Who is this user, and which of these programs exist?
    Probe {
        user: Option<String>,
        programs: Vec<String>,
    },
    /// Hold the environment for a person: for this long it does not end for being left alone, and ends then. Keeps a
    /// note of the agent's, in memory only, for whoever goes on. 0 ends the holding and forgets the note.
    Keep {
        for_ms: u64,
    },
    /// Give the note back.
    Recall,
    /// Take the call that continues a setup pipeline, on the environment's own loopback, from whoever has this key.
    /// Again, with the same key: the same place.
    OfferContinuation {
        key: String,
    },
    /// What that call brought, if it came.
    Continuation,
    /// Listen on a unix socket that belongs to the user alone, below directories of uid 0's, until this connection ends.
    /// A file there that nobody listens on any more makes room; any other is an error.
    Relay {
        path: String,
        user: Option<String>,
    },
    /// Be joined with somebody who called there. Once for each caller.
    Take {
        caller: u64,
    },
    /// Stop everything that still runs and end the environment's main process.
    Shutdown {
        grace_ms: u64,
    },
}

/// Which files an archive holds, and what they are called in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "trees", rename_all = "snake_case")]
pub enum Trees {
    /// Each of these absolute paths, without `.` and `..`, named by the path without its first slash.
    Places { paths: Vec<String> },
    /// What these patterns (of Go's `filepath.Match`) find below a directory, named from there on. For an archive that is
    /// unpacked: all of it; the directory is made where it is missing, and patterns say nothing.
    Below { root: String, patterns: Vec<String> },
}

/// How much an archive may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveLimits {
    /// Plain ones, holes included.
    pub bytes: u64,
    pub entries: u64,
}

/// Warnings that [`Packed`] tells one by one.
pub const WARNINGS_TOLD: usize = 50;

/// Answer to [`Request::Pack`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packed {
    /// 0: there is no archive.
    pub entries: u64,
    pub files: u64,
    /// Of the files.
    pub bytes: u64,
    /// Of the archive.
    pub archive: u64,
    /// Which of the paths or patterns, from 0, found nothing.
    pub missing: Vec<u32>,
    /// Which of the paths, from 0, could not be looked at.
    #[serde(default)]
    pub blocked: Vec<u32>,
    /// What was not packed, or not as it stands there; the first [`WARNINGS_TOLD`].
    pub warnings: Vec<String>,
    /// Further ones.
    pub more_warnings: u64,
    /// How many of all these are of what could not be read.
    #[serde(default)]
    pub unreadable: u64,
    /// The first of them.
    #[serde(default)]
    pub first_unreadable: Option<String>,
}

/// Answer to [`Request::Extract`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extracted {
    /// Those that were passed over not counted.
    pub entries: u64,
    /// Written to files.
    pub bytes: u64,
    /// Entries that were passed over.
    pub skipped: u64,
    /// Extended attributes that the file system did not take.
    pub attributes_lost: u64,
}

/// A process to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// Chosen by the agent; starting the same id twice is refused, so no step ever runs twice.
    pub id: String,
    /// Never empty. The first is a path, or a name looked for on the `PATH` of `env`.
    pub argv: Vec<String>,
    /// The whole environment. `HOME` and `USER` are added from the user's entry if they are missing.
    pub env: Vec<(String, String)>,
    /// `~` is the `HOME` of `env`, else the user's; a relative path is below it. Made, owned by the user, if it is missing.
    pub cwd: String,
    /// As in an image's `USER`: name or number, optionally `:group`. `None` is uid 0.
    pub user: Option<String>,
    pub terminal: Terminal,
    /// Keep stdin open for `Data` frames; otherwise it is empty.
    pub input: bool,
    /// Take the environment's out-of-memory counters before and after.
    pub watch_memory: bool,
}

/// What a process's output is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "terminal", rename_all = "snake_case")]
pub enum Terminal {
    /// Two pipes.
    Pipes,
    /// One pty for both that adds nothing and controls nothing.
    Plain { columns: u16, rows: u16 },
    /// A person's terminal: controlling, echoing, with job control.
    Controlling { columns: u16, rows: u16 },
}

/// While an exec or attach runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "control", rename_all = "snake_case")]
pub enum Control {
    Resize {
        columns: u16,
        rows: u16,
    },
    /// Output before `offset` is safe with the agent and may be forgotten.
    Ack {
        offset: u64,
    },
}

/// What the supervisor answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    Done,
    Failed(Failure),
    Started {
        pid: u32,
    },
    Exited(Exited),
    /// Everything that the exec had left running ended, too, and all output was sent.
    Ended {
        output: u64,
    },
    Execs {
        execs: Vec<ExecStatus>,
    },
    /// The end of a [`Request::Glob`]. What stands below these could not be looked at: `PATH: why`.
    Found {
        unread: Vec<String>,
        more_unread: u64,
    },
    Unpacked {
        entries: u64,
        bytes: u64,
    },
    Packed(Packed),
    Extracted(Extracted),
    /// In the order of the request; hexadecimal.
    Checksums {
        sha256: Vec<String>,
    },
    Sample(Sample),
    Probe(Probe),
    /// On 127.0.0.1 of the environment.
    Listening {
        port: u16,
    },
    /// Somebody connected to the socket of a [`Request::Relay`].
    Called {
        caller: u64,
    },
}

/// How an exec's own process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exited {
    pub exit: Exit,
    /// Bytes of output up to here; those that came before this message.
    pub output: u64,
    pub usage: Usage,
    /// The kernel killed something for want of memory while this ran.
    pub out_of_memory: Option<OutOfMemory>,
    /// The job asked to halt (before or while this ran).
    pub halted: bool,
    /// What the job asked for (before or while this ran) and only the service has.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub lacks: BTreeSet<Lack>,
    /// The environment's own main program (an entrypoint that was asked for) has ended with this code: so does the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub main_ended: Option<u8>,
    /// Processes it left running.
    pub left_running: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

/// What the exec's process and the children it waited for used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub user_ms: u64,
    pub system_ms: u64,
    /// Bytes resident at most.
    pub max_rss: u64,
}

/// Taken from the environment's cgroup, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutOfMemory {
    /// Processes killed.
    pub kills: u64,
    pub limit: Option<u64>,
    pub peak: Option<u64>,
    /// Largest first, as last sampled.
    pub largest: Vec<Process>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    pub name: String,
    /// Bytes resident.
    pub rss: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecStatus {
    pub id: String,
    pub pid: u32,
    /// Bytes of output so far.
    pub output: u64,
    pub exited: Option<Exited>,
    /// Nothing of it runs any more.
    pub ended: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Bytes; `None` where the cgroup cannot be read.
    pub memory: Option<u64>,
    pub memory_limit: Option<u64>,
    pub cpu_ns: Option<u64>,
    /// Processes killed for want of memory so far.
    pub oom_kills: Option<u64>,
    /// Largest first, ten at most.
    pub processes: Vec<Process>,
}

/// Answer to [`Request::Probe`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    pub name: Option<String>,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub home: String,
    /// Where each asked program is; `None` when it is nowhere on the supervisor's `PATH`.
    pub programs: Vec<Option<String>>,
    /// `uname -m`.
    pub architecture: String,
}

/// An activity that could not be carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub kind: FailureKind,
    /// What, where and why, for a person.
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Version, secret or place of the caller.
    Refused,
    NoSuchUser,
    NoSuchProgram,
    NotExecutable,
    NoSuchFile,
    NotPermitted,
    NoSpace,
    NoSuchExec,
    /// An exec of that id was started before.
    Duplicate,
    /// The request makes no sense.
    Invalid,
    /// An archive is not what was packed.
    Damaged,
    /// An archive holds more than it may.
    Quota,
    Other,
}

impl Failure {
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_fields_are_ignored_and_unknown_requests_refused() {
        let text = r#"{"request":"list","from_the_future":1}"#;
        assert_eq!(serde_json::from_str::<Request>(text).unwrap(), Request::List);
        assert!(serde_json::from_str::<Request>(r#"{"request":"fly"}"#).is_err());
    }

    #[test]
    fn replies_round_trip() {
        let reply = Reply::Exited(Exited {
            exit: Exit::Signal(9),
            output: 12,
            usage: Usage::default(),
            out_of_memory: None,
            halted: false,
            lacks: BTreeSet::new(),
            main_ended: None,
            left_running: 2,
        });
        let text = serde_json::to_string(&reply).unwrap();
        assert_eq!(serde_json::from_str::<Reply>(&text).unwrap(), reply);
    }
}
