//! Dynamic config: a setup job says with which config the pipeline goes on.

use navvy_tests::{Bench, everywhere};

const SETUP: &str = r#"
version: 2.1
setup: true
parameters:
  who: {type: string, default: nobody}
jobs:
  decide:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - checkout
      - run:
          name: decide
          command: DECISION
workflows:
  setup: {jobs: [decide]}
"#;

const NEXT: &str = r#"
version: 2.1
parameters:
  who: {type: string, default: world}
  count: {type: integer, default: 0}
jobs:
  greet:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - run: {name: greet, command: 'echo "hello << pipeline.parameters.who >> << pipeline.parameters.count >>"'}
      - run: {name: key, command: 'echo "key: ${CIRCLE_CONTINUATION_KEY:-none}"'}
  other:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps: [{run: {name: other, command: echo other}}]
workflows:
  main: {jobs: [greet, other]}
"#;

const BY_CLI: &str =
    r#"'circleci continuation continue --configuration .circleci/next.yml --parameters "{\"count\": 3}"'"#;

fn written(bench: &Bench, decision: &str) {
    bench.file(".circleci/next.yml", NEXT);
    bench.config(&SETUP.replace("DECISION", decision));
}

everywhere! {
    fn the_pipeline_goes_on_with_what_the_setup_job_chose(bench: Bench) {
        written(&bench, BY_CLI);
        let done = bench.run(&["-p", "who=you"]).finish();
        done.passes();
        assert_eq!(done.text("greet", "greet"), "hello you 3\n");
        assert_eq!(done.text("greet", "key"), "key: none\n");
        assert_eq!(done.text("other", "other"), "other\n");
        let jobs = done.event("the continuation", |event| event.is("pipeline_continued")).get("jobs");
        assert_eq!(jobs.as_array().map(Vec::len), Some(2), "{jobs}");
    }

    fn whoever_calls_the_api_reaches_the_jobs_own_loopback(bench: Bench) {
        let script = r#"|
            case $CIRCLECI_API_HOST in http://127.0.0.1:*) ;; *) exit 9 ;; esac
            python3 - \<<'END' > /tmp/body
            import json, os
            key, text = os.environ["CIRCLE_CONTINUATION_KEY"], open(".circleci/next.yml").read()
            print(json.dumps({"continuation-key": key, "configuration": text, "parameters": {"who": "curl"}}))
            END
            call() { curl -s -o /tmp/answer -w '%{http_code}\n' -H 'Content-Type: application/json' --data @$1 \
              $CIRCLECI_API_HOST/api/v2/pipeline/continue; cat /tmp/answer; echo; }
            sed 's/"continuation-key": "/&x/' /tmp/body > /tmp/wrong
            call /tmp/wrong; call /tmp/body; call /tmp/body
            cat /tmp/body"#;
        written(&bench, script);
        let done = bench.run(&[]).finish();
        done.passes();
        let said = done.text("decide", "decide");
        let codes: Vec<&str> = said.lines().filter(|line| line.len() == 3).collect();
        assert_eq!(codes, ["401", "200", "400"], "{said}");
        assert!(said.contains(r#""continuation-key": "****""#), "{said}");
        assert_eq!(done.text("greet", "greet"), "hello curl 0\n");
    }
}

#[test]
fn a_name_may_be_of_the_config_that_comes() {
    let bench = Bench::new();
    written(&bench, BY_CLI);
    let done = bench.run(&["--job", "other"]).finish();
    done.passes();
    assert_eq!(done.text("other", "other"), "other\n");
    assert!(!done.started("greet", "greet"));
    let alone = bench.run(&["--job", "decide"]).finish();
    alone.passes();
    assert!(alone.warnings().contains("only what was named was asked for"), "{}", alone.warnings());
}

#[test]
fn what_cannot_be_gone_on_with_is_told_with_its_place() {
    let bench = Bench::new();
    written(&bench, BY_CLI);
    bench.file(".circleci/next.yml", NEXT.replace("jobs: [greet, other]", "jobs: [greet, otter]"));
    let done = bench.run(&[]).finish();
    done.exits_with(2).complains(&["continuation.yml", "otter", "did you mean `other`?"]);
    assert!(done.warnings().contains("continuation.yml has 1 error"), "{}", done.warnings());
    let report = done.event("the run's end", |event| event.is("run_ended")).texts("fidelity").join("\n");
    assert!(report.contains("the pipeline did not go on after decide: "), "{report}");
    assert!(!report.contains("none of its jobs continued the pipeline"), "{report}");
    bench.file(".circleci/next.yml", NEXT.replace("parameters:", "setup: true\nparameters:"));
    let again = bench.run(&[]).finish();
    again.exits_with(2);
    assert!(again.warnings().contains("a setup config itself"), "{}", again.warnings());
    bench.file(".circleci/next.yml", NEXT);
    let conflict = bench.config(&SETUP.replace("DECISION", &BY_CLI.replace("count\\\": 3", "who\\\": \\\"me\\\"")));
    let done = conflict.run(&["-p", "who=you"]).finish();
    done.exits_with(2);
    assert!(done.warnings().contains("conflicting pipeline parameters: who"), "{}", done.warnings());
}

#[test]
fn a_setup_job_that_continues_nothing_says_so() {
    let bench = Bench::new();
    written(&bench, "echo nothing");
    let done = bench.run_for_people(&["--plain"]).finish();
    done.exits_with(0);
    assert!(done.stdout().contains("none of its jobs continued the pipeline"), "{}", done.stdout());
    let plain = bench.run_config(&SETUP.replace("setup: true\n", "").replace("DECISION", BY_CLI), &[]);
    plain.exits_with(1);
    let said = plain.text("decide", "decide");
    assert!(said.contains("CIRCLE_CONTINUATION_KEY is not set: only the jobs of a setup config"), "{said}");
}

#[test]
fn parameters_come_from_what_changed() {
    let bench = Bench::new();
    let script = r#"|
            circleci path-filtering set-parameters --base-revision main --output /tmp/parameters.json \
              --config .circleci/next.yml --mapping $'src/.* count 7\ndocs/.* who "docs"\n(?!src/).* who "rest"'
            circleci path-filtering generate-config --output /tmp/next.yml
            circleci continuation continue --configuration /tmp/next.yml --parameters /tmp/parameters.json"#;
    written(&bench, script);
    bench.file("src/a", "1").file("docs/b", "1").commit("start");
    bench.git(&["branch", "-M", "main"]).succeeded();
    bench.git(&["checkout", "-q", "-b", "topic"]).succeeded();
    bench.file("src/a", "2").commit("a change");
    let done = bench.run(&[]).finish();
    done.passes();
    assert!(done.text("decide", "decide").contains(r#"1 file differs from"#), "{}", done.text("decide", "decide"));
    assert_eq!(done.text("greet", "greet"), "hello world 7\n");
    // What is not committed yet counts: it is in the job's working tree.
    bench.file("new file", "");
    let done = bench.run(&[]).finish();
    done.passes();
    assert_eq!(done.text("greet", "greet"), "hello rest 7\n");
}

#[test]
fn the_orbs_of_dynamic_config_are_built_in() {
    let bench = Bench::new();
    bench.file(".circleci/continue_config.yml", NEXT);
    bench.file("src/a", "1").commit("start");
    bench.git(&["checkout", "-q", "-b", "topic"]).succeeded();
    bench.file("src/a", "2").commit("a change");
    let config = r#"
version: 2.1
setup: true
orbs:
  path-filtering: circleci/path-filtering@1.1.0
workflows:
  setup:
    jobs:
      - path-filtering/filter:
          base-revision: $CIRCLE_BRANCH_OF_BASE
          before_set_params_script: echo "export CIRCLE_BRANCH_OF_BASE=main" >> $BASH_ENV
          mapping: |
            src/.* count 9
            docs/.* who "docs"
"#;
    let done = bench.run_config(config, &["--image", "cimg/*=navvy/base:bookworm"]);
    done.passes();
    assert_eq!(done.text("greet", "greet"), "hello world 9\n");
    let continuation =
        config.replace("path-filtering: circleci/path-filtering@1.1.0", "continuation: circleci/continuation@0.3");
    let jobs = continuation.find("jobs:").expect("it has jobs");
    let job = "jobs:\n      - continuation/continue: {configuration_path: .circleci/continue_config.yml, parameters: '{\"count\": 4}'}\n";
    let done = bench.run_config(&(continuation[..jobs].to_owned() + job), &["--image", "cimg/*=navvy/base:bookworm"]);
    done.passes();
    assert_eq!(done.text("greet", "greet"), "hello world 4\n");
}

#[test]
fn the_second_version_of_path_filtering_excludes_and_hands_on_what_changed() {
    let bench = Bench::new();
    bench.file(".circleci/continue_config.yml", NEXT);
    bench.file("src/a", "1").commit("start");
    bench.git(&["branch", "-M", "main"]).succeeded();
    bench.git(&["checkout", "-q", "-b", "topic"]).succeeded();
    bench.file("src/a", "2").file("docs/b", "2").commit("a change");
    let config = r#"
version: 2.1
setup: true
orbs: {path-filtering: circleci/path-filtering@2.0.2}
executors: {own: {docker: [{image: navvy/base:bookworm}]}}
workflows:
  setup:
    jobs:
      - path-filtering/filter:
          executor: own
          exclude: docs/.*
          parameter_for_files_changed: who
          mapping: |
            src/.* count 9
            docs/.* count 10
"#;
    let done = bench.run_config(config, &[]);
    done.passes();
    assert_eq!(done.text("greet", "greet"), "hello docs/b,src/a,.circleci/config.yml 9\n");
    let debug = bench.run_config(&config.replace("executor: own", "executor: own\n          debug: true"), &[]);
    debug.passes();
    assert!(!debug.started("greet", "greet"));
}

#[test]
fn a_parameter_that_only_the_setup_config_knows_is_told() {
    let bench = Bench::new();
    written(&bench, BY_CLI);
    let next =
        NEXT.replace("  who: {type: string, default: world}\n", "").replace("<< pipeline.parameters.who >>", "all");
    bench.file(".circleci/next.yml", next);
    let done = bench.run(&["-p", "who=you"]).finish();
    done.passes();
    assert_eq!(done.text("greet", "greet"), "hello all 3\n");
    let told = "-p who: only the setup config declares it";
    assert!(done.warnings().contains(told), "{}", done.warnings());
    let summary = done.event("the summary", |event| event.is("run_ended"));
    assert!(summary.texts("fidelity").iter().any(|note| note.contains(told)), "{}", summary.summary());
    let known = bench.file(".circleci/next.yml", NEXT).run(&["-p", "who=you"]).finish();
    assert!(!known.warnings().contains(told), "{}", known.warnings());
}
