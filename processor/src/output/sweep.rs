//! Removes objects that nobody needs: those that were put and never committed, and the logs of old tasks.
//!
//! ```text
//! logs of ended tasks, older than `keep` ─▶ object goes, then its row; last the log's
//! objects of a running task              ─▶ stay: its agent may still commit them
//!            of an ended task            ─▶ older than `orphans`, and not in the index: go (nothing is committed any more)
//!            of a task that is unknown   ─▶ older than `keep`: go (a backup of the index may come back and name them)
//! what has another path                  ─▶ stays: it is not ours
//! ```
//!
//! Times are the store's. A path says which task, log and offset its object is for, so a row is found by its key.

use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _};
use jiff::{SignedDuration, Timestamp};
use navvy_job::chain::chain;

use super::store::{Listed, within};
use super::{LogName, Output, OutputError, segment};
use crate::state::Segment;

/// Objects that are looked at together.
const TOGETHER: usize = 256;
/// Objects that are removed at one time.
const PARALLEL: usize = 8;
/// Failures that are kept in words.
const MOST_FAILURES: usize = 16;

/// What a sweep removed, and what it could not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Objects that no index named.
    pub orphans: u64,
    /// Segments of old logs.
    pub old: u64,
    /// Objects that could not be removed now.
    pub failed: u64,
    /// The first of those: path, and what the store says.
    pub failures: Vec<String>,
}

impl Swept {
    fn fail(&mut self, path: &str, error: &dyn std::error::Error) {
        self.failed += 1;
        if self.failures.len() < MOST_FAILURES {
            self.failures.push(format!("{path}: {}", chain(error)));
        }
    }
}

/// Before these times, objects are orphans or too old.
struct Bounds {
    orphans: Timestamp,
    keep: Timestamp,
}

impl Output {
    /// Removes what was put more than `orphans` ago and never committed, and logs that are older than `keep`. URLs that were
    /// granted must be dead by then: less than an hour is too little.
    ///
    /// # Errors
    /// The database does not answer, or the store does not list its objects or say its time. What could not be removed is
    /// part of [`Swept`].
    pub async fn sweep(&self, orphans: Duration, keep: Duration) -> Result<Swept, OutputError> {
        let now = within("say its time", self.store.now()).await?;
        let before = |age: Duration| {
            let age = SignedDuration::try_from(age).unwrap_or(SignedDuration::MAX);
            now.checked_sub(age).unwrap_or(Timestamp::MIN)
        };
        let bounds = Bounds { orphans: before(orphans), keep: before(keep) };
        let mut swept = Swept::default();
        self.sweep_old(bounds.keep, &mut swept).await?;
        self.sweep_orphans(&bounds, &mut swept).await?;
        Ok(swept)
    }

    async fn sweep_old(&self, bound: Timestamp, swept: &mut Swept) -> Result<(), OutputError> {
        // What failed stays for a later sweep.
        while swept.failed == 0 {
            let tasks = self.state.old_tasks_with_logs(bound.as_millisecond(), 64).await?;
            if tasks.is_empty() {
                break;
            }
            for task in tasks {
                self.sweep_task(&task, swept).await?;
            }
        }
        Ok(())
    }

    async fn sweep_task(&self, task: &str, swept: &mut Swept) -> Result<(), OutputError> {
        loop {
            let segments = self.state.some_segments(task).await?;
            if segments.is_empty() {
                break;
            }
            let paths = segments.iter().map(|segment| &*segment.object).collect();
            let removed = self.remove_each(paths, swept).await;
            let gone: Vec<&Segment> =
                segments.iter().zip(removed).filter_map(|(segment, removed)| removed.then_some(segment)).collect();
            swept.old += gone.len() as u64;
            for segment in &gone {
                self.state.forget_segment(task, segment).await?;
            }
            if gone.len() < segments.len() {
                return Ok(());
            }
        }
        self.state.forget_logs(task).await?;
        self.hub.index_changed(task);
        Ok(())
    }

    async fn sweep_orphans(&self, bounds: &Bounds, swept: &mut Swept) -> Result<(), OutputError> {
        let youngest = bounds.orphans.max(bounds.keep);
        let mut listed = self.store.list(segment::ROOT);
        let mut together: Vec<Listed> = Vec::new();
        let place = |path: &str| segment::parse_path(path).map(|(task, log, _)| (task.to_owned(), log));
        while let Some(object) = within("list its objects", listed.try_next()).await? {
            if object.modified > youngest {
                continue;
            }
            let Some(of) = place(&object.path) else { continue };
            let other = together.first().is_some_and(|first| place(&first.path).as_ref() != Some(&of));
            if other || together.len() >= TOGETHER {
                self.sweep_some(&std::mem::take(&mut together), bounds, swept).await?;
            }
            together.push(object);
        }
        self.sweep_some(&together, bounds, swept).await
    }

    /// Objects of one log.
    async fn sweep_some(&self, objects: &[Listed], bounds: &Bounds, swept: &mut Swept) -> Result<(), OutputError> {
        let places = objects.iter().filter_map(|object| segment::parse_path(&object.path));
        let starts: Vec<u64> = places.map(|(_, _, start)| start).collect();
        let first = objects.first().and_then(|object| segment::parse_path(&object.path));
        let (Some((task, log, _)), Some(from), Some(to)) = (first, starts.iter().min(), starts.iter().max()) else {
            return Ok(());
        };
        let log: LogName = log;
        let log = log.to_string();
        let orphans: Vec<&str> = match self.state.look_at_log(task, &log).await? {
            Some((false, _)) => return Ok(()),
            None => older(objects, bounds.keep).collect(),
            Some((true, _)) => {
                let named = self.state.objects(task, &log, *from..*to + 1).await?;
                older(objects, bounds.orphans).filter(|path| !named.contains(*path)).collect()
            }
        };
        let removed = self.remove_each(orphans, swept).await;
        swept.orphans += removed.iter().filter(|removed| **removed).count() as u64;
        Ok(())
    }

    /// Which of these objects are gone now.
    async fn remove_each(&self, paths: Vec<&str>, swept: &mut Swept) -> Vec<bool> {
        let removals: Vec<_> = paths.iter().map(|path| within("remove an object", self.store.remove(path))).collect();
        let removals: Vec<_> = futures_util::stream::iter(removals).buffered(PARALLEL).collect().await;
        let tell = |(path, removal): (&&str, Result<(), _>)| {
            let failed = removal.err();
            failed.iter().for_each(|error| swept.fail(path, error));
            failed.is_none()
        };
        paths.iter().zip(removals).map(tell).collect()
    }
}

fn older(objects: &[Listed], bound: Timestamp) -> impl Iterator<Item = &str> {
    objects.iter().filter(move |object| object.modified <= bound).map(|object| &*object.path)
}
