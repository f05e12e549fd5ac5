//! Ending processes: TERM once, grace, then KILL, again and again until nothing new appears.
//!
//! ```text
//! list below the keeper ─▶ TERM, once ─▶ wait (gone? done) ─▶ … grace is over
//!      ─▶ (later passes: STOP until a list has no new process) ─▶ KILL all ─▶ wait (gone? done) ─▶ list …
//! ```
//!
//! TERM goes to those that are there when they are first asked. What they start afterwards is their own clean-up, which
//! has the whole grace; so it is never sent a second time, however often they are asked to end. A process group is
//! signalled in one act, so that processes that its members are starting at that moment get it, too.
//!
//! What is stopped cannot fork, and its place below a pids limit stays taken, so that even a fork bomb runs dry.
//! Keepers block every catchable signal and end by themselves; all they are sent is CONT, since uid 0 in a job can stop
//! them.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Record;
use crate::init::Init;
use crate::proc::{self, Entry};
use crate::sys::{self, Pid};

/// Time between two looks while processes may still end by themselves.
const TERM_PAUSE: Duration = Duration::from_millis(20);
/// Between two lists while the kernel takes killed ones away.
const KILL_PAUSE: Duration = Duration::from_millis(2);
/// Passes that kill at once, before those that freeze first.
const UNFROZEN_PASSES: u32 = 3;
/// Lists in which a frozen herd may still grow before killing starts all the same.
const FREEZE_PASSES: usize = 50;

/// A set of processes that shall end.
trait Herd {
    /// Its running ones among these.
    fn among(&self, entries: &[Entry]) -> Vec<Pid>;
    /// Those among these that have not been asked to end yet. From now on they have been.
    fn to_ask(&self, entries: &[Entry]) -> Vec<Pid>;
    /// After an empty list: can none be left? A list is not a snapshot; a quick chain of forks may slip through one.
    fn is_over(&self) -> bool;
    /// Lets its keepers continue, if a process of the job has stopped them.
    fn wake(&self);
    /// Waits a little, less if all are gone.
    fn wait(&self, limit: Duration);

    fn list(&self) -> Vec<Pid> {
        self.among(&proc::all())
    }
}

/// What one exec has started.
struct Below<'a>(&'a Record);

impl Herd for Below<'_> {
    fn among(&self, entries: &[Entry]) -> Vec<Pid> {
        // Once all is gone the keeper's number may belong to another process.
        if self.is_over() { Vec::new() } else { proc::below(entries, self.0.keeper()) }
    }

    fn to_ask(&self, entries: &[Entry]) -> Vec<Pid> {
        if self.0.ask_to_end() { self.among(entries) } else { Vec::new() }
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
    fn among(&self, entries: &[Entry]) -> Vec<Pid> {
        let kept = self.0.execs.all();
        let keepers: HashSet<Pid> =
            kept.iter().filter(|record| !record.is_gone()).map(|record| record.keeper()).collect();
        let mut pids = proc::below(entries, sys::pid());
        pids.retain(|pid| !keepers.contains(pid));
        pids
    }

    fn to_ask(&self, entries: &[Entry]) -> Vec<Pid> {
        let records = self.0.execs.all();
        // Those that were asked before may be cleaning up.
        let asked = records.iter().filter(|record| !record.ask_to_end());
        let spared: HashSet<Pid> = asked.flat_map(|record| Below(record).among(entries)).collect();
        let mut pids = self.among(entries);
        pids.retain(|pid| !spared.contains(pid));
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

/// Ends everything that runs in this job.
pub fn stop_all(init: &Init, grace: Duration) {
    init.ending.store(true, Ordering::Release);
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

/// TERM, then waits until grace is over. True when all are gone.
fn ask(herd: &impl Herd, grace: Duration) -> bool {
    let deadline = Instant::now().checked_add(grace);
    herd.wake();
    let entries = proc::all();
    let targets = Targets::of(&entries, &herd.to_ask(&entries));
    // A stopped one would never see the first without the second.
    for signal in [libc::SIGTERM, libc::SIGCONT] {
        targets.send(signal);
    }
    loop {
        herd.wake();
        if herd.list().is_empty() && herd.is_over() {
            return true;
        }
        let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return false;
        }
        herd.wait(left.min(TERM_PAUSE));
    }
}

/// Whom a signal goes to.
#[derive(Debug, PartialEq, Eq)]
struct Targets {
    /// Process groups that have no other members.
    groups: BTreeSet<Pid>,
    /// Members of other groups.
    alone: Vec<Pid>,
}

impl Targets {
    fn of(entries: &[Entry], pids: &[Pid]) -> Self {
        let pids: HashSet<Pid> = pids.iter().copied().collect();
        let strangers = entries.iter().filter(|entry| entry.runs() && !pids.contains(&entry.pid));
        // 0 is a group of a pid namespace above, and -1 would be everybody.
        let shared: HashSet<Pid> = strangers.map(|entry| entry.group).chain([0, 1]).collect();
        let mut targets = Self { groups: BTreeSet::new(), alone: Vec::new() };
        for entry in entries.iter().filter(|entry| pids.contains(&entry.pid)) {
            match shared.contains(&entry.group) {
                true => targets.alone.push(entry.pid),
                false => drop(targets.groups.insert(entry.group)),
            }
        }
        targets
    }

    fn send(&self, signal: i32) {
        for group in &self.groups {
            // It may have ended since the list was made.
            let _ = sys::kill_group(*group, signal);
        }
        self.alone.iter().for_each(|pid| send(*pid, signal));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(pid: Pid, group: Pid, state: u8) -> Entry {
        Entry { pid, parent: 1, group, session: 1, state, name: String::new(), rss: 0 }
    }

    #[test]
    fn only_groups_that_are_wholly_ours_are_signalled_as_such() {
        let entries = [
            entry(10, 10, b'S'),
            entry(11, 10, b'S'),
            // A member of another group, in which a stranger runs, too; a process that has ended is not one.
            entry(12, 5, b'S'),
            entry(5, 5, b'S'),
            entry(13, 13, b'T'),
            entry(14, 13, b'Z'),
            // Its group cannot be named, or would be everybody.
            entry(15, 0, b'S'),
            entry(16, 1, b'S'),
        ];
        let targets = Targets::of(&entries, &[10, 11, 12, 13, 15, 16]);
        assert_eq!(targets, Targets { groups: [10, 13].into(), alone: vec![12, 15, 16] });
        assert_eq!(Targets::of(&entries, &[]), Targets { groups: BTreeSet::new(), alone: vec![] });
    }
}
