//! Ending processes: list, TERM, grace, then KILL, again and again until nothing new appears.
//!
//! ```text
//! list below the keeper ─▶ TERM each new one ─▶ wait (gone? done) ─▶ … grace is over
//!      ─▶ (later passes: STOP until a list brings nobody new) ─▶ KILL all ─▶ wait (gone? done) ─▶ list …
//! ```
//!
//! What is stopped cannot fork, and its place below a pids limit stays taken, so that even a fork bomb runs dry.
//! Keepers block every catchable signal and end by themselves; all they are sent is CONT, since uid 0 in a job can stop
//! them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Record;
use crate::init::Init;
use crate::proc;
use crate::sys::{self, Pid};

/// Between two lists while processes may still end by themselves.
const TERM_PAUSE: Duration = Duration::from_millis(20);
/// Between two lists while the kernel takes killed ones away.
const KILL_PAUSE: Duration = Duration::from_millis(2);
/// Passes that kill at once, before those that freeze first.
const UNFROZEN_PASSES: u32 = 3;
/// Lists in which a frozen herd may still grow before killing starts all the same.
const FREEZE_PASSES: usize = 50;

/// A set of processes that shall end.
trait Herd {
    fn list(&self) -> Vec<Pid>;
    /// After an empty list: can none be left? A list is no snapshot; a quick chain of forks may slip through one.
    fn is_over(&self) -> bool;
    /// Lets its keepers go on, whoever has stopped them.
    fn wake(&self);
    /// Waits a little, less if all are gone.
    fn wait(&self, limit: Duration);
}

/// What one exec has started.
struct Below<'a>(&'a Record);

impl Herd for Below<'_> {
    fn list(&self) -> Vec<Pid> {
        // Once all is gone the keeper's number may belong to somebody else.
        if self.is_over() { Vec::new() } else { proc::below(&proc::all(), self.0.keeper()) }
    }

    fn is_over(&self) -> bool {
        self.0.keeper() == 0 || self.0.is_gone()
    }

    fn wake(&self) {
        if !self.is_over() {
            send(self.0.keeper(), libc::SIGCONT);
        }
    }

    fn wait(&self, limit: Duration) {
        self.0.wait_gone(limit);
    }
}

/// Everything below the supervisor, but not the keepers.
struct Everything<'a>(&'a Init);

impl Herd for Everything<'_> {
    fn list(&self) -> Vec<Pid> {
        let kept = self.0.execs.all();
        let keepers: HashSet<Pid> =
            kept.iter().filter(|record| !record.is_gone()).map(|record| record.keeper()).collect();
        let mut pids = proc::below(&proc::all(), sys::pid());
        pids.retain(|pid| !keepers.contains(pid));
        pids
    }

    fn is_over(&self) -> bool {
        self.list().is_empty()
    }

    fn wake(&self) {
        self.0.execs.all().iter().for_each(|record| Below(record).wake());
    }

    fn wait(&self, limit: Duration) {
        // Ends of orphans are taken by the main thread; there is nothing finer to wait for.
        std::thread::sleep(limit);
    }
}

/// Ends an exec with everything that it started. Returns when nothing of it runs.
pub fn stop(record: &Arc<Record>, grace: Duration) {
    end(&Below(record), grace);
}

/// Ends whatever runs in this job.
pub fn stop_all(init: &Init, grace: Duration) {
    end(&Everything(init), grace);
}

/// Sends a signal to all processes of an exec.
pub fn signal(record: &Arc<Record>, signal: i32) -> std::io::Result<()> {
    let mut result = Ok(());
    for pid in Below(record).list() {
        match sys::kill(pid, signal) {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => result = Err(error),
            _ => {}
        }
    }
    result
}

fn end(herd: &impl Herd, grace: Duration) {
    if !ask(herd, grace) {
        force(herd);
    }
}

/// TERM, to each once, until grace is over. True when all are gone.
fn ask(herd: &impl Herd, grace: Duration) -> bool {
    let deadline = Instant::now().checked_add(grace);
    let mut asked = HashSet::new();
    loop {
        herd.wake();
        let pids = herd.list();
        if pids.is_empty() && herd.is_over() {
            return true;
        }
        for pid in pids.into_iter().filter(|pid| asked.insert(*pid)) {
            send(pid, libc::SIGTERM);
            // A stopped one would never see it.
            send(pid, libc::SIGCONT);
        }
        let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return false;
        }
        herd.wait(left.min(TERM_PAUSE));
    }
}

fn force(herd: &impl Herd) {
    for pass in 0.. {
        herd.wake();
        // Most herds are gone with the first pass; stopping each one first would only make it run once more.
        let pids = if pass < UNFROZEN_PASSES { herd.list().into_iter().collect() } else { freeze(herd) };
        if pids.is_empty() && herd.is_over() {
            return;
        }
        for pid in pids {
            send(pid, libc::SIGKILL);
        }
        herd.wait(KILL_PAUSE);
    }
}

/// Stops all until no new one appears.
fn freeze(herd: &impl Herd) -> HashSet<Pid> {
    let mut frozen = HashSet::new();
    for _ in 0..FREEZE_PASSES {
        let before = frozen.len();
        for pid in herd.list() {
            if frozen.insert(pid) {
                send(pid, libc::SIGSTOP);
            }
        }
        if frozen.len() == before {
            break;
        }
    }
    frozen
}

fn send(pid: Pid, signal: i32) {
    // It may have ended since the list was made.
    let _ = sys::kill(pid, signal);
}
