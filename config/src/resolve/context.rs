//! What every part of the stage shares: the report, the budget, the pipeline's own values.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use super::expression::{full_match, steps_back};
use super::library::Library;
use super::reach::Reached;
use super::record::Record;
use crate::diagnostic::{Diagnostic, Frame, Report, Severity, Span, column};
use crate::input::{File, Inputs};
use crate::orb::{ImportedOrb, OrbReference};
use crate::syntax::Node;

/// Steps of work that a config may cost: a node looked at costs `NODE`, a byte of text made costs one.
/// Twice what the language's limit of 8 MB for a compiled config could need.
const BUDGET: usize = 16 << 20;
const NODE: usize = 8;
/// So many bytes of a text are looked through in the time of one step.
const SCANNED: usize = 16;
/// Calling a command costs far more than looking at a node.
const CALL: usize = 128;
/// Building a pattern costs more still, and most where it must be tried step by step.
const PATTERN: usize = 2 << 10;
const SLOW_PATTERN: usize = 64 << 10;
/// What becomes a step, a job or a requirement stays in memory till the end.
const STEP: usize = 64;
const JOB: usize = 512;
const REQUIREMENT: usize = 32;
/// The language's limit on the texts of a compiled config, in bytes.
const LARGEST: usize = 8 << 20;
/// More mistakes than a person reads; finding neighbours for more would take its time.
const HOPELESS: usize = 1_000;
/// Bytes in which the exact place of a mistake is looked for.
const LONGEST_SEARCH: usize = 64 << 10;
/// Steps inside `when` inside commands inside ...: far beyond any config, far from the end of the stack.
const DEEPEST: usize = 128;

/// Whether one pattern matches, by text.
type Answers = HashMap<String, Result<bool, String>>;
/// Why a file was read: of several imports, the first.
pub(crate) struct Import {
    pub alias: Arc<str>,
    pub resolved: OrbReference,
    /// Span of the alias, in the file that imports it.
    pub span: Span,
}

impl Import {
    fn frame(&self) -> Frame {
        Frame { text: format!("in orb `{}`, `{}`", self.alias, self.resolved), span: self.span }
    }
}

/// What is left of a context when all is done.
pub(crate) struct Resolved {
    pub report: Report,
    pub files: Vec<File>,
    pub imports: Vec<ImportedOrb>,
}

pub(crate) struct Context<'a> {
    pub inputs: &'a Inputs,
    /// Version 2 has no templates, commands, executors.
    pub templates: bool,
    /// Set once they are known: their own defaults cannot refer to them.
    pub parameters: OnceCell<BTreeMap<Arc<str>, Node>>,
    config: &'a str,
    /// Files of orbs, as the spans of their nodes count them, from 1.
    files: RefCell<Vec<(File, Import)>>,
    /// Every orb that was read, by exact reference; `None` for one that cannot be.
    orbs: RefCell<HashMap<OrbReference, Option<Rc<Library>>>>,
    imports: RefCell<Vec<ImportedOrb>>,
    url_orbs: Cell<usize>,
    report: RefCell<Report>,
    spent: Cell<usize>,
    made: Cell<usize>,
    full: Cell<bool>,
    depth: Cell<usize>,
    mistakes: Cell<usize>,
    /// Which definitions are used, and how much a mistake matters where we are.
    pub(super) reached: Reached,
    /// Everything has been reported: mistakes that are found again are not reported any more.
    silent: Cell<bool>,
    /// What explanations are made of; kept only when one is asked for.
    record: Option<RefCell<Record>>,
    /// The same few patterns stand in every job of a workflow, and building one costs more than all else of a job.
    matches: RefCell<HashMap<String, Answers>>,
}

impl<'a> Context<'a> {
    pub fn new(config: &'a str, inputs: &'a Inputs, report: Report, templates: bool) -> Self {
        Self {
            inputs,
            templates,
            parameters: OnceCell::new(),
            config,
            files: RefCell::default(),
            orbs: RefCell::default(),
            imports: RefCell::default(),
            url_orbs: Cell::new(0),
            report: RefCell::new(report),
            spent: Cell::new(0),
            made: Cell::new(0),
            full: Cell::new(false),
            depth: Cell::new(0),
            mistakes: Cell::new(0),
            reached: Reached::default(),
            silent: Cell::new(false),
            record: None,
            matches: RefCell::default(),
        }
    }

    /// The same, and keeps a record on the way.
    pub fn with_record(self) -> Self {
        Self { record: Some(RefCell::default()), ..self }
    }

    /// Adds to the record, if one is kept.
    pub fn record(&self, add: impl FnOnce(&mut Record)) {
        if let Some(record) = &self.record {
            add(&mut record.borrow_mut());
        }
    }

    pub fn keeps_record(&self) -> bool {
        self.record.is_some()
    }

    /// What was recorded; empty if nothing was to be.
    pub fn recorded(&self) -> Record {
        self.record.as_ref().map(|record| record.borrow().clone()).unwrap_or_default()
    }

    /// Names looked up and their values, which are forgotten.
    pub fn seen(&self) -> Vec<(String, String)> {
        self.record.as_ref().map(|record| std::mem::take(&mut record.borrow_mut().seen)).unwrap_or_default()
    }

    pub fn note_missing_orb(&self, alias: &Arc<str>, reference: &Arc<str>) {
        self.record(|record| {
            record.missing_orbs.insert(alias.clone(), reference.clone());
        });
    }

    /// The text of a place, as written.
    pub fn written(&self, span: Span) -> String {
        let files = self.files.borrow();
        let text = match span.file {
            0 => Some(self.config),
            file => index(file).and_then(|index| files.get(index)).map(|(file, _)| &*file.text),
        };
        text.and_then(|text| text.get(span.start..span.end)).unwrap_or("").to_owned()
    }

    pub fn report(&self, diagnostic: Diagnostic) {
        self.mistakes.set(self.mistakes.get() + usize::from(diagnostic.severity == Severity::Error));
        if let Some(diagnostic) = self.reached.weigh(diagnostic, self.inputs.tolerate_unreached) {
            self.tell(diagnostic, Report::push);
        }
    }

    /// The same for a place in a definition, without the trail from one of its uses.
    pub(super) fn report_at_its_place(&self, diagnostic: Diagnostic) {
        if let Some(diagnostic) = self.reached.weigh(diagnostic, self.inputs.tolerate_unreached) {
            self.tell(diagnostic, Report::push_at_its_place);
        }
    }

    /// From now on no mistake is reported any more.
    pub fn fall_silent(&self) {
        self.silent.set(true);
    }

    fn tell(&self, diagnostic: Diagnostic, push: impl FnOnce(&mut Report, Diagnostic)) {
        if self.silent.get() {
            return;
        }
        let diagnostic = if diagnostic.span.file == 0 { diagnostic } else { self.with_orb(diagnostic) };
        push(&mut self.report.borrow_mut(), diagnostic);
    }

    /// Tells by which orb it is that a diagnostic lies in another file than the config.
    fn with_orb(&self, mut diagnostic: Diagnostic) -> Diagnostic {
        let files = self.files.borrow();
        let import = |file| index(file).and_then(|index| files.get(index)).map(|(_, import)| import);
        let way = std::iter::successors(import(diagnostic.span.file), |inner| import(inner.span.file));
        let inside = diagnostic.trail.iter().take_while(|frame| frame.span.file == diagnostic.span.file).count();
        // A trail that goes on in another file tells the rest of the way.
        let orbs = if inside < diagnostic.trail.len() { 1 } else { usize::MAX };
        let frames = way.take(orbs).map(Import::frame);
        diagnostic.trail.splice(inside..inside, frames);
        diagnostic
    }

    /// Lets `work` report of a file that is being read.
    pub fn reporting<T>(&self, work: impl FnOnce(&mut Report) -> T) -> T {
        let mut report = Report::default();
        let result = work(&mut report);
        report.into_sorted().into_iter().for_each(|diagnostic| self.report(diagnostic));
        result
    }

    /// Takes in a file; the number that its spans shall have.
    pub fn add_file(&self, file: File, import: Import) -> u32 {
        let mut files = self.files.borrow_mut();
        files.push((file, import));
        u32::try_from(files.len()).unwrap_or(u32::MAX)
    }

    pub fn known_orb(&self, resolved: &OrbReference) -> Option<Option<Rc<Library>>> {
        self.orbs.borrow().get(resolved).cloned()
    }

    pub fn keep_orb(&self, resolved: OrbReference, library: Option<Rc<Library>>) {
        self.orbs.borrow_mut().insert(resolved, library);
    }

    pub fn imported(&self, import: ImportedOrb) {
        self.imports.borrow_mut().push(import);
    }

    /// Counts one more orb that the config names by address.
    pub fn count_url_orb(&self) -> usize {
        self.url_orbs.set(self.url_orbs.get() + 1);
        self.url_orbs.get()
    }

    /// Does the regular expression match the whole text? If it does not work, why not.
    pub fn full_match(&self, pattern: &str, text: &str, span: Span) -> Result<bool, String> {
        let mut known = self.matches.borrow_mut();
        if let Some(matches) = known.get(pattern).and_then(|texts| texts.get(text)) {
            return matches.clone();
        }
        let cost = if steps_back(pattern) { SLOW_PATTERN } else { PATTERN };
        let affordable = self.spend(cost + pattern.len() + text.len(), span);
        let matches = if affordable { full_match(pattern, text) } else { Ok(false) };
        if matches.is_err() {
            // What does not work may have taken its time to find out.
            self.spend(SLOW_PATTERN, span);
        }
        known.entry(pattern.to_owned()).or_default().insert(text.to_owned(), matches.clone());
        matches
    }

    pub fn has_errors(&self) -> bool {
        self.report.borrow().errors() > 0
    }

    /// How often something was wrong so far, the same in another use of it included.
    pub fn mistakes(&self) -> usize {
        self.mistakes.get()
    }

    pub fn into_resolved(self) -> Resolved {
        let files = self.files.into_inner().into_iter().map(|(file, _)| file).collect();
        Resolved { report: self.report.into_inner(), files, imports: self.imports.into_inner() }
    }

    /// Pays for looking at a node. `false`: the config is too large, which has been reported, or hopeless.
    pub fn look(&self, span: Span) -> bool {
        !self.is_full() && !self.is_hopeless() && self.spend(NODE, span)
    }

    /// There are more warnings than a person would read.
    pub fn is_weary(&self) -> bool {
        self.report.borrow().is_weary()
    }

    /// There are so many mistakes that more of them would not help.
    pub fn is_hopeless(&self) -> bool {
        self.report.borrow().errors().max(self.reached.lighter()) >= HOPELESS
    }

    /// Pays for looking through a text.
    pub fn scan(&self, text: &str, span: Span) -> bool {
        self.spend(text.len() / SCANNED, span)
    }

    /// The config has been found to be too large: no more of it needs to be compiled.
    pub fn is_full(&self) -> bool {
        self.full.get()
    }

    /// Pays for calling a command.
    pub fn call(&self, span: Span) -> bool {
        self.spend(CALL, span)
    }

    /// Pays for steps that stay.
    pub fn steps(&self, number: usize, span: Span) -> bool {
        self.spend(number.saturating_mul(STEP), span)
    }

    /// Pays for a job of a workflow, and for `named` bytes of its name and its matrix.
    pub fn job(&self, named: usize, span: Span) -> bool {
        self.spend(named.saturating_mul(4).saturating_add(JOB), span)
    }

    /// Pays for requirements, of which a matrix that requires another has many.
    pub fn requirements(&self, number: usize, name: &str, span: Span) -> bool {
        self.spend(number.saturating_mul(REQUIREMENT + name.len()), span)
    }

    pub fn spend(&self, cost: usize, span: Span) -> bool {
        self.pay(&self.spent, cost, BUDGET, span)
    }

    /// Counts a text of the compiled config; `false`: there is no room for it, which has been reported.
    pub fn made(&self, text: &str, span: Span) -> bool {
        self.pay(&self.made, text.len(), LARGEST, span)
    }

    fn pay(&self, account: &Cell<usize>, cost: usize, most: usize, span: Span) -> bool {
        let after = account.get().saturating_add(cost);
        account.set(after);
        if after > most && !self.full.replace(true) {
            let message = "with its commands and parameters written out the config is larger than 8 MB";
            // The rest of the config is not looked at any more.
            self.tell(Diagnostic::error("config-too-large", span, message), Report::push);
        }
        after <= most
    }

    /// Runs `work` one level deeper; `None` if that is too deep, which has been reported.
    pub fn deeper<T>(&self, span: Span, work: impl FnOnce() -> T) -> Option<T> {
        if self.depth.get() >= DEEPEST {
            let message = format!("more than {DEEPEST} commands and conditions inside each other");
            self.report(Diagnostic::error("nested-too-deep", span, message));
            return None;
        }
        self.depth.set(self.depth.get() + 1);
        let result = work();
        self.depth.set(self.depth.get() - 1);
        Some(result)
    }

    /// What to call the file of an orb; the config is the one that needs no name.
    pub fn file_name(&self, file: u32) -> Option<String> {
        self.files.borrow().get(index(file)?).map(|(file, _)| file.name.clone())
    }

    /// The place of `needle` inside of `span`, or `span` when the text does not stand there literally.
    pub fn narrow(&self, span: Span, needle: &str) -> Span {
        let first_line = needle.lines().next().unwrap_or("");
        self.narrow_to(span, first_line, 0..first_line.len())
    }

    /// The place of a part of `needle` inside of `span`, or `span` when the text does not stand there literally.
    pub fn narrow_to(&self, span: Span, needle: &str, part: Range<usize>) -> Span {
        if self.is_hopeless() || span.end - span.start > LONGEST_SEARCH {
            return span;
        }
        let files = self.files.borrow();
        let text = match span.file {
            0 => Some(self.config),
            file => index(file).and_then(|index| files.get(index)).map(|(file, _)| &*file.text),
        };
        let Some(covered) = text.and_then(|text| text.get(span.start..span.end)) else { return span };
        let Some(offset) = offset(covered, needle, &part) else { return span };
        let before = &covered[..offset];
        let start = span.start + offset;
        let end = start + part.len();
        match before.rfind('\n') {
            None => Span { start, end, column: span.column.saturating_add(column(before.chars().count()) - 1), ..span },
            Some(newline) => {
                let line = span.line + before.matches('\n').count();
                Span { start, end, line, column: column(before[newline + 1..].chars().count()), ..span }
            }
        }
    }
}

/// Where a part of `needle` begins in `text`. What was folded together may still hold the part as it was, and once.
fn offset(text: &str, needle: &str, part: &Range<usize>) -> Option<usize> {
    if let Some(offset) = text.find(needle).filter(|_| !needle.is_empty()) {
        return Some(offset + part.start);
    }
    let part = needle.get(part.clone()).filter(|part| !part.is_empty() && *part != needle)?;
    text.find(part).filter(|first| text.rfind(part) == Some(*first))
}

/// Where in the list of orbs' files the one is that spans call `file`.
fn index(file: u32) -> Option<usize> {
    usize::try_from(file.checked_sub(1)?).ok()
}
