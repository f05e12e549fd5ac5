//! A fake's files: those of a directory of this machine, in archives of the real kind.

use std::collections::HashSet;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use navvy_archive::beneath::Root;
use navvy_archive::pack::{self, Source};
use navvy_archive::unpack::{self, Placement};
use navvy_protocol::supervisor::{ArchiveLimits, Extracted, Failure, FailureKind, Packed, Reply, Request, Trees};
use sha2::{Digest as _, Sha256};

use super::World;
use super::supervisor::Serving;

impl Serving {
    /// What the job's side of it is sent is taken whole before anything is answered.
    pub fn file_request(&mut self, request: Request) -> io::Result<Result<Reply, Failure>> {
        let world = self.world.clone();
        let place = |path: &str| world.place(path);
        Ok(match request {
            Request::MakeDirectory { path, .. } => done(std::fs::create_dir_all(place(&path)), &path),
            Request::Write { path, .. } => {
                let at = place(&path);
                let bytes = self.receive_stream()?;
                let written =
                    at.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(&at, bytes));
                done(written, &path)
            }
            Request::Read { path, .. } => match std::fs::read(place(&path)) {
                Ok(bytes) => self.send_stream(&bytes).map(|()| Ok(Reply::Done))?,
                Err(error) => Err(explain(&error, &path)),
            },
            Request::Checksum { paths, .. } => {
                let sums = paths.iter().map(|path| checksum(&place(path)).map_err(|error| explain(&error, path)));
                sums.collect::<Result<_, _>>().map(|sha256| Reply::Checksums { sha256 })
            }
            Request::Glob { root, patterns, .. } => match glob(&place(&root), &patterns) {
                Ok(paths) => {
                    self.send_stream(&paths)?;
                    Ok(Reply::Found { unread: Vec::new(), more_unread: 0 })
                }
                Err(error) => Err(explain(&error, &root)),
            },
            Request::Unpack { root, .. } => {
                let (at, tar) = (place(&root), self.receive_stream()?);
                let entries = tar::Archive::new(&tar[..]).entries()?.count() as u64;
                let bytes = tar.len() as u64;
                let unpacked = tar::Archive::new(&tar[..]).unpack(at).map(|()| Reply::Unpacked { entries, bytes });
                unpacked.map_err(|error| explain(&error, &root))
            }
            Request::Pack { trees, .. } => match pack(&world, &trees) {
                Ok((archive, packed)) => {
                    self.send_stream(&archive)?;
                    Ok(Reply::Packed(packed))
                }
                Err(failure) => Err(failure),
            },
            Request::Extract { trees, limits, passed_over, .. } => {
                let bytes = self.receive_stream()?;
                let passed_over = usize::try_from(passed_over).map_err(io::Error::other)?;
                extract(&world, &trees, limits, bytes.split_at(passed_over))
            }
            other => Err(Failure::new(FailureKind::Invalid, format!("the fake does not know {other:?}"))),
        })
    }
}

fn done(done: io::Result<()>, path: &str) -> Result<Reply, Failure> {
    done.map(|()| Reply::Done).map_err(|error| explain(&error, path))
}

fn explain(error: &io::Error, path: &str) -> Failure {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => FailureKind::NoSuchFile,
        io::ErrorKind::PermissionDenied => FailureKind::NotPermitted,
        _ => FailureKind::Other,
    };
    Failure::new(kind, format!("{path}: {error}"))
}

fn checksum(path: &Path) -> io::Result<String> {
    Ok(Sha256::digest(std::fs::read(path)?).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Of the patterns that the agent asks for: everything in a directory, or XML files anywhere below it.
fn glob(root: &Path, patterns: &[String]) -> io::Result<Vec<u8>> {
    let everything = patterns == ["*", ".*"];
    let mut found = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            if everything || path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("xml")) {
                found.push(path);
            } else if path.is_dir() {
                directories.push(path);
            }
        }
    }
    found.sort();
    let names = found.iter().filter_map(|path| path.strip_prefix(root).ok());
    Ok(names.flat_map(|name| [name.as_os_str().as_bytes(), b"\0"].concat()).collect())
}

/// Patterns are names: none of them is looked for.
fn pack(world: &World, trees: &Trees) -> Result<(Vec<u8>, Packed), Failure> {
    let (root, names) = match trees {
        Trees::Places { paths } => {
            (world.place("/"), paths.iter().map(|path| path.trim_matches('/').to_owned()).collect())
        }
        Trees::Below { root, patterns } => {
            let place = world.place(root);
            std::fs::read_dir(&place).map_err(|error| explain(&error, root))?;
            (place, patterns.clone())
        }
    };
    let is_there = |name: &String| root.join(name).symlink_metadata().is_ok();
    let missing = (0..).zip(&names).filter(|(_, name)| !is_there(name)).map(|(nth, _)| nth).collect();
    let sources: Vec<Source> = names.iter().filter(|name| is_there(name)).map(|name| source(&root, name)).collect();
    let packed = Packed { missing, ..Packed::default() };
    if sources.is_empty() {
        return Ok((Vec::new(), packed));
    }
    let mut archive = Vec::new();
    let summary = pack::pack(&sources, &pack::Options::new(1), &mut archive, &mut |_| {});
    let pack::Summary { entries, files, bytes, .. } =
        summary.map_err(|error| Failure::new(FailureKind::Other, error.to_string()))?;
    let packed = Packed { entries, files, bytes, archive: archive.len() as u64, ..packed };
    Ok((archive, packed))
}

fn source(root: &Path, name: &str) -> Source {
    Source::beneath(root, name.trim_end_matches('/'))
}

fn extract(
    world: &World,
    trees: &Trees,
    limits: ArchiveLimits,
    (passed_over, archive): (&[u8], &[u8]),
) -> Result<Reply, Failure> {
    let (root, names) = match trees {
        Trees::Places { paths } => ("/", paths.iter().map(|path| path.trim_matches('/').to_owned()).collect()),
        Trees::Below { root, .. } => (root.as_str(), Vec::new()),
    };
    let at = world.place(root);
    let opened = std::fs::create_dir_all(&at).and_then(|()| Root::open(&at)).map_err(|error| explain(&error, root))?;
    let passed_over: HashSet<&[u8]> = passed_over.split(|byte| *byte == 0).collect();
    let belongs = |path: &[u8]| names.is_empty() || names.iter().any(|name: &String| path.starts_with(name.as_bytes()));
    let mut placement = |path: &[u8]| {
        let wanted = !passed_over.contains(path) && belongs(path);
        wanted.then(|| Placement { root: 0, path: path.to_vec() })
    };
    let limits = unpack::Limits { bytes: limits.bytes, entries: limits.entries };
    let unpacked = unpack::unpack(archive, &[opened], &unpack::Options { threads: 1, limits }, &mut placement);
    match unpacked {
        Ok(unpack::Unpacked { entries, bytes, skipped, attributes_lost }) => {
            Ok(Reply::Extracted(Extracted { entries: entries - skipped, bytes, skipped, attributes_lost }))
        }
        Err(error) => Err(Failure::new(FailureKind::Damaged, error.to_string())),
    }
}
