//! The embedded state, copied while it is used, and put back.
//!
//! ```text
//! backup:  processor.db ──VACUUM INTO──▶ DIRECTORY.new/processor.db ┐
//!          secrets.key ───copy─────────▶ DIRECTORY.new/secrets.key ─┴─▶ renamed to DIRECTORY: whole, or not there
//! restore: DIRECTORY ──▶ an empty data directory
//! ```
//!
//! The store is not part of it: it is a directory or a bucket of its own, to be copied after the database. Then all that the
//! database names is there.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::keys;
use crate::state::{State, StateError};

/// The database's file.
pub const DATABASE: &str = "processor.db";

/// Why there is no backup, or why it was not put back.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It would be written over something.
    #[error("{} is there already; name a directory that is not", .0.display())]
    Exists(PathBuf),
    /// There is nothing to be copied.
    #[error("there is no {} ; is {} the data directory of a processor with an embedded database?", .0.display(), .1.display())]
    Nothing(PathBuf, PathBuf),
    /// The data directory is in use.
    #[error("{} holds a processor's state already; restore into an empty directory", .0.display())]
    InUse(PathBuf),
    /// A file cannot be read or written.
    #[error("{what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The database.
    #[error(transparent)]
    State(#[from] StateError),
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BackupError + use<> {
    let path = path.to_owned();
    move |source| BackupError::File { what, path, source }
}

/// Copies database and keys of `data` into the new directory `to`, while a processor may be using them.
///
/// # Errors
/// There is nothing to be copied, or no place for it. Nothing half-made is left.
pub async fn backup(data: &Path, to: &Path) -> Result<(), BackupError> {
    let database = data.join(DATABASE);
    if !database.is_file() {
        return Err(BackupError::Nothing(database, data.to_owned()));
    }
    if fs::symlink_metadata(to).is_ok() {
        return Err(BackupError::Exists(to.to_owned()));
    }
    let mut name = to.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let unfinished = PathBuf::from(name);
    let made = copy(data, &database, &unfinished).await;
    let made = match made {
        Ok(()) => fs::rename(&unfinished, to).map_err(failed("the backup cannot be named", to)),
        Err(error) => Err(error),
    };
    if made.is_err() {
        fs::remove_dir_all(&unfinished).ok();
    }
    made
}

async fn copy(data: &Path, database: &Path, to: &Path) -> Result<(), BackupError> {
    make(to)?;
    let state = State::open(&format!("sqlite://{}", database.display())).await?;
    let copy = to.join(DATABASE);
    // One consistent moment, whatever is written meanwhile.
    let name = copy.to_string_lossy().into_owned();
    sqlx::query("VACUUM INTO $1").bind(name).execute(state.pool()).await.map_err(StateError::from)?;
    state.pool().close().await;
    keep_private(&copy)?;
    let (key, copy) = (data.join(keys::FILE), to.join(keys::FILE));
    if key.is_file() {
        fs::copy(&key, &copy).map_err(failed("the keys cannot be copied to", &copy))?;
        keep_private(&copy)?;
    }
    sync(to)
}

/// Puts a backup into `data`, where no processor has been.
///
/// # Errors
/// `from` is no backup, or `data` is in use. Nothing half-made is left.
pub async fn restore(from: &Path, data: &Path) -> Result<(), BackupError> {
    let database = from.join(DATABASE);
    if !database.is_file() {
        return Err(BackupError::Nothing(database, from.to_owned()));
    }
    for used in [DATABASE, keys::FILE] {
        if fs::symlink_metadata(data.join(used)).is_ok() {
            return Err(BackupError::InUse(data.to_owned()));
        }
    }
    make(data)?;
    for name in [keys::FILE, DATABASE] {
        let (there, here, unfinished) = (from.join(name), data.join(name), data.join(format!("{name}.new")));
        if name == keys::FILE && !there.is_file() {
            continue;
        }
        fs::copy(&there, &unfinished).map_err(failed("a file cannot be copied to", &unfinished))?;
        keep_private(&unfinished)?;
        // The database comes last: without it there is nothing.
        fs::rename(&unfinished, &here).map_err(failed("a file cannot be named", &here))?;
    }
    let state = State::open(&format!("sqlite://{}", data.join(DATABASE).display())).await?;
    state.check().await?;
    state.pool().close().await;
    sync(data)
}

fn make(directory: &Path) -> Result<(), BackupError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(failed("a directory cannot be made:", directory))
}

fn keep_private(file: &Path) -> Result<(), BackupError> {
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).map_err(failed("its mode cannot be set:", file))?;
    fs::File::open(file).and_then(|file| file.sync_all()).map_err(failed("it cannot be synced:", file))
}

fn sync(directory: &Path) -> Result<(), BackupError> {
    fs::File::open(directory).and_then(|it| it.sync_all()).map_err(failed("it cannot be synced:", directory))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Scope;

    #[tokio::test]
    async fn what_is_backed_up_while_it_is_used_comes_back_whole() {
        let place = tempfile::tempdir().unwrap();
        let (data, to, new) = (place.path().join("data"), place.path().join("backup"), place.path().join("new"));
        assert!(backup(&data, &to).await.unwrap_err().to_string().contains("there is no"));
        let state = State::open(&format!("sqlite://{}", data.join(DATABASE).display())).await.unwrap();
        keys::open(None, &data).unwrap();
        let before = state.new_token(&Scope::Admin, "before").await.unwrap();
        backup(&data, &to).await.unwrap();
        let after = state.new_token(&Scope::Admin, "after").await.unwrap();
        assert!(matches!(backup(&data, &to).await, Err(BackupError::Exists(_))));
        restore(&to, &new).await.unwrap();
        assert!(matches!(restore(&to, &new).await, Err(BackupError::InUse(_))));
        let restored = State::open(&format!("sqlite://{}", new.join(DATABASE).display())).await.unwrap();
        assert_eq!(restored.token(&before).await.unwrap(), Some(Scope::Admin));
        assert_eq!(restored.token(&after).await.unwrap(), None);
        let read = |directory: &Path| fs::read(directory.join(keys::FILE)).unwrap();
        assert_eq!(read(&new), read(&data));
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(to.join(DATABASE)), mode(to.join(keys::FILE)), mode(to)), (0o600, 0o600, 0o700));
    }
}
