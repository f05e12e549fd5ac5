//! Orbs that a config names and does not hold: put in place, listed, locked, and done without.

use std::fs;

use navvy_tests::{Bench, Finished, sha256};

const CONFIG: &str = r#"version: 2.1
orbs:
  hello: acme/hello@1
jobs:
  build:
    executor: hello/box
    steps:
      - hello/greet: {to: navvy}
workflows:
  ci: {jobs: [build, hello/wave]}
"#;

fn hello(word: &str) -> String {
    format!(
        r#"version: 2.1
executors:
  box: {{docker: [{{image: navvy/busybox:static}}]}}
commands:
  greet:
    parameters: {{to: {{type: string}}}}
    steps:
      - run: {{name: greet, command: "echo {word} << parameters.to >>"}}
jobs:
  wave: {{executor: box, steps: [{{run: {{name: wave, command: echo {word} all}}}}]}}
"#
    )
}

/// A bench with the config and no engine.
fn bench() -> Bench {
    let bench = Bench::new().env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    bench.config(CONFIG);
    bench
}

/// What was said, with the bench's own place taken out of it.
fn said(bench: &Bench, text: &str) -> String {
    let root = bench.project().parent().map(|root| root.display().to_string()).unwrap_or_default();
    text.replace(&root, "…")
}

fn add(bench: &Bench, word: &str, words: &[&str]) -> Finished {
    bench.file("hello.yml", hello(word));
    bench.navvy(&[&["orb", "add", "hello.yml"], words].concat())
}

fn read(bench: &Bench, path: &str) -> String {
    fs::read_to_string(bench.project().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn an_orb_that_is_not_there_is_one_error_that_says_what_to_do() {
    let bench = bench();
    let done = bench.navvy(&["config", "validate"]);
    done.exits_with(2);
    insta::assert_snapshot!(said(&bench, &done.stderr), @r##"
    error[missing-orb]: orb `hello` (`acme/hello@1`) is not here
     --> .circleci/config.yml:3:3
      |
    3 |   hello: acme/hello@1
      |   ^^^^^
      = help: its source belongs in .circleci/orbs/acme/hello@1.yml, or in …/home/.local/share/navvy/orbs/acme/hello@1.yml
              to put it there: circleci orb source acme/hello@1 > hello.yml, then navvy orb add hello.yml acme/hello@1
              or go on without what comes from it: --allow-missing-orbs
    Error: .circleci/config.yml: 1 error
    "##);
}

#[test]
fn what_is_added_is_found_used_locked_and_listed() {
    let bench = bench();
    let added = add(&bench, "hi", &["acme/hello@1.2.0"]);
    added.passes();
    let digest = sha256(hello("hi").as_bytes());
    insta::assert_snapshot!(added.stdout().replace(&digest, "DIGEST"), @r##"
    Added .circleci/orbs/acme/hello@1.2.0.yml (sha256:DIGEST).
    Locked acme/hello@1 to 1.2.0, sha256:DIGEST.
    "##);
    assert_eq!(read(&bench, ".circleci/orbs/acme/hello@1.2.0.yml"), hello("hi"));
    let lock = read(&bench, ".circleci/orbs.lock");
    assert!(lock.ends_with(&format!("\nacme/hello@1 1.2.0 sha256:{digest}\n")), "{lock}");
    let listed = bench.navvy(&["orb", "list"]);
    listed.passes();
    insta::assert_snapshot!(listed.stdout().replace(&digest, "DIGEST"), @"acme/hello@1.2.0  .circleci/orbs/acme/hello@1.2.0.yml  sha256:DIGEST  used as acme/hello@1 (locked)");
    let dry = bench.navvy(&["run", "--dry-run"]);
    dry.passes();
    insta::assert_snapshot!(dry.stdout(), @r##"
    workflow ci
      job build
        in navvy/busybox:static (class medium)
          1. run: greet
      job hello/wave
        in navvy/busybox:static (class medium)
          1. run: wave
    "##);
}

#[test]
fn a_newer_version_counts_once_it_is_locked() {
    let bench = bench();
    add(&bench, "old", &["acme/hello@1.2.0"]).passes();
    let newer = add(&bench, "new", &["acme/hello@1.10.0"]);
    newer.passes();
    assert!(
        newer.stdout().contains("acme/hello@1 stays at 1.2.0, as .circleci/orbs.lock has it"),
        "{}",
        newer.stdout()
    );
    let steps = |bench: &Bench| bench.navvy(&["run", "--dry-run"]).stdout();
    fs::remove_file(bench.project().join(".circleci/orbs/acme/hello@1.2.0.yml")).expect("it was there");
    let gone = bench.navvy(&["config", "validate"]);
    gone.exits_with(2).complains(&["acme/hello@1.2.0.yml", "navvy orb lock"]);
    bench.navvy(&["orb", "lock"]).passes();
    assert!(steps(&bench).contains("greet"), "{}", steps(&bench));
    assert!(read(&bench, ".circleci/orbs.lock").contains("acme/hello@1 1.10.0 "));
}

#[test]
fn another_content_under_a_locked_version_is_refused() {
    let bench = bench();
    add(&bench, "hi", &["acme/hello@1.2.0"]).passes();
    bench.file(".circleci/orbs/acme/hello@1.2.0.yml", hello("evil"));
    let refused = bench.navvy(&["run", "--dry-run"]);
    refused.exits_with(2).complains(&["refused-orb", ".circleci/orbs.lock:4 has locked", "navvy orb lock"]);
    let again = add(&bench, "hi", &["acme/hello@1.2.0"]);
    again.exits_with(64).complains(&["another content", "--force"]);
    add(&bench, "hi", &["acme/hello@1.2.0", "--force"]).passes();
    bench.navvy(&["config", "validate"]).passes();
    assert!(add(&bench, "hi", &["acme/hello@1.2.0"]).stdout().contains("is there already"));
    add(&bench, "other", &["acme/hello@1.2.0", "--force"]).passes();
    bench.navvy(&["config", "validate"]).passes();
}

#[test]
fn the_users_orbs_serve_every_project() {
    let bench = bench();
    let added = add(&bench, "hi", &["acme/hello@1.2.0", "--user"]);
    added.passes();
    assert!(said(&bench, &added.stdout()).starts_with("Added …/home/.local/share/navvy/orbs/acme/hello@1.2.0.yml"));
    assert!(!bench.project().join(".circleci/orbs.lock").exists(), "the project was not asked about");
    bench.navvy(&["config", "validate"]).passes();
    let listed = bench.navvy(&["orb", "list"]).stdout();
    assert!(listed.contains("used as acme/hello@1\n"), "{listed}");
    bench.navvy(&["orb", "lock"]).passes();
    assert!(read(&bench, ".circleci/orbs.lock").contains("acme/hello@1 1.2.0 "));
}

#[test]
fn what_is_no_orb_is_not_added() {
    let bench = bench();
    let add = |text: &str, reference: &str| {
        bench.file("x.yml", text);
        bench.navvy(&["orb", "add", "x.yml", reference])
    };
    add("commands: {c: {steps: [nothing]}}", "a/b@1.0.0").exits_with(2).complains(&["x.yml:1:24", "nothing was added"]);
    add(CONFIG, "a/b@1.0.0").exits_with(2).complains(&["this is a config, not an orb"]);
    add(&hello("hi"), "b@1.0.0").exits_with(64).complains(&["NAMESPACE/NAME@VERSION"]);
    assert!(!bench.project().join(".circleci/orbs").exists(), "nothing may be there");
    bench.file(".circleci/orbs.lock", "nonsense\n");
    bench.navvy(&["config", "validate"]).exits_with(2).complains(&[".circleci/orbs.lock:1", "navvy orb lock"]);
}

#[test]
fn without_an_orb_the_rest_of_a_config_runs() {
    let bench = Bench::new();
    bench.config(
        r#"version: 2.1
orbs: {hello: acme/hello@1}
jobs:
  build:
    docker: [{image: navvy/busybox:static}]
    steps:
      - hello/greet: {to: navvy}
      - run: {name: own, command: echo own}
  boxed: {executor: hello/box, steps: [{run: echo never}]}
workflows:
  ci: {jobs: [build, boxed, hello/wave]}
"#,
    );
    bench.run(&[]).finish().exits_with(2).ran_nothing();
    let done = bench.run(&["--allow-missing-orbs"]).finish();
    assert_eq!(done.text("build", "own"), "own\n");
    assert_eq!(done.skipped("build", "hello/greet"), "not_available");
    assert!(done.warnings().contains("step `hello/greet` was skipped: orb `hello` is not here"), "{}", done.warnings());
    let ended = done.event("the run's end", |event| event.is("run_ended")).get("jobs")[0].clone();
    assert_eq!(ended["skipped"], serde_json::json!({"orb_missing": 1}), "{ended}");
    assert_eq!((done.end("boxed"), done.end("hello/wave")), ("not_available".into(), "not_available".into()));
}

#[test]
fn jobs_commands_and_executors_of_an_orb_run() {
    let bench = Bench::new();
    bench.config(CONFIG).file(".circleci/orbs/acme/hello@1.0.3.yml", hello("hi"));
    let done = bench.run(&[]).finish();
    done.passes();
    assert_eq!(done.text("build", "greet"), "hi navvy\n");
    assert_eq!(done.text("hello/wave", "wave"), "hi all\n");
}

/// An orb that stands on acme/hello.
const LOUD: &str = r#"version: 2.1
orbs: {hello: acme/hello@1}
commands:
  greet: {steps: [{hello/greet: {to: all}}]}
"#;

#[test]
fn a_users_orb_finds_the_users_orbs_that_it_imports() {
    let bench = bench();
    let alone = bench.file("loud.yml", LOUD).navvy(&["orb", "add", "--user", "loud.yml", "acme/loud@1.0.0"]);
    alone.passes().complains(&["`acme/hello@1`) is not here"]);
    add(&bench, "hi", &["acme/hello@1.2.0", "--user"]).passes();
    let found = bench.navvy(&["orb", "add", "--user", "loud.yml", "acme/loud@1.0.1"]);
    assert_eq!(found.passes().stderr, "");
    // What it does with them is checked, too.
    bench.file("loud.yml", LOUD.replace("to: all", "two: all"));
    let wrong = bench.navvy(&["orb", "add", "--user", "loud.yml", "acme/loud@1.0.2"]);
    wrong.exits_with(2).complains(&["two", "nothing was added"]);
    // Orbs that are built in are always there.
    let setup = LOUD.replace("acme/hello@1", "circleci/continuation@2").replace("to: all", "configuration_path: x");
    bench.file("loud.yml", setup.replace("hello/greet", "hello/continue"));
    let found = bench.navvy(&["orb", "add", "--user", "loud.yml", "acme/loud@1.0.3"]);
    assert_eq!(found.passes().stderr, "");
}

#[test]
fn an_orb_that_is_built_in_can_be_replaced_and_that_is_told() {
    let bench = bench();
    bench.config(
        &CONFIG
            .replace("acme/hello@1", "circleci/continuation@2.0.1")
            .replace("version: 2.1", "version: 2.1\nsetup: true"),
    );
    let dry = |bench: &Bench| bench.navvy(&["run", "--dry-run"]);
    dry(&bench).exits_with(2);
    let listed = bench.navvy(&["orb", "list"]).stdout();
    assert_eq!(listed, "circleci/continuation@2.0.1  built in  -  used as circleci/continuation@2.0.1\n");
    for (place, directory) in [(&["--user"][..], "home/.local/share/navvy/orbs"), (&[], ".circleci/orbs")] {
        let added = add(&bench, "hi", &[&["circleci/continuation@2.0.1"], place].concat()).passes().stdout();
        assert!(added.contains("in place of the circleci/continuation that is built into Navvy"), "{added}");
        assert!(added.contains("asks https://circleci.com to continue the pipeline"), "{added}");
        assert!(added.contains(&format!("{directory}/circleci/continuation@2.0.1.yml")), "{added}");
        dry(&bench).passes();
        let listed = bench.navvy(&["orb", "list"]).stdout();
        assert!(listed.contains("used as circleci/continuation@2.0.1") && !listed.contains("built in"), "{listed}");
    }
}

#[test]
fn what_the_config_does_not_name_is_told() {
    let bench = bench();
    let other = add(&bench, "hi", &["acme/hello@2.0.0"]).passes().stdout();
    assert!(other.contains(".circleci/config.yml names acme/hello@1, which acme/hello@2.0.0 is not.\n"), "{other}");
    let stranger = add(&bench, "hi", &["acme/stranger@1.0.0"]).passes().stdout();
    assert!(stranger.contains(".circleci/config.yml does not name acme/stranger.\n"), "{stranger}");
    let used = add(&bench, "hi", &["acme/hello@1.0.0"]).passes().stdout();
    assert!(!used.contains("name"), "{used}");
}

/// An orb's source tree, as its repository has it.
fn tree(bench: &Bench) -> &Bench {
    bench.file(
        "hello/src/@orb.yml",
        "version: 2.1\n# gone\ndescription: &d |\n  Greets.\n\n  Twice.\ndisplay: {home_url: *d}\n",
    );
    bench.file("hello/src/executors/box.yml", "docker: [{image: 'navvy/busybox:static'}]\n");
    bench.file("hello/src/commands/README.md", "words").file("hello/src/commands/.hidden.yml", ": no yaml");
    bench.file(
        "hello/src/commands/greet.yml",
        "parameters: {to: {type: string}}\nsteps:\n  - run: {name: greet, environment: {TO: << parameters.to >>}, command: <<include(scripts/greet.sh)>>}\n",
    );
    bench.file("hello/src/scripts/greet.sh", "cat <<END\nhi $TO\nEND\n\n  # indented\n");
    bench.file("hello/src/jobs/wave.yaml", "executor: box\nsteps: [{greet: {to: 'yes'}}]\n");
    bench.file("hello/src/examples/e.yml", "usage: {version: 2.1, text: '<<include(nowhere)>>'}\n")
}

#[test]
fn an_orbs_source_tree_is_packed_into_one_file_that_can_be_added() {
    let bench = Bench::new();
    bench.config(CONFIG);
    let packed = tree(&bench).navvy(&["orb", "pack", "hello"]);
    assert_eq!(packed.passes().stderr, "");
    insta::assert_snapshot!(packed.stdout(), @r##"
    version: 2.1
    description: |
      Greets.

      Twice.
    display:
      home_url: |
        Greets.

        Twice.
    commands:
      greet:
        parameters:
          to:
            type: string
        steps:
          - run:
              name: greet
              environment:
                TO: "<< parameters.to >>"
              command: |
                cat \<<END
                hi $TO
                END

                  # indented
    executors:
      box:
        docker:
          - image: navvy/busybox:static
    jobs:
      wave:
        executor: box
        steps:
          - greet:
              to: "yes"
    examples:
      "e":
        usage:
          version: 2.1
          text: "<<include(nowhere)>>"
    "##);
    assert_eq!(bench.navvy(&["orb", "pack", "hello/src"]).stdout(), packed.stdout());
    bench.file("hello.yml", packed.stdout());
    bench.navvy(&["orb", "add", "hello.yml", "acme/hello@1.0.0"]).passes();
    let done = bench.run(&[]).finish();
    done.passes();
    assert_eq!(done.text("build", "greet"), "hi navvy\n");
    assert_eq!(done.text("hello/wave", "greet"), "hi yes\n");
}

#[test]
fn what_cannot_be_packed_is_told_with_its_place() {
    let bench = bench();
    let packed = |bench: &Bench, name: &str, text: &str| {
        let path = format!("hello/src/{name}");
        let before = fs::read(bench.project().join(&path)).ok();
        bench.file(&path, text);
        let done = bench.navvy(&["orb", "pack", "hello"]);
        match before {
            Some(before) => fs::write(bench.project().join(&path), before).expect("the file goes back"),
            None => fs::remove_file(bench.project().join(&path)).expect("the file goes"),
        }
        assert_eq!(done.stdout(), "", "{name}: nothing is printed of what is not whole");
        done
    };
    tree(&bench);
    let refused = |name: &str, text: &str, words: &[&str]| {
        packed(&bench, name, text).exits_with(2).complains(words);
    };
    refused("commands/x.yml", "steps: [", &["hello/src/commands/x.yml:1"]);
    refused("commands/x.yml", "", &["hello/src/commands/x.yml", "nothing in it"]);
    refused("commands/x.yml", "- run: echo", &["hello/src/commands/x.yml:1:1", "a map"]);
    let command = |value: &str| format!("steps:\n  - run: {value}\n");
    refused("commands/x.yml", &command("<<include(gone.sh)>>"), &["hello/src/commands/x.yml:2:10", "gone.sh"]);
    refused("commands/x.yml", &command("'a <<include(scripts/greet.sh)>>'"), &["x.yml:2:10", "the whole value"]);
    refused("commands/x.yml", &command("<<include(../../hello.yml)>>"), &["x.yml:2:10", "outside of hello/src"]);
    refused("commands/x.yml", &command("<<include(scripts)>>"), &["x.yml:2:10", "it is a directory, not a file"]);
    refused(
        "commands/greet.yaml",
        &command("echo"),
        &["greet.yml:1:1", "command `greet` is there twice", "greet.yaml"],
    );
    refused("@orb.yml", "version: 2.1\ncommands: {greet: {steps: []}}\n", &["command `greet` is there twice"]);
    refused("@orb.yml", "version: 2.1\ncommands: [greet]\n", &["@orb.yml:2:11", "`commands` is a list"]);
    std::os::unix::fs::symlink("/etc/hostname", bench.project().join("hello/src/scripts/link")).expect("a link");
    refused("commands/x.yml", &command("<<include(scripts/link)>>"), &["x.yml:2:10", "outside of hello/src"]);
    let nowhere = |directory: &str, words: &[&str]| {
        bench.navvy(&["orb", "pack", directory]).exits_with(2).complains(words);
    };
    nowhere("gone", &["there is no directory gone"]);
    nowhere(".", &["there is no @orb.yml in . or in ./src"]);
    bench.file("old/orb.yml", hello("hi"));
    nowhere("old", &["there is no @orb.yml in old", "navvy orb add old/orb.yml"]);
    nowhere("old/orb.yml", &["is a file", "navvy orb add old/orb.yml"]);
    let directory = bench.navvy(&["orb", "add", "hello", "acme/hello@1.0.0"]);
    directory
        .exits_with(2)
        .complains(&["hello is a directory", "navvy orb pack hello | navvy orb add - acme/hello@1.0.0"]);
}
