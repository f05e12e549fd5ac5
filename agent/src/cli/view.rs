//! The thread at the end of the bus: the run's record and the view.
//!
//! Every event but output goes into `events.jsonl`; every event goes to the view. Both may fail (a full disk, a pipe that
//! nobody reads any more); the run goes on, and what could not be kept is told once.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use super::args::{Color, ViewArgs};
use crate::bus::Events;
use crate::event::{Event, Stamped};
use crate::output::Feed;
use crate::settings::Settings;
use crate::terminal::Stage;
use crate::ui::{self, Kind, Options, View, ViewError};

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
    thread: JoinHandle<Option<String>>,
}

impl Viewer {
    /// Starts the thread; it ends with [`Event::RunEnded`], or when every sender of events is gone.
    /// On `stage` others may have the terminal for a while.
    pub fn start(events: Events, shown: &Shown, record: PathBuf, stage: Option<Stage>) -> std::io::Result<Self> {
        let (kind, options) = (shown.kind, shown.options);
        let thread = std::thread::Builder::new().name("view".to_owned()).spawn(move || {
            let writer: Box<dyn Write + Send> = match kind {
                Kind::Live => Box::new(std::io::stderr()),
                _ => Box::new(std::io::stdout()),
            };
            let view = View::new(kind, &options, writer);
            Consumer { view, view_broken: false, record: Record::open(record), stage }.run(&events)
        })?;
        Ok(Self { thread })
    }

    /// Waits until all was shown. Returns what could not be recorded, if anything.
    pub fn join(self) -> Option<String> {
        self.thread.join().unwrap_or_else(|_| Some("the view's thread ended unexpectedly".to_owned()))
    }
}

struct Consumer {
    view: View<Box<dyn Write + Send>>,
    view_broken: bool,
    record: Record,
    stage: Option<Stage>,
}

impl Consumer {
    fn run(mut self, events: &Events) -> Option<String> {
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
        self.record.close()
    }

    /// Steps back as long as somebody else wants the terminal.
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

    /// A view that nobody sees any more is left alone; jobs and logs go on.
    fn note(&mut self, result: Result<(), ViewError>) {
        if let Err(error) = result
            && !self.view_broken
        {
            self.view_broken = true;
            tracing::debug!(%error, "The view cannot be shown any more.");
        }
    }
}

/// `events.jsonl`.
struct Record {
    file: Option<BufWriter<File>>,
    trouble: Option<String>,
}

impl Record {
    fn open(path: PathBuf) -> Self {
        match File::options().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => Self { file: Some(BufWriter::new(file)), trouble: None },
            Err(error) => Self { file: None, trouble: Some(format!("{} could not be made: {error}", path.display())) },
        }
    }

    fn write(&mut self, stamped: &Stamped) {
        if matches!(stamped.event, Event::Output { .. } | Event::Progress { .. }) {
            return;
        }
        let Some(file) = &mut self.file else { return };
        let written = serde_json::to_writer(&mut *file, stamped)
            .map_err(std::io::Error::from)
            .and_then(|()| file.write_all(b"\n"))
            .and_then(|()| file.flush());
        if let Err(error) = written {
            self.file = None;
            self.trouble = Some(format!("events.jsonl is not whole: {error}"));
        }
    }

    fn close(self) -> Option<String> {
        self.trouble
    }
}
