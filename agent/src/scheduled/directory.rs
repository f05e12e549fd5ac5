//! The directory that a driver has made for one task: what of it is believed, and the agent's last word in it.
//!
//! ```text
//! DIR/           a directory of ours, no link, nobody else may write to it
//!   host.json    a file of ours, no link, nobody else may write to it
//!   exit.json    ◀─ exit.json.new, renamed
//! ```

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use navvy_job::id::TaskId;
use navvy_job::scheduled::{Exit, Host, VERSION, files};
use navvy_plain_file as plain_file;
use navvy_ui::sanitize::tame;

/// A host file is never longer.
const MAX_HOST: u64 = 64 << 10;
/// A message is for one line of a status.
const MAX_MESSAGE: usize = 2 << 10;

/// Why the directory, or a file in it, is not believed.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    #[error("the task's directory {path} cannot be looked at: {source}", path = path.display())]
    Look { path: PathBuf, source: io::Error },
    #[error("{path} is not believed: {why}", path = path.display())]
    Foreign { path: PathBuf, why: String },
    #[error("{path} cannot be read: {source}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is not understood: {why}", path = path.display())]
    Form { path: PathBuf, why: String },
    #[error("{path} has version {found}, and this agent ({}) reads version {VERSION}", env!("CARGO_PKG_VERSION"), path = path.display())]
    Version { path: PathBuf, found: u64 },
    #[error("nothing can be written into {path}: {source}", path = path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl DirectoryError {
    /// What whoever starts the agent can do about it.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Look { .. } => "The driver makes it before it starts the agent.",
            Self::Foreign { .. } | Self::Write { .. } => {
                "The directory and host.json must be this user's, no links, and writable for nobody else (modes 0700, 0600)."
            }
            Self::Read { .. } | Self::Form { .. } => "The driver writes it; docs/host.md says what it holds.",
            Self::Version { .. } => "Install a driver and an agent of one release.",
        }
    }
}

/// A directory that is believed.
#[derive(Debug, Clone)]
pub struct Directory(PathBuf);

impl Directory {
    /// # Errors
    /// It is not there, or others could have put something into it.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        let looked = path.symlink_metadata();
        let found = looked.map_err(|source| DirectoryError::Look { path: path.to_owned(), source })?;
        match why_foreign(&found, found.is_dir().then_some(()).ok_or("it is not a directory, or a link to one")) {
            Some(why) => Err(DirectoryError::Foreign { path: path.to_owned(), why }),
            None => Ok(Self(path.to_owned())),
        }
    }

    /// Says at once if the agent's last word could not be written.
    ///
    /// # Errors
    /// It takes no file.
    pub fn check_writable(&self) -> Result<(), DirectoryError> {
        let path = self.0.join("exit.json.new");
        let made = self.new_file(&path).and_then(|_| std::fs::remove_file(&path));
        made.map_err(|source| DirectoryError::Write { path: self.0.clone(), source })
    }

    fn new_file(&self, path: &Path) -> io::Result<File> {
        // What an agent before left half-written.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        File::options().write(true).create_new(true).mode(0o600).open(path)
    }

    pub fn path_of(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// What the driver says of the task's place.
    ///
    /// # Errors
    /// It is not believed, not whole, or of another version.
    pub fn host(&self) -> Result<Host, DirectoryError> {
        let path = self.path_of(files::HOST);
        let failed = |source| DirectoryError::Read { path: path.clone(), source };
        let linked = path.symlink_metadata().map_err(failed)?.is_symlink();
        let file = plain_file::open(&path).map_err(failed)?;
        let kind = if linked { Err("it is a link") } else { Ok(()) };
        if let Some(why) = why_foreign(&file.metadata().map_err(failed)?, kind) {
            return Err(DirectoryError::Foreign { path, why });
        }
        let bytes = plain_file::rest(file, MAX_HOST).map_err(failed)?;
        let form = |why: String| DirectoryError::Form { path: path.clone(), why };
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| form(error.to_string()))?;
        match value.get("version").and_then(serde_json::Value::as_u64) {
            Some(version) if version == u64::from(VERSION) => {}
            Some(found) => return Err(DirectoryError::Version { path, found }),
            None => return Err(form("it does not say its version".to_owned())),
        }
        let host: Host = serde_json::from_value(value).map_err(|error| form(error.to_string()))?;
        match host.task.parse::<TaskId>() {
            Ok(_) => Ok(host),
            Err(error) => Err(form(format!("its task is no task's id: {error}"))),
        }
    }

    /// The agent's last act: there whole, or not at all.
    ///
    /// # Errors
    /// The disk is full, or the directory is gone.
    pub fn exit(&self, exit: &Exit) -> io::Result<()> {
        let new = self.path_of("exit.json.new");
        let message = one_line(&exit.message, MAX_MESSAGE);
        let bytes = serde_json::to_vec(&Exit { message, ..exit.clone() }).map_err(io::Error::other)?;
        let mut file = self.new_file(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, self.path_of(files::EXIT))
    }

    /// What an agent before has said as its last word is not this one's.
    pub fn forget_exit(&self) {
        std::fs::remove_file(self.path_of(files::EXIT)).ok();
    }
}

/// A text for people, in one line without control characters.
pub fn one_line(text: &str, most: usize) -> String {
    let mut line = tame(text, false).split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() > most {
        let fits = (0..=most.saturating_sub(3)).rev().find(|at| line.is_char_boundary(*at));
        line.truncate(fits.unwrap_or(0));
        line.push('…');
    }
    line
}

fn why_foreign(found: &std::fs::Metadata, kind: Result<(), &str>) -> Option<String> {
    let (mode, own) = (found.mode() & 0o777, rustix::process::geteuid().as_raw());
    match kind {
        Err(why) => Some(why.to_owned()),
        Ok(()) if found.uid() != own => {
            Some(format!("it belongs to user {}, and this agent runs as {own}", found.uid()))
        }
        Ok(()) if mode & 0o022 != 0 => Some(format!("its mode is {mode:04o}, and others can write to it")),
        Ok(()) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    const GOOD: &str = r#"{"version":1,"processor":"http://127.0.0.1:1","processor_ca":null,"task":"0123456789abcdef",
        "cgroup":null,"size":null,"pids":null,"stdout":null,"stderr":null,"environment":"docker"}"#;

    fn directory(text: &str) -> (tempfile::TempDir, Directory) {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join(files::HOST);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let opened = Directory::open(scratch.path()).unwrap();
        (scratch, opened)
    }

    fn why(text: &str) -> String {
        directory(text).1.host().unwrap_err().to_string()
    }

    #[test]
    fn a_host_file_is_read_whole_or_refused_by_what_is_wrong() {
        assert_eq!(directory(GOOD).1.host().unwrap().task, "0123456789abcdef");
        for (wrong, expected) in [
            (GOOD.replace("\"version\":1", "\"version\":2"), "has version 2, and this agent"),
            (GOOD.replace("\"version\":1,", ""), "does not say its version"),
            (GOOD.replace("\"environment\":\"docker\"", "\"environment\":\"docker\",\"vm\":1"), "unknown field `vm`"),
            (GOOD.replace(",\"environment\":\"docker\"", ""), "missing field `environment`"),
            (GOOD.replace("0123456789abcdef", "../../etc"), "is no task's id"),
            (GOOD.replace('}', ""), "not understood"),
            (format!("{GOOD}{}", " ".repeat(MAX_HOST as usize)), "longer"),
        ] {
            let told = why(&wrong);
            assert!(told.contains(expected), "{expected}: {told}");
        }
    }

    #[test]
    fn what_others_could_have_written_is_not_believed() {
        let (scratch, opened) = directory(GOOD);
        let path = opened.path_of(files::HOST);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o620)).unwrap();
        assert!(opened.host().unwrap_err().to_string().contains("mode is 0620"));
        std::fs::rename(&path, scratch.path().join("real")).unwrap();
        std::fs::set_permissions(scratch.path().join("real"), std::fs::Permissions::from_mode(0o600)).unwrap();
        symlink(scratch.path().join("real"), &path).unwrap();
        assert!(opened.host().unwrap_err().to_string().contains("it is a link"));
        let linked = scratch.path().join("linked");
        symlink(scratch.path(), &linked).unwrap();
        assert!(Directory::open(&linked).unwrap_err().to_string().contains("not a directory, or a link"));
        std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(Directory::open(scratch.path()).unwrap_err().to_string().contains("mode is 0777"));
        std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(scratch.path(), Some(7), None).unwrap();
            assert!(Directory::open(scratch.path()).unwrap_err().to_string().contains("belongs to user 7"));
        }
        assert!(Directory::open(&scratch.path().join("none")).unwrap_err().to_string().contains("cannot be looked at"));
    }

    #[test]
    fn the_last_word_is_one_line_and_takes_the_place_of_another() {
        let (_scratch, opened) = directory(GOOD);
        std::fs::write(opened.path_of("exit.json.new"), "half").unwrap();
        let exit = |message: &str| Exit { code: 3, message: message.to_owned(), oom_killed: false };
        opened.exit(&exit("first")).unwrap();
        opened.exit(&exit("why\nHint: \u{1b}[2Jwhat to do\n")).unwrap();
        let read: Exit = serde_json::from_slice(&std::fs::read(opened.path_of(files::EXIT)).unwrap()).unwrap();
        assert_eq!(read, exit("why Hint: what to do"));
        opened.exit(&exit(&"ä".repeat(MAX_MESSAGE))).unwrap();
        assert!(std::fs::read(opened.path_of(files::EXIT)).unwrap().len() < MAX_MESSAGE + 100);
        opened.forget_exit();
        assert!(!opened.path_of(files::EXIT).exists());
    }
}
