//! Who is let in, what steps may ask, how it begins and ends.

mod harness;

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use harness::{Bench, Conversation, SECRET, binary, failure, wait_for};
use navvy_protocol::frame::{self, FrameKind};
use navvy_protocol::in_job::Lack;
use navvy_protocol::supervisor::{ABANDONED, Control, Exit, FailureKind, Hello, Reply, Request};
use navvy_protocol::{mux, place};

#[test]
fn only_the_secret_opens_the_control_socket() {
    let bench = Bench::new();
    assert!(!bench.path().join("secret").exists(), "the secret was left behind");
    assert_eq!(bench.socket().metadata().unwrap().mode() & 0o777, 0o600);
    assert_eq!(bench.path().join(place::JOB_SOCKET).metadata().unwrap().mode() & 0o777, 0o666);
    for secret in [None, Some(""), Some("the task's secre"), Some("the task's secret "), Some("x")] {
        let stream = UnixStream::connect(bench.socket()).unwrap();
        let refused = failure(Conversation::open(stream, secret, &Request::List).reply());
        assert_eq!(refused.kind, FailureKind::Refused, "{secret:?}");
    }
    assert_eq!(bench.ask(&Request::List), Reply::Execs { execs: vec![] });
}

#[test]
fn nonsense_is_refused_and_nothing_breaks() {
    let bench = Bench::new();
    let greeting = {
        let mut bytes = Vec::new();
        frame::encode_message(&mut bytes, FrameKind::Hello, &Hello::new(Some(SECRET.into()))).unwrap();
        bytes
    };
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let mut deep = greeting.clone();
    frame::write(&mut deep, FrameKind::Request, nested.as_bytes()).unwrap();
    let mut wrong = greeting.clone();
    frame::write(&mut wrong, FrameKind::Request, b"{\"request\":\"fly\"}").unwrap();
    let cases = [b"GET / HTTP/1.0\r\n\r\n".to_vec(), vec![0xff; 100], [greeting, vec![0; 9]].concat(), deep, wrong];
    for case in cases {
        let mut stream = UnixStream::connect(bench.socket()).unwrap();
        stream.set_read_timeout(Some(harness::LIMIT)).unwrap();
        // It may hang up before it has read everything.
        let _ = stream.write_all(&case);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let mut job = UnixStream::connect(bench.path().join(place::JOB_SOCKET)).unwrap();
    job.write_all(&[b'x'; 10_000]).ok();
    job.shutdown(std::net::Shutdown::Write).ok();
    job.read_to_end(&mut Vec::new()).ok();
    assert_eq!(bench.exec("exit 2").run().exit(), Exit::Code(2));
}

// ---- the in-job command line ----

fn circleci(bench: &Bench, arguments: &[&str], input: &str) -> Output {
    let link = bench.path().join("circleci");
    if !link.exists() {
        std::os::unix::fs::symlink(binary(), &link).unwrap();
    }
    let mut child = Command::new(link)
        .args(arguments)
        .env("NAVVY_RUN_DIR", bench.path())
        .env("WHO", "world")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Those that read no input may have ended.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn a_job_can_halt_itself() {
    let bench = Bench::new();
    assert!(!bench.exec("true").run().exited.unwrap().halted);
    for (command, noun) in [("halt", "step"), ("halt", "task")] {
        let output = circleci(&bench, &[noun, command], "");
        assert!(output.status.success(), "{output:?}");
    }
    assert!(bench.exec("true").run().exited.unwrap().halted);
    let nowhere =
        Command::new(binary()).args(["cli", "step", "halt"]).env("NAVVY_RUN_DIR", "/nowhere").output().unwrap();
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("cannot reach"));
}

#[test]
fn the_command_line_answers() {
    let bench = Bench::new();
    let run = |arguments: &[&str], input: &str| {
        let output = circleci(&bench, arguments, input);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    assert_eq!(run(&["env", "subst"], "hello ${WHO}\n"), (0, "hello world\n".into(), String::new()));
    assert_eq!(run(&["env", "subst", "hi $WHO"], ""), (0, "hi world".into(), String::new()));
    assert_eq!(run(&["env", "subst", "${"], "").0, 1);
    assert_eq!(run(&["version", "--short"], "").1.trim(), env!("CARGO_PKG_VERSION"));
    assert_eq!(run(&["--help"], "").0, 0);
    let (code, _, text) = run(&["run", "oidc", "get"], "a\n");
    assert_eq!((code, text.lines().count()), (1, 1));
    assert!(text.contains("only the service signs OIDC tokens") && text.contains("NAVVY_SKIP_MISSING=true"), "{text}");
    let (code, _, text) = run(&["run", "oidc", "get"], "");
    assert_eq!((code, text.as_str()), (1, "circleci run oidc get: not available here, as explained before\n"));
    let (code, _, text) = run(&["run", "release", "plan", "d", "--target-version=1"], "");
    assert_eq!(code, 0);
    assert!(text.starts_with("circleci run release plan: deploy markers are kept by the service"), "{text}");
    let (code, _, text) = run(&["run", "release", "plna"], "");
    assert_eq!(code, 64);
    assert!(text.contains("Did you mean \"circleci run release plan\"?"), "{text}");
    let exited = bench.exec("true").run().exited.unwrap();
    assert_eq!(exited.lacks.into_iter().collect::<Vec<_>>(), [Lack::DeployMarkers, Lack::OidcToken]);
    let (code, _, text) = run(&["step", "hault"], "");
    assert_eq!(code, 64);
    assert!(text.contains("Did you mean \"circleci step halt\"?"), "{text}");
}

// ---- dial ----

/// What a client says that runs a step of this channel's own.
fn a_million_zeros(channel: u32) -> Vec<u8> {
    let mut exec = harness::exec(&format!("head -c 1000000 /dev/zero; exit {channel}"));
    exec.id = format!("step-{channel}");
    let mut frames = Vec::new();
    frame::encode_message(&mut frames, FrameKind::Hello, &Hello::new(Some(SECRET.into()))).unwrap();
    frame::encode_message(&mut frames, FrameKind::Request, &Request::Exec(exec)).unwrap();
    frames.extend(million_acknowledged());
    frames
}

fn million_acknowledged() -> Vec<u8> {
    let (mut frames, control) = (Vec::new(), Control::Ack { offset: 1_000_000, note: None });
    frame::encode_message(&mut frames, FrameKind::Control, &control).unwrap();
    frames
}

/// How much output a conversation had, and how its step ended.
fn length_and_exit(mut conversation: &[u8]) -> (usize, Option<Exit>) {
    let (mut buffer, mut output, mut exit) = (Vec::new(), 0, None);
    while let Some(kind) = frame::read(&mut conversation, &mut buffer).unwrap() {
        if kind == FrameKind::Output {
            output += buffer.len() - frame::OutputHeader::LENGTH;
        } else if kind == FrameKind::Reply
            && let Reply::Exited(exited) = frame::parse_message(kind, &buffer).unwrap()
        {
            exit = Some(exited.exit);
        }
    }
    (output, exit)
}

#[test]
fn dial_carries_many_conversations_over_one_stream() {
    let bench = Bench::new();
    let mut child = Command::new(binary())
        .args(["dial", "--run-dir"])
        .arg(bench.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut send = |channel: u32, op: mux::Op, payload: &[u8]| {
        let header = mux::Header { channel, op, length: payload.len() };
        stdin.write_all(&[&header.to_bytes()[..], payload].concat()).unwrap();
    };
    for channel in 1..=3 {
        send(channel, mux::Op::Open, &[]);
        // In pieces that respect no frame.
        for piece in a_million_zeros(channel).chunks(7) {
            send(channel, mux::Op::Data, piece);
        }
    }
    send(9, mux::Op::Data, b"of a channel that was never opened");
    let mut magic = [0; 8];
    stdout.read_exact(&mut magic).unwrap();
    assert_eq!(&magic, mux::MAGIC);
    let mut streams = std::collections::HashMap::<u32, Vec<u8>>::new();
    let mut closed = 0;
    while closed < 3 {
        let mut header = [0; mux::HEADER_LENGTH];
        stdout.read_exact(&mut header).unwrap();
        let header = mux::Header::parse(header).unwrap();
        let mut payload = vec![0; header.length];
        stdout.read_exact(&mut payload).unwrap();
        streams.entry(header.channel).or_default().extend(payload);
        closed += u32::from(header.op == mux::Op::Close);
        // The rest is acknowledged when it is here, and then the supervisor hangs up.
        let stream = &streams[&header.channel];
        if stream.windows(7).rev().take(200).any(|text| text == b"\"ended\"") && header.op == mux::Op::Data {
            send(header.channel, mux::Op::Data, &million_acknowledged());
        }
    }
    for (channel, bytes) in streams {
        assert_eq!(length_and_exit(&bytes), (1_000_000, Some(Exit::Code(channel as i32))));
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

/// Its channel 5 is opened at once. What it answers to that is read behind the proof of who it is.
fn dial(run_dir: &Path) -> (Child, ChildStdin, ChildStdout) {
    let mut child = Command::new(binary())
        .args(["dial", "--run-dir"])
        .arg(run_dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    (child, stdin, stdout)
}

fn open_channel(stdin: &mut ChildStdin) {
    let open = mux::Header { channel: 5, op: mux::Op::Open, length: 0 };
    stdin.write_all(&open.to_bytes()).unwrap();
}

#[test]
fn dial_resets_what_it_cannot_connect() {
    let mut bench = Bench::new();
    let (mut child, mut stdin, mut stdout) = dial(bench.path());
    let mut magic = [0; mux::MAGIC.len()];
    stdout.read_exact(&mut magic).unwrap();
    bench.process.kill().unwrap();
    bench.process.wait().unwrap();
    open_channel(&mut stdin);
    let mut answer = [0; mux::HEADER_LENGTH];
    stdout.read_exact(&mut answer).unwrap();
    assert_eq!(answer, mux::Header { channel: 5, op: mux::Op::Reset, length: 0 }.to_bytes());
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn dial_waits_for_a_supervisor_that_is_being_started() {
    let run_dir = harness::run_dir();
    let (mut child, mut stdin, mut stdout) = dial(run_dir.path());
    open_channel(&mut stdin);
    let payload = a_million_zeros(5);
    for piece in payload.chunks(1000) {
        let header = mux::Header { channel: 5, op: mux::Op::Data, length: piece.len() };
        stdin.write_all(&[&header.to_bytes()[..], piece].concat()).unwrap();
    }
    // Longer than it takes to look for a socket and to give up.
    std::thread::sleep(Duration::from_millis(300));
    let _bench = Bench::with_run_dir(run_dir);
    let mut answer = [0; mux::MAGIC.len() + mux::HEADER_LENGTH];
    stdout.read_exact(&mut answer).unwrap();
    let header = mux::Header::parse(*answer.last_chunk().unwrap()).unwrap();
    assert_eq!((header.channel, header.op), (5, mux::Op::Data), "the conversation is carried");
    drop((stdin, stdout));
    child.wait().unwrap();
}

#[test]
fn dial_says_that_nobody_listens() {
    let directory = harness::run_dir();
    let (child, stdin, mut stdout) = dial(directory.path());
    drop(stdin);
    let mut said = Vec::new();
    stdout.read_to_end(&mut said).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), said), (Some(1), vec![]));
    let words = String::from_utf8(ended.stderr).unwrap();
    assert!(words.contains("no supervisor at") && words.contains("control.sock"), "{words}");
}

// ---- beginning and end ----

#[test]
fn probe_and_sample() {
    let bench = Bench::new();
    let programs = ["sh", "/bin/sh", "no-such-program", "/etc/passwd"].map(str::to_owned).to_vec();
    let Reply::Probe(probe) = bench.ask(&Request::Probe { user: Some("nobody".into()), programs }) else { panic!() };
    assert_eq!((probe.uid, probe.gid, probe.home.as_str()), (65534, 65534, "/nonexistent"));
    assert_eq!(probe.programs[1].as_deref(), Some("/bin/sh"));
    assert!(probe.programs[0].is_some() && probe.programs[2].is_none() && probe.programs[3].is_none());
    assert_eq!(probe.architecture, std::env::consts::ARCH);
    let Reply::Sample(sample) = bench.ask(&Request::Sample) else { panic!() };
    assert!((1..=10).contains(&sample.processes.len()));
}

#[test]
fn an_abandoned_supervisor_ends_its_job() {
    // Longer than this test, which is its agent, may stand still before its first call.
    let mut bench = Bench::with(&["--idle-limit", "5"]);
    let mut conversation = bench.exec("sleep 1000 & echo $!").start();
    let mut story = harness::Story::default();
    while story.exited.is_none() {
        conversation.step(&mut story);
    }
    let pid = story.text().trim().to_owned();
    drop(conversation);
    // The agent tells it by its exit code from whatever the job could bring about.
    assert_eq!(bench.process.wait().unwrap().code(), Some(i32::from(ABANDONED)));
    assert!(!std::path::Path::new("/proc").join(&pid).exists());
}

#[test]
fn a_held_environment_keeps_a_note_until_it_is_let_go() {
    let mut bench = Bench::with(&["--idle-limit", "5"]);
    let note: Vec<u8> = (0..300_000u32).map(|number| number as u8).collect();
    assert_eq!(failure(bench.open(&Request::Recall).reply()).kind, FailureKind::Other);
    assert_eq!(bench.open(&Request::Keep { for_ms: 600_000 }).send_all(&note), Reply::Done);
    assert_eq!(bench.open(&Request::Recall).receive(), (note.clone(), Reply::Done));
    // A later note that does not come whole changes nothing.
    bench.open(&Request::Keep { for_ms: 1 }).data(b"half");
    assert_eq!(bench.open(&Request::Recall).receive(), (note, Reply::Done));
    assert_eq!(bench.open(&Request::Keep { for_ms: 0 }).send_all(b""), Reply::Done);
    assert!(matches!(bench.open(&Request::Recall).receive().1, Reply::Failed(_)));
    assert_eq!(bench.process.wait().unwrap().code(), Some(i32::from(ABANDONED)));
}

#[test]
fn a_held_environment_ends_when_its_time_is_up() {
    let mut bench = Bench::with(&["--idle-limit", "600"]);
    assert_eq!(bench.open(&Request::Keep { for_ms: 1 }).send_all(b"note"), Reply::Done);
    assert!(bench.process.wait().unwrap().success());
}

#[test]
fn shutdown_ends_everything() {
    let mut bench = Bench::new();
    let (_conversation, story) = bench.exec("trap '' TERM; (setsid sleep 1000 & echo $!)").run_to_exit();
    assert_eq!(bench.ask(&Request::Shutdown { grace_ms: 300 }), Reply::Done);
    assert!(bench.process.wait().unwrap().success());
    assert!(!std::path::Path::new("/proc").join(story.text().trim()).exists());
}

/// The supervisor as PID 1 of a pid namespace of its own.
fn first(run_dir: &std::path::Path, arguments: &[&str]) -> std::process::Child {
    Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc", "--kill-child"])
        .arg(binary())
        .args(["init", "--run-dir"])
        .arg(run_dir)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn as_first_process_it_knows_who_is_outside_and_reaps_orphans() {
    let run_dir = harness::run_dir();
    std::fs::remove_file(run_dir.path().join("secret")).unwrap();
    let mut child = first(run_dir.path(), &[]);
    let socket = run_dir.path().join(place::CONTROL_SOCKET);
    wait_for("the control socket", || UnixStream::connect(&socket).is_ok());
    let ask = |request: &Request| Conversation::open(UnixStream::connect(&socket).unwrap(), None, request);
    // We are outside: no secret is needed. From inside, the same socket is closed.
    let inside = format!("exec {} dial --run-dir {} </dev/null; echo $?", binary(), run_dir.path().display());
    let story = ask(&Request::Exec(harness::exec(&inside))).follow();
    assert!(story.all.starts_with(mux::MAGIC), "{}", story.text());
    let script = "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n\
        h=b'{\"version\":1,\"capabilities\":[]}'\ns.sendall(len(h+b'x').to_bytes(4,'little')+b'\\x01'+h)\nprint(s.recv(1000))";
    let mut exec = harness::exec("");
    exec.argv = ["/usr/bin/python3", "-c", script, socket.to_str().unwrap()].map(str::to_owned).to_vec();
    let story = ask(&Request::Exec(exec)).follow();
    assert!(story.text().contains("refused"), "{}", story.text());
    // Orphans that nobody keeps are reaped.
    let zombies = "setsid sh -c 'sh -c \"exit 0\" & exit 0'; until [ \"$(ps ax -o stat= | grep -c ^Z)\" = 0 ]; do sleep 0.05; done; echo 0";
    assert_eq!(ask(&Request::Exec(harness::exec(zombies))).follow().text(), "0\n");
    let story = ask(&Request::Exec(harness::exec("echo $PPID; kill -TERM 1; sleep 1000"))).follow();
    assert_eq!(story.exit(), Exit::Signal(15));
    assert!(child.wait().unwrap().success());
}

/// More connections than any limit, which say nothing; told once they have been tried.
const CROWD: &str = "import socket,sys,time\nheld=[]\nfor _ in range(700):\n  s=socket.socket(socket.AF_UNIX)\n  \
    s.connect(sys.argv[1])\n  held.append(s)\nprint('crowded',flush=True)\ntime.sleep(1000)";

#[test]
fn a_crowd_of_the_job_s_own_connections_keeps_nobody_out() {
    let run_dir = harness::run_dir();
    std::fs::remove_file(run_dir.path().join("secret")).unwrap();
    let mut child = first(run_dir.path(), &[]);
    let socket = run_dir.path().join(place::CONTROL_SOCKET);
    wait_for("the control socket", || UnixStream::connect(&socket).is_ok());
    let ask = |request: &Request| Conversation::open(UnixStream::connect(&socket).unwrap(), None, request);
    let mut exec = harness::exec("");
    exec.argv = ["/usr/bin/python3", "-c", CROWD, socket.to_str().unwrap()].map(str::to_owned).to_vec();
    let mut crowd = ask(&Request::Exec(exec));
    crowd.until(&mut harness::Story::default(), "crowded");
    for _ in 0..20 {
        let answer = ask(&Request::List).reply();
        assert!(matches!(answer, Reply::Execs { .. }), "{answer:?}");
    }
    let answer = ask(&Request::Shutdown { grace_ms: 0 }).reply();
    assert_eq!(answer, Reply::Done);
    child.wait().unwrap();
}

#[test]
fn an_entrypoint_is_our_child_and_its_end_is_ours() {
    let run_dir = harness::run_dir();
    let script = "trap 'echo usr1' USR1; id -u; echo ready; i=0; while [ $i -lt 2000 ]; do sleep 0.01; \
        [ -e $1/go ] && exit 9; i=$((i+1)); done";
    let mut child = first(
        run_dir.path(),
        &["--user", "nobody", "--", "/bin/sh", "-c", script, "sh", run_dir.path().to_str().unwrap()],
    );
    let mut output = child.stdout.take().unwrap();
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains("ready") {
        let mut byte = [0];
        output.read_exact(&mut byte).unwrap();
        text.push(byte[0]);
    }
    assert_eq!(String::from_utf8(text).unwrap(), "65534\nready\n"[..11]);
    std::fs::write(run_dir.path().join("go"), "").unwrap();
    std::fs::set_permissions(run_dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(9));
}

#[test]
fn signals_are_forwarded_to_the_entrypoint() {
    let run_dir = harness::run_dir();
    let script = "trap 'exit 4' USR1; echo ready; while :; do sleep 0.01; done";
    let mut child = Command::new(binary())
        .args(["init", "--run-dir"])
        .arg(run_dir.path())
        .args(["--", "/bin/sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    child.stdout.take().unwrap().read_exact(&mut ready).unwrap();
    assert!(Command::new("kill").args(["-USR1", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(4));
}

#[test]
fn an_entrypoint_that_does_not_exist_is_told() {
    let run_dir = harness::run_dir();
    let output = Command::new(binary())
        .args(["init", "--run-dir"])
        .arg(run_dir.path())
        .args(["--", "/no/such/program"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/program"), "{output:?}");
    let usage = Command::new(binary()).args(["init", "--what"]).output().unwrap();
    assert_eq!(usage.status.code(), Some(64));
}
