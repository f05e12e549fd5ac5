//! What every store must do, whatever home it has: each of these once for every home. Also for whoever puts another home
//! together (feature `suite`).

#![allow(missing_docs, reason = "tests, whose names say what they are of")]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use sha2::{Digest as _, Sha256};

use super::artifacts::Name;
use super::*;

pub mod server;

/// Small parts, so that a small body has many. Only for stores that take them.
pub const SMALL: Shape = Shape { part: 10, parallel: 3 };
/// The project that all tasks belong to.
pub const PROJECT: &str = "project";
/// The workspace that they belong to, where nothing else is said.
pub const WORKSPACE: &str = "ws";

/// Gives the store of a task: in which scope, and in which workspace.
pub type Open = Box<dyn Fn(&str, &str) -> Store + Send>;

/// A place to test in, with as many tasks as a test wants.
pub struct Home {
    pub bucket: Arc<Bucket>,
    pub shape: Shape,
    pub open: Open,
    /// What must live as long.
    pub holds: Box<dyn std::any::Any + Send>,
}

impl Home {
    pub fn store(&self, scope: &str) -> Store {
        self.store_in(scope, WORKSPACE)
    }

    pub fn store_in(&self, scope: &str, workspace: &str) -> Store {
        (self.open)(scope, workspace)
    }

    /// Content of `parts` parts and a half.
    fn content(&self, parts: usize, seed: u8) -> Vec<u8> {
        (0..self.shape.part * parts + self.shape.part / 2).map(|at| (at % 251) as u8 ^ seed).collect()
    }

    /// What lies in the store, but for what it was asked about itself.
    async fn objects(&self) -> Vec<String> {
        let objects = self.bucket.list("v1/").await.unwrap();
        let mut paths: Vec<String> = objects.into_iter().map(|object| object.path).collect();
        paths.retain(|path| path != layout::IF_ABSENT && path != layout::CLOCK);
        paths.sort();
        paths
    }
}

/// Each test once for every home: `told_by_every_home! { NAME: HOME, … }`, where HOME is awaited.
#[macro_export]
macro_rules! told_by_every_home {
    ($($home:ident: $make:expr),* $(,)?) => {
        $($crate::told_by_every_home! { @ $home $make,
            a_body_comes_back_as_it_went
            nothing_is_seen_before_it_is_committed
            the_first_key_with_a_hit_wins
            the_newest_wins_even_over_an_exact_one
            any_prefix_finds_any_key
            an_entry_is_never_replaced
            of_many_writers_one_wins_and_nothing_is_orphaned
            a_failed_upload_leaves_nothing
            a_scope_writes_its_own_and_reads_its_parents
            layers_come_in_the_order_of_their_producers
            what_is_removed_is_gone
            a_damaged_body_is_noticed_and_put_aside
            an_index_object_that_cannot_be_read_is_put_aside_whole_and_the_next_is_hit
            an_index_object_of_a_newer_version_is_passed_over_and_stays
            a_layer_that_cannot_be_read_is_not_left_out
            a_body_that_is_shorter_than_its_record_says_is_damage
            each_of_many_files_is_fetched_alone_under_its_true_name
            a_set_of_files_that_breaks_off_leaves_nothing
            a_sweep_removes_what_nobody_committed_and_nothing_else
        })*
    };
    (@ $home:ident $make:expr, $($name:ident)*) => {
        mod $home {
            $(#[tokio::test]
            async fn $name() {
                let home = { use super::*; $make.await };
                $crate::suite::$name(home).await;
            })*
        }
    };
}

pub fn cache(key: &str) -> Slot {
    Slot::Cache { key: key.to_owned() }
}

pub fn keys(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

async fn put(store: &Store, reservation: &Reservation, content: &[u8]) -> Body {
    let pieces: Vec<std::io::Result<Bytes>> =
        content.chunks((content.len() / 13).max(7)).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    store.put(reservation, futures_util::stream::iter(pieces)).await.unwrap()
}

async fn save(store: &Store, place: Slot, content: &[u8]) -> Commit {
    let reservation = store.reserve(place).await.unwrap();
    let body = put(store, &reservation, content).await;
    let about = About { details: BTreeMap::from([("paths".into(), "~/x".into())]), ..About::default() };
    store.commit(&reservation, &body, about).await.unwrap()
}

pub async fn won(store: &Store, place: Slot, content: &[u8]) -> Entry {
    match save(store, place, content).await {
        Commit::Won(entry) => entry,
        lost => panic!("{lost:?}"),
    }
}

async fn load(store: &Store, body: &Body) -> Result<Vec<u8>> {
    let pieces: Vec<Bytes> = store.get(body).try_collect().await?;
    Ok(pieces.concat())
}

async fn found(store: &Store, asked: &[&str]) -> Option<(usize, String)> {
    let hit = store.look_up(&keys(asked)).await.unwrap()?;
    Some((hit.nth, hit.entry.key().unwrap().to_owned()))
}

pub async fn a_body_comes_back_as_it_went(home: Home) {
    let store = home.store("trusted");
    let part = home.shape.part;
    for size in [0, 1, part - 1, part, part + 1, 2 * part, 4 * part + part / 2] {
        let content: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        let entry = won(&store, cache(&format!("size-{size}")), &content).await;
        assert_eq!(entry.body().size, size as u64);
        assert_eq!(entry.body().sha256, transfer::hex(&Sha256::digest(&content)));
        assert_eq!(load(&store, entry.body()).await.unwrap(), content);
        assert_eq!(
            store.find(&cache(&format!("size-{size}"))).await.unwrap().as_ref().map(Entry::body),
            Some(entry.body())
        );
        if size > 4 * part {
            let range = part + 3..4 * part;
            let wide = range.start as u64..range.end as u64;
            assert!(store.get_range(entry.body(), wide.clone()).await.unwrap() == content[range.clone()]);
            let pieces: Vec<Bytes> = store.get_part(entry.body(), wide).try_collect().await.unwrap();
            assert!(pieces.concat() == content[range]);
            assert_eq!(entry.record.details["paths"], "~/x");
        }
    }
}

pub async fn nothing_is_seen_before_it_is_committed(home: Home) {
    let store = home.store("trusted");
    let reservation = store.reserve(cache("k")).await.unwrap();
    let body = put(&store, &reservation, b"content that takes several parts").await;
    assert_eq!(found(&store, &["k"]).await, None);
    assert_eq!(store.find(&cache("k")).await.unwrap(), None);
    store.commit(&reservation, &body, About::default()).await.unwrap();
    assert_eq!(found(&store, &["k"]).await, Some((0, "k".into())));
}

pub async fn the_first_key_with_a_hit_wins(home: Home) {
    let store = home.store("trusted");
    won(&store, cache("gems-v1-aaa"), b"1").await;
    won(&store, cache("npm-v1"), b"2").await;
    assert_eq!(found(&store, &["none", "gems-v1-aaa", "npm-v1"]).await, Some((1, "gems-v1-aaa".into())));
    assert_eq!(found(&store, &["gems-v2-", "npm-"]).await, Some((1, "npm-v1".into())));
    assert_eq!(found(&store, &["none", "gems-v1-aaab"]).await, None);
    assert_eq!(found(&store, &[]).await, None);
}

pub async fn the_newest_wins_even_over_an_exact_one(home: Home) {
    let store = home.store("trusted");
    // A store may tell time by the second; of one second, the greater key is taken for the newer.
    won(&store, cache("k"), b"exact").await;
    won(&store, cache("k-1"), b"older").await;
    won(&store, cache("k-2"), b"newer").await;
    won(&store, cache("j-3"), b"another's").await;
    assert_eq!(found(&store, &["k"]).await, Some((0, "k-2".into())));
    let listed = store.list("k").await.unwrap();
    let listed: Vec<&str> = listed.iter().filter_map(|listed| listed.key.as_deref()).collect();
    assert_eq!(listed, ["k-2", "k-1", "k"]);
}

pub async fn any_prefix_finds_any_key(home: Home) {
    let store = home.store("trusted");
    let keys = [
        "a".repeat(900),
        "a/b=c#d %41 ..".into(),
        format!("é{}", "/".repeat(890)),
        "k".into(),
        "..".into(),
        "💥z{~".into(),
    ];
    for key in &keys {
        let entry = won(&store, cache(key), key.as_bytes()).await;
        assert_eq!(entry.key(), Some(key.as_str()));
    }
    for key in &keys {
        let ends = key
            .char_indices()
            .map(|(at, _)| at)
            .chain([key.len()])
            .filter(|at| [1, 2, 5, 199, 200, 201, 880].contains(at));
        for end in ends.chain([key.len()]).filter(|end| *end > 0 && &key[..*end] != "a") {
            assert_eq!(found(&store, &[&key[..end]]).await, Some((0, key.clone())), "{end} of {key}");
        }
        assert_eq!(found(&store, &[&format!("{key}!")]).await, None);
    }
    assert!(matches!(store.reserve(cache("")).await, Err(StorageError::EmptyKey)));
}

pub async fn an_entry_is_never_replaced(home: Home) {
    let store = home.store("trusted");
    let first = won(&store, cache("k"), b"first").await;
    let before = home.objects().await;
    let Commit::Lost(theirs) = save(&store, cache("k"), b"second, which is longer").await else { panic!("replaced") };
    assert_eq!(theirs.record, first.record);
    assert_eq!(home.objects().await, before, "the loser's body is gone");
    assert_eq!(load(&store, theirs.body()).await.unwrap(), b"first");
}

pub async fn of_many_writers_one_wins_and_nothing_is_orphaned(home: Home) {
    for round in 0..2 {
        let writers = (0..8).map(|writer| {
            let (store, content) = (home.store("trusted"), home.content(1, writer));
            tokio::spawn(async move { (save(&store, cache(&format!("round-{round}")), &content).await, content) })
        });
        let mut winner = None;
        for writer in writers.collect::<Vec<_>>() {
            if let (Commit::Won(entry), content) = writer.await.unwrap() {
                assert!(winner.replace((entry, content)).is_none(), "two winners");
            }
        }
        let (entry, content) = winner.expect("no winner");
        let store = home.store("trusted");
        assert!(load(&store, entry.body()).await.unwrap() == content);
        let objects = home.objects().await;
        assert_eq!(objects.len(), 2 * (round + 1), "an index and a body a round: {objects:#?}");
    }
}

pub async fn a_failed_upload_leaves_nothing(home: Home) {
    let store = home.store("trusted");
    let reservation = store.reserve(cache("k")).await.unwrap();
    let part = vec![b'x'; home.shape.part];
    let broken = futures_util::stream::iter([
        Ok(Bytes::from(part.clone())),
        Ok(Bytes::from(part)),
        Ok(Bytes::from_static(b"y")),
    ])
    .chain(futures_util::stream::iter([Err(std::io::Error::other("tar died"))]));
    let error = store.put(&reservation, broken).await.unwrap_err();
    assert!(matches!(error, StorageError::Source(_)), "{error:?}");
    store.settle().await;
    store.abandon(&reservation).await.unwrap();
    assert_eq!(home.objects().await, [""; 0]);
}

pub async fn a_scope_writes_its_own_and_reads_its_parents(home: Home) {
    let [trusted, fork, other, local] = ["trusted", "fork:alice", "fork:bob", "local"].map(|scope| home.store(scope));
    won(&trusted, cache("k-old"), b"trusted").await;
    for store in [&trusted, &fork, &other, &local] {
        assert_eq!(found(store, &["k"]).await, Some((0, "k-old".into())));
    }
    won(&fork, cache("k-bad"), b"poison").await;
    assert_eq!(found(&fork, &["k"]).await, Some((0, "k-bad".into())));
    for store in [&trusted, &other, &local] {
        assert_eq!(found(store, &["k"]).await, Some((0, "k-old".into())), "a fork's cache is its own");
    }
    won(&fork, cache("k-old"), b"poison").await;
    let hit = trusted.look_up(&keys(&["k-old"])).await.unwrap().unwrap();
    assert_eq!(load(&trusted, hit.entry.body()).await.unwrap(), b"trusted");
    assert_eq!(fork.find(&cache("k-old")).await.unwrap().unwrap().record.scope, "fork:alice");
    let elsewhere = Store::direct(home.bucket.clone(), "another project", "trusted".parse().unwrap(), home.shape);
    assert_eq!(found(&elsewhere, &["k"]).await, None);
}

fn layer(producer: &str, node: u32, step: u32) -> Slot {
    let piece = Piece { of: PieceKind::Layer, group: WORKSPACE.into(), producer: producer.into(), node, step };
    Slot::Piece(piece)
}

pub async fn layers_come_in_the_order_of_their_producers(home: Home) {
    let store = home.store("trusted");
    for (producer, node, step) in [("b", 10, 3), ("b", 9, 3), ("a", 0, 12), ("a", 0, 7), ("c", 0, 1)] {
        won(&store, layer(producer, node, step), format!("{producer}{node}.{step}").as_bytes()).await;
    }
    let mut other = Piece { of: PieceKind::Artifacts, group: WORKSPACE.into(), producer: "b".into(), node: 0, step: 1 };
    won(&store, Slot::Piece(other.clone()), b"artifacts").await;
    other.of = PieceKind::Layer;
    other.group = "another".into();
    won(&home.store_in("trusted", "another"), Slot::Piece(other), b"another workspace's").await;
    let mut contents = Vec::new();
    for entry in store.layers(WORKSPACE, &keys(&["b", "none", "a"])).await.unwrap() {
        contents.push(String::from_utf8(load(&store, entry.body()).await.unwrap()).unwrap());
    }
    assert_eq!(contents, ["b9.3", "b10.3", "a0.7", "a0.12"]);
    assert_eq!(store.pieces(PieceKind::Layer, WORKSPACE, None).await.unwrap().len(), 5);
}

pub async fn what_is_removed_is_gone(home: Home) {
    let store = home.store("trusted");
    let entry = won(&store, cache("k"), b"content in parts, more than one").await;
    store.remove(&entry).await.unwrap();
    assert_eq!(home.objects().await, [""; 0]);
    assert_eq!(found(&store, &["k"]).await, None);
    let error = load(&store, entry.body()).await.unwrap_err();
    assert!(error.is_damage(), "{error:?}");
    let again = won(&store, cache("k"), b"again").await;
    // Whoever still holds the first removes only that.
    store.remove(&entry).await.unwrap();
    assert_eq!(load(&store, again.body()).await.unwrap(), b"again");
    assert_eq!(found(&store, &["k"]).await, Some((0, "k".into())));
}

pub async fn a_damaged_body_is_noticed_and_put_aside(home: Home) {
    let store = home.store("trusted");
    let entry = won(&store, cache("k"), b"content in parts, more than one").await;
    let path = layout::body(entry.body().id);
    home.bucket.write(&path, Bytes::from_static(b"CONTENT in parts, more than one")).await.unwrap();
    let error = load(&store, entry.body()).await.unwrap_err();
    assert!(matches!(error, StorageError::WrongDigest { .. }), "{error:?}");
    home.bucket.write(&path, Bytes::from_static(b"content in parts, more")).await.unwrap();
    assert!(load(&store, entry.body()).await.unwrap_err().is_damage());
    store.quarantine(&entry, "wrong digest").await.unwrap();
    assert_eq!(found(&store, &["k"]).await, None);
    assert_eq!(home.objects().await, [layout::body(entry.body().id), layout::quarantine(entry.body().id)]);
    won(&store, cache("k"), b"mended").await;
}

/// Where a place's index object is.
fn index(home: &Home, place: &Slot) -> String {
    layout::index(&layout::Namespace::new("project", &TrustScope::Trusted), place, home.bucket.text_limit())
}

/// What the power cut, the disk or a hand may have left of an index object.
fn unreadable(of: &Entry) -> Vec<Vec<u8>> {
    let whole = serde_json::to_vec(&of.record).unwrap();
    let with = |change: fn(&mut Record)| {
        let mut record = of.record.clone();
        change(&mut record);
        serde_json::to_vec(&record).unwrap()
    };
    vec![
        Vec::new(),
        vec![0; whole.len()],
        whole[..whole.len() / 2].to_vec(),
        b"\xff\xfe garbage".to_vec(),
        with(|record| record.body.size = 1_000_000_000_000_000_000),
        with(|record| record.body.sha256 = "none".into()),
        with(|record| record.place = cache("another")),
        with(|record| record.scope = "fork:mallory".into()),
    ]
}

pub async fn an_index_object_that_cannot_be_read_is_put_aside_whole_and_the_next_is_hit(home: Home) {
    let store = home.store("trusted");
    won(&store, cache("k"), b"older").await;
    let newest = won(&store, cache("k-1"), b"newest").await;
    let run = won(&store, artifacts(1), b"{}").await;
    for bytes in unreadable(&newest) {
        for place in [cache("k-1"), artifacts(1)] {
            home.bucket.write(&index(&home, &place), bytes.clone().into()).await.unwrap();
        }
        let said = String::from_utf8_lossy(&bytes).into_owned();
        assert_eq!(found(&store, &["k"]).await, Some((0, "k".into())), "{said}");
        assert_eq!(store.find(&cache("k-1")).await.unwrap(), None, "{said}");
        assert_eq!(store.list("k").await.unwrap().len(), 1, "{said}");
        assert_eq!(store.pieces(PieceKind::Artifacts, "run", None).await.unwrap(), [], "{said}");
        let mut kept = 0;
        for path in home.objects().await.iter().filter(|path| path.starts_with(layout::BODIES)) {
            kept += usize::from(home.bucket.read(path).await.unwrap().is_some_and(|(there, _)| there == bytes));
        }
        assert_eq!(kept, 2, "nothing is deleted silently: {said}");
        // Its key and its place are free again, without anybody having looked before.
        home.bucket.write(&index(&home, &cache("k-1")), bytes.clone().into()).await.unwrap();
        let again = won(&store, cache("k-1"), b"anew").await;
        let rerun = won(&store, artifacts(1), b"{}").await;
        assert_eq!(found(&store, &["k-1"]).await, Some((0, "k-1".into())), "{said}");
        home.bucket.sweep(std::time::Duration::ZERO).await.unwrap();
        assert!(load(&store, again.body()).await.is_ok() && load(&store, rerun.body()).await.is_ok(), "{said}");
        let aside = home.objects().await.into_iter().filter(|path| path.starts_with(layout::QUARANTINE)).count();
        assert_eq!(aside, 0, "a sweep ends it: {said}");
        store.remove(&again).await.unwrap();
        store.remove(&rerun).await.unwrap();
    }
    drop(run);
}

pub async fn an_index_object_of_a_newer_version_is_passed_over_and_stays(home: Home) {
    let store = home.store("trusted");
    won(&store, cache("k"), b"older").await;
    let newest = won(&store, cache("k-1"), b"newest").await;
    let mut newer = newest.record.clone();
    newer.version = 2;
    for bytes in [serde_json::to_vec(&newer).unwrap(), br#"{"version":2,"body":["another","shape"]}"#.to_vec()] {
        let path = index(&home, &cache("k-1"));
        home.bucket.write(&path, bytes.clone().into()).await.unwrap();
        assert_eq!(found(&store, &["k"]).await, Some((0, "k".into())));
        assert_eq!(store.find(&cache("k-1")).await.unwrap(), None);
        let before = home.objects().await;
        let saved = save(&store, cache("k-1"), b"by an older version").await;
        assert!(!matches!(saved, Commit::Won(_)), "{saved:?}");
        assert_eq!(home.objects().await, before, "the loser's body is gone");
        assert_eq!(home.bucket.read(&path).await.unwrap().unwrap().0, bytes, "and theirs stays");
    }
}

pub async fn a_layer_that_cannot_be_read_is_not_left_out(home: Home) {
    let store = home.store("trusted");
    let layer = |step| {
        let of = PieceKind::Layer;
        Slot::Piece(Piece { of, group: WORKSPACE.into(), producer: "job".into(), node: 0, step })
    };
    won(&store, layer(1), b"one").await;
    won(&store, layer(2), b"two").await;
    home.bucket.write(&index(&home, &layer(1)), Bytes::new()).await.unwrap();
    for _ in 0..2 {
        let error = store.layers(WORKSPACE, &["job".into()]).await.unwrap_err();
        assert!(error.to_string().contains("it is empty"), "{error}");
    }
    // Whoever removes them all is not stopped by it.
    assert_eq!(store.pieces(PieceKind::Layer, WORKSPACE, None).await.unwrap().len(), 1);
    home.bucket.write(&index(&home, &layer(1)), Bytes::new()).await.unwrap();
    assert_eq!(home.bucket.remove_old_layers(std::time::Duration::ZERO).await.unwrap().layers, 1);
    assert!(!home.objects().await.iter().any(|path| path.starts_with(layout::LAYERS)));
}

pub async fn a_body_that_is_shorter_than_its_record_says_is_damage(home: Home) {
    let store = home.store("trusted");
    let part = home.shape.part;
    let entry = won(&store, cache("k"), &home.content(2, 1)).await;
    // Also where it ends just between two ranges: the store refuses the next one.
    for ends in [0, 1, part, part + 1, 2 * part] {
        let short = home.content(2, 1)[..ends].to_vec();
        home.bucket.write(&layout::body(entry.body().id), short.into()).await.unwrap();
        let error = load(&store, entry.body()).await.unwrap_err();
        assert!(error.is_damage(), "{ends}: {error:?}");
        // As many bytes as fit into a record: what is asked for is counted by what comes.
        let most = Body { size: u64::MAX / 2, ..entry.body().clone() };
        assert!(load(&store, &most).await.unwrap_err().is_damage(), "{ends}");
    }
}

fn artifacts(step: u32) -> Slot {
    let of = PieceKind::Artifacts;
    Slot::Piece(Piece { of, group: "run".into(), producer: "job".into(), node: 0, step })
}

fn stream_of(content: &[u8]) -> impl futures_util::Stream<Item = std::io::Result<Bytes>> + Send + use<> {
    futures_util::stream::iter([Ok(Bytes::copy_from_slice(content))])
}

pub async fn each_of_many_files_is_fetched_alone_under_its_true_name(home: Home) {
    let store = home.store("trusted");
    let mut packing = store.pack(store.reserve(artifacts(1)).await.unwrap());
    let odd: [&[u8]; 8] =
        [b"a", b"a/b", b"\xff\xfe", b"x#1", &[b'n'; 255], b"../../etc/passwd", b"", "n\u{fc}\n".as_bytes()];
    let names =
        odd.iter().map(|name| Name(name.to_vec())).chain((0..300).map(|nth| Name::from(&*format!("many/{nth}"))));
    let files: Vec<(Name, Vec<u8>)> = names.enumerate().map(|(nth, name)| (name, vec![nth as u8; nth % 37])).collect();
    for (name, content) in &files {
        packing.add(name.clone(), "text/plain", stream_of(content)).await.unwrap();
    }
    let Commit::Won(entry) = packing.commit(About::default()).await.unwrap() else { panic!("lost") };
    assert_eq!(entry.record.details["files"], "308");
    let listed = store.files(&entry).await.unwrap();
    assert_eq!(
        listed.iter().map(|file| &file.name).collect::<Vec<_>>(),
        files.iter().map(|(name, _)| name).collect::<Vec<_>>()
    );
    for nth in [0, 1, 2, 3, 4, 5, 6, 7, 100, 307] {
        assert_eq!(store.file(entry.body(), &listed[nth]).await.unwrap(), files[nth].1, "{nth}");
    }
    assert_eq!(home.objects().await.len(), 2, "an index and a body, whatever they hold");
    let mut wrong = listed[100].clone();
    wrong.offset += 1;
    assert!(store.file(entry.body(), &wrong).await.unwrap_err().is_damage());
    let cache = won(&store, cache("k"), b"no files").await;
    assert!(matches!(store.files(&cache).await, Err(StorageError::Foreign { .. })));
}

pub async fn a_set_of_files_that_breaks_off_leaves_nothing(home: Home) {
    let store = home.store("trusted");
    let content = home.content(2, 0);
    let mut packing = store.pack(store.reserve(artifacts(1)).await.unwrap());
    packing.add("a".into(), "", stream_of(&content)).await.unwrap();
    let broken = futures_util::stream::iter([Ok(Bytes::from_static(b"half")), Err(std::io::Error::other("gone"))]);
    assert!(matches!(packing.add("b".into(), "", broken).await, Err(StorageError::Source(_))));
    packing.abandon().await.unwrap();
    assert_eq!(home.objects().await, [""; 0]);
}

pub async fn a_sweep_removes_what_nobody_committed_and_nothing_else(home: Home) {
    let store = home.store("trusted");
    let kept = won(&store, cache("kept"), &home.content(1, 1)).await;
    // Killed between commit and the end of its mark.
    let namespace = layout::Namespace::new("project", &TrustScope::Trusted);
    let index = layout::index(&namespace, &cache("kept"), home.bucket.text_limit());
    let mark = serde_json::json!({ "index": index }).to_string();
    home.bucket.write(&layout::reserved(kept.body().id), mark.into()).await.unwrap();
    // Killed before the upload, and after it.
    store.reserve(cache("a")).await.unwrap();
    put(&store, &store.reserve(cache("b")).await.unwrap(), &home.content(1, 2)).await;
    // Put aside.
    let aside = won(&store, cache("c"), b"damaged").await;
    store.quarantine(&aside, "wrong digest").await.unwrap();
    assert_eq!(home.bucket.sweep(SWEEP_AFTER).await.unwrap(), Swept::default(), "all of it is young");
    let swept = home.bucket.sweep(std::time::Duration::ZERO).await.unwrap();
    assert_eq!((swept.bodies, swept.quarantined), (1, 1), "{swept:?}");
    assert_eq!(home.objects().await.len(), 2, "{:#?}", home.objects().await);
    assert!(load(&store, kept.body()).await.unwrap() == home.content(1, 1));
    assert_eq!(home.bucket.sweep(std::time::Duration::ZERO).await.unwrap(), Swept::default());
}
