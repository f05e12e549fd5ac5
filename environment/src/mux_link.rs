//! All activities over one stream of bytes: the agent's side of [`navvy_protocol::mux`], however the stream came about.
//!
//! ```text
//!  caller ── UnixStream pair ── reader ─▶ outgoing ─▶ sink
//!                               writer ◀─ incoming ◀─ source
//! ```
//!
//! The pump owns the stream and the table of channels. When the stream is lost, every channel closes, which callers see
//! as any lost connection; the next `connect` dials again. A far stream can be lost without a word: where it has been quiet for a
//! while, an empty conversation is opened, and a stream on which nothing at all comes back is lost.

use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::{Mutex, PoisonError, mpsc as std_mpsc};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use navvy_protocol::mux::{HEADER_LENGTH, Header, MAX_DATA, Op};
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::supervisor::Connect;

/// From asking for a stream to the first bytes of the supervisor's side, as a dial keeps it.
pub const DIAL_LIMIT: Duration = Duration::from_secs(10);
/// How often one `connect` dials before it gives up, and how long it waits in between.
const ATTEMPTS: u32 = 3;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(200);
/// Chunks that wait for a slow reader before it holds up the others: 64 of at most 64 KiB.
const CHANNEL_QUEUE: usize = 64;

/// How a stream is kept from being lost without a word.
#[derive(Debug, Clone, Copy)]
pub struct KeepAlive {
    /// After so long without a frame it is asked whether anybody is there.
    pub quiet: Duration,
    /// And so long is waited for any frame then. A supervisor takes nothing from its stream while a step reads none of its input, for
    /// up to 30 seconds.
    pub answer: Duration,
}

impl KeepAlive {
    /// Of a stream through other machines, or through a daemon that may hang.
    pub const FAR: Self = Self { quiet: Duration::from_secs(15), answer: Duration::from_secs(45) };
}

/// Where new channels are handed to a pump.
type Openings = mpsc::UnboundedSender<StdStream>;

/// What comes from the supervisor's side.
pub trait Source: Send + 'static {
    /// The next bytes; `None` when there will be none any more. Dropping the future loses nothing.
    fn next(&mut self) -> impl Future<Output = Option<Bytes>> + Send;
}

/// A stream whose other end has proved to be a supervisor's.
pub struct Pipe<S, W> {
    /// What comes from there.
    pub source: S,
    /// What goes there.
    pub sink: W,
    /// What came behind the proof.
    pub rest: BytesMut,
}

/// How a stream to the supervisor comes about, again and again.
pub trait Dial: Clone + Send + Sync + 'static {
    /// What comes from there.
    type Source: Source;
    /// What goes there.
    type Sink: AsyncWrite + Unpin + Send + 'static;
    /// `None`: it cannot be lost without a word, and its other end may be silent for as long as it likes.
    const KEEP_ALIVE: Option<KeepAlive> = None;

    /// A new stream. Ends within [`DIAL_LIMIT`].
    fn dial(&self) -> impl Future<Output = io::Result<Pipe<Self::Source, Self::Sink>>> + Send;

    /// How many of these bytes, which are not none, go into one payload: at least 1.
    fn cut(bytes: &[u8]) -> usize {
        bytes.len().min(MAX_DATA)
    }
}

/// The way to a supervisor over a stream that carries many channels.
pub struct MuxLink<D> {
    dial: D,
    secret: Option<String>,
    runtime: Handle,
    /// The pump that carries new channels; locked only while one is handed over or made.
    pump: Mutex<Option<Openings>>,
}

impl<D: Dial> MuxLink<D> {
    /// Dials at once, so that a failure shows here and not at the first step. Within a Tokio runtime only.
    ///
    /// # Errors
    /// There is no stream, or no supervisor at its other end.
    pub async fn open(dial: D, secret: Option<String>) -> io::Result<Self> {
        let pipe = dial.dial().await?;
        let (openings, receiver) = mpsc::unbounded_channel();
        tokio::spawn(pump(pipe, receiver, D::cut, D::KEEP_ALIVE));
        Ok(Self { dial, secret, runtime: Handle::current(), pump: Mutex::new(Some(openings)) })
    }

    /// Blocks until a new pump runs.
    fn redial(&self) -> io::Result<Openings> {
        let dial = self.dial.clone();
        let (answer, wait) = std_mpsc::sync_channel(1);
        self.runtime.spawn(async move {
            let dialled = dial.dial().await;
            let (openings, receiver) = mpsc::unbounded_channel();
            let pipe = match dialled {
                Ok(pipe) => pipe,
                Err(error) => return drop(answer.send(Err(error))),
            };
            if answer.send(Ok(openings)).is_ok() {
                pump(pipe, receiver, D::cut, D::KEEP_ALIVE).await;
            }
        });
        wait.recv_timeout(DIAL_LIMIT * 2).map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }
}

impl<D: Dial> Connect for MuxLink<D> {
    fn connect(&self) -> io::Result<StdStream> {
        let mut pump = self.pump.lock().unwrap_or_else(PoisonError::into_inner);
        let mut last = io::Error::from(io::ErrorKind::NotConnected);
        for attempt in 0..ATTEMPTS {
            let (ours, theirs) = StdStream::pair()?;
            theirs.set_nonblocking(true)?;
            // A pump that has ended gives the stream back by refusing it.
            if pump.as_ref().is_some_and(|openings| openings.send(theirs).is_ok()) {
                return Ok(ours);
            }
            if attempt > 0 {
                std::thread::sleep(BETWEEN_ATTEMPTS);
            }
            match self.redial() {
                Ok(openings) => *pump = Some(openings),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn secret(&self) -> Option<&str> {
        self.secret.as_deref()
    }
}

/// What channels want to send, in order.
struct Outgoing {
    header: Header,
    payload: Bytes,
}

/// Carries channels until the stream ends, or all have closed and no caller can open another.
async fn pump<S: Source, W: AsyncWrite + Unpin + Send + 'static>(
    pipe: Pipe<S, W>,
    mut openings: mpsc::UnboundedReceiver<StdStream>,
    cut: fn(&[u8]) -> usize,
    keep_alive: Option<KeepAlive>,
) {
    let Pipe { source, sink, rest } = pipe;
    let (outgoing, queue) = mpsc::channel::<Outgoing>(CHANNEL_QUEUE);
    let mut channels = Channels { table: HashMap::new(), next: 1, outgoing, readers: JoinSet::new(), cut };
    let mut incoming = Incoming { source, buffer: rest };
    // A task of its own: it must go on while a slow caller holds up `deliver`.
    let mut sender = JoinSet::new();
    sender.spawn(send_all(sink, queue));
    let mut silence = keep_alive.map(Silence::new);
    loop {
        tokio::select! {
            opening = openings.recv() => match opening {
                Some(stream) => channels.open(stream),
                None => break,
            },
            frame = incoming.frame() => match frame {
                Some((header, payload)) => {
                    if let Some(silence) = &mut silence {
                        silence.heard();
                    }
                    channels.deliver(header, payload).await;
                }
                None => break,
            },
            () = due(silence.as_ref()) => match silence.as_mut().is_some_and(Silence::ask) {
                true => channels.ask_for_life(),
                false => {
                    tracing::warn!("The way to a job's supervisor has fallen silent: it is opened anew.");
                    break;
                }
            },
            // It ends only when the sink is gone.
            _ = sender.join_next() => break,
        }
    }
}

/// How long nothing has come, and what is done about it next.
struct Silence {
    keep_alive: KeepAlive,
    is_asked: bool,
    due: Instant,
}

impl Silence {
    fn new(keep_alive: KeepAlive) -> Self {
        Self { keep_alive, is_asked: false, due: Instant::now() + keep_alive.quiet }
    }

    fn heard(&mut self) {
        *self = Self::new(self.keep_alive);
    }

    /// The time is over. `false`: it was asked already, and nobody has answered.
    fn ask(&mut self) -> bool {
        self.due = Instant::now() + self.keep_alive.answer;
        !std::mem::replace(&mut self.is_asked, true)
    }
}

async fn due(silence: Option<&Silence>) {
    match silence {
        Some(silence) => tokio::time::sleep_until(silence.due).await,
        None => std::future::pending().await,
    }
}

async fn send_all<W: AsyncWrite + Unpin>(mut sink: W, mut queue: mpsc::Receiver<Outgoing>) {
    while let Some(Outgoing { header, payload }) = queue.recv().await {
        let mut bytes = BytesMut::with_capacity(HEADER_LENGTH + payload.len());
        bytes.extend_from_slice(&header.to_bytes());
        bytes.extend_from_slice(&payload);
        if sink.write_all(&bytes).await.is_err() || sink.flush().await.is_err() {
            return;
        }
    }
}

struct Channels {
    /// Where a channel's incoming data goes; dropping it ends that direction.
    table: HashMap<u32, mpsc::Sender<Bytes>>,
    next: u32,
    outgoing: mpsc::Sender<Outgoing>,
    /// Both halves of every channel; aborted with the pump, which closes the callers' ends.
    readers: JoinSet<()>,
    cut: fn(&[u8]) -> usize,
}

impl Channels {
    fn open(&mut self, stream: StdStream) {
        // Only a full table of descriptors makes this fail; the caller then sees its end closed.
        let Ok(stream) = UnixStream::from_std(stream) else { return };
        let channel = self.next;
        self.next += 1;
        let (read, write) = stream.into_split();
        let (incoming, queue) = mpsc::channel(CHANNEL_QUEUE);
        self.table.insert(channel, incoming);
        self.readers.spawn(read_caller(channel, read, self.outgoing.clone(), self.cut));
        self.readers.spawn(write_caller(write, queue));
        // What has ended need not be kept.
        while self.readers.try_join_next().is_some() {}
    }

    /// Opens a conversation in which nothing is said: whoever carries it ends it, and says so.
    fn ask_for_life(&mut self) {
        let channel = self.next;
        self.next += 1;
        for op in [Op::Open, Op::Close] {
            let header = Header { channel, op, length: 0 };
            // Where not even this has room, nobody takes what is sent: then nothing will be heard either.
            let _no_room = self.outgoing.try_send(Outgoing { header, payload: Bytes::new() });
        }
    }

    async fn deliver(&mut self, header: Header, payload: Bytes) {
        match header.op {
            Op::Data => {
                if let Some(queue) = self.table.get(&header.channel) {
                    // A caller that has hung up does not want it any more.
                    let _unwanted = queue.send(payload).await;
                }
            }
            Op::Close | Op::Reset => drop(self.table.remove(&header.channel)),
            // Only this side opens.
            Op::Open => {}
        }
    }
}

async fn read_caller(channel: u32, mut read: OwnedReadHalf, outgoing: mpsc::Sender<Outgoing>, cut: fn(&[u8]) -> usize) {
    let send = |op, payload: Bytes| {
        let header = Header { channel, op, length: payload.len() };
        outgoing.send(Outgoing { header, payload })
    };
    if send(Op::Open, Bytes::new()).await.is_err() {
        return;
    }
    let mut buffer = BytesMut::with_capacity(MAX_DATA);
    loop {
        buffer.reserve(MAX_DATA);
        let end = match (&mut read).take(MAX_DATA as u64).read_buf(&mut buffer).await {
            Ok(0) => Op::Close,
            Err(_) => Op::Reset,
            Ok(_) => {
                let mut bytes = buffer.split().freeze();
                while !bytes.is_empty() {
                    let length = cut(&bytes);
                    if send(Op::Data, bytes.split_to(length)).await.is_err() {
                        return;
                    }
                }
                continue;
            }
        };
        // Nothing is left to tell when the pump itself has ended.
        let _pump_ended = send(end, Bytes::new()).await;
        return;
    }
}

async fn write_caller(mut write: OwnedWriteHalf, mut queue: mpsc::Receiver<Bytes>) {
    while let Some(bytes) = queue.recv().await {
        if write.write_all(&bytes).await.is_err() {
            return;
        }
    }
    // The other side closed this direction; dropping the half would do so only with the other one.
    let _hung_up = write.shutdown().await;
}

struct Incoming<S> {
    source: S,
    buffer: BytesMut,
}

impl<S: Source> Incoming<S> {
    /// The next frame; `None` when the stream ended or makes no sense. Dropping the future loses nothing.
    async fn frame(&mut self) -> Option<(Header, Bytes)> {
        loop {
            if let Some(frame) = take_frame(&mut self.buffer)? {
                return Some(frame);
            }
            let bytes = self.source.next().await?;
            self.buffer.extend_from_slice(&bytes);
        }
    }
}

/// `None`: not a frame. `Some(None)`: not yet a whole one.
#[expect(clippy::option_option, reason = "the caller takes the two levels apart at once")]
fn take_frame(buffer: &mut BytesMut) -> Option<Option<(Header, Bytes)>> {
    let Some(bytes) = buffer.first_chunk::<HEADER_LENGTH>() else { return Some(None) };
    let header = Header::parse(*bytes).ok()?;
    if buffer.len() < HEADER_LENGTH + header.length {
        return Some(None);
    }
    buffer.advance(HEADER_LENGTH);
    Some(Some((header, buffer.split_to(header.length).freeze())))
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, ReadHalf, WriteHalf};

    use super::*;

    /// Streams to a peer that the test plays: it gets the other end of each.
    #[derive(Clone)]
    struct Far(mpsc::UnboundedSender<DuplexStream>);

    struct Half(ReadHalf<DuplexStream>);

    impl Source for Half {
        async fn next(&mut self) -> Option<Bytes> {
            let mut piece = BytesMut::with_capacity(1024);
            match self.0.read_buf(&mut piece).await {
                Ok(0) | Err(_) => None,
                Ok(_) => Some(piece.freeze()),
            }
        }
    }

    impl Dial for Far {
        type Source = Half;
        type Sink = WriteHalf<DuplexStream>;
        const KEEP_ALIVE: Option<KeepAlive> = Some(KeepAlive::FAR);

        async fn dial(&self) -> io::Result<Pipe<Half, Self::Sink>> {
            let (ours, theirs) = tokio::io::duplex(1 << 20);
            self.0.send(theirs).map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
            let (source, sink) = tokio::io::split(ours);
            Ok(Pipe { source: Half(source), sink, rest: BytesMut::new() })
        }
    }

    async fn header(peer: &mut DuplexStream) -> Header {
        let mut bytes = [0; HEADER_LENGTH];
        peer.read_exact(&mut bytes).await.unwrap();
        let header = Header::parse(bytes).unwrap();
        peer.read_exact(&mut vec![0; header.length]).await.unwrap();
        header
    }

    async fn opened(link: &MuxLink<Far>, peer: &mut DuplexStream) -> UnixStream {
        let stream = link.connect().unwrap();
        stream.set_nonblocking(true).unwrap();
        assert_eq!(header(peer).await.op, Op::Open);
        UnixStream::from_std(stream).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_falls_silent_is_lost_within_a_bound_and_dialled_again() {
        let (dialled, mut peers) = mpsc::unbounded_channel();
        let link = MuxLink::open(Far(dialled), None).await.unwrap();
        let mut peer = peers.recv().await.unwrap();
        let mut caller = opened(&link, &mut peer).await;
        let begun = Instant::now();
        // It is asked, and says nothing.
        assert_eq!((header(&mut peer).await.op, header(&mut peer).await.op), (Op::Open, Op::Close));
        assert_eq!(caller.read(&mut [0; 1]).await.unwrap_or(0), 0, "the caller sees a connection that was lost");
        assert_eq!(begun.elapsed().as_secs(), (KeepAlive::FAR.quiet + KeepAlive::FAR.answer).as_secs());
        let again = tokio::task::spawn_blocking(move || link.connect().map(|stream| (link, stream)));
        let mut peer = peers.recv().await.unwrap();
        let (_link, _stream) = again.await.unwrap().unwrap();
        assert_eq!(header(&mut peer).await, Header { channel: 1, op: Op::Open, length: 0 });
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_whose_other_end_answers_is_kept_however_quiet_its_callers_are() {
        let (dialled, mut peers) = mpsc::unbounded_channel();
        let link = MuxLink::open(Far(dialled), None).await.unwrap();
        let mut peer = peers.recv().await.unwrap();
        let mut caller = opened(&link, &mut peer).await;
        for _ in 0..20 {
            let asked = header(&mut peer).await;
            assert_eq!((asked.op, header(&mut peer).await.op), (Op::Open, Op::Close));
            assert_ne!(asked.channel, 1, "the caller's own channel is left alone");
            peer.write_all(&Header { op: Op::Close, ..asked }.to_bytes()).await.unwrap();
        }
        peer.write_all(&[&Header { channel: 1, op: Op::Data, length: 2 }.to_bytes()[..], b"ok"].concat())
            .await
            .unwrap();
        let mut said = [0; 2];
        caller.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"ok");
    }

    #[test]
    fn frames_are_taken_whole() {
        let header = Header { channel: 7, op: Op::Data, length: 3 };
        let wire = [&header.to_bytes()[..], b"abcX"].concat();
        let mut buffer = BytesMut::from(&wire[..10]);
        assert!(take_frame(&mut buffer).unwrap().is_none());
        buffer.extend_from_slice(&wire[10..]);
        let (taken, payload) = take_frame(&mut buffer).unwrap().unwrap();
        assert_eq!((taken, &payload[..], &buffer[..]), (header, &b"abc"[..], &b"X"[..]));
        buffer.extend_from_slice(&[9; 20]);
        assert!(take_frame(&mut buffer).is_none());
    }
}
