//! The main process of the environment.
//!
//! ```text
//! settings ─▶ sockets bound ─▶ listener thread ──▶ a thread a connection ──▶ execs, files
//!                              main thread: reap, forward, wait for a reason to end
//! end: TERM or INT │ Shutdown │ entrypoint ended │ no call for too long         ─▶ stop all, exit
//! ```

mod entrypoint;
mod settings;
mod watch;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use navvy_protocol::in_job::Lack;

use crate::cgroup::Memory;
use crate::continuation::Desk;
use crate::control;
use crate::control::presence::Presences;
use crate::exec::launch::Apart;
use crate::exec::{self, Registry};
use crate::hold::Hold;
use crate::sys::{Event, Signals};
use crate::{capable, cli, failure, lock, relay, sys};

use settings::Settings;

/// How long everything has to end by itself when the environment ends.
const GRACE: Duration = Duration::from_secs(10);
/// What we would like the kernel to think of us when memory is short.
const OOM_SCORE: i32 = -500;

/// What all threads share.
pub struct Init {
    pub execs: Registry,
    pub memory: Memory,
    pub halted: AtomicBool,
    /// What the job asked for and only the service has.
    pub lacks: Mutex<BTreeSet<Lack>>,
    /// Exit code of the entrypoint, once it ended.
    pub main_ended: Mutex<Option<u8>>,
    pub presences: Arc<Presences>,
    pub hold: Hold,
    pub continuation: Desk,
    pub relays: relay::Desk,
    /// A machine learns it from its seed, once.
    pub secret: OnceLock<String>,
    /// The kernel tells us which callers are outside: we are the first process of a container.
    pub is_first: bool,
    /// The score that steps get back; `None` when ours is the same.
    pub oom_score: Option<i32>,
    group: Option<PathBuf>,
    /// Everything is being stopped: nothing is started anew.
    pub ending: AtomicBool,
    quit: Quit,
}

/// The reason to end, and its wake-up.
struct Quit {
    code: Mutex<Option<u8>>,
    event: Event,
}

impl Init {
    /// Ends the main thread with this exit code; the first reason counts.
    pub fn quit(&self, code: u8) {
        lock(&self.quit.code).get_or_insert(code);
        self.quit.event.raise();
    }

    /// Of a container.
    fn new(secret: Option<String>) -> io::Result<Self> {
        let init = Self { is_first: sys::pid() == 1, ..Self::of(Memory::find())? };
        // Nobody has set it before.
        secret.into_iter().for_each(|secret| init.secret.set(secret).unwrap_or_default());
        Ok(init)
    }

    /// Of a machine of its own, whose secret is not known yet.
    /// Its steps are of this cgroup.
    pub fn of_machine(group: Option<PathBuf>) -> io::Result<Self> {
        Ok(Self { group, ..Self::of(Memory::of_machine())? })
    }

    /// How steps are set apart from us.
    pub fn apart(&self) -> Apart<'_> {
        Apart { oom_score: self.oom_score, group: self.group.as_deref() }
    }

    fn of(memory: Memory) -> io::Result<Self> {
        Ok(Self {
            execs: Registry::default(),
            memory,
            halted: AtomicBool::new(false),
            lacks: Mutex::default(),
            main_ended: Mutex::new(None),
            presences: Arc::new(Presences::new()),
            hold: Hold::new()?,
            continuation: Desk::default(),
            relays: relay::Desk::default(),
            secret: OnceLock::new(),
            is_first: false,
            group: None,
            ending: AtomicBool::new(false),
            oom_score: lower_oom_score(),
            quit: Quit { code: Mutex::new(None), event: Event::new()? },
        })
    }
}

pub fn main(arguments: &[String]) -> ExitCode {
    let settings = match Settings::parse(arguments) {
        Ok(settings) => settings,
        Err(message) => return cli::complain(cli::USAGE, &format!("navvy-supervisor init: {message}")),
    };
    match serve(settings) {
        Ok(code) => ExitCode::from(code),
        Err(error) => cli::complain(1, &format!("navvy-supervisor init: {}", failure::text(&error))),
    }
}

/// Makes this process fit to stand above all others, before any thread is started.
pub fn prepare() -> io::Result<Signals> {
    sys::close_to_others();
    sys::limit_heap();
    sys::fill_standard_descriptors();
    sys::close_inherited_on_exec();
    sys::set_umask(0o022);
    std::env::set_current_dir("/")?;
    let signals = watch::block_signals()?;
    sys::become_subreaper();
    Ok(signals)
}

/// The exit code, once there is a reason to end and everything has been stopped.
pub fn watch(init: &Init, signals: &Signals) -> u8 {
    watch::until_the_end(init, signals, None)
}

fn serve(settings: Settings) -> io::Result<u8> {
    let started_in = std::env::current_dir();
    let signals = prepare()?;
    let init = Arc::new(Init::new(settings.take_secret()?)?);
    if init.is_first {
        capable::keep_startable();
    }
    control::listen(&init, &settings.run_dir, settings.idle_limit)?;
    let entrypoint = entrypoint::start(&settings, started_in.ok().as_deref(), init.oom_score)?;
    let code = watch::until_the_end(&init, &signals, entrypoint.as_ref());
    settings.clear_run_dir(init.is_first);
    Ok(code)
}

/// Asks the kernel to spare us. What steps must be set back to, if it did.
fn lower_oom_score() -> Option<i32> {
    const PATH: &str = "/proc/self/oom_score_adj";
    let before = std::fs::read_to_string(PATH).ok()?.trim().parse().ok()?;
    if before <= OOM_SCORE {
        return None;
    }
    std::fs::write(PATH, OOM_SCORE.to_string()).ok().map(|()| before)
}

/// Ends everything and then the main thread, with this exit code.
pub fn shut_down(init: &Init, grace: Duration, code: u8) {
    exec::stop_all(init, grace);
    init.quit(code);
}
