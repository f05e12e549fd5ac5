//! A plain job to a compiled one.

use navvy_job::compiled::{DEFAULT_WORKING_DIRECTORY, Executor, Job, Variables};
use navvy_job::resource::is_self_hosted;

use super::executor::{self, Merged, NoExecutor};
use super::fields::{At, Fields};
use super::{caps, environment, resource, step};
use crate::diagnostic::Diagnostic;
use crate::resolve::{Context, PlainJob};
use crate::syntax::{Entry, Map};

/// A job's keys over those of its executor.
pub(crate) struct Parts {
    pub map: Map,
    pub environment: navvy_job::compiled::Variables,
    pub has_stanza: bool,
}

/// Days.
const LONGEST_RETENTION: u32 = 15;

/// What became of a job.
pub(super) enum Compiled {
    Job(Box<Job>),
    /// It cannot run without something that is not here.
    Unavailable(String),
    /// Wrong, and reported as such.
    Broken,
}

pub(super) fn job(context: &Context<'_>, plain: &PlainJob) -> Compiled {
    if context.is_full() {
        return Compiled::Broken;
    }
    let place = At { context, trail: &plain.trail };
    check(place, plain);
    caps::check_steps(place, plain);
    let steps: Vec<_> = plain.steps.iter().filter_map(|plain| step::step(context, plain)).collect();
    let merged = match executor::merge(place, plain) {
        Ok(merged) => merged,
        Err(NoExecutor::Missing(what)) => return Compiled::Unavailable(what),
        Err(NoExecutor::Broken) => return Compiled::Broken,
    };
    let parallelism = parallelism(place, &merged.map);
    let environment = environment(place, &merged);
    let environment_span = merged.environments.last().map_or(plain.span, |node| node.span);
    caps::check_environment(place, &environment, environment_span);
    let text = |key| executor::either(&merged.map, key).and_then(|node| place.text(node, key));
    let (shell, working_directory) = (text("shell"), text("working_directory"));
    let Some(executor) = executor::executor(place, plain, &merged.map) else { return Compiled::Broken };
    let resource_class =
        executor::either(&merged.map, "resource_class").and_then(|node| resource::class(place, node, &executor));
    warn_of_machine(place, plain, &executor, resource_class.as_deref());
    Compiled::Job(Box::new(Job {
        executor,
        environment,
        shell,
        working_directory: working_directory.unwrap_or_else(|| DEFAULT_WORKING_DIRECTORY.to_owned()),
        parallelism,
        resource_class,
        steps,
    }))
}

/// Who has machines of their own decides there what they boot.
fn warn_of_machine(place: At<'_>, plain: &PlainJob, executor: &Executor, class: Option<&str>) {
    if let (Executor::Machine { image: Some(image), .. }, Some(class)) = (executor, class)
        && is_self_hosted(class)
    {
        let message = format!("`{class}` is a class of your own machines, which do not boot image `{image}`");
        place.report(Diagnostic::warning("unused-image", plain.span, message).help("write `machine: true`"));
    }
}

/// The same, before it is compiled. An executor that is not here gives nothing.
pub(super) fn parts(context: &Context<'_>, plain: &PlainJob) -> Parts {
    let place = At { context, trail: &plain.trail };
    let merged = executor::merge(place, plain).unwrap_or_else(|_| executor::own(plain));
    let has_stanza = executor::has_stanza(&merged.map.entries);
    Parts { environment: environment(place, &merged), map: merged.map, has_stanza }
}

fn environment(place: At<'_>, merged: &Merged) -> Variables {
    let mut variables = Variables::new();
    for node in &merged.environments {
        environment::extend(&mut variables, environment::variables(place, node));
    }
    variables
}

fn parallelism(place: At<'_>, map: &Map) -> u32 {
    let Some(node) = map.get("parallelism") else { return 1 };
    let Some(value) = place.integer(node, "parallelism") else { return 1 };
    caps::nodes(place, value, node.span)
}

/// What must fail although nothing below reads it.
fn check(place: At<'_>, plain: &PlainJob) {
    let entry = |key: &str| plain.entries.iter().find(|entry| &*entry.key == key);
    if let Some(entry) = entry("max_auto_reruns") {
        place.error("misplaced-key", entry.key_span, "`max_auto_reruns` belongs to a step or a workflow, not to a job");
    }
    if let Some(entry) = entry("retention") {
        retention(place, entry);
    }
    if let Some(entry) = entry("circleci_ip_ranges").filter(|entry| !entry.value.is_null()) {
        let _ = place.truth(&entry.value, "circleci_ip_ranges");
    }
}

/// `caches: 15d`: how long caches are kept.
fn retention(place: At<'_>, entry: &Entry) {
    let Some(map) = entry.value.as_map() else {
        return place.wrong_shape(&entry.value, "retention", "a map with `caches`");
    };
    let fields = Fields { place, map, span: entry.key_span, owner: "`retention`" };
    fields.only(&["caches"]);
    let Some(text) = fields.required_text("caches") else { return };
    let span = map.get("caches").map_or(entry.key_span, |node| node.span);
    let days = text.strip_suffix('d').filter(|days| !days.starts_with('0')).and_then(|days| days.parse::<u32>().ok());
    match days {
        Some(1..=LONGEST_RETENTION) => {}
        Some(16..=30) => {
            let message = format!("`{text}` is longer than caches are kept: {LONGEST_RETENTION} days");
            place.report(Diagnostic::warning("long-retention", span, message));
        }
        _ => {
            let message = format!("`{text}` is not a time that caches can be kept");
            let diagnostic = Diagnostic::error("out-of-range", span, message);
            place.report(diagnostic.help("whole days, from `1d` to `15d`"));
        }
    }
}
