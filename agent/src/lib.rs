//! The build agent and its command line.
//!
//! ```text
//! cli ─▶ pipeline ─▶ task ─▶ step                   ui ◀─ bus ◀─ everyone
//!  │        │          ├──▶ environment ─▶ supervisor
//!  │        │          ├──▶ checkout
//!  │        │          └──▶ output
//!  └ settings, config, job
//! ```
//!
//! | module | single responsibility |
//! |---|---|
//! | [`cli`] | words to values, errors to advice and exit codes |
//! | [`settings`] | the process's environment, read once |
//! | [`consent`] | what of the user's own a project may be given, as they answered |
//! | [`pipeline`] | `navvy run`: walks workflows, starts tasks side by side within the machine's room |
//! | [`fleet`] | tasks of a processor: claimed, carried out by [`task`], delivered |
//! | [`task`] | one task from claim to verdict |
//! | [`step`] | each step kind to its outcome: a borrowed look at its task in, what came of it out |
//! | [`run_store`] | the store of a run, opened when it is needed |
//! | [`artifacts`] | what a job leaves for people: out of its environment, looked through, into the store and out again |
//! | [`caches`] | why a cache is found or not, and what makes it slow |
//! | [`environment`] | where steps run: enum over the kinds there are |
//! | [`fleet`] | what an agent of a fleet has of its processor |
//! | [`scheduled`] | what a scheduler's task driver and its agent tell each other |
//! | [`run_directory`] | where a run's logs are |
//! | [`remote_docker`] | a job's way to the Docker engine of a machine of its own |
//! | [`remote`] | what people say to a processor: calls, events and logs that go on where they were |
//! | [`bus`] | how events travel, masked on the way |
//! | `spool` | how much output waits for its delivery |
//! | `terminal` | the caller's own terminal in a person's session |
//! | [`doctor`] | checks of this machine |
//!
//! Every file and socket that is touched stands in `docs/files.md`.

pub mod artifacts;
mod bug;
pub mod bus;
pub mod caches;
pub mod cli;
pub mod consent;
pub mod doctor;
pub mod environment;
pub mod fleet;
mod masking;
mod oom;
pub mod pipeline;
pub mod remote;
pub mod remote_docker;
pub mod run_directory;
pub mod run_store;
pub mod scheduled;
pub mod settings;
mod spool;
pub mod ssh_agent;
pub mod ssh_key;
pub mod step;
pub mod task;
mod terminal;
