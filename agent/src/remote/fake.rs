//! A processor for tests, in bytes: it also answers as no real one does.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::address::{Address, Token};
use super::client::Client;
use super::login::Access;

/// What was asked.
#[derive(Debug, Clone)]
pub struct Asked {
    /// `GET /api/v2/…?…`
    pub line: String,
    /// Header lines in small letters.
    pub head: String,
    pub body: Vec<u8>,
}

/// What is answered.
pub enum Answer {
    /// With this status, this body and its length.
    Whole(u16, Vec<u8>),
    /// A good head and pieces of a body; then it ends as it should.
    Pieces(Vec<Vec<u8>>),
    /// The same, but it is cut off there.
    Cut(Vec<Vec<u8>>),
    /// A good head and these bytes, again and again.
    Endless(Vec<u8>),
    /// A good head, pieces of a body, and nothing more.
    Silent(Vec<Vec<u8>>),
    /// The connection is closed without a word.
    Nothing,
}

impl Answer {
    /// A good one in JSON.
    pub fn json(value: &impl serde::Serialize) -> Self {
        Self::Whole(200, serde_json::to_vec(value).unwrap())
    }

    /// Lines as a stream has them.
    pub fn lines(lines: &[String]) -> Self {
        Self::Pieces(vec![lines.iter().map(|line| format!("{line}\n")).collect::<String>().into_bytes()])
    }
}

/// A processor on this machine, until it is dropped.
pub struct Fake {
    pub url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Fake {
    /// `answer` gets each request, and how many had come before.
    pub async fn start(answer: impl Fn(&Asked, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let (heard, answer) = (Arc::clone(&asked), Arc::new(answer));
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (heard, answer) = (Arc::clone(&heard), Arc::clone(&answer));
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    let Some(request) = read(&mut stream).await else { return };
                    let before = {
                        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                        heard.push(request.clone());
                        heard.len() - 1
                    };
                    // Whoever asked may have gone.
                    write(stream.get_mut(), answer(&request, before)).await.ok();
                });
            }
        });
        Self { url, asked, serving }
    }

    pub fn client(&self) -> Client {
        let address = Address::parse(&self.url, false).unwrap();
        let access = Access { address, token: Token::parse("hunter2").unwrap(), ca: None };
        Client::new(access, &navvy_storage::Proxies::default()).unwrap()
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first lines of all requests.
    pub fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.line).collect()
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut head = String::new();
    loop {
        let before = head.len();
        stream.read_line(&mut head).await.ok().filter(|read| *read > 0)?;
        if head[before..].trim().is_empty() {
            break;
        }
    }
    let line = head.lines().next()?.trim_end_matches(" HTTP/1.1").to_owned();
    let head = head.to_lowercase();
    let mut body = Vec::new();
    if let Some(length) = head.lines().find_map(|line| line.strip_prefix("content-length: ")) {
        body.resize(length.trim().parse().ok()?, 0);
        stream.read_exact(&mut body).await.ok()?;
    } else if head.contains("transfer-encoding: chunked") {
        loop {
            let mut size = String::new();
            stream.read_line(&mut size).await.ok().filter(|read| *read > 0)?;
            let size = usize::from_str_radix(size.trim(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk).await.ok()?;
            if size == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }
    Some(Asked { line, head, body })
}

const GOOD: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";

async fn write(stream: &mut TcpStream, answer: Answer) -> std::io::Result<()> {
    let (pieces, end) = match answer {
        Answer::Nothing => return Ok(()),
        Answer::Whole(status, body) => {
            let head =
                format!("HTTP/1.1 {status} Status\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(&body).await?;
            return stream.shutdown().await;
        }
        Answer::Endless(bytes) => {
            stream.write_all(GOOD.as_bytes()).await?;
            loop {
                piece(stream, &bytes).await?;
            }
        }
        Answer::Silent(pieces) => {
            stream.write_all(GOOD.as_bytes()).await?;
            for bytes in pieces {
                piece(stream, &bytes).await?;
            }
            // Until the other end has gone.
            return stream.read_u8().await.map(drop);
        }
        Answer::Pieces(pieces) => (pieces, "0\r\n\r\n"),
        Answer::Cut(pieces) => (pieces, ""),
    };
    stream.write_all(GOOD.as_bytes()).await?;
    for bytes in pieces {
        piece(stream, &bytes).await?;
    }
    stream.write_all(end.as_bytes()).await?;
    stream.shutdown().await
}

async fn piece(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    let chunk = [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
    stream.write_all(&chunk).await?;
    stream.flush().await
}
