//! What jobs left in a store: `cache`, `artifacts`, `tests`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use navvy_job::claim::TrustScope;

use super::remote::ElsewhereArgs;
use super::{GivenArgs, SourceArgs};

#[derive(Debug, Args)]
pub struct CacheArgs {
    #[command(subcommand)]
    pub command: CacheCommand,
}

#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// List caches, newest first.
    Ls(CacheListArgs),
    /// Remove caches.
    Rm(CacheRemoveArgs),
    /// Say what restore_cache steps would find now: why not, and what makes it slow.
    Explain(Box<CacheExplainArgs>),
}

#[derive(Debug, Args)]
pub struct CacheExplainArgs {
    /// This job alone, by its name in the workflow or by the job that it is made from.
    pub job: Option<String>,
    /// A key, as a log has it, or a template, in place of the steps'.
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Print one step a line, as JSON (docs/caches.md).
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub source: SourceArgs,
    #[command(flatten)]
    pub given: GivenArgs,
    /// As for `navvy run`: local, trusted or fork:NAME.
    #[arg(long, value_name = "SCOPE", default_value = "local")]
    pub scope: TrustScope,
    /// Which store: as for `navvy run`.
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
}

/// Whose things, and where they are kept.
#[derive(Debug, Args)]
pub struct StoreArgs {
    /// As for `navvy run`: local, trusted or fork:NAME. What a scope only reads is listed, and never removed.
    #[arg(long, value_name = "SCOPE", default_value = "local")]
    pub scope: TrustScope,
    /// Which store: as for `navvy run`.
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// Another config of the project that you stand in, - for standard input. Without it: .circleci/config.yml here or in a
    /// directory above.
    #[arg(short = 'f', long = "file", value_name = "CONFIG")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct CacheListArgs {
    /// Only those whose key begins so.
    #[arg(default_value = "", hide_default_value = true)]
    pub prefix: String,
    /// Print one cache a line, as JSON (docs/caches.md).
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub store: StoreArgs,
}

#[derive(Debug, Args)]
pub struct CacheRemoveArgs {
    #[arg(required = true, value_name = "KEY")]
    pub keys: Vec<String>,
    /// Remove all whose key begins with one of these.
    #[arg(long)]
    pub prefix: bool,
    #[command(flatten)]
    pub store: StoreArgs,
}

#[derive(Debug, Args)]
pub struct ArtifactsArgs {
    #[command(subcommand)]
    pub command: ArtifactsCommand,
}

#[derive(Debug, Subcommand)]
pub enum ArtifactsCommand {
    /// List the artifacts of the last run that left any, or of another.
    Ls(ArtifactsListArgs),
    /// Fetch one artifact, or all of them below a directory for each job and node.
    Get(ArtifactsGetArgs),
}

/// Whose artifacts, and where they are.
#[derive(Debug, Args)]
pub struct ArtifactsOfArgs {
    /// The run: its log directory's name or its pipeline's id, or the beginning of either. Without it: the newest. With
    /// --remote: the pipeline's id.
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,
    /// Of this job alone.
    #[arg(long, value_name = "NAME")]
    pub job: Option<String>,
    /// Of this parallel node alone, from 0.
    #[arg(long, value_name = "N")]
    pub node: Option<u32>,
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub there: ThereArgs,
}

/// For what a processor's jobs left.
#[derive(Debug, Clone, Default, Args)]
pub struct ThereArgs {
    /// With --remote: the project, as the processor knows it: gh/OWNER/NAME. Without it: as git's remote says.
    #[arg(long, value_name = "SLUG", help_heading = "Processor")]
    pub project: Option<String>,
    #[command(flatten)]
    pub elsewhere: ElsewhereArgs,
}

#[derive(Debug, Args)]
pub struct ArtifactsListArgs {
    /// Print one artifact a line, as JSON (docs/artifacts.md).
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub of: ArtifactsOfArgs,
}

#[derive(Debug, Args)]
pub struct ArtifactsGetArgs {
    /// The artifact, by its whole name. Without it: all of them.
    pub name: Option<String>,
    /// The directory that they are put below.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub to: PathBuf,
    #[command(flatten)]
    pub of: ArtifactsOfArgs,
}

#[derive(Debug, Args)]
pub struct TestsArgs {
    /// This job alone.
    #[arg(value_name = "JOB")]
    pub job: Option<String>,
    /// So many of the slowest tests.
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    pub slowest: usize,
    /// Print one job a line, as JSON (docs/tests.md).
    #[arg(long)]
    pub json: bool,
    /// With --remote: of this pipeline alone. Without it: of the newest pipelines of the project.
    #[arg(long, value_name = "PIPELINE", help_heading = "Processor")]
    pub run: Option<String>,
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub there: ThereArgs,
}
