//! Which saved caches come nearest to a key that found none. Pure.

use jiff::Timestamp;
use navvy_storage::template::What;
use navvy_storage::{Entry, Listed};

use super::compare::{Part, Piece, Verdict, compare, cut_like, known_beginning, merged_then};
use crate::step::cached;

/// Index objects that are read for one key: those that begin most alike, and the newest.
const ALIKE: usize = 64;
const NEWEST: usize = 32;
/// Caches that are listed for one key.
const TOLD: usize = 3;

/// A cache, held against a key.
#[derive(Debug, Clone)]
pub struct Near {
    pub entry: Entry,
    /// What its key is made of; without it nothing but the key is known.
    pub pieces: Option<Vec<(What, String)>>,
    pub parts: Vec<Part>,
}

/// The ones that are worth a look, as places in the list, which begins with the newest.
pub fn candidates(listed: &[Listed], wanted: &[Piece]) -> Vec<usize> {
    let beginning = known_beginning(wanted);
    // A key that its path does not say whole is worth one.
    let alike = |at: &usize| listed[*at].key.as_ref().map_or(usize::MAX, |key| common(key, &beginning));
    let mut all: Vec<usize> = (0..listed.len()).collect();
    all.sort_by_key(|at| std::cmp::Reverse(alike(at)));
    let mut chosen: Vec<usize> = all.into_iter().take(ALIKE).chain(0..listed.len().min(NEWEST)).collect();
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

/// The nearest first: those of the same template, those with the most parts the same, the newest.
pub fn nearest(entries: Vec<Entry>, wanted: &[Piece], is_literal: bool) -> Vec<Near> {
    let whole = known_beginning(wanted);
    let mut found: Vec<Near> = entries.into_iter().map(|entry| near(entry, wanted, &whole, is_literal)).collect();
    found.retain(|near| near.is_like(&whole));
    found.sort_by_key(|near| std::cmp::Reverse(near.rank(&whole)));
    found.truncate(TOLD);
    found
}

fn near(entry: Entry, wanted: &[Piece], whole: &str, is_literal: bool) -> Near {
    let pieces = cached::pieces(&entry).map(merged_then);
    let parts = match &pieces {
        Some(then) if is_literal => compare(&cut_like(whole, then), then),
        Some(then) => compare(wanted, then),
        None => Vec::new(),
    };
    Near { entry, pieces, parts }
}

impl Near {
    /// Anything in common beside a letter or two.
    fn is_like(&self, whole: &str) -> bool {
        let key = self.entry.key().unwrap_or_default();
        self.is_of_template() || self.same() > 0 || common(key, whole) >= 3
    }

    fn is_of_template(&self) -> bool {
        let is_same = |part: &Part| match part.verdict {
            Verdict::OtherTemplate => false,
            Verdict::Differs => !matches!(part.what, What::Text(_)),
            Verdict::Same | Verdict::Unknown => true,
        };
        !self.parts.is_empty() && self.parts.iter().all(is_same)
    }

    /// Parts that say something and are the same: a text of one sign between two others says nothing.
    fn same(&self) -> usize {
        let counts = |part: &&Part| match &part.what {
            What::Text(text) => text.len() > 2,
            _ => true,
        };
        self.parts.iter().filter(|part| part.verdict == Verdict::Same).filter(counts).count()
    }

    fn rank(&self, whole: &str) -> (bool, usize, Timestamp, usize) {
        (self.is_of_template(), self.same(), self.entry.created, common(self.entry.key().unwrap_or_default(), whole))
    }
}

/// Bytes that both begin with.
fn common(one: &str, other: &str) -> usize {
    one.bytes().zip(other.bytes()).take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::caches::compare::Value;
    use navvy_storage::template::Template;
    use navvy_storage::{Body, BodyId, Producer, Record, Slot};

    fn entry(template: &str, values: &[&str], second: i64) -> Entry {
        let mut values = values.iter();
        let template_parts = Template::parse(template).unwrap();
        let value = |what: &What| match what {
            What::Text(text) => text.clone(),
            _ => (*values.next().unwrap()).to_owned(),
        };
        let pieces: Vec<String> = template_parts.asked().map(value).collect();
        let lengths: Vec<usize> = pieces.iter().map(String::len).collect();
        let details = [("template", template.to_owned()), ("parts", format!("{lengths:?}"))];
        let record = Record {
            version: 1,
            project: "p".into(),
            scope: "local".into(),
            place: Slot::Cache { key: pieces.concat() },
            body: Body { id: BodyId::random(), size: 1, sha256: String::new() },
            producer: Producer::default(),
            details: BTreeMap::from(details.map(|(name, text)| (name.to_owned(), text))),
        };
        Entry { record, created: Timestamp::from_second(second).unwrap() }
    }

    fn wanted(branch: &str, sum: &str) -> Vec<Piece> {
        let known = |what, value: &str| Piece { what, value: Value::Known(value.to_owned()) };
        vec![
            known(What::Text("v1-".into()), "v1-"),
            known(What::Field("Branch"), branch),
            known(What::Text("-".into()), "-"),
            known(What::Checksum("lock".into()), sum),
        ]
    }

    const TEMPLATE: &str = "v1-{{ .Branch }}-{{ checksum \"lock\" }}";

    fn keys(entries: Vec<Entry>, wanted: &[Piece]) -> Vec<String> {
        nearest(entries, wanted, false).iter().map(|near| near.entry.key().unwrap().to_owned()).collect()
    }

    #[test]
    fn the_same_template_comes_first_then_most_parts_then_the_newest() {
        let entries = vec![
            entry("v1-main-{{ .BuildNum }}", &["AAA"], 9),
            entry(TEMPLATE, &["other", "CCC"], 8),
            entry(TEMPLATE, &["main", "BBB"], 2),
            entry(TEMPLATE, &["main", "DDD"], 3),
            entry("unlike", &[], 7),
        ];
        assert_eq!(keys(entries, &wanted("main", "AAA")), ["v1-main-DDD", "v1-main-BBB", "v1-other-CCC"]);
        assert_eq!(keys(vec![entry("unlike", &[], 7)], &wanted("main", "AAA")), [""; 0]);
    }

    #[test]
    fn of_an_entry_that_says_nothing_of_its_key_the_beginning_counts() {
        let mut old = entry("v1-main-x", &[], 1);
        old.record.details.clear();
        let found = nearest(vec![old.clone()], &wanted("main", "AAA"), false);
        assert!(found[0].pieces.is_none() && found[0].parts.is_empty());
        old.record.details =
            BTreeMap::from([("template".to_owned(), TEMPLATE.to_owned()), ("parts".to_owned(), "[1,2]".to_owned())]);
        assert!(nearest(vec![old], &wanted("main", "AAA"), false)[0].pieces.is_none(), "what cannot be is not used");
    }

    #[test]
    fn a_key_out_of_a_log_is_held_against_the_parts_of_others() {
        let literal = [Piece { what: What::Text("v1-main-AAA".into()), value: Value::Known("v1-main-AAA".into()) }];
        let found = nearest(vec![entry(TEMPLATE, &["main", "BBB"], 1)], &literal, true);
        let verdicts: Vec<Verdict> = found[0].parts.iter().map(|part| part.verdict).collect();
        assert_eq!(verdicts, [Verdict::Same, Verdict::Same, Verdict::Same, Verdict::Differs]);
    }
}
