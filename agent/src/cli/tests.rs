//! `navvy tests`: the last results of each job, its slowest tests, and flaky tests.

use navvy_job::exit_code;
use navvy_job::figures;
use navvy_results::Case;
use navvy_results::history::{Flaky, flaky, slowest};
use navvy_results::keep::{Keeper, KeptRun, Test};
use navvy_results::summary;
use navvy_storage::StorageError;
use serde::Serialize;

use super::args::store::TestsArgs;
use super::out::print;
use super::{CliError, host, store};
use crate::settings::Settings;

const NOTHING: &str = "No test results are kept of this project. Jobs with a `store_test_results` step leave some, in the scope \
                       they run in (--scope).\n";

pub fn run(settings: &Settings, arguments: &TestsArgs) -> Result<u8, CliError> {
    let store = store::of_project(settings, &arguments.store)?;
    host::block_on(async {
        let keeper = Keeper::new(store);
        let known = keeper.jobs().await?;
        if known.is_empty() && arguments.job.is_none() && !arguments.json {
            print(NOTHING)?;
        }
        let mut total = Total::default();
        for job in chosen(arguments, &known)? {
            let Some(looked) = look(&keeper, &job).await? else { continue };
            total.add(&looked);
            print(&if arguments.json { looked.json(arguments.slowest)? } else { looked.text(arguments.slowest) })?;
        }
        // One job's own line is the total.
        if total.jobs > 1 && !arguments.json {
            print(&total.text())?;
        }
        Ok(exit_code::PASSED)
    })
}

fn chosen(arguments: &TestsArgs, known: &[String]) -> Result<Vec<String>, CliError> {
    let Some(job) = &arguments.job else { return Ok(known.to_vec()) };
    if known.contains(job) {
        return Ok(vec![job.clone()]);
    }
    let error = CliError::usage(format!("no test results are kept of a job {job}"));
    Err(if known.is_empty() { error } else { error.hint(format!("There are some of: {}", known.join(", "))) })
}

/// A job's runs.
struct Looked {
    job: String,
    last: KeptRun,
    cases: Vec<Case>,
    flaky: Vec<Flaky>,
    runs: usize,
}

/// The last results of all jobs together.
#[derive(Default)]
struct Total {
    jobs: usize,
    counts: summary::Counts,
}

impl Total {
    fn add(&mut self, looked: &Looked) {
        self.jobs += 1;
        self.counts.add(summary::Counts::of(&looked.cases));
    }

    fn text(&self) -> String {
        format!("All {} jobs: {}\n", self.jobs, self.counts.line())
    }
}

async fn look(keeper: &Keeper, job: &str) -> Result<Option<Looked>, StorageError> {
    let runs = keeper.runs(job).await?;
    let mut all = Vec::new();
    for run in runs.iter().rev() {
        all.push(keeper.cases(run).await?);
    }
    let flaky = flaky(&all);
    let Some((last, cases)) = runs.first().zip(all.pop()) else { return Ok(None) };
    Ok(Some(Looked { job: job.to_owned(), last: last.clone(), cases, flaky, runs: runs.len() }))
}

/// One object a line (docs/tests.md).
#[derive(Serialize)]
struct Line<'a> {
    job: &'a str,
    run: &'a str,
    branch: Option<&'a str>,
    /// By the store's clock.
    at: String,
    /// Runs that are kept.
    runs: usize,
    passed: usize,
    flaky: usize,
    skipped: usize,
    failed: usize,
    errored: usize,
    seconds: f64,
    failures: Vec<Test>,
    slowest: Vec<Test>,
    not_always: Vec<NotAlways<'a>>,
}

#[derive(Serialize)]
struct NotAlways<'a> {
    test: &'a str,
    file: Option<&'a str>,
    bad: usize,
    of: usize,
}

impl Looked {
    fn json(&self, slow: usize) -> Result<String, CliError> {
        let counts = summary::Counts::of(&self.cases);
        let line = Line {
            job: &self.job,
            run: &self.last.run,
            branch: self.last.branch.as_deref(),
            at: self.last.at.to_string(),
            runs: self.runs,
            passed: counts.passed,
            flaky: counts.flaky,
            skipped: counts.skipped,
            failed: counts.failed,
            errored: counts.errored,
            seconds: counts.micros as f64 / 1e6,
            failures: self.cases.iter().filter(|case| case.outcome.is_bad()).map(Test::from).collect(),
            slowest: slowest(&self.cases, slow).into_iter().map(Test::from).collect(),
            not_always: self
                .flaky
                .iter()
                .map(|it| NotAlways { test: &it.title, file: it.file.as_deref(), bad: it.bad, of: it.of })
                .collect(),
        };
        host::json_lines([line])
    }

    fn text(&self, slow: usize) -> String {
        let at = self.last.at.strftime("%Y-%m-%d %H:%M UTC");
        let branch = self.last.branch.as_ref().map_or_else(String::new, |branch| format!(", branch {branch}"));
        let mut lines = vec![format!("{}  ({at}{branch})", self.job)];
        lines.extend(summary::lines(&self.cases).into_iter().map(|line| format!("  {line}")));
        let slowest = slowest(&self.cases, slow);
        if !slowest.is_empty() {
            lines.push("  Slowest:".to_owned());
        }
        for case in slowest {
            let time = figures::duration(case.micros.unwrap_or(0) / 1000);
            lines.push(format!("  {time:>9}  {}{}", case.title(), in_file(case.file.as_deref())));
        }
        if !self.flaky.is_empty() {
            lines.push(format!("  Not always the same, over {} runs:", self.runs));
        }
        for it in &self.flaky {
            lines.push(format!("  {:>2} of {:>2} bad  {}{}", it.bad, it.of, it.title, in_file(it.file.as_deref())));
        }
        lines.iter().map(|line| navvy_ui::sanitize::clean(line) + "\n").collect()
    }
}

fn in_file(file: Option<&str>) -> String {
    file.map_or_else(String::new, |file| format!(" ({file})"))
}
