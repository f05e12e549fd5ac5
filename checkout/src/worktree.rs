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
//!
//! Every file is reached beneath the top of the whole, through no link: an index may list what it likes.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{BufRead, BufReader, Seek as _, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::archive::{Archive, ArchiveError, Content};
use super::config::Settings;
use super::dot_git::is_dot_git;
use super::git::Running;
use super::git_dir::{GitDir, LARGE, TEXT, is_absent};
use super::mirror::{Index, Mirror};
use super::objects::Objects;
use super::report::{LeftOut, Reason, TreeReport};
use super::repository::{Head, Repository};
use super::tree::{Seen, Tree};
use super::{CheckoutError, Elsewhere};

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

/// No system call takes a path of as many bytes.
const LONGEST: usize = libc::PATH_MAX as usize;

/// How a line of HEAD's log begins that tells of a switch.
const SWITCH: &[u8] = b"checkout: moving from ";

/// Files all worktrees share.
const SHARED: [&str; 3] = ["shallow", "info/exclude", "info/attributes"];

/// A directory that jobs get a copy of.
#[derive(Debug, Clone)]
pub struct WorkingTree {
    top: PathBuf,
    repository: Option<Repository>,
    elsewhere: Elsewhere,
}

impl WorkingTree {
    /// The repository that `start` is in, as a whole; without one, the directory itself.
    pub fn open(start: &Path, elsewhere: Elsewhere) -> Result<Self, CheckoutError> {
        let start = fs::canonicalize(start).map_err(CheckoutError::read(start))?;
        if !start.is_dir() {
            return Err(CheckoutError::NotADirectory { path: start });
        }
        let repository = Repository::discover(&start, elsewhere)?;
        let top = repository.as_ref().map_or(start, |repository| repository.top.clone());
        Ok(Self { top, repository, elsewhere })
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
        let mut copy = self.copy(sink)?;
        match &self.repository {
            Some(repository) => copy.repository(Snapshot::take(repository)?, b"")?,
            None => copy.plain(b"")?,
        }
        copy.finish()
    }

    fn copy<W: Write>(&self, sink: W) -> Result<Copy<W>, CheckoutError> {
        let report = TreeReport { is_repository: self.is_repository(), ..TreeReport::default() };
        let tree = Tree::open(&self.top).map_err(CheckoutError::read(&self.top))?;
        Ok(Copy { archive: Archive::new(sink), report, tree, elsewhere: self.elsewhere })
    }

    /// For fuzzing: writes what a listing names, which would else come from git and out of an index that anybody has written.
    #[doc(hidden)]
    pub fn stream_listing(top: &Path, listing: &[u8], sink: impl Write) -> Result<TreeReport, CheckoutError> {
        let tree = Self { top: top.to_owned(), repository: None, elsewhere: Elsewhere::Refused };
        let mut copy = tree.copy(sink)?;
        copy.listing(listing, top, b"")?;
        copy.finish()
    }
}

/// A stream being written. Names are relative to the top of the whole; a prefix is empty or ends with a slash.
struct Copy<W: Write> {
    archive: Archive<W>,
    report: TreeReport,
    tree: Tree,
    elsewhere: Elsewhere,
}

/// What there was to say about a repository when its copy began.
struct Snapshot<'a> {
    repository: &'a Repository,
    mirror: Mirror,
    /// git on its way to list the files, and where it lists them.
    listing: (Running, File),
    settings: Settings,
    refs: Vec<u8>,
    head: Vec<u8>,
    /// How a detached HEAD came about.
    switch: Option<Vec<u8>>,
    index: Index,
    /// Names and contents of its other files.
    state: Vec<(Vec<u8>, Vec<u8>)>,
    objects: Vec<GitDir>,
}

impl<W: Write> Copy<W> {
    fn finish(mut self) -> Result<TreeReport, CheckoutError> {
        self.report.bytes = self.archive.written();
        self.archive.finish().map_err(CheckoutError::Write)?;
        Ok(self.report)
    }

    fn repository(&mut self, snapshot: Snapshot<'_>, prefix: &[u8]) -> Result<(), CheckoutError> {
        self.git_dir(&snapshot, &join(prefix, b".git/"))?;
        self.files(snapshot, prefix)
    }

    fn git_dir(&mut self, snapshot: &Snapshot<'_>, prefix: &[u8]) -> Result<(), CheckoutError> {
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
        for (name, content) in &snapshot.state {
            self.made_file(&join(prefix, name), content)?;
        }
        if let Some(line) = &snapshot.switch {
            self.made_directory(&join(prefix, b"logs"))?;
            self.made_file(&join(prefix, b"logs/HEAD"), line)?;
        }
        let objects = Objects::new(snapshot.objects.clone());
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

    /// Everything git lists: tracked, and untracked but not ignored.
    fn files(&mut self, snapshot: Snapshot<'_>, prefix: &[u8]) -> Result<(), CheckoutError> {
        let Snapshot { repository, mirror, listing: (running, mut list), .. } = snapshot;
        running.finish()?;
        list.rewind().map_err(CheckoutError::read(&repository.top))?;
        let specials = self.listing(BufReader::new(list), &repository.top, prefix)?;
        self.name_specials(&mirror, specials, prefix)
    }

    /// What a listing names, each name ended by a zero. The special files beside it are the answer.
    fn listing(&mut self, list: impl BufRead, top: &Path, prefix: &[u8]) -> Result<Specials, CheckoutError> {
        let mut directories = Directories::default();
        self.specials(b"", prefix, &mut directories);
        let mut last = Vec::new();
        let mut names = list.split(0);
        while let Some(name) = names.next().transpose().map_err(CheckoutError::read(top))? {
            // A conflict lists a name once a side.
            if name != last {
                self.listed(&name, &mut directories, prefix)?;
                last = name;
            }
        }
        Ok(directories.specials)
    }

    fn listed(&mut self, name: &[u8], directories: &mut Directories, prefix: &[u8]) -> Result<(), CheckoutError> {
        let name = name.strip_suffix(b"/").unwrap_or(name);
        if !is_name(name) {
            self.leave_out(&join(prefix, name), Reason::NoName);
            return Ok(());
        }
        if !self.enter(parent_of(name), directories, prefix)? {
            return Ok(());
        }
        let name = join(prefix, name);
        let Some(seen) = self.look(&name) else { return Ok(()) };
        if seen.is_directory() { self.nested(&seen, &name) } else { self.item(&seen, &name) }
    }

    /// Makes sure that a directory of the tree is in the stream. False if it is not a directory: what git lists below it is then
    /// deleted, even if the path leads somewhere through a symlink.
    fn enter(&mut self, name: &[u8], directories: &mut Directories, prefix: &[u8]) -> Result<bool, CheckoutError> {
        if name.is_empty() {
            return Ok(true);
        }
        if let Some(known) = directories.known(name) {
            return Ok(known);
        }
        let mut is_directory = self.enter(parent_of(name), directories, prefix)?;
        if is_directory {
            is_directory = self.enter_last(&join(prefix, name))?;
        }
        if is_directory {
            self.specials(name, prefix, directories);
        }
        directories.remember(name, is_directory);
        Ok(is_directory)
    }

    fn enter_last(&mut self, name: &[u8]) -> Result<bool, CheckoutError> {
        match self.look(name) {
            Some(seen) if seen.is_directory() => self.directory(name, &seen).map(|()| true),
            _ => Ok(false),
        }
    }

    /// A directory that git lists as one entry: a submodule, a repository git does not know, or what replaced a file.
    fn nested(&mut self, seen: &Seen, name: &[u8]) -> Result<(), CheckoutError> {
        self.directory(name, seen)?;
        let repository = match self.repository_at(name) {
            Ok(Some(repository)) => repository,
            // Not checked out.
            Ok(None) => return Ok(()),
            Err(reason) => {
                self.leave_out(name, reason);
                return Ok(());
            }
        };
        match Snapshot::take(&repository) {
            Ok(snapshot) => {
                self.report.nested.push(path_of(name));
                self.repository(snapshot, &join(name, b"/"))
            }
            Err(error) => {
                let reason = foreign(&error).ok_or(error)?;
                self.leave_out(name, reason);
                Ok(())
            }
        }
    }

    /// The repository in a directory of the tree.
    fn repository_at(&mut self, name: &[u8]) -> Result<Option<Repository>, Reason> {
        // The tree goes deeper than any path that a system call takes: there it still tells what is no repository.
        if self.tree.look(&join(name, b"/.git")).is_err_and(|error| is_absent(&error)) {
            return Ok(None);
        }
        Repository::at(&self.tree.path(name), self.elsewhere).map_err(|error| match error {
            CheckoutError::BrokenLink { .. } => Reason::BrokenRepository,
            other => foreign(&other).unwrap_or(Reason::Unreadable),
        })
    }

    /// A directory of no repository, with everything in it; `name` is empty or ends with a slash.
    fn plain(&mut self, name: &[u8]) -> Result<(), CheckoutError> {
        let entries = match self.tree.list(name.strip_suffix(b"/").unwrap_or(name)) {
            Ok(entries) => entries,
            Err(error) if is_absent(&error) => return Ok(()),
            Err(_) => return self.unreadable(name),
        };
        for (entry, _) in entries {
            self.plain_entry(&join(name, &entry))?;
        }
        Ok(())
    }

    fn plain_entry(&mut self, name: &[u8]) -> Result<(), CheckoutError> {
        if is_dot_git(name.rsplit(|byte| *byte == b'/').next().unwrap_or(name)) {
            // Of a repository it has been made already; anything else of that name may hold credentials.
            self.leave_out(name, Reason::BrokenRepository);
            return Ok(());
        }
        let Some(seen) = self.look(name) else { return Ok(()) };
        if !seen.is_directory() {
            return self.item(&seen, name);
        }
        // One that cannot be looked at may hold files that it ignores: it is left out, and not taken for a plain directory.
        if matches!(self.repository_at(name), Ok(Some(_)) | Err(Reason::Unreadable)) {
            return self.nested(&seen, name);
        }
        self.directory(name, &seen)?;
        self.plain(&join(name, b"/"))
    }

    /// Anything but a directory.
    fn item(&mut self, seen: &Seen, name: &[u8]) -> Result<(), CheckoutError> {
        if seen.is_link() {
            return self.symlink(seen, name);
        }
        if let Some(reason) = seen.special() {
            self.leave_out(name, reason);
            return Ok(());
        }
        // Should a pipe or a link have taken its place by now, it is neither waited for nor followed.
        match self.tree.file(name).and_then(|file| file.metadata().map(|meta| (file, meta))) {
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

    fn symlink(&mut self, seen: &Seen, name: &[u8]) -> Result<(), CheckoutError> {
        match self.tree.link(name) {
            Ok(target) => {
                self.report.symlinks += 1;
                self.archive.symlink(name, &target, seen.mtime).map_err(CheckoutError::Write)
            }
            Err(error) if is_absent(&error) => Ok(()),
            Err(_) => self.unreadable(name),
        }
    }

    fn directory(&mut self, name: &[u8], seen: &Seen) -> Result<(), CheckoutError> {
        self.archive.directory(name, seen.mtime).map_err(CheckoutError::Write)
    }

    /// git never lists sockets and the like, so they are looked for where files are. `name` is a directory of the
    /// repository.
    fn specials(&mut self, name: &[u8], prefix: &[u8], directories: &mut Directories) {
        let whole = join(prefix, name);
        let below = if name.is_empty() { Vec::new() } else { join(name, b"/") };
        // Unreadable ones have no listed files but tracked ones, and those are named themselves.
        for (entry, reason) in self.tree.list(whole.strip_suffix(b"/").unwrap_or(&whole)).unwrap_or_default() {
            if let Some(reason) = reason {
                directories.specials.push((join(&below, &entry), reason));
            }
        }
    }

    /// Reports special files, but not those that an ignore rule matches.
    fn name_specials(&mut self, mirror: &Mirror, specials: Specials, prefix: &[u8]) -> Result<(), CheckoutError> {
        if specials.is_empty() {
            return Ok(());
        }
        let input = specials.iter().flat_map(|(name, _)| [name, &b"\0"[..]].concat()).collect();
        let ignored = mirror.place().query(&["check-ignore", "-z", "--stdin"], Some(input))?.unwrap_or_default();
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
    fn look(&mut self, name: &[u8]) -> Option<Seen> {
        match self.tree.look(name) {
            Ok(seen) => Some(seen),
            Err(error) => {
                if !is_absent(&error) {
                    self.leave_out(name, Reason::Unreadable);
                }
                None
            }
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

impl<'a> Snapshot<'a> {
    /// Refs and index are read before any object, so everything they name is in the objects listed afterwards.
    fn take(repository: &'a Repository) -> Result<Self, CheckoutError> {
        let index = repository.index()?;
        let local = Settings::local(repository)?;
        let mut mirror = Mirror::with(repository, local, &index)?;
        let listing = mirror.start(&["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--full-name"])?;
        let format = "--format=%(objectname) %(refname) %(symref)";
        let mut arguments = vec!["for-each-ref", format];
        arguments.extend(REFS);
        let refs = mirror.output(&arguments)?;
        let (head, is_detached) = match repository.head()? {
            Head::Ref(name) => (format!("ref: {name}\n"), false),
            Head::Detached(id) => (format!("{id}\n"), true),
        };
        let switch = if is_detached { last_switch(repository)? } else { None };
        let state = state(repository)?;
        let settings = std::mem::take(&mut mirror.local).after(&mirror.user);
        let objects = repository.object_dirs()?;
        let head = head.into_bytes();
        Ok(Self { repository, mirror, listing, settings, refs, head, switch, index, state, objects })
    }
}

/// A file of the git directory: its name beneath it, and its content.
type StateFile = (Vec<u8>, Vec<u8>);

/// Files of the git directory that say what is going on, with their contents. All are read before anything is sent: then
/// what should not be there is known while a repository can still be left out.
fn state(repository: &Repository) -> Result<Vec<StateFile>, CheckoutError> {
    let own = &repository.git_dir;
    let mut names: Vec<(&GitDir, Vec<u8>)> = STATE.iter().map(|name| (own, name.as_bytes().to_vec())).collect();
    names.extend(SHARED.iter().map(|name| (&repository.common_dir, name.as_bytes().to_vec())));
    for directory in STATE_DIRS {
        let files = own.files(directory)?.into_iter().filter(|file| !file.ends_with(b".lock"));
        names.extend(files.map(|file| (own, [directory.as_bytes(), b"/", &file].concat())));
    }
    names.extend(repository.shared_indexes()?.into_iter().map(|name| (own, name)));
    let (mut state, mut left) = (Vec::new(), LARGE);
    for (from, name) in names {
        let most = if name.starts_with(b"sharedindex.") { LARGE } else { TEXT };
        if let Some(content) = from.read(&name, most.min(left))? {
            left -= content.len() as u64;
            state.push((name, content));
        }
    }
    Ok(state)
}

/// "HEAD detached at v1" is what git makes of the last switch in HEAD's log; that line goes along, without its person.
fn last_switch(repository: &Repository) -> Result<Option<Vec<u8>>, CheckoutError> {
    let Some(log) = repository.git_dir.tail("logs/HEAD", TEXT)? else { return Ok(None) };
    let switch = |line: &&[u8]| line.splitn(2, |byte| *byte == b'\t').nth(1).is_some_and(|m| m.starts_with(SWITCH));
    let Some(line) = log.split(|byte| *byte == b'\n').rfind(switch) else { return Ok(None) };
    let mut fields = line.split(|byte| b" \t".contains(byte));
    let (Some(_), Some(id)) = (fields.next(), fields.next()) else { return Ok(None) };
    let message = line.splitn(2, |byte| *byte == b'\t').nth(1).unwrap_or_default();
    // git takes a line of time 0 for a broken one.
    Ok(Some([id, b" ", id, b" navvy <navvy@localhost> 1 +0000\t", message, b"\n"].concat()))
}

/// Why a nested repository is left out, if that is its own doing.
fn foreign(error: &CheckoutError) -> Option<Reason> {
    match error {
        CheckoutError::Elsewhere { .. } | CheckoutError::NotPlain { .. } => Some(Reason::ForeignRepository),
        CheckoutError::Git(super::GitError::Failed { .. }) => Some(Reason::BrokenRepository),
        _ => None,
    }
}

/// The directories of one repository that are in the stream, and those that turned out to be none.
#[derive(Default)]
struct Directories {
    known: HashMap<Vec<u8>, bool>,
    /// The list is sorted, so it is nearly always this one.
    last: Option<(Vec<u8>, bool)>,
    specials: Specials,
}

/// Special files and what they are.
type Specials = Vec<(Vec<u8>, Reason)>;

impl Directories {
    fn known(&mut self, name: &[u8]) -> Option<bool> {
        if self.last.as_ref().is_none_or(|last| last.0 != name) {
            self.last = Some((name.to_vec(), *self.known.get(name)?));
        }
        self.last.as_ref().map(|last| last.1)
    }

    fn remember(&mut self, name: &[u8], is_directory: bool) {
        self.known.insert(name.to_vec(), is_directory);
    }
}

/// Could it be the name of a file in a tree? An index may hold any, of any length.
fn is_name(name: &[u8]) -> bool {
    let is_clean = |part: &[u8]| !matches!(part, b"" | b"." | b"..") && !is_dot_git(part);
    name.len() < LONGEST && name.split(|byte| *byte == b'/').all(is_clean)
}

fn parent_of(name: &[u8]) -> &[u8] {
    name.iter().rposition(|byte| *byte == b'/').map_or(&b""[..], |at| &name[..at])
}

fn path_of(name: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(name.strip_suffix(b"/").unwrap_or(name)))
}

fn join(prefix: &[u8], name: &[u8]) -> Vec<u8> {
    [prefix, name].concat()
}
