//! A TCP port in front of an engine's unix socket.

use std::io;
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
    connections: Mutex<Vec<(TcpStream, UnixStream)>>,
    closed: AtomicBool,
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
        let connections = std::mem::take(&mut *self.shared.connections.lock().expect("nobody panics here"));
        for (near, far) in &connections {
            // One that has ended by itself cannot be cut any more.
            near.shutdown(Shutdown::Both).ok();
            far.shutdown(Shutdown::Both).ok();
        }
        connections.len()
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
        if let Err(error) = carry(&near, &far) {
            near.shutdown(Shutdown::Both).ok();
            drop(error);
            continue;
        }
        let mut connections = shared.connections.lock().expect("nobody panics here");
        connections.retain(|(near, _)| near.peer_addr().is_ok());
        connections.push((near, far));
    }
}

fn carry(near: &TcpStream, far: &UnixStream) -> io::Result<()> {
    let (mut near_in, mut near_out) = (near.try_clone()?, near.try_clone()?);
    let (mut far_in, mut far_out) = (far.try_clone()?, far.try_clone()?);
    thread::spawn(move || {
        io::copy(&mut near_in, &mut far_out).ok();
        far_out.shutdown(Shutdown::Write).ok();
    });
    thread::spawn(move || {
        io::copy(&mut far_in, &mut near_out).ok();
        near_out.shutdown(Shutdown::Write).ok();
    });
    Ok(())
}
