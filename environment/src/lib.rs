//! What every environment has in common, and the way to its supervisor.
//!
//! ```text
//! Prepare ─▶ plan (pure) ─▶ run directory, supervisor's binary ─▶ … an environment that uses both …
//!                                                                     │
//!            supervisor::Client ◀─ link ◀──────────────── its socket ─┘     survey: whose tasks are on this host
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`request`] | what is asked of an environment, and what it reports |
//! | [`mod@plan`] | the container plan (pure) |
//! | [`egress`], [`authorities`], [`allowed`] | how jobs reach the outside: proxies and CA certificates that they are given, what is opened to them |
//! | [`run_dir`], [`supervisor_binary`] | what an environment shares with this host |
//! | [`cgroup`] | a task's parent cgroup, where it can be had |
//! | [`hold`] | a task that outlives its process, and who takes it over |
//! | [`link`] | the way to the supervisor where this host shares its socket |
//! | [`mux_link`] | the way to the supervisor where one stream of bytes carries all activities |
//! | [`supervisor`] | a client of the program `navvy-supervisor`: this side of its socket |
//! | [`survey`] | tasks on this host, by their marks and journals |
//! | [`command`] | the one way to run a program of this machine |

#![warn(missing_docs)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

pub mod allowed;
pub mod authorities;
pub mod cgroup;
pub mod command;
pub mod egress;
pub mod hold;
pub mod link;
pub mod mux_link;
pub mod plan;
pub mod request;
pub mod run_dir;
pub mod supervisor;
pub mod supervisor_binary;
pub mod survey;

/// Places on this machine that an environment needs to know. Read from settings once, never from the process's own
/// environment later.
#[derive(Debug, Clone)]
pub struct HostPaths {
    /// Navvy's own state: `$XDG_STATE_HOME/navvy`. The supervisor's copies live in `bin/` below it.
    pub state: PathBuf,
    /// `$XDG_RUNTIME_DIR`, if it is set.
    pub runtime: Option<PathBuf>,
    /// `$DOCKER_CONFIG`, else `~/.docker`.
    pub docker_config: Option<PathBuf>,
    /// Where programs are looked for (credential helpers): `$PATH`.
    pub search_path: String,
    /// The supervisor to put into environments; `None` means the one beside this program.
    pub supervisor: Option<PathBuf>,
}

impl HostPaths {
    /// As the environment variables say. `home` is the user's home directory.
    pub fn new(environment: &BTreeMap<String, String>, home: Option<&Path>) -> Self {
        let set = |name: &str| environment.get(name).filter(|value| !value.is_empty());
        let home_or_root = home.unwrap_or(Path::new("/"));
        let state_home = set("XDG_STATE_HOME").map_or_else(|| home_or_root.join(".local/state"), PathBuf::from);
        Self {
            state: state_home.join("navvy"),
            runtime: set("XDG_RUNTIME_DIR").map(PathBuf::from),
            docker_config: set("DOCKER_CONFIG").map(PathBuf::from).or_else(|| home.map(|home| home.join(".docker"))),
            search_path: command::search_path(set("PATH").map(OsStr::new)),
            supervisor: None,
        }
    }
}
