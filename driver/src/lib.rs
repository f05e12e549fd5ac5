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

mod agent;
mod cgroup;
mod config;
mod directory;
mod events;
mod exec;
mod fingerprint;
mod handshake;
mod log;
mod node;
mod pipes;
mod plugin;
mod process;
mod proto;
mod ready;
mod schema;
pub mod serve;
mod start;
mod stats;
mod task;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
