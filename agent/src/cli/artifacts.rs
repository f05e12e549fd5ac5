//! `navvy artifacts ls`, `navvy artifacts get`: what the jobs of a run left for people.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::Path;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use navvy_job::chain::chain;
use navvy_job::exit_code;
use navvy_job::figures;
use navvy_protocol::api;
use navvy_storage::artifacts::{Name, StoredFile};
use navvy_storage::{Body, Store};
use navvy_ui::sanitize::clean;
use navvy_ui::text::{pad, width};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::CliError;
use super::args::store::{ArtifactsArgs, ArtifactsCommand, ArtifactsGetArgs, ArtifactsListArgs, ArtifactsOfArgs};
use super::host::{block_on, json_lines};
use super::out::print;
use super::pipelines::{all, began, pipelines_there};
use super::processor::{Processor, failed};
use super::store::of_project;
use crate::artifacts::shelf::{Artifact, Run, Shelf};
use crate::remote::Client;
use crate::remote::cursor::Whole;
use crate::settings::Settings;

/// Small files that are fetched at once.
const PARALLEL: usize = 8;
/// No list is longer, whatever a processor says.
const MOST: usize = 1_000_000;
/// A larger file is fetched in parts, and not held in memory.
const SMALL: u64 = 8 << 20;

pub fn run(settings: &Settings, arguments: &ArtifactsArgs) -> Result<u8, CliError> {
    match &arguments.command {
        ArtifactsCommand::Ls(arguments) => block_on(list(settings, arguments)),
        ArtifactsCommand::Get(arguments) => block_on(get(settings, arguments)),
    }
}

/// Where artifacts are.
enum Way {
    Store(Store),
    Processor(Client),
}

/// A run, as people know it.
struct Of {
    name: String,
    at: Timestamp,
}

/// An artifact, and the way to its bytes.
struct Found {
    workflow: String,
    job: String,
    node: u32,
    step: u32,
    file: StoredFile,
    bytes: Bytes,
}

enum Bytes {
    In(Body),
    At { task: String, artifact: String },
}

/// The chosen run's artifacts. `None`: the project has none at all.
async fn chosen(settings: &Settings, of: &ArtifactsOfArgs) -> Result<(Way, Option<(Of, Vec<Found>)>), CliError> {
    let (way, found) = match of.there.elsewhere.is_remote() {
        true => there(settings, of).await?,
        false => here(settings, of).await?,
    };
    let Some((run, all)) = found else { return Ok((way, None)) };
    let all = narrowed(&run, all, of)?;
    Ok((way, Some((run, all))))
}

async fn here(settings: &Settings, of: &ArtifactsOfArgs) -> Result<(Way, Option<(Of, Vec<Found>)>), CliError> {
    let shelf = Shelf::new(of_project(settings, &of.store)?);
    let runs = shelf.runs().await?;
    let named = of.run.as_deref();
    let mut found = None;
    for run in choose_runs(runs, named)? {
        let all = shelf.artifacts(&run).await?;
        // One that died before its first artifacts were whole is known, and has none.
        if !all.is_empty() || named.is_some() {
            let all = all.into_iter().map(|it| {
                let Artifact { workflow, job, node, step, body, file } = it;
                Found { workflow, job, node, step, file, bytes: Bytes::In(body) }
            });
            found = Some((Of { name: run.logs.clone(), at: run.at }, all.collect()));
            break;
        }
    }
    Ok((Way::Store(shelf.store().clone()), found))
}

/// Those of a pipeline of a processor's. A name that it gives is a name, and no path.
async fn there(settings: &Settings, of: &ArtifactsOfArgs) -> Result<(Way, Option<(Of, Vec<Found>)>), CliError> {
    let processor = Processor::of_what_is_left(settings, &of.there, of.store.store.as_deref())?;
    let client = &processor.client;
    let mut found = None;
    for pipeline in pipelines_there(settings, &processor, &of.there, of.run.as_deref()).await? {
        let path = ["pipeline", &pipeline.id, "artifacts"];
        let all = all::<api::Artifact>(client, &path, &[], MOST).await.map_err(failed)?;
        if !all.is_empty() || of.run.is_some() {
            let run = Of { name: pipeline.id.clone(), at: began(&pipeline)? };
            found = Some((run, all.into_iter().map(Found::from).collect()));
            break;
        }
    }
    Ok((Way::Processor(client.clone()), found))
}

impl From<api::Artifact> for Found {
    fn from(it: api::Artifact) -> Self {
        let name = Name(it.path_bytes.unwrap_or_else(|| it.path.into_bytes()));
        let (size, sha256, content_type) = (it.size, it.sha256, it.content_type);
        let file = StoredFile { id: 0, name, offset: 0, size, sha256, content_type };
        let bytes = Bytes::At { task: it.task, artifact: it.artifact };
        Self { workflow: it.workflow, job: it.job, node: it.node_index, step: it.step, file, bytes }
    }
}

fn narrowed(run: &Of, all: Vec<Found>, of: &ArtifactsOfArgs) -> Result<Vec<Found>, CliError> {
    let mut jobs: Vec<String> = all.iter().map(|artifact| artifact.job.clone()).collect();
    jobs.dedup();
    if let Some(job) = of.job.as_ref().filter(|job| !jobs.contains(job)) {
        let error = CliError::usage(format!("run {} has no artifacts of a job {}", clean(&run.name), clean(job)));
        return Err(error.hint(format!("There are some of: {}", clean(&jobs.join(", ")))));
    }
    let all: Vec<Found> = all.into_iter().filter(|it| of.job.as_ref().is_none_or(|job| *job == it.job)).collect();
    let mut nodes: Vec<u32> = all.iter().map(|artifact| artifact.node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    if let Some(node) = of.node.filter(|node| !nodes.contains(node)) {
        let nodes: Vec<String> = nodes.iter().map(u32::to_string).collect();
        let error = CliError::usage(format!("run {} has no artifacts of node {node}", clean(&run.name)));
        return Err(error.hint(format!("There are some of: {}", nodes.join(", "))));
    }
    Ok(all.into_iter().filter(|artifact| of.node.is_none_or(|node| node == artifact.node)).collect())
}

/// All of them, newest first, or the one that begins so.
fn choose_runs(runs: Vec<Run>, wanted: Option<&str>) -> Result<Vec<Run>, CliError> {
    let Some(wanted) = wanted else { return Ok(runs) };
    let fits = |run: &&Run| run.id.starts_with(wanted) || run.logs.starts_with(wanted);
    let found: Vec<&Run> = runs.iter().filter(fits).collect();
    match found[..] {
        [run] => Ok(vec![run.clone()]),
        [] => {
            let error = CliError::usage(format!("no run {} has left artifacts", clean(wanted)));
            let known: Vec<String> = runs.iter().take(5).map(|run| clean(&run.logs)).collect();
            Err(if known.is_empty() { error } else { error.hint(format!("The newest are: {}", known.join(", "))) })
        }
        _ => Err(CliError::usage(format!("{} runs begin with {}", found.len(), clean(wanted)))
            .hint("More of its name says which.")),
    }
}

const NOTHING: &str = "There are no artifacts of this project. Jobs with a `store_artifacts` step leave some, in the scope \
                       they run in (--scope).\n";

async fn list(settings: &Settings, arguments: &ArtifactsListArgs) -> Result<u8, CliError> {
    let (_, found) = chosen(settings, &arguments.of).await?;
    match found {
        None if arguments.json => Ok(()),
        None => print(NOTHING),
        Some((run, all)) if arguments.json => print(&json_lines(all.iter().map(|artifact| line(&run, artifact)))?),
        Some((run, all)) => print(&as_table(&run, &all)),
    }?;
    Ok(exit_code::PASSED)
}

/// One object a line (docs/artifacts.md).
#[derive(Serialize)]
struct Line<'a> {
    run: &'a str,
    workflow: &'a str,
    job: &'a str,
    node: u32,
    step: u32,
    /// With U+FFFD where it is not UTF-8.
    name: String,
    size: u64,
    sha256: &'a str,
    content_type: &'a str,
}

fn line<'a>(run: &'a Of, artifact: &'a Found) -> Line<'a> {
    let Found { workflow, job, node, step, file, .. } = artifact;
    Line {
        run: &run.name,
        workflow,
        job,
        node: *node,
        step: *step,
        name: String::from_utf8_lossy(&file.name.0).into_owned(),
        size: file.size,
        sha256: &file.sha256,
        content_type: &file.content_type,
    }
}

fn as_table(run: &Of, all: &[Found]) -> String {
    let mut text = format!("{}  ({})\n", clean(&run.name), run.at.strftime("%Y-%m-%d %H:%M UTC"));
    let row = |artifact: &Found| [whose(artifact), figures::bytes(artifact.file.size), shown(artifact)];
    let rows: Vec<[String; 3]> = all.iter().map(row).collect();
    let widths: [usize; 2] = std::array::from_fn(|at| rows.iter().map(|row| width(&row[at])).max().unwrap_or(0));
    for [whose, size, name] in &rows {
        writeln!(text, "  {}  {}  {name}", pad(whose, widths[0]), pad(size, widths[1])).ok();
    }
    text
}

/// `build`, `build node 2`.
fn whose(artifact: &Found) -> String {
    let node = if artifact.node > 0 { format!(" node {}", artifact.node) } else { String::new() };
    clean(&format!("{}{node}", artifact.job))
}

fn shown(artifact: &Found) -> String {
    clean(&String::from_utf8_lossy(&artifact.file.name.0))
}

async fn get(settings: &Settings, arguments: &ArtifactsGetArgs) -> Result<u8, CliError> {
    let (way, found) = chosen(settings, &arguments.of).await?;
    let Some((run, all)) = found else {
        return Err(
            CliError::usage("there are no artifacts of this project").hint("A step `store_artifacts` keeps some.")
        );
    };
    let wanted = match &arguments.name {
        None => all.iter().map(|artifact| (place(artifact), artifact)).collect(),
        Some(name) => {
            vec![(artifact_path(&artifact_named(&run, &all, name)?.file.name.0), artifact_named(&run, &all, name)?)]
        }
    };
    std::fs::create_dir_all(&arguments.to).map_err(|error| cannot(&arguments.to, &error))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, arguments.to.as_path(), flags, Mode::empty());
    let root = root.map_err(|error| cannot(&arguments.to, &error.into()))?;
    let fetches: Vec<_> = wanted.iter().map(|(path, artifact)| fetch(&way, &root, path, artifact)).collect();
    let mut fetched = futures_util::stream::iter(fetches).buffered(PARALLEL);
    let (mut nth, mut failed, mut bytes) = (0, Vec::new(), 0);
    while let Some(result) = fetched.next().await {
        let (_, artifact) = &wanted[nth];
        nth += 1;
        match result {
            Ok(()) => bytes += artifact.file.size,
            Err(why) => failed.push(format!("{} of {}: {why}", shown(artifact), whose(artifact))),
        }
    }
    let count = wanted.len() - failed.len();
    let files = if count == 1 { "file" } else { "files" };
    let printed =
        print(&format!("Fetched {count} {files}, {}, to {}\n", figures::bytes(bytes), arguments.to.display()));
    match failed.is_empty() {
        true => printed.map(|()| exit_code::PASSED),
        false => Err(CliError::infra_text(format!("not fetched:\n  {}", failed.join("\n  ")))),
    }
}

fn cannot(directory: &Path, error: &std::io::Error) -> CliError {
    CliError::usage(format!("cannot write to {}: {error}", directory.display()))
}

fn artifact_named<'a>(run: &Of, all: &'a [Found], name: &str) -> Result<&'a Found, CliError> {
    let found: Vec<&Found> = all.iter().filter(|artifact| artifact.file.name.0 == name.as_bytes()).collect();
    match found[..] {
        [artifact] => Ok(artifact),
        [] => {
            let error = CliError::usage(format!("run {} has no artifact {}", clean(&run.name), clean(name)));
            Err(error.hint("`navvy artifacts ls` lists what there is; without a name, `get` fetches all of it."))
        }
        _ => {
            let whose: Vec<String> = found.iter().map(|artifact| whose(artifact)).collect();
            Err(CliError::usage(format!("{} have an artifact {}", whose.join(", "), clean(name)))
                .hint("--job and --node say whose."))
        }
    }
}

/// Names on the way to a file, each one a single name: nothing leads up or to the root.
type Names = Vec<Vec<u8>>;

fn artifact_path(name: &[u8]) -> Names {
    let names = name.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
    let names: Names = names.map(single).collect();
    if names.is_empty() { vec![b"artifact".to_vec()] } else { names }
}

/// Below the job's and the node's own directory.
fn place(artifact: &Found) -> Names {
    let above = [artifact.job.clone(), artifact.node.to_string()];
    let above = above.iter().map(|name| single(name.replace('/', "%2F").as_bytes()));
    above.chain(artifact_path(&artifact.file.name.0)).collect()
}

fn single(name: &[u8]) -> Vec<u8> {
    match name {
        b"" => b"%2E".to_vec(),
        b"." | b".." => name.iter().flat_map(|_| *b"%2E").collect(),
        name => name.iter().map(|byte| if *byte == 0 { b'_' } else { *byte }).collect(),
    }
}

/// Fetches a file beside its place and renames it: what was there is replaced at once, or not at all.
async fn fetch(way: &Way, root: &OwnedFd, path: &[Vec<u8>], artifact: &Found) -> Result<(), String> {
    let Some((name, above)) = path.split_last() else { return Err("it has no name".to_owned()) };
    let directory = directory(root, above)?;
    let beside = format!(".navvy-{}-{}", std::process::id(), uuid::Uuid::new_v4().as_simple());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&directory, &*beside, flags, Mode::from_raw_mode(0o644));
    let file = file.map_err(|error| format!("cannot make a file: {error}"))?;
    let written = match write(way, artifact, &mut File::from(file)).await {
        Ok(()) => rustix::fs::renameat(&directory, &*beside, &directory, &name[..]).map_err(|error| match error {
            Errno::ISDIR | Errno::EXIST | Errno::NOTEMPTY => "a directory is in its place".to_owned(),
            error => format!("cannot be put into its place: {error}"),
        }),
        Err(why) => Err(why),
    };
    if written.is_err() {
        rustix::fs::unlinkat(&directory, &*beside, AtFlags::empty()).ok();
    }
    written
}

/// Made where it is missing; never reached through a link.
fn directory(root: &OwnedFd, names: &[Vec<u8>]) -> Result<OwnedFd, String> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut directory = root.try_clone().map_err(|error| error.to_string())?;
    for name in names {
        match rustix::fs::mkdirat(&directory, &name[..], Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(format!("cannot make directory {}: {error}", String::from_utf8_lossy(name))),
        }
        directory = rustix::fs::openat(&directory, &name[..], flags, Mode::empty()).map_err(|error| {
            let name = clean(&String::from_utf8_lossy(name));
            match error {
                Errno::NOTDIR | Errno::LOOP => format!("{name} is in the way: it is not a directory"),
                error => format!("cannot open directory {name}: {error}"),
            }
        })?;
    }
    Ok(directory)
}

/// Holds it against its digest before anybody sees it.
async fn write(way: &Way, artifact: &Found, file: &mut File) -> Result<(), String> {
    let stored = &artifact.file;
    let mut taken = Taken { file, digest: Sha256::new(), bytes: 0, most: stored.size };
    match (way, &artifact.bytes) {
        (Way::Store(store), Bytes::In(body)) if stored.size <= SMALL => {
            let bytes = store.file(body, stored).await.map_err(|error| chain(&error))?;
            taken.take(&bytes)?;
        }
        (Way::Store(store), Bytes::In(body)) => {
            let mut pieces = store.get_part(body, stored.range());
            while let Some(piece) = pieces.next().await {
                taken.take(&piece.map_err(|error| chain(&error))?)?;
            }
        }
        (Way::Processor(client), Bytes::At { task, artifact }) => {
            let mut pieces = Whole::artifact(client.clone(), task, artifact);
            while taken.bytes < taken.most {
                match pieces.next().await.map_err(|error| chain(&error))? {
                    Some(piece) => taken.take(&piece)?,
                    None => break,
                }
            }
        }
        (Way::Store(_), Bytes::At { .. }) | (Way::Processor(_), Bytes::In(_)) => {
            return Err("it is somewhere else".to_owned());
        }
    }
    let found: String = taken.digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if found == stored.sha256 { Ok(()) } else { Err("it is not what was stored: its digest differs".to_owned()) }
}

/// What has come of a file.
struct Taken<'a> {
    file: &'a mut File,
    digest: Sha256,
    bytes: u64,
    /// No more than was said is written, whatever comes.
    most: u64,
}

impl Taken<'_> {
    fn take(&mut self, piece: &[u8]) -> Result<(), String> {
        self.bytes += piece.len() as u64;
        if self.bytes > self.most {
            return Err("it is not what was stored: it is longer".to_owned());
        }
        self.digest.update(piece);
        self.file.write_all(piece).map_err(|error| format!("cannot be written: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(name: &[u8]) -> String {
        String::from_utf8_lossy(&artifact_path(name).join(&b'/')).into_owned()
    }

    #[test]
    fn no_name_leads_out() {
        assert_eq!(joined(b"a/b#1"), "a/b#1");
        assert_eq!(joined(b"/etc//passwd"), "etc/passwd");
        assert_eq!(joined(b"../../etc/./x"), "%2E%2E/%2E%2E/etc/%2E/x");
        assert_eq!(joined(b""), "artifact");
        assert_eq!(single(b"a\0b"), b"a_b");
    }
}
