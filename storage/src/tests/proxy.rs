//! A server between us and the store that does what stores do on bad days.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Pass,
    /// Taken, and answered with this.
    Answer(u16),
    /// Of the answer, so many bytes, and then the connection ends.
    AnswerEnds(usize),
    /// Of the answer, so many bytes, and then nothing more.
    AnswerStalls(usize),
    /// So many bytes of the answer each tenth of a second, for ever.
    AnswerTrickles(usize),
    /// Of the request, so many bytes, and then the connection ends.
    RequestEnds(usize),
    /// Of the request, so many bytes, and then nothing more is taken.
    RequestStalls(usize),
    /// The store does it, but its answer never comes: the connection ends.
    AnswerLost,
    /// A byte of the answer's body is another.
    Corrupt,
}

/// A request's head, as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    pub target: String,
    pub range: Option<String>,
    length: usize,
}

impl Asked {
    pub fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.target.contains(part)
    }
}

type Rule = dyn FnMut(&Asked) -> Fate + Send;

/// The proxy; it ends with this value.
pub struct Proxy {
    pub endpoint: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    _serving: JoinSet<()>,
}

impl Proxy {
    /// Stands before `upstream` (`http://127.0.0.1:PORT`) and asks `rule` for each request's fate.
    pub async fn before(upstream: &str, rule: impl FnMut(&Asked) -> Fate + Send + 'static) -> Self {
        let upstream: SocketAddr = upstream.strip_prefix("http://").unwrap().parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let rule: Arc<Mutex<Rule>> = Arc::new(Mutex::new(rule));
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, upstream, rule, asked.clone()));
        Self { endpoint, asked, _serving: serving }
    }

    /// What was asked for so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(listener: TcpListener, upstream: SocketAddr, rule: Arc<Mutex<Rule>>, asked: Arc<Mutex<Vec<Asked>>>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let (rule, asked) = (rule.clone(), asked.clone());
        // One request a connection; whatever fails in it is the client's to notice.
        connections.spawn(async move { one_request(client, upstream, &rule, &asked).await.unwrap_or_default() });
    }
}

async fn one_request(
    mut client: TcpStream,
    upstream: SocketAddr,
    rule: &Mutex<Rule>,
    asked: &Mutex<Vec<Asked>>,
) -> io::Result<()> {
    let (head, request, begun) = read_head(&mut client).await?;
    let fate = {
        asked.lock().unwrap().push(request.clone());
        (rule.lock().unwrap())(&request)
    };
    let takes = match fate {
        Fate::RequestEnds(bytes) | Fate::RequestStalls(bytes) => bytes.min(request.length),
        _ => request.length,
    };
    let body = read_body(&mut client, begun, takes).await?;
    match fate {
        Fate::RequestEnds(_) => return Ok(()),
        Fate::RequestStalls(_) => return std::future::pending().await,
        Fate::Answer(status) => return answer(&mut client, status).await,
        _ => {}
    }
    let mut store = TcpStream::connect(upstream).await?;
    store.write_all(&head).await?;
    store.write_all(&body).await?;
    let mut answer = Vec::new();
    store.read_to_end(&mut answer).await?;
    give(&mut client, answer, fate).await
}

async fn give(client: &mut TcpStream, mut answer: Vec<u8>, fate: Fate) -> io::Result<()> {
    match fate {
        Fate::AnswerLost => return Ok(()),
        Fate::AnswerEnds(bytes) | Fate::AnswerStalls(bytes) => answer.truncate(bytes),
        Fate::Corrupt => {
            if let Some(last) = answer.last_mut() {
                *last ^= 1;
            }
        }
        _ => {}
    }
    if let Fate::AnswerTrickles(bytes) = fate {
        return trickle(client, &answer, bytes).await;
    }
    client.write_all(&answer).await?;
    if matches!(fate, Fate::AnswerStalls(_)) {
        std::future::pending::<()>().await;
    }
    client.shutdown().await
}

async fn trickle(client: &mut TcpStream, answer: &[u8], bytes: usize) -> io::Result<()> {
    let mut beat = tokio::time::interval(Duration::from_millis(100));
    for piece in answer.chunks(bytes) {
        beat.tick().await;
        client.write_all(piece).await?;
    }
    client.shutdown().await
}

async fn answer(client: &mut TcpStream, status: u16) -> io::Result<()> {
    let text = format!("HTTP/1.1 {status} Bad Day\r\netag: \"tag\"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    client.write_all(text.as_bytes()).await?;
    client.shutdown().await
}

/// The head with `connection: close` added, what it says, and what came of the body with it.
async fn read_head(client: &mut TcpStream) -> io::Result<(Vec<u8>, Asked, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let begun = bytes.split_off(end + 4);
            bytes.truncate(end + 2);
            let asked = parse(&bytes);
            bytes.extend_from_slice(b"connection: close\r\n\r\n");
            return Ok((bytes, asked, begun));
        }
        if client.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn parse(head: &[u8]) -> Asked {
    let head = String::from_utf8_lossy(head);
    let mut lines = head.lines();
    let mut first = lines.next().unwrap_or("").split(' ');
    let header = |name: &str| {
        let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    Asked {
        method: first.next().unwrap_or("").to_owned(),
        target: first.next().unwrap_or("").to_owned(),
        range: header("range"),
        length: header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0),
    }
}

async fn read_body(client: &mut TcpStream, mut body: Vec<u8>, length: usize) -> io::Result<Vec<u8>> {
    while body.len() < length {
        if client.read_buf(&mut body).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    body.truncate(length);
    Ok(body)
}
