//! Everything that a compilation depends on from outside.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::orb::OrbSource;

/// A config text and what to call it.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Shown in diagnostics: `.circleci/config.yml`.
    pub name: &'a str,
    /// All of it.
    pub text: &'a str,
}

/// A file that a config took part of itself from: an orb's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Shown in diagnostics: `.circleci/orbs/circleci/node@5.2.0.yml`.
    pub name: String,
    /// All of it.
    pub text: Arc<str>,
}

/// What triggered the pipeline and with which values.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// The pushed branch; `None` for a tag, and where there is neither: then branch filters let no name through.
    pub branch: Option<String>,
    /// The pushed tag.
    pub tag: Option<String>,
    /// Pipeline parameters as text; converted by their declared type.
    pub parameters: Vec<(String, String)>,
    /// Pipeline values by their name without `pipeline.`: `git.revision`, `number`, `project.git_url`.
    /// `git.branch` and `git.tag` come from `branch` and `tag`.
    pub values: BTreeMap<String, Value>,
    /// Source of the orbs that are named by reference; `None`: no such orb is here.
    pub orbs: Option<Arc<dyn OrbSource>>,
    /// Leave out what comes from orbs that are not here, with a warning each, instead of an error.
    pub allow_missing_orbs: bool,
    /// Mistakes of definitions that no workflow leads to are warnings: they concern no job of this pipeline. Without
    /// it all that the file defines must be right.
    pub tolerate_unreached: bool,
}

impl Default for Inputs {
    /// A push to `main`.
    fn default() -> Self {
        Self {
            branch: Some("main".to_owned()),
            tag: None,
            parameters: Vec::new(),
            values: BTreeMap::new(),
            orbs: None,
            allow_missing_orbs: false,
            tolerate_unreached: false,
        }
    }
}

/// A pipeline value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// No value.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// A text.
    Text(String),
}
