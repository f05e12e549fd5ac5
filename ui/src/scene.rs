//! Made-up runs for the tests.

use std::collections::{BTreeMap, BTreeSet};

use navvy_job::compiled::{Container, Executor, Job, Origin};
pub use navvy_job::event::examples::{job, node};
use navvy_job::event::{Event, JobEnd, JobSummary, Stamped, Summary, TaskRef};
use navvy_job::outcome::{JobStatus, StepOutcome, Verdict};
use navvy_job::pipeline::{Pipeline, Requirement, Selection, Workflow, WorkflowJob, WorkflowJobKind};
use navvy_job::resource::Size;

use super::Options;

pub const PLAIN: Options = Options { color: false, size: || None, show_output: false };

/// Writes down events one after another.
pub struct Scene {
    pub events: Vec<Stamped>,
    pub now_ms: u64,
    ended: Vec<JobSummary>,
}

pub fn task(name: &str) -> TaskRef {
    node(name, 0, 1)
}

impl Scene {
    pub fn new(jobs: &[&str]) -> Self {
        let mut scene = Self { events: Vec::new(), now_ms: 0, ended: Vec::new() };
        scene.add(Event::RunStarted {
            logs: "/logs/1".into(),
            config: ".circleci/config.yml".into(),
            jobs: jobs.iter().map(|name| job(name)).collect(),
        });
        scene
    }

    pub fn add(&mut self, event: Event) -> &mut Self {
        let time = "2026-01-02T03:04:05Z".to_owned();
        self.events.push(Stamped { at_ms: self.now_ms, time, event });
        self
    }

    pub fn after(&mut self, ms: u64) -> &mut Self {
        self.now_ms += ms;
        self
    }

    pub fn start(&mut self, task: &TaskRef, steps: &[&str]) -> &mut Self {
        self.add(Event::TaskStarted {
            task: task.clone(),
            image: Some("navvy/base:bookworm".to_owned()),
            resource_class: "medium".to_owned(),
            size: Size::new(2, 4),
            steps: steps.iter().map(|step| (*step).to_owned()).collect(),
        })
    }

    pub fn step(&mut self, task: &TaskRef, step: usize, name: &str) -> &mut Self {
        self.step_of(task, step, name, false)
    }

    pub fn background(&mut self, task: &TaskRef, step: usize, name: &str) -> &mut Self {
        self.step_of(task, step, name, true)
    }

    fn step_of(&mut self, task: &TaskRef, step: usize, name: &str, background: bool) -> &mut Self {
        self.add(Event::StepStarted {
            task: task.clone(),
            step,
            attempt: 1,
            name: name.to_owned(),
            kind: "run".to_owned(),
            background,
            header: Some("#!/bin/bash -eo pipefail\nmake test".to_owned()),
            log: format!("/logs/1/{}/{step}.log", task.job.job).into(),
        })
    }

    pub fn writes(&mut self, task: &TaskRef, step: usize, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.stream(task, step, "stdout", bytes)
    }

    pub fn stream(&mut self, task: &TaskRef, step: usize, stream: &str, bytes: impl AsRef<[u8]>) -> &mut Self {
        let bytes = bytes.as_ref().to_vec();
        self.add(Event::Output { task: task.clone(), step, stream: stream.to_owned(), bytes })
    }

    pub fn ends(&mut self, task: &TaskRef, step: usize, name: &str, outcome: StepOutcome) -> &mut Self {
        let trailers = match outcome {
            StepOutcome::ExitCode { code } => {
                vec![format!("Exited with code exit status {code}"), format!("CircleCI received exit code {code}")]
            }
            _ => Vec::new(),
        };
        self.add(Event::StepEnded {
            task: task.clone(),
            step,
            attempt: 1,
            name: name.to_owned(),
            outcome,
            duration_ms: 1234,
            trailers,
            bytes: 0,
            sha256: String::new(),
            origin: Some("config.yml:12".to_owned()),
            will_rerun: false,
        })
    }

    pub fn task_ends(&mut self, task: &TaskRef, verdict: Verdict) -> &mut Self {
        self.add(Event::TaskEnded { task: task.clone(), verdict, duration_ms: 2500, leftovers: Vec::new() })
    }

    pub fn job_ends(&mut self, name: &str, end: JobEnd) -> &mut Self {
        let log =
            matches!(end, JobEnd::Ran { failed_step: Some(_), .. }).then(|| format!("/logs/1/{name}/2.log").into());
        self.ended.push(JobSummary {
            other_logs: vec![],
            job: job(name),
            end: end.clone(),
            skipped_steps: 0,
            skipped: BTreeMap::new(),
            warnings: 0,
            log,
            held: vec![],
        });
        self.add(Event::JobEnded { job: job(name), end })
    }

    /// The run's end as it would follow from the jobs so far.
    pub fn summary(&self, exit_code: u8) -> Summary {
        Summary {
            exit_code,
            duration_ms: 3600,
            jobs: self.ended.clone(),
            logs: "/logs/1".into(),
            fidelity: Vec::new(),
            warnings: Vec::new(),
            leftovers: Vec::new(),
            contexts_given: Vec::new(),
            env_files_given: Vec::new(),
            secrets: None,
        }
    }

    pub fn run_ends(&mut self, exit_code: u8) -> &mut Self {
        let summary = self.summary(exit_code);
        self.add(Event::RunEnded(Box::new(summary)))
    }
}

pub fn passed() -> JobEnd {
    ran(JobStatus::Success, None)
}

pub fn failed(step: &str) -> JobEnd {
    ran(JobStatus::Failed, Some(step))
}

pub fn ran(status: JobStatus, step: Option<&str>) -> JobEnd {
    JobEnd::Ran { status, duration_ms: 2500, failed_step: step.map(str::to_owned), infra: None }
}

pub fn failed_at(step: usize, name: &str) -> Verdict {
    Verdict::Failed { step, name: name.to_owned() }
}

/// A pipeline with a job of every kind.
pub fn pipeline() -> Pipeline {
    let docker = |images: &[&str]| Executor::Docker {
        containers: images
            .iter()
            .map(|image| Container { image: (*image).to_owned(), ..Container::default() })
            .collect(),
    };
    let base = "navvy/base:bookworm";
    let mut jobs = vec![
        build("lint", &[], docker(&[base])),
        build("unit-eur", &[], docker(&[base])),
        build("integration", &["lint", "unit-eur"], docker(&[base, "navvy/postgres"])),
        build("mac", &[], Executor::Macos { xcode: Some("15.4".to_owned()) }),
        build("vm", &["integration"], Executor::Machine { image: None, docker_layer_caching: false }),
        workflow_job("hold", &["integration"], WorkflowJobKind::Approval),
        workflow_job("release", &["hold"], WorkflowJobKind::Unavailable { what: "a release job".to_owned() }),
        workflow_job("notify \"all\"", &["hold"], WorkflowJobKind::NoOp),
        build("docs", &[], docker(&[base])),
    ];
    if let WorkflowJobKind::Build { job } = &mut jobs[2].kind {
        job.parallelism = 4;
        job.resource_class = Some("large".to_owned());
    }
    jobs[6].contexts = vec!["aws".to_owned()];
    jobs[7].requires[0].statuses = JobStatus::TERMINAL.into();
    jobs[8].selected = Selection::Left { reason: "its branch filter does not match branch `main`".to_owned() };
    let nightly = vec![build("slow", &[], docker(&[base]))];
    let left = Selection::Left { reason: "it has a schedule".to_owned() };
    Pipeline {
        setup: false,
        workflows: vec![workflow("shop", Selection::Selected, jobs), workflow("nightly", left, nightly)],
    }
}

fn workflow(name: &str, selected: Selection, jobs: Vec<WorkflowJob>) -> Workflow {
    Workflow {
        name: name.to_owned(),
        selected,
        jobs,
        schedules: Vec::new(),
        max_auto_reruns: 0,
        flawed: false,
        origin: Origin::default(),
    }
}

fn build(name: &str, requires: &[&str], executor: Executor) -> WorkflowJob {
    let job = Job {
        executor,
        environment: Vec::new(),
        shell: None,
        working_directory: "~/project".to_owned(),
        parallelism: 1,
        resource_class: None,
        steps: Vec::new(),
    };
    workflow_job(name, requires, WorkflowJobKind::Build { job: Box::new(job) })
}

fn workflow_job(name: &str, requires: &[&str], kind: WorkflowJobKind) -> WorkflowJob {
    let statuses = BTreeSet::from([JobStatus::Success]);
    WorkflowJob {
        name: name.to_owned(),
        definition: name.to_owned(),
        kind,
        matrix: BTreeMap::new(),
        alias: None,
        requires: requires
            .iter()
            .map(|job| Requirement { job: (*job).to_owned(), statuses: statuses.clone() })
            .collect(),
        selected: Selection::Selected,
        contexts: Vec::new(),
        serial_group: None,
        origin: Origin::default(),
    }
}

/// A terminal that knows what the live view uses: CR, LF, cursor up and down, clear.
pub struct Screen {
    columns: usize,
    /// How often it was cleared from its first position on.
    cleared_whole: usize,
    rows: Vec<Vec<char>>,
    row: usize,
    column: usize,
}

impl Screen {
    pub fn new(columns: usize) -> Self {
        Self { columns, cleared_whole: 0, rows: vec![Vec::new()], row: 0, column: 0 }
    }

    pub fn write(mut self, bytes: &[u8]) -> Self {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            match character {
                '\r' => self.column = 0,
                '\n' => self.down(),
                '\u{1b}' => self.sequence(&mut characters),
                other => self.put(other),
            }
        }
        self
    }

    pub fn cleared_whole(&self) -> usize {
        self.cleared_whole
    }

    pub fn text(&self) -> String {
        let lines: Vec<String> = self.rows.iter().map(|row| row.iter().collect::<String>()).collect();
        lines.iter().map(|line| line.trim_end()).collect::<Vec<&str>>().join("\n").trim_end().to_owned()
    }

    fn sequence(&mut self, characters: &mut std::str::Chars<'_>) {
        assert_eq!(characters.next(), Some('['));
        let rest = characters.as_str();
        let end = rest.find(|c: char| c.is_ascii_alphabetic()).unwrap();
        let number = rest[..end].parse().unwrap_or(0);
        match characters.nth(end) {
            Some('A') => self.row = self.row.checked_sub(number).unwrap(),
            Some('B') => self.row = (self.row + number).min(self.rows.len() - 1),
            Some('K') => self.rows[self.row].truncate(self.column),
            Some('J') => {
                self.cleared_whole += usize::from((self.row, self.column) == (0, 0));
                self.rows[self.row].truncate(self.column);
                self.rows.truncate(self.row + 1);
            }
            Some('m') => {}
            other => panic!("{other:?}"),
        }
    }

    fn put(&mut self, character: char) {
        if self.column >= self.columns {
            self.down();
        }
        let row = &mut self.rows[self.row];
        row.resize(row.len().max(self.column + 1), ' ');
        row[self.column] = character;
        self.column += 1;
    }

    fn down(&mut self) {
        (self.row, self.column) = (self.row + 1, 0);
        if self.row >= self.rows.len() {
            self.rows.push(Vec::new());
        }
    }
}
