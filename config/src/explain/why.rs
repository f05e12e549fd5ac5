//! Why a job runs or does not: its workflow, its filters, what it requires.

use std::collections::BTreeSet;

use navvy_job::outcome::JobStatus;
use navvy_job::pipeline::{Selection, Workflow};

use crate::compile::{Pushed, Verdict, names, requires, verdict};
use crate::process::Comments;
use crate::resolve::{Condition, PlainFilters, PlainWorkflow};
use crate::syntax::Node;

/// Far more than anyone follows.
const DEEPEST: usize = 8;

pub(super) struct Why<'w> {
    pub comments: &'w Comments<'w>,
    pub compiled: &'w Workflow,
    pub plain: &'w PlainWorkflow,
}

impl Why<'_> {
    /// In the order in which they decide.
    pub fn reasons(&self, index: usize) -> Vec<String> {
        let mut reasons = vec![self.workflow()];
        reasons.push(self.filters(index));
        reasons.extend(self.required(index));
        reasons
    }

    fn workflow(&self) -> String {
        let name = &self.compiled.name;
        let place = self.comments.place(self.plain.span);
        if let Some(triggers) = &self.plain.triggers {
            let cron = crons(triggers);
            let place = self.comments.place(triggers.span);
            return format!("workflow `{name}` has triggers, so no push starts it, only its schedule{cron} ({place})");
        }
        if self.plain.jobs.first().is_some_and(|job| job.span == self.plain.span) {
            return format!("the config has no workflows: its job `build` runs on every push ({place})");
        }
        match &self.plain.condition {
            Some(condition) => format!("workflow `{name}` {}", self.condition(condition)),
            None => format!("workflow `{name}` has no condition: every push starts it ({place})"),
        }
    }

    fn condition(&self, condition: &Condition) -> String {
        let Condition { key, span, holds, values } = condition;
        let runs = (*key == "when") == *holds;
        let (does, so) = (if *holds { "holds" } else { "does not hold" }, if runs { "runs" } else { "does not run" });
        format!("{so}: its `{key}` condition {does} ({}){}", self.comments.place(*span), shown(values))
    }

    fn filters(&self, index: usize) -> String {
        let pushed = Pushed::of(self.comments.context.inputs);
        match &self.plain.jobs[index].filters {
            PlainFilters::Decided { text, holds, values } => {
                let does = if *holds { "holds" } else { "does not hold" };
                format!("its filter `{}` {does}{}", text.trim(), shown(values))
            }
            PlainFilters::Map(node) => match verdict(self.comments.context, node, pushed) {
                Some(verdict) => self.verdict(&verdict, pushed),
                None => unfiltered(pushed),
            },
            PlainFilters::Wrong => "its filters are wrong".to_owned(),
            PlainFilters::None => unfiltered(pushed),
        }
    }

    fn verdict(&self, verdict: &Verdict<'_>, pushed: Pushed<'_>) -> String {
        let noun = if pushed.is_tag() { "tag" } else { "branch" };
        let Some((list, node)) = verdict.list else {
            let all = if pushed.is_tag() { "no tags" } else { "every branch" };
            return format!("its {noun} filter names neither `only` nor `ignore`: {all}");
        };
        let place = self.comments.place(node.span);
        let passes = (list == "only") == verdict.matching.is_some();
        let verb = if passes { "lets through" } else { "keeps out" };
        match &verdict.matching {
            Some(pattern) => format!("its {noun} filter {verb} {pushed}: `{list}` names `{pattern}` ({place})"),
            None => format!("its {noun} filter {verb} {pushed}: nothing in `{list}` matches it ({place})"),
        }
    }

    /// What it waits for, and what of that is left out.
    fn required(&self, index: usize) -> Vec<String> {
        let required = self.edges(index);
        if required.is_empty() {
            return vec!["it requires no other job".to_owned()];
        }
        let all_left = required.iter().all(|(to, _)| !self.compiled.jobs[*to].selected.is_selected());
        let mut told = BTreeSet::new();
        let mut lines: Vec<String> =
            required.iter().map(|(to, ends)| self.one_required(*to, ends, 0, &mut told)).collect();
        if all_left {
            lines.push("everything that it requires is left out, and so is it".to_owned());
        }
        lines
    }

    fn one_required(&self, to: usize, ends: &str, depth: usize, told: &mut BTreeSet<usize>) -> String {
        let job = &self.compiled.jobs[to];
        match &job.selected {
            Selection::Selected => format!("it waits for `{}`{ends}", job.name),
            Selection::Left { reason } => {
                format!("it requires `{}`, which is left out: {}", job.name, self.left(to, reason, depth, told))
            }
        }
    }

    /// The reason, and the reasons for the reason; those of each job once.
    fn left(&self, index: usize, reason: &str, depth: usize, told: &mut BTreeSet<usize>) -> String {
        let chain = reason.starts_with("every job that it requires");
        if !chain || depth >= DEEPEST || !told.insert(index) {
            return reason.to_owned();
        }
        let inner: Vec<String> =
            self.edges(index).iter().map(|(to, ends)| self.one_required(*to, ends, depth + 1, told)).collect();
        format!("{reason} ({})", inner.join("; "))
    }

    /// Indices of required jobs, with how they must end if not with success.
    fn edges(&self, index: usize) -> Vec<(usize, String)> {
        let context = self.comments.context;
        let names = names(context, &self.plain.jobs);
        let required = requires(context, &self.plain.jobs, index, &names);
        let found = required.into_iter().map(|(to, statuses)| {
            let words: Vec<&str> = statuses.iter().map(|status| status.as_str()).collect();
            let plain = statuses.len() == 1 && statuses.contains(&JobStatus::Success);
            let all = statuses.len() == JobStatus::TERMINAL.len();
            let ends = if all { "any end".to_owned() } else { words.join(" or ") };
            (to, if plain { " to succeed".to_owned() } else { format!(" ({ends})") })
        });
        found.collect()
    }
}

fn unfiltered(pushed: Pushed<'_>) -> String {
    match pushed {
        Pushed::Tag(name) => {
            format!("it has no tag filter, and without one a job does not run on tags, as `{name}` is")
        }
        Pushed::Branch(name) => format!("it has no branch filter: every branch, so also `{name}`"),
        Pushed::Nothing => "it has no branch filter: it needs no branch".to_owned(),
    }
}

fn shown(values: &[(String, String)]) -> String {
    let values: Vec<String> = values.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    if values.is_empty() { String::new() } else { format!(", with {}", values.join(", ")) }
}

fn crons(triggers: &Node) -> String {
    let items = triggers.as_list().unwrap_or_default();
    let cron = |item: &Node| item.as_map()?.get("schedule")?.as_map()?.get("cron")?.as_text().cloned();
    let crons: Vec<String> = items.iter().filter_map(cron).map(|cron| format!("`{cron}`")).collect();
    if crons.is_empty() { String::new() } else { format!(" {}", crons.join(", ")) }
}
