//! The summary alone.

use std::io::Write;

use navvy_job::event::{Event, Stamped};

use super::labels::Labels;
use super::sink::{Sink, ViewError};
use super::style::Palette;
use super::{Options, summary};

/// Says nothing until the end.
#[derive(Debug)]
pub struct Quiet<W> {
    sink: Sink<W>,
    labels: Labels,
    options: Options,
}

impl<W: Write> Quiet<W> {
    pub fn new(options: &Options, writer: W) -> Self {
        Self { sink: Sink::new(writer), labels: Labels::default(), options: *options }
    }

    pub fn handle(&mut self, stamped: &Stamped) -> Result<(), ViewError> {
        self.labels.learn(&stamped.event);
        let Event::RunEnded(ended) = &stamped.event else { return Ok(()) };
        let palette = Palette { on: self.options.color };
        let text = summary::render(ended, &self.labels, palette, self.options.columns());
        self.sink.write(&mut text.into_bytes())
    }
}
