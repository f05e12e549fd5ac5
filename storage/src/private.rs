//! A store that is a directory is its user's alone: directories of mode 0700, files of mode 0600.
//!
//! One that others may write into is shared on purpose, and stays so.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use super::layout;

const FOR_OTHERS: u32 = 0o077;
const WRITABLE_FOR_OTHERS: u32 = 0o022;

/// Makes the directory, closed to others; closes one that an earlier version left open for reading.
pub(super) fn make(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let mode = fs::metadata(directory)?.mode();
    let is_open = mode & FOR_OTHERS != 0 && mode & WRITABLE_FOR_OTHERS == 0;
    if is_open && directory.join(layout::IF_ABSENT).exists() {
        // Another user's is theirs to close.
        let _not_ours = fs::set_permissions(directory, Permissions::from_mode(0o700));
    }
    Ok(())
}

/// Closes what has just been written at `path` below the store's directory, and the directories on the way.
pub(super) fn close(root: &Path, path: &str) {
    if fs::metadata(root).is_ok_and(|found| found.mode() & FOR_OTHERS != 0) {
        return;
    }
    let file = root.join(path);
    let above = file.ancestors().skip(1).take_while(|directory| *directory != root);
    for (place, mode) in [(&*file, 0o600)].into_iter().chain(above.map(|directory| (directory, 0o700))) {
        // Removed again meanwhile; or on a file system without modes. The directory above them all is closed.
        let is_open = place.symlink_metadata().is_ok_and(|found| !found.is_symlink() && found.mode() & FOR_OTHERS != 0);
        if is_open {
            let _unchanged = fs::set_permissions(place, Permissions::from_mode(mode));
        }
    }
}

/// Closes a directory that was just made below the store's, and those on the way.
pub(super) fn close_directory(root: &Path, directory: &Path) {
    if fs::metadata(root).is_ok_and(|found| found.mode() & FOR_OTHERS != 0) {
        return;
    }
    for directory in directory.ancestors().take_while(|directory| *directory != root) {
        // On a file system without modes it stays as it is. The directory above them all is closed.
        let _unchanged = fs::set_permissions(directory, Permissions::from_mode(0o700));
    }
}

/// Makes a file that others may read only once [`close`] has seen that they may.
pub(super) fn create_new(file: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Bucket;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    fn modes(directory: &Path, found: &mut Vec<(bool, u32)>) {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            found.push((entry.path().is_dir(), mode(&entry.path())));
            if entry.path().is_dir() {
                modes(&entry.path(), found);
            }
        }
    }

    #[tokio::test]
    async fn a_store_s_directories_and_files_are_its_user_s_alone() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("share/store");
        let bucket = Bucket::directory(&root).unwrap();
        bucket.write("a/b/written", "x".into()).await.unwrap();
        bucket.create("c/created", "x".into()).await.unwrap();
        bucket.put("d/put", "x".into()).await.unwrap();
        let mut upload = bucket.upload("e/f/uploaded").await.unwrap();
        upload.put_part("x".into()).await.unwrap();
        upload.complete().await.unwrap();
        let mut found = vec![(true, mode(&root))];
        modes(&root, &mut found);
        assert!(found.len() > 10, "{found:?}");
        for (is_directory, mode) in &found {
            assert_eq!(*mode, if *is_directory { 0o700 } else { 0o600 }, "{found:?}");
        }
        fs::set_permissions(&root, Permissions::from_mode(0o755)).unwrap();
        Bucket::directory(&root).unwrap();
        assert_eq!(mode(&root), 0o700, "an earlier version's is closed");
    }

    #[tokio::test]
    async fn a_directory_that_others_may_write_into_and_one_that_is_no_store_stay_as_they_are() {
        let home = tempfile::tempdir().unwrap();
        for (name, wanted) in [("shared", 0o775), ("theirs", 0o755)] {
            let root = home.path().join(name);
            fs::create_dir(&root).unwrap();
            fs::set_permissions(&root, Permissions::from_mode(wanted)).unwrap();
            let bucket = Bucket::directory(&root).unwrap();
            bucket.write("a/b", "x".into()).await.unwrap();
            assert_eq!(mode(&root), wanted);
            assert_eq!(mode(&root.join("a/b")) & 0o044, 0o044, "its readers continue");
        }
    }
}
