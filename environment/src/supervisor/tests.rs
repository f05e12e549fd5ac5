//! A follower against a supervisor that hangs up all the time.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use navvy_protocol::frame::{self, FrameKind, OutputHeader, Stream};
use navvy_protocol::supervisor::{Exec, Exit, Exited, Failure, FailureKind, Hello, Reply, Request, Terminal, Usage};
use proptest::prelude::*;

use super::{Abandon, Client, Connect, FollowEnd, Sink, follow};

/// Produces `bytes` and hangs up after as many of them as the next entry of `cuts` says.
struct Fickle {
    bytes: Vec<u8>,
    cuts: Mutex<Vec<usize>>,
    starts: AtomicU32,
    /// Answer the first exec with silence.
    swallow_first: bool,
    calls: AtomicU32,
}

struct Door(std::sync::Arc<Fickle>);

impl Connect for Door {
    fn connect(&self) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let fickle = std::sync::Arc::clone(&self.0);
        std::thread::spawn(move || {
            // A hang-up in the middle of a write is what this is about.
            fickle.serve(theirs).ok();
        });
        Ok(ours)
    }

    fn secret(&self) -> Option<&str> {
        None
    }
}

impl Fickle {
    fn serve(&self, mut stream: UnixStream) -> io::Result<()> {
        let mut buffer = Vec::new();
        let mut next = |stream: &mut UnixStream| {
            let kind = frame::read(stream, &mut buffer).ok().flatten()?;
            Some((kind, buffer.clone()))
        };
        next(&mut stream);
        let Some((FrameKind::Request, payload)) = next(&mut stream) else { return Ok(()) };
        let first_call = self.calls.fetch_add(1, Ordering::SeqCst) == 0;
        if first_call && self.swallow_first {
            return Ok(());
        }
        frame::write_message(&mut stream, FrameKind::Hello, &Hello::new(None))?;
        match frame::parse_message(FrameKind::Request, &payload).unwrap() {
            Request::Exec(_) => {
                if self.starts.fetch_add(1, Ordering::SeqCst) > 0 {
                    let failure = Failure::new(FailureKind::Duplicate, "started before");
                    return frame::write_message(&mut stream, FrameKind::Reply, &Reply::Failed(failure));
                }
                frame::write_message(&mut stream, FrameKind::Reply, &Reply::Started { pid: 7 })?;
                self.produce(&mut stream, 0)
            }
            Request::Attach { .. } if self.starts.load(Ordering::SeqCst) == 0 => {
                let failure = Failure::new(FailureKind::NoSuchExec, "never heard of it");
                frame::write_message(&mut stream, FrameKind::Reply, &Reply::Failed(failure))
            }
            Request::Attach { offset, .. } => {
                frame::write_message(&mut stream, FrameKind::Reply, &Reply::Started { pid: 7 })?;
                // Sends a little again, as a supervisor may around a cut.
                self.produce(&mut stream, usize::try_from(offset).unwrap().saturating_sub(3))
            }
            other => panic!("{other:?}"),
        }
    }

    fn produce(&self, stream: &mut UnixStream, from: usize) -> io::Result<()> {
        let allowed = self.cuts.lock().unwrap().pop().unwrap_or(usize::MAX);
        let end = from.saturating_add(allowed).min(self.bytes.len());
        for (index, chunk) in self.bytes[from..end].chunks(5).enumerate() {
            let offset = (from + index * 5) as u64;
            let header = OutputHeader { stream: Stream::Stdout, offset, nanoseconds: 0 };
            frame::write(stream, FrameKind::Output, &[&header.to_bytes()[..], chunk].concat())?;
        }
        if end < self.bytes.len() {
            return Ok(());
        }
        let output = self.bytes.len() as u64;
        let exited = Exited {
            exit: Exit::Code(0),
            output,
            usage: Usage::default(),
            out_of_memory: None,
            halted: false,
            lacks: BTreeSet::new(),
            main_ended: None,
            left_running: 0,
        };
        frame::write_message(stream, FrameKind::Reply, &Reply::Exited(exited))?;
        frame::write_message(stream, FrameKind::Reply, &Reply::Ended { output })
    }
}

#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    starts: u32,
    exits: u32,
}

impl Sink for Kept {
    fn started(&mut self) {
        self.starts += 1;
    }

    fn output(&mut self, header: OutputHeader, bytes: &[u8]) -> io::Result<()> {
        assert_eq!(header.offset, self.bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn exited(&mut self, _: Exited) {
        self.exits += 1;
    }
}

fn exec() -> Exec {
    Exec {
        id: "1-1".into(),
        argv: vec!["/bin/true".into()],
        env: vec![],
        cwd: "/".into(),
        user: None,
        terminal: Terminal::Pipes,
        input: false,
        watch_memory: false,
    }
}

fn followed(bytes: Vec<u8>, cuts: Vec<usize>, swallow_first: bool) -> (Kept, FollowEnd) {
    let fickle =
        Fickle { bytes, cuts: Mutex::new(cuts), starts: AtomicU32::new(0), swallow_first, calls: AtomicU32::new(0) };
    let client = Client::new(std::sync::Arc::new(Door(std::sync::Arc::new(fickle))));
    let mut kept = Kept::default();
    let end = follow(&client, exec(), &mut kept, &Abandon::default());
    (kept, end)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn however_often_the_line_is_cut_every_byte_arrives_once(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        // At least one byte beyond the repeated ones gets through each time.
        cuts in prop::collection::vec(4usize..60, 0..25),
    ) {
        let (kept, end) = followed(bytes.clone(), cuts, false);
        prop_assert!(matches!(end, FollowEnd::Ended), "{:?}", end);
        prop_assert_eq!(kept.bytes, bytes);
        prop_assert_eq!((kept.starts, kept.exits), (1, 1));
    }
}

#[test]
fn a_request_that_never_arrived_is_sent_again() {
    let (kept, end) = followed(b"hello".to_vec(), vec![], true);
    assert!(matches!(end, FollowEnd::Ended), "{end:?}");
    assert_eq!(kept.bytes, b"hello");
}

#[test]
fn what_another_process_followed_comes_from_there_on_and_what_it_never_started_is_started() {
    for (offset, starts) in [(0, 0), (0, 1), (4, 1), (11, 1)] {
        let bytes = b"hello again".to_vec();
        let (cuts, calls) = (Mutex::new(vec![5, 4]), AtomicU32::new(0));
        let fickle = Fickle { bytes: bytes.clone(), cuts, starts: AtomicU32::new(starts), swallow_first: false, calls };
        let fickle = std::sync::Arc::new(fickle);
        let client = Client::new(std::sync::Arc::new(Door(std::sync::Arc::clone(&fickle))));
        let mut kept = Kept { bytes: bytes[..offset].to_vec(), ..Kept::default() };
        let end = super::follow_on(&client, exec(), offset as u64, &mut kept, &Abandon::default());
        assert!(matches!(end, FollowEnd::Ended), "{end:?}");
        assert_eq!((kept.bytes, kept.starts, kept.exits), (bytes, 1, 1));
        assert_eq!(fickle.starts.load(Ordering::SeqCst), 1);
    }
}
