//! What is checked out in a directory, at the price of one git process.
//!
//! HEAD and refs are read as files; only the language of settings is left to git. What costs more is asked for by
//! itself: the commit's text, the tag, whether anything changed.

use std::fs;
use std::path::{Path, PathBuf};

use super::config::Settings;
use super::mirror::Mirror;
use super::repository::{Head, Repository};
use super::{CheckoutError, Elsewhere, GitError, Remote};

/// Names of a default branch, where nothing says which it is.
const USUAL_DEFAULTS: [&str; 2] = ["main", "master"];

/// Facts about a directory. Without a repository only `top` says anything.
#[derive(Debug, Clone, Default)]
pub struct GitFacts {
    /// Where the repository's working tree begins, or the directory itself.
    pub top: PathBuf,
    /// Is it in a repository?
    pub is_repo: bool,
    /// The commit; `None` before the first one.
    pub head: Option<String>,
    /// `None` when HEAD is detached.
    pub branch: Option<String>,
    /// `None` unless `--tag` names one.
    pub tag: Option<String>,
    /// `origin`, or the only remote there is; never with credentials.
    pub origin: Option<Remote>,
    /// As `origin/HEAD` says, else `main` or `master`; `None` if there is neither.
    pub default_branch: Option<String>,
    /// The branch's commit on `origin`, unless that is HEAD itself: what was probably built last.
    pub base_revision: Option<String>,
    /// `None` until [`Self::load_commit`].
    pub commit: Option<Commit>,
    /// May the repository lead out of itself?
    pub elsewhere: Elsewhere,
}

/// HEAD's commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// First line of the message.
    pub subject: String,
    /// The rest of the message.
    pub body: String,
    /// As the commit has it.
    pub author_name: String,
    /// As the commit has it.
    pub author_email: String,
}

/// Where the repository begins that a directory is in; no git process is asked, and nothing else is looked at: where
/// its .git leads does not matter yet.
///
/// # Errors
/// The directory cannot be read, or its repository has no working tree.
pub fn top_of_repository(directory: &Path) -> Result<Option<PathBuf>, CheckoutError> {
    let directory = fs::canonicalize(directory).map_err(CheckoutError::read(directory))?;
    Ok(Repository::discover(&directory, Elsewhere::Followed)?.map(|repository| repository.top))
}

impl GitFacts {
    /// About the repository that `start` is in; without one, about the directory.
    pub fn of(start: &Path, elsewhere: Elsewhere) -> Result<Self, CheckoutError> {
        let start = fs::canonicalize(start).map_err(CheckoutError::read(start))?;
        match Repository::discover(&start, elsewhere)? {
            Some(repository) => Ok(Self { elsewhere, ..Self::of_repository(&repository)? }),
            None => Ok(Self { top: start, ..Self::default() }),
        }
    }

    fn of_repository(repository: &Repository) -> Result<Self, CheckoutError> {
        let settings = match Settings::local(repository) {
            // Files alone still tell the commit and the branch.
            Err(CheckoutError::Git(error)) if error.is_missing() => Settings::default(),
            other => other?,
        };
        let (branch, head) = match repository.head()? {
            Head::Ref(name) => (name.strip_prefix("refs/heads/").map(str::to_owned), repository.resolve(&name)?),
            Head::Detached(id) => (None, Some(id)),
        };
        let pushed = match &branch {
            Some(branch) => repository.resolve(&format!("refs/remotes/origin/{branch}"))?,
            None => None,
        };
        Ok(Self {
            top: repository.top.clone(),
            is_repo: true,
            default_branch: default_branch(repository)?,
            origin: settings.origin_url().and_then(|url| Remote::parse(&url)),
            base_revision: pushed.filter(|pushed| Some(pushed) != head.as_ref()),
            head,
            branch,
            tag: None,
            commit: None,
            elsewhere: Elsewhere::default(),
        })
    }

    /// What git is asked in the repository's place.
    fn ask(&self, arguments: &[&str]) -> Result<Vec<u8>, GitError> {
        Mirror::at(&self.top, self.elsewhere)?.output(arguments)
    }

    /// Name of the repository, or else of the directory.
    pub fn repo_name(&self) -> String {
        let directory = || self.top.file_name().map(|name| name.to_string_lossy().into_owned());
        let named = self.origin.as_ref().map(|origin| origin.name.clone()).filter(|name| !name.is_empty());
        named.or_else(directory).unwrap_or_else(|| "project".to_owned())
    }

    /// Owner of the repository; `local` if it has none.
    pub fn repo_owner(&self) -> String {
        let owner = self.origin.as_ref().map(|origin| origin.owner.clone()).filter(|owner| !owner.is_empty());
        owner.unwrap_or_else(|| "local".to_owned())
    }

    /// Fills in the commit's text and author.
    pub fn load_commit(&mut self) -> Result<(), GitError> {
        if let Some(head) = &self.head {
            let arguments = ["log", "-1", "--no-color", "--format=%s%x00%b%x00%an%x00%ae", head, "--"];
            let output = self.ask(&arguments)?;
            let text = String::from_utf8_lossy(&output).into_owned();
            let mut fields = text.split('\0').map(|field| field.trim_end().to_owned());
            let mut next = || fields.next().unwrap_or_default();
            self.commit = Some(Commit { subject: next(), body: next(), author_name: next(), author_email: next() });
        }
        Ok(())
    }

    /// Loads what a config mentions and what is not read by default: it pays for what it uses.
    pub fn load_mentioned(&mut self, config: &str) -> Result<(), GitError> {
        if config.contains("git.commit.") { self.load_commit() } else { Ok(()) }
    }

    /// Does a branch of `origin` hold HEAD, as it was last fetched? `None`: nothing was fetched, or there is no commit.
    pub fn is_pushed(&self) -> Result<Option<bool>, GitError> {
        let Some(head) = &self.head else { return Ok(None) };
        let there_are = |which: &[&str]| {
            let arguments =
                [&["for-each-ref", "--count=1", "--format=%(refname)"], which, &["refs/remotes/origin"]].concat();
            self.ask(&arguments).map(|names| !names.is_empty())
        };
        if !there_are(&[])? {
            return Ok(None);
        }
        there_are(&[&format!("--contains={head}")]).map(Some)
    }
}

fn default_branch(repository: &Repository) -> Result<Option<String>, CheckoutError> {
    if let Some(name) = repository.symbolic("refs/remotes/origin/HEAD")? {
        return Ok(name.strip_prefix("refs/remotes/origin/").map(str::to_owned));
    }
    for space in ["refs/remotes/origin", "refs/heads"] {
        for name in USUAL_DEFAULTS {
            if repository.resolve(&format!("{space}/{name}"))?.is_some() {
                return Ok(Some(name.to_owned()));
            }
        }
    }
    Ok(None)
}
