//! Keys of closed maps: an unknown one is a warning with its neighbour.

use crate::diagnostic::Diagnostic;
use crate::neighbour::nearest;
use crate::resolve::Context;
use crate::syntax::Map;

/// A map with more unknown keys is something else altogether.
const MOST: usize = 100;

/// Warns of every key of `map` that `known` does not hold. `place` tells which map it is: "a job".
pub(crate) fn check(context: &Context<'_>, map: &Map, known: &[&str], place: &str) {
    for entry in map.entries.iter().filter(|entry| !known.contains(&&*entry.key)).take(MOST) {
        let message = format!("key `{}` means nothing in {place}", entry.key);
        let neighbour = nearest(&entry.key, known.iter().copied());
        context.report(Diagnostic::warning("unknown-key", entry.key_span, message).label("ignored").meant(neighbour));
    }
}
