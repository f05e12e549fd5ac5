//! A step's output on its way to disk and view.
//!
//! ```text
//! supervisor ─▶ StepSink ─▶ masks ─▶ StepLog      NNN-A.log: exactly the step's bytes
//!                   │          └──────── NNN-A.times: which stream, when (one JSON object a line)
//!                   └─────▶ Bus          for the view: all of it, or tails only
//! ```

pub mod mask;
mod run_directory;
mod step_log;
mod step_sink;

pub use run_directory::{RunDirectory, RunDirectoryError, retain};
pub use step_log::{LogDigest, StepLog};
pub use step_sink::{Activity, Feed, StepSignal, StepSink, Watch};
