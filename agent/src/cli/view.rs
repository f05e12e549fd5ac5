//! The thread at the end of the bus: the run's record and the view.
//!
//! Every event but output goes into `events.jsonl`; every event goes to the view. Both may fail (a full disk, a pipe that
//! nobody reads any more); the run goes on, and what could not be kept is reported once.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use navvy_job::event::{Event, Stamped};
use navvy_output::mask::{MaskedIn, Masks};
use navvy_ui::json::add_line;
use navvy_ui::{self as ui, Kind, Options, View, ViewError};

use super::args::run::{Color, ViewArgs};
use super::{CliError, out};
use crate::bus::Events;
use crate::settings::Settings;
use crate::task::Feed;
use crate::terminal::Stage;

/// Ten redraws a second.
const TICK: Duration = Duration::from_millis(100);

/// Which view, and where it is drawn. A live view goes to stderr; lines and events go to stdout.
#[derive(Debug, Clone, Copy)]
pub struct Shown {
    kind: Kind,
    options: Options,
    /// How much of the output the view needs.
    pub feed: Feed,
}

impl Shown {
    pub fn new(arguments: &ViewArgs, settings: &Settings) -> Self {
        let dumb = settings.get("TERM").is_none_or(|term| term == "dumb");
        let live = settings.stdout_is_terminal && settings.stderr_is_terminal && !dumb;
        let kind = match () {
            () if arguments.json => Kind::Json,
            () if arguments.quiet => Kind::Quiet,
            () if live && !arguments.plain => Kind::Live,
            () => Kind::Plain,
        };
        let feed = match kind {
            Kind::Quiet => Feed::Nothing,
            Kind::Live if !arguments.verbose => Feed::Tail,
            _ => Feed::All,
        };
        Self { kind, options: options(arguments, settings, kind), feed }
    }
}

fn options(arguments: &ViewArgs, settings: &Settings, kind: Kind) -> Options {
    let terminal = if kind == Kind::Live { settings.stderr_is_terminal } else { settings.stdout_is_terminal };
    let color = match arguments.color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => terminal && settings.wants_color(),
    };
    let size = if terminal { ui::stderr_size } else { no_size };
    Options { color, size, show_output: arguments.verbose }
}

fn no_size() -> Option<ui::Size> {
    None
}

/// The consumer of a run's events.
pub struct Viewer {
    thread: JoinHandle<Trouble>,
}

impl Viewer {
    /// Starts the thread; it ends with [`Event::RunEnded`], or when every sender of events is gone.
    /// `record`: where `events.jsonl` is kept. On `stage` others may have the terminal for a while.
    pub fn start(
        events: Events,
        shown: &Shown,
        record: Option<PathBuf>,
        stage: Option<Stage>,
        masks: Masks,
    ) -> std::io::Result<Self> {
        let (kind, options) = (shown.kind, shown.options);
        let thread = std::thread::Builder::new().name("view".to_owned()).spawn(move || {
            let writer: Box<dyn Write + Send> = match kind {
                Kind::Live => Box::new(std::io::stderr()),
                _ => Box::new(std::io::stdout()),
            };
            // Control characters are gone by now: what stood around them may have become a secret.
            let writer: Box<dyn Write + Send> = Box::new(Masked { writer, masks });
            let view = View::new(kind, &options, writer);
            Consumer {
                view,
                view_broken: false,
                lost: None,
                record: record.map(Record::open).unwrap_or_default(),
                stage,
            }
            .run(&events)
        })?;
        Ok(Self { thread })
    }

    /// Waits until all was shown, and tells what could not be recorded.
    ///
    /// # Errors
    /// What was to be shown could not be written.
    pub fn join(self) -> Result<(), CliError> {
        let unexpected = || "the view's thread ended unexpectedly".to_owned();
        let trouble = self.thread.join().unwrap_or_else(|_| Trouble { record: Some(unexpected()), view: None });
        if let Some(record) = trouble.record {
            tracing::warn!("{record}.");
        }
        out::written(trouble.view.map_or(Ok(()), Err))
    }
}

/// What could not be kept, and what could not be shown although a person was there to see it.
struct Trouble {
    record: Option<String>,
    view: Option<std::io::Error>,
}

/// Masks what a view draws, a piece at a time: views write whole lines.
struct Masked {
    writer: Box<dyn Write + Send>,
    masks: Masks,
}

impl Write for Masked {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.writer.write_all(&self.masks.whole(|| MaskedIn::of_run("view"), bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.writer.flush()
    }
}

struct Consumer {
    view: View<Box<dyn Write + Send>>,
    /// The view is no longer seen.
    view_broken: bool,
    /// Why it could not be written, where its reader has not simply gone.
    lost: Option<std::io::Error>,
    record: Record,
    stage: Option<Stage>,
}

impl Consumer {
    fn run(mut self, events: &Events) -> Trouble {
        let mut last_tick = events.now_ms();
        loop {
            match events.next(TICK) {
                Ok(Some(stamped)) => {
                    self.take(&stamped);
                    if matches!(stamped.event, Event::RunEnded(_)) {
                        break;
                    }
                }
                Ok(None) => {}
                Err(_) => break,
            }
            self.lend();
            let now = events.now_ms();
            if now.saturating_sub(last_tick) >= 100 {
                last_tick = now;
                let ticked = self.view.tick(now);
                self.note(ticked);
            }
        }
        let finished = self.view.finish();
        self.note(finished);
        Trouble { record: self.record.close(), view: self.lost }
    }

    /// Steps back as long as another part wants the terminal.
    fn lend(&mut self) {
        let Some(stage) = self.stage.clone().filter(Stage::is_wanted) else { return };
        let suspended = self.view.suspend();
        self.note(suspended);
        stage.step_back();
        let resumed = self.view.resume();
        self.note(resumed);
    }

    fn take(&mut self, stamped: &Stamped) {
        self.record.write(stamped);
        if !self.view_broken {
            let handled = self.view.handle(stamped);
            self.note(handled);
        }
    }

    /// A view that is no longer seen is left alone; jobs and logs go on.
    fn note(&mut self, result: Result<(), ViewError>) {
        if let Err(error) = result
            && !self.view_broken
        {
            self.view_broken = true;
            tracing::debug!(%error, "The view cannot be shown any more.");
            if let ViewError::Write(source) = error {
                self.lost = Some(source);
            }
        }
    }
}

/// `events.jsonl`; by default none is kept.
#[derive(Default)]
struct Record {
    file: Option<File>,
    /// Of whole lines.
    length: u64,
    line: Vec<u8>,
    trouble: Option<String>,
}

impl Record {
    fn open(path: PathBuf) -> Self {
        match File::options().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => Self { file: Some(file), length: 0, line: Vec::new(), trouble: None },
            Err(error) => {
                let trouble = Some(format!("{} could not be made: {error}", path.display()));
                Self { file: None, length: 0, line: Vec::new(), trouble }
            }
        }
    }

    fn write(&mut self, stamped: &Stamped) {
        if matches!(stamped.event, Event::Output { .. } | Event::Progress { .. }) {
            return;
        }
        let Some(file) = &mut self.file else { return };
        self.line.clear();
        let written = add_line(&mut self.line, stamped).map_err(std::io::Error::from);
        let written = written.and_then(|()| file.write_all(&self.line));
        match written {
            Ok(()) => self.length += self.line.len() as u64,
            Err(error) => {
                // Half a line is worth nothing to who reads it.
                file.set_len(self.length).ok();
                self.file = None;
                self.trouble = Some(format!(
                    "the run's record, events.jsonl, ends early: {error}. Free some space on the disk of the logs, or name \
                     another place with XDG_STATE_HOME"
                ));
            }
        }
    }

    fn close(self) -> Option<String> {
        self.trouble
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warning(message: &str) -> Stamped {
        let event = Event::Warning { task: None, message: message.to_owned() };
        Stamped { at_ms: 1, time: "2026-01-02T03:04:05Z".to_owned(), event }
    }

    #[test]
    fn the_record_holds_whole_lines_of_all_but_output() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        let mut record = Record::open(path.clone());
        record.write(&warning("one"));
        record.write(&warning("two\nlines"));
        assert_eq!(record.close(), None);
        let lines = std::fs::read_to_string(path).unwrap();
        assert!(lines.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{lines}");
        assert_eq!(lines.lines().count(), 2);
    }

    #[test]
    fn a_record_that_cannot_be_written_says_so_and_what_to_do() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut record = Record { file: Some(full), length: 0, line: Vec::new(), trouble: None };
        record.write(&warning("lost"));
        record.write(&warning("not tried"));
        let trouble = record.close().unwrap();
        assert!(trouble.contains("ends early") && trouble.contains("XDG_STATE_HOME"), "{trouble}");
    }
}
