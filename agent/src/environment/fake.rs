//! An environment that is not there, for tests of what drives one.
//!
//! ```text
//! Provider::Fake ─▶ World ◀─ what the test says: scripts of commands, what fails, the way breaks, the environment dies
//!                     │ └──▶ what was asked, one line each: `prepare`, `exec 1-1`, `stop 1-1 within 10s`, `destroy`
//!                     └─ Link ─▶ a socket pair and a thread for each connection: the supervisor's real protocol
//! ```
//!
//! Steps run nothing: each command has scripts, one for each time that it is started. Files lie in a directory of this machine.

mod execs;
mod files;
mod script;
mod supervisor;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::Future;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use navvy_environment::request::{Died, OnEvent, Prepare, PrepareEvent, ServiceOutput};
use navvy_environment::supervisor::Connect;
use navvy_job::chain::chain;
use navvy_job::outcome::Blame;
use navvy_journal::owner::Owner;
use navvy_journal::{Entry, HeldStep, Journal, JournalError, Standing};
use navvy_protocol::supervisor::{Continuation, Failure};
use tokio::sync::watch;

use super::{HoldError, PrepareError};
use execs::FakeExec;
pub use script::{Act, exits, exits_by, says};
use supervisor::Link;

/// The home of the environment's only user.
pub const HOME: &str = "/home/fake";

/// Longer than any test lets pass.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// What a test says of an environment, and what became of it. Cheap to clone; clones share it.
#[derive(Clone)]
pub struct World(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    /// For threads: the state has changed.
    changed: Condvar,
    /// For tasks: the same.
    news: watch::Sender<u64>,
    died: watch::Sender<Option<Died>>,
    root: tempfile::TempDir,
}

/// How a supervisor is found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Way {
    #[default]
    Open,
    /// Nobody is reached.
    Broken,
    /// Whoever answers is not the supervisor.
    Babbles,
}

/// What becomes of [`World::prepare`].
#[derive(Default)]
enum Making {
    #[default]
    Succeeds,
    Fails(Blame, String),
    /// It is never ready.
    Hangs,
}

#[derive(Default)]
struct State {
    asked: Vec<String>,
    scripts: HashMap<String, VecDeque<Vec<Act>>>,
    execs: BTreeMap<String, FakeExec>,
    /// Words for which [`Act::Waits`] waits.
    said: Vec<&'static str>,
    making: Making,
    services: Vec<ServiceOutput>,
    /// What the supervisor answers in place of carrying it out, by the request's first word.
    refused: HashMap<&'static str, Failure>,
    breaks_at: Option<(&'static str, Option<Died>)>,
    hold_fails: Option<String>,
    ended_with_host: Option<Died>,
    leftovers: Vec<String>,
    way: Way,
    patience: Duration,
    connections: Vec<UnixStream>,
    note: Option<Vec<u8>>,
    remembered: Option<Vec<u8>>,
    continuation: Option<Continuation>,
    /// Nothing runs any more, and nobody waits.
    over: bool,
}

/// A fake that was made.
pub struct FakeEnvironment(World);

impl Default for World {
    fn default() -> Self {
        let inner = Inner {
            state: Mutex::new(State { patience: Duration::from_secs(20), ..State::default() }),
            changed: Condvar::new(),
            news: watch::Sender::new(0),
            died: watch::Sender::new(None),
            root: tempfile::tempdir().unwrap(),
        };
        Self(Arc::new(inner))
    }
}

impl World {
    // ---- what a test says ----

    /// What `command` does the next time that it is started and has no other script. The last one stays.
    pub fn script(&self, command: &str, acts: impl Into<Vec<Act>>) {
        self.change(|state| state.scripts.entry(command.to_owned()).or_default().push_back(acts.into()));
    }

    /// Lets scripts that wait for this word go on.
    pub fn say(&self, word: &'static str) {
        self.change(|state| state.said.push(word));
    }

    pub fn fail_to_prepare(&self, blame: Blame, message: &str) {
        self.change(|state| state.making = Making::Fails(blame, message.to_owned()));
    }

    pub fn never_be_ready(&self) {
        self.change(|state| state.making = Making::Hangs);
    }

    pub fn with_service(&self, service: ServiceOutput) {
        self.change(|state| state.services.push(service));
    }

    /// `request`: as it is told by [`Self::asked`], the first word.
    pub fn refuse(&self, request: &'static str, failure: Failure) {
        self.change(|state| state.refused.insert(request, failure));
    }

    pub fn fail_to_hold(&self, message: &str) {
        self.change(|state| state.hold_fails = Some(message.to_owned()));
    }

    /// What carries the environment was away, and this is what it says when it is back.
    pub fn end_with_host(&self, died: Died) {
        self.change(|state| state.ended_with_host = Some(died));
    }

    pub fn leave(&self, leftovers: &[&str]) {
        self.change(|state| state.leftovers = leftovers.iter().map(|name| (*name).to_owned()).collect());
    }

    /// How long a way that broke is tried again.
    pub fn patience(&self, patience: Duration) {
        self.change(|state| state.patience = patience);
    }

    /// Every connection breaks, and the next ones hold.
    pub fn hang_up(&self) {
        self.change(State::cut);
    }

    /// In place of what an agent had left.
    pub fn remember(&self, note: &[u8]) {
        self.change(|state| state.remembered = Some(note.to_vec()));
    }

    /// What the supervisor was given to keep.
    pub fn kept_note(&self) -> Vec<u8> {
        self.lock().note.clone().unwrap_or_default()
    }

    pub fn continue_with(&self, continuation: Continuation) {
        self.change(|state| state.continuation = Some(continuation));
    }

    /// It ends by itself as soon as this is asked. `request`: as with [`Self::refuse`].
    pub fn die_at(&self, request: &'static str, died: Died) {
        self.change(|state| state.breaks_at = Some((request, Some(died))));
    }

    /// The way breaks as soon as this is asked.
    pub fn break_at(&self, request: &'static str) {
        self.change(|state| state.breaks_at = Some((request, None)));
    }

    /// Puts a file where the job finds it.
    pub fn write(&self, path: &str, text: &str) {
        let place = self.place(path);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(place, text).unwrap();
    }

    /// It ends by itself.
    pub fn die(&self, died: Died) {
        self.0.died.send_replace(Some(died));
        self.nothing_runs();
    }

    /// Where a path of the environment is on this machine.
    pub fn place(&self, path: &str) -> PathBuf {
        self.0.root.path().join(path.trim_start_matches('/'))
    }

    // ---- what became of it ----

    pub fn asked(&self) -> Vec<String> {
        self.lock().asked.clone()
    }

    /// Waits until this was asked.
    pub async fn until_asked(&self, line: &str) {
        self.until(|state| state.asked.iter().any(|asked| asked == line)).await;
    }

    /// Waits until an exec has written all of this.
    pub async fn until_written(&self, exec: &str, text: &str) {
        self.until(|state| state.execs.get(exec).is_some_and(|exec| exec.has_written(text.as_bytes()))).await;
    }

    async fn until(&self, is_so: impl Fn(&State) -> bool) {
        let mut news = self.0.news.subscribe();
        let so = async {
            while !is_so(&self.lock()) {
                news.changed().await.unwrap();
            }
        };
        let came = tokio::time::timeout(NEVER, so).await;
        assert!(came.is_ok(), "what was waited for never came; asked: {:#?}", self.asked());
    }

    /// How often a line of [`Self::asked`] begins like this.
    pub fn count(&self, beginning: &str) -> usize {
        self.lock().asked.iter().filter(|line| line.starts_with(beginning)).count()
    }

    // ---- what is asked of it ----

    pub(super) async fn prepare(&self, request: Prepare, events: OnEvent<'_>) -> Result<FakeEnvironment, PrepareError> {
        // Nothing is made before that is on disk.
        if let Some(journal) = &request.journal {
            let failed = |error: JournalError| PrepareError::Fake { blame: Blame::Infra, message: chain(&error) };
            journal.opened().await.map_err(failed)?;
        }
        self.note("prepare");
        let making = std::mem::take(&mut self.lock().making);
        match making {
            Making::Succeeds => {
                events(PrepareEvent::Report("made of nothing".to_owned()));
                Ok(FakeEnvironment(self.clone()))
            }
            Making::Fails(blame, message) => Err(PrepareError::Fake { blame, message }),
            Making::Hangs => std::future::pending().await,
        }
    }

    pub(super) fn adopt(&self) -> FakeEnvironment {
        self.note("adopt");
        FakeEnvironment(self.clone())
    }

    pub(super) async fn hold(&self, journal: &Journal, until: u64, step: Option<HeldStep>) -> Result<(), HoldError> {
        self.note("hold");
        if let Some(message) = self.lock().hold_fails.clone() {
            return Err(HoldError::Fake(message));
        }
        let held = journal.record(Entry::Standing(Standing::Kept { until, step })).await;
        held.map_err(|error| HoldError::Fake(chain(&error)))
    }

    pub(super) async fn take_over(&self, journal: &Journal, owner: &Owner) -> Result<Vec<String>, HoldError> {
        self.note("take over");
        let taken = journal.record(Entry::Owner { owner: owner.clone() }).await;
        taken.map_err(|error| HoldError::Fake(chain(&error)))?;
        Ok(Vec::new())
    }

    /// `how`: the word for it.
    pub(super) fn remove(&self, how: &str) -> Vec<String> {
        self.note(how);
        self.nothing_runs();
        self.lock().leftovers.clone()
    }

    /// The way to the supervisor, as another process finds it.
    pub fn link(&self) -> Arc<dyn Connect> {
        Arc::new(Link(self.clone()))
    }

    fn note(&self, line: &str) {
        self.change(|state| state.asked.push(line.to_owned()));
    }

    /// Whatever ran is gone, the supervisor with it.
    fn nothing_runs(&self) {
        self.change(|state| {
            state.over = true;
            state.cut();
            state.way = Way::Broken;
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.lock());
        self.0.changed.notify_all();
        self.0.news.send_modify(|count| *count += 1);
        changed
    }

    /// Waits on this thread until `look` finds something. `None`: nobody waits any more.
    fn wait_for<T>(&self, mut look: impl FnMut(&mut State) -> Option<T>) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some(found) = look(&mut state) {
                return Some(found);
            }
            if state.over {
                return None;
            }
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl State {
    /// Every open connection hangs up.
    fn cut(&mut self) {
        for connection in self.connections.drain(..) {
            // The caller may have gone.
            connection.shutdown(Shutdown::Both).ok();
        }
    }
}

impl FakeEnvironment {
    pub(super) fn link(&self) -> Arc<dyn Connect> {
        self.0.link()
    }

    pub(super) fn died(&self) -> impl Future<Output = Died> + Send + use<> {
        let mut died = self.0.0.died.subscribe();
        async move {
            match died.wait_for(Option::is_some).await.map(|died| died.clone()) {
                Ok(Some(died)) => died,
                _ => std::future::pending().await,
            }
        }
    }

    pub(super) fn ended_with_host(&self) -> Option<Died> {
        self.0.lock().ended_with_host.clone()
    }

    pub(super) fn take_services(&mut self) -> Vec<ServiceOutput> {
        std::mem::take(&mut self.0.lock().services)
    }

    pub(super) fn end(&self) {
        self.0.note("end");
        self.0.nothing_runs();
    }

    pub(super) fn destroy(self) -> Vec<String> {
        self.0.remove("destroy")
    }
}
