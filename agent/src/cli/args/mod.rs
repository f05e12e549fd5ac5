//! The words of the command line.

pub mod config;
pub mod fleet;
pub mod host;
pub mod image;
pub mod nomad_config;
pub mod orb;
pub mod remote;
pub mod run;
pub mod store;
pub mod vm_pool;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use navvy_checkout::Elsewhere;

use self::config::ConfigArgs;
use self::fleet::{AgentArgs, RunnerArgs};
use self::host::{DoctorArgs, HostArgs, LogsArgs, PruneArgs, PsArgs, RmArgs};
use self::image::ImageArgs;
use self::orb::OrbArgs;
use self::remote::{ContextArgs, FollowArgs, LoginArgs, PipelinesArgs, ProjectArgs, RunnerTokenArgs, SubmitArgs};
use self::run::{RetryArgs, RunArgs, ShellArgs};
use self::store::{ArtifactsArgs, CacheArgs, TestsArgs};
use self::vm_pool::VmPoolArgs;
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
    /// Open a shell in the environment of a task that is held, or of a fleet's task that runs here.
    Shell(ShellArgs),
    /// Continue a task that is held, from the step it is held at.
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
    /// Show the last test results of each job, its slowest tests, and flaky tests.
    Tests(TestsArgs),
    /// Keep a processor's address and a token for it.
    Login(LoginArgs),
    /// Forget what `navvy login` keeps.
    Logout,
    /// Send a config to a processor, to be run by its fleet.
    Submit(Box<SubmitArgs>),
    /// Show a pipeline of a processor as `navvy run` shows one of this machine.
    Follow(Box<FollowArgs>),
    /// List, show, cancel, run again and approve pipelines of a processor.
    Pipelines(Box<PipelinesArgs>),
    /// Set, remove and list the secrets of a processor's contexts.
    Context(ContextArgs),
    /// Set, remove and list a project's variables at a processor, and its deploy key.
    Project(ProjectArgs),
    /// Make a token with which runners take a processor's tasks of a resource class. It is printed, and kept nowhere.
    RunnerToken(RunnerTokenArgs),
    /// Check Docker, disk, cgroups and network, and say how to mend what is amiss.
    Doctor(DoctorArgs),
    /// Build, import, list, verify and remove the images that virtual machines start from.
    Image(ImageArgs),
    /// Keep virtual machines ready for jobs of this host.
    VmPool(VmPoolArgs),
    /// Prepare this machine for a fleet.
    Host(HostArgs),
    /// Carry out one task of a processor, then end.
    Agent(Box<AgentArgs>),
    /// Carry out tasks of a processor, as they come.
    Runner(Box<RunnerArgs>),
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

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    pub shell: Shell,
}

/// `90s`, `10m`, `1.5h`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    navvy_job::figures::read_duration(text)
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
