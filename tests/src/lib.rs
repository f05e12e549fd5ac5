//! Harness for end-to-end stories: what only the programs together can show, told from outside.
//!
//! | noun | what it is |
//! |---|---|
//! | [`Bench`] | a project with a git repository, a home and a state directory of its own, and an engine to run on |
//! | [`Run`] | `navvy run` on its way, its events as they come |
//! | [`Finished`] | what came of it: exit code, events, logs, texts |
//! | [`Setting`] | as whom and on which engine a story is told: [`everywhere!`] tells it in all of them |
//! | [`PrivateEngine`] | a `dockerd` of the story's own, in its own namespaces, that may be killed |
//! | [`Network`] | where a bench's engine is reached from and reaches others |
//! | [`Proxy`] | a TCP port in front of an engine's socket whose connections can be cut |
//! | [`Trap`] | a unix socket in front of an engine's that kills its client at a chosen request, or holds requests back |
//! | [`GitServer`] | `git daemon` where jobs reach it |
//! | [`Registry`] | Debian's `docker-registry` on loopback, with or without a password; [`IllRegistry`] answers 503 |
//! | [`ObjectStore`] | a real S3 server on loopback, signatures on |
//! | [`SshAgent`] | a real ssh-agent of whoever runs `navvy` |
//! | [`Clock`] | what programs read in place of the machine's clock; it can be set while they run |
//! | [`Crowd`] | connections that are there to be in the way |
//! | [`Fleet`] | a processor of the story's own, its runners, and what is said to it |
//! | [`Ending`] | how a task of a fleet must have ended, whatever broke meanwhile |
//! | [`SLOW`] | a step that prints for some seconds, so that something can break in its middle |
//! | [`Nomad`] | a real Nomad: a server, and clients with our driver |
//! | [`Postgres`] | a database of the story's own, which may fail in its middle |
//! | [`Gate`] | stands before an object store, decides the fate of requests, and signals a run at one |
//! | [`SmallDisk`] | a file system that fills up soon |
//! | [`Wire`] | a network between two programs on loopback, which can be cut and mended |
//! | [`StuckPipe`] | a named pipe that takes nothing more once it is filled |
//!
//! Everything waits for events or ends of processes, with a deadline. [`Run::finish`] also looks for what a run must
//! not leave behind: containers, volumes, cgroups, sockets.

mod bench;
mod clock;
mod crowd;
mod deadline;
mod docker;
mod engine;
mod event;
mod finished;
mod fleet;
mod fleet_end;
mod gate;
mod git_server;
pub mod hostile;
mod leaks;
mod memory;
mod network;
mod nomad;
mod object_store;
mod postgres;
mod pressure;
mod program;
mod proxy;
mod registry;
mod run;
mod scheduled;
mod screen;
mod slow;
mod small_disk;
mod ssh_agent;
mod stuck_pipe;
mod sys;
mod trap;
mod wire;

pub use bench::{Bench, Setting, program_of_ours};
pub use clock::Clock;
pub use crowd::Crowd;
pub use deadline::{eventually, seldom};
pub use docker::Docker;
pub use engine::PrivateEngine;
pub use event::Event;
pub use finished::{Finished, Step};
pub use fleet::{Fleet, Served, files_that_hold};
pub use fleet_end::{End, Ending};
pub use gate::{Asked, Fate, Gate};
pub use git_server::GitServer;
pub use memory::{Peak, figure};
pub use network::Network;
pub use nomad::{
    NOMAD_LIMIT, Nomad, NomadAgent, NomadSetup, SingleNomad, nomad_driver_tests, nomad_program, parameterized, text_of,
};
pub use object_store::ObjectStore;
pub use postgres::Postgres;
pub use pressure::Unhindered;
pub use program::{Answer, Program};
pub use proxy::Proxy;
pub use registry::{IllRegistry, Password, Registry};
pub use run::Run;
pub use scheduled::{Driven, Group};
pub use screen::Screen;
pub use slow::{SLOW, SLOW_LOG, printed_by_slow};
pub use small_disk::SmallDisk;
pub use ssh_agent::SshAgent;
pub use stuck_pipe::{StuckPipe, waits_for_stderr};
pub use sys::{Signal, signal};
pub use trap::{Last, Trap, When};
pub use wire::Wire;

use sha2::Digest as _;

/// As `sha256sum` prints it.
pub fn sha256(bytes: &[u8]) -> String {
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Tells a story by root on the machine's engine, by a user in group `docker`, and over TCP on an engine that sees
/// none of the agent's files.
#[macro_export]
macro_rules! everywhere {
    ($($(#[$meta:meta])* fn $name:ident($bench:ident: Bench) $body:block)+) => {
        $(
            $(#[$meta])*
            mod $name {
                #[allow(unused_imports, reason = "a story need not use anything of its theme")]
                use super::*;

                fn tell($bench: $crate::Bench) $body

                #[test]
                fn by_root() {
                    tell($crate::Bench::new());
                }

                #[test]
                fn by_a_user_in_group_docker() {
                    tell($crate::Bench::of($crate::Setting::User));
                }

                #[test]
                fn on_a_far_engine() {
                    tell($crate::Bench::of($crate::Setting::FarEngine));
                }
            }
        )+
    };
}
