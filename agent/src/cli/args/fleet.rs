//! Tasks of a processor: `agent`, `runner`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::parse_duration;
use navvy_job::figures::read_size;

/// Where the processor is, and who vouches for it.
#[derive(Debug, Clone, Default, Args)]
pub struct ProcessorArgs {
    /// The processor: https://HOST:8585. Without it: NAVVY_PROCESSOR.
    #[arg(long, value_name = "URL")]
    pub processor: Option<String>,
    /// Certificates that vouch for the processor and its store, as a PEM file. Without it: those of the system.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Our own certificate, if the processor asks for one, as a PEM file.
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// Its private key, as a PEM file.
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// Allow http:// to other hosts than this one: secrets cross the network in plain text.
    #[arg(long)]
    pub plaintext: bool,
}

/// What this machine brings to tasks.
#[derive(Debug, Clone, Args)]
pub struct MachineArgs {
    /// Where steps run.
    #[arg(long, value_name = "KIND", default_value = "docker")]
    pub environment: EnvironmentKind,
    /// Output that waits on disk for its delivery, for each task. Full, it holds the step up.
    #[arg(long, value_name = "SIZE", default_value = "4G", value_parser = read_size)]
    pub spool: u64,
    /// Give steps two pipes in place of a terminal.
    #[arg(long)]
    pub no_tty: bool,
    /// As for `navvy run`.
    #[arg(long, value_name = "SIZE", value_parser = read_size)]
    pub disk_floor: Option<u64>,
    /// The Docker engine: unix:///path, tcp://host:port. Without it: as the docker command finds it.
    #[arg(long, value_name = "ENDPOINT")]
    pub docker: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EnvironmentKind {
    /// Containers.
    Docker,
}

#[derive(Debug, Args)]
pub struct AgentArgs {
    /// The file that a scheduler starts this agent with: address, task and launch token, as JSON. Mode 0600; read once, then
    /// removed.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["processor", "task", "token_file"])]
    pub claim: Option<PathBuf>,
    /// The directory that a scheduler's task driver has made for one task (docs/host.md): where the task lives on this machine,
    /// its claim, and what the driver learns of it.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["processor", "ca", "task", "token_file", "claim"])]
    pub scheduled: Option<PathBuf>,
    /// Run nothing: remove all that the task has left on this host, and tell nobody. For after its agent was killed for good.
    #[arg(long, requires = "scheduled")]
    pub remove: bool,
    /// The task.
    #[arg(long, value_name = "ID", required_unless_present_any = ["claim", "scheduled"])]
    pub task: Option<String>,
    /// The file of the task's launch token. Mode 0600; read once, then removed. Without it: NAVVY_TOKEN_FILE.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    #[command(flatten)]
    pub processor: ProcessorArgs,
    #[command(flatten)]
    pub machine: MachineArgs,
}

#[derive(Debug, Args)]
pub struct RunnerArgs {
    /// A resource class whose tasks are taken. Repeatable.
    #[arg(long = "class", value_name = "NAME", required = true)]
    pub classes: Vec<String>,
    /// The file of the runner's token. Mode 0600. Without it: NAVVY_TOKEN_FILE.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Most tasks at a time, as far as the machine has room for them.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrency: u16,
    /// End after one task.
    #[arg(long)]
    pub once: bool,
    /// End after so long without a task.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub idle_timeout: Option<Duration>,
    /// After the first SIGTERM or Ctrl-C, tasks have so long to end by themselves; then they are canceled.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_duration)]
    pub drain_timeout: Duration,
    /// Processors that are never given to tasks.
    #[arg(long, value_name = "N", default_value_t = 2.0, value_parser = parse_cpus)]
    pub reserve_cpus: f64,
    /// Memory that is never given to tasks.
    #[arg(long, value_name = "SIZE", default_value = "4G", value_parser = read_size)]
    pub reserve_memory: u64,
    #[command(flatten)]
    pub processor: ProcessorArgs,
    #[command(flatten)]
    pub machine: MachineArgs,
}

/// `0`, `2`, `0.5`.
pub(super) fn parse_cpus(text: &str) -> Result<f64, String> {
    let cpus: f64 = text.parse().map_err(|_| format!("`{text}` is no number of processors; write 2 or 0.5"))?;
    match (0.0..=4096.0).contains(&cpus) {
        true => Ok(cpus),
        false => Err(format!("`{text}` is not between 0 and 4096")),
    }
}
