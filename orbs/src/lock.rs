//! `.circleci/orbs.lock`: what every reference was resolved to, and the digest of what was there.
//!
//! ```text
//! # comment
//! version 1
//! REFERENCE VERSION sha256:DIGEST        sorted, one a line; VERSION is - for an orb by address
//! ```

use std::path::Path;

use navvy_config::OrbReference;
use sha2::{Digest as _, Sha256};

const HEAD: &str = "# What the orbs that this project's configs name were resolved to, and the digests of their sources.\n\
                    # `navvy orb lock` writes it anew; keep it with the config (docs/orbs.md).\nversion 1\n";

/// A lock file; empty if the file does not exist.
#[derive(Debug, Clone, Default)]
pub struct Lock {
    /// How messages call the file.
    pub shown: String,
    /// Sorted by reference.
    entries: Vec<Entry>,
}

/// A line of the lock.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// What configs write.
    pub reference: OrbReference,
    /// The same orb in the version that it was resolved to.
    pub resolved: OrbReference,
    /// SHA-256 of the source, in hexadecimal.
    pub digest: String,
    /// In the file, from 1; 0 when it is new.
    pub line: usize,
}

/// A lock file that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("{shown}:{line}: {problem}")]
pub struct LockError {
    shown: String,
    line: usize,
    problem: &'static str,
}

impl Lock {
    /// A lock without entries; `shown` is what messages call the file.
    pub fn empty(shown: &str) -> Self {
        Self { shown: shown.to_owned(), entries: Vec::new() }
    }

    /// # Errors
    /// A line that is no line of a lock.
    pub fn parse(shown: &str, text: &str) -> Result<Self, LockError> {
        let mut lock = Self::empty(shown);
        for (index, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let problem = |problem| LockError { shown: shown.to_owned(), line: index + 1, problem };
            match words[..] {
                [] | ["version", "1"] => {}
                [first, ..] if first.starts_with('#') => {}
                ["version", ..] => return Err(problem("a newer navvy wrote this lock")),
                [reference, version, digest] => {
                    lock.entries.push(entry(reference, version, digest, index + 1).map_err(problem)?);
                }
                _ => return Err(problem("a line of a lock is REFERENCE VERSION sha256:DIGEST")),
            }
        }
        lock.entries.sort();
        Ok(lock)
    }

    /// What a config's reference stands for; `None` if the lock has nothing of it.
    pub fn entry(&self, reference: &OrbReference) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.reference == *reference)
    }

    /// Any entry that was resolved to exactly this.
    pub fn resolved(&self, resolved: &OrbReference) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.resolved == *resolved)
    }

    /// Adds or replaces; says whether that changed anything.
    pub fn set(&mut self, reference: &OrbReference, resolved: &OrbReference, digest: &str) -> bool {
        let entry = Entry { reference: reference.clone(), resolved: resolved.clone(), digest: digest.into(), line: 0 };
        match self.entries.iter_mut().find(|known| known.reference == *reference) {
            Some(known) if known.resolved == entry.resolved && known.digest == entry.digest => return false,
            Some(known) => *known = entry,
            None => self.entries.push(entry),
        }
        self.entries.sort();
        true
    }

    /// Gives every entry of this version another digest; says whether there was one.
    pub fn relock(&mut self, resolved: &OrbReference, digest: &str) -> bool {
        let mut any = false;
        for entry in self.entries.iter_mut().filter(|entry| entry.resolved == *resolved && entry.digest != digest) {
            digest.clone_into(&mut entry.digest);
            any = true;
        }
        any
    }

    /// Does it lock nothing?
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The text of the file, sorted.
    pub fn render(&self) -> String {
        let mut text = HEAD.to_owned();
        for Entry { reference, resolved, digest, .. } in &self.entries {
            let version = resolved.version().map_or_else(|| "-".to_owned(), ToString::to_string);
            text.push_str(&format!("{reference} {version} sha256:{digest}\n"));
        }
        text
    }

    /// Writes the file, which is one of this project.
    ///
    /// # Errors
    /// The file system's, or a link leads out of the project.
    pub fn write(&self, path: &Path, project: &Path) -> std::io::Result<()> {
        super::place::write(path, Some(project), &self.render())
    }
}

fn entry(reference: &str, version: &str, digest: &str, line: usize) -> Result<Entry, &'static str> {
    let reference: OrbReference = reference.parse().map_err(|_| "this line begins with no reference to an orb")?;
    let resolved = match (&reference, version) {
        (OrbReference::Url(_), "-") => reference.clone(),
        (OrbReference::Url(_), _) => return Err("an orb by address has the version -"),
        _ => reference.at(version.parse().map_err(|_| "this line holds no version")?),
    };
    if !reference.version().zip(resolved.version()).is_none_or(|(rule, version)| rule.covers(version)) {
        return Err("the locked version does not match the reference");
    }
    let digest = digest.strip_prefix("sha256:").filter(|hex| hex.len() == 64 && hex.bytes().all(is_hex));
    let digest = digest.ok_or("this line ends with no digest: sha256:, and 64 digits and letters from a to f")?;
    Ok(Entry { reference, resolved, digest: digest.to_owned(), line })
}

fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// The digest of an orb's source as a lock holds it.
pub fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(line: &str) -> String {
        Lock::parse("orbs.lock", &format!("version 1\n{line}\n"))
            .map(|_| String::new())
            .unwrap_or_else(|e| e.to_string())
    }

    #[test]
    fn a_lock_is_read_as_it_was_written() {
        let mut lock = Lock::default();
        let (node, slack) = ("circleci/node@5".parse().unwrap(), "circleci/slack@4.1".parse().unwrap());
        assert!(lock.set(&slack, &"circleci/slack@4.1.0".parse().unwrap(), &digest("s")));
        assert!(lock.set(&node, &"circleci/node@5.2.0".parse().unwrap(), &digest("n")));
        assert!(!lock.set(&node, &"circleci/node@5.2.0".parse().unwrap(), &digest("n")));
        let url = "https://h.example/o.yml".parse().unwrap();
        assert!(lock.set(&url, &url, &digest("u")));
        let text = lock.render();
        assert_eq!(Lock::parse("", &text).unwrap().render(), text);
        assert!(lock.relock(&"circleci/node@5.2.0".parse().unwrap(), &digest("other")));
        assert_ne!(lock.render(), text);
        insta::assert_snapshot!(text, @r##"
        # What the orbs that this project's configs name were resolved to, and the digests of their sources.
        # `navvy orb lock` writes it anew; keep it with the config (docs/orbs.md).
        version 1
        circleci/node@5 5.2.0 sha256:1b16b1df538ba12dc3f97edbb85caa7050d46c148134290feba80f8236c83db9
        circleci/slack@4.1 4.1.0 sha256:043a718774c572bd8a25adbeb1bfcd5c0256ae11cecf9f9c3f925d0e52beaf89
        https://h.example/o.yml - sha256:0bfe935e70c321c7ca3afc75ce0d0ca2f98b5422e008bb31c00c6d7f1f1c0ad6
        "##);
    }

    #[test]
    fn a_lock_is_written_into_its_project_alone() {
        let (outside, project) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (directory, lock) = (project.path().join(".circleci"), Lock::default());
        std::os::unix::fs::symlink(outside.path(), &directory).unwrap();
        let told = lock.write(&directory.join("orbs.lock"), project.path()).unwrap_err().to_string();
        assert!(told.contains("leads out of"), "{told}");
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
        std::fs::remove_file(&directory).unwrap();
        lock.write(&directory.join("orbs.lock"), project.path()).unwrap();
        assert_eq!(std::fs::read_to_string(directory.join("orbs.lock")).unwrap(), lock.render());
    }

    #[test]
    fn what_is_no_lock_is_told_by_line() {
        let hex = "0".repeat(64);
        assert_eq!(problem(&format!("a/b@1 1.0.0 sha256:{hex}  \n# x\n\n")), "");
        assert_eq!(problem("a/b@1 1.0.0"), "orbs.lock:2: a line of a lock is REFERENCE VERSION sha256:DIGEST");
        assert_eq!(problem("b@1 1.0.0 sha256:0"), "orbs.lock:2: this line begins with no reference to an orb");
        assert_eq!(problem(&format!("a/b@1 x sha256:{hex}")), "orbs.lock:2: this line holds no version");
        let other = problem(&format!("a/b@1 2.0.0 sha256:{hex}"));
        assert_eq!(other, "orbs.lock:2: the locked version does not match the reference");
        assert!(problem("a/b@1 1.0.0 sha256:ABC").contains("ends with no digest"));
        assert_eq!(problem("version 2"), "orbs.lock:2: a newer navvy wrote this lock");
    }
}
