//! A file of the environment as a stream: as little of it as the reader holds is in memory.

use std::io::{self, Read};

use navvy_protocol::frame::FrameKind;
use navvy_protocol::supervisor::{Reply, Request};

use super::client::{Client, ClientError, Conversation};

impl Client {
    /// Hands a file's bytes to `consume`, who need not take all of them.
    ///
    /// # Errors
    /// The connection's, and the supervisor's: then what `consume` came to is not known to be of the whole file.
    pub fn read_as_stream<T>(
        &self,
        path: &str,
        user: Option<String>,
        consume: impl FnOnce(&mut dyn Read) -> T,
    ) -> Result<T, ClientError> {
        let conversation = self.open(&Request::Read { path: path.to_owned(), user })?;
        let mut file = FileReader { conversation, taken: 0, ended: false, trouble: None };
        let consumed = consume(&mut file);
        match file.trouble {
            Some(error) => Err(error),
            None => Ok(consumed),
        }
    }
}

struct FileReader {
    conversation: Conversation,
    /// Of the frame in the conversation's buffer.
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
