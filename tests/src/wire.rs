//! A network between two programs on loopback, which can be cut and mended.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// Carries bytes both ways, as long as it is not cut.
#[derive(Debug)]
pub struct Wire {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    there: Mutex<String>,
    connections: Mutex<Vec<[TcpStream; 2]>>,
    is_cut: AtomicBool,
    /// Connections that came while it was cut.
    refused: AtomicUsize,
    is_over: AtomicBool,
}

impl Wire {
    /// To `address`: `127.0.0.1:PORT`.
    #[track_caller]
    pub fn to(address: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let here = listener.local_addr().expect("a listener has an address");
        let shared = Arc::new(Shared { there: Mutex::new(address.to_owned()), ..Shared::default() });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &accepting));
        Self { address: here, shared }
    }

    /// New connections lead there from now on, as a balancer's do once a machine is lost.
    pub fn lead_to(&self, address: &str) {
        address.clone_into(&mut self.shared.there.lock().expect("nobody panics here"));
    }

    /// `127.0.0.1:PORT`
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Ends every connection; new ones end at once, until it is mended.
    pub fn cut(&self) {
        let mut connections = self.shared.connections.lock().expect("nobody panics here");
        self.shared.refused.store(0, Ordering::Relaxed);
        self.shared.is_cut.store(true, Ordering::Relaxed);
        for end in connections.drain(..).flatten() {
            // One that has ended by itself cannot be ended any more.
            end.shutdown(Shutdown::Both).ok();
        }
    }

    /// How many connections were tried since the cut.
    pub fn refused(&self) -> usize {
        self.shared.refused.load(Ordering::Relaxed)
    }

    pub fn mend(&self) {
        self.shared.is_cut.store(false, Ordering::Relaxed);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        TcpStream::connect(self.address).ok();
        self.cut();
    }
}

fn accept(listener: &TcpListener, shared: &Shared) {
    for near in listener.incoming().flatten() {
        if shared.is_over.load(Ordering::Relaxed) {
            return;
        }
        // Held over the look and the entry: no connection slips through a cut.
        let mut connections = shared.connections.lock().expect("nobody panics here");
        if shared.is_cut.load(Ordering::Relaxed) {
            shared.refused.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let there = shared.there.lock().expect("nobody panics here").clone();
        let Ok(far) = TcpStream::connect(there) else { continue };
        near.set_nodelay(true).ok();
        far.set_nodelay(true).ok();
        if carry(&near, &far).and_then(|()| carry(&far, &near)).is_ok() {
            connections.push([near, far]);
        }
    }
}

fn carry(from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
    thread::spawn(move || {
        io::copy(&mut from, &mut to).ok();
        to.shutdown(Shutdown::Write).ok();
    });
    Ok(())
}
