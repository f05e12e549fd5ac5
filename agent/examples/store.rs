//! `store URL put FILE`, `store URL get`, `store URL keys COUNT`, `store URL find`: the store by itself, for scripts/bench. Each says
//! on stderr how long it took; `get` and `find` ask for what `put` and `keys` stored.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, bail};
use futures_util::{StreamExt as _, TryStreamExt as _};
use navvy_agent::settings::Settings;
use navvy_agent::storage::{About, Commit, Place, StorageSettings, Store};
use tokio::io::AsyncReadExt as _;

/// As much as a supervisor's frame brings.
const PIECE: usize = 256 << 10;
/// The length of a long key.
const KEY: usize = 900;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let settings = StorageSettings::gather(&Settings::from_process(), arguments.first().map(String::as_str))?;
    let store = Store::direct(Arc::new(settings.open()?), "bench", "trusted".parse()?, settings.shape);
    let words: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    let begun = Instant::now();
    let what = runtime.block_on(async {
        match words[..] {
            ["put", file] => put(&store, file).await,
            ["get"] => get(&store).await,
            ["keys", count] => keys(&store, count.parse()?).await,
            ["find"] => find(&store).await,
            _ => bail!("usage: store URL put FILE | get | keys COUNT | find"),
        }
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    Ok(std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{what}: {seconds:.3} s\n"))?)
}

async fn put(store: &Store, file: &str) -> anyhow::Result<String> {
    let file = tokio::fs::File::open(file).await.context(file.to_owned())?;
    let stream = futures_util::stream::try_unfold(file, |mut file| async move {
        let mut piece = bytes::BytesMut::with_capacity(PIECE);
        Ok((file.read_buf(&mut piece).await? > 0).then(|| (piece.freeze(), file)))
    });
    let reservation = store.reserve(Place::Cache { key: format!("body-{}", uuid::Uuid::new_v4()) }).await?;
    let body = store.put(&reservation, stream).await?;
    store.commit(&reservation, &body, About::default()).await?;
    Ok(format!("put {} bytes", body.size))
}

async fn get(store: &Store) -> anyhow::Result<String> {
    let hit = store.look_up(&["body-".to_owned()]).await?.context("nothing was put")?;
    let mut stream = store.get(hit.entry.body());
    let mut size = 0;
    while let Some(piece) = stream.try_next().await? {
        size += piece.len();
    }
    Ok(format!("got {size} bytes"))
}

fn long_key(nth: u64) -> String {
    format!("{}-{nth:06}", "k".repeat(KEY - 7))
}

async fn keys(store: &Store, count: u64) -> anyhow::Result<String> {
    let save = async |nth| -> anyhow::Result<()> {
        let reservation = store.reserve(Place::Cache { key: long_key(nth) }).await?;
        let body = store.put(&reservation, futures_util::stream::empty()).await?;
        match store.commit(&reservation, &body, About::default()).await? {
            Commit::Won(_) => Ok(()),
            Commit::Lost(_) => bail!("key {nth} was there"),
        }
    };
    futures_util::stream::iter(0..count).map(save).buffer_unordered(32).try_collect::<()>().await?;
    Ok(format!("saved {count} keys of {KEY} characters"))
}

async fn find(store: &Store) -> anyhow::Result<String> {
    let key = long_key(1234);
    let mut times = Vec::new();
    for end in [1, 100, 890, KEY - 4, KEY - 2, KEY] {
        let begun = Instant::now();
        let hit = store.look_up(&[key[..end].to_owned()]).await?.context("no key was saved")?;
        times.push(format!(
            "by {end} characters {:.1} ms ({})",
            begun.elapsed().as_secs_f64() * 1e3,
            hit.entry.key().unwrap_or("").len()
        ));
    }
    Ok(times.join(", "))
}
