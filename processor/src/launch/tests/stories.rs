//! From the queue to the end, and what may happen on the way.

use super::*;
use crate::claims::tests::pipeline_state;
use crate::state::tests::databases;

#[tokio::test]
async fn a_task_is_dispatched_once_run_by_its_agent_and_its_job_purged() {
    for state in databases().await {
        let bench = Bench::new(&state).await;
        bench.nomad.add_node("one", 4, 8192);
        let pipeline = bench.submit(ONE_JOB).await;
        let [job] = &*bench.dispatched(1).await else { panic!("one job") };
        let (task, parent) = {
            let inner = bench.nomad.inner();
            assert_eq!(inner.jobs[job]["Meta"]["processor"], "http://processor:8585");
            (inner.jobs[job]["Meta"]["task"].as_str().unwrap().to_owned(), inner.jobs["navvy-docker-medium"].clone())
        };
        assert!(job.starts_with(&format!("navvy-docker-medium/dispatch-{task}-0-build-acme-shop-1-")), "{job}");
        assert_eq!(parent["TaskGroups"][0]["Tasks"][0]["Driver"], "navvy");
        assert_eq!(parent["TaskGroups"][0]["Tasks"][0]["Resources"]["CPU"], 2000);
        bench.nomad.place(job, "one");
        let taken = bench.claimed(job).await;
        assert!(matches!(bench.claim(job).await, Launched::Refused), "a launch token is good for one agent");
        bench.pass(&taken).await;
        assert_eq!(pipeline_state(&state, &pipeline).await, "success");
        bench.nomad.ended(job, "complete", ("Terminated", "Exit Code: 0"));
        bench.clean().await;
        assert_eq!(bench.nomad.count("POST /v1/jobs"), 1, "the class's job is registered once");
    }
}
