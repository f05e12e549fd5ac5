//! A settings file's table `[env]`.

use std::fmt;

use navvy_job::compiled::Variables;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// `[env]`: plain variables.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EnvTable(pub Variables);

/// A proxy's address among them may hold a password: they are shown by name alone.
impl fmt::Debug for EnvTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl<'de> Deserialize<'de> for EnvTable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = toml::Table::deserialize(deserializer)?;
        table.into_iter().map(variable).collect::<Result<_, _>>().map(Self).map_err(D::Error::custom)
    }
}

fn variable((name, value): (String, toml::Value)) -> Result<(String, String), String> {
    if !is_name(&name) {
        return Err(format!("env: {name:?} is not a variable name; use letters, digits and _"));
    }
    let text = match value {
        toml::Value::String(text) if text.contains('\0') => return Err(format!("env.{name} holds a NUL")),
        toml::Value::String(text) => text,
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Boolean(boolean) => boolean.to_string(),
        // 1.10 would become 1.1.
        _ => return Err(format!("env.{name} is not text; write its value in quotes")),
    };
    Ok((name, text))
}

/// Is it a variable's name: `[A-Za-z_][A-Za-z0-9_]*`?
pub fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
