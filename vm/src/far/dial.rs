//! All activities over one `navvy-supervisor dial` that ssh has started: for servers that do not forward unix sockets.
//!
//! Its stdin and stdout are the stream of [`navvy_environment::mux_link`].

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use navvy_environment::HostPaths;
use navvy_environment::mux_link::{DIAL_LIMIT, Dial, Pipe, Source};
use navvy_environment::supervisor_binary;
use navvy_protocol::mux::MAGIC;
use russh::ChannelStream;
use russh::client::Msg;
use tokio::io::{AsyncReadExt as _, ReadHalf, WriteHalf};

use crate::error::Fault;
use crate::ssh::{Connection, SshFault, Target};

/// Where uploaded supervisors lie: a place that is not mounted without the right to start programs, as `/run` often is.
const DIRECTORY: &str = "/opt/navvy/far";
/// Some megabytes, over any network.
const UPLOAD_LIMIT: Duration = Duration::from_secs(120);
/// Of a dial's limit, what it takes at most to be let in.
const ENTER: Duration = Duration::from_secs(8);
const PIECE: usize = 64 << 10;

/// A program on a far machine that joins its stdin and stdout with a socket there.
#[derive(Clone)]
pub struct OverSsh {
    target: Target,
    command: String,
}

impl OverSsh {
    /// Joined with the supervisor's own socket.
    pub fn to_control(target: Target, program: &str) -> Self {
        Self { target, command: format!("{program} dial --guest") }
    }

    /// Joined with the socket through which a machine takes its seed.
    pub fn to_seed(target: Target, program: &str) -> Self {
        Self { target, command: format!("{program} dial --seed") }
    }

    async fn start(&self) -> io::Result<Pipe<FromChannel, WriteHalf<ChannelStream<Msg>>>> {
        let lost = |fault: SshFault| io::Error::new(io::ErrorKind::NotConnected, fault.to_string());
        let connection = Connection::open(&self.target, ENTER).await.map_err(lost)?;
        let channel = connection.start(&self.command).await.map_err(lost)?;
        let (mut read, sink) = tokio::io::split(channel.into_stream());
        let mut rest = BytesMut::new();
        while rest.len() < MAGIC.len() {
            if read.read_buf(&mut rest).await? == 0 {
                return Err(self.no_dial(&rest));
            }
        }
        if !rest.starts_with(MAGIC) {
            return Err(self.no_dial(&rest));
        }
        rest.advance(MAGIC.len());
        Ok(Pipe { source: FromChannel { read, _connection: connection }, sink, rest })
    }

    fn no_dial(&self, said: &[u8]) -> io::Error {
        let said = crate::cloud::call::words(&String::from_utf8_lossy(said));
        let said = if said.is_empty() { "nothing".to_owned() } else { format!("{said:?}") };
        io::Error::new(io::ErrorKind::ConnectionRefused, format!("`{}` on the machine said {said}", self.command))
    }
}

impl Dial for OverSsh {
    type Source = FromChannel;
    type Sink = WriteHalf<ChannelStream<Msg>>;

    async fn dial(&self) -> io::Result<Pipe<Self::Source, Self::Sink>> {
        let started = tokio::time::timeout(DIAL_LIMIT, self.start()).await;
        started.unwrap_or_else(|_| {
            let why = format!("`{}` on the machine did not answer within {DIAL_LIMIT:?}", self.command);
            Err(io::Error::new(io::ErrorKind::TimedOut, why))
        })
    }
}

/// What the program writes; its connection lives as long as this.
pub struct FromChannel {
    read: ReadHalf<ChannelStream<Msg>>,
    _connection: Connection,
}

impl Source for FromChannel {
    async fn next(&mut self) -> Option<Bytes> {
        let mut piece = BytesMut::with_capacity(PIECE);
        match self.read.read_buf(&mut piece).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(piece.freeze()),
        }
    }
}

/// Puts this program's own supervisor there. Returns its path, there.
///
/// # Errors
/// There is none here, or the machine did not take it.
pub async fn upload(connection: &Connection, host: &HostPaths) -> Result<String, Fault> {
    let (given, state) = (host.supervisor.clone(), host.state.clone());
    let read = move || {
        let directory = supervisor_binary::install(given.as_deref(), &state).map_err(io::Error::other)?;
        let digest = directory.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let bytes = std::fs::read(directory.join(Path::new(supervisor_binary::NAME)))?;
        Ok((digest, bytes))
    };
    let read: io::Result<(String, Vec<u8>)> =
        tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| Err(io::Error::other(error)));
    let (digest, bytes) = read.map_err(Fault::host("read the supervisor that is to be uploaded"))?;
    let program = format!("{DIRECTORY}/{}-{digest}", supervisor_binary::NAME);
    // Whole or not at all; a disk that is full ends it with a status.
    let command = format!(
        "umask 022 && mkdir -p {DIRECTORY} && new=$(mktemp {program}.XXXXXX) && cat > \"$new\" && chmod 0755 \"$new\" && mv \"$new\" \
         {program}"
    );
    let ran = connection.run(&command, &bytes, UPLOAD_LIMIT).await?;
    match ran.status {
        Some(0) => Ok(program),
        status => Err(Fault::Ssh(SshFault::Channel {
            at: connection.at().to_owned(),
            what: format!("{program}, which was to be uploaded"),
            why: format!("it ended with {status:?}: {}", ran.words),
        })),
    }
}
