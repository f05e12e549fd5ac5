//! The machine's own services: the ssh server and the Docker engine, when the seed asks for them.
//!
//! As first process of the machine the supervisor starts them, and starts them again when they end. Where systemd is, it
//! does.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, lchown};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::exec::launch::{DEFAULT_PATH, find_program};
use crate::init::Init;
use crate::{failure, lock, sys, users};

use super::{program, say, spawn};

/// Before a service that has ended is started again; doubled each time.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_CAP: Duration = Duration::from_secs(30);
/// How long a service may take to end.
const END_LIMIT: Duration = Duration::from_secs(15);
/// How long systemd may take to hear that one is to be started.
const START_LIMIT: Duration = Duration::from_secs(120);
/// The Docker engine's socket.
const ENGINE: &str = "/run/docker.sock";
/// Where what services say is kept.
const LOGS: &str = "/var/log/navvy";

/// Something that runs beside the job's steps.
struct Service {
    name: &'static str,
    argv: &'static [&'static str],
    /// Its name for systemd.
    unit: &'static str,
    /// A socket that takes connections before the service does: they wait for it, and nobody finds nothing there.
    socket: Option<&'static str>,
}

const SSH: Service = Service { name: "sshd", argv: &["sshd", "-D", "-e"], unit: "ssh.service", socket: None };
const DOCKER: Service =
    Service { name: "dockerd", argv: &["dockerd", "-H", "fd://"], unit: "docker.service", socket: Some(ENGINE) };
/// Hands its stdin to a program as systemd hands over a socket: number 3, for this very process.
const HAND_OVER: &str = r#"exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@""#;

/// Those that were asked for.
pub struct Services {
    init: Arc<Init>,
    docker: Mutex<Option<Arc<Running>>>,
}

/// A service that is kept running.
struct Running {
    /// 0 while it does not run.
    pid: AtomicI32,
    /// Lives as long as it is wanted.
    wanted: Mutex<bool>,
}

impl Services {
    pub fn new(init: Arc<Init>) -> Self {
        Self { init, docker: Mutex::new(None) }
    }

    pub fn start_ssh(&self, variables: &[(String, String)]) -> io::Result<()> {
        // It insists on this directory.
        fs::DirBuilder::new().recursive(true).mode(0o755).create("/run/sshd")?;
        self.start(&SSH, variables).map(drop)
    }

    /// Is the engine running from before the seed?
    pub fn has_docker(&self) -> bool {
        lock(&self.docker).is_some()
    }

    pub fn start_docker(&self, variables: &[(String, String)]) -> io::Result<()> {
        let mut docker = lock(&self.docker);
        if docker.is_none() {
            *docker = Some(self.start(&DOCKER, variables)?);
        }
        Ok(())
    }

    /// Ends the engine, so that it can be started with other variables or on another disk.
    pub fn stop_docker(&self) -> io::Result<()> {
        let Some(running) = lock(&self.docker).take() else { return Ok(()) };
        if sys::pid() != 1 {
            return program::run(&["systemctl", "stop", DOCKER.unit, "docker.socket"], END_LIMIT);
        }
        *lock(&running.wanted) = false;
        let deadline = Instant::now() + END_LIMIT;
        let mut signal = libc::SIGTERM;
        loop {
            match running.pid.load(Ordering::Acquire) {
                0 => return Ok(()),
                // It may have ended just now.
                pid => sys::kill(pid, signal).unwrap_or_default(),
            }
            std::thread::sleep(Duration::from_millis(20));
            // A second TERM would have it end in a hurry.
            signal = if Instant::now() >= deadline { libc::SIGKILL } else { 0 };
        }
    }

    fn start(&self, service: &'static Service, variables: &[(String, String)]) -> io::Result<Arc<Running>> {
        let Some(path) = find_program(service.argv[0], DEFAULT_PATH) else {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("this image has no {}", service.name)));
        };
        let running = Arc::new(Running { pid: AtomicI32::new(0), wanted: Mutex::new(true) });
        if sys::pid() == 1 {
            let log = open_log(service.name)?;
            let (init, variables, kept) = (Arc::clone(&self.init), variables.to_vec(), Arc::clone(&running));
            let socket = service.socket.map(listen).transpose()?;
            spawn(move || keep_running(&init, service, &path, &variables, socket, &log, &kept))?;
        } else {
            hand_variables(service.unit, variables)?;
            // A systemd that is still starting takes its time to answer, and the machine is the task's without them, too.
            spawn(move || {
                let asked = program::run(&["systemctl", "start", "--no-block", service.unit], START_LIMIT);
                asked.unwrap_or_else(|error| say(&format!("cannot start {}: {}", service.name, failure::text(&error))));
            })?;
        }
        Ok(running)
    }
}

/// Variables of a service, where only uid 0 and systemd read them.
fn hand_variables(unit: &str, variables: &[(String, String)]) -> io::Result<()> {
    if variables.is_empty() {
        return Ok(());
    }
    let directory = format!("/run/systemd/system/{unit}.d");
    fs::create_dir_all(&directory)?;
    let file = format!("/run/navvy/{unit}.env");
    fs::create_dir_all("/run/navvy")?;
    let quoted = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"");
    let lines: String = variables.iter().map(|(name, value)| format!("{name}=\"{}\"\n", quoted(value))).collect();
    let mut made = File::options().write(true).create(true).truncate(true).mode(0o600).open(&file)?;
    made.write_all(lines.as_bytes())?;
    fs::write(format!("{directory}/navvy.conf"), format!("[Service]\nEnvironmentFile={file}\n"))
}

/// A socket for uid 0 and the group `docker`.
fn listen(path: &str) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    // Before this, nobody but uid 0 may write to it.
    let group = users::look_up(Some("0:docker")).map_or(0, |user| user.gid);
    lchown(path, Some(0), Some(group))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

fn open_log(name: &str) -> io::Result<File> {
    fs::create_dir_all(LOGS)?;
    File::options().append(true).create(true).mode(0o640).open(format!("{LOGS}/{name}.log"))
}

/// `path`: of its program. The ssh server starts itself anew by it.
fn keep_running(
    init: &Init,
    service: &Service,
    path: &str,
    variables: &[(String, String)],
    mut socket: Option<UnixListener>,
    log: &File,
    running: &Running,
) {
    let own = [path].into_iter().chain(service.argv[1..].iter().copied());
    let argv: Vec<&str> = match service.socket {
        Some(_) => ["/bin/sh", "-c", HAND_OVER, "sh"].into_iter().chain(own).collect(),
        None => own.collect(),
    };
    let mut pause = PAUSE;
    loop {
        let wanted = lock(&running.wanted);
        if !*wanted || init.ending.load(Ordering::Acquire) {
            return running.pid.store(0, Ordering::Release);
        }
        let begun = match (socket.take(), service.socket) {
            (None, Some(path)) => listen(path).map(Some),
            (socket, _) => Ok(socket),
        };
        // Our own copy is closed by then: who connects to a service that has ended is to be told.
        let begun = begun.and_then(|socket| program::start(&argv, variables, socket.map(OwnedFd::from), log));
        match begun {
            Ok(kept) => {
                running.pid.store(kept.step, Ordering::Release);
                drop(wanted);
                let code = program::ended(&kept, None).unwrap_or_default();
                running.pid.store(0, Ordering::Release);
                if *lock(&running.wanted) && !init.ending.load(Ordering::Acquire) {
                    let (name, pause) = (service.name, pause.as_secs_f32());
                    say(&format!("{name} ended with exit code {code} (see {LOGS}/{name}.log); again in {pause} s"));
                }
            }
            Err(error) => {
                drop(wanted);
                say(&format!("cannot start {}: {}", service.name, failure::text(&error)));
            }
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_CAP);
    }
}

/// Waits until the engine answers.
pub fn await_docker(limit: Duration) -> io::Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        match ping() {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= deadline => {
                let why = failure::text(&error);
                return Err(io::Error::other(format!(
                    "the Docker engine does not answer: {why} (see {LOGS}/dockerd.log)"
                )));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn ping() -> io::Result<()> {
    let limit = Some(Duration::from_secs(10));
    let mut stream = sys::connect_unix(ENGINE, Duration::from_secs(10))?;
    stream.set_read_timeout(limit)?;
    stream.set_write_timeout(limit)?;
    stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")?;
    let mut answer = [0; 64];
    let count = stream.read(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer[..count]);
    match answer.split(' ').nth(1) {
        Some("200") => Ok(()),
        _ => Err(io::Error::other(format!("it says {:?}", answer.lines().next().unwrap_or_default()))),
    }
}
