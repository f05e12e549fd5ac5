//! `store VERB …`: the store of `navvy run` by itself, and what it is held against, for scripts/bench. Which store: as for
//! `navvy run`, by NAVVY_STORE and the cloud's own variables.
//!
//! | verb | does | prints |
//! |---|---|---|
//! | `fill COUNT` | saves COUNT entries with keys of 900 characters | nothing |
//! | `look-up COUNT` | finds one of them by a prefix of 890 characters | milliseconds |
//! | `savers COUNT ROUNDS` | lets COUNT writers save one key at once, ROUNDS times | winners, objects that nobody committed |
//! | `puts COUNT SIZE AT-ONCE` | puts COUNT objects of SIZE bytes, AT-ONCE at a time, with `object_store` alone | milliseconds |
//! | `delay ADDRESS MS` | a proxy: each request reaches ADDRESS so much later. It ends with its input | its address; at the end the requests |

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use navvy_agent::run_store::RunStore;
use navvy_agent::settings::Settings;
use navvy_storage::{About, Commit, Slot, Store};
use object_store::{ObjectStore as _, ObjectStoreExt as _};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

const PROJECT: &str = "bench";
const AT_ONCE: usize = 32;
const KEY: usize = 900;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["fill", count] => fill(&open(&run_store()?)?, count.parse()?).await,
        ["look-up", count] => look_up(&open(&run_store()?)?, count.parse()?).await,
        ["savers", count, rounds] => savers(&run_store()?, count.parse()?, rounds.parse()?).await,
        ["puts", count, size, at_once] => puts(count.parse()?, size.parse()?, at_once.parse()?).await,
        ["delay", address, delay] => proxy(address, Duration::from_millis(delay.parse()?)).await,
        _ => bail!("usage: store fill|look-up COUNT, savers COUNT ROUNDS, puts COUNT SIZE AT-ONCE, delay ADDRESS MS"),
    }
}

fn run_store() -> anyhow::Result<RunStore> {
    let settings = Settings::from_process();
    Ok(RunStore::new(Ok(navvy_agent::settings::store::store(&settings, None)?)))
}

fn open(store: &RunStore) -> anyhow::Result<Store> {
    store.open(PROJECT, &"local".parse()?).map_err(anyhow::Error::msg)
}

/// The number comes early, and once more: keys that differ throughout.
fn key(number: usize) -> String {
    let key = format!("deps-v1-{number:08}-{}", format!("{number:016x}/").repeat(KEY / 17 + 1));
    key[..KEY].to_owned()
}

async fn save(store: &Store, key: String, content: &'static [u8]) -> anyhow::Result<Commit> {
    let reservation = store.reserve(Slot::Cache { key }).await?;
    let body = store.put(&reservation, futures_util::stream::iter([Ok(Bytes::from_static(content))])).await?;
    Ok(store.commit(&reservation, &body, About { details: BTreeMap::new(), ..About::default() }).await?)
}

async fn fill(store: &Store, count: usize) -> anyhow::Result<()> {
    let saving = futures_util::stream::iter(0..count).map(|number| save(store, key(number), b"content"));
    saving.buffer_unordered(AT_ONCE).try_for_each(|_| async { Ok(()) }).await
}

async fn look_up(store: &Store, count: usize) -> anyhow::Result<()> {
    let wanted = key(count / 2);
    let started = Instant::now();
    let hit = store.look_up(&[wanted[..KEY - 10].to_owned()]).await?.context("nothing was found")?;
    let took = started.elapsed();
    if hit.entry.key() != Some(&wanted) {
        bail!("another entry was found");
    }
    println!("{}", took.as_secs_f64() * 1000.0);
    Ok(())
}

async fn savers(run: &RunStore, count: usize, rounds: usize) -> anyhow::Result<()> {
    let mut winners = 0;
    for round in 0..rounds {
        let store = open(run)?;
        let saving = (0..count).map(|_| {
            let store = store.clone();
            tokio::spawn(async move { save(&store, format!("round-{round}"), b"content").await })
        });
        let mut won = 0;
        for saver in saving.collect::<Vec<_>>() {
            won += usize::from(matches!(saver.await??, Commit::Won(_)));
        }
        if won != 1 {
            bail!("round {round} has {won} winners");
        }
        winners += won;
    }
    let swept = run.sweep(Duration::ZERO).await.map_err(anyhow::Error::msg)?;
    println!("{winners} {}", swept.bodies + swept.uploads + swept.staged + swept.quarantined);
    Ok(())
}

async fn puts(count: usize, size: usize, at_once: usize) -> anyhow::Result<()> {
    let bucket = std::env::var("NAVVY_STORE")?;
    let bucket = bucket.strip_prefix("s3://").and_then(|rest| rest.split('/').next()).context("no s3:// store")?;
    // Whoever speaks TLS by reqwest names who does it; navvy does so with its own connections.
    rustls::crypto::ring::default_provider().install_default().ok();
    let store = object_store::aws::AmazonS3Builder::from_env().with_bucket_name(bucket).build()?;
    let started = Instant::now();
    let putting = futures_util::stream::iter(0..count).map(|number| {
        let (store, content) = (&store, Bytes::from(number.to_string().repeat(size)).slice(..size));
        async move { store.put(&format!("puts/{number}").into(), content.into()).await }
    });
    putting.buffer_unordered(at_once).try_for_each(|_| async { Ok(()) }).await?;
    println!("{}", started.elapsed().as_secs_f64() * 1000.0);
    let listed = store.list(Some(&"puts".into())).try_fold(0, |count, _| async move { Ok(count + 1) }).await?;
    if listed == count { Ok(()) } else { bail!("{listed} of {count} objects are there") }
}

async fn proxy(address: &str, delay: Duration) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    let (requests, address) = (Arc::new(AtomicUsize::new(0)), address.to_owned());
    let counted = requests.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (requests, address) = (counted.clone(), address.clone());
            tokio::spawn(async move { pass_on(client, &address, delay, &requests).await.ok() });
        }
    });
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    println!("{}", requests.load(Ordering::Relaxed));
    Ok(())
}

/// One connection, request by request; answers pass as they come.
async fn pass_on(client: TcpStream, address: &str, delay: Duration, requests: &AtomicUsize) -> anyhow::Result<()> {
    let server = TcpStream::connect(address).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((from_client, mut to_client), (mut from_server, mut to_server)) = (client.into_split(), server.into_split());
    tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    let mut from_client = BufReader::new(from_client);
    loop {
        let (mut head, mut length) = (Vec::new(), 0);
        while !head.ends_with(b"\r\n\r\n") {
            let start = head.len();
            if from_client.read_until(b'\n', &mut head).await? == 0 {
                return Ok(());
            }
            let line = String::from_utf8_lossy(&head[start..]).to_ascii_lowercase();
            if let Some(number) = line.strip_prefix("content-length:") {
                length = number.trim().parse()?;
            }
        }
        requests.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(delay).await;
        to_server.write_all(&head).await?;
        tokio::io::copy(&mut (&mut from_client).take(length), &mut to_server).await?;
        to_server.flush().await?;
    }
}
