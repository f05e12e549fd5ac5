//! What is to be done about a launch, given what Nomad says. Pure: nothing is asked and nothing is done here.
//!
//! ```text
//!             not in Nomad      pending        running          dead
//! awaited     dispatch it       say why        where is it?     look: end the task, or try again
//! running     –                 –              where is it?     look: its agent is gone
//! over        forget it         stop it        stop it, later   purge it
//! ```

use super::answers::{Allocation, Evaluation, Job, JobStatus, TaskState};
use super::rows::Launch;

/// Clients that were lost or drained before an agent took its task: after so many it is not tried again.
pub const MOST_ATTEMPTS: u64 = 5;
/// Of what a driver says, so much is told.
const LONGEST_TEXT: usize = 1000;

/// Where a launch stands, by the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    /// The task waits for this agent.
    Awaited,
    /// This agent has the task.
    Running,
    /// The task has ended, is somebody else's, or is gone.
    Over,
}

/// The same, by Nomad's list of jobs.
#[derive(Debug, Clone, Copy)]
pub struct Listed<'a> {
    /// The list's index.
    pub index: u64,
    /// The dispatched job.
    pub job: Option<&'a Job>,
    /// Is the job there that it was dispatched from?
    pub has_parent: bool,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Move {
    /// Nothing now.
    Nothing,
    /// Ask Nomad for an agent.
    Dispatch,
    /// Nomad has a job for it, of which nothing is written down.
    Adopt(String, u64),
    /// Nomad forgot all about it: it is dispatched again.
    Again,
    /// Say why it waits.
    Explain,
    /// Ask for its allocations, and go by [`judge`].
    Look,
    /// The agent has reported, and is on its way out; once it has had its time, stop it.
    StopLater,
    /// Stop the job.
    Stop,
    /// Remove the job.
    Purge,
    /// Nothing is left of it.
    Forget,
    /// The task ends: somebody took its job away.
    Cancel(String),
}

impl Launch {
    /// Where it stands.
    pub fn stands(&self) -> Stands {
        match self.state.as_deref() {
            _ if self.closed => Stands::Over,
            Some("queued") if self.fence == self.handed + 1 => Stands::Awaited,
            Some("claimed") if self.fence == self.handed && self.used => Stands::Running,
            _ => Stands::Over,
        }
    }
}

/// By what is in the lists.
pub fn decide(launch: &Launch, listed: Listed<'_>) -> Move {
    let stands = launch.stands();
    let Some(known) = &launch.job else {
        return match (stands, listed.job) {
            (_, Some(job)) => Move::Adopt(job.id.clone(), job.job_modify_index),
            (Stands::Awaited, None) => Move::Dispatch,
            (Stands::Running, None) => Move::Nothing,
            (Stands::Over, None) => Move::Forget,
        };
    };
    match (stands, listed.job) {
        // The list is older than the job.
        (_, None) if listed.index < launch.job_index => Move::Nothing,
        (Stands::Over, None) => Move::Forget,
        (Stands::Running, None) => Move::Nothing,
        (Stands::Awaited, None) if listed.has_parent => {
            Move::Cancel(format!("the Nomad job {known} was stopped and removed before its agent took the task"))
        }
        (Stands::Awaited, None) => Move::Again,
        (Stands::Awaited, Some(job)) => awaited(launch, job),
        (Stands::Running, Some(job)) => running(launch, job),
        (Stands::Over, Some(job)) => over(launch, job),
    }
}

fn awaited(launch: &Launch, job: &Job) -> Move {
    match job.status {
        JobStatus::Dead => Move::Look,
        JobStatus::Pending => Move::Explain,
        JobStatus::Running if launch.client.is_none() || launch.note.is_some() => Move::Look,
        JobStatus::Running => Move::Nothing,
    }
}

fn running(launch: &Launch, job: &Job) -> Move {
    let counts = job.counts();
    let unheard = counts.lost > 0 || counts.unknown > 0;
    match job.status {
        JobStatus::Dead => Move::Look,
        _ if unheard || launch.client.is_none() => Move::Look,
        _ => Move::Nothing,
    }
}

fn over(launch: &Launch, job: &Job) -> Move {
    let has_reported = launch.used && !launch.closed && launch.state.as_deref() == Some("ended");
    match job.status {
        JobStatus::Dead => Move::Purge,
        _ if job.stop => Move::Nothing,
        _ if has_reported => Move::StopLater,
        _ => Move::Stop,
    }
}

/// What allocations say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// Nothing that changes anything.
    Nothing,
    /// It is on this client.
    On(String),
    /// It was taken from its client before its agent took the task: it is launched again.
    Relaunch,
    /// The task ends as an infra fault.
    Fault(String),
    /// The task ends: somebody took its job away.
    Cancel(String),
    /// The agent is gone, by the word of its own client.
    Gone(String),
    /// Nothing is heard of its client.
    Unheard(String),
}

/// By the allocations of a launch's job.
pub fn judge(launch: &Launch, job: &Job, allocations: &[Allocation], evaluations: &[Evaluation]) -> Judged {
    match launch.stands() {
        Stands::Awaited => judge_awaited(launch, job, allocations, evaluations),
        Stands::Running => judge_running(allocations),
        Stands::Over => Judged::Nothing,
    }
}

fn judge_awaited(launch: &Launch, job: &Job, allocations: &[Allocation], evaluations: &[Evaluation]) -> Judged {
    let stopped = || Judged::Cancel(format!("the Nomad job {} was stopped before its agent took the task", job.id));
    let Some(newest) = allocations.iter().max_by_key(|one| one.create_index) else {
        return match (job.status, job.stop) {
            (JobStatus::Dead, true) => stopped(),
            (JobStatus::Dead, false) => Judged::Fault(given_up(job, evaluations)),
            _ => Judged::Nothing,
        };
    };
    let status = newest.client_status;
    if !status.is_over() && !status.is_lost() {
        return Judged::On(newest.node.clone());
    }
    if job.status != JobStatus::Dead {
        // Nomad may yet place another one.
        return Judged::Nothing;
    }
    let was_taken_away = status.is_lost() || newest.desired_transition.migrate == Some(true);
    match was_taken_away {
        true if launch.attempt < MOST_ATTEMPTS => Judged::Relaunch,
        true => {
            Judged::Fault(format!("its agent was launched {MOST_ATTEMPTS} times, and its clients were lost or drained"))
        }
        false if job.stop => stopped(),
        false => Judged::Fault(format!("its agent did not take the task: {}", in_clients_words(newest))),
    }
}

fn judge_running(allocations: &[Allocation]) -> Judged {
    let alive = allocations.iter().find(|one| !one.client_status.is_over() && !one.client_status.is_lost());
    if let Some(lost) = allocations.iter().find(|one| one.client_status.is_lost()) {
        return Judged::Unheard(format!("Nomad lost its client {}", lost.node_name));
    }
    match (alive, allocations.iter().max_by_key(|one| one.create_index)) {
        (Some(alive), _) => Judged::On(alive.node.clone()),
        (None, Some(newest)) => Judged::Gone(in_clients_words(newest)),
        // What was removed from Nomad says nothing.
        (None, None) => Judged::Nothing,
    }
}

fn given_up(job: &Job, evaluations: &[Evaluation]) -> String {
    let last = evaluations.iter().max_by_key(|one| one.modify_index);
    let words = last.map(|one| one.status_description.as_str()).filter(|words| !words.is_empty());
    format!("Nomad gave the job {} up without placing it: {}", job.id, line(words.unwrap_or("no reason is given")))
}

/// The events that say why a Nomad task ended, from the one that says most.
const TELLING: [&str; 7] = [
    "Driver Failure",
    "Setup Failure",
    "Failed Validation",
    "Failed Artifact Download",
    "Task hook failed",
    "Terminated",
    "Not Restarting",
];

fn in_clients_words(allocation: &Allocation) -> String {
    let states: Vec<&TaskState> = allocation.task_states.values().collect();
    let events = || states.iter().flat_map(|state| &state.events);
    let telling = TELLING.iter().find_map(|kind| events().rfind(|event| event.kind == *kind));
    let words = match telling {
        Some(event) if !event.display_message.is_empty() => event.display_message.as_str(),
        Some(event) => event.kind.as_str(),
        None if !allocation.client_description.is_empty() => allocation.client_description.as_str(),
        None if !allocation.desired_description.is_empty() => allocation.desired_description.as_str(),
        None => "no reason is given",
    };
    match allocation.node_name.as_str() {
        "" => line(words),
        client => format!("{} (Nomad client {client})", line(words)),
    }
}

fn line(words: &str) -> String {
    // What its plugin protocol puts before a driver's own words.
    let words = words
        .strip_prefix("rpc error: code = ")
        .and_then(|rest| rest.split_once(" desc = "))
        .map_or(words, |(_, own)| own);
    let spelled = |c: char| if c.is_control() { ' ' } else { c };
    words.trim().trim_end_matches('.').chars().take(LONGEST_TEXT).map(spelled).collect()
}

#[cfg(test)]
mod tests {
    use navvy_job::resource::Size;
    use serde_json::json;

    use super::*;

    fn launch(state: Option<&str>, handed: u64, (used, closed, known): (bool, bool, bool)) -> Launch {
        Launch {
            task: "0123456789abcdef".into(),
            attempt: 1,
            fence: 1,
            token: String::new(),
            key_name: String::new(),
            parent: "navvy-docker-medium".into(),
            job: known.then(|| "navvy-docker-medium/dispatch-1".into()),
            job_index: 5,
            client: None,
            drained: false,
            note: None,
            closed,
            state: state.map(str::to_owned),
            handed,
            begun: false,
            beats: 0,
            canceling: false,
            class: "medium".into(),
            executor: navvy_job::executor::ExecutorKind::Docker,
            has_machine: false,
            size: Size::new(2, 4),
            node: 0,
            number: 1,
            slug: "gh/acme/shop".into(),
            of_job: String::new(),
            used,
        }
    }

    fn job(status: &str, stop: bool, lost: i64) -> Job {
        let counts = json!({"Queued": 0, "Starting": 0, "Running": 0, "Complete": 0, "Failed": 0, "Lost": lost});
        let job = json!({"ID": "navvy-docker-medium/dispatch-1", "ParentID": "navvy-docker-medium", "ParameterizedJob": false,
            "Stop": stop, "Status": status, "JobModifyIndex": 5, "JobSummary": {"ModifyIndex": 5, "Summary": {"task": counts}}});
        serde_json::from_value(job).unwrap()
    }

    /// Every launch that there can be, before every list.
    fn each(check: impl Fn(&Launch, Listed<'_>, Move)) {
        let both = [false, true];
        let jobs: Vec<Job> = ["pending", "running", "dead"]
            .into_iter()
            .flat_map(|status| both.map(|stop| [0, 1].map(|lost| job(status, stop, lost))))
            .flatten()
            .collect();
        for state in [None, Some("queued"), Some("claimed"), Some("ended")] {
            for (handed, used, closed, known) in (0..3)
                .flat_map(|handed| both.map(|used| (handed, used)))
                .flat_map(|(handed, used)| both.map(|closed| (handed, used, closed)))
                .flat_map(|(handed, used, closed)| both.map(|known| (handed, used, closed, known)))
            {
                let launch = launch(state, handed, (used, closed, known));
                for listed in jobs.iter().map(Some).chain([None]) {
                    for (index, has_parent) in [(4, false), (4, true), (6, false), (6, true)] {
                        let listed = Listed { index, job: listed, has_parent };
                        check(&launch, listed, decide(&launch, listed));
                    }
                }
            }
        }
    }

    #[test]
    fn no_move_starts_a_second_agent_or_takes_one_away_that_is_wanted() {
        each(|launch, listed, made| {
            let stands = launch.stands();
            match made {
                Move::Dispatch => {
                    assert!(stands == Stands::Awaited && launch.job.is_none() && listed.job.is_none());
                }
                Move::Stop | Move::StopLater | Move::Purge | Move::Forget => assert_eq!(stands, Stands::Over),
                Move::Cancel(_) | Move::Again => {
                    assert!(stands == Stands::Awaited && listed.job.is_none());
                    assert!(listed.index >= launch.job_index, "an older list says nothing of it");
                }
                Move::Explain => assert_eq!(stands, Stands::Awaited),
                Move::Look => assert_ne!(stands, Stands::Over),
                Move::Adopt(..) => assert!(launch.job.is_none() && listed.job.is_some()),
                Move::Nothing => {}
            }
            if matches!(made, Move::Purge) {
                assert_eq!(listed.job.map(|job| job.status), Some(JobStatus::Dead));
            }
        });
    }

    #[test]
    fn what_is_over_goes_in_the_end_and_what_is_dead_is_looked_at() {
        each(|launch, listed, made| {
            let is_dead = listed.job.is_some_and(|job| job.status == JobStatus::Dead);
            let is_gone = listed.job.is_none() && listed.index >= launch.job_index;
            match launch.stands() {
                Stands::Over if is_dead && launch.job.is_some() => assert_eq!(made, Move::Purge),
                Stands::Over if is_gone => assert_eq!(made, Move::Forget),
                Stands::Awaited | Stands::Running if is_dead && launch.job.is_some() => assert_eq!(made, Move::Look),
                _ => {}
            }
        });
    }
}
