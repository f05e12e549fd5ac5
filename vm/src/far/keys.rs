//! What must stay secret of a far machine: files of its directory, for this user alone, gone with it.
//!
//! Who comes after the machine's maker (`navvy shell`, an agent that takes a task over) enters by them.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use navvy_plain_file as plain_file;

/// The key by which the machine is entered, in OpenSSH's format. Made for it alone.
pub const LOGIN: &str = "login";
/// What its supervisor asks of callers.
pub const SECRET: &str = "secret";
const LONGEST: u64 = 16 << 10;

/// Writes one, safe on disk when this returns.
pub fn write(directory: &Path, name: &str, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(directory.join(name))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    File::open(directory)?.sync_all()
}

/// Reads one.
pub fn read(directory: &Path, name: &str) -> io::Result<String> {
    let path = directory.join(name);
    plain_file::text_without_link(&path, LONGEST)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_is_this_user_s_alone_and_no_link_is_followed() {
        let scratch = tempfile::tempdir().unwrap();
        write(scratch.path(), LOGIN, "key").unwrap();
        let mode = std::fs::metadata(scratch.path().join(LOGIN)).unwrap().permissions().mode();
        assert_eq!((mode & 0o777, read(scratch.path(), LOGIN).unwrap().as_str()), (0o600, "key"));
        assert!(write(scratch.path(), LOGIN, "other").is_err(), "none is replaced");
        std::os::unix::fs::symlink(scratch.path().join(LOGIN), scratch.path().join(SECRET)).unwrap();
        let told = read(scratch.path(), SECRET).unwrap_err().to_string();
        assert!(told.contains("secret"), "{told}");
    }
}
