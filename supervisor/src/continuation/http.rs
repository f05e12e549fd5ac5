//! As much of HTTP/1.1 as one call needs. The callers are hostile: head, body and time are bounded.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use navvy_protocol::supervisor::MAX_CONFIGURATION;
use serde_json::json;

const MAX_HEAD: usize = 16 << 10;
const MAX_HEADERS: usize = 64;
/// A configuration as JSON text, every character of it escaped once, and its parameters.
const MAX_BODY: usize = 2 * MAX_CONFIGURATION + (1 << 20);
/// Time for the whole request, and for the caller to hang up.
const PATIENCE: Duration = Duration::from_secs(30);
const LINGER: Duration = Duration::from_secs(2);

pub struct Request {
    pub method: String,
    pub path: String,
    pub body: Vec<u8>,
}

pub struct Answer {
    status: u16,
    message: String,
}

/// Why a request cannot be read.
pub enum Refusal {
    /// The caller has gone: no answer is needed.
    Gone,
    Answer(Answer),
}

struct Head {
    method: String,
    path: String,
    /// Bytes of the head itself.
    length: usize,
    body: usize,
    /// The caller waits for a word before it sends the body.
    asks: bool,
}

impl Answer {
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let body = json!({ "message": self.message }).to_string();
        let reason = match self.status {
            200 => "OK",
            401 => "Unauthorized",
            404 => "Not Found",
            405 => "Method Not Allowed",
            411 => "Length Required",
            413 => "Content Too Large",
            _ => "Bad Request",
        };
        format!(
            "HTTP/1.1 {} {reason}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.status,
            body.len()
        )
        .into_bytes()
    }
}

fn refuse<T>(status: u16, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Answer(Answer::new(status, message)))
}

impl From<io::Error> for Refusal {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

pub fn receive(stream: &mut TcpStream) -> Result<Request, Refusal> {
    let deadline = Instant::now() + PATIENCE;
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(head) = parse(&bytes)? {
            break head;
        }
        if bytes.len() >= MAX_HEAD {
            return refuse(400, format!("The head of the request is longer than {MAX_HEAD} bytes."));
        }
        read_some(stream, &mut bytes, MAX_HEAD, deadline)?;
    };
    if head.body > MAX_BODY {
        return refuse(413, format!("A configuration has at most {MAX_CONFIGURATION} bytes."));
    }
    let mut body = bytes.split_off(head.length);
    if head.asks && body.len() < head.body {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    while body.len() < head.body {
        read_some(stream, &mut body, head.body, deadline)?;
    }
    body.truncate(head.body);
    Ok(Request { method: head.method, path: head.path, body })
}

/// Reads on, to no more than `most` bytes; an error when nothing comes in time.
fn read_some(stream: &mut TcpStream, bytes: &mut Vec<u8>, most: usize, deadline: Instant) -> io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    stream.set_read_timeout(Some(left))?;
    let before = bytes.len();
    bytes.resize((before + (64 << 10)).min(most), 0);
    let count = stream.read(&mut bytes[before..])?;
    bytes.truncate(before + count);
    if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

/// `None` while the head is not whole.
fn parse(bytes: &[u8]) -> Result<Option<Head>, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return refuse(400, format!("This is not an HTTP request: {error}.")),
    };
    let header = |name: &str| {
        let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| String::from_utf8_lossy(header.value).trim().to_owned())
    };
    let method = request.method.unwrap_or_default().to_owned();
    let body = match header("content-length").map(|text| text.parse()) {
        Some(Ok(body)) => body,
        None if method == "GET" || method == "HEAD" => 0,
        _ => return refuse(411, "The request names no Content-Length."),
    };
    // What stands behind `?` means nothing here.
    let path = request.path.unwrap_or_default().split('?').next().unwrap_or_default().to_owned();
    let asks = header("expect").is_some_and(|expect| expect.eq_ignore_ascii_case("100-continue"));
    Ok(Some(Head { method, path, length, body, asks }))
}

/// Lets the caller take the answer before the connection is reset because of bytes that were sent and not read.
pub fn linger(mut stream: &TcpStream) {
    let deadline = Instant::now() + LINGER;
    if stream.shutdown(Shutdown::Write).is_err() {
        return;
    }
    let mut rest = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
            return;
        }
        match stream.read(&mut rest) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}
