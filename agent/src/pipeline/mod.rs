//! `navvy run`: walks workflows and starts tasks side by side within the machine's room.
//!
//! ```text
//! Graph (navvy_job::workflow) says what is ready
//!    │ approval ─▶ asked, given, or held      no-op ─▶ passed      not here ─▶ withheld
//!    ▼ build
//! queue of tasks (job × node) ──Room──▶ task::run ──verdict──▶ job's end ──▶ Graph
//!                                           └── environment ──▶ Removals, beside all of this
//! ```
//!
//! One loop owns all of it. Tasks send events themselves; what they return decides the graph.

mod availability;
pub mod claims;
mod contexts;
mod continuing;
mod env_file;
mod given;
mod job_run;
mod notes;
mod overcommit;
mod removals;
mod room;
mod runner;

pub use availability::{Local, Replacements, localise};
pub use contexts::Contexts;
pub use continuing::Continued;
pub use env_file::{EnvFileError, Mistake, is_name, read as read_env_file, understand as understand_env_file};
pub use given::{Entry, Given, secrets_of_proxies};
pub use job_run::JobRun;
pub use notes::Notes;
pub use overcommit::{NoOvercommit, Overcommit};
pub use removals::Removals;
pub use runner::{Approvals, Builtins, Finished, Plan, Runner};
