//! From the queue to the end, and what may happen on the way.

use super::double::Fault;
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

#[tokio::test]
async fn a_dispatch_whose_answer_was_lost_starts_no_second_agent_whoever_goes_on() {
    for state in databases().await {
        let bench = Bench::new(&state).await;
        bench.nomad.fail("POST /v1/job/", Fault::Lost, 1);
        bench.submit(ONE_JOB).await;
        let [job] = &*bench.dispatched(1).await else { panic!("one job") };
        let token = bench.nomad.payload(job);
        // What is known of it is in the database alone.
        let bench = bench.restarted().await;
        until(|| async { bench.known(job).await.then_some(()) }).await;
        assert_eq!(bench.nomad.dispatched(), std::slice::from_ref(job));
        assert_eq!(bench.nomad.payload(job), token);
        bench.nomad.place(job, "one");
        let taken = bench.claimed(job).await;
        bench.pass(&taken).await;
        bench.nomad.ended(job, "complete", ("Terminated", "Exit Code: 0"));
        bench.clean().await;
    }
}

#[tokio::test]
async fn a_task_that_nomad_forgot_is_dispatched_again_and_one_whose_job_was_removed_is_canceled() {
    for state in databases().await {
        let bench = Bench::new(&state).await;
        bench.submit(ONE_JOB).await;
        let first = bench.dispatched(1).await;
        until(|| async { bench.known(&first[0]).await.then_some(()) }).await;
        // Another cluster, or an older state of it.
        bench.nomad.change(|inner| inner.jobs.clear());
        let again =
            until(|| async { Some(bench.nomad.dispatched()).filter(|jobs| jobs.len() == 1 && *jobs != first) }).await;
        until(|| async { bench.known(&again[0]).await.then_some(()) }).await;
        bench.nomad.change(|inner| inner.jobs.remove(&again[0]));
        let end = bench.ended().await;
        assert!(end.contains("canceled"), "{end}");
        bench.clean().await;
    }
}

#[tokio::test]
async fn an_agent_that_did_not_come_ends_the_task_in_the_drivers_words() {
    for state in databases().await {
        let bench = Bench::new(&state).await;
        let pipeline = bench.submit(ONE_JOB).await;
        let job = bench.dispatched(1).await.remove(0);
        bench.nomad.place(&job, "one");
        bench.nomad.ended(
            &job,
            "failed",
            ("Driver Failure", "rpc error: code = Internal desc = no agent binary at /usr/bin/navvy\nor elsewhere"),
        );
        let end = bench.ended().await;
        assert!(end.contains("infra") && end.contains("no agent binary at /usr/bin/navvy or elsewhere"), "{end}");
        assert!(end.contains("client-one") && !end.contains("rpc error"), "{end}");
        assert_eq!(pipeline_state(&state, &pipeline).await, "error");
        bench.clean().await;
    }
}

#[tokio::test]
async fn a_job_that_is_stopped_before_its_agent_came_cancels_the_task_and_says_so() {
    for state in databases().await {
        let bench = Bench::new(&state).await;
        let pipeline = bench.submit(ONE_JOB).await;
        let job = bench.dispatched(1).await.remove(0);
        bench.nomad.change(|inner| {
            inner.jobs.get_mut(&job).unwrap()["Stop"] = true.into();
            inner.stand(&job, "dead", "");
        });
        let end = bench.ended().await;
        assert!(end.contains("canceled"), "{end}");
        assert_eq!(pipeline_state(&state, &pipeline).await, "canceled");
        let select = "SELECT body FROM events WHERE pipeline = $1 ORDER BY number DESC LIMIT 1";
        let row = sqlx::query(select).bind(&pipeline).fetch_one(state.pool()).await.unwrap();
        let told: String = row.try_get(0).unwrap();
        assert!(told.contains("was stopped before its agent took the task"), "{told}");
        bench.clean().await;
    }
}

#[tokio::test]
async fn a_pipeline_that_is_canceled_and_a_task_that_a_runner_took_leave_no_job() {
    for state in databases().await {
        let bench = Bench::new(&state).await;
        let pipeline = bench.submit(ONE_JOB).await;
        let job = bench.dispatched(1).await.remove(0);
        until(|| async { bench.known(&job).await.then_some(()) }).await;
        bench.claims.conductor().cancel(&pipeline, navvy_job::outcome::CancelReason::User, false, "me").await.unwrap();
        bench.clean().await;
        bench.submit(ONE_JOB).await;
        let job = bench.dispatched(1).await.remove(0);
        until(|| async { bench.known(&job).await.then_some(()) }).await;
        let taken = bench.claims.take("*", crate::claims::Room::ANY, "runner").await.unwrap().unwrap();
        bench.clean().await;
        bench.pass(&taken).await;
    }
}

#[tokio::test]
async fn an_agent_whose_process_is_gone_is_lost_at_once_and_its_task_launched_again_if_nothing_had_begun() {
    for state in databases().await {
        let bench = Bench::new(&state).await;
        bench.submit(ONE_JOB).await;
        let first = bench.dispatched(1).await.remove(0);
        bench.nomad.place(&first, "one");
        let old = bench.nomad.payload(&first);
        let taken = bench.claimed(&first).await;
        let task = taken.claim.task.as_str();
        bench.nomad.ended(&first, "failed", ("Terminated", "Exit Code: 137, Signal: 9"));
        let second = until(|| async { bench.nomad.dispatched().into_iter().find(|job| *job != first) }).await;
        assert_ne!(bench.nomad.payload(&second), old, "a token that was used is good for nothing");
        bench.nomad.place(&second, "one");
        bench.claimed(&second).await;
        bench.claims.beat(task, 2, "running").await.unwrap();
        bench.nomad.ended(&second, "failed", ("Terminated", "Exit Code: 137, Signal: 9"));
        let end = bench.ended().await;
        assert!(end.contains("infra") && end.contains("Signal: 9"), "{end}");
        bench.clean().await;
    }
}

#[tokio::test]
async fn a_client_that_nomad_lost_costs_a_begun_task_once_its_agent_is_silent_and_never_before() {
    for state in databases().await {
        let bench = Bench::new(&state).await;
        bench.submit(ONE_JOB).await;
        let job = bench.dispatched(1).await.remove(0);
        bench.nomad.place(&job, "one");
        let taken = bench.claimed(&job).await;
        let task = taken.claim.task.as_str();
        bench.claims.beat(task, 1, "running").await.unwrap();
        bench.nomad.ended(&job, "lost", ("Lost", "the client is gone"));
        let looks = || bench.nomad.count(&format!("GET /v1/job/{job}/allocations"));
        let before = looks();
        // It still speaks, so it still works.
        until(|| async {
            bench.claims.beat(task, 1, "running").await.unwrap();
            (looks() > before + 3).then_some(())
        })
        .await;
        assert_eq!(bench.task().await.0, "claimed");
        let end = bench.ended().await;
        assert!(end.contains("Nomad lost its client client-one"), "{end}");
        bench.clean().await;
    }
}

#[tokio::test]
async fn a_client_that_is_drained_or_lost_before_the_agent_came_costs_nothing() {
    for state in databases().await {
        let bench = Bench::new(&state).await;
        bench.submit(ONE_JOB).await;
        let first = bench.dispatched(1).await.remove(0);
        bench.nomad.place(&first, "one");
        bench.nomad.allocation(&first, |one| one["DesiredTransition"]["Migrate"] = true.into());
        bench.nomad.ended(&first, "complete", ("Killed", "Task successfully killed"));
        let second = until(|| async { bench.nomad.dispatched().into_iter().find(|job| *job != first) }).await;
        bench.nomad.place(&second, "two");
        bench.nomad.ended(&second, "lost", ("Lost", ""));
        let third =
            until(|| async { bench.nomad.dispatched().into_iter().find(|job| *job != first && *job != second) }).await;
        bench.nomad.place(&third, "two");
        let taken = bench.claimed(&third).await;
        bench.pass(&taken).await;
        bench.nomad.ended(&third, "complete", ("Terminated", ""));
        bench.clean().await;
    }
}

#[tokio::test]
async fn an_agent_that_its_drained_client_stops_says_so_by_the_processors_knowledge() {
    for state in databases().await {
        let bench = Bench::new(&state).await;
        bench.nomad.add_node("one", 4, 8192);
        bench.submit(ONE_JOB).await;
        let job = bench.dispatched(1).await.remove(0);
        bench.nomad.place(&job, "one");
        let taken = bench.claimed(&job).await;
        let task = taken.claim.task.as_str();
        until(|| async { bench.client().await.filter(|client| client == "one") }).await;
        assert!(!bench.launcher.was_drained(task, 1).await);
        bench.nomad.allocation(&job, |one| one["DesiredTransition"]["Migrate"] = true.into());
        assert!(bench.launcher.was_drained(task, 1).await, "Nomad says so");
        bench.nomad.allocation(&job, |one| one["DesiredTransition"]["Migrate"] = serde_json::Value::Null);
        bench.nomad.change(|inner| inner.nodes.get_mut("one").unwrap()["Drain"] = true.into());
        until(|| async { bench.claims.was_drained(task, 1).await.unwrap().then_some(()) }).await;
        bench.nomad.fail("GET /v1/job/", Fault::Silent, 1);
        assert!(bench.launcher.was_drained(task, 1).await, "an agent's report waits some seconds only");
        bench.nomad.fail("GET /v1/job/", Fault::Says(500, "no leader"), usize::MAX);
        assert!(bench.launcher.was_drained(task, 1).await, "the database knows it where Nomad does not answer");
        assert!(!bench.launcher.was_drained(task, 2).await, "another agent's");
    }
}

#[tokio::test]
async fn while_nomad_is_away_or_talks_nonsense_the_queue_grows_and_nothing_is_lost() {
    for state in databases().await {
        let bench = Bench::new(&state).await;
        bench.submit(ONE_JOB).await;
        let first = bench.dispatched(1).await.remove(0);
        until(|| async { bench.known(&first).await.then_some(()) }).await;
        for (call, fault, told) in [
            (
                "GET /v1/jobs",
                Fault::Says(500, "No cluster leader"),
                "GET /v1/jobs: Nomad answers 500 Internal Server Error: No cluster leader",
            ),
            ("GET /v1/jobs", Fault::Says(429, ""), "429"),
            (
                "GET /v1/jobs",
                Fault::Says(200, "null"),
                "GET /v1/jobs: Nomad's answer is not understood: invalid type: null",
            ),
            ("GET /v1/jobs", Fault::Says(200, "[{\"ID\": \"navvy-docker-medium\"}]"), "missing field `ParentID`"),
            ("GET /v1/jobs", Fault::Says(200, "<html>"), "not understood"),
            (
                "GET /v1/nodes",
                Fault::Says(403, "Permission denied"),
                "GET /v1/nodes: Nomad answers 403 Forbidden: Permission denied",
            ),
            ("POST /v1/job/", Fault::Says(500, "dispatch failed"), "dispatch failed"),
            ("POST /v1/job/", Fault::Says(200, "{}"), "missing field `DispatchedJobID`"),
            (
                "POST /v1/job/",
                Fault::Says(200, r#"{"DispatchedJobID": "web", "JobCreateIndex": 1}"#),
                "POST /v1/job/navvy-docker-medium/dispatch: Nomad's answer is not understood: it names a job that was not",
            ),
        ] {
            bench.nomad.fail(call, fault, 2);
            if call.starts_with("POST") {
                bench.submit(ONE_JOB).await;
            }
            let troubles = || bench.launcher.standing().troubles().join("; ");
            until(|| async { troubles().contains(told).then_some(()) }).await;
            until(|| async { troubles().is_empty().then_some(()) }).await;
        }
        let jobs = bench.dispatched(4).await;
        assert!(jobs.contains(&first), "no answer that was not understood ended anything");
        let row =
            sqlx::query("SELECT COUNT(*) FROM tasks WHERE state = 'queued'").fetch_one(state.pool()).await.unwrap();
        assert_eq!(row.try_get::<i64, _>(0).unwrap(), 4);
    }
}

#[tokio::test]
async fn a_processor_is_ready_once_nomad_has_answered_and_not_before() {
    let (_place, mut health) = crate::probes::tests::health().await;
    let nomad = Double::start().await;
    let claims = claims(&health.state);
    let proxies = Proxies::default();
    let launcher =
        Launcher::new(settings(&nomad.address), &proxies, claims, "http://processor:8585".to_owned()).unwrap();
    health.launcher = Some(Arc::clone(&launcher));
    let health = Arc::new(health);
    let is_ready = || async {
        crate::probes::ready(axum::extract::State(Arc::clone(&health))).await.status() == axum::http::StatusCode::OK
    };
    let figure = "circle_nomad_server_agent_poll_failure";
    let fails = || crate::launch::figures::prometheus(&health.of_nomad()).contains(&format!("{figure} 1"));
    assert!(!is_ready().await && fails());
    let running = tokio::spawn(async move { launcher.run().await });
    until(|| async { is_ready().await.then_some(()) }).await;
    assert!(!fails());
    running.abort();
}

#[tokio::test]
async fn why_a_task_waits_is_said_to_people_until_it_waits_no_more() {
    for state in databases().await {
        let bench = Bench::new(&state).await;
        let pipeline = bench.submit(&ONE_JOB.replace("steps:", "resource_class: large, steps:")).await;
        let job = bench.dispatched(1).await.remove(0);
        let note = |wanted: &'static str| {
            let bench = &bench;
            async move {
                until(|| async { bench.note().await.filter(|note| note == wanted) }).await;
            }
        };
        note("no Nomad client is there").await;
        bench.nomad.add_node("one", 2, 4096);
        note("needs 4 CPUs and 8 GiB, and no client is so large: the largest has 2 CPUs and 4 GiB for tasks").await;
        bench.nomad.add_node("two", 4, 16384);
        bench.nomad.change(|inner| inner.nodes.get_mut("two").unwrap()["SchedulingEligibility"] = "ineligible".into());
        note("the only client that is large enough is being drained, or takes nothing new").await;
        bench.nomad.change(|inner| inner.nodes.get_mut("two").unwrap()["SchedulingEligibility"] = "eligible".into());
        // Something else is there.
        bench.nomad.place("navvy-docker-large", "two");
        bench.nomad.allocation("navvy-docker-large", |one| {
            one["AllocatedResources"]["Tasks"]["agent"]["Cpu"]["CpuShares"] = 2000.into();
        });
        bench.nomad.blocked(&job, serde_json::json!({"NodesEvaluated": 2, "DimensionExhausted": {"cpu": 2}}));
        note("needs 4 CPUs, the largest client has 2 free").await;
        assert_eq!(bench.shown(&pipeline).await, ("queued".to_owned(), bench.note().await));
        let told = crate::claims::tests::events(&state, &pipeline).await;
        assert_eq!(told, ["run_started", "job_waiting"], "readers hear of it, and not of each figure");
        bench.nomad.place(&job, "two");
        until(|| async { bench.note().await.is_none().then_some(()) }).await;
    }
}

#[tokio::test]
async fn only_what_is_this_databases_and_known_to_nobody_is_removed() {
    for state in databases().await {
        let bench = Bench::new(&state).await;
        bench.submit(ONE_JOB).await;
        let job = bench.dispatched(1).await.remove(0);
        until(|| async { bench.known(&job).await.then_some(()) }).await;
        let strange = |id: &str, change: &dyn Fn(&mut serde_json::Value)| {
            bench.nomad.change(|inner| {
                let mut other = inner.jobs[&job].clone();
                other["ID"] = id.into();
                change(&mut other);
                inner.jobs.insert(id.to_owned(), other);
            });
        };
        strange("navvy-docker-medium/dispatch-of-others-1", &|job| job["Meta"]["fleet"] = "another database".into());
        strange("navvy-web/dispatch-2", &|job| job["Meta"] = serde_json::json!({"task": "x"}));
        strange("navvy-docker-medium/dispatch-left-3", &|job| job["Meta"]["attempt"] = "7".into());
        let left = ["navvy-docker-medium/dispatch-of-others-1", job.as_str(), "navvy-web/dispatch-2"];
        until(|| async { (bench.nomad.dispatched().len() == 3).then_some(()) }).await;
        let mut left = left.map(str::to_owned).to_vec();
        left.sort();
        assert_eq!(bench.nomad.dispatched(), left);
    }
}

#[tokio::test]
async fn a_class_whose_job_somebody_changed_stopped_or_removed_is_registered_again() {
    for state in databases().await {
        let bench = Bench::new(&state).await;
        bench.submit(ONE_JOB).await;
        bench.dispatched(1).await;
        let parent = "navvy-docker-medium";
        let changes: [&(dyn Fn(&mut double::Inner) + Sync); 3] = [
            &|inner| {
                let index = inner.index;
                let job = inner.jobs.get_mut(parent).unwrap();
                job["TaskGroups"][0]["Tasks"][0]["Driver"] = "raw_exec".into();
                job["JobModifyIndex"] = index.into();
            },
            &|inner| inner.jobs.get_mut(parent).unwrap()["Stop"] = true.into(),
            &|inner| drop(inner.jobs.remove(parent)),
        ];
        for (nth, change) in changes.into_iter().enumerate() {
            let before = bench.nomad.count("GET /v1/jobs");
            bench.nomad.change(change);
            until(|| async { (bench.nomad.count("GET /v1/jobs") > before).then_some(()) }).await;
            // Whoever asks again has understood the answer.
            bench.nomad.change(|_| ());
            until(|| async { (bench.nomad.count("GET /v1/jobs") > before + 1).then_some(()) }).await;
            bench.submit(ONE_JOB).await;
            bench.dispatched(nth + 2).await;
            assert_eq!(bench.nomad.count("POST /v1/jobs"), nth + 2);
            assert_eq!(bench.nomad.inner().jobs[parent]["TaskGroups"][0]["Tasks"][0]["Driver"], "navvy");
        }
    }
}

#[tokio::test]
async fn classes_of_own_runners_and_jobs_whose_group_is_busy_are_not_launched() {
    let config = "
version: 2.1
jobs:
  own: {docker: [{image: i}], resource_class: acme/big, steps: [{run: make}]}
  one: {docker: [{image: i}], steps: [{run: make}]}
  two: {docker: [{image: i}], resource_class: large, steps: [{run: make}]}
workflows: {main: {jobs: [own, {one: {serial-group: g}}, {two: {serial-group: g}}]}}
";
    for state in databases().await {
        let bench = Bench::new(&state).await;
        bench.submit(config).await;
        let first = bench.dispatched(1).await.remove(0);
        bench.nomad.place(&first, "one");
        let taken = bench.claimed(&first).await;
        assert_eq!(bench.nomad.dispatched().len(), 1);
        bench.pass(&taken).await;
        bench.nomad.ended(&first, "complete", ("Terminated", ""));
        until(|| async { bench.nomad.dispatched().into_iter().find(|job| *job != first) }).await;
        assert_eq!(bench.nomad.inner().jobs.keys().filter(|id| id.starts_with("navvy-docker-acme")).count(), 0);
    }
}

#[tokio::test]
async fn of_two_processors_one_launches_and_the_other_goes_on_when_it_dies() {
    for database in databases().await {
        if database.dialect() == crate::state::Dialect::Sqlite {
            continue;
        }
        let one = Bench::new(&database).await;
        one.submit(ONE_JOB).await;
        one.dispatched(1).await;
        let other = database.again().await;
        let two = Bench::on(&other, one.nomad.clone()).await;
        until(|| async { (one.nomad.count("GET /v1/status/leader") > 0).then_some(()) }).await;
        for _ in 0..5 {
            two.submit(ONE_JOB).await;
        }
        one.dispatched(6).await;
        assert_eq!(one.nomad.count("POST /v1/job/"), 6, "none was asked for twice");
        drop(one);
        two.submit(ONE_JOB).await;
        two.dispatched(7).await;
        assert_eq!(two.nomad.count("POST /v1/job/"), 7);
    }
}

#[tokio::test]
async fn the_token_is_read_again_when_its_file_changes_and_never_told() {
    let (directory, state) = crate::state::tests::sqlite().await;
    let nomad = Double::start().await;
    nomad.inner().token = Some("11111111-second".to_owned());
    let token_file = directory.path().join("token");
    std::fs::write(&token_file, "11111111-first\n").unwrap();
    let settings = NomadSettings { token_file: Some(token_file.clone()), ..settings(&nomad.address) };
    let bench = Bench::with(&state, nomad, settings);
    bench.submit(ONE_JOB).await;
    let troubles = || bench.launcher.standing().troubles().join("; ");
    until(|| async { troubles().contains("403 Forbidden: Permission denied").then_some(()) }).await;
    assert!(!troubles().contains("11111111") && !format!("{:?}", bench.launcher.nomad).contains("11111111"));
    std::fs::write(&token_file, "11111111-second\n").unwrap();
    bench.dispatched(1).await;
    std::fs::write(&token_file, "").unwrap();
    until(|| async { troubles().contains("token: it is empty").then_some(()) }).await;
}

const KINDS: &str = "
version: 2.1
jobs:
  plain: {docker: [{image: i}], steps: [{run: make}]}
  builds: {docker: [{image: i}], steps: [setup_remote_docker, {run: make}]}
  whole: {machine: true, resource_class: large, steps: [setup_remote_docker, {run: make}]}
workflows: {main: {jobs: [plain, builds, whole]}}
";

#[tokio::test]
async fn each_kind_of_job_is_asked_for_with_what_it_takes_of_its_client() {
    for state in databases().await {
        let bench = Bench::new(&state).await;
        bench.submit(KINDS).await;
        bench.dispatched(3).await;
        let inner = bench.nomad.inner();
        for (parent, environment, cpu, memory) in [
            ("navvy-docker-medium", "docker", 2000, 4096),
            ("navvy-docker-machine-medium", "docker", 4000, 4096 + 7680),
            ("navvy-machine-large", "vm", 4000, 15 << 10),
        ] {
            let task = &inner.jobs[parent]["TaskGroups"][0]["Tasks"][0];
            assert_eq!(task["Config"]["environment"], environment, "{parent}");
            assert_eq!((&task["Resources"]["CPU"], &task["Resources"]["MemoryMB"]), (&cpu.into(), &memory.into()));
        }
    }
}
