//! Jobs in virtual machines: on this host through QEMU, on a host that is already there, or in a cloud.
//!
//! ```text
//! Prepare ─▶ image (navvy-vm-image) ─▶ record: Planned ─▶ … ─▶ Ready ─▶ link to the supervisor ─▶ steps as everywhere
//!                                        │ each side effect behind a written intent; reconciled one step a pass
//!                                        └─ Stopping ─▶ Destroying ─▶ Destroyed: from any half-made state
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`Machines`], [`hold`], [`survey`] | machines for tasks: made, held, taken over, reaped; what callers see |
//! | [`MachineEnvironment`] | one of them, alive |
//! | `warm` | machines that have booted, kept for others to go on from |
//! | `making`, `kinds` | machines for a pool, and what they are counted by |
//! | `taking` | a machine of a pool becomes a task's |
//! | [`settings`] | what an operator says about machines |
//! | [`error`] | why there is none, and whose fault that is |
//! | `machine` | one start, reconciled step by step |
//! | [`provider`], `start` | who has the machines, and what they start from |
//! | `qemu` | those of this host |
//! | [`far`] | those that are elsewhere |
//! | [`cloud`], [`ec2`], [`gce`] | the clouds' APIs |
//! | [`ssh`] | hosts that are already there, and the way to far machines |
//! | [`pool`] | machines that are ready before somebody wants them |
//! | `visitors` | a way into a machine that runs, by its agent |
//! | [`record`], [`state`], [`machine_id`] | what a successor must know; the legal moves; names |
//!
//! On disk: `STATE/machines/ID/` (the record, the disk, sockets), `STATE/machine-trials/`, `STATE/machine-snapshots/`. On this host: interfaces `nvyXXXX`, the
//! bridge `navvyvm0`, tables `navvy-vm` of nft, `/run/navvy-machines.lock`.

#![warn(missing_docs)]

pub mod cloud;
pub mod ec2;
mod environment;
pub mod error;
pub mod far;
pub mod gce;
pub mod hold;
mod images;
mod kinds;
pub mod layers;
mod machine;
pub mod machine_id;
mod machines;
mod making;
pub mod pool;
pub mod provider;
mod qemu;
pub mod record;
pub mod settings;
pub mod ssh;
pub mod ssh_key;
mod start;
pub mod state;
pub mod survey;
mod taking;
mod visitors;
mod warm;

pub use environment::MachineEnvironment;
pub use error::{Fault, HoldError, PrepareError};
pub use machine_id::MachineId;
pub use machines::{Machines, Offer};
pub use settings::Settings;
