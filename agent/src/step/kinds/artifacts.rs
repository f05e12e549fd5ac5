//! `store_artifacts` (docs/artifacts.md).
//!
//! ```text
//! environment ──Pack──▶ thread ──2 pieces──▶ thread: read, guard ──32 events──▶ Packing ─▶ store, invisible until committed
//! ```
//!
//! One archive comes out, for any number of files; one body goes in. Links are other names of files that are in the
//! archive. Nothing is stored if any file may not be.

use std::collections::HashMap;
use std::io;

use bytes::Bytes;
use futures_util::stream;
use navvy_archive::error::ReadError;
use navvy_job::chain::chain;
use navvy_job::figures;
use navvy_protocol::supervisor::{Packed, Trees};
use navvy_storage::artifacts::{Name, Packing, content_type};
use navvy_storage::{Commit, Store};
use tokio::sync::mpsc;

use crate::artifacts::guard::{Finding, Findings, Guard};
use crate::artifacts::links::Links;
use crate::artifacts::names::Names;
use crate::artifacts::read::{self, Limits, Sink};
use crate::artifacts::shelf::{Shelf, Whose};
use crate::step::cx::StepCx;
use crate::step::own::{StepError, StepFault, StepOutput};
use crate::step::pieces::Pieces;
use crate::step::trees::{self, take_back, tell_warnings};

/// Their names are kept in memory until the set is whole, some hundred bytes each.
const LIMITS: Limits = Limits { bytes: 256 << 30, entries: 500_000 };
/// Pieces of the archive on their way.
const PIECES: usize = 2;
const EVENTS: usize = 32;
/// Of a file, with each event.
const CHUNK: usize = 256 << 10;
/// Files, and links that lead nowhere, that are listed one by one.
const TOLD: usize = 50;
/// Links from one to the next that are followed of the path itself.
const MOST_LINKS: usize = 8;

/// A set of files on its way into the store. What is not committed must be given up.
struct Set {
    store: Store,
    packing: Option<Packing>,
}

impl Set {
    async fn give_up(&mut self) {
        let packing = self.packing.take();
        let removal = async {
            match packing {
                Some(packing) => packing.abandon().await,
                None => {
                    self.store.settle().await;
                    Ok(())
                }
            }
        };
        take_back(removal).await;
    }
}

/// What comes of an archive.
enum Event {
    Begin(Vec<u8>),
    Bytes(Bytes),
    End,
}

/// What one archive held, beside its files.
struct Gathered {
    packed: Packed,
    links: Links,
    guard: Guard,
}

pub async fn store_artifacts(
    cx: &StepCx<'_>,
    output: &mut StepOutput,
    path: &str,
    destination: Option<&str>,
) -> Result<(), StepError> {
    let mut set = Set { store: cx.open_store()?, packing: None };
    let at = cx.frame.place(path);
    let names = Names::new(&at, path, destination);
    let stored = gather_and_commit(cx, output, &at, names, &mut set).await;
    set.give_up().await;
    stored
}

async fn gather_and_commit(
    cx: &StepCx<'_>,
    output: &mut StepOutput,
    at: &str,
    names: Names,
    set: &mut Set,
) -> Result<(), StepError> {
    let whose = whose(cx, output.number);
    cx.bounds.while_sensible(gather(cx, &whose, at, names, output, set)).await??;
    commit(cx, &whose, output, set).await
}

fn whose(cx: &StepCx<'_>, step: usize) -> Whose {
    let logs = cx.directory.parent().and_then(|run| run.file_name());
    Whose {
        run: cx.claim.run.pipeline.clone(),
        logs: logs.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        workflow: cx.voice.task.job.workflow.clone(),
        producer: cx.producer(),
        node: cx.claim.node_index,
        step: u32::try_from(step).unwrap_or(u32::MAX),
    }
}

/// All but the commit. With no file there is no set.
async fn gather(
    cx: &StepCx<'_>,
    whose: &Whose,
    at: &str,
    mut names: Names,
    output: &mut StepOutput,
    set: &mut Set,
) -> Result<(), StepFault> {
    output.line(&format!("Uploading {at} to {}", names.prefix()));
    let masks = cx.voice.bus.masks().clone();
    let guard = Guard::new(masks, cx.secrets_in_artifacts, cx.job(), whose.step as usize);
    let mut gathered = archive(cx, whose, &names, at.to_owned(), guard, set).await?;
    // The path itself may be a link, which is followed as the shell would.
    for _ in 0..MOST_LINKS {
        let Some(target) = gathered.links.of(names.root()) else { break };
        let Ok(path) = String::from_utf8(target) else { break };
        names = names.of_place(path.as_bytes());
        gathered = archive(cx, whose, &names, format!("/{path}"), gathered.guard, set).await?;
    }
    tell_warnings(output, &gathered.packed);
    cx.tell_unreadable(whose.step as usize, "the artifacts", &gathered.packed);
    let Gathered { links, mut guard, .. } = gathered;
    if let Some(packing) = &mut set.packing {
        add_links(&links, &names, &mut guard, packing, output);
    } else if !guard.refuses() {
        output.line(&format!("No artifact files found at {at}"));
    }
    let refuses = guard.refuses();
    tell_secrets(cx, whose.step, guard.finish(), refuses, output)
}

/// Adds the files of one tree to the set.
async fn archive(
    cx: &StepCx<'_>,
    whose: &Whose,
    names: &Names,
    path: String,
    guard: Guard,
    set: &mut Set,
) -> Result<Gathered, StepFault> {
    let (sender, pieces) = mpsc::channel::<io::Result<Bytes>>(PIECES);
    let (client, user) = (cx.client.clone(), cx.frame.user.clone());
    let packing = tokio::task::spawn_blocking(move || {
        let trees = Trees::Places { paths: vec![path] };
        let packed = client.pack(trees, user, &mut |piece| sender.blocking_send(Ok(piece)).is_ok());
        if !matches!(packed, Ok(Some(_))) {
            // So that what came is not taken for the whole.
            sender.blocking_send(Err(io::Error::other("packing ended before its end"))).ok();
        }
        packed
    });
    let (sender, mut events) = mpsc::channel::<Event>(EVENTS);
    let names = names.clone();
    let reading = tokio::task::spawn_blocking(move || take_apart(pieces, guard, names, sender));
    let added = add_files(whose, &mut events, set).await;
    // A later send fails, since the receiver is gone.
    drop(events);
    let ended = |_| StepFault::thread_ended();
    let (packed, read) = (packing.await.map_err(ended)?, reading.await.map_err(ended)?);
    // Of several troubles the packer's is the cause, unless that is only that the receiver is gone; then the store's.
    let packed = match packed {
        Ok(packed) => packed,
        Err(error) => return Err(StepFault::of_client("", &error)),
    };
    let (guard, links) = read;
    if !guard.refuses() {
        added?;
    }
    let links = links.map_err(|error| StepFault::from(chain(&error)))?;
    let packed = packed.ok_or_else(|| StepFault::from("the archive did not arrive whole".to_owned()))?;
    Ok(Gathered { packed, links, guard })
}

async fn add_files(whose: &Whose, events: &mut mpsc::Receiver<Event>, set: &mut Set) -> Result<(), StepFault> {
    while let Some(event) = events.recv().await {
        let Event::Begin(name) = event else {
            return Err(StepFault::from("a file went on before it began".to_owned()));
        };
        let packing = match &mut set.packing {
            Some(packing) => packing,
            none => none.insert(begin(&set.store, whose).await?),
        };
        let content = stream::unfold(&mut *events, |events| async {
            match events.recv().await {
                Some(Event::Bytes(bytes)) => Some((Ok(bytes), events)),
                Some(Event::End) => None,
                Some(Event::Begin(_)) | None => Some((Err(io::Error::other("a file broke off")), events)),
            }
        });
        let kind = content_type(&name);
        packing.add(Name(name), kind, content).await?;
    }
    Ok(())
}

async fn commit(cx: &StepCx<'_>, whose: &Whose, output: &mut StepOutput, set: &mut Set) -> Result<(), StepError> {
    let Some(packing) = set.packing.take() else { return Ok(()) };
    let lines = summary(&packing);
    let shelf = Shelf::new(set.store.clone());
    let committing = async move {
        // First the run is known, then there are artifacts of it: of an unknown run they would stay for ever.
        if let Err(error) = shelf.announce(whose).await {
            packing.abandon().await.ok();
            return Err(error);
        }
        packing.commit(whose.about()).await
    };
    match trees::to_its_end(cx, committing).await?.map_err(StepFault::from)? {
        Commit::Won(_) => lines.iter().for_each(|line| output.line(line)),
        Commit::Lost(_) | Commit::Newer { .. } => {
            return Err("another process stored this step's artifacts meanwhile".to_owned().into());
        }
    }
    Ok(())
}

fn tell_secrets(
    cx: &StepCx<'_>,
    step: u32,
    findings: Findings,
    refuses: bool,
    output: &mut StepOutput,
) -> Result<(), StepFault> {
    findings.unseen_lines().for_each(|line| output.line(&line));
    if let (Some(first), false) = (findings.unseen.first(), refuses) {
        let others = match findings.unseen.len() - 1 + findings.more_unseen {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        cx.voice.warn(format!("artifacts of step {step}: not looked into for secrets: {first}{others}"));
    }
    let Some(first) = findings.named.first() else { return Ok(()) };
    for finding in &findings.named {
        let line = finding.words();
        output.line(&if refuses { line } else { format!("Warning: {line}; it is stored masked") });
    }
    if findings.more > 0 {
        output.line(&format!("and so do {} more files", findings.more));
    }
    if refuses {
        return Err(StepFault::from(refusal(findings.unmaskable.as_ref().unwrap_or(first), &findings)));
    }
    let others = findings.others();
    cx.voice.warn(format!("artifact {} held the value of {}{others}: stored masked", first.file, first.secrets));
    Ok(())
}

/// Why nothing is stored, and the ways out.
fn refusal(finding: &Finding, findings: &Findings) -> String {
    let Finding { file, is_text, .. } = finding;
    let (words, others) = (finding.words(), findings.others());
    let plain = "give a value that is not secret with --var, and it is not looked for";
    match is_text {
        true => format!(
            "nothing is stored: {words}{others}. Keep secrets out of artifacts ({plain}), or run with \
             --secrets-in-artifacts=mask"
        ),
        false => format!(
            "nothing is stored: {words}{others}, and {file} is not text, and **** in it would \
             break. Keep secrets out of artifacts ({plain}), or store them as they are with --secrets-in-artifacts=allow"
        ),
    }
}

async fn begin(store: &Store, whose: &Whose) -> Result<Packing, StepFault> {
    let place = whose.place();
    // A retry of this step: what its earlier attempt left is not what counts.
    if let Some(entry) = store.find(&place).await? {
        store.remove(&entry).await?;
    }
    Ok(store.pack(store.reserve(place).await?))
}

/// On a thread of its own.
fn take_apart(
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    guard: Guard,
    names: Names,
    events: mpsc::Sender<Event>,
) -> (Guard, Result<Links, ReadError>) {
    let mut source = Pieces::new(pieces);
    // Nothing of it is there: no archive comes.
    match source.fill() {
        Ok(true) => {}
        Ok(false) => return (guard, Ok(Links::default())),
        Err(error) => return (guard, Err(ReadError::Source(error))),
    }
    let mut sorter = Sorter { guard, names, events };
    let links = read::read(source, LIMITS, &mut sorter);
    (sorter.guard, links)
}

/// Files by their names, looked through.
struct Sorter {
    guard: Guard,
    names: Names,
    events: mpsc::Sender<Event>,
}

impl Sorter {
    /// From the first secret on nothing is sent: then all is only looked through.
    fn send(&self, event: Event) -> io::Result<()> {
        if self.guard.refuses() {
            return Ok(());
        }
        self.events.blocking_send(event).map_err(|_| io::Error::other("the upload ended before its end"))
    }

    fn send_bytes(&self, bytes: Vec<u8>) -> io::Result<()> {
        let mut bytes = Bytes::from(bytes);
        while !bytes.is_empty() {
            self.send(Event::Bytes(bytes.split_to(bytes.len().min(CHUNK))))?;
        }
        Ok(())
    }
}

impl Sink for Sorter {
    fn begin(&mut self, path: &[u8]) -> io::Result<()> {
        let name = self.names.name(path);
        let name = name.ok_or_else(|| io::Error::other("a file of the archive is outside its directory"))?;
        let name = self.guard.begin(name);
        self.send(Event::Begin(name))
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        for chunk in bytes.chunks(CHUNK) {
            let mut safe = Vec::new();
            self.guard.bytes(chunk, &mut |piece| safe.extend_from_slice(piece));
            self.send_bytes(safe)?;
        }
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        let mut safe = Vec::new();
        self.guard.end(&mut |piece| safe.extend_from_slice(piece));
        self.send_bytes(safe)?;
        self.send(Event::End)
    }
}

/// Links to files of the set, as further names of them.
fn add_links(links: &Links, names: &Names, guard: &mut Guard, packing: &mut Packing, output: &mut StepOutput) {
    if links.is_empty() {
        return;
    }
    let by_name: HashMap<Vec<u8>, u64> = packing.files().iter().map(|file| (file.name.0.clone(), file.id)).collect();
    let mut nowhere = 0;
    for (path, target) in links.all() {
        let Some(name) = names.name(path) else { continue };
        let file = target.and_then(|target| by_name.get(&names.name(&target)?).copied());
        match file {
            Some(file) => {
                let name = guard.name(name);
                let kind = content_type(&name);
                packing.add_name(Name(name), kind, file);
            }
            None => {
                nowhere += 1;
                if nowhere <= TOLD {
                    let name = String::from_utf8_lossy(&name);
                    output.line(&format!("Warning: {name} is a link to no file of these, and is left out"));
                }
            }
        }
    }
    if nowhere > TOLD {
        output.line(&format!("Warning: {} more links are left out", nowhere - TOLD));
    }
}

fn summary(packing: &Packing) -> Vec<String> {
    let files = packing.files();
    let shown = |name: &Name| String::from_utf8_lossy(&name.0).into_owned();
    let mut lines: Vec<String> = files
        .iter()
        .take(TOLD)
        .map(|file| format!("  * {} ({})", shown(&file.name), figures::bytes(file.size)))
        .collect();
    if files.len() > TOLD {
        lines.push(format!("  * … and {} more", files.len() - TOLD));
    }
    let bytes = files.iter().map(|file| file.size).sum();
    let count = if files.len() == 1 { "1 file".to_owned() } else { format!("{} files", files.len()) };
    lines.push(format!("Uploaded {count}, {}", figures::bytes(bytes)));
    lines
}
