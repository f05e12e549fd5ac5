//! What agents and processors say to each other: `proto/navvy/processor/v1/`, generated, the caps on it, and the checks of what
//! comes.

mod log_name;
pub mod segment;
pub mod trace;

use std::fmt;
use std::time::Duration;

pub use log_name::LogName;

/// The port that a processor listens on for agents.
pub const PORT: u16 = 8585;
/// No message is larger: what a receiver must hold at once.
pub const MAX_MESSAGE: usize = 4 << 20;
/// A unary call that takes longer has failed, but for a claim, which may wait for a task.
pub const CALL_DEADLINE: Duration = Duration::from_secs(30);
/// A claim waits no longer for a task than this.
pub const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Bytes of a sealed segment before compression, at most.
pub const MAX_SEGMENT: usize = 16 << 20;
/// Bytes of a live chunk, at most.
pub const MAX_CHUNK: usize = 256 << 10;
/// No byte of a log stands behind this one: sums of offsets and lengths stay far from overflowing.
pub const MOST_OFFSET: u64 = 1 << 60;
/// Between two pings of a connection that says nothing.
pub const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// What came is not of the form that `agents.proto` says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FormError(pub String);

/// Generated from `navvy.processor.v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated; the .proto file has the documentation")]
pub mod v1 {
    tonic::include_proto!("navvy.processor.v1");

    /// The description of all services and messages, as the protobuf compiler writes it.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/navvy.processor.v1.bin"));
}

/// Writes a type's name and that the rest is not shown.
macro_rules! silent {
    ($($message:ident),*) => {$(
        impl fmt::Debug for v1::$message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($message)).finish_non_exhaustive()
            }
        }
    )*};
}
silent!(Secrets, Variable, SshKey, ClaimedTask, ClaimAnswer, Url, SegmentGrant, PooledMachine);
