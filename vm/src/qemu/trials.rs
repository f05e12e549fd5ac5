//! What was found out about this host's QEMU, kept so that it is not found out for each machine.
//!
//! `STATE/machine-trials/KEY`: a line of text; KEY: digest of all that it depends on.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use navvy_environment::HostPaths;
use navvy_plain_file as plain_file;
use sha2::{Digest as _, Sha256};

/// Bytes of the longest thing that is kept.
const LONGEST: u64 = 4 << 10;

fn place(host: &HostPaths, about: &str) -> PathBuf {
    let key: String = Sha256::digest(about).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    host.state.join("machine-trials").join(key)
}

/// What was kept about this.
pub fn known(host: &HostPaths, about: &str) -> Option<String> {
    let bytes = plain_file::read(&place(host, about), LONGEST).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    (!text.is_empty()).then_some(text)
}

/// Keeps it. What cannot be kept is found out again.
pub fn keep(host: &HostPaths, about: &str, text: &str) {
    let place = place(host, about);
    let directory = place.parent().unwrap_or(Path::new("/"));
    let beside = place.with_extension(std::process::id().to_string());
    let _found_out_again = fs::create_dir_all(directory)
        .and_then(|()| fs::write(&beside, text))
        .and_then(|()| fs::rename(&beside, &place));
}

/// A program's file, told from any that comes into its place: nobody can set back the time of a file's change.
pub fn identity(program: &Path) -> io::Result<String> {
    let found = fs::metadata(program)?;
    let (device, inode, length) = (found.dev(), found.ino(), found.len());
    let (modified, changed) = ((found.mtime(), found.mtime_nsec()), (found.ctime(), found.ctime_nsec()));
    Ok(format!("{} {device} {inode} {length} {modified:?} {changed:?}", program.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_goes_with_what_it_is_about() {
        let scratch = tempfile::tempdir().unwrap();
        let host = HostPaths {
            state: scratch.path().to_owned(),
            runtime: None,
            docker_config: None,
            search_path: String::new(),
            supervisor: None,
        };
        let program = scratch.path().join("qemu");
        fs::write(&program, "one").unwrap();
        let one = identity(&program).unwrap();
        assert_eq!(known(&host, &one), None);
        keep(&host, &one, "7.2");
        assert_eq!((known(&host, &one).as_deref(), identity(&program).unwrap()), (Some("7.2"), one.clone()));
        fs::remove_file(&program).unwrap();
        fs::write(&program, "two").unwrap();
        assert_ne!(identity(&program).unwrap(), one);
    }
}
