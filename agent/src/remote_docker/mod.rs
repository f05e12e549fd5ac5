//! Remote Docker: a job whose steps run in containers gets the Docker engine of a virtual machine of its own.
//!
//! ```text
//! in the job                      this agent                                          the machine
//! docker ─TLS─▶ 127.0.0.1:2376 ─▶ relay ─▶ mutual TLS ends here ─▶ forwarded ─▶ supervisor ─▶ /run/docker.sock
//! ssh ────────▶ 127.0.0.1:PORT ─▶ relay ──────────────────────────▶ forwarded ─▶ supervisor ─▶ its sshd
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`keys`] | a key pair: for certificates, and for ssh |
//! | [`authority`] | the authority of one job, and what it signs |
//! | [`serve`] | who calls at the two ports inside the job, and where the calls lead |
//! | [`tunnel`] | one connection of the job's, from its first byte to the machine's engine |
//!
//! The engine itself listens on its unix socket alone: it would have to be started again for certificates of this job. They are
//! made for one job, are in the memory of this process and in the job's files, and nothing honours them once it is over.

pub mod authority;
pub mod keys;
pub mod serve;
pub mod tunnel;
