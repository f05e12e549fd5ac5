//! Debian's `docker-registry` on loopback.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tempfile::TempDir;

use crate::bench::Bench;
use crate::deadline::eventually;
use crate::docker::Docker;
use crate::network::Network;
use crate::program::Program;

const START_LIMIT: Duration = Duration::from_secs(20);
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Password {
    None,
    Needed,
}

/// A real registry. Ends when dropped.
#[derive(Debug)]
pub struct Registry {
    process: Child,
    address: SocketAddr,
    password: Password,
    docker: Docker,
    _directory: TempDir,
}

impl Registry {
    pub const USER: &str = "story";
    pub const PASSWORD: &str = "correct horse battery staple";

    #[track_caller]
    pub fn start(bench: &Bench, password: Password) -> Self {
        bench.network().enter(|| Self::start_here(bench.docker().clone(), password))
    }

    #[track_caller]
    fn start_here(docker: Docker, password: Password) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        // Free now; nobody else on this machine binds to port 0's choices within these milliseconds.
        let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {root}/data}}}}\n\
             http: {{addr: \"{address}\"}}\n",
            root = directory.path().display()
        );
        if password == Password::Needed {
            let line = Program::new("htpasswd").args(["-Bbn", Self::USER, Self::PASSWORD]).run().text();
            fs::write(directory.path().join("htpasswd"), line).expect("a file can be written");
            config += &format!("auth: {{htpasswd: {{realm: story, path: {}/htpasswd}}}}\n", directory.path().display());
        }
        let file = directory.path().join("config.yml");
        fs::write(&file, config).expect("a file can be written");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("docker-registry is installed (scripts/setup)");
        let registry = Self { process, address, password, docker, _directory: directory };
        eventually("the registry answers", START_LIMIT, || TcpStream::connect(address).ok());
        registry
    }

    /// `127.0.0.1:PORT`
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Puts a copy of the engine's image into it and takes it off the engine; returns its name.
    #[track_caller]
    pub fn offer(&self, image: &str, name: &str) -> String {
        let here = &self.docker;
        let offered = format!("{}/{name}", self.host());
        here.ask(&["tag", image, &offered]).succeeded();
        let home = tempfile::tempdir().expect("a temporary directory can be made");
        if self.password == Password::Needed {
            fs::write(home.path().join("config.json"), self.credentials(Self::PASSWORD))
                .expect("a file can be written");
        }
        let config = home.path().display().to_string();
        here.ask(&["--config", &config, "push", "--quiet", &offered]).succeeded();
        here.ask(&["image", "rm", &offered]).succeeded();
        offered
    }

    /// `config.json` of the docker client, with this password.
    pub fn credentials(&self, password: &str) -> String {
        let encoded = Program::new("base64").args(["-w0"]).input(format!("{}:{password}", Self::USER)).run().text();
        format!(r#"{{"auths":{{"{}":{{"auth":"{encoded}"}}}}}}"#, self.host())
    }

    /// Forgets an image that a run has pulled.
    pub fn forget(&self, offered: &str) {
        // It is not here if the pull was meant to fail.
        let _gone_or_never_there = self.docker.ask(&["image", "rm", offered]);
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Answers every request with 503. Ends when dropped.
#[derive(Debug)]
pub struct IllRegistry {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    closed: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    network: Network,
}

impl IllRegistry {
    #[track_caller]
    pub fn start(bench: &Bench) -> Self {
        let network = bench.network();
        bench.network().enter(|| Self::start_here(network))
    }

    #[track_caller]
    fn start_here(network: Network) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let (asked, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, over) = (Arc::clone(&asked), Arc::clone(&closed));
        let thread = thread::spawn(move || {
            for mut connection in listener.incoming().flatten() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                answer_ill(&mut connection, &counter);
            }
        });
        Self { address, asked, closed, thread: Some(thread), network }
    }

    /// `127.0.0.1:PORT`
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for IllRegistry {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        self.network.enter(|| TcpStream::connect(self.address).ok());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn answer_ill(connection: &mut TcpStream, asked: &AtomicUsize) {
    let mut request = [0; 4096];
    let length = connection.read(&mut request).unwrap_or(0);
    // A client that tries TLS first is no request.
    if request[..length].starts_with(b"GET ") || request[..length].starts_with(b"HEAD ") {
        asked.fetch_add(1, Ordering::Relaxed);
        let answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        connection.write_all(answer).ok();
    }
}
