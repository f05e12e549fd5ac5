//! Whose a cloud's machine is: a name of this state directory on this host, the same over restarts, which its tags carry.
//!
//! A random text of the directory alone would be copied with it into another host's image, and the host's id alone is shared by
//! all that run on it in containers: the name is made of both.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use navvy_journal::owner::Owner;
use navvy_plain_file as plain_file;
use sha2::{Digest as _, Sha256};

use crate::record;

const FILE: &str = "machines-owner";
const LONGEST: u64 = 256;

/// The name of this state directory, made the first time.
pub fn of(state: &Path) -> io::Result<String> {
    let path = state.join(FILE);
    let text = match plain_file::text_without_link(&path, LONGEST) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(state, &path)?,
        read => read?,
    };
    let is_ours = text.trim().len() == 32 && text.trim().bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_ours {
        let why = format!(
            "{} does not hold 32 hexadecimal digits; remove it once no machine of a cloud is left",
            path.display()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    let machine = Owner::this_process()?.machine;
    let digest = Sha256::digest(format!("{machine}\n{}", text.trim()));
    Ok(format!("navvy-{}", digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect::<String>()))
}

/// Two processes that make it at once end with the same one: the first link counts.
fn make(state: &Path, path: &Path) -> io::Result<String> {
    // Where what a killed process has left half made is swept away.
    let machines = record::machines(state);
    DirBuilder::new().recursive(true).mode(0o700).create(&machines)?;
    let beside = machines.join(Owner::this_process()?.unfinished(&format!("{FILE}-{}", uuid::Uuid::new_v4().simple())));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    writeln!(file, "{}", uuid::Uuid::new_v4().simple())?;
    file.sync_all()?;
    let linked = fs::hard_link(&beside, path);
    fs::remove_file(&beside)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => plain_file::text_without_link(path, LONGEST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_directory_keeps_its_name_and_another_has_another() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let names: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| of(one.path()).unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(names.iter().all(|name| *name == names[0] && name.starts_with("navvy-")), "{names:?}");
        assert_ne!(of(other.path()).unwrap(), names[0]);
        assert_eq!(fs::read_dir(record::machines(one.path())).unwrap().count(), 0);
        fs::write(other.path().join(FILE), "").unwrap();
        assert!(of(other.path()).unwrap_err().to_string().contains("machines-owner"));
    }
}
