//! What `checkout` puts into a job: a private copy of the working tree, and git facts about it.
//!
//! - [`WorkingTree`] writes the tree *as it is now*, with a `.git` made for it, as one tar stream. Nothing is copied on
//!   the host first: packs go from the object directory straight into the stream, so N tasks cost N streams and no disk.
//! - [`GitFacts`] says what is checked out; [`variables`] turns that into `CIRCLE_*` and pipeline values.
//! - [`clone_script`] is the other way, `--checkout git`: the text of a shell step that clones inside the job.
//!
//! On the host this module only reads: the working tree, its git directory and those of nested repositories, and what
//! `git` itself reads (`~/.gitconfig` for the ignore rules). `docs/checkout.md` says what the copy keeps and leaves out.

#![warn(missing_docs)]

mod archive;
mod clone;
mod config;
mod dot_git;
mod facts;
mod git;
mod git_dir;
pub mod history;
mod mirror;
mod objects;
mod owner;
mod refs;
mod remote;
mod report;
mod repository;
mod tree;
pub mod variables;
mod worktree;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

pub use clone::clone_script;
#[doc(hidden)]
pub use config::{Written, written};
pub use facts::{Commit, GitFacts, top_of_repository};
pub use git::GitError;
pub use owner::foreign_owner;
pub use remote::Remote;
pub use report::{LeftOut, Reason, TreeReport};
pub use worktree::WorkingTree;

/// A working tree of another machine.
pub trait SentTree: Send + Sync {
    /// Writes it as one tar stream. Blocks.
    ///
    /// # Errors
    /// Why it cannot be read, or not be written, for people.
    fn stream(&self, into: &mut dyn io::Write) -> Result<(), String>;
}

/// Where `checkout` takes the files from.
#[derive(Clone)]
pub enum CheckoutSource {
    /// A private copy of the working tree as it is now.
    WorkingTree(Arc<WorkingTree>),
    /// The working tree that was sent with the pipeline.
    Sent(Arc<dyn SentTree>),
    /// `git clone`, as the real service does.
    Git,
    /// There is no source; the text says why.
    Unavailable(String),
}

/// Why a working tree could not be read or streamed.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
    /// git failed, or could not be asked.
    #[error(transparent)]
    Git(#[from] GitError),
    /// A file or directory could not be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A tree was to begin at something that is no directory.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// What was given.
        path: PathBuf,
    },
    /// A bare repository.
    #[error("{} is a git repository without a working tree; start in a checkout of it", path.display())]
    NoWorkingTree {
        /// The repository.
        path: PathBuf,
    },
    /// A `.git` file, as worktrees and submodules have one, points nowhere.
    #[error("{} says that its git directory is {}, which does not exist", link.display(), target.display())]
    BrokenLink {
        /// The `.git` file.
        link: PathBuf,
        /// Where it points.
        target: PathBuf,
    },
    /// A repository that was not made by git, or by a git that was asked to: nothing outside is read.
    #[error(
        "{} {says} {}, outside of this repository. What came with a repository may not have that read; if you have set \
         it up so yourself, say so: {FLAG}", path.display(), place.display()
    )]
    Elsewhere {
        /// The file of the repository that points out of it.
        path: PathBuf,
        /// How it points, as the verb of a sentence.
        says: &'static str,
        /// Where it points.
        place: PathBuf,
    },
    /// Something of a `.git` is a link, a pipe or the like: git makes no such thing.
    #[error("{} is {what}, where git has a file or directory of its own. If you have set it up so yourself: {FLAG}", path.display())]
    NotPlain {
        /// Where it is.
        path: PathBuf,
        /// What it is, in words.
        what: String,
    },
    /// As git's own `safe.directory` has it.
    #[error(
        "{} belongs to another user ({owner}), who could have prepared it. If you trust it: \
         git config --global --add safe.directory {}", path.display(), shell_words::quote(&top.display().to_string())
    )]
    NotYours {
        /// What belongs to the other user.
        path: PathBuf,
        /// The repository's top, which `safe.directory` would name.
        top: PathBuf,
        /// The other user's id.
        owner: u32,
    },
    /// The git directory that git is given in place of the repository's own could not be made.
    #[error("failed to write {}, the git directory that git is to use", path.display())]
    Mirror {
        /// The file or directory of it.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The receiver of the stream has gone or failed.
    #[error("failed to write the tree's stream")]
    Write(#[source] io::Error),
}

/// What lets a repository lead elsewhere.
pub const FLAG: &str = "--follow-git-links";

/// May what a `.git` says lead out of its repository: to borrowed objects, another git directory, other files?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Elsewhere {
    /// What leads out of the repository is an error.
    #[default]
    Refused,
    /// The user has said that it may.
    Followed,
}

impl CheckoutError {
    fn elsewhere(path: PathBuf, says: &'static str, place: &std::path::Path) -> Self {
        Self::Elsewhere { path, says, place: place.to_owned() }
    }

    fn read(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Read { path, source }
    }
}

#[cfg(test)]
mod tests;
