//! Tasks that are ended before their steps are over.

use std::time::Duration;

use navvy_environment::request::Died;
use navvy_job::outcome::{CancelReason, Verdict};
use navvy_protocol::supervisor::{ABANDONED, Exit, Exited, Failure, FailureKind};
use tokio::sync::oneshot;
use tokio::time::advance;

use super::bench::{GRACE, LIMIT};
use super::*;
use crate::environment::fake::{Act, exits, exits_by, says};
use crate::task::Turn;

/// A step that runs until it is ended, and one behind it.
fn endless(act: Act) -> Bench {
    endless_until([act])
}

fn endless_until(acts: impl IntoIterator<Item = Act>) -> Bench {
    let bench = Bench::new([run("endless"), run("next").when(When::Always)]);
    bench.world.script("endless", std::iter::once(says("on and on")).chain(acts).collect::<Vec<_>>());
    bench
}

fn canceled(reason: CancelReason) -> Verdict {
    Verdict::Canceled { reason }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_canceled_once_gives_its_step_grace() {
    for reason in [CancelReason::User, CancelReason::Shutdown, CancelReason::LeaseLost] {
        let mut bench = endless(Act::UntilStopped);
        let running = bench.start();
        bench.world.until_written("1-1", "on and on").await;
        bench.cancel(reason, false);
        let result = bench.end(running).await;
        assert_eq!((result.verdict, result.cut_short), (canceled(reason), true));
        assert_eq!((bench.told_of("end 1"), bench.told_of("skip ")), (vec!["-1 Canceled"], vec!["2 Stopped"]));
        assert_eq!(bench.asked_from("exec 1-1"), ["exec 1-1", "stop 1-1 within 10s", "end", "destroy"]);
        assert_eq!(bench.log(1, 1), "on and on");
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_canceled_twice_ends_its_step_at_once_and_keeps_its_first_reason() {
    let mut bench = endless(Act::UntilKilled);
    let running = bench.start();
    bench.world.until_written("1-1", "on and on").await;
    bench.cancel(CancelReason::Shutdown, false);
    bench.world.until_asked("stop 1-1 within 10s").await;
    assert!(!bench.has_told("end 1-1 Canceled"));
    bench.cancel(CancelReason::User, true);
    let result = bench.end(running).await;
    assert_eq!(result.verdict, canceled(CancelReason::Shutdown));
    assert_eq!(bench.world.count("stop 1-1 within 10s"), 1);
    assert!(bench.world.count("stop 1-1 within 0ns") > 0);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_cannot_be_ended_is_given_up_some_time_after_its_grace() {
    let mut bench = endless(Act::Waits("never"));
    let running = bench.start();
    bench.world.until_written("1-1", "on and on").await;
    bench.cancel(CancelReason::User, false);
    bench.world.until_asked("stop 1-1 within 10s").await;
    advance(GRACE + Duration::from_secs(10)).await;
    // Nobody waits longer than this for the last bytes of what is lost.
    bench.pass_until_told("state Reporting").await;
    assert_eq!(bench.end(running).await.verdict, canceled(CancelReason::User));
}

#[tokio::test(start_paused = true)]
async fn the_jobs_limit_ends_the_step_that_runs() {
    let mut bench = endless(Act::UntilStopped);
    let running = bench.start();
    bench.world.until_written("1-1", "on and on").await;
    advance(LIMIT - Duration::from_millis(5)).await;
    assert_eq!(bench.world.count("stop"), 0);
    advance(Duration::from_millis(5)).await;
    let result = bench.end(running).await;
    assert_eq!((result.verdict, result.cut_short), (Verdict::TimedOut { limit: LIMIT }, false));
    assert_eq!(bench.told_of("skip "), ["2 Stopped"]);
    assert_eq!(bench.world.count("stop 1-1 within 10s"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_writes_nothing_is_ended_and_one_that_writes_is_not() {
    let limit = Duration::from_secs(60);
    let silent = run("silent").with(|run| run.no_output_timeout = limit);
    let mut bench = Bench::new([silent, run("next").when(When::Always)]);
    bench.world.script("silent", [says("one"), Act::Waits("go on"), says("two"), Act::UntilStopped]);
    let running = bench.start();
    bench.world.until_written("1-1", "one").await;
    bench.until_logged(1, "one").await;
    advance(limit - Duration::from_secs(1)).await;
    bench.world.say("go on");
    bench.until_logged(1, "onetwo").await;
    advance(limit - Duration::from_secs(1)).await;
    assert!(!bench.has_told(&format!("end 1-1 NoOutput {{ limit: {limit:?} }}")));
    assert_eq!(bench.world.count("stop"), 0);
    advance(Duration::from_secs(1)).await;
    let result = bench.end(running).await;
    assert_eq!(result.verdict, Verdict::Failed { step: 1, name: "silent".to_owned() });
    assert_eq!(bench.told_of("end "), ["0-1 Success", "1-1 NoOutput { limit: 60s }", "2-1 Success"]);
}

#[tokio::test(start_paused = true)]
async fn a_step_of_which_more_is_on_its_way_is_not_silent() {
    let limit = Duration::from_secs(60);
    let mut bench = Bench::new([run("speaks").with(|run| run.no_output_timeout = limit)]);
    // As where this process, or the one that follows the step, stood still.
    bench.world.script("speaks", [Act::SaysOf("one", 3), Act::Waits("go on"), Act::SaysOf("two", 0), exits(0)]);
    let running = bench.start();
    bench.until_logged(1, "one").await;
    for _ in 0..3 {
        advance(limit).await;
        bench.world.until_asked("list").await;
    }
    bench.world.say("go on");
    bench.until_logged(1, "onetwo").await;
    // It looks again after a moment of this clock, whenever it has asked.
    for _ in 0..20 {
        advance(Duration::from_secs(1)).await;
        tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(5))).await.unwrap();
    }
    assert_eq!(bench.end(running).await.verdict, Verdict::Passed);
    assert_eq!((bench.told_of("end "), bench.world.count("stop")), (vec!["0-1 Success", "1-1 Success"], 0));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_waits_between_attempts_is_stopped_at_once() {
    let again = |run: &mut Run| (run.max_auto_reruns, run.auto_rerun_delay) = (1, Duration::from_secs(600));
    let mut bench = Bench::new([run("flaky").with(again)]);
    bench.world.script("flaky", [exits(1)]);
    let running = bench.start();
    bench.until_told("end 1-1 ExitCode { code: 1 }, again").await;
    bench.cancel(CancelReason::User, false);
    assert_eq!(bench.end(running).await.verdict, canceled(CancelReason::User));
    assert_eq!(bench.world.count("exec"), 1);
}

#[tokio::test(start_paused = true)]
async fn the_jobs_limit_comes_between_attempts_too() {
    let again = |run: &mut Run| (run.max_auto_reruns, run.auto_rerun_delay) = (1, LIMIT * 2);
    let mut bench = Bench::new([run("flaky").with(again)]);
    bench.world.script("flaky", [exits(1)]);
    let running = bench.start();
    bench.until_told("end 1-1 ExitCode { code: 1 }, again").await;
    advance(LIMIT).await;
    let result = bench.end(running).await;
    assert_eq!((result.verdict, result.duration), (Verdict::TimedOut { limit: LIMIT }, LIMIT));
    assert_eq!(bench.world.count("exec"), 1);
}

// ---- what is lost ----

/// With the supervisor; the end of an environment is heard of before.
const PATIENCE: Duration = Duration::from_secs(20);

/// How a task ends whose first step does this.
async fn ended_by(act: Act, patience: Duration) -> (Verdict, Vec<String>) {
    let mut bench = endless_until([Act::Waits("now"), act]);
    bench.world.patience(patience);
    let running = bench.start();
    bench.until_logged(1, "on and on").await;
    bench.world.say("now");
    let verdict = bench.end(running).await.verdict;
    assert_eq!(bench.told_of("skip "), ["2 Stopped"]);
    assert_eq!(bench.log(1, 1), "on and on");
    assert_eq!((bench.world.count("end"), bench.world.count("destroy")), (1, 1));
    (verdict, bench.told)
}

fn died(code: i64, out_of_memory: bool) -> Act {
    Act::Dies(Died::Exited { code, out_of_memory, last_words: "bye".to_owned() })
}

fn fault(verdict: &Verdict) -> &str {
    match verdict {
        Verdict::Infra { fault } => fault,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_an_environment_is_the_jobs_or_ours_by_how_it_ended() {
    let ours = [
        (died(137, false), "the primary container ended with code 137 while the step ran; its last words: bye"),
        (died(i64::from(ABANDONED), false), "the environment ended by itself while the step ran"),
        (
            Act::Dies(Died::EngineLost { message: "gone".to_owned() }),
            "the Docker engine was lost while the step ran: gone",
        ),
    ];
    for (act, why) in ours {
        let (verdict, _) = ended_by(act, PATIENCE).await;
        assert!(fault(&verdict).starts_with(why), "{verdict:?}");
    }
    let floor = Act::Dies(Died::DiskFloor { message: "the disk is full".to_owned() });
    for act in [died(0, false), died(1, false), died(137, true), floor] {
        let (verdict, _) = ended_by(act, PATIENCE).await;
        assert_eq!(verdict, Verdict::Failed { step: 1, name: "endless".to_owned() });
    }
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_is_lost_is_a_fault_of_ours() {
    let (verdict, _) = ended_by(Act::BreaksTheWay, Duration::ZERO).await;
    assert!(fault(&verdict).starts_with("the supervisor inside the job's environment was lost: "), "{verdict:?}");
    // The first connection breaks, too; only the next one meets somebody else.
    let (verdict, _) = ended_by(Act::Babbles, PATIENCE).await;
    assert!(fault(&verdict).contains("the supervisor's answer does not fit what it was asked"), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn an_entrypoint_that_ends_takes_the_job_with_it() {
    let exited = Exited { main_ended: Some(3), ..exits_by(Exit::Signal(9)) };
    let (verdict, told) = ended_by(Act::Ends(exited), PATIENCE).await;
    assert_eq!(verdict, Verdict::Failed { step: 1, name: "endless".to_owned() });
    assert!(told.iter().any(|line| line.contains("own main program ended with code 3")), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_step_that_fails_with_its_host_is_no_failure_of_the_job() {
    let mut bench = Bench::new([run("build")]);
    bench.world.script("build", [exits(1)]);
    bench.world.end_with_host(Died::EngineLost { message: "it was restarted".to_owned() });
    let verdict = bench.run().await.verdict;
    assert_eq!(fault(&verdict), "the Docker engine was lost while the step ran: it was restarted");
}

#[tokio::test(start_paused = true)]
async fn a_step_that_is_not_started_fails_with_advice_and_others_run() {
    let mut bench = Bench::new([run("build"), run("report").when(When::Always)]);
    let refused = Failure::new(FailureKind::NoSuchProgram, "there is no /bin/zsh");
    bench.world.script("build", [Act::Refused(refused)]);
    assert_eq!(bench.run().await.verdict, Verdict::Failed { step: 1, name: "build".to_owned() });
    let ends = bench.told_of("end ");
    assert!(ends[1].contains("there is no /bin/zsh. Name a shell that the image has with `shell:`"), "{ends:?}");
    assert_eq!(ends[2], "2-1 Success");
}

// ---- waiting for a turn ----

#[tokio::test(start_paused = true)]
async fn the_time_of_waiting_for_a_turn_does_not_count() {
    let mut bench = Bench::new([run("build")]);
    let (room, freed) = oneshot::channel();
    let running = bench.start_with(Turn::Later(freed));
    bench.until_told("progress ready, waits for room on this machine").await;
    advance(LIMIT * 2).await;
    assert_eq!(bench.world.count("exec"), 0);
    room.send(Box::new(()) as crate::task::Occupancy).ok().unwrap();
    let result = bench.end(running).await;
    assert_eq!((result.verdict, result.duration), (Verdict::Passed, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_stopped_while_it_waits_for_its_turn_runs_nothing() {
    let mut bench = Bench::new([run("build").when(When::Always)]);
    let (_room, freed) = oneshot::channel::<crate::task::Occupancy>();
    let running = bench.start_with(Turn::Later(freed));
    bench.until_told("progress ready, waits for room on this machine").await;
    bench.cancel(CancelReason::Drain, false);
    assert_eq!(bench.end(running).await.verdict, canceled(CancelReason::Drain));
    assert_eq!(bench.told_of("skip "), ["1 Stopped"]);
    assert_eq!((bench.world.count("exec"), bench.world.count("destroy")), (0, 1));
}
