//! A TCP port in front of an engine's unix socket.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// Carries bytes both ways, until told to cut.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    connections: Mutex<Vec<Connection>>,
    closed: AtomicBool,
}

#[derive(Debug)]
struct Connection {
    near: TcpStream,
    far: UnixStream,
    /// It has become the stream of a `docker exec`: what a supervisor is reached by.
    is_exec: Arc<AtomicBool>,
}

impl Connection {
    fn cut(&self) {
        // One that has ended by itself cannot be cut any more.
        self.near.shutdown(Shutdown::Both).ok();
        self.far.shutdown(Shutdown::Both).ok();
    }
}

impl Proxy {
    #[track_caller]
    pub fn to(socket: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let shared = Arc::new(Shared::default());
        let (accepting, socket) = (Arc::clone(&shared), socket.to_owned());
        thread::spawn(move || accept(&listener, &socket, &accepting));
        Self { address, shared }
    }

    /// `tcp://127.0.0.1:PORT`
    pub fn address(&self) -> String {
        format!("tcp://{}", self.address)
    }

    /// Cuts every connection there is; new ones are welcome. Returns how many there were.
    pub fn cut(&self) -> usize {
        self.cut_those(|_| true)
    }

    /// Cuts the connections by which supervisors are reached.
    pub fn cut_supervisors(&self) -> usize {
        self.cut_those(|connection| connection.is_exec.load(Ordering::Relaxed))
    }

    fn cut_those(&self, wanted: impl Fn(&Connection) -> bool) -> usize {
        let mut connections = self.shared.connections.lock().expect("nobody panics here");
        let (cut, kept) = std::mem::take(&mut *connections).into_iter().partition::<Vec<_>, _>(wanted);
        *connections = kept;
        cut.iter().for_each(Connection::cut);
        cut.len()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        TcpStream::connect(self.address).ok();
        self.cut();
    }
}

fn accept(listener: &TcpListener, socket: &PathBuf, shared: &Shared) {
    for near in listener.incoming().flatten() {
        if shared.closed.load(Ordering::Relaxed) {
            return;
        }
        let Ok(far) = UnixStream::connect(socket) else { continue };
        near.set_nodelay(true).ok();
        let is_exec = Arc::new(AtomicBool::new(false));
        if carry(&near, &far, Arc::clone(&is_exec)).is_err() {
            near.shutdown(Shutdown::Both).ok();
            continue;
        }
        let mut connections = shared.connections.lock().expect("nobody panics here");
        connections.retain(|connection| connection.near.peer_addr().is_ok());
        connections.push(Connection { near, far, is_exec });
    }
}

fn carry(near: &TcpStream, far: &UnixStream, is_exec: Arc<AtomicBool>) -> io::Result<()> {
    let (near_in, mut near_out) = (near.try_clone()?, near.try_clone()?);
    let (mut far_in, far_out) = (far.try_clone()?, far.try_clone()?);
    thread::spawn(move || carry_requests(near_in, far_out, &is_exec));
    thread::spawn(move || {
        io::copy(&mut far_in, &mut near_out).ok();
        near_out.shutdown(Shutdown::Write).ok();
    });
    Ok(())
}

/// The client's side, looked at until it starts an exec.
fn carry_requests(mut near: TcpStream, mut far: UnixStream, is_exec: &AtomicBool) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = near.read(&mut buffer) {
        let bytes = &buffer[..length];
        if !is_exec.load(Ordering::Relaxed) && starts_exec(bytes) {
            is_exec.store(true, Ordering::Relaxed);
        }
        if far.write_all(bytes).is_err() {
            break;
        }
    }
    far.shutdown(Shutdown::Write).ok();
}

fn starts_exec(bytes: &[u8]) -> bool {
    let line = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).lines().next().unwrap_or_default().to_owned();
    line.starts_with("POST ") && line.contains("/exec/") && line.contains("/start")
}
