//! `navvy cache ls`, `navvy cache rm`: the project's caches in the store. `explain` has a file of its own.

use futures_util::{StreamExt as _, TryStreamExt as _};
use navvy_job::chain::chain;
use navvy_job::exit_code;
use navvy_job::figures;
use navvy_storage::{Entry, Slot, StorageError, Store};
use navvy_ui::sanitize::clean;
use navvy_ui::text::{pad, width};
use serde::Serialize;

use super::CliError;
use super::args::store::{CacheArgs, CacheCommand, CacheListArgs, CacheRemoveArgs};
use super::host::{block_on, json_lines};
use super::out::print;
use super::store::of_project;
use crate::settings::Settings;
use crate::step::cached;

/// Index objects that are read at once.
const PARALLEL: usize = 16;

pub fn run(settings: &Settings, arguments: &CacheArgs) -> Result<u8, CliError> {
    match &arguments.command {
        CacheCommand::Ls(arguments) => block_on(list(settings, arguments)),
        CacheCommand::Rm(arguments) => block_on(remove(settings, arguments)),
        CacheCommand::Explain(arguments) => super::cache_explain::run(settings, arguments),
    }
}

/// A cache that is there.
struct Cache {
    key: String,
    entry: Entry,
}

impl Cache {
    /// `None`: it is none.
    fn of(entry: Entry) -> Option<Self> {
        Some(Self { key: entry.key()?.to_owned(), entry })
    }
}

/// Newest first. One that goes meanwhile is not there.
async fn caches(store: &Store, prefix: &str) -> Result<Vec<Cache>, StorageError> {
    let listed = store.list(prefix).await?;
    let reads: Vec<_> = listed.iter().map(|listed| store.read(listed)).collect();
    let read: Vec<Option<Entry>> = futures_util::stream::iter(reads).buffered(PARALLEL).try_collect().await?;
    let found = read.into_iter().flatten().filter_map(Cache::of);
    Ok(found.filter(|cache| cache.key.starts_with(prefix)).collect())
}

async fn list(settings: &Settings, arguments: &CacheListArgs) -> Result<u8, CliError> {
    let store = of_project(settings, &arguments.store)?;
    let found = caches(&store, &arguments.prefix).await?;
    print(&if arguments.json { json_lines(found.iter().map(line))? } else { as_table(&found, &arguments.prefix) })?;
    Ok(exit_code::PASSED)
}

/// One object a line (docs/caches.md).
#[derive(Serialize)]
struct Line<'a> {
    key: &'a str,
    scope: String,
    created: String,
    /// Of its archive, in bytes.
    size: u64,
    sha256: &'a str,
    job: &'a str,
    build_num: Option<u64>,
    /// `null` where its entry does not say.
    paths: Option<Vec<String>>,
}

fn line(Cache { key, entry }: &Cache) -> Line<'_> {
    Line {
        key,
        scope: entry.record.scope_word(),
        created: entry.created.to_string(),
        size: entry.body().size,
        sha256: &entry.body().sha256,
        job: &entry.record.producer.job,
        build_num: entry.record.producer.build_num,
        paths: cached::paths(entry),
    }
}

fn as_table(caches: &[Cache], prefix: &str) -> String {
    match (caches.is_empty(), prefix) {
        (false, _) => {}
        (true, "") => return "There are no caches of this project.\n".to_owned(),
        (true, prefix) => return format!("No cache of this project has a key that begins with `{}`.\n", clean(prefix)),
    }
    let rows: Vec<[String; 4]> = caches.iter().map(row).collect();
    let widths: [usize; 3] = std::array::from_fn(|at| rows.iter().map(|row| width(&row[at])).max().unwrap_or(0));
    let line = |[created, size, scope, key]: &[String; 4]| {
        [pad(created, widths[0]), pad(size, widths[1]), pad(scope, widths[2]), key.clone()].join("  ") + "\n"
    };
    rows.iter().map(line).collect()
}

fn row(Cache { key, entry }: &Cache) -> [String; 4] {
    let created = entry.created.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
    [created, figures::bytes(entry.body().size), clean(&entry.record.scope_word()), clean(key)]
}

async fn remove(settings: &Settings, arguments: &CacheRemoveArgs) -> Result<u8, CliError> {
    let store = of_project(settings, &arguments.store)?;
    let (mut missing, mut failed) = (Vec::new(), Vec::new());
    // All are removed, whether or not that can be printed, and even if an earlier one failed.
    let mut printed = Ok(());
    for key in &arguments.keys {
        let found = match find(&store, key, arguments).await {
            Ok(found) => found,
            Err(error) => {
                failed.push(format!("{}: {}", clean(key), chain(&error)));
                continue;
            }
        };
        if found.is_empty() {
            missing.push(key.as_str());
        }
        for Cache { key, entry } in found {
            match store.remove(&entry).await {
                Ok(_) => {
                    printed = printed.and(print(&format!(
                        "Removed {}, {}.\n",
                        clean(&key),
                        figures::bytes(entry.body().size)
                    )));
                }
                Err(error) => failed.push(format!("{}: {}", clean(&key), chain(&error))),
            }
        }
    }
    if !failed.is_empty() {
        return Err(CliError::infra_text(format!("could not remove cache {}", failed.join("; ")))
            .hint("`navvy cache rm` tries again; what goes on like this needs a look at the store itself."));
    }
    match missing[..] {
        [] => printed.map(|()| exit_code::PASSED),
        _ => Err(CliError::usage(format!("scope {} has no cache {}", arguments.store.scope, missing.join(", ")))
            .hint("`navvy cache ls` lists what there is; `--prefix` takes all that begin so.")),
    }
}

/// Caches of this scope alone: what it only reads is not its own to remove.
async fn find(store: &Store, key: &str, arguments: &CacheRemoveArgs) -> Result<Vec<Cache>, StorageError> {
    if !arguments.prefix {
        return Ok(store.find(&Slot::Cache { key: key.to_owned() }).await?.and_then(Cache::of).into_iter().collect());
    }
    // Of local ones only this directory's are listed.
    let scope = arguments.store.scope.word();
    Ok(caches(store, key).await?.into_iter().filter(|cache| cache.entry.record.scope_word() == scope).collect())
}
