//! Stores on bad days: what they answer, how slowly, and what is left when we are killed.

use std::collections::HashMap;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::super::suite::server::server;
use super::super::*;
use super::proxy::{Asked, Fate, Proxy};
use super::signs_nothing;

/// The least that S3 takes.
const SHAPE: Shape = Shape { part: 5 << 20, parallel: 2 };
/// Only a connection that carries nothing at all is given up: this machine may be busy.
const PACE: Pace = Pace { window: Duration::from_secs(2), floor: 1, answer: Duration::from_secs(60) };
const RETRIES: Retries = Retries {
    most: 6,
    within: Duration::from_secs(120),
    first: Duration::from_millis(1),
    last: Duration::from_millis(20),
};

#[derive(Debug, Clone, Copy)]
enum Home {
    Direct,
    Granted,
}

const HOMES: [Home; 2] = [Home::Direct, Home::Granted];

fn settings(endpoint: &str) -> StorageSettings {
    StorageSettings { pace: PACE, retries: RETRIES, shape: SHAPE, ..server().settings(endpoint) }
}

fn store(home: Home, settings: &StorageSettings) -> (Store, Arc<Bucket>) {
    let bucket = Arc::new(settings.open().unwrap());
    let store = match home {
        Home::Direct => Store::direct(bucket.clone(), "project", TrustScope::Trusted, SHAPE),
        Home::Granted => {
            let objects = Objects::new(bucket.clone(), signs_nothing());
            let grantor = Arc::new(objects.grants("project", TrustScope::Trusted));
            Store::granted(grantor, settings.transport().unwrap(), RETRIES, SHAPE)
        }
    };
    (store, bucket)
}

fn content() -> Vec<u8> {
    (0..SHAPE.part * 2 + 12345).map(|at| (at % 251) as u8).collect()
}

fn cache(key: &str) -> Slot {
    Slot::Cache { key: key.to_owned() }
}

fn stream_of(content: Vec<u8>) -> impl futures_util::Stream<Item = std::io::Result<Bytes>> + Send {
    futures_util::stream::iter([Ok(Bytes::from(content))])
}

async fn save(store: &Store, key: &str) -> Result<Commit> {
    let reservation = store.reserve(cache(key)).await?;
    let body = store.put(&reservation, stream_of(content())).await?;
    store.commit(&reservation, &body, About::default()).await
}

async fn load(store: &Store, body: &Body) -> Result<Vec<u8>> {
    Ok(store.get(body).try_collect::<Vec<Bytes>>().await?.concat())
}

/// What a request is for, whenever it is made and whoever signed it.
fn purpose(asked: &Asked) -> String {
    let (path, query) = asked.target.split_once('?').unwrap_or((&asked.target, ""));
    let query: Vec<&str> = query.split('&').filter(|pair| !pair.starts_with("X-Amz-")).collect();
    format!("{} {path} {query:?}", asked.method)
}

/// The first request for each purpose has this fate, all others pass.
fn each_once(fate: Fate) -> impl FnMut(&Asked) -> Fate + Send + 'static {
    let mut seen: HashMap<String, usize> = HashMap::new();
    move |asked| {
        let times = seen.entry(purpose(asked)).or_default();
        *times += 1;
        if *times == 1 { fate } else { Fate::Pass }
    }
}

#[tokio::test]
async fn what_fails_once_is_done_all_the_same() {
    let fates = [
        Fate::Answer(500),
        Fate::Answer(503),
        Fate::Answer(429),
        Fate::RequestEnds(1000),
        Fate::AnswerEnds(0),
        Fate::AnswerEnds(30),
    ];
    for (home, fate) in HOMES.into_iter().flat_map(|home| fates.map(|fate| (home, fate))) {
        let proxy = Proxy::before(&server().endpoint, each_once(fate)).await;
        let (store, bucket) = store(home, &settings(&proxy.endpoint));
        let saved = save(&store, "k").await.unwrap_or_else(|error| panic!("{home:?}, {fate:?}: {error:?}"));
        let Commit::Won(entry) = saved else { panic!("{home:?}, {fate:?}: lost") };
        let hit = store.look_up(&["k".into()]).await.unwrap().unwrap();
        assert_eq!(hit.entry.body(), entry.body());
        assert!(load(&store, entry.body()).await.unwrap() == content(), "{home:?}, {fate:?}");
        assert_eq!(bucket.open_uploads(&layout::body(entry.body().id)).await.unwrap(), [""; 0], "{home:?}, {fate:?}");
        store.remove(&entry).await.unwrap();
        let left: Vec<String> = bucket.list("v1/").await.unwrap().into_iter().map(|object| object.path).collect();
        assert_eq!(left, [layout::IF_ABSENT], "{home:?}, {fate:?}");
    }
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_still_ours() {
    let proxy = Proxy::before(&server().endpoint, each_once(Fate::AnswerLost)).await;
    let (store, bucket) = store(Home::Direct, &settings(&proxy.endpoint));
    let Commit::Won(entry) = save(&store, "k").await.unwrap() else { panic!("lost to ourselves") };
    assert!(load(&store, entry.body()).await.unwrap() == content());
    assert_eq!(bucket.list("v1/").await.unwrap().len(), 3, "body, index, if-absent");
}

/// The first read of a body has this fate; the next must go on from about there.
async fn goes_on_from_where_it_was(home: Home, fate: Fate, pace: Pace) {
    let mut reads = 0;
    let rule = move |asked: &Asked| {
        reads += usize::from(asked.is("GET", "/v1/body/"));
        if reads == 1 && asked.is("GET", "/v1/body/") { fate } else { Fate::Pass }
    };
    let proxy = Proxy::before(&server().endpoint, rule).await;
    let settings = StorageSettings { pace, ..settings(&proxy.endpoint) };
    let (store, _) = store(home, &settings);
    let Commit::Won(entry) = save(&store, "k").await.unwrap() else { panic!("lost") };
    let end = SHAPE.part as u64;
    assert!(store.get_range(entry.body(), 0..end).await.unwrap() == content()[..SHAPE.part]);
    let ranges: Vec<String> = proxy
        .asked()
        .into_iter()
        .filter(|asked| asked.is("GET", "/v1/body/"))
        .filter_map(|asked| asked.range)
        .collect();
    assert_eq!(ranges[0], format!("bytes=0-{}", end - 1), "{home:?}, {fate:?}");
    let next: u64 = ranges[1].strip_prefix("bytes=").unwrap().split('-').next().unwrap().parse().unwrap();
    assert!(next > 0 && ranges[1].ends_with(&format!("-{}", end - 1)), "{home:?}, {fate:?}: {ranges:?}");
    assert_eq!(ranges.len(), 2);
}

#[tokio::test]
async fn a_read_that_breaks_off_or_stalls_goes_on_from_where_it_was() {
    for home in HOMES {
        goes_on_from_where_it_was(home, Fate::AnswerEnds(1 << 20), PACE).await;
        goes_on_from_where_it_was(home, Fate::AnswerStalls(1 << 20), PACE).await;
    }
}

#[tokio::test]
async fn ten_kilobytes_a_second_is_a_stall() {
    let pace = Pace { window: Duration::from_secs(2), ..Pace::default() };
    for home in HOMES {
        goes_on_from_where_it_was(home, Fate::AnswerTrickles(1000), pace).await;
    }
}

#[tokio::test]
async fn an_upload_that_stalls_gets_another_connection() {
    for home in HOMES {
        let mut parts = 0;
        let rule = move |asked: &Asked| {
            let part = asked.is("PUT", "partNumber=");
            parts += usize::from(part);
            if part && parts == 1 { Fate::RequestStalls(1000) } else { Fate::Pass }
        };
        let proxy = Proxy::before(&server().endpoint, rule).await;
        let (store, _) = store(home, &settings(&proxy.endpoint));
        let Commit::Won(entry) = save(&store, "k").await.unwrap() else { panic!("lost") };
        assert!(load(&store, entry.body()).await.unwrap() == content());
        assert_eq!(
            proxy.asked().iter().filter(|asked| asked.is("PUT", "partNumber=")).count(),
            4,
            "three parts, one twice"
        );
    }
}

#[tokio::test]
async fn a_store_that_stays_bad_ends_in_an_error_and_leaves_no_upload() {
    for home in HOMES {
        let rule = |asked: &Asked| if asked.is("PUT", "partNumber=2") { Fate::Answer(503) } else { Fate::Pass };
        let proxy = Proxy::before(&server().endpoint, rule).await;
        let (store, bucket) = store(home, &settings(&proxy.endpoint));
        let reservation = store.reserve(cache("k")).await.unwrap();
        let error = store.put(&reservation, stream_of(content())).await.unwrap_err();
        assert!(format!("{error:?}").contains("503"), "{error:?}");
        let tries = proxy.asked().iter().filter(|asked| asked.is("PUT", "partNumber=2")).count();
        assert_eq!(tries, RETRIES.most + 1);
        store.settle().await;
        assert_eq!(bucket.open_uploads(&layout::body(reservation.id)).await.unwrap(), [""; 0]);
        store.abandon(&reservation).await.unwrap();
        assert_eq!(bucket.list("v1/").await.unwrap(), []);
    }
}

#[tokio::test]
async fn an_upload_that_is_dropped_is_aborted() {
    for home in HOMES {
        let (store, bucket) = store(home, &settings(&server().endpoint));
        let reservation = store.reserve(cache("k")).await.unwrap();
        let (begun, on_its_way) = tokio::sync::oneshot::channel();
        let waits = async move {
            begun.send(()).unwrap();
            std::future::pending().await
        };
        let endless = stream_of(content()).chain(futures_util::stream::once(waits));
        tokio::select! {
            ended = store.put(&reservation, endless) => panic!("{ended:?}"),
            _ = on_its_way => {}
        }
        store.settle().await;
        assert_eq!(bucket.open_uploads(&layout::body(reservation.id)).await.unwrap(), [""; 0]);
    }
}

#[tokio::test]
async fn a_byte_that_changed_on_its_way_is_noticed() {
    for home in HOMES {
        let rule = |asked: &Asked| if asked.is("GET", "/v1/body/") { Fate::Corrupt } else { Fate::Pass };
        let proxy = Proxy::before(&server().endpoint, rule).await;
        let (store, _) = store(home, &settings(&proxy.endpoint));
        let Commit::Won(entry) = save(&store, "k").await.unwrap() else { panic!("lost") };
        let error = load(&store, entry.body()).await.unwrap_err();
        assert!(matches!(error, StorageError::WrongDigest { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_store_that_ignores_conditions_is_asked_once_and_named() {
    let rule = |asked: &Asked| {
        let whole = asked.method == "PUT" && !asked.target.contains("partNumber");
        if whole { Fate::Answer(200) } else { Fate::Pass }
    };
    let proxy = Proxy::before(&server().endpoint, rule).await;
    let (store, bucket) = store(Home::Direct, &settings(&proxy.endpoint));
    for _ in 0..2 {
        let error = save(&store, "k").await.unwrap_err();
        assert!(matches!(error, StorageError::IgnoresConditions { .. }), "{error:?}");
        assert!(error.to_string().contains(bucket.name()), "{error}");
    }
    assert_eq!(proxy.asked().iter().filter(|asked| asked.is("PUT", layout::IF_ABSENT)).count(), 2);
}

#[tokio::test]
async fn refused_credentials_are_no_reason_to_wait() {
    let mut settings = settings(&server().endpoint);
    settings.options.insert("aws_secret_access_key".into(), "hunter2-is-wrong".into());
    let proxy = Proxy::before(&server().endpoint, |_| Fate::Pass).await;
    settings.options.insert("aws_endpoint".into(), proxy.endpoint.clone());
    let (store, _) = store(Home::Direct, &settings);
    let error = store.reserve(cache("k")).await.unwrap_err();
    assert!(!format!("{error:?} {error} {store:?} {settings:?}").contains("hunter2"));
    assert_eq!(proxy.asked().len(), 1);
}

#[tokio::test]
async fn proxies_are_used_and_passed_by_as_the_variables_say() {
    let proxy = Proxy::before(&server().endpoint, |_| Fate::Pass).await;
    // No name server knows it: only the proxy can.
    let mut settings = settings("http://store.invalid");
    settings.proxies = Proxies { http: Some(proxy.endpoint.clone()), ..Proxies::default() };
    let (store, _) = store(Home::Direct, &settings);
    assert!(matches!(save(&store, "k").await.unwrap(), Commit::Won(_)));
    assert!(proxy.asked().iter().all(|asked| asked.target.starts_with("http://store.invalid/")));

    let before = proxy.asked().len();
    let mut settings = self::settings(&server().endpoint);
    settings.proxies = Proxies { http: Some(proxy.endpoint.clone()), https: None, except: Some("127.0.0.1".into()) };
    let (store, _) = self::store(Home::Direct, &settings);
    assert_eq!(store.look_up(&["k".into()]).await.unwrap(), None);
    assert_eq!(proxy.asked().len(), before);
}

/// How the killed test below tells its child where to go.
const VICTIM: &str = "NAVVY_TEST_STORE_VICTIM";

/// Uploads two parts and then waits to be killed.
async fn be_a_victim(bucket: Arc<Bucket>, shape: Shape) {
    let store = Store::direct(bucket, "project", TrustScope::Trusted, shape);
    let reservation = store.reserve(cache("k")).await.unwrap();
    let endless = stream_of(content()).chain(futures_util::stream::pending());
    store.put(&reservation, endless).await.unwrap();
}

/// Runs this very test in a process of its own, as its victim, and kills it when `begun`.
async fn kill_at(test: &str, place: &str, begun: impl AsyncFn() -> bool) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(VICTIM, place)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let until = tokio::time::Instant::now() + Duration::from_secs(60);
    while !begun().await {
        assert!(child.try_wait().unwrap().is_none(), "the victim ended by itself");
        assert!(tokio::time::Instant::now() < until, "the victim uploads nothing");
        tokio::task::yield_now().await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn a_sweep_finds_what_a_killed_writer_left_in_a_directory() {
    if let Some(directory) = std::env::var_os(VICTIM) {
        let bucket = Bucket::directory(directory.as_ref()).unwrap();
        return be_a_victim(Arc::new(bucket), SHAPE).await;
    }
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let names = |path: &str| {
        let entries = std::fs::read_dir(root.join(path)).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    let test = "tests::faults::a_sweep_finds_what_a_killed_writer_left_in_a_directory";
    kill_at(test, root.to_str().unwrap(), async || !names(layout::BODIES).is_empty()).await;
    assert!(names(layout::BODIES)[0].ends_with("#1"));
    let bucket = Bucket::directory(root).unwrap();
    assert_eq!(bucket.sweep(SWEEP_AFTER).await.unwrap(), Swept::default());
    let swept = bucket.sweep(Duration::ZERO).await.unwrap();
    assert_eq!(swept, Swept { staged: 1, ..Swept::default() });
    assert_eq!(names(layout::BODIES), [""; 0]);
    let left: Vec<String> = bucket.list("v1/").await.unwrap().into_iter().map(|object| object.path).collect();
    assert_eq!(left, [layout::CLOCK]);
}

/// A small object becomes visible as a second name of its staged file, whose first name goes after it.
#[tokio::test]
async fn a_sweep_finds_what_a_writer_left_that_was_killed_once_its_entry_was_seen() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let store = Store::direct(Arc::new(Bucket::directory(root).unwrap()), "project", TrustScope::Trusted, SHAPE);
    let reservation = store.reserve(cache("k")).await.unwrap();
    let mark = root.join(layout::reserved(reservation.id));
    let marked = std::fs::read(&mark).unwrap();
    let body = store.put(&reservation, stream_of(content())).await.unwrap();
    store.commit(&reservation, &body, About::default()).await.unwrap();
    let listed = Bucket::directory(root).unwrap().list("v1/cache/").await.unwrap();
    let [index] = &listed[..] else { panic!("one entry: {listed:?}") };
    let index = root.join(&index.path);
    let staged = index.with_file_name(format!("{}#1", index.file_name().unwrap().to_str().unwrap()));
    std::fs::hard_link(&index, &staged).unwrap();
    std::fs::create_dir_all(mark.parent().unwrap()).unwrap();
    std::fs::write(&mark, marked).unwrap();
    let bucket = Bucket::directory(root).unwrap();
    assert_eq!(bucket.sweep(SWEEP_AFTER).await.unwrap(), Swept::default());
    assert_eq!(bucket.sweep(Duration::ZERO).await.unwrap(), Swept { staged: 1, ..Swept::default() });
    assert!(!staged.exists() && !mark.exists() && index.exists());
}

#[tokio::test]
async fn what_a_mark_of_another_form_is_of_stays() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let store = Store::direct(Arc::new(Bucket::directory(root).unwrap()), "project", TrustScope::Trusted, SHAPE);
    let reservation = store.reserve(cache("k")).await.unwrap();
    let mark = root.join(layout::reserved(reservation.id));
    let body = store.put(&reservation, stream_of(content())).await.unwrap();
    store.commit(&reservation, &body, About::default()).await.unwrap();
    std::fs::create_dir_all(mark.parent().unwrap()).unwrap();
    std::fs::write(&mark, r#"{"of":"a later version"}"#).unwrap();
    let swept = Bucket::directory(root).unwrap().sweep(Duration::ZERO).await.unwrap();
    assert_eq!(
        swept.failed.iter().map(|failed| failed.path.clone()).collect::<Vec<_>>(),
        [layout::reserved(reservation.id)]
    );
    assert!(mark.exists() && root.join(layout::body(reservation.id)).exists());
}

#[tokio::test]
async fn a_sweep_finds_small_files_that_a_killed_writer_left_in_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let bucket = Bucket::directory(root).unwrap();
    let staged =
        [layout::IF_ABSENT, layout::CLOCK, "v1/reserved/00", "v1/quarantine/00"].map(|path| format!("{path}#1"));
    // A name that only looks like one of a file in the making is somebody's, too.
    let others = ["v1/somebody's", "v1/reserved/00#", "v1/reserved/00#1a", "v1/reserved/00"];
    for path in staged.iter().map(String::as_str).chain(others) {
        std::fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        std::fs::write(root.join(path), "").unwrap();
    }
    assert_eq!(bucket.sweep(SWEEP_AFTER).await.unwrap(), Swept::default());
    assert_eq!(bucket.sweep(Duration::ZERO).await.unwrap(), Swept { staged: 4, ..Swept::default() });
    assert!(staged.iter().all(|path| !root.join(path).exists()));
    assert!(others.iter().all(|path| root.join(path).exists()), "somebody's file was removed");
}

#[tokio::test]
async fn a_sweep_finds_what_a_killed_writer_left_on_a_server() {
    if let Ok(place) = std::env::var(VICTIM) {
        let (settings, root): (std::collections::BTreeMap<String, String>, String) =
            serde_json::from_str(&place).unwrap();
        let location = Location::Cloud { scheme: Scheme::S3, bucket: "navvy".into(), root };
        let settings = StorageSettings { location, options: settings, ..StorageSettings::directory("/".as_ref()) };
        return be_a_victim(Arc::new(settings.open().unwrap()), SHAPE).await;
    }
    let settings = settings(&server().endpoint);
    let bucket = settings.open().unwrap();
    let Location::Cloud { root, .. } = &settings.location else { panic!("a cloud") };
    let place = serde_json::to_string(&(&settings.options, root)).unwrap();
    let reserved = async || -> Option<BodyId> {
        let objects = bucket.list(&format!("{}/", layout::RESERVED)).await.unwrap();
        BodyId::read(objects.first()?.path.rsplit('/').next()?)
    };
    let begun = async || match reserved().await {
        Some(id) => !bucket.open_uploads(&layout::body(id)).await.unwrap().is_empty(),
        None => false,
    };
    let test = "tests::faults::a_sweep_finds_what_a_killed_writer_left_on_a_server";
    kill_at(test, &place, begun).await;
    let id = reserved().await.unwrap();
    assert_eq!(bucket.sweep(Duration::ZERO).await.unwrap(), Swept { uploads: 1, ..Swept::default() });
    assert_eq!(bucket.open_uploads(&layout::body(id)).await.unwrap(), [""; 0]);
    let left: Vec<String> = bucket.list("v1/").await.unwrap().into_iter().map(|object| object.path).collect();
    assert_eq!(left, [layout::CLOCK]);
}
