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
//! Remember ◀─ Data* (a note), empty Data;   ─▶ Reply::Done
//! Recall   ─▶ Data* (the note), empty Data, Reply::Done
//! Continuation ─▶ Data* (a [`Continuation`] as JSON, or nothing), empty Data, Reply::Done
//! Relay    ─▶ Reply::Done, Reply::Called*, until the agent hangs up
//! RelayTcp ─▶ Reply::Listening, Reply::Called*, until the agent hangs up
//! Take     ◀─▶ Data*, empty Data, each way by itself
//! Forward  ─▶ Reply::Done, then as Take
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

/// Exit code of a supervisor that was not called for as long as its idle limit. No process of the job can end it like this.
pub const ABANDONED: u8 = 75;
/// Bytes of the longest note of [`Request::Keep`].
pub const NOTE_CAP: usize = 16 << 20;

/// Bytes of the longest note of [`Control::Ack`]: those of hundreds of execs fit into one [`Reply::Execs`].
pub const ACK_NOTE_CAP: usize = 4 << 10;

/// Bytes of the longest configuration that a setup pipeline is continued with.
pub const MAX_CONFIGURATION: usize = 8 << 20;
/// Bytes of the longest stream of [`Request::Continuation`].
pub const CONTINUATION_CAP: usize = 3 * MAX_CONFIGURATION;

/// What a setup pipeline continues with.
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
    /// Highest version that the sender speaks.
    pub version: u32,
    /// What the sender can do beside the basics of its version.
    pub capabilities: Vec<String>,
    /// The task's secret; needed where the supervisor cannot see that the caller is outside its pid namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

impl Hello {
    /// This program's, with the secret of the task that is called.
    pub fn new(secret: Option<String>) -> Self {
        Self { version: VERSION, capabilities: CAPABILITIES.map(str::to_owned).to_vec(), secret }
    }
}

/// What the agent wants on this connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Start a program; its output and its end follow on this connection.
    Exec(Exec),
    /// Go on with an exec's output from byte `offset`: what came before is acknowledged with it.
    Attach {
        /// Id of the exec.
        exec: String,
        /// In bytes of both streams together, as in [`crate::frame::OutputHeader`].
        offset: u64,
        /// As in [`Control::Ack`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// Every exec of this task.
    List,
    /// Send a signal to a step's processes.
    Signal {
        /// Id of the exec.
        exec: String,
        /// Number of the signal.
        signal: i32,
    },
    /// End a step with everything it started: TERM once, grace, KILL, repeated until nothing new appears. What it starts
    /// after TERM is its clean-up, and runs until grace is over.
    Stop {
        /// Id of the exec.
        exec: String,
        /// Time between TERM and KILL, in milliseconds.
        grace_ms: u64,
    },
    /// Send a file's content.
    Read {
        /// Absolute path.
        path: String,
        /// User as whom it is read; `None` is uid 0.
        user: Option<String>,
    },
    /// Write a file anew: whole or not at all.
    Write {
        /// Absolute path.
        path: String,
        /// User as whom it is written; `None` is uid 0.
        user: Option<String>,
        /// Permission bits of the file.
        mode: u32,
    },
    /// Make a directory and its parents, owned by the user.
    MakeDirectory {
        /// Absolute path.
        path: String,
        /// User as whom it is made; `None` is uid 0.
        user: Option<String>,
    },
    /// Unpack a tar stream below `root`, as the user.
    Unpack {
        /// Absolute path of a directory.
        root: String,
        /// `None` is uid 0.
        user: Option<String>,
    },
    /// Pack what is there of these trees into one archive (`navvy-archive`), as the user.
    Pack {
        /// Which files.
        trees: Trees,
        /// `None` is uid 0.
        user: Option<String>,
    },
    /// Unpack an archive, as the user, to where these trees are and nowhere else. No bytes are written before their digest
    /// was found to match.
    Extract {
        /// Where the archive's files may go.
        trees: Trees,
        /// `None` is uid 0.
        user: Option<String>,
        /// What the archive may hold.
        limits: ArchiveLimits,
        /// So many bytes come before the archive: paths of entries to pass over, each ended by NUL.
        passed_over: u64,
    },
    /// SHA-256 of files.
    Checksum {
        /// Absolute paths.
        paths: Vec<String>,
        /// User as whom they are read; `None` is uid 0.
        user: Option<String>,
    },
    /// List the paths that match patterns.
    Glob {
        /// Absolute path of the directory that relative patterns start from.
        root: String,
        /// With `*`, `?`, `[a-z]`, `{a,b}` and `**`; a path that matches any of them is listed once.
        patterns: Vec<String>,
        /// User as whom directories are read; `None` is uid 0.
        user: Option<String>,
    },
    /// Memory, processor time and processes of the environment now.
    Sample,
    /// Who is this user, and which of these programs exist?
    Probe {
        /// As in an image's `USER`; `None` is uid 0.
        user: Option<String>,
        /// Names of programs.
        programs: Vec<String>,
    },
    /// Hold the environment for a person: for this long it does not end although no agent calls, and then it ends. The
    /// supervisor keeps a note of the agent, in memory only, for the process that continues the task. 0 ends the hold and
    /// drops the note.
    Keep {
        /// In milliseconds.
        for_ms: u64,
    },
    /// Keep a note of the agent, in memory only, for an agent that goes on with the task should this one die. Holds nothing:
    /// an environment that is left alone ends as any other. Replaces the note before.
    Remember,
    /// Give the note back: the one of [`Self::Keep`] where the environment is held, else that of [`Self::Remember`].
    Recall,
    /// Accept the call that continues a setup pipeline, on the environment's own loopback, from a caller with this key.
    /// A second request with the same key returns the same port.
    OfferContinuation {
        /// Secret that the call must bring.
        key: String,
    },
    /// What that call brought, if it came.
    Continuation,
    /// Listen on a unix socket that belongs to the user alone, below directories of uid 0, until this connection ends. An
    /// abandoned socket at that path is replaced; any other file there is an error.
    Relay {
        /// Absolute path of the socket.
        path: String,
        /// Owner of the socket; `None` is uid 0.
        user: Option<String>,
    },
    /// As [`Self::Relay`], on TCP port `port` of 127.0.0.1 inside the environment: whatever runs there may connect. A port
    /// that is taken is an error; 0 is any that is free.
    RelayTcp {
        /// TCP port.
        port: u16,
    },
    /// Join this connection with what listens inside the environment, as uid 0 there.
    Forward {
        /// Where it listens.
        to: Place,
    },
    /// Join this connection with a caller of a relay. Each caller can be taken once.
    Take {
        /// Number from [`Reply::Called`].
        caller: u64,
    },
    /// Stop everything that still runs and end the environment's main process.
    Shutdown {
        /// Time between TERM and KILL, in milliseconds.
        grace_ms: u64,
    },
}

/// Where something listens inside the environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "place", rename_all = "snake_case")]
pub enum Place {
    /// A unix socket.
    Unix {
        /// Absolute path.
        path: String,
    },
    /// 127.0.0.1.
    Tcp {
        /// TCP port.
        port: u16,
    },
}

/// Which files an archive holds, and what they are called in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "trees", rename_all = "snake_case")]
pub enum Trees {
    /// Each of these absolute paths, without `.` and `..`, named by the path without its first slash.
    Places {
        /// Files or directories.
        paths: Vec<String>,
    },
    /// What these patterns (of Go's `filepath.Match`) find below a directory, named relative to it. When an archive is
    /// unpacked, patterns do not matter: all of its entries go there, and the directory is made where it is missing.
    Below {
        /// Absolute path of the directory.
        root: String,
        /// An entry is packed when any of them matches.
        patterns: Vec<String>,
    },
}

/// How much an archive may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveLimits {
    /// Plain ones, holes included.
    pub bytes: u64,
    /// Number of files, directories and links.
    pub entries: u64,
}

/// Warnings that [`Packed`] lists one by one.
pub const WARNINGS_TOLD: usize = 50;

/// Answer to [`Request::Pack`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packed {
    /// 0: there is no archive.
    pub entries: u64,
    /// Number of plain files among them.
    pub files: u64,
    /// Bytes of the files, in sum.
    pub bytes: u64,
    /// Bytes of the archive.
    pub archive: u64,
    /// Which of the paths or patterns, from 0, found nothing.
    pub missing: Vec<u32>,
    /// Which of the paths, from 0, could not be looked at.
    #[serde(default)]
    pub blocked: Vec<u32>,
    /// What was not packed, or not as it is on disk; the first [`WARNINGS_TOLD`].
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
    /// What the program's streams are.
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
    Plain {
        /// Width, in characters.
        columns: u16,
        /// Height, in characters.
        rows: u16,
    },
    /// A person's terminal: controlling, echoing, with job control.
    Controlling {
        /// Width, in characters.
        columns: u16,
        /// Height, in characters.
        rows: u16,
    },
}

/// While an exec or attach runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "control", rename_all = "snake_case")]
pub enum Control {
    /// The terminal's window has another size.
    Resize {
        /// Width, in characters.
        columns: u16,
        /// Height, in characters.
        rows: u16,
    },
    /// Output before `offset` is safe with the agent and may be forgotten.
    Ack {
        /// In bytes of both streams together.
        offset: u64,
        /// What the agent must know to go on exactly there. It is kept, in memory only, until the next acknowledgement;
        /// [`ExecStatus`] gives it back. Bytes: at most [`ACK_NOTE_CAP`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
}

/// What the supervisor answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// What was asked has been done.
    Done,
    /// It could not be done.
    Failed(Failure),
    /// The program of an exec runs.
    Started {
        /// Its process id inside the environment.
        pid: u32,
    },
    /// The program has ended; what it started may still run.
    Exited(Exited),
    /// Everything that the exec had left running ended, too, and all output was sent.
    Ended {
        /// Bytes of output, both streams together.
        output: u64,
    },
    /// Answer to [`Request::List`].
    Execs {
        /// In no particular order.
        execs: Vec<ExecStatus>,
    },
    /// The end of a [`Request::Glob`]. What stands below these could not be looked at: `PATH: why`.
    Found {
        /// Not all of them: the first few.
        unread: Vec<String>,
        /// Number of those that `unread` leaves out.
        more_unread: u64,
    },
    /// Answer to [`Request::Unpack`].
    Unpacked {
        /// Number of entries that were written.
        entries: u64,
        /// Bytes of the files among them.
        bytes: u64,
    },
    /// The end of a [`Request::Pack`].
    Packed(Packed),
    /// The end of a [`Request::Extract`].
    Extracted(Extracted),
    /// In the order of the request; hexadecimal.
    Checksums {
        /// One for each path.
        sha256: Vec<String>,
    },
    /// Answer to [`Request::Sample`].
    Sample(Sample),
    /// Answer to [`Request::Probe`].
    Probe(Probe),
    /// Answer to [`Request::OfferContinuation`] and [`Request::RelayTcp`]: calls are accepted on 127.0.0.1 of the
    /// environment.
    Listening {
        /// TCP port.
        port: u16,
    },
    /// A program connected to the socket of a [`Request::Relay`] or [`Request::RelayTcp`].
    Called {
        /// Number by which [`Request::Take`] names the caller.
        caller: u64,
    },
}

/// How an exec's own process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exited {
    /// Its exit code, or the signal that ended it.
    pub exit: Exit,
    /// Bytes of output up to here; those that came before this message.
    pub output: u64,
    /// CPU time and memory.
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

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

/// What the exec's process and the children it waited for used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time in user mode, in milliseconds.
    pub user_ms: u64,
    /// CPU time in the kernel, in milliseconds.
    pub system_ms: u64,
    /// Bytes resident at most.
    pub max_rss: u64,
}

/// Taken from the environment's cgroup, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutOfMemory {
    /// Processes killed.
    pub kills: u64,
    /// Memory limit of the environment; `None` where there is no limit or it cannot be read.
    pub limit: Option<u64>,
    /// Most memory that was in use at a time; `None` where it cannot be read.
    pub peak: Option<u64>,
    /// Largest first, as last sampled.
    pub largest: Vec<Process>,
}

/// A process of the environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its id inside the environment.
    pub pid: u32,
    /// Name of its program.
    pub name: String,
    /// Bytes resident.
    pub rss: u64,
}

/// An exec, as [`Request::List`] sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecStatus {
    /// Id that its [`Request::Exec`] gave it.
    pub id: String,
    /// Process id inside the environment.
    pub pid: u32,
    /// Bytes of output so far.
    pub output: u64,
    /// `None` as long as its own process runs.
    pub exited: Option<Exited>,
    /// None of its processes runs any more.
    pub ended: bool,
    /// The last acknowledgement, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<Acknowledged>,
}

/// What an agent has of an exec's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// Bytes before this one, of both streams together, are forgotten.
    pub offset: u64,
    /// What the agent said with it.
    pub note: Option<String>,
}

/// What the environment uses now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Bytes; `None` where the cgroup cannot be read.
    pub memory: Option<u64>,
    /// Bytes; `None` where there is no limit or it cannot be read.
    pub memory_limit: Option<u64>,
    /// CPU time so far, in nanoseconds; `None` where it cannot be read.
    pub cpu_ns: Option<u64>,
    /// Processes killed for want of memory so far.
    pub oom_kills: Option<u64>,
    /// Largest first, ten at most.
    pub processes: Vec<Process>,
}

/// Answer to [`Request::Probe`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Name of the user; `None` for a number that the environment has no name for.
    pub name: Option<String>,
    /// Number of the user.
    pub uid: u32,
    /// Number of the user's first group.
    pub gid: u32,
    /// Its supplementary groups, the first one left out.
    pub groups: Vec<u32>,
    /// Its home directory.
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
    /// What went wrong, for programs.
    pub kind: FailureKind,
    /// What, where and why, for a person.
    pub message: String,
}

/// What kept an activity from being carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Version, secret or place of the caller.
    Refused,
    /// The environment has no user of that name.
    NoSuchUser,
    /// The program does not exist, or is not on the `PATH`.
    NoSuchProgram,
    /// The file is not a program for this machine, or what it needs to run is missing.
    NotExecutable,
    /// There is no file or directory at that path.
    NoSuchFile,
    /// The user may not do this.
    NotPermitted,
    /// The disk is full.
    NoSpace,
    /// No exec has that id.
    NoSuchExec,
    /// An exec of that id was started before.
    Duplicate,
    /// The request makes no sense.
    Invalid,
    /// An archive is not what was packed.
    Damaged,
    /// An archive holds more than it may.
    Quota,
    /// Anything else; the message says what.
    Other,
}

impl Failure {
    /// A failure with a text for a person: what, where and why.
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
    fn requests_of_relays_and_forwards_keep_their_shape() {
        let table = [
            (Request::RelayTcp { port: 2376 }, r#"{"request":"relay_tcp","port":2376}"#),
            (
                Request::Forward { to: Place::Unix { path: "/run/docker.sock".to_owned() } },
                r#"{"request":"forward","to":{"place":"unix","path":"/run/docker.sock"}}"#,
            ),
            (Request::Forward { to: Place::Tcp { port: 1 } }, r#"{"request":"forward","to":{"place":"tcp","port":1}}"#),
        ];
        for (request, text) in table {
            assert_eq!(serde_json::to_string(&request).unwrap(), text);
            assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request);
        }
        for bad in ["65536", "-1", "\"x\""] {
            let text = format!(r#"{{"request":"relay_tcp","port":{bad}}}"#);
            assert!(serde_json::from_str::<Request>(&text).is_err(), "{bad}");
        }
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
