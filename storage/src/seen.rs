//! Index objects as they come out of a store: believed only where they can be what a writer of this version wrote.
//!
//! ```text
//! nothing there ───────────────────▶ Nothing
//! a higher version ────────────────▶ Newer        stays where it is, and is passed over; reported once
//! everything fits ─────────────────▶ Entry
//! anything else: empty, cut off, ──▶ Unreadable   moved to v1/body/ID, with its story in v1/quarantine/ID; reported once,
//! zeroes, at another's place                      since it is moved
//! ```

use jiff::Timestamp;
use serde::Deserialize;

use super::bucket::Bucket;
use super::error::Result;
use super::key;
use super::layout::{self, Namespace};
use super::record::{BodyId, Entry, Quarantined, Record, Slot, VERSION, json};
use super::transfer::MOST_BYTES;

/// Hexadecimal characters of a SHA-256.
const DIGEST: usize = 64;

/// What is at an index object's path.
#[derive(Debug)]
pub(super) enum Seen {
    Nothing,
    Entry(Box<Entry>),
    /// Written by a newer version: this one.
    Newer(u32),
    /// Why it cannot be what was written there.
    Unreadable(String),
}

/// An index object's content.
#[derive(Debug, PartialEq, Eq)]
pub enum Content {
    /// A record that can be believed, as far as its content goes.
    Record(Box<Record>),
    /// A newer program wrote it, in this version.
    Newer(u32),
    /// It is not what a program of ours writes; the text says why.
    Unreadable(String),
}

/// The one field that every version has.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Reads an index object's content. The version comes first: all else may mean something else in another one.
pub fn content(bytes: &[u8]) -> Content {
    if bytes.is_empty() {
        return Content::Unreadable("it is empty".to_owned());
    }
    match serde_json::from_slice(bytes) {
        Ok(Versioned { version }) if version > VERSION => return Content::Newer(version),
        Ok(Versioned { version: 0 }) => return Content::Unreadable("there is no version 0".to_owned()),
        Ok(_) => {}
        Err(error) => return Content::Unreadable(format!("it is not a record: {error}")),
    }
    let record: Record = match serde_json::from_slice(bytes) {
        Ok(record) => record,
        Err(error) => return Content::Unreadable(format!("it is not a record: {error}")),
    };
    match unbelievable(&record) {
        Some(why) => Content::Unreadable(why),
        None => Content::Record(Box::new(record)),
    }
}

/// What a reader would trip over: a size is what is asked of a store, and looped over.
fn unbelievable(record: &Record) -> Option<String> {
    let body = &record.body;
    if body.size > MOST_BYTES {
        return Some(format!("it tells of a body of {} bytes, and no body has more than {MOST_BYTES}", body.size));
    }
    let hex = body.sha256.len() == DIGEST && body.sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
    (!hex).then(|| "its SHA-256 is invalid".to_owned())
}

/// Whether this record was written for this path. One that was not could be found, and never be removed or put aside.
pub fn belongs(record: &Record, path: &str) -> bool {
    let Ok(scope) = record.scope.parse() else { return false };
    let namespace = Namespace::new(&record.project, &scope);
    match &record.place {
        Slot::Piece(_) => layout::index(&namespace, &record.place, 0) == path,
        Slot::Cache { key } => {
            let beneath = path.strip_prefix(&layout::caches(&namespace)).and_then(|path| path.strip_prefix('/'));
            beneath.is_some_and(|path| key::is_path_of(path, key))
        }
    }
}

/// Text for people about an entry of a newer version.
pub(super) fn newer(version: u32) -> String {
    format!("a newer version of Navvy wrote it (version {version}, this one reads up to {VERSION}): update Navvy")
}

impl Bucket {
    /// What is at an index object's path. A listing's time is finer than that of a read, where there is one.
    pub(super) async fn see(&self, path: &str, listed: Option<Timestamp>) -> Result<Seen> {
        let Some((bytes, modified)) = self.read(path).await? else { return Ok(Seen::Nothing) };
        Ok(match content(&bytes) {
            Content::Record(record) if !belongs(&record, path) => {
                Seen::Unreadable("it was written for another place".to_owned())
            }
            Content::Record(record) => {
                Seen::Entry(Box::new(Entry { record: *record, created: listed.unwrap_or(modified) }))
            }
            Content::Newer(version) => Seen::Newer(version),
            Content::Unreadable(why) => Seen::Unreadable(why),
        })
    }

    /// Moves an index object that cannot be read out of the index, to where a sweep removes it some day. If the store does not
    /// allow that, a warning is logged, and the caller does not fail: the object is of no use either way.
    pub(super) async fn put_object_aside(&self, path: &str, why: &str) {
        let (store, object) = (self.name(), path);
        match self.move_aside(path, why).await {
            Ok(Some(id)) => tracing::warn!(
                store,
                object,
                why,
                "An entry of the store cannot be read: it counts as missing, and lies in v1/body/{id} from now on."
            ),
            // Another process has done it.
            Ok(None) => {}
            Err(error) => tracing::warn!(
                store,
                object,
                why,
                error = &error as &dyn std::error::Error,
                "An entry of the store cannot be read, and could not be put aside either: it counts as missing."
            ),
        }
    }

    async fn move_aside(&self, path: &str, why: &str) -> Result<Option<BodyId>> {
        // Meanwhile another process may have put it aside, and a third one written the place anew.
        if !matches!(self.see(path, None).await?, Seen::Unreadable(_)) {
            return Ok(None);
        }
        let id = BodyId::random();
        let aside = Quarantined { why: why.to_owned(), record: None, index: Some(path.to_owned()) };
        // Its story first, so that a sweep finds every object that was moved.
        self.write(&layout::quarantine(id), json(&aside).into()).await?;
        if self.rename(path, &layout::body(id)).await? {
            return Ok(Some(id));
        }
        self.remove(&layout::quarantine(id)).await?;
        Ok(None)
    }

    /// Said once of a store: where one entry is newer, many are.
    pub(super) fn tell_newer(&self, path: &str, version: u32) {
        if self.is_first_newer() {
            let (store, object) = (self.name(), path);
            tracing::warn!(store, object, "An entry of the store is passed over: {}.", newer(version));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(size: u64, sha256: &str) -> Vec<u8> {
        serde_json::to_vec(&serde_json::json!({
            "version": 1, "project": "p", "scope": "trusted", "place": {"kind": "cache", "key": "k"},
            "body": {"id": BodyId::random(), "size": size, "sha256": sha256},
            "producer": {"pipeline": null, "job": "j", "task": "t", "build_num": null},
        }))
        .unwrap()
    }

    #[test]
    fn a_size_that_no_body_has_is_not_believed() {
        let digest = "0".repeat(DIGEST);
        assert!(matches!(content(&record(MOST_BYTES, &digest)), Content::Record(_)));
        for size in [MOST_BYTES + 1, 1_000_000_000_000_000_000, u64::MAX] {
            assert!(matches!(content(&record(size, &digest)), Content::Unreadable(_)), "{size}");
        }
        assert!(matches!(content(&record(1, "abc")), Content::Unreadable(_)));
    }

    #[test]
    fn a_long_key_has_one_place_whatever_others_begin_with() {
        let key = |end: &str| format!("{}{end}", "k".repeat(900));
        let cache = |end: &str| Slot::Cache { key: key(end) };
        let scope = "trusted".parse().unwrap();
        let path = |end: &str| layout::index(&Namespace::new("p", &scope), &cache(end), 300);
        let mut record: Record = serde_json::from_slice(&record(1, &"0".repeat(DIGEST))).unwrap();
        record.place = cache("a");
        assert!(belongs(&record, &path("a")));
        assert!(!belongs(&record, &path("b")), "it would be found there under the other key's path, and never removed");
    }

    #[test]
    fn a_newer_version_is_known_whatever_else_stands_there() {
        assert!(matches!(content(br#"{"version":2,"body":17}"#), Content::Newer(2)));
        for bytes in [&b""[..], b"\0\0\0", b"{", b"[]", b"{}", br#"{"version":0}"#, br#"{"version":1}"#] {
            assert!(matches!(content(bytes), Content::Unreadable(_)), "{}", String::from_utf8_lossy(bytes));
        }
    }
}
