//! A task whose agent is started by a scheduler's task driver: what the driver tells the agent beside the claim, and what the
//! agent tells the driver. Both sides write and read the same types; whose files they are stands in each type's text.
//!
//! ```text
//! directory of one Nomad task (0700, made and removed by the driver)
//!
//! driver ─▶ claim.json   token and task: read once and removed          agent
//!        ─▶ host.json    Host: where the task lives on this machine  ─▶
//!        ◀─ progress     Progress, a line each, appended             ◀─
//!        ◀─ exit.json    Exit: the agent's last act                  ◀─
//! ```
//!
//! An agent that was killed is started again on the same directory, finds no claim there, and goes on with what is left.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::resource::Size;

/// The form of the directory and of [`HostCheck`]. A driver and an agent work together if they have the same one.
pub const VERSION: u32 = 1;

/// Names of the files.
pub mod files {
    /// As `navvy agent --claim` reads it.
    pub const CLAIM: &str = "claim.json";
    /// A [`Host`](super::Host).
    pub const HOST: &str = "host.json";
    /// [`Progress`](super::Progress), a line each.
    pub const PROGRESS: &str = "progress";
    /// An [`Exit`](super::Exit).
    pub const EXIT: &str = "exit.json";
}

/// Where a task lives on its machine. Written by the driver before it starts an agent, and kept as long as the task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// [`VERSION`].
    pub version: u32,
    /// The processor's address.
    pub processor: String,
    /// File with the authority of the processor's certificate (PEM). `None`: the machine's own authorities.
    pub processor_ca: Option<PathBuf>,
    /// The task's id.
    pub task: String,
    /// The cgroup that holds the whole task, as a path below each hierarchy's root: `/nomad/ALLOC.TASK`. The driver has made it
    /// where it can be made, and set the limits of the whole task there. The agent moves itself into it (version 2: into a leaf
    /// `agent` below), and the environment makes its own below it. `None`: this machine gives tasks no cgroup.
    pub cgroup: Option<String>,
    /// What the whole task may use; `None`: as its resource class says.
    pub size: Option<Size>,
    /// Most processes and threads at a time; `None`: as the claim says.
    pub pids: Option<u32>,
    /// A pipe for the output of steps, masked. `None`: it is not wanted here.
    pub stdout: Option<PathBuf>,
    /// A pipe for the agent's own log. Nobody may be reading: it never holds up the agent, and a reader that comes back gets what is
    /// written from then on. `None`: stderr.
    pub stderr: Option<PathBuf>,
    /// The kind of environment that the task is to have: `docker`, `vm`.
    pub environment: String,
}

/// Where a task has come to. For people, so it is short and seldom: an agent writes one at a change, not more than one a second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// One line: `Pulling image cimg/go:1.22`, `Step 3 of 7: Run tests`, `Uploading output`, `The job failed at step 3.`
    pub message: String,
}

/// How an agent ended that came to its end itself. Not there: it was killed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Its exit code: 0 if the task's end was reported, whatever it was.
    pub code: u8,
    /// What was told, in words for `nomad alloc status`: why it failed, or the task's verdict.
    pub message: String,
    /// The kernel killed a process of the task for want of memory.
    pub oom_killed: bool,
}

/// What a machine can do, as `navvy host check --json` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCheck {
    /// [`VERSION`].
    pub version: u32,
    /// The agent's own version: `0.1.0`.
    pub agent: String,
    /// The container engine's version.
    pub docker: Option<String>,
    /// Kinds of environments that work here: `docker`, `vm`.
    pub environments: Vec<String>,
    /// What does not, and what to do about it: a sentence each.
    pub problems: Vec<String>,
    /// Those of them that concern the environment `docker` alone. An older agent does not tell them apart.
    #[serde(default)]
    pub of_docker: Vec<String>,
    /// Why jobs get no virtual machine here. It is no problem where nobody wants any. `None`: they get one, or an older agent says
    /// nothing of it.
    #[serde(default)]
    pub no_machines: Option<String>,
    /// Virtual machines have the processor's help.
    pub kvm: bool,
    /// The whole machine, as the engine sees it.
    pub size: Size,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_says_more_than_this_agent_understands_is_refused() {
        let host = Host {
            version: VERSION,
            processor: "https://ci.example.com:8585".into(),
            processor_ca: None,
            task: "0123456789abcdef".into(),
            cgroup: Some("/nomad/a.b".into()),
            size: None,
            pids: None,
            stdout: None,
            stderr: None,
            environment: "docker".into(),
        };
        let text = serde_json::to_string(&host).unwrap();
        assert_eq!(serde_json::from_str::<Host>(&text).unwrap(), host);
        let unknown = text.replace("\"version\"", "\"only_network\":\"none\",\"version\"");
        assert!(
            serde_json::from_str::<Host>(&unknown).is_err(),
            "a limit that is not understood must not be passed over"
        );
    }
}
