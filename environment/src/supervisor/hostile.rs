//! Hostile answers in the supervisor's place: each is an error, soon, and takes little memory.

use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use navvy_protocol::frame::{self, FrameKind, MAX_LENGTH, OutputHeader, Stream};
use navvy_protocol::supervisor::{Exec, Exited, Hello, Reply, Terminal};

use super::client::Limits;
use super::{Abandon, Client, ClientError, Connect, FollowEnd, Sink, follow};

const LIMITS: Limits = Limits {
    reply: Duration::from_millis(300),
    send: Duration::from_millis(300),
    silence: Duration::from_millis(40),
    proof: Duration::from_millis(200),
    slice: Duration::from_millis(10),
};
/// Several of the limits one after another, on a machine that does a lot else.
const SOON: Duration = Duration::from_secs(10);
/// No answer is larger.
const LARGEST_ANSWER: usize = 16 << 20;

/// Serves one connection, until it has enough or its caller has.
type Madness = fn(UnixStream) -> io::Result<()>;

struct Door(Madness);

impl Connect for Door {
    fn connect(&self) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let madness = self.0;
        std::thread::spawn(move || {
            // The caller hangs up sooner or later: that is what this is about.
            madness(theirs).ok();
        });
        Ok(ours)
    }

    fn secret(&self) -> Option<&str> {
        Some("secret")
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(300)
    }
}

fn client(madness: Madness) -> Client {
    Client::with_limits(Arc::new(Door(madness)), LIMITS)
}

// ---- the mad ----

/// Stays until the caller has gone.
fn stay(mut stream: UnixStream) -> io::Result<()> {
    io::copy(&mut stream, &mut io::sink()).map(drop)
}

fn greet(stream: &mut UnixStream) -> io::Result<()> {
    frame::write_message(stream, FrameKind::Hello, &Hello::new(None))
}

fn endlessly(mut stream: UnixStream, bytes: &[u8]) -> io::Result<()> {
    loop {
        stream.write_all(bytes)?;
    }
}

fn trickle(mut stream: UnixStream, bytes: &[u8]) -> io::Result<()> {
    for byte in bytes.iter().cycle() {
        stream.write_all(&[*byte])?;
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn frame_of(kind: FrameKind, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::write(&mut bytes, kind, payload).unwrap();
    bytes
}

fn reply(reply: &Reply) -> Vec<u8> {
    frame_of(FrameKind::Reply, &serde_json::to_vec(reply).unwrap())
}

fn claims_a_huge_frame(stream: &mut UnixStream) -> io::Result<()> {
    stream.write_all(&[0xff, 0xff, 0xff, 0x7f, FrameKind::Reply as u8])
}

fn output_at(offset: u64, bytes: &[u8]) -> Vec<u8> {
    let header = OutputHeader { stream: Stream::Stdout, offset, nanoseconds: 0 };
    frame_of(FrameKind::Output, &[&header.to_bytes()[..], bytes].concat())
}

const MAD: &[(&str, Madness)] = &[
    ("says nothing", stay),
    ("hangs up", |_| Ok(())),
    ("speaks another language", |mut stream| stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n").and_then(|()| stay(stream))),
    ("sends zeros for ever", |stream| endlessly(stream, &[0; 4096])),
    ("sends noise for ever", |stream| endlessly(stream, &[0xa5; 4096])),
    ("claims a huge frame at once", |mut stream| claims_a_huge_frame(&mut stream).and_then(|()| stay(stream))),
    ("speaks an old version", |mut stream| {
        let hello = Hello { version: 0, ..Hello::new(None) };
        frame::write_message(&mut stream, FrameKind::Hello, &hello)?;
        stay(stream)
    }),
    ("greets in nested brackets", |mut stream| {
        stream.write_all(&frame_of(FrameKind::Hello, "[".repeat(1 << 20).as_bytes()))?;
        stay(stream)
    }),
    ("greets for ever", |stream| {
        let hello = frame_of(FrameKind::Hello, &serde_json::to_vec(&Hello::new(None)).unwrap());
        endlessly(stream, &hello)
    }),
    ("greets byte by byte and never ends", |stream| {
        let hello = frame_of(FrameKind::Hello, &vec![b' '; MAX_LENGTH - 1]);
        trickle(stream, &hello)
    }),
    ("greets and says nothing", |mut stream| greet(&mut stream).and_then(|()| stay(stream))),
    ("greets and hangs up", |mut stream| greet(&mut stream)),
    ("greets and claims a huge frame", |mut stream| {
        greet(&mut stream)?;
        claims_a_huge_frame(&mut stream)?;
        stay(stream)
    }),
    ("greets and answers byte by byte", |mut stream| {
        greet(&mut stream)?;
        trickle(stream, &frame_of(FrameKind::Reply, &vec![b' '; MAX_LENGTH - 1]))
    }),
    ("greets and sends half a frame", |mut stream| {
        greet(&mut stream)?;
        let whole = reply(&Reply::Done);
        stream.write_all(&whole[..whole.len() / 2])?;
        stay(stream)
    }),
    ("greets and sends half a frame and hangs up", |mut stream| {
        greet(&mut stream)?;
        let whole = reply(&Reply::Done);
        stream.write_all(&whole[..whole.len() / 2])
    }),
    ("greets and answers what is no answer", |mut stream| {
        greet(&mut stream)?;
        stream.write_all(&frame_of(FrameKind::Reply, b"{\"reply\":\"fly\"}"))?;
        stay(stream)
    }),
    ("greets and asks in turn", |mut stream| {
        greet(&mut stream)?;
        stream.write_all(&frame_of(FrameKind::Request, b"{\"request\":\"list\"}"))?;
        stay(stream)
    }),
    ("answers what nobody asked", |mut stream| {
        greet(&mut stream)?;
        endlessly(stream, &reply(&Reply::Checksums { sha256: vec!["0".repeat(64); 1000] }))
    }),
    ("sends data for ever", |mut stream| {
        greet(&mut stream)?;
        endlessly(stream, &frame_of(FrameKind::Data, &[b'x'; 256 << 10]))
    }),
    ("sends data byte by byte", |mut stream| {
        greet(&mut stream)?;
        trickle(stream, &frame_of(FrameKind::Data, b"x"))
    }),
    ("ends before it starts, and forgets output", |mut stream| {
        greet(&mut stream)?;
        stream.write_all(&reply(&Reply::Ended { output: 7 }))?;
        stay(stream)
    }),
    ("leaves gaps in the output", |mut stream| {
        greet(&mut stream)?;
        stream.write_all(&reply(&Reply::Started { pid: 1 }))?;
        stream.write_all(&output_at(u64::MAX, b"x"))?;
        stay(stream)
    }),
    ("starts and stops", |mut stream| {
        greet(&mut stream)?;
        stream.write_all(&reply(&Reply::Started { pid: 1 }))
    }),
];

// ---- what the agent does with them ----

struct Nowhere;

impl Sink for Nowhere {
    fn started(&mut self) {}

    fn output(&mut self, _: OutputHeader, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn exited(&mut self, exited: Exited) {
        panic!("nobody said so: {exited:?}");
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

/// Runs `activity` against each of them. What it returns must be an error, and come soon.
fn against_all<E: std::fmt::Debug>(activity: impl Fn(&Client) -> Result<(), E> + Sync) {
    std::thread::scope(|scope| {
        for (name, madness) in MAD {
            let activity = &activity;
            scope.spawn(move || {
                let begun = Instant::now();
                let result = activity(&client(*madness));
                assert!(result.is_err(), "{name}: believed");
                assert!(begun.elapsed() < SOON, "{name}: took {:?}", begun.elapsed());
            });
        }
    });
}

#[test]
fn short_activities_fail_soon() {
    against_all(|client| client.probe(None, &["/bin/sh"]).map(drop));
    against_all(|client| client.sample().map(drop));
    against_all(|client| client.make_directory("/x", None));
    against_all(|client| client.stop("1-1", Duration::ZERO));
}

#[test]
fn streams_fail_soon_whichever_way_they_go() {
    against_all(|client| client.glob("/", &["*"], None).map(drop));
    against_all(|client| client.write("/x", None, 0o600, &vec![0; 4 << 20]));
    against_all(|client| {
        let unpacked = client.unpack("/x", None, |sink| (0..64).try_for_each(|_| sink.write_all(&[0; 128 << 10])));
        unpacked
            .map_err(|error| format!("{error:?}"))
            .and_then(|produced| produced.map_err(|e| e.to_string()))
            .map(drop)
    });
}

#[test]
fn a_step_is_given_up_soon() {
    let abandoned = AtomicUsize::new(0);
    against_all(|client| {
        let abandon = Abandon::default();
        std::thread::scope(|scope| {
            // A supervisor that greets every caller may have a silent step: the step's own limits end that.
            scope.spawn(|| {
                std::thread::sleep(Door(stay).patience() * 10);
                abandon.set();
            });
            match follow(client, exec(), &mut Nowhere, &abandon) {
                end @ (FollowEnd::Lost(_) | FollowEnd::Refused(_)) => Err(end),
                end @ FollowEnd::Abandoned => {
                    abandoned.fetch_add(1, Ordering::Relaxed);
                    Err(end)
                }
                other => panic!("{other:?}"),
            }
        })
    });
    assert_eq!(abandoned.into_inner(), 1, "only one of them is a good supervisor of a silent step");
}

#[test]
fn who_takes_nothing_is_not_written_to_for_ever() {
    let begun = Instant::now();
    let deaf: Madness = |mut stream| {
        greet(&mut stream)?;
        // Neither reads nor hangs up while the test lasts.
        std::thread::sleep(SOON);
        Ok(())
    };
    let unpacked = client(deaf).unpack("/x", None, |sink| {
        loop {
            sink.write_all(&[0; 64 << 10])?;
        }
        #[expect(unreachable_code, reason = "says what the closure's result is")]
        Ok::<(), io::Error>(())
    });
    assert!(matches!(unpacked, Err(ClientError::TimedOut { .. })), "{unpacked:?}");
    assert!(begun.elapsed() < SOON / 2, "took {:?}", begun.elapsed());
}

#[test]
fn a_list_that_never_ends_is_cut_at_its_cap() {
    let begun = Instant::now();
    let endless: Madness = |mut stream| {
        greet(&mut stream)?;
        endlessly(stream, &frame_of(FrameKind::Data, &[b'x'; MAX_LENGTH - 1]))
    };
    let limits = Limits { reply: SOON, ..LIMITS };
    let listed = Client::with_limits(Arc::new(Door(endless)), limits).glob("/", &["*"], None);
    assert!(matches!(listed, Err(ClientError::WrongReply)), "{:?}", listed.map(|found| found.paths.len()));
    assert!(begun.elapsed() < SOON, "more than {LARGEST_ANSWER} bytes were taken");
}

#[test]
fn a_silent_step_goes_on_as_long_as_somebody_is_there() {
    let patient: Madness = |mut stream| {
        greet(&mut stream)?;
        let mut buffer = Vec::new();
        frame::read(&mut stream, &mut buffer).ok();
        // Only a question for life hangs up behind its greeting.
        if frame::read(&mut stream, &mut buffer).is_ok_and(|kind| kind == Some(FrameKind::Request)) {
            stream.write_all(&reply(&Reply::Started { pid: 1 }))?;
            std::thread::sleep(LIMITS.silence * 8);
            stream.write_all(&output_at(0, b"late"))?;
            stream.write_all(&reply(&Reply::Ended { output: 4 }))?;
        }
        stay(stream)
    };
    let end = follow(&client(patient), exec(), &mut Nowhere, &Abandon::default());
    assert!(matches!(end, FollowEnd::Ended), "{end:?}");
}

#[test]
fn a_person_s_session_ends_with_output_that_cannot_be() {
    let mad: Madness = |mut stream| {
        greet(&mut stream)?;
        stream.write_all(&reply(&Reply::Started { pid: 1 }))?;
        stream.write_all(&output_at(u64::MAX, b"x"))?;
        stay(stream)
    };
    let end = client(mad).session(exec()).unwrap().run(|_, _| panic!("it was shown"));
    assert!(matches!(end, Err(ClientError::WrongReply)), "{end:?}");
}
