//! A pool's figures over HTTP: `GET /metrics`, one answer a connection, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use navvy_vm::pool::keeper::Pool;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Who asks does so at once.
const LIMIT: Duration = Duration::from_secs(10);
/// Bytes of the longest question.
const HEAD: usize = 8 << 10;
/// Who asks at the same time.
const CONNECTIONS: usize = 16;

/// Answers until it is dropped.
pub async fn serve(listener: TcpListener, pool: Pool) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let pool = pool.clone();
                tokio::spawn(async move {
                    // Who does not listen is not told.
                    tokio::time::timeout(LIMIT, answer(stream, &pool)).await.ok();
                    drop(place);
                });
            }
            // Out of descriptors, say.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn answer(mut stream: TcpStream, pool: &Pool) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        let mut piece = [0; 1024];
        match stream.read(&mut piece).await? {
            0 => return Ok(()),
            _ if head.len() >= HEAD => return respond(&mut stream, "431 Request Header Fields Too Large", "").await,
            count => head.extend_from_slice(&piece[..count]),
        }
    }
    match asked(&head) {
        Asked::Metrics => match pool.report().await {
            Some(report) => respond(&mut stream, "200 OK", &report.prometheus()).await,
            None => respond(&mut stream, "503 Service Unavailable", "the pool ends\n").await,
        },
        Asked::Else => respond(&mut stream, "404 Not Found", "figures are at /metrics\n").await,
        Asked::Otherwise => respond(&mut stream, "405 Method Not Allowed", "figures are read with GET\n").await,
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Metrics,
    /// For another page.
    Else,
    /// In another way.
    Otherwise,
}

fn asked(head: &[u8]) -> Asked {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
    match (method, path) {
        (b"GET", b"/metrics") => Asked::Metrics,
        (b"GET", _) => Asked::Else,
        _ => Asked::Otherwise,
    }
}

async fn respond(stream: &mut TcpStream, status: &str, body: &str) -> std::io::Result<()> {
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\nConnection: \
         close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_figures_are_to_be_had() {
        assert_eq!(asked(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), Asked::Metrics);
        assert_eq!(asked(b"GET /metrics?a=b HTTP/1.0\r\n\r\n"), Asked::Metrics);
        assert_eq!(asked(b"GET /metricsx HTTP/1.1\r\n\r\n"), Asked::Else);
        assert_eq!(asked(b"POST /metrics HTTP/1.1\r\n\r\n"), Asked::Otherwise);
        assert_eq!(asked(b"\r\n\r\n"), Asked::Otherwise);
    }
}
