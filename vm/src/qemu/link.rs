//! The way to the supervisor in a machine: [`navvy_environment::mux_link`] over the socket of its port.
//!
//! ```text
//! open the socket ─▶ GREETING, nonce ─▶ skip what another agent's channels left ─▶ MAGIC, the same nonce ─▶ channels
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};
use navvy_environment::mux_link::{DIAL_LIMIT, Dial, MuxLink, Pipe, Source};
use navvy_environment::supervisor::Connect;
use navvy_protocol::mux::{GREETING, MAGIC, NONCE_LENGTH, whole};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::line::MUX;
use super::random::random;
use super::socket;

/// Tries at greeting a machine: while its Docker engine starts, an emulated one on a busy host is silent for longer than one takes.
const OPENINGS: u32 = 5;
/// What is under way when a port is opened anew fits into the queues of supervisor, port and socket, some hundred kilobytes each. Who says more
/// than this before the answer does not mean to answer.
const SKIPPED_CAP: usize = 8 << 20;
/// What is read at once.
const PIECE: usize = 64 << 10;

/// The port of a machine, by its directory.
#[derive(Debug, Clone)]
pub struct Port {
    directory: PathBuf,
}

/// Opens the port at once. Within a Tokio runtime only.
///
/// # Errors
/// Nobody answers there.
pub async fn open(directory: PathBuf) -> io::Result<Arc<dyn Connect>> {
    for _ in 1..OPENINGS {
        match open_once(&directory).await {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
            opened => return opened,
        }
    }
    open_once(&directory).await
}

async fn open_once(directory: &Path) -> io::Result<Arc<dyn Connect>> {
    // Who can open the port is the machine's host: the guest asks it for no secret.
    Ok(Arc::new(MuxLink::open(Port { directory: directory.to_owned() }, None).await?))
}

impl Dial for Port {
    type Source = FromGuest;
    type Sink = OwnedWriteHalf;

    async fn dial(&self) -> io::Result<Pipe<FromGuest, OwnedWriteHalf>> {
        let greeted = tokio::time::timeout(DIAL_LIMIT, self.greet()).await;
        greeted.unwrap_or_else(|_| {
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the machine's supervisor did not answer a greeting within {DIAL_LIMIT:?}"),
            ))
        })
    }

    fn cut(bytes: &[u8]) -> usize {
        whole(bytes)
    }
}

impl Port {
    async fn greet(&self) -> io::Result<Pipe<FromGuest, OwnedWriteHalf>> {
        let (mut read, mut sink) = socket::connect(&self.directory, MUX).await?.into_split();
        let nonce: [u8; NONCE_LENGTH] = random()?;
        sink.write_all(&[GREETING.as_slice(), &nonce].concat()).await?;
        let answer = [MAGIC.as_slice(), &nonce].concat();
        let (mut rest, mut skipped) = (BytesMut::new(), 0);
        loop {
            rest.reserve(PIECE);
            if (&mut read).take(PIECE as u64).read_buf(&mut rest).await? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the machine's port was closed"));
            }
            if let Some(at) = rest.windows(answer.len()).position(|window| window == answer) {
                rest.advance(at + answer.len());
                return Ok(Pipe { source: FromGuest(read), sink, rest });
            }
            // What comes before is of another agent's channels; only the beginning of an answer may be kept.
            let surplus = rest.len().saturating_sub(answer.len() - 1);
            rest.advance(surplus);
            skipped += surplus;
            if skipped > SKIPPED_CAP {
                let said = format!(
                    "the machine's supervisor said {} MiB in place of an answer to a greeting",
                    SKIPPED_CAP >> 20
                );
                return Err(io::Error::new(io::ErrorKind::InvalidData, said));
            }
        }
    }
}

/// What the guest writes into its port.
pub struct FromGuest(OwnedReadHalf);

impl Source for FromGuest {
    async fn next(&mut self) -> Option<Bytes> {
        let mut piece = BytesMut::with_capacity(PIECE);
        match self.0.read_buf(&mut piece).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(piece.freeze()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use navvy_protocol::mux::{HEADER_LENGTH, Header, Op};
    use tokio::net::{UnixListener, UnixStream};

    use super::*;

    async fn greeting(guest: &mut UnixStream) -> Vec<u8> {
        let mut greeting = [0; 8 + NONCE_LENGTH];
        guest.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting[..8], GREETING);
        greeting[8..].to_vec()
    }

    fn bench() -> (tempfile::TempDir, UnixListener) {
        let scratch = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(scratch.path().join(MUX)).unwrap();
        (scratch, listener)
    }

    #[tokio::test]
    async fn what_another_agent_left_is_skipped_up_to_the_answer_of_this_one() {
        let (scratch, listener) = bench();
        let guest = tokio::spawn(async move {
            let (mut guest, _) = listener.accept().await.unwrap();
            let nonce = greeting(&mut guest).await;
            // An answer to somebody else, half a frame, and ours in two pieces.
            guest.write_all(&[MAGIC.as_slice(), &[7; NONCE_LENGTH], b"\x01\0\0\0\x02\xff\xff"].concat()).await.unwrap();
            let answer = [MAGIC.as_slice(), &nonce].concat();
            guest.write_all(&answer[..5]).await.unwrap();
            tokio::task::yield_now().await;
            guest.write_all(&answer[5..]).await.unwrap();
            let mut header = [0; HEADER_LENGTH];
            guest.read_exact(&mut header).await.unwrap();
            assert_eq!(Header::parse(header).unwrap(), Header { channel: 1, op: Op::Open, length: 0 });
            let data = Header { channel: 1, op: Op::Data, length: 2 };
            guest.write_all(&[&data.to_bytes()[..], b"ok"].concat()).await.unwrap();
            guest
        });
        let link = open(scratch.path().to_owned()).await.unwrap();
        let caller = Arc::clone(&link);
        let stream = tokio::task::spawn_blocking(move || caller.connect()).await.unwrap().unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut stream = UnixStream::from_std(stream).unwrap();
        let mut said = [0; 2];
        stream.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"ok");
        drop(guest.await.unwrap());
        drop(link);
    }

    #[tokio::test]
    async fn a_guest_that_floods_in_place_of_an_answer_is_given_up_at_once() {
        let (scratch, listener) = bench();
        let guest = tokio::spawn(async move {
            let (mut guest, _) = listener.accept().await.unwrap();
            while guest.write_all(&[7; 65536]).await.is_ok() {}
        });
        let error = open(scratch.path().to_owned()).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        guest.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_says_anything_but_the_answer_is_given_up_in_time() {
        let (scratch, listener) = bench();
        let guest = tokio::spawn(async move {
            // A greeting is tried again on a connection of its own.
            loop {
                let (mut guest, _) = listener.accept().await.unwrap();
                greeting(&mut guest).await;
                while guest.write_all(&MAGIC.repeat(1000)).await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        });
        let error = open(scratch.path().to_owned()).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        guest.abort();
    }
}
