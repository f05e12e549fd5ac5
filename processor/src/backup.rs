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

use navvy_plain_file as plain_file;

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

fn is_there(path: &Path) -> Result<bool, BackupError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("it cannot be looked at:", path)(error)),
    }
}

/// The file of keys in this directory; `None`: there is nothing of that name. What is there and cannot be read is not left out.
fn keys_in(directory: &Path) -> Result<Option<PathBuf>, BackupError> {
    let file = directory.join(keys::FILE);
    if !is_there(&file)? {
        return Ok(None);
    }
    plain_file::open(&file).map_err(failed("the keys cannot be read from", &file))?;
    Ok(Some(file))
}

/// What people are told of the keys of secrets after a backup. `copied`: what [`backup`] has returned; `elsewhere`: the setting
/// `secrets_key`.
pub fn told_of_backup(copied: Option<&Path>, elsewhere: Option<&Path>) -> String {
    let own = match copied {
        Some(file) => format!("The backup holds the keys of secrets of the data directory: {}.", file.display()),
        None => format!("The backup holds no keys of secrets: the data directory has no {}.", keys::FILE),
    };
    match elsewhere {
        Some(file) => format!(
            "{own} The processor's keys are those of {}, as `secrets_key` says: that file is not copied, so keep a copy of it, too.",
            file.display()
        ),
        None => own,
    }
}

/// The same after [`restore`].
pub fn told_of_restore(copied: Option<&Path>, elsewhere: Option<&Path>) -> String {
    let own = match copied {
        Some(file) => format!("The keys of secrets of the backup were put back: {}.", file.display()),
        None => "The backup holds no keys of secrets.".to_owned(),
    };
    match (copied, elsewhere) {
        (_, Some(file)) => format!(
            "{own} The processor's keys are those of {}, as `secrets_key` says: put that file there, too.",
            file.display()
        ),
        (None, None) => format!(
            "{own} Without the file that its processor had as `secrets_key`, a new key is made, and secrets of before cannot be read."
        ),
        (Some(_), None) => own,
    }
}

/// Copies database and keys of `data` into the new directory `to`, while a processor may be using them. The copy of the file of keys,
/// if there is one in `data`.
///
/// # Errors
/// There is nothing to be copied, or no place for it. Nothing half-made is left.
pub async fn backup(data: &Path, to: &Path) -> Result<Option<PathBuf>, BackupError> {
    let database = data.join(DATABASE);
    if !database.is_file() {
        return Err(BackupError::Nothing(database, data.to_owned()));
    }
    if is_there(to)? {
        return Err(BackupError::Exists(to.to_owned()));
    }
    let mut name = to.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let unfinished = PathBuf::from(name);
    let made = copy(data, &database, &unfinished).await;
    let made = match made {
        Ok(has_keys) => fs::rename(&unfinished, to)
            .map_err(failed("the backup cannot be named", to))
            .map(|()| has_keys.then(|| to.join(keys::FILE))),
        Err(error) => Err(error),
    };
    if made.is_err() {
        fs::remove_dir_all(&unfinished).ok();
    }
    made
}

/// True: with keys.
async fn copy(data: &Path, database: &Path, to: &Path) -> Result<bool, BackupError> {
    make(to)?;
    let state = State::open(&format!("sqlite://{}", database.display())).await?;
    let copy = to.join(DATABASE);
    // One consistent moment, whatever is written meanwhile.
    let name = copy.to_string_lossy().into_owned();
    sqlx::query("VACUUM INTO $1").bind(name).execute(state.pool()).await.map_err(StateError::from)?;
    state.pool().close().await;
    keep_private(&copy)?;
    let found = keys_in(data)?;
    if let Some(key) = &found {
        let copy = to.join(keys::FILE);
        fs::copy(key, &copy).map_err(failed("the keys cannot be copied to", &copy))?;
        keep_private(&copy)?;
    }
    sync(to)?;
    Ok(found.is_some())
}

/// Puts a backup into `data`, where no processor has been. The file of keys there, if the backup has one.
///
/// # Errors
/// `from` is no backup, or `data` is in use. Nothing half-made is left.
pub async fn restore(from: &Path, data: &Path) -> Result<Option<PathBuf>, BackupError> {
    let database = from.join(DATABASE);
    if !database.is_file() {
        return Err(BackupError::Nothing(database, from.to_owned()));
    }
    for used in [DATABASE, keys::FILE] {
        if is_there(&data.join(used))? {
            return Err(BackupError::InUse(data.to_owned()));
        }
    }
    let has_keys = keys_in(from)?.is_some();
    make(data)?;
    for name in [keys::FILE, DATABASE] {
        let (there, here, unfinished) = (from.join(name), data.join(name), data.join(format!("{name}.new")));
        if name == keys::FILE && !has_keys {
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
    sync(data)?;
    Ok(has_keys.then(|| data.join(keys::FILE)))
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
        assert_eq!(backup(&data, &to).await.unwrap(), Some(to.join(keys::FILE)));
        let after = state.new_token(&Scope::Admin, "after").await.unwrap();
        assert!(matches!(backup(&data, &to).await, Err(BackupError::Exists(_))));
        assert_eq!(restore(&to, &new).await.unwrap(), Some(new.join(keys::FILE)));
        assert!(matches!(restore(&to, &new).await, Err(BackupError::InUse(_))));
        let restored = State::open(&format!("sqlite://{}", new.join(DATABASE).display())).await.unwrap();
        assert_eq!(restored.token(&before).await.unwrap(), Some(Scope::Admin));
        assert_eq!(restored.token(&after).await.unwrap(), None);
        let read = |directory: &Path| fs::read(directory.join(keys::FILE)).unwrap();
        assert_eq!(read(&new), read(&data));
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(to.join(DATABASE)), mode(to.join(keys::FILE)), mode(to)), (0o600, 0o600, 0o700));
    }

    #[tokio::test]
    async fn keys_that_cannot_be_read_are_not_left_out() {
        let place = tempfile::tempdir().unwrap();
        let (data, to, new) = (place.path().join("data"), place.path().join("backup"), place.path().join("new"));
        let state = State::open(&format!("sqlite://{}", data.join(DATABASE).display())).await.unwrap();
        state.pool().close().await;
        // A directory, a link that leads nowhere, as to a disk that is not mounted, and one that leads to itself.
        let spoil = |directory: &Path, how: usize| {
            let file = directory.join(keys::FILE);
            match how {
                0 => fs::create_dir(&file).unwrap(),
                1 => std::os::unix::fs::symlink("/nowhere/secrets.key", &file).unwrap(),
                _ => std::os::unix::fs::symlink(&file, &file).unwrap(),
            }
        };
        let mend = |directory: &Path| {
            let file = directory.join(keys::FILE);
            fs::remove_file(&file).or_else(|_| fs::remove_dir(&file)).unwrap();
        };
        for how in 0..3 {
            spoil(&data, how);
            let error = backup(&data, &to).await.unwrap_err().to_string();
            assert!(error.contains(&data.join(keys::FILE).display().to_string()), "{how}: {error}");
            mend(&data);
        }
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "nothing half-made is left");
        assert_eq!(backup(&data, &to).await.unwrap(), None);
        for how in 0..3 {
            spoil(&to, how);
            let error = restore(&to, &new).await.unwrap_err().to_string();
            assert!(error.contains(&to.join(keys::FILE).display().to_string()) && !new.exists(), "{how}: {error}");
            mend(&to);
        }
        assert_eq!(restore(&to, &new).await.unwrap(), None);
    }

    #[test]
    fn people_are_told_which_keys_are_in_a_backup_and_which_are_not() {
        let (copied, elsewhere) = (Path::new("/backup/secrets.key"), Path::new("/etc/navvy/keys"));
        assert!(told_of_backup(Some(copied), None).ends_with(": /backup/secrets.key."));
        assert!(told_of_backup(None, None).contains("no keys of secrets"));
        assert!(told_of_restore(None, None).contains("cannot be read"));
        for copied in [Some(copied), None] {
            assert!(told_of_backup(copied, Some(elsewhere)).contains("those of /etc/navvy/keys"));
            assert!(told_of_restore(copied, Some(elsewhere)).contains("those of /etc/navvy/keys"));
        }
    }
}
