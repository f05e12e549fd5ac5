//! `navvy tests`: the last results of each job, its slowest tests, and flaky tests.

use std::collections::BTreeMap;

use jiff::Timestamp;
use navvy_job::exit_code;
use navvy_job::figures;
use navvy_protocol::api;
use navvy_results::Case;
use navvy_results::history::{Flaky, flaky, slowest};
use navvy_results::keep::{Keeper, Test};
use navvy_results::summary;
use navvy_storage::StorageError;
use serde::Serialize;

use super::args::store::TestsArgs;
use super::out::print;
use super::pipelines::{all, began, pipelines_there};
use super::processor::{Processor, failed};
use super::{CliError, host, store};
use crate::settings::Settings;

const NOTHING: &str = "No test results are kept of this project. Jobs with a `store_test_results` step leave some, in the scope \
                       they run in (--scope).\n";

pub fn run(settings: &Settings, arguments: &TestsArgs) -> Result<u8, CliError> {
    let is_remote = arguments.there.elsewhere.is_remote();
    if !is_remote && arguments.run.is_some() {
        return Err(CliError::usage("--run PIPELINE is for what a processor keeps")
            .hint("Give --remote, too. What is kept here is shown of the last run of each job."));
    }
    host::block_on(async {
        let results = match is_remote {
            true => Results::There(there(settings, arguments).await?),
            false => Results::Here(Keeper::new(store::of_project(settings, &arguments.store)?)),
        };
        let known = results.jobs().await?;
        if known.is_empty() && arguments.job.is_none() && !arguments.json {
            print(if is_remote { NOTHING_THERE } else { NOTHING })?;
        }
        let mut total = Total::default();
        for job in chosen(arguments, &known)? {
            let Some(looked) = results.look(&job).await? else { continue };
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

/// Where results are kept.
enum Results {
    Here(Keeper),
    /// Of each job, newest first.
    There(BTreeMap<String, Vec<(LastRun, Vec<Case>)>>),
}

impl Results {
    async fn jobs(&self) -> Result<Vec<String>, StorageError> {
        match self {
            Self::Here(keeper) => keeper.jobs().await,
            Self::There(jobs) => Ok(jobs.keys().cloned().collect()),
        }
    }

    async fn look(&self, job: &str) -> Result<Option<Looked>, StorageError> {
        let runs = match self {
            Self::There(jobs) => jobs.get(job).cloned().unwrap_or_default(),
            Self::Here(keeper) => {
                let mut runs = Vec::new();
                for run in keeper.runs(job).await? {
                    let cases = keeper.cases(&run).await?;
                    runs.push((LastRun { run: run.run, branch: run.branch, at: run.at }, cases));
                }
                runs
            }
        };
        Ok(Looked::of(job, runs))
    }
}

/// What the newest pipelines of a processor's project hold.
async fn there(
    settings: &Settings,
    arguments: &TestsArgs,
) -> Result<BTreeMap<String, Vec<(LastRun, Vec<Case>)>>, CliError> {
    let store = arguments.store.store.as_deref();
    let processor = Processor::of_what_is_left(settings, &arguments.there, store)?;
    let mut jobs: BTreeMap<String, Vec<(LastRun, Vec<Case>)>> = BTreeMap::new();
    for pipeline in pipelines_there(settings, &processor, &arguments.there, arguments.run.as_deref()).await? {
        let path = ["pipeline", &pipeline.id, "tests"];
        let tests = all::<api::Test>(&processor.client, &path, &[], MOST);
        let mut of_jobs: BTreeMap<String, Vec<Case>> = BTreeMap::new();
        for test in tests.await.map_err(failed)? {
            of_jobs.entry(test.job.clone()).or_default().push(case(test));
        }
        let at = began(&pipeline)?;
        let run = LastRun { run: pipeline.id, branch: pipeline.vcs.branch, at };
        for (job, cases) in of_jobs {
            jobs.entry(job).or_default().push((run.clone(), cases));
        }
    }
    Ok(jobs)
}

fn case(test: api::Test) -> Case {
    let some = |text: String| (!text.is_empty()).then_some(text);
    Case::from(Test {
        file: some(test.file),
        classname: some(test.classname),
        name: test.name,
        result: test.result,
        run_time: test.run_time,
        message: some(test.message),
        place: test.place,
    })
}

/// A run whose results are kept.
#[derive(Clone)]
struct LastRun {
    run: String,
    branch: Option<String>,
    at: Timestamp,
}

/// A job's runs.
struct Looked {
    job: String,
    last: LastRun,
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

const NOTHING_THERE: &str =
    "No test results are kept of the newest pipelines. Jobs with a `store_test_results` step leave some.\n";
/// Tests of one pipeline that are looked at, at most.
const MOST: usize = 1_000_000;

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
    /// `runs`: newest first.
    fn of(job: &str, runs: Vec<(LastRun, Vec<Case>)>) -> Option<Self> {
        let count = runs.len();
        let (mut all, mut last) = (Vec::new(), None);
        for (run, cases) in runs.into_iter().rev() {
            all.push(cases);
            last = Some(run);
        }
        let flaky = flaky(&all);
        let (last, cases) = last.zip(all.pop())?;
        Some(Self { job: job.to_owned(), last, cases, flaky, runs: count })
    }

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
