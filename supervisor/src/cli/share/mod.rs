//! `circleci tests …`: which tests there are, and which of them this node runs.
//!
//! ```text
//! list (stdin, FILE) ─┐
//! weights ────────────┴▶ deal ─▶ this node's share ─▶ stdout, or the input of a command
//!   name: all the same
//!   filesize: bytes
//!   timings: what the last runs took ◀─ [timings]: the agent's file, written before the steps
//! ```
//!
//! Every node does this by itself, so all of it hangs on the list as a set, the weights and the number of nodes alone: not
//! on the list's order, the clock or chance.

mod deal;
mod flags;
mod timings;
mod weigh;

use std::collections::BTreeSet;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use super::{USAGE, complain};
use crate::files::{self, Found};
use deal::Deal;
use flags::Flags;
use weigh::Weighed;

pub const HELP: &str = "  circleci tests glob PATTERN…            the files that match: * ? [a-z] {a,b} **
  circleci tests split [FILE]             this node's share of a list, from FILE or stdin
  circleci tests run --command COMMAND    the same, as the input of COMMAND

  --index N --total N   this node, from 0, and how many there are
  --split-by WHAT       name, filesize, timings
  --timings-type OF     filename, classname, testname, autodetect
  --time-default T      for what has no timing [1s]
  --timings-file FILE   --show-counts
";

/// A list is read whole; nothing that a person calls a list of tests is longer.
const LIST_CAP: u64 = 1 << 30;

pub fn glob(patterns: &[&str]) -> ExitCode {
    const COMMAND: &str = "circleci tests glob";
    if patterns.is_empty() {
        return complain(
            USAGE,
            "circleci tests glob: expected a pattern, in quotes: circleci tests glob \"test/**/*.py\"",
        );
    }
    let (mut all, mut is_all_read) = (BTreeSet::new(), true);
    for pattern in patterns {
        let Found { paths, unread } = match files::find(Path::new("."), pattern) {
            Ok(found) => found,
            Err(failure) => return complain(1, &format!("{COMMAND}: {failure}")),
        };
        for (path, error) in unread.into_all() {
            is_all_read = false;
            remark(&format!("WARN: {COMMAND}: cannot look into {}", files::shown(&path, &error)));
        }
        let (directories, files): (BTreeSet<_>, BTreeSet<_>) = paths.into_iter().partition(|path| path.is_dir());
        if files.is_empty() {
            remark(&format!("WARN: {COMMAND}: {}", unmatched(pattern, &directories)));
        }
        all.extend(files);
    }
    if all.is_empty() && !is_all_read {
        return complain(1, &format!("{COMMAND}: nothing was found, and not everywhere could be looked"));
    }
    let mut text = Vec::new();
    for path in &all {
        text.extend_from_slice(path.as_os_str().as_encoded_bytes());
        text.push(b'\n');
    }
    put_out(COMMAND, &text)
}

/// A pattern that matches no file is most often a slip, and then no test would run.
fn unmatched(pattern: &str, directories: &BTreeSet<PathBuf>) -> String {
    if !directories.is_empty() {
        return format!("{pattern:?} matches directories alone, which are not tests; {pattern}/** is what is in them");
    }
    let here = std::env::current_dir().map_or_else(|_| "this directory".to_owned(), |path| path.display().to_string());
    let below = if pattern.starts_with('/') { String::new() } else { format!(" below {here}") };
    format!("nothing matches {pattern:?}{below}")
}

pub fn split(words: &[&str]) -> ExitCode {
    const COMMAND: &str = "circleci tests split";
    let (flags, list) = match ready(words, false) {
        Ok(ready) => ready,
        Err((code, why)) => return complain(code, &format!("{COMMAND}: {why}")),
    };
    let share = share(&flags, &list);
    let mut text = Vec::new();
    for name in &share.names {
        text.extend_from_slice(name);
        text.push(b'\n');
    }
    put_out(COMMAND, &text)
}

pub fn run(words: &[&str]) -> ExitCode {
    const COMMAND: &str = "circleci tests run";
    let (flags, list) = match ready(words, true) {
        Ok(ready) => ready,
        Err((code, why)) => return complain(code, &format!("{COMMAND}: {why}")),
    };
    let share = share(&flags, &list);
    if share.of == 0 {
        remark("WARN: no test names were given on stdin; nothing is run");
        return ExitCode::SUCCESS;
    }
    if share.names.is_empty() {
        let (index, total, of) = (flags.index, flags.total, share.of);
        remark(&format!("Nothing is left for node {index} of {total} (the list has {of}); the command is not run"));
        return ExitCode::SUCCESS;
    }
    let command = flags.command.unwrap_or_default();
    if flags.verbose {
        remark(&format!("{} of {} tests go to: {command}", share.names.len(), share.of));
    }
    match feed(command, &share.names) {
        Ok(code) => ExitCode::from(code),
        Err(error) => complain(1, &format!("{COMMAND}: cannot run the command: {error}")),
    }
}

/// What a node is given.
struct Share<'a> {
    /// Sorted.
    names: Vec<&'a [u8]>,
    /// Names in the whole list.
    of: usize,
}

/// Flags and the list, or a code and why not.
fn ready<'a>(words: &[&'a str], runs: bool) -> Result<(Flags<'a>, Vec<u8>), (u8, String)> {
    let flags = Flags::parse(words, runs, |name| std::env::var(name).ok()).map_err(|why| (USAGE, why))?;
    let list = read_list(flags.file).map_err(|why| (1, why))?;
    Ok((flags, list))
}

fn read_list(file: Option<&str>) -> Result<Vec<u8>, String> {
    let mut list = Vec::new();
    let (read, name) = match file {
        None => (io::stdin().lock().take(LIST_CAP).read_to_end(&mut list), "stdin"),
        Some(path) => {
            let opened = std::fs::File::open(path);
            (opened.and_then(|file| file.take(LIST_CAP).read_to_end(&mut list)), path)
        }
    };
    read.map_err(|error| format!("cannot read the list of tests from {name}: {error}"))?;
    Ok(list)
}

/// Sorts, weighs, deals; what is to be said of it goes to stderr.
fn share<'a>(flags: &Flags<'_>, list: &'a [u8]) -> Share<'a> {
    let names: Vec<&[u8]> = list.split(u8::is_ascii_whitespace).filter(|name| !name.is_empty()).collect();
    let names = std::collections::BinaryHeap::from(names).into_sorted_vec();
    let Weighed { weights, remarks } = weigh::weigh(flags, &names);
    remarks.iter().for_each(|text| remark(text));
    let deal = match weights {
        Some(weights) => Deal::by_weight(&weights, flags.total),
        None => Deal::by_turns(names.len(), flags.total),
    };
    if flags.show_counts {
        remark(&counts(&deal, flags.index));
    }
    let mine = names.iter().zip(&deal.nodes).filter(|(_, node)| **node == flags.index).map(|(name, _)| *name);
    Share { names: mine.collect(), of: names.len() }
}

/// `10 tests over 4 nodes: 3 3 2 2; this is node 0 with 3`.
fn counts(deal: &Deal, index: usize) -> String {
    let counts: Vec<String> = deal.counts().iter().map(usize::to_string).collect();
    let (of, total) = (deal.nodes.len(), counts.len());
    format!("{of} tests over {total} nodes: {}; this is node {index} with {}", counts.join(" "), counts[index])
}

/// The command in a shell as a step has one, with the names on its stdin. Its exit code, 128 and the signal's number if it
/// was killed.
fn feed(command: &str, names: &[&[u8]]) -> io::Result<u8> {
    use std::os::unix::process::ExitStatusExt as _;
    let (shell, options) =
        if Path::new("/bin/bash").exists() { ("/bin/bash", "-eo pipefail") } else { ("/bin/sh", "-e") };
    let mut child = Command::new(shell).args(options.split(' ')).args(["-c", command]).stdin(Stdio::piped()).spawn()?;
    if let Some(mut input) = child.stdin.take() {
        let mut text = names.join(&b' ');
        text.push(b'\n');
        // A command need not read what it is given; it is the judge of that.
        let _ = input.write_all(&text);
    }
    let status = child.wait()?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok(u8::try_from(code).unwrap_or(1))
}

fn put_out(command: &str, text: &[u8]) -> ExitCode {
    match io::stdout().lock().write_all(text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(1, &format!("{command}: cannot write: {error}")),
    }
}

/// A line on stderr.
fn remark(text: &str) {
    complain(0, text);
}
