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
//! A list that cannot be made is not an empty one: what is to end goes on ending, and is listed again.
//!
//! What is stopped cannot fork, and its place below a pids limit stays taken, so that even a fork bomb runs dry.
//! Keepers block every catchable signal and end by themselves; all they are sent is CONT, since uid 0 in a job can stop
//! them.

use std::collections::{BTreeSet, HashSet};
use std::io;
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
/// Without descriptors for so long nobody can be found any more; whoever waits for the end is not kept for ever.
const UNLISTED: Duration = Duration::from_secs(10);

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

    /// Its running ones now. An error: nobody knows.
    fn list(&self) -> io::Result<Vec<Pid>> {
        Ok(self.among(&proc::all()?))
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
        self.list().is_ok_and(|pids| pids.is_empty())
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
///
/// # Errors
/// They cannot be listed, or the kernel refuses.
pub fn signal(record: &Arc<Record>, signal: i32) -> io::Result<()> {
    let mut result = Ok(());
    for pid in Below(record).list()? {
        match sys::kill(pid, signal) {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => result = Err(error),
            _ => {}
        }
    }
    result
}

fn end(herd: &impl Herd, grace: Duration) {
    if !ask(herd, grace) {
        force(herd, UNLISTED);
    }
}

/// TERM, then waits until grace is over. True when all are gone.
fn ask(herd: &impl Herd, grace: Duration) -> bool {
    let deadline = Instant::now().checked_add(grace);
    let mut is_asked = false;
    loop {
        herd.wake();
        is_asked = is_asked || send_term(herd);
        if none_left(herd) {
            return true;
        }
        let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return false;
        }
        herd.wait(left.min(TERM_PAUSE));
    }
}

/// False: nobody knows whom to ask.
fn send_term(herd: &impl Herd) -> bool {
    let Ok(entries) = proc::all() else { return false };
    let targets = Targets::of(&entries, &herd.to_ask(&entries));
    // A stopped one would never see the first without the second.
    for signal in [libc::SIGTERM, libc::SIGCONT] {
        targets.send(signal);
    }
    true
}

/// Where there is no list, keepers may still have told their end.
fn none_left(herd: &impl Herd) -> bool {
    match herd.list() {
        Ok(pids) if !pids.is_empty() => false,
        _ => herd.is_over(),
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

/// KILL until none is left. `patience`: for how long in a row no list may be had.
fn force(herd: &impl Herd, patience: Duration) {
    let mut unlisted_since = None;
    for pass in 0.. {
        herd.wake();
        // Most herds are gone with the first pass; stopping each one first would only make it run once more.
        let pids: Option<HashSet<Pid>> = match pass < UNFROZEN_PASSES {
            true => herd.list().ok().map(|pids| pids.into_iter().collect()),
            false => freeze(herd),
        };
        if pids.as_ref().is_none_or(HashSet::is_empty) && herd.is_over() {
            return;
        }
        match pids {
            Some(pids) => {
                unlisted_since = None;
                pids.into_iter().for_each(|pid| send(pid, libc::SIGKILL));
                herd.wait(KILL_PAUSE);
            }
            None if unlisted_since.get_or_insert_with(Instant::now).elapsed() >= patience => return,
            None => herd.wait(TERM_PAUSE),
        }
    }
}

/// Stops all until no new one appears. `None`: not even the first list could be made.
fn freeze(herd: &impl Herd) -> Option<HashSet<Pid>> {
    let mut frozen: HashSet<Pid> = herd.list().ok()?.into_iter().collect();
    frozen.iter().for_each(|pid| send(*pid, libc::SIGSTOP));
    for _ in 1..FREEZE_PASSES {
        let before = frozen.len();
        // What is frozen by now is killed, also where no further list can be made.
        for pid in herd.list().unwrap_or_default() {
            if frozen.insert(pid) {
                send(pid, libc::SIGSTOP);
            }
        }
        if frozen.len() == before {
            break;
        }
    }
    Some(frozen)
}

fn send(pid: Pid, signal: i32) {
    // It may have ended since the list was made.
    let _ = sys::kill(pid, signal);
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Nobody runs there, and nobody knows before so many looks.
    struct Hidden {
        looks: Cell<u32>,
        until: u32,
    }

    impl Herd for Hidden {
        fn among(&self, _: &[Entry]) -> Vec<Pid> {
            Vec::new()
        }

        fn to_ask(&self, _: &[Entry]) -> Vec<Pid> {
            Vec::new()
        }

        fn is_over(&self) -> bool {
            self.list().is_ok_and(|pids| pids.is_empty())
        }

        fn wake(&self) {}

        fn wait(&self, _: Duration) {}

        fn list(&self) -> io::Result<Vec<Pid>> {
            self.looks.set(self.looks.get() + 1);
            match self.looks.get() < self.until {
                true => Err(io::Error::from_raw_os_error(libc::EMFILE)),
                false => Ok(Vec::new()),
            }
        }
    }

    #[test]
    fn what_cannot_be_listed_has_not_ended_and_nobody_is_kept_for_ever() {
        let hidden = |until| Hidden { looks: Cell::new(0), until };
        for grace in [Duration::ZERO, Duration::from_secs(60)] {
            let seen_at_last = hidden(20);
            end(&seen_at_last, grace);
            assert!(seen_at_last.looks.get() >= 20, "{grace:?}");
        }
        let never = hidden(u32::MAX);
        assert!(!ask(&never, Duration::ZERO));
        force(&never, Duration::ZERO);
    }

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
