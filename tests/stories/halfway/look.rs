//! What lies in a store, looked at from outside.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use navvy_tests::{Bench, ObjectStore, sha256};
use serde_json::Value;

pub enum Store<'a> {
    Directory(PathBuf),
    Server(&'a ObjectStore),
}

/// By what they are; each without what is before it in its path.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Paths of index objects.
    pub entries: BTreeSet<String>,
    pub bodies: BTreeSet<String>,
    pub marks: BTreeSet<String>,
    /// What a directory's writer was writing, and a server's open uploads.
    pub staged: Vec<String>,
}

/// An index object.
#[derive(Debug)]
pub struct Entry {
    pub body: String,
    /// Of a cache.
    pub key: Option<String>,
    /// Of anything else, with what it is: `layer`, `artifacts`, `results`.
    pub kind: String,
    pub group: String,
    pub producer: String,
}

impl Store<'_> {
    pub fn of(bench: &Bench) -> Self {
        Self::Directory(bench.home().join(".local/share/navvy/store"))
    }

    fn paths(&self) -> Vec<String> {
        let whole = match self {
            Self::Directory(root) => {
                let files = files(root).into_iter();
                files.map(|file| file.strip_prefix(root).expect("below").to_string_lossy().into_owned()).collect()
            }
            Self::Server(server) => server.objects(),
        };
        let ours = whole.into_iter().filter_map(|path: String| Some(path[path.find("v1/")?..].to_owned()));
        ours.collect()
    }

    #[track_caller]
    pub fn look(&self) -> Look {
        let mut look = Look::default();
        for path in self.paths() {
            let name = path.rsplit('/').next().unwrap_or_default().to_owned();
            if path.contains('#') {
                look.staged.push(path);
            } else if path.starts_with("v1/cache/") || path.starts_with("v1/piece/") {
                look.entries.insert(path);
            } else if path.starts_with("v1/body/") {
                look.bodies.insert(name);
            } else if path.starts_with("v1/reserved/") {
                look.marks.insert(name);
            }
        }
        if let Self::Server(server) = self {
            look.staged.extend(server.open_uploads());
        }
        look
    }

    #[track_caller]
    fn record(&self, path: &str) -> Value {
        serde_json::from_slice(&self.read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// An entry, whose body must be there and what it says.
    #[track_caller]
    pub fn whole(&self, path: &str) {
        let record = self.record(path);
        let id = record["body"]["id"].as_str().expect("an entry names its body");
        let body = self.read(&format!("v1/body/{id}"));
        assert_eq!(body.len() as u64, record["body"]["size"].as_u64().expect("and its size"), "{path}");
        assert_eq!(sha256(&body), record["body"]["sha256"].as_str().expect("and its digest"), "{path}");
    }

    /// What is there that was not: each whole.
    #[track_caller]
    pub fn new_is_whole(&self, before: &Look, now: &Look) {
        now.entries.difference(&before.entries).for_each(|path| self.whole(path));
    }

    #[track_caller]
    fn entry(&self, path: &str) -> Entry {
        let record = self.record(path);
        let of = |field: &str| record["place"][field].as_str().unwrap_or_default().to_owned();
        let key = record["place"]["key"].as_str().map(str::to_owned);
        let kind = path.split('/').nth(2).unwrap_or_default().to_owned();
        let body = record["body"]["id"].as_str().expect("an entry names its body").to_owned();
        Entry { body, key, kind, group: of("group"), producer: of("producer") }
    }

    #[track_caller]
    fn read(&self, path: &str) -> Vec<u8> {
        match self {
            Self::Directory(root) => fs::read(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}")),
            Self::Server(server) => server.read(&format!("of-a-story/{path}")),
        }
    }

    /// Nothing but entries, each with a body of its own. They are returned.
    #[track_caller]
    pub fn only_entries(&self, how: &str) -> Vec<Entry> {
        let look = self.look();
        let entries: Vec<Entry> = look.entries.iter().map(|path| self.entry(path)).collect();
        let bodies: BTreeSet<String> = entries.iter().map(|entry| entry.body.clone()).collect();
        assert_eq!(look.bodies, bodies, "{how}: bodies that are nobody's");
        assert_eq!(look.marks, BTreeSet::new(), "{how}: marks");
        assert_eq!(look.staged, [""; 0], "{how}: staged files or open uploads");
        entries
    }

    /// The same, and each is whole.
    #[track_caller]
    pub fn only_whole_entries(&self, how: &str) -> Vec<Entry> {
        self.new_is_whole(&Look::default(), &self.look());
        self.only_entries(how)
    }
}

/// As if all of it had been left two days ago.
pub fn make_old(bench: &Bench) {
    let long_ago = SystemTime::now() - Duration::from_secs(2 * 24 * 3600);
    for file in files(&bench.home().join(".local/share/navvy/store")) {
        let file = fs::File::options().write(true).open(file).expect("it is there");
        file.set_modified(long_ago).expect("its time can be set");
    }
}

/// Every file below a directory, unfinished ones too. Others may be at work there.
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.flat_map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { vec![entry.path()] }).collect()
}

pub fn count(directory: &Path) -> usize {
    fs::read_dir(directory).into_iter().flatten().flatten().count()
}
