//! Connections, before anybody has said who they are: few at a time, and none that keeps its place without a word.
//!
//! ```text
//! accept ─▶ is there a place? ─ no ─▶ the oldest that has said nothing loses its own; is there none, it is closed at once
//!              │ yes
//!              ▼
//!           Quiet: a socket and a clock, no more ─ the first byte comes ─▶ Admitted: TLS, HTTP and their buffers
//!              ▼
//!           handshake (with TLS) and first words within FIRST_WORD? ─ no ─▶ closed
//!              │ yes
//!              ▼
//!           the protocol's own deadlines: headers, pings
//! ```

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use futures_util::Stream;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use crate::known::Known;
use crate::silent::{Silent, Turn};
use crate::tls::{Greeting, Wire};

/// Connections of one port, at most.
pub const MOST: usize = 8192;
/// A connection that has said nothing for so long is closed. A TLS handshake is nothing yet.
pub const FIRST_WORD: Duration = Duration::from_secs(10);
/// What an HTTP/2 client says first: its magic words, and the head of its settings.
const HTTP2_PREFACE: usize = 24 + 9;
/// The headers of a request are here within this.
const HEADERS: Duration = Duration::from_secs(10);
/// Bytes of a request's headers.
const MOST_HEADERS: usize = 64 << 10;
/// Connections that speak, and wait for the server to take them.
const SPEAKING: usize = 64;
/// After an error that is the machine's (no file descriptor is free, say), accepting waits so long.
const BREATHER: Duration = Duration::from_millis(100);

/// A connection that has a place and has not said anything. There may be thousands: nothing is held for it that it may never
/// use.
pub struct Quiet {
    stream: TcpStream,
    silence: Silence,
    greeting: Option<Greeting>,
    place: OwnedSemaphorePermit,
}

/// A connection that has a place and has begun to speak.
pub struct Admitted {
    stream: Wire<TcpStream>,
    /// Until its first words have come.
    silence: Option<Silence>,
    _place: OwnedSemaphorePermit,
}

/// What a connection has that has not said enough.
struct Silence {
    until: Pin<Box<Sleep>>,
    turn: Arc<Turn>,
    /// Bytes that are still to come.
    missing: usize,
}

/// Where connections come in.
pub struct Door {
    listener: TcpListener,
    places: Arc<Semaphore>,
    silent: Silent,
    first_word: Duration,
    /// Bytes of a first word.
    words: usize,
    greeting: Option<Greeting>,
}

impl Door {
    /// With [`MOST`] places; `greeting`: none without TLS.
    pub fn new(listener: TcpListener, greeting: Option<Greeting>) -> Self {
        Self { greeting, ..Self::with(listener, MOST, FIRST_WORD) }
    }

    fn with(listener: TcpListener, most: usize, first_word: Duration) -> Self {
        let places = Arc::new(Semaphore::new(most));
        Self { listener, places, silent: Silent::default(), first_word, words: 1, greeting: None }
    }

    /// For HTTP/2 alone, which has no deadline of its own before a client's preface is whole.
    #[must_use]
    pub fn of_http2(self) -> Self {
        Self { words: HTTP2_PREFACE, ..self }
    }

    /// The next connection that finds a place.
    pub async fn next(&self) -> Quiet {
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "A connection could not be accepted.");
                    tokio::time::sleep(BREATHER).await;
                    continue;
                }
            };
            // Closed without an answer: whoever it is comes again.
            let Some(place) = self.place().await else { continue };
            stream.set_nodelay(true).ok();
            let until = Box::pin(tokio::time::sleep(self.first_word));
            let silence = Silence { until, turn: self.silent.enter(), missing: self.words };
            return Quiet { stream, silence, greeting: self.greeting.clone(), place };
        }
    }

    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        let places = || Arc::clone(&self.places);
        if let Ok(place) = places().try_acquire_owned() {
            return Some(place);
        }
        if !self.silent.end_oldest() {
            return None;
        }
        // Its task is awake by now, and ends.
        tokio::time::timeout(BREATHER, places().acquire_owned()).await.ok()?.ok()
    }

    /// All of them, once they speak. With the stream the port is closed.
    pub fn connections(self) -> impl Stream<Item = io::Result<Admitted>> {
        let (heard, speaking) = mpsc::channel(SPEAKING);
        tokio::spawn(async move {
            let mut quiet = JoinSet::new();
            loop {
                while quiet.try_join_next().is_some() {}
                let next = tokio::select! {
                    next = self.next() => next,
                    () = heard.closed() => return,
                };
                let heard = heard.clone();
                quiet.spawn(async move {
                    if let Some(admitted) = next.speaks().await {
                        heard.send(Ok(admitted)).await.ok();
                    }
                });
            }
        });
        ReceiverStream::new(speaking)
    }
}

impl Quiet {
    /// Waits for its first byte. `None`: it did not come in time, another connection needed the place, or the
    /// other side has gone.
    pub async fn speaks(mut self) -> Option<Admitted> {
        // A look at the byte itself: that a socket may be read is a guess until it was tried.
        let heard = std::future::poll_fn(|context| {
            let mut byte = [0];
            match self.stream.poll_peek(context, &mut ReadBuf::new(&mut byte)) {
                Poll::Ready(peeked) => Poll::Ready(peeked.is_ok_and(|count| count > 0)),
                Poll::Pending if self.silence.is_over(context) => Poll::Ready(false),
                Poll::Pending => Poll::Pending,
            }
        });
        heard.await.then(|| Admitted {
            stream: Wire::new(self.stream, self.greeting.as_ref()),
            silence: Some(self.silence),
            _place: self.place,
        })
    }
}

impl Silence {
    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        self.turn.is_over(context) || self.until.as_mut().poll(context).is_ready()
    }
}

impl Admitted {
    /// What has waited for the other side too long has failed. In a handshake who writes waits for it, too.
    fn unless_silent<T>(&mut self, polled: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        match polled.is_pending() && self.silence.as_mut().is_some_and(|silence| silence.is_over(context)) {
            true => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "nothing was said"))),
            false => polled,
        }
    }
}

impl AsyncRead for Admitted {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        let came = buffer.filled().len() - before;
        if let Some(silence) = &mut this.silence {
            silence.missing = silence.missing.saturating_sub(came);
        }
        this.silence.take_if(|silence| silence.missing == 0);
        this.unless_silent(read, context)
    }
}

impl AsyncWrite for Admitted {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.unless_silent(written, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, slices);
        this.unless_silent(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(context);
        this.unless_silent(flushed, context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = Pin::new(&mut this.stream).poll_shutdown(context);
        this.unless_silent(shut, context)
    }
}

impl Connected for Admitted {
    type ConnectInfo = Known;

    fn connect_info(&self) -> Known {
        Known::default()
    }
}

/// Serves people until `stopped`, and then those requests that are under way.
pub async fn serve_people(door: Door, router: Router, stopped: watch::Receiver<bool>) {
    let mut served = JoinSet::new();
    loop {
        // Not beside the accepting: who is on the way in would be dropped whenever another one ends.
        while served.try_join_next().is_some() {}
        let next = tokio::select! {
            next = door.next() => next,
            () = told(stopped.clone()) => break,
        };
        let (router, stopped) = (router.clone(), stopped.clone());
        served.spawn(async move {
            let admitted = tokio::select! {
                admitted = next.speaks() => admitted,
                () = told(stopped.clone()) => None,
            };
            if let Some(admitted) = admitted {
                // In a place of its own: who is quiet does not take the room of a request.
                Box::pin(serve_one(admitted, router, stopped)).await;
            }
        });
    }
    while served.join_next().await.is_some() {}
}

/// Ends when it is time to end; what is seen of the channel is not held on to.
async fn told(mut stopped: watch::Receiver<bool>) {
    stopped.wait_for(|stopped| *stopped).await.ok();
}

async fn serve_one(admitted: Admitted, router: Router, stopped: watch::Receiver<bool>) {
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(MOST_HEADERS);
    let connection = http.serve_connection(TokioIo::new(admitted), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = told(stopped) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "A connection ended early.");
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn served(most: usize, first_word: Duration) -> (std::net::SocketAddr, watch::Sender<bool>) {
        served_with(most, first_word, None).await
    }

    /// Says `here` at `/`, for as long as the sender lives.
    pub(crate) async fn served_with(
        most: usize,
        first_word: Duration,
        greeting: Option<Greeting>,
    ) -> (std::net::SocketAddr, watch::Sender<bool>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let router = Router::new().route("/", get(async || "here"));
        let door = Door { greeting, ..Door::with(listener, most, first_word) };
        tokio::spawn(serve_people(door, router, stopped));
        (address, stop)
    }

    async fn ask(address: std::net::SocketAddr) -> io::Result<String> {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        match answer.is_empty() {
            true => Err(io::ErrorKind::ConnectionReset.into()),
            false => Ok(answer),
        }
    }

    #[tokio::test]
    async fn who_says_nothing_loses_the_place_to_who_asks() {
        let (address, _stop) = served(2, Duration::from_millis(50)).await;
        let mut silent = [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
        for silent in &mut silent {
            // Closed by the other side.
            assert_eq!(silent.read(&mut [0; 1]).await.unwrap_or(0), 0);
        }
        assert!(ask(address).await.unwrap().ends_with("here"));
    }

    #[tokio::test]
    async fn who_comes_takes_the_place_of_the_oldest_that_says_nothing() {
        let (address, _stop) = served(2, Duration::from_secs(3600)).await;
        let mut oldest = TcpStream::connect(address).await.unwrap();
        let mut other = TcpStream::connect(address).await.unwrap();
        assert!(ask(address).await.unwrap().ends_with("here"));
        assert_eq!(oldest.read(&mut [0; 1]).await.unwrap_or(0), 0);
        other.write_all(b"GET / HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        other.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("here"), "{answer}");
    }

    #[tokio::test]
    async fn a_connection_is_quiet_until_its_first_byte_is_there() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let door = Door::with(listener, 3, Duration::from_secs(3600));
        let (mut first, second) =
            (TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap());
        let (quiet, gone) = (door.next().await, door.next().await);
        let speaks = tokio::spawn(quiet.speaks());
        for _ in 0..10 {
            tokio::task::yield_now().await;
            assert!(!speaks.is_finished());
        }
        first.write_all(b"G").await.unwrap();
        let mut byte = [0];
        speaks.await.unwrap().unwrap().read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, b"G");
        drop(second);
        assert!(gone.speaks().await.is_none());
    }

    #[tokio::test]
    async fn half_a_preface_is_no_first_word() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let door = Door::with(listener, 2, Duration::from_millis(50)).of_http2();
        let mut half = TcpStream::connect(address).await.unwrap();
        half.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
        let mut admitted = door.next().await.speaks().await.unwrap();
        let mut read = Vec::new();
        let error = admitted.read_to_end(&mut read).await.unwrap_err();
        assert_eq!((error.kind(), &*read), (io::ErrorKind::TimedOut, &b"PRI * HTTP/2.0\r\n"[..]));
    }

    #[tokio::test]
    async fn beyond_the_places_a_connection_is_closed_and_the_others_are_served() {
        let (address, _stop) = served(1, FIRST_WORD).await;
        let mut first = TcpStream::connect(address).await.unwrap();
        first.write_all(b"GET / HT").await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        assert_eq!(second.read(&mut [0; 1]).await.unwrap_or(0), 0);
        first.write_all(b"TP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        first.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("here"), "{answer}");
    }
}
