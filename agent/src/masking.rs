//! Secrets out of the texts of events.
//!
//! Every field is named here: a new one asks for a decision. Left as they are: names of jobs and workflows (they
//! identify, and scripts look for them), ids, paths (no name of a config is part of one), keys of the config's language,
//! and output, whose masks came before it was logged.

use std::borrow::Cow;

use navvy_job::event::{ContextGiven, Event, HeldTask, JobEnd, JobRef, JobSummary, Summary, TaskRef};
use navvy_job::outcome::{StepOutcome, Verdict};
use navvy_output::mask::{MaskedIn, Masks};

/// Replaces secrets in every text that may hold one.
pub fn mask(event: &mut Event, masks: &Masks) {
    if masks.is_empty() {
        return;
    }
    match event {
        Event::RunStarted { logs: _, config: _, jobs: _ }
        | Event::PipelineContinued { config: _, jobs: _ }
        | Event::TaskState { task: _, state: _ }
        | Event::StopAsked { at_once: _, jobs_over: _ }
        | Event::RemovalAwaited { tasks: _ }
        // A service's name identifies, as a job's does.
        | Event::ServiceStarted { task: _, service: _, name: _, log: _ }
        | Event::TaskLogs { task: _, logs: _ } => {}
        Event::TaskHeld { task, step: _, name, before: _, until: _ } => {
            Texts::of(masks, &task.job).mask("step name", name);
        }
        Event::JobWaiting { job, why } => Texts::of(masks, job).mask("reason to wait", why),
        Event::ApprovalAsked { job: _, holds: _ } => {}
        Event::TaskStarted { task, image, resource_class, size: _, steps } => {
            let texts = Texts::of(masks, &task.job);
            image.iter_mut().for_each(|image| texts.mask("image", image));
            texts.mask("resource class", resource_class);
            steps.iter_mut().for_each(|name| texts.mask("step name", name));
        }
        Event::Report { task, line } => Texts::of(masks, &task.job).mask("report of the environment", line),
        Event::Progress { task, what, done: _, total: _ } => Texts::of(masks, &task.job).mask("progress", what),
        Event::StepStarted { task, step: _, attempt: _, name, kind: _, background: _, header, log: _ } => {
            let texts = Texts::of(masks, &task.job);
            texts.mask("step name", name);
            header.iter_mut().for_each(|header| texts.mask("command shown above a step", header));
        }
        Event::Output { task: _, step: _, stream: _, bytes: _ } => {}
        Event::StepEnded {
            task,
            step: _,
            attempt: _,
            name,
            outcome,
            duration_ms: _,
            trailers,
            bytes: _,
            sha256: _,
            origin: _,
            will_rerun: _,
        } => Texts::of(masks, &task.job).step_ended(name, outcome, trailers),
        Event::StepSkipped { task, step: _, name, why: _ } => Texts::of(masks, &task.job).mask("step name", name),
        Event::Warning { task, message } => Texts::of_any(masks, task.as_ref()).mask("warning", message),
        Event::TaskEnded { task, verdict, duration_ms: _, leftovers } => {
            let texts = Texts::of(masks, &task.job);
            texts.verdict(verdict);
            leftovers.iter_mut().for_each(|left| texts.mask("leftover", left));
        }
        Event::TaskRemoved { task, duration_ms: _, leftovers } => {
            let texts = Texts::of(masks, &task.job);
            leftovers.iter_mut().for_each(|left| texts.mask("leftover", left));
        }
        Event::JobEnded { job, end } => Texts::of(masks, job).job_end(end),
        Event::RunEnded(summary) => mask_summary(masks, summary),
    }
}
fn mask_summary(masks: &Masks, summary: &mut Summary) {
    let Summary {
        exit_code: _,
        duration_ms: _,
        jobs,
        logs: _,
        fidelity,
        warnings,
        leftovers,
        contexts_given,
        env_files_given: _,
        secrets,
    } = summary;
    for JobSummary { job, end, skipped_steps: _, skipped: _, warnings: _, log: _, other_logs: _, held } in jobs {
        let texts = Texts::of(masks, job);
        texts.job_end(end);
        held.iter_mut().for_each(|HeldTask { task: _, node_index: _, node_total: _, at, until: _ }| {
            texts.mask("step name", &mut at.name)
        });
    }
    let texts = Texts { masks, job: None };
    for text in fidelity.iter_mut().chain(warnings).chain(leftovers) {
        texts.mask("summary", text);
    }
    contexts_given.iter_mut().for_each(|ContextGiven { context, jobs: _ }| texts.mask("summary", context));
    // A service's name may be part of a place; the names of secrets are the report's point.
    secrets.iter_mut().flatten().for_each(|line| texts.mask("summary", &mut line.place));
}

/// Texts about one job, or about the run.
struct Texts<'a> {
    masks: &'a Masks,
    job: Option<&'a JobRef>,
}

impl<'a> Texts<'a> {
    fn of(masks: &'a Masks, job: &'a JobRef) -> Self {
        Self { masks, job: Some(job) }
    }

    fn of_any(masks: &'a Masks, task: Option<&'a TaskRef>) -> Self {
        Self { masks, job: task.map(|task| &task.job) }
    }

    fn mask(&self, what: &'static str, text: &mut String) {
        let place = || match self.job {
            Some(job) => MaskedIn::of_job(&job.job, what),
            None => MaskedIn::of_run(what),
        };
        if let Cow::Owned(masked) = self.masks.text(place, text) {
            *text = masked;
        }
    }

    fn step_ended(&self, name: &mut String, outcome: &mut StepOutcome, trailers: &mut [String]) {
        self.mask("step name", name);
        match outcome {
            StepOutcome::OutOfMemory { detail: text } | StepOutcome::Error { reason: text } => self.mask("error", text),
            StepOutcome::Success
            | StepOutcome::ExitCode { code: _ }
            | StepOutcome::Signal { signal: _ }
            | StepOutcome::NoOutput { limit: _ }
            | StepOutcome::JobLimit { limit: _ }
            | StepOutcome::Canceled => {}
        }
        trailers.iter_mut().for_each(|trailer| self.mask("error", trailer));
    }

    fn verdict(&self, verdict: &mut Verdict) {
        match verdict {
            Verdict::Failed { step: _, name } => self.mask("step name", name),
            Verdict::Infra { fault } => self.mask("error", fault),
            Verdict::Passed | Verdict::Canceled { reason: _ } | Verdict::TimedOut { limit: _ } => {}
        }
    }

    fn job_end(&self, end: &mut JobEnd) {
        match end {
            JobEnd::Ran { status: _, duration_ms: _, failed_step, infra } => {
                failed_step.iter_mut().for_each(|name| self.mask("step name", name));
                infra.iter_mut().for_each(|fault| self.mask("error", fault));
            }
            JobEnd::NotAvailable { needs: text } | JobEnd::NotRun { why: text } | JobEnd::Passed { how: text } => {
                self.mask("summary", text);
            }
            JobEnd::Held { before } => self.mask("step name", before),
            // An approval is a job: its name identifies.
            JobEnd::Unapproved { approval: _ } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use navvy_job::event::examples::examples;

    /// What identifies stays; every other text of ours or the config's is masked.
    #[test]
    fn no_event_shows_a_secret() {
        let secret = "hunter2-of-the-job";
        let masks = Masks::new(&[("TOKEN".to_owned(), secret.to_owned())]);
        for event in examples() {
            let mut event = with(event, secret);
            let held = serde_json::to_string(&event).unwrap().matches(secret).count();
            mask(&mut event, &masks);
            let after = serde_json::to_string(&event).unwrap();
            assert!(!after.contains(secret), "{after}");
            assert!(after.matches("****").count() == held, "{after}");
        }
    }

    fn summary_with(mut summary: Summary, text: impl Fn() -> String) -> Summary {
        summary.fidelity = vec![text()];
        summary.warnings = vec![text()];
        summary.leftovers = vec![text()];
        for job in &mut summary.jobs {
            job.end = JobEnd::NotAvailable { needs: text() };
        }
        summary
    }

    fn with(event: Event, secret: &str) -> Event {
        let text = || format!("a {secret} b");
        match event {
            Event::JobWaiting { job, .. } => Event::JobWaiting { job, why: text() },
            Event::Report { task, .. } => Event::Report { task, line: text() },
            Event::Progress { task, done, total, .. } => Event::Progress { task, what: text(), done, total },
            Event::TaskStarted { task, resource_class: _, size, .. } => {
                Event::TaskStarted { task, image: Some(text()), resource_class: text(), size, steps: vec![text()] }
            }
            Event::StepStarted { task, step, attempt, kind, background, log, .. } => {
                Event::StepStarted { task, step, attempt, name: text(), kind, background, header: Some(text()), log }
            }
            Event::StepSkipped { task, step, why, .. } => Event::StepSkipped { task, step, name: text(), why },
            Event::Warning { task, .. } => Event::Warning { task, message: text() },
            Event::TaskHeld { task, step, before, until, .. } => {
                Event::TaskHeld { task, step, name: text(), before, until }
            }
            Event::TaskEnded { task, duration_ms, .. } => Event::TaskEnded {
                task,
                verdict: Verdict::Infra { fault: text() },
                duration_ms,
                leftovers: vec![text()],
            },
            Event::TaskRemoved { task, duration_ms, .. } => {
                Event::TaskRemoved { task, duration_ms, leftovers: vec![text()] }
            }
            Event::JobEnded { job, .. } => Event::JobEnded { job, end: JobEnd::NotRun { why: text() } },
            Event::StepEnded { task, step, attempt, duration_ms, bytes, sha256, origin, will_rerun, .. } => {
                let (name, trailers, outcome) = (text(), vec![text()], StepOutcome::Error { reason: text() });
                Event::StepEnded {
                    task,
                    step,
                    attempt,
                    name,
                    outcome,
                    duration_ms,
                    trailers,
                    bytes,
                    sha256,
                    origin,
                    will_rerun,
                }
            }
            Event::RunEnded(summary) => Event::RunEnded(Box::new(summary_with(*summary, text))),
            other @ (Event::RunStarted { .. }
            | Event::PipelineContinued { .. }
            | Event::ApprovalAsked { .. }
            | Event::StopAsked { .. }
            | Event::RemovalAwaited { .. }
            | Event::ServiceStarted { .. }
            | Event::TaskLogs { .. }
            | Event::TaskState { .. }
            | Event::Output { .. }) => other,
        }
    }
}
