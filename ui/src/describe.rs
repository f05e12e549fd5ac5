//! Ends, reasons and sizes in words.

use std::path::Path;

use navvy_job::figures;
use navvy_job::id::TaskId;
use navvy_job::outcome::{CancelReason, SkipReason, StepOutcome, Verdict};
use navvy_job::resource::Size;

use super::sanitize::clean;
use super::text;

/// How a step ended: `exit code 1`, `no output for 10m`.
pub fn outcome(outcome: &StepOutcome) -> String {
    match outcome {
        StepOutcome::Success => "passed".to_owned(),
        StepOutcome::ExitCode { code } => format!("exit code {code}"),
        StepOutcome::Signal { signal } => killed_by(*signal),
        StepOutcome::OutOfMemory { detail } => format!("out of memory: {}", clean(detail)),
        StepOutcome::NoOutput { limit } => format!("no output for {}", figures::limit(*limit)),
        StepOutcome::JobLimit { limit } => format!("the job's limit of {} was reached", figures::limit(*limit)),
        StepOutcome::Canceled => "canceled".to_owned(),
        StepOutcome::Error { reason } => clean(reason),
    }
}

/// How a task ended.
pub fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Passed => "passed".to_owned(),
        Verdict::Failed { step, name } => format!("failed at step {step}, {}", super::sanitize::first_line(name)),
        Verdict::Canceled { reason } => format!("canceled{}", cancel_reason(*reason)),
        Verdict::TimedOut { limit } => format!("stopped at its time limit of {}", figures::limit(*limit)),
        Verdict::Infra { fault } => format!("could not be carried out: {}", clean(fault)),
    }
}

/// A task whose environment stays.
pub fn kept(task: &TaskId, step: usize, until: &str) -> String {
    format!("the environment stays as it is at step {step}, until {}: navvy shell {task}", clean(until))
}

/// `the pipeline continues with FILE: 3 jobs`
pub fn continued(config: &Path, jobs: usize) -> String {
    format!("the pipeline continues with {}: {}", config.display(), text::count(jobs, "job"))
}

/// What the end of a run waits for.
pub fn removing(tasks: &[String]) -> String {
    let whose = if tasks.len() == 1 { "the environment" } else { "the environments" };
    format!("removing {whose} of {}", text::list(tasks, 8))
}

/// What a signal to stop brings about.
pub fn stop(at_once: bool, jobs_over: bool) -> &'static str {
    match (at_once, jobs_over) {
        (_, true) => "! every job has its verdict already: Navvy ends as soon as their environments are removed",
        (true, false) => "! stopping at once: what still runs is killed",
        (false, false) => "! stopping: running steps may finish their own clean-up first; again to kill them",
    }
}

/// Why a step did not run.
pub fn skip_reason(reason: &SkipReason) -> &'static str {
    match reason {
        SkipReason::JobFailed => "an earlier step failed",
        SkipReason::NothingFailed => "nothing failed",
        SkipReason::Halted => "the job was halted",
        SkipReason::Stopped => "the job was stopped",
        SkipReason::NotAvailable => "not available yet",
        SkipReason::OrbMissing => "its orb is not here",
        SkipReason::FirstNodeOnly => "it runs on the job's first node only",
        SkipReason::Held => "the job is held before it",
    }
}

/// Why steps that count as skipped did not run, below a summary.
pub fn why_skipped(reason: SkipReason) -> &'static str {
    match reason {
        SkipReason::NotAvailable => "not available in this version",
        SkipReason::OrbMissing => "their orbs are not here (--allow-missing-orbs)",
        other => skip_reason(&other),
    }
}

/// `2 CPUs, 4 GiB`.
pub fn size(size: Size) -> String {
    let cpus = figures::cpus(size.millicpus);
    format!("{cpus} CPU{}, {}", if cpus == "1" { "" } else { "s" }, figures::bytes(size.memory))
}

/// `12.3 MiB of 80 MiB`. `None` for what has no size, such as waiting, or has not begun.
pub fn progress(done: u64, total: Option<u64>) -> Option<String> {
    match (done, total) {
        (0, _) => None,
        (done, Some(total)) => Some(format!("{} of {}", figures::bytes(done), figures::bytes(total))),
        (done, None) => Some(figures::bytes(done)),
    }
}

/// `2/5 ` before a step's name. What comes before the steps, such as "Spin up environment", has no number.
pub fn number(step: usize, total: Option<usize>) -> String {
    match (step, total) {
        (0, _) => String::new(),
        (step, Some(total)) => format!("{step}/{total} "),
        (step, None) => format!("{step} "),
    }
}

/// `, attempt 2` from the second on.
pub fn attempt(attempt: u32) -> String {
    if attempt > 1 { format!(", attempt {attempt}") } else { String::new() }
}

fn cancel_reason(reason: CancelReason) -> &'static str {
    match reason {
        CancelReason::User => "",
        CancelReason::Shutdown => ": Navvy was told to end",
        CancelReason::LeaseLost => ": the right to run it was lost",
        CancelReason::Drain => ": this machine takes no further work",
        CancelReason::Limit => ": a limit beside the job's own time was reached",
    }
}

fn killed_by(signal: i32) -> String {
    const NAMES: [(i32, &str); 10] = [
        (1, "HUP"),
        (2, "INT"),
        (3, "QUIT"),
        (4, "ILL"),
        (6, "ABRT"),
        (8, "FPE"),
        (9, "KILL"),
        (11, "SEGV"),
        (13, "PIPE"),
        (15, "TERM"),
    ];
    match NAMES.iter().find(|(number, _)| *number == signal) {
        Some((_, name)) => format!("killed by SIG{name}"),
        None => format!("killed by signal {signal}"),
    }
}
