//! Keys of closed maps: an unknown one is a warning with its neighbour.

use crate::diagnostic::Diagnostic;
use crate::neighbour::nearest;
use crate::resolve::Context;
use crate::syntax::Map;

/// A map with more unknown keys is something else altogether.
const MOST: usize = 100;

/// Warns of every key of `map` that `known` does not hold. `place` tells which map it is: "a job".
pub(crate) fn check(context: &Context<'_>, map: &Map, known: &[&str], place: &str) {
    if context.is_weary() {
        return;
    }
    for entry in map.entries.iter().filter(|entry| !known.contains(&&*entry.key)).take(MOST) {
        let message = format!("key `{}` means nothing in {place}", entry.key);
        let neighbour = nearest(&entry.key, known.iter().copied());
        context.report(Diagnostic::warning("unknown-key", entry.key_span, message).label("ignored").meant(neighbour));
    }
}

/// Refuses the keys of `new` in a version 2 config. `place` tells where they stand: "in a job".
pub(crate) fn check_version(context: &Context<'_>, map: &Map, new: &[&str], place: &str) {
    if context.templates {
        return;
    }
    for entry in map.entries.iter().filter(|entry| new.contains(&&*entry.key)) {
        let message = format!("`{}` {place} needs `version: 2.1`", entry.key);
        context.report(Diagnostic::error("needs-2.1", entry.key_span, message));
    }
}
