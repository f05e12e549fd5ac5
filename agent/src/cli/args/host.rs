//! What is on this host: `ps`, `logs`, `rm`, `prune`, `doctor`; `host`, for machines of a fleet.

use clap::{Args, Subcommand};

use super::nomad_config::NomadConfigArgs;
use super::remote::ElsewhereArgs;

#[derive(Debug, Args)]
pub struct HostArgs {
    #[command(subcommand)]
    pub command: HostCommand,
}

#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// Say whether tasks of a fleet can run here, and if not, why.
    Check(HostCheckArgs),
    /// Print a Nomad client's configuration for this machine, or for another one.
    NomadConfig(Box<NomadConfigArgs>),
}

#[derive(Debug, Args)]
pub struct PsArgs {
    /// Print one task a line, as JSON (docs/host.md).
    #[arg(long)]
    pub json: bool,
    /// The Docker engine: unix:///path, tcp://host:port. Without it: as the docker command finds it.
    #[arg(long, value_name = "ENDPOINT")]
    pub docker: Option<String>,
}

#[derive(Debug, Args)]
pub struct LogsArgs {
    /// A task's id or its beginning, or a job of the run. Without it: the tasks and steps that there are.
    pub task: Option<String>,
    /// A step's number, N-A for its attempt A, or service:NAME. Without it: all of them, one after another.
    pub step: Option<String>,
    /// The run: its directory's name, or the beginning of it. Without it: the newest. With --remote: the pipeline's id.
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,
    /// Put the time and the stream in front of every line.
    #[arg(long, conflicts_with = "verify")]
    pub times: bool,
    /// On a terminal: print escape sequences, too.
    #[arg(long)]
    pub raw: bool,
    /// Print no log, only whether each is whole.
    #[arg(long)]
    pub verify: bool,
    #[command(flatten)]
    pub elsewhere: ElsewhereArgs,
}

#[derive(Debug, Args)]
pub struct RmArgs {
    /// A task's id, a beginning of it, or the name of its job.
    #[arg(required = true, value_name = "TASK")]
    pub tasks: Vec<String>,
    /// Remove a task that runs, under its owner's hands.
    #[arg(long)]
    pub force: bool,
    /// The Docker engine: unix:///path, tcp://host:port. Without it: as the docker command finds it.
    #[arg(long, value_name = "ENDPOINT")]
    pub docker: Option<String>,
}

#[derive(Debug, Args)]
pub struct PruneArgs {
    /// The store whose given-up uploads are swept, as for `navvy run`.
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// Remove kept tasks, too, before their time.
    #[arg(long)]
    pub kept: bool,
    /// Say what would be removed, and do not remove it.
    #[arg(long)]
    pub dry_run: bool,
    /// The Docker engine: unix:///path, tcp://host:port. Without it: as the docker command finds it.
    #[arg(long, value_name = "ENDPOINT")]
    pub docker: Option<String>,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The Docker engine: unix:///path, tcp://host:port. Without it: as the docker command finds it.
    #[arg(long, value_name = "ENDPOINT")]
    pub docker: Option<String>,
}

#[derive(Debug, Args)]
pub struct HostCheckArgs {
    /// Print one JSON object (docs/host.md), and exit with 0 whatever it says.
    #[arg(long)]
    pub json: bool,
    /// Really start a container with the supervisor; it is removed again.
    #[arg(long)]
    pub thorough: bool,
    /// The Docker engine: unix:///path, tcp://host:port. Without it: as the docker command finds it.
    #[arg(long, value_name = "ENDPOINT")]
    pub docker: Option<String>,
}
