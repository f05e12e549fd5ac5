//! Triggers of a workflow: when it runs by the clock.
//!
//! ```text
//! triggers:
//!   - schedule:
//!       cron: "0 4 * * 1,4"         minute hour day month weekday, UTC
//!       filters: {branches: {only: main}}
//! ```

use navvy_job::pipeline::Schedule;

use super::rules;
use super::scope::Scope;
use crate::diagnostic::{Diagnostic, Span};
use crate::keys;
use crate::syntax::{Map, Node};

/// Fields of a cron expression with their numbers.
const FIELDS: [(&str, u32, u32); 5] =
    [("minute", 0, 59), ("hour", 0, 23), ("day of the month", 1, 31), ("month", 1, 12), ("day of the week", 0, 7)];
const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// The schedules of a workflow; what is wrong is reported.
pub(super) fn schedules(scope: &Scope<'_>, workflow: &Map) -> Vec<Schedule> {
    let Some(node) = workflow.get("triggers").filter(|node| !node.is_null()) else { return Vec::new() };
    let Some(items) = node.as_list() else {
        return wrong(scope, node.span, "`triggers` must be a list of maps with `schedule`").unwrap_or_default();
    };
    items.iter().filter_map(|item| trigger(scope, item)).collect()
}

fn trigger(scope: &Scope<'_>, item: &Node) -> Option<Schedule> {
    let schedule = item.as_map().and_then(|map| map.get("schedule")).map(|node| scope.substitute(node));
    let Some(schedule) = schedule else { return wrong(scope, item.span, "a trigger is a map with `schedule`") };
    let Some(map) = schedule.as_map() else {
        return wrong(scope, schedule.span, "`schedule` is a map with `cron` and `filters`");
    };
    keys::check(scope.context, map, &["cron", "filters"], "a schedule");
    let cron = cron(scope, map, schedule.span);
    let (only, ignore) = branches(scope, map, schedule.span)?;
    Some(Schedule { cron: cron?, only, ignore })
}

fn cron(scope: &Scope<'_>, map: &Map, span: Span) -> Option<String> {
    let Some(node) = map.get("cron").filter(|node| !node.is_null()) else {
        return missing(scope, span, "a schedule has no `cron`");
    };
    let Some(text) = node.as_text() else { return wrong(scope, node.span, "`cron` must be a text") };
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        let message = format!("`{text}` is not a time: it has {} fields, not 5", fields.len());
        let help = "minute, hour, day of the month, month, day of the week, as in `0 4 * * 1`";
        scope.report(Diagnostic::error("invalid-cron", node.span, message).help(help));
        return None;
    }
    for (field, (name, least, most)) in fields.iter().zip(FIELDS) {
        if let Err(message) = check_field(field, name, least, most) {
            scope.report(Diagnostic::error("invalid-cron", node.span, message));
            return None;
        }
        if let Some(what) = unsupported(field) {
            let message = format!("`{field}` is {what}, which CircleCI's schedules do not support");
            let help = "write the values out, as in `0,15,30,45`";
            scope.report(Diagnostic::warning("unsupported-cron", node.span, message).help(help));
        }
    }
    Some(String::from(&**text))
}

/// `*`, a number, a name, a range, a list of them; each may have a step.
fn check_field(field: &str, name: &str, least: u32, most: u32) -> Result<(), String> {
    for part in field.split(',') {
        let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
        if step.is_some_and(|step| !step.parse::<u32>().is_ok_and(|step| step > 0)) {
            return Err(format!("`{part}` is not a valid {name}: what follows `/` must be a number from 1"));
        }
        if range == "*" {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let bounds = (number(from, name), number(to, name));
        let fits = matches!(bounds, (Some(from), Some(to)) if least <= from && from <= to && to <= most);
        if !fits {
            return Err(format!("`{part}` is not a valid {name}: use {least} to {most}"));
        }
    }
    Ok(())
}

fn number(text: &str, field: &str) -> Option<u32> {
    let named = |names: &[&str], first: u32| {
        let index = names.iter().position(|name| name.eq_ignore_ascii_case(text))?;
        Some(u32::try_from(index).ok()? + first)
    };
    match field {
        "month" => named(&MONTHS, 1),
        "day of the week" => named(&DAYS, 0),
        _ => None,
    }
    .or_else(|| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?)
}

/// What the original does not know, in words.
fn unsupported(field: &str) -> Option<&'static str> {
    let is_range = |part: &str| part.contains('-');
    if field.contains('/') {
        Some("a step")
    } else if field.contains(',') && field.split(',').any(is_range) {
        Some("a range in a list")
    } else if is_range(field) && field.contains(|c: char| c.is_ascii_alphabetic()) {
        Some("a range of names")
    } else {
        None
    }
}

/// `only` and `ignore` of the branches, which must be there. The next stage checks their shape.
fn branches(scope: &Scope<'_>, map: &Map, span: Span) -> Option<(Vec<String>, Vec<String>)> {
    let filters = map.get("filters").and_then(Node::as_map);
    let Some(branches) = filters.and_then(|filters| filters.get("branches")).filter(|node| !node.is_null()) else {
        return missing(scope, span, "a schedule has no `filters` with `branches`");
    };
    filters.into_iter().for_each(|filters| rules::refuse_empty(scope, filters));
    let names = |key| branches.as_map().and_then(|block| block.get(key)).map(names).unwrap_or_default();
    Some((names("only"), names("ignore")))
}

fn names(node: &Node) -> Vec<String> {
    match node.as_list() {
        Some(items) => items.iter().flat_map(names).collect(),
        None => node.as_text().map(|text| String::from(&**text)).into_iter().collect(),
    }
}

fn wrong<T>(scope: &Scope<'_>, span: Span, message: &str) -> Option<T> {
    scope.report(Diagnostic::error("wrong-shape", span, message));
    None
}

fn missing<T>(scope: &Scope<'_>, span: Span, message: &str) -> Option<T> {
    let help = "it needs `cron`, and `filters: {branches: {only: …}}`";
    scope.report(Diagnostic::error("missing-key", span, message).help(help));
    None
}
