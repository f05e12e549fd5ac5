//! A command in a running job's primary container, for `nomad alloc exec`: an agent carries it there, this carries its bytes.
//!
//! ```text
//! Nomad ──stdin, size──▶ pty or pipes ──▶ navvy shell TASK -- COMMAND ──▶ supervisor in the container
//!       ◀─stdout, stderr, closed, exited──
//! ```

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::directory::Record;
use crate::proto::hashicorp::nomad::plugins::drivers::proto as nomad;
use crate::ready::ready;

type Answer = Result<nomad::ExecTaskStreamingResponse, Status>;
/// The way to Nomad.
pub type Answers = mpsc::Sender<Answer>;

/// Answers that Nomad has not taken yet.
pub const MOST_WAITING: usize = 16;
const PIECE: usize = 16 << 10;
/// Of each stream of a command that is not streamed.
const MOST_KEPT: u64 = 1 << 20;
/// Without one of Nomad's.
const LONGEST: Duration = Duration::from_secs(3600);

fn command(record: &Record, argv: &[String]) -> Command {
    let mut command = Command::new(&record.agent_path);
    command.args(["shell", &record.task, "--"]).args(argv);
    command.env_clear().envs(record.environment.iter().map(|(name, value)| (name, value))).current_dir("/");
    command.kill_on_drop(true);
    command
}

/// Runs a command to its end; its output is kept, up to a MiB each.
///
/// # Errors
/// It could not be started, or took too long.
pub async fn run(record: &Record, argv: &[String], limit: Option<Duration>) -> Result<nomad::ExecTaskResponse, Status> {
    let limit = limit.filter(|limit| !limit.is_zero()).unwrap_or(LONGEST);
    let Output { stdout, stderr, status } =
        output(command(record, argv), limit).await.map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => Status::deadline_exceeded(format!("the command was ended: {error}")),
            _ => not_started(&error),
        })?;
    Ok(nomad::ExecTaskResponse { stdout, stderr, result: Some(result(status)) })
}

/// Runs a program to its end; its output is kept, up to a MiB each.
///
/// # Errors
/// It could not be started, or took too long and was killed.
pub async fn output(mut command: Command, limit: Duration) -> io::Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let all = async { tokio::join!(kept(stdout), kept(stderr), child.wait()) };
    let Ok((stdout, stderr, status)) = tokio::time::timeout(limit, all).await else {
        let why = format!("it has not ended in {} s", limit.as_secs());
        return Err(io::Error::new(io::ErrorKind::TimedOut, why));
    };
    Ok(Output { status: status?, stdout, stderr })
}

/// What is beyond the most is read, and dropped.
async fn kept(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let Some(mut stream) = stream else { return Vec::new() };
    let mut bytes = Vec::new();
    // What was read before a fault is still what the command said.
    let _partly = (&mut stream).take(MOST_KEPT).read_to_end(&mut bytes).await;
    let _rest = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    bytes
}

fn not_started(error: &io::Error) -> Status {
    Status::internal(format!("the command could not be started: {error}"))
}

fn result(status: ExitStatus) -> nomad::ExitResult {
    let signal = status.signal().unwrap_or(0);
    nomad::ExitResult { exit_code: status.code().unwrap_or(128 + signal), signal, oom_killed: false }
}

/// Carries one command and its streams, until it has ended or Nomad has gone.
pub async fn stream(
    record: Record,
    setup: nomad::exec_task_streaming_request::Setup,
    input: Streaming<nomad::ExecTaskStreamingRequest>,
    answers: Answers,
) {
    let carried = match setup.tty {
        true => with_terminal(&record, &setup.command, input, &answers).await,
        false => with_pipes(&record, &setup.command, input, &answers).await,
    };
    let status = match carried {
        Ok(status) => status,
        Err(error) => {
            // Nomad may have gone.
            let _unheard = answers.send(Err(not_started(&error))).await;
            return;
        }
    };
    let closed = || Some(nomad::ExecTaskStreamingIoOperation { data: Vec::new(), close: true });
    let last = [
        nomad::ExecTaskStreamingResponse { stdout: closed(), ..Default::default() },
        nomad::ExecTaskStreamingResponse { stderr: closed(), ..Default::default() },
        nomad::ExecTaskStreamingResponse { exited: true, result: Some(result(status)), ..Default::default() },
    ];
    for answer in last {
        if answers.send(Ok(answer)).await.is_err() {
            return;
        }
    }
}

async fn with_pipes(
    record: &Record,
    argv: &[String],
    mut input: Streaming<nomad::ExecTaskStreamingRequest>,
    answers: &Answers,
) -> io::Result<ExitStatus> {
    let mut command = command(record, argv);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let feed = async {
        while let Ok(Some(message)) = input.message().await {
            let Some(piece) = message.stdin else { continue };
            if let Some(pipe) = &mut stdin
                && pipe.write_all(&piece.data).await.is_err()
            {
                // It reads no more.
                stdin = None;
            }
            if piece.close {
                stdin = None;
            }
        }
        // Nothing more comes.
        stdin = None;
    };
    let output = async { tokio::join!(carry(stdout, answers, false), carry(stderr, answers, true)) };
    until_ended(&mut child, feed, output, answers).await
}

/// Waits for the command's end and all that it has written. What feeds it may end before, or never.
async fn until_ended(
    child: &mut Child,
    feed: impl Future<Output = ()>,
    output: impl Future,
    answers: &Answers,
) -> io::Result<ExitStatus> {
    let ended = async {
        let (_all, status) = tokio::join!(output, child.wait());
        status
    };
    let (mut feed, mut ended) = (std::pin::pin!(feed), std::pin::pin!(ended));
    let mut is_fed = false;
    loop {
        tokio::select! {
            status = &mut ended => return status,
            () = &mut feed, if !is_fed => is_fed = true,
            () = answers.closed() => return Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

async fn carry(stream: Option<impl AsyncRead + Unpin>, answers: &Answers, is_stderr: bool) {
    let Some(mut stream) = stream else { return };
    let mut piece = vec![0; PIECE];
    while let Ok(length @ 1..) = stream.read(&mut piece).await {
        if answers.send(Ok(piece_of(&piece[..length], is_stderr))).await.is_err() {
            return;
        }
    }
}

fn piece_of(bytes: &[u8], is_stderr: bool) -> nomad::ExecTaskStreamingResponse {
    let piece = Some(nomad::ExecTaskStreamingIoOperation { data: bytes.to_vec(), close: false });
    match is_stderr {
        true => nomad::ExecTaskStreamingResponse { stderr: piece, ..Default::default() },
        false => nomad::ExecTaskStreamingResponse { stdout: piece, ..Default::default() },
    }
}

async fn with_terminal(
    record: &Record,
    argv: &[String],
    mut input: Streaming<nomad::ExecTaskStreamingRequest>,
    answers: &Answers,
) -> io::Result<ExitStatus> {
    let (terminal, other) = terminal()?;
    let mut command = command(record, argv);
    command.stdin(Stdio::from(other.try_clone()?)).stdout(Stdio::from(other.try_clone()?)).stderr(Stdio::from(other));
    let mut child = command.spawn()?;
    // The command holds its own copies of the other end.
    drop(command);
    let terminal = ready(terminal, Interest::READABLE | Interest::WRITABLE)?;
    let feed = async {
        while let Ok(Some(message)) = input.message().await {
            if let Some(size) = message.tty_size {
                resize(&terminal, size);
            }
            if let Some(piece) = message.stdin
                && write_all(&terminal, &piece.data).await.is_err()
            {
                return;
            }
        }
    };
    // The other end is closed with the leading process: what is written after it is nobody's.
    let output = async {
        let mut piece = vec![0; PIECE];
        while let Ok(length @ 1..) =
            terminal.async_io(Interest::READABLE, |fd| Ok(rustix::io::read(fd, &mut piece)?)).await
        {
            if answers.send(Ok(piece_of(&piece[..length], false))).await.is_err() {
                return;
            }
        }
    };
    until_ended(&mut child, feed, output, answers).await
}

fn terminal() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = openpt(flags)?;
    grantpt(&terminal)?;
    unlockpt(&terminal)?;
    let name = ptsname(&terminal, Vec::new())?;
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let other = rustix::fs::open(&name, flags, rustix::fs::Mode::empty())?;
    rustix::io::ioctl_fionbio(&terminal, true)?;
    // Lines, echoes and signals are made by the terminal in the container; this one only carries. Before the agent could say so
    // itself, what is typed early would be echoed twice.
    let mut attributes = tcgetattr(&other)?;
    attributes.make_raw();
    tcsetattr(&other, OptionalActions::Now, &attributes)?;
    Ok((terminal, other))
}

fn resize(terminal: &AsyncFd<OwnedFd>, size: nomad::exec_task_streaming_request::TerminalSize) {
    let of = |number: i32| u16::try_from(number).ok();
    if let (Some(ws_row), Some(ws_col)) = (of(size.height), of(size.width)) {
        // A size that is not taken changes nothing.
        let _as_before = tcsetwinsize(terminal, Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 });
    }
}

async fn write_all(terminal: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = terminal.async_io(Interest::WRITABLE, |fd| Ok(rustix::io::write(fd, bytes)?)).await?;
        bytes = &bytes[written..];
    }
    Ok(())
}
