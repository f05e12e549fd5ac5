//! Keys of the language's maps: which there are, the shape of their values, what they mean.
//!
//! They stand once, in [`tables`]. The compiler warns of a key that its map does not have, with its neighbour; the JSON
//! Schema for editors derives from the same tables, so that both always describe the same language.

mod rules;
mod table;
pub(crate) mod tables;

pub(crate) use rules::Rules;
pub(crate) use table::{Further, Key, Keys, Shape};

use crate::diagnostic::Diagnostic;
use crate::neighbour::nearest;
use crate::resolve::Context;
use crate::syntax::{Entry, Map, Node};

/// A map with more unknown keys is something else altogether.
const MOST: usize = 100;

/// The keys that a map may have.
pub(crate) trait Known {
    fn knows(&self, key: &str) -> bool;
    fn neighbour(&self, key: &str) -> Option<&str>;
}

impl Known for Keys {
    fn knows(&self, key: &str) -> bool {
        self.names().any(|name| name == key)
    }

    fn neighbour(&self, key: &str) -> Option<&str> {
        nearest(key, self.names())
    }
}

impl Known for [&str] {
    fn knows(&self, key: &str) -> bool {
        self.contains(&key)
    }

    fn neighbour(&self, key: &str) -> Option<&str> {
        nearest(key, self.iter().copied())
    }
}

impl<const N: usize> Known for [&str; N] {
    fn knows(&self, key: &str) -> bool {
        self.as_slice().knows(key)
    }

    fn neighbour(&self, key: &str) -> Option<&str> {
        self.as_slice().neighbour(key)
    }
}

/// Warns of every key of `map` that `known` does not hold. `place` tells which map it is: "a job".
pub(crate) fn check(context: &Context<'_>, map: &Map, known: &(impl Known + ?Sized), place: &str) {
    check_rules(context, map, known, &Rules::NONE, place);
}

/// The same; a key that was meant to be one of `rules` is an error.
pub(crate) fn check_rules(context: &Context<'_>, map: &Map, known: &(impl Known + ?Sized), rules: &Rules, place: &str) {
    for entry in unknown(map, known) {
        let told = match rules.meant(&entry.key) {
            Some((code, advice)) => Diagnostic::error(code, entry.key_span, nothing(entry, place)).help(advice),
            None if context.is_weary() => continue,
            None => Diagnostic::warning("unknown-key", entry.key_span, nothing(entry, place))
                .label("ignored")
                .meant(known.neighbour(&entry.key)),
        };
        context.report(told);
    }
}

/// Every key of `map` that `known` does not hold, with an error: of a map all of whose keys decide what runs.
pub(crate) fn refused<'m>(map: &'m Map, known: &'static Keys, place: &str) -> Vec<(&'m Entry, Diagnostic)> {
    let refused = |entry: &'m Entry| {
        let told = Diagnostic::error("unknown-key", entry.key_span, nothing(entry, place));
        let told = match known.neighbour(&entry.key) {
            None => told.help(format!("it takes {}", known.listed())),
            neighbour => told.meant(neighbour),
        };
        (entry, told)
    };
    unknown(map, known).map(refused).collect()
}

fn unknown<'m>(map: &'m Map, known: &(impl Known + ?Sized)) -> impl Iterator<Item = &'m Entry> {
    map.entries.iter().filter(|entry| !known.knows(&entry.key)).take(MOST)
}

fn nothing(entry: &Entry, place: &str) -> String {
    format!("key `{}` means nothing in {place}", entry.key)
}

/// The value of a key that version 2 does not know: with nothing in it, it is not there in a version 2 config.
pub(crate) fn given<'m>(context: &Context<'_>, map: &'m Map, key: &str) -> Option<&'m Node> {
    map.get(key).filter(|node| context.templates || !node.is_null())
}

/// Refuses the keys of `new` in a version 2 config. `place` tells where they stand: "in a job".
pub(crate) fn check_version(context: &Context<'_>, map: &Map, new: &[&str], place: &str) {
    if context.templates {
        return;
    }
    for entry in map.entries.iter().filter(|entry| new.contains(&&*entry.key) && !entry.value.is_null()) {
        let message = format!("`{}` {place} needs `version: 2.1`", entry.key);
        context.report(Diagnostic::error("needs-2.1", entry.key_span, message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::BUILT_INS;

    #[test]
    fn every_built_in_step_has_its_keys() {
        let table = |name: &str| tables::STEP.keys.iter().find(|key| key.name == name).map(|key| &key.shape);
        for (name, _) in BUILT_INS {
            assert!(matches!(table(name), Some(Shape::Map(_) | Shape::Either(_))), "{name}");
        }
    }
}
