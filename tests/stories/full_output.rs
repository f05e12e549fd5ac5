//! What cannot be printed: a full disk is an error of every command, a reader who has gone is none.

use std::fs::File;
use std::process::Stdio;

use navvy_tests::{Answer, Bench};

const CONFIG: &str = r#"version: 2.1
jobs:
  build:
    docker: [{image: navvy/busybox:static}]
    steps:
      - run: {name: Speak, command: echo spoken}
      - restore_cache: {key: v1}
  fails:
    docker: [{image: navvy/busybox:static}]
    steps: [{run: {name: Stop, command: "echo stopping; exit 7"}}]
workflows:
  ci: {jobs: [build]}
  never: {when: false, jobs: [fails]}
"#;

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").expect("/dev/full is here").into()
}

/// A pipe that nobody reads.
fn gone() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe can be made");
    drop(reader);
    writer.into()
}

const LOST: &str = "could not write to standard output: No space left on device";

fn into_full(bench: &Bench, words: &str) -> Answer {
    bench.program(&words.split(' ').collect::<Vec<_>>()).output(full()).run()
}

/// Of each command that prints something without an engine.
const WITHOUT_ENGINE: [&str; 25] = [
    "--help",
    "--version",
    "run --help",
    "completions bash",
    "run --list",
    "run --graph",
    "run --graph=dot",
    "run --dry-run",
    "config validate",
    "config validate --format json",
    "config validate --format sarif",
    "config process",
    "config process --format json",
    "config graph",
    "config explain build",
    "config schema",
    "orb list",
    "orb pack src",
    "tests",
    "artifacts ls",
    "cache ls",
    "cache explain",
    "cache explain --json",
    "cache explain --key v1",
    "ps",
];

#[test]
fn every_command_says_that_its_output_was_lost() {
    let bench = Bench::new().env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    bench.config(CONFIG).file("src/@orb.yml", "version: 2.1\n").commit("a pipeline");
    for words in WITHOUT_ENGINE {
        into_full(&bench, words).ends(3, &[LOST]);
    }
    // What is wrong with this host counts more, and is told, too.
    into_full(&bench, "doctor").ends(69, &[LOST]);
}

#[test]
fn a_reader_who_has_gone_is_no_error() {
    let bench = Bench::new().env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    bench.config(CONFIG).file("src/@orb.yml", "version: 2.1\n").commit("a pipeline");
    for words in WITHOUT_ENGINE.into_iter().filter(|words| *words != "ps") {
        let done = bench.program(&words.split(' ').collect::<Vec<_>>()).output(gone()).run();
        done.ends(0, &[]);
        assert_eq!(done.stderr, "", "{words}");
    }
}

#[test]
fn a_run_whose_lines_are_lost_ends_so() {
    let bench = Bench::new();
    bench.config(CONFIG);
    for words in ["run", "run --json", "run --quiet", "run --plain"] {
        into_full(&bench, words).ends(3, &[LOST]);
    }
    // What became of the jobs counts more.
    into_full(&bench, "run --job fails").ends(1, &[LOST]);
    for words in ["logs", "logs build", "logs build 1", "logs --verify"] {
        bench.navvy(&["run"]).passes();
        into_full(&bench, words).ends(3, &[LOST]);
        bench.program(&words.split(' ').collect::<Vec<_>>()).output(gone()).run().ends(0, &[]);
    }
}

#[test]
fn a_task_that_is_held_is_gone_on_with_and_removed_though_it_cannot_be_told() {
    let bench = Bench::new();
    bench.config(CONFIG);
    let kept = bench.run(&["--job", "fails", "--keep-on-fail"]).that_leaves_things().finish();
    let task = kept.tasks().remove(0);
    into_full(&bench, &format!("shell {task} -- echo hello")).ends(3, &[LOST]);
    into_full(&bench, &format!("retry {task}")).ends(1, &[LOST]);
    into_full(&bench, "ps").ends(3, &[LOST]);
    into_full(&bench, &format!("rm {task}")).ends(3, &[LOST]);
    bench.ask(&["rm", &task]).exits_with(64).complains(&[&task]);
}
