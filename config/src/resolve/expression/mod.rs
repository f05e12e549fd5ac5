//! Expressions: `pipeline.git.branch == "main" and not pipeline.parameters.dry`.
//!
//! ```text
//! or         = and ("or" and)*
//! and        = comparison ("and" comparison)*
//! comparison = unary (("==" | "!=" | "<" | "<=" | ">" | ">=" | "starts-with" | "matches") unary)?
//! unary      = "not" unary | "(" or ")" | name | string | number | boolean | "/" regex "/"
//! ```

mod evaluate;
mod lexer;
mod parser;
mod wrong;

pub(crate) use evaluate::{Fault, World, evaluate, full_match, names, steps_back};
pub(crate) use parser::{Expression, parse};
pub(crate) use wrong::{Wrong, instead_of_name};
