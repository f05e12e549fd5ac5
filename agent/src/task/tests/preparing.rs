//! Tasks whose environment is made, or is not.

use std::time::Duration;

use bytes::Bytes;
use navvy_environment::request::{Died, ServiceEnd, ServiceOutput};
use navvy_job::compiled::Executor;
use navvy_job::outcome::{Blame, CancelReason, Verdict};
use navvy_output::StepLog;
use navvy_protocol::supervisor::{Failure, FailureKind};
use tokio::sync::{mpsc, oneshot};

use super::bench::LIMIT;
use super::*;
use crate::environment::fake::Act;
use crate::task::{Occupancy, Turn};

/// The verdict where there is no environment because of the job.
fn of_the_job() -> Verdict {
    Verdict::Failed { step: 0, name: "Spin up environment".to_owned() }
}

fn infra(fault: &str) -> Verdict {
    Verdict::Infra { fault: fault.to_owned() }
}

#[tokio::test(start_paused = true)]
async fn who_is_to_blame_for_a_missing_environment_decides_the_verdict() {
    let cases = [
        (Blame::Job, of_the_job()),
        (Blame::Infra, infra("no such image")),
        (Blame::Engine, infra("no such image")),
        (Blame::Usage, infra("no such image")),
    ];
    for (blame, verdict) in cases {
        let mut bench = Bench::new([run("build").when(When::Always)]);
        bench.world.fail_to_prepare(blame, "no such image");
        let result = bench.run().await;
        assert_eq!(result.verdict, verdict, "{blame:?}");
        assert_eq!(bench.told_of("end "), ["0-1 Error { reason: \"no such image\" }"]);
        // It is not known how far it was made.
        assert_eq!(bench.world.asked(), ["prepare", "remove"]);
        assert_eq!(bench.log(0, 1), "no such image\n");
        assert_eq!(result.failed_log, Some(StepLog::path_for(&bench.context.directory, 0, 1)));
        assert!(!bench.journal().exists());
    }
}

#[tokio::test(start_paused = true)]
async fn making_an_environment_ends_with_a_stop_or_the_jobs_time() {
    let mut bench = Bench::new([run("build")]);
    bench.world.never_be_ready();
    let running = bench.start();
    bench.world.until_asked("prepare").await;
    bench.cancel(CancelReason::Shutdown, false);
    assert_eq!(bench.end(running).await.verdict, Verdict::Canceled { reason: CancelReason::Shutdown });
    assert_eq!(
        (bench.told_of("end "), bench.world.asked()),
        (vec!["0-1 Canceled"], vec!["prepare".to_owned(), "remove".to_owned()])
    );

    let mut bench = Bench::new([run("build")]);
    bench.world.never_be_ready();
    let running = bench.start();
    bench.world.until_asked("prepare").await;
    tokio::time::advance(LIMIT).await;
    assert_eq!(bench.end(running).await.verdict, Verdict::TimedOut { limit: LIMIT });
}

#[tokio::test(start_paused = true)]
async fn what_the_supervisor_refuses_while_it_is_made_ready_is_the_jobs() {
    let mut bench = Bench::new([run("build")]);
    bench.world.refuse("probe", Failure::new(FailureKind::NoSuchUser, "there is no user nobody"));
    assert_eq!(bench.run().await.verdict, of_the_job());
    let ends = bench.told_of("end ");
    assert!(ends[0].contains("there is no user nobody. Name a user that the image has with `user:`"), "{ends:?}");
    // It was made: it is ended and destroyed as any other.
    assert_eq!(bench.world.asked(), ["prepare", "probe", "end", "destroy"]);
}

#[tokio::test(start_paused = true)]
async fn an_image_without_a_place_for_bash_env_gets_one() {
    let mut bench = Bench::new([run("build")]);
    bench.world.refuse("write", Failure::new(FailureKind::NoSuchFile, "there is no /tmp"));
    assert_eq!(bench.run().await.verdict, of_the_job());
    assert_eq!((bench.world.count("write "), bench.world.count("make_directory /tmp")), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn an_environment_that_ends_while_it_is_made_ready_is_an_infra_fault() {
    let mut bench = Bench::new([run("build")]);
    bench.world.die_at("probe", Died::Exited { code: 1, out_of_memory: false, last_words: "oh".to_owned() });
    let verdict = bench.run().await.verdict;
    assert_eq!(verdict, infra("the primary container ended with code 1 while it was made ready; its last words: oh"));
    assert_eq!((bench.world.count("end"), bench.world.count("destroy")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_main_program_of_the_job_s_own_that_ends_before_the_first_step_fails_the_job() {
    let mut bench = Bench::new([run("build")]);
    let Executor::Docker { containers } = &mut bench.claim.job.executor else { panic!() };
    containers[0].command = Some(vec!["serve".to_owned()]);
    bench.world.die_at("probe", Died::Exited { code: 5, out_of_memory: false, last_words: String::new() });
    assert_eq!(bench.run().await.verdict, of_the_job());
    let ends = bench.told_of("end ");
    assert!(ends[0].contains("the primary container ended with code 5 while it was made ready"), "{ends:?}");
}

#[tokio::test(start_paused = true)]
async fn an_executor_that_is_not_here_and_a_claim_that_is_none_make_nothing() {
    let mut bench = Bench::new([run("build")]);
    bench.claim.job.executor = Executor::Macos { xcode: None };
    assert_eq!(bench.run().await.verdict, infra("the macos executor cannot be carried out here"));
    assert_eq!(bench.world.count("prepare"), 0);

    let mut bench = Bench::new([run("build")]);
    bench.claim.run.project = String::new();
    assert!(matches!(bench.run().await.verdict, Verdict::Infra { fault } if fault.contains("which project")));
    assert_eq!(bench.told_of("state "), ["Reporting", "Releasing", "Done"]);
    assert_eq!((bench.world.count("prepare"), bench.journal().exists()), (0, false));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_made_that_is_in_no_journal() {
    let mut bench = Bench::new([run("build")]);
    std::fs::write(&bench.context.paths.state, "in the way").unwrap();
    assert!(matches!(bench.run().await.verdict, Verdict::Infra { .. }));
    assert_eq!(bench.world.count("prepare"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_ends_before_its_job_is_told_of() {
    let mut bench = Bench::new([run("build")]);
    bench.world.script("build", [Act::Waits("service ended")]);
    let (output, end) = with_service(&bench);
    let running = bench.start();
    output.send(Bytes::from_static(b"ready\n")).await.unwrap();
    drop(output);
    end.send(ServiceEnd { exit_code: Some(2), lost: 0, trouble: None }).unwrap();
    bench.until_told("warning service db ended by itself with code 2").await;
    bench.world.say("service ended");
    let result = bench.end(running).await;
    assert_eq!((result.verdict, result.warnings), (Verdict::Passed, 1));
    let log = std::fs::read_to_string(StepLog::service_path_for(&bench.context.directory, 0)).unwrap();
    assert_eq!(log, "ready\n");
}

/// Its service, whose output comes by the sender.
fn with_service(bench: &Bench) -> (mpsc::Sender<Bytes>, oneshot::Sender<ServiceEnd>) {
    let ((output, rx), (end, ended)) = (mpsc::channel(1), oneshot::channel());
    let (name, image, container) = ("db".to_owned(), "postgres".to_owned(), "c".to_owned());
    bench.world.with_service(ServiceOutput { name, image, container, rx, end: ended });
    (output, end)
}

#[tokio::test(start_paused = true)]
async fn the_last_output_of_a_service_is_waited_for_while_it_comes() {
    let mut bench = Bench::new([run("build")]);
    let (output, end) = with_service(&bench);
    let running = bench.start();
    bench.world.until_asked("end").await;
    let log = StepLog::service_path_for(&bench.context.directory, 0);
    for words in 1..=6 {
        tokio::time::advance(Duration::from_millis(1500)).await;
        output.send(Bytes::from_static(b"word ")).await.unwrap();
        while std::fs::read_to_string(&log).unwrap() != "word ".repeat(words) {
            assert!(!bench.has_told("state Reporting"), "word {words} was not waited for");
            tokio::task::yield_now().await;
        }
    }
    drop((output, end));
    bench.end(running).await;
    assert_eq!(bench.told_of("warning "), Vec::<&str>::new());
}

#[tokio::test(start_paused = true)]
async fn output_of_a_service_that_does_not_end_is_told_of() {
    let mut bench = Bench::new([run("build")]);
    let (_output, _end) = with_service(&bench);
    let running = bench.start();
    bench.world.until_asked("end").await;
    bench.pass_until_told("state Reporting").await;
    let result = bench.end(running).await;
    assert_eq!((result.verdict, result.warnings), (Verdict::Passed, 1));
    let cut = "warning the output of service db is not kept to its end: its end did not come within 2.";
    assert_eq!(bench.told_of(cut).len(), 1, "{:#?}", bench.told);
}

#[tokio::test(start_paused = true)]
async fn output_of_a_service_that_breaks_off_is_told_of() {
    let mut bench = Bench::new([run("build")]);
    bench.world.script("build", [Act::Waits("broken off")]);
    let (output, end) = with_service(&bench);
    let running = bench.start();
    drop(output);
    let trouble = Some("it broke off: reset".to_owned());
    end.send(ServiceEnd { exit_code: None, lost: 0, trouble }).unwrap();
    bench.until_told("warning the output of service db is no longer kept: it broke off: reset").await;
    bench.world.say("broken off");
    assert_eq!(bench.end(running).await.verdict, Verdict::Passed);
}

fn asks(answer: oneshot::Receiver<Option<Occupancy>>) -> Turn {
    Turn::Ask(Box::new(|| Box::pin(async { answer.await.ok().flatten() })))
}

#[tokio::test(start_paused = true)]
async fn no_step_begins_before_it_is_allowed() {
    let mut bench = Bench::new([run("build")]);
    let (answer, answered) = oneshot::channel::<Option<Occupancy>>();
    let running = bench.start_with(asks(answered));
    bench.until_told("end 0-1 Success").await;
    assert!(!bench.world.asked().contains(&"exec 1-1".to_owned()) && !bench.has_told("state Running"));
    assert!(answer.send(Some(Box::new(()))).is_ok());
    assert_eq!(bench.end(running).await.verdict, Verdict::Passed);
    assert!(bench.world.asked().contains(&"exec 1-1".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn steps_that_are_not_allowed_never_begin() {
    let mut bench = Bench::new([run("build").when(When::Always)]);
    let (answer, answered) = oneshot::channel::<Option<Occupancy>>();
    drop(answer);
    let running = bench.start_with(asks(answered));
    let result = bench.end(running).await;
    assert_eq!(result.verdict, infra("nobody allowed the steps to begin"));
    assert_eq!(bench.world.count("exec"), 0);
    assert_eq!(bench.world.count("destroy"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_wish_to_stop_ends_the_wait_for_leave() {
    let mut bench = Bench::new([run("build")]);
    let (_answer, answered) = oneshot::channel::<Option<Occupancy>>();
    let running = bench.start_with(asks(answered));
    bench.until_told("end 0-1 Success").await;
    bench.cancel(CancelReason::LeaseLost, true);
    let result = bench.end(running).await;
    assert_eq!((result.verdict, result.cut_short), (Verdict::Canceled { reason: CancelReason::LeaseLost }, true));
    assert_eq!(bench.world.count("exec"), 0);
}
