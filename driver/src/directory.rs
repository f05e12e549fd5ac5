//! A Nomad task's directory: what the driver and the agent leave for each other ([`navvy_job::scheduled`]), and what the driver leaves
//! for the plugin that comes after it.
//!
//! ```text
//! STATE_DIR/tasks/KEY/          0700
//!   driver.json   Record: the driver's own, replaced whole at each change
//!   agent.err     what an agent said before it had a log
//!   claim.json host.json progress exit.json      as job::scheduled has them
//! ```

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use navvy_job::resource::Size;
use navvy_job::scheduled::{Exit, Host, Progress, files};
use navvy_journal::owner::Owner;
use navvy_plain_file as plain_file;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

const RECORD: &str = "driver.json";
const AGENT_ERR: &str = "agent.err";
/// No file here is longer.
const LONGEST: u64 = 1 << 20;
/// Of what an agent said.
const TAIL: u64 = 2048;
/// Of progress, in one look.
const MOST_PROGRESS: u64 = 64 << 10;

/// How a task ended, as Nomad is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Exit code of the agent.
    pub code: i32,
    /// The signal that ended it, or 0.
    pub signal: i32,
    /// The kernel killed a process of the task for want of memory.
    pub oom_killed: bool,
    /// Why it failed; empty: it did not.
    pub error: String,
    /// Milliseconds since 1970.
    pub at_ms: u64,
}

/// What the driver knows of a task. A plugin that comes after this one reads it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`Self::VERSION`].
    pub version: u32,
    /// Nomad's id of the task.
    pub id: String,
    /// Its allocation.
    pub alloc_id: String,
    /// Its name in the allocation.
    pub name: String,
    /// The processor's id of the task.
    pub task: String,
    /// What the whole task may use.
    pub size: Size,
    /// Nomad's pipes.
    pub pipes: [PathBuf; 2],
    /// The program that was started.
    pub agent_path: PathBuf,
    /// The agent's environment.
    pub environment: Vec<(String, String)>,
    /// The plugin that looks after it.
    pub plugin: Owner,
    /// The agent's process, once there is one.
    pub agent: Option<Owner>,
    /// The cgroup of the whole task, below each hierarchy's root.
    pub cgroup: Option<String>,
    /// Directories of cgroups that the driver made, and removes.
    pub cgroup_directories: Vec<PathBuf>,
    /// The host had booted with this id when the task began.
    pub boot: String,
    /// Milliseconds since 1970.
    pub started_ms: u64,
    /// Its end is wanted.
    pub is_stopping: bool,
    /// How often an agent that was killed was started again.
    pub restarts: u32,
    /// How it ended, once it has.
    pub ended: Option<Ended>,
}

impl Record {
    /// The form that is written and read.
    pub const VERSION: u32 = 1;
}

/// Variables may hold a proxy's password.
impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("id", &self.id)
            .field("task", &self.task)
            .field("agent", &self.agent)
            .finish_non_exhaustive()
    }
}

/// What records of all versions have.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// Does this error of [`Directory::record`] say that there is no record of any driver, rather than one that cannot be read now?
pub fn is_no_record(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData)
}

/// One task's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory(PathBuf);

impl Directory {
    /// The directory of Nomad's task `id`. Nothing is made.
    pub fn of(state_dir: &Path, id: &str) -> Self {
        Self(state_dir.join("tasks").join(key(id)))
    }

    /// One that a driver has made before.
    pub fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// Those of all tasks, whoever has made them.
    ///
    /// # Errors
    /// They cannot be listed.
    pub fn all(state_dir: &Path) -> io::Result<Vec<Self>> {
        let entries = plain_file::directory::entries(&state_dir.join("tasks"))?;
        Ok(entries.iter().map(|entry| Self(entry.path())).collect())
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes it, for this user alone.
    ///
    /// # Errors
    /// It cannot be made, or is there: a task of this id has begun before.
    pub fn make(&self) -> io::Result<()> {
        self.0.parent().map_or(Ok(()), make_private)?;
        fs::DirBuilder::new().mode(0o700).create(&self.0)
    }

    /// Removes it with all that is in it. Missing is fine.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Writes the claim, which holds the token.
    pub fn put_claim(&self, processor: &str, task: &str, token: &str) -> io::Result<()> {
        let claim = serde_json::json!({"version": 1, "processor": processor, "task": task, "token": token});
        self.put(files::CLAIM, claim.to_string().as_bytes())
    }

    /// Has no agent read the claim yet?
    ///
    /// # Errors
    /// It cannot be looked for.
    pub fn has_claim(&self) -> io::Result<bool> {
        match fs::symlink_metadata(self.0.join(files::CLAIM)) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Says where the task lives.
    pub fn put_host(&self, host: &Host) -> io::Result<()> {
        self.put(files::HOST, &serde_json::to_vec(host)?)
    }

    /// Keeps what the driver knows.
    pub fn put_record(&self, record: &Record) -> io::Result<()> {
        self.put(RECORD, &serde_json::to_vec(record)?)
    }

    /// What a driver kept.
    ///
    /// # Errors
    /// It is not there, or of a form that this driver does not understand. [`is_no_record`] tells what no driver has written.
    pub fn record(&self) -> io::Result<Record> {
        let text = self.text(RECORD)?;
        // Another version may have other fields: it is not to be taken for something that no driver has written.
        let Version { version } = parsed(RECORD, &text)?;
        match version {
            Record::VERSION => parsed(RECORD, &text),
            other => {
                Err(io::Error::other(format!("it has version {other}, and this driver reads {}", Record::VERSION)))
            }
        }
    }

    /// How the agent ended; `None`: it has not, or was killed.
    ///
    /// # Errors
    /// There is a file that cannot be read.
    pub fn exit(&self) -> io::Result<Option<Exit>> {
        match self.read(files::EXIT) {
            Ok(exit) => Ok(Some(exit)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whole lines of progress from this place on, and the place behind them.
    pub fn progress(&self, from: u64) -> (Vec<Progress>, u64) {
        let path = self.0.join(files::PROGRESS);
        let read = || -> io::Result<Vec<u8>> {
            let mut file = plain_file::open(&path)?;
            file.seek(SeekFrom::Start(from))?;
            let mut bytes = Vec::new();
            file.take(MOST_PROGRESS).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        // Not there yet, or gone with its task.
        let mut bytes = read().unwrap_or_default();
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
        // A line that is longer than one look is none that an agent wrote: it is passed over.
        let passed = if whole == 0 && bytes.len() as u64 == MOST_PROGRESS { bytes.len() } else { whole };
        bytes.truncate(whole);
        let lines = bytes.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
        (lines, from + passed as u64)
    }

    /// Length of the progress there is.
    pub fn progress_length(&self) -> u64 {
        fs::symlink_metadata(self.0.join(files::PROGRESS)).map_or(0, |found| found.len())
    }

    /// Where an agent's words go before it has a log. Those of an agent before it are gone.
    pub fn agent_err(&self) -> io::Result<File> {
        File::options()
            .write(true)
            .truncate(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc_flags())
            .open(self.0.join(AGENT_ERR))
    }

    /// The last of these words, on one line.
    pub fn last_words(&self) -> String {
        let read = || -> io::Result<Vec<u8>> {
            let mut file = plain_file::open(&self.0.join(AGENT_ERR))?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
            let mut bytes = Vec::new();
            file.take(TAIL).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        lines.join(" / ").chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> io::Result<T> {
        parsed(name, &self.text(name)?)
    }

    fn text(&self, name: &str) -> io::Result<String> {
        plain_file::text_without_link(&self.0.join(name), LONGEST)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        put(&self.0, name, bytes)
    }
}

fn parsed<T: DeserializeOwned>(name: &str, text: &str) -> io::Result<T> {
    // Its own words could quote what is in the file.
    serde_json::from_str(text).map_err(|error| {
        let place = format!("line {}, column {} of {name}", error.line(), error.column());
        io::Error::new(io::ErrorKind::InvalidData, format!("{place} is not as it should be"))
    })
}

/// Makes a directory with those above it, for this user alone, where there is none.
///
/// # Errors
/// It cannot be made.
pub fn make_private(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// Writes a file of this user alone. Who looks sees the old one, or the new one.
///
/// # Errors
/// It cannot be written.
pub fn put(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    // Two plugins may be here for a moment.
    let unfinished = directory.join(format!(".{name}.{}.new", std::process::id()));
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc_flags())
        .open(&unfinished)?;
    file.write_all(bytes)?;
    fs::rename(&unfinished, directory.join(name))
}

/// A link is not followed, not even here.
fn libc_flags() -> i32 {
    rustix::fs::OFlags::NOFOLLOW.bits() as i32
}

/// A name for a file from Nomad's `ALLOC/TASK/NUMBER`.
fn key(id: &str) -> String {
    let plain: String =
        id.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '.' }).collect();
    // The end is what differs between two starts; characters are one byte each.
    let start = plain.len().saturating_sub(180);
    format!("t-{}", &plain[start..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> (tempfile::TempDir, Directory) {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::of(place.path(), "8a5c/agent/0a1b2c3d");
        directory.make().unwrap();
        (place, directory)
    }

    #[test]
    fn ids_make_names_of_files() {
        assert_eq!(key("8a5c/agent/0a1b"), "t-8a5c.agent.0a1b");
        assert_eq!(key("../../etc"), "t-......etc");
        assert!(key(&"ä".repeat(1000)).len() < 200);
    }

    #[test]
    fn a_directory_is_made_once() {
        let (_place, directory) = made();
        assert_eq!(directory.make().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        directory.remove().unwrap();
        directory.remove().unwrap();
        directory.make().unwrap();
    }

    #[test]
    fn progress_is_read_by_whole_lines() {
        let (_place, directory) = made();
        assert_eq!(directory.progress(0), (Vec::new(), 0));
        let path = directory.path().join(files::PROGRESS);
        let line = r#"{"at_ms":1,"message":"Step 1 of 2: x"}"#;
        fs::write(&path, format!("{line}\nno json\n{line}")).unwrap();
        let (lines, place) = directory.progress(0);
        assert_eq!((lines.len(), place as usize), (1, line.len() + 1 + 8));
        fs::write(&path, format!("{line}\nno json\n{line}\n")).unwrap();
        assert_eq!(directory.progress(place).0.len(), 1);
        fs::write(&path, "x".repeat(100_000)).unwrap();
        assert_eq!(directory.progress(0), (Vec::new(), MOST_PROGRESS), "what never ends is passed over");
    }

    #[test]
    fn what_no_driver_has_written_is_told_from_a_record_that_cannot_be_read() {
        let (_place, directory) = made();
        let file = directory.path().join(RECORD);
        let told = || directory.record().unwrap_err();
        assert!(is_no_record(&told()));
        fs::write(&file, "{}").unwrap();
        assert!(is_no_record(&told()));
        // Its other fields are not this driver's.
        fs::write(&file, r#"{"version":2}"#).unwrap();
        assert!(!is_no_record(&told()) && told().to_string().contains("version 2"), "{}", told());
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert!(!is_no_record(&told()));
    }

    #[test]
    fn a_claim_that_cannot_be_looked_for_is_not_none() {
        let (_place, directory) = made();
        assert!(!directory.has_claim().unwrap());
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(Directory::at(file).has_claim().is_err());
    }

    #[test]
    fn an_exit_that_cannot_be_read_is_not_none() {
        let (_place, directory) = made();
        assert_eq!(directory.exit().unwrap(), None);
        fs::write(directory.path().join(files::EXIT), "{").unwrap();
        assert!(directory.exit().unwrap_err().to_string().contains("exit.json"));
        fs::remove_file(directory.path().join(files::EXIT)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", directory.path().join(files::EXIT)).unwrap();
        assert!(directory.exit().unwrap_err().to_string().contains("symbolic link"));
    }
}
