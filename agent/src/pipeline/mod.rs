//! `navvy run`: walks workflows and starts tasks side by side within the machine's room.
//!
//! ```text
//!        Walk (navvy_job::walk) decides ──▶ ask, tell, continue, finish
//!          ▲                         │
//! verdict, answer, stop            start
//!          │                         ▼
//!          └───── task::run ◀──Room── queue of tasks (job × node)
//!                     └── environment ──▶ Removals, beside all of this
//! ```
//!
//! One loop owns all of it. Tasks send events themselves; what they return decides what comes next.

mod availability;
pub mod claims;
mod contexts;
mod continuing;
mod env_file;
mod given;
mod joining;
mod notes;
mod plan;
mod queue;
mod removals;
mod room;
mod run;
mod starting;
#[cfg(test)]
mod tests;
mod vms;

pub use availability::{Local, Replacements, localise};
pub use contexts::Contexts;
pub use continuing::Continued;
pub use env_file::{EnvFileError, Mistake, read as read_env_file, understand as understand_env_file};
pub use given::{Entry, Given, secrets_of_proxies};
pub use notes::Notes;
pub use plan::{Approvals, Builtins, Plan, TaskFacts};
pub use removals::Removals;
pub use run::{Ended, Finished, PipelineRun};
pub use vms::{Found, Vms};
