//! The first process of a machine, as `/init` of its initial file system: from the kernel to the machine's own root.
//!
//! ```text
//! /proc /sys /dev ─▶ modules of /modules/list, in order ─▶ console ─▶ root device ─▶ mounted, grown ─▶ supervisor laid down
//!      ─▶ mounts moved, initial files removed ─▶ root changed ─▶ navvy.init=own:  further mounts ─▶ navvy-supervisor guest
//!                                                             └▶ navvy.init=PATH: that program (systemd)
//! ```
//!
//! The initial file system holds this program as `/init`, the list and its modules, and nothing else. Of the kernel's command
//! line it takes `navvy.root=/dev/vda`, `navvy.init=own` and `console=`. What fails is said on the console, and the machine is
//! switched off: no one could reach it.

mod root;

use std::convert::Infallible;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use navvy_protocol::place;

use crate::exec::launch::DEFAULT_PATH;
use crate::guest::power;
use crate::kernel;

const MODULES: &str = "/modules";
const CONSOLE_LIMIT: Duration = Duration::from_secs(2);
/// As systemd sets it.
const DESCRIPTORS: (u64, u64) = (65_536, 1 << 20);

/// Standard error is the console.
static HAS_CONSOLE: AtomicBool = AtomicBool::new(false);

/// What failed, and why.
pub struct Fault {
    what: String,
    why: io::Error,
}

/// For `map_err`: what could not be done.
fn cannot(what: impl Into<String>) -> impl FnOnce(io::Error) -> Fault {
    let what = what.into();
    move |why| Fault { what, why }
}

/// What the kernel's command line says.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    root: String,
    /// `None`: our own.
    init: Option<String>,
    console: String,
}

impl Wanted {
    fn parse(line: &str) -> Self {
        let last = |name: &str| {
            let mut values =
                line.split_ascii_whitespace().filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            values.next_back().filter(|value| !value.is_empty()).map(str::to_owned)
        };
        let console = last("console").unwrap_or_else(|| "hvc0".to_owned());
        Self {
            root: last("navvy.root").unwrap_or_else(|| "/dev/vda".to_owned()),
            init: last("navvy.init").filter(|init| init != "own"),
            // As in ttyS0,115200.
            console: console.split(',').next().unwrap_or_default().to_owned(),
        }
    }
}

pub fn main() -> ExitCode {
    power::off_on_panic();
    let Err(fault) = run();
    say(&format!("cannot {}: {}", fault.what, fault.why));
    power::off();
    ExitCode::FAILURE
}

fn run() -> Result<Infallible, Fault> {
    let devices = libc::MS_NOSUID | libc::MS_NOEXEC;
    for (kind, path, flags) in
        [("devtmpfs", "/dev", devices), ("proc", "/proc", root::SAFE), ("sysfs", "/sys", root::SAFE)]
    {
        mount(kind, path, flags, "").map_err(cannot(format!("mount {path}")))?;
    }
    let wanted = Wanted::parse(&fs::read_to_string("/proc/cmdline").map_err(cannot("read /proc/cmdline"))?);
    let unloaded = load_modules();
    open_console(&wanted.console);
    unloaded.iter().for_each(|line| say(line));
    root::enter(&wanted.root)?;
    match &wanted.init {
        None => become_guest(),
        Some(init) => Err(start(Command::new(init), init)),
    }
}

fn mount(kind: &str, path: &str, flags: libc::c_ulong, data: &str) -> io::Result<()> {
    fs::create_dir_all(path)?;
    match kernel::mount(kind, Path::new(path), kind, flags, data) {
        // The kernel itself has mounted it.
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(()),
        mounted => mounted,
    }
}

/// What could not be loaded, for the console: without it the machine may do all the same.
fn load_modules() -> Vec<String> {
    let list = match fs::read_to_string(Path::new(MODULES).join("list")) {
        Ok(list) => list,
        Err(error) => return vec![format!("cannot read {MODULES}/list: {error}")],
    };
    let names = list.lines().map(str::trim).filter(|name| !name.is_empty());
    let load = |name: &str| File::open(Path::new(MODULES).join(name)).and_then(|file| kernel::load_module(&file));
    names
        .filter_map(|name| match load(name) {
            Err(error) if error.raw_os_error() != Some(libc::EEXIST) => Some(format!("cannot load {name}: {error}")),
            _ => None,
        })
        .collect()
}

/// The console's driver may be one of the modules.
fn open_console(name: &str) {
    let path = Path::new("/dev").join(name);
    let deadline = Instant::now() + CONSOLE_LIMIT;
    loop {
        let opened = File::options().read(true).write(true).custom_flags(libc::O_NOCTTY).open(&path);
        if let Ok(console) = opened {
            let done = kernel::become_standard(&console);
            return HAS_CONSOLE.store(done.is_ok(), Ordering::Release);
        }
        if Instant::now() >= deadline {
            return say(&format!("there is no console {}", path.display()));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// On the console, and in the kernel's log where there is none.
fn say(text: &str) {
    let line = format!("navvy-supervisor boot: {text}\n");
    let is_said = HAS_CONSOLE.load(Ordering::Acquire) && io::stderr().write_all(line.as_bytes()).is_ok();
    if !is_said && let Ok(mut log) = File::options().write(true).open("/dev/kmsg") {
        // Nobody is left to tell.
        let _ = log.write_all(line.as_bytes());
    }
}

/// The rest of what a Linux has, in the place of an init of its own.
fn become_guest() -> Result<Infallible, Fault> {
    for (kind, path, flags, data) in [
        ("tmpfs", "/run", libc::MS_NOSUID | libc::MS_NODEV, "mode=0755"),
        ("devpts", "/dev/pts", libc::MS_NOSUID | libc::MS_NOEXEC, "gid=5,mode=620,ptmxmode=666"),
        ("tmpfs", "/dev/shm", libc::MS_NOSUID | libc::MS_NODEV, "mode=1777"),
        ("mqueue", "/dev/mqueue", root::SAFE, ""),
        ("cgroup2", "/sys/fs/cgroup", root::SAFE, "nsdelegate"),
    ] {
        if let Err(error) = mount(kind, path, flags, data) {
            // A step that needs it says so.
            say(&format!("cannot mount {path}: {error}"));
        }
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        let _ = symlink(target, Path::new("/dev").join(name));
    }
    for (path, mode) in [("/run/lock", 0o1777), ("/run/user", 0o755), ("/tmp", 0o1777), ("/var/tmp", 0o1777)] {
        let made = fs::create_dir_all(path).and_then(|()| fs::set_permissions(path, PermissionsExt::from_mode(mode)));
        made.unwrap_or_else(|error| say(&format!("cannot make {path}: {error}")));
    }
    kernel::limit_descriptors(DESCRIPTORS.0, DESCRIPTORS.1)
        .unwrap_or_else(|error| say(&format!("cannot raise limits: {error}")));
    let mut command = Command::new(place::SUPERVISOR);
    command.arg("guest");
    Err(start(command, place::SUPERVISOR))
}

/// Returns only when it could not be started.
fn start(mut command: Command, name: &str) -> Fault {
    let keep = |name: &OsStr| name == "container";
    for (name, _) in std::env::vars_os() {
        if !keep(&name) {
            command.env_remove(name);
        }
    }
    let why = command.env("PATH", DEFAULT_PATH).env("HOME", "/root").env("TERM", "linux").exec();
    Fault { what: format!("start {name}"), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_of_the_kernel() {
        let wanted = Wanted::parse("console=tty0 quiet console=ttyS0,115200 navvy.root=/dev/vdb navvy.init=/sbin/init");
        assert_eq!((wanted.root.as_str(), wanted.console.as_str()), ("/dev/vdb", "ttyS0"));
        assert_eq!(wanted.init.as_deref(), Some("/sbin/init"));
        for line in ["", "navvy.init=own", "navvy.init= navvy.root= xnavvy.root=/dev/no"] {
            let wanted = Wanted::parse(line);
            assert_eq!(
                (wanted.root.as_str(), wanted.init, wanted.console.as_str()),
                ("/dev/vda", None, "hvc0"),
                "{line}"
            );
        }
    }
}
