//! A config that lies elsewhere, or comes by a pipe: its project is the repository that one stands in.

use std::fs;
use std::path::PathBuf;

use navvy_tests::Bench;

const CONFIG: &str = r#"version: 2.1
jobs:
  look:
    docker: [{image: navvy/base:bookworm}]
    steps: [checkout, {run: {name: Look, command: ls}}]
workflows: {ci: {jobs: [look]}}
"#;

/// A bench with a file of its own, and a config beside a key, outside of it.
fn bench() -> (Bench, PathBuf) {
    let bench = Bench::new();
    bench.file("ours.txt", "").commit("ours");
    bench.home_file("private.key", "secret").home_file("ci.yml", CONFIG);
    let config = bench.home().join("ci.yml");
    (bench, config)
}

#[test]
fn nothing_beside_the_config_gets_into_the_job() {
    let (bench, config) = bench();
    let done = bench.run(&["-f", &config.display().to_string()]).finish();
    done.passes();
    assert_eq!(done.text("look", "Look"), "ours.txt\n");
}

#[test]
fn a_config_comes_by_standard_input_as_well() {
    let (bench, _) = bench();
    let done = bench.program(&["run", "-f", "-", "--plain"]).input(CONFIG).run();
    done.ends(0, &[]);
    assert!(done.stdout().contains("ours.txt") && !done.stdout().contains("private.key"), "{}", done.stdout());
    let broken = bench.program(&["run", "-f", "-"]).input("version: 2.1\njobs: {a: {stepps: []}}\n").run();
    broken.ends(2, &["<stdin>:2"]);
}

#[test]
fn every_command_takes_standard_input() {
    let (bench, _) = bench();
    for words in [
        "run --list",
        "run --dry-run",
        "config validate",
        "cache ls",
        "cache explain --key x",
        "artifacts ls",
        "tests",
        "orb list",
    ] {
        let words: Vec<&str> = words.split(' ').chain(["-f", "-"]).collect();
        bench.program(&words).input(CONFIG).run().ends(0, &[]);
    }
}

#[test]
fn standard_input_is_one_thing_alone() {
    let (bench, _) = bench();
    let both = bench.program(&["orb", "add", "-", "a/b@1.0.0", "-f", "-"]).input("version: 2.1\n").run();
    both.ends(64, &["both the orb and the config"]);
}

#[test]
fn caches_and_results_are_those_of_the_project_that_one_stands_in() {
    let (bench, config) = bench();
    bench.config(
        r#"version: 2.1
jobs:
  save:
    docker: [{image: navvy/base:bookworm}]
    steps: [{run: "mkdir made && echo x > made/x"}, {save_cache: {key: ours, paths: [made]}}]
workflows: {ci: {jobs: [save]}}
"#,
    );
    bench.run(&[]).finish().passes();
    let listed = bench.navvy(&["cache", "ls", "-f", &config.display().to_string()]);
    assert!(listed.stdout().contains("ours"), "{}", listed.account());
}

#[test]
fn a_run_from_standard_input_cannot_be_edited_and_says_so() {
    let (bench, _) = bench();
    let config = CONFIG.replace("ls}", "\"false\"}");
    let failed = bench.program(&["run", "-f", "-", "--keep-on-fail"]).input(config).run();
    failed.ends(1, &[]);
    bench.ask(&["retry", "look", "--with-edits"]).exits_with(64).complains(&["standard input", "--with-edits"]);
    bench.ask(&["rm", "look"]).passes();
}

#[test]
fn a_config_above_the_repository_is_not_followed() {
    let bench = Bench::new();
    bench.config(CONFIG);
    fs::create_dir_all(bench.project().join("vendored/.git/objects")).expect("directories can be made");
    fs::create_dir_all(bench.project().join("vendored/.git/refs")).expect("directories can be made");
    bench.file("vendored/.git/HEAD", "ref: refs/heads/main\n");
    let vendored = bench.project().join("vendored");
    bench.program(&["run"]).directory(&vendored).run().ends(2, &["vendored, where its repository begins", "-f FILE"]);
}
