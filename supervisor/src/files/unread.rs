//! Where a search could not look, and why: that is never the same as finding nothing.

use std::collections::BTreeMap;
use std::io;

/// Errors by path, so that a place that is reached twice is reported once.
#[derive(Debug, Default)]
pub struct Unread(BTreeMap<Vec<u8>, io::Error>);

impl Unread {
    /// Takes down that looking at `path` failed, unless there is simply nothing.
    pub fn note(&mut self, path: &[u8], error: io::Error) {
        if !is_absence(&error) {
            self.0.entry(path.to_vec()).or_insert(error);
        }
    }

    /// In the order of their paths.
    pub fn into_all(self) -> impl ExactSizeIterator<Item = (Vec<u8>, io::Error)> {
        self.0.into_iter()
    }

    pub fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }
}

/// There is nothing of that name, or nothing can be below it.
pub fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
