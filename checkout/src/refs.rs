//! Refs as files: loose ones below `refs/`, the others in `packed-refs`.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStringExt as _;

use super::CheckoutError;
use super::git_dir::{GitDir, Kind, LARGE, LINE};

/// How deep names of refs go.
const DEPTH: usize = 64;

/// All refs of a repository.
#[derive(Debug, Default)]
pub(super) struct Refs {
    direct: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Names and the names that they stand for.
    pub(super) symbolic: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Loose ones first: one that is packed meanwhile is found in the packed file then.
pub(super) fn read(git_dir: &GitDir) -> Result<Refs, CheckoutError> {
    let mut refs = Refs::default();
    refs.loose(git_dir, "refs", DEPTH)?;
    for line in git_dir.read("packed-refs", LARGE)?.unwrap_or_default().split(|byte| *byte == b'\n') {
        let Some((id, name)) = packed_line(line) else { continue };
        if !refs.symbolic.contains_key(name) && name.starts_with(b"refs/") {
            refs.direct.entry(name.to_vec()).or_insert_with(|| id.to_vec());
        }
    }
    Ok(refs)
}

/// `ID NAME`; nothing of comments, and of the lines that say what a tag leads to.
pub(super) fn packed_line(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let (id, name) = line.split_at_checked(line.iter().position(|byte| *byte == b' ')?)?;
    is_id(id).then_some((id, &name[1..]))
}

/// A full object name, SHA-1 or SHA-256.
pub(super) fn is_id(text: &[u8]) -> bool {
    matches!(text.len(), 40 | 64) && text.iter().all(u8::is_ascii_hexdigit)
}

impl Refs {
    fn loose(&mut self, git_dir: &GitDir, directory: &str, depth: usize) -> Result<(), CheckoutError> {
        for (name, kind) in git_dir.list(directory)? {
            // git's own names are all text without control characters; a lock is no ref.
            let Some(name) = String::from_utf8(name.into_vec()).ok().filter(|name| !name.contains(char::is_control))
            else {
                continue;
            };
            let name = format!("{directory}/{name}");
            match kind {
                Kind::Directory if depth > 0 => self.loose(git_dir, &name, depth - 1)?,
                Kind::File if !name.ends_with(".lock") => self.one(git_dir, name)?,
                Kind::Other(what) => {
                    let path = git_dir.join(name.as_bytes());
                    return Err(CheckoutError::NotPlain { path, what: what.to_owned() });
                }
                Kind::File | Kind::Directory => {}
            }
        }
        Ok(())
    }

    fn one(&mut self, git_dir: &GitDir, name: String) -> Result<(), CheckoutError> {
        let Some(text) = git_dir.read(&name, LINE)? else { return Ok(()) };
        let text = text.trim_ascii();
        match text.strip_prefix(b"ref:") {
            Some(target) => _ = self.symbolic.insert(name.into_bytes(), target.trim_ascii().to_vec()),
            None if is_id(text) => _ = self.direct.insert(name.into_bytes(), text.to_vec()),
            // A file that was never written, after a power cut.
            None => {}
        }
        Ok(())
    }

    /// The file of packed refs that has all the direct ones.
    pub(super) fn packed(&self) -> Vec<u8> {
        let mut text = b"# pack-refs with: sorted \n".to_vec();
        for (name, id) in &self.direct {
            text.extend([id, &b" "[..], name, b"\n"].concat());
        }
        text
    }
}
