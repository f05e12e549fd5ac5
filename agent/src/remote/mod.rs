//! The people's side of a processor: what `navvy submit`, `follow`, `pipelines` and `context` say to it.
//!
//! ```text
//! login (who, where) ─▶ Client ─┬─ a call: JSON in, JSON out
//!                               ├─ cursor::Events ──┐
//!                               └─ cursor::LogStream ┴─▶ Relay ─▶ bus ─▶ the views of `navvy run`
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`address`] | where a processor is, and the token; what must not go over a network in plain text |
//! | [`login`] | which processor: words, environment, `login.toml` |
//! | [`client`] | one call: deadlines, caps on answers, refusals |
//! | [`cursor`] | events and logs that go on where they were |
//! | [`relay`], `reading` | a pipeline's events and output onto the bus |
//! | [`tree`] | the working tree as one compressed stream |
//! | [`error`] | why a call came to nothing, and whose fault that is |
//!
//! What a processor says is believed no more than what a job writes: names are cleaned before they reach a terminal, answers
//! are cut at a length, and no name of its becomes a path here.

pub mod address;
pub mod client;
pub mod cursor;
pub mod error;
pub mod login;
mod reading;
pub mod relay;
pub mod tree;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

pub use client::Client;
pub use error::RemoteError;
