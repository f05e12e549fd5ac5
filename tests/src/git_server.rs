//! `git daemon`, where jobs reach it.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::bench::Bench;
use crate::deadline::eventually;
use crate::program::Program;

const START_LIMIT: Duration = Duration::from_secs(10);

/// Serves one bench's repository on the engine's end of the containers' default bridge. Ends when dropped.
#[derive(Debug)]
pub struct GitServer {
    process: Child,
    address: SocketAddr,
}

impl GitServer {
    #[track_caller]
    pub fn of(bench: &Bench) -> Self {
        bench.network().enter(|| Self::start(bench))
    }

    #[track_caller]
    fn start(bench: &Bench) -> Self {
        let shown = Program::new("ip").args(["-4", "-o", "address", "show", "docker0"]).run().text();
        let gateway = shown.split_whitespace().nth(3).and_then(|net| net.split_once('/')).map(|(address, _)| address);
        let gateway = gateway.expect("the engine has its default bridge");
        let listener = TcpListener::bind((gateway, 0)).expect("the bridge has an address here");
        let address = listener.local_addr().expect("a listener has an address");
        drop(listener);
        let mut command = Command::new("git");
        command.args(["-c", "safe.directory=*", "daemon", "--export-all", "--reuseaddr"]);
        command.arg(format!("--base-path={}", bench.project().display()));
        command.args([format!("--listen={gateway}"), format!("--port={}", address.port())]);
        // Its helpers are killed with it: one process group.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("git is installed");
        eventually("git daemon listens", START_LIMIT, || TcpStream::connect(address).ok());
        Self { process, address }
    }

    /// Its address and port, which jobs have to be allowed.
    pub fn place(&self) -> String {
        self.address.to_string()
    }

    /// `git://ADDRESS/.git`
    pub fn url(&self) -> String {
        format!("git://{}/.git", self.address)
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        crate::sys::signal_group(self.process.id(), crate::sys::Signal::Terminate);
        self.process.wait().ok();
    }
}
