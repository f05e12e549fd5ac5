use std::collections::BTreeSet;

use super::*;
use crate::made::{OK, job, workflow};
use crate::pipeline::{WorkflowJob, WorkflowJobKind};
use crate::selection::Chosen;

const ANY: &[JobStatus] = &JobStatus::TERMINAL;

/// A walk, and its effects in words.
struct Told {
    walk: Walk,
    finish: Option<Finish>,
}

impl Told {
    fn new(terms: Terms, jobs: Vec<(WorkflowJob, Work)>) -> Self {
        Self { walk: Walk::new(terms, vec![part("w", jobs)]), finish: None }
    }

    fn begin(&mut self) -> Vec<String> {
        let effects = self.walk.begin();
        self.words(effects)
    }

    fn handle(&mut self, happening: Happening) -> Vec<String> {
        let effects = self.walk.handle(happening);
        self.words(effects)
    }

    fn words(&mut self, effects: Vec<Effect>) -> Vec<String> {
        effects.into_iter().map(|effect| self.word(effect)).collect()
    }

    fn word(&mut self, effect: Effect) -> String {
        let name = |job| self.walk.reference(job).job;
        match effect {
            Effect::Start { job, tasks } => format!("start {} x{tasks}", name(job)),
            Effect::GiveUp { task } => format!("give up {}.{}", name(task.job), task.node),
            Effect::Ask { job, holds } => format!("ask {} for {}", name(job), holds.join(", ")),
            Effect::Tell { job, end } => format!("{} {}", job.job, end_in_words(&end)),
            Effect::Continue { task } => format!("continue with {}.{}", name(task.job), task.node),
            Effect::ContinuedBefore { job } => format!("{} comes too late", name(job)),
            Effect::Finish(finish) => {
                let text = format!("finish {:?}", finish.end);
                self.finish = Some(finish);
                text
            }
        }
    }

    fn started(&mut self, name: &str, node: u32) -> Vec<String> {
        let task = self.task(name, node);
        self.handle(Happening::TaskStarted { task })
    }

    fn ended(&mut self, name: &str, node: u32, verdict: Verdict) -> Vec<String> {
        self.ended_as(name, node, TaskEnd::new(verdict))
    }

    fn ended_as(&mut self, name: &str, node: u32, end: TaskEnd) -> Vec<String> {
        let task = self.task(name, node);
        self.handle(Happening::TaskEnded { task, end: Box::new(end) })
    }

    fn answered(&mut self, name: &str, approved: bool) -> Vec<String> {
        let job = self.task(name, 0).job;
        self.handle(Happening::Answered { job, approved })
    }

    fn stop(&mut self) -> Vec<String> {
        self.handle(Happening::Stop { reason: CancelReason::User })
    }

    /// The first job of this name.
    fn task(&self, name: &str, node: u32) -> TaskKey {
        let key = |workflow: usize| self.walk.parts[workflow].key(workflow, name);
        TaskKey { job: (0..self.walk.parts.len()).find_map(key).unwrap(), node }
    }
}

fn end_in_words(end: &JobEnd) -> String {
    match end {
        JobEnd::Ran { status, .. } => format!("ran: {status}"),
        JobEnd::NotAvailable { needs } => format!("needs {needs}"),
        JobEnd::Unapproved { approval } => format!("held by {approval}"),
        JobEnd::NotRun { why } => format!("not run: {why}"),
        JobEnd::Held { before } => format!("paused before {before}"),
        JobEnd::Passed { how } => format!("passed: {how}"),
    }
}

fn part(name: &str, jobs: Vec<(WorkflowJob, Work)>) -> Part {
    let (jobs, work): (Vec<WorkflowJob>, Vec<Work>) = jobs.into_iter().unzip();
    let chosen = Chosen { workflow: workflow(name, jobs), only: None, notes: vec![] };
    Part { work, ..Part::new(&chosen, |_| Ok(1)) }
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn failed() -> Verdict {
    Verdict::Failed { step: 1, name: "Test".into() }
}

#[test]
fn a_job_ends_with_the_last_of_its_tasks_and_then_others_start() {
    let mut told =
        Told::new(Terms::default(), vec![(job("a", &[]), Work::Tasks(2)), (job("b", &[("a", OK)]), Work::Tasks(1))]);
    assert_eq!(told.begin(), ["start a x2"]);
    assert!(told.started("a", 0).is_empty() && told.started("a", 1).is_empty());
    assert!(told.ended("a", 1, Verdict::Passed).is_empty());
    assert_eq!(told.ended("a", 0, Verdict::Passed), ["a ran: success", "start b x1"]);
    assert_eq!(told.ended("b", 0, failed()), ["b ran: failed", "finish JobFailed"]);
    assert_eq!(told.finish.unwrap().jobs.len(), 2);
}

#[test]
fn what_can_never_run_is_told_as_soon_as_that_is_known() {
    let mut told = Told::new(
        Terms::default(),
        vec![
            (job("a", &[]), Work::Tasks(1)),
            (job("b", &[("a", OK)]), Work::Tasks(1)),
            (job("c", &[("b", OK)]), Work::Nothing),
            (job("mail", &[("c", ANY)]), Work::Tasks(1)),
        ],
    );
    told.begin();
    let ended = told.ended("a", 0, failed());
    assert_eq!(ended, ["a ran: failed", "b not run: a ended failed", "c not run: a ended failed", "start mail x1"]);
    assert_eq!(told.ended("mail", 0, Verdict::Passed), ["mail ran: success", "finish JobFailed"]);
}

#[test]
fn no_ops_and_what_is_assumed_pass_at_once() {
    let terms = Terms { assume_passed: names(&["build"]), ..Terms::default() };
    let jobs = vec![
        (job("last", &[("mid", OK)]), Work::Nothing),
        (job("mid", &[("build", OK)]), Work::Nothing),
        (job("build", &[]), Work::Unavailable { needs: "macOS".into() }),
    ];
    let passed = ["build passed: assumed by --assume", "mid passed: a no-op", "last passed: a no-op", "finish Passed"];
    assert_eq!(Told::new(terms, jobs).begin(), passed);
}

#[test]
fn what_stands_behind_an_executor_that_is_not_here_waits_for_it() {
    let jobs = vec![
        (job("mac", &[]), Work::Unavailable { needs: "macOS".into() }),
        (job("sign", &[("mac", ANY)]), Work::Tasks(1)),
        (job("unit", &[]), Work::Tasks(1)),
    ];
    let mut told = Told::new(Terms::default(), jobs);
    assert_eq!(told.begin(), ["mac needs macOS", "start unit x1"]);
    let ended = told.ended("unit", 0, Verdict::Passed);
    assert_eq!(ended, ["unit ran: success", "sign not run: waits for mac", "finish Incomplete"]);
    let order: Vec<String> = told.finish.unwrap().jobs.into_iter().map(|summary| summary.job.job).collect();
    assert_eq!(order, ["mac", "sign", "unit"]);
}

fn approvals(terms: Terms) -> Told {
    Told::new(
        terms,
        vec![
            (job("first", &[]), Work::Approval),
            (job("second", &[]), Work::Approval),
            (job("deploy", &[("first", OK)]), Work::Nothing),
            (job("notify", &[("second", OK)]), Work::Nothing),
        ],
    )
}

#[test]
fn approvals_are_given_by_name_or_all_and_the_others_are_held_where_nobody_answers() {
    let asked = ["ask first for deploy", "first held by first"];
    let by_name = Terms { approved: names(&["second"]), ..Terms::default() };
    assert_eq!(
        approvals(by_name).begin(),
        [
            &asked[..],
            &["second passed: approved by --approve", "notify passed: a no-op"],
            &["deploy not run: waits for first", "finish Incomplete"],
        ]
        .concat()
    );
    let all = approvals(Terms { approve_all: true, ..Terms::default() }).begin();
    assert_eq!(all.last().unwrap(), "finish Passed");
}

#[test]
fn a_person_answers_in_any_order_and_once() {
    let mut told = approvals(Terms { is_asked: true, ..Terms::default() });
    assert_eq!(told.begin(), ["ask first for deploy", "ask second for notify"]);
    assert_eq!(told.answered("second", true), ["second passed: approved by you", "notify passed: a no-op"]);
    assert!(told.answered("second", false).is_empty(), "it has its answer");
    assert!(told.answered("deploy", true).is_empty(), "it is no approval");
    assert_eq!(told.walk.oldest_asked(), Some(told.task("first", 0).job));
    assert_eq!(
        told.answered("first", false),
        ["first held by first", "deploy not run: waits for first", "finish Incomplete"]
    );
}

#[test]
fn when_nobody_answers_any_more_what_was_asked_and_what_would_be_is_held() {
    let jobs = vec![
        (job("first", &[]), Work::Approval),
        (job("unit", &[]), Work::Tasks(1)),
        (job("later", &[("unit", OK)]), Work::Approval),
    ];
    let mut told = Told::new(Terms { is_asked: true, ..Terms::default() }, jobs);
    assert_eq!(told.begin(), ["ask first for ", "start unit x1"]);
    assert_eq!(told.handle(Happening::AnswersOver), ["first held by first"]);
    assert_eq!(
        told.ended("unit", 0, Verdict::Passed),
        ["unit ran: success", "ask later for ", "later held by later", "finish Incomplete"]
    );
}

#[test]
fn a_stop_gives_up_what_waits_and_lets_what_runs_end() {
    let jobs = vec![
        (job("a", &[]), Work::Tasks(2)),
        (job("b", &[]), Work::Tasks(1)),
        (job("c", &[("a", ANY)]), Work::Tasks(1)),
        (job("hold", &[]), Work::Approval),
    ];
    let mut told = Told::new(Terms { is_asked: true, ..Terms::default() }, jobs);
    told.begin();
    told.started("a", 0);
    assert_eq!(told.stop(), ["give up a.1", "give up b.0", "b ran: canceled"]);
    assert!(told.stop().is_empty(), "once is enough");
    assert_eq!(
        told.ended("a", 0, Verdict::Passed),
        ["a ran: canceled", "c not run: the run was canceled", "hold not run: the run was canceled", "finish Canceled"]
    );
    assert!(told.ended("b", 0, Verdict::Passed).is_empty() && told.begin().is_empty(), "it is over");
}

#[test]
fn a_stop_before_the_beginning_starts_nothing() {
    let mut told = Told::new(Terms::default(), vec![(job("a", &[]), Work::Nothing), (job("b", &[]), Work::Tasks(1))]);
    assert_eq!(told.stop(), ["a not run: the run was canceled", "b not run: the run was canceled", "finish Canceled"]);
    assert!(told.begin().is_empty());
}

#[test]
fn what_is_told_twice_counts_once() {
    let mut told = Told::new(Terms::default(), vec![(job("a", &[]), Work::Tasks(2))]);
    told.begin();
    for _ in 0..2 {
        assert!(told.started("a", 0).is_empty());
        assert!(told.ended("a", 0, Verdict::Passed).is_empty());
    }
    assert!(told.ended("a", 2, Verdict::Passed).is_empty(), "it has no such node");
    assert_eq!(told.ended("a", 1, Verdict::Passed), ["a ran: success", "finish Passed"]);
}

fn continues() -> TaskEnd {
    TaskEnd { continues: true, ..TaskEnd::new(Verdict::Passed) }
}

fn setup() -> Told {
    let mut told = Told::new(Terms::default(), vec![(job("setup", &[]), Work::Tasks(3))]);
    told.begin();
    told.ended_as("setup", 1, continues());
    told.ended("setup", 0, Verdict::Passed);
    told
}

#[test]
fn a_continuation_joins_and_there_is_no_second() {
    let mut told = setup();
    assert_eq!(told.ended_as("setup", 2, continues()), ["setup ran: success", "continue with setup.1"]);
    let parts = vec![part("w", vec![(job("build", &[]), Work::Tasks(1))])];
    assert_eq!(told.handle(Happening::Continued { parts: parts.clone() }), ["setup comes too late", "start build x1"]);
    assert!(told.handle(Happening::Continued { parts }).is_empty(), "none was asked for");
    assert_eq!(told.task("build", 0).job, JobKey { workflow: 1, job: 0 });
    assert_eq!(told.ended("build", 0, Verdict::Passed), ["build ran: success", "finish Passed"]);
}

#[test]
fn a_continuation_that_cannot_be_carried_out_leaves_room_for_another() {
    let mut told = setup();
    told.ended_as("setup", 2, continues());
    assert_eq!(told.handle(Happening::NotContinued), ["continue with setup.2"]);
    assert_eq!(told.handle(Happening::Continued { parts: vec![] }), ["finish Passed"]);
}

#[test]
fn a_pipeline_that_is_stopped_does_not_go_on() {
    let mut told = setup();
    told.started("setup", 2);
    assert!(told.stop().is_empty());
    assert_eq!(told.ended_as("setup", 2, continues()), ["setup ran: success", "finish Canceled"]);
}

#[test]
fn a_part_has_the_jobs_that_take_part_with_what_they_do() {
    let build = || WorkflowJobKind::Build {
        job: Box::new(crate::compiled::Job {
            executor: crate::compiled::Executor::Macos { xcode: None },
            environment: vec![],
            shell: None,
            working_directory: "~/project".into(),
            parallelism: 4,
            resource_class: None,
            steps: vec![],
        }),
    };
    let of = |name: &str, kind| WorkflowJob { kind, ..job(name, &[]) };
    let jobs = vec![
        of("left-out", build()),
        of("release", WorkflowJobKind::Unavailable { what: "`release`".into() }),
        of("build", build()),
        of("hold", WorkflowJobKind::Approval),
    ];
    let only = Some(names(&["release", "build", "hold"]));
    let chosen = Chosen { workflow: workflow("w", jobs), only, notes: vec![] };
    let part = Part::new(&chosen, |job| Ok(job.parallelism));
    let unavailable = Work::Unavailable { needs: "`release`".into() };
    assert_eq!(part.work, [unavailable, Work::Tasks(4), Work::Approval]);
    let part = Part::new(&chosen, |_| Err("macOS".to_owned()));
    assert_eq!(part.work[1], Work::Unavailable { needs: "macOS".into() });
}
