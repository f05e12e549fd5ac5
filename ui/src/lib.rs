//! What a person sees of a run: views of its events.
//!
//! | module | what it holds |
//! |---|---|
//! | [`live`] | on a terminal: what is done above, what is going on below ([`board`] its state, [`frame`] its lines) |
//! | [`plain`] | prefixed lines |
//! | [`json`] | one event a line |
//! | [`summary`] | the end of a run, for people |
//! | [`list`], [`graph`] | a pipeline before it runs: `--list`, `--graph` |
//! | [`sanitize`], [`lines`], [`tail`] | a job's bytes → text and lines that may reach a terminal |
//! | [`sink`] | the way out, and what happens when its reader is gone |
//! | [`text`], [`style`], [`labels`], [`describe`] | widths, colours, names, words |
//!
//! A view has no clock and no thread: [`View::handle`] takes events, [`View::tick`] takes the time, about ten times a
//! second. What a job wrote is hostile: nothing of it is written that did not go through [`sanitize`].

#![warn(missing_docs)]

mod board;
pub mod describe;
mod frame;
pub mod graph;
pub mod json;
mod labels;
mod lines;
pub mod list;
pub mod live;
mod plain;
mod quiet;
pub mod sanitize;
mod secrets;
mod sink;
pub mod style;
mod summary;
mod tail;
pub mod text;

#[cfg(test)]
mod scene;

use std::io::Write;

pub use sink::ViewError;

use navvy_job::event::Stamped;

/// How a run is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Drawn on a terminal.
    Live,
    /// Lines with the job's name before them.
    Plain,
    /// The events themselves, one a line.
    Json,
    /// The summary alone.
    Quiet,
}

/// Columns and rows of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Characters in a line.
    pub columns: usize,
    /// Lines on the screen.
    pub rows: usize,
}

/// How the views write.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Write colours.
    pub color: bool,
    /// The terminal's size now; `None` if the output is not a terminal.
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
    /// [`Kind::Live`].
    Live(Box<live::Live<W>>),
    /// [`Kind::Plain`].
    Plain(Box<plain::Plain<W>>),
    /// [`Kind::Json`].
    Json(json::Json<W>),
    /// [`Kind::Quiet`].
    Quiet(Box<quiet::Quiet<W>>),
}

impl<W: Write> View<W> {
    /// A view of this kind that writes to `writer`.
    pub fn new(kind: Kind, options: &Options, writer: W) -> Self {
        match kind {
            Kind::Live => Self::Live(Box::new(live::Live::new(options, writer))),
            Kind::Plain => Self::Plain(Box::new(plain::Plain::new(options, writer))),
            Kind::Json => Self::Json(json::Json::new(writer)),
            Kind::Quiet => Self::Quiet(Box::new(quiet::Quiet::new(options, writer))),
        }
    }

    /// Shows an event, soon or at the next [`View::tick`].
    pub fn handle(&mut self, stamped: &Stamped) -> Result<(), ViewError> {
        match self {
            Self::Live(live) => live.handle(stamped),
            Self::Plain(plain) => plain.handle(stamped),
            Self::Json(json) => json.handle(stamped),
            Self::Quiet(quiet) => quiet.handle(stamped),
        }
    }

    /// Draws what has changed and shows lines that were held. `now_ms` is on the clock of [`Stamped::at_ms`].
    pub fn tick(&mut self, now_ms: u64) -> Result<(), ViewError> {
        match self {
            Self::Live(live) => live.tick(now_ms),
            Self::Plain(plain) => plain.tick(now_ms),
            Self::Json(_) | Self::Quiet(_) => Ok(()),
        }
    }

    /// Writes all that is left and leaves the terminal as it was.
    pub fn finish(&mut self) -> Result<(), ViewError> {
        match self {
            Self::Live(live) => live.finish(),
            Self::Plain(plain) => plain.finish(),
            Self::Json(_) | Self::Quiet(_) => Ok(()),
        }
    }

    /// Takes the live area away, so that a question can be asked on the terminal; [`View::resume`] brings it back.
    pub fn suspend(&mut self) -> Result<(), ViewError> {
        match self {
            Self::Live(live) => live.suspend(),
            Self::Plain(_) | Self::Json(_) | Self::Quiet(_) => Ok(()),
        }
    }

    /// Ends what [`View::suspend`] began.
    pub fn resume(&mut self) -> Result<(), ViewError> {
        match self {
            Self::Live(live) => live.resume(),
            Self::Plain(_) | Self::Json(_) | Self::Quiet(_) => Ok(()),
        }
    }
}

/// Size of the terminal that standard error is, if it is one: for [`Options::size`].
pub fn stderr_size() -> Option<Size> {
    let (columns, rows) = terminal_size::terminal_size_of(std::io::stderr())?;
    Some(Size { columns: usize::from(columns.0), rows: usize::from(rows.0) })
}
