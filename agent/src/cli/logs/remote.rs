//! `navvy logs --remote`: logs that lie with a processor.
//!
//! ```text
//! --run PIPELINE ─▶ its tasks ─▶ a list of their logs
//! TASK [STEP] ─▶ chosen logs ─▶ bytes, from where a connection broke ─▶ length and digest compared
//! ```

use std::io::{self, Write as _};

use navvy_job::exit_code;
use navvy_job::figures;
use navvy_job::id::TaskId;
use navvy_protocol::api;
use navvy_ui::sanitize::{Sanitizer, clean};
use sha2::{Digest as _, Sha256};

use super::say;
use crate::cli::args::host::LogsArgs;
use crate::cli::pipelines::{all, table};
use crate::cli::processor::{Processor, failed};
use crate::cli::{CliError, host, out};
use crate::remote::cursor::Whole;
use crate::settings::Settings;

/// No task has more logs.
const MOST: usize = 100_000;

pub fn run(settings: &Settings, arguments: &LogsArgs) -> Result<u8, CliError> {
    let processor = Processor::named(settings, &arguments.elsewhere.processor)?;
    if arguments.times {
        return Err(CliError::usage("--times: a processor keeps no time for each line"));
    }
    let Some(task) = arguments.task.as_deref() else {
        let Some(pipeline) = arguments.run.as_deref() else {
            let error = CliError::usage("which pipeline's logs? A processor has many");
            return Err(error.hint("`--run PIPELINE` lists the logs of one; `navvy pipelines ls` lists pipelines."));
        };
        return host::finish(host::runtime()?, list(&processor, pipeline));
    };
    if task.parse::<TaskId>().is_err() {
        let error = CliError::usage(format!("{task} is not a task's id"));
        return Err(error.hint("`navvy pipelines show PIPELINE` lists them."));
    }
    host::finish(host::runtime()?, print(settings, arguments, &processor, task))
}

async fn logs(processor: &Processor, task: &str) -> Result<Vec<api::Log>, CliError> {
    all::<api::Log>(&processor.client, &["task", task, "logs"], &[], MOST).await.map_err(failed)
}

/// Every log of every task.
async fn list(processor: &Processor, pipeline: &str) -> Result<u8, CliError> {
    let detail: api::PipelineDetail = processor.client.get(&["pipeline", pipeline], &[]).await.map_err(failed)?;
    let mut text = String::new();
    for job in detail.workflows.iter().flat_map(|workflow| &workflow.jobs) {
        for task in &job.tasks {
            let node =
                if job.tasks.len() > 1 { format!(" {}/{}", task.node + 1, job.tasks.len()) } else { String::new() };
            text.push_str(&format!("{}{node} · task {} · {}\n", clean(&job.name), clean(&task.id), clean(&job.status)));
            text.push_str(&table(&logs(processor, &task.id).await?.iter().map(row).collect::<Vec<_>>()));
        }
    }
    out::print(if text.is_empty() { "No task of this pipeline has begun.\n" } else { &text })?;
    Ok(exit_code::PASSED)
}

fn row(log: &api::Log) -> Vec<String> {
    let length = log.bytes.map_or_else(|| format!("{} so far", figures::bytes(log.durable)), figures::bytes);
    vec![format!("  {}", word(&log.log)), length]
}

/// As people name a log: `2-1` for `002-1`.
fn word(log: &str) -> String {
    let numbers = log.split_once('-').and_then(|(step, attempt)| Some((step.parse::<usize>().ok()?, attempt)));
    clean(&numbers.map_or_else(|| log.to_owned(), |(step, attempt)| format!("{step}-{attempt}")))
}

/// Is this log meant by `STEP`, `STEP-ATTEMPT`, `service-K` or `service:K`?
fn is_meant(log: &str, wanted: &str) -> bool {
    let wanted = wanted.replace("service:", "service-");
    let numbers = |text: &str| -> Option<(usize, Option<u32>)> {
        let (step, attempt) = text.split_once('-').map_or((text, None), |(step, attempt)| (step, Some(attempt)));
        Some((step.parse().ok()?, attempt.map(str::parse).transpose().ok()?))
    };
    match (numbers(log), numbers(&wanted)) {
        (Some((step, attempt)), Some((wanted, of))) => step == wanted && (of.is_none() || of == attempt),
        _ => log == wanted,
    }
}

async fn print(settings: &Settings, arguments: &LogsArgs, processor: &Processor, task: &str) -> Result<u8, CliError> {
    let known = logs(processor, task).await?;
    let is_wanted = |log: &&api::Log| arguments.step.as_deref().is_none_or(|step| is_meant(&log.log, step));
    let wanted: Vec<&api::Log> = known.iter().filter(is_wanted).collect();
    if let (true, Some(step)) = (wanted.is_empty(), &arguments.step) {
        let there: Vec<String> = known.iter().map(|log| word(&log.log)).collect();
        let error = CliError::usage(format!("task {task} has no log {step}"));
        return Err(
            error.hint(format!("There are: {}", if there.is_empty() { "none".to_owned() } else { there.join(", ") }))
        );
    }
    let mut worst = exit_code::PASSED;
    for log in &wanted {
        if wanted.len() > 1 {
            say(&format!("==> {}", word(&log.log)));
        }
        let sanitizer = (settings.stdout_is_terminal && !arguments.raw).then(|| Sanitizer::new(settings.wants_color()));
        let way = Way { sanitizer, mute: arguments.verify };
        let code = one(processor, task, log, way).await?;
        // Damage counts more than that an end is missing.
        worst = if worst == exit_code::LOG_DAMAGED { worst } else { worst.max(code) };
        worst = if code == exit_code::LOG_DAMAGED { code } else { worst };
    }
    Ok(worst)
}

/// How bytes go to standard output.
struct Way {
    sanitizer: Option<Sanitizer>,
    /// They are only compared.
    mute: bool,
}

impl Way {
    fn put(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        match (&mut self.sanitizer, self.mute) {
            (_, true) => Ok(()),
            (None, _) => out::write(bytes),
            (Some(sanitizer), _) => {
                let mut text = String::new();
                sanitizer.push(bytes, &mut text);
                out::print(&text)
            }
        }
    }

    fn end(&mut self) -> Result<(), CliError> {
        let Some(sanitizer) = &mut self.sanitizer else { return Ok(()) };
        let mut text = String::new();
        sanitizer.finish(&mut text);
        out::print(&text)
    }
}

/// Prints one log. The exit code says whether it is what was written.
async fn one(processor: &Processor, task: &str, log: &api::Log, mut way: Way) -> Result<u8, CliError> {
    let mut whole = Whole::new(processor.client.clone(), task, &log.log);
    let mut digest = Sha256::new();
    while let Some(bytes) = whole.next().await.map_err(failed)? {
        digest.update(&bytes);
        way.put(&bytes)?;
    }
    way.end()?;
    io::stdout().flush().ok();
    let (came, name) = (whole.offset(), word(&log.log));
    let Some(length) = log.bytes else {
        say(&format!("{name}: no end yet; {} so far", figures::bytes(came)));
        return Ok(exit_code::LOG_UNSEALED);
    };
    let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if came != length {
        say(&format!("{name}: incomplete: {came} of {length} bytes came"));
        return Ok(exit_code::LOG_DAMAGED);
    }
    if log.sha256.as_ref().is_some_and(|sha256| *sha256 != digest) {
        say(&format!("{name}: it is not what was written: its digest differs"));
        return Ok(exit_code::LOG_DAMAGED);
    }
    Ok(exit_code::PASSED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_named_as_people_do() {
        assert!(is_meant("002-1", "2") && is_meant("002-1", "2-1") && is_meant("002-1", "002-1"));
        assert!(!is_meant("002-1", "2-2") && !is_meant("012-1", "2") && !is_meant("002-1", "service-2"));
        assert!(is_meant("service-0", "service-0") && is_meant("service-0", "service:0"));
        assert_eq!(
            (word("002-1").as_str(), word("000-1").as_str(), word("service-0").as_str()),
            ("2-1", "0-1", "service-0")
        );
        assert_eq!(word("\u{1b}[31mx"), clean("\u{1b}[31mx"));
    }
}
