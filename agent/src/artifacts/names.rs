//! What a file is called among the artifacts (docs/artifacts.md). Pure; names are bytes.

use crate::step::paths::clean;

/// The names of what lies at one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The path in the archive: absolute, without its first slash.
    root: Vec<u8>,
    prefix: String,
}

impl Names {
    /// `place`: the absolute path. `path`, `destination`: as the config has them. Without a destination a file is
    /// called what the config calls it, `~` and all.
    pub fn new(place: &str, path: &str, destination: Option<&str>) -> Self {
        let prefix = clean(&format!("/{}", destination.unwrap_or(path)));
        Self { root: place.trim_matches('/').as_bytes().to_vec(), prefix: prefix.trim_matches('/').to_owned() }
    }

    /// The same names, for what lies elsewhere.
    pub fn of_place(self, place: &[u8]) -> Self {
        Self { root: place.to_vec(), ..self }
    }

    /// For people.
    pub fn prefix(&self) -> &str {
        if self.prefix.is_empty() { "." } else { &self.prefix }
    }

    /// The path in the archive of what was named.
    pub fn root(&self) -> &[u8] {
        &self.root
    }

    /// Of a path in the archive. `None`: it does not lie there.
    pub fn name(&self, path: &[u8]) -> Option<Vec<u8>> {
        let below = path.strip_prefix(&self.root[..])?;
        let below = match below.strip_prefix(b"/") {
            Some(below) => below,
            None if below.is_empty() || self.root.is_empty() => below,
            None => return None,
        };
        Some(match (self.prefix.as_bytes(), below) {
            // A file that was named itself, for the top: it needs some name.
            (b"", b"") => path.rsplit(|byte| *byte == b'/').next().unwrap_or_default().to_vec(),
            (prefix, b"") => prefix.to_vec(),
            (b"", below) => below.to_vec(),
            (prefix, below) => [prefix, b"/", below].concat(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(place: &str, path: &str, destination: Option<&str>, of: &str) -> Option<String> {
        let name = Names::new(place, path, destination).name(of.as_bytes());
        name.map(|name| String::from_utf8(name).unwrap())
    }

    #[test]
    fn without_a_destination_names_are_those_of_the_config() {
        let named = |place, path, of| name(place, path, None, of).unwrap();
        assert_eq!(named("/tmp/out/a.log", "/tmp/out/a.log", "tmp/out/a.log"), "tmp/out/a.log");
        assert_eq!(named("/tmp/out", "/tmp/out/", "tmp/out/b/a.log"), "tmp/out/b/a.log");
        assert_eq!(named("/home/c/p/out", "./out", "home/c/p/out/a"), "out/a");
        assert_eq!(named("/home/c/out", "~/out", "home/c/out/a"), "~/out/a");
        assert_eq!(named("/home/c/p", ".", "home/c/p/a/b"), "a/b");
        assert_eq!(named("/home/c/out", "../out", "home/c/out/a"), "out/a");
        assert_eq!(named("/", "/", "etc/passwd"), "etc/passwd");
    }

    #[test]
    fn a_destination_stands_before_a_directorys_names_and_is_a_files_name() {
        let named = |place, destination, of| name(place, "x", Some(destination), of).unwrap();
        assert_eq!(named("/w/out", "report", "w/out/a/b"), "report/a/b");
        assert_eq!(named("/w/out.txt", "report/log", "w/out.txt"), "report/log");
        assert_eq!(named("/w/out", "/../report/", "w/out/a"), "report/a");
        assert_eq!(named("/w/out", "", "w/out/a"), "a");
        assert_eq!(named("/w/out.txt", ".", "w/out.txt"), "out.txt");
    }

    #[test]
    fn what_lies_elsewhere_has_no_name() {
        assert_eq!(name("/w/out", "out", None, "w/outside"), None);
        assert_eq!(name("/w/out", "out", None, "etc/passwd"), None);
    }
}
