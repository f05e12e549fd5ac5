//! Exit codes of `navvy run` and its fellows. They are a public promise: scripts depend on them.

/// Every job that was started passed, and nothing was left out.
pub const PASSED: u8 = 0;
/// At least one job failed.
pub const JOB_FAILED: u8 = 1;
/// The config, or the choice of its workflows and jobs, is wrong; nothing was run.
pub const BAD_CONFIG: u8 = 2;
/// Navvy's fault, or the machine's: an infra fault, never the job's. A panic, too: what the process made is removed then.
pub const INFRA: u8 = 3;
/// Nothing failed, but something was not run (held for approval, executor not available here).
pub const INCOMPLETE: u8 = 4;
/// `navvy logs`: a log is not what was written.
pub const LOG_DAMAGED: u8 = 1;
/// `navvy logs`: nothing is damaged, but a log has no seal: it is still being written, or its writer died.
pub const LOG_UNSEALED: u8 = 4;
/// The command line could not be understood (`EX_USAGE`).
pub const USAGE: u8 = 64;
/// No Docker engine could be reached (`EX_UNAVAILABLE`).
pub const NO_DOCKER: u8 = 69;
/// Cancelled by the user (128 + SIGINT).
pub const CANCELED: u8 = 130;
