//! Executor stanzas, and what a job's own keys put over those of its executor.

use navvy_job::compiled::Executor;

use super::docker;
use super::fields::{At, Fields};
use crate::diagnostic::Diagnostic;
use crate::keys::tables;
use crate::resolve::{PlainExecutor, PlainJob};
use crate::syntax::{Entry, Map, Node};

const STANZAS: [&str; 3] = ["docker", "machine", "macos"];

/// A job's keys over those of its executor.
pub(super) struct Merged {
    pub map: Map,
    /// `environment` of the executor first, then of the job: the union counts.
    pub environments: Vec<Node>,
}

/// What a job runs in is not here, or it is wrong.
pub(super) enum NoExecutor {
    Missing(String),
    Broken,
}

pub(super) fn merge(place: At<'_>, job: &PlainJob) -> Result<Merged, NoExecutor> {
    let base = match &job.executor {
        PlainExecutor::None => &[][..],
        PlainExecutor::Entries { entries, .. } => entries,
        PlainExecutor::Broken => return Err(NoExecutor::Broken),
        PlainExecutor::Missing { .. } if has_stanza(&job.entries) => &[],
        PlainExecutor::Missing { name } => return Err(NoExecutor::Missing(format!("executor `{name}`"))),
    };
    check_single(place, &job.entries);
    check_single(place, base);
    let own_stanza = has_stanza(&job.entries);
    let replaced = |entry: &Entry| {
        (own_stanza && is_stanza(entry)) || job.entries.iter().any(|own| own.key == entry.key && !own.value.is_null())
    };
    // A key without a value does not count; an empty stanza is reported where it is read.
    let says_nothing = |entry: &Entry| entry.value.is_null() && !is_stanza(entry);
    let kept = base.iter().filter(|entry| !replaced(entry) && !says_nothing(entry)).cloned();
    let own = job.entries.iter().filter(|entry| !entry.value.is_null()).cloned();
    let environments = [base, &job.entries].iter().filter_map(|entries| environment(entries)).collect();
    Ok(Merged { map: Map { entries: kept.chain(own).collect() }, environments })
}

/// A job's keys alone.
pub(super) fn own(job: &PlainJob) -> Merged {
    let entries = job.entries.iter().filter(|entry| !entry.value.is_null()).cloned().collect();
    Merged { map: Map { entries }, environments: environment(&job.entries).into_iter().collect() }
}

fn is_stanza(entry: &Entry) -> bool {
    STANZAS.contains(&&*entry.key)
}

pub(super) fn has_stanza(entries: &[Entry]) -> bool {
    entries.iter().any(is_stanza)
}

fn environment(entries: &[Entry]) -> Option<Node> {
    entries.iter().find(|entry| &*entry.key == "environment").map(|entry| entry.value.clone())
}

fn check_single(place: At<'_>, entries: &[Entry]) {
    let mut stanzas = entries.iter().filter(|entry| is_stanza(entry));
    if let (Some(first), Some(second)) = (stanzas.next(), stanzas.next()) {
        let message = format!("`{}` and `{}` exclude each other: a job runs in one executor", first.key, second.key);
        let diagnostic = Diagnostic::error("several-executors", second.key_span, message);
        place.report(diagnostic.related(first.key_span, "the other one stands here"));
    }
}

/// The executor that the merged keys ask for.
pub(super) fn executor(place: At<'_>, job: &PlainJob, merged: &Map) -> Option<Executor> {
    let Some(entry) = merged.entries.iter().find(|entry| is_stanza(entry)) else {
        let message = "this job says nothing of where it runs";
        let help = "add `docker`, `machine`, `macos` or `executor`";
        place.report(Diagnostic::error("missing-executor", job.span, message).help(help));
        return None;
    };
    match &*entry.key {
        "docker" => docker::containers(place, &entry.value).map(|containers| Executor::Docker { containers }),
        "machine" => machine(place, &entry.value),
        _ => macos(place, entry),
    }
}

/// A key that may stand in the stanza as well as beside it; beside it wins.
pub(super) fn either<'m>(merged: &'m Map, key: &str) -> Option<&'m Node> {
    let inside = || {
        let stanzas = merged.entries.iter().filter(|entry| is_stanza(entry));
        stanzas.filter_map(|entry| entry.value.as_map()).find_map(|map| map.get(key))
    };
    merged.get(key).or_else(inside).filter(|node| !node.is_null())
}

fn machine(place: At<'_>, node: &Node) -> Option<Executor> {
    let Some(map) = node.as_map() else {
        return bare_machine(place, node);
    };
    let fields = Fields { place, map, span: node.span, owner: "machine" };
    fields.only(&tables::MACHINE);
    let docker_layer_caching = fields.truth("docker_layer_caching").or_else(|| fields.truth("reusable"));
    Some(Executor::Machine { image: fields.text("image"), docker_layer_caching: docker_layer_caching.unwrap_or(false) })
}

/// `machine: true`, or the image alone.
fn bare_machine(place: At<'_>, node: &Node) -> Option<Executor> {
    let Some(text) = node.as_text() else {
        place.wrong_shape(node, "machine", "`true` or a map");
        return None;
    };
    let image = (crate::syntax::boolean(text).is_none()).then(|| text.to_string());
    Some(Executor::Machine { image, docker_layer_caching: false })
}

fn macos(place: At<'_>, entry: &Entry) -> Option<Executor> {
    let Some(map) = entry.value.as_map() else {
        place.wrong_shape(&entry.value, "macos", "a map with `xcode`");
        return None;
    };
    let fields = Fields { place, map, span: entry.key_span, owner: "macos" };
    fields.only(&tables::MACOS);
    Some(Executor::Macos { xcode: fields.required_text("xcode") })
}
