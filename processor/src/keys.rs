//! The keys that secrets are sealed with: from a file of the operator's, or one that is made at the first start.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use navvy_plain_file as plain_file;

use crate::claims::SecretSource;

/// Longer files are nobody's.
const LONGEST: u64 = 64 << 10;
/// In the data directory.
pub const FILE: &str = "secrets.key";

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or made.
    #[error("the file of keys, {}, cannot be read or made", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// Others may read it.
    #[error("the file of keys, {}, may be read by others (mode {mode:o}): chmod 600 it, and change the keys", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A line that is no key.
    #[error("{}:{line}: a key is written NAME:64 hexadecimal digits", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// A name twice.
    #[error("{}: there are two keys called {name:?}", path.display())]
    Twice {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// None at all.
    #[error("{} holds no key; a key is written NAME:64 hexadecimal digits", path.display())]
    None {
        /// The file.
        path: PathBuf,
    },
}

/// Reads the keys of `given`; without it those of the data directory, where one is made if there is none.
///
/// # Errors
/// There is no key, or others may read them.
pub fn open(given: Option<&Path>, data: &Path) -> Result<SecretSource, KeyError> {
    let path = given.map_or_else(|| data.join(FILE), Path::to_owned);
    if given.is_none() {
        make(&path)?;
    }
    let failed = |source| KeyError::File { path: path.clone(), source };
    let mode = std::fs::metadata(&path).map_err(failed)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Open { path, mode });
    }
    let text = plain_file::text(&path, LONGEST).map_err(failed)?;
    let mut keys: Vec<(String, [u8; 32])> = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let (name, key) = read(line.trim()).ok_or(KeyError::Line { path: path.clone(), line: index + 1 })?;
        if keys.iter().any(|(known, _)| *known == name) {
            return Err(KeyError::Twice { path, name });
        }
        keys.push((name, key));
    }
    SecretSource::new(keys).ok_or(KeyError::None { path })
}

fn read(line: &str) -> Option<(String, [u8; 32])> {
    let (name, digits) = line.split_once(':')?;
    if name.is_empty() || digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    let mut key = [0; 32];
    for (byte, pair) in key.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some((name.to_owned(), key))
}

/// Whole or not at all: it is written under another name first.
fn make(path: &Path) -> Result<(), KeyError> {
    let failed = |source| KeyError::File { path: path.to_owned(), source };
    if path.exists() {
        return Ok(());
    }
    let unfinished = path.with_extension(format!("key.{}", std::process::id()));
    let write = || {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        let random = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4(), uuid::Uuid::new_v4()];
        let random: Vec<u8> = random.iter().flat_map(|uuid| uuid.into_bytes()).collect();
        // Fixed bits of the UUIDs are spread over all of the key.
        let key = <sha2::Sha256 as sha2::Digest>::digest(&random);
        let digits: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(file, "first:{digits}")?;
        file.sync_all()?;
        // Another processor that starts in this moment made it: then that one is the key.
        match std::fs::hard_link(&unfinished, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        }
    };
    let made = write();
    std::fs::remove_file(&unfinished).ok();
    made.map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_for_its_owner_alone() {
        let data = tempfile::tempdir().unwrap();
        open(None, data.path()).unwrap();
        let path = data.path().join(FILE);
        let first = std::fs::read_to_string(&path).unwrap();
        open(None, data.path()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), first);
        assert_eq!(std::fs::read_dir(data.path()).unwrap().count(), 1, "nothing unfinished is left");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(open(None, data.path()).unwrap_err().to_string().contains("chmod 600"));
    }

    #[test]
    fn what_is_no_key_is_named_by_its_line_and_not_shown() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join("keys");
        let told = |text: &str| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            open(Some(&path), data.path()).unwrap_err().to_string()
        };
        let good = format!("a:{}", "ab".repeat(32));
        assert!(told(&format!("{good}\n\nb:hunter2\n")).contains("keys:3"));
        assert!(!told("b:hunter2").contains("hunter2"));
        assert!(told(&format!("{good}\n{good}\n")).contains("two keys"));
        assert!(told("\n").contains("holds no key"));
    }
}
