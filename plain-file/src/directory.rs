//! What is in a directory, where a directory that cannot be read must not be taken for an empty one.

use std::fs::{self, DirEntry};
use std::io;
use std::path::Path;

/// All that is in a directory, in no order. One that is not there has nothing in it.
///
/// # Errors
/// It is there, or may be, and cannot be listed to its end.
pub fn entries(directory: &Path) -> io::Result<Vec<DirEntry>> {
    match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_directory_that_is_not_there_reads_as_empty() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("file"), "").unwrap();
        let names = entries(place.path()).unwrap().iter().map(DirEntry::file_name).collect::<Vec<_>>();
        assert_eq!(names, ["file"]);
        assert!(entries(&place.path().join("none")).unwrap().is_empty());
        assert_eq!(entries(&place.path().join("file")).unwrap_err().kind(), io::ErrorKind::NotADirectory);
    }
}
