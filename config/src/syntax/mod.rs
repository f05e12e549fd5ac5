//! First stage: YAML text to a tree whose nodes know their place.
//!
//! Aliases and merge keys are gone afterwards. Scalars keep their text and whether they were written plain, because
//! only the later stages know whether `yes` is a boolean or a word. Shared nodes stay shared, but what they would
//! weigh written out is counted, so that a small text cannot stand for a huge one.

mod broken;
mod build;
mod indent;
mod merge;
mod node;
mod position;
mod scalar;

pub(crate) use build::parse;
pub(crate) use node::{Content, Entry, Map, Node, Scalar};
pub(crate) use scalar::{Literal, boolean, literal};
