//! Tasks of a processor: claimed, carried out by the very code of `navvy run`, delivered.
//!
//! ```text
//! Claim ─▶ carry ─┬─▶ lease      beats, words: the right to go on, and the wish to stop
//!                 ├─▶ task       steps, as under `navvy run`; what they write is spooled on disk
//!                 ├─▶ record     events ─▶ events.jsonl
//!                 └─▶ delivery   events.jsonl and logs ─▶ processor and store; never in a step's way
//!          ◀── Finish, once all of it is durable; the lease goes last
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`connection`] | the way to a processor, tokens, what its refusals mean |
//! | [`claiming`] | how a task is taken |
//! | [`carry`] | one task from its claim to `Finish` |
//! | [`lease`] | the right to run, by this machine's own clock |
//! | [`left`] | tasks whose agent was killed, for the next one |
//! | [`delivery`] | what is on disk, on its way to where it is durable |
//! | [`pooled`] | machines of the processor's pool |
//! | [`persist`] | calls that are repeated until they are answered |
//! | [`room`] | what a runner's tasks take of its machine |
//! | `tree` | the working tree that was submitted |
//! | `record` | events on their way to disk |

pub mod carry;
pub mod claiming;
pub mod connection;
pub mod delivery;
pub mod lease;
pub mod left;
pub mod persist;
pub mod pooled;
mod record;
#[cfg(test)]
mod recorded;
pub mod room;
#[cfg(test)]
mod tests;
mod tree;
