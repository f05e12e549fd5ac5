//! All activities over one `docker exec` of `navvy-supervisor dial`: for an engine that sees none of our files.
//!
//! Its stdin and stdout are the stream of [`navvy_environment::mux_link`].

use std::io;
use std::pin::Pin;

use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use navvy_environment::mux_link::{DIAL_LIMIT, Dial, KeepAlive, MuxLink, Pipe, Source};
use navvy_protocol::mux::{MAGIC, MAX_DATA};
use navvy_protocol::place::{RUN_DIR, SUPERVISOR};
use tokio::io::AsyncWrite;

use super::engine::Engine;
use super::fault;

type Output = Pin<Box<dyn Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>>;
type Input = Pin<Box<dyn AsyncWrite + Send>>;

/// The way to a supervisor through `docker exec`.
pub(super) type DialLink = MuxLink<Exec>;

/// Dials at once, so that a failure shows here and not at the first step.
pub(super) async fn open(engine: &Engine, container: &str, secret: String) -> io::Result<DialLink> {
    let exec = Exec { engine: engine.clone(), container: container.to_owned() };
    MuxLink::open(exec, Some(secret)).await
}

/// An exec in this container.
#[derive(Clone)]
pub struct Exec {
    engine: Engine,
    container: String,
}

impl Dial for Exec {
    type Source = Words;
    type Sink = Input;
    const KEEP_ALIVE: Option<KeepAlive> = Some(KeepAlive::FAR);

    async fn dial(&self) -> io::Result<Pipe<Words, Input>> {
        tokio::time::timeout(DIAL_LIMIT, start(&self.engine, &self.container)).await.unwrap_or_else(|_| {
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("{SUPERVISOR} dial did not answer within {DIAL_LIMIT:?}"),
            ))
        })
    }
}

/// What an exec writes to its stdout.
pub struct Words(Output);

impl Source for Words {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            match self.0.next().await?.ok()? {
                LogOutput::StdErr { .. } => {}
                chunk => return Some(chunk.into_bytes()),
            }
        }
    }
}

async fn start(engine: &Engine, container: &str) -> io::Result<Pipe<Words, Input>> {
    let options = CreateExecOptions {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        user: Some("0:0"),
        working_dir: Some("/"),
        cmd: Some(vec![SUPERVISOR, "dial", "--run-dir", RUN_DIR]),
        ..CreateExecOptions::default()
    };
    // A container that is gone or has ended is told from an engine that does not answer.
    let failed = |e: bollard::errors::Error| {
        let kind = match fault::status(&e) {
            Some(404 | 409) => io::ErrorKind::NotFound,
            _ => io::ErrorKind::NotConnected,
        };
        io::Error::new(kind, fault::describe(&e))
    };
    let exec = engine.docker().create_exec(container, options).await.map_err(failed)?;
    let options = StartExecOptions { output_capacity: Some(2 * MAX_DATA), ..StartExecOptions::default() };
    match engine.docker().start_exec(&exec.id, Some(options)).await.map_err(failed)? {
        StartExecResults::Attached { output, input } => expect_magic(output, input).await,
        StartExecResults::Detached => Err(io::Error::other("the engine detached the exec")),
    }
}

async fn expect_magic(mut output: Output, input: Input) -> io::Result<Pipe<Words, Input>> {
    let mut rest = BytesMut::new();
    let mut words = String::new();
    while rest.len() < MAGIC.len() {
        match output.next().await {
            Some(Ok(LogOutput::StdErr { message })) => words.push_str(&String::from_utf8_lossy(&message)),
            Some(Ok(chunk)) => rest.extend_from_slice(chunk.as_ref()),
            Some(Err(error)) => return Err(io::Error::other(fault::describe(&error))),
            None => return Err(not_dial(&rest, &words)),
        }
    }
    if !rest.starts_with(MAGIC) {
        return Err(not_dial(&rest, &words));
    }
    rest.advance(MAGIC.len());
    Ok(Pipe { source: Words(output), sink: input, rest })
}

fn not_dial(bytes: &[u8], words: &str) -> io::Error {
    let said = if words.trim().is_empty() { String::from_utf8_lossy(bytes).into_owned() } else { words.to_owned() };
    let said: String = said.trim().chars().filter(|c| !c.is_control()).take(300).collect();
    io::Error::new(io::ErrorKind::ConnectionRefused, format!("{SUPERVISOR} dial said: {said}"))
}
