//! Where the supervisor's files are inside an environment. Both sides of the border need the same answer.

/// Read-only directory with the supervisor and its other names.
pub const BIN_DIR: &str = "/opt/navvy/bin";
/// The supervisor itself.
pub const SUPERVISOR: &str = "/opt/navvy/bin/navvy-supervisor";
/// Names under which the supervisor is the in-job CLI.
pub const CLI_NAMES: [&str; 2] = ["circleci", "circleci-agent"];
/// Directory of the sockets.
pub const RUN_DIR: &str = "/opt/navvy/run";
/// File name of the control socket below the run directory: uid 0 and the agent only.
pub const CONTROL_SOCKET: &str = "control.sock";
/// File name of the socket below the run directory that every step may reach; it can only ask and halt.
pub const JOB_SOCKET: &str = "job.sock";
/// File below the run directory that brings the task's secret; read once at start and removed.
pub const SECRET_FILE: &str = "secret";
