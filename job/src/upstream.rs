//! Which jobs a job comes after, directly or not: whose workspace layers it sees. Pure.

use std::collections::BTreeSet;

use crate::claim::Upstream;
use crate::pipeline::WorkflowJob;

/// The jobs that the job `name` comes after, in an order in which they may have run: each behind those that it requires.
pub fn upstream(jobs: &[WorkflowJob], name: &str) -> Vec<Upstream> {
    let above = above(jobs, name);
    let mut ordered: Vec<&str> = Vec::new();
    // Where several jobs may be next, the config's order decides. A circle would never have been compiled.
    while let Some(next) = above
        .iter()
        .find(|job| !ordered.contains(&job.as_str()) && required(jobs, job).all(|before| ordered.contains(&before)))
    {
        ordered.push(next);
    }
    let index = |job: &String| ordered.iter().position(|known| known == job);
    let after = |job: &str| self::above(jobs, job).iter().filter_map(index).collect();
    ordered.iter().map(|job| Upstream { job: (*job).to_owned(), after: after(job) }).collect()
}

fn required<'a>(jobs: &'a [WorkflowJob], name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    let job = jobs.iter().find(|job| job.name == name);
    job.into_iter().flat_map(|job| job.requires.iter().map(|requirement| requirement.job.as_str()))
}

/// The jobs that the job `name` comes after, in the order of the config.
fn above(jobs: &[WorkflowJob], name: &str) -> Vec<String> {
    let (mut found, mut open) = (BTreeSet::new(), vec![name]);
    while let Some(next) = open.pop() {
        open.extend(required(jobs, next).filter(|job| found.insert(*job)));
    }
    jobs.iter().map(|job| job.name.clone()).filter(|job| found.contains(job.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made::job_after;

    #[test]
    fn jobs_come_in_the_order_in_which_they_ran() {
        let jobs = [
            job_after("last", &["left", "right"]),
            job_after("left", &["first"]),
            job_after("right", &["first"]),
            job_after("other", &[]),
            job_after("first", &[]),
        ];
        let of = |name: &str| {
            let shown = |up: Upstream| format!("{} {:?}", up.job, up.after);
            upstream(&jobs, name).into_iter().map(shown).collect::<Vec<_>>()
        };
        assert_eq!(of("last"), ["first []", "left [0]", "right [0]"]);
        assert_eq!(of("left"), ["first []"]);
        assert_eq!(of("other"), [] as [&str; 0]);
    }
}
