//! What a person and the record see of a run: opened once, closed once, by `navvy run` and `navvy retry`.
//!
//! ```text
//! open ─▶ started ─▶ … jobs … ─▶ jobs_are_over ─▶ removals ─▶ close
//!  │       │                                                   ├─ the summary, the last event
//!  │       └─ first events; signals are shown from now on       ├─ the view ends: no sender is left
//!  └─ signals, masks, bus, view                                ├─ what is said after it; old runs go
//!                                                              └─ exit code
//! ```

use std::io::Write as _;

use navvy_job::event::{Event, Summary};
use navvy_output::mask::Masks;

use super::forced::LastResort;
use super::signals::{self, StopWatch};
use crate::bus::{self, Bus};
use crate::cli::args::run::ViewArgs;
use crate::cli::view::{Shown, Viewer};
use crate::cli::{CliError, out, own_words};
use crate::run_directory::{self, RunDirectory};
use crate::settings::Settings;
use crate::task::Feed;
use crate::terminal::Stage;

/// What a run is shown with.
pub struct Opening<'a> {
    pub settings: &'a Settings,
    pub view: &'a ViewArgs,
    /// `--docker`: how a second Ctrl-C reaches the engine.
    pub docker: Option<&'a str>,
    pub directory: RunDirectory,
    /// Others may have the terminal for a while.
    pub stage: Option<Stage>,
}

/// A run that is being shown.
pub struct Show<'a> {
    pub directory: RunDirectory,
    pub masks: Masks,
    pub bus: Bus,
    /// How much of the output the view needs.
    pub feed: Feed,
    pub stop: StopWatch,
    viewer: Viewer,
    settings: &'a Settings,
    tells_secrets: bool,
}

impl<'a> Opening<'a> {
    /// Needs a runtime, whose thread is the one that has to answer signals. `masked`: secrets with their names.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn open(self, masked: &[(String, String)]) -> Result<Show<'a>, CliError> {
        let Self { settings, view, docker, directory, stage } = self;
        let stop = signals::watch(LastResort::new(settings, docker))?;
        let masks = Masks::new(masked);
        own_words::mask_with(&masks);
        let (bus, events) = bus::channel(masks.clone());
        let shown = Shown::new(view, settings);
        let viewer = Viewer::start(events, &shown, Some(directory.events()), stage, masks.clone())
            .map_err(|error| CliError::infra(&error))?;
        let tells_secrets = view.secrets_report;
        Ok(Show { directory, masks, bus, feed: shown.feed, stop, viewer, settings, tells_secrets })
    }
}

impl Show<'_> {
    /// The first events; from then on signals are shown, too.
    pub fn started(&self, first: impl IntoIterator<Item = Event>) {
        first.into_iter().for_each(|event| self.bus.send(event));
        self.stop.tell(self.bus.clone());
    }

    /// The last event, and what is said when nothing is drawn any more. Returns the exit code.
    ///
    /// # Errors
    /// What was to be shown could not be written, and nothing worse happened.
    pub fn close(self, mut summary: Summary, told: &[String]) -> Result<u8, CliError> {
        summary.secrets = self.tells_secrets.then(|| self.masks.report());
        let code = summary.exit_code;
        self.bus.send(Event::RunEnded(Box::new(summary)));
        drop(self.bus);
        let shown = self.viewer.join();
        for text in told {
            let masked = own_words::masked(text).into_owned();
            // Where standard error takes nothing, the summary has said that there is an error.
            std::io::stderr().lock().write_all(navvy_ui::sanitize::tame(&masked, true).as_bytes()).ok();
        }
        run_directory::retain(&self.settings.paths.state);
        out::settle(code, shown)
    }
}
