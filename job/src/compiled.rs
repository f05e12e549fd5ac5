//! One compiled job: everything a task needs to know, with no template, alias or parameter left in it.
//!
//! Paths and values are as written in the config: `~` is expanded inside the environment, where the home is known.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where the job's steps start if the config says nothing.
pub const DEFAULT_WORKING_DIRECTORY: &str = "~/project";
/// A step that writes nothing for this long is stopped, if the config says nothing.
pub const DEFAULT_NO_OUTPUT_TIMEOUT: Duration = Duration::from_secs(600);

/// Environment variables in the order of the config. Names are unique: of two equal ones the later stays.
pub type Variables = Vec<(String, String)>;

/// A compiled job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// What its steps run in.
    pub executor: Executor,
    /// Executor's and job's `environment`, the job's winning.
    pub environment: Variables,
    /// Shell of every `run` step that names none; `None` means the environment's default.
    pub shell: Option<String>,
    /// As written; relative paths and `~` are resolved inside the environment.
    pub working_directory: String,
    /// At least 1.
    pub parallelism: u32,
    /// As written; `None` means the executor's default.
    pub resource_class: Option<String>,
    /// In the order in which they run.
    pub steps: Vec<Step>,
}

/// What the config asks the job to run in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Executor {
    /// Never empty: the first container is the primary, the others are services.
    Docker {
        /// One for each entry of the `docker:` list.
        containers: Vec<Container>,
    },
    /// A virtual machine; `image` is `None` for `machine: true`.
    Machine {
        /// Name of the image.
        image: Option<String>,
        /// `docker_layer_caching: true`.
        docker_layer_caching: bool,
    },
    /// A macOS machine.
    Macos {
        /// Version of Xcode, as written.
        xcode: Option<String>,
    },
}

impl Executor {
    /// The primary container's image; `None` where there are no containers.
    pub fn primary_image(&self) -> Option<&str> {
        match self {
            Self::Docker { containers } => containers.first().map(|container| container.image.as_str()),
            _ => None,
        }
    }

    /// Its name in the config.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Docker { .. } => "docker",
            Self::Machine { .. } => "machine",
            Self::Macos { .. } => "macos",
        }
    }
}

/// One entry of a `docker:` list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Container {
    /// Image reference, as written.
    pub image: String,
    /// Host name under which the others reach it, beside `localhost`.
    pub name: Option<String>,
    /// Replaces the image's entrypoint; `None` keeps it.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command; `None` keeps it.
    pub command: Option<Vec<String>>,
    /// User as whom the container runs; `None` keeps the image's.
    pub user: Option<String>,
    /// Variables of this container alone.
    pub environment: Variables,
    /// Credentials for the image's registry; `None` pulls without any.
    pub auth: Option<RegistryAuth>,
    /// The config's own image, where a run takes another one for it. A compiled config has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(skip))]
    pub in_place_of: Option<String>,
}

/// Credentials of a registry as the config writes them; `$NAME` stands for a context or project variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum RegistryAuth {
    /// `auth`: a user name and a password.
    Password {
        /// As written.
        username: String,
        /// As written.
        password: String,
    },
    /// `aws_auth`: credentials for Amazon's registry.
    Aws {
        /// Keys below `aws_auth`, as written.
        settings: BTreeMap<String, String>,
    },
    /// `gcp_auth`: credentials for Google's registry.
    Gcp {
        /// Keys below `gcp_auth`, as written.
        settings: BTreeMap<String, String>,
    },
}

/// One step with the place in the config that it came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// What the step does.
    pub kind: StepKind,
    /// Shown to people; for `run` without a name, the command's text.
    pub name: String,
    /// Whether the step runs after a failure.
    pub when: When,
    /// Where the config has the step.
    pub origin: Origin,
}

/// Where in the config text something was written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Origin {
    /// Line, from 1; 0 for what stands nowhere in the text.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// The orb's file that it was written in; `None` means the config.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Outermost first: `["job build", "command setup"]`.
    pub trail: Vec<String>,
}

/// When a step runs, given how the job stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// As long as no step has failed.
    #[default]
    OnSuccess,
    /// Only after a step has failed.
    OnFail,
    /// In any case.
    Always,
}

impl When {
    /// Does a step run in a job that has (or has not) failed so far?
    pub fn runs(self, job_failed: bool) -> bool {
        match self {
            Self::OnSuccess => !job_failed,
            Self::OnFail => job_failed,
            Self::Always => true,
        }
    }
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StepKind {
    /// `run`: a command in a shell.
    Run(Run),
    /// `checkout`: the source code.
    Checkout(Checkout),
    /// `setup_remote_docker`: a Docker engine for the job.
    SetupRemoteDocker {
        /// `docker_layer_caching: true`.
        docker_layer_caching: bool,
        /// Version of Docker, as written; `None` leaves the choice to Navvy.
        version: Option<String>,
    },
    /// `save_cache`: files are kept under a key, for later jobs.
    SaveCache {
        /// Template of the key, as written.
        key: String,
        /// Files and directories to keep, as written.
        paths: Vec<String>,
    },
    /// `keys` in the order they are tried; never empty.
    RestoreCache {
        /// Templates of keys, each of which also finds keys that begin with it.
        keys: Vec<String>,
    },
    /// `persist_to_workspace`: files are handed to the jobs that come after this one.
    PersistToWorkspace {
        /// Directory that `paths` are relative to.
        root: String,
        /// Globs below `root`.
        paths: Vec<String>,
    },
    /// `attach_workspace`: the files of the jobs before this one.
    AttachWorkspace {
        /// Directory that they are written to.
        at: String,
    },
    /// `store_artifacts`: files are kept for people.
    StoreArtifacts {
        /// File or directory, as written.
        path: String,
        /// Name below which they are kept; `None` means the path.
        destination: Option<String>,
    },
    /// `store_test_results`: JUnit reports are read and kept.
    StoreTestResults {
        /// File or directory, as written.
        path: String,
    },
    /// `add_ssh_keys`: keys for the job's own `ssh`.
    AddSshKeys {
        /// Keys to add; empty means all.
        fingerprints: Vec<String>,
    },
    /// `install_signing_bundle`: signing for macOS builds.
    InstallSigningBundle,
    /// A command of a registry orb that is not here; skipped with a warning.
    OrbCommand {
        /// The orb's reference.
        orb: String,
        /// Name of the command in the orb.
        command: String,
    },
}

impl StepKind {
    /// The step's key in the config.
    pub fn key(&self) -> &str {
        match self {
            Self::Run(run) if run.deploy => "deploy",
            Self::Run(_) => "run",
            Self::Checkout(_) => "checkout",
            Self::SetupRemoteDocker { .. } => "setup_remote_docker",
            Self::SaveCache { .. } => "save_cache",
            Self::RestoreCache { .. } => "restore_cache",
            Self::PersistToWorkspace { .. } => "persist_to_workspace",
            Self::AttachWorkspace { .. } => "attach_workspace",
            Self::StoreArtifacts { .. } => "store_artifacts",
            Self::StoreTestResults { .. } => "store_test_results",
            Self::AddSshKeys { .. } => "add_ssh_keys",
            Self::InstallSigningBundle => "install_signing_bundle",
            Self::OrbCommand { command, .. } => command,
        }
    }
}

/// A `run` step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Run {
    /// Text that the shell runs.
    pub command: String,
    /// Shell with its flags; `None` means the job's.
    pub shell: Option<String>,
    /// Variables of this step alone.
    pub environment: Variables,
    /// Where the command starts; `None` means the job's working directory.
    pub working_directory: Option<String>,
    /// The next step does not wait for its end.
    pub background: bool,
    /// In milliseconds.
    #[serde(with = "millis")]
    #[cfg_attr(feature = "schema", schemars(with = "u64"))]
    pub no_output_timeout: Duration,
    /// 0 to 5 further attempts.
    pub max_auto_reruns: u32,
    /// In milliseconds.
    #[serde(with = "millis")]
    #[cfg_attr(feature = "schema", schemars(with = "u64"))]
    pub auto_rerun_delay: Duration,
    /// Written as the deprecated `deploy`.
    pub deploy: bool,
}

impl Run {
    /// A plain `run: COMMAND`.
    pub fn new(command: impl Into<String>) -> Self {
        Self {
            command: command.into(),
            shell: None,
            environment: Vec::new(),
            working_directory: None,
            background: false,
            no_output_timeout: DEFAULT_NO_OUTPUT_TIMEOUT,
            max_auto_reruns: 0,
            auto_rerun_delay: Duration::ZERO,
            deploy: false,
        }
    }
}

/// A `checkout` step.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Checkout {
    /// Relative to the job's working directory; `None` is the directory itself.
    pub path: Option<String>,
    /// How much of the history is fetched.
    pub method: CheckoutMethod,
}

/// How much of the history `checkout` fetches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CheckoutMethod {
    /// All commits; a file's content when it is needed.
    #[default]
    Blobless,
    /// All commits with all files.
    Full,
    /// The newest commits only.
    Shallow {
        /// Number of commits.
        depth: u32,
    },
}

/// Durations as whole milliseconds.
pub(crate) mod millis {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Ok(Duration::from_millis(u64::deserialize(deserializer)?))
    }
}
