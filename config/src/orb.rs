//! Orbs that a config names and does not hold: how they are referred to, and who answers.
//!
//! ```text
//! orbs: {node: circleci/node@5}  ──OrbReference──▶  Inputs::orbs  ──▶  OrbText  ──syntax, resolve──▶ its elements
//!                                                        └──▶ NoOrb ──▶ a diagnostic, or stubs
//! ```
//!
//! The crate reads no file: a caller's [`OrbSource`] does. It is asked once for every reference.

use std::fmt;
use std::str::FromStr;

use crate::input::File;

/// What stands after an orb's name in `orbs:`, unless the orb is written out there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OrbReference {
    /// `namespace/name@version`.
    Registry {
        /// Who publishes it.
        namespace: String,
        /// Its name in the namespace.
        name: String,
        /// Which version.
        version: OrbVersion,
    },
    /// `https://…`, as written.
    Url(String),
}

/// A version, or a rule that picks one. The greater of two is the newer; a version with fewer numbers comes before one with
/// more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OrbVersion {
    /// The newest of all.
    Volatile,
    /// `1.2.3`; without the last, or the last two, the newest that begins so.
    Numbers(u32, Option<u32>, Option<u32>),
    /// `dev:LABEL`, by its label.
    Dev(String),
}

/// Answers for the orbs that a config names.
pub trait OrbSource: fmt::Debug + Send + Sync {
    /// The orb that `reference` stands for here.
    ///
    /// # Errors
    /// It is not here, or what is here must not be used.
    fn find(&self, reference: &OrbReference) -> Result<OrbText, NoOrb>;
}

/// An orb's source.
#[derive(Debug, Clone)]
pub struct OrbText {
    /// The reference with the version that it was resolved to.
    pub resolved: OrbReference,
    /// The source itself, with a name for diagnostics.
    pub file: File,
}

/// Why an orb cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoOrb {
    /// It is not here. With `Inputs::allow_missing_orbs` the config compiles without it.
    Missing {
        /// What to do about it, in lines for a person.
        help: String,
    },
    /// There is something, but it cannot be read or is not what was expected.
    Refused {
        /// What is wrong, for a person.
        message: String,
        /// What to do about it, in lines for a person.
        help: String,
    },
}

/// One use of an orb that a config, or one of its orbs, names by reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedOrb {
    /// The name that it goes by where it is imported.
    pub alias: String,
    /// As the config or orb writes it.
    pub reference: OrbReference,
    /// The reference with the version that it was resolved to; `None` if the orb is not here or not fit for use.
    pub resolved: Option<OrbReference>,
    /// Number of the file that imports it, as in a [`Span`](crate::Span): 0 is the config.
    pub importer: u32,
}

/// Why a text is not a reference: the rest of a sentence that begins with "it".
pub type ReferenceError = &'static str;

impl OrbReference {
    /// `namespace/name`, or the address.
    pub fn title(&self) -> String {
        match self {
            Self::Registry { namespace, name, .. } => format!("{namespace}/{name}"),
            Self::Url(url) => url.clone(),
        }
    }

    /// The same orb in another version.
    #[must_use]
    pub fn at(&self, version: OrbVersion) -> Self {
        match self {
            Self::Registry { namespace, name, .. } => {
                Self::Registry { namespace: namespace.clone(), name: name.clone(), version }
            }
            Self::Url(url) => Self::Url(url.clone()),
        }
    }

    /// The version that is asked for; `None` for a URL.
    pub fn version(&self) -> Option<&OrbVersion> {
        match self {
            Self::Registry { version, .. } => Some(version),
            Self::Url(_) => None,
        }
    }
}

impl fmt::Display for OrbReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry { namespace, name, version } => write!(f, "{namespace}/{name}@{version}"),
            Self::Url(url) => f.write_str(url),
        }
    }
}

impl FromStr for OrbReference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if let Some((scheme, rest)) = text.split_once("://") {
            return url(scheme, rest).map(|()| Self::Url(text.to_owned()));
        }
        let (path, version) = text.split_once('@').ok_or("has no version")?;
        let (namespace, name) = path.split_once('/').ok_or("has no namespace")?;
        if !is_name(namespace) || !is_name(name) {
            return Err("has a namespace or a name that no orb can have");
        }
        Ok(Self::Registry { namespace: namespace.to_owned(), name: name.to_owned(), version: version.parse()? })
    }
}

fn url(scheme: &str, rest: &str) -> Result<(), ReferenceError> {
    let plain = !rest.is_empty() && !rest.contains(|c: char| c.is_whitespace() || c.is_control());
    match scheme {
        "https" if plain => Ok(()),
        "https" => Err("is not an address"),
        _ => Err("is an address that does not begin with https://"),
    }
}

/// Letters, digits, `-` and `_`.
fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

impl OrbVersion {
    /// May `other` stand where this is asked for? `1` covers `1.2`, `1.2.3` and itself.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Volatile, Self::Volatile | Self::Numbers(..)) => true,
            (Self::Numbers(major, minor, patch), Self::Numbers(other_major, other_minor, other_patch)) => {
                major == other_major && part_covers(*minor, *other_minor) && part_covers(*patch, *other_patch)
            }
            (Self::Dev(label), Self::Dev(other)) => label == other,
            _ => false,
        }
    }
}

fn part_covers(part: Option<u32>, other: Option<u32>) -> bool {
    part.is_none() || part == other
}

impl fmt::Display for OrbVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Volatile => f.write_str("volatile"),
            Self::Dev(label) => write!(f, "dev:{label}"),
            Self::Numbers(major, minor, patch) => {
                write!(f, "{major}")?;
                [minor, patch].into_iter().flatten().try_for_each(|part| write!(f, ".{part}"))
            }
        }
    }
}

impl FromStr for OrbVersion {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text == "volatile" {
            return Ok(Self::Volatile);
        }
        if let Some(label) = text.strip_prefix("dev:") {
            return if is_label(label) { Ok(Self::Dev(label.to_owned())) } else { Err(UNKNOWN_VERSION) };
        }
        let parts: Vec<u32> = text.split('.').map(number).collect::<Option<_>>().ok_or(UNKNOWN_VERSION)?;
        match parts[..] {
            [major] => Ok(Self::Numbers(major, None, None)),
            [major, minor] => Ok(Self::Numbers(major, Some(minor), None)),
            [major, minor, patch] => Ok(Self::Numbers(major, Some(minor), Some(patch))),
            _ => Err(UNKNOWN_VERSION),
        }
    }
}

const UNKNOWN_VERSION: ReferenceError = "has no version that an orb can have";

/// No sign, and no zeros in front: a version is written in one way only.
fn number(text: &str) -> Option<u32> {
    let canonical = text == "0" || !text.starts_with('0');
    (canonical && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

fn is_label(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> OrbVersion {
        text.parse().unwrap()
    }

    #[test]
    fn references_are_read_and_written_alike() {
        for text in ["a/b@1", "a/b@1.2", "a-1/b_2@1.20.3", "a/b@volatile", "a/b@dev:first/x", "https://h/x.yml"] {
            let reference: OrbReference = text.parse().unwrap();
            assert_eq!(reference.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_reference_says_why() {
        let why = |text: &str| text.parse::<OrbReference>().unwrap_err();
        assert_eq!(why("a/b"), "has no version");
        assert_eq!(why("b@1"), "has no namespace");
        assert_eq!(why("a/b/c@1"), "has a namespace or a name that no orb can have");
        assert_eq!(why("../b@1"), "has a namespace or a name that no orb can have");
        assert_eq!(why("http://h/x"), "is an address that does not begin with https://");
        assert_eq!(why("https://"), "is not an address");
        for text in
            ["a/b@", "a/b@latest", "a/b@v1", "a/b@1.x", "a/b@1.2.3.4", "a/b@01", "a/b@+1", "a/b@dev:", "a/b@1@2"]
        {
            assert_eq!(why(text), UNKNOWN_VERSION, "{text}");
        }
    }

    #[test]
    fn a_version_covers_those_that_begin_with_it() {
        let covers = |a: &str, b: &str| version(a).covers(&version(b));
        assert!(covers("1", "1.2.3") && covers("1.2", "1.2.3") && covers("1.2.3", "1.2.3") && covers("1", "1"));
        assert!(covers("volatile", "9.0.0") && covers("dev:a", "dev:a"));
        assert!(!covers("1", "2.0.0") && !covers("1.2", "1.3.0") && !covers("1.2.3", "1.2") && !covers("1.2", "1"));
        assert!(!covers("volatile", "dev:a") && !covers("dev:a", "dev:b"));
    }

    #[test]
    fn newer_counts_numbers_not_letters() {
        let newer = |a: &str, b: &str| version(a) > version(b);
        assert!(newer("1.10.0", "1.9.9") && newer("2.0.0", "1.10.0") && newer("1.0.0", "1") && newer("1", "volatile"));
    }
}
