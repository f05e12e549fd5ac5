//! `navvy logs`: what a run's jobs wrote, and whether it is whole.
//!
//! ```text
//! RUN/events.jsonl ─▶ record ─▶ choose ─┬─ no TASK ─▶ a list
//!                                       ├─ --verify ─▶ a list with what is whole
//!                                       └─▶ reader ─▶ print: bytes to stdout, trouble to stderr
//! ```

mod choose;
mod print;
mod record;
mod remote;

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};

use navvy_job::chain::chain;
use navvy_job::event::LogOf;
use navvy_job::exit_code;
use navvy_job::figures;
use navvy_output::reader::{self, Piece, ReadError, Report, Verdict};
use navvy_plain_file as plain_file;
use navvy_ui::text;

use self::choose::Runs;
use self::print::{Colors, Printer, Style};
use self::record::{LogRecord, RunRecord, TaskRecord};
use super::args::host::LogsArgs;
use super::{CliError, out};
use crate::settings::Settings;

/// Records are small; many are read at once.
const INDEX_BUFFER: usize = 64 << 10;
/// Characters of a step's end in a table; the reason of an error can be long.
const STATE_COLUMNS: usize = 60;

pub fn run(settings: &Settings, arguments: &LogsArgs) -> Result<u8, CliError> {
    if arguments.elsewhere.is_remote() {
        return remote::run(settings, arguments);
    }
    let runs = Runs::of(&settings.paths.state);
    let mut run = runs.choose(arguments.run.as_deref())?;
    let mut stdout = io::BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let Some(word) = arguments.task.as_deref() else {
        let tasks: Vec<&TaskRecord> = run.tasks.iter().collect();
        return list(&run, &tasks, None, arguments.verify, &mut stdout);
    };
    let here = choose::task(&run, word)?.map(|task| task.id.clone());
    let id = match here {
        Some(id) => id,
        None if arguments.run.is_none() && !word.is_empty() => {
            let found = runs.with_task(word)?;
            let [(name, _)] = found.as_slice() else { return Err(choose::no_task(&run, word)) };
            run = runs.read(name)?;
            choose::task(&run, word)?.ok_or_else(|| choose::no_task(&run, word))?.id.clone()
        }
        None => return Err(choose::no_task(&run, word)),
    };
    let Some(task) = run.tasks.iter().find(|task| task.id == id) else { return Err(choose::no_task(&run, word)) };
    let logs = choose::logs(task, arguments.step.as_deref())?;
    if arguments.verify {
        return list(&run, &[task], Some(&logs), true, &mut stdout);
    }
    print_logs(settings, arguments, task, &logs, &mut stdout)
}

/// The job of the one task that `word` names, if its logs are here and can be read.
pub fn label_of(settings: &Settings, word: &str) -> Option<String> {
    let runs = Runs::of(&settings.paths.state);
    let latest = runs.choose(None).ok()?;
    if let Some(task) = choose::task(&latest, word).ok()? {
        return Some(task.label());
    }
    let found = if word.is_empty() { Vec::new() } else { runs.with_task(word).ok()? };
    let [(name, _)] = found.as_slice() else { return None };
    Some(choose::task(&runs.read(name).ok()?, word).ok()??.label())
}

/// Prints logs one after another; with several, each one's name goes to stderr before it.
fn print_logs(
    settings: &Settings,
    arguments: &LogsArgs,
    task: &TaskRecord,
    logs: &[&LogRecord],
    stdout: &mut impl Write,
) -> Result<u8, CliError> {
    let sanitize = settings.stdout_is_terminal && !arguments.raw;
    let style = Style { sanitize: sanitize.then(|| Colors(settings.wants_color())), times: arguments.times };
    let mut worst = Health::Whole;
    for log in logs {
        if logs.len() > 1 {
            stdout.flush().ok();
            say(&format!("==> {}, {}", task.label(), log.label()));
        }
        let service = matches!(log.of, LogOf::Service { .. }).then(|| log.word());
        let mut printer = Printer::new(&mut *stdout, &style, service);
        let read = examine(log, |piece| printer.piece(&piece));
        let printed = printer.finish();
        let health = match read {
            Ok(health) => health,
            Err(ReadError::Passed(error)) => return out::settle(worst.exit_code(), out::written(Err(error))),
            Err(error) => return Err(failed(log, &error)),
        };
        if let Err(error) = printed.and_then(|()| stdout.flush()) {
            return out::settle(worst.exit_code(), out::written(Err(error)));
        }
        if health != Health::Whole {
            say(&health.account(task, log));
        }
        worst = worst.or(health);
    }
    Ok(worst.exit_code())
}

/// Tasks and their logs, with lengths and states, and on demand what of each is whole.
fn list(
    run: &RunRecord,
    tasks: &[&TaskRecord],
    only: Option<&[&LogRecord]>,
    verify: bool,
    stdout: &mut impl Write,
) -> Result<u8, CliError> {
    let mut worst = Health::Whole;
    let mut troubles = Vec::new();
    let mut shown = format!("{}{}\n", run.directory.display(), ended(run));
    for task in tasks {
        let state = task.verdict.as_deref().unwrap_or("has no end yet");
        shown.push_str(&format!("\n{} · task {} · {state}\n", task.label(), task.id));
        let mut rows = Vec::new();
        for log in task.logs.iter().filter(|log| only.is_none_or(|only| only.iter().any(|it| it.of == log.of))) {
            let health =
                if verify { examine(log, |_| Ok(())).map_err(|error| failed(log, &error))? } else { Health::Whole };
            rows.push(row(log, verify.then_some(&health)));
            if health != Health::Whole {
                troubles.push(health.account(task, log));
            }
            worst = worst.or(health);
        }
        shown.push_str(&aligned(&rows));
    }
    let printed = out::written(stdout.write_all(shown.as_bytes()).and_then(|()| stdout.flush()));
    troubles.iter().for_each(|trouble| say(trouble));
    out::settle(worst.exit_code(), printed)
}

fn ended(run: &RunRecord) -> String {
    match run.exit_code {
        Some(code) => format!(" · ended with {code}"),
        None => " · has no end yet".to_owned(),
    }
}

fn row(log: &LogRecord, health: Option<&Health>) -> Vec<String> {
    let length = fs::metadata(&log.path).map_or_else(|_| "no log".to_owned(), |it| figures::bytes(it.len()));
    let state = match (&log.of, &log.state) {
        (_, Some(state)) => text::cut(state, STATE_COLUMNS),
        (LogOf::Step { .. }, None) => "has no end yet".to_owned(),
        (LogOf::Service { .. }, None) => String::new(),
    };
    let name = match log.of {
        LogOf::Step { .. } => navvy_ui::sanitize::first_line(&log.name),
        LogOf::Service { .. } => String::new(),
    };
    let mut row = vec![log.word(), length, name, state];
    if let Some(health) = health {
        row.insert(2, health.in_words());
    }
    row
}

/// Columns two spaces apart; the last one is as wide as it is.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|it| text::width(it)).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| text::pad(cell, *width)).collect();
        format!("  {}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// How much of a log is as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Health {
    Whole,
    /// Its step was never started.
    NoLog,
    Unsealed {
        from: u64,
        length: u64,
    },
    Damaged {
        report: Box<Report>,
    },
    /// There were bytes once.
    Gone {
        bytes: u64,
    },
}

impl Health {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Whole | Self::NoLog => exit_code::PASSED,
            Self::Unsealed { .. } => exit_code::LOG_UNSEALED,
            Self::Damaged { .. } | Self::Gone { .. } => exit_code::LOG_DAMAGED,
        }
    }

    /// The worse of both.
    fn or(self, other: Self) -> Self {
        let rank = |health: &Self| match health.exit_code() {
            exit_code::PASSED => 0,
            exit_code::LOG_UNSEALED => 1,
            _ => 2,
        };
        if rank(&other) > rank(&self) { other } else { self }
    }

    /// For a table.
    fn in_words(&self) -> String {
        match self {
            Self::Whole => "whole".to_owned(),
            Self::NoLog => "never made".to_owned(),
            Self::Unsealed { from, .. } => format!("unsealed from byte {from}"),
            Self::Damaged { report } if report.log_is_whole() => "index damaged".to_owned(),
            Self::Damaged { .. } => "damaged".to_owned(),
            Self::Gone { .. } => "gone".to_owned(),
        }
    }

    /// What is wrong, where, and what to do.
    fn account(&self, task: &TaskRecord, log: &LogRecord) -> String {
        let what = format!("{}, {}: ", task.label(), log.label());
        let path = log.path.display();
        match self {
            Self::Whole => format!("{what}whole"),
            Self::NoLog => format!("{what}it has no log, since it was never started"),
            Self::Unsealed { from, length } => format!(
                "{what}bytes {from} to {length} are not sealed, all before are verified: the run goes on, or its navvy \
                 died and this is all that it had written\n  {path}\n  What a run that goes on writes is sealed when its \
                 step and all that it started are over. Of one that died, take the last line with care."
            ),
            Self::Damaged { report } => format!("{what}{}", damage(report, &path.to_string())),
            Self::Gone { bytes } => format!(
                "{what}its log of {bytes} bytes is gone\n  {path}\n  It was removed, or the disk lost it. Run the job \
                 again for another one."
            ),
        }
    }
}

fn damage(report: &Report, path: &str) -> String {
    let mut lines = match report.log_is_whole() {
        true => "its index is damaged; the log itself is whole, by the sha256 that it was sealed with\n".to_owned(),
        false => format!("damaged; {} of its {} bytes are verified\n", report.verified, report.length),
    };
    lines.push_str(&format!("  {path}\n"));
    for fault in &report.faults {
        lines.push_str(&format!("  {fault}\n"));
    }
    let more = report.fault_count.saturating_sub(report.faults.len() as u64);
    if more > 0 {
        lines.push_str(&format!("  and {more} more\n"));
    }
    if let Some(from) = report.unsealed_from {
        lines.push_str(&format!("  bytes {from} to {} are not sealed\n", report.length));
    }
    lines.push_str(
        "  The file was changed after it was written. Look at who writes there, and at the disk (`dmesg`); run the",
    );
    lines.push_str(" job again for a whole one.");
    lines
}

/// Reads a whole log against its index and its step's end.
fn examine(log: &LogRecord, each: impl FnMut(Piece<'_>) -> io::Result<()>) -> Result<Health, ReadError> {
    // The index first: of a log that still grows its records are then never ahead of the bytes.
    let index = match plain_file::open(&log.path.with_extension("seg")) {
        Ok(index) => Some(sized(index).map_err(ReadError::Index)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(ReadError::Index(error)),
    };
    let file = match plain_file::open(&log.path) {
        Ok(file) => sized(file).map_err(ReadError::Log)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(no_log(log, index.is_some())),
        Err(error) => return Err(ReadError::Log(error)),
    };
    let index: Box<dyn Read> = match index {
        Some(index) => Box::new(BufReader::with_capacity(INDEX_BUFFER, index)),
        None => Box::new(io::empty()),
    };
    let report = reader::read(index, file, log.prefix.as_ref(), each)?;
    Ok(match report.verdict() {
        Verdict::Whole => Health::Whole,
        Verdict::Unsealed { from } => Health::Unsealed { from, length: report.length },
        Verdict::Damaged => Health::Damaged { report: Box::new(report) },
    })
}

fn no_log(log: &LogRecord, has_index: bool) -> Health {
    match &log.prefix {
        Some(prefix) => Health::Gone { bytes: prefix.bytes },
        None if has_index => Health::Gone { bytes: 0 },
        None => Health::NoLog,
    }
}

/// The file as long as it is now: one that grows faster than it is read has an end all the same.
fn sized(file: File) -> io::Result<io::Take<File>> {
    let length = file.metadata()?.len();
    Ok(file.take(length))
}

fn failed(log: &LogRecord, error: &ReadError) -> CliError {
    CliError::infra_text(format!("{}: {}", log.path.display(), chain(error)))
}

/// To stderr, since stdout is the log's.
fn say(text: &str) {
    let mut stderr = io::stderr().lock();
    // When this fails, there is nowhere left to report it.
    writeln!(stderr, "{text}").ok();
}
