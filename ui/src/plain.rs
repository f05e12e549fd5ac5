//! Prefixed lines, for files, pipes and `--plain`.
//!
//! ```text
//! unit ├ ▸ 2/3 Unit tests          Navvy's own words stand behind ├,
//! unit │ #!/bin/bash -eo pipefail  what the job wrote (and its command) behind │,
//! unit ┊ ok                        the rest of a line that had to be shown unfinished behind ┊.
//! unit ├ ✓ 2/3 Unit tests, 1.2s
//! ```
//!
//! A job cannot forge Navvy's words, and lines of jobs that run side by side never mix.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use navvy_job::event::{Event, JobEnd, JobRef, Stamped, Summary, TaskRef};
use navvy_job::figures;
use navvy_job::id::TaskId;
use navvy_job::outcome::{SkipReason, StepOutcome, Verdict};

use super::labels::{Labels, NAVVY};
use super::lines::{Line, Lines};
use super::sanitize::{Sanitizer, clean, first_line};
use super::sink::{Sink, ViewError};
use super::style::Palette;
use super::{Options, describe, summary, text};

/// A long pull says how far it is this often.
const PROGRESS_EVERY_MS: u64 = 5000;
/// Columns of a service's or background step's name before its lines.
const SOURCE_LIMIT: usize = 24;

/// Writes a run as prefixed lines.
#[derive(Debug)]
pub struct Plain<W> {
    sink: Sink<W>,
    pages: Pages,
}

impl<W: Write> Plain<W> {
    pub fn new(options: &Options, writer: W) -> Self {
        Self { sink: Sink::new(writer), pages: Pages::new(options) }
    }

    pub fn handle(&mut self, stamped: &Stamped) -> Result<(), ViewError> {
        self.pages.handle(stamped);
        self.sink.write(&mut self.pages.out)
    }

    pub fn tick(&mut self, now_ms: u64) -> Result<(), ViewError> {
        self.pages.tick(now_ms);
        self.sink.write(&mut self.pages.out)
    }

    pub fn finish(&mut self) -> Result<(), ViewError> {
        self.pages.finish();
        self.sink.write(&mut self.pages.out)
    }
}

/// The lines themselves, without a place to write them to.
#[derive(Debug)]
pub struct Pages {
    palette: Palette,
    width: Option<usize>,
    labels: Labels,
    streams: Vec<Stream>,
    steps: Vec<Step>,
    progress: Vec<Progress>,
    /// How many steps a task has.
    totals: BTreeMap<TaskId, usize>,
    /// Lines ready to be written.
    pub out: Vec<u8>,
}

/// What one step or service writes.
#[derive(Debug)]
struct Stream {
    task: TaskRef,
    step: usize,
    name: String,
    /// Prefix of a whole line and of the rest of one.
    prefixes: [String; 2],
    lines: Lines,
}

/// A step that has started and not ended.
#[derive(Debug)]
struct Step {
    task: TaskRef,
    step: usize,
    name: String,
    background: bool,
}

/// Something long under way.
#[derive(Debug)]
struct Progress {
    task: TaskRef,
    what: String,
    told_ms: u64,
}

impl Pages {
    pub fn new(options: &Options) -> Self {
        Self {
            palette: Palette { on: options.color },
            width: options.columns(),
            labels: Labels::default(),
            streams: Vec::new(),
            steps: Vec::new(),
            progress: Vec::new(),
            totals: BTreeMap::new(),
            out: Vec::new(),
        }
    }

    pub fn handle(&mut self, stamped: &Stamped) {
        self.labels.learn(&stamped.event);
        match &stamped.event {
            Event::RunStarted { logs, config, jobs } => self.run_started(logs, config, jobs.len()),
            Event::PipelineContinued { config, jobs } => self.say(&clean(&describe::continued(config, jobs.len()))),
            Event::JobWaiting { job, why } => {
                self.job_says(job, &self.palette.faint(&format!("○ waits: {}", clean(why))))
            }
            Event::ApprovalAsked { job, holds } => self.approval_asked(job, holds),
            Event::TaskStarted { .. } => self.task_started(&stamped.event),
            Event::TaskState { .. } | Event::ServiceStarted { .. } | Event::TaskLogs { .. } => {}
            Event::Report { task, line } => self.task_says(task, &self.palette.faint(&format!("  {}", clean(line)))),
            Event::Progress { task, what, done, total } => self.progressed(stamped.at_ms, task, what, *done, *total),
            Event::StepStarted { .. } => self.step_started(&stamped.event),
            Event::Output { task, step, stream, bytes } => self.output(stamped.at_ms, task, *step, stream, bytes),
            Event::StepEnded { .. } => self.step_ended(&stamped.event),
            Event::StepSkipped { task, step, name, why } => self.step_skipped(task, *step, name, why),
            Event::Warning { task, message } => self.warning(task.as_ref(), message),
            Event::TaskHeld { task, step, until, .. } => {
                let text = self.palette.caution(&format!("? {}", describe::kept(&task.task, *step, until)));
                self.task_says(task, &text);
            }
            Event::StopAsked { at_once, jobs_over } => {
                let text = self.palette.caution(describe::stop(*at_once, *jobs_over));
                self.say(&text);
            }
            Event::TaskEnded { task, verdict, duration_ms, .. } => self.task_ended(task, verdict, *duration_ms),
            Event::TaskRemoved { task, leftovers, .. } => self.task_removed(task, leftovers),
            Event::RemovalAwaited { tasks } => {
                let tasks: Vec<String> = tasks.iter().map(|task| self.labels.task(task)).collect();
                self.say(&self.palette.faint(&format!("  {}", describe::removing(&tasks))));
            }
            Event::JobEnded { job, end } => self.job_ended(job, end),
            Event::RunEnded(summary) => self.run_ended(summary),
        }
    }

    /// Shows lines that have been unfinished for too long.
    pub fn tick(&mut self, now_ms: u64) {
        for stream in &mut self.streams {
            stream.lines.tick(now_ms, |line| write_line(&mut self.out, &stream.prefixes, &line));
        }
    }

    /// Shows all that is held.
    pub fn finish(&mut self) {
        self.end_streams(|_| true);
    }

    fn run_started(&mut self, logs: &Path, config: &Path, jobs: usize) {
        let text = format!("{}: {}, logs in {}", config.display(), text::count(jobs, "job"), logs.display());
        self.say(&clean(&text));
    }

    fn task_started(&mut self, event: &Event) {
        let Event::TaskStarted { task, image, resource_class, size, steps } = event else { return };
        self.totals.insert(task.task.clone(), steps.len());
        let image = image.as_deref().unwrap_or("no image");
        let text = format!("▸ Spin up: {image}, {resource_class} ({})", describe::size(*size));
        self.task_says(task, &self.palette.strong(&clean(&text)));
    }

    fn approval_asked(&mut self, job: &JobRef, holds: &[String]) {
        let behind = if holds.is_empty() { String::new() } else { format!("; behind it: {}", text::list(holds, 8)) };
        self.job_says(job, &self.palette.caution(&clean(&format!("? waits for approval{behind}"))));
    }

    fn progressed(&mut self, now_ms: u64, task: &TaskRef, what: &str, done: u64, total: Option<u64>) {
        let known = self.progress.iter_mut().find(|progress| progress.task == *task && progress.what == what);
        match known {
            Some(progress) if now_ms < progress.told_ms.saturating_add(PROGRESS_EVERY_MS) => return,
            Some(progress) => progress.told_ms = now_ms,
            None => self.progress.push(Progress { task: task.clone(), what: what.to_owned(), told_ms: now_ms }),
        }
        let far = describe::progress(done, total).map_or_else(String::new, |far| format!(": {far}"));
        self.task_says(task, &self.palette.faint(&clean(&format!("  {what}{far}"))));
    }

    fn step_started(&mut self, event: &Event) {
        let Event::StepStarted { task, step, attempt, name, background, header, .. } = event else { return };
        let name = first_line(name);
        let note = if *background { ", in the background" } else { "" };
        let text = format!("▸ {}{name}{}{note}", self.number(task, *step), describe::attempt(*attempt));
        self.task_says(task, &self.palette.strong(&text));
        self.steps.push(Step { task: task.clone(), step: *step, name, background: *background });
        if let Some(header) = header {
            self.job_text(task, header);
        }
    }

    fn output(&mut self, now_ms: u64, task: &TaskRef, step: usize, name: &str, bytes: &[u8]) {
        let known = self.streams.iter().position(|s| s.step == step && s.name == name && s.task == *task);
        let at = known.unwrap_or_else(|| self.open_stream(task, step, name));
        let Some(stream) = self.streams.get_mut(at) else { return };
        stream.lines.push(bytes, now_ms, |line| write_line(&mut self.out, &stream.prefixes, &line));
    }

    fn open_stream(&mut self, task: &TaskRef, step: usize, name: &str) -> usize {
        let prefixes = ["│", "┊"].map(|bar| self.output_prefix(task, step, name, bar));
        let lines = Lines::new(self.palette.on);
        self.streams.push(Stream { task: task.clone(), step, name: name.to_owned(), prefixes, lines });
        self.streams.len() - 1
    }

    /// `job │ `, and for what does not come from the step at hand `job │ its name: `.
    fn output_prefix(&self, task: &TaskRef, step: usize, stream: &str, bar: &str) -> String {
        let service = stream.strip_prefix("service:").map(clean);
        let source = service.or_else(|| self.background_name(task, step));
        let prefix = self.prefix(&self.labels.task(task), self.labels.index(&task.job), bar);
        match source {
            Some(source) => {
                format!("{prefix}{} ", self.palette.faint(&format!("{}:", text::cut(&source, SOURCE_LIMIT))))
            }
            None => prefix,
        }
    }

    fn background_name(&self, task: &TaskRef, step: usize) -> Option<String> {
        let found = self.steps.iter().find(|s| s.step == step && s.task == *task)?;
        found.background.then(|| found.name.clone())
    }

    fn step_ended(&mut self, event: &Event) {
        let Event::StepEnded { task, step, attempt, name, outcome, duration_ms, trailers, origin, will_rerun, .. } =
            event
        else {
            return;
        };
        self.end_streams(|stream| stream.step == *step && stream.task == *task);
        for trailer in trailers {
            self.job_text(task, trailer);
        }
        self.steps.retain(|s| s.step != *step || s.task != *task);
        let time = figures::duration(*duration_ms);
        let what = format!("{}{}{}", self.number(task, *step), first_line(name), describe::attempt(*attempt));
        let text = match outcome {
            StepOutcome::Success => format!("{} {what}, {time}", self.palette.good("✓")),
            StepOutcome::Canceled => format!("{} {what}, canceled after {time}", self.palette.faint("○")),
            _ => {
                let place = origin.as_deref().map_or_else(String::new, |origin| format!(" ({})", clean(origin)));
                let rerun = if *will_rerun { ", another attempt follows" } else { "" };
                let text = format!("✗ {what}, {time}: {}{place}{rerun}", describe::outcome(outcome));
                self.palette.bad(&text)
            }
        };
        self.task_says(task, &text);
    }

    fn step_skipped(&mut self, task: &TaskRef, step: usize, name: &str, why: &SkipReason) {
        let text =
            format!("○ {}{}, skipped: {}", self.number(task, step), first_line(name), describe::skip_reason(why));
        self.task_says(task, &self.palette.faint(&text));
    }

    fn warning(&mut self, task: Option<&TaskRef>, message: &str) {
        let text = self.palette.caution(&format!("! {}", clean(message)));
        match task {
            Some(task) => self.task_says(task, &text),
            None => self.say(&text),
        }
    }

    /// The job's own line says the rest, but one of several nodes, and what only the task knows.
    fn task_ended(&mut self, task: &TaskRef, verdict: &Verdict, duration_ms: u64) {
        self.end_streams(|stream| stream.task == *task);
        self.steps.retain(|step| step.task != *task);
        self.progress.retain(|progress| progress.task != *task);
        if task.node_total > 1 || matches!(verdict, Verdict::TimedOut { .. }) {
            let text = format!("{}, {}", describe::verdict(verdict), figures::duration(duration_ms));
            self.task_says(task, &text);
        }
    }

    fn task_removed(&mut self, task: &TaskRef, leftovers: &[String]) {
        for leftover in leftovers {
            self.task_says(task, &self.palette.caution(&format!("! left behind: {}", clean(leftover))));
        }
    }

    fn job_ended(&mut self, job: &JobRef, end: &JobEnd) {
        let (mark, words) = (summary::mark(self.palette, end), summary::end_in_words(job, end));
        let text = match end {
            JobEnd::Ran { duration_ms, .. } => format!("{mark} {words}, {}", figures::duration(*duration_ms)),
            _ => format!("{mark} {words}"),
        };
        self.job_says(job, &text);
    }

    fn run_ended(&mut self, ended: &Summary) {
        self.finish();
        let text = summary::render(ended, &self.labels, self.palette, self.width);
        self.out.push(b'\n');
        self.out.extend_from_slice(text.as_bytes());
    }

    fn end_streams(&mut self, ends: impl Fn(&Stream) -> bool) {
        for stream in self.streams.iter_mut().filter(|stream| ends(stream)) {
            stream.lines.finish(|line| write_line(&mut self.out, &stream.prefixes, &line));
        }
        self.streams.retain(|stream| !ends(stream));
    }

    /// Text that belongs to the step's output: headers and trailers.
    fn job_text(&mut self, task: &TaskRef, text: &str) {
        let mut shown = String::new();
        Sanitizer::new(false).push(text.as_bytes(), &mut shown);
        let prefix = self.prefix(&self.labels.task(task), self.labels.index(&task.job), "│");
        for line in shown.lines() {
            let line = self.palette.faint(&line.replace('\r', ""));
            self.line(&prefix, &line);
        }
    }

    fn task_says(&mut self, task: &TaskRef, text: &str) {
        let prefix = self.prefix(&self.labels.task(task), self.labels.index(&task.job), "├");
        self.line(&prefix, text);
    }

    fn job_says(&mut self, job: &JobRef, text: &str) {
        let prefix = self.prefix(&self.labels.job(job), self.labels.index(job), "├");
        self.line(&prefix, text);
    }

    fn say(&mut self, text: &str) {
        let prefix = format!("{} ├ ", text::pad(NAVVY, self.labels.columns()));
        self.line(&self.palette.faint(&prefix), text);
    }

    /// `2/3 `: the step among those of its job.
    fn number(&self, task: &TaskRef, step: usize) -> String {
        describe::number(step, self.totals.get(&task.task).copied())
    }

    fn prefix(&self, label: &str, index: usize, bar: &str) -> String {
        let label = text::pad(label, self.labels.columns());
        format!("{} ", self.palette.nth(index, &format!("{label} {bar}")))
    }

    fn line(&mut self, prefix: &str, text: &str) {
        for part in [prefix, text, "\n"] {
            self.out.extend_from_slice(part.as_bytes());
        }
    }
}

fn write_line(out: &mut Vec<u8>, prefixes: &[String; 2], line: &Line<'_>) {
    let [whole, rest] = prefixes;
    let prefix = if line.continued { rest } else { whole };
    for part in [prefix.as_str(), line.text, "\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use navvy_job::exit_code;
    use navvy_job::outcome::{CancelReason, JobStatus};

    use super::super::scene::{PLAIN, Scene, failed, failed_at, job, node, passed, ran, task};
    use super::*;

    fn shown(scene: &Scene) -> String {
        shown_with(&PLAIN, scene)
    }

    /// The run as written, ticked between any two events.
    fn shown_with(options: &Options, scene: &Scene) -> String {
        let mut out = Vec::new();
        let mut plain = Plain::new(options, &mut out);
        for stamped in &scene.events {
            plain.tick(stamped.at_ms).unwrap();
            plain.handle(stamped).unwrap();
        }
        plain.tick(scene.now_ms).unwrap();
        plain.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_run_that_passes() {
        let mut scene = Scene::new(&["build"]);
        let build = task("build");
        scene.start(&build, &["Checkout code", "Unit tests"]);
        scene.add(Event::Report { task: build.clone(), line: "Image: navvy/base:bookworm, 3 days old".to_owned() });
        scene.step(&build, 1, "Unit tests").writes(&build, 1, "one\ntwo\n").after(1234);
        scene.ends(&build, 1, "Unit tests", StepOutcome::Success);
        scene.task_ends(&build, Verdict::Passed).job_ends("build", passed()).run_ends(exit_code::PASSED);
        insta::assert_snapshot!(shown(&scene), @r"
        navvy ├ .circleci/config.yml: 1 job, logs in /logs/1
        build ├ ▸ Spin up: navvy/base:bookworm, medium (2 CPUs, 4 GiB)
        build ├   Image: navvy/base:bookworm, 3 days old
        build ├ ▸ 1/2 Unit tests
        build │ #!/bin/bash -eo pipefail
        build │ make test
        build │ one
        build │ two
        build ├ ✓ 1/2 Unit tests, 1.2s
        build ├ ✓ passed, 2.5s

        ✓ build  passed  2.5s

        Logs: /logs/1
        ✓ The job passed · 3.6s
        ");
    }

    #[test]
    fn a_failure_has_its_trailers_and_its_place() {
        let mut scene = Scene::new(&["build", "deploy"]);
        let build = task("build");
        scene.start(&build, &["Unit tests", "Upload"]).step(&build, 1, "Unit tests");
        scene.writes(&build, 1, "FAIL: test_cart").ends(&build, 1, "Unit tests", StepOutcome::ExitCode { code: 1 });
        scene.add(Event::StepSkipped {
            task: build.clone(),
            step: 2,
            name: "Upload".to_owned(),
            why: SkipReason::JobFailed,
        });
        scene.task_ends(&build, failed_at(1, "Unit tests")).job_ends("build", failed("Unit tests"));
        scene.job_ends("deploy", JobEnd::NotRun { why: "requires build, which failed".to_owned() });
        scene.run_ends(exit_code::JOB_FAILED);
        insta::assert_snapshot!(shown(&scene), @r"
        navvy  ├ .circleci/config.yml: 2 jobs, logs in /logs/1
        build  ├ ▸ Spin up: navvy/base:bookworm, medium (2 CPUs, 4 GiB)
        build  ├ ▸ 1/2 Unit tests
        build  │ #!/bin/bash -eo pipefail
        build  │ make test
        build  │ FAIL: test_cart
        build  │ Exited with code exit status 1
        build  │ CircleCI received exit code 1
        build  ├ ✗ 1/2 Unit tests, 1.2s: exit code 1 (config.yml:12)
        build  ├ ○ 2/2 Upload, skipped: an earlier step failed
        build  ├ ✗ failed: Unit tests, 2.5s
        deploy ├ ○ not run: requires build, which failed

        ✗ build   failed   2.5s  Unit tests
            /logs/1/build/2.log
        ○ deploy  not run        requires build, which failed

        Logs: /logs/1
        ✗ 1 of 2 jobs failed: build; 1 did not run · 3.6s
        ");
    }

    #[test]
    fn nodes_of_a_parallel_job_never_mix_within_a_line() {
        let mut scene = Scene::new(&["test", "x"]);
        let (one, two) = (node("test", 0, 2), node("test", 1, 2));
        scene.start(&one, &["Run"]).start(&two, &["Run"]).step(&one, 1, "Run").step(&two, 1, "Run");
        scene.writes(&one, 1, "first ").writes(&two, 1, "\x1b[31msecond\n").writes(&one, 1, "node\n");
        scene.ends(&one, 1, "Run", StepOutcome::Success).task_ends(&one, Verdict::Passed);
        scene.ends(&two, 1, "Run", StepOutcome::Signal { signal: 9 }).task_ends(&two, failed_at(1, "Run"));
        insta::assert_snapshot!(shown(&scene), @r"
        navvy ├ .circleci/config.yml: 2 jobs, logs in /logs/1
        test[1/2] ├ ▸ Spin up: navvy/base:bookworm, medium (2 CPUs, 4 GiB)
        test[2/2] ├ ▸ Spin up: navvy/base:bookworm, medium (2 CPUs, 4 GiB)
        test[1/2] ├ ▸ 1/1 Run
        test[1/2] │ #!/bin/bash -eo pipefail
        test[1/2] │ make test
        test[2/2] ├ ▸ 1/1 Run
        test[2/2] │ #!/bin/bash -eo pipefail
        test[2/2] │ make test
        test[2/2] │ second
        test[1/2] │ first node
        test[1/2] ├ ✓ 1/1 Run, 1.2s
        test[1/2] ├ passed, 2.5s
        test[2/2] ├ ✗ 1/1 Run, 1.2s: killed by SIGKILL (config.yml:12)
        test[2/2] ├ failed at step 1, Run, 2.5s
        ");
    }

    #[test]
    fn unfinished_lines_are_shown_and_their_rest_is_marked() {
        let mut scene = Scene::new(&["build"]);
        let build = task("build");
        scene.start(&build, &["Wait"]).step(&build, 1, "Wait");
        scene.writes(&build, 1, "waiting").after(100).writes(&build, 1, "...").after(200);
        scene.add(Event::TaskState { task: build.clone(), state: navvy_job::state::TaskState::Running });
        scene.writes(&build, 1, " done\nnext\n").ends(&build, 1, "Wait", StepOutcome::Canceled);
        insta::assert_snapshot!(shown(&scene), @r"
        navvy ├ .circleci/config.yml: 1 job, logs in /logs/1
        build ├ ▸ Spin up: navvy/base:bookworm, medium (2 CPUs, 4 GiB)
        build ├ ▸ 1/1 Wait
        build │ #!/bin/bash -eo pipefail
        build │ make test
        build │ waiting...
        build ┊  done
        build │ next
        build ├ ○ 1/1 Wait, canceled after 1.2s
        ");
    }

    #[test]
    fn services_and_background_steps_have_their_names() {
        let mut scene = Scene::new(&["it"]);
        let it = task("it");
        scene.start(&it, &["server", "make\ntest"]).stream(&it, 0, "service:postgres", "ready\n");
        scene.background(&it, 1, "server").step(&it, 2, "make\ntest");
        scene.writes(&it, 1, "listening\n").writes(&it, 2, "ok\n");
        scene.ends(&it, 2, "make\ntest", StepOutcome::NoOutput { limit: Duration::from_secs(600) });
        insta::assert_snapshot!(shown(&scene), @r"
        navvy ├ .circleci/config.yml: 1 job, logs in /logs/1
        it    ├ ▸ Spin up: navvy/base:bookworm, medium (2 CPUs, 4 GiB)
        it    │ postgres: ready
        it    ├ ▸ 1/2 server, in the background
        it    │ #!/bin/bash -eo pipefail
        it    │ make test
        it    ├ ▸ 2/2 make …
        it    │ #!/bin/bash -eo pipefail
        it    │ make test
        it    │ server: listening
        it    │ ok
        it    ├ ✗ 2/2 make …, 1.2s: no output for 10m (config.yml:12)
        ");
    }

    #[test]
    fn what_waits_is_held_or_not_here_says_so() {
        let mut scene = Scene::new(&["hold", "deploy", "mac"]);
        scene.add(Event::JobWaiting { job: job("deploy"), why: "requires hold".to_owned() });
        scene.add(Event::ApprovalAsked { job: job("hold"), holds: vec!["deploy".to_owned()] });
        scene.add(Event::Warning { task: None, message: "context \x1b]0;x\x07aws is not here".to_owned() });
        scene.job_ends("mac", JobEnd::NotAvailable { needs: "a macOS host".to_owned() });
        scene.job_ends("hold", JobEnd::Unapproved { approval: "hold".to_owned() });
        scene.job_ends("deploy", JobEnd::Unapproved { approval: "hold".to_owned() });
        scene.run_ends(exit_code::INCOMPLETE);
        insta::assert_snapshot!(shown(&scene), @r"
        navvy  ├ .circleci/config.yml: 3 jobs, logs in /logs/1
        deploy ├ ○ waits: requires hold
        hold   ├ ? waits for approval; behind it: deploy
        navvy  ├ ! context aws is not here
        mac    ├ ○ not available here: needs a macOS host
        hold   ├ ? held: nobody approved it
        deploy ├ ? held: waits for approval hold

        ○ mac     not available here    needs a macOS host
        ? hold    held                  nobody approved it
        ? deploy  held                  waits for approval hold

        Held:
          - hold was not approved (--approve hold); behind it: deploy

        Logs: /logs/1
        ○ Nothing failed, but 3 of 3 jobs did not run: mac, hold, deploy · 3.6s
        ");
    }

    #[test]
    fn a_canceled_run() {
        let mut scene = Scene::new(&["build"]);
        let build = task("build");
        scene.start(&build, &["Sleep"]).step(&build, 1, "Sleep").after(1500);
        scene.ends(&build, 1, "Sleep", StepOutcome::Canceled);
        scene.task_ends(&build, Verdict::Canceled { reason: CancelReason::User });
        scene.job_ends("build", ran(JobStatus::Canceled, None)).run_ends(exit_code::CANCELED);
        insta::assert_snapshot!(shown(&scene), @r"
        navvy ├ .circleci/config.yml: 1 job, logs in /logs/1
        build ├ ▸ Spin up: navvy/base:bookworm, medium (2 CPUs, 4 GiB)
        build ├ ▸ 1/1 Sleep
        build │ #!/bin/bash -eo pipefail
        build │ make test
        build ├ ○ 1/1 Sleep, canceled after 1.2s
        build ├ ○ canceled, 2.5s

        ○ build  canceled  2.5s

        Logs: /logs/1
        ○ Canceled · 3.6s
        ");
    }

    #[test]
    fn removals_come_after_the_verdict_and_the_end_says_what_it_waits_for() {
        let mut scene = Scene::new(&["build", "test"]);
        let (build, one, two) = (task("build"), node("test", 0, 2), node("test", 1, 2));
        scene.start(&build, &["Make"]).task_ends(&build, Verdict::Passed).job_ends("build", passed());
        scene.add(Event::TaskState { task: build.clone(), state: navvy_job::state::TaskState::Releasing });
        scene.add(Event::RemovalAwaited { tasks: vec![build.clone(), one, two] });
        scene.add(Event::StopAsked { at_once: false, jobs_over: true });
        let leftovers = vec!["container navvy-1-primary (device or resource busy)".to_owned()];
        scene.add(Event::TaskRemoved { task: build.clone(), duration_ms: 24_000, leftovers });
        scene.add(Event::RemovalAwaited { tasks: vec![build] });
        insta::assert_snapshot!(shown(&scene), @r"
        navvy ├ .circleci/config.yml: 2 jobs, logs in /logs/1
        build ├ ▸ Spin up: navvy/base:bookworm, medium (2 CPUs, 4 GiB)
        build ├ ✓ passed, 2.5s
        navvy ├   removing the environments of build, test[1/2], test[2/2]
        navvy ├ ! every job has its verdict already: Navvy ends as soon as their environments are removed
        build ├ ! left behind: container navvy-1-primary (device or resource busy)
        navvy ├   removing the environment of build
        ");
    }

    #[test]
    fn a_pull_tells_how_far_it_is_now_and_then() {
        let mut scene = Scene::new(&["build"]);
        let build = task("build");
        for tenth in 0..=100 {
            let what = "pulling cimg/node:20".to_owned();
            scene.add(Event::Progress { task: build.clone(), what, done: tenth << 20, total: Some(100 << 20) });
            scene.after(100);
        }
        insta::assert_snapshot!(shown(&scene), @r"
        navvy ├ .circleci/config.yml: 1 job, logs in /logs/1
        build ├   pulling cimg/node:20
        build ├   pulling cimg/node:20: 50 MiB of 100 MiB
        build ├   pulling cimg/node:20: 100 MiB of 100 MiB
        ");
    }

    #[test]
    fn with_colors_every_line_ends_without_one() {
        let mut scene = Scene::new(&["build"]);
        let build = task("build");
        scene.step(&build, 1, "Run").writes(&build, 1, "\x1b[31mred\nstill\x1b[2J\x1b]0;x\x07\n");
        let text = shown_with(&Options { color: true, ..PLAIN }, &scene);
        insta::assert_snapshot!(text.replace('\u{1b}', "^"), @r"
        ^[2mnavvy ├ ^[0m.circleci/config.yml: 1 job, logs in /logs/1
        ^[36mbuild ├^[0m ^[1m▸ 1 Run^[0m
        ^[36mbuild │^[0m ^[2m#!/bin/bash -eo pipefail^[0m
        ^[36mbuild │^[0m ^[2mmake test^[0m
        ^[36mbuild │^[0m ^[31mred^[0m
        ^[36mbuild │^[0m ^[31mstill^[0m
        ");
    }

    #[test]
    fn a_flood_of_lines_is_all_there() {
        let mut scene = Scene::new(&["build"]);
        let build = task("build");
        scene.step(&build, 1, "Flood");
        let text: String = (0..10_000).map(|n| format!("line {n}\n")).collect();
        for chunk in text.as_bytes().chunks(4096) {
            scene.writes(&build, 1, chunk);
        }
        let shown = shown(&scene);
        assert_eq!(shown.lines().filter(|line| line.starts_with("build │ line ")).count(), 10_000);
        assert!(shown.contains("\nbuild │ line 9999\n"));
    }

    /// Takes a few bytes, then has no reader.
    struct Head(usize);

    impl Write for Head {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_who_leaves_is_told_once() {
        let mut scene = Scene::new(&["build"]);
        let build = task("build");
        scene.step(&build, 1, "Run");
        for _ in 0..10 {
            scene.writes(&build, 1, "some text\n");
        }
        let mut plain = Plain::new(&PLAIN, Head(200));
        let errors: Vec<ViewError> = scene.events.iter().filter_map(|event| plain.handle(event).err()).collect();
        assert!(matches!(errors.as_slice(), [ViewError::BrokenPipe]), "{errors:?}");
        plain.finish().unwrap();
    }
}
