//! Sockets that lead to the agent.

mod harness;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use harness::{Bench, Conversation, LIMIT, failure, wait_for};
use navvy_protocol::frame::FrameKind;
use navvy_protocol::supervisor::{Exit, Place, Reply, Request};

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

/// A port of 127.0.0.1 in the place of a socket in a directory.
#[test]
fn callers_of_a_port_are_joined_as_those_of_a_socket() {
    let bench = Bench::new();
    let mut relay = bench.open(&Request::RelayTcp { port: 0 });
    let Reply::Listening { port } = relay.reply() else { panic!("it does not listen") };
    let taken_port = failure(bench.ask(&Request::RelayTcp { port })).message;
    assert!(taken_port.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{taken_port}");
    let mut caller = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    assert!(caller.peer_addr().unwrap().ip().is_loopback());
    let mut agent = taken(&bench, &mut relay);
    caller.write_all(b"a question").unwrap();
    caller.shutdown(Shutdown::Write).unwrap();
    assert_eq!(received(&mut agent, 10), b"a question");
    assert_eq!((agent.frame(), agent.buffer.len()), (Some(FrameKind::Data), 0));
    agent.data(b"an answer");
    agent.data(b"");
    let mut answer = String::new();
    caller.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "an answer");
    drop(relay);
    // The same port again, once the supervisor has seen the end: what is left of old connections is no hindrance.
    wait_for("the port", || matches!(bench.ask(&Request::RelayTcp { port }), Reply::Listening { .. }));
}

fn forward(bench: &Bench, to: Place) -> Conversation {
    let mut agent = bench.open(&Request::Forward { to });
    assert_eq!(agent.reply(), Reply::Done);
    agent
}

#[test]
fn the_agent_is_joined_with_what_listens_inside() {
    let bench = Bench::new();
    let path = bench.path().join("engine.sock");
    let unix = UnixListener::bind(&path).unwrap();
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = tcp.local_addr().unwrap().port();
    fn serve(mut peer: impl std::io::Read + std::io::Write) {
        let mut question = [0; 4];
        peer.read_exact(&mut question).unwrap();
        peer.write_all(&question.repeat(100_000)).unwrap();
        // Each way ends by itself.
        assert_eq!(peer.read(&mut question).unwrap(), 0);
    }
    let servers = [
        std::thread::spawn(move || serve(unix.accept().unwrap().0)),
        std::thread::spawn(move || serve(tcp.accept().unwrap().0)),
    ];
    for to in [Place::Unix { path: path.to_str().unwrap().to_owned() }, Place::Tcp { port }] {
        let mut agent = forward(&bench, to);
        agent.data(b"ping");
        assert!(received(&mut agent, 400_000) == b"ping".repeat(100_000));
        agent.data(b"");
        assert_eq!((agent.frame(), agent.buffer.len()), (Some(FrameKind::Data), 0));
        assert_eq!(agent.frame(), None);
    }
    servers.into_iter().for_each(|server| server.join().unwrap());
}

#[test]
fn what_does_not_listen_is_named() {
    let bench = Bench::new();
    let missing = bench.path().join("missing.sock").to_str().unwrap().to_owned();
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let table = [
        (Place::Unix { path: missing.clone() }, format!("cannot connect to {missing:?}: no such file")),
        (Place::Unix { path: "relative".to_owned() }, "not an absolute path".to_owned()),
        (Place::Unix { path: format!("/{}", "x".repeat(200)) }, "too long for a socket".to_owned()),
        (Place::Tcp { port: free }, format!("cannot connect to 127.0.0.1:{free}: connection refused")),
    ];
    for (to, wanted) in table {
        let message = failure(bench.ask(&Request::Forward { to })).message;
        assert!(message.contains(&wanted), "{message}");
    }
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
