//! An archive from the agent, unpacked to where its trees are and nowhere else.
//!
//! The caller says which trees; the archive's own names say nothing of where they go. An entry that belongs to none of
//! them is passed over.

use std::collections::HashSet;
use std::io::{self, Read as _};
use std::path::Path;

use navvy_archive::beneath::Root;
use navvy_archive::error::ReadError;
use navvy_archive::unpack::{self, Limits, Options, Placement, Unpacked};
use navvy_protocol::supervisor::{ArchiveLimits, Extracted, Failure, FailureKind, Reply, Trees};

use super::data::Receiver;
use super::directory;
use super::pack::threads;
use crate::users::User;
use crate::{failure, sys};

/// Most bytes of paths that are passed over; an agent with more of them lets the later archive overwrite the earlier.
const PASSED_OVER_CAP: u64 = 64 << 20;

pub fn receive(
    trees: &Trees,
    user: &User,
    limits: ArchiveLimits,
    passed_over: u64,
    mut receiver: Receiver<'_>,
) -> Result<Reply, Failure> {
    // Modes are the archive's. Everything else that is made here has a mode of its own.
    sys::set_umask(0);
    let result = unpack(trees, user, limits, passed_over, &mut receiver);
    // So that the agent can finish writing and see our answer. If it went away, no answer is needed.
    let skipped = receiver.skip();
    let reply = result?;
    // An agent that went away before the end may have meant to say that the archive is incomplete.
    skipped.map_err(|error| failure::of(&error, "read the archive to its end"))?;
    Ok(reply)
}

fn unpack(
    trees: &Trees,
    user: &User,
    limits: ArchiveLimits,
    passed_over: u64,
    receiver: &mut Receiver<'_>,
) -> Result<Reply, Failure> {
    let targets = targets(trees, user)?;
    let passed_over = paths(receiver, passed_over)?;
    let roots: Vec<Root> = targets.iter().map(Target::open).collect::<Result<_, _>>()?;
    let mut place = |path: &[u8]| if passed_over.contains(path) { None } else { placement(&targets, path) };
    let limits = Limits { bytes: limits.bytes, entries: limits.entries };
    let options = Options { threads: threads(), limits };
    let unpacked = unpack::unpack(&mut *receiver, &roots, &options, &mut place).map_err(|error| explain(&error))?;
    let Unpacked { entries, bytes, skipped, attributes_lost } = unpacked;
    Ok(Reply::Extracted(Extracted { entries: entries - skipped, bytes, skipped, attributes_lost }))
}

/// One tree: what has this name in the archive, or lies below it, goes below that directory.
struct Target {
    /// Empty: everything.
    name: Vec<u8>,
    directory: String,
    /// What of an entry's path the directory has already.
    cut: usize,
    is_made: bool,
}

impl Target {
    fn open(&self) -> Result<Root, Failure> {
        let explain = |error: io::Error| failure::of(&error, format_args!("open {:?}", self.directory));
        if self.is_made {
            directory::builder().create(&self.directory).map_err(explain)?;
        }
        Root::open(Path::new(&self.directory)).map_err(explain)
    }
}

fn targets(trees: &Trees, user: &User) -> Result<Vec<Target>, Failure> {
    match trees {
        Trees::Below { root, .. } => {
            Ok(vec![Target { name: Vec::new(), directory: user.resolve(root), cut: 0, is_made: false }])
        }
        Trees::Places { paths } => paths.iter().map(|path| target(&user.resolve(path))).collect(),
    }
}

/// A tree's own place may be a file's or link's, so the directory that holds it is the one that is opened.
fn target(path: &str) -> Result<Target, Failure> {
    let name = path.trim_matches('/').as_bytes().to_vec();
    if let Some(fault) = navvy_archive::entry::fault_of_path(&name) {
        return Err(failure::invalid(format!("cannot unpack to {path:?}: {fault}")));
    }
    let cut = name.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let directory = format!("/{}", String::from_utf8_lossy(&name[..cut]));
    Ok(Target { name, directory, cut, is_made: true })
}

fn placement(targets: &[Target], path: &[u8]) -> Option<Placement> {
    let is_below =
        |name: &[u8]| path.strip_prefix(name).is_some_and(|rest| name.is_empty() || rest.is_empty() || rest[0] == b'/');
    // Of two trees, one in the other, the outer one has it all.
    let fitting = targets.iter().enumerate().filter(|(_, target)| is_below(&target.name));
    let (root, target) = fitting.min_by_key(|(_, target)| target.name.len())?;
    Some(Placement { root, path: path[target.cut..].to_vec() })
}

/// The paths that come before the archive.
fn paths(receiver: &mut Receiver<'_>, length: u64) -> Result<HashSet<Vec<u8>>, Failure> {
    if length > PASSED_OVER_CAP {
        return Err(failure::invalid(format!("cannot pass over {length} bytes of paths: at most {PASSED_OVER_CAP}")));
    }
    let mut bytes = Vec::new();
    receiver
        .take(length)
        .read_to_end(&mut bytes)
        .map_err(|error| failure::of(&error, "read which paths to pass over"))?;
    Ok(bytes.split(|byte| *byte == 0).filter(|path| !path.is_empty()).map(<[u8]>::to_vec).collect())
}

fn explain(error: &ReadError) -> Failure {
    match error {
        ReadError::Place { source, .. } => {
            Failure { message: format!("{error}: {}", failure::text(source)), ..failure::of(source, "") }
        }
        ReadError::Source(source) => failure::of(source, "read the archive"),
        ReadError::Thread(source) => failure::no_process(source),
        ReadError::Broken { .. } | ReadError::Entry { .. } | ReadError::Damaged { .. } => {
            Failure::new(FailureKind::Damaged, error.to_string())
        }
        ReadError::Quota { .. } => Failure::new(FailureKind::Quota, error.to_string()),
        ReadError::Bug => Failure::new(FailureKind::Other, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(paths: &[&str], name: &str) -> Option<(String, String)> {
        let targets: Vec<Target> = paths.iter().map(|path| target(path).unwrap()).collect();
        let Placement { root, path } = placement(&targets, name.as_bytes())?;
        Some((targets[root].directory.clone(), String::from_utf8(path).unwrap()))
    }

    #[test]
    fn an_entry_goes_below_its_own_tree_or_nowhere() {
        let there = |directory: &str, path: &str| Some((directory.to_owned(), path.to_owned()));
        assert_eq!(place(&["/home/u/.m2"], "home/u/.m2"), there("/home/u/", ".m2"));
        assert_eq!(place(&["/home/u/.m2"], "home/u/.m2/a/b"), there("/home/u/", ".m2/a/b"));
        for other in ["home/u/.m2x", "home/u", "home/u/.ssh/id", "etc/passwd", ""] {
            assert_eq!(place(&["/home/u/.m2"], other), None, "{other}");
        }
        assert_eq!(place(&["/a/b/c", "/a"], "a/b/c/d"), there("/", "a/b/c/d"), "the outer one");
        assert_eq!(place(&["/"], "etc/passwd"), there("/", "etc/passwd"));
        assert!(target("/a/../b").is_err() && target("/a/./b").is_err());
    }
}
