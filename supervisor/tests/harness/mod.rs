//! A supervisor on this host, in a directory of its own, and a small client for it.
//!
//! `Bench::new()` starts one; `bench.exec("true").run()` is a step; `bench.ask(request)` is any other activity.
#![allow(dead_code, reason = "each test file uses its share")]

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use navvy_protocol::frame::{self, FrameKind, OutputHeader, Stream};
use navvy_protocol::supervisor::{Control, Exec, Exit, Exited, Failure, Hello, Reply, Request, Terminal};

/// The program under test: cargo's, or another build of it (the static one, say).
pub fn binary() -> String {
    std::env::var("NAVVY_TEST_SUPERVISOR").unwrap_or_else(|_| env!("CARGO_BIN_EXE_navvy-supervisor").to_owned())
}

pub const SECRET: &str = "the task's secret";
/// Nothing here takes long; a test that waits longer has failed.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Kilobytes; code that is not optimised takes more pages.
pub fn resident_limit() -> u64 {
    if cfg!(debug_assertions) && std::env::var_os("NAVVY_TEST_SUPERVISOR").is_none() { 8192 } else { 4096 }
}

pub struct Bench {
    pub run_dir: tempfile::TempDir,
    pub process: Child,
}

impl Bench {
    pub fn new() -> Self {
        Self::with(&[])
    }

    pub fn with(arguments: &[&str]) -> Self {
        Self::start(Command::new(binary()), arguments)
    }

    /// The supervisor and all that it starts are members of this cgroup.
    pub fn with_group(group: &Path) -> Self {
        let mut command = Command::new("/bin/sh");
        let script = format!("echo $$ >{}/cgroup.procs && exec \"$0\" \"$@\"", group.display());
        command.args(["-c", &script, &binary()]);
        Self::start(command, &[])
    }

    /// In this directory.
    pub fn with_run_dir(run_dir: tempfile::TempDir) -> Self {
        Self::start_in(run_dir, Command::new(binary()), &[])
    }

    fn start(command: Command, arguments: &[&str]) -> Self {
        Self::start_in(run_dir(), command, arguments)
    }

    fn start_in(run_dir: tempfile::TempDir, mut command: Command, arguments: &[&str]) -> Self {
        command.arg("init").arg("--run-dir").arg(run_dir.path()).args(arguments).stdin(Stdio::null());
        let process = command.spawn().unwrap();
        let bench = Self { run_dir, process };
        wait_for("the control socket", || bench.socket().exists() && UnixStream::connect(bench.socket()).is_ok());
        bench
    }

    pub fn path(&self) -> &Path {
        self.run_dir.path()
    }

    pub fn socket(&self) -> PathBuf {
        self.path().join("control.sock")
    }

    pub fn open(&self, request: &Request) -> Conversation {
        Conversation::open(UnixStream::connect(self.socket()).unwrap(), Some(SECRET), request)
    }

    pub fn ask(&self, request: &Request) -> Reply {
        self.open(request).reply()
    }

    pub fn exec(&self, script: &str) -> Step<'_> {
        Step { bench: self, exec: exec(script) }
    }

    pub fn attach(&self, exec: &str, offset: u64) -> Conversation {
        self.open(&Request::Attach { exec: exec.to_owned(), offset, note: None })
    }

    pub fn stop(&self, exec: &str, grace: Duration) {
        let reply = self.ask(&Request::Stop { exec: exec.to_owned(), grace_ms: grace.as_millis() as u64 });
        assert_eq!(reply, Reply::Done);
    }

    /// Kilobytes resident.
    pub fn resident(&self) -> u64 {
        self.kilobytes("VmRSS:")
    }

    /// Kilobytes resident of what it has allocated: pages of its program not counted, which come with whatever it does for
    /// the first time, and of which code that is not optimised has many.
    pub fn allocated(&self) -> u64 {
        self.kilobytes("RssAnon:") + self.kilobytes("RssShmem:")
    }

    fn kilobytes(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
    }

    pub fn open_descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap().count()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Whatever a test left running ends here.
        if let Ok(stream) = UnixStream::connect(self.socket()) {
            let _ = Conversation::open(stream, Some(SECRET), &Request::Shutdown { grace_ms: 0 }).frame();
        } else {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}

pub fn run_dir() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(directory.path().join("secret"), format!("{SECRET}\n")).unwrap();
    directory
}

/// Waits for something that another process does.
pub fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn exec(script: &str) -> Exec {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    Exec {
        id: format!("exec-{number}"),
        argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
        cwd: "/".to_owned(),
        user: None,
        terminal: Terminal::Pipes,
        input: false,
        watch_memory: false,
    }
}

/// A step to be.
pub struct Step<'a> {
    bench: &'a Bench,
    pub exec: Exec,
}

impl Step<'_> {
    pub fn with(mut self, change: impl FnOnce(&mut Exec)) -> Self {
        change(&mut self.exec);
        self
    }

    pub fn on_pty(self) -> Self {
        self.with(|exec| exec.terminal = Terminal::Plain { columns: 120, rows: 40 })
    }

    /// To its end and that of everything it started.
    pub fn run(self) -> Story {
        self.start().follow()
    }

    /// To the end of its own process.
    pub fn run_to_exit(self) -> (Conversation, Story) {
        let mut conversation = self.start();
        let mut story = Story::default();
        while story.exited.is_none() {
            conversation.step(&mut story);
        }
        (conversation, story)
    }

    pub fn start(self) -> Conversation {
        let mut conversation = self.bench.open(&Request::Exec(self.exec));
        match conversation.reply() {
            Reply::Started { .. } => conversation,
            other => panic!("{other:?}"),
        }
    }

    pub fn refused(self) -> Failure {
        match self.bench.ask(&Request::Exec(self.exec)) {
            Reply::Failed(failure) => failure,
            other => panic!("{other:?}"),
        }
    }
}

/// What an exec told.
#[derive(Debug, Default)]
pub struct Story {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// Both, in order.
    pub all: Vec<u8>,
    pub exited: Option<Exited>,
    pub ended: Option<u64>,
}

impl Story {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.all).into_owned()
    }

    pub fn exit(&self) -> Exit {
        self.exited.as_ref().expect("it exited").exit
    }
}

pub struct Conversation {
    pub stream: UnixStream,
    pub buffer: Vec<u8>,
}

impl Conversation {
    pub fn open(mut stream: UnixStream, secret: Option<&str>, request: &Request) -> Self {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut frames = Vec::new();
        frame::encode_message(&mut frames, FrameKind::Hello, &Hello::new(secret.map(str::to_owned))).unwrap();
        frame::encode_message(&mut frames, FrameKind::Request, request).unwrap();
        std::io::Write::write_all(&mut stream, &frames).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    pub fn frame(&mut self) -> Option<FrameKind> {
        frame::read(&mut self.stream, &mut self.buffer).unwrap()
    }

    /// The next reply; the greeting before it is passed over.
    pub fn reply(&mut self) -> Reply {
        loop {
            match self.frame().expect("an answer") {
                FrameKind::Hello => {}
                FrameKind::Reply => return frame::parse_message(FrameKind::Reply, &self.buffer).unwrap(),
                other => panic!("{other:?}"),
            }
        }
    }

    pub fn acknowledge(&mut self, offset: u64) {
        self.control(&Control::Ack { offset, note: None });
    }

    pub fn control(&mut self, control: &Control) {
        // The supervisor may have said everything and gone.
        let _ = frame::write_message(&mut self.stream, FrameKind::Control, control);
    }

    pub fn data(&mut self, bytes: &[u8]) {
        frame::write(&mut self.stream, FrameKind::Data, bytes).unwrap();
    }

    /// One frame of an exec's story.
    /// Goes on until it has said this.
    pub fn until(&mut self, story: &mut Story, text: &str) {
        while !story.text().contains(text) {
            self.step(story);
        }
    }

    pub fn step(&mut self, story: &mut Story) {
        match self.frame().expect("more of the story") {
            FrameKind::Output => {
                let (header, bytes) = OutputHeader::split(&self.buffer).unwrap();
                assert_eq!(header.offset, story.all.len() as u64);
                match header.stream {
                    Stream::Stdout => story.stdout.extend_from_slice(bytes),
                    Stream::Stderr => story.stderr.extend_from_slice(bytes),
                }
                story.all.extend_from_slice(bytes);
                let offset = story.all.len() as u64;
                self.acknowledge(offset);
            }
            FrameKind::Hello => {}
            FrameKind::Reply => match frame::parse_message(FrameKind::Reply, &self.buffer).unwrap() {
                Reply::Started { .. } => {}
                Reply::Exited(exited) => {
                    assert_eq!(exited.output, story.all.len() as u64);
                    story.exited = Some(exited);
                }
                Reply::Ended { output } => {
                    assert_eq!(output, story.all.len() as u64);
                    story.ended = Some(output);
                }
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    pub fn follow(mut self) -> Story {
        let mut story = Story::default();
        self.follow_into(&mut story);
        story
    }

    pub fn follow_into(&mut self, story: &mut Story) {
        while story.ended.is_none() {
            self.step(story);
        }
    }

    /// Reads `Data` up to the empty frame, and the reply behind it.
    pub fn receive(&mut self) -> (Vec<u8>, Reply) {
        let mut bytes = Vec::new();
        loop {
            match self.frame().expect("data") {
                FrameKind::Hello => {}
                FrameKind::Data if self.buffer.is_empty() => return (bytes, self.reply()),
                FrameKind::Data => bytes.extend_from_slice(&self.buffer),
                FrameKind::Reply => {
                    return (bytes, frame::parse_message(FrameKind::Reply, &self.buffer).unwrap());
                }
                other => panic!("{other:?}"),
            }
        }
    }

    pub fn send_all(&mut self, bytes: &[u8]) -> Reply {
        for chunk in bytes.chunks(200_000) {
            self.data(chunk);
        }
        self.data(&[]);
        self.reply()
    }

    pub fn cut(self) {
        let fd: OwnedFd = self.stream.into();
        assert!(fd.as_raw_fd() >= 0);
    }
}

pub fn failure(reply: Reply) -> Failure {
    match reply {
        Reply::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}
