//! The words of the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use navvy_job::claim::TrustScope;

use super::size::parse_size;
use crate::artifacts::guard::Secrets;
use crate::checkout::Elsewhere;
use crate::environment::docker::PullPolicy;
use crate::pipeline::Overcommit;
use crate::settings::file::SettingsFiles;

/// Runs CI jobs written in the CircleCI config language on machines that you own.
#[derive(Debug, Parser)]
#[command(name = "navvy", version, propagate_version = true, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// Let the repository's .git lead out of it: to borrowed objects (alternates), to a git directory or files elsewhere.
    /// For repositories that you have set up so yourself.
    #[arg(long, global = true)]
    pub follow_git_links: bool,
}

impl Cli {
    pub fn elsewhere(&self) -> Elsewhere {
        if self.follow_git_links { Elsewhere::Followed } else { Elsewhere::Refused }
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the jobs of a config here, in Docker containers.
    Run(Box<RunArgs>),
    /// Open a shell in the environment of a task that is held.
    Shell(ShellArgs),
    /// Go on with a task that is held, from the step it is held at.
    Retry(Box<RetryArgs>),
    /// Look at a config without running it.
    Config(ConfigArgs),
    /// Put orbs where configs find them, list them, lock them, pack them.
    Orb(OrbArgs),
    /// List the tasks on this host: running, kept, or left by a run that died.
    Ps(PsArgs),
    /// List the project's caches, remove them, or say why a step finds none.
    Cache(CacheArgs),
    /// List what the jobs of a run left for people, or fetch it.
    Artifacts(ArtifactsArgs),
    /// Remove what dead runs left on this host and in the store.
    Prune(PruneArgs),
    /// Remove kept or dead tasks.
    Rm(RmArgs),
    /// List a run's logs, print one exactly as it was written, and say what of it is not whole.
    Logs(LogsArgs),
    /// Show the last test results of each job, its slowest tests, and those that do not always come to the same.
    Tests(TestsArgs),
    /// Check Docker, disk, cgroups and network, and say how to mend what is amiss.
    Doctor(DoctorArgs),
    /// Print a completion script for a shell.
    Completions(CompletionsArgs),
}

/// Which config, and what it is compiled with.
#[derive(Debug, Clone, Default, Args)]
pub struct SourceArgs {
    /// The config file, - for standard input; the project is the one that you stand in. Without it: .circleci/config.yml
    /// here or in a directory above.
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// A pipeline parameter. Repeatable.
    #[arg(short = 'p', long = "param", value_name = "KEY=VALUE")]
    pub parameters: Vec<String>,
    /// Act as if this branch was pushed. Without it: the branch that is checked out; none if HEAD is detached.
    #[arg(long, value_name = "NAME", conflicts_with = "tag")]
    pub branch: Option<String>,
    /// Act as if this tag was pushed.
    #[arg(long, value_name = "NAME")]
    pub tag: Option<String>,
    /// Go on without orbs that are not here: their commands are skipped, their jobs are not available.
    /// Without it: as the settings say (docs/settings.md).
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub allow_missing_orbs: Option<bool>,
}

impl SourceArgs {
    /// What was not said here, the settings say.
    pub fn fill_in(&mut self, files: &SettingsFiles) {
        self.allow_missing_orbs = self.allow_missing_orbs.or(files.allow_missing_orbs());
    }

    pub fn allows_missing_orbs(&self) -> bool {
        self.allow_missing_orbs.unwrap_or(false)
    }
}

/// Variables that jobs are given.
#[derive(Debug, Clone, Default, Args)]
pub struct GivenArgs {
    /// A secret variable for every job, NAME=VALUE, or NAME to take your own: its value is masked wherever it is shown or
    /// kept. Repeatable.
    #[arg(short = 'e', long = "env", value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// A plain variable for every job, NAME=VALUE, or NAME to take your own: everybody may see its value. Repeatable.
    #[arg(long = "var", value_name = "NAME[=VALUE]")]
    pub vars: Vec<String>,
    /// A file of NAME=VALUE lines, as the project's own variables; their values are secret. Repeatable.
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The workflow to run. Without it: every workflow that a push of this branch would start.
    pub workflow: Option<String>,
    #[command(flatten)]
    pub source: SourceArgs,
    /// Run this job alone. Repeatable.
    #[arg(long = "job", value_name = "NAME")]
    pub jobs: Vec<String>,
    /// With --job: run what it requires, too.
    #[arg(long, requires = "jobs")]
    pub with_requires: bool,
    #[command(flatten)]
    pub given: GivenArgs,
    /// Give jobs this host's way to the outside: its proxies, and its CA bundle with the variables that programs look for.
    /// Without it: as your settings say (docs/settings.md).
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub host_egress: Option<bool>,
    /// Let jobs reach a port of this host, or an address, that is closed to them: PORT, ADDRESS or ADDRESS:PORT, with /udp
    /// for UDP (docs/docker.md). Beside those of your settings. Repeatable.
    #[arg(long = "allow-host", value_name = "[ADDRESS:]PORT")]
    pub allow_host: Vec<String>,
    /// A private key for steps `add_ssh_keys`, for one host or for all; or `agent`: they may use keys of your ssh-agent.
    /// Repeatable.
    #[arg(long = "ssh-key", value_name = "[HOST=]FILE|agent")]
    pub ssh_keys: Vec<String>,
    /// What `setup_remote_docker` gives a job; without it the step is skipped. `host`: the engine that runs the jobs, and
    /// with it all that root can do there.
    #[arg(long, value_enum, value_name = "WHAT")]
    pub remote_docker: Option<RemoteDocker>,
    /// Give jobs a context: that of this name in ~/.config/navvy/contexts, or the variables of FILE. Without it a project gets
    /// those of yours that you have given it (docs/secrets.md). Repeatable.
    #[arg(long = "context", value_name = "NAME[=FILE]")]
    pub contexts: Vec<String>,
    /// Run another image in place of FROM, which may hold * and ?. Repeatable, the first that fits wins.
    #[arg(long = "image", value_name = "FROM=TO")]
    pub images: Vec<String>,
    /// Run Linux `machine` jobs in a container of this image.
    #[arg(long, value_name = "IMAGE")]
    pub machine_as: Option<String>,
    /// Let a job count as passed without running it: passed:NAME. Repeatable.
    #[arg(long, value_name = "passed:NAME")]
    pub assume: Vec<String>,
    /// Give an approval: its job's name, or `all`. Repeatable.
    #[arg(long, value_name = "NAME|all")]
    pub approve: Vec<String>,
    /// Run this many tasks side by side at most. Without it: as many as the machine has room for.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub max_parallel: usize,
    /// Give the machine's processors out this many times, for jobs that wait for the network more than they compute: 1.5, 2.
    /// Memory is given out once. Without it: as the settings say (docs/settings.md), else once.
    #[arg(long, value_name = "N")]
    pub overcommit: Option<Overcommit>,
    /// Cap every job's `parallelism`.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub parallelism: Option<u32>,
    /// When images are pulled.
    #[arg(long, value_enum, default_value_t = Pull::Missing)]
    pub pull: Pull,
    /// Where `checkout` takes the files from.
    #[arg(long, value_enum, default_value_t = CheckoutMode::Copy)]
    pub checkout: CheckoutMode,
    /// Give steps pipes instead of a terminal.
    #[arg(long)]
    pub no_tty: bool,
    /// End a job after this long.
    #[arg(long, value_name = "DURATION", default_value = "5h", value_parser = parse_duration)]
    pub job_limit: Duration,
    /// How far the jobs' author is trusted: local, trusted or fork:NAME. It decides whose caches they write and read,
    /// and that a fork gets of your contexts only what --context names.
    #[arg(long, value_name = "SCOPE", default_value = "local")]
    pub scope: TrustScope,
    /// Where caches, workspaces and test results are kept: file:///PATH, s3://BUCKET/PREFIX, gs://… or az://…
    /// [default: $NAVVY_STORE, then settings.toml, then ~/.local/share/navvy/store]
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// What becomes of artifacts and test results that hold a secret. Of caches and workspaces it is only told; with allow,
    /// nothing is looked through.
    #[arg(long, value_enum, default_value_t = SecretsIn::Refuse, value_name = "WHAT")]
    pub secrets_in_artifacts: SecretsIn,
    /// End a step rather than let its log take the logs' disk below this, and the job that has written most rather than
    /// let it take the engine's: 64M unless NAVVY_DISK_FLOOR says otherwise, 0 for none.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub disk_floor: Option<u64>,
    /// The Docker engine: unix:///path, tcp://host:port. Without it: as the docker command finds it.
    #[arg(long, value_name = "ENDPOINT")]
    pub docker: Option<String>,
    /// Print the workflows and jobs, and do not run them.
    #[arg(long, group = "inspect")]
    pub list: bool,
    /// Print what would run, step by step, and do not run it.
    #[arg(long, group = "inspect")]
    pub dry_run: bool,
    /// Print the graph of jobs, and do not run them.
    #[arg(long, value_enum, group = "inspect", num_args = 0..=1, default_missing_value = "text", value_name = "FORMAT")]
    pub graph: Option<GraphFormat>,
    /// Keep the environment of a failed job for `navvy shell` and `navvy retry`. Without a time: 4h.
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "4h")]
    #[arg(value_parser = parse_duration)]
    pub keep_on_fail: Option<Duration>,
    /// Open a shell in the environment of a job at once when a step of it fails. Needs a terminal.
    #[arg(long, conflicts_with_all = ["json", "quiet"])]
    pub shell_on_fail: bool,
    /// Hold a job before this step, by number or name: [JOB:]STEP. Repeatable.
    #[arg(long, value_name = "[JOB:]STEP")]
    pub break_before: Vec<String>,
    #[command(flatten)]
    pub view: ViewArgs,
}

impl RunArgs {
    /// What was not said here, the settings say; of images, the first that fits wins.
    pub fn fill_in(&mut self, files: &SettingsFiles) {
        self.source.fill_in(files);
        self.images.extend(files.images().cloned());
        self.host_egress = self.host_egress.or(files.host_egress());
        self.overcommit = self.overcommit.or(files.overcommit());
        self.allow_host.extend(files.allow_host().iter().cloned());
    }
}

/// How a run is shown.
#[derive(Debug, Clone, Args)]
pub struct ViewArgs {
    /// Print one event a line, as JSON (docs/events.md).
    #[arg(long, group = "view")]
    pub json: bool,
    /// Print prefixed lines, also on a terminal.
    #[arg(long, group = "view")]
    pub plain: bool,
    /// Print the summary alone.
    #[arg(short, long, group = "view")]
    pub quiet: bool,
    /// At the end, tell which secret was masked where and how often.
    #[arg(long)]
    pub secrets_report: bool,
    /// On a terminal: show all output, not only that of failing steps.
    #[arg(short, long, action = ArgAction::SetTrue)]
    pub verbose: bool,
    /// Use colours.
    #[arg(long, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub color: Color,
}

#[derive(Debug, Args)]
pub struct ShellArgs {
    /// The task: its id, the beginning of it, or its job's name; `navvy ps` lists them.
    pub task: String,
    /// A command to run in place of a shell.
    #[arg(last = true)]
    pub command: Vec<String>,
    /// The Docker engine. Without it: the one the task runs on.
    #[arg(long, value_name = "ENDPOINT")]
    pub docker: Option<String>,
}

#[derive(Debug, Args)]
pub struct RetryArgs {
    /// The task: its id, the beginning of it, or its job's name; `navvy ps` lists them.
    pub task: String,
    /// Go on from this step, by number or name. Without it: from the one it is held at.
    #[arg(long, value_name = "STEP")]
    pub from: Option<String>,
    /// Take the job's steps from the config as it is now.
    #[arg(long)]
    pub with_edits: bool,
    /// If it fails again, keep the environment this long. Without it: as long as before.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub keep: Option<Duration>,
    /// As for `navvy run`.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub disk_floor: Option<u64>,
    /// The Docker engine. Without it: the one the task runs on.
    #[arg(long, value_name = "ENDPOINT")]
    pub docker: Option<String>,
    #[command(flatten)]
    pub view: ViewArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Pull {
    /// An image that is here is used without asking anyone.
    Missing,
    Always,
    Never,
}

impl From<Pull> for PullPolicy {
    fn from(pull: Pull) -> Self {
        match pull {
            Pull::Missing => Self::Missing,
            Pull::Always => Self::Always,
            Pull::Never => Self::Never,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RemoteDocker {
    /// The engine that runs the job.
    Host,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SecretsIn {
    /// They are stored with **** in its place, if what holds it is text; else nothing of them is stored.
    Mask,
    /// Nothing of them is stored; a step that stores artifacts fails.
    Refuse,
    /// They are stored as they are.
    Allow,
}

impl From<SecretsIn> for Secrets {
    fn from(secrets: SecretsIn) -> Self {
        match secrets {
            SecretsIn::Mask => Self::Mask,
            SecretsIn::Refuse => Self::Refuse,
            SecretsIn::Allow => Self::Allow,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CheckoutMode {
    /// A private copy of the working tree as it is now.
    Copy,
    /// `git clone`, as the real service does.
    Git,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GraphFormat {
    /// A tree.
    Text,
    /// For Graphviz.
    Dot,
    /// For Markdown that draws Mermaid.
    Mermaid,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    Auto,
    Always,
    Never,
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
    /// The run: its log directory's name or its pipeline's id, or the beginning of either. Without it: the newest.
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
    #[command(flatten)]
    pub store: StoreArgs,
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
pub struct DoctorArgs {
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
    /// The run: its directory's name, or the beginning of it. Without it: the newest.
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
}

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    pub shell: Shell,
}

/// `90s`, `10m`, `1.5h`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let advice = || format!("`{text}` is no duration; write a number with a unit: 90s, 10m, 1.5h");
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(advice)?;
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| advice())?;
    let seconds = match unit {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(advice()),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|_| advice())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(parse_duration("1.5h"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert!(parse_duration("90").is_err());
        assert!(parse_duration("h").is_err());
    }
}
