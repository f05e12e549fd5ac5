//! Jobs in virtual machines: on this host through QEMU, on a host that is already there, or in a cloud.
//!
//! ```text
//! Prepare ─▶ image (navvy-vm-image) ─▶ record: Planned ─▶ … ─▶ Ready ─▶ link to the supervisor ─▶ steps as everywhere
//!                                        │ each side effect behind a written intent; reconciled one step a pass
//!                                        └─ Stopping ─▶ Destroying ─▶ Destroyed: from any half-made state
//! ```

#![warn(missing_docs)]

pub mod state;
