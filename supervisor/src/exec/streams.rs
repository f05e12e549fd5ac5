//! What a step's streams are connected to.
//!
//! We hold a pty's slave ourselves for as long as anything of the step runs, so that nothing gets SIGHUP or EIO.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use navvy_protocol::frame::Stream;
use navvy_protocol::supervisor::{Exec, Failure, FailureKind, Terminal};

use super::keeper::Ends;
use crate::users::User;
use crate::{failure, sys};

/// Holds what a fast writer makes while we are busy with another stream.
const PIPE_BYTES: usize = 1 << 20;
/// End of transmission: what a person types for "no more input".
const END_OF_TEXT: &[u8] = b"\x04";

/// Our ends.
pub struct Streams {
    pub sources: Vec<Source>,
    pub input: Option<Input>,
    pty: Option<Pty>,
}

/// Something that a step writes to.
pub struct Source {
    pub stream: Stream,
    pub file: File,
    pub is_pty: bool,
}

pub struct Input {
    pub file: File,
    is_terminal: bool,
}

impl Input {
    /// What to write when the agent has no more; otherwise closing tells it.
    pub fn farewell(&self) -> Option<&'static [u8]> {
        self.is_terminal.then_some(END_OF_TEXT)
    }
}

struct Pty {
    master: File,
    /// Kept open; see the module's text.
    _slave: OwnedFd,
}

impl Streams {
    pub fn open(exec: &Exec, user: &User) -> Result<(Self, Ends), Failure> {
        let made = match exec.terminal {
            Terminal::Pipes => pipes(exec.input),
            Terminal::Plain { columns, rows } => plain(columns, rows, exec.input, user),
            Terminal::Controlling { columns, rows } => controlling(columns, rows, user),
        };
        made.map_err(|error| match exec.terminal {
            Terminal::Pipes => failure::of(&error, "make pipes for the step"),
            _ => Failure::new(
                FailureKind::Other,
                format!(
                    "cannot make a terminal in this environment: {}. It needs /dev/ptmx and a devpts at /dev/pts; \
                     --no-tty does without",
                    failure::text(&error)
                ),
            ),
        })
    }

    pub fn resize(&self, columns: u16, rows: u16) {
        if let Some(pty) = &self.pty {
            // A terminal that cannot be resized stays as it is.
            let _ = sys::set_window_size(&pty.master, columns, rows);
        }
    }
}

fn null() -> io::Result<OwnedFd> {
    Ok(File::options().read(true).open("/dev/null")?.into())
}

/// The step's stdin and our end of it.
fn standard_input(wanted: bool) -> io::Result<(OwnedFd, Option<Input>)> {
    if !wanted {
        return Ok((null()?, None));
    }
    let (reader, writer) = io::pipe()?;
    let file = File::from(OwnedFd::from(writer));
    sys::set_nonblocking(&file)?;
    Ok((reader.into(), Some(Input { file, is_terminal: false })))
}

fn pipes(input: bool) -> io::Result<(Streams, Ends)> {
    let (stdin, input) = standard_input(input)?;
    let (out, stdout) = output_pipe(Stream::Stdout)?;
    let (err, stderr) = output_pipe(Stream::Stderr)?;
    Ok((Streams { sources: vec![out, err], input, pty: None }, Ends { stdin, stdout, stderr }))
}

fn output_pipe(stream: Stream) -> io::Result<(Source, OwnedFd)> {
    let (reader, writer) = io::pipe()?;
    let file = File::from(OwnedFd::from(reader));
    sys::set_nonblocking(&file)?;
    sys::enlarge_pipe(&file, PIPE_BYTES);
    Ok((Source { stream, file, is_pty: false }, writer.into()))
}

fn plain(columns: u16, rows: u16, input: bool, user: &User) -> io::Result<(Streams, Ends)> {
    let (stdin, input) = standard_input(input)?;
    let (master, slave) = terminal(columns, rows, user)?;
    sys::make_raw(&slave)?;
    let ends = Ends { stdin, stdout: slave.try_clone()?, stderr: slave.try_clone()? };
    Ok((streams(master, slave, input)?, ends))
}

fn controlling(columns: u16, rows: u16, user: &User) -> io::Result<(Streams, Ends)> {
    let (master, slave) = terminal(columns, rows, user)?;
    let input = Input { file: master.try_clone()?, is_terminal: true };
    let ends = Ends { stdin: slave.try_clone()?, stdout: slave.try_clone()?, stderr: slave.try_clone()? };
    Ok((streams(master, slave, Some(input))?, ends))
}

fn terminal(columns: u16, rows: u16, user: &User) -> io::Result<(File, OwnedFd)> {
    let (master, slave) = sys::open_pty()?;
    sys::set_window_size(&master, columns, rows)?;
    // So that the step can open /dev/stdout. The group stays the one of the mount.
    if let Err(error) = sys::change_owner(&slave, user.uid, u32::MAX)
        && user.uid != sys::uid()
    {
        return Err(error);
    }
    Ok((File::from(master), slave))
}

fn streams(master: File, slave: OwnedFd, input: Option<Input>) -> io::Result<Streams> {
    let source = Source { stream: Stream::Stdout, file: master.try_clone()?, is_pty: true };
    Ok(Streams { sources: vec![source], input, pty: Some(Pty { master, _slave: slave }) })
}
