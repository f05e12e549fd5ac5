//! Connections that are there to be in the way.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Of one address of loopback: the fewer of its 28,000 ports are free, the longer the kernel looks for one.
const EACH: usize = 4_000;
/// Connections so far, of all crowds.
static SO_FAR: AtomicUsize = AtomicUsize::new(0);

/// Ends with whoever holds it.
#[derive(Debug)]
pub struct Crowd(Vec<TcpStream>);

impl Crowd {
    /// So many connections to `address` (`127.0.0.1:PORT`) from as many addresses of loopback as they need; each says `word` first.
    ///
    /// # Panics
    /// The machine allows fewer.
    #[track_caller]
    pub fn of(count: usize, address: &str, word: &[u8]) -> Self {
        raise_files();
        let address: SocketAddr = address.parse().expect("an address of loopback");
        let one = || -> io::Result<TcpStream> {
            let from = SO_FAR.fetch_add(1, Ordering::Relaxed) / EACH;
            let from = SocketAddr::from(([127, 0, 1, u8::try_from(from % 200 + 1).unwrap_or(u8::MAX)], 0));
            // No program that is started meanwhile gets them all.
            let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
            bind(&socket, &from)?;
            connect(&socket, &address)?;
            let mut stream = TcpStream::from(socket);
            // The other side may have closed it by now.
            stream.write_all(word).ok();
            Ok(stream)
        };
        let all = (0..count).map(|nth| one().unwrap_or_else(|error| panic!("connection {nth}: {error}")));
        Self(all.collect())
    }

    /// How many of them the other side has closed, once all are, or the time is over.
    pub fn closed_within(&mut self, limit: Duration) -> usize {
        let deadline = Instant::now() + limit;
        let count = self.0.len();
        let closed = self.0.iter_mut().filter_map(|stream| {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            stream.set_read_timeout(Some(left)).ok()?;
            // What it says before it hangs up is of no interest.
            let mut said = [0; 4096];
            loop {
                match stream.read(&mut said) {
                    Ok(0) => return Some(()),
                    Ok(_) => {}
                    Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                        return None;
                    }
                    Err(_) => return Some(()),
                }
            }
        });
        closed.take(count).count()
    }
}

/// As many files as the system allows; root may allow itself more.
#[track_caller]
fn raise_files() {
    let most = Some(1 << 18);
    let now = getrlimit(Resource::Nofile);
    if setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).is_err() {
        setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum }).ok();
    }
}
