//! What runs, from `/proc`.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use navvy_protocol::supervisor::Process;

use crate::sys::Pid;

/// One line of `/proc/PID/stat`, as far as we need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub pid: Pid,
    pub parent: Pid,
    /// The process group; 0 where it is one of a pid namespace above.
    pub group: Pid,
    pub session: Pid,
    pub state: u8,
    pub name: String,
    /// Bytes resident.
    pub rss: u64,
}

impl Entry {
    /// A zombie only waits for its parent to look.
    pub fn runs(&self) -> bool {
        !matches!(self.state, b'Z' | b'X')
    }
}

const PROC: &str = "/proc";

/// Every process of our pid namespace.
///
/// # Errors
/// Nobody can tell, for want of descriptors or memory: that is another thing than none.
pub fn all() -> io::Result<Vec<Entry>> {
    all_of(Path::new(PROC))
}

fn all_of(proc: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for found in std::fs::read_dir(proc)? {
        let Some(pid) = found?.file_name().to_str().and_then(|name| name.parse::<Pid>().ok()) else { continue };
        entries.extend(look(proc, pid)?);
    }
    Ok(entries)
}

pub fn read(pid: Pid) -> Option<Entry> {
    look(Path::new(PROC), pid).ok().flatten()
}

/// `None`: there is none of this number, or it is nothing of ours.
fn look(proc: &Path, pid: Pid) -> io::Result<Option<Entry>> {
    let mut bytes = [0; 1024];
    match File::open(proc.join(format!("{pid}/stat"))).and_then(|mut file| file.read(&mut bytes)) {
        Ok(count) => Ok(parse(pid, &bytes[..count])),
        Err(error) if is_none_of_ours(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// It may have ended between two looks, and some systems hide those of other users.
fn is_none_of_ours(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
        || error.raw_os_error() == Some(libc::ESRCH)
}

/// The name stands in parentheses and may itself hold any of them, spaces and line ends.
fn parse(pid: Pid, stat: &[u8]) -> Option<Entry> {
    let open = stat.iter().position(|byte| *byte == b'(')?;
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let name = String::from_utf8_lossy(stat.get(open + 1..close)?).into_owned();
    let mut fields = std::str::from_utf8(stat.get(close + 1..)?).ok()?.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    let session = fields.next()?.parse().ok()?;
    let pages: u64 = fields.nth(17)?.parse().ok()?;
    Some(Entry { pid, parent, group, session, state, name, rss: pages * 4096 })
}

/// Those that run below `root`, or in the session that it leads, or below one of these: never `root` itself.
///
/// The session counts because a job that runs as uid 0 can kill its keeper; the children then lose their ancestor.
pub fn below(entries: &[Entry], root: Pid) -> Vec<Pid> {
    let mut children: HashMap<Pid, Vec<Pid>> = HashMap::new();
    for entry in entries {
        children.entry(entry.parent).or_default().push(entry.pid);
    }
    let led = entries.iter().filter(|entry| entry.session == root).map(|entry| entry.pid);
    let mut queue: Vec<Pid> = led.chain([root]).collect();
    let mut seen: HashSet<Pid> = HashSet::new();
    while let Some(pid) = queue.pop() {
        if seen.insert(pid) {
            queue.extend(children.get(&pid).into_iter().flatten());
        }
    }
    seen.remove(&root);
    let mut running: Vec<Pid> =
        entries.iter().filter(|entry| entry.runs() && seen.contains(&entry.pid)).map(|entry| entry.pid).collect();
    running.sort_unstable();
    running
}

/// Every process but our own: the supervisor and its keepers eat nothing.
///
/// # Errors
/// As for [`all`].
pub fn of_the_job() -> io::Result<Vec<Entry>> {
    let mut entries = all()?;
    entries.retain(|entry| !entry.name.starts_with("navvy-"));
    Ok(entries)
}

/// The largest first.
pub fn largest(entries: Vec<Entry>, count: usize) -> Vec<Process> {
    let mut processes: Vec<Process> = entries
        .into_iter()
        .filter(|entry| entry.rss > 0)
        .map(|entry| Process { pid: entry.pid as u32, name: entry.name, rss: entry.rss })
        .collect();
    processes.sort_unstable_by_key(|process| std::cmp::Reverse(process.rss));
    processes.truncate(count);
    processes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(pid: Pid, parent: Pid, session: Pid, state: u8) -> Entry {
        Entry { pid, parent, group: pid, session, state, name: String::new(), rss: 0 }
    }

    #[test]
    fn names_may_hold_anything() {
        let stat = b"7 (a) R 1 (b)\n) S 3 7 5 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 99 1000 250 18446744073709551615\n";
        let entry = parse(7, stat).unwrap();
        assert_eq!((entry.parent, entry.group, entry.session, entry.state, entry.rss), (3, 7, 5, b'S', 250 * 4096));
        assert_eq!(entry.name, "a) R 1 (b)\n");
        assert!(parse(7, b"7 (cut").is_none());
        assert!(parse(7, b") 7 (").is_none());
    }

    #[test]
    fn a_keepers_processes_are_those_below_it_and_of_its_session() {
        let entries = [
            entry(10, 1, 10, b'S'),
            entry(11, 10, 10, b'S'),
            entry(12, 11, 12, b'S'),
            entry(13, 10, 10, b'Z'),
            entry(20, 1, 20, b'S'),
            // Its keeper was killed: only the session tells.
            entry(30, 1, 10, b'T'),
            entry(31, 30, 31, b'S'),
        ];
        assert_eq!(below(&entries, 10), [11, 12, 30, 31]);
        assert_eq!(below(&entries, 20), [] as [Pid; 0]);
    }

    #[test]
    fn we_are_among_all() {
        let me = std::process::id() as Pid;
        assert!(all().unwrap().iter().any(|entry| entry.pid == me && entry.rss > 0));
    }

    #[test]
    fn what_cannot_be_listed_is_not_none() {
        let proc = tempfile::tempdir().unwrap();
        let place = proc.path();
        std::fs::create_dir(place.join("7")).unwrap();
        assert!(all_of(place).unwrap().is_empty(), "it ended while it was looked at");
        // As with a machine without descriptors, whose directory could still be opened.
        std::fs::create_dir(place.join("7/stat")).unwrap();
        assert!(all_of(place).is_err());
        assert!(all_of(&place.join("nowhere")).is_err());
    }
}
