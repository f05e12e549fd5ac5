//! Logs that can be trusted: `navvy logs` tells what of them is whole.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use navvy_tests::{Bench, Finished, Program, Signal, SmallDisk, eventually, sha256};

const TWO_STEPS: &str = r#"
version: 2.1
executors:
  box: {docker: [{image: navvy/busybox:static}], resource_class: small}
jobs:
  unit:
    executor: box
    parallelism: 2
    steps:
      - run: {name: quiet, command: 'true'}
      - run: {name: speaks, command: "printf 'one\\n\\033]0;title\\007two\\n'"}
  other:
    executor: box
    steps:
      - run:
          name: flaky
          max_auto_reruns: 1
          command: 'n=$(cat /tmp/n 2> /dev/null || echo 0); echo "try $n"; echo 1 > /tmp/n; [ "$n" = 1 ]'
workflows:
  ci: {jobs: [unit, other]}
"#;

/// The lines of a table's rows.
fn rows(done: &Finished) -> Vec<String> {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    done.stdout().lines().filter(|line| line.starts_with("  ")).map(words).collect()
}

fn task_of(done: &Finished, job: &str, node: u64) -> String {
    let started = done.event("the task's start", |event| {
        event.is("task_started") && event.job() == job && event.number("node_index") == node
    });
    started.task().expect("a task has an id").to_owned()
}

/// Logs of a task as its last events tell of them: file, length, digest.
fn told_logs(done: &Finished, job: &str) -> Vec<(PathBuf, u64, String)> {
    let told = done.event("the task's logs", |event| event.is("task_logs") && event.job() == job);
    let logs = told.get("logs").as_array().expect("a list");
    let log = |log: &serde_json::Value| {
        let text = |key: &str| log[key].as_str().unwrap_or_default().to_owned();
        (PathBuf::from(text("log")), log["bytes"].as_u64().expect("a number"), text("sha256"))
    };
    logs.iter().map(log).collect()
}

#[test]
fn a_run_s_logs_are_listed_and_printed_by_names_and_ids() {
    let bench = Bench::new();
    let run = bench.run_config(TWO_STEPS, &[]);
    run.passes();
    let (first, other) = (task_of(&run, "unit", 0), task_of(&run, "other", 0));

    let list = bench.navvy(&["logs"]);
    list.passes();
    assert!(list.stdout().contains(&format!("unit[1/2] · task {first} · passed")), "{}", list.stdout());
    assert!(rows(&list).contains(&"1-2 6 B flaky passed".to_owned()), "{}", list.stdout());
    assert!(rows(&list).contains(&"1 0 B quiet passed".to_owned()), "{}", list.stdout());

    assert_eq!(bench.navvy(&["logs", "other", "1"]).passes().stdout(), "try 1\n");
    assert_eq!(bench.navvy(&["logs", "other", "1-1"]).passes().stdout(), "try 0\n");
    let exact = bench.navvy(&["logs", "unit[2/2]", "2"]);
    assert_eq!(exact.passes().stdout, b"one\n\x1b]0;title\x07two\n");
    let all = bench.navvy(&["logs", &other[..12]]);
    all.passes().complains(&["==> other, step 1 (flaky)", "==> other, step 1-2 (flaky)"]);
    assert!(all.stdout().ends_with("try 0\ntry 1\n"), "{}", all.stdout());

    let verified = bench.navvy(&["logs", "--verify"]);
    verified.passes();
    assert_eq!(rows(&verified).iter().filter(|row| row.contains(" whole ")).count(), 9, "{}", verified.stdout());
}

#[test]
fn a_terminal_is_not_steered_unless_it_is_asked_for() {
    let bench = Bench::new();
    bench.run_config(TWO_STEPS, &[]).passes();
    let printed = |raw: &str| {
        let line = format!("exec {NAVVY} logs 'unit[1/2]' 2 {raw}");
        let script = Program::new("script").args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        script.env("XDG_STATE_HOME", bench.state()).env("TERM", "xterm").run().text()
    };
    assert_eq!(printed(""), "one\r\ntwo\r\n");
    assert_eq!(printed("--raw"), "one\r\n\x1b]0;title\x07two\r\n");
}

#[test]
fn what_is_not_there_is_named_with_what_is() {
    let bench = Bench::new();
    bench.navvy(&["logs"]).exits_with(64).complains(&["there is no run in", "XDG_STATE_HOME"]);
    let run = bench.run_config(TWO_STEPS, &[]);
    run.passes();
    bench.navvy(&["logs", "nobody"]).exits_with(64).complains(&["no job or task `nobody`", "unit[2/2]", "other"]);
    bench.navvy(&["logs", "unit"]).exits_with(64).complains(&["2 tasks", &task_of(&run, "unit", 1)]);
    bench.navvy(&["logs", "other", "7"]).exits_with(64).complains(&["no log `7`", "0, 1, 1-2"]);
    bench.navvy(&["logs", "other", "service:db"]).exits_with(64).complains(&["no log `service:db`"]);
    bench.navvy(&["logs", "--run", "2001"]).exits_with(64).complains(&["no run `2001`", "The newest are: 2"]);
    bench.navvy(&["logs", "--run", "../../x"]).exits_with(64).complains(&["no run `../../x`"]);
}

#[test]
fn logs_of_another_user_are_not_readable_and_it_is_said() {
    let mine = Bench::on_this_machine();
    mine.run_config(TWO_STEPS, &[]).passes();
    let user = Bench::of(navvy_tests::Setting::User).env("XDG_STATE_HOME", &mine.state().display().to_string());
    user.navvy(&["logs"]).exits_with(3).complains(&["could not be read", "by its owner alone"]);
}

#[test]
fn times_and_streams_stand_in_front_of_each_line() {
    let bench = Bench::new();
    let config = r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/busybox:static}]
    resource_class: small
    steps:
      - run:
          name: speaks
          command: |
            goes_on() { until [ -e /tmp/$1 ]; do sleep 0.1; done; }
            echo out; goes_on 1; echo err >&2; goes_on 2; printf "no end"
workflows:
  ci: {jobs: [build]}
"#;
    let run = bench.config(config).run(&["--no-tty"]);
    // Of two pipes nobody knows which one was written to first: each word waits until the one before has come.
    for (number, word) in [("1", "out\n"), ("2", "err\n")] {
        let task = run.wait_for_output(word).task().expect("output is a task's").to_owned();
        let file = format!("/tmp/{number}");
        bench.docker().ask(&["exec", &format!("navvy-{task}-primary"), "touch", &file]).succeeded();
    }
    let run = run.finish();
    run.passes();
    let printed = bench.navvy(&["logs", "build", "1", "--times"]).passes().stdout();
    let lines: Vec<Vec<&str>> = printed.lines().map(|line| line.splitn(3, ' ').collect()).collect();
    let shown: Vec<(&str, &str)> = lines.iter().map(|line| (line[1], line[2])).collect();
    assert_eq!(shown, [("stdout", "out"), ("stderr", "err"), ("stdout", "no end")]);
    let started = run.event("the step's start", |event| event.is_start_of("speaks")).text("time").to_owned();
    // Texts of one length have the order of their times.
    let even = |time: &str| {
        let (seconds, rest) = time.trim_end_matches('Z').split_once('.').unwrap_or((time.trim_end_matches('Z'), ""));
        format!("{seconds}.{rest:0<3}")
    };
    let mut times = vec![even(&started)];
    times.extend(lines.iter().map(|line| even(line[0])));
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn every_log_has_its_length_and_digest_at_the_end_of_its_task() {
    let bench = Bench::new();
    let config = r#"
version: 2.1
jobs:
  build:
    docker:
      - image: navvy/busybox:static
      - {image: navvy/busybox:static, name: talker, command: [sh, -c, 'echo here I am; exec sleep 100']}
    resource_class: small
    steps:
      - run: {name: silent, command: 'true'}
      - run: {name: background, background: true, command: 'echo begins; trap "echo ends; exit" TERM; while :; do sleep 0.1; done'}
      - run:
          name: leaves one
          command: |
            (trap "" HUP; until [ -e /tmp/go ]; do sleep 0.1; done; echo late; touch /tmp/said) &
            echo at once
      - run: {name: waits, command: 'touch /tmp/go; until [ -e /tmp/said ]; do sleep 0.1; done'}
workflows:
  ci: {jobs: [build]}
"#;
    let run = bench.run_config(config, &[]);
    run.passes();
    let told = told_logs(&run, "build");
    let names: Vec<String> =
        told.iter().map(|(path, ..)| path.file_name().expect("a file").display().to_string()).collect();
    assert_eq!(names, ["000-1.log", "001-1.log", "002-1.log", "003-1.log", "004-1.log", "service-0.log"]);
    for (path, bytes, digest) in &told {
        let log = fs::read(path).expect("a log is readable");
        assert_eq!((*bytes, digest.as_str()), (log.len() as u64, sha256(&log).as_str()), "{}", path.display());
    }
    assert_eq!(run.text("build", "leaves one"), "at once\nlate\n");
    assert_eq!(run.step("build", "leaves one").bytes, "at once\n".len() as u64);
    assert_eq!(run.step("build", "background").sha256, told[2].2);
    assert_eq!(bench.navvy(&["logs", "build", "service:talker"]).passes().stdout(), "here I am\n");
    bench.navvy(&["logs", "--verify"]).passes();
}

#[test]
fn a_log_that_still_grows_is_unsealed_and_never_damaged() {
    let bench = Bench::new();
    bench.config(
        r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - run: {name: floods, command: 'until [ -e /tmp/enough ]; do seq 3000; echo of it >&2; done', no_output_timeout: 30s}
workflows:
  ci: {jobs: [build]}
"#,
    );
    let run = bench.run(&["--no-tty"]);
    let task = run.wait_for_output("of it").task().expect("output is a task's").to_owned();
    for _ in 0..10 {
        let seen = navvy_logs(&bench, &["logs", &task, "1"]).run();
        assert_eq!(seen.exit_code, Some(4), "{}", seen.stderr);
        assert!(seen.stderr.contains("not sealed") && !seen.stdout.is_empty(), "{}", seen.stderr);
    }
    bench.docker().ask(&["exec", &format!("navvy-{task}-primary"), "touch", "/tmp/enough"]).succeeded();
    run.finish().passes();
    bench.navvy(&["logs", &task, "1"]).passes();
}

/// `navvy` beside a run, which may leave things.
fn navvy_logs(bench: &Bench, words: &[&str]) -> Program {
    Program::new(NAVVY).args(words).env("XDG_STATE_HOME", bench.state())
}

const NAVVY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bin/navvy");

fn killed_while_it_floods(bench: &Bench) -> (String, PathBuf) {
    bench.config(
        r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - run: {name: fits, command: echo small}
      - run: {name: floods, command: 'seq 100000000'}
workflows:
  ci: {jobs: [build]}
"#,
    );
    let run = bench.run(&[]).that_leaves_things();
    let started = run.wait_for_step("floods");
    let log = PathBuf::from(started.text("log"));
    let grown = || fs::metadata(&log).ok().filter(|it| it.len() > 2 << 20);
    eventually("a log of two MiB", Duration::from_secs(30), grown);
    run.signal(Signal::Kill);
    run.finish().exits_with(137);
    (started.task().expect("a step is of a task").to_owned(), log)
}

#[test]
fn of_a_killed_run_the_verified_is_told_from_the_unsealed() {
    let bench = Bench::new();
    let (task, log) = killed_while_it_floods(&bench);
    let whole = fs::read(&log).expect("a log is readable");
    let expected: String =
        (1..).map(|i| format!("{i}\n")).take(whole.iter().filter(|b| **b == b'\n').count() + 1).collect();
    assert!(expected.as_bytes().starts_with(&whole), "what was written is not what the step wrote first");

    // The next run removes what the killed one left; the logs stay, and are found by the task's id.
    bench.run_config(TWO_STEPS, &[]).passes();

    let printed = bench.navvy(&["logs", &task, "2"]);
    printed.exits_with(4).complains(&["build, step 2 (floods)", "not sealed", "002-1.log"]);
    assert!(printed.stdout == whole, "not the whole log was printed");
    let from = printed.stderr.split("bytes ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<usize>().ok());
    let from = from.unwrap_or_else(|| panic!("no offset: {}", printed.stderr));
    assert!(from > 1 << 20 && whole.len() - from < 2 << 20, "{from} of {}", whole.len());
    assert!(printed.stderr.contains(&format!("bytes {from} to {}", whole.len())), "{}", printed.stderr);

    let run = log.ancestors().nth(2).and_then(|run| run.file_name()).expect("a run has a name").display().to_string();
    assert_eq!(bench.navvy(&["logs", "build", "1", "--run", &run]).passes().stdout(), "small\n");
    let verified = bench.navvy(&["logs", "build", "--verify", "--run", &run]);
    verified.exits_with(4);
    let unsealed = format!("unsealed from byte {from}");
    assert!(rows(&verified).iter().any(|row| row.contains(&unsealed)), "{}", verified.stdout());
}

#[test]
fn a_changed_byte_is_named_with_its_segment_and_a_lost_one_too() {
    let bench = Bench::new();
    let config = r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps: [{run: {name: much, command: 'seq 200000'}}]
workflows:
  ci: {jobs: [build]}
"#;
    let run = bench.run_config(config, &[]);
    run.passes();
    let path = run.log_paths("build", "much").remove(0);
    let whole = fs::read(&path).expect("a log is readable");
    bench.navvy(&["logs", "--verify"]).passes();

    let mut changed = whole.clone();
    changed[700_000] ^= 1;
    fs::write(&path, &changed).expect("a log is writable");
    let printed = bench.navvy(&["logs", "build", "1"]);
    printed.exits_with(1).complains(&[
        "build, step 1 (much): damaged",
        "(segment ",
        "crc differs",
        "001-1.log",
        "run the job again",
    ]);
    assert!(printed.stdout == changed, "all that there is was not printed");
    let named = printed.stderr.lines().find_map(|line| line.trim().strip_prefix("bytes ")).expect("bytes are named");
    let mut numbers = named.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse::<usize>().ok());
    let (start, end) = numbers.next().zip(numbers.next()).expect("an offset and another");
    assert!((start..end).contains(&700_000) && end - start <= 256 << 10, "{named}");

    fs::write(&path, &whole[..1_000_000]).expect("a log is writable");
    let missing = format!("bytes 1000000 to {} are missing", whole.len());
    bench.navvy(&["logs", "--verify"]).exits_with(1).complains(&[&missing]);
    fs::write(&path, b"").expect("a log is writable");
    fs::remove_file(path.with_extension("seg")).expect("an index is there");
    bench.navvy(&["logs", "build", "1"]).exits_with(1).complains(&[&format!("bytes 0 to {} are missing", whole.len())]);
    fs::remove_file(&path).expect("a log is there");
    bench.navvy(&["logs", "build", "1"]).exits_with(1).complains(&["is gone"]);
}

const FLOODS_ITS_DISK: &str = r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - run: {name: fits, command: echo small}
      - run: {name: too much, command: 'seq 100000000'}
      - run: {name: after, when: always, command: 'echo still; pgrep -x seq || echo no flood'}
workflows:
  ci: {jobs: [build]}
"#;

#[test]
fn at_the_disk_floor_a_step_fails_and_what_was_written_is_sealed() {
    let bench = Bench::new();
    let disk = SmallDisk::mounted_at(&bench.state(), 24);
    let run = bench.run_config(FLOODS_ITS_DISK, &["--disk-floor", "8M"]);
    run.exits_with(1);
    let step = run.step("build", "too much");
    let said = step.trailers.join("\n");
    for part in ["disk floor:", "8 MiB", "XDG_STATE_HOME", "--disk-floor", &format!("the {} bytes", step.bytes)] {
        assert!(said.contains(part), "{part:?} is not said: {said}");
    }
    let log = run.text("build", "too much");
    assert!(log.len() > 1 << 20, "only {} bytes", log.len());
    assert_eq!((log.len() as u64, sha256(log.as_bytes())), (step.bytes, step.sha256));
    let expected: String = (1..).map(|i| format!("{i}\n")).take(log.lines().count()).collect();
    assert!(expected.starts_with(&log), "what was written is not what the step wrote first");
    assert_eq!(run.text("build", "after"), "still\nno flood\n");
    bench.navvy(&["logs", "--verify"]).passes();
    drop(disk);
}

#[test]
fn at_the_disk_floor_what_runs_in_the_background_is_told_and_the_job_goes_on() {
    let bench = Bench::new();
    let disk = SmallDisk::mounted_at(&bench.state(), 24);
    bench.config(
        r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - run: {name: floods, background: true, command: 'seq 100000000'}
      - run: {name: goes on, command: 'until [ -e /tmp/enough ]; do sleep 0.1; done; echo done'}
workflows:
  ci: {jobs: [build]}
"#,
    );
    let run = bench.run(&["--disk-floor", "8M"]);
    let task = run.wait_for_step("goes on").task().expect("a step is of a task").to_owned();
    let sealed = || {
        let verified = navvy_logs(&bench, &["logs", &task, "1", "--verify"]).run();
        (verified.exit_code == Some(0) && verified.stdout().contains("MiB")).then_some(())
    };
    eventually("a log that is sealed at the floor", Duration::from_secs(30), sealed);
    bench.docker().ask(&["exec", &format!("navvy-{task}-primary"), "touch", "/tmp/enough"]).succeeded();
    let done = run.finish();
    done.passes();
    assert_eq!(done.text("build", "goes on"), "done\n");
    let floods = done.step("build", "floods");
    assert_eq!(floods.outcome, "error");
    assert!(floods.trailers.join("\n").starts_with("disk floor:"), "{:?}", floods.trailers);
    assert_eq!(floods.sha256, sha256(&done.log("build", "floods")));
    drop(disk);
}

#[test]
fn at_the_disk_floor_a_service_lives_on_without_its_log() {
    let bench = Bench::new().env("NAVVY_DISK_FLOOR", "8MiB");
    let disk = SmallDisk::mounted_at(&bench.state(), 24);
    let config = r#"
version: 2.1
jobs:
  build:
    docker:
      - image: navvy/busybox:static
      - {image: navvy/busybox:static, name: talker, command: [sh, -c, 'yes | head -c 24000000; exec nc -ll -p 7000 -e echo alive']}
    resource_class: small
    steps: [{run: {name: asks, command: 'until nc talker 7000 < /dev/null 2> /dev/null | grep alive; do sleep 0.1; done'}}]
workflows:
  ci: {jobs: [build]}
"#;
    let run = bench.run_config(config, &[]);
    run.passes();
    assert!(run.warnings().contains("service talker is no longer kept: disk floor:"), "{}", run.warnings());
    assert_eq!(run.text("build", "asks"), "alive\n");
    let kept = run.service_logs("build").remove(0);
    assert!(kept.len() > 1 << 20 && kept.len() < 24_000_000, "{} bytes", kept.len());
    bench.navvy(&["logs", "--verify"]).passes();
    drop(disk);
}

#[test]
fn a_floor_that_is_no_size_is_refused() {
    let bench = Bench::new().env("NAVVY_DISK_FLOOR", "much");
    let run = bench.config(TWO_STEPS).run_for_people(&[]).finish();
    run.exits_with(64).complains(&["NAVVY_DISK_FLOOR", "`much` is not a size"]).ran_nothing();
}
