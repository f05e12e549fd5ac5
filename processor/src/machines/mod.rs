//! Machines that are ready before a job wants them: a pool of `navvy_vm`, as a service of the processor.
//!
//! ```text
//! settings, [machine_pool] ─▶ Machines::keep ─▶ Keeper on DATA/machine-pool; opened again some seconds after it has ended
//!                                 │                │
//! agent ── Take, GiveBack ──▶ service ──▶ Pool ────┤     by the task's own token, for itself alone, while its lease is good
//!            (gRPC)                                │
//! database ── leases ──▶ holders ── HolderGone ────┘     a machine whose task has ended, or has another agent now, goes
//! ```
//!
//! Whose a machine is stands in the pool's records, and whether that task still has its lease in the database: a processor that
//! starts again, after SIGKILL too, needs nothing else. The records are files of one machine, under a lock: the processor that has
//! them serves the pool, and every other one says that it has none.
//!
//! | module | what it holds |
//! |---|---|
//! | [`service`] | what agents ask |
//! | `takers` | how many machines a task has, waits for and has begun to ask for |
//! | `holders` | whose a machine is, and who has it no more |

#[cfg(test)]
mod attacks;
mod holders;
pub mod service;
mod takers;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use navvy_environment::HostPaths;
use navvy_job::chain::chain;
use navvy_vm::pool::figures::Report;
use navvy_vm::pool::keeper::{Keeper, Pool};
use navvy_vm::pool::maker::Maker;
use navvy_vm::pool::rules::Rules;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::state::State;
use takers::Takers;

/// A pool that lives says its figures within this.
const FIGURES: Duration = Duration::from_secs(2);
/// Machines that no record knows have to be older than this all the same, as the operator's `unknown-after` says.
const TIDY_EVERY: Duration = Duration::from_secs(15 * 60);
const TIDY_LIMIT: Duration = Duration::from_secs(120);

/// What a pool is made of.
pub struct Parts {
    /// Directory of its records.
    pub place: PathBuf,
    /// What it goes by.
    pub rules: Rules,
    /// Who makes its machines.
    pub maker: Arc<dyn Maker>,
    /// Who has a use for them.
    pub reach: Reach,
}

/// Which agents have a use for the machines of a pool.
pub enum Reach {
    /// Those of its own host.
    Host(Here),
    /// Those anywhere to which machines are lent: by these rows a config's name of an image is known.
    Lent(Box<navvy_vm::Machines>),
}

/// Ends machines of a cloud that were lent, or were to be, and that no record knows: of a processor that was killed before it heard of them.
/// As long as it is polled.
pub async fn tidy(machines: navvy_vm::Machines, host: HostPaths) {
    let mut due = tokio::time::interval(TIDY_EVERY);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        for left in machines.reap_unknown(&host, TIDY_LIMIT).await {
            tracing::warn!("The pool of machines could not be tidied: {left}.");
        }
    }
}

/// Where the machines of a pool are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Here {
    /// `MACHINE/BOOT`, by the ids that Linux gives both.
    pub host: String,
    /// The state directory of agents there.
    pub state: PathBuf,
}

/// The pool of this processor. Cheap to clone.
#[derive(Clone)]
pub struct Machines(Arc<Inner>);

struct Inner {
    parts: Parts,
    state: State,
    standing: watch::Sender<Standing>,
    takers: Mutex<Takers>,
    pace: Pace,
}

/// How often what is done.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Between two tries to open the pool.
    open_again: Duration,
    /// Between two looks at who has a lease.
    look: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { open_again: Duration::from_secs(5), look: Duration::from_secs(2) }
    }
}

/// How the pool stands.
#[derive(Clone)]
enum Standing {
    /// It serves.
    Open(Pool),
    /// It does not, and why.
    Away(String),
}

impl Machines {
    /// Touches nothing yet.
    pub fn new(parts: Parts, state: State) -> Self {
        Self::with_pace(Pace::default(), parts, state)
    }

    fn with_pace(pace: Pace, parts: Parts, state: State) -> Self {
        let standing = watch::Sender::new(Standing::Away("it is being opened".to_owned()));
        Self(Arc::new(Inner { parts, state, standing, takers: Mutex::default(), pace }))
    }

    /// Keeps the pool, as long as it is polled. Dropped, it leaves machines and records as they are: whoever comes next goes on
    /// with them. Whatever is wrong with it is told, and ends nothing else.
    pub async fn keep(self) {
        loop {
            let why = self.keep_once().await;
            tracing::error!("The pool of machines in {} is away: {why}.", self.0.parts.place.display());
            self.0.standing.send_replace(Standing::Away(why));
            tokio::time::sleep(self.0.pace.open_again).await;
        }
    }

    /// Until it has ended, and why.
    async fn keep_once(&self) -> String {
        let Parts { place, rules, maker, .. } = &self.0.parts;
        let (place, rules, maker) = (place.clone(), rules.clone(), Arc::clone(maker));
        let opened = tokio::task::spawn_blocking(move || Keeper::open(&place, rules, maker)).await;
        let (keeper, pool) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => return chain(&error),
            Err(error) => return chain(&error),
        };
        self.0.standing.send_replace(Standing::Open(pool.clone()));
        tracing::info!("The pool of machines in {} is served.", self.0.parts.place.display());
        // Beside this one: a bug in it ends the pool alone.
        let mut kept = JoinSet::new();
        kept.spawn(keeper.run());
        let ended = tokio::select! {
            ended = kept.join_next() => ended,
            () = holders::look(self, &pool) => kept.join_next().await,
        };
        match ended {
            Some(Ok(Err(error))) => chain(&error),
            Some(Err(error)) => chain(&error),
            Some(Ok(Ok(()))) | None => "nobody holds it any more".to_owned(),
        }
    }

    /// What serves now.
    ///
    /// # Errors
    /// Nothing does, and why.
    fn pool(&self) -> Result<Pool, String> {
        match &*self.0.standing.borrow() {
            Standing::Open(pool) => Ok(pool.clone()),
            Standing::Away(why) => Err(why.clone()),
        }
    }

    fn takers(&self) -> std::sync::MutexGuard<'_, Takers> {
        self.0.takers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its figures. `None`: it is away, or does not answer.
    pub async fn report(&self) -> Option<Report> {
        let pool = self.pool().ok()?;
        tokio::time::timeout(FIGURES, pool.report()).await.ok().flatten()
    }

    /// Its figures, in the words of Prometheus. A pool that does not answer has but the one that says so.
    pub async fn figures(&self) -> String {
        let report = self.report().await;
        let up = format!(
            "# HELP navvy_pool_up Whether the pool of machines answers.\n# TYPE navvy_pool_up gauge\nnavvy_pool_up {}\n",
            u8::from(report.is_some())
        );
        report.map_or(up.clone(), |report| up + &report.prometheus())
    }
}
