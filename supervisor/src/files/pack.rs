//! File trees to the agent, as one archive: walked, compressed and sent at once, without a file of its own.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use navvy_archive::error::PackError;
use navvy_archive::pack::{self, Options, Source, Trouble, Warning};
use navvy_protocol::supervisor::{Failure, FailureKind, Packed, Reply, Trees, WARNINGS_TOLD};

use super::data::Sender;
use super::go_glob;
use super::unread::{Unread, is_absence};
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
    let mut packed = Packed::default();
    let sources = sources(trees, user, &mut packed)?;
    if sources.is_empty() {
        return Ok(Reply::Packed(packed));
    }
    let mut warn = |warning: Warning| tell(&mut packed, &warning);
    let summary = pack::pack(&sources, &Options::new(threads()), &mut *sender, &mut warn).map_err(explain)?;
    let pack::Summary { entries, files, bytes, archive, .. } = summary;
    Ok(Reply::Packed(Packed { entries, files, bytes, archive, ..packed }))
}

fn tell(packed: &mut Packed, warning: &Warning) {
    let text: String = warning.to_string().chars().take(WARNING_CAP).collect();
    if matches!(warning.trouble, Trouble::Unreadable(_)) {
        packed.unreadable += 1;
        packed.first_unreadable.get_or_insert_with(|| text.clone());
    }
    if packed.warnings.len() < WARNINGS_TOLD {
        packed.warnings.push(text);
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

/// What is there. Which of the paths or patterns found nothing, and where it was not possible to look, is reported.
fn sources(trees: &Trees, user: &User, packed: &mut Packed) -> Result<Vec<Source>, Failure> {
    match trees {
        Trees::Places { paths } => Ok(places(paths, user, packed)),
        Trees::Below { root, patterns } => matching(&user.resolve(root), patterns, packed),
    }
}

fn places(paths: &[String], user: &User, packed: &mut Packed) -> Vec<Source> {
    let mut sources = Vec::new();
    for (nth, path) in (0..).zip(paths) {
        let path = user.resolve(path);
        let name = path.trim_matches('/');
        // If it exists and cannot be read, packing it reports that.
        match Path::new(&path).symlink_metadata() {
            Ok(_) => sources.push(Source::named(Path::new(&path), name)),
            Err(error) if is_absence(&error) => packed.missing.push(nth),
            Err(error) => {
                packed.blocked.push(nth);
                tell(packed, &unreadable(name.as_bytes(), error));
            }
        }
    }
    sources
}

fn matching(root: &str, patterns: &[String], packed: &mut Packed) -> Result<Vec<Source>, Failure> {
    std::fs::read_dir(root).map_err(|error| failure::of(&error, format_args!("open {root:?}")))?;
    let (mut found, mut unread) = (BTreeSet::new(), Unread::default());
    for (nth, pattern) in (0..).zip(patterns) {
        let paths = go_glob::find(Path::new(root), pattern.as_bytes(), &mut unread)
            .map_err(|why| failure::invalid(format!("cannot look for {pattern:?}: {why}")))?;
        if paths.is_empty() {
            packed.missing.push(nth);
        }
        found.extend(paths);
    }
    unread.into_all().for_each(|(path, error)| tell(packed, &unreadable(&path, error)));
    Ok(found.into_iter().map(|path| Source::beneath(root, path)).collect())
}

fn unreadable(path: &[u8], error: io::Error) -> Warning {
    Warning { path: path.to_vec(), trouble: Trouble::Unreadable(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_told_up_to_their_cap_and_counted_beyond() {
        let mut packed = Packed::default();
        for number in 0..WARNINGS_TOLD + 2 {
            let trouble =
                if number == 0 { Trouble::Missing } else { Trouble::Unreadable(io::ErrorKind::NotFound.into()) };
            tell(&mut packed, &Warning { path: format!("file-{number}").into_bytes(), trouble });
        }
        assert_eq!((packed.warnings.len(), packed.more_warnings), (WARNINGS_TOLD, 2));
        assert_eq!(packed.unreadable, WARNINGS_TOLD as u64 + 1);
        assert!(packed.first_unreadable.is_some_and(|text| text.contains("file-1")));
    }
}
