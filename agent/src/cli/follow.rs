//! `navvy follow`, and the end of `submit --follow`: a pipeline elsewhere, shown by the views of `navvy run`.
//!
//! ```text
//! processor ─▶ Relay ─▶ bus ─▶ view            Ctrl-C ─┬─ no terminal: stops looking
//!                └─▶ last event ─▶ exit code            └─ asks: cancel, stop looking, go on
//! ```
//!
//! To look on changes nothing: the pipeline goes on whoever leaves.

use std::io::{BufRead as _, Write as _};
use std::pin::pin;

use navvy_job::event::{Event, JobRef};
use navvy_job::exit_code;
use navvy_output::mask::Masks;
use navvy_protocol::api;
use reqwest::Method;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::args::remote::{FollowArgs, FollowViewArgs};
use super::processor::{Processor, failed};
use super::view::{Shown, Viewer};
use super::{CliError, host, out};
use crate::bus::{self, Bus};
use crate::remote::relay::Relay;
use crate::remote::{Client, RemoteError};
use crate::settings::Settings;
use crate::terminal::Stage;

pub fn run(settings: &Settings, arguments: &FollowArgs) -> Result<u8, CliError> {
    let processor = Processor::named(settings, &arguments.processor)?;
    let shown = Following { settings, processor: &processor, pipeline: &arguments.pipeline, view: &arguments.view };
    host::finish(host::runtime()?, shown.to_the_end(false))
}

/// A pipeline that is to be shown.
pub struct Following<'a> {
    pub settings: &'a Settings,
    pub processor: &'a Processor,
    pub pipeline: &'a str,
    pub view: &'a FollowViewArgs,
}

impl Following<'_> {
    /// Shows it to its end, or until nobody looks any more. `met`: the processor was reached a moment ago.
    pub async fn to_the_end(&self, met: bool) -> Result<u8, CliError> {
        let client = &self.processor.client;
        let view = self.view.view();
        let shown = Shown::new(&view, self.settings);
        let asks = self.settings.stdin_is_terminal && self.settings.stderr_is_terminal && !view.json;
        let stage = asks.then(Stage::default);
        let masks = Masks::new(&[]);
        let (bus, events) = bus::channel(masks.clone());
        let viewer =
            Viewer::start(events, &shown, None, stage.clone(), masks).map_err(|error| CliError::infra(&error))?;
        let (waiting, approvals) = watch::channel(Vec::new());
        let mut relay = Relay::new(client, self.pipeline, met, bus.clone(), shown.feed).with_approvals(waiting);
        if !view.json {
            relay = relay.with_commands(self.processor.commands(self.pipeline));
        }
        let watcher = Watcher {
            client,
            pipeline: self.pipeline,
            bus: bus.clone(),
            stage,
            approvals,
            signals: Signals::open()?,
            lines: asks.then(listen),
            canceled: None,
        };
        let end = watcher.watch(relay).await;
        bus.close_output();
        drop(bus);
        // Readers that were let go end on this thread, and the view ends with the last of them.
        let joined = tokio::task::spawn_blocking(|| viewer.join()).await;
        let shown = joined.unwrap_or_else(|error| Err(CliError::infra(&error)));
        match end {
            End::Over(code) => out::settle(code, shown),
            End::Failed(error) if error.is_transient() => Err(failed(error)
                .hint(format!("The pipeline goes on without us; `navvy follow {}` shows it again.", self.pipeline))),
            End::Failed(error) => Err(failed(error)),
            End::Left => {
                self.say_how_to_go_on();
                Ok(exit_code::CANCELED)
            }
        }
    }

    fn say_how_to_go_on(&self) {
        let id = navvy_ui::sanitize::clean(self.pipeline);
        let text =
            format!("The pipeline goes on. `navvy follow {id}` shows it, `navvy pipelines cancel {id}` stops it.\n");
        // A terminal that is gone needs no words.
        std::io::stderr().lock().write_all(text.as_bytes()).ok();
    }
}

/// How it ended, for whom looks on.
enum End {
    /// With the pipeline.
    Over(u8),
    /// Nothing is heard of it any more.
    Failed(RemoteError),
    /// Before the pipeline did.
    Left,
}

/// What a person wants who pressed Ctrl-C.
enum Wish {
    Leave,
    Cancel { at_once: bool },
    Stay,
}

/// Looks on, and hears what is asked for.
struct Watcher<'a> {
    client: &'a Client,
    pipeline: &'a str,
    bus: Bus,
    /// `None`: nobody can be asked.
    stage: Option<Stage>,
    approvals: watch::Receiver<Vec<JobRef>>,
    signals: Signals,
    /// What is typed.
    lines: Option<mpsc::UnboundedReceiver<String>>,
    /// The pipeline was to be canceled, at once or with grace.
    canceled: Option<bool>,
}

impl Watcher<'_> {
    async fn watch(mut self, relay: Relay) -> End {
        let mut running = pin!(relay.run());
        loop {
            let happened = async {
                tokio::select! {
                    is_wish = self.signals.next() => if is_wish { self.wish().await } else { Wish::Leave },
                    line = next_line(&mut self.lines) => {
                        self.answer(&line).await;
                        Wish::Stay
                    }
                }
            };
            let wish = tokio::select! {
                end = &mut running => return end.map_or_else(End::Failed, End::Over),
                wish = happened => wish,
            };
            match wish {
                Wish::Stay => {}
                Wish::Leave => return End::Left,
                Wish::Cancel { at_once } => {
                    self.canceled = Some(at_once);
                    let canceling = cancel(self.client, self.pipeline, at_once);
                    let told = tokio::select! {
                        end = &mut running => return end.map_or_else(End::Failed, End::Over),
                        told = canceling => told,
                    };
                    // That it is heard, the agents tell.
                    if let Err(error) = told {
                        self.warn(format!("the pipeline could not be canceled: {error}"));
                    }
                }
            }
        }
    }

    fn warn(&self, message: String) {
        self.bus.send(Event::Warning { task: None, message });
    }

    /// Ctrl-C was pressed.
    async fn wish(&mut self) -> Wish {
        match (self.canceled, self.stage.clone()) {
            (Some(false), _) => Wish::Cancel { at_once: true },
            (Some(true), _) | (None, None) => Wish::Leave,
            (None, Some(stage)) => self.ask(stage).await,
        }
    }

    async fn ask(&mut self, stage: Stage) -> Wish {
        // Only the end of the program ends it otherwise.
        let Ok(_taken) = tokio::task::spawn_blocking(move || stage.take()).await else { return Wish::Leave };
        let question = "\nCancel the pipeline? c: cancel it · Enter or Ctrl-C: stop looking only · g: go on looking: ";
        let mut stderr = std::io::stderr();
        if stderr.write_all(question.as_bytes()).and_then(|()| stderr.flush()).is_err() {
            return Wish::Leave;
        }
        let line = tokio::select! {
            line = next_line(&mut self.lines) => line,
            _ = self.signals.next() => return Wish::Leave,
        };
        match line.trim().to_ascii_lowercase().as_str() {
            "c" | "cancel" | "y" | "yes" => Wish::Cancel { at_once: false },
            "g" | "go on" | "n" | "no" => Wish::Stay,
            _ => Wish::Leave,
        }
    }

    /// A line that was typed answers the oldest approval, if it is an answer.
    async fn answer(&mut self, line: &str) {
        let approved = match line.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => true,
            "n" | "no" => false,
            _ => return,
        };
        let Some(job) = self.approvals.borrow().first().cloned() else { return };
        // Another workflow may have one of that name.
        let name = format!("{}/{}", job.workflow, job.job);
        if let Err(error) = approve(self.client, self.pipeline, &name, approved).await {
            self.warn(format!("approval {name}: {error}"));
        }
    }
}

/// Has a pipeline stopped.
pub async fn cancel(client: &Client, pipeline: &str, at_once: bool) -> Result<(), RemoteError> {
    let body = api::CancelPipeline { at_once };
    client.send::<api::Message>(Method::POST, &["pipeline", pipeline, "cancel"], &body).await.map(drop)
}

/// Answers an approval, which is named by its job.
pub async fn approve(client: &Client, pipeline: &str, job: &str, approved: bool) -> Result<api::Message, RemoteError> {
    client.send(Method::POST, &["pipeline", pipeline, "approve", job], &api::Approve { approved }).await
}

/// Never ends if nobody can type, or all was typed.
async fn next_line(lines: &mut Option<mpsc::UnboundedReceiver<String>>) -> String {
    if let Some(typed) = lines {
        if let Some(line) = typed.recv().await {
            return line;
        }
        *lines = None;
    }
    std::future::pending().await
}

/// Reads lines from the terminal for as long as someone listens.
fn listen() -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let spawned = std::thread::Builder::new().name("answers".to_owned()).spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "Nothing can be asked.");
    }
    receiver
}

/// The signals that mean that somebody has seen enough.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn open() -> Result<Self, CliError> {
        let open = |kind| signal(kind).map_err(|error| CliError::infra(&error));
        Ok(Self {
            interrupt: open(SignalKind::interrupt())?,
            terminate: open(SignalKind::terminate())?,
            hangup: open(SignalKind::hangup())?,
        })
    }

    /// Is it a person's, who can be asked?
    async fn next(&mut self) -> bool {
        tokio::select! {
            _ = self.interrupt.recv() => true,
            _ = self.terminate.recv() => false,
            _ = self.hangup.recv() => false,
        }
    }
}
