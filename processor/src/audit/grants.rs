//! Grants in the audit log: each is on this machine's disk before its URL goes out, and no grant waits for the database.
//!
//! ```text
//! grant ─▶ its line ─▶ channel ─▶ one thread: what has come, in one write ─▶ DATA/audit/ID.open ─▶ the URL may go out
//!                                   │ every 10 s, and beyond 4 MiB
//!                                   ▼
//!                                 ID.jsonl ─▶ a line for each task and verb, with all objects ─▶ store ─▶ the file goes
//! ```
//!
//! Segments are granted some times a second for each task: as rows of the database they would cost what claims need. A kill of
//! the process loses nothing: the next start goes on with what lies there. The loss of the machine loses the grants of the last
//! ten seconds, and those that the store could not be given; which objects were written, the index of logs tells all the same.
//!
//! The lines' ids and the object's name follow from the file's: what is put twice is there once.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use navvy_job::chain::chain;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};
use tonic::Status;
use uuid::Uuid;

use super::{AuditStore, Entry, day_and_time};
use crate::auth::TaskAccess;
use crate::conduct::rfc3339;
use crate::state::now_ms;

/// A file is carried to the store after this.
const EVERY: Duration = Duration::from_secs(10);
/// A file is closed beyond this.
const LONGEST: u64 = 4 << 20;
/// What waits for the store takes no more of the disk: beyond it nothing is granted.
const MOST_WAITING: u64 = 256 << 20;
/// Grants that wait for the thread.
const QUEUE: usize = 1024;
/// Lines of one write.
const AT_ONCE: usize = 256;

/// Whom an object is granted to.
#[derive(Debug, Clone, Copy)]
pub enum By<'a> {
    /// An agent, for its task.
    Task(&'a TaskAccess),
    /// A person's token, by its name, in a project.
    Person {
        /// The token's name.
        actor: &'a str,
        /// The project's id.
        project: &'a str,
    },
}

/// What may be done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Read it.
    Get,
    /// Write it whole.
    Put,
    /// Write a part of it.
    Part,
}

/// A grant as it lies on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    at_ms: i64,
    /// `agent`, `token`.
    kind: String,
    /// The task, or the token's name.
    name: String,
    project: String,
    verb: Verb,
    object: String,
}

enum Order {
    Note { line: Vec<u8>, noted: oneshot::Sender<Result<(), String>> },
    Close { closed: oneshot::Sender<Result<(), String>> },
}

/// Where grants are noted. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct GrantLog(Option<mpsc::Sender<Order>>);

impl GrantLog {
    /// Nothing is noted: for tests of other things.
    pub fn none() -> Self {
        Self::default()
    }

    /// In this directory, which is made. The second value carries lines to the store.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub fn open(directory: &Path) -> io::Result<(Self, Carrier)> {
        fs::create_dir_all(directory)?;
        let waiting = Arc::new(AtomicU64::new(close_left(directory)?));
        let (sender, orders) = mpsc::channel(QUEUE);
        let writer = Writer { directory: directory.to_owned(), open: None, waiting: Arc::clone(&waiting) };
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || writer.work(orders))?;
        Ok((Self(Some(sender.clone())), Carrier { directory: directory.to_owned(), orders: sender, waiting }))
    }

    /// Notes a grant. Its URL goes out only behind this.
    ///
    /// # Errors
    /// It could not be written down.
    pub async fn note(&self, by: By<'_>, verb: Verb, object: &str) -> Result<(), Status> {
        let Some(sender) = &self.0 else { return Ok(()) };
        let (kind, name, project) = match by {
            By::Task(access) => ("agent", access.task.as_str(), access.project.as_str()),
            By::Person { actor, project } => ("token", actor, project),
        };
        let (kind, name, project) = (kind.to_owned(), name.to_owned(), project.to_owned());
        let line = Line { at_ms: now_ms(), kind, name, project, verb, object: object.to_owned() };
        let mut line = serde_json::to_vec(&line).map_err(|error| Status::internal(error.to_string()))?;
        line.push(b'\n');
        let (noted, heard) = oneshot::channel();
        let why = match sender.send(Order::Note { line, noted }).await {
            Ok(()) => heard.await.unwrap_or_else(|_| Err("its thread has ended".to_owned())),
            Err(_) => Err("its thread has ended".to_owned()),
        };
        why.map_err(|why| {
            crate::figures::ERRORS.count();
            tracing::error!("A grant could not be noted in the audit log: {why}.");
            Status::unavailable("the processor cannot write its audit log; try again")
        })
    }
}

/// Closes a file whose processor has ended. Its bytes; none if it is still written.
fn close(path: &Path) -> io::Result<u64> {
    let file = File::open(path)?;
    if file.try_lock().is_err() {
        // Locked: a processor that shares this directory writes it.
        return Ok(0);
    }
    let bytes = file.metadata()?.len();
    fs::rename(path, path.with_extension("jsonl"))?;
    Ok(bytes)
}

/// Another processor that shares this directory may have carried it away since it was listed.
fn unless_gone<T: Default>(done: io::Result<T>) -> io::Result<T> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(T::default()),
        done => done,
    }
}

/// Files that a processor left which has ended are closed. The bytes of all that are.
fn close_left(directory: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("open") => bytes += unless_gone(close(&path))?,
            Some("jsonl") => bytes += unless_gone(fs::metadata(&path).map(|metadata| metadata.len()))?,
            _ => {}
        }
    }
    Ok(bytes)
}

/// Owns the file that is open. Ends with the last [`GrantLog`] and [`Carrier`].
struct Writer {
    directory: PathBuf,
    open: Option<Open>,
    waiting: Arc<AtomicU64>,
}

struct Open {
    file: File,
    path: PathBuf,
    length: u64,
}

impl Writer {
    fn work(mut self, mut orders: mpsc::Receiver<Order>) {
        let (mut lines, mut told, mut closing) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(first) = orders.blocking_recv() {
            let mut next = Some(first);
            while let Some(order) = next.take() {
                match order {
                    Order::Note { line, noted } => {
                        lines.extend_from_slice(&line);
                        told.push(noted);
                    }
                    Order::Close { closed } => closing.push(closed),
                }
                if told.len() < AT_ONCE {
                    next = orders.try_recv().ok();
                }
            }
            let written = self.write(&lines);
            lines.clear();
            // Who asked may be gone.
            told.drain(..).for_each(|noted| drop(noted.send(written.clone())));
            if !closing.is_empty() {
                let done = self.close();
                closing.drain(..).for_each(|closed| drop(closed.send(done.clone())));
            }
        }
    }

    fn write(&mut self, lines: &[u8]) -> Result<(), String> {
        if lines.is_empty() {
            return Ok(());
        }
        let waiting = self.waiting.load(Ordering::Relaxed);
        if waiting > MOST_WAITING {
            return Err(format!("{waiting} bytes in {} wait for the store already", self.directory.display()));
        }
        let open = match &mut self.open {
            Some(open) => open,
            none => none.insert(Open::new(&self.directory).map_err(|error| in_words(&self.directory, &error))?),
        };
        if let Err(error) = open.file.write_all(lines) {
            // Half a line is none.
            let cut = open.file.set_len(open.length).map_err(|error| error.to_string());
            return Err(format!("{}{}", in_words(&open.path, &error), cut.err().unwrap_or_default()));
        }
        open.length += lines.len() as u64;
        if open.length > LONGEST { self.close() } else { Ok(()) }
    }

    fn close(&mut self) -> Result<(), String> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let renamed = fs::rename(&open.path, open.path.with_extension("jsonl"));
        self.waiting.fetch_add(open.length, Ordering::Relaxed);
        renamed.map_err(|error| in_words(&open.path, &error))
    }
}

impl Open {
    fn new(directory: &Path) -> io::Result<Self> {
        let path = directory.join(format!("{}.open", Uuid::new_v4().simple()));
        // Appended: a length that was cut is where the next line begins.
        let file = File::options().append(true).create_new(true).open(&path)?;
        file.lock()?;
        Ok(Self { file, path, length: 0 })
    }
}

fn in_words(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

/// Carries noted grants to the store.
#[derive(Debug)]
pub struct Carrier {
    directory: PathBuf,
    orders: mpsc::Sender<Order>,
    waiting: Arc<AtomicU64>,
}

impl Carrier {
    /// As long as it is polled.
    pub async fn carry(&self, store: &impl AuditStore) {
        loop {
            if let Err(error) = self.carry_all(store).await {
                tracing::warn!("The audit log of grants waits on the disk: {error}.");
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// All that was noted before.
    ///
    /// # Errors
    /// What is left waits on the disk.
    pub async fn carry_all(&self, store: &impl AuditStore) -> Result<(), String> {
        let (closed, heard) = oneshot::channel();
        self.orders.send(Order::Close { closed }).await.map_err(|_| "its thread has ended".to_owned())?;
        heard.await.unwrap_or_else(|_| Err("its thread has ended".to_owned()))?;
        let failed = |error: io::Error| in_words(&self.directory, &error);
        let entries =
            fs::read_dir(&self.directory).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(failed)?;
        let closed =
            || entries.iter().map(fs::DirEntry::path).filter(|path| path.extension().is_some_and(|it| it == "jsonl"));
        // Counted anew: another processor that shares this directory closes files, and carries ours.
        let lengths = closed().map(|path| unless_gone(fs::metadata(path).map(|metadata| metadata.len())));
        self.waiting.store(lengths.sum::<io::Result<u64>>().map_err(failed)?, Ordering::Relaxed);
        for path in closed() {
            self.carry_one(&path, store).await?;
        }
        Ok(())
    }

    async fn carry_one(&self, path: &Path, store: &impl AuditStore) -> Result<(), String> {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let (lines, bytes) = {
            let path = path.to_owned();
            let read = tokio::task::spawn_blocking(move || read(&path)).await.map_err(|error| error.to_string())?;
            unless_gone(read).map_err(|error| in_words(&self.directory, &error))?
        };
        let mut text = Vec::new();
        for entry in entries(&name, &lines) {
            serde_json::to_writer(&mut text, &entry).map_err(|error| error.to_string())?;
            text.push(b'\n');
        }
        if let Some(first) = lines.first() {
            let (day, time) = day_and_time(first.at_ms);
            store.put(&format!("{day}/{time}-{name}.jsonl"), text.into()).await.map_err(|error| chain(&error))?;
        }
        unless_gone(fs::remove_file(path)).map_err(|error| in_words(path, &error))?;
        let less = |waiting: u64| Some(waiting.saturating_sub(bytes));
        let _always_some = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        Ok(())
    }
}

/// The lines of a file, and its length. After a loss of power its end may be anything: what is no line is told and left out.
fn read(path: &Path) -> io::Result<(Vec<Line>, u64)> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let (mut lines, mut odd) = (Vec::new(), 0);
    for line in io::BufReader::new(file).split(b'\n') {
        match serde_json::from_slice(&line?) {
            Ok(line) => lines.push(line),
            Err(_) => odd += 1,
        }
    }
    if odd > 0 {
        tracing::error!("{odd} lines of {} cannot be read: they are not in the audit log.", path.display());
    }
    Ok((lines, length))
}

/// One for each who, project and verb. What all objects' names begin with stands there once.
fn entries(file: &str, lines: &[Line]) -> Vec<Entry> {
    let mut of: BTreeMap<(&str, &str, &str, Verb), Vec<&Line>> = BTreeMap::new();
    for line in lines {
        of.entry((&line.kind, &line.name, &line.project, line.verb)).or_default().push(line);
    }
    let entry = |(nth, ((kind, name, project, verb), lines)): (usize, (_, Vec<&Line>))| {
        let kind: &str = kind;
        let project: &str = project;
        let beneath = common(&lines);
        let grant = |line: &&Line| json!({"at_ms": line.at_ms, "object": &line.object[beneath.len()..]});
        let grants: Vec<Value> = lines.iter().map(grant).collect();
        let payload = json!({"verb": verb, "beneath": beneath, "grants": grants});
        let target = if kind == "agent" { "task" } else { "project" };
        let id = if kind == "agent" { name } else { project };
        let mut entry = Entry::new("object.grant", name, target, id).in_project(project).with(payload);
        entry.actor["type"] = json!(kind);
        entry.occurred_at = rfc3339(lines.first().map_or(0, |line| line.at_ms));
        let digest = Sha256::digest(format!("{file} {nth}"));
        let random = digest[..16].try_into().unwrap_or_default();
        entry.id = uuid::Builder::from_random_bytes(random).into_uuid().to_string();
        entry
    };
    of.into_iter().enumerate().map(entry).collect()
}

/// Up to its last `/`.
fn common<'a>(lines: &[&'a Line]) -> &'a str {
    let Some(first) = lines.first().map(|line| line.object.as_str()) else { return "" };
    let shared = |line: &&Line| first.bytes().zip(line.object.bytes()).take_while(|(one, other)| one == other).count();
    let length = lines.iter().map(shared).min().unwrap_or(0);
    // A `/` is a byte of its own in UTF-8.
    let end = first.as_bytes()[..length].iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    &first[..end]
}

#[cfg(test)]
mod tests;
