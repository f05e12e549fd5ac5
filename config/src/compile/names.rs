//! Names of a workflow's jobs: made unique, and found again by `requires`.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::fields::Place;
use crate::diagnostic::Diagnostic;
use crate::neighbour::nearest;
use crate::resolve::{Context, PlainKind, PlainWorkflowJob};

/// The jobs of one workflow by every name that `requires` may use.
pub(crate) struct Names {
    /// Unique, in the order of the jobs.
    pub(super) unique: Vec<String>,
    /// In order, so that advice on a typo is the same in every run.
    jobs: BTreeMap<String, Vec<usize>>,
}

impl Names {
    pub fn new(context: &Context<'_>, jobs: &[PlainWorkflowJob]) -> Self {
        let unique = unique(context, jobs);
        let mut by_name: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, name) in unique.iter().enumerate() {
            by_name.insert(name.clone(), vec![index]);
        }
        let written = group(jobs, |job| Some(&job.name));
        let aliases = group(jobs, |job| job.alias.as_deref());
        // A name of one job wins over one that several jobs share, and that over the name of a matrix.
        for (name, indices) in written.into_iter().chain(aliases) {
            by_name.entry(name.to_owned()).or_insert(indices);
        }
        Self { unique, jobs: by_name }
    }

    /// Unique, in the order of the jobs.
    pub fn unique(&self) -> &[String] {
        &self.unique
    }

    /// All jobs that `name` stands for.
    pub fn find(&self, name: &str) -> Option<&[usize]> {
        self.jobs.get(name).map(Vec::as_slice)
    }

    pub fn neighbour(&self, name: &str) -> Option<&str> {
        nearest(name, self.jobs.keys().map(String::as_str))
    }
}

fn group<'j>(
    jobs: &'j [PlainWorkflowJob],
    name: impl Fn(&'j PlainWorkflowJob) -> Option<&'j str>,
) -> Vec<(&'j str, Vec<usize>)> {
    let mut groups: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, job) in jobs.iter().enumerate() {
        if let Some(name) = name(job) {
            groups.entry(name).or_default().push(index);
        }
    }
    groups.into_iter().collect()
}

/// Of equal names each gets a number, from 1.
fn unique(context: &Context<'_>, jobs: &[PlainWorkflowJob]) -> Vec<String> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for job in jobs {
        *counts.entry(&job.name).or_default() += 1;
    }
    let alone = |name: &str| counts.get(name) == Some(&1);
    let mut taken: HashSet<String> =
        jobs.iter().filter(|job| alone(&job.name)).map(|job| job.name.to_string()).collect();
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    let mut names = Vec::with_capacity(jobs.len());
    for job in jobs {
        if alone(&job.name) {
            names.push(job.name.to_string());
            continue;
        }
        refuse_equal_approvals(context, job);
        names.push(numbered(&job.name, numbers.entry(&job.name).or_default(), &mut taken));
    }
    names
}

/// The next `name-N` that nobody has.
fn numbered(name: &str, last: &mut usize, taken: &mut HashSet<String>) -> String {
    loop {
        *last += 1;
        let name = format!("{name}-{last}");
        if taken.insert(name.clone()) {
            return name;
        }
    }
}

fn refuse_equal_approvals(context: &Context<'_>, job: &PlainWorkflowJob) {
    if matches!(job.kind, PlainKind::Approval) {
        let message = format!("several jobs are named `{}`, but an approval needs a name of its own", job.name);
        let place = Place { context, trail: &job.trail };
        place.report(Diagnostic::error("duplicate-name", job.span, message).help("give it one with `name:`"));
    }
}
