//! Secrets out of everything that leaves the agent (pure: no file, no terminal, no socket).
//!
//! ```text
//! (name, value) ─▶ forms ─▶ index ─▶ Masks ──▶ MaskStream   what comes in pieces: output
//!                                      ├─────▶ text         what is here as a whole: names, errors, events
//!                                      └─────▶ report       what was masked where, how often; never a value
//! ```
//!
//! Every occurrence of every form becomes `****`. Occurrences that overlap become one, so that no tail of any is left;
//! those that only touch stay two. `docs/secrets.md` has the rules for users.

mod forms;
mod index;
#[doc(hidden)]
pub mod oracle;
pub mod public;
mod stream;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use navvy_job::event::{Form, Masked};

pub use forms::{SHORTEST, SHORTEST_ENCODED};
use index::{Index, Number, Pattern};
pub use stream::MaskStream;

/// What stands in place of a secret.
pub const STARS: &[u8] = b"****";

/// Where something was masked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MaskedIn {
    /// The job it belongs to.
    pub job: Option<Arc<str>>,
    /// In words: `output of step 2`, `service db`, `step name`, `warning`.
    pub what: Cow<'static, str>,
}

impl MaskedIn {
    /// Masked in something of this job, which `what` names.
    pub fn of_job(job: &str, what: impl Into<Cow<'static, str>>) -> Self {
        Self { job: Some(job.into()), what: what.into() }
    }

    /// Masked in something of the run as a whole, which `what` names.
    pub fn of_run(what: impl Into<Cow<'static, str>>) -> Self {
        Self { job: None, what: what.into() }
    }
}

/// A compiled set of secrets. Cheap to clone; clones count together.
#[derive(Clone)]
pub struct Masks(Arc<Set>);

/// A secret's number, and how it is written.
type Owner = (u32, Form);

struct Set {
    index: Index,
    /// The secret and form of each pattern.
    owners: Vec<Owner>,
    names: Vec<String>,
    unmasked: Vec<String>,
    counts: Mutex<BTreeMap<(u32, Form, MaskedIn), u64>>,
}

impl Default for Masks {
    fn default() -> Self {
        Self::new(&[])
    }
}

impl std::fmt::Debug for Masks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.0.names).finish()
    }
}

impl Masks {
    /// Compiles pairs of name and value; a name may have several values.
    pub fn new(secrets: &[(String, String)]) -> Self {
        let mut unmasked: Vec<String> = Vec::new();
        let mut by_value: HashMap<&str, u32> = HashMap::new();
        let mut names: Vec<String> = Vec::new();
        let mut values = Vec::new();
        for (name, value) in secrets {
            if !forms::is_maskable(value) {
                if !value.is_empty() && !unmasked.contains(name) {
                    unmasked.push(name.clone());
                }
            } else if let Some(number) = by_value.get(value.as_str()) {
                add_name(&mut names[*number as usize], name);
            } else if let Ok(number) = u32::try_from(names.len()) {
                by_value.insert(value, number);
                names.push(name.clone());
                values.push((number, value.as_str()));
            }
        }
        let (patterns, owners) = patterns(&values);
        Self(Arc::new(Set { index: Index::new(patterns), owners, names, unmasked, counts: Mutex::default() }))
    }

    /// Are there no secrets to look for?
    pub fn is_empty(&self) -> bool {
        self.0.index.is_empty()
    }

    /// Names of secrets that are too short or too common to be masked.
    pub fn unmasked(&self) -> &[String] {
        &self.0.unmasked
    }

    /// Masks a whole text. The place is asked for only where something is found.
    pub fn text<'a>(&self, place: impl FnOnce() -> MaskedIn, text: &'a str) -> Cow<'a, str> {
        match self.whole(place, text.as_bytes()) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            // A pattern is whole characters, and so is what is left of the text.
            Cow::Owned(masked) => Cow::Owned(String::from_utf8_lossy(&masked).into_owned()),
        }
    }

    /// Masks whole bytes. The place is asked for only where something is found.
    pub fn whole<'a>(&self, place: impl FnOnce() -> MaskedIn, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        if self.is_empty() || !self.may_hold(bytes) {
            return Cow::Borrowed(bytes);
        }
        let mut masked = Vec::with_capacity(bytes.len());
        let mut stream = self.stream(place());
        stream.push(bytes, &mut |piece| masked.extend_from_slice(piece));
        stream.finish(&mut |piece| masked.extend_from_slice(piece));
        Cow::Owned(masked)
    }

    /// Masks what comes in pieces.
    pub fn stream(&self, place: MaskedIn) -> MaskStream {
        MaskStream::new(self.clone(), place)
    }

    /// What was masked so far, by name.
    pub fn report(&self) -> Vec<Masked> {
        let counts = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let line = |((secret, form, place), count): (&(u32, Form, MaskedIn), &u64)| Masked {
            secret: self.0.names[*secret as usize].clone(),
            form: *form,
            job: place.job.as_deref().map(str::to_owned),
            place: place.what.clone().into_owned(),
            count: *count,
        };
        counts.iter().map(line).collect()
    }

    /// The bytes that are looked for: for tests and fuzzing.
    #[doc(hidden)]
    pub fn patterns(&self) -> Vec<Vec<u8>> {
        (0..self.0.owners.len()).map(|number| self.0.index.pattern(number as Number).to_vec()).collect()
    }

    fn may_hold(&self, bytes: &[u8]) -> bool {
        let mut found = false;
        self.0.index.look(bytes, 0, |pattern, start| {
            found |= bytes[start..].starts_with(self.0.index.pattern(pattern));
        });
        found
    }

    fn index(&self) -> &Index {
        &self.0.index
    }

    fn count(&self, place: &MaskedIn, hits: &[Number]) {
        let mut counts = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for pattern in hits {
            let (secret, form) = self.0.owners[*pattern as usize];
            *counts.entry((secret, form, place.clone())).or_default() += 1;
        }
    }
}

fn add_name(names: &mut String, name: &str) {
    if !names.split(", ").any(|known| known == name) {
        names.push_str(", ");
        names.push_str(name);
    }
}

/// Distinct patterns and whose they are: plain forms first, so that they are what a report names.
fn patterns(values: &[(u32, &str)]) -> (Vec<Pattern>, Vec<Owner>) {
    let mut known: BTreeMap<Vec<u8>, (Form, u32)> = BTreeMap::new();
    for (number, value) in values {
        for (form, bytes) in forms::forms(value) {
            let owner = known.entry(bytes).or_insert((form, *number));
            *owner = (*owner).min((form, *number));
        }
    }
    known.into_iter().map(|(bytes, (form, number))| (bytes, (number, form))).unzip()
}

/// One round of fuzzing: makes secrets, a text and its pieces of `data`, and holds the masker against [`oracle`].
///
/// # Panics
/// Where they differ.
#[doc(hidden)]
pub fn fuzz_mask(data: &[u8]) {
    let (head, text) = data.split_at(data.len().min(64).min(data.len() / 2));
    let secrets: Vec<(String, String)> = head
        .split(|byte| *byte == 0)
        .enumerate()
        .map(|(number, value)| (format!("S{number}"), String::from_utf8_lossy(value).into_owned()))
        .collect();
    let masks = Masks::new(&secrets);
    let expected = oracle::replace(text, &masks.patterns());
    let mut stream = masks.stream(MaskedIn::of_run("fuzz"));
    let mut masked = Vec::new();
    let mut rest = text;
    for size in head.iter().cycle().map(|byte| usize::from(*byte % 17) + 1).take(text.len() + 1) {
        let (piece, after) = rest.split_at(size.min(rest.len()));
        stream.push(piece, &mut |bytes| masked.extend_from_slice(bytes));
        rest = after;
    }
    stream.finish(&mut |bytes| masked.extend_from_slice(bytes));
    assert_eq!(masked, expected, "masks differ from the oracle");
}
