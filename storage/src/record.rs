//! What makes a body visible: one small index object, written once.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use navvy_job::claim::TrustScope;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The version this code writes. A reader skips a higher one.
pub const VERSION: u32 = 1;

/// Names one upload for ever. Made by this code alone: 32 small hexadecimal characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BodyId(Uuid);

impl BodyId {
    /// A new id, which no other body has.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// `None` for anything that [`fmt::Display`] does not write.
    pub fn read(text: &str) -> Option<Self> {
        let id = Self(Uuid::try_parse(text).ok()?);
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for BodyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.0.as_simple(), f)
    }
}

impl Serialize for BodyId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BodyId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::read(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not the id of a body")))
    }
}

/// What was uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// Its name in the store.
    pub id: BodyId,
    /// Length in bytes.
    pub size: u64,
    /// Digest of the whole body, in hexadecimal.
    pub sha256: String,
}

/// Where an entry is found again. No two entries have one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Slot {
    /// Found by any prefix of `key`.
    Cache {
        /// The whole key, as the step computed it.
        key: String,
    },
    /// Found by group and producer.
    Piece(Piece),
}

/// One of many things that tasks leave for others: found by its group and its producers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// What it is.
    pub of: PieceKind,
    /// The workspace's id, or the run's.
    pub group: String,
    /// The job that made it, by an id that is its own in the group.
    pub producer: String,
    /// Parallel index, from 0.
    pub node: u32,
    /// The step's number in its task.
    pub step: u32,
}

/// What kinds of pieces there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PieceKind {
    /// A layer of a workspace.
    Layer,
    /// Files that a step kept for people.
    Artifacts,
    /// Reports that a step kept of its tests.
    TestResults,
}

/// Who made an entry, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Producer {
    /// Id of the pipeline or run; `None` where it is not known.
    pub pipeline: Option<String>,
    /// Name of the job in its workflow.
    pub job: String,
    /// Id of the task.
    pub task: String,
    /// `CIRCLE_BUILD_NUM`; `None` where it is not known.
    pub build_num: Option<u64>,
}

/// The index object. Times are the store's: [`Entry::created`] is when the store took this object, not part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Form of the record.
    pub version: u32,
    /// Id of the project that it belongs to.
    pub project: String,
    /// The scope as text: `trusted`, `fork:alice`, `local:DIRECTORY`.
    pub scope: String,
    /// Where the entry is found again.
    pub place: Slot,
    /// The body that it points to.
    pub body: Body,
    /// Who made it.
    pub producer: Producer,
    /// What the writing step wants back: paths that were cached, offset of a manifest.
    #[serde(default)]
    pub details: BTreeMap<String, String>,
}

impl Record {
    /// The scope as people write it.
    pub fn scope_word(&self) -> String {
        self.scope.parse().map_or_else(|_| self.scope.clone(), |scope: TrustScope| scope.word())
    }
}

/// A record, as the store has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The index object's content.
    pub record: Record,
    /// By the store's clock.
    #[serde(with = "stamp")]
    pub created: Timestamp,
}

impl Entry {
    /// The body that it points to.
    pub fn body(&self) -> &Body {
        &self.record.body
    }

    /// A cache's key.
    pub fn key(&self) -> Option<&str> {
        match &self.record.place {
            Slot::Cache { key } => Some(key),
            Slot::Piece(_) => None,
        }
    }
}

/// What is known of a cache before its index object is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// `None`: longer than its path; the index object has it.
    pub key: Option<String>,
    /// By the store's clock.
    #[serde(with = "stamp")]
    pub created: Timestamp,
    /// Path from the store's root.
    pub(super) path: String,
}

/// What stands in `v1/quarantine/ID`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Quarantined {
    pub why: String,
    /// `None`: the index object could not be read. Then it lies in `v1/body/ID`, as it was.
    pub record: Option<Record>,
    /// Where an index object that could not be read was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<String>,
}

/// A time as text, for those who are told of an entry and do not read the store.
mod stamp {
    use jiff::Timestamp;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(time)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What we write ourselves always has a spelling.
pub(super) fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        let id = BodyId::random();
        assert_eq!(BodyId::read(&id.to_string()), Some(id));
        for text in ["", "..", &id.to_string().to_uppercase(), &id.0.to_string(), &format!("{id}#1")] {
            assert_eq!(BodyId::read(text), None, "{text}");
        }
    }
}
