//! A store's index objects: of any bytes; of JSON with any version; of what a writer wrote and something then befell. Each is a
//! record, a newer version's or unreadable; a record can be believed, is written again as the same, and belongs to one place.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use navvy_fuzz::{Feed, mishap};
use navvy_storage::{
    Body, BodyId, Content, Namespace, Piece, PieceKind, Producer, Record, Slot, belongs, content, index_path,
};
use sha2::{Digest as _, Sha256};

/// docs/storage.md: 10,000 parts of 5 GiB.
const LARGEST: u64 = 10_000 * (5 << 30);
const SCOPES: [&str; 6] = ["trusted", "local", "fork:alice", "local:/srv/a", "fork:", "anybody"];
/// Bytes that a path of a store leaves for a key: with a long prefix, and with none.
const LIMITS: [usize; 3] = [300, 600, 947];

fuzz_target!(|data: &[u8]| {
    let mut feed = Feed::new(data);
    match feed.byte() % 3 {
        0 => drop(any(feed.rest())),
        1 => versioned(&mut feed),
        _ => written(&mut feed),
    }
});

/// What holds of whatever stands there.
fn any(bytes: &[u8]) -> Option<Record> {
    match content(bytes) {
        Content::Record(record) => {
            believable(&record);
            let again = serde_json::to_vec(&record).expect("a record that JSON cannot hold");
            assert_eq!(
                content(&again),
                Content::Record(record.clone()),
                "a record is written otherwise than it was read"
            );
            places(&record);
            Some(*record)
        }
        Content::Newer(version) => {
            assert!(version > 1);
            if let Ok(told) = serde_json::from_slice::<serde_json::Value>(bytes) {
                assert!(told["version"] == version || told[0] == version, "{told} is not of version {version}");
            }
            None
        }
        Content::Unreadable(why) => {
            assert!(!why.is_empty());
            None
        }
    }
}

fn believable(record: &Record) {
    let is_hex = |text: &str, length: usize| text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let Body { id, size, sha256 } = &record.body;
    let id = id.to_string();
    assert!(record.version == 1 && *size <= LARGEST && is_hex(sha256, 64));
    assert!(is_hex(&id, 32) && id == id.to_lowercase());
}

/// Its own path is its only one, whatever the store left for it, and one that can be a file's.
fn places(record: &Record) {
    let Ok(scope) = record.scope.parse() else { return assert!(!belongs(record, "v1")) };
    let namespace = Namespace::new(&record.project, &scope);
    let digest =
        |bytes: &[u8]| Sha256::digest(bytes).iter().take(16).map(|byte| format!("{byte:02x}")).collect::<String>();
    for limit in LIMITS {
        let path = index_path(&namespace, &record.place, limit);
        let is_empty = matches!(&record.place, Slot::Cache { key } if key.is_empty());
        assert!(belongs(record, &path), "{path} is not its own");
        assert!(
            is_empty || path.split('/').all(|part| !matches!(part, "" | "." | "..") && part.len() <= 200),
            "{path}"
        );
        assert!(
            path.starts_with("v1/") && path.len() <= 1024 && path.bytes().all(|byte| byte.is_ascii_graphic()),
            "{path}"
        );
        if let Slot::Cache { key } = &record.place {
            assert!(path.ends_with(&format!(",{}", digest(key.as_bytes()))), "{path}");
            // Of another key that begins the same.
            let (text, _) = path.rsplit_once(',').expect("it has a digest");
            assert!(
                !belongs(record, &format!("{text},{}", digest(b"another"))),
                "it belongs to another key's place, too"
            );
        }
        let other = Namespace::new(&format!("{}x", record.project), &scope);
        assert!(
            !belongs(record, &index_path(&other, &record.place, limit)),
            "it belongs to another project's place, too"
        );
    }
}

/// The version goes first: what else stands there may mean something else.
fn versioned(feed: &mut Feed<'_>) {
    let version = if feed.byte() & 1 == 0 { u64::from(feed.byte()) } else { feed.number() };
    let rest = String::from_utf8_lossy(feed.rest());
    let text = format!("{{\"version\":{version}{rest}}}");
    any(text.as_bytes());
    let is_json = serde_json::from_str::<BTreeMap<String, serde_json::Value>>(&text).is_ok();
    // Neither a longer number nor a second version.
    let is_plain = rest.starts_with(',') && !rest.contains("version") && !rest.contains('\\');
    if is_json && is_plain && (2..=u64::from(u32::MAX)).contains(&version) {
        assert_eq!(content(text.as_bytes()), Content::Newer(version as u32), "{text}");
    }
}

fn written(feed: &mut Feed<'_>) {
    let record = record(feed);
    let mut bytes = serde_json::to_vec(&record).expect("a record that JSON cannot hold");
    let is_right = record.version == 1 && record.body.size <= LARGEST && record.body.sha256.len() == 64;
    let read = any(&bytes);
    assert_eq!(read, is_right.then_some(record), "what was written is not what is read");

    let whole = bytes.clone();
    for _ in 0..=feed.up_to(2) {
        mishap(feed, &mut bytes, &[]);
    }
    any(&bytes);
    let cut = &whole[..feed.up_to(whole.len() - 1)];
    assert!(matches!(content(cut), Content::Unreadable(_)), "a part of a record is none");
}

fn record(feed: &mut Feed<'_>) -> Record {
    let shape = feed.byte();
    let size = if shape & 1 == 0 { feed.number() % (LARGEST + 3) } else { LARGEST - 1 + u64::from(feed.byte() % 3) };
    let sha256 = [feed.byte(); 32].iter().map(|byte| format!("{byte:02x}")).collect();
    Record {
        version: u32::from(shape >> 1 & 3 != 3),
        project: feed.text(20),
        scope: SCOPES[feed.up_to(SCOPES.len() - 1)].to_owned(),
        place: place(feed),
        body: Body { id: BodyId::read(&format!("{:032x}", feed.number())).expect("an id"), size, sha256 },
        producer: Producer { job: feed.text(9), task: feed.text(9), ..Producer::default() },
        details: (0..feed.up_to(2)).map(|_| (feed.text(9), feed.text(9))).collect(),
    }
}

fn place(feed: &mut Feed<'_>) -> Slot {
    let of = match feed.byte() % 6 {
        0 => PieceKind::Layer,
        1 => PieceKind::Artifacts,
        2 => PieceKind::TestResults,
        // A few of them longer than their path.
        repeats => return Slot::Cache { key: feed.text(60).repeat([1, 4, 20][usize::from(repeats) - 3]) },
    };
    let (group, producer) = (feed.text(20), feed.text(20));
    Slot::Piece(Piece { of, group, producer, node: feed.number() as u32, step: feed.byte().into() })
}
