//! Tasks that are held for a person, and gone on with.

use std::sync::Arc;
use std::time::Duration;

use navvy_job::outcome::{CancelReason, Verdict};
use navvy_journal::{Journal, Standing};
use navvy_protocol::supervisor::{Exit, Exited, Failure, FailureKind};

use super::*;
use crate::environment::Adopted;
use crate::environment::fake::{Act, exits, exits_by, says};
use crate::task::{BreakPoint, HoldPolicy, Note, Resumed};

const TIME: Duration = Duration::from_secs(900);

/// A job that is held when a step fails; its second step fails the first time.
fn failing() -> Bench {
    let mut bench = Bench::new([run("build"), run("test"), run("pack"), run("report").when(When::Always)]);
    bench.context.hold = Arc::new(HoldPolicy { on_fail: Some(TIME), ..HoldPolicy::default() });
    bench.world.script("test", [says("bad"), exits(1)]);
    bench.world.script("test", [says("good")]);
    bench
}

/// As another process finds it.
fn found(bench: &Bench, from: usize) -> Resumed {
    let (journal, reading) = Journal::resume(&bench.journal()).unwrap();
    let known = reading.known().unwrap();
    assert_eq!(known.held_step().unwrap().number, from);
    let note = Note::parse(&bench.world.kept_note()).unwrap();
    assert_eq!(note.step, from);
    Resumed { note, adopted: Adopted { journal, known, names: vec![] }, link: bench.world.link(), from }
}

#[tokio::test(start_paused = true)]
async fn a_failed_task_is_held_and_goes_on_from_its_step_to_its_end() {
    let mut bench = failing();
    let result = bench.run().await;
    let failed = Verdict::Failed { step: 2, name: "test".to_owned() };
    assert_eq!((&result.verdict, result.held.is_some()), (&failed, true));
    assert_eq!(bench.told_of("held "), ["at 2"]);
    assert_eq!(bench.told_of("skip "), ["3 Held", "4 Held"]);
    assert_eq!(bench.told_of("state "), ["Preparing", "Running", "Finishing", "Held", "Reporting", "Done"]);
    assert_eq!(bench.asked_from("exec 2-1"), ["exec 2-1", "keep for 900s", "hold"]);

    bench.told.clear();
    let running = bench.resume(found(&bench, 2));
    let result = bench.end(running).await;
    assert_eq!((result.verdict, result.held.is_none()), (Verdict::Passed, true));
    let resumed = bench.asked_from("hold");
    // While it goes on it is held for its job's time, too: should this process die, the next one finds it.
    let done = ["hold", "keep for 1200s", "list", "adopt", "exec 2-2", "exec 3-2", "exec 4-2", "end", "destroy"];
    assert_eq!(resumed, done);
    assert_eq!(bench.told_of("end "), ["2-2 Success", "3-2 Success", "4-2 Success"]);
    assert_eq!((bench.log(2, 1).as_str(), bench.log(2, 2).as_str()), ("bad", "good"));
    assert!(!bench.journal().exists());
}

#[tokio::test(start_paused = true)]
async fn a_task_is_held_before_a_step_that_was_named_and_runs_it_when_it_goes_on() {
    let mut bench = failing();
    let break_before = vec![BreakPoint::parse("build:pack"), BreakPoint::parse("test")];
    bench.context.hold = Arc::new(HoldPolicy { break_before, ..HoldPolicy::default() });
    let result = bench.run().await;
    assert_eq!((result.verdict, bench.told_of("held ")), (Verdict::Passed, vec!["before 2"]));
    assert_eq!((bench.world.count("exec 2"), bench.world.count("destroy")), (0, 0));
    let known = navvy_journal::load(&bench.journal()).unwrap().known().unwrap();
    assert!(matches!(known.standing, Standing::Kept { .. }), "{known:?}");

    // It goes on over the step that held it. That one fails, and nobody asked to have a failed job held.
    let running = bench.resume(found(&bench, 2));
    let result = bench.end(running).await;
    assert_eq!(result.verdict, Verdict::Failed { step: 2, name: "test".to_owned() });
    assert_eq!((bench.world.count("exec 2-2"), bench.world.count("destroy")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_cannot_be_held_is_removed_and_says_why() {
    let mut by_provider = failing();
    by_provider.world.fail_to_hold("no name is free");
    let mut by_supervisor = failing();
    by_supervisor.world.refuse("keep", Failure::new(FailureKind::NoSpace, "the note is too long"));
    for (bench, why) in [(&mut by_provider, "no name is free"), (&mut by_supervisor, "the note is too long")] {
        let result = bench.run().await;
        assert_eq!(
            (result.verdict, result.held.is_none()),
            (Verdict::Failed { step: 2, name: "test".to_owned() }, true)
        );
        assert_eq!(bench.told_of("warning "), [format!("the environment could not be held: {why}")]);
        assert_eq!((bench.world.count("end"), bench.world.count("destroy")), (1, 1));
        assert!(!bench.journal().exists());
    }
}

#[tokio::test(start_paused = true)]
async fn what_runs_on_in_a_held_task_ends_with_it() {
    let mut bench = failing();
    let left = Exited { left_running: 1, ..exits_by(Exit::Code(0)) };
    bench.world.script("build", [Act::Ends(left)]);
    assert!(bench.run().await.held.is_some());
    assert_eq!(bench.world.count("stop"), 0);
    let running = bench.resume(found(&bench, 2));
    assert_eq!(bench.end(running).await.verdict, Verdict::Passed);
    // It was another process that followed it: it ends with its environment. Of later steps one that has just ended may be ended once more.
    assert_eq!((bench.world.count("stop 1-"), bench.world.count("end")), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_being_stopped_holds_nothing() {
    let mut bench = failing();
    bench.world.script("build", [Act::UntilStopped]);
    let running = bench.start();
    bench.world.until_asked("exec 1-1").await;
    bench.cancel(CancelReason::User, false);
    let result = bench.end(running).await;
    assert_eq!((result.verdict, result.held.is_none()), (Verdict::Canceled { reason: CancelReason::User }, true));
    assert_eq!((bench.world.count("keep"), bench.world.count("destroy")), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn what_a_person_had_held_before_is_held_again_when_they_stop_it_and_not_when_they_insist() {
    for at_once in [false, true] {
        let mut bench = Bench::new([run("build"), run("test"), run("pack")]);
        bench.context.hold = Arc::new(HoldPolicy { on_fail: Some(TIME), ..HoldPolicy::default() });
        bench.world.script("test", [exits(1)]);
        bench.world.script("test", [Act::UntilStopped]);
        assert!(bench.run().await.held.is_some());
        let running = bench.resume(found(&bench, 2));
        bench.world.until_asked("exec 2-2").await;
        bench.cancel(CancelReason::User, at_once);
        let result = bench.end(running).await;
        assert_eq!(result.verdict, Verdict::Canceled { reason: CancelReason::User });
        let held = result.held.map(|held| (held.at.step, held.at.before));
        assert_eq!((held, bench.world.count("destroy")), if at_once { (None, 1) } else { (Some((2, false)), 0) });
    }
}

#[tokio::test(start_paused = true)]
async fn a_resumed_task_that_is_stopped_between_attempts_is_held_at_that_step() {
    let mut bench = Bench::new([
        run("build"),
        run("flaky").with(|run| (run.max_auto_reruns, run.auto_rerun_delay) = (1, TIME)),
        run("pack"),
    ]);
    bench.context.hold = Arc::new(HoldPolicy { on_fail: Some(TIME), ..HoldPolicy::default() });
    bench.claim.limits.job = TIME * 10;
    bench.world.script("flaky", [exits(1)]);
    let running = bench.start();
    bench.until_told("end 2-1 ExitCode { code: 1 }, again").await;
    tokio::time::advance(TIME).await;
    assert!(bench.end(running).await.held.is_some());
    let running = bench.resume(found(&bench, 2));
    bench.until_told("end 2-3 ExitCode { code: 1 }, again").await;
    bench.cancel(CancelReason::User, false);
    let held = bench.end(running).await.held.unwrap();
    assert_eq!((held.at.step, held.at.before), (2, false));
}

#[tokio::test(start_paused = true)]
async fn a_held_environment_that_does_not_answer_is_an_infra_fault() {
    let mut bench = failing();
    assert!(bench.run().await.held.is_some());
    let resumed = found(&bench, 2);
    bench.world.refuse("keep", Failure::new(FailureKind::Other, "not now"));
    let running = bench.resume(resumed);
    let fault = "the held environment does not answer: not now".to_owned();
    assert_eq!(bench.end(running).await.verdict, Verdict::Infra { fault });
    assert_eq!((bench.world.count("exec 2-2"), bench.world.count("remove")), (0, 1));
}
