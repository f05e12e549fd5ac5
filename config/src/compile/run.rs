//! `run` and `deploy`.

use std::time::Duration;

use navvy_job::compiled::{DEFAULT_NO_OUTPUT_TIMEOUT, Run, Variables};

use super::caps;
use super::duration;
use super::environment;
use super::fields::{At, Fields};
use crate::diagnostic::{Diagnostic, Span};
use crate::keys::Known as _;
use crate::keys::tables::RUN;
use crate::syntax::Node;

const MOST_RERUNS: i64 = 5;
const LONGEST_DELAY: Duration = Duration::from_secs(600);

/// A step by its body, which may be the command alone.
pub(super) fn run(place: At<'_>, body: &Node, span: Span, deploy: bool) -> Option<Run> {
    let owner = if deploy { "a `deploy` step" } else { "a `run` step" };
    let Some(map) = body.as_map() else {
        return short(place, body, span, owner).map(|run| Run { deploy, ..run });
    };
    let fields = Fields { place, map, span, owner };
    warn_of_typos(&fields);
    let command = fields.required_text("command");
    let run = Run {
        command: String::new(),
        shell: fields.text("shell"),
        environment: fields.get("environment").map(|node| environment(place, node)).unwrap_or_default(),
        working_directory: fields.text("working_directory"),
        background: fields.truth("background").unwrap_or(false),
        no_output_timeout: no_output_timeout(&fields),
        max_auto_reruns: max_auto_reruns(&fields),
        auto_rerun_delay: auto_rerun_delay(&fields),
        deploy,
    };
    check_reruns(&fields, run.background);
    Some(Run { command: command?, ..run })
}

fn environment(place: At<'_>, node: &Node) -> Variables {
    let variables = environment::variables(place, node);
    caps::check_environment(place, &variables, node.span);
    variables
}

fn short(place: At<'_>, body: &Node, span: Span, owner: &str) -> Option<Run> {
    if body.is_null() {
        place.error("missing-key", span, format!("{owner} has no `command`"));
        return None;
    }
    place.text(body, "command").map(Run::new)
}

/// Any key may stand in a run step, but one that is nearly a known key was meant to be that.
fn warn_of_typos(fields: &Fields<'_>) {
    for entry in fields.map.entries.iter().filter(|entry| !RUN.knows(&entry.key)) {
        let message = format!("key `{}` means nothing in {}", entry.key, fields.owner);
        let diagnostic = Diagnostic::warning("unknown-key", entry.key_span, message).label("ignored");
        fields.place.report(diagnostic.meant(RUN.neighbour(&entry.key)));
    }
}

fn no_output_timeout(fields: &Fields<'_>) -> Duration {
    let Some(node) = fields.get("no_output_timeout") else { return DEFAULT_NO_OUTPUT_TIMEOUT };
    let Some(text) = fields.place.text(node, "no_output_timeout") else { return DEFAULT_NO_OUTPUT_TIMEOUT };
    let Some(parsed) = duration::parse(&text) else {
        let message = format!("`{text}` is not a duration");
        let help = "a number and a unit: `30s`, `10m`, `1.5h`";
        fields.place.report(Diagnostic::error("invalid-duration", node.span, message).help(help));
        return DEFAULT_NO_OUTPUT_TIMEOUT;
    };
    if parsed.without_unit {
        let message = format!("`{text}` has no unit and counts as seconds");
        let help = format!("write `{text}s`");
        fields.place.report(Diagnostic::warning("duration-without-unit", node.span, message).help(help));
    }
    parsed.duration
}

fn max_auto_reruns(fields: &Fields<'_>) -> u32 {
    let Some(node) = fields.get("max_auto_reruns") else { return 0 };
    reruns(fields.place, node).unwrap_or(0)
}

/// 1 to 5; anything else is an error.
pub(super) fn reruns(place: At<'_>, node: &Node) -> Option<u32> {
    let value = place.integer(node, "max_auto_reruns")?;
    if !(1..=MOST_RERUNS).contains(&value) {
        let message = format!("`max_auto_reruns` must be 1 to {MOST_RERUNS}, not {value}");
        place.error("out-of-range", node.span, message);
    }
    u32::try_from(value).ok()
}

fn auto_rerun_delay(fields: &Fields<'_>) -> Duration {
    let Some(node) = fields.get("auto_rerun_delay") else { return Duration::ZERO };
    let Some(text) = fields.place.text(node, "auto_rerun_delay") else { return Duration::ZERO };
    delay(&text).unwrap_or_else(|| {
        let message = format!("`{text}` is not a delay: whole minutes or seconds up to 10 minutes");
        fields.place.report(Diagnostic::error("out-of-range", node.span, message).help("as in `30s` or `2m`"));
        Duration::ZERO
    })
}

fn delay(text: &str) -> Option<Duration> {
    let (digits, factor) = match text.strip_suffix('m') {
        Some(digits) => (digits, 60),
        None => (text.strip_suffix('s')?, 1),
    };
    let seconds = digits.parse::<u64>().ok()?.checked_mul(factor)?;
    Some(Duration::from_secs(seconds)).filter(|delay| (1..=LONGEST_DELAY.as_secs()).contains(&delay.as_secs()))
}

fn check_reruns(fields: &Fields<'_>, background: bool) {
    let at = |key: &str| fields.map.entry(key).map(|entry| entry.key_span);
    let (reruns, delay) = (at("max_auto_reruns"), at("auto_rerun_delay"));
    if let (Some(span), None) = (delay, reruns) {
        fields.place.error("missing-key", span, "`auto_rerun_delay` needs `max_auto_reruns` beside it");
    }
    if let (Some(span), true) = (reruns.or(delay), background) {
        let diagnostic = Diagnostic::error("exclusive-keys", span, "a step in the background cannot be run again");
        let background = at("background").unwrap_or_default();
        fields.place.report(diagnostic.related(background, "it is put into the background here"));
    }
}
