//! Names of a workflow's jobs: made unique, and found again by `requires`.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::fields::At;
use crate::diagnostic::{Diagnostic, Span};
use crate::neighbour::nearest;
use crate::resolve::{Context, GroupRole, InGroup, PlainKind, PlainWorkflowJob};

/// The jobs of one workflow by every name that `requires` may use.
pub(crate) struct Names {
    /// Unique, in the order of the jobs.
    pub(super) unique: Vec<String>,
    /// Without what is inside of job groups.
    outer: Table,
    /// The members of each use of a job group, which see each other alone.
    inner: BTreeMap<usize, Table>,
    /// Where every job comes from.
    uses: Vec<Use>,
    /// Members by the name that they were written with, and the group that they are in.
    members: BTreeMap<String, String>,
}

/// One use of a job in a workflow.
struct Use {
    definition: Arc<str>,
    /// All that one matrix became is one use.
    matrix: Option<Span>,
}

/// In order, so that advice on a typo is the same in every run.
type Table = BTreeMap<String, Vec<usize>>;

/// The names that one job sees.
#[derive(Clone, Copy)]
pub(super) struct View<'n> {
    names: &'n Names,
    table: Option<&'n Table>,
    /// The job itself.
    own: usize,
}

impl Names {
    pub fn new(context: &Context<'_>, jobs: &[PlainWorkflowJob]) -> Self {
        let unique = unique(context, jobs);
        let of = |wanted: &dyn Fn(&PlainWorkflowJob) -> bool| {
            table(jobs, &unique, (0..jobs.len()).filter(|&index| wanted(&jobs[index])))
        };
        let outer = of(&|job| job.group.as_ref().is_none_or(|group| group.role == GroupRole::Exit));
        let groups: Vec<(&PlainWorkflowJob, &InGroup)> =
            jobs.iter().filter_map(|job| member(job).map(|group| (job, group))).collect();
        let ids: HashSet<usize> = groups.iter().map(|(_, group)| group.id).collect();
        let inner =
            ids.into_iter().map(|id| (id, of(&|job| member(job).is_some_and(|group| group.id == id)))).collect();
        let members = groups.iter().map(|(job, group)| (job.name.to_string(), group.name.to_string())).collect();
        let matrix = |job: &PlainWorkflowJob| (!job.matrix.is_empty()).then_some(job.span);
        let uses = jobs.iter().map(|job| Use { definition: job.definition.clone(), matrix: matrix(job) }).collect();
        Self { unique, outer, inner, uses, members }
    }

    /// Unique, in the order of the jobs.
    pub fn unique(&self) -> &[String] {
        &self.unique
    }

    /// The names as `job`, which is the one at `own`, may use them.
    pub(super) fn seen_by(&self, own: usize, job: &PlainWorkflowJob) -> View<'_> {
        let table = match member(job) {
            Some(group) => self.inner.get(&group.id),
            None => Some(&self.outer),
        };
        View { names: self, table, own }
    }
}

impl<'n> View<'n> {
    /// All jobs that `name` stands for. Under a name of its own a job means the other uses of it, if there are any.
    pub fn find(&self, name: &str) -> Option<Cow<'n, [usize]>> {
        let found = self.table?.get(name);
        let is_own = match found {
            Some(found) => found.contains(&self.own),
            None => *self.names.uses[self.own].definition == *name,
        };
        if !is_own {
            return found.map(|found| Cow::Borrowed(&**found));
        }
        let others = |found: &[usize]| found.iter().copied().filter(|&job| !self.is_same_use(job)).collect::<Vec<_>>();
        let named = found.map(|found| others(found)).unwrap_or_default();
        match if named.is_empty() { others(&self.of_definition(name)) } else { named } {
            none if none.is_empty() => found.map(|found| Cow::Borrowed(&**found)),
            others => Some(Cow::Owned(others)),
        }
    }

    fn is_same_use(&self, job: usize) -> bool {
        let uses = &self.names.uses;
        job == self.own || (uses[job].matrix.is_some() && uses[job].matrix == uses[self.own].matrix)
    }

    /// What the job sees of the jobs that were made from the one of this name.
    fn of_definition(&self, name: &str) -> Vec<usize> {
        let sees = |job: usize| {
            let known = self.table.and_then(|table| table.get(&self.names.unique[job]));
            known.is_some_and(|known| known.contains(&job))
        };
        let uses = self.names.uses.iter().enumerate().filter(|(_, used)| *used.definition == *name);
        uses.map(|(job, _)| job).filter(|&job| sees(job)).collect()
    }

    pub fn neighbour(&self, name: &str) -> Option<&'n str> {
        nearest(name, self.table?.keys().map(String::as_str))
    }

    /// Where else there is a job of this name: what to call the group that it is in.
    pub fn group_of(&self, name: &str) -> Option<&'n str> {
        self.names.members.get(name).map(String::as_str)
    }

    /// Does the job lie in a group, and see nothing else?
    pub fn is_inside(&self) -> bool {
        !self.table.is_some_and(|table| std::ptr::eq(table, &self.names.outer))
    }
}

fn member(job: &PlainWorkflowJob) -> Option<&InGroup> {
    job.group.as_ref().filter(|group| group.role == GroupRole::Member)
}

/// These jobs by all their names.
fn table(jobs: &[PlainWorkflowJob], unique: &[String], indices: impl Iterator<Item = usize>) -> Table {
    let indices: Vec<usize> = indices.collect();
    let mut by_name: Table = indices.iter().map(|&index| (unique[index].clone(), vec![index])).collect();
    let written = group(jobs, &indices, |job| Some(&job.name));
    let aliases = group(jobs, &indices, alias);
    // A name of one job wins over one that several jobs share, and that over the name of a matrix.
    for (name, indices) in written.into_iter().chain(aliases) {
        by_name.entry(name.to_owned()).or_insert(indices);
    }
    by_name
}

/// The name of all that the job's matrix became.
fn alias(job: &PlainWorkflowJob) -> Option<&str> {
    let definition = || (!job.matrix.is_empty()).then_some(&*job.definition);
    job.alias.as_deref().or_else(definition)
}

fn group<'j>(
    jobs: &'j [PlainWorkflowJob],
    indices: &[usize],
    name: impl Fn(&'j PlainWorkflowJob) -> Option<&'j str>,
) -> Vec<(&'j str, Vec<usize>)> {
    let mut groups: HashMap<&str, Vec<usize>> = HashMap::new();
    for &index in indices {
        if let Some(name) = name(&jobs[index]) {
            groups.entry(name).or_default().push(index);
        }
    }
    groups.into_iter().collect()
}

/// Makes names unique: each of several equal names gets a number, from 1. A job of a job group is called after its group
/// first.
fn unique(context: &Context<'_>, jobs: &[PlainWorkflowJob]) -> Vec<String> {
    let counts = counted(jobs.iter().map(|job| &*job.name));
    let qualified = |job: &PlainWorkflowJob| match member(job) {
        Some(group) if counts.get(&*job.name) != Some(&1) => format!("{}/{}", group.name, job.name),
        _ => job.name.to_string(),
    };
    let wanted: Vec<String> = jobs.iter().map(qualified).collect();
    let counts = counted(wanted.iter().map(String::as_str));
    let alone = |name: &str| counts.get(name) == Some(&1);
    let mut taken: HashSet<String> = wanted.iter().filter(|name| alone(name)).cloned().collect();
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    let mut names = Vec::with_capacity(jobs.len());
    for (job, name) in jobs.iter().zip(&wanted) {
        if alone(name) {
            names.push(name.clone());
            continue;
        }
        refuse_equal(context, job);
        names.push(numbered(name, numbers.entry(name).or_default(), &mut taken));
    }
    names
}

fn counted<'n>(names: impl Iterator<Item = &'n str>) -> HashMap<&'n str, usize> {
    let mut counts = HashMap::new();
    names.for_each(|name| *counts.entry(name).or_default() += 1);
    counts
}

/// The next `name-N` that is free.
fn numbered(name: &str, last: &mut usize, taken: &mut HashSet<String>) -> String {
    loop {
        *last += 1;
        let name = format!("{name}-{last}");
        if taken.insert(name.clone()) {
            return name;
        }
    }
}

/// Numbers would not tell which is which.
fn refuse_equal(context: &Context<'_>, job: &PlainWorkflowJob) {
    let what = match (&job.kind, &job.group) {
        (_, Some(group)) if group.role == GroupRole::Exit => "every use of a job group",
        (PlainKind::Approval, _) => "an approval",
        _ => return,
    };
    let message = format!("several jobs are named `{}`, but {what} needs a name of its own", job.name);
    let place = At { context, trail: &job.trail };
    place.report(Diagnostic::error("duplicate-name", job.span, message).help("give it one with `name:`"));
}
