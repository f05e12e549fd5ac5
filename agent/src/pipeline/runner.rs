//! The loop of `navvy run`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use navvy_job::chain::chain;
use navvy_job::claim::{CONTINUATION_KEY, RunFacts, Secrets, SshKey, TrustScope};
use navvy_job::compiled::{Executor, Variables};
use navvy_job::event::{Event, JobEnd, JobRef, JobSummary, TaskRef};
use navvy_job::outcome::JobStatus;
use navvy_job::pipeline::{WorkflowJob, WorkflowJobKind};
use navvy_job::resource::Size;
use navvy_job::selection::Chosen;
use navvy_job::upstream::upstream;
use navvy_job::workflow::{Graph, Progress};
use navvy_protocol::supervisor::Continuation;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::availability::{Local, Replacements, localise};
use super::claims;
use super::contexts::Contexts;
use super::continuing::{Continued, Second};
use super::given::Given;
use super::job_run::{JobOutcome, JobRun};
use super::notes::Notes;
use super::overcommit::Overcommit;
use super::removals::Removals;
use super::room::{Occupancy, Room};
use crate::bus::Bus;
use crate::run_directory::RunDirectory;
use crate::task::{self, Removal, Stop, TaskResult, Turn};

/// Which approvals are given, and by whom the others are asked for.
#[derive(Debug, Default)]
pub struct Approvals {
    pub all: bool,
    pub given: BTreeSet<String>,
    /// Answers of a person: `true` gives the oldest approval that was asked for, `false` holds it.
    pub answers: Option<mpsc::UnboundedReceiver<bool>>,
}

/// What a run needs to know about one job's task to make its built-in variables.
#[derive(Debug, Clone)]
pub struct TaskFacts<'a> {
    pub job: &'a JobRef,
    /// Counted from 1 in the order of starting.
    pub build_number: u64,
    pub node_index: u32,
    pub node_total: u32,
    pub working_directory: &'a str,
    /// Jobs this one requires.
    pub upstream: Vec<String>,
    pub logs: &'a std::path::Path,
}

/// Makes what a task's claim says of its run, and its `CIRCLE_*` variables out of that.
pub type Builtins = Arc<dyn Fn(&TaskFacts<'_>) -> (RunFacts, Variables) + Send + Sync>;

/// What is run, and how.
pub struct Plan {
    pub workflows: Vec<Chosen>,
    pub replacements: Replacements,
    pub approvals: Approvals,
    /// Jobs that count as passed without being run.
    pub assume_passed: BTreeSet<String>,
    /// Cap on `parallelism`.
    pub node_cap: Option<u32>,
    /// 0 is no cap but the machine.
    pub max_parallel: usize,
    pub machine: Size,
    pub overcommit: Overcommit,
    pub job_limit: Duration,
    /// How far the jobs are trusted; they never see it.
    pub scope: TrustScope,
    pub given: Given,
    pub contexts: Contexts,
    pub builtins: Builtins,
    /// `--ssh-key`: for every job that asks for keys.
    pub ssh_keys: Vec<SshKey>,
    /// Of a setup pipeline: the secret with which its jobs continue it.
    pub continuation_key: Option<String>,
}

impl Plan {
    /// Whatever must not be seen, of all jobs: one job's secret may come out of another one's. Then the names of what was
    /// given and cannot be a secret.
    pub fn masked(&self) -> (Variables, Vec<String>) {
        let (given, public) = self.given.sorted(&self.contexts);
        let keys = self.ssh_keys.iter().map(|key| (format!("SSH key {}", key.md5), key.text.clone()));
        (given.into_iter().chain(self.continuation_secret()).chain(keys).collect(), public)
    }

    fn continuation_secret(&self) -> Option<(String, String)> {
        self.continuation_key.clone().map(|key| (CONTINUATION_KEY.to_owned(), key))
    }
}

/// A task that waits for room.
struct Queued {
    workflow: usize,
    reference: TaskRef,
    claim: navvy_job::claim::Claim,
    secrets: Secrets,
    class: String,
    image: Option<String>,
    steps: Vec<String>,
    notes: Vec<String>,
}

impl Queued {
    /// Services take processors and memory from their start on.
    fn may_be_made_ahead(&self) -> bool {
        matches!(&self.claim.job.executor, Executor::Docker { containers } if containers.len() == 1)
    }
}

/// A task whose verdict is there.
struct Judged {
    workflow: usize,
    job: String,
    result: TaskResult,
    removal: Option<Removal>,
}

/// What came of every job.
#[derive(Default)]
pub struct Finished {
    pub jobs: Vec<JobSummary>,
    pub failed: bool,
    pub infra: bool,
    /// A task ended by a bug of ours: it has removed nothing.
    pub lost: bool,
    pub incomplete: bool,
    pub canceled: bool,
    /// What a setup pipeline goes on with cannot be carried out.
    pub broken_config: bool,
    /// A job of a setup pipeline continued it, whatever came of that.
    pub was_continued: bool,
    pub leftovers: Vec<String>,
    pub fidelity: Notes,
    /// Of jobs, for whoever reads the report alone.
    pub warnings: Vec<String>,
}

impl Finished {
    /// What a job's end means for the whole run.
    pub fn count(&mut self, outcome: &JobOutcome) {
        match outcome.status {
            JobStatus::Canceled => self.canceled = true,
            _ if outcome.infra => self.infra = true,
            JobStatus::Failed => self.failed = true,
            _ => self.incomplete |= outcome.paused.is_some(),
        }
    }
}

/// A run on its way.
pub struct Runner {
    pub(super) plan: Plan,
    context: Option<task::Context>,
    pub(super) bus: Bus,
    directory: RunDirectory,
    stop: watch::Receiver<Stop>,
    pub(super) graphs: Vec<Graph>,
    /// Of a setup pipeline that was continued.
    pub(super) second: Option<Second>,
    room: Room,
    queue: VecDeque<Queued>,
    /// Tasks made ahead, whose steps wait for room.
    ahead: VecDeque<(Size, oneshot::Sender<task::Occupancy>)>,
    running: JoinSet<Judged>,
    removals: Removals,
    /// Sizes of tasks whose steps are over.
    vacated: (mpsc::UnboundedSender<Size>, mpsc::UnboundedReceiver<Size>),
    jobs: BTreeMap<(usize, String), JobRun>,
    ends: BTreeMap<(usize, String), JobSummary>,
    asked: VecDeque<(usize, String)>,
    build_number: u64,
    pub(super) finished: Finished,
}

impl Runner {
    /// `context` is what every task gets; `None` when no job of the plan needs an engine.
    pub fn new(
        plan: Plan,
        context: Option<task::Context>,
        bus: Bus,
        directory: RunDirectory,
        stop: watch::Receiver<Stop>,
    ) -> Self {
        let graphs = plan.workflows.iter().map(|chosen| Graph::new(&chosen.workflow, chosen.only.as_ref())).collect();
        let room = Room::new(plan.machine, plan.overcommit, plan.max_parallel);
        let mut finished = Finished::default();
        finished.fidelity.extend(plan.workflows.iter().flat_map(|chosen| chosen.notes.clone()));
        if plan.overcommit.is_any() {
            let times = plan.overcommit;
            finished.fidelity.add(format!("processors were given out up to {times} times (--overcommit {times})"));
        }
        Self {
            removals: Removals::new(bus.clone()),
            plan,
            context,
            bus,
            directory,
            stop,
            graphs,
            second: None,
            room,
            queue: VecDeque::new(),
            ahead: VecDeque::new(),
            running: JoinSet::new(),
            vacated: mpsc::unbounded_channel(),
            jobs: BTreeMap::new(),
            ends: BTreeMap::new(),
            asked: VecDeque::new(),
            build_number: 0,
            finished,
        }
    }

    /// Every job that takes part, in the order of the file.
    pub fn job_references(&self) -> Vec<JobRef> {
        let of = |(index, graph): (usize, &Graph)| {
            graph.names().iter().map(|name| self.reference(index, name)).collect::<Vec<_>>()
        };
        self.graphs.iter().enumerate().flat_map(of).collect()
    }

    /// Runs everything to its last verdict. What is still to be removed then comes with it. `carry_out` tells what a setup
    /// pipeline goes on with.
    pub async fn run(
        mut self,
        carry_out: &mut dyn FnMut(&Continuation) -> Result<Continued, String>,
    ) -> (Finished, Removals) {
        loop {
            if self.is_stopped() {
                self.give_up_queued();
            } else {
                self.start_ready();
                self.start_queued();
            }
            if self.running.is_empty() && (self.asked.is_empty() || self.is_stopped()) {
                break;
            }
            if let Some((job, continuations)) = self.wait().await {
                continuations.iter().for_each(|continuation| self.go_on(&job, continuation, carry_out));
            }
        }
        self.finish()
    }

    fn is_stopped(&self) -> bool {
        *self.stop.borrow() != Stop::No
    }

    /// Waits for a task's verdict, a person's answer, or the wish to stop. What an ended job continues the pipeline with.
    async fn wait(&mut self) -> Option<(String, Vec<Continuation>)> {
        let answers = self.plan.approvals.answers.as_mut();
        tokio::select! {
            Some(done) = self.running.join_next() => match done {
                Ok(judged) => {
                    crate::bug::here("run");
                    let job = judged.job.clone();
                    let continuations = self.task_ended(judged);
                    // A pipeline that is stopped does not go on: whatever its jobs came to, it was not carried out.
                    self.finished.canceled |= self.is_stopped() && !continuations.is_empty();
                    return (!self.is_stopped()).then_some((job, continuations));
                }
                Err(error) => {
                    // A bug of ours, told where it happened. Whoever started the run removes what the task has left.
                    tracing::error!(%error, "A task ended without a result.");
                    self.finished.infra = true;
                    self.finished.lost = true;
                }
            },
            Some(size) = self.vacated.1.recv() => self.room.leave(size),
            answer = next_answer(answers), if !self.asked.is_empty() => self.answered(answer),
            // What thereby is canceled is seen where it is not run.
            Ok(()) = self.stop.changed() => {}
        }
        None
    }

    fn start_ready(&mut self) {
        // Starting one job (a no-op, say) may make others ready: go on until nothing more is.
        loop {
            let ready: Vec<(usize, String)> = self
                .graphs
                .iter()
                .enumerate()
                .flat_map(|(index, graph)| graph.ready().into_iter().map(move |name| (index, name.to_owned())))
                .collect();
            if ready.is_empty() {
                return;
            }
            for (workflow, name) in ready {
                self.start_job(workflow, &name);
            }
        }
    }

    fn start_job(&mut self, workflow: usize, name: &str) {
        let found = self.plan.workflows[workflow].workflow.jobs.iter().find(|job| job.name == name).cloned();
        let Some(job) = found else { return };
        self.graphs[workflow].start(name);
        if self.plan.assume_passed.contains(name) {
            return self.pass(workflow, name, "assumed by --assume");
        }
        match &job.kind {
            WorkflowJobKind::NoOp => self.pass(workflow, name, "a no-op"),
            WorkflowJobKind::Approval => self.approval(workflow, name),
            WorkflowJobKind::Unavailable { what } => self.not_available(workflow, name, what.clone()),
            WorkflowJobKind::Build { job: build } => match localise(build, &self.plan.replacements) {
                Ok(local) => self.queue_tasks(workflow, &job, &local),
                Err(needs) => self.not_available(workflow, name, needs),
            },
        }
    }

    fn queue_tasks(&mut self, workflow: usize, job: &WorkflowJob, local: &Local) {
        let size = self.room.clamp(local.size);
        let mut notes = local.fidelity.clone();
        if size != local.size {
            let (class, given) = (&local.class, describe(size));
            notes.push(format!("class {class} ({}) was clamped to this machine: {given}", describe(local.size)));
        }
        for note in &notes {
            self.finished.fidelity.add_of(&job.name, note.clone());
        }
        let total = self.plan.node_cap.map_or(local.job.parallelism, |cap| local.job.parallelism.min(cap.max(1)));
        if total != local.job.parallelism {
            let note = format!("parallelism {} was capped to {total}", local.job.parallelism);
            self.finished.fidelity.add_of(&job.name, note);
        }
        for node_index in 0..total {
            let queued = self.queued(workflow, job, local, size, (node_index, total), &notes);
            self.queue.push_back(queued);
        }
        self.jobs.insert((workflow, job.name.clone()), JobRun::new(total as usize));
    }

    fn queued(
        &mut self,
        workflow: usize,
        job: &WorkflowJob,
        local: &Local,
        size: Size,
        node: (u32, u32),
        notes: &[String],
    ) -> Queued {
        self.build_number += 1;
        let reference = self.reference(workflow, &job.name);
        let facts = TaskFacts {
            job: &reference,
            build_number: self.build_number,
            node_index: node.0,
            node_total: node.1,
            working_directory: &local.job.working_directory,
            upstream: job.requires.iter().map(|requirement| requirement.job.clone()).collect(),
            logs: self.directory.path(),
        };
        let second = self.second.as_ref().and_then(|second| second.builtins(workflow));
        let builtin = second.unwrap_or(&self.plan.builtins)(&facts);
        let key = self.plan.continuation_secret().filter(|_| second.is_none());
        let mut claim = claims::claim(&job.name, local, size, node, self.plan.job_limit, builtin);
        claim.may_continue = key.is_some();
        claim.trust = self.plan.scope.clone();
        claim.upstream = upstream(&self.plan.workflows[workflow].workflow.jobs, &job.name);
        let given = self.plan.given.with_contexts(self.plan.contexts.variables(&job.contexts));
        let secrets = given.into_iter().chain(key).collect();
        Queued {
            workflow,
            reference: TaskRef { task: claim.task.clone(), job: reference, node_index: node.0, node_total: node.1 },
            image: first_image(&local.job.executor),
            steps: local.job.steps.iter().map(|step| step.name.clone()).collect(),
            claim,
            secrets: Secrets::new(secrets).with_ssh_keys(self.plan.ssh_keys.clone()),
            class: local.class.clone(),
            notes: notes.to_vec(),
        }
    }

    /// Starts waiting tasks, in order, as far as there is room.
    fn start_queued(&mut self) {
        self.admit_those_ahead();
        let mut waiting = VecDeque::new();
        while let Some(queued) = self.queue.pop_front() {
            let size = queued.claim.limits.size;
            if self.room.enter(size) {
                let turn = Turn::Now(Box::new(self.occupancy(size)));
                self.start_task(queued, turn);
            } else if queued.may_be_made_ahead() && self.room.enter_ahead(self.ahead.len()) {
                let (sender, receiver) = oneshot::channel();
                self.ahead.push_back((size, sender));
                self.start_task(queued, Turn::Later(receiver));
            } else {
                waiting.push_back(queued);
            }
        }
        self.queue = waiting;
    }

    /// Whoever was made ahead comes before those that wait.
    fn admit_those_ahead(&mut self) {
        let mut waiting = VecDeque::new();
        while let Some((size, sender)) = self.ahead.pop_front() {
            // A closed one is over: its environment could not be made, say.
            if sender.is_closed() {
                continue;
            }
            if self.room.admit(size) {
                // A task that ends in this very moment gives its room back by dropping it.
                sender.send(Box::new(self.occupancy(size))).ok();
            } else {
                waiting.push_back((size, sender));
            }
        }
        self.ahead = waiting;
    }

    fn occupancy(&self, size: Size) -> Occupancy {
        Occupancy::new(size, self.vacated.0.clone())
    }

    fn start_task(&mut self, queued: Queued, turn: Turn) {
        let Queued { workflow, reference, claim, secrets, class, image, steps, notes } = queued;
        let size = claim.limits.size;
        let job = reference.job.job.clone();
        let directory = self.directory.task(&claim.task).map_err(|error| chain(&error));
        let why = directory.as_ref().err().cloned().unwrap_or_default();
        let (Some(mut context), Ok(directory)) = (self.context.clone(), directory) else {
            self.room.ended();
            self.finished.infra = true;
            let message = format!("{job}: the task's log directory could not be made: {why}");
            self.bus.send(Event::Warning { task: None, message });
            return self.end(workflow, &job, JobStatus::Failed, JobEnd::NotRun { why: "no log directory".into() });
        };
        context.directory = directory;
        if let Some(second) = &self.second {
            second.adapt(workflow, &mut context);
        }
        let started = Event::TaskStarted { task: reference.clone(), image, resource_class: class, size, steps };
        self.bus.send(started);
        self.running.spawn(async move {
            let (result, removal) = task::run(claim, secrets, reference, context, notes, turn).await;
            Judged { workflow, job, result, removal }
        });
    }

    fn task_ended(&mut self, judged: Judged) -> Vec<Continuation> {
        let Judged { workflow, job, result, removal } = judged;
        removal.into_iter().for_each(|removal| self.removals.begin(removal));
        self.room.ended();
        self.finished.canceled |= result.was_canceled();
        let key = (workflow, job.clone());
        let Some(mut outcome) = self.jobs.get_mut(&key).and_then(|run| run.add(result)) else { return Vec::new() };
        let continuations = std::mem::take(&mut outcome.continuations);
        self.jobs.remove(&key);
        self.job_ended(workflow, &job, outcome);
        continuations
    }

    fn job_ended(&mut self, workflow: usize, job: &str, outcome: JobOutcome) {
        self.finished.count(&outcome);
        for note in outcome.fidelity.clone() {
            self.finished.fidelity.add_of(job, note);
        }
        self.finished.warnings.extend(outcome.repeated.iter().cloned());
        let summary = outcome.summary(self.reference(workflow, job));
        let (status, paused) = (outcome.status, outcome.paused.is_some());
        let end = summary.end.clone();
        self.ends.insert((workflow, job.to_owned()), summary);
        match paused {
            true => self.withhold(workflow, job, end),
            false => self.end(workflow, job, status, end),
        }
    }

    fn approval(&mut self, workflow: usize, name: &str) {
        let approvals = &self.plan.approvals;
        if approvals.all || approvals.given.contains(name) {
            return self.pass(workflow, name, "approved by --approve");
        }
        let holds = self.graphs[workflow].behind(name);
        self.bus.send(Event::ApprovalAsked { job: self.reference(workflow, name), holds });
        if self.plan.approvals.answers.is_some() {
            self.asked.push_back((workflow, name.to_owned()));
        } else {
            self.hold(workflow, name);
        }
    }

    fn answered(&mut self, answer: Option<bool>) {
        match answer {
            Some(yes) => {
                let Some((workflow, name)) = self.asked.pop_front() else { return };
                if yes { self.pass(workflow, &name, "approved by you") } else { self.hold(workflow, &name) }
            }
            // Nobody is there to answer any more.
            None => {
                self.plan.approvals.answers = None;
                for (workflow, name) in std::mem::take(&mut self.asked) {
                    self.hold(workflow, &name);
                }
            }
        }
    }

    fn hold(&mut self, workflow: usize, name: &str) {
        self.withhold(workflow, name, JobEnd::Held { approval: name.to_owned() });
    }

    fn not_available(&mut self, workflow: usize, name: &str, needs: String) {
        self.withhold(workflow, name, JobEnd::NotAvailable { needs });
    }

    fn withhold(&mut self, workflow: usize, name: &str, end: JobEnd) {
        self.finished.incomplete = true;
        self.graphs[workflow].withhold(name);
        self.told(workflow, name, end);
    }

    fn pass(&mut self, workflow: usize, name: &str, how: &str) {
        self.end(workflow, name, JobStatus::Success, JobEnd::Passed { how: how.to_owned() });
    }

    /// A job ended: what thereby can never run is told, too.
    fn end(&mut self, workflow: usize, name: &str, status: JobStatus, end: JobEnd) {
        self.told(workflow, name, end);
        for job in self.graphs[workflow].end(name, status) {
            self.told(workflow, &job, JobEnd::NotRun { why: format!("{name} ended {status}") });
        }
    }

    fn told(&mut self, workflow: usize, name: &str, end: JobEnd) {
        let job = self.reference(workflow, name);
        self.bus.send(Event::JobEnded { job: job.clone(), end: end.clone() });
        self.ends.entry((workflow, name.to_owned())).or_insert(JobSummary {
            job,
            end,
            skipped_steps: 0,
            skipped: BTreeMap::new(),
            warnings: 0,
            log: None,
            other_logs: vec![],
            kept: vec![],
        });
    }

    /// The run is being stopped: what has not started never will.
    fn give_up_queued(&mut self) {
        self.finished.canceled |= !self.queue.is_empty();
        for queued in std::mem::take(&mut self.queue) {
            let name = queued.reference.job.job;
            let key = (queued.workflow, name.clone());
            // Other nodes of the job may run: its end comes with theirs.
            let Some(run) = self.jobs.get_mut(&key) else { continue };
            if let Some(outcome) = run.add(never_started()) {
                self.jobs.remove(&key);
                self.job_ended(queued.workflow, &name, outcome);
            }
        }
    }

    fn finish(mut self) -> (Finished, Removals) {
        for index in 0..self.graphs.len() {
            for name in self.graphs[index].names().to_vec() {
                self.tell_if_never_started(index, &name);
            }
        }
        let order: Vec<(usize, String)> = self
            .graphs
            .iter()
            .enumerate()
            .flat_map(|(index, graph)| graph.names().iter().map(move |name| (index, name.clone())))
            .collect();
        self.finished.jobs = order.iter().filter_map(|key| self.ends.remove(key)).collect();
        (self.finished, self.removals)
    }

    /// For jobs that nothing was told of yet.
    fn tell_if_never_started(&mut self, workflow: usize, name: &str) {
        if self.ends.contains_key(&(workflow, name.to_owned())) {
            return;
        }
        let why = match self.waits_for(workflow, name) {
            Some(other) => format!("waits for {other}"),
            None if self.is_stopped() => {
                self.finished.canceled = true;
                "the run was canceled".to_owned()
            }
            None => "it never became ready".to_owned(),
        };
        self.told(workflow, name, JobEnd::NotRun { why });
    }

    /// What is withheld, and this job with it.
    fn waits_for(&self, workflow: usize, name: &str) -> Option<String> {
        let withheld = self.graphs[workflow].names().iter().find(|other| {
            self.graphs[workflow].progress(other) == Some(Progress::Withheld)
                && self.graphs[workflow].behind(other).iter().any(|behind| behind == name)
        });
        withheld.cloned()
    }

    pub(super) fn note(&mut self, note: String) {
        self.finished.fidelity.add(note);
    }

    fn reference(&self, workflow: usize, job: &str) -> JobRef {
        JobRef { workflow: self.plan.workflows[workflow].workflow.name.clone(), job: job.to_owned() }
    }
}

async fn next_answer(answers: Option<&mut mpsc::UnboundedReceiver<bool>>) -> Option<bool> {
    match answers {
        Some(answers) => answers.recv().await,
        None => std::future::pending().await,
    }
}

fn never_started() -> TaskResult {
    TaskResult::new(navvy_job::outcome::Verdict::Canceled { reason: navvy_job::outcome::CancelReason::User })
}

fn first_image(executor: &Executor) -> Option<String> {
    match executor {
        Executor::Docker { containers } => containers.first().map(|container| container.image.clone()),
        _ => None,
    }
}

/// `2 CPUs, 4 GiB`.
pub fn describe(size: Size) -> String {
    let cpus = size.millicpus as f64 / 1000.0;
    let gib = size.memory as f64 / f64::from(1 << 30);
    format!("{cpus} CPU{}, {gib:.1} GiB", if size.millicpus == 1000 { "" } else { "s" })
}
