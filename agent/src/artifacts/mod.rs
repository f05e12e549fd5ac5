//! Artifacts: what a job leaves for people.
//!
//! ```text
//! archive ─▶ read ─▶ guard ─▶ Packing ─▶ store      files as they come, looked through for secrets
//!              └─ links ────────┘                   other names of the same bytes
//! store ─▶ Shelf ─▶ runs, files of a run            of two with one name, the later step's
//! ```
//!
//! | module | |
//! |---|---|
//! | [`read`] | files out of an archive, as it comes |
//! | [`names`] | what a file is called among the artifacts |
//! | [`links`] | where links lead |
//! | [`guard`] | secrets in what is stored |
//! | [`scan`] | looks for them in bytes of any kind |
//! | [`packed`] | what is packed in a file, as it passes |
//! | [`text`] | is a file text? |
//! | [`shelf`] | artifacts in the store: by run, job, node and step |

pub mod guard;
pub mod links;
pub mod names;
pub mod packed;
pub mod read;
pub mod scan;
pub mod shelf;
pub mod text;
