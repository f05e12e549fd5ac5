//! First stage: YAML text to a tree whose nodes know their place.
//!
//! Aliases and merge keys are gone afterwards. Scalars keep their text and whether they were written plain, because
//! only the later stages know whether a `yes` is asked for its value or for its text. Shared nodes stay shared, but what they would
//! weigh written out is counted, so that a small text cannot stand for a huge one.

mod broken;
mod build;
mod escape;
mod indent;
mod invisible;
mod merge;
mod node;
mod position;
mod reading;
mod scalar;

pub(crate) use build::parse;
pub(crate) use invisible::{invisible, is_curly_quote};
pub(crate) use node::{Content, Entry, Map, Node, Scalar};
pub(crate) use reading::{becomes, is_read_otherwise, rewritten, stays};
pub(crate) use scalar::{Literal, boolean, literal};
