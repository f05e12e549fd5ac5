//! Paths of a config as absolute ones inside the environment. Pure.

use super::{Frame, absolute};

impl Frame {
    /// Where a path of the config is: `~` is the home, a relative one is below the working directory; without `.` and
    /// `..`, as Go's `filepath.Join` cleans them.
    pub fn place(&self, path: &str) -> String {
        clean(&absolute(&self.directory(Some(path)), &self.home))
    }
}

/// An absolute path by its words alone: a link in it is not looked at.
pub fn clean(path: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_go_does() {
        for (path, wanted) in [("/a//b/./c/", "/a/b/c"), ("/a/../b", "/b"), ("/..", "/"), ("/", "/")] {
            assert_eq!(clean(path), wanted);
        }
    }
}
