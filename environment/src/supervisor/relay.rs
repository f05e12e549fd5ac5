//! A socket inside the environment, and who calls there; and a call of ours to what listens inside.
//!
//! ```text
//! Client::relay ─▶ Relay ── serve ─▶ Caller, one thread each ── both ways ─▶ the socket that the agent joins it with
//!                    ├─ connection lost: the supervisor hangs up on all of them; asked to listen again
//!                    └─ closed by us: it listens no more
//! ```

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use navvy_protocol::frame::{self, FrameKind, HEADER_LENGTH};
use navvy_protocol::supervisor::{Place, Reply, Request};
use socket2::Socket;

use super::client::{Client, ClientError, Conversation};

/// Read at once of what goes to a caller.
const CHUNK: usize = 64 << 10;
/// As in the supervisor: callers of one relay.
const CALLERS_CAP: usize = 64;
/// Before each try to listen again.
const PAUSE: Duration = Duration::from_millis(200);
/// A thread that copies needs little.
const STACK: usize = 128 << 10;

/// A socket on which the supervisor listens for us.
pub struct Relay {
    client: Client,
    /// What it was asked with, and is again after a connection that was lost.
    request: Request,
    conversation: Conversation,
    line: Line,
    /// One more for each caller.
    callers: Arc<()>,
}

/// The connection that a relay lives by; `None` once it is closed for good.
type Line = Arc<Mutex<Option<UnixStream>>>;

/// Ends a relay when it is dropped, from wherever.
pub struct Listening(Line);

impl Drop for Listening {
    fn drop(&mut self) {
        let line = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        // One that is over already is as good.
        line.and_then(|line| line.shutdown(Shutdown::Both).ok());
    }
}

/// A process in the environment that connected to the relay, or that we have connected to.
pub struct Caller {
    conversation: Conversation,
}

impl Client {
    /// Has the supervisor listen at `path`, for this user alone.
    ///
    /// # Errors
    /// Something else is there, or the supervisor cannot be asked.
    pub fn relay(&self, path: &str, user: Option<String>) -> Result<(Relay, Listening), ClientError> {
        self.relay_of(Request::Relay { path: path.to_owned(), user })
    }

    /// Has the supervisor listen on this TCP port of 127.0.0.1 inside the environment: whatever runs there may call.
    ///
    /// # Errors
    /// The port is taken, the supervisor does not know this request, or it cannot be asked.
    pub fn relay_tcp(&self, port: u16) -> Result<(Relay, Listening), ClientError> {
        self.relay_of(Request::RelayTcp { port })
    }

    /// A connection to what listens inside the environment, as uid 0 there; to be joined with ours.
    ///
    /// # Errors
    /// Nothing listens there, the supervisor does not know this request, or it cannot be asked.
    pub fn forward(&self, to: Place) -> Result<Caller, ClientError> {
        let mut conversation = self.open(&Request::Forward { to })?;
        match conversation.reply()? {
            Reply::Done => Ok(Caller { conversation }),
            _ => Err(ClientError::WrongReply),
        }
    }

    fn relay_of(&self, request: Request) -> Result<(Relay, Listening), ClientError> {
        let (conversation, way_out) = self.listen(&request)?;
        let line = Arc::new(Mutex::new(Some(way_out)));
        let listening = Listening(Arc::clone(&line));
        Ok((Relay { client: self.clone(), request, conversation, line, callers: Arc::default() }, listening))
    }

    fn listen(&self, request: &Request) -> Result<(Conversation, UnixStream), ClientError> {
        let mut conversation = self.open(request)?;
        let way_out = conversation.way_out().map_err(|source| ClientError::Unreachable { source })?;
        match (conversation.reply()?, request) {
            (Reply::Done, Request::Relay { .. }) => Ok((conversation, way_out)),
            (Reply::Listening { port }, Request::RelayTcp { port: wanted }) if port == *wanted => {
                Ok((conversation, way_out))
            }
            _ => Err(ClientError::WrongReply),
        }
    }
}

impl Relay {
    /// Hands every caller to `meet`, on a thread of its own, until the relay is closed or the supervisor is gone. What
    /// `meet` cannot serve sees a closed connection.
    pub fn serve(mut self, meet: impl Fn(Caller) + Send + Clone + 'static) {
        loop {
            self.meet_callers(&meet);
            match self.listen_again() {
                Some(conversation) => self.conversation = conversation,
                None => return,
            }
        }
    }

    /// Until the connection ends.
    fn meet_callers(&mut self, meet: &(impl Fn(Caller) + Send + Clone + 'static)) {
        let silence = self.client.limits().silence;
        loop {
            match self.conversation.receive_unless_silent(silence) {
                Ok(None) => continue,
                Ok(Some(FrameKind::Reply)) => {}
                Ok(Some(_)) | Err(_) => return,
            }
            let Ok(Reply::Called { caller }) = self.conversation.message(FrameKind::Reply) else { return };
            // A supervisor of ours does not announce so many callers.
            if Arc::strong_count(&self.callers) > CALLERS_CAP {
                continue;
            }
            let (client, meet, present) = (self.client.clone(), meet.clone(), Arc::clone(&self.callers));
            let met = move || {
                let _present = present;
                match client.open(&Request::Take { caller }) {
                    Ok(conversation) => meet(Caller { conversation }),
                    Err(error) => tracing::debug!(%error, "A caller of a relay could not be taken."),
                }
            };
            let started = std::thread::Builder::new().name("relay".to_owned()).stack_size(STACK).spawn(met);
            if let Err(error) = started {
                tracing::warn!(%error, "A job's call was not answered: no thread could be started.");
            }
        }
    }

    /// After a connection that was lost, for as long as a step would be held on to. `None` when it was closed by us, or
    /// the supervisor is no more.
    fn listen_again(&self) -> Option<Conversation> {
        let deadline = Instant::now() + self.client.patience();
        loop {
            self.line().as_ref()?;
            std::thread::sleep(PAUSE);
            match self.client.listen(&self.request) {
                Ok((conversation, way_out)) => {
                    let mut line = self.line();
                    line.as_ref()?;
                    *line = Some(way_out);
                    return Some(conversation);
                }
                // It may not know yet that the old connection is lost: then the socket is still in use.
                Err(error) if Instant::now() < deadline => {
                    tracing::debug!(%error, request = ?self.request, "A relay is not listened for again yet.");
                }
                Err(_) => return None,
            }
        }
    }

    fn line(&self) -> MutexGuard<'_, Option<UnixStream>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Caller {
    /// Copies both ways until both have ended. A way that breaks takes the other one with it.
    ///
    /// # Errors
    /// The other end, or the caller, cannot be copied to.
    pub fn join(self, other: &Socket) -> io::Result<()> {
        let Self { mut conversation } = self;
        // A caller that does not read holds up nobody but itself.
        conversation.stream.set_write_timeout(None)?;
        let (mut back, from) = (conversation.way_out()?, other.try_clone()?);
        let to_caller = move || {
            let done = send_all(&from, &mut back);
            if done.is_err() {
                back.shutdown(Shutdown::Both).and(from.shutdown(Shutdown::Both)).ok();
            }
        };
        let sending = std::thread::Builder::new().name("relay".to_owned()).stack_size(STACK).spawn(to_caller)?;
        let received = receive_all(&mut conversation, other);
        match &received {
            Ok(()) => other.shutdown(Shutdown::Write).ok(),
            Err(_) => conversation.stream.shutdown(Shutdown::Both).and(other.shutdown(Shutdown::Both)).ok(),
        };
        // Only a bug of ours ends it by a panic, which is reported where it happens.
        sending.join().ok();
        received
    }

    /// The next bytes of the caller's; `None` when it has no more, or nothing came within `patience`.
    ///
    /// # Errors
    /// It is gone.
    pub fn receive(&mut self, patience: Duration) -> io::Result<Option<&[u8]>> {
        match self.conversation.receive_unless_silent(patience).map_err(io::Error::other)? {
            None => Ok(None),
            Some(FrameKind::Data) if self.conversation.buffer.is_empty() => Ok(None),
            Some(FrameKind::Data) => Ok(Some(&self.conversation.buffer)),
            Some(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// # Errors
    /// It is gone, or does not read.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        bytes.chunks(CHUNK).try_for_each(|chunk| frame::write(&mut self.conversation.stream, FrameKind::Data, chunk))
    }
}

fn send_all(mut from: &Socket, back: &mut UnixStream) -> io::Result<()> {
    let mut buffer = vec![0; HEADER_LENGTH + CHUNK];
    loop {
        let count = match from.read(&mut buffer[HEADER_LENGTH..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        buffer[..HEADER_LENGTH].copy_from_slice(&frame::header(FrameKind::Data, count));
        // An empty frame is the end.
        back.write_all(&buffer[..HEADER_LENGTH + count])?;
        if count == 0 {
            return Ok(());
        }
    }
}

fn receive_all(conversation: &mut Conversation, mut other: &Socket) -> io::Result<()> {
    let silence = Duration::from_secs(3600);
    loop {
        match conversation.receive_unless_silent(silence).map_err(io::Error::other)? {
            None => {}
            Some(FrameKind::Data) if conversation.buffer.is_empty() => return Ok(()),
            Some(FrameKind::Data) => other.write_all(&conversation.buffer)?,
            Some(_) => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use navvy_protocol::supervisor::{Failure, FailureKind, Hello};

    use super::super::Connect;
    use super::*;

    /// A supervisor that answers the one request of each connection, and sends back in capitals what comes then.
    struct Door(fn(Request) -> Reply);

    impl Connect for Door {
        fn connect(&self) -> io::Result<UnixStream> {
            let (ours, mut theirs) = UnixStream::pair()?;
            let answer = self.0;
            std::thread::spawn(move || -> Option<()> {
                let mut buffer = Vec::new();
                frame::read(&mut theirs, &mut buffer).ok()?;
                frame::read(&mut theirs, &mut buffer).ok()?;
                let request = frame::parse_message(FrameKind::Request, &buffer).unwrap();
                frame::write_message(&mut theirs, FrameKind::Hello, &Hello::new(None)).ok()?;
                frame::write_message(&mut theirs, FrameKind::Reply, &answer(request)).ok()?;
                while let Ok(Some(FrameKind::Data)) = frame::read(&mut theirs, &mut buffer) {
                    frame::write(&mut theirs, FrameKind::Data, &buffer.to_ascii_uppercase()).ok()?;
                }
                Some(())
            });
            Ok(ours)
        }

        fn secret(&self) -> Option<&str> {
            None
        }
    }

    fn client(answer: fn(Request) -> Reply) -> Client {
        Client::new(Arc::new(Door(answer)))
    }

    #[test]
    fn a_forward_is_joined_with_a_socket_of_ours() {
        let to = Place::Unix { path: "/run/docker.sock".to_owned() };
        let client = client(|request| match request {
            Request::Forward { to: Place::Unix { path } } if path == "/run/docker.sock" => Reply::Done,
            other => panic!("{other:?}"),
        });
        let caller = client.forward(to).unwrap();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let joined = std::thread::spawn(move || caller.join(&Socket::from(theirs)));
        ours.write_all(b"ping").unwrap();
        ours.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        ours.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "PING");
        joined.join().unwrap().unwrap();
    }

    #[test]
    fn a_port_other_than_the_one_that_was_asked_for_is_no_answer() {
        let other = client(|_| Reply::Listening { port: 2377 });
        assert!(matches!(other.relay_tcp(2376), Err(ClientError::WrongReply)));
        let done = client(|_| Reply::Done);
        assert!(matches!(done.relay_tcp(2376), Err(ClientError::WrongReply)));
        let right = client(|_| Reply::Listening { port: 2376 });
        assert!(right.relay_tcp(2376).is_ok());
    }

    #[test]
    fn an_older_supervisor_says_that_it_does_not_know_them() {
        let old = client(|_| Reply::Failed(Failure::new(FailureKind::Invalid, "the Request is not understood")));
        assert!(matches!(old.relay_tcp(2376), Err(ClientError::Failed(_))));
        assert!(matches!(old.forward(Place::Tcp { port: 1 }), Err(ClientError::Failed(_))));
    }
}
