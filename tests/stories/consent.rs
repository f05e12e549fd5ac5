//! Contexts and files of variables of the user: which projects get them.

use navvy_tests::{Bench, Finished};

const SETTINGS: &str = "navvy/settings.toml";

const ASKS: &str = r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/busybox:static}]
    resource_class: small
    steps: [{run: {name: look, command: 'echo "${KEY-none} ${MINE-none}"'}}]
workflows:
  ci: {jobs: [{build: {context: [prod]}}]}
"#;

/// A project whose job asks for a context that its user has.
fn asking() -> Bench {
    let bench = Bench::new();
    bench.config(ASKS).config_file("navvy/contexts/prod.env", "KEY=hunter2-of-prod\n");
    bench
}

#[track_caller]
fn saw(done: &Finished, expected: &str) {
    done.passes();
    assert_eq!(done.text("build", "look"), format!("{expected}\n"));
}

#[track_caller]
fn sees(bench: &Bench, words: &[&str], expected: &str) {
    saw(&bench.run(words).finish(), expected);
}

#[track_caller]
fn run(bench: &Bench, words: &[&str], expected: &str) -> Finished {
    let done = bench.run(words).finish();
    saw(&done, expected);
    done
}

#[test]
fn a_context_is_given_to_no_project_that_was_not_given_it() {
    let bench = asking();
    let done = run(&bench, &[], "none none");
    for part in ["context prod is not given to build", "--context prod", "[contexts.prod]"] {
        assert!(done.warnings().contains(part), "no {part:?} in {}", done.warnings());
    }
    let given =
        |done: &Finished| done.event("the end", |event| event.is("run_ended")).get("contexts_given").to_string();
    assert_eq!(given(&done), "[]");
    let done = run(&bench, &["--context", "prod"], "**** none");
    assert_eq!(given(&done), r#"[{"context":"prod","jobs":["build"]}]"#);
    sees(&bench, &[], "none none");
    let told = bench.run_for_people(&["--plain", "--context", "prod"]).finish();
    assert!(told.stdout().contains("contexts given: prod → build"), "{}", told.stdout());
    bench.run(&["--context", "staging"]).finish().exits_with(64);
}

#[test]
fn settings_say_for_which_projects_a_context_is() {
    let bench = asking();
    let here = bench.project().display().to_string();
    bench.config_file(SETTINGS, format!("[contexts.prod]\nprojects = ['{here}']\n"));
    sees(&bench, &[], "**** none");
    bench.config_file(SETTINGS, "[contexts.prod]\nprojects = ['/elsewhere/*']\n");
    let done = run(&bench, &[], "none none");
    assert!(done.warnings().contains("other projects"), "{}", done.warnings());
    bench.config_file(SETTINGS, "[contexts.'*']\nprojects = ['*']\n");
    sees(&bench, &[], "**** none");
    // A project cannot say so of itself.
    bench.file(".navvy.toml", "[contexts.prod]\nprojects = ['*']\n");
    bench.run(&[]).finish().exits_with(64).complains(&[".navvy.toml", "`contexts`"]);
}

#[test]
fn a_fork_gets_only_what_the_command_line_names() {
    let bench = asking();
    bench.config_file("navvy/my.env", "MINE=hunter2-of-mine\n");
    let always = "env-file = ['my.env']\nenv-file-projects = ['*']\n[contexts.prod]\nprojects = ['*']\n";
    bench.config_file(SETTINGS, always);
    sees(&bench, &[], "**** ****");
    let done = run(&bench, &["--scope", "fork:alice"], "none none");
    assert!(done.warnings().contains("fork:alice gets only what the command line names"), "{}", done.warnings());
    sees(&bench, &["--scope", "fork:alice", "--context", "prod"], "**** none");
    let mine = bench.project().join("../config/navvy/my.env").display().to_string();
    sees(&bench, &["--scope", "fork:alice", "--env-file", &mine], "none ****");
}

#[test]
fn a_file_of_variables_of_the_user_is_given_to_no_project_that_was_not_given_it() {
    let bench = asking();
    bench.config_file("navvy/my.env", "MINE=hunter2-of-mine\n").config_file(SETTINGS, "env-file = ['my.env']\n");
    let done = run(&bench, &[], "none none");
    assert!(done.warnings().contains("my.env is not given"), "{}", done.warnings());
    let here = bench.project().display().to_string();
    bench.config_file(SETTINGS, format!("env-file = ['my.env']\nenv-file-projects = ['{here}']\n"));
    let done = run(&bench, &[], "none ****");
    let given = done.event("the end", |event| event.is("run_ended")).get("env_files_given").to_string();
    assert!(given.contains("my.env"), "{given}");
}

#[test]
fn a_project_is_asked_for_once_and_the_answer_is_its_own() {
    let bench = asking();
    let refused = bench.on_terminal(&["run", "--plain"], "n\n");
    refused.ends(0, &[]);
    assert!(refused.stdout().contains("Give it to this project") && refused.stdout().contains("none none"));
    sees(&bench, &[], "none none");
    let given = bench.on_terminal(&["run", "--plain"], "y\n");
    given.ends(0, &[]);
    assert!(given.stdout().contains("contexts given: prod → build"), "{}", given.stdout());
    sees(&bench, &[], "**** none");
    let again = bench.on_terminal(&["run", "--plain"], "");
    assert!(!again.stdout().contains("Give it to this project"), "{}", again.stdout());
    // Only the owner reads who gets what.
    let consents = bench.state().join("navvy/consents");
    for entry in std::fs::read_dir(&consents).expect("it was remembered") {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = entry.expect("an entry").metadata().expect("its mode").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    // Another project in the same place, a config that is not the project's, and a copy in another place are strangers.
    bench.git(&["remote", "add", "origin", "https://example.invalid/else/where.git"]).succeeded();
    sees(&bench, &[], "none none");
    bench.git(&["remote", "remove", "origin"]).succeeded();
    sees(&bench, &[], "**** none");
    bench.file("theirs.yml", ASKS);
    sees(&bench, &["-f", "theirs.yml"], "none none");
    let copy = bench.project().join("copy");
    std::fs::create_dir(&copy).expect("a directory can be made");
    bench.file("copy/.circleci/config.yml", ASKS);
    let theirs = bench.program(&["run", "--plain"]).directory(&copy).run();
    assert!(theirs.stdout().contains("none none"), "{}", theirs.stdout());
}

#[test]
fn what_a_setup_pipeline_goes_on_with_gets_no_more() {
    let bench = asking();
    bench.file(".circleci/next.yml", ASKS);
    bench.config(
        r#"
version: 2.1
setup: true
jobs:
  decide:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps: [checkout, {run: circleci continuation continue --configuration .circleci/next.yml}]
workflows:
  setup: {jobs: [decide]}
"#,
    );
    let done = run(&bench, &[], "none none");
    assert!(done.warnings().contains("context prod is not given to build"), "{}", done.warnings());
    let done = run(&bench, &["--context", "prod"], "**** none");
    let given = done.event("the end", |event| event.is("run_ended")).get("contexts_given").to_string();
    assert_eq!(given, r#"[{"context":"prod","jobs":["build"]}]"#);
}
