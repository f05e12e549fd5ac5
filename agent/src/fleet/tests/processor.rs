//! A processor and a store, in this process: real gRPC and real HTTP on loopback, state in memory.
//!
//! ```text
//! agent ─▶ Way (may be cut) ─▶ Fake: Agents      what a test says: who is unavailable, what is written down, cancel, lose
//!      └─────────────────────▶ Fake: PUT          what came of it: events, segments, logs, ends
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use navvy_protocol::processor::v1::agents_server::{Agents, AgentsServer};
use navvy_protocol::processor::v1::{self, *};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// A test that hangs does so for this long.
const PATIENCE: Duration = Duration::from_secs(60);
pub const TOKEN: &str = "the token of the task";

#[derive(Clone)]
pub struct Fake(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    news: watch::Sender<u64>,
    /// Cuts all connections that there are.
    cut: watch::Sender<u64>,
    address: SocketAddr,
    store: SocketAddr,
}

#[derive(Default)]
pub struct State {
    pub events: Vec<serde_json::Value>,
    pub segments: Vec<Segment>,
    pub objects: BTreeMap<String, Bytes>,
    pub finishes: Vec<FinishRequest>,
    pub beats: Vec<Beat>,
    pub live: Vec<Chunk>,
    pub claims: Vec<ClaimRequest>,
    /// Tasks that are handed out.
    pub tasks: Vec<ClaimedTask>,
    /// So many calls that are not streams are answered with this.
    pub failing: u32,
    /// So many PUTs are answered with 503.
    pub store_failing: u32,
    /// Of a longer PUT nobody hears again.
    pub store_takes: Option<usize>,
    pub puts: u32,
    /// Words that were sent unasked.
    words: Vec<mpsc::Sender<Result<Word, Status>>>,
    pub lease: Duration,
    pub readers: u32,
    /// Beats are not answered.
    pub is_mute: bool,
    /// What is said to be written down, in place of what was told.
    pub says_state: Option<&'static str>,
    pub is_lost: bool,
    /// The answer to the next Finish does not arrive.
    pub drops_finish: bool,
    /// Events of this kind are refused.
    pub refuses: Option<&'static str>,
    grants: u32,
}

impl Fake {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let store = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let behind = listener.local_addr().unwrap();
        let inner = Inner {
            state: Mutex::new(State { lease: Duration::from_secs(30), ..State::default() }),
            news: watch::Sender::new(0),
            cut: watch::Sender::new(0),
            address: front.local_addr().unwrap(),
            store: store.local_addr().unwrap(),
        };
        let fake = Self(Arc::new(inner));
        let service = AgentsServer::new(fake.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        tokio::spawn(fake.clone().carry_bytes(front, behind));
        tokio::spawn(fake.clone().take_objects(store));
        fake
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.0.address)
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.state());
        self.0.news.send_modify(|count| *count += 1);
        changed
    }

    /// Waits until it is so.
    pub async fn until(&self, what: &str, is_so: impl Fn(&State) -> bool) {
        let mut news = self.0.news.subscribe();
        let so = async {
            while !is_so(&self.state()) {
                news.changed().await.unwrap();
            }
        };
        assert!(tokio::time::timeout(PATIENCE, so).await.is_ok(), "{what} never came");
    }

    /// Every connection breaks.
    pub fn cut(&self) {
        self.0.cut.send_modify(|count| *count += 1);
    }

    /// Says something unasked.
    pub async fn say(&self, word: Word) {
        let words = self.state().words.clone();
        for sender in words {
            sender.send(Ok(word.clone())).await.ok();
        }
    }

    pub async fn cancel(&self, reason: &str, at_once: bool) {
        let cancel = v1::Cancel { reason: reason.to_owned(), at_once };
        self.say(Word { cancel: Some(cancel), ..Word::default() }).await;
    }

    /// What a log holds, put together from segments of which every byte is checked.
    pub fn log(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        let mut segments: Vec<_> = state.segments.iter().filter(|segment| segment.log == name).collect();
        segments.sort_by_key(|segment| segment.offset);
        let mut bytes = Vec::new();
        for segment in segments {
            assert_eq!(segment.offset, bytes.len() as u64, "a gap, or bytes twice, in {name}");
            let object = &state.objects[&segment.object];
            assert_eq!(object.len(), segment.stored as usize);
            let mut plain = Vec::with_capacity(segment.length as usize);
            zstd_safe::decompress(&mut plain, object).unwrap();
            assert_eq!((plain.len(), &Sha256::digest(&plain)[..]), (segment.length as usize, &segment.sha256[..]));
            bytes.extend(plain);
        }
        bytes
    }

    /// The kinds of the events that came.
    pub fn events(&self) -> Vec<String> {
        self.state().events.iter().map(|event| event["event"].as_str().unwrap().to_owned()).collect()
    }

    /// A call with the right token, which does not fail this time.
    fn asked<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let token = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        if token != Some(&format!("Bearer {TOKEN}")) {
            return Err(Status::unauthenticated("another token"));
        }
        self.change(|state| {
            if state.is_lost {
                return Err(Status::failed_precondition("the lease is lost"));
            }
            match state.failing.checked_sub(1) {
                Some(left) => {
                    state.failing = left;
                    Err(Status::unavailable("as the test says"))
                }
                None => Ok(()),
            }
        })
    }

    // ---- the way ----

    async fn carry_bytes(self, front: TcpListener, behind: SocketAddr) {
        while let Ok((mut near, _)) = front.accept().await {
            let mut cut = self.0.cut.subscribe();
            tokio::spawn(async move {
                let Ok(mut far) = TcpStream::connect(behind).await else { return };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    _ = cut.changed() => {}
                }
            });
        }
    }

    // ---- the store ----

    async fn take_objects(self, store: TcpListener) {
        while let Ok((stream, _)) = store.accept().await {
            let fake = self.clone();
            tokio::spawn(async move { fake.serve_store(stream).await });
        }
    }

    /// One request after another, until the client has gone.
    async fn serve_store(&self, mut stream: TcpStream) -> Option<()> {
        let mut bytes = Vec::new();
        loop {
            let head = loop {
                if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                    break end + 4;
                }
                read_some(&mut stream, &mut bytes).await?;
            };
            let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
            let length: usize = text.split("content-length: ").nth(1)?.split("\r\n").next()?.parse().ok()?;
            let object = text.split_whitespace().nth(1)?.trim_start_matches('/').to_owned();
            while bytes.len() < head + length {
                read_some(&mut stream, &mut bytes).await?;
            }
            let body = Bytes::copy_from_slice(&bytes[head..head + length]);
            bytes.drain(..head + length);
            if self.state().store_takes.is_some_and(|most| length > most) {
                return std::future::pending().await;
            }
            let status = self.change(|state| {
                state.puts += 1;
                match state.store_failing.checked_sub(1) {
                    Some(left) => {
                        state.store_failing = left;
                        "503 Busy"
                    }
                    None => {
                        state.objects.insert(object, body);
                        "200 OK"
                    }
                }
            });
            stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await.ok()?;
        }
    }
}

async fn read_some(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<()> {
    let length = stream.read_buf(bytes).await.ok()?;
    (length > 0).then_some(())
}

type Words<T> = Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Agents for Fake {
    type AttendStream = Words<Word>;
    type LiveStream = Words<LiveWord>;

    async fn claim(&self, request: Request<ClaimRequest>) -> Result<Response<ClaimAnswer>, Status> {
        let task = self.change(|state| {
            state.claims.push(request.into_inner());
            state.tasks.pop()
        });
        Ok(Response::new(ClaimAnswer { task }))
    }

    async fn attend(&self, request: Request<Streaming<Beat>>) -> Result<Response<Self::AttendStream>, Status> {
        self.asked(&request)?;
        let (words, stream) = mpsc::channel(16);
        let mut beats = request.into_inner();
        let fake = self.clone();
        self.change(|state| state.words.push(words.clone()));
        tokio::spawn(async move {
            while let Ok(Some(beat)) = beats.message().await {
                let answer = fake.change(|state| {
                    state.beats.push(beat.clone());
                    let lease_ms = u32::try_from(state.lease.as_millis()).unwrap();
                    let written = state.says_state.map_or(beat.state, str::to_owned);
                    let word = Word { lease_ms, readers: state.readers, state: written, cancel: None };
                    (!state.is_mute).then_some(if state.is_lost {
                        Err(Status::failed_precondition("the lease is lost"))
                    } else {
                        Ok(word)
                    })
                });
                if let Some(answer) = answer {
                    words.send(answer).await.ok();
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn record(&self, request: Request<RecordRequest>) -> Result<Response<RecordAnswer>, Status> {
        self.asked(&request)?;
        let RecordRequest { first, events } = request.into_inner();
        let next = self.change(|state| {
            for (number, event) in (first..).zip(events) {
                if number == state.events.len() as u64 {
                    let event: serde_json::Value = serde_json::from_slice(&event).unwrap();
                    if state.refuses.is_some_and(|kind| event["event"] == kind) {
                        return Err(Status::invalid_argument("no task says that"));
                    }
                    state.events.push(event);
                }
            }
            Ok(state.events.len() as u64)
        })?;
        Ok(Response::new(RecordAnswer { next }))
    }

    async fn live(&self, request: Request<Streaming<Chunk>>) -> Result<Response<Self::LiveStream>, Status> {
        let mut chunks = request.into_inner();
        let fake = self.clone();
        tokio::spawn(async move {
            while let Ok(Some(chunk)) = chunks.message().await {
                fake.change(|state| state.live.push(chunk));
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::pending())))
    }

    async fn grant_segment(&self, request: Request<SegmentRequest>) -> Result<Response<SegmentGrant>, Status> {
        self.asked(&request)?;
        let number = self.change(|state| {
            state.grants += 1;
            state.grants
        });
        let object = format!("object-{number}");
        Ok(Response::new(SegmentGrant { url: format!("http://{}/{object}", self.0.store), object }))
    }

    async fn commit_segments(&self, request: Request<CommitSegmentsRequest>) -> Result<Response<DurableMarks>, Status> {
        self.asked(&request)?;
        self.change(|state| {
            for segment in request.into_inner().segments {
                let end = |of: &Segment| of.offset + u64::from(of.length);
                let known = |other: &&Segment| {
                    other.log == segment.log && other.offset < end(&segment) && segment.offset < end(other)
                };
                match state.segments.iter().find(known) {
                    None => state.segments.push(segment),
                    Some(same) if same.offset == segment.offset && same.sha256 == segment.sha256 => {}
                    Some(_) => return Err(Status::invalid_argument("it overlaps with what is durable")),
                }
            }
            Ok(())
        })?;
        Ok(Response::new(DurableMarks::default()))
    }

    async fn get_marks(&self, request: Request<GetMarksRequest>) -> Result<Response<DurableMarks>, Status> {
        self.asked(&request)?;
        let state = self.state();
        let mut marks: BTreeMap<String, u64> = BTreeMap::new();
        let mut segments: Vec<&Segment> = state.segments.iter().collect();
        segments.sort_by_key(|segment| segment.offset);
        for segment in segments {
            let durable = marks.entry(segment.log.clone()).or_default();
            if *durable == segment.offset {
                *durable += u64::from(segment.length);
            }
        }
        let marks = marks.into_iter().map(|(log, durable)| DurableMark { log, durable }).collect();
        Ok(Response::new(DurableMarks { marks, next_event: state.events.len() as u64 }))
    }

    async fn finish(&self, request: Request<FinishRequest>) -> Result<Response<FinishAnswer>, Status> {
        self.asked(&request)?;
        let dropped = self.change(|state| {
            state.finishes.push(request.into_inner());
            std::mem::take(&mut state.drops_finish)
        });
        if dropped {
            return Err(Status::unavailable("the answer is lost"));
        }
        Ok(Response::new(FinishAnswer { complete: true, missing: Vec::new() }))
    }
}
