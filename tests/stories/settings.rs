//! Settings: what every run of a user or of a project would repeat.

use navvy_tests::Bench;

const CONFIG: &str = r#"version: 2.1
jobs:
  build: {docker: [{image: "far.example/ci/node:20"}], steps: [{run: "true"}]}
"#;

const ORB: &str = r#"version: 2.1
orbs: {far: far/away@1.2.3}
jobs:
  build: {docker: [{image: navvy/busybox:static}], steps: [far/prepare, {run: "true"}]}
"#;

const USER: &str = "navvy/settings.toml";

fn bench(config: &str) -> Bench {
    let bench = Bench::new().env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    bench.config(config);
    bench
}

fn image(bench: &Bench, words: &[&str]) -> String {
    let done = bench.navvy(&[&["run", "--dry-run"], words].concat());
    done.passes();
    let text = done.stdout();
    let line = text.lines().find_map(|line| line.trim().strip_prefix("in ")).unwrap_or_default();
    line.split(' ').next().unwrap_or_default().to_owned()
}

#[test]
fn images_are_replaced_by_flag_then_project_then_user() {
    let bench = bench(CONFIG);
    bench.config_file(USER, "image = ['far.example/*=of/user']\n");
    assert_eq!(image(&bench, &[]), "of/user");
    bench.file(".navvy.toml", "image = ['far.example/ci/*=of/project']\n");
    assert_eq!(image(&bench, &[]), "of/project");
    assert_eq!(image(&bench, &["--image", "far.example/ci/node:*=of/flag"]), "of/flag");
    // For other projects, too: what fits no job of this one is not a mistake.
    bench.config_file(USER, "image = ['not/here=of/user']\n");
    assert_eq!(image(&bench, &[]), "of/project");
}

#[test]
fn missing_orbs_are_allowed_by_settings_and_refused_by_the_flag() {
    let bench = bench(ORB);
    bench.navvy(&["config", "validate"]).exits_with(2);
    bench.file(".navvy.toml", "allow-missing-orbs = true\n");
    bench.navvy(&["config", "validate"]).passes();
    bench.navvy(&["run", "--list"]).passes();
    bench.navvy(&["run", "--list", "--allow-missing-orbs=false"]).exits_with(2);
    bench.file(".navvy.toml", "allow-missing-orbs = false\n").config_file(USER, "allow-missing-orbs = true\n");
    bench.navvy(&["run", "--list"]).exits_with(2);
    bench.navvy(&["run", "--list", "--allow-missing-orbs"]).passes();
}

#[test]
fn what_is_no_setting_is_an_error_of_every_command_that_reads_them() {
    let bench = bench(CONFIG);
    bench.file(".navvy.toml", "\nalow-missing-orbs = true\n");
    for words in [&["run", "--list"][..], &["config", "validate"], &["cache", "explain", "--key", "x"]] {
        bench.navvy(words).exits_with(64).complains(&[".navvy.toml: line 2", "alow-missing-orbs"]);
    }
    bench.file(".navvy.toml", "[store]\nurl = 'file:///tmp/theirs'\n");
    bench.navvy(&["run", "--list"]).exits_with(64).complains(&[".navvy.toml", "`store`", "settings.toml"]);
}

#[test]
fn logs_that_have_no_place_say_so_and_how_they_get_one() {
    let bench = Bench::new();
    bench.config("version: 2.1\njobs: {build: {docker: [{image: navvy/busybox:static}], steps: [{run: 'true'}]}}\n");
    let done = bench.program(&["run"]).env("XDG_STATE_HOME", "/dev/null").run();
    done.ends(3, &["log directory", "/dev/null is not a directory", "XDG_STATE_HOME=/dev/null", "set XDG_STATE_HOME"]);
}

#[test]
fn a_held_task_is_not_lost_to_a_retry_whose_logs_have_no_place() {
    let bench = Bench::new();
    bench.config("version: 2.1\njobs: {build: {docker: [{image: navvy/busybox:static}], steps: [{run: 'false'}]}}\n");
    bench.run(&["--keep-on-fail"]).that_leaves_things().finish().exits_with(1);
    // Its journal and marks stay where they are; only the place of runs is taken.
    let runs = bench.state().join("navvy/runs");
    std::fs::rename(&runs, bench.state().join("aside")).expect("the runs can be moved");
    std::fs::write(&runs, "").expect("a file can be made");
    bench.ask(&["retry", "build"]).exits_with(3).complains(&["runs is not a directory", "XDG_STATE_HOME"]);
    std::fs::remove_file(&runs).expect("the file can be removed");
    std::fs::rename(bench.state().join("aside"), &runs).expect("the runs can be moved back");
    bench.ask(&["retry", "build"]).exits_with(1);
    bench.ask(&["rm", "build"]).passes();
}
