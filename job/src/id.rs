//! Task ids. Every name that Navvy makes on a host derives from one, never from text of a config.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Identifies one run of a compiled job: job × parallel index × attempt.
///
/// Between 8 and 40 characters of `[a-z0-9]` and inner dashes, so it is safe in a container name, a host name,
/// a cgroup and a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TaskId(String);

/// Why a text is not a task id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("task id {text:?} is not 8 to 40 characters of a-z, 0-9 and inner dashes")]
pub struct InvalidTaskId {
    text: String,
}

impl TaskId {
    /// Makes an id of random bytes that the caller brings (this crate has no source of randomness).
    pub fn from_random(bytes: [u8; 8]) -> Self {
        Self(format!("{:016x}", u64::from_be_bytes(bytes)))
    }

    /// Makes an id of a random UUID's bytes that the caller brings: of its second half, where only two bits are fixed.
    pub fn from_uuid(bytes: [u8; 16]) -> Self {
        let [_, _, _, _, _, _, _, _, half @ ..] = bytes;
        Self::from_random(half)
    }

    /// The id as text: 16 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Name of the primary container.
    pub fn primary_name(&self) -> String {
        format!("navvy-{}-primary", self.0)
    }

    /// Name of service container `index` (0 is the first after the primary).
    pub fn service_name(&self, index: usize) -> String {
        format!("navvy-{}-service-{index}", self.0)
    }

    /// Name of the task's parent cgroup, below Navvy's own.
    pub fn cgroup_name(&self) -> String {
        format!("task-{}", self.0)
    }
}

impl FromStr for TaskId {
    type Err = InvalidTaskId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let right_size = (8..=40).contains(&text.len());
        let right_characters = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if right_size && right_characters && !text.starts_with('-') && !text.ends_with('-') {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidTaskId { text: text.chars().take(60).collect() })
        }
    }
}

impl TryFrom<String> for TaskId {
    type Error = InvalidTaskId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<TaskId> for String {
    fn from(id: TaskId) -> Self {
        id.0
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_are_valid() {
        for bytes in [[0; 8], [255; 8], [1, 2, 3, 4, 5, 6, 7, 8]] {
            let id = TaskId::from_random(bytes);
            assert_eq!(id.as_str().parse::<TaskId>().unwrap(), id);
        }
    }

    #[test]
    fn path_like_ids_are_refused() {
        for text in ["", "short", "../../etc", "UPPERCASE1", "-leading1", "trailing1-", "with space1", &"x".repeat(41)]
        {
            assert!(text.parse::<TaskId>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_hostile_claim_cannot_bring_a_bad_id() {
        assert!(serde_json::from_str::<TaskId>("\"../../etc/x\"").is_err());
    }
}
