//! What `checkout` puts into a job: a private copy of the working tree, and git facts about it.
//!
//! - [`WorkingTree`] writes the tree *as it is now*, with a `.git` made for it, as one tar stream. Nothing is copied on
//!   the host first: packs go from the object directory straight into the stream, so N tasks cost N streams and no disk.
//! - [`GitFacts`] says what is checked out; [`variables`] turns that into `CIRCLE_*` and pipeline values.
//! - [`clone_script`] is the other way, `--checkout git`: the text of a shell step that clones inside the job.
//!
//! On the host this module only reads: the working tree, its git directory and those of nested repositories, and what
//! `git` itself reads (`~/.gitconfig` for the ignore rules). `docs/checkout.md` says what the copy keeps and leaves out.

mod archive;
mod clone;
mod config;
mod facts;
mod git;
pub mod history;
mod objects;
mod remote;
mod repository;
pub mod variables;
mod worktree;

use std::io;
use std::path::PathBuf;

pub use clone::clone_script;
pub use facts::{Commit, GitFacts, top_of_repository};
pub use git::GitError;
pub use remote::Remote;
pub use worktree::{LeftOut, Reason, TreeReport, WorkingTree};

/// Why a working tree could not be read or streamed.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
    #[error(transparent)]
    Git(#[from] GitError),
    #[error("failed to read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is not a directory", path.display())]
    NotADirectory { path: PathBuf },
    #[error("{} is a git repository without a working tree; start in a checkout of it", path.display())]
    NoWorkingTree { path: PathBuf },
    #[error("{} says that its git directory is {}, but there is none", link.display(), target.display())]
    BrokenLink { link: PathBuf, target: PathBuf },
    #[error("failed to write the tree's stream")]
    Write(#[source] io::Error),
}

impl CheckoutError {
    fn read(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Read { path, source }
    }
}

#[cfg(test)]
mod tests;
