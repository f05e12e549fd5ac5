//! A task that is held, found by a person's word: what `shell` and `retry` share.

use std::sync::Arc;

use navvy_docker::Engine;
use navvy_environment::link::shared_link;
use navvy_environment::run_dir;
use navvy_environment::supervisor::{Client, Connect};
use navvy_environment::survey::{Seen, survey_files};
use navvy_journal::Known;
use navvy_journal::owner::Owner;
use navvy_journal::standing::Condition;
use navvy_output::mask::Masks;

use super::host::{self, job};
use super::rm::{find, not_ours};
use super::{CliError, own_words};
use crate::environment::{Providers, is_of_machines};
use crate::settings::Settings;
use crate::task::Note;

/// A held task and the way into it.
pub struct Held {
    pub note: Note,
    pub link: Arc<dyn Connect>,
    pub here: Owner,
    pub known: Known,
}

impl Held {
    /// Needs no engine where this machine shares the supervisor's socket.
    pub async fn find(settings: &Settings, word: &str, docker: Option<&str>) -> Result<Self, CliError> {
        let here = Owner::this_process().map_err(|error| CliError::infra(&error))?;
        let survey = survey_files(&here, &settings.paths);
        Self::of(settings, find(settings, &survey, word)?, here, docker).await
    }

    /// The same of one that was found.
    pub async fn of(settings: &Settings, seen: &Seen, here: Owner, docker: Option<&str>) -> Result<Self, CliError> {
        let until = kept_until(seen)?;
        let known = seen.known.clone().ok_or_else(|| {
            CliError::infra_text(format!("the journal of task {} is not here: nothing is known about it", seen.task))
        })?;
        let link = match run_dir::kept_secret(settings.paths.runtime.as_deref(), &seen.task) {
            _ if is_of_machines(&known) => {
                let link = host::machines(settings)?.link_of_left(&seen.task, &settings.paths).await;
                link.map_err(|error| gone(seen, &error))?
            }
            None => shared_link(&seen.task, &settings.paths).map_err(|error| gone(seen, &error))?,
            Some(secret) => {
                let primary = format!("navvy-{}-kept-{until}-primary", seen.task);
                let engine = engine(settings, docker, &known).await?;
                engine.dialled_link(&primary, secret).await.map_err(|error| gone(seen, &error))?
            }
        };
        let note = recall(Arc::clone(&link)).await?;
        own_words::mask_with(&Masks::new(&note.masked));
        Ok(Self { note, link, here, known })
    }

    /// What it runs in, and what else of it may be made.
    pub async fn providers(&self, settings: &Settings, docker: Option<&str>) -> Result<Providers, CliError> {
        let docker = match is_of_machines(&self.known) {
            true => None,
            false => Some(engine(settings, docker, &self.known).await?),
        };
        Ok(Providers::new(docker, Some(host::machines(settings)?)))
    }
}

pub async fn engine(settings: &Settings, docker: Option<&str>, known: &Known) -> Result<Engine, CliError> {
    host::connect(settings, Some(docker.unwrap_or(&known.opening.engine))).await
}

async fn recall(link: Arc<dyn Connect>) -> Result<Note, CliError> {
    let recalled = tokio::task::spawn_blocking(move || Client::new(link).recall()).await;
    let bytes = recalled.map_err(|error| CliError::infra(&error))??;
    Ok(Note::parse(&bytes)?)
}

fn kept_until(seen: &Seen) -> Result<u64, CliError> {
    let (task, job) = (&seen.task, job(seen));
    match &seen.condition {
        Condition::Kept(until) | Condition::Adoptable(until) => Ok(*until),
        Condition::Running(owner) => {
            Err(CliError::usage(format!("task {task} ({job}) is running: process {} looks after it", owner.pid))
                .hint("Only a task that is held can be entered: `navvy run --keep-on-fail` or `--break-before`."))
        }
        Condition::Dead => Err(CliError::usage(format!("task {task} ({job}) is not held, or its time is up"))
            .hint(format!("`navvy rm {task}` removes the rest of it."))),
        Condition::Foreign => Err(not_ours(task)),
    }
}

fn gone(seen: &Seen, error: &std::io::Error) -> CliError {
    CliError::infra_text(format!("the environment of task {} does not answer: {error}", seen.task))
        .hint(format!("It may have ended: `navvy rm {}` removes the rest of it.", seen.task))
}
