//! What went into a copy of a working tree, and what did not.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// What went into a stream, and what did not.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
#[must_use]
pub struct TreeReport {
    /// Files of the tree, without those of `.git`.
    pub files: u64,
    /// Symbolic links of the tree, which are sent as links.
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
    /// Paths that are missing or changed, in the order they were met.
    pub left_out: Vec<LeftOut>,
}

/// Something of the tree that is not, or not exactly, in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Relative to the top of the tree.
    pub path: PathBuf,
    /// Why it is not.
    pub reason: Reason,
}

/// Why it is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A unix socket.
    Socket,
    /// A named pipe.
    Fifo,
    /// A device file.
    Device,
    /// We may not read it.
    Unreadable,
    /// A `.git` that is not a repository, or whose repository is gone; its directory is there without files.
    BrokenRepository,
    /// A repository that leads out of itself, or has something else in place of git's files; likewise.
    ForeignRepository,
    /// A name that git lists and that no file of a tree can have.
    NoName,
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
            Self::ForeignRepository => "a .git that leads elsewhere, or was not made by git",
            Self::NoName => "no name of a file in this tree",
            Self::Shrunk => "became shorter while it was read",
            Self::Grown => "became longer while it was read",
        })
    }
}

/// So many paths of one kind are named; the rest is counted.
const NAMED: usize = 20;
/// Bytes of a path that are shown.
const SHOWN: usize = 200;

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
        let path = self.path.as_os_str().as_bytes();
        let shown = OsStr::from_bytes(&path[..path.len().min(SHOWN)]);
        let more = if path.len() > SHOWN { "…" } else { "" };
        format!("{what}: {shown:?}{more}: {}", self.reason)
    }
}
