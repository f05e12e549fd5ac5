//! The supervisor's binary: found beside this program, refused unless it is static, and copied by its digest to where
//! containers can mount it. A copy is never changed, so an update disturbs no running job.

use std::fs::{self, File, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use navvy_journal::owner::Owner;
use navvy_protocol::place::CLI_NAMES;
use sha2::{Digest as _, Sha256};

/// The program's file name.
pub const NAME: &str = "navvy-supervisor";
/// Half a SHA-256: enough to tell builds apart, short enough for a path.
const DIGEST_LENGTH: usize = 16;
const ELF_INTERPRETER: u32 = 3;

/// Why no supervisor can be put into environments.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// It is not where it should be.
    #[error("no {NAME} beside this program ({path}): run scripts/build, which puts both into target/bin", path = path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// The file, or this process's own, could not be read.
    #[error("failed to read {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The file is no program of Linux.
    #[error("{path} is not a Linux program (not an ELF file)", path = path.display())]
    NotElf {
        /// The file.
        path: PathBuf,
    },
    /// The file needs a loader and a libc that images may lack.
    #[error(
        "{path} is dynamically linked and would not start in images without this machine's libc: build it with scripts/build",
        path = path.display()
    )]
    Dynamic {
        /// The file.
        path: PathBuf,
    },
    /// The copy that containers mount could not be made.
    #[error("failed to copy the supervisor to {path}", path = path.display())]
    Copy {
        /// The copy's directory.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
}

/// Where the supervisor is: as given, else beside the running program.
pub fn find(given: Option<&Path>) -> Result<PathBuf, SupervisorError> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => beside_this_program()?,
    };
    if path.is_file() { Ok(path) } else { Err(SupervisorError::Missing { path }) }
}

fn beside_this_program() -> Result<PathBuf, SupervisorError> {
    let own =
        std::env::current_exe().map_err(|source| SupervisorError::Read { path: "/proc/self/exe".into(), source })?;
    Ok(own.with_file_name(NAME))
}

/// The supervisor of all of a run's jobs: an upgrade in the midst of it gives none of them another version, which an older
/// agent may not understand.
#[derive(Debug, Default)]
pub struct Chosen(Mutex<Option<PathBuf>>);

impl Chosen {
    /// [`install`], the first time.
    pub fn directory(&self, given: Option<&Path>, state: &Path) -> Result<PathBuf, SupervisorError> {
        let mut chosen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*chosen {
            Some(directory) => Ok(directory.clone()),
            None => Ok(chosen.insert(install(given, state)?).clone()),
        }
    }
}

/// A copy of the supervisor with its other names, below `state`/bin. Costs a few `stat` calls once it is there.
pub fn install(given: Option<&Path>, state: &Path) -> Result<PathBuf, SupervisorError> {
    let source = find(given)?;
    let metadata = fs::metadata(&source).map_err(|e| SupervisorError::Read { path: source.clone(), source: e })?;
    let bin = state.join("bin");
    let index = bin.join(format!(
        "by-file-{:x}-{:x}-{:x}-{:x}",
        metadata.ino(),
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec()
    ));
    if let Some(directory) = indexed(&bin, &index) {
        return Ok(directory);
    }
    let bytes = read_static(&source)?;
    let digest: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).take(DIGEST_LENGTH / 2).collect();
    let directory = bin.join(&digest);
    let failed = |source| SupervisorError::Copy { path: directory.clone(), source };
    if !is_whole(&directory, bytes.len() as u64) {
        place(&bin, &directory, &bytes).map_err(failed)?;
    }
    remember(&index, &digest).map_err(failed)?;
    Ok(directory)
}

/// What an earlier run noted about this very file.
fn indexed(bin: &Path, index: &Path) -> Option<PathBuf> {
    let directory = bin.join(fs::read_link(index).ok()?);
    directory.join(NAME).is_file().then_some(directory)
}

fn remember(index: &Path, digest: &str) -> io::Result<()> {
    match symlink(digest, index) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && fs::read_link(index)? != Path::new(digest) => {
            fs::remove_file(index)?;
            symlink(digest, index)
        }
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}

fn is_whole(directory: &Path, length: u64) -> bool {
    let right_length = fs::metadata(directory.join(NAME)).is_ok_and(|metadata| metadata.len() == length);
    right_length && CLI_NAMES.iter().all(|name| directory.join(name).symlink_metadata().is_ok())
}

/// Made beside its place and renamed into it: a reader sees nothing or the whole.
fn place(bin: &Path, directory: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(bin)?;
    let prefix = Owner::this_process()?.unfinished("");
    let scratch = tempfile::Builder::new().prefix(&prefix).tempdir_in(bin)?;
    let program = scratch.path().join(NAME);
    fs::write(&program, bytes)?;
    fs::set_permissions(&program, Permissions::from_mode(0o755))?;
    for name in CLI_NAMES {
        symlink(NAME, scratch.path().join(name))?;
    }
    // Steps of any user run it from here.
    fs::set_permissions(scratch.path(), Permissions::from_mode(0o755))?;
    match fs::rename(scratch.path(), directory) {
        // Another process was first, or something damaged is in the way.
        Err(_) if is_whole(directory, bytes.len() as u64) => Ok(()),
        Err(_) => {
            fs::remove_dir_all(directory)?;
            fs::rename(scratch.path(), directory)
        }
        Ok(()) => Ok(()),
    }
}

/// The program's bytes, once it is certain that it needs nothing else to start.
pub fn read_static(path: &Path) -> Result<Vec<u8>, SupervisorError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .map_err(|source| SupervisorError::Read { path: path.to_owned(), source })?;
    match has_interpreter(&bytes) {
        Some(false) => Ok(bytes),
        Some(true) => Err(SupervisorError::Dynamic { path: path.to_owned() }),
        None => Err(SupervisorError::NotElf { path: path.to_owned() }),
    }
}

/// Does an ELF file ask for a program to load it? `None`: it is no 64-bit little-endian ELF file.
fn has_interpreter(bytes: &[u8]) -> Option<bool> {
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let number = |at: usize, size: usize| -> Option<u64> {
        let field = bytes.get(at..at.checked_add(size)?)?;
        Some(field.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    let table = usize::try_from(number(0x20, 8)?).ok()?;
    let entry_size = usize::try_from(number(0x36, 2)?).ok()?;
    let entries = usize::try_from(number(0x38, 2)?).ok()?;
    let mut found = false;
    for index in 0..entries {
        let at = table.checked_add(index.checked_mul(entry_size)?)?;
        found |= number(at, 4)? == u64::from(ELF_INTERPRETER);
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF header with one program header of that type.
    fn elf(kind: u8) -> Vec<u8> {
        let mut bytes = vec![0; 0x40 + 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (bytes[0x20], bytes[0x36], bytes[0x38], bytes[0x40]) = (0x40, 56, 1, kind);
        bytes
    }

    #[test]
    fn only_static_programs_are_taken() {
        assert_eq!(has_interpreter(&elf(1)), Some(false));
        assert_eq!(has_interpreter(&elf(3)), Some(true));
        assert_eq!(has_interpreter(b"#!/bin/sh"), None);
        assert_eq!(has_interpreter(&elf(1)[..0x41]), None);
    }

    #[test]
    fn a_copy_is_made_once_and_by_content() {
        let scratch = tempfile::tempdir().unwrap();
        let source = scratch.path().join("built");
        fs::write(&source, elf(1)).unwrap();
        let first = install(Some(&source), scratch.path()).unwrap();
        assert_eq!(fs::metadata(first.join(NAME)).unwrap().mode() & 0o777, 0o755);
        assert_eq!(fs::read_link(first.join("circleci")).unwrap(), Path::new(NAME));
        let inode = fs::metadata(&first).unwrap().ino();
        assert_eq!(install(Some(&source), scratch.path()).unwrap(), first);
        assert_eq!(fs::metadata(&first).unwrap().ino(), inode);

        let mut other = elf(1);
        other.push(0);
        fs::write(&source, other).unwrap();
        assert_ne!(install(Some(&source), scratch.path()).unwrap(), first);
    }

    #[test]
    fn an_upgrade_in_the_midst_of_a_run_changes_nothing_for_its_later_jobs() {
        let scratch = tempfile::tempdir().unwrap();
        let source = scratch.path().join("built");
        let (run, later) = (Chosen::default(), Chosen::default());
        assert!(run.directory(Some(&source), scratch.path()).is_err(), "one that is missing is looked for again");
        fs::write(&source, elf(1)).unwrap();
        let first = run.directory(Some(&source), scratch.path()).unwrap();
        fs::write(&source, [elf(1), vec![0]].concat()).unwrap();
        assert_eq!(run.directory(Some(&source), scratch.path()).unwrap(), first);
        assert_ne!(later.directory(Some(&source), scratch.path()).unwrap(), first);
        fs::remove_file(&source).unwrap();
        assert_eq!(run.directory(Some(&source), scratch.path()).unwrap(), first);
    }

    #[test]
    fn a_damaged_copy_is_made_anew() {
        let scratch = tempfile::tempdir().unwrap();
        let source = scratch.path().join("built");
        fs::write(&source, elf(1)).unwrap();
        let directory = install(Some(&source), scratch.path()).unwrap();
        fs::remove_file(directory.join(NAME)).unwrap();
        assert_eq!(install(Some(&source), scratch.path()).unwrap(), directory);
        assert!(directory.join(NAME).is_file());
    }

    #[test]
    fn errors_name_the_way_out() {
        let scratch = tempfile::tempdir().unwrap();
        let source = scratch.path().join("built");
        assert!(install(Some(&source), scratch.path()).unwrap_err().to_string().contains("scripts/build"));
        fs::write(&source, elf(3)).unwrap();
        assert!(install(Some(&source), scratch.path()).unwrap_err().to_string().contains("scripts/build"));
    }
}
