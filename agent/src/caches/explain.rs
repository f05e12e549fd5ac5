//! One restore step explained: key by key, against what is in the store.

use std::collections::HashMap;

use futures_util::{StreamExt as _, TryStreamExt as _};
use navvy_archive::contents;
use navvy_archive::manifest::Record;
use navvy_checkout::history;
use navvy_job::chain::chain;
use navvy_job::claim::TrustScope;
use navvy_storage::template::{LONGEST, Template, What};
use navvy_storage::{Entry, Listed, PutAside, StorageError, Store};

use super::compare::{Piece, Verdict, known_beginning, shown_now, would_find};
use super::here::{Ask, Here, Saver, Site, in_tree};
use super::nearest::{Near, candidates, nearest};
use super::told::{Archive, Commit, File, Hit, Key, Outcome, Saved, Step, Unknown, Writer, moment, shown_key};
use super::weight::Weights;
use crate::step::cached;
use crate::step::manifest;

/// Index objects that are read at once.
const PARALLEL: usize = 16;
/// Bytes of a manifest that are read to tell what is in an archive: two million entries, about.
const MANIFEST_CAP: u64 = 200 << 20;
/// Commits that are listed for one file.
const COMMITS: usize = 5;

/// Who explains, and what was looked up for all steps.
pub struct Explainer {
    pub here: Here,
    pub scope: TrustScope,
    pub store: Store,
    /// The project's other scopes that this one does not read.
    pub others: Vec<(TrustScope, Store)>,
    pub aside: Vec<PutAside>,
    pub savers: Vec<Saver>,
    listed: Vec<Listed>,
    read: HashMap<usize, Option<Entry>>,
}

impl Explainer {
    /// # Errors
    /// The store's, here and later.
    pub async fn new(here: Here, scope: TrustScope, store: Store, savers: Vec<Saver>) -> Result<Self, StorageError> {
        let listed = store.list("").await?;
        let (others, aside, read) = (Vec::new(), Vec::new(), HashMap::new());
        Ok(Self { here, scope, store, others, aside, savers, listed, read })
    }

    pub async fn explain(&mut self, ask: &Ask) -> Result<Step, StorageError> {
        let mut step = Step::new(ask, self.scope.word());
        let mut missed = Vec::new();
        for template in &ask.keys {
            let (key, pieces, hit) = self.key(template, &ask.site).await?;
            step.keys.push(key);
            if let Some(entry) = hit {
                step.hit = Some(self.hit(&entry, &pieces, !template.contains("{{")).await);
                break;
            }
            missed.push((step.keys.len() - 1, pieces));
        }
        step.outcome = Outcome::of(&step.keys);
        for (nth, pieces) in &missed {
            let is_literal = !ask.keys[*nth].contains("{{");
            let near = self.nearest(pieces, is_literal).await?;
            self.files(&mut step.files, &near, &ask.site);
            step.keys[*nth].nearest = near.iter().map(saved).collect();
        }
        if step.outcome != Outcome::Hit {
            step.notes = self.elsewhere(&missed).await?;
            self.writers(&mut step, &missed);
        }
        Ok(step)
    }

    /// A key, its parts, and what is found by it.
    async fn key(&self, text: &str, site: &Site) -> Result<(Key, Vec<Piece>, Option<Entry>), StorageError> {
        let template = match Template::parse(text) {
            Ok(template) => template,
            Err(error) => return Ok((Key::broken(text, error.to_string()), Vec::new(), None)),
        };
        let pieces = self.here.pieces(&template, site);
        let mut key = Key::new(text, shown_now(&pieces));
        key.unknown = pieces.iter().filter_map(Unknown::of).collect();
        let beginning = known_beginning(&pieces);
        if key.unknown.is_empty() {
            match beginning.chars().count() {
                0 => return Ok((Key::broken(text, "the key is empty".to_owned()), pieces, None)),
                count if count > LONGEST => {
                    let why = format!("the key has {count} characters, and {LONGEST} are allowed");
                    return Ok((Key::broken(text, why), pieces, None));
                }
                _ => {}
            }
        }
        let hit = self.store.look_up(std::slice::from_ref(&beginning)).await?.map(|hit| hit.entry);
        key.outcome = match (&hit, key.unknown.is_empty()) {
            (None, _) => Outcome::Miss,
            (Some(_), true) => Outcome::Hit,
            (Some(_), false) => Outcome::Unknown,
        };
        let hit = hit.filter(|_| key.outcome == Outcome::Hit);
        Ok((key, pieces, hit))
    }

    async fn hit(&self, entry: &Entry, pieces: &[Piece], is_literal: bool) -> Hit {
        let near = nearest(vec![entry.clone()], pieces, is_literal).into_iter().next();
        let saved = near.map_or_else(|| Saved::of(entry, None, Vec::new()), |near| saved(&near));
        let is_exact = entry.key() == Some(known_beginning(pieces).as_str());
        Hit { is_exact, saved, archive: self.archive(entry).await }
    }

    /// What its entry and its manifest say.
    async fn archive(&self, entry: &Entry) -> Archive {
        let [files, bytes, millis] =
            [cached::FILES, cached::BYTES, cached::MILLIS].map(|name| cached::number(entry, name));
        let mut archive = Archive { size: entry.body().size, files, bytes, save_millis: millis, ..Archive::default() };
        match self.weights(entry).await {
            Ok(weights) => {
                archive.small_files = Some(weights.small);
                archive.is_many_small = weights.is_many_small();
                archive.heaviest = weights.heaviest();
            }
            Err(why) => archive.trouble = Some(why),
        }
        archive
    }

    async fn weights(&self, entry: &Entry) -> Result<Weights, String> {
        let (footer, manifest) =
            manifest::read(&self.store, entry.body(), MANIFEST_CAP).await.map_err(|error| chain(&error))?;
        let mut weights = Weights::new(footer.plain);
        let mut each = |record: Record| {
            if let Record::Entry(entry) = &record {
                weights.add(entry);
            }
            Ok(())
        };
        contents::each_record(&footer, &manifest, &mut each).map_err(|error| chain(&error))?;
        Ok(weights)
    }

    async fn nearest(&mut self, pieces: &[Piece], is_literal: bool) -> Result<Vec<Near>, StorageError> {
        if pieces.is_empty() {
            return Ok(Vec::new());
        }
        let chosen = candidates(&self.listed, pieces);
        let new: Vec<usize> = chosen.iter().copied().filter(|at| !self.read.contains_key(at)).collect();
        let reads: Vec<_> = new.iter().map(|at| self.store.read(&self.listed[*at])).collect();
        let read: Vec<Option<Entry>> = futures_util::stream::iter(reads).buffered(PARALLEL).try_collect().await?;
        self.read.extend(new.into_iter().zip(read));
        let entries = chosen.iter().filter_map(|at| self.read.get(at)?.clone()).collect();
        Ok(nearest(entries, pieces, is_literal))
    }

    /// What became of the files whose checksums the nearest cache has otherwise; each file once.
    fn files(&self, told: &mut Vec<File>, near: &[Near], site: &Site) {
        let Some(near) = near.first() else { return };
        for part in near.parts.iter().filter(|part| part.verdict == Verdict::Differs) {
            let What::Checksum(file) = &part.what else { continue };
            let Some(digest) = cached::checksum(&near.entry, file).filter(|_| told.iter().all(|it| it.file != *file))
            else {
                continue;
            };
            let told_file = match in_tree(site, file) {
                Ok(path) if self.here.facts.is_repo => self.history(file, &path, &digest, &near.entry),
                Ok(_) => File::without(file, "there is no git repository to look into".to_owned()),
                Err(why) => File::without(file, why),
            };
            told.push(told_file);
        }
    }

    fn history(&self, file: &str, path: &str, digest: &[u8; 32], entry: &Entry) -> File {
        let revision = entry.record.details.get(cached::REVISION).map_or("", String::as_str);
        let found = match history::since(
            &self.here.facts.top,
            self.here.facts.elsewhere,
            path,
            digest,
            entry.created,
            revision,
        ) {
            Ok(found) => found,
            Err(error) => return File::without(file, chain(&error)),
        };
        File {
            file: file.to_owned(),
            then: found.then.as_ref().map(Commit::of),
            is_elsewhere: found.is_elsewhere,
            more: found.since.len().saturating_sub(COMMITS),
            since: found.since.iter().take(COMMITS).map(Commit::of).collect(),
            is_uncommitted: found.is_uncommitted,
            added: found.lines.map(|(added, _)| added),
            removed: found.lines.map(|(_, removed)| removed),
            trouble: None,
        }
    }

    /// Such caches where this scope does not look.
    async fn elsewhere(&self, missed: &[(usize, Vec<Piece>)]) -> Result<Vec<String>, StorageError> {
        let mut notes = Vec::new();
        for (_, pieces) in missed.iter().filter(|(_, pieces)| pieces.iter().all(|piece| piece.value.known().is_some()))
        {
            let key = known_beginning(pieces);
            if key.is_empty() {
                continue;
            }
            for (scope, store) in &self.others {
                let Some(hit) = store.look_up(std::slice::from_ref(&key)).await? else { continue };
                notes.push(format!(
                    "Scope {scope} has {}, saved {}; scope {} does not read what {scope} writes.",
                    shown_key(&hit.entry),
                    moment(hit.entry.created),
                    self.scope.word()
                ));
            }
            for aside in &self.aside {
                let entry = Entry { record: aside.record.clone(), created: aside.at };
                if entry.key().is_some_and(|there| there.starts_with(&key)) {
                    let (key, at) = (shown_key(&entry), moment(aside.at));
                    notes.push(format!("{key} was damaged, and put aside {at}: {}", aside.why));
                }
            }
        }
        notes.sort();
        notes.dedup();
        Ok(notes)
    }

    /// Who would save what was looked for.
    fn writers(&self, step: &mut Step, missed: &[(usize, Vec<Piece>)]) {
        let writes = |saver: &&Saver| {
            let Ok(template) = Template::parse(&saver.template) else { return false };
            let pieces = self.here.pieces(&template, &saver.site);
            missed.iter().any(|(_, wanted)| would_find(wanted, &pieces))
        };
        for writer in self.savers.iter().filter(writes).map(Writer::of) {
            // A job may stand in several workflows.
            if !step.writers.contains(&writer) {
                step.writers.push(writer);
            }
        }
        if step.writers.is_empty() {
            step.nearest_writer = self.like(step.keys.iter().map(|key| key.template.as_str())).map(Writer::of);
        }
    }

    /// The step whose template reads most like one of these.
    fn like<'a>(&self, templates: impl Iterator<Item = &'a str> + Clone) -> Option<&Saver> {
        let closeness = |saver: &Saver| {
            templates
                .clone()
                .map(|template| strsim::normalized_levenshtein(template, &saver.template))
                .fold(0.0, f64::max)
        };
        self.savers.iter().max_by(|a, b| closeness(a).total_cmp(&closeness(b)))
    }
}

fn saved(near: &Near) -> Saved {
    Saved::of(&near.entry, near.pieces.as_deref(), near.parts.clone())
}
