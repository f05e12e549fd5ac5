//! Why a cache is found, or not, and what makes it slow: what `navvy cache explain` tells.
//!
//! ```text
//! config ─▶ restore steps ─▶ keys, part by part ([here]) ─┬─ found: what its archive is made of ([weight])
//! working tree ─┘              │                          └─ not: the nearest ([nearest]), part by part ([compare]),
//!                              └─ a part may be unknown        what became of its files since (git's history),
//!                                 outside of a job             who would write such a key, other scopes, put aside
//! ```
//!
//! Values of variables that may be secret are compared and never shown.

pub mod compare;
pub mod explain;
pub mod here;
pub mod nearest;
pub mod told;
pub mod weight;
