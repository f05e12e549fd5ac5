//! What a person sees of a run: views of its events.
//!
//! | module | what it holds |
//! |---|---|
//! | [`plain`] | prefixed lines |
//! | [`json`] | one event a line |
//! | [`summary`] | the end of a run, for both |
//! | [`sanitize`], [`lines`] | a job's bytes → text and lines that may reach a terminal |
//! | [`sink`] | the way out, and what happens when nobody reads |
//! | [`text`], [`style`], [`labels`], [`describe`], [`duration`], [`bytes`] | widths, colours, names, words, figures |
//!
//! A view has no clock and no thread: [`View::handle`] takes events, [`View::tick`] takes the time, about ten times a
//! second. What a job wrote is hostile: nothing of it is written that did not go through [`sanitize`].

pub mod bytes;
pub mod describe;
pub mod duration;
pub mod json;
pub mod labels;
pub mod lines;
pub mod plain;
pub mod sanitize;
pub mod sink;
pub mod style;
pub mod summary;
pub mod text;

#[cfg(test)]
mod scene;

use std::io::Write;

pub use sink::ViewError;

use crate::event::Stamped;

/// How a run is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Plain,
    Json,
    Quiet,
}

/// Columns and rows of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub columns: usize,
    pub rows: usize,
}

/// How the views write.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub color: bool,
    /// The terminal's size now; `None` when the output is none.
    pub size: fn() -> Option<Size>,
    /// The live view also shows all that jobs write, as prefixed lines above.
    pub show_output: bool,
}

impl Options {
    fn columns(&self) -> Option<usize> {
        (self.size)().map(|size| size.columns)
    }
}

/// The view of one run.
#[derive(Debug)]
pub enum View<W: Write> {
    Plain(Box<plain::Plain<W>>),
    Json(json::Json<W>),
    Quiet,
}

impl<W: Write> View<W> {
    pub fn new(kind: Kind, options: &Options, writer: W) -> Self {
        match kind {
            Kind::Plain => Self::Plain(Box::new(plain::Plain::new(options, writer))),
            Kind::Json => Self::Json(json::Json::new(writer)),
            Kind::Quiet => Self::Quiet,
        }
    }

    /// Shows an event, soon or at the next [`View::tick`].
    pub fn handle(&mut self, stamped: &Stamped) -> Result<(), ViewError> {
        match self {
            Self::Plain(plain) => plain.handle(stamped),
            Self::Json(json) => json.handle(stamped),
            Self::Quiet => Ok(()),
        }
    }

    /// Draws what has changed and shows lines that were held. `now_ms` is on the clock of [`Stamped::at_ms`].
    pub fn tick(&mut self, now_ms: u64) -> Result<(), ViewError> {
        match self {
            Self::Plain(plain) => plain.tick(now_ms),
            Self::Json(_) | Self::Quiet => Ok(()),
        }
    }

    /// Writes all that is left and leaves the terminal as it was.
    pub fn finish(&mut self) -> Result<(), ViewError> {
        match self {
            Self::Plain(plain) => plain.finish(),
            Self::Json(_) | Self::Quiet => Ok(()),
        }
    }
}
