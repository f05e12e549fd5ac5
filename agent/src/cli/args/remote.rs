//! What is said to a processor: `login`, `submit`, `follow`, `pipelines`, `context`, `project`.

use std::path::PathBuf;

use clap::{ArgAction, Args, Subcommand};

use super::SourceArgs;
use super::run::{Color, ViewArgs};

/// Which processor, and who asks.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Processor")]
pub struct ProcessorArgs {
    /// The processor: https://HOST[:PORT]. Without it: $NAVVY_PROCESSOR, then what `navvy login` keeps.
    #[arg(long, value_name = "URL")]
    pub processor: Option<String>,
    /// A file with the token for it. Without it: the file that $NAVVY_TOKEN_FILE names, then what `navvy login` keeps.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Trust this authority, too: a PEM file. Without it: the file that $NAVVY_PROCESSOR_CA names.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Let the token go over a network in plain text: http:// to another machine.
    #[arg(long)]
    pub plaintext: bool,
}

/// For commands that look here unless a processor is meant.
#[derive(Debug, Clone, Default, Args)]
pub struct ElsewhereArgs {
    /// Ask the processor that `navvy login` keeps.
    #[arg(long, help_heading = "Processor")]
    pub remote: bool,
    #[command(flatten)]
    pub processor: ProcessorArgs,
}

impl ElsewhereArgs {
    /// Is a processor meant?
    pub fn is_remote(&self) -> bool {
        self.remote || self.processor.processor.is_some()
    }
}

#[derive(Debug, Args)]
pub struct LoginArgs {
    /// The processor: https://HOST[:PORT].
    pub url: String,
    /// A file with the token, - for standard input. Without it, on a terminal, the token is asked for.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Trust this authority, too: a PEM file.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Let the token go over a network in plain text: http:// to another machine.
    #[arg(long)]
    pub plaintext: bool,
}

#[derive(Debug, Args)]
pub struct SubmitArgs {
    #[command(flatten)]
    pub source: SourceArgs,
    /// Run this workflow alone. Without it: every workflow that a push of this branch would start.
    #[arg(long, value_name = "NAME")]
    pub workflow: Option<String>,
    /// Build this commit. Without it: the one that is checked out.
    #[arg(long, value_name = "COMMIT", conflicts_with = "tree")]
    pub revision: Option<String>,
    /// Give every job a context of the processor's, beside those that the config names. Repeatable.
    #[arg(long = "context", value_name = "NAME")]
    pub contexts: Vec<String>,
    /// Send the working tree as it is now, uncommitted changes included: `checkout` unpacks it in place of a clone.
    #[arg(long)]
    pub tree: bool,
    /// The project, as the processor knows it: gh/OWNER/NAME. Without it: as git's remote says.
    #[arg(long, value_name = "SLUG")]
    pub project: Option<String>,
    /// Show the pipeline as `navvy run` does, and end as it ends.
    #[arg(long)]
    pub follow: bool,
    #[command(flatten)]
    pub view: FollowViewArgs,
    #[command(flatten)]
    pub processor: ProcessorArgs,
}

#[derive(Debug, Args)]
pub struct FollowArgs {
    /// The pipeline's id.
    pub pipeline: String,
    #[command(flatten)]
    pub view: FollowViewArgs,
    #[command(flatten)]
    pub processor: ProcessorArgs,
}

/// How a pipeline is shown.
#[derive(Debug, Clone, Args)]
pub struct FollowViewArgs {
    /// Print JSON: one event a line (docs/events.md), or without --follow what the processor answered.
    #[arg(long, group = "view")]
    pub json: bool,
    /// Print prefixed lines, also on a terminal.
    #[arg(long, group = "view")]
    pub plain: bool,
    /// Print the summary alone.
    #[arg(short, long, group = "view")]
    pub quiet: bool,
    /// On a terminal: show all output, not only that of failing steps.
    #[arg(short, long, action = ArgAction::SetTrue)]
    pub verbose: bool,
    /// Use colours.
    #[arg(long, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub color: Color,
}

impl FollowViewArgs {
    /// As `navvy run` has them.
    pub fn view(&self) -> ViewArgs {
        let Self { json, plain, quiet, verbose, color } = *self;
        ViewArgs { json, plain, quiet, secrets_report: false, verbose, color }
    }
}

#[derive(Debug, Args)]
pub struct PipelinesArgs {
    #[command(subcommand)]
    pub command: PipelinesCommand,
}

#[derive(Debug, Subcommand)]
pub enum PipelinesCommand {
    /// List the project's pipelines, newest first.
    Ls(PipelinesListArgs),
    /// Show a pipeline: its workflows, jobs and tasks.
    Show(PipelineArgs),
    /// Stop what runs of a pipeline; nothing of it begins any more.
    Cancel(PipelineCancelArgs),
    /// Run a pipeline again, as a new one with the same config and commit.
    Rerun(PipelineRerunArgs),
    /// Answer an approval that a pipeline waits for.
    Approve(PipelineApproveArgs),
}

#[derive(Debug, Args)]
pub struct PipelinesListArgs {
    /// The project, as the processor knows it: gh/OWNER/NAME. Without it: as git's remote says.
    #[arg(long, value_name = "SLUG")]
    pub project: Option<String>,
    /// So many of the newest.
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    pub limit: usize,
    /// Print one pipeline a line, as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub processor: ProcessorArgs,
}

#[derive(Debug, Args)]
pub struct PipelineArgs {
    /// The pipeline's id.
    pub pipeline: String,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub processor: ProcessorArgs,
}

#[derive(Debug, Args)]
pub struct PipelineCancelArgs {
    /// The pipeline's id.
    pub pipeline: String,
    /// Processes get no time for their clean-up.
    #[arg(long)]
    pub at_once: bool,
    #[command(flatten)]
    pub processor: ProcessorArgs,
}

#[derive(Debug, Args)]
pub struct PipelineRerunArgs {
    /// The pipeline's id.
    pub pipeline: String,
    /// Only the jobs that did not pass, and what comes after them.
    #[arg(long)]
    pub from_failed: bool,
    /// Show the new pipeline as `navvy run` does, and end as it ends.
    #[arg(long)]
    pub follow: bool,
    #[command(flatten)]
    pub view: FollowViewArgs,
    #[command(flatten)]
    pub processor: ProcessorArgs,
}

#[derive(Debug, Args)]
pub struct PipelineApproveArgs {
    /// The pipeline's id.
    pub pipeline: String,
    /// The approval: its job's name; WORKFLOW/JOB where several workflows have one of that name.
    pub job: String,
    /// Say no: what comes after it is not run.
    #[arg(long)]
    pub deny: bool,
    #[command(flatten)]
    pub processor: ProcessorArgs,
}

#[derive(Debug, Args)]
pub struct ContextArgs {
    #[command(subcommand)]
    pub command: ContextCommand,
}

#[derive(Debug, Subcommand)]
pub enum ContextCommand {
    /// Set a variable of a context. Its value comes from standard input or a file, never from the command line, which others
    /// on this machine can read.
    Set(ContextSetArgs),
    /// Remove a variable of a context, or the whole context.
    Rm(ContextRemoveArgs),
    /// List contexts, or the variables of one. Values are never shown.
    Ls(ContextListArgs),
}

/// Where a secret's value comes from.
#[derive(Debug, Clone, Default, Args)]
pub struct ValueArgs {
    /// A file with the value. Without it: standard input, to its end; one line end at the end is left out.
    #[arg(long, value_name = "FILE")]
    pub value_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ContextSetArgs {
    /// The context.
    pub name: String,
    /// The variable.
    pub variable: String,
    #[command(flatten)]
    pub value: ValueArgs,
    #[command(flatten)]
    pub processor: ProcessorArgs,
}

#[derive(Debug, Args)]
pub struct ContextRemoveArgs {
    /// The context.
    pub name: String,
    /// The variable. Without it: the context with all that is in it.
    pub variable: Option<String>,
    #[command(flatten)]
    pub processor: ProcessorArgs,
}

#[derive(Debug, Args)]
pub struct ContextListArgs {
    /// The context whose variables are listed. Without it: all contexts.
    pub name: Option<String>,
    /// Print one a line, as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub processor: ProcessorArgs,
}

#[derive(Debug, Args)]
pub struct ProjectArgs {
    #[command(subcommand)]
    pub command: ProjectCommand,
}

#[derive(Debug, Subcommand)]
pub enum ProjectCommand {
    /// Set a variable that every job of the project gets. Its value comes from standard input or a file.
    SetVar(ProjectSetArgs),
    /// Remove a variable of the project.
    RmVar(ProjectRemoveArgs),
    /// List the project's variables. Values are never shown.
    Vars(ProjectListArgs),
    /// Give the project the private key that `checkout` clones with. It comes from standard input or a file.
    DeployKey(DeployKeyArgs),
}

/// Whose variables they are.
#[derive(Debug, Clone, Default, Args)]
pub struct OfProjectArgs {
    /// The project, as the processor knows it: gh/OWNER/NAME. Without it: as git's remote says.
    #[arg(long, value_name = "SLUG")]
    pub project: Option<String>,
    #[command(flatten)]
    pub processor: ProcessorArgs,
}

#[derive(Debug, Args)]
pub struct ProjectSetArgs {
    /// The variable.
    pub variable: String,
    #[command(flatten)]
    pub value: ValueArgs,
    #[command(flatten)]
    pub of: OfProjectArgs,
}

#[derive(Debug, Args)]
pub struct ProjectRemoveArgs {
    /// The variable.
    pub variable: String,
    #[command(flatten)]
    pub of: OfProjectArgs,
}

#[derive(Debug, Args)]
pub struct ProjectListArgs {
    /// Print one a line, as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub of: OfProjectArgs,
}

#[derive(Debug, Args)]
pub struct DeployKeyArgs {
    /// The host that it is for. Without it: every host that a clone goes to.
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    #[command(flatten)]
    pub value: ValueArgs,
    #[command(flatten)]
    pub of: OfProjectArgs,
}

/// Tokens with which runners take tasks.
#[derive(Debug, Args)]
pub struct RunnerTokenArgs {
    /// The resource class whose tasks a runner takes with it; * stands for all.
    #[arg(value_name = "CLASS")]
    pub class: String,
    /// End all tokens of the class instead of making one.
    #[arg(long)]
    pub revoke: bool,
    #[command(flatten)]
    pub processor: ProcessorArgs,
}
