//! File trees to the agent, as one archive: walked, compressed and sent at once, without a file of its own.

use std::collections::BTreeSet;
use std::path::Path;

use navvy_archive::error::PackError;
use navvy_archive::pack::{self, Options, Source, Warning};
use navvy_protocol::supervisor::{Failure, FailureKind, Packed, Reply, Trees, WARNINGS_TOLD};

use super::data::Sender;
use super::go_glob;
use crate::failure;
use crate::users::User;

/// Each has a frame of 4 MiB in hand, plain and compressed; more would bring little beside one socket.
const THREADS_CAP: usize = 8;
/// A warning shows the beginning of a long name.
const WARNING_CAP: usize = 500;

/// As many as there are cores for this environment.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(THREADS_CAP)
}

/// Sends nothing at all if nothing of it is there.
pub fn send(trees: &Trees, user: &User, sender: &mut Sender<'_>) -> Result<Reply, Failure> {
    let (sources, missing) = sources(trees, user)?;
    let mut packed = Packed { missing, ..Packed::default() };
    if sources.is_empty() {
        return Ok(Reply::Packed(packed));
    }
    let mut warn = |warning: Warning| tell(&mut packed, &warning);
    let summary = pack::pack(&sources, &Options::new(threads()), &mut *sender, &mut warn).map_err(explain)?;
    let pack::Summary { entries, files, bytes, archive, .. } = summary;
    Ok(Reply::Packed(Packed { entries, files, bytes, archive, ..packed }))
}

fn tell(packed: &mut Packed, warning: &Warning) {
    if packed.warnings.len() < WARNINGS_TOLD {
        packed.warnings.push(warning.to_string().chars().take(WARNING_CAP).collect());
    } else {
        packed.more_warnings += 1;
    }
}

fn explain(error: PackError) -> Failure {
    match error {
        PackError::Sink(error) => failure::of(&error, "send the archive"),
        PackError::Thread(error) => failure::no_process(&error),
        PackError::TooLarge => Failure::new(FailureKind::Quota, format!("cannot pack: {error}")),
        PackError::Bug => Failure::new(FailureKind::Other, format!("cannot pack: {error}")),
    }
}

/// What is there, and which of the paths or patterns found nothing.
fn sources(trees: &Trees, user: &User) -> Result<(Vec<Source>, Vec<u32>), Failure> {
    match trees {
        Trees::Places { paths } => Ok(places(paths, user)),
        Trees::Below { root, patterns } => matching(&user.resolve(root), patterns),
    }
}

fn places(paths: &[String], user: &User) -> (Vec<Source>, Vec<u32>) {
    let (mut sources, mut missing) = (Vec::new(), Vec::new());
    for (nth, path) in (0..).zip(paths) {
        let path = user.resolve(path);
        // What is there and cannot be read is told by whoever reads it.
        match Path::new(&path).symlink_metadata() {
            Ok(_) => sources.push(Source::named(Path::new(&path), path.trim_matches('/'))),
            Err(_) => missing.push(nth),
        }
    }
    (sources, missing)
}

fn matching(root: &str, patterns: &[String]) -> Result<(Vec<Source>, Vec<u32>), Failure> {
    std::fs::read_dir(root).map_err(|error| failure::of(&error, format_args!("open {root:?}")))?;
    let (mut found, mut missing) = (BTreeSet::new(), Vec::new());
    for (nth, pattern) in (0..).zip(patterns) {
        let paths = go_glob::find(Path::new(root), pattern.as_bytes())
            .map_err(|why| failure::invalid(format!("cannot look for {pattern:?}: {why}")))?;
        if paths.is_empty() {
            missing.push(nth);
        }
        found.extend(paths);
    }
    Ok((found.into_iter().map(|path| Source::beneath(root, path)).collect(), missing))
}
