//! One process of Nomad: the server, or a client of it.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::fleet::Served;
use crate::program::Program;

/// Ports that the kernel gives to nobody by itself, and Nomad to no task.
const PORTS: std::ops::Range<u16> = 11_000..19_900;
static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

/// The program of Nomad's agent, which is built if it is not there.
#[track_caller]
pub fn program() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| built("build"))
}

/// The conformance tests of drivers, likewise.
#[track_caller]
pub fn driver_tests() -> PathBuf {
    built("driver-tests")
}

fn built(what: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/nomad");
    PathBuf::from(Program::new(script).args([what]).run().text().trim())
}

/// Three ports of an agent: for its API, between agents, and for who else is there.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    pub http: u16,
    pub rpc: u16,
    pub serf: u16,
}

impl Ports {
    #[track_caller]
    pub fn free() -> Self {
        Self { http: free_port(), rpc: free_port(), serf: free_port() }
    }

    /// What each agent's configuration has in common.
    fn config(self) -> String {
        let Self { http, rpc, serf } = self;
        format!(
            "bind_addr = \"127.0.0.1\"\ndisable_update_check = true\nlog_level = \"DEBUG\"\n\
             ports {{\n  http = {http}\n  rpc = {rpc}\n  serf = {serf}\n}}\n\
             advertise {{\n  http = \"127.0.0.1\"\n  rpc = \"127.0.0.1\"\n  serf = \"127.0.0.1\"\n}}\n"
        )
    }
}

/// Stories run side by side, and other processes of stories beside them: each begins elsewhere.
#[track_caller]
fn free_port() -> u16 {
    let span = PORTS.end - PORTS.start;
    let begin = (std::process::id() as u16).wrapping_mul(101);
    for _ in 0..span {
        let port = PORTS.start + begin.wrapping_add(NEXT_PORT.fetch_add(1, Ordering::Relaxed)) % span;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

/// A process of Nomad, which can be killed and started again where it was.
pub struct Agent {
    pub name: String,
    pub ports: Ports,
    pub directory: PathBuf,
    process: Served,
}

impl Agent {
    /// Starts one whose own part of the configuration is `config`.
    #[track_caller]
    pub fn start(place: &Path, name: &str, ports: Ports, config: &str) -> Self {
        let directory = place.join(name);
        fs::create_dir_all(&directory).expect("a directory can be made");
        let data = directory.join("data");
        let whole = format!("name = \"{name}\"\ndata_dir = \"{}\"\n{}{config}", data.display(), ports.config());
        fs::write(directory.join("agent.hcl"), whole).expect("a file can be written");
        let process = launch(&directory);
        Self { name: name.to_owned(), ports, directory, process }
    }

    /// SIGKILL. Its plugins go on, and so do its tasks.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it where it was.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.process = launch(&self.directory);
    }

    pub fn process(&mut self) -> &mut Served {
        &mut self.process
    }

    pub fn said(&self) -> String {
        self.process.said()
    }
}

fn launch(directory: &Path) -> Served {
    let mut command = Command::new(program());
    command.arg("agent").arg("-config").arg(directory.join("agent.hcl"));
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    command.env_clear().env("PATH", path).env("HOME", directory).env("LANG", "C.UTF-8").current_dir(directory);
    Served::start(command, directory.join("log"))
}
