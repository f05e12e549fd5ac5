//! The working tree as it is now, as one tar stream with a `.git` made for it.
//!
//! ```text
//! open ──► Repository ──► git starts listing ┐
//!                    ├──► index, HEAD, refs  │ read first, into memory: what they name exists now
//!                    ├──► .git: config, refs, index, objects (straight from packs and loose files)
//!                    └──► files ◄────────────┘ in git's order; nested repositories recurse
//! ```
//!
//! Three kinds of tree recurse into each other: a repository (what git lists), a submodule or nested repository (the
//! same again, with its own `.git` directory), and a plain directory (everything in it).

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::CheckoutError;
use super::archive::{Archive, ArchiveError, Content};
use super::config::Settings;
use super::git::{self, Running};
use super::objects::Objects;
use super::repository::{Head, Repository};

/// Refs that go along. Stash, notes of other tools and hosting's own (`refs/pull`) stay here.
const REFS: [&str; 5] = ["refs/heads", "refs/tags", "refs/remotes", "refs/notes", "refs/replace"];

/// Files of the git directory that `git status` and `git log` read, beside HEAD, index, config and refs.
const STATE: [&str; 8] = [
    "MERGE_HEAD",
    "MERGE_MODE",
    "MERGE_MSG",
    "CHERRY_PICK_HEAD",
    "REVERT_HEAD",
    "BISECT_START",
    "BISECT_LOG",
    "info/sparse-checkout",
];

/// Directories of a rebase in progress.
const STATE_DIRS: [&str; 2] = ["rebase-merge", "rebase-apply"];

/// How a line of HEAD's log begins that tells of a switch.
const SWITCH: &[u8] = b"checkout: moving from ";

/// Files all worktrees share.
const SHARED: [&str; 3] = ["shallow", "info/exclude", "info/attributes"];

/// A directory that jobs get a copy of.
#[derive(Debug, Clone)]
pub struct WorkingTree {
    top: PathBuf,
    repository: Option<Repository>,
}

/// What went into a stream, and what did not.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
#[must_use]
pub struct TreeReport {
    /// Files of the tree, without those of `.git`.
    pub files: u64,
    pub symlinks: u64,
    /// Bytes of content, `.git` included.
    pub bytes: u64,
    /// False: no repository; the whole directory went in, and nothing was ignored.
    pub is_repository: bool,
    /// Nested repositories and submodules, each with a `.git` of its own.
    pub nested: Vec<PathBuf>,
    /// Objects that are not here cannot be fetched in the job without credentials.
    pub partial_clone: bool,
    /// Object files kept vanishing while they were sent.
    pub objects_incomplete: bool,
    pub left_out: Vec<LeftOut>,
}

/// Something of the tree that is not, or not exactly, in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Relative to the top of the tree.
    pub path: PathBuf,
    pub reason: Reason,
}

/// Why it is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    Socket,
    Fifo,
    Device,
    /// We may not read it.
    Unreadable,
    /// A `.git` that is no repository, or whose repository is gone; its directory is there without files.
    BrokenRepository,
    /// It is there, but it became shorter while it was read: zeros follow.
    Shrunk,
    /// It is there, but it became longer while it was read: the rest is missing.
    Grown,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Socket => "a socket",
            Self::Fifo => "a named pipe",
            Self::Device => "a device",
            Self::Unreadable => "not readable",
            Self::BrokenRepository => "a .git that git would not accept",
            Self::Shrunk => "became shorter while it was read",
            Self::Grown => "became longer while it was read",
        })
    }
}

impl WorkingTree {
    /// The repository that `start` is in, as a whole; without one, the directory itself.
    pub fn open(start: &Path) -> Result<Self, CheckoutError> {
        let start = fs::canonicalize(start).map_err(CheckoutError::read(start))?;
        if !start.is_dir() {
            return Err(CheckoutError::NotADirectory { path: start });
        }
        let repository = Repository::discover(&start)?;
        let top = repository.as_ref().map_or(start, |repository| repository.top.clone());
        Ok(Self { top, repository })
    }

    /// Where the tree begins on the host.
    pub fn root(&self) -> &Path {
        &self.top
    }

    /// Is there a repository, or only a directory?
    pub fn is_repository(&self) -> bool {
        self.repository.is_some()
    }

    /// Writes the tree as it is now. Blocks; names in the stream are relative to the top.
    pub fn stream(&self, sink: impl Write) -> Result<TreeReport, CheckoutError> {
        let report = TreeReport { is_repository: self.is_repository(), ..TreeReport::default() };
        let mut copy = Copy { archive: Archive::new(sink), report };
        match &self.repository {
            Some(repository) => copy.repository(repository, b"")?,
            None => copy.plain(&self.top, b"")?,
        }
        copy.report.bytes = copy.archive.written();
        copy.archive.finish().map_err(CheckoutError::Write)?;
        Ok(copy.report)
    }
}

/// So many paths of one kind are named; the rest is counted.
const NAMED: usize = 20;

impl TreeReport {
    /// What a person should know of the copy, a line each; nothing if it is the tree, whole.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if !self.is_repository {
            lines.push("There is no git repository: the whole directory was copied, nothing ignored".to_owned());
        }
        if self.partial_clone {
            lines
                .push("This is a partial clone: objects that are not on the host may be missing in the job".to_owned());
        }
        if self.objects_incomplete {
            lines
                .push("Objects kept vanishing while they were copied; is `git gc` running again and again?".to_owned());
        }
        lines.extend(self.left_out.iter().take(NAMED).map(LeftOut::line));
        if self.left_out.len() > NAMED {
            lines.push(format!("… and {} more", self.left_out.len() - NAMED));
        }
        lines
    }
}

impl LeftOut {
    /// The path is quoted, for its bytes are anybody's.
    fn line(&self) -> String {
        let what = match self.reason {
            Reason::Shrunk | Reason::Grown => "Not exact",
            _ => "Left out",
        };
        format!("{what}: {:?}: {}", self.path, self.reason)
    }
}

/// A stream being written. Names are relative to the top of the whole; a prefix is empty or ends with a slash.
struct Copy<W: Write> {
    archive: Archive<W>,
    report: TreeReport,
}

/// What git had to say about a repository when its copy began.
struct Snapshot {
    settings: Settings,
    refs: Vec<u8>,
    head: Vec<u8>,
    is_detached: bool,
    index: Option<(Vec<u8>, i64)>,
}

impl<W: Write> Copy<W> {
    fn repository(&mut self, repository: &Repository, prefix: &[u8]) -> Result<(), CheckoutError> {
        let listing = Running::start(
            &repository.top,
            &["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--full-name"],
        )?;
        let snapshot = Snapshot::take(repository)?;
        self.git_dir(repository, &snapshot, &join(prefix, b".git/"))?;
        self.files(repository, listing, prefix)
    }

    fn git_dir(&mut self, repository: &Repository, snapshot: &Snapshot, prefix: &[u8]) -> Result<(), CheckoutError> {
        self.report.partial_clone |= snapshot.settings.is_partial_clone();
        for directory in ["", "info", "objects", "refs", "refs/heads", "refs/tags"] {
            let name = join(prefix, directory.as_bytes());
            self.made_directory(name.strip_suffix(b"/").unwrap_or(&name))?;
        }
        self.made_file(&join(prefix, b"HEAD"), &snapshot.head)?;
        self.made_file(&join(prefix, b"config"), &snapshot.settings.for_copy())?;
        self.refs(&snapshot.refs, prefix)?;
        if let Some((index, mtime)) = &snapshot.index {
            // Its time tells git which of its entries may have changed within the same second.
            self.archive.bytes(&join(prefix, b"index"), 0o644, *mtime, index).map_err(CheckoutError::Write)?;
        }
        self.state(repository, prefix)?;
        if snapshot.is_detached {
            self.detached(repository, prefix)?;
        }
        let objects = Objects::new(repository.object_dirs());
        if !objects.stream(&mut self.archive, &join(prefix, b"objects/"))? {
            self.report.objects_incomplete = true;
        }
        Ok(())
    }

    /// Symbolic refs as files, all others in one packed file.
    fn refs(&mut self, listed: &[u8], prefix: &[u8]) -> Result<(), CheckoutError> {
        let mut packed = b"# pack-refs with: sorted \n".to_vec();
        for line in listed.split(|byte| *byte == b'\n') {
            let mut fields = line.splitn(3, |byte| *byte == b' ');
            let (Some(id), Some(name), Some(target)) = (fields.next(), fields.next(), fields.next()) else { continue };
            if target.is_empty() {
                packed.extend_from_slice(&[id, b" ", name, b"\n"].concat());
            } else {
                self.made_file(&join(prefix, name), &[b"ref: ", target, b"\n"].concat())?;
            }
        }
        self.made_file(&join(prefix, b"packed-refs"), &packed)
    }

    fn state(&mut self, repository: &Repository, prefix: &[u8]) -> Result<(), CheckoutError> {
        for name in STATE {
            self.state_file(&repository.git_dir.join(name), &join(prefix, name.as_bytes()))?;
        }
        for name in SHARED {
            self.state_file(&repository.common_dir.join(name), &join(prefix, name.as_bytes()))?;
        }
        for directory in STATE_DIRS {
            self.state_dir(&repository.git_dir.join(directory), &join(prefix, directory.as_bytes()), |_| true)?;
        }
        // A split index keeps most of itself in such files.
        self.state_dir(&repository.git_dir, prefix, |name| name.starts_with(b"sharedindex."))
    }

    /// "HEAD detached at v1" is what git makes of the last switch in HEAD's log; that line goes along, without its person.
    fn detached(&mut self, repository: &Repository, prefix: &[u8]) -> Result<(), CheckoutError> {
        let Ok(log) = fs::read(repository.git_dir.join("logs/HEAD")) else { return Ok(()) };
        let switch = |line: &&[u8]| line.splitn(2, |byte| *byte == b'\t').nth(1).is_some_and(|m| m.starts_with(SWITCH));
        let Some(line) = log.split(|byte| *byte == b'\n').rfind(switch) else { return Ok(()) };
        let mut fields = line.split(|byte| b" \t".contains(byte));
        let (Some(_), Some(id)) = (fields.next(), fields.next()) else { return Ok(()) };
        let message = line.splitn(2, |byte| *byte == b'\t').nth(1).unwrap_or_default();
        // git takes a line of time 0 for a broken one.
        let line = [id, b" ", id, b" navvy <navvy@localhost> 1 +0000\t", message, b"\n"].concat();
        self.made_directory(&join(prefix, b"logs"))?;
        self.made_file(&join(prefix, b"logs/HEAD"), &line)
    }

    fn state_file(&mut self, path: &Path, name: &[u8]) -> Result<(), CheckoutError> {
        match fs::read(path) {
            Ok(content) => self.made_file(name, &content),
            Err(error) if is_absent(&error) => Ok(()),
            Err(source) => Err(CheckoutError::Read { path: path.to_owned(), source }),
        }
    }

    fn state_dir(
        &mut self,
        directory: &Path,
        name: &[u8],
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Result<(), CheckoutError> {
        let Ok(entries) = fs::read_dir(directory) else { return Ok(()) };
        for entry in entries.filter_map(Result::ok) {
            let file = entry.file_name().into_vec();
            if wanted(&file) && !file.ends_with(b".lock") && entry.file_type().is_ok_and(|kind| kind.is_file()) {
                let slash: &[u8] = if name.ends_with(b"/") { b"" } else { b"/" };
                self.state_file(&entry.path(), &[name, slash, &file].concat())?;
            }
        }
        Ok(())
    }

    /// Everything git lists: tracked, and untracked but not ignored.
    fn files(&mut self, repository: &Repository, mut listing: Running, prefix: &[u8]) -> Result<(), CheckoutError> {
        let mut directories = Directories::new(repository.top.clone());
        self.specials(&repository.top, b"", &mut directories)?;
        let mut last = Vec::new();
        for name in listing.stdout().map(|pipe| BufReader::new(pipe).split(0)).into_iter().flatten() {
            let name = name.map_err(CheckoutError::read(&repository.top))?;
            // A conflict lists a name once a side.
            if name != last {
                self.listed(&name, &mut directories, prefix)?;
                last = name;
            }
        }
        listing.finish()?;
        self.name_specials(repository, directories.specials, prefix)
    }

    fn listed(&mut self, name: &[u8], directories: &mut Directories, prefix: &[u8]) -> Result<(), CheckoutError> {
        let name = name.strip_suffix(b"/").unwrap_or(name);
        let parent = name.iter().rposition(|byte| *byte == b'/').map_or(&b""[..], |at| &name[..at]);
        if !self.enter(parent, directories, prefix)? {
            return Ok(());
        }
        let path = directories.path(name);
        let Some(meta) = self.metadata(&path, &join(prefix, name))? else { return Ok(()) };
        if meta.is_dir() {
            self.nested(&path, &join(prefix, name))
        } else {
            self.item(&path, &meta, &join(prefix, name))
        }
    }

    /// Makes sure that a directory of the tree is in the stream. False if it is none: what git lists below it is then
    /// deleted, even if the path leads somewhere through a symlink.
    fn enter(&mut self, name: &[u8], directories: &mut Directories, prefix: &[u8]) -> Result<bool, CheckoutError> {
        if name.is_empty() {
            return Ok(true);
        }
        if let Some(known) = directories.known(name) {
            return Ok(known);
        }
        let parent = name.iter().rposition(|byte| *byte == b'/').map_or(&b""[..], |at| &name[..at]);
        let path = directories.path(name);
        let mut is_directory = self.enter(parent, directories, prefix)?;
        if is_directory {
            is_directory = self.enter_last(&path, &join(prefix, name))?;
        }
        if is_directory {
            self.specials(&path, &join(name, b"/"), directories)?;
        }
        directories.remember(name, is_directory);
        Ok(is_directory)
    }

    fn enter_last(&mut self, path: &Path, name: &[u8]) -> Result<bool, CheckoutError> {
        match self.metadata(path, name)? {
            Some(meta) if meta.is_dir() => self.directory(name, &meta).map(|()| true),
            _ => Ok(false),
        }
    }

    /// A directory that git lists as one entry: a submodule, a repository git does not know, or what replaced a file.
    fn nested(&mut self, path: &Path, name: &[u8]) -> Result<(), CheckoutError> {
        let meta = fs::symlink_metadata(path).map_err(CheckoutError::read(path))?;
        self.directory(name, &meta)?;
        match Repository::at(path) {
            Ok(Some(repository)) => {
                self.report.nested.push(path_of(name));
                self.repository(&repository, &join(name, b"/"))
            }
            // Not checked out.
            Ok(None) => Ok(()),
            Err(CheckoutError::BrokenLink { .. }) => {
                self.leave_out(name, Reason::BrokenRepository);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// A directory of no repository, with everything in it; `name` is empty or ends with a slash.
    fn plain(&mut self, directory: &Path, name: &[u8]) -> Result<(), CheckoutError> {
        let mut entries: Vec<_> = match fs::read_dir(directory) {
            Ok(entries) => entries.filter_map(Result::ok).map(|entry| entry.file_name()).collect(),
            Err(error) if is_absent(&error) => return Ok(()),
            Err(_) => return self.unreadable(name),
        };
        entries.sort_unstable();
        for entry in entries {
            self.plain_entry(&directory.join(&entry), &join(name, entry.as_bytes()))?;
        }
        Ok(())
    }

    fn plain_entry(&mut self, path: &Path, name: &[u8]) -> Result<(), CheckoutError> {
        if path.file_name() == Some(OsStr::new(".git")) {
            // Of a repository it has been made already; anything else of that name may hold credentials.
            self.leave_out(name, Reason::BrokenRepository);
            return Ok(());
        }
        let Some(meta) = self.metadata(path, name)? else { return Ok(()) };
        if !meta.is_dir() {
            return self.item(path, &meta, name);
        }
        if matches!(Repository::at(path), Ok(Some(_))) {
            return self.nested(path, name);
        }
        self.directory(name, &meta)?;
        self.plain(path, &join(name, b"/"))
    }

    /// Anything but a directory.
    fn item(&mut self, path: &Path, meta: &Metadata, name: &[u8]) -> Result<(), CheckoutError> {
        let kind = meta.file_type();
        if kind.is_symlink() {
            return self.symlink(path, meta, name);
        }
        if let Some(reason) = special(kind) {
            self.leave_out(name, reason);
            return Ok(());
        }
        // Should a pipe or a link have taken its place by now, it is neither waited for nor followed.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
        match opened.and_then(|file| file.metadata().map(|meta| (file, meta))) {
            Ok((file, meta)) if meta.is_file() => self.file(file, &meta, name),
            Err(error) if is_absent(&error) => Ok(()),
            Ok(_) | Err(_) => self.unreadable(name),
        }
    }

    fn file(&mut self, file: File, meta: &Metadata, name: &[u8]) -> Result<(), CheckoutError> {
        match self.archive.file(name, file, meta) {
            Ok(Content::Whole) => {}
            Ok(Content::Shrunk) => self.leave_out(name, Reason::Shrunk),
            Ok(Content::Grown) => self.leave_out(name, Reason::Grown),
            Err(ArchiveError::Read(_)) => return self.unreadable(name),
            Err(ArchiveError::Write(error)) => return Err(CheckoutError::Write(error)),
        }
        self.report.files += 1;
        Ok(())
    }

    fn symlink(&mut self, path: &Path, meta: &Metadata, name: &[u8]) -> Result<(), CheckoutError> {
        match fs::read_link(path) {
            Ok(target) => {
                self.report.symlinks += 1;
                let target = target.into_os_string().into_vec();
                self.archive.symlink(name, &target, meta.mtime()).map_err(CheckoutError::Write)
            }
            Err(error) if is_absent(&error) => Ok(()),
            Err(_) => self.unreadable(name),
        }
    }

    fn directory(&mut self, name: &[u8], meta: &Metadata) -> Result<(), CheckoutError> {
        self.archive.directory(name, meta.mtime()).map_err(CheckoutError::Write)
    }

    /// git never lists sockets and the like, so they are looked for where files are.
    fn specials(&mut self, path: &Path, name: &[u8], directories: &mut Directories) -> Result<(), CheckoutError> {
        // Unreadable ones have no listed files but tracked ones, and those are named themselves.
        for entry in fs::read_dir(path).into_iter().flatten().filter_map(Result::ok) {
            if let Some(reason) = entry.file_type().ok().and_then(special) {
                directories.specials.push((join(name, entry.file_name().as_bytes()), reason));
            }
        }
        Ok(())
    }

    /// Reports special files, but not those that an ignore rule matches.
    fn name_specials(
        &mut self,
        repository: &Repository,
        specials: Vec<(Vec<u8>, Reason)>,
        prefix: &[u8],
    ) -> Result<(), CheckoutError> {
        if specials.is_empty() {
            return Ok(());
        }
        let input = specials.iter().flat_map(|(name, _)| [name, &b"\0"[..]].concat()).collect();
        let ignored = git::query(&repository.top, &["check-ignore", "-z", "--stdin"], Some(input))?.unwrap_or_default();
        for (name, reason) in specials {
            let name_ignored = ignored.split(|byte| *byte == 0).any(|ignored| ignored == name);
            let name = join(prefix, &name);
            if !name_ignored && !self.report.left_out.iter().any(|left| left.path == path_of(&name)) {
                self.leave_out(&name, reason);
            }
        }
        Ok(())
    }

    /// `None` if it is gone: deleted. What cannot even be looked at is named.
    fn metadata(&mut self, path: &Path, name: &[u8]) -> Result<Option<Metadata>, CheckoutError> {
        match fs::symlink_metadata(path) {
            Ok(meta) => Ok(Some(meta)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(_) => self.unreadable(name).map(|()| None),
        }
    }

    fn made_file(&mut self, name: &[u8], content: &[u8]) -> Result<(), CheckoutError> {
        self.archive.bytes(name, 0o644, 0, content).map_err(CheckoutError::Write)
    }

    fn made_directory(&mut self, name: &[u8]) -> Result<(), CheckoutError> {
        self.archive.directory(name, 0).map_err(CheckoutError::Write)
    }

    fn unreadable(&mut self, name: &[u8]) -> Result<(), CheckoutError> {
        self.leave_out(name, Reason::Unreadable);
        Ok(())
    }

    fn leave_out(&mut self, name: &[u8], reason: Reason) {
        self.report.left_out.push(LeftOut { path: path_of(name), reason });
    }
}

impl Snapshot {
    /// Refs and index are read before any object, so everything they name is in the objects listed afterwards.
    fn take(repository: &Repository) -> Result<Self, CheckoutError> {
        let format = "--format=%(objectname) %(refname) %(symref)";
        let mut arguments = vec!["for-each-ref", format];
        arguments.extend(REFS);
        let refs = git::output(&repository.top, &arguments)?;
        let settings = Settings::read(&repository.top)?;
        let (head, is_detached) = match repository.head()? {
            Head::Ref(name) => (format!("ref: {name}\n"), false),
            Head::Detached(id) => (format!("{id}\n"), true),
        };
        let index = read_index(&repository.git_dir.join("index"))?;
        Ok(Self { settings, refs, head: head.into_bytes(), is_detached, index })
    }
}

fn read_index(path: &Path) -> Result<Option<(Vec<u8>, i64)>, CheckoutError> {
    let read = File::open(path).and_then(|mut file| {
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut file, &mut bytes)?;
        Ok((bytes, file.metadata()?.mtime()))
    });
    match read {
        Ok(index) => Ok(Some(index)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(CheckoutError::Read { path: path.to_owned(), source }),
    }
}

/// The directories of one repository that are in the stream, and those that turned out to be none.
struct Directories {
    top: PathBuf,
    known: HashMap<Vec<u8>, bool>,
    /// The list is sorted, so it is nearly always this one.
    last: (Vec<u8>, bool),
    specials: Vec<(Vec<u8>, Reason)>,
}

impl Directories {
    fn new(top: PathBuf) -> Self {
        Self { top, known: HashMap::new(), last: (Vec::new(), true), specials: Vec::new() }
    }

    fn path(&self, name: &[u8]) -> PathBuf {
        self.top.join(OsStr::from_bytes(name))
    }

    fn known(&mut self, name: &[u8]) -> Option<bool> {
        if self.last.0 != name {
            self.last = (name.to_vec(), *self.known.get(name)?);
        }
        Some(self.last.1)
    }

    fn remember(&mut self, name: &[u8], is_directory: bool) {
        self.known.insert(name.to_vec(), is_directory);
    }
}

fn special(kind: fs::FileType) -> Option<Reason> {
    if kind.is_socket() {
        Some(Reason::Socket)
    } else if kind.is_fifo() {
        Some(Reason::Fifo)
    } else if kind.is_block_device() || kind.is_char_device() {
        Some(Reason::Device)
    } else {
        None
    }
}

/// Gone, or something else is in its place.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn path_of(name: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(name.strip_suffix(b"/").unwrap_or(name)))
}

fn join(prefix: &[u8], name: &[u8]) -> Vec<u8> {
    [prefix, name].concat()
}
