//! From a job whose turn has come to tasks that run.

use navvy_job::chain::chain;
use navvy_job::claim::Secrets;
use navvy_job::compiled::{Step, StepKind};
use navvy_job::event::{Event, TaskRef};
use navvy_job::pipeline::{WorkflowJob, WorkflowJobKind};
use navvy_job::resource::Size;
use navvy_job::upstream::upstream;
use navvy_job::walk::{Effect, Happening, JobKey, TaskKey};

use super::availability::{Local, localise};
use super::claims;
use super::plan::TaskFacts;
use super::queue::Queued;
use super::room::Share;
use super::run::{Judged, PipelineRun, lost};
use crate::task::{self, Turn};

impl PipelineRun {
    /// Queues the tasks of a job.
    pub(super) fn queue_tasks(&mut self, job: JobKey, total: u32) -> Vec<Effect> {
        let Some((workflow_job, local)) = self.local(job) else {
            // The walk learnt of this job from the same functions.
            let lost = |node| self.lose(TaskKey { job, node }, "it is not to be found in its workflow any more");
            return (0..total).flat_map(lost).collect();
        };
        let notes = self.note_differences(&workflow_job.name, &local, total);
        for node in 0..total {
            let queued = self.queued(TaskKey { job, node }, total, &workflow_job, &local, &notes);
            self.queue.push(queued);
        }
        Vec::new()
    }

    fn local(&self, job: JobKey) -> Option<(WorkflowJob, Local)> {
        let name = self.walk.reference(job).job;
        let job = self.plan.workflows.get(job.workflow)?.workflow.jobs.iter().find(|job| job.name == name)?;
        match &job.kind {
            WorkflowJobKind::Build { job: build } => {
                Some((job.clone(), localise(build, &self.plan.replacements).ok()?))
            }
            _ => None,
        }
    }

    /// What differs from the real service, for the run's report. The lines that stand in the environment's report, too.
    fn note_differences(&mut self, job: &str, local: &Local, total: u32) -> Vec<String> {
        let size = local.given(self.queue.room());
        let mut notes = local.fidelity.clone();
        if size != local.size {
            let (class, given) = (&local.class, describe(size));
            notes.push(format!("class {class} ({}) was clamped to this machine: {given}", describe(local.size)));
        }
        for note in &notes {
            self.finished.fidelity.add_of(job, note.clone());
        }
        if total != local.job.parallelism {
            let note = format!("parallelism {} was capped to {total}", local.job.parallelism);
            self.finished.fidelity.add_of(job, note);
        }
        notes
    }

    fn queued(&mut self, key: TaskKey, total: u32, job: &WorkflowJob, local: &Local, notes: &[String]) -> Queued {
        self.build_number += 1;
        let workflow = key.job.workflow;
        let (reference, size) = (self.walk.reference(key.job), local.given(self.queue.room()));
        let facts = TaskFacts {
            job: &reference,
            build_number: self.build_number,
            node_index: key.node,
            node_total: total,
            working_directory: &local.job.working_directory,
            upstream: job.requires.iter().map(|requirement| requirement.job.clone()).collect(),
            logs: self.directory.path(),
        };
        let second = self.second.as_ref().and_then(|second| second.builtins_of(workflow));
        let builtin = second.unwrap_or(&self.plan.builtins)(&facts);
        let continuation_key = self.plan.continuation_secret().filter(|_| second.is_none());
        let node = (key.node, total);
        let mut claim = claims::claim(&job.name, local, size, node, self.plan.job_limit, builtin);
        claim.may_continue = continuation_key.is_some();
        claim.trust = self.plan.scope.clone();
        claim.upstream = upstream(&self.plan.workflows[workflow].workflow.jobs, &job.name);
        let given = self.plan.given.with_contexts(self.plan.contexts.variables(&job.contexts));
        let secrets = given.into_iter().chain(continuation_key).collect();
        Queued {
            key,
            reference: TaskRef { task: claim.task.clone(), job: reference, node_index: key.node, node_total: total },
            image: local.job.executor.primary_image().map(str::to_owned).or(local.vm_image.clone()),
            steps: local.job.steps.iter().map(|step| step.name.clone()).collect(),
            claim,
            secrets: Secrets::new(secrets).with_ssh_keys(self.plan.ssh_keys.clone()),
            class: local.class.clone(),
            notes: notes.to_vec(),
            takes: self.takes(local, size),
        }
    }

    /// What a task of this size takes of this machine.
    fn takes(&self, local: &Local, size: Size) -> Share {
        let (own, beside) = (local.far.unwrap_or(size), self.beside(local));
        let size = self.queue.room().clamp(beside.map_or(own, |beside| own.plus(beside)));
        Share { size, has_machine: local.vm_image.is_some() || beside.is_some() }
    }

    /// What the machine of a job's remote Docker takes of this one, if it gets one.
    fn beside(&self, local: &Local) -> Option<Size> {
        let asks = |step: &Step| matches!(step.kind, StepKind::SetupRemoteDocker { .. });
        let gets_one = local.vm_image.is_none() && !self.context.handing.docker && local.job.steps.iter().any(asks);
        self.context.remote_docker.as_ref().as_ref().ok().filter(|_| gets_one).map(|here| here.takes)
    }

    /// Starts the waiting tasks that there is room for, and tells which jobs have to wait.
    pub(super) fn start_queued(&mut self) -> Vec<Effect> {
        let admitted = self.queue.admit();
        let effects = admitted.into_iter().flat_map(|(queued, turn)| self.start_task(queued, turn)).collect();
        for (job, why) in self.queue.waits() {
            self.bus.send(Event::JobWaiting { job, why: why.to_owned() });
        }
        effects
    }

    fn start_task(&mut self, queued: Queued, turn: Turn) -> Vec<Effect> {
        let Queued { key, reference, claim, secrets, class, image, steps, notes, takes: _ } = queued;
        let directory = self.directory.task(&claim.task).map_err(|error| chain(&error));
        let directory = match directory {
            Ok(directory) => directory,
            Err(why) => {
                self.queue.ended();
                let message = format!("{}: the task's log directory could not be made: {why}", reference.job.job);
                self.bus.send(Event::Warning { task: None, message });
                return self.lose(key, "the task's log directory could not be made");
            }
        };
        let mut context = self.context.clone();
        context.directory = directory;
        if let Some(second) = &self.second {
            second.adapt(key.job.workflow, &mut context);
        }
        let (task, size) = (reference.clone(), claim.limits.size);
        self.bus.send(Event::TaskStarted { task, image, resource_class: class, size, steps });
        let running = self.running.spawn(async move {
            let (result, removal) = task::run(claim, secrets, reference, context, notes, turn).await;
            Judged { result, removal }
        });
        self.keys.insert(running.id(), key);
        // Reported at once: even if the run is asked to stop, this task has an end of its own.
        self.walk.handle(Happening::TaskStarted { task: key })
    }

    /// A task that cannot start, or that has ended without a result.
    pub(super) fn lose(&mut self, task: TaskKey, fault: &str) -> Vec<Effect> {
        self.walk.handle(Happening::TaskEnded { task, end: Box::new(lost(fault)) })
    }
}

/// `2 CPUs, 4 GiB`.
fn describe(size: Size) -> String {
    let cpus = size.millicpus as f64 / 1000.0;
    let gib = size.memory as f64 / f64::from(1 << 30);
    format!("{cpus} CPU{}, {gib:.1} GiB", if size.millicpus == 1000 { "" } else { "s" })
}
