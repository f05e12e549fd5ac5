//! A fake's supervisor: the real protocol over a socket pair, one thread for each connection.

use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use navvy_environment::supervisor::Connect;
use navvy_protocol::frame::{self, FrameKind, OutputHeader};
use navvy_protocol::supervisor::{Control, Exec, Failure, Hello, Probe, Reply, Request};

use super::execs::{STREAM, Told, no_such_exec};
use super::{HOME, Way, World};

/// Where the fake says that a continuation is taken.
pub const PORT: u16 = 4711;

/// From the end of an environment to the engine's word of it.
const ENGINE_TAKES: Duration = Duration::from_millis(20);

/// The way to a fake's supervisor.
pub struct Link(pub World);

impl Connect for Link {
    fn connect(&self) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let way = self.0.lock().way;
        match way {
            Way::Broken => return Err(io::ErrorKind::ConnectionRefused.into()),
            Way::Babbles => {
                frame::write(&mut &theirs, FrameKind::Data, b"speak, friend")?;
                std::thread::spawn(move || drain(&theirs));
            }
            Way::Open => {
                let copy = theirs.try_clone()?;
                self.0.change(|state| state.connections.push(copy));
                let world = self.0.clone();
                // Whoever hangs up knows that.
                std::thread::spawn(move || Serving { world, stream: theirs }.converse().ok());
            }
        }
        Ok(ours)
    }

    fn secret(&self) -> Option<&str> {
        None
    }

    fn patience(&self) -> Duration {
        self.0.lock().patience
    }
}

/// Until the caller has gone.
fn drain(mut stream: &UnixStream) {
    io::copy(&mut stream, &mut io::sink()).ok();
}

/// A connection.
pub struct Serving {
    pub world: World,
    pub stream: UnixStream,
}

impl Serving {
    fn converse(mut self) -> io::Result<()> {
        if self.receive()?.is_none() {
            return Ok(());
        }
        frame::write_message(&mut self.stream, FrameKind::Hello, &Hello::new(None))?;
        // Who asks for life alone hangs up behind the greeting.
        let Some(payload) = self.receive()? else { return Ok(()) };
        let request: Request = frame::parse_message(FrameKind::Request, &payload).map_err(io::Error::other)?;
        let line = describe(&request);
        let word = line.split(' ').next().unwrap_or_default();
        let breaks = self.world.lock().breaks_at.take_if(|(request, _)| *request == word);
        if let Some((_, died)) = breaks {
            // The connection breaks first; an engine tells of it a moment later. Whatever the moment, the outcome is the same.
            self.world.nothing_runs();
            if let Some(died) = died {
                std::thread::sleep(ENGINE_TAKES);
                self.world.die(died);
            }
            return Ok(());
        }
        let refused = self.world.lock().refused.get(word).cloned();
        match (request, refused) {
            (Request::Exec(exec), None) => self.exec(&exec, line)?,
            (request, refused) => {
                self.world.note(&line);
                let answered = match refused {
                    Some(failure) => Err(failure),
                    None => self.answer(request)?,
                };
                if let Some(reply) = answered.unwrap_or_else(|failure| Some(Reply::Failed(failure))) {
                    self.reply(&reply)?;
                }
            }
        }
        drain(&self.stream);
        Ok(())
    }

    /// `None`: all is answered.
    fn answer(&mut self, request: Request) -> io::Result<Result<Option<Reply>, Failure>> {
        Ok(match request {
            Request::Attach { exec, offset, note } => {
                self.world.acknowledge(&exec, offset, note);
                let cuts = self.world.lock().execs.get(&exec).map(|exec| exec.cuts);
                let Some(cuts) = cuts else { return Ok(Err(no_such_exec(&exec))) };
                self.reply(&Reply::Started { pid: 1 })?;
                return self.follow(&exec, offset, cuts).map(|()| Ok(None));
            }
            Request::Stop { exec, grace_ms } => self.world.stop(&exec, Duration::from_millis(grace_ms)).map(Some),
            Request::List => Ok(Some(self.world.list())),
            Request::Probe { programs, .. } => Ok(Some(Reply::Probe(probe(programs)))),
            Request::Keep { .. } => {
                let note = self.receive_stream()?;
                self.world.change(|state| state.note = Some(note));
                Ok(Some(Reply::Done))
            }
            Request::Remember => {
                let note = self.receive_stream()?;
                self.world.change(|state| state.remembered = Some(note));
                Ok(Some(Reply::Done))
            }
            Request::Recall => {
                let state = self.world.lock();
                let note = state.note.clone().or_else(|| state.remembered.clone()).unwrap_or_default();
                drop(state);
                self.send_stream(&note)?;
                Ok(Some(Reply::Done))
            }
            Request::OfferContinuation { .. } => Ok(Some(Reply::Listening { port: PORT })),
            Request::Continuation => {
                let continuation = self.world.lock().continuation.clone();
                let bytes = continuation.map(|continuation| serde_json::to_vec(&continuation)).transpose()?;
                self.send_stream(&bytes.unwrap_or_default())?;
                Ok(Some(Reply::Done))
            }
            files => self.file_request(files)?.map(Some),
        })
    }

    fn exec(&mut self, exec: &Exec, line: String) -> io::Result<()> {
        match self.world.start(exec, line) {
            Ok(()) => {
                self.reply(&Reply::Started { pid: 1 })?;
                self.follow(&exec.id, 0, 0)
            }
            Err(failure) => self.reply(&Reply::Failed(failure)),
        }
    }

    /// Tells all of an exec from this offset on, up to its end or to the first cut after these.
    fn follow(&mut self, id: &str, from: u64, cuts: usize) -> io::Result<()> {
        let (world, exec, mut stream) = (self.world.clone(), id.to_owned(), self.stream.try_clone()?);
        // Until the caller hangs up.
        let hearing = std::thread::spawn(move || {
            let mut payload = Vec::new();
            while let Ok(Some(kind)) = frame::read(&mut stream, &mut payload) {
                if let Ok(Control::Ack { offset, note }) = frame::parse_message(kind, &payload) {
                    world.acknowledge(&exec, offset, note);
                }
            }
        });
        let told = self.tell_all(id, from, cuts);
        hearing.join().ok();
        told
    }

    fn tell_all(&mut self, id: &str, from: u64, cuts: usize) -> io::Result<()> {
        let mut next = 0;
        loop {
            let told = self.world.wait_for(|state| {
                let exec = &state.execs[id];
                (exec.cuts > cuts || exec.told.len() > next).then(|| (exec.cuts > cuts, exec.told.get(next).cloned()))
            });
            // What was told before a cut is sent; nothing behind it.
            let Some((is_cut, Some(told))) = told else {
                return self.stream.shutdown(std::net::Shutdown::Both);
            };
            next += 1;
            let is_end = matches!(told, Told::Ended { .. });
            self.tell(told, from)?;
            if is_end {
                return Ok(());
            }
            if is_cut {
                return self.stream.shutdown(std::net::Shutdown::Both);
            }
        }
    }

    fn tell(&mut self, told: Told, from: u64) -> io::Result<()> {
        match told {
            Told::Output { offset, bytes } if offset + bytes.len() as u64 > from => {
                let known = usize::try_from(from.saturating_sub(offset)).map_err(io::Error::other)?;
                let header = OutputHeader { stream: STREAM, offset: offset.max(from), nanoseconds: 0 };
                frame::write(&mut self.stream, FrameKind::Output, &[&header.to_bytes()[..], &bytes[known..]].concat())
            }
            Told::Output { .. } => Ok(()),
            Told::Exited(exited) => self.reply(&Reply::Exited(exited)),
            Told::Ended { output } => self.reply(&Reply::Ended { output }),
        }
    }

    // ---- frames ----

    fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut payload = Vec::new();
        let kind = frame::read(&mut self.stream, &mut payload).map_err(io::Error::other)?;
        Ok(kind.map(|_| payload))
    }

    /// All `Data` up to the empty one.
    pub fn receive_stream(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.receive()?.filter(|piece| !piece.is_empty()) {
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    pub fn send_stream(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let mut piece = vec![0; 64 << 10];
        while let count @ 1.. = bytes.read(&mut piece)? {
            frame::write(&mut self.stream, FrameKind::Data, &piece[..count])?;
        }
        frame::write(&mut self.stream, FrameKind::Data, &[])
    }

    fn reply(&mut self, reply: &Reply) -> io::Result<()> {
        frame::write_message(&mut self.stream, FrameKind::Reply, reply)
    }
}

fn probe(programs: Vec<String>) -> Probe {
    Probe {
        name: Some("fake".to_owned()),
        uid: 1000,
        gid: 1000,
        groups: vec![1000],
        home: HOME.to_owned(),
        programs: programs.into_iter().map(Some).collect(),
        architecture: "x86_64".to_owned(),
    }
}

/// A request as tests read it.
fn describe(request: &Request) -> String {
    match request {
        Request::Exec(exec) => format!("exec {}", exec.id),
        Request::Attach { exec, offset, .. } => format!("attach {exec} from {offset}"),
        Request::Stop { exec, grace_ms } => format!("stop {exec} within {:?}", Duration::from_millis(*grace_ms)),
        Request::Keep { for_ms } => format!("keep for {:?}", Duration::from_millis(*for_ms)),
        Request::Read { path, .. } => format!("read {path}"),
        Request::Write { path, .. } => format!("write {path}"),
        Request::MakeDirectory { path, .. } => format!("make_directory {path}"),
        Request::Glob { root, .. } => format!("glob {root}"),
        Request::Unpack { root, .. } => format!("unpack {root}"),
        Request::Checksum { paths, .. } => format!("checksum {}", paths.join(" ")),
        other => {
            let tagged = serde_json::to_value(other).unwrap_or_default();
            tagged["request"].as_str().unwrap_or("?").to_owned()
        }
    }
}
