//! A failed job that is held: entered, mended, gone on from.

use std::fs;
use std::path::Path;
use std::time::Duration;

use navvy_tests::{Bench, Finished, Signal, eventually, everywhere};

const SECRET: &str = "correct-horse-battery";

/// Fails at its second step until somebody mends it.
const MENDABLE: &str = r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - run: {name: first, command: 'echo once >> ~/first; echo "export FROM_FIRST=yes" >> $BASH_ENV'}
      - run: {name: server, background: true, command: 'while true; do date +%s > ~/alive; sleep 0.1; done'}
      - run:
          name: test
          working_directory: web
          environment: {OF_STEP: "1"}
          command: 'cat ~/first; test -e mended; echo it is mended; rm -f ~/alive; until [ -e ~/alive ]; do sleep 0.05; done'
      - run: {name: after, command: echo after}
      - run: {name: always, when: always, command: echo tidied}
  later:
    docker: [{image: navvy/busybox:static}]
    resource_class: small
    steps: [{run: echo later}]
workflows:
  ci: {jobs: [build, {later: {requires: [build]}}]}
"#;

/// Runs the config until it is held; returns the task's id.
#[track_caller]
fn held(bench: &Bench, yaml: &str, args: &[&str]) -> (String, Finished) {
    let done = bench.config(yaml).run(args).that_leaves_things().finish();
    let kept = done.event("a task is kept", |event| event.is("task_kept"));
    (kept.task().expect("it is a task's").to_owned(), done)
}

#[track_caller]
fn nothing_is_left_of(bench: &Bench, task: &str) {
    assert_eq!(bench.left_of(&[task.to_owned()]), Vec::<String>::new());
    let listed = bench.ask(&["ps"]);
    assert!(!listed.stdout().contains(task), "{}", listed.stdout());
}

/// Every file below that holds these bytes.
fn files_with(directory: &Path, needle: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files_with(&path, needle)),
            Ok(kind) if kind.is_file() => {
                let bytes = fs::read(&path).unwrap_or_default();
                if bytes.windows(needle.len()).any(|part| part == needle.as_bytes()) {
                    found.push(path.display().to_string());
                }
            }
            _ => {}
        }
    }
    found
}

everywhere! {
    fn a_failed_job_is_entered_mended_and_gone_on_from(bench: Bench) {
        let (task, done) = held(&bench, MENDABLE, &["--keep-on-fail", "-e", &format!("TOKEN={SECRET}")]);
        done.exits_with(1);
        assert_eq!(done.skipped("build", "after"), "held");
        assert_eq!(done.skipped("build", "always"), "held");
        assert_eq!(done.end("later"), "not_run");
        let listed = bench.ask(&["ps"]).stdout();
        assert!(listed.contains(&task) && listed.contains("build") && listed.contains("kept until"), "{listed}");
        assert!(listed.contains("test"), "{listed}");

        // As the step was: its directory, user and variables, what the first step exported, and the background step.
        let look = "pwd; id -un; echo $OF_STEP $FROM_FIRST $TOKEN; until [ -e ~/alive ]; do sleep 0.05; done; touch mended; exit 7";
        let looked = bench.ask(&["shell", "build", "--", "bash", "-c", look]);
        looked.exits_with(7);
        assert_eq!(looked.stdout(), format!("/home/circleci/project/web\ncircleci\n1 yes {SECRET}\n"));
        assert_eq!(files_with(&bench.state(), SECRET), Vec::<String>::new());
        assert_eq!(files_with(&bench.runtime(), SECRET), Vec::<String>::new());

        let again = Run::of(&bench, &["retry", &task[..6], "--json"]);
        again.passes();
        assert_eq!(again.text("build", "test"), "once\nit is mended\n");
        assert_eq!(again.text("build", "after") + &again.text("build", "always"), "after\ntidied\n");
        assert_eq!(again.step("build", "test").attempt, 2);
        assert_eq!(again.verdict("build"), "passed");
        nothing_is_left_of(&bench, &task);
    }

    fn a_job_is_held_before_a_step(bench: Bench) {
        let yaml = MENDABLE.replace("test -e mended; ", "");
        let (task, done) = held(&bench, &yaml, &["--break-before", "build:after"]);
        done.exits_with(4);
        assert_eq!((done.end("build").as_str(), done.end("later").as_str()), ("paused", "not_run"));
        assert_eq!(done.skipped("build", "after"), "held");
        let again = Run::of(&bench, &["retry", "build", "--json"]);
        again.passes();
        assert_eq!(again.text("build", "after"), "after\n");
        assert!(!again.events.iter().any(|event| event.is_start_of("test")), "{}", again.account());
        nothing_is_left_of(&bench, &task);
    }
}

/// A command with events, to its end.
struct Run;

impl Run {
    #[track_caller]
    fn of(bench: &Bench, args: &[&str]) -> Finished {
        bench.start(args).that_leaves_things().finish()
    }
}

#[test]
fn a_retry_takes_the_configs_text_as_it_is_now() {
    let bench = Bench::new();
    let (task, _) = held(&bench, MENDABLE, &["--keep-on-fail=1h"]);
    // Still broken: it is held again.
    let broken = Run::of(&bench, &["retry", "build", "--json"]);
    broken.exits_with(1);
    broken.event("it is kept again", |event| event.is("task_kept"));
    // Another step comes before it now, and it is spelled otherwise.
    let edited = MENDABLE
        .replace(
            "      - run: {name: server",
            "      - run: {name: new, command: echo new}\n      - run: {name: server",
        )
        .replace("test -e mended", "true");
    bench.config(&edited);
    let unknown = bench.ask(&["retry", "build", "--from", "no such step"]);
    unknown.exits_with(64).complains(&["no such step", "3. test"]);
    let mended = Run::of(&bench, &["retry", "build", "--with-edits", "--json"]);
    mended.passes();
    assert_eq!(mended.text("build", "test"), "once\nit is mended\n");
    assert_eq!(mended.step("build", "test").event.step(), Some(4));
    nothing_is_left_of(&bench, &task);
}

#[test]
fn a_retry_may_go_on_from_another_step() {
    let bench = Bench::new();
    let (task, _) = held(&bench, MENDABLE, &["--keep-on-fail"]);
    let again = Run::of(&bench, &["retry", "build", "--from", "after", "--json"]);
    again.passes();
    assert!(!again.events.iter().any(|event| event.is_start_of("test")), "{}", again.account());
    nothing_is_left_of(&bench, &task);
}

#[test]
fn one_ctrl_c_during_a_retry_loses_nothing_and_two_remove_it() {
    let bench = Bench::new();
    let yaml = MENDABLE.replace(
        "cat ~/first; test -e mended",
        r#"test -e slow && trap "" TERM; echo round; test -e mended && sleep 1000; false"#,
    );
    let (task, _) = held(&bench, &yaml, &["--keep-on-fail"]);
    bench.ask(&["shell", "build", "--", "touch", "mended"]).passes();
    let first = bench.start(&["retry", "build", "--json"]).that_leaves_things();
    first.wait_for_output("round");
    let busy = bench.ask(&["shell", "build"]);
    busy.exits_with(64).complains(&["is running"]);
    first.signal(Signal::Interrupt);
    first.finish().exits_with(130);
    let listed = bench.ask(&["ps"]).stdout();
    assert!(listed.contains("kept until"), "{listed}");
    // The second signal finds the step still there.
    bench.ask(&["shell", "build", "--", "touch", "slow"]).passes();
    let second = bench.start(&["retry", "build", "--json"]);
    second.wait_for_output("round");
    second.signal(Signal::Interrupt);
    second.wait_for("the first Ctrl-C", Duration::from_secs(10), |event| event.is("stop_asked"));
    second.signal(Signal::Interrupt);
    second.finish().exits_with(130);
    nothing_is_left_of(&bench, &task);
}

#[test]
fn what_is_held_ends_by_itself_and_is_removed_by_whoever_comes_next() {
    let bench = Bench::new();
    let (task, _) = held(&bench, MENDABLE, &["--keep-on-fail=1s"]);
    let running = || bench.docker().lines(&["ps", "--quiet", "--filter", &format!("label=dev.navvy.task={task}")]);
    eventually("the environment ends by itself", Duration::from_secs(20), || running().is_empty().then_some(()));
    // Whoever comes next may be a story beside this one.
    bench.ask(&["shell", &task]).exits_with(64).complains(&["build", "its time is up"]);
    bench.ask(&["prune"]).passes();
    nothing_is_left_of(&bench, &task);
    bench.ask(&["shell", &task]).exits_with(64).complains(&[
        "no task",
        "any more: build",
        "its time is up",
        "navvy logs",
    ]);
    bench.ask(&["shell", "nobody"]).exits_with(64).complains(&["no task nobody on this host\n", "navvy ps"]);
}

#[test]
fn what_is_held_and_was_killed_says_so() {
    let bench = Bench::new();
    let (task, _) = held(&bench, MENDABLE, &["--keep-on-fail"]);
    let containers = bench.docker().ask(&["ps", "-q", "--filter", &format!("label=dev.navvy.task={task}")]).stdout();
    bench.docker().ask(&["kill", containers.trim()]).succeeded();
    let listed = bench.ask(&["ps"]).stdout();
    assert!(listed.contains(", ended"), "{listed}");
    let json = bench.ask(&["ps", "--json"]).stdout();
    assert!(json.contains(r#""state":"kept","ended":true"#), "{json}");
    bench.ask(&["retry", &task]).exits_with(3).complains(&["does not answer", &format!("navvy rm {task}")]);
    bench.ask(&["rm", &task]).exits_with(0);
    nothing_is_left_of(&bench, &task);
}

#[test]
fn what_is_held_is_removed_when_asked_and_not_by_a_run_beside_it() {
    let bench = Bench::new();
    let (task, _) = held(&bench, MENDABLE, &["--keep-on-fail"]);
    let beside = bench.start(&["run", "--json", "--job", "later"]).that_leaves_things().finish();
    beside.passes();
    assert!(bench.ask(&["ps"]).stdout().contains(&task), "a run beside it has removed it");
    bench.ask(&["rm", &task]).passes();
    nothing_is_left_of(&bench, &task);
    bench.ask(&["shell", &task]).exits_with(64).complains(&["no task", "navvy ps"]);
}

#[test]
fn a_person_has_a_real_terminal() {
    let bench = Bench::new();
    let (task, _) = held(&bench, MENDABLE, &["--keep-on-fail", "-e", &format!("TOKEN={SECRET}")]);
    let shown =
        bench.on_terminal(&["shell", &task], "stty size; test -t 0 && echo is a $((40 + 2)) tty; pwd; exit 7\n");
    bench.ask(&["rm", &task]).passes();
    assert_eq!(shown.exit_code, Some(7), "{}", shown.stdout());
    for part in ["is a 42 tty", "/home/circleci/project/web", "step 3, test"] {
        assert!(shown.stdout().contains(part), "{part:?}: {}", shown.stdout());
    }
}

#[test]
fn a_shell_opens_at_once_where_a_step_fails() {
    let bench = Bench::new();
    bench.config(MENDABLE);
    let shown =
        bench.on_terminal(&["run", "--shell-on-fail", "--job", "build"], "echo sum $((40 + 2)) in $PWD; exit\n");
    assert_eq!(shown.exit_code, Some(1), "{}", shown.stdout());
    for part in ["step 3 failed", "sum 42 in /home/circleci/project/web", "1 of 1 job failed"] {
        assert!(shown.stdout().contains(part), "{part:?}: {}", shown.stdout());
    }
    bench.run(&["--shell-on-fail"]).finish().exits_with(64).ran_nothing();
}

#[test]
fn a_retry_that_is_killed_leaves_the_task_held() {
    let bench = Bench::new();
    let yaml =
        MENDABLE.replace("cat ~/first; test -e mended", "echo round; test -e mended && sleep 1000; test -e whole");
    let (task, _) = held(&bench, &yaml, &["--keep-on-fail"]);
    bench.ask(&["shell", "build", "--", "touch", "mended"]).passes();
    let killed = bench.start(&["retry", "build", "--json"]).that_leaves_things();
    killed.wait_for_output("round");
    let race = bench.ask(&["retry", "build", "--json"]);
    race.exits_with(64).complains(&["is running"]);
    killed.signal(Signal::Kill);
    killed.finish().exits_with(128 + 9);
    bench.ask(&["prune"]).passes();
    assert!(bench.ask(&["ps"]).stdout().contains("kept until"), "what was mended is lost");
    bench.ask(&["shell", "build", "--", "sh", "-c", "rm mended; touch whole"]).passes();
    let again = Run::of(&bench, &["retry", "build", "--json"]);
    again.passes();
    // What the killed one was running has ended: the step ran once at a time.
    assert_eq!(again.step("build", "test").attempt, 3);
    nothing_is_left_of(&bench, &task);
}

#[test]
fn nobody_is_thrown_out_when_the_time_is_up() {
    let bench = Bench::new();
    let (task, _) = held(&bench, MENDABLE, &["--keep-on-fail=20s"]);
    let script = "touch ~/in; until [ -e ~/leave ]; do sleep 0.1; done; echo stayed";
    let inside = bench.start(&["shell", &task, "--", "sh", "-c", script]).that_leaves_things();
    // By the engine, which is no visit.
    let container = bench.docker().containers_of(&task).remove(0);
    let look = ["exec", &container, "test", "-e", "/home/circleci/in"];
    let is_in = || (bench.docker().ask(&look).exit_code == Some(0)).then_some(());
    eventually("somebody is inside", Duration::from_secs(20), is_in);
    let due = || bench.ask(&["ps"]).stdout().contains("(in 0 min)").then_some(());
    eventually("the time is up", Duration::from_secs(60), due);
    bench.ask(&["prune"]).passes();
    bench.ask(&["shell", &task, "--", "touch", "/home/circleci/leave"]).passes();
    let stayed = inside.finish();
    stayed.passes();
    assert_eq!(stayed.stdout(), "stayed\n");
    // What it says may be of a neighbour's task.
    let pruned = || {
        bench.ask(&["prune"]).passes();
        bench.left_of(std::slice::from_ref(&task)).is_empty().then_some(())
    };
    eventually("it is removed once nobody is there", Duration::from_secs(20), pruned);
    nothing_is_left_of(&bench, &task);
}

#[test]
fn what_a_person_ran_ends_when_they_are_gone() {
    let bench = Bench::new();
    let (task, _) = held(&bench, MENDABLE, &["--keep-on-fail"]);
    let args = ["shell", &task, "--", "sh", "-c", "trap '' TERM HUP; echo $$ > ~/mine; sleep 1000; sleep 1000"];
    let inside = bench.start(&args).that_leaves_things();
    let look = |script: &str| bench.ask(&["shell", &task, "--", "sh", "-c", script]).exit_code == 0;
    let running = "kill -0 $(cat ~/mine)";
    eventually("it runs", Duration::from_secs(10), || look(running).then_some(()));
    inside.signal(Signal::Kill);
    inside.finish().exits_with(128 + 9);
    eventually("it is ended", Duration::from_secs(10), || (!look(running)).then_some(()));
    bench.ask(&["rm", &task]).passes();
}

#[test]
fn one_jobs_secret_stays_masked_when_another_is_gone_on_with() {
    let bench = Bench::new();
    bench.file("a.env", "OF_A=the-secret-of-a\n");
    let yaml = r#"
version: 2.1
executors:
  box: {docker: [{image: navvy/busybox:static}], resource_class: small}
jobs:
  a: {executor: box, steps: [{run: echo "$OF_A"}]}
  b: {executor: box, steps: [{run: {name: the-secret-of-a is told, command: 'echo the-secret-of-a; false'}}]}
workflows:
  ci: {jobs: [{a: {context: a}}, b]}
"#;
    let (_, done) = held(&bench, yaml, &["--keep-on-fail", "--context", "a=a.env"]);
    done.exits_with(1);
    Run::of(&bench, &["retry", "b", "--json"]).exits_with(1);
    let plain = bench.ask(&["retry", "b", "--plain", "--from", "nothing"]);
    let said = plain.stdout() + &plain.stderr + &bench.ask(&["ps"]).stdout();
    assert!(!said.contains("the-secret-of-a"), "{said}");
    assert_eq!(files_with(&bench.state(), "the-secret-of-a"), Vec::<String>::new());
    bench.ask(&["rm", "b"]).passes();
}

#[test]
fn break_points_that_name_nothing_are_refused() {
    let bench = Bench::new();
    bench.config(MENDABLE).run(&["--break-before", "tset"]).finish().exits_with(64).complains(&["tset"]).ran_nothing();
}

#[test]
fn a_held_step_that_is_gone_from_the_config_needs_another_to_be_named() {
    let bench = Bench::new();
    let (task, _) = held(&bench, MENDABLE, &["--keep-on-fail"]);
    let start = MENDABLE.find("      - run: {name: first").expect("it has steps");
    let end = MENDABLE.find("  later:").expect("it has another job");
    bench.config(&format!(
        "{}      - run: {{name: only, command: echo only}}\n{}",
        &MENDABLE[..start],
        &MENDABLE[end..]
    ));
    bench.ask(&["retry", "build", "--with-edits"]).exits_with(64).complains(&["no step test", "--from"]);
    let named = Run::of(&bench, &["retry", "build", "--with-edits", "--from", "only", "--json"]);
    named.passes();
    nothing_is_left_of(&bench, &task);
}
