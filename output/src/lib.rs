//! What a step wrote: masked on its way to disk, and read back from there.
//!
//! ```text
//! bytes ─▶ masks ─▶ StepLog      NNN-A.log: exactly the step's bytes, secrets masked      ─┐
//!                      └──────── NNN-A.seg: segments with crc, stream and time            ─┴─▶ reader ─▶ `navvy logs`
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`segments`] | the index's form and invariants (pure) |
//! | [`mask`] | secrets in texts and streams (pure) |
//! | `step_log` | the writer |
//! | `resumed_index` | the index of a log that another process has left |
//! | [`reader`] | log and index → what is whole (pure but for reading) |
//! | `disk_floor` | when a log takes no more |
//! | `log_ends` | length and digest of each log of a task |

#![warn(missing_docs)]

mod disk_floor;
mod log_ends;
pub mod mask;
pub mod reader;
mod resumed_index;
pub mod segments;
mod step_log;

pub use disk_floor::{DiskFloor, DiskFloorReached};
pub use log_ends::{log_ends, logs_in};
pub use step_log::{LogDigest, LogPoint, StepLog, stream_name};
