//! Sockets that lead to the agent.

mod harness;

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use harness::{Bench, Conversation, LIMIT, failure, wait_for};
use navvy_protocol::frame::FrameKind;
use navvy_protocol::supervisor::{Exit, Reply, Request};

const CAP: usize = 64;

fn relay(bench: &Bench, path: &Path) -> Conversation {
    let mut relay = bench.open(&Request::Relay { path: path.to_str().unwrap().to_owned(), user: None });
    assert_eq!(relay.reply(), Reply::Done);
    relay
}

fn call(path: &Path) -> UnixStream {
    let caller = UnixStream::connect(path).unwrap();
    caller.set_read_timeout(Some(LIMIT)).unwrap();
    caller
}

fn taken(bench: &Bench, relay: &mut Conversation) -> Conversation {
    let Reply::Called { caller } = relay.reply() else { panic!("nobody called") };
    bench.open(&Request::Take { caller })
}

/// The next bytes of the caller's, to the end that it sets.
fn received(conversation: &mut Conversation, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < length {
        match conversation.frame() {
            Some(FrameKind::Hello) => {}
            Some(FrameKind::Data) => bytes.extend_from_slice(&conversation.buffer),
            other => panic!("{other:?}"),
        }
    }
    bytes
}

fn place(bench: &Bench) -> PathBuf {
    bench.path().join("new/below/socket")
}

#[test]
fn bytes_go_both_ways_and_each_way_ends_by_itself() {
    let bench = Bench::new();
    let path = place(&bench);
    let mut relay = relay(&bench, &path);
    assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
    let mut caller = call(&path);
    let mut agent = taken(&bench, &mut relay);
    let long: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let sender = std::thread::spawn({
        let (mut caller, long) = (caller.try_clone().unwrap(), long.clone());
        move || {
            caller.write_all(&long).unwrap();
            caller.shutdown(Shutdown::Write).unwrap();
        }
    });
    assert!(received(&mut agent, long.len()) == long);
    sender.join().unwrap();
    assert_eq!((agent.frame(), agent.buffer.len()), (Some(FrameKind::Data), 0));
    // The other way is still open.
    agent.data(b"an answer");
    agent.data(b"");
    let mut answer = String::new();
    caller.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "an answer");
    assert_eq!(agent.frame(), None);
}

#[test]
fn callers_end_with_the_agent_and_the_place_is_free_again() {
    let bench = Bench::new();
    let path = place(&bench);
    for _ in 0..3 {
        let mut relay = relay(&bench, &path);
        let mut waits = call(&path);
        let Reply::Called { .. } = relay.reply() else { panic!("nobody called") };
        let mut joined = call(&path);
        let mut agent = taken(&bench, &mut relay);
        agent.data(b"x");
        joined.read_exact(&mut [0]).unwrap();
        drop(relay);
        for caller in [&mut waits, &mut joined] {
            assert_eq!(caller.read(&mut [0]).unwrap(), 0);
        }
        wait_for("the end of listening", || UnixStream::connect(&path).is_err());
    }
}

#[test]
fn a_caller_ends_with_its_agents_connection_alone() {
    let bench = Bench::new();
    let path = place(&bench);
    let mut relay = relay(&bench, &path);
    let (mut first, mut second) = (call(&path), call(&path));
    let one = taken(&bench, &mut relay);
    let mut other = taken(&bench, &mut relay);
    drop(one);
    assert_eq!(first.read(&mut [0]).unwrap(), 0);
    second.write_all(b"still here").unwrap();
    assert_eq!(received(&mut other, 10), b"still here");
}

#[test]
fn a_caller_is_taken_once_and_too_many_are_hung_up_on() {
    let bench = Bench::new();
    let path = place(&bench);
    let mut relay = relay(&bench, &path);
    let mut callers: Vec<UnixStream> = (0..=CAP).map(|_| call(&path)).collect();
    let numbers: Vec<Reply> = (0..CAP).map(|_| relay.reply()).collect();
    assert_eq!(callers.last_mut().unwrap().read(&mut [0]).unwrap(), 0);
    let Reply::Called { caller } = numbers[0] else { panic!("{:?}", numbers[0]) };
    let mut agent = bench.open(&Request::Take { caller });
    agent.data(b"x");
    callers[0].read_exact(&mut [0]).unwrap();
    assert!(failure(bench.ask(&Request::Take { caller })).message.contains("taken already"));
    assert!(failure(bench.ask(&Request::Take { caller: 1 << 60 })).message.contains("no such caller"));
    agent.data(b"");
    callers[0].shutdown(Shutdown::Write).unwrap();
    while agent.frame().is_some() {}
    // There is room again.
    let mut next = call(&path);
    let mut agent = taken(&bench, &mut relay);
    agent.data(b"x");
    next.read_exact(&mut [0]).unwrap();
}

#[test]
fn what_is_in_use_stays() {
    let bench = Bench::new();
    let (file, live) = (bench.path().join("file"), bench.path().join("live"));
    std::fs::write(&file, "a file").unwrap();
    let _listener = UnixListener::bind(&live).unwrap();
    for path in [&file, &live] {
        let request = Request::Relay { path: path.to_str().unwrap().to_owned(), user: None };
        assert!(failure(bench.ask(&request)).message.contains("cannot listen on"));
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "a file");
    UnixStream::connect(&live).unwrap();
}

/// Only as uid 0, as in every environment.
#[test]
fn the_socket_is_its_users_alone() {
    let bench = Bench::new();
    let path = place(&bench);
    if bench.path().metadata().unwrap().uid() != 0 {
        return;
    }
    let request = Request::Relay { path: path.to_str().unwrap().to_owned(), user: Some("4711:4712".to_owned()) };
    let mut relay = bench.open(&request);
    assert_eq!(relay.reply(), Reply::Done);
    let made = path.metadata().unwrap();
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o777), (4711, 4712, 0o600));
    let tries = format!("test -w {}", path.display());
    let as_user = |user: &str| bench.exec(&tries).with(|exec| exec.user = Some(user.to_owned())).run().exit();
    assert_eq!((as_user("4711"), as_user("4713")), (Exit::Code(0), Exit::Code(1)));
}
