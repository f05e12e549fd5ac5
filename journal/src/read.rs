//! Bytes to records. Pure; never panics for any bytes.
//!
//! ```text
//! line line line li       Torn: the process or the machine ended while the last line was written
//! line l?ne line line     Damaged: something whole comes behind what is not
//! ```

use navvy_job::state::TaskState;

use crate::owner::Owner;

use super::record::{Entry, HeldStep, Opening, Record, Standing, VerdictKind};

/// Hex digits of a line's checksum.
const DIGITS: usize = 8;

/// How a journal ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It ends with its last record.
    Whole,
    /// It ends with a record that was not written to its end, from this byte on: that record never counted.
    Torn {
        /// Where that record begins, in bytes.
        at: u64,
    },
    /// It is not as it was written: from this byte on, something is changed or missing.
    Damaged {
        /// Where that begins, in bytes.
        at: u64,
    },
    /// A newer version of Navvy wrote it: only that version can read it, and none of its records is believed.
    Newer {
        /// Version in its first record.
        version: u32,
    },
}

/// A journal's good records, and how it ends behind them.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// In the order of the file, without gaps.
    pub records: Vec<Record>,
    /// What comes behind them.
    pub ending: Ending,
}

/// What all records together say.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// The first record.
    pub opening: Opening,
    /// The last process that took over, else the one that opened the journal.
    pub owner: Owner,
    /// Who looks after the task, by the last record that says so.
    pub standing: Standing,
    /// The last state that the task was about to enter.
    pub state: TaskState,
    /// `None` until it is known.
    pub verdict: Option<VerdictKind>,
}

/// Reads a journal.
pub fn read(bytes: &[u8]) -> Reading {
    if let Some(version) = version(bytes).filter(|version| *version > Opening::VERSION) {
        return Reading { records: Vec::new(), ending: Ending::Newer { version } };
    }
    let mut records = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (line, behind) = split(rest);
        match line.and_then(payload).and_then(|text| record(text, records.len())) {
            Some(record) => records.push(record),
            None => {
                let at = (bytes.len() - rest.len()) as u64;
                let ending = if has_whole_line(rest) { Ending::Damaged { at } } else { Ending::Torn { at } };
                return Reading { records, ending };
            }
        }
        rest = behind;
    }
    Reading { records, ending: Ending::Whole }
}

/// The version in the first record. No other field is read: it may mean something else in another version.
fn version(bytes: &[u8]) -> Option<u32> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        version: u32,
    }
    let first = payload(split(bytes).0?)?;
    serde_json::from_slice(first).ok().map(|Versioned { version }| version)
}

/// A record as it stands in the file, line feed included.
pub(super) fn line(record: &Record) -> serde_json::Result<Vec<u8>> {
    let text = serde_json::to_vec(record)?;
    let mut line = format!("{:08x} ", crc32fast::hash(&text)).into_bytes();
    line.extend(text);
    line.push(b'\n');
    Ok(line)
}

/// The first line without its line feed, if it has one, and what comes behind it.
fn split(bytes: &[u8]) -> (Option<&[u8]>, &[u8]) {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(at) => (Some(&bytes[..at]), &bytes[at + 1..]),
        None => (None, &[]),
    }
}

/// The JSON of a line whose checksum is right.
fn payload(line: &[u8]) -> Option<&[u8]> {
    let (digits, rest) = line.split_at_checked(DIGITS)?;
    let text = rest.strip_prefix(b" ")?;
    // `from_str_radix` would take a sign.
    let all_hex = digits.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let sum = u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    (all_hex && sum == crc32fast::hash(text)).then_some(text)
}

fn record(text: &[u8], seq: usize) -> Option<Record> {
    let record: Record = serde_json::from_slice(text).ok()?;
    let is_first = matches!(record.entry, Entry::Opened(_));
    (record.seq == seq as u64 && is_first == (seq == 0)).then_some(record)
}

fn has_whole_line(mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let (line, behind) = split(bytes);
        if line.and_then(payload).is_some() {
            return true;
        }
        bytes = behind;
    }
    false
}

impl Reading {
    /// `None` when not even the first record is there.
    pub fn known(&self) -> Option<Known> {
        let Entry::Opened(opening) = &self.records.first()?.entry else { return None };
        let mut known = Known {
            opening: (**opening).clone(),
            owner: opening.owner.clone(),
            standing: Standing::Running,
            state: TaskState::Claimed,
            verdict: None,
        };
        for record in &self.records {
            match &record.entry {
                Entry::State { state, verdict } => (known.state, known.verdict) = (*state, verdict.or(known.verdict)),
                Entry::Owner { owner } => known.owner = owner.clone(),
                Entry::Standing(standing) => known.standing = standing.clone(),
                Entry::Opened(_) | Entry::Unknown => {}
            }
        }
        Some(known)
    }
}

impl Known {
    /// The step at which the task is held.
    pub fn held_step(&self) -> Option<&HeldStep> {
        match &self.standing {
            Standing::Kept { step, .. } => step.as_ref(),
            Standing::Running | Standing::Adoptable { .. } => None,
        }
    }
}
