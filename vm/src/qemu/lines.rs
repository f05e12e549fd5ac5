//! Lines of bounded length over a socket, each with a deadline.

use std::io;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::Instant;

/// What is read at once.
const PIECE: usize = 16 << 10;

/// Both directions of a conversation by lines.
pub struct Lines {
    stream: UnixStream,
    buffer: BytesMut,
    /// Bytes of the longest line, its line feed included.
    cap: usize,
    /// Bytes in front that hold no line feed.
    searched: usize,
}

impl Lines {
    /// A conversation in which nothing was said yet.
    pub fn new(stream: UnixStream, cap: usize) -> Self {
        Self { stream, buffer: BytesMut::new(), cap, searched: 0 }
    }

    /// The socket.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// The next line, without its line feed. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The other side has hung up, is too late, or sends a line that has no end.
    pub async fn next(&mut self, deadline: Instant) -> io::Result<BytesMut> {
        loop {
            if let Some(at) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.searched + at);
                self.buffer.advance(1);
                self.searched = 0;
                return Ok(line);
            }
            self.searched = self.buffer.len();
            if self.buffer.len() >= self.cap {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line has no end"));
            }
            self.buffer.reserve(PIECE);
            let mut limited = (&mut self.stream).take(PIECE as u64);
            match tokio::time::timeout_at(deadline, limited.read_buf(&mut self.buffer)).await {
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => read?,
            };
        }
    }

    /// Sends bytes, whole.
    ///
    /// # Errors
    /// The other side has hung up.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[tokio::test]
    async fn lines_come_whole_however_they_are_cut_and_none_is_endless() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut lines = Lines::new(ours, 64);
        let writer = tokio::spawn(async move {
            for byte in b"one\n\ntwo\nthree" {
                theirs.write_all(&[*byte]).await.unwrap();
            }
            theirs.write_all(&[b'x'; 100_000]).await.ok();
            theirs
        });
        for expected in ["one", "", "two"] {
            assert_eq!(&lines.next(soon()).await.unwrap()[..], expected.as_bytes());
        }
        assert_eq!(lines.next(soon()).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        // What was read beyond the cap is not more than one piece.
        assert!(lines.buffer.len() <= 64 + PIECE);
        drop(lines);
        drop(writer.await);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_the_end_are_told_apart() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut lines = Lines::new(ours, 64);
        assert_eq!(lines.next(soon()).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(theirs);
        assert_eq!(lines.next(soon()).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
