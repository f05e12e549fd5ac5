//! A step's output on its way to disk and view, and back from there.
//!
//! ```text
//! supervisor ─▶ StepSink ─▶ masks ─▶ StepLog      NNN-A.log: exactly the step's bytes          ─┐
//!                   │                   └──────── NNN-A.seg: segments with crc, stream and time ─┴─▶ reader ─▶ `navvy logs`
//!                   └─────▶ Bus          for the view: all of it, or tails only
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`segments`] | the index's form and invariants (pure) |
//! | [`mask`] | secrets in texts and streams (pure) |
//! | `step_log` | the writer |
//! | [`reader`] | log and index → what is whole (pure but for reading) |
//! | `disk_floor` | when a log takes no more |
//! | `log_ends` | what the logs of a task came to |
//! | `step_sink`, `run_directory` | a running step's output; where a run's logs are |

mod daemon_hint;
mod disk_floor;
mod log_ends;
pub mod mask;
pub mod reader;
mod run_directory;
pub mod segments;
mod step_log;
mod step_sink;

pub use daemon_hint::DaemonHint;
pub use disk_floor::{DiskFloor, DiskFloorReached};
pub use log_ends::{log_ends, logs_in};
pub use run_directory::{RunDirectory, RunDirectoryError, retain};
pub use step_log::{LogDigest, StepLog};
pub use step_sink::{Activity, Feed, StepSignal, StepSink, Watch};
