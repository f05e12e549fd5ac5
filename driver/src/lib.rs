//! The Nomad task driver `navvy`: a plugin that starts a build agent for each task of a processor, and looks after it.
//!
//! ```text
//! Nomad agent ── go-plugin, gRPC on a unix socket ──▶ plugin ─▶ task ─▶ process: navvy agent --scheduled DIRECTORY
//!                                                       │        └─▶ cgroup, directory (what outlives this process)
//!                                                       └─▶ fingerprint: navvy host check
//! ```
//!
//! Tasks outlive this process, and Nomad: an agent has a session and a cgroup of its own, and what is known of it lies in its directory.

#![warn(missing_docs)]

pub mod agent;
pub mod cgroup;
pub mod config;
pub mod directory;
pub mod events;
pub mod exec;
pub mod fingerprint;
pub mod handshake;
pub mod log;
pub mod node;
pub mod plugin;
pub mod process;
pub mod proto;
pub mod ready;
pub mod schema;
pub mod serve;
pub mod start;
pub mod stats;
pub mod task;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
