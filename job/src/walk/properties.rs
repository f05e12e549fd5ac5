//! Random workflows, and a caller to whom things happen in a random order.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::{Index, subsequence};

use super::*;
use crate::event::{HeldAt, HeldTask};
use crate::id::TaskId;
use crate::made::{job, workflow};
use crate::selection::Chosen;

/// A job: what it requires of earlier ones, and what it does.
#[derive(Debug, Clone)]
struct Shape {
    requires: Vec<(Index, Vec<JobStatus>)>,
    work: Work,
}

/// What comes of a task.
#[derive(Debug, Clone)]
struct Fate {
    verdict: Verdict,
    is_held: bool,
    cut_short: bool,
    continues: bool,
}

/// Everything that is left to chance.
#[derive(Debug, Clone)]
struct World {
    terms: Terms,
    workflows: Vec<Vec<Shape>>,
    /// What a continuation brings; without one none can be carried out.
    second: Option<Vec<Shape>>,
    fates: Vec<Fate>,
    /// `None` is an approval that is never answered.
    answers: Vec<Option<bool>>,
    /// Whether jobs stand in the file before those that they require.
    is_upside_down: bool,
}

fn works() -> impl Strategy<Value = Work> {
    prop_oneof![
        6 => (1u32..4).prop_map(Work::Tasks),
        2 => Just(Work::Approval),
        1 => Just(Work::Nothing),
        1 => Just(Work::Unavailable { needs: "a machine".into() }),
    ]
}

fn shapes() -> impl Strategy<Value = Vec<Shape>> {
    let statuses = subsequence(JobStatus::TERMINAL.to_vec(), 1..4)
        .prop_map(|some| some.into_iter().chain([JobStatus::Success]).collect());
    let statuses = prop_oneof![3 => Just(vec![JobStatus::Success]), 2 => statuses];
    let requires = prop::collection::vec((any::<Index>(), statuses), 0..3);
    prop::collection::vec((requires, works()).prop_map(|(requires, work)| Shape { requires, work }), 1..8)
}

fn fates(may_cancel: bool) -> impl Strategy<Value = Vec<Fate>> {
    let passed = (any::<bool>(), 0u8..4).prop_map(|(continues, held)| Fate {
        verdict: Verdict::Passed,
        is_held: held == 0,
        cut_short: false,
        continues,
    });
    let worse = move |verdict, cut_short| Fate {
        verdict,
        is_held: false,
        cut_short: cut_short && may_cancel,
        continues: false,
    };
    let failed = Verdict::Failed { step: 1, name: "Test".into() };
    let canceled = Verdict::Canceled { reason: CancelReason::User };
    let bad =
        vec![Verdict::Infra { fault: "a fault".into() }, failed.clone(), if may_cancel { canceled } else { failed }];
    let bad = (prop::sample::select(bad), any::<bool>()).prop_map(move |(verdict, short)| worse(verdict, short));
    prop::collection::vec(prop_oneof![2 => passed, 1 => bad], 1..9)
}

fn worlds(may_cancel: bool) -> impl Strategy<Value = World> {
    let terms = (any::<bool>(), subsequence(vec!["j0", "j1", "j2"], 0..2), subsequence(vec!["j1", "j3"], 0..2));
    let terms = (terms, 0u8..8).prop_map(|((is_asked, approved, assumed), all)| Terms {
        approve_all: all == 0,
        approved: approved.into_iter().map(str::to_owned).collect(),
        is_asked,
        assume_passed: assumed.into_iter().map(str::to_owned).collect(),
    });
    let workflows = prop::collection::vec(shapes(), 1..3);
    let answers = prop::collection::vec(any::<Option<bool>>(), 1..5);
    (terms, workflows, prop::option::of(shapes()), fates(may_cancel), answers, any::<bool>()).prop_map(
        |(terms, workflows, second, fates, answers, is_upside_down)| World {
            terms,
            workflows,
            second,
            fates,
            answers,
            is_upside_down,
        },
    )
}

/// Requirements of a job, by name.
type Requires = BTreeMap<JobRef, Vec<(JobRef, BTreeSet<JobStatus>)>>;

fn requires(shapes: &[Shape], number: usize) -> Vec<(String, Vec<JobStatus>)> {
    let some = shapes[number].requires.iter().filter(|_| number > 0);
    some.map(|(index, statuses)| (format!("j{}", index.index(number)), statuses.clone())).collect()
}

/// What a workflow requires as the tests see it, and the workflow as the walk does.
fn part(name: &str, shapes: &[Shape], world: &World, all: &mut Requires) -> Part {
    let reference = |job: String| JobRef { workflow: name.to_owned(), job };
    let mut jobs = Vec::new();
    for (number, shape) in shapes.iter().enumerate() {
        let required = requires(shapes, number);
        let borrowed: Vec<_> = required.iter().map(|(job, statuses)| (job.as_str(), statuses.as_slice())).collect();
        jobs.push((job(&format!("j{number}"), &borrowed), shape.work.clone()));
        let known = required.iter().map(|(job, statuses)| (reference(job.clone()), statuses.iter().copied().collect()));
        all.insert(reference(format!("j{number}")), known.collect());
    }
    if world.is_upside_down {
        jobs.reverse();
    }
    let (jobs, work) = jobs.into_iter().unzip();
    let chosen = Chosen { workflow: workflow(name, jobs), only: None, notes: vec![] };
    let Part { graph, .. } = Part::new(&chosen, |_| Ok(1));
    Part { name: name.to_owned(), graph, work }
}

/// A caller that carries out the effects, and compares them with what the walk promises.
struct Caller {
    world: World,
    requires: Requires,
    walk: Walk,
    started: BTreeSet<JobKey>,
    queued: Vec<TaskKey>,
    running: Vec<TaskKey>,
    /// Tasks of which nothing more comes, and those among them that never started.
    over: BTreeSet<TaskKey>,
    given_up: BTreeSet<TaskKey>,
    asked: Vec<JobKey>,
    continuing: Option<TaskKey>,
    has_joined: bool,
    is_stopped: bool,
    told: BTreeMap<JobRef, JobEnd>,
    finish: Option<Finish>,
}

impl Caller {
    fn new(world: &World) -> Self {
        let mut requires = Requires::new();
        let parts = world.workflows.iter().enumerate();
        let parts = parts.map(|(number, shapes)| part(&format!("w{number}"), shapes, world, &mut requires)).collect();
        let mut caller = Self {
            walk: Walk::new(world.terms.clone(), parts),
            world: world.clone(),
            requires,
            started: BTreeSet::new(),
            queued: Vec::new(),
            running: Vec::new(),
            over: BTreeSet::new(),
            given_up: BTreeSet::new(),
            asked: Vec::new(),
            continuing: None,
            has_joined: false,
            is_stopped: false,
            told: BTreeMap::new(),
            finish: None,
        };
        let effects = caller.walk.begin();
        caller.carry_out(effects);
        caller
    }

    fn handle(&mut self, happening: Happening) {
        let effects = self.walk.handle(happening);
        assert!(self.finish.is_none() || effects.is_empty(), "{effects:?} after the end");
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            assert!(self.finish.is_none(), "{effect:?} after the end");
            match effect {
                Effect::Start { job, tasks } => {
                    assert!(!self.is_stopped, "something started after a stop");
                    assert!(self.started.insert(job), "a job started twice");
                    self.turn_has_come(&self.walk.reference(job));
                    self.queued.extend((0..tasks).map(|node| TaskKey { job, node }));
                }
                Effect::GiveUp { task } => {
                    assert!(self.is_stopped && self.queued.contains(&task), "what was given up had started");
                    self.queued.retain(|queued| *queued != task);
                    self.over.insert(task);
                    self.given_up.insert(task);
                }
                Effect::Ask { job, .. } => {
                    assert!(!self.is_stopped, "a person was asked after a stop");
                    self.turn_has_come(&self.walk.reference(job));
                    if self.walk.terms.is_asked {
                        self.asked.push(job);
                    }
                }
                Effect::Tell { job, end } => self.take_end(job, end),
                Effect::Continue { task } => {
                    assert!(!self.is_stopped && !self.has_joined && self.continuing.replace(task).is_none());
                }
                Effect::ContinuedBefore { .. } => assert!(self.has_joined),
                Effect::Finish(finish) => self.check_finish(finish),
            }
        }
        let is_asking = !self.asked.is_empty() && !self.is_stopped;
        let is_busy = !self.queued.is_empty() || !self.running.is_empty() || self.continuing.is_some() || is_asking;
        assert_eq!(self.finish.is_none(), is_busy, "a walk that waits for nothing is over");
    }

    fn status(&self, job: &JobRef) -> Option<JobStatus> {
        match self.told.get(job)? {
            JobEnd::Ran { status, .. } => Some(*status),
            JobEnd::NotRun { .. } => Some(JobStatus::NotRun),
            JobEnd::Passed { .. } => Some(JobStatus::Success),
            JobEnd::NotAvailable { .. } | JobEnd::Unapproved { .. } | JobEnd::Held { .. } => None,
        }
    }

    fn turn_has_come(&self, job: &JobRef) {
        for (required, statuses) in &self.requires[job] {
            let status = self.status(required);
            assert!(status.is_some_and(|it| statuses.contains(&it)), "{job:?} came before {required:?}: {status:?}");
        }
    }

    fn take_end(&mut self, job: JobRef, end: JobEnd) {
        match &end {
            JobEnd::Ran { .. } | JobEnd::Held { .. } => {
                let is_open = |task: &&TaskKey| self.walk.reference(task.job) == job;
                let open = self.queued.iter().chain(&self.running).find(is_open);
                assert!(open.is_none(), "{job:?} ended before {open:?}");
            }
            JobEnd::NotRun { why } => self.check_not_run(&job, why),
            JobEnd::Passed { .. } | JobEnd::NotAvailable { .. } | JobEnd::Unapproved { .. } => self.turn_has_come(&job),
        }
        let before = self.told.insert(job.clone(), end);
        assert!(before.is_none(), "{job:?} ended twice");
    }

    /// Is one before the other, directly or not?
    fn is_before(&self, before: &str, job: &JobRef) -> bool {
        self.requires[job].iter().any(|(required, _)| required.job == before || self.is_before(before, required))
    }

    fn check_not_run(&self, job: &JobRef, why: &str) {
        let end_of = |name: &str| self.told.get(&JobRef { job: name.to_owned(), ..job.clone() });
        if why == "the run was canceled" {
            assert!(self.is_stopped);
        } else if let Some(name) = why.strip_prefix("waits for ") {
            assert!(self.is_before(name, job), "{job:?} {why}");
            let end = end_of(name);
            let withheld =
                matches!(end, Some(JobEnd::NotAvailable { .. } | JobEnd::Unapproved { .. } | JobEnd::Held { .. }));
            assert!(withheld, "{job:?} {why}, which is {end:?}");
        } else {
            let (name, status) = why.split_once(" ended ").expect(why);
            assert!(self.is_before(name, job), "{job:?} {why}");
            let known = self.status(&JobRef { job: name.to_owned(), ..job.clone() });
            assert_eq!(known.map(JobStatus::as_str), Some(status), "{job:?} {why}");
        }
    }

    fn check_finish(&mut self, finish: Finish) {
        assert!(self.queued.is_empty() && self.running.is_empty() && self.continuing.is_none());
        let jobs: BTreeMap<JobRef, JobEnd> = finish.jobs.iter().map(|it| (it.job.clone(), it.end.clone())).collect();
        assert_eq!(jobs.len(), finish.jobs.len());
        assert_eq!(jobs, self.told, "what was told is what is summed up");
        assert_eq!(jobs.keys().collect::<Vec<_>>(), self.requires.keys().collect::<Vec<_>>(), "every job has an end");
        let order: Vec<JobRef> = finish.jobs.iter().map(|summary| summary.job.clone()).collect();
        assert_eq!(order, self.walk.references());
        self.check_run_end(finish.end);
        self.finish = Some(finish);
    }

    fn check_run_end(&self, end: RunEnd) {
        let of_job = |end: &JobEnd| match end {
            JobEnd::Ran { infra: Some(_), .. } => RunEnd::Infra,
            JobEnd::Ran { status: JobStatus::Failed, .. } => RunEnd::JobFailed,
            JobEnd::Ran { .. } | JobEnd::Passed { .. } => RunEnd::Passed,
            JobEnd::NotRun { why } if why == "the run was canceled" => RunEnd::Canceled,
            JobEnd::NotRun { .. } => RunEnd::Passed,
            JobEnd::NotAvailable { .. } | JobEnd::Unapproved { .. } | JobEnd::Held { .. } => RunEnd::Incomplete,
        };
        let was_canceled = |task: &TaskKey| {
            let fate = self.fate(*task);
            self.given_up.contains(task) || fate.cut_short || matches!(fate.verdict, Verdict::Canceled { .. })
        };
        let continued = self.is_stopped && self.over.iter().any(|task| self.fate(*task).continues);
        let canceled = if self.over.iter().any(was_canceled) { RunEnd::Canceled } else { RunEnd::Passed };
        let least = self.told.values().map(of_job).chain([canceled]).max().unwrap();
        // A continuation that a stop came before was not carried out.
        assert!(end == least || continued && end == RunEnd::Canceled, "{end:?}, and its jobs say {least:?}");
    }

    fn fate(&self, task: TaskKey) -> &Fate {
        let TaskKey { job, node } = task;
        let number = job.workflow * 31 + job.job * 7 + node as usize;
        &self.world.fates[number % self.world.fates.len()]
    }

    fn answer(&self, job: JobKey) -> Option<bool> {
        self.world.answers[(job.workflow * 5 + job.job) % self.world.answers.len()]
    }

    /// What may happen now, but for the end of answers and a stop.
    fn possible(&self) -> Vec<Happening> {
        let started = self.queued.iter().map(|task| Happening::TaskStarted { task: *task });
        let ended = self.running.iter().map(|task| self.ended(*task));
        let answers = self.asked.iter().filter_map(|job| Some((*job, self.answer(*job)?)));
        let answered = answers.map(|(job, approved)| Happening::Answered { job, approved });
        started.chain(ended).chain(answered).chain(self.continuing.map(|_| self.continued())).collect()
    }

    fn ended(&self, task: TaskKey) -> Happening {
        let Fate { verdict, is_held, cut_short, continues } = self.fate(task).clone();
        let at = HeldAt { step: 1, name: "Deploy".into(), before: true };
        let (node_index, until) = (task.node, String::new());
        let held = HeldTask { task: TaskId::from_random([1; 8]), node_index, node_total: 3, at, until };
        let end = TaskEnd { held: is_held.then_some(held), cut_short, continues, ..TaskEnd::new(verdict) };
        Happening::TaskEnded { task, end: Box::new(end) }
    }

    fn continued(&self) -> Happening {
        match &self.world.second {
            Some(shapes) => Happening::Continued { parts: vec![part("x", shapes, &self.world, &mut Requires::new())] },
            None => Happening::NotContinued,
        }
    }

    fn happens(&mut self, happening: Happening) {
        match &happening {
            Happening::TaskStarted { task } => {
                self.queued.retain(|queued| queued != task);
                self.running.push(*task);
            }
            Happening::TaskEnded { task, .. } => {
                self.running.retain(|running| running != task);
                self.over.insert(*task);
            }
            Happening::Answered { job, .. } => self.asked.retain(|asked| asked != job),
            Happening::AnswersOver => self.asked.clear(),
            Happening::NotContinued => self.continuing = None,
            Happening::Continued { .. } => {
                self.continuing = None;
                if let Some(shapes) = self.world.second.clone().filter(|_| !self.is_stopped) {
                    self.has_joined = true;
                    part("x", &shapes, &self.world, &mut self.requires);
                }
            }
            Happening::Stop { .. } => self.is_stopped = true,
        }
        self.handle(happening);
    }

    /// Lets things happen in this order until nothing more does by itself.
    fn go_on(&mut self, order: &[Index]) {
        for index in order.iter().cycle() {
            let possible = self.possible();
            let (None, false) = (&self.finish, possible.is_empty()) else { return };
            self.happens(index.get(&possible).clone());
        }
    }

    /// A walk that has not ended by itself waits for a person.
    fn is_waiting(&self) -> bool {
        self.finish.is_none() && self.walk.oldest_asked().is_some()
    }
}

fn orders() -> impl Strategy<Value = Vec<Index>> {
    prop::collection::vec(any::<Index>(), 1..40)
}

/// How everything ends if it happens in this order. A continuation is left out: which one it is depends on the order.
fn ends(world: &World, order: &[Index]) -> (BTreeMap<JobRef, Option<JobStatus>>, Option<RunEnd>) {
    let mut caller = Caller::new(&World { second: None, ..world.clone() });
    caller.go_on(order);
    let statuses = caller.told.keys().map(|job| (job.clone(), caller.status(job))).collect();
    (statuses, caller.finish.map(|finish| finish.end))
}

proptest! {
    /// The caller checks the rest: nothing starts before what it requires, every job ends once, nothing is left over.
    #[test]
    fn every_job_ends_once_unless_a_person_is_waited_for(world in worlds(true), order in orders()) {
        let mut caller = Caller::new(&world);
        caller.go_on(&order);
        prop_assert!(caller.finish.is_some() || caller.is_waiting());
        if caller.finish.is_none() {
            caller.happens(Happening::AnswersOver);
            caller.go_on(&order);
        }
        prop_assert!(caller.finish.is_some());
    }

    #[test]
    fn a_stop_at_any_moment_ends_the_walk_with_what_runs(world in worlds(true), order in orders(), after in 0usize..30) {
        let mut caller = Caller::new(&world);
        for index in order.iter().cycle().take(after) {
            let possible = caller.possible();
            if caller.finish.is_some() || possible.is_empty() {
                break;
            }
            caller.happens(index.get(&possible).clone());
        }
        let had_ended = caller.finish.is_some();
        let running = caller.running.clone();
        caller.happens(Happening::Stop { reason: CancelReason::User });
        prop_assert!(had_ended || caller.queued.is_empty());
        prop_assert_eq!(&caller.running, &running);
        for task in running {
            let ended = caller.ended(task);
            caller.happens(ended);
        }
        if caller.continuing.is_some() {
            let continued = caller.continued();
            caller.happens(continued);
        }
        prop_assert!(caller.finish.is_some());
        // An answer that comes too late starts nothing.
        for job in caller.asked.clone() {
            caller.happens(Happening::Answered { job, approved: true });
        }
    }

    #[test]
    fn the_order_of_happenings_changes_no_end(world in worlds(false), first in orders(), other in orders()) {
        prop_assert_eq!(ends(&world, &first), ends(&world, &other));
    }

    #[test]
    fn approvals_may_be_answered_in_any_order(mut world in worlds(false), first in orders(), other in orders()) {
        world.terms.is_asked = true;
        for shape in world.workflows.iter_mut().flatten().filter(|shape| matches!(shape.work, Work::Tasks(_))) {
            shape.work = Work::Approval;
        }
        prop_assert_eq!(ends(&world, &first), ends(&world, &other));
    }

    #[test]
    fn what_is_told_again_changes_nothing(world in worlds(true), order in orders()) {
        let mut caller = Caller::new(&world);
        for index in order.iter() {
            let possible = caller.possible();
            if caller.finish.is_some() || possible.is_empty() {
                break;
            }
            let happening = index.get(&possible).clone();
            caller.happens(happening.clone());
            // Continuations of two tasks give the same effect.
            if !matches!(happening, Happening::Continued { .. } | Happening::NotContinued) {
                prop_assert!(caller.walk.handle(happening).is_empty());
            }
        }
    }
}
