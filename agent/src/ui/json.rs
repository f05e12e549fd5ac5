//! One event a line, as `docs/events.md` describes.

use std::io::Write;

use super::sink::{Sink, ViewError};
use crate::event::Stamped;

/// Writes events as JSON lines.
#[derive(Debug)]
pub struct Json<W> {
    sink: Sink<W>,
    buffer: Vec<u8>,
}

impl<W: Write> Json<W> {
    pub fn new(writer: W) -> Self {
        Self { sink: Sink::new(writer), buffer: Vec::new() }
    }

    pub fn handle(&mut self, stamped: &Stamped) -> Result<(), ViewError> {
        serde_json::to_writer(&mut self.buffer, stamped).map_err(|error| ViewError::Write(error.into()))?;
        self.buffer.push(b'\n');
        self.sink.write(&mut self.buffer)
    }
}
