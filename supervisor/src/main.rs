//! `navvy-supervisor` inside a job's environment: starts steps, holds their terminals, serves the agent.
//!
//! ```text
//! navvy-supervisor init   main process of the primary container   [init], [control], [exec], [files]
//! navvy-supervisor dial   the control socket over stdin, stdout   [dial]
//! navvy-supervisor guest  the same as init, for a machine         [guest]
//! navvy-supervisor boot   first process of a machine, as /init    [boot]
//! circleci …              the in-job command line                 [cli]
//! ```
//!
//! On disk: `RUN_DIR/control.sock` (uid 0 and the agent), `RUN_DIR/job.sock` (every step), `RUN_DIR/secret` (read
//! once, removed). It reads `/etc/passwd`, `/etc/group`, `/proc` and its cgroup's counters, and writes only what
//! the agent asks for, as the user the agent names. What a machine's supervisor touches beside that stands in [guest] and
//! [boot].

mod boot;
mod capable;
mod cgroup;
mod cli;
mod continuation;
mod control;
mod dial;
mod exec;
mod failure;
mod files;
mod forward;
mod guest;
mod hold;
mod init;
mod kernel;
mod mux;
mod proc;
mod relay;
mod secret;
mod sys;
mod users;

use std::path::Path;
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard};

use navvy_protocol::place;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
    let called = arguments.next().unwrap_or_default();
    let name = Path::new(&called).file_name().unwrap_or_default();
    let arguments: Vec<String> = arguments.collect();
    if place::CLI_NAMES.iter().any(|cli| name == *cli) {
        return cli::main(&arguments);
    }
    if name == "init" && sys::pid() == 1 && arguments.first().is_none_or(|mode| mode != "init") {
        return boot::main();
    }
    match arguments.split_first() {
        Some((mode, [])) if mode == "boot" => boot::main(),
        Some((mode, rest)) if mode == "guest" => guest::main(rest),
        Some((mode, rest)) if mode == "init" => init::main(rest),
        Some((mode, rest)) if mode == "dial" => dial::main(rest),
        Some((mode, rest)) if mode == "cli" => cli::main(rest),
        Some((mode, [])) if mode == "--version" => cli::say(&format!("{}\n", env!("CARGO_PKG_VERSION"))),
        _ => cli::complain(cli::USAGE, "usage: navvy-supervisor init | dial | guest | boot | cli …  (see docs)"),
    }
}

/// A poisoned lock is taken all the same: with `panic = "abort"` it cannot occur, and tests shall continue.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
