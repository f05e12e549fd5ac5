//! Tasks whose steps come to their end.

use std::time::Duration;

use navvy_job::claim::{CONTINUATION_KEY, Secrets};
use navvy_job::compiled::{Run, When};
use navvy_job::outcome::Verdict;
use navvy_job::state::TaskState;
use navvy_output::StepLog;
use navvy_protocol::supervisor::{Continuation, Exit, Exited};

use super::*;
use crate::environment::fake::{Act, exits, exits_by, says};

#[tokio::test(start_paused = true)]
async fn a_task_passes_in_order_and_leaves_nothing() {
    let mut bench = Bench::new([run("build"), run("test")]);
    bench.world.script("build", [says("hi\n"), exits(0)]);
    let result = bench.run().await;
    assert_eq!(result.verdict, Verdict::Passed);
    assert_eq!(
        bench.told,
        [
            "state Preparing",
            "start 0-1 Spin up environment",
            "end 0-1 Success",
            "state Running",
            "start 1-1 build",
            "end 1-1 Success",
            "start 2-1 test",
            "end 2-1 Success",
            "state Finishing",
            "state Reporting",
            "verdict Passed",
            "state Releasing",
            "removed []",
            "state Done",
        ]
    );
    assert_eq!(
        bench.asked_from("prepare"),
        [
            "prepare",
            "probe",
            "make_directory /home/fake/project",
            "write /tmp/.bash_env-0123456789abcdef-0",
            "exec 1-1",
            "exec 2-1",
            "end",
            "destroy",
        ]
    );
    assert_eq!(
        (bench.log(0, 1).as_str(), bench.log(1, 1).as_str(), bench.log(2, 1).as_str()),
        ("made of nothing\n", "hi\n", "")
    );
    assert!(!bench.journal().exists());
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_steps_run_as_their_when_says() {
    let steps = [
        run("a"),
        run("b").when(When::OnFail),
        run("c"),
        run("d"),
        run("e").when(When::Always),
        run("f").when(When::OnFail),
    ];
    let mut bench = Bench::new(steps);
    bench.world.script("c", [exits(7)]);
    bench.world.script("f", [exits(8)]);
    let result = bench.run().await;
    assert_eq!(result.verdict, Verdict::Failed { step: 3, name: "c".to_owned() });
    assert_eq!(bench.told_of("skip "), ["2 NothingFailed", "4 JobFailed"]);
    assert_eq!(
        bench.told_of("end "),
        ["0-1 Success", "1-1 Success", "3-1 ExitCode { code: 7 }", "5-1 Success", "6-1 ExitCode { code: 8 }"]
    );
    assert!(result.failed_log.is_some_and(|log| log == StepLog::path_for(&bench.context.directory, 3, 1)));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_halts_passes_and_runs_nothing_more() {
    let mut bench = Bench::new([run("a"), run("b").when(When::Always)]);
    bench.world.script("a", [Act::Ends(Exited { halted: true, ..exits_by(Exit::Code(0)) })]);
    assert_eq!(bench.run().await.verdict, Verdict::Passed);
    assert_eq!(bench.told_of("skip "), ["2 Halted"]);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_fails_is_tried_again_and_each_attempt_has_its_log() {
    let mut bench = Bench::new([run("flaky").with(|run| run.max_auto_reruns = 3)]);
    bench.world.script("flaky", [says("one"), exits(1)]);
    bench.world.script("flaky", [says("two"), Act::Ends(exits_by(Exit::Signal(11)))]);
    bench.world.script("flaky", [says("three")]);
    assert_eq!(bench.run().await.verdict, Verdict::Passed);
    assert_eq!(
        bench.told_of("end 1"),
        ["-1 ExitCode { code: 1 }, again", "-2 Signal { signal: 11 }, again", "-3 Success"]
    );
    assert_eq!([1, 2, 3].map(|attempt| bench.log(1, attempt)), ["one", "two", "three"]);
}

#[tokio::test(start_paused = true)]
async fn the_last_attempt_is_the_one_that_counts() {
    let mut bench = Bench::new([run("bad").with(|run| run.max_auto_reruns = 1), run("next")]);
    bench.world.script("bad", [exits(1)]);
    let result = bench.run().await;
    assert_eq!(result.verdict, Verdict::Failed { step: 1, name: "bad".to_owned() });
    assert_eq!(bench.told_of("end 1"), ["-1 ExitCode { code: 1 }, again", "-2 ExitCode { code: 1 }"]);
    assert!(result.failed_log.is_some_and(|log| log == StepLog::path_for(&bench.context.directory, 1, 2)));
}

#[tokio::test(start_paused = true)]
async fn another_attempt_comes_after_its_delay() {
    const DELAY: Duration = Duration::from_secs(60);
    let again = |run: &mut Run| (run.max_auto_reruns, run.auto_rerun_delay) = (1, DELAY);
    let mut bench = Bench::new([run("flaky").with(again)]);
    bench.world.script("flaky", [exits(1)]);
    bench.world.script("flaky", [exits(0)]);
    let running = bench.start();
    bench.until_told("end 1-1 ExitCode { code: 1 }, again").await;
    tokio::time::advance(DELAY - Duration::from_millis(5)).await;
    assert!(!bench.has_told("start 1-2 flaky"));
    tokio::time::advance(Duration::from_millis(5)).await;
    let result = bench.end(running).await;
    assert_eq!((result.verdict, result.duration), (Verdict::Passed, DELAY));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_costs_neither_bytes_nor_the_step() {
    let mut bench = Bench::new([run("build")]);
    bench.world.script("build", [says("before "), Act::HangsUp, says("between "), Act::HangsUp, says("after")]);
    assert_eq!(bench.run().await.verdict, Verdict::Passed);
    assert_eq!(bench.log(1, 1), "before between after");
    assert_eq!((bench.world.count("exec 1-1"), bench.world.count("attach 1-1") > 0), (1, true));
}

#[tokio::test(start_paused = true)]
async fn what_a_step_leaves_running_ends_with_the_job() {
    let mut bench = Bench::new([run("daemon"), run("use")]);
    let started = Exited { left_running: 2, ..exits_by(Exit::Code(0)) };
    bench.world.script("daemon", [says("up\n"), Act::Ends(started), says("served\n")]);
    assert_eq!(bench.run().await.verdict, Verdict::Passed);
    assert_eq!(bench.world.count("stop 1-1 within 1s"), 1);
    assert_eq!(bench.log(1, 1), "up\nserved\n");
}

#[tokio::test(start_paused = true)]
async fn a_background_step_ends_with_the_job_or_is_told_of() {
    let background = |run: &mut Run| run.background = true;
    let mut bench = Bench::new([run("serve").with(background), run("gone").with(background), run("use")]);
    bench.world.script("serve", [says("listening"), Act::UntilStopped]);
    bench.world.script("gone", [exits(3)]);
    bench.world.script("use", [Act::Waits("gone")]);
    let running = bench.start();
    bench.until_told("end 2-1 ExitCode { code: 3 }").await;
    bench.world.say("gone");
    assert_eq!(bench.end(running).await.verdict, Verdict::Passed);
    assert_eq!(bench.told_of("end 1"), ["-1 Canceled"]);
    assert_eq!(bench.told_of("warning "), ["background step 2 (gone) ended by itself after 0ms: exit code 3"]);
    assert_eq!((bench.world.count("stop 1-1 within 1s"), bench.world.count("stop 2-1")), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn the_output_of_a_background_step_that_cannot_be_ended_is_told_to_be_cut() {
    let mut bench = Bench::new([run("serve").with(|run| run.background = true), run("use")]);
    bench.world.script("serve", [says("listening"), Act::Waits("never")]);
    let running = bench.start();
    bench.world.until_asked("stop 1-1 within 1s").await;
    bench.pass_until_told("state Reporting").await;
    assert_eq!(bench.end(running).await.verdict, Verdict::Passed);
    assert_eq!(bench.told_of("end 1"), ["-1 Canceled"]);
    let cut = "warning the output of background step 1 (serve) is no longer kept: its end did not come within 5.";
    assert_eq!(bench.told_of(cut).len(), 1, "{:#?}", bench.told);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_an_environment_is_told_and_stays_in_the_journal() {
    let mut bench = Bench::new([run("build")]);
    bench.world.leave(&["container x"]);
    assert_eq!(bench.run().await.verdict, Verdict::Passed);
    assert!(bench.has_told("removed [\"container x\"]"));
    let left = navvy_journal::load(&bench.journal()).unwrap();
    assert_eq!(left.known().unwrap().state, TaskState::Done);
}

#[tokio::test(start_paused = true)]
async fn a_setup_job_continues_its_pipeline_whatever_became_of_it() {
    let mut bench = Bench::new([run("setup")]);
    bench.claim.may_continue = true;
    bench.secrets = Secrets::new(vec![(CONTINUATION_KEY.to_owned(), "key".to_owned())]);
    let continuation = Continuation { configuration: "jobs: {}".to_owned(), parameters: serde_json::Map::new() };
    bench.world.continue_with(continuation.clone());
    bench.world.script("setup", [exits(1)]);
    let result = bench.run().await;
    assert_eq!(result.verdict, Verdict::Failed { step: 1, name: "setup".to_owned() });
    assert_eq!(result.continuation, Some(continuation));
}
