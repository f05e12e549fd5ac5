//! What became of one file since it had a certain content, out of git's history.
//!
//! ```text
//! git log -- FILE, newest first:  c4  c3  c2  c1
//!                                 └─ since ─┘  └─ its content has the digest that is looked for
//! ```

use std::path::Path;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::mirror::Mirror;
use super::{Elsewhere, GitError};

/// Commits that are looked through.
const DEPTH: &str = "200";
/// Contents that are read at once, and the largest that is read at all: together what git prints is 64 MiB at most.
const AT_ONCE: usize = 8;
const LARGEST: u64 = 8 << 20;

/// A file, from then to now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileHistory {
    /// The commit that has the file as it was; `None` if none of those that were looked through has.
    pub then: Option<Change>,
    /// `then` is no commit of what is checked out now.
    pub is_elsewhere: bool,
    /// Commits that touched the file since, newest first: those after `then`, without it those after the moment.
    pub since: Vec<Change>,
    /// The working tree has it otherwise than HEAD, or HEAD has not got it.
    pub is_uncommitted: bool,
    /// Lines that came and went between `then` and the working tree; `None` without `then`, or if it is no text.
    pub lines: Option<(u64, u64)>,
}

/// A commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The commit's whole id.
    pub id: String,
    /// As short as git has it.
    pub short: String,
    /// The commit's date, `2026-11-20`.
    pub date: String,
    /// The author's name.
    pub author: String,
    /// First line of the message.
    pub subject: String,
    seconds: i64,
}

/// What became of `file`, a path from the working tree's top, since its content had this SHA-256, which was at `moment` and
/// perhaps at commit `revision`.
///
/// # Errors
/// git's.
pub fn since(
    top: &Path,
    elsewhere: Elsewhere,
    file: &str,
    digest: &[u8; 32],
    moment: Timestamp,
    revision: &str,
) -> Result<FileHistory, GitError> {
    // git takes names line by line here.
    if file.contains('\n') {
        return Ok(FileHistory::default());
    }
    let git = &Mirror::at(top, elsewhere)?;
    let is_uncommitted = !git.output(&["--literal-pathspecs", "status", "--porcelain", "-z", "--", file])?.is_empty();
    let changes = log(git, "HEAD", file)?;
    let found = find(git, file, digest, &changes)?;
    let (then, is_elsewhere, since) = match found {
        Some(nth) => (Some(changes[nth].clone()), false, changes[..nth].to_vec()),
        None => {
            let then = elsewhere_at(git, file, digest, revision)?;
            let is_later = |change: &Change| change.seconds >= moment.as_second();
            (then, true, changes.into_iter().filter(is_later).collect())
        }
    };
    let lines = then.as_ref().map(|then| lines(git, &then.id, file)).transpose()?.flatten();
    Ok(FileHistory { is_elsewhere: is_elsewhere && then.is_some(), then, since, is_uncommitted, lines })
}

/// Does a copy of the working tree leave this path out?
///
/// # Errors
/// git's.
pub fn is_ignored(top: &Path, elsewhere: Elsewhere, file: &str) -> Result<bool, GitError> {
    // So that no name has a meaning of its own: this command knows no `--literal-pathspecs`.
    Ok(Mirror::at(top, elsewhere)?
        .place()
        .query(&["check-ignore", "--quiet", "--", &format!("./{file}")], None)?
        .is_some())
}

/// Nothing before the first commit.
fn log(git: &Mirror, from: &str, file: &str) -> Result<Vec<Change>, GitError> {
    if git.place().query(&["rev-parse", "--quiet", "--verify", &format!("{from}^{{commit}}")], None)?.is_none() {
        return Ok(Vec::new());
    }
    let words = ["--literal-pathspecs", "log", "--no-color", "-n", DEPTH];
    let format = ["--format=%H%x00%h%x00%ct%x00%cs%x00%an%x00%s", from, "--", file];
    let output = git.output(&[&words[..], &format[..]].concat())?;
    Ok(String::from_utf8_lossy(&output).lines().filter_map(change).collect())
}

fn change(line: &str) -> Option<Change> {
    let mut fields = line.split('\0').map(str::to_owned);
    let mut next = || fields.next();
    let (id, short, seconds) = (next()?, next()?, next()?.parse().ok()?);
    Some(Change { id, short, seconds, date: next()?, author: next()?, subject: next()? })
}

/// The newest of these commits in which the file has this content.
fn find(git: &Mirror, file: &str, digest: &[u8; 32], changes: &[Change]) -> Result<Option<usize>, GitError> {
    for (nth, chunk) in changes.chunks(AT_ONCE).enumerate() {
        let sizes = sizes(git, file, chunk)?;
        let small: Vec<usize> = (0..chunk.len()).filter(|at| sizes.get(*at).is_some_and(|s| *s <= LARGEST)).collect();
        let asked: String = small.iter().map(|at| format!("{}:{file}\n", chunk[*at].id)).collect();
        let contents = contents(&batch(git, "--batch", asked)?);
        let same = |content: &Vec<u8>| Sha256::digest(content).as_slice() == digest;
        if let Some(at) = contents.iter().position(same).and_then(|at| small.get(at)) {
            return Ok(Some(nth * AT_ONCE + at));
        }
    }
    Ok(None)
}

/// Size of the file in each commit; [`u64::MAX`] where it is not a file.
fn sizes(git: &Mirror, file: &str, changes: &[Change]) -> Result<Vec<u64>, GitError> {
    let asked = changes.iter().map(|change| format!("{}:{file}\n", change.id)).collect();
    let told = batch(git, "--batch-check=%(objecttype) %(objectsize)", asked)?;
    let size = |line: &str| line.strip_prefix("blob ").and_then(|size| size.parse().ok()).unwrap_or(u64::MAX);
    Ok(String::from_utf8_lossy(&told).lines().map(size).collect())
}

fn batch(git: &Mirror, how: &str, asked: String) -> Result<Vec<u8>, GitError> {
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    Ok(git.place().query(&["cat-file", how], Some(asked.into_bytes()))?.unwrap_or_default())
}

/// What `cat-file --batch` prints: `ID blob SIZE`, the bytes, a newline, and so on.
fn contents(mut printed: &[u8]) -> Vec<Vec<u8>> {
    let mut contents = Vec::new();
    while let Some(end) = printed.iter().position(|byte| *byte == b'\n') {
        let head = String::from_utf8_lossy(&printed[..end]);
        let size = head.rsplit(' ').next().and_then(|size| size.parse::<usize>().ok());
        let Some(content) = size.and_then(|size| printed.get(end + 1..end + 1 + size)) else { break };
        contents.push(content.to_vec());
        printed = printed.get(end + content.len() + 2..).unwrap_or_default();
    }
    contents
}

/// The commit that the cache was saved at, if it is here and has the file so.
fn elsewhere_at(git: &Mirror, file: &str, digest: &[u8; 32], revision: &str) -> Result<Option<Change>, GitError> {
    if revision.is_empty() || !revision.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let Some(change) = log(git, revision, file)?.into_iter().next() else { return Ok(None) };
    let found = find(git, file, digest, std::slice::from_ref(&change))?;
    Ok(found.map(|_| change))
}

fn lines(git: &Mirror, commit: &str, file: &str) -> Result<Option<(u64, u64)>, GitError> {
    let words = ["--literal-pathspecs", "diff", "--no-ext-diff", "--no-textconv", "--no-color", "--numstat", "-z"];
    let output = git.output(&[&words[..], &[commit, "--", file]].concat())?;
    let text = String::from_utf8_lossy(&output).into_owned();
    let mut fields = text.split('\t').map(|field| field.parse().ok());
    Ok(fields.next().flatten().zip(fields.next().flatten()))
}
