//! Finds a repository and reads its HEAD and refs, without starting git.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use navvy_plain_file as plain_file;

use super::config::Settings;
use super::git_dir::{GitDir, LARGE, LINE, TEXT, is_absent};
use super::mirror::{Index, Mirror};
use super::refs::packed_line;
use super::{CheckoutError, Elsewhere, GitError, owner};

/// A symbolic ref that points to a symbolic ref that … is followed this often, as in git.
const SYMREF_DEPTH: usize = 5;

/// A working tree's repository on this machine.
#[derive(Debug, Clone)]
pub(super) struct Repository {
    /// Where the working tree begins.
    pub(super) top: PathBuf,
    /// Holds HEAD and the index; of a linked worktree its own.
    pub(super) git_dir: GitDir,
    /// Holds refs, objects and config; shared by linked worktrees.
    pub(super) common_dir: GitDir,
    elsewhere: Elsewhere,
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
    pub(super) fn discover(start: &Path, elsewhere: Elsewhere) -> Result<Option<Self>, CheckoutError> {
        let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).map_err(CheckoutError::read(path));
        let home = device(start)?;
        for directory in start.ancestors() {
            if device(directory)? != home {
                break;
            }
            let found = match Self::at(directory, elsewhere) {
                // git walks on, too: what another user keeps private above is not what the user stands in.
                Err(error) if directory != start && is_private_of_another(&error, directory) => continue,
                found => found?,
            };
            if let Some(found) = found {
                owner::check(&found)?;
                return Ok(Some(found));
            }
            if is_git_dir(directory)? {
                return Err(CheckoutError::NoWorkingTree { path: directory.to_owned() });
            }
        }
        Ok(None)
    }

    /// The repository whose working tree begins exactly here.
    pub(super) fn at(top: &Path, elsewhere: Elsewhere) -> Result<Option<Self>, CheckoutError> {
        let link = top.join(".git");
        let Some(meta) = present(&link, fs::symlink_metadata(&link))? else { return Ok(None) };
        let kind = match elsewhere {
            Elsewhere::Followed => fs::metadata(&link).map_err(CheckoutError::read(&link))?.file_type(),
            Elsewhere::Refused => meta.file_type(),
        };
        if kind.is_dir() {
            return Self::with_own(top, &link, elsewhere);
        }
        if !kind.is_file() {
            return Err(CheckoutError::NotPlain { path: link, what: plain_file::name_of(kind).to_owned() });
        }
        let bytes = plain_file::read(&link, LINE).map_err(CheckoutError::read(&link))?;
        let Some(target) = bytes.strip_prefix(b"gitdir: ") else { return Ok(None) };
        let target = top.join(path_from(target));
        if !is_git_dir(&target)? {
            return Err(CheckoutError::BrokenLink { link, target });
        }
        Self::linked(top, &link, &target, elsewhere).map(Some)
    }

    fn with_own(top: &Path, path: &Path, elsewhere: Elsewhere) -> Result<Option<Self>, CheckoutError> {
        if !is_git_dir(path)? {
            return Ok(None);
        }
        let git_dir = GitDir::open(path, elsewhere)?;
        // git writes this file where there are several working trees, and never here.
        let common = git_dir.read("commondir", LINE)?.map(|bytes| path.join(path_from(&bytes)));
        let common_dir = match common {
            None => git_dir.clone(),
            Some(common) if elsewhere == Elsewhere::Refused && !is_same(&common, path) => {
                return Err(CheckoutError::elsewhere(path.join("commondir"), "names", &common));
            }
            Some(common) => GitDir::open(&common, elsewhere)?,
        };
        Ok(Some(Self { top: top.to_owned(), git_dir, common_dir, elsewhere }))
    }

    /// A working tree whose `.git` is a file. git makes such a one in two cases, and in both the other side names this
    /// one, too: so no repository is read unless it names this one itself.
    fn linked(top: &Path, link: &Path, target: &Path, elsewhere: Elsewhere) -> Result<Self, CheckoutError> {
        let target = fs::canonicalize(target).map_err(CheckoutError::read(target))?;
        let git_dir = GitDir::open(&target, elsewhere)?;
        let common = git_dir.read("commondir", LINE)?.map(|bytes| target.join(path_from(&bytes)));
        let common_dir = match &common {
            None => git_dir.clone(),
            Some(common) => GitDir::open(common, elsewhere)?,
        };
        let found = Self { top: top.to_owned(), git_dir, common_dir, elsewhere };
        let knows = match (&common, elsewhere) {
            (_, Elsewhere::Followed) => true,
            (Some(common), _) => found.is_worktree_of(common, link)?,
            (None, _) => found.is_its_working_tree()?,
        };
        if knows { Ok(found) } else { Err(CheckoutError::elsewhere(link.to_owned(), "names", &target)) }
    }

    /// `REPOSITORY/.git/worktrees/NAME` is this git directory, and names the file that led to it.
    fn is_worktree_of(&self, common: &Path, link: &Path) -> Result<bool, CheckoutError> {
        let path = self.git_dir.path();
        let above = path.parent().filter(|above| above.file_name().is_some_and(|name| name == "worktrees"));
        let Some(repository) = above.and_then(Path::parent) else { return Ok(false) };
        let Some(back) = self.git_dir.read("gitdir", LINE)? else { return Ok(false) };
        Ok(is_same(common, repository) && is_same(&path.join(path_from(&back)), link))
    }

    /// A submodule's git directory says where its working tree is.
    fn is_its_working_tree(&self) -> Result<bool, CheckoutError> {
        let settings = Settings::local(self)?;
        // A value is what git has read, to its last byte: `sub` is not the directory `sub\r`.
        let back = settings.value("core", "worktree").map(|value| Path::new(std::ffi::OsStr::from_bytes(value)));
        Ok(back.is_some_and(|back| is_same(&self.git_dir.path().join(back), &self.top)))
    }

    /// Every directory with objects: its own first, then its alternates and theirs.
    pub(super) fn object_dirs(&self) -> Result<Vec<GitDir>, CheckoutError> {
        let mut found = vec![self.common_dir.directory("objects")?];
        let mut next = 0;
        while next < found.len() {
            for line in found[next].read("info/alternates", TEXT)?.unwrap_or_default().split(|byte| *byte == b'\n') {
                let line = line.trim_ascii();
                if line.is_empty() || line.starts_with(b"#") {
                    continue;
                }
                let directory = found[next].path().join(path_from(&unquote(line)));
                if self.elsewhere == Elsewhere::Refused {
                    let file = found[next].path().join("info/alternates");
                    return Err(CheckoutError::elsewhere(file, "borrows objects from", &directory));
                }
                // Two that name each other end here.
                let directory = fs::canonicalize(&directory).unwrap_or(directory);
                if !found.iter().any(|known| known.path() == directory) {
                    found.push(GitDir::open(&directory, self.elsewhere)?);
                }
            }
            next += 1;
        }
        Ok(found)
    }

    /// Files of patterns that this repository's settings name, as their content: git takes them in place of the user's.
    pub(super) fn excludes(&self, settings: &Settings) -> Result<Option<Vec<u8>>, CheckoutError> {
        let Some(value) = settings.value("core", "excludesfile").filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        let named = PathBuf::from(std::ffi::OsStr::from_bytes(value));
        let home = |rest: &Path| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(rest));
        let path = match named.strip_prefix("~").ok().map(home) {
            Some(below) => below.unwrap_or_else(|| named.clone()),
            None => self.top.join(&named),
        };
        let path = match (fs::canonicalize(&path), self.elsewhere) {
            // git goes on without it, too.
            (Err(_), _) => return Ok(None),
            (Ok(path), Elsewhere::Followed) => path,
            (Ok(path), Elsewhere::Refused) if fs::canonicalize(&self.top).is_ok_and(|top| path.starts_with(top)) => {
                path
            }
            (Ok(path), Elsewhere::Refused) => {
                let config = self.common_dir.path().join("config");
                return Err(CheckoutError::elsewhere(config, "has as core.excludesFile", &path));
            }
        };
        plain_file::read(&path, TEXT).map(Some).map_err(CheckoutError::read(path))
    }

    /// The index and its time.
    pub(super) fn index(&self) -> Result<Index, CheckoutError> {
        let Some((file, meta)) = self.git_dir.file(b"index")? else { return Ok(None) };
        let bytes = plain_file::rest(file, LARGE).map_err(CheckoutError::read(self.git_dir.join(b"index")))?;
        Ok(Some((bytes, meta.mtime())))
    }

    /// Names of the files in which a split index keeps most of itself.
    pub(super) fn shared_indexes(&self) -> Result<Vec<Vec<u8>>, CheckoutError> {
        let mut names = self.git_dir.files("")?;
        names.retain(|name| name.starts_with(b"sharedindex.") && !name.ends_with(b".lock"));
        Ok(names)
    }

    pub(super) fn head(&self) -> Result<Head, CheckoutError> {
        if self.has_reftable() {
            return self.head_from_git();
        }
        let text = self.head_line()?;
        let text = String::from_utf8_lossy(text.trim_ascii()).into_owned();
        Ok(text.strip_prefix("ref:").map(|name| Head::Ref(name.trim().to_owned())).unwrap_or(Head::Detached(text)))
    }

    /// HEAD as it is written: a ref's name or an object's, and nothing else.
    pub(super) fn head_line(&self) -> Result<Vec<u8>, CheckoutError> {
        let path = self.git_dir.join(b"HEAD");
        let missing = || CheckoutError::Read { path: path.clone(), source: io::ErrorKind::NotFound.into() };
        let text = self.git_dir.read("HEAD", LINE)?.ok_or_else(missing)?;
        let line = text.trim_ascii();
        let is_ref = line.strip_prefix(b"ref:").is_some_and(|name| name.trim_ascii_start().starts_with(b"refs/"));
        let is_line = !line.contains(&b'\n');
        if is_line && (is_ref || super::refs::is_id(line)) {
            return Ok([line, b"\n"].concat());
        }
        Err(CheckoutError::NotPlain { path, what: "neither a ref's name nor an object's".to_owned() })
    }

    /// The object a ref names at last; `None` if there is no such ref.
    pub(super) fn resolve(&self, name: &str) -> Result<Option<String>, CheckoutError> {
        if self.has_reftable() {
            return Ok(self.ask(&["rev-parse", "--quiet", "--verify", name])?);
        }
        let mut name = name.to_owned();
        for _ in 0..SYMREF_DEPTH {
            match self.loose_ref(&name)? {
                Some(text) => match text.strip_prefix("ref:") {
                    Some(next) => name = next.trim().to_owned(),
                    None => return Ok(super::refs::is_id(text.as_bytes()).then_some(text)),
                },
                None => return self.packed_ref(&name),
            }
        }
        Ok(None)
    }

    /// Where a symbolic ref points to, if it is one.
    pub(super) fn symbolic(&self, name: &str) -> Result<Option<String>, CheckoutError> {
        if self.has_reftable() {
            return Ok(self.ask(&["symbolic-ref", "--quiet", name])?);
        }
        let text = self.loose_ref(name)?;
        Ok(text.and_then(|text| text.strip_prefix("ref:").map(|next| next.trim().to_owned())))
    }

    fn loose_ref(&self, name: &str) -> Result<Option<String>, CheckoutError> {
        // A name may be a file's content; only such names are refs'.
        if !name.starts_with("refs/") || name.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Ok(None);
        }
        let bytes = match self.common_dir.read(name, LINE) {
            // `refs/heads/a` while there is `refs/heads/a/b`.
            Err(CheckoutError::NotPlain { .. }) if self.common_dir.has_directory(name) => None,
            other => other?,
        };
        let text = bytes.map(|bytes| String::from_utf8_lossy(bytes.trim_ascii()).into_owned());
        Ok(text.filter(|text| !text.is_empty()))
    }

    fn packed_ref(&self, name: &str) -> Result<Option<String>, CheckoutError> {
        let packed = self.common_dir.read("packed-refs", LARGE)?.unwrap_or_default();
        let mut lines = packed.split(|byte| *byte == b'\n').filter_map(packed_line);
        let found = lines.find(|(_, known)| *known == name.as_bytes());
        Ok(found.map(|(id, _)| String::from_utf8_lossy(id).into_owned()))
    }

    /// Refs in git's newer binary format, which only git reads.
    pub(super) fn has_reftable(&self) -> bool {
        self.common_dir.has_directory("reftable")
    }

    fn head_from_git(&self) -> Result<Head, CheckoutError> {
        if let Some(name) = self.ask(&["symbolic-ref", "--quiet", "HEAD"])? {
            return Ok(Head::Ref(name));
        }
        let id = self.ask(&["rev-parse", "--quiet", "--verify", "HEAD"])?;
        Ok(Head::Detached(id.unwrap_or_default()))
    }

    fn ask(&self, arguments: &[&str]) -> Result<Option<String>, GitError> {
        let mirror = Mirror::of(self)?;
        let answer = mirror.place().query(arguments, None)?;
        Ok(answer.map(|bytes| String::from_utf8_lossy(bytes.trim_ascii()).into_owned()))
    }
}

/// What git itself asks before it believes a directory to be a repository. Nothing of it is read.
fn is_git_dir(path: &Path) -> Result<bool, CheckoutError> {
    let has = |name: &str| {
        let path = path.join(name);
        present(&path, fs::symlink_metadata(&path)).map(|found| found.is_some())
    };
    let has_directory = |name: &str| {
        let path = path.join(name);
        present(&path, fs::metadata(&path)).map(|found| found.is_some_and(|meta| meta.is_dir()))
    };
    Ok(has("HEAD")? && (has("commondir")? || has_directory("objects")? && has_directory("refs")?))
}

/// Was a repository not to be looked at since it is another user's, and closed to this one?
fn is_private_of_another(error: &CheckoutError, top: &Path) -> bool {
    let is_refused =
        matches!(error, CheckoutError::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied);
    is_refused && owner::foreign_owner(&top.join(".git"), &[]).is_ok_and(|owner| owner.is_some())
}

/// What was found at a path; `None` if nothing is there. Whatever else keeps it from being looked at is an error: a
/// repository that is taken for a plain directory is copied with everything that it ignores.
fn present(path: &Path, looked: io::Result<fs::Metadata>) -> Result<Option<fs::Metadata>, CheckoutError> {
    match looked {
        Ok(meta) => Ok(Some(meta)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(source) => Err(CheckoutError::Read { path: path.to_owned(), source }),
    }
}

/// Do both lead to the same thing?
fn is_same(a: &Path, b: &Path) -> bool {
    fs::canonicalize(a).is_ok_and(|a| fs::canonicalize(b).is_ok_and(|b| a == b))
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// What cannot be looked at, if that is what was told.
    fn unreadable<T>(told: Result<T, CheckoutError>) -> Option<PathBuf> {
        match told {
            Err(CheckoutError::Read { path, .. }) => Some(path),
            _ => None,
        }
    }

    #[test]
    fn only_what_is_not_there_is_no_repository() {
        let top = tempfile::tempdir().unwrap();
        let at = |name: &str| top.path().join(name);
        fs::write(at("file"), "").unwrap();
        symlink("round", at("round")).unwrap();
        for name in [".", "none", "file"] {
            assert!(matches!(Repository::at(&at(name), Elsewhere::Refused), Ok(None)), "{name}");
            assert!(matches!(is_git_dir(&at(name)), Ok(false)), "{name}");
        }
        assert_eq!(unreadable(Repository::at(&at("round"), Elsewhere::Refused)), Some(at("round/.git")));
        assert_eq!(unreadable(is_git_dir(&at("round"))), Some(at("round/HEAD")));
    }

    #[test]
    fn what_another_user_keeps_private_above_is_none_of_ours_and_our_own_is_not_passed_over() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let top = tempfile::tempdir().unwrap();
        let git = top.path().join(".git");
        fs::create_dir(&git).unwrap();
        let told = |kind: io::ErrorKind| CheckoutError::read(git.join("HEAD"))(kind.into());
        assert!(!is_private_of_another(&told(io::ErrorKind::PermissionDenied), top.path()));
        std::os::unix::fs::chown(&git, Some(65534), None).unwrap();
        assert!(is_private_of_another(&told(io::ErrorKind::PermissionDenied), top.path()));
        assert!(!is_private_of_another(&told(io::ErrorKind::Other), top.path()));
    }

    #[test]
    fn a_repository_above_that_cannot_be_looked_at_is_not_passed_over() {
        let top = tempfile::tempdir().unwrap();
        let top = fs::canonicalize(top.path()).unwrap();
        for directory in [".git/refs", "deep/er"] {
            fs::create_dir_all(top.join(directory)).unwrap();
        }
        fs::write(top.join(".git/HEAD"), "ref: refs/heads/main\n").unwrap();
        let objects = top.join(".git/objects");
        symlink("objects", &objects).unwrap();
        for start in [top.clone(), top.join("deep/er")] {
            assert_eq!(unreadable(Repository::discover(&start, Elsewhere::Refused)), Some(objects.clone()));
        }
    }
}
