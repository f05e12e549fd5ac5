//! `navvy config`: a config looked at, and not run. No engine is asked.

use navvy_tests::Bench;

const PIPELINE: &str = r#"version: 2.1
parameters:
  tag: {type: string, default: "1"}
executors:
  box:
    parameters: {size: {type: string, default: small}}
    docker: [{image: "busybox:<< pipeline.parameters.tag >>"}]
    resource_class: << parameters.size >>
    environment: {FROM: executor}
commands:
  greet:
    parameters: {whom: {type: string}}
    steps:
      - run: {name: "Greet << parameters.whom >>", command: "cat \\<<EOF\nhello << parameters.whom >>\nEOF\n"}
jobs:
  build:
    parameters: {os: {type: string}}
    executor: box
    steps: [checkout, greet: {whom: << parameters.os >>}]
  deploy: {executor: {name: box, size: large}, steps: [run: ./deploy.sh]}
workflows:
  ci:
    jobs:
      - build: {matrix: {parameters: {os: [linux, mac]}}}
      - hold: {type: approval, requires: [build]}
      - deploy: {requires: [hold, build-linux: [success, failed]], filters: {branches: {ignore: main}}}
  by-hand:
    when: {equal: ["yes", << pipeline.parameters.tag >>]}
    jobs: [deploy]
"#;

/// The same, compiled.
const WRITTEN: &str = r"
version: 2
jobs:
  build-linux:
    docker:
      - image: busybox:1
    resource_class: small
    environment:
      FROM: executor
    steps:
      - checkout
      - run:
          name: Greet linux
          command: |
            cat <<EOF
            hello linux
            EOF
  build-mac:
    docker:
      - image: busybox:1
    resource_class: small
    environment:
      FROM: executor
    steps:
      - checkout
      - run:
          name: Greet mac
          command: |
            cat <<EOF
            hello mac
            EOF
  deploy:
    docker:
      - image: busybox:1
    resource_class: large
    environment:
      FROM: executor
    steps:
      - run:
          command: ./deploy.sh
workflows:
  version: 2
  ci:
    jobs:
      - build-linux
      - build-mac
      - hold:
          type: approval
          requires:
            - build-linux
            - build-mac
      - deploy:
          requires:
            - hold
            - build-linux:
                - success
                - failed
          filters:
            branches:
              ignore: main
";

/// A bench on which no engine can be reached.
fn bench() -> Bench {
    let bench = Bench::new().env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    bench.config(PIPELINE);
    bench
}

fn told(bench: &Bench, args: &[&str]) -> String {
    let done = bench.navvy(&[&["config"], args].concat());
    done.passes();
    done.stdout()
}

#[test]
fn a_config_written_out_is_read_to_the_same() {
    let bench = bench();
    let written = told(&bench, &["process", "--branch", "main"]);
    assert_eq!(written, WRITTEN.trim_start_matches('\n'));
    bench.file("out.yml", &written);
    assert_eq!(told(&bench, &["process", "out.yml", "--branch", "main"]), written);
}

#[test]
fn a_config_written_out_tells_where_values_come_from() {
    let bench = bench();
    let explained = told(&bench, &["process", "--explain", "--branch", "main"]);
    assert!(
        explained.contains("from command `greet`, called from job `build` (.circleci/config.yml:19)"),
        "{explained}"
    );
    assert!(explained.contains("# pipeline parameter `tag` (default, .circleci/config.yml:3)"), "{explained}");
    let given = told(&bench, &["process", "-p", "tag=7", "--branch", "main"]);
    assert!(given.contains("busybox:7"), "{given}");
}

#[test]
fn the_compiled_pipeline_is_a_document() {
    let document: serde_json::Value =
        serde_json::from_str(&told(&bench(), &["process", "--format", "json", "--branch", "main"])).unwrap();
    assert_eq!(document["format"], 1);
    assert_eq!(document["branch"], "main");
    let [ci, by_hand] = &document["workflows"].as_array().unwrap()[..] else { panic!("{document}") };
    assert_eq!((&ci["runs"], &by_hand["runs"]), (&true.into(), &false.into()));
    assert_eq!(by_hand["why_not"], "its `when` condition does not hold");
    let job = &ci["jobs"][0];
    assert_eq!(job["name"], "build-linux");
    assert_eq!(job["matrix"]["os"], "linux");
    assert_eq!((&job["executor"], &job["image"]), (&"docker".into(), &"busybox:1".into()));
    assert_eq!(job["steps"][1]["name"], "Greet linux");
    assert_eq!(ci["jobs"][3]["kept"], false);
}

#[test]
fn a_graph_shows_what_is_left_out_and_why() {
    let bench = bench();
    insta::assert_snapshot!(told(&bench, &["graph", "--branch", "main"]), @r"
    ci
    ├─ build-linux [os=linux]
    └─ build-mac [os=mac]
       └─ hold (approval)  after build-linux, build-mac
          └─ deploy  after hold, build-linux (success or failed)  (left out: its branch filter does not match branch `main`)
    by-hand  (does not run: its `when` condition does not hold)
    └─ deploy
    ");
    assert!(told(&bench, &["graph", "--format", "dot", "--branch", "main"]).starts_with("digraph pipeline {"));
    insta::assert_snapshot!(told(&bench, &["graph", "--format", "mermaid", "--branch", "topic"]), @r#"
    flowchart LR
      subgraph w0["ci"]
        w0j0["build-linux<br/>os=linux"]
        w0j1["build-mac<br/>os=mac"]
        w0j2{"hold"}
        w0j3["deploy"]
      end
      w0j0 --> w0j2
      w0j1 --> w0j2
      w0j2 --> w0j3
      w0j0 -->|"success or failed"| w0j3
      subgraph w1["by-hand<br/>does not run: its #96;when#96; condition does not hold"]
        w1j0["deploy"]
      end
      classDef left stroke-dasharray:3 3,stroke:#999,color:#999
      class w1 left
    "#);
}

#[test]
fn a_job_is_explained() {
    let bench = bench();
    insta::assert_snapshot!(told(&bench, &["explain", "deploy", "--workflow", "ci", "--branch", "main"]), @r#"
    deploy of workflow ci: does not run on branch main
      - workflow `ci` has no condition: every push starts it (.circleci/config.yml:22)
      - its branch filter keeps out branch `main`: `ignore` names `main` (.circleci/config.yml:26)
      - it waits for `hold` to succeed
      - it waits for `build-linux` (success or failed)

      invoked                             job `deploy`      .circleci/config.yml:26
      definition                          job `deploy`      .circleci/config.yml:20
      executor                            box               defined at .circleci/config.yml:5, named at .circleci/config.yml:20
      parameter `size` of executor `box`  large             given at .circleci/config.yml:20
      image                               busybox:1         executor `box`, .circleci/config.yml:7, by pipeline parameter `tag` (default, .circleci/config.yml:3)
      resource_class                      large             executor `box`, .circleci/config.yml:8, by parameter `size` of executor `box` (given at .circleci/config.yml:20)
      working_directory                   ~/project         default
      environment FROM                    "executor"        executor `box`, .circleci/config.yml:9
      step 1                              run: ./deploy.sh  .circleci/config.yml:20, from job `deploy`
    "#);
    let both = told(&bench, &["explain", "deploy", "--branch", "topic"]);
    assert!(both.contains("deploy of workflow ci: runs on branch topic"), "{both}");
    assert!(both.contains("deploy of workflow by-hand: does not run on branch topic"), "{both}");
    assert!(both.contains("pipeline.parameters.tag = \"1\""), "{both}");
    assert_eq!(told(&bench, &["explain", "build"]).matches(" of workflow ci: runs").count(), 2);
    bench.navvy(&["config", "explain", "deplyo"]).exits_with(2).complains(&["deplyo", "Did you mean `deploy`?"]);
    bench.navvy(&["config", "explain", "hold", "--workflow", "c"]).exits_with(2).complains(&["`c`", "`ci`"]);
}

#[test]
fn diagnostics_are_documents_too() {
    let bench = bench();
    let good = told(&bench, &["validate", "--format", "sarif"]);
    assert!(good.contains("\"version\": \"2.1.0\"") && good.contains("\"results\": []"), "{good}");
    bench.config("version: 2.1\njobs:\n  build: {docker: [{image: x}], steps: [chekout]}\n");
    let bad = bench.navvy(&["config", "validate", "--format", "json"]);
    bad.exits_with(2);
    let document: serde_json::Value = serde_json::from_str(&bad.stdout()).unwrap();
    assert_eq!((&document["valid"], &document["errors"]), (&false.into(), &1.into()));
    let diagnostic = &document["diagnostics"][0];
    assert_eq!(diagnostic["code"], "unknown-step");
    assert_eq!((&diagnostic["span"]["line"], &diagnostic["span"]["end_column"]), (&3.into(), &48.into()));
    let sarif = bench.navvy(&["config", "validate", "--format", "sarif"]);
    let log: serde_json::Value = serde_json::from_str(&sarif.exits_with(2).stdout()).unwrap();
    let result = &log["runs"][0]["results"][0];
    assert_eq!(result["ruleId"], "unknown-step");
    assert_eq!(result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"], ".circleci/config.yml");
}

#[test]
fn a_config_may_come_from_standard_input_and_what_is_none_is_told() {
    let bench = bench();
    let piped = bench.piped(&["config", "validate", "-"], "version: 2.1\njobs: {}\nworkflows: {}\n");
    assert_eq!(piped.text(), "<stdin>: valid\n");
    bench.navvy(&["config", "validate", "no.yml"]).exits_with(2).complains(&["could not read no.yml"]);
    bench.navvy(&["config", "graph", "."]).exits_with(2).complains(&["is a directory", ".circleci/config.yml"]);
    bench.file("zero", b"\0\0");
    bench.navvy(&["config", "process", "zero"]).exits_with(2).complains(&["zero:1: the file is binary"]);
    bench.navvy(&["config", "process", "a", "-f", "b"]).exits_with(64);
    bench.navvy(&["config", "process", "--format", "xml"]).exits_with(64).complains(&["xml"]);
}

/// `run` and all that looks at a config know the same values.
#[test]
fn a_config_that_is_looked_at_has_the_numbers_of_a_run() {
    let bench = bench();
    bench.config(
        "version: 2.1\nparameters: {n: {type: integer, default: << pipeline.number >>}}\njobs:\n  one:\n    docker: [{image: busybox}]\n    \
         steps: [run: 'echo << pipeline.parameters.n >> << pipeline.id >> << pipeline.trigger.name >>.']\nworkflows:\n  w:\n    \
         when: {and: [{equal: [1, << pipeline.number >>]}, << pipeline.id >>]}\n    jobs: [one]\n",
    );
    assert_eq!(told(&bench, &["validate"]), ".circleci/config.yml: valid\n");
    let written = told(&bench, &["process"]);
    assert!(written.contains("echo 1 00000000-0000-0000-0000-000000000000 ."), "{written}");
    assert_eq!(written, told(&bench, &["process"]));
    assert!(told(&bench, &["explain", "one"]).contains("runs on branch"), "{}", told(&bench, &["explain", "one"]));
    assert_eq!(told(&bench, &["graph"]), "w\n└─ one\n");
    bench.navvy(&["run", "--list"]).passes();
}

/// What does not run cannot stop what does; who asks whether the file is right is told of all of it.
#[test]
fn mistakes_in_what_does_not_run_are_warnings() {
    let bench = bench();
    let head = "version: 2.1\njobs: {a: {docker: [{image: busybox}], steps: [run: x]}}\n";
    let left = "  later: {when: false, jobs: [{a: {requires: [gone]}}, {a: {name: b, pre-steps: [gone]}}]}\n";
    bench.config(&format!("{head}workflows:\n  now: {{jobs: [a]}}\n{left}"));
    let valid = bench.navvy(&["config", "validate"]);
    valid.passes().complains(&["warning[unknown-requirement]", "its own condition leaves out workflow `later`"]);
    let list = bench.navvy(&["run", "--list"]);
    list.passes();
    assert!(list.stdout().contains("later  left out: its `when` condition does not hold; there are mistakes in it"));
    for wanted in [&["run", "later"][..], &["run", "--job", "b"], &["run", "later", "--dry-run"]] {
        bench.navvy(wanted).exits_with(2).complains(&["workflow `later` cannot run: there are mistakes in it"]);
    }
    bench.config(&format!("{head}workflows: {{now: {{jobs: [a]}}}}\ncommands: {{unused: {{steps: [gone]}}}}\n"));
    for known in [&["run", "--list"][..], &["run", "--dry-run"], &["config", "graph"], &["config", "process"]] {
        bench.navvy(known).passes().complains(&["warning[unknown-step]", "no workflow uses command `unused`"]);
    }
    bench.navvy(&["config", "validate"]).exits_with(2).complains(&["error[unknown-step]"]);
}

#[test]
fn the_schema_for_editors_is_printed() {
    let schema: serde_json::Value = serde_json::from_str(&told(&bench(), &["schema"])).unwrap();
    assert!(schema["definitions"]["job"]["properties"]["steps"].is_object());
}
