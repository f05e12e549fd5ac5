//! `orb`: sources of orbs and the lock file.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub struct OrbArgs {
    #[command(subcommand)]
    pub command: OrbCommand,
}

#[derive(Debug, Subcommand)]
pub enum OrbCommand {
    /// Put an orb's source where configs find it, and lock it.
    Add(OrbAddArgs),
    /// List the orbs that are here, and what the config uses of them.
    List(OrbListArgs),
    /// Lock every orb of the config to what it is resolved to now.
    Lock(OrbLockArgs),
    /// Print one source for an orb whose source is a tree of files.
    Pack(OrbPackArgs),
}

#[derive(Debug, Args)]
pub struct OrbAddArgs {
    /// The orb's source, as `circleci orb source` prints it; - for standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// What it is: NAMESPACE/NAME@VERSION, or the https:// address that a config names it by.
    #[arg(value_name = "ORB")]
    pub reference: String,
    /// Keep it for all of your projects, and not in this one.
    #[arg(long)]
    pub user: bool,
    /// Replace another source of the same version.
    #[arg(long)]
    pub force: bool,
    /// Another config of the project that you stand in, - for standard input. Without it: .circleci/config.yml here or in a
    /// directory above.
    #[arg(short = 'f', long = "file", value_name = "CONFIG", conflicts_with = "user")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct OrbListArgs {
    /// Another config of the project that you stand in, - for standard input. Without it: .circleci/config.yml here or in a
    /// directory above.
    #[arg(short = 'f', long = "file", value_name = "CONFIG")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct OrbLockArgs {
    /// Another config of the project that you stand in, - for standard input. Without it: .circleci/config.yml here or in a
    /// directory above.
    #[arg(short = 'f', long = "file", value_name = "CONFIG")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct OrbPackArgs {
    /// The directory that holds @orb.yml, or holds src/@orb.yml.
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}
