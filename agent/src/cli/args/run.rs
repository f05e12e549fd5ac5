//! What is run, how, and how it is shown: `run`, `shell`, `retry`.

use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};
use navvy_environment::request::PullPolicy;
use navvy_job::claim::TrustScope;

use super::config::GraphFormat;
use super::{GivenArgs, SourceArgs, parse_duration};
use crate::artifacts::guard::SecretPolicy;
use crate::settings::file::SettingsFiles;
use crate::settings::overcommit::Overcommit;
use navvy_job::figures::read_size;

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
    #[arg(long, value_name = "SIZE", value_parser = read_size)]
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
    #[arg(long, value_name = "SIZE", value_parser = read_size)]
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

impl From<SecretsIn> for SecretPolicy {
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
pub enum Color {
    Auto,
    Always,
    Never,
}
