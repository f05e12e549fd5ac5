//! A stream of `Data` frames as a reader and a writer.

use std::io::{self, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use navvy_protocol::frame::{self, FrameKind, HEADER_LENGTH, MAX_LENGTH};

use crate::control::connection::Connection;

const BUFFER: usize = 128 << 10;
/// The frame that ends a stream: length 1, no payload.
pub const END: [u8; HEADER_LENGTH] = [1, 0, 0, 0, FrameKind::Data as u8];

/// Sends what it is given in large frames; nothing of it stays behind after [`Sender::finish`].
pub struct Sender<'a> {
    stream: &'a UnixStream,
    buffer: Vec<u8>,
}

impl<'a> Sender<'a> {
    pub fn new(connection: &'a Connection) -> Self {
        Self { stream: connection.stream(), buffer: Vec::new() }
    }

    pub fn finish(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            frame::write(&mut self.stream, FrameKind::Data, &self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }
}

impl Write for Sender<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.is_empty() && bytes.len() >= BUFFER {
            // Large pieces go as they are.
            let count = bytes.len().min(MAX_LENGTH - 1);
            self.stream.write_all(&frame::header(FrameKind::Data, count))?;
            self.stream.write_all(&bytes[..count])?;
            return Ok(count);
        }
        let count = bytes.len().min(BUFFER - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..count]);
        if self.buffer.len() == BUFFER {
            self.finish()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.finish()
    }
}

/// Reads the payloads one after another, up to the empty frame.
pub struct Receiver<'a> {
    frames: BufReader<io::Chain<&'a [u8], &'a UnixStream>>,
    /// Bytes left of the current frame.
    left: usize,
    ended: bool,
}

impl<'a> Receiver<'a> {
    /// `early`: what came with the request already.
    pub fn new(early: &'a [u8], stream: &'a UnixStream) -> Self {
        Self { frames: BufReader::with_capacity(BUFFER, early.chain(stream)), left: 0, ended: false }
    }

    fn next_frame(&mut self) -> io::Result<()> {
        let mut header = [0; HEADER_LENGTH];
        self.frames.read_exact(&mut header)?;
        let (kind, length) = frame::parse_header(header).map_err(io::Error::other)?;
        if kind != FrameKind::Data {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{kind:?} came where Data was due")));
        }
        (self.left, self.ended) = (length, length == 0);
        Ok(())
    }

    /// Reads on to the end, so that the other side can finish writing and see our answer.
    pub fn skip(&mut self) -> io::Result<()> {
        io::copy(self, &mut io::sink()).map(drop)
    }
}

impl Read for Receiver<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.ended {
            self.next_frame()?;
        }
        let wanted = buffer.len().min(self.left);
        if wanted == 0 {
            return Ok(0);
        }
        let count = self.frames.read(&mut buffer[..wanted])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes out of a stream that takes these pieces, read whole.
    fn through(pieces: &[Vec<u8>]) -> Vec<u8> {
        let (near, far) = UnixStream::pair().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut sender = Sender { stream: &near, buffer: Vec::new() };
                pieces.iter().for_each(|piece| sender.write_all(piece).unwrap());
                sender.finish().unwrap();
                (&near).write_all(&END).unwrap();
            });
            let mut all = Vec::new();
            Receiver::new(&[], &far).read_to_end(&mut all).unwrap();
            all
        })
    }

    #[test]
    fn pieces_of_any_size_arrive_in_their_order() {
        let sizes = [1, BUFFER, 3, BUFFER - 1, 2 * BUFFER, BUFFER + 1, 0, 5];
        let pieces: Vec<_> = (1..).zip(sizes).map(|(filling, size)| vec![filling; size]).collect();
        assert!(through(&pieces) == pieces.concat(), "other bytes, or in another order");
        assert!(through(&pieces[1..2]) == pieces[1]);
    }

    #[test]
    fn what_is_skipped_is_taken_off_the_stream() {
        let (near, far) = UnixStream::pair().unwrap();
        (&near).write_all(&frame::header(FrameKind::Data, 4)).unwrap();
        (&near).write_all(b"rest").unwrap();
        (&near).write_all(&END).unwrap();
        let mut receiver = Receiver::new(&[], &far);
        receiver.skip().unwrap();
        assert_eq!(receiver.read(&mut [0; 9]).unwrap(), 0, "something of it is still there");
    }
}
