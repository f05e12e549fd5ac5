//! A `dockerd` of a story's own.
//!
//! It lives in its own mount, network and process namespaces below a small init: nothing of it outlasts it, it cannot
//! touch the machine's own engine, and killing `dockerd` alone leaves its containers running, as on a real machine.
//! Its images are kept from one run of the stories to the next.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use crate::deadline::{eventually, seldom};
use crate::docker::Docker;
use crate::program::Program;
use crate::sys::{self, Signal};

const DATA: &str = "/var/lib/navvy-tests";
const RUNTIME: &str = "/run/navvy-tests";
/// The directory for runs' sockets in that of a near engine.
const SOCKETS: &str = "agents";
const START_LIMIT: Duration = Duration::from_secs(60);
/// What stories on such an engine run in.
const IMAGES: [&str; 3] = ["navvy/busybox:static", "navvy/base:bookworm", "navvy/postgres:15"];
/// Places of the agent's files, which a far engine does not see.
const HIDDEN: [&str; 3] = ["/tmp", "/run/navvy", "/root"];

/// Shared by all stories; it ends with their process.
static FAR: Mutex<Option<Arc<PrivateEngine>>> = Mutex::new(None);
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A `dockerd` of one's own. Ends with everything in it when dropped.
#[derive(Debug)]
pub struct PrivateEngine {
    /// `unshare`, whose end ends the namespace.
    outer: Child,
    runtime: PathBuf,
    socket: PathBuf,
    /// For the sockets of runs, where the engine is near.
    sockets: Option<PathBuf>,
    /// Of its data directory, where that is kept.
    _lock: Option<File>,
}

impl PrivateEngine {
    /// Sees none of the agent's files, as an engine on another machine or in a virtual one.
    #[track_caller]
    pub fn far() -> Arc<Self> {
        let mut shared = FAR.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Arc::clone(shared.get_or_insert_with(|| Arc::new(Self::far_alone())))
    }

    /// The same, but nobody else uses it, so that it may be killed.
    #[track_caller]
    pub fn far_alone() -> Self {
        Self::start(&HIDDEN)
    }

    /// Sees the files of this machine; nobody else uses it, so that it may be killed.
    #[track_caller]
    pub fn near() -> Self {
        Self::start(&[])
    }

    /// The same, with its data in this directory and this image alone.
    #[track_caller]
    pub fn near_with_data_at(data: &Path, image: &str) -> Self {
        Self::start_on(data, None, &[], &[image])
    }

    #[track_caller]
    fn start(hidden: &[&str]) -> Self {
        let (data, lock) = free_data();
        Self::start_on(&data, Some(lock), hidden, &IMAGES)
    }

    #[track_caller]
    fn start_on(data: &Path, lock: Option<File>, hidden: &[&str], images: &[&str]) -> Self {
        assert!(sys::is_root(), "only root can start an engine: run the stories as root");
        remove_stale();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let runtime = PathBuf::from(RUNTIME).join(format!("{}-{number}", std::process::id()));
        fs::create_dir_all(&runtime).expect("/run is writable");
        let sockets = hidden.is_empty().then(|| shared_directory(&runtime));
        let script = script(data, &runtime, hidden);
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare"]);
        // A near engine sees what the agent mounts, as the machine's own does.
        let propagation = if hidden.is_empty() { "slave" } else { "private" };
        command.args(["--mount", "--propagation", propagation]);
        command.args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", &script]);
        // A Ctrl-C at the terminal of the stories is not meant for it.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let outer = spawn_for_life(command);
        let engine = Self { outer, socket: runtime.join("sock"), runtime, sockets, _lock: lock };
        engine.answers();
        engine.remove_left();
        for image in images {
            engine.docker().load_from_machine(image);
        }
        engine
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Where it sees what runs mount after its start, too; a far engine has no such place.
    pub fn sockets(&self) -> Option<&Path> {
        self.sockets.as_deref()
    }

    pub fn docker(&self) -> Docker {
        Docker::at(self.address())
    }

    /// `unix:///…`
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Its network, where its loopback and its bridges are.
    #[track_caller]
    pub(crate) fn network(&self) -> File {
        File::open(format!("/proc/{}/ns/net", self.pid())).expect("a process has a network")
    }

    /// Kills `dockerd` alone, as a crash would.
    pub fn crash(&self) {
        sys::signal(self.pid(), Signal::Kill);
    }

    /// Of `dockerd`.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        eventually("the pid of dockerd", START_LIMIT, || dockerd_below(self.outer.id()))
    }

    /// Starts it again after a crash, on what that has left.
    #[track_caller]
    pub fn restart(&self) {
        fs::write(self.runtime.join("again"), "").expect("/run is writable");
        self.answers();
    }

    /// What an earlier story on the same data has left of its tasks: one that failed, or was killed, takes nothing away.
    #[track_caller]
    fn remove_left(&self) {
        let docker = self.docker();
        for container in docker.lines(&["ps", "--all", "--quiet", "--filter", "label=dev.navvy.task"]) {
            docker.ask(&["rm", "--force", "--volumes", &container]).succeeded();
        }
        for volume in docker.lines(&["volume", "ls", "--quiet", "--filter", "label=dev.navvy.task"]) {
            docker.ask(&["volume", "rm", &volume]).succeeded();
        }
    }

    #[track_caller]
    fn answers(&self) {
        seldom("a dockerd of the story's own answers", START_LIMIT, || {
            let answer = self.docker().ask(&["version", "--format", "{{.Server.Version}}"]);
            (answer.exit_code == Some(0)).then_some(())
        });
    }
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        self.outer.kill().ok();
        self.outer.wait().ok();
        unmount(&self.runtime);
        fs::remove_dir_all(&self.runtime).ok();
    }
}

/// Starts a program whose death signal comes with the end of this process: it is tied to the thread that has started
/// it, and that one stays.
fn spawn_for_life(mut command: Command) -> Child {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        sender.send(command.spawn()).expect("the story waits for it");
        loop {
            thread::park();
        }
    });
    receiver.recv().expect("the thread answers").expect("util-linux is installed")
}

/// A data directory that no other process of stories uses now.
fn free_data() -> (PathBuf, File) {
    fs::create_dir_all(DATA).expect("/var/lib is writable");
    for number in 0..16 {
        let lock = File::create(Path::new(DATA).join(format!("lock-{number}"))).expect("a lock can be made");
        match lock.try_lock() {
            Ok(()) => return (Path::new(DATA).join(format!("engine-{number}")), lock),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => panic!("{DATA}: {error}"),
        }
    }
    panic!("16 engines of stories are in use");
}

/// A directory whose later mounts reach namespaces made from this one. `/` itself does so only where an init like
/// systemd has made it shared.
#[track_caller]
fn shared_directory(runtime: &Path) -> PathBuf {
    let directory = runtime.join(SOCKETS);
    DirBuilder::new().mode(0o700).create(&directory).expect("/run is writable");
    Program::new("mount").args([OsStr::new("--bind"), directory.as_os_str(), directory.as_os_str()]).run().succeeded();
    Program::new("mount").args([OsStr::new("--make-shared"), directory.as_os_str()]).run().succeeded();
    directory
}

/// The shared directory of an engine, if it has one, and all that is left below.
fn unmount(runtime: &Path) {
    let directory = runtime.join(SOCKETS);
    if directory.exists() {
        let _answer = Program::new("umount").args([OsStr::new("--lazy"), directory.as_os_str()]).run();
    }
}

/// What engines of processes that are no more have left in `/run`.
fn remove_stale() {
    for entry in fs::read_dir(RUNTIME).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.split('-').next().unwrap_or_default();
        if !Path::new("/proc").join(pid).exists() {
            unmount(&entry.path());
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}

/// The init of the engine's namespaces.
fn script(data: &Path, runtime: &Path, hidden: &[&str]) -> String {
    let mut script = String::from("ip link set lo up\n");
    for place in hidden {
        script.push_str(&format!("mkdir -p {place} && mount -t tmpfs none {place}\n"));
    }
    let (data, runtime) = (data.display(), runtime.display());
    script.push_str(&format!(
        "while :; do\n\
         rm -f {runtime}/again {runtime}/pid\n\
         dockerd --data-root {data} --exec-root {runtime}/exec --pidfile {runtime}/pid --host unix://{runtime}/sock \
         >>{runtime}/log 2>&1 &\n\
         wait\n\
         until [ -e {runtime}/again ]; do sleep 0.05; done\n\
         done\n"
    ));
    script
}

/// `dockerd`, two below `unshare`, by this namespace's numbers.
fn dockerd_below(outer: u32) -> Option<u32> {
    let init = children(outer).ok()?.first().copied()?;
    let name = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    children(init).ok()?.into_iter().find(|pid| name(pid).trim() == "dockerd")
}

fn children(pid: u32) -> io::Result<Vec<u32>> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    Ok(text.split_whitespace().filter_map(|number| number.parse().ok()).collect())
}
