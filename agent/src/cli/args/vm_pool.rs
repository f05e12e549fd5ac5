//! `navvy vm-pool`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct VmPoolArgs {
    #[command(subcommand)]
    pub command: Option<VmPoolCommand>,
    #[command(flatten)]
    pub serve: VmPoolServeArgs,
}

impl VmPoolArgs {
    /// Does it become the pool's process?
    pub fn serves(&self) -> bool {
        matches!(self.command, None | Some(VmPoolCommand::Serve(_)))
    }
}

#[derive(Debug, Subcommand)]
pub enum VmPoolCommand {
    /// Keep machines ready, and give them to the jobs of this host. This is what happens without a word.
    Serve(VmPoolServeArgs),
    /// Say how many machines there are, and what the pool has done since it began.
    Report(VmPoolReportArgs),
    /// Remove all machines that are ready. A pool that runs gives no more of them, and ends.
    Empty,
}

#[derive(Debug, Clone, Default, Args)]
pub struct VmPoolServeArgs {
    /// What is kept ready, in a table [pool] (docs/vm.md). Without it: machines are made when a job asks for one.
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,
    /// Show figures for Prometheus at http://ADDR/metrics, to everybody who can reach it.
    #[arg(long, value_name = "ADDR")]
    pub metrics: Option<SocketAddr>,
    /// At the end remove the machines that are ready, instead of keeping them for the next start.
    #[arg(long)]
    pub empty_on_exit: bool,
}

#[derive(Debug, Args)]
pub struct VmPoolReportArgs {
    /// Print one JSON object (docs/vm.md).
    #[arg(long)]
    pub json: bool,
}
