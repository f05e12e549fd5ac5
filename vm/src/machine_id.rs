//! Ids of machines: every name that a machine has, on this host or in a cloud, derives from one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Identifies one machine, once: 32 hexadecimal digits, which are a random UUID. A cloud is asked for a machine with it, so that
/// asking twice gives one machine.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MachineId(String);

/// Why a text is not the id of a machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("machine id {text:?} is not 32 hexadecimal digits in lower case")]
pub struct InvalidMachineId {
    text: String,
}

impl MachineId {
    /// A new one.
    pub fn random() -> Self {
        Self(Uuid::new_v4().simple().to_string())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as a UUID with dashes, for who wants one.
    pub fn to_uuid(&self) -> String {
        Uuid::try_parse(&self.0).unwrap_or_default().hyphenated().to_string()
    }

    /// A name of the machine for hosts and clouds: short, and still its own.
    pub fn host_name(&self) -> String {
        format!("navvy-{}", &self.0[..16])
    }
}

impl FromStr for MachineId {
    type Err = InvalidMachineId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == 32 && text.bytes().all(is_digit) {
            return Ok(Self(text.to_owned()));
        }
        Err(InvalidMachineId { text: text.chars().take(40).collect() })
    }
}

impl TryFrom<String> for MachineId {
    type Error = InvalidMachineId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<MachineId> for String {
    fn from(id: MachineId) -> Self {
        id.0
    }
}

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_uuid_and_nothing_that_leads_elsewhere() {
        let id = MachineId::random();
        assert_eq!(id.as_str().parse::<MachineId>().unwrap(), id);
        assert_eq!(id.to_uuid().replace('-', ""), id.as_str());
        assert_eq!(id.host_name().len(), 22);
        for text in ["", "..", "../0123456789abcdef0123456789abcd", &id.as_str().to_uppercase().replace('0', "A")] {
            assert!(text.parse::<MachineId>().is_err(), "{text}");
        }
    }
}
