//! What is said about a restore step: as one object of JSON, and as text for a person.

use navvy_checkout::history::Change;
use navvy_job::compiled::When;
use navvy_job::figures;
use navvy_storage::Entry;
use navvy_storage::template::What;
use navvy_ui::sanitize::clean;
use navvy_ui::text::{count, cut, pad, width};
use serde::Serialize;

use super::compare::{Part, Piece, Value, Verdict, shown_then};
use super::here::{Ask, Saver};
use super::weight::{Heavy, SMALL};
use crate::step::cached;

/// Values are cut to this in text; JSON has them whole.
const WIDEST: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Hit,
    Miss,
    /// A part of the key is known in the job only.
    Unknown,
    /// It is no key: the step fails, and the job goes on.
    Broken,
}

impl Outcome {
    /// Outcome of a step. One wrong template is enough for it to fail; a key that is not known may find something before another.
    pub fn of(keys: &[Key]) -> Self {
        let any = |outcome: Self| keys.iter().any(|key| key.outcome == outcome);
        [Self::Broken, Self::Unknown, Self::Hit].into_iter().find(|outcome| any(*outcome)).unwrap_or(Self::Miss)
    }

    fn word(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Unknown => "unknown",
            Self::Broken => "broken",
        }
    }
}

/// A restore step (docs/caches.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    pub workflow: String,
    pub job: String,
    pub step: usize,
    pub name: String,
    pub place: String,
    pub scope: String,
    pub outcome: Outcome,
    /// As far as they are looked for: none after one that finds.
    pub keys: Vec<Key>,
    pub hit: Option<Hit>,
    pub files: Vec<File>,
    pub writers: Vec<Writer>,
    /// When there is no writer: the one that writes the most similar key.
    pub nearest_writer: Option<Writer>,
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Key {
    pub template: String,
    /// `****` for what may be a secret; what is unknown as the template has it.
    pub key: String,
    pub outcome: Outcome,
    pub error: Option<String>,
    pub unknown: Vec<Unknown>,
    pub nearest: Vec<Saved>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unknown {
    pub part: String,
    pub why: String,
}

/// A cache in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Saved {
    pub key: String,
    pub scope: String,
    pub created: String,
    pub job: String,
    pub build_num: Option<u64>,
    pub size: u64,
    /// `null` where its entry does not say what its key is made of.
    pub parts: Option<Vec<Part>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hit {
    /// Its key is the one that was looked for, and not only begins with it.
    pub is_exact: bool,
    #[serde(flatten)]
    pub saved: Saved,
    pub archive: Archive,
}

/// What an archive is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Archive {
    pub size: u64,
    /// Bytes of its files, before they were compressed.
    pub bytes: Option<u64>,
    pub files: Option<u64>,
    pub save_millis: Option<u64>,
    pub small_files: Option<u64>,
    #[serde(skip)]
    pub is_many_small: bool,
    pub heaviest: Vec<Heavy>,
    /// Why its manifest cannot be read.
    pub trouble: Option<String>,
}

/// A file whose checksum is another than in the nearest cache's key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct File {
    /// As the template has it.
    pub file: String,
    pub then: Option<Commit>,
    pub is_elsewhere: bool,
    pub since: Vec<Commit>,
    /// Commits beyond those.
    pub more: usize,
    pub is_uncommitted: bool,
    pub added: Option<u64>,
    pub removed: Option<u64>,
    pub trouble: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Commit {
    pub id: String,
    #[serde(skip)]
    pub short: String,
    pub date: String,
    pub author: String,
    pub subject: String,
}

/// A `save_cache` step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Writer {
    pub job: String,
    pub place: String,
    pub template: String,
    pub when: When,
    /// Why its job does not run.
    pub left: Option<String>,
}

impl Step {
    pub fn new(ask: &Ask, scope: String) -> Self {
        let Ask { workflow, job, step, name, place, .. } = ask.clone();
        Self {
            workflow,
            job,
            step,
            name,
            place,
            scope,
            outcome: Outcome::Miss,
            keys: Vec::new(),
            hit: None,
            files: Vec::new(),
            writers: Vec::new(),
            nearest_writer: None,
            notes: Vec::new(),
        }
    }
}

impl Key {
    pub fn new(template: &str, key: String) -> Self {
        let (unknown, nearest) = (Vec::new(), Vec::new());
        Self { template: template.to_owned(), key, outcome: Outcome::Miss, error: None, unknown, nearest }
    }

    pub fn broken(template: &str, why: String) -> Self {
        Self { outcome: Outcome::Broken, error: Some(why), ..Self::new(template, template.to_owned()) }
    }
}

impl Unknown {
    /// `None`: it is known.
    pub fn of(piece: &Piece) -> Option<Self> {
        match &piece.value {
            Value::Known(_) => None,
            Value::Unknown(why) => Some(Self { part: piece.what.to_string(), why: why.clone() }),
        }
    }
}

impl Saved {
    pub fn of(entry: &Entry, pieces: Option<&[(What, String)]>, parts: Vec<Part>) -> Self {
        Self {
            key: shown_key(entry),
            scope: entry.record.scope_word(),
            created: moment(entry.created),
            job: entry.record.producer.job.clone(),
            build_num: entry.record.producer.build_num,
            size: entry.body().size,
            parts: pieces.map(|_| parts),
        }
    }

    fn text(&self) -> String {
        let build = self.build_num.map(|number| format!(" (build {number})")).unwrap_or_default();
        let Self { key, scope, created, job, size, .. } = self;
        format!("{key}, saved {created} by job {job}{build}, scope {scope}, {}", figures::bytes(*size))
    }
}

impl File {
    pub fn without(file: &str, trouble: String) -> Self {
        Self { file: file.to_owned(), trouble: Some(trouble), ..Self::default() }
    }
}

impl Commit {
    pub fn of(change: &Change) -> Self {
        let Change { id, short, date, author, subject, .. } = change.clone();
        Self { id, short, date, author, subject }
    }

    fn text(&self) -> String {
        format!("{} {} {}: {}", self.short, self.date, self.author, self.subject)
    }
}

impl Writer {
    pub fn of(saver: &Saver) -> Self {
        let Saver { job, place, template, when, left, .. } = saver.clone();
        Self { job, place, template, when, left }
    }

    fn text(&self) -> String {
        let when = match self.when {
            When::OnSuccess => ", if no step before it failed",
            When::OnFail => ", only if a step before it failed",
            When::Always => "",
        };
        let left = self.left.as_ref().map(|why| format!("; the job does not run: {why}")).unwrap_or_default();
        format!("save_cache at {} of job {} writes {}{when}{left}", self.place, self.job, self.template)
    }
}

impl Step {
    /// For a person: every line harmless on a terminal.
    pub fn text(&self) -> String {
        let mut lines = vec![self.title()];
        for (nth, key) in self.keys.iter().enumerate() {
            lines.push(format!("  {:7} {}", key.outcome.word(), key.key));
            lines.extend(key.error.iter().map(|error| format!("    {error}")));
            lines.extend(
                key.unknown.iter().map(|it| format!("    {} is not known outside of the job: {}", it.part, it.why)),
            );
            lines.extend(nearest(key, &self.keys[..nth]));
        }
        lines.extend(self.files.iter().flat_map(file));
        lines.extend(self.hit.iter().flat_map(hit));
        if self.outcome != Outcome::Hit {
            lines.extend(self.why_nobody());
        }
        lines.extend(self.notes.iter().map(|note| format!("  {note}")));
        lines.iter().map(|line| clean(line).trim_end().to_owned() + "\n").collect()
    }

    fn title(&self) -> String {
        match self.step {
            0 => format!("A key by itself (scope {})", self.scope),
            step => {
                let workflow = &self.workflow;
                format!(
                    "{} of {workflow}: step {step} \"{}\" at {} (scope {})",
                    self.job, self.name, self.place, self.scope
                )
            }
        }
    }

    fn why_nobody(&self) -> Vec<String> {
        if self.outcome == Outcome::Broken {
            return vec!["  The step fails with that, and the job goes on without a cache.".to_owned()];
        }
        let mut lines = Vec::new();
        if self.keys.iter().all(|key| key.nearest.is_empty()) && self.hit.is_none() {
            lines.push(
                "  No cache with a similar key is in the store: none was saved yet, or it was removed.".to_owned(),
            );
        }
        lines.extend(self.writers.iter().map(|writer| format!("  {}.", writer.text())));
        if self.writers.is_empty() {
            lines.push("  No save_cache of the config writes a key that begins so.".to_owned());
            lines.extend(self.nearest_writer.iter().map(|writer| format!("  The most similar: {}.", writer.text())));
        }
        lines
    }
}

/// The first cache is shown with all of its parts; the others, and those shown for an earlier key, with the parts that differ.
fn nearest(key: &Key, before: &[Key]) -> Vec<String> {
    let was_told = |saved: &Saved| before.iter().flat_map(|key| &key.nearest).any(|told| told.key == saved.key);
    let mut lines = Vec::new();
    for (nth, saved) in key.nearest.iter().enumerate() {
        let known = was_told(saved);
        let text = if known { format!("{}, as above", saved.key) } else { saved.text() };
        lines.push(format!("    {} {text}", if nth == 0 { "nearest:" } else { "also:   " }));
        let Some(parts) = &saved.parts else {
            lines.push("      its entry does not say what its key is made of".to_owned());
            continue;
        };
        let whole = nth == 0 && !known;
        let told: Vec<&Part> = parts.iter().filter(|part| whole || part.verdict != Verdict::Same).collect();
        let widest = told.iter().map(|part| width(&clean(&part.part))).max().unwrap_or(0);
        lines.extend(told.into_iter().map(|part| part_line(part, widest)));
    }
    lines
}

fn part_line(part: &Part, widest: usize) -> String {
    let value =
        |value: &Option<String>| value.as_ref().map_or_else(|| "(hidden)".to_owned(), |text| cut(&clean(text), WIDEST));
    let (then, now) = (value(&part.then), value(&part.now));
    let is_text = matches!(part.what, What::Text(_));
    let (word, values) = match part.verdict {
        Verdict::Same if is_text => ("same", String::new()),
        Verdict::Same => ("same", now),
        Verdict::Differs if is_text => ("differs", format!("then {then}")),
        Verdict::Differs => ("differs", format!("then {then}, now {now}")),
        Verdict::Unknown => ("unknown", format!("then {then}")),
        Verdict::OtherTemplate => match &part.then {
            Some(then) => ("differs", format!("it was saved with {then} here")),
            None => ("differs", "its key ends before".to_owned()),
        },
    };
    format!("      {word:8} {}  {values}", pad(&clean(&part.part), widest))
}

fn file(file: &File) -> Vec<String> {
    let name = &file.file;
    if let Some(trouble) = &file.trouble {
        return vec![format!("  {name} changed; when is unknown: {trouble}")];
    }
    let lines = match (file.added, file.removed) {
        (Some(added), Some(removed)) => format!(" (+{added} -{removed} lines)"),
        _ => String::new(),
    };
    let mut told = vec![match (&file.then, file.is_elsewhere) {
        (Some(then), false) => format!("  {name} changed since {}{lines}", then.text()),
        (Some(then), true) => {
            format!("  {name} was as in {}, which is not a commit of this branch{lines}", then.text())
        }
        (None, _) => format!("  {name} changed; no commit here has it as it was when the cache was saved"),
    }];
    told.extend(file.since.iter().map(|commit| format!("    {}", commit.text())));
    if file.more > 0 {
        told.push(format!("    and {} before", count(file.more, "commit")));
    }
    if file.is_uncommitted {
        told.push("    and it has changes that are not committed".to_owned());
    }
    told
}

fn hit(hit: &Hit) -> Vec<String> {
    let Hit { is_exact, saved, archive } = hit;
    let how = if *is_exact { "found" } else { "found by its beginning, the newest" };
    let mut lines = vec![format!("  {how}: {}", saved.text())];
    lines.push(format!("    A job that looked before {} did not find it.", saved.created));
    lines.push(format!("    {}", made_of(archive)));
    if let Some(why) = &archive.trouble {
        lines.push(format!("    Its archive cannot be read: {why}. A job that restores it would put it aside."));
    }
    if archive.is_many_small {
        let small = archive.small_files.unwrap_or(0);
        lines.push(format!("    Slow for its many small files: {small} have less than {}.", figures::bytes(SMALL)));
    }
    let widest = archive.heaviest.iter().map(|heavy| figures::bytes(heavy.bytes).len()).max().unwrap_or(0);
    for Heavy { path, bytes, files } in &archive.heaviest {
        let files = count(usize::try_from(*files).unwrap_or(usize::MAX), "file");
        lines.push(format!("    {:>widest$}  {path}  ({files})", figures::bytes(*bytes)));
    }
    lines
}

fn made_of(archive: &Archive) -> String {
    let plain = archive.bytes.map(|bytes| format!("{} of ", figures::bytes(bytes))).unwrap_or_default();
    let files = archive.files.map(|files| format!("{files} files, ")).unwrap_or_default();
    let took = archive.save_millis.map(|millis| format!("; packing and uploading took {}", figures::duration(millis)));
    format!("{plain}{files}{} in the store{}", figures::bytes(archive.size), took.unwrap_or_default())
}

/// A cache's key without what may be a secret.
pub fn shown_key(entry: &Entry) -> String {
    let pieces = cached::pieces(entry);
    // An entry that does not say where its values stand, but that there may be secrets among them.
    let template = entry.record.details.get(cached::TEMPLATE).filter(|text| text.contains(".Environment."));
    match (pieces, template) {
        (Some(pieces), _) => shown_then(&pieces),
        (None, Some(template)) => template.clone(),
        (None, None) => entry.key().unwrap_or_default().to_owned(),
    }
}

/// A time as people read it.
pub fn moment(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}
