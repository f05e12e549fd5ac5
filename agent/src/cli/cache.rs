//! `navvy cache ls`, `navvy cache rm`: the project's caches in the store.

use std::fmt::Write as _;

use futures_util::{StreamExt as _, TryStreamExt as _};
use navvy_job::exit_code;
use serde::Serialize;

use super::CliError;
use super::args::{CacheArgs, CacheCommand, CacheListArgs, CacheRemoveArgs, CacheStoreArgs};
use super::host::{block_on, print};
use super::run::store;
use crate::checkout::GitFacts;
use crate::checkout::variables::project_id;
use crate::settings::Settings;
use crate::storage::{Entry, Place, StorageError, Store};
use crate::ui::bytes::human;
use crate::ui::sanitize::clean;
use crate::ui::text::{pad, width};

/// Index objects that are read at once.
const PARALLEL: usize = 16;

pub fn run(settings: &Settings, arguments: &CacheArgs) -> Result<u8, CliError> {
    match &arguments.command {
        CacheCommand::Ls(arguments) => block_on(list(settings, arguments)),
        CacheCommand::Rm(arguments) => block_on(remove(settings, arguments)),
    }
}

/// The store of the project that we stand in, as this scope sees it.
fn open(settings: &Settings, arguments: &CacheStoreArgs) -> Result<Store, CliError> {
    let here = std::env::current_dir().map_err(|error| CliError::infra(&error))?;
    let facts = GitFacts::of(&here).map_err(|error| CliError::infra(&error))?;
    let store = store(settings, arguments.store.as_deref())?;
    store.open(&project_id(&facts), &arguments.scope).map_err(CliError::infra_text)
}

/// Newest first. One that goes meanwhile is not there.
async fn entries(store: &Store, prefix: &str) -> Result<Vec<Entry>, StorageError> {
    let listed = store.list(prefix).await?;
    let reads: Vec<_> = listed.iter().map(|listed| store.read(listed)).collect();
    let read: Vec<Option<Entry>> = futures_util::stream::iter(reads).buffered(PARALLEL).try_collect().await?;
    let begins = |entry: &Entry| entry.key().is_some_and(|key| key.starts_with(prefix));
    Ok(read.into_iter().flatten().filter(begins).collect())
}

async fn list(settings: &Settings, arguments: &CacheListArgs) -> Result<u8, CliError> {
    let store = open(settings, &arguments.store)?;
    let found = entries(&store, &arguments.prefix).await.map_err(|error| CliError::infra(&error))?;
    print(&if arguments.json { as_json(&found) } else { as_table(&found) });
    Ok(exit_code::PASSED)
}

/// One object a line (docs/caches.md).
#[derive(Serialize)]
struct Line<'a> {
    key: &'a str,
    scope: &'a str,
    created: String,
    /// Of its archive, in bytes.
    size: u64,
    sha256: &'a str,
    job: &'a str,
    build_num: Option<u64>,
    paths: Vec<String>,
}

fn as_json(entries: &[Entry]) -> String {
    let line = |entry: &Entry| {
        let paths = entry.record.details.get("paths").and_then(|text| serde_json::from_str(text).ok());
        let line = Line {
            key: entry.key().unwrap_or_default(),
            scope: &entry.record.scope,
            created: entry.created.to_string(),
            size: entry.body().size,
            sha256: &entry.body().sha256,
            job: &entry.record.producer.job,
            build_num: entry.record.producer.build_num,
            paths: paths.unwrap_or_default(),
        };
        serde_json::to_string(&line).unwrap_or_default() + "\n"
    };
    entries.iter().map(line).collect()
}

fn as_table(entries: &[Entry]) -> String {
    if entries.is_empty() {
        return "There is no such cache.\n".to_owned();
    }
    let rows: Vec<[String; 4]> = entries.iter().map(row).collect();
    let widths: [usize; 3] = std::array::from_fn(|at| rows.iter().map(|row| width(&row[at])).max().unwrap_or(0));
    let mut text = String::new();
    for [created, size, scope, key] in &rows {
        let cells = [pad(created, widths[0]), pad(size, widths[1]), pad(scope, widths[2]), key.clone()];
        writeln!(text, "{}", cells.join("  ")).ok();
    }
    text
}

fn row(entry: &Entry) -> [String; 4] {
    let created = entry.created.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
    let key = clean(entry.key().unwrap_or_default());
    [created, human(entry.body().size), clean(&entry.record.scope), key]
}

async fn remove(settings: &Settings, arguments: &CacheRemoveArgs) -> Result<u8, CliError> {
    let store = open(settings, &arguments.store)?;
    let mut missing = Vec::new();
    for key in &arguments.keys {
        let found = find(&store, key, arguments).await.map_err(|error| CliError::infra(&error))?;
        if found.is_empty() {
            missing.push(key.as_str());
        }
        for entry in found {
            store.remove(&entry).await.map_err(|error| CliError::infra(&error))?;
            let key = clean(entry.key().unwrap_or_default());
            print(&format!("Removed {key}, {}.\n", human(entry.body().size)));
        }
    }
    match missing[..] {
        [] => Ok(exit_code::PASSED),
        _ => Err(CliError::usage(format!("scope {} has no cache {}", arguments.store.scope, missing.join(", ")))
            .hint("`navvy cache ls` lists what there is; `--prefix` takes all that begin so.")),
    }
}

/// Of this scope alone: what it only reads is not its own to remove.
async fn find(store: &Store, key: &str, arguments: &CacheRemoveArgs) -> Result<Vec<Entry>, StorageError> {
    if !arguments.prefix {
        return Ok(store.find(&Place::Cache { key: key.to_owned() }).await?.into_iter().collect());
    }
    let scope = arguments.store.scope.to_string();
    Ok(entries(store, key).await?.into_iter().filter(|entry| entry.record.scope == scope).collect())
}
