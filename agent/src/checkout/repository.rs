//! Finds a repository and reads its HEAD and refs, without starting git.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{CheckoutError, GitError, git};

/// A symbolic ref that points to a symbolic ref that … is followed this often, as in git.
const SYMREF_DEPTH: usize = 5;

/// A working tree's repository on this machine.
#[derive(Debug, Clone)]
pub(super) struct Repository {
    /// Where the working tree begins.
    pub(super) top: PathBuf,
    /// Holds HEAD and the index; of a linked worktree its own.
    pub(super) git_dir: PathBuf,
    /// Holds refs, objects and config; shared by linked worktrees.
    pub(super) common_dir: PathBuf,
}

/// What HEAD says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Head {
    /// The full name of a ref, which need not exist yet.
    Ref(String),
    Detached(String),
}

impl Repository {
    /// Looks in `start` and above it, as git does: not across file systems. `start` is absolute.
    pub(super) fn discover(start: &Path) -> Result<Option<Self>, CheckoutError> {
        let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
        let home = device(start);
        for directory in start.ancestors() {
            if device(directory) != home {
                break;
            }
            if let Some(found) = Self::at(directory)? {
                return Ok(Some(found));
            }
            if is_git_dir(directory) {
                return Err(CheckoutError::NoWorkingTree { path: directory.to_owned() });
            }
        }
        Ok(None)
    }

    /// The repository whose working tree begins exactly here.
    pub(super) fn at(top: &Path) -> Result<Option<Self>, CheckoutError> {
        let link = top.join(".git");
        let Ok(meta) = fs::metadata(&link) else { return Ok(None) };
        if meta.is_dir() {
            let found = is_git_dir(&link).then(|| Self::with_dir(top, link));
            return Ok(found);
        }
        let bytes = fs::read(&link).map_err(CheckoutError::read(&link))?;
        let Some(target) = bytes.strip_prefix(b"gitdir: ") else { return Ok(None) };
        let target = top.join(path_from(target));
        if !is_git_dir(&target) {
            return Err(CheckoutError::BrokenLink { link, target });
        }
        Ok(Some(Self::with_dir(top, target)))
    }

    fn with_dir(top: &Path, git_dir: PathBuf) -> Self {
        let common_dir = common_dir(&git_dir);
        Self { top: top.to_owned(), git_dir, common_dir }
    }

    /// Every directory with objects: its own first, then its alternates and theirs.
    pub(super) fn object_dirs(&self) -> Vec<PathBuf> {
        let mut found = vec![self.common_dir.join("objects")];
        let mut next = 0;
        while next < found.len() {
            for line in lines(&found[next].join("info/alternates")) {
                let directory = found[next].join(path_from(&unquote(&line)));
                // Two that name each other end here.
                let directory = fs::canonicalize(&directory).unwrap_or(directory);
                if !line.starts_with(b"#") && !found.contains(&directory) {
                    found.push(directory);
                }
            }
            next += 1;
        }
        found
    }

    pub(super) fn head(&self) -> Result<Head, CheckoutError> {
        if self.has_reftable() {
            return self.head_from_git();
        }
        let path = self.git_dir.join("HEAD");
        let text = fs::read(&path).map_err(CheckoutError::read(path))?;
        let text = String::from_utf8_lossy(text.trim_ascii()).into_owned();
        Ok(text.strip_prefix("ref:").map(|name| Head::Ref(name.trim().to_owned())).unwrap_or(Head::Detached(text)))
    }

    /// The object a ref names at last; `None` if there is no such ref.
    pub(super) fn resolve(&self, name: &str) -> Result<Option<String>, CheckoutError> {
        if self.has_reftable() {
            return Ok(self.ask(&["rev-parse", "--quiet", "--verify", name])?);
        }
        let mut name = name.to_owned();
        for _ in 0..SYMREF_DEPTH {
            match self.loose_ref(&name) {
                Some(text) => match text.strip_prefix("ref:") {
                    Some(next) => name = next.trim().to_owned(),
                    None => return Ok(Some(text)),
                },
                None => return Ok(self.packed_ref(&name)),
            }
        }
        Ok(None)
    }

    /// Where a symbolic ref points to, if it is one.
    pub(super) fn symbolic(&self, name: &str) -> Result<Option<String>, CheckoutError> {
        if self.has_reftable() {
            return Ok(self.ask(&["symbolic-ref", "--quiet", name])?);
        }
        Ok(self.loose_ref(name).and_then(|text| text.strip_prefix("ref:").map(|next| next.trim().to_owned())))
    }

    fn loose_ref(&self, name: &str) -> Option<String> {
        let bytes = fs::read(self.common_dir.join(name)).ok()?;
        let text = String::from_utf8_lossy(bytes.trim_ascii()).into_owned();
        (!text.is_empty()).then_some(text)
    }

    fn packed_ref(&self, name: &str) -> Option<String> {
        lines(&self.common_dir.join("packed-refs")).find_map(|line| {
            let (id, rest) = line.split_at_checked(line.iter().position(|byte| *byte == b' ')?)?;
            (&rest[1..] == name.as_bytes()).then(|| String::from_utf8_lossy(id).into_owned())
        })
    }

    /// Refs in git's newer binary format, which only git reads.
    fn has_reftable(&self) -> bool {
        self.common_dir.join("reftable").is_dir()
    }

    fn head_from_git(&self) -> Result<Head, CheckoutError> {
        if let Some(name) = self.ask(&["symbolic-ref", "--quiet", "HEAD"])? {
            return Ok(Head::Ref(name));
        }
        let id = self.ask(&["rev-parse", "--quiet", "--verify", "HEAD"])?;
        Ok(Head::Detached(id.unwrap_or_default()))
    }

    fn ask(&self, arguments: &[&str]) -> Result<Option<String>, GitError> {
        let answer = git::query(&self.top, arguments, None)?;
        Ok(answer.map(|bytes| String::from_utf8_lossy(bytes.trim_ascii()).into_owned()))
    }
}

/// What git itself asks before it believes a directory to be a repository.
fn is_git_dir(path: &Path) -> bool {
    let common = common_dir(path);
    fs::symlink_metadata(path.join("HEAD")).is_ok() && common.join("objects").is_dir() && common.join("refs").is_dir()
}

fn common_dir(git_dir: &Path) -> PathBuf {
    match fs::read(git_dir.join("commondir")) {
        Ok(bytes) => git_dir.join(path_from(&bytes)),
        Err(_) => git_dir.to_owned(),
    }
}

/// A path as git writes one into a file: up to the end of the line.
fn path_from(bytes: &[u8]) -> PathBuf {
    let end = bytes.iter().rposition(|byte| !b"\r\n".contains(byte)).map_or(0, |last| last + 1);
    Path::new(std::ffi::OsStr::from_bytes(&bytes[..end])).to_owned()
}

/// A line of `alternates` may be quoted as in C.
fn unquote(line: &[u8]) -> Vec<u8> {
    let Some(inner) = line.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) else {
        return line.to_vec();
    };
    let mut plain = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'\\' {
            plain.push(*byte);
            continue;
        }
        let octal = rest.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(value) => {
                plain.push(value);
                rest = &rest[3..];
            }
            None => {
                if let Some((escaped, after)) = rest.split_first() {
                    plain.push(match escaped {
                        b'n' => b'\n',
                        b't' => b'\t',
                        other => *other,
                    });
                    rest = after;
                }
            }
        }
    }
    plain
}

/// The lines of a file, none if it is not there.
fn lines(path: &Path) -> impl Iterator<Item = Vec<u8>> {
    let file = fs::File::open(path).ok().map(io::BufReader::new);
    file.into_iter().flat_map(|reader| io::BufRead::split(reader, b'\n')).map_while(Result::ok)
}
