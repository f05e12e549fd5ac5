//! A directory that is written and read by other people's requests.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::super::*;
use super::signs_nothing;

struct Home {
    objects: Objects,
    directory: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let bucket = Bucket::directory(&directory.path().join("store")).unwrap();
        Self { objects: Objects::new(Arc::new(bucket), signs_nothing()), directory }
    }

    async fn reserved(&self) -> (Reservation, ObjectPath) {
        let grants = self.objects.grants("project", TrustScope::Trusted);
        let reservation = grants.reserve(Slot::Cache { key: "k".into() }).await.unwrap();
        let path = ObjectPath::body(reservation.id);
        (reservation, path)
    }

    /// Every file of the store but those that it was asked about itself.
    fn files(&self) -> Vec<String> {
        fn walk(at: &std::path::Path, root: &std::path::Path, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(at).unwrap().flatten() {
                match entry.path().is_dir() {
                    true => walk(&entry.path(), root, found),
                    false => found.push(entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned()),
                }
            }
        }
        let root = self.directory.path().join("store");
        let mut found = Vec::new();
        walk(&root, &root, &mut found);
        found.retain(|path| path != layout::CLOCK && path != layout::IF_ABSENT);
        found.sort();
        found
    }
}

fn stream_of(pieces: &[&'static str]) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
    futures_util::stream::iter(pieces.iter().map(|piece| Ok(Bytes::from(*piece))).collect::<Vec<_>>())
}

fn part(upload: &str, part: u32, length: u64) -> Verb {
    Verb::Part { upload: upload.to_owned(), part, length }
}

async fn read(objects: &Objects, path: &ObjectPath, range: Option<Range<u64>>) -> (u64, Range<u64>, String) {
    let sent = objects.send(path, range).await.unwrap().unwrap();
    let bytes: Vec<Bytes> = sent.bytes.try_collect().await.unwrap();
    (sent.size, sent.range, String::from_utf8(bytes.concat()).unwrap())
}

#[tokio::test]
async fn what_was_taken_is_given_whole_and_in_ranges() {
    let home = Home::new();
    let (_, path) = home.reserved().await;
    home.objects.receive(&path, &Verb::Put { length: 6 }, stream_of(&["abc", "", "def"])).await.unwrap();
    assert_eq!(read(&home.objects, &path, None).await, (6, 0..6, "abcdef".into()));
    assert_eq!(read(&home.objects, &path, Some(2..4)).await, (6, 2..4, "cd".into()));
    assert_eq!(read(&home.objects, &path, Some(4..u64::MAX)).await, (6, 4..6, "ef".into()));
    let behind = home.objects.send(&path, Some(6..7)).await.unwrap_err();
    assert!(matches!(behind, StorageError::Range { size: 6 }), "{behind:?}");
    assert!(home.objects.send(&ObjectPath::body(BodyId::random()), None).await.unwrap().is_none());
    let log = ObjectPath::read("v1/log/t/001-1/0").unwrap();
    let large: Vec<io::Result<Bytes>> = (0..30).map(|nth| Ok(vec![nth; 100_000].into())).collect();
    home.objects.receive(&log, &Verb::Put { length: 3_000_000 }, futures_util::stream::iter(large)).await.unwrap();
    let sent = home.objects.send(&log, Some(99_999..2_900_001)).await.unwrap().unwrap();
    let bytes: Vec<Bytes> = sent.bytes.try_collect().await.unwrap();
    assert!(bytes.iter().all(|piece| piece.len() <= 256 << 10), "piece by piece");
    let bytes = bytes.concat();
    assert_eq!((bytes.len(), bytes[0], bytes[1], bytes[2_800_001]), (2_800_002, 0, 1, 29));
    let listed = home.objects.list("v1/log/t/").await.unwrap();
    assert_eq!(listed.iter().map(|stored| (&stored.path, stored.size)).collect::<Vec<_>>(), [(&log, 3_000_000)]);
    assert!(listed[0].modified <= home.objects.now().await.unwrap());
    assert_eq!(home.objects.get(&log, 3_000_000).await.unwrap().unwrap().len(), 3_000_000);
    let capped = home.objects.get(&log, 2_999_999).await.unwrap_err();
    assert!(matches!(capped, StorageError::TooLong { .. }), "{capped:?}");
    home.objects.remove(&log).await.unwrap();
    assert_eq!(home.objects.get(&log, 1).await.unwrap(), None);
}

#[tokio::test]
async fn what_is_too_long_or_too_short_or_breaks_off_leaves_nothing() {
    let home = Home::new();
    let (_, path) = home.reserved().await;
    let before = home.files();
    let upload = home.objects.begin(&path).await.unwrap();
    for verb in [Verb::Put { length: 4 }, part(&upload, 0, 4)] {
        for pieces in [&["abc"][..], &["abc", "de"], &[]] {
            let error = home.objects.receive(&path, &verb, stream_of(pieces)).await.unwrap_err();
            assert!(matches!(error, StorageError::Length { expected: 4, .. }), "{error:?}");
        }
        let broken = stream_of(&["ab"]).chain(futures_util::stream::iter([Err(io::ErrorKind::TimedOut.into())]));
        let error = home.objects.receive(&path, &verb, broken).await.unwrap_err();
        assert!(matches!(error, StorageError::Source(_)), "{error:?}");
        assert_eq!(home.files(), before, "{verb:?}");
    }
}

#[tokio::test]
async fn parts_are_joined_once_all_of_them_are_there() {
    let home = Home::new();
    let (reservation, path) = home.reserved().await;
    let other = home.objects.begin(&path).await.unwrap();
    let upload = home.objects.begin(&path).await.unwrap();
    let second = home.objects.receive(&path, &part(&upload, 1, 3), stream_of(&["def"])).await.unwrap();
    // Once more, since no answer came.
    home.objects.receive(&path, &part(&upload, 1, 3), stream_of(&["def"])).await.unwrap();
    home.objects.receive(&path, &part(&other, 0, 3), stream_of(&["xyz"])).await.unwrap();
    let tags = |first: &str| vec![first.to_owned(), second.clone()];
    assert!(home.objects.complete(&path, &upload, tags("\"3\"")).await.is_err(), "a part is missing");
    let first = home.objects.receive(&path, &part(&upload, 0, 3), stream_of(&["abc"])).await.unwrap();
    assert!(home.objects.complete(&path, &upload, tags("")).await.is_err(), "a tag is another's");
    assert_eq!(home.objects.size(&path).await.unwrap(), None);
    home.objects.complete(&path, &upload, tags(&first)).await.unwrap();
    home.objects.complete(&path, &upload, tags(&first)).await.unwrap();
    assert_eq!(read(&home.objects, &path, None).await.2, "abcdef");
    assert_eq!(home.files(), [path.to_string(), layout::reserved(reservation.id)]);
    for stranger in [&*upload, &other, "", "..", "../../../body", "/tmp", &upload.to_uppercase()] {
        let late = home.objects.receive(&path, &part(stranger, 0, 3), stream_of(&["abc"])).await.unwrap_err();
        assert!(matches!(late, StorageError::NoUpload { .. }), "{late:?}");
        home.objects.abort(&path, stranger).await.unwrap();
    }
    assert_eq!(home.files().len(), 2);
}

#[tokio::test]
async fn nothing_is_taken_once_it_was_given_up_or_committed() {
    let home = Home::new();
    let grants = home.objects.grants("project", TrustScope::Trusted);
    let (reservation, path) = home.reserved().await;
    let upload = home.objects.begin(&path).await.unwrap();
    home.objects.receive(&path, &part(&upload, 0, 3), stream_of(&["abc"])).await.unwrap();
    grants.abandon(&reservation).await.unwrap();
    assert_eq!(home.files(), [""; 0]);
    for verb in [Verb::Put { length: 3 }, part(&upload, 1, 3)] {
        let late = home.objects.receive(&path, &verb, stream_of(&["abc"])).await.unwrap_err();
        assert!(matches!(late, StorageError::NoUpload { .. }), "{late:?}");
    }
    assert_eq!(home.files(), [""; 0]);

    let (reservation, path) = home.reserved().await;
    home.objects.receive(&path, &Verb::Put { length: 3 }, stream_of(&["abc"])).await.unwrap();
    let body = Body { id: reservation.id, size: 3, sha256: "0".repeat(64) };
    let committed = grants.commit(&reservation, &body, About::default()).await.unwrap();
    assert!(matches!(committed, Commit::Won(_)));
    let late = home.objects.receive(&path, &Verb::Put { length: 3 }, stream_of(&["xyz"])).await.unwrap_err();
    assert!(matches!(late, StorageError::NoUpload { .. }), "{late:?}");
    assert_eq!(read(&home.objects, &path, None).await.2, "abc");
}

#[tokio::test]
async fn what_is_given_up_while_it_arrives_is_found_by_a_sweep_and_what_is_committed_then_stays() {
    let home = Home::new();
    let grants = home.objects.grants("project", TrustScope::Trusted);
    for commits in [false, true] {
        let (reservation, path) = home.reserved().await;
        let body = Body { id: reservation.id, size: 3, sha256: "0".repeat(64) };
        home.objects.receive(&path, &Verb::Put { length: 3 }, stream_of(&["abc"])).await.unwrap();
        // A second attempt arrives while the answer to the first is acted upon.
        let (grants, reserved) = (grants.clone(), reservation.clone());
        let meanwhile = futures_util::stream::once(async move {
            match commits {
                true => drop(grants.commit(&reserved, &body, About::default()).await.unwrap()),
                false => grants.abandon(&reserved).await.unwrap(),
            }
            Ok(Bytes::from("abc"))
        });
        home.objects.receive(&path, &Verb::Put { length: 3 }, meanwhile).await.unwrap();
        home.objects.bucket().sweep(Duration::ZERO).await.unwrap();
        assert_eq!(home.objects.size(&path).await.unwrap(), commits.then_some(3));
    }
    assert_eq!(home.files().len(), 2, "an entry and its body: {:?}", home.files());
}

#[tokio::test]
async fn a_sweep_finds_the_parts_that_nobody_joined() {
    let home = Home::new();
    let (_, path) = home.reserved().await;
    let upload = home.objects.begin(&path).await.unwrap();
    home.objects.receive(&path, &part(&upload, 0, 3), stream_of(&["abc"])).await.unwrap();
    let young = home.objects.bucket().sweep(SWEEP_AFTER).await.unwrap();
    assert_eq!(young, Swept::default());
    let swept = home.objects.bucket().sweep(Duration::ZERO).await.unwrap();
    assert_eq!((swept.uploads, swept.failed.len()), (1, 0));
    assert_eq!(home.files(), [""; 0]);
}

#[tokio::test]
async fn an_upload_that_is_being_joined_is_not_joined_again() {
    let home = Home::new();
    let (_, path) = home.reserved().await;
    let upload = home.objects.begin(&path).await.unwrap();
    let tag = home.objects.receive(&path, &part(&upload, 0, 3), stream_of(&["abc"])).await.unwrap();
    // As if the first call were at it still, and its caller had gone.
    let joining = home.objects.joining.begin(&upload).unwrap();
    let busy = home.objects.clone().complete(&path, &upload, vec![tag.clone()]).await.unwrap_err();
    assert!(matches!(busy, StorageError::Busy { .. }), "{busy:?}");
    drop(joining);
    for _ in 0..2 {
        home.objects.complete(&path, &upload, vec![tag.clone()]).await.unwrap();
    }
    assert_eq!(home.files().len(), 2, "a mark and a body: {:?}", home.files());
}
