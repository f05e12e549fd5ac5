//! A machine's supervisor without a machine: its ports are terminals, and a seed writes below a directory.

mod harness;

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use harness::{Conversation, LIMIT, Story, binary, exec, failure, wait_for};
use navvy_protocol::guest::{LINE_CAP, Said, Seed, SeedFile, Told, VERSION};
use navvy_protocol::mux::{GREETING, HEADER_LENGTH, Header, MAGIC, NONCE_LENGTH, Op, whole};
use navvy_protocol::supervisor::{Exit, Place, Reply, Request};

const SECRET: &str = "a secret of this machine's";

/// A terminal that passes on bytes as they are: the host's end, and the path of the guest's.
#[expect(unsafe_code, reason = "the standard library makes no terminals")]
fn port() -> (File, File, PathBuf) {
    let host = File::options().read(true).write(true).open("/dev/ptmx").unwrap();
    let mut number: libc::c_uint = 0;
    // SAFETY: an int is read, an unsigned int is stored.
    let done = unsafe {
        let unlocked: libc::c_int = 0;
        libc::ioctl(host.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked)
            | libc::ioctl(host.as_raw_fd(), libc::TIOCGPTN, &raw mut number)
    };
    assert_eq!(done, 0);
    let path = PathBuf::from(format!("/dev/pts/{number}"));
    let guest = File::options().read(true).write(true).open(&path).unwrap();
    // SAFETY: a termios is plain integers, filled by one call and read by the other.
    unsafe {
        let mut settings: libc::termios = std::mem::zeroed();
        assert_eq!(libc::tcgetattr(guest.as_raw_fd(), &raw mut settings), 0);
        libc::cfmakeraw(&raw mut settings);
        assert_eq!(libc::tcsetattr(guest.as_raw_fd(), libc::TCSANOW, &raw const settings), 0);
    }
    (host, guest, path)
}

/// Waits until something can be read, so that no test hangs.
#[expect(unsafe_code, reason = "terminals have no time limit for reading")]
fn await_bytes(host: &File) {
    let mut entry = libc::pollfd { fd: host.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one live entry.
    let ready = unsafe { libc::poll(&raw mut entry, 1, LIMIT.as_millis() as libc::c_int) };
    assert_eq!(ready, 1, "the guest said nothing");
}

fn read_exactly(mut host: &File, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < count {
        await_bytes(host);
        let mut piece = vec![0; count - bytes.len()];
        let got = host.read(&mut piece).unwrap();
        bytes.extend_from_slice(&piece[..got]);
    }
    bytes
}

struct Machine {
    process: Child,
    scratch: tempfile::TempDir,
    seed: File,
    mux: File,
    /// Else a terminal counts as hung up until the supervisor has opened it.
    _kept: [File; 2],
}

impl Machine {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let (seed, kept_seed, seed_path) = port();
        let (mux, kept_mux, mux_path) = port();
        let process = Command::new(binary())
            .arg("guest")
            .args([Path::new("--run-dir"), &scratch.path().join("run")])
            .args([Path::new("--seed-port"), &seed_path])
            .args([Path::new("--mux-port"), &mux_path])
            .args([Path::new("--seed-socket"), &scratch.path().join("seed/seed.sock")])
            .args([Path::new("--trial-below"), &scratch.path().join("root")])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, scratch, seed, mux, _kept: [kept_seed, kept_mux] }
    }

    fn file(&self, path: &str) -> PathBuf {
        self.scratch.path().join(path)
    }

    fn said(&self) -> Said {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            line.extend(read_exactly(&self.seed, 1));
        }
        serde_json::from_slice(&line).unwrap()
    }

    fn tell(&self, line: &[u8]) -> Said {
        let line = [line, b"\n"].concat();
        (&self.seed).write_all(&line).unwrap();
        self.said()
    }

    fn seeded() -> Self {
        let machine = Self::new();
        assert_eq!(machine.said(), Said::Ready { version: VERSION });
        assert!(matches!(machine.tell(&seed()), Said::Seeded { .. }));
        machine
    }

    fn greet(&self, nonce: u8) {
        (&self.mux).write_all(&[&GREETING[..], &[nonce; NONCE_LENGTH]].concat()).unwrap();
        let answer = [&MAGIC[..], &[nonce; NONCE_LENGTH]].concat();
        let mut got = read_exactly(&self.mux, answer.len());
        // What was under way is passed over.
        while got != answer {
            got.remove(0);
            got.extend(read_exactly(&self.mux, 1));
        }
    }

    fn send(&self, channel: u32, op: Op, payload: &[u8]) {
        let message = [&Header { channel, op, length: payload.len() }.to_bytes()[..], payload].concat();
        (&self.mux).write_all(&message).unwrap();
    }

    /// A conversation in a channel of its own; one at a time.
    fn open(&self, channel: u32, request: &Request) -> Conversation {
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.send(channel, Op::Open, &[]);
        let mux = self.mux.try_clone().unwrap();
        let mut to_guest = theirs.try_clone().unwrap();
        // Ends with the conversation.
        std::thread::spawn(move || {
            let mut buffer = vec![0; 4096];
            while let Ok(count @ 1..) = to_guest.read(&mut buffer) {
                let mut rest = &buffer[..count];
                while !rest.is_empty() {
                    let (payload, after) = rest.split_at(whole(rest));
                    let header = Header { channel, op: Op::Data, length: payload.len() };
                    (&mux).write_all(&[&header.to_bytes()[..], payload].concat()).unwrap();
                    rest = after;
                }
            }
        });
        let mux = self.mux.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut theirs = theirs;
            loop {
                let header = Header::parse(read_exactly(&mux, HEADER_LENGTH).try_into().unwrap()).unwrap();
                let payload = read_exactly(&mux, header.length);
                if header.channel == channel && (header.op != Op::Data || theirs.write_all(&payload).is_err()) {
                    return theirs.shutdown(std::net::Shutdown::Both).unwrap_or_default();
                }
            }
        });
        Conversation::open(ours, None, request)
    }

    /// To the end of the channel, so that the next may read.
    fn ask(&self, channel: u32, request: &Request) -> Reply {
        let mut conversation = self.open(channel, request);
        let reply = conversation.reply();
        assert_eq!(conversation.frame(), None);
        reply
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn a_seed() -> Seed {
    let text = "written by the seed".to_owned();
    Seed {
        time_ns: 1_800_000_000_000_000_000,
        entropy: "0f".repeat(32),
        secret: SECRET.to_owned(),
        machine_id: "0123456789abcdef0123456789abcdef".to_owned(),
        host_name: "navvy-trial".to_owned(),
        idle_limit_s: 0,
        network: None,
        host_key: Some("-----BEGIN OPENSSH PRIVATE KEY-----\nb3==\n-----END OPENSSH PRIVATE KEY-----\n".to_owned()),
        authorized_keys: vec!["ssh-ed25519 AAAA someone".to_owned()],
        docker: false,
        volumes: Vec::new(),
        files: vec![SeedFile { path: "/etc/navvy/a file".to_owned(), mode: 0o640, text }],
        variables: Vec::new(),
    }
}

fn seed() -> Vec<u8> {
    serde_json::to_vec(&Told::Seed(Box::new(a_seed()))).unwrap()
}

fn failed(said: Said) -> String {
    match said {
        Said::Failed { message } => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_machine_is_seeded_once_and_hostile_lines_change_nothing() {
    let machine = Machine::new();
    assert_eq!(machine.said(), Said::Ready { version: VERSION });
    assert_eq!(machine.tell(b""), Said::Ready { version: VERSION });
    for line in [&b"garbage"[..], b"{}", br#"{"told":"fly"}"#, br#"{"told":"seed"}"#, b"\xff\x00\xfe", b"[[[[[[[["] {
        assert!(failed(machine.tell(line)).contains("not understood"));
    }
    let deep = vec![b'['; 100_000];
    assert!(failed(machine.tell(&deep)).contains("not understood"));
    let wrong = Seed { host_name: "two words".to_owned(), ..a_seed() };
    let line = serde_json::to_vec(&Told::Seed(Box::new(wrong))).unwrap();
    let why = failed(machine.tell(&line));
    assert!(why.contains("host name") && !why.contains(SECRET), "{why}");
    assert!(!machine.file("root/etc").exists(), "a seed that was refused was begun");
    assert!(!machine.file("run/control.sock").exists());
    assert_eq!(machine.tell(br#"{"told":"warm"}"#), Said::Warmed);

    assert!(matches!(machine.tell(&seed()), Said::Seeded { .. }));
    let text = |path: &str| fs::read_to_string(machine.file(path)).unwrap();
    assert_eq!(text("root/etc/hostname"), "navvy-trial\n");
    assert_eq!(text("root/etc/machine-id"), "0123456789abcdef0123456789abcdef\n");
    assert_eq!(text("root/etc/navvy/a file"), "written by the seed");
    assert!(text("root/etc/hosts").contains("127.0.1.1 navvy-trial"));
    let mode = |path: &str| machine.file(path).metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("root/etc/navvy/a file"), mode("root/etc/ssh/ssh_host_ed25519_key")), (0o640, 0o600));
    assert_eq!(mode("root/home/trial/.ssh/authorized_keys"), 0o600);
    assert_eq!((mode("run/control.sock"), mode("run/job.sock")), (0o600, 0o666));

    assert!(failed(machine.tell(&seed())).contains("seeded once"));
    assert!(failed(machine.tell(br#"{"told":"warm"}"#)).contains("without a seed"));
}

/// The guest reads it all, keeps none of it, and answers once.
#[test]
fn a_line_without_an_end_is_refused_and_the_next_one_is_read() {
    let machine = Machine::new();
    machine.said();
    let mut port = machine.seed.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        port.write_all(&vec![b'x'; LINE_CAP + LINE_CAP / 2]).unwrap();
        port.write_all(b"\n\n").unwrap();
    });
    assert!(failed(machine.said()).contains("longer than"));
    assert_eq!(machine.said(), Said::Ready { version: VERSION });
    sender.join().unwrap();
}

#[test]
fn the_ports_other_end_is_the_agent_and_others_need_the_secret() {
    let machine = Machine::seeded();
    machine.greet(1);
    assert!(matches!(machine.ask(1, &Request::Sample), Reply::Sample(sample) if sample.memory > Some(0)));
    let socket = || UnixStream::connect(machine.file("run/control.sock")).unwrap();
    let mut stranger = Conversation::open(socket(), None, &Request::Sample);
    assert!(failure(stranger.reply()).message.contains("secret"));
    let mut agent = Conversation::open(socket(), Some(SECRET), &Request::List);
    assert_eq!(agent.reply(), Reply::Execs { execs: Vec::new() });
    let mut job = UnixStream::connect(machine.file("run/job.sock")).unwrap();
    job.write_all(b"{\"ask\":\"no such\"}\n").unwrap();
    let mut answer = String::new();
    job.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("not understood"), "{answer}");
}

#[test]
fn what_an_exec_wrote_outlives_the_host_that_started_it() {
    let machine = Machine::seeded();
    machine.greet(1);
    let step = exec("echo one; while ! test -e go; do sleep 0.02; done; echo two");
    let step = navvy_protocol::supervisor::Exec { cwd: machine.scratch.path().to_str().unwrap().to_owned(), ..step };
    let id = step.id.clone();
    // Not `open`: a host that dies has no threads that go on reading.
    machine.send(1, Op::Open, &[]);
    let mut frames = Vec::new();
    use navvy_protocol::frame::{FrameKind, encode_message};
    encode_message(&mut frames, FrameKind::Hello, &navvy_protocol::supervisor::Hello::new(None)).unwrap();
    encode_message(&mut frames, FrameKind::Request, &Request::Exec(step)).unwrap();
    machine.send(1, Op::Data, &frames);
    wait_for("the step's first line", || {
        let mut list = Conversation::open(
            UnixStream::connect(machine.file("run/control.sock")).unwrap(),
            Some(SECRET),
            &Request::List,
        );
        matches!(list.reply(), Reply::Execs { execs } if execs.iter().any(|exec| exec.output == 4))
    });
    // It dies in the midst of a message.
    (&machine.mux).write_all(&Header { channel: 1, op: Op::Data, length: 60_000 }.to_bytes()).unwrap();
    (&machine.mux).write_all(b"half").unwrap();
    machine.greet(2);
    fs::write(machine.file("go"), "").unwrap();
    let mut attached = machine.open(1, &Request::Attach { exec: id, offset: 0, note: None });
    let mut story = Story::default();
    attached.follow_into(&mut story);
    assert_eq!((story.text().as_str(), story.exit()), ("one\ntwo\n", Exit::Code(0)));
}

#[test]
fn garbage_on_the_port_ends_no_more_than_its_channels() {
    let machine = Machine::seeded();
    for nonce in 1..4 {
        machine.greet(nonce);
        assert!(matches!(machine.ask(1, &Request::List), Reply::Execs { .. }));
        (&machine.mux).write_all(&[0xff; 3000]).unwrap();
    }
    machine.greet(9);
    let to = Place::Unix { path: machine.file("nowhere.sock").to_str().unwrap().to_owned() };
    assert!(failure(machine.ask(1, &Request::Forward { to })).message.contains("cannot connect"));
}

#[test]
fn a_far_machine_takes_its_seed_through_the_socket_and_serves_dial() {
    let machine = Machine::new();
    let path = machine.file("seed/seed.sock");
    wait_for("the seed's socket", || UnixStream::connect(&path).is_ok());
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let mut host = UnixStream::connect(&path).unwrap();
    host.set_read_timeout(Some(LIMIT)).unwrap();
    host.write_all(&[&seed()[..], b"\n"].concat()).unwrap();
    let mut said = Vec::new();
    while said.iter().filter(|byte| **byte == b'\n').count() < 2 {
        let mut piece = [0; 1000];
        let count = host.read(&mut piece).unwrap();
        assert!(count > 0);
        said.extend_from_slice(&piece[..count]);
    }
    assert!(String::from_utf8(said).unwrap().contains(r#""said":"seeded""#));
    drop(host);
    wait_for("the end of the seed's socket", || !path.exists());
    let mut dial = Command::new(binary())
        .args(["dial", "--guest", "--run-dir"])
        .arg(machine.file("run"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut greeting = [0; MAGIC.len()];
    dial.stdout.as_mut().unwrap().read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, MAGIC);
    drop(dial.stdin.take());
    assert!(dial.wait().unwrap().success());
}

#[test]
fn a_machine_that_is_left_alone_ends_and_so_does_one_that_is_shut_down() {
    let mut machine = Machine::new();
    machine.said();
    let line = serde_json::to_vec(&Told::Seed(Box::new(Seed { idle_limit_s: 1, ..a_seed() }))).unwrap();
    assert!(matches!(machine.tell(&line), Said::Seeded { .. }));
    wait_for("the machine's end", || machine.process.try_wait().unwrap().is_some());
    assert_eq!(machine.process.wait().unwrap().code(), Some(75));

    let mut machine = Machine::seeded();
    machine.greet(1);
    let mut shut_down = machine.open(1, &Request::Shutdown { grace_ms: Duration::ZERO.as_millis() as u64 });
    assert_eq!(shut_down.reply(), Reply::Done);
    wait_for("the machine's end", || machine.process.try_wait().unwrap().is_some());
    assert_eq!(machine.process.wait().unwrap().code(), Some(0));
}
