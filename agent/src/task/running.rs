//! An exec being followed on a thread of its own.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use navvy_environment::supervisor::{Abandon, Client, ClientError, FollowEnd, follow, follow_on};
use navvy_output::{LogDigest, StepLog};
use navvy_protocol::frame::Stream;
use navvy_protocol::supervisor::{Exec, Exited};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, UnboundedReceiver};

use crate::step::own::log_trouble;
use crate::task::step_sink::{Activity, StepSignal, StepSink, Watch};

/// The follower needs little stack; hundreds of them may live at once.
const STACK: usize = 256 << 10;

/// What is known of an exec so far.
#[derive(Default)]
pub struct Seen {
    pub exited: Option<Exited>,
    /// Digest of all its output; set when following is over.
    pub digest: Option<LogDigest>,
    /// Why its output was not kept to the end.
    pub trouble: Option<String>,
}

impl Seen {
    pub fn note(&mut self, signal: StepSignal) {
        match signal {
            StepSignal::Started => {}
            StepSignal::Exited { exited, .. } => self.exited = Some(exited),
            StepSignal::Over { digest, end } => {
                self.digest = Some(digest);
                if let FollowEnd::Sink(error) = end {
                    self.trouble = Some(log_trouble(&error));
                }
            }
        }
    }

    pub fn is_over(&self) -> bool {
        self.digest.is_some()
    }
}

/// A started (or starting) exec.
pub struct Running {
    pub id: String,
    pub log: PathBuf,
    pub activity: Activity,
    pub signals: UnboundedReceiver<StepSignal>,
    abandon: Abandon,
    client: Client,
}

/// Where another process has stopped following an exec.
pub struct LeftOff {
    /// Bytes of its output that are put away.
    pub offset: u64,
    /// What the masks of its streams held, and how much of that belongs to a match that was written.
    pub held: Vec<(Stream, Vec<u8>, usize)>,
}

impl Running {
    /// Starts `exec` and a thread that puts its output away. Within a Tokio runtime only.
    pub fn start(client: &Client, exec: Exec, log: StepLog, watch: Watch) -> io::Result<Self> {
        Self::follow(client, exec, log, watch, None)
    }

    /// Goes on with an exec that another process has followed, or had not started yet. Within a Tokio runtime only.
    pub fn go_on(client: &Client, exec: Exec, from: LeftOff, log: StepLog, watch: Watch) -> io::Result<Self> {
        Self::follow(client, exec, log, watch, Some(from))
    }

    fn follow(client: &Client, exec: Exec, log: StepLog, watch: Watch, from: Option<LeftOff>) -> io::Result<Self> {
        let (sender, signals) = mpsc::unbounded_channel();
        let activity = Activity::after(from.as_ref().map_or(0, |from| from.offset));
        let abandon = Abandon::default();
        let running = Self {
            id: exec.id.clone(),
            log: log.path().to_owned(),
            activity: activity.clone(),
            signals,
            abandon: abandon.clone(),
            client: client.clone(),
        };
        let mut sink = StepSink::new(log, watch, activity, sender);
        let client = client.clone();
        let runtime = Handle::current();
        std::thread::Builder::new().name(format!("step {}", exec.id)).stack_size(STACK).spawn(move || {
            // Its clock is the one by which the task's limits are counted.
            let _clock = runtime.enter();
            let end = match from {
                None => follow(&client, exec, &mut sink, &abandon),
                Some(LeftOff { offset, held }) => {
                    sink.take_up(&held);
                    follow_on(&client, exec, offset, &mut sink, &abandon)
                }
            };
            sink.over(end);
        })?;
        Ok(running)
    }

    /// Ends it with everything it started. Does not block the caller's thread.
    pub fn stop(&self, grace: Duration) -> tokio::task::JoinHandle<Result<(), ClientError>> {
        let (client, id) = (self.client.clone(), self.id.clone());
        tokio::task::spawn_blocking(move || client.stop(&id, grace))
    }

    /// Whether its supervisor has more of it than came here: more output, or its end. A process that stood still has not heard yet what
    /// was said meanwhile. A supervisor that does not say has nothing more.
    pub async fn has_more(&self) -> bool {
        let (client, came) = (self.client.clone(), self.activity.bytes());
        // Its own limits end it: one of ours would be over at once where this process stood still.
        match tokio::task::spawn_blocking(move || client.list()).await {
            Ok(Ok(execs)) => {
                let its = execs.iter().find(|exec| exec.id == self.id);
                its.is_some_and(|exec| exec.exited.is_some() || exec.output > came)
            }
            _ => false,
        }
    }

    /// Gives it up: its thread ends with the next word from the supervisor, or without any.
    pub fn abandon(&self) {
        self.abandon.set();
    }

    /// Waits until everything it left running has ended and all output came, noting what is reported meanwhile.
    pub async fn over(&mut self, seen: &mut Seen) {
        while !seen.is_over() {
            let Some(signal) = self.signals.recv().await else { return };
            seen.note(signal);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.abandon.set();
    }
}
