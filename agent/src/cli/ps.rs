//! `navvy ps`: the tasks that are on this host.

use navvy_environment::survey::{Seen, now};
use navvy_job::exit_code;
use navvy_journal::standing::Condition;
use serde::Serialize;

use super::CliError;
use super::args::host::PsArgs;
use super::host::{self, Host, job, state};
use super::out::print;
use crate::settings::Settings;

pub fn run(settings: &Settings, arguments: &PsArgs) -> Result<u8, CliError> {
    host::block_on(async {
        let host = Host::look(settings, arguments.docker.as_deref()).await?;
        let tasks = &host.survey.tasks;
        print(&if arguments.json { host::json_lines(tasks.iter().map(line))? } else { as_table(tasks, now()) })?;
        match host.engine {
            Ok(_) if host.survey.troubles.is_empty() => Ok(exit_code::PASSED),
            Ok(_) => Err(CliError::infra_text(host.survey.troubles.join("; "))),
            Err(error) => Err(error.hint("The list above is from this machine's files alone.")),
        }
    })
}

/// One object a line (docs/host.md).
#[derive(Serialize)]
struct Line<'a> {
    task: &'a str,
    workflow: Option<&'a str>,
    job: Option<&'a str>,
    node_index: Option<u32>,
    node_total: Option<u32>,
    /// `running`, `kept`, `adoptable`, `dead`, `foreign`.
    state: &'static str,
    /// Its primary container runs no more.
    ended: bool,
    /// Seconds since 1970, for what is kept or adoptable.
    until: Option<u64>,
    /// At which it is held.
    step: Option<usize>,
    step_name: Option<&'a str>,
    owner_pid: Option<u32>,
    containers: &'a [String],
    volumes: &'a [String],
    /// The task's logs.
    directory: Option<String>,
    engine: Option<&'a str>,
}

fn line(seen: &Seen) -> Line<'_> {
    let opening = seen.known.as_ref().map(|known| &known.opening);
    let step = seen.known.as_ref().and_then(|known| known.held_step());
    let (state, until) = match &seen.condition {
        Condition::Running(_) => ("running", None),
        Condition::Kept(until) => ("kept", Some(*until)),
        Condition::Adoptable(until) => ("adoptable", Some(*until)),
        Condition::Dead => ("dead", None),
        Condition::Foreign => ("foreign", None),
    };
    Line {
        task: seen.task.as_str(),
        workflow: opening.map(|opening| opening.workflow.as_str()),
        job: opening.map(|opening| opening.job.as_str()),
        node_index: opening.map(|opening| opening.node_index),
        node_total: opening.map(|opening| opening.node_total),
        state,
        ended: seen.has_ended,
        until,
        step: step.map(|step| step.number),
        step_name: step.map(|step| step.name.as_str()),
        owner_pid: seen.owner.as_ref().map(|owner| owner.pid),
        containers: &seen.containers,
        volumes: &seen.volumes,
        directory: opening.map(|opening| opening.logs.display().to_string()),
        engine: opening.map(|opening| opening.engine.as_str()),
    }
}

fn as_table(tasks: &[Seen], now: u64) -> String {
    if tasks.is_empty() {
        return "No tasks on this host.\n".to_owned();
    }
    let heads = ["TASK", "JOB", "STATE", "STEP", "OWNER", "CONTAINERS", "DIRECTORY"];
    let mut rows = vec![heads.map(str::to_owned)];
    rows.extend(tasks.iter().map(|seen| row(seen, now)));
    let width = |column: usize| rows.iter().map(|row| unicode_width::UnicodeWidthStr::width(&*row[column])).max();
    let widths: Vec<usize> = (0..heads.len()).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let pad = width.saturating_sub(unicode_width::UnicodeWidthStr::width(&**cell));
            line.push_str(cell);
            line.push_str(&" ".repeat(pad + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn row(seen: &Seen, now: u64) -> [String; 7] {
    let dash = || "-".to_owned();
    let known = seen.known.as_ref();
    // Names are a config's: whatever they hold must not steer a terminal.
    let clean = |text: &str| navvy_ui::sanitize::first_line(text);
    let step = known.and_then(|known| known.held_step()).map(|step| clean(&format!("{} {}", step.number, step.name)));
    [
        seen.task.to_string(),
        clean(&job(seen)),
        state(&seen.condition, now) + if seen.has_ended { ", ended" } else { "" },
        step.unwrap_or_else(dash),
        seen.owner.as_ref().map_or_else(dash, |owner| owner.pid.to_string()),
        seen.containers.len().to_string(),
        known.map_or_else(dash, |known| known.opening.logs.display().to_string()),
    ]
}
