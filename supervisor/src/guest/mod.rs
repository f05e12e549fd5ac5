//! The supervisor of a virtual machine: it becomes the machine that a seed says, and then serves its agent.
//!
//! ```text
//! navvy.seed ── lines ─▶ [`seed`]: Ready ─▶ Warm*  ─▶ Seed ─▶ checked ─▶ applied ─▶ Seeded    (once; a second one is refused)
//! SEED_SOCKET ─┘         (far machines)                            │
//!                                                                  ├─▶ control.sock, job.sock    as in a container
//!                                                                  └─▶ navvy.mux ── [`port`] ─▶ channels: the agent's
//! main thread: reap, wait for a reason to end ─▶ stop all ─▶ power off
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | [`seed`] | the conversation on the seed's port, and on the seed's socket |
//! | [`check`] | is a seed one that can be applied? Nothing is touched before |
//! | [`apply`] | clock, entropy, names, keys, files, and the order of it all |
//! | [`network`], [`volume`] | a link's addresses and routes; disks by their serial numbers |
//! | [`services`], [`program`] | the ssh server and the Docker engine; programs that are waited for |
//! | [`port`], [`find`] | channels on the machine's port; where ports are |
//! | [`bounds`] | what steps may take of the machine, so that something is left for us |
//! | [`power`] | the machine's end, panics included |
//!
//! As first process it is the machine's init, too: [`crate::boot`] has mounted everything. Where systemd is, it is one of its
//! services. Until it is seeded nothing here differs from the machine's siblings, so that a snapshot can be taken.

mod apply;
mod bounds;
mod check;
mod find;
mod network;
mod port;
pub mod power;
mod program;
mod seed;
mod services;
mod volume;

pub use volume::grow;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use navvy_protocol::{guest, place};

use crate::init::{self, Init};
use crate::sys::THREAD_STACK;
use crate::{cli, failure, kernel, sys};

use services::Services;

/// How long the answer to the last request may take through the port: with the machine it would be gone.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Of which machine, and where its files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    run_dir: PathBuf,
    /// Instead of the ports that the kernel names.
    seed_port: Option<PathBuf>,
    mux_port: Option<PathBuf>,
    seed_socket: PathBuf,
    /// Files of a seed are written below it.
    root: PathBuf,
    /// For tests: this is no machine of our own. Clock, random numbers, names, network, disks and services stay as they
    /// are, and nothing is switched off.
    is_trial: bool,
}

impl Settings {
    fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut settings = Self {
            run_dir: place::RUN_DIR.into(),
            seed_port: None,
            mux_port: None,
            seed_socket: guest::SEED_SOCKET.into(),
            root: "/".into(),
            is_trial: false,
        };
        let mut rest = arguments.iter();
        while let Some(name) = rest.next() {
            let mut value = || rest.next().map(PathBuf::from).ok_or(format!("{name} needs a value"));
            match name.as_str() {
                "--run-dir" => settings.run_dir = value()?,
                "--seed-port" => settings.seed_port = Some(value()?),
                "--mux-port" => settings.mux_port = Some(value()?),
                "--seed-socket" => settings.seed_socket = value()?,
                "--trial-below" => (settings.root, settings.is_trial) = (value()?, true),
                _ => return Err(format!("unknown argument {name:?}")),
            }
        }
        Ok(settings)
    }

    /// A path of the machine's, where it really is.
    fn below_root(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

/// What the threads of a guest share.
struct Guest {
    settings: Settings,
    init: Arc<Init>,
    services: Services,
    stage: Mutex<Stage>,
    /// The machine's port has nothing under way.
    is_told: AtomicBool,
}

/// How far the machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It is like its siblings.
    Fresh,
    /// A seed is being applied, or was applied in part.
    Begun,
    /// It is a task's.
    Seeded,
}

pub fn main(arguments: &[String]) -> ExitCode {
    let settings = match Settings::parse(arguments) {
        Ok(settings) => settings,
        Err(message) => return cli::complain(cli::USAGE, &format!("navvy-supervisor guest: {message}")),
    };
    let is_trial = settings.is_trial;
    if !is_trial {
        power::off_on_panic();
    }
    let code = match serve(settings) {
        Ok(code) => ExitCode::from(code),
        Err(error) => cli::complain(1, &format!("navvy-supervisor guest: {}", failure::text(&error))),
    };
    if !is_trial {
        power::off();
    }
    code
}

fn serve(settings: Settings) -> io::Result<u8> {
    let signals = init::prepare()?;
    if sys::pid() == 1 {
        // The machine runs without, too.
        let _ = kernel::Link::new("lo").and_then(|link| link.set_up(true));
        // A job that eats all memory would have the kernel forget our program page by page, and read it again for each call.
        let _ = kernel::stay_in_memory();
    }
    let group = if settings.is_trial { None } else { bounds::make() };
    let init = Arc::new(Init::of_machine(group)?);
    let services = Services::new(Arc::clone(&init));
    let guest =
        Arc::new(Guest { settings, init, services, stage: Mutex::new(Stage::Fresh), is_told: AtomicBool::new(true) });
    let on_port = Arc::clone(&guest);
    spawn(move || seed::serve_port(&on_port))?;
    let on_socket = Arc::clone(&guest);
    spawn(move || seed::serve_socket(&on_socket))?;
    let code = init::watch(&guest.init, &signals);
    let deadline = Instant::now() + LAST_WORDS;
    while !guest.is_told.load(Ordering::Acquire) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
    for name in [place::CONTROL_SOCKET, place::JOB_SOCKET] {
        let _ = std::fs::remove_file(guest.settings.run_dir.join(name));
    }
    Ok(code)
}

fn spawn(body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().stack_size(THREAD_STACK).spawn(body).map(drop)
}

/// A line on the machine's console.
fn say(text: &str) {
    cli::complain(0, &format!("navvy-supervisor: {text}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        let parse = |arguments: &[&str]| {
            Settings::parse(&arguments.iter().map(|&argument| argument.to_owned()).collect::<Vec<_>>())
        };
        let settings = parse(&["--run-dir", "/r", "--trial-below", "/t"]).unwrap();
        assert_eq!((settings.run_dir.as_path(), settings.is_trial), ("/r".as_ref(), true));
        assert_eq!(settings.below_root("/etc/hosts"), PathBuf::from("/t/etc/hosts"));
        assert!(!parse(&[]).unwrap().is_trial);
        assert!(parse(&["--seed-port"]).is_err() && parse(&["--what"]).is_err());
    }
}
