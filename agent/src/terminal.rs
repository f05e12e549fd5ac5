//! The caller's own terminal in a person's session.
//!
//! ```text
//! stdin ─▶ raw bytes ─▶ session         session ─▶ stdout, stderr
//! SIGWINCH ─▶ new size ─▶ session       end, error, panic ─▶ the terminal as it was
//! ```

use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use navvy_environment::supervisor::{Client, ClientError, WayIn};
use navvy_protocol::frame::Stream;
use navvy_protocol::supervisor::{Exec, Exit, Terminal};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{ioctl_tiocsctty, setsid};
use rustix::termios::{self, OptionalActions, Termios};
use tokio::signal::unix::{SignalKind, signal};

/// A terminal that does not tell its size.
const USUAL: (u16, u16) = (80, 24);

/// What a person's exec is connected to: a terminal where the caller has one on both ends.
pub fn wanted(stdin: bool, stdout: bool) -> Terminal {
    if stdin && stdout {
        let (columns, rows) = size();
        Terminal::Controlling { columns, rows }
    } else {
        Terminal::Pipes
    }
}

fn size() -> (u16, u16) {
    terminal_size::terminal_size_of(io::stdout()).map_or(USUAL, |(columns, rows)| (columns.0, rows.0))
}

/// Connects the caller's terminal (or pipes) to `exec` until that ends; returns its exit code as a shell tells it,
/// and what came of writing its standard output.
/// Within a Tokio runtime only.
pub async fn connect(client: Client, exec: Exec) -> Result<(u8, io::Result<()>), ClientError> {
    let is_terminal = matches!(exec.terminal, Terminal::Controlling { .. });
    let opening = client.clone();
    let id = exec.id.clone();
    let leave = |kind| signal(kind).map_err(|source| ClientError::Source { source });
    let (mut terminate, mut hang_up) = (leave(SignalKind::terminate())?, leave(SignalKind::hangup())?);
    if is_terminal {
        own();
    }
    let session = blocking(move || opening.session(exec)).await??;
    let raw = is_terminal.then(Raw::enter).transpose().map_err(|source| ClientError::Source { source })?;
    let feeding = feed(session.way_in()).map_err(|source| ClientError::Source { source })?;
    let resizing = is_terminal.then(|| tokio::spawn(resize(session.way_in())));
    let running = blocking(move || {
        let mut shown = Ok(());
        let exited = session.run(|stream, bytes| {
            show(stream, bytes, &mut shown);
            Ok(())
        })?;
        Ok((exited, shown))
    });
    let exited = tokio::select! {
        exited = running => Some(exited),
        _ = terminate.recv() => None,
        _ = hang_up.recv() => None,
    };
    if let Some(resizing) = resizing {
        resizing.abort();
    }
    drop((feeding, raw));
    let Some(exited) = exited else {
        // The process that asked us to end has no use for its last words.
        blocking(move || client.stop(&id, Duration::ZERO)).await?.ok();
        return Ok((128 + 15, Ok(())));
    };
    let (exited, shown) = exited??;
    let code = match exited.exit {
        Exit::Code(code) => u8::try_from(code).unwrap_or(u8::MAX),
        Exit::Signal(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
    };
    Ok((code, shown))
}

/// A terminal that was made for this process alone (a driver's, for `nomad alloc exec`) is nobody's yet: the kernel tells of its size
/// and of its end only whose session it belongs to. A person's is their session's already.
fn own() {
    let is_ours = || termios::tcgetpgrp(io::stdin()).is_ok();
    if !is_ours() {
        // Fails for one that leads a session without a terminal: then it takes the terminal all the same.
        setsid().ok();
        // Another session may have it.
        ioctl_tiocsctty(io::stdin()).ok();
    }
}

/// Tells a person why their terminal is no longer the run's.
pub fn announce(text: &str) {
    let text = navvy_ui::sanitize::clean(text);
    // A terminal that is gone needs no words.
    writeln!(io::stderr().lock(), "\n{text}").ok();
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ClientError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| ClientError::Source { source: io::Error::other(error) })
}

/// After bytes of standard output that were lost, the next ones would be read as if they followed those before.
fn show(stream: Stream, bytes: &[u8], shown: &mut io::Result<()>) {
    let mut stdout = io::stdout().lock();
    match stream {
        Stream::Stdout if shown.is_ok() => *shown = stdout.write_all(bytes).and_then(|()| stdout.flush()),
        Stream::Stdout => {}
        // When this fails, there is nowhere left to report it.
        Stream::Stderr => drop(io::stderr().lock().write_all(bytes)),
    }
}

/// Sends what is typed, on a thread of its own, until the returned end is dropped: what is typed then is not for us.
fn feed(way_in: WayIn) -> io::Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    let body = move || {
        let mut buffer = vec![0; 16 << 10];
        while is_typed(&theirs) {
            match rustix::io::read(io::stdin(), &mut buffer) {
                Ok(0) => return drop(way_in.end()),
                Ok(count) if way_in.send(&buffer[..count]).is_ok() => {}
                Err(rustix::io::Errno::INTR) => {}
                _ => return,
            }
        }
    };
    std::thread::Builder::new().name("input".to_owned()).spawn(body)?;
    Ok(ours)
}

/// Waits for input; `false` when it is no longer wanted.
fn is_typed(over: &UnixStream) -> bool {
    let stdin = io::stdin();
    let mut entries = [PollFd::new(&stdin, PollFlags::IN), PollFd::new(over, PollFlags::IN)];
    loop {
        match poll(&mut entries, None) {
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
            Ok(_) => return entries[1].revents().is_empty(),
        }
    }
}

async fn resize(way_in: WayIn) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
    // It may have changed before it was listened for.
    let (columns, rows) = size();
    way_in.resize(columns, rows).ok();
    while changes.recv().await.is_some() {
        let (columns, rows) = size();
        // A session that has ended needs no size.
        way_in.resize(columns, rows).ok();
    }
}

/// The terminal hands on every key as it comes. Given back when dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> io::Result<Self> {
        let before = termios::tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(io::stdin(), OptionalActions::Drain, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing can be done for a terminal that is gone.
        termios::tcsetattr(io::stdin(), OptionalActions::Drain, &self.0).ok();
    }
}

/// Lends the terminal, which a run's view draws on, to one person's session at a time.
#[derive(Clone, Default)]
pub struct Stage(Arc<(Mutex<Scene>, Condvar)>);

#[derive(Default)]
struct Scene {
    wanted: usize,
    /// The view has stepped back.
    free: bool,
    taken: bool,
}

/// The terminal is the holder's until this is dropped.
pub struct Taken(Stage);

impl Stage {
    /// Waits until the view has stepped back and no other question has the terminal. Blocks.
    pub fn take(&self) -> Taken {
        let (scene, changed) = &*self.0;
        let mut scene = scene.lock().unwrap_or_else(PoisonError::into_inner);
        scene.wanted += 1;
        while !scene.free || scene.taken {
            scene = changed.wait(scene).unwrap_or_else(PoisonError::into_inner);
        }
        scene.taken = true;
        Taken(self.clone())
    }

    /// For the view: does anybody want the terminal?
    pub fn is_wanted(&self) -> bool {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).wanted > 0
    }

    /// For the view: steps back until no question wants the terminal any more. Blocks.
    pub fn step_back(&self) {
        let (scene, changed) = &*self.0;
        let mut scene = scene.lock().unwrap_or_else(PoisonError::into_inner);
        scene.free = true;
        changed.notify_all();
        while scene.wanted > 0 {
            scene = changed.wait(scene).unwrap_or_else(PoisonError::into_inner);
        }
        scene.free = false;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let (scene, changed) = &*self.0.0;
        let mut scene = scene.lock().unwrap_or_else(PoisonError::into_inner);
        scene.taken = false;
        scene.wanted -= 1;
        changed.notify_all();
    }
}
