//! The way to a machine by ssh: for clouds, and for hosts that are already there.
//!
//! ```text
//! Target (address, user, key, pinned host key) ─▶ Connection ─▶ SshLink: a channel to the supervisor's socket for each activity
//!                                                      │        seed: the guest's seed socket, once
//!                                                      └─ lost: the next activity connects anew; execs go on from their offsets
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | `connection` | one ssh connection, and how it fails |
//! | `link` | the supervisor's connections over it |
//! | `seed` | a guest's seed over it |
//! | `there` | a host that is already there, and how it is reset |
//!
//! Nothing is trusted on first use: the host key was made by this side and given to the machine, or an operator has named it.

mod connection;
mod link;
mod seed;
mod there;

pub use connection::{Connection, Ran, SshFault, Target};
pub use link::SshLink;
pub use seed::{greet, hear_ready};
pub use there::{Host, HostError, Turn};
