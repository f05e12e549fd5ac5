//! What every part of the stage shares: the report, the budget, the pipeline's own values.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::expression::full_match;
use super::record::Record;
use crate::diagnostic::{Diagnostic, Report, Span};
use crate::input::Inputs;
use crate::syntax::Node;

/// Steps of work that a config may cost: a node looked at costs `NODE`, a byte of text made costs one.
/// Twice what the language's limit of 8 MB for a compiled config could need.
const BUDGET: usize = 16 << 20;
const NODE: usize = 8;
/// Calling a command costs far more than looking at a node.
const CALL: usize = 128;
/// Nobody reads further, and finding neighbours for more would take its time.
const HOPELESS: usize = 1_000;
/// Steps inside `when` inside commands inside ...: far beyond any config, far from the end of the stack.
const DEEPEST: usize = 128;

pub(crate) struct Context<'a> {
    pub inputs: &'a Inputs,
    /// Version 2 has no templates, commands, executors.
    pub templates: bool,
    /// Set once they are known: their own defaults cannot refer to them.
    pub parameters: OnceCell<BTreeMap<Arc<str>, Node>>,
    source: &'a str,
    report: RefCell<Report>,
    spent: Cell<usize>,
    depth: Cell<usize>,
    /// Definitions by where they start.
    used: RefCell<HashSet<usize>>,
    /// What explanations are made of; kept only when one is asked for.
    record: Option<RefCell<Record>>,
    /// The same few patterns stand in every job of a workflow, and building one costs more than all else of a job.
    matches: RefCell<HashMap<(String, String), Result<bool, String>>>,
}

impl<'a> Context<'a> {
    pub fn new(source: &'a str, inputs: &'a Inputs, report: Report, templates: bool) -> Self {
        Self {
            inputs,
            templates,
            parameters: OnceCell::new(),
            source,
            report: RefCell::new(report),
            spent: Cell::new(0),
            depth: Cell::new(0),
            used: RefCell::default(),
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
    pub fn written(&self, span: Span) -> &'a str {
        self.source.get(span.start..span.end).unwrap_or("")
    }

    pub fn report(&self, diagnostic: Diagnostic) {
        self.report.borrow_mut().push(diagnostic);
    }

    /// Does the regular expression match the whole text? If it does not work, why not.
    pub fn full_match(&self, pattern: &str, text: &str) -> Result<bool, String> {
        let mut known = self.matches.borrow_mut();
        known.entry((pattern.to_owned(), text.to_owned())).or_insert_with(|| full_match(pattern, text)).clone()
    }

    pub fn mark_used(&self, definition: Span) {
        self.used.borrow_mut().insert(definition.start);
    }

    pub fn is_used(&self, definition: Span) -> bool {
        self.used.borrow().contains(&definition.start)
    }

    pub fn has_errors(&self) -> bool {
        self.report.borrow().errors() > 0
    }

    pub fn into_report(self) -> Report {
        self.report.into_inner()
    }

    /// Pays for looking at a node. `false`: the config is too large, which has been reported, or hopeless.
    pub fn look(&self, span: Span) -> bool {
        !self.is_hopeless() && self.spend(NODE, span)
    }

    /// So much is wrong that more would help nobody.
    pub fn is_hopeless(&self) -> bool {
        self.report.borrow().errors() >= HOPELESS
    }

    /// Pays for calling a command.
    pub fn call(&self, span: Span) -> bool {
        self.spend(CALL, span)
    }

    pub fn spend(&self, cost: usize, span: Span) -> bool {
        let before = self.spent.get();
        self.spent.set(before.saturating_add(cost));
        if before <= BUDGET && self.spent.get() > BUDGET {
            let message = "with its commands and parameters written out the config is larger than 8 MB";
            self.report(Diagnostic::error("config-too-large", span, message));
        }
        self.spent.get() <= BUDGET
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

    /// The place of `needle` inside of `span`, or `span` when the text does not stand there literally.
    pub fn narrow(&self, span: Span, needle: &str) -> Span {
        if self.is_hopeless() {
            return span;
        }
        let first_line = needle.lines().next().unwrap_or("");
        let Some(covered) = self.source.get(span.start..span.end) else { return span };
        let Some(offset) = covered.find(first_line).filter(|_| !first_line.is_empty()) else { return span };
        let before = &covered[..offset];
        let start = span.start + offset;
        let end = start + first_line.len();
        match before.rfind('\n') {
            None => Span { start, end, line: span.line, column: span.column + before.chars().count() },
            Some(newline) => {
                let line = span.line + before.matches('\n').count();
                Span { start, end, line, column: before[newline + 1..].chars().count() + 1 }
            }
        }
    }
}
