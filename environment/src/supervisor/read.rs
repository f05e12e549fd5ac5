//! A file of the environment as a stream: as little of it as the reader holds is in memory.

use std::io::{self, Read};

use navvy_protocol::frame::FrameKind;
use navvy_protocol::supervisor::{Reply, Request};

use super::client::{Client, ClientError, Conversation};

impl Client {
    /// Hands a file's bytes to `consume`, who need not take all of them.
    ///
    /// # Errors
    /// The connection's, and the supervisor's: then it is not known whether `consume` has seen the whole file.
    pub fn read_as_stream<T>(
        &self,
        path: &str,
        user: Option<String>,
        consume: impl FnOnce(&mut dyn Read) -> T,
    ) -> Result<T, ClientError> {
        let conversation = self.open(&Request::Read { path: path.to_owned(), user })?;
        // The buffer still holds the supervisor's greeting, which is not part of the file.
        let taken = conversation.buffer.len();
        let mut file = FileReader { conversation, taken, ended: false, trouble: None };
        let consumed = consume(&mut file);
        match file.trouble {
            Some(error) => Err(error),
            None => Ok(consumed),
        }
    }
}

struct FileReader {
    conversation: Conversation,
    /// Position in the frame in the conversation's buffer.
    taken: usize,
    ended: bool,
    /// Why there is no more.
    trouble: Option<ClientError>,
}

impl FileReader {
    fn next_frame(&mut self) -> Result<(), ClientError> {
        self.taken = 0;
        match self.conversation.receive()? {
            FrameKind::Data => self.ended = self.conversation.buffer.is_empty(),
            FrameKind::Reply => {
                return match self.conversation.message(FrameKind::Reply)? {
                    Reply::Failed(failure) => Err(ClientError::Failed(failure)),
                    _ => Err(ClientError::WrongReply),
                };
            }
            _ => return Err(ClientError::WrongReply),
        }
        Ok(())
    }
}

impl Read for FileReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.trouble.is_some() {
            return Err(gone());
        }
        if !self.ended
            && self.taken == self.conversation.buffer.len()
            && let Err(error) = self.next_frame()
        {
            self.trouble = Some(error);
            return Err(gone());
        }
        if self.ended {
            return Ok(0);
        }
        let rest = &self.conversation.buffer[self.taken..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.taken += count;
        Ok(count)
    }
}

fn gone() -> io::Error {
    io::Error::other("the file could not be read on")
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use navvy_protocol::frame;
    use navvy_protocol::supervisor::Hello;

    use super::super::Connect;
    use super::*;

    /// A supervisor with one file.
    struct OneFile(Vec<u8>);

    impl Connect for OneFile {
        fn connect(&self) -> io::Result<UnixStream> {
            let (ours, mut theirs) = UnixStream::pair()?;
            let file = self.0.clone();
            std::thread::spawn(move || -> io::Result<()> {
                let mut buffer = Vec::new();
                for _ in ["hello", "request"] {
                    frame::read(&mut theirs, &mut buffer).map_err(io::Error::other)?;
                }
                frame::write_message(&mut theirs, FrameKind::Hello, &Hello::new(None))?;
                for piece in file.chunks(3).chain([&[][..]]) {
                    frame::write(&mut theirs, FrameKind::Data, piece)?;
                }
                Ok(())
            });
            Ok(ours)
        }

        fn secret(&self) -> Option<&str> {
            None
        }
    }

    fn read(file: &[u8]) -> Vec<u8> {
        let client = Client::new(std::sync::Arc::new(OneFile(file.to_vec())));
        let mut read = Vec::new();
        let done = client.read_as_stream("/a", None, |source| source.read_to_end(&mut read));
        done.unwrap().unwrap();
        read
    }

    #[test]
    fn a_files_first_byte_is_the_first() {
        let wide: Vec<u8> = "\u{feff}<testsuite/>".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for file in [&b""[..], b"a", b"abcdefgh", &wide] {
            assert_eq!(read(file), file);
        }
    }
}
