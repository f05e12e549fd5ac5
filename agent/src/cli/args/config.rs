//! `config`: what is asked of a config that is not run.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::SourceArgs;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GraphFormat {
    /// A tree.
    Text,
    /// For Graphviz.
    Dot,
    /// For Markdown that draws Mermaid.
    Mermaid,
}

#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    pub command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say what is wrong with a config, all at once.
    Validate(ValidateArgs),
    /// Write the config out: every parameter, command, executor, matrix and condition replaced by what it stands for.
    Process(ProcessArgs),
    /// Draw the graph of jobs.
    Graph(GraphArgs),
    /// Say why a job runs, or not, and which line gave it each value.
    Explain(ExplainArgs),
    /// Print the JSON Schema of configs, for editors.
    Schema,
}

/// Which config to look at.
#[derive(Debug, Clone, Args)]
pub struct LookArgs {
    /// The config file, - for standard input. The same as -f FILE.
    #[arg(value_name = "FILE", conflicts_with = "file")]
    pub path: Option<PathBuf>,
    #[command(flatten)]
    pub source: SourceArgs,
}

#[derive(Debug, Args)]
pub struct ValidateArgs {
    #[command(flatten)]
    pub look: LookArgs,
    /// How diagnostics are printed: for a person, or as one document on standard output (docs/navvy-config.md).
    #[arg(long, value_enum, default_value_t = DiagnosticFormat::Human)]
    pub format: DiagnosticFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DiagnosticFormat {
    Human,
    Json,
    /// SARIF 2.1.0, for code review and editors.
    Sarif,
}

#[derive(Debug, Args)]
pub struct ProcessArgs {
    #[command(flatten)]
    pub look: LookArgs,
    /// Tell in comments where everything came from.
    #[arg(long)]
    pub explain: bool,
    /// A config without templates, or the compiled pipeline (docs/pipeline.schema.json).
    #[arg(long, value_enum, default_value_t = ProcessFormat::Yaml)]
    pub format: ProcessFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProcessFormat {
    Yaml,
    Json,
}

#[derive(Debug, Args)]
pub struct GraphArgs {
    #[command(flatten)]
    pub look: LookArgs,
    #[arg(long, value_enum, default_value_t = GraphFormat::Text)]
    pub format: GraphFormat,
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// A job of a workflow, by its name there or by the job that it is made from.
    pub job: String,
    /// Look at this workflow alone.
    #[arg(long, value_name = "NAME")]
    pub workflow: Option<String>,
    #[command(flatten)]
    pub look: LookArgs,
}
