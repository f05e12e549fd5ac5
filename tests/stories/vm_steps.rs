//! Every kind of step in a machine, as in a container.

use std::time::Duration;

use navvy_tests::Bench;

const BOOT_LIMIT: Duration = Duration::from_secs(300);

/// What one machine saves another one gets.
const KINDS: &str = r#"
version: 2.1
jobs:
  saves:
    machine: true
    parallelism: 1
    environment: {OF_JOB: job}
    steps:
      - checkout
      - run: {name: tree, command: "cat src/main.txt; git rev-parse --abbrev-ref HEAD; test -x src/tool"}
      - run: {name: variables, environment: {OF_STEP: step}, command: "echo $OF_JOB $OF_STEP; echo 'export LATER=yes' >> $BASH_ENV"}
      - run: {name: later, working_directory: src, command: "echo $LATER $(basename $PWD)"}
      - run: {name: serves, background: true, command: "while true; do date >> ~/beats; sleep 0.1; done"}
      - run: {name: uses, command: "until [ -s ~/beats ]; do sleep 0.1; done; echo heard"}
      - run: {name: again, max_auto_reruns: 2, auto_rerun_delay: 1s, command: "echo x >> ~/tries; test $(wc -l < ~/tries) = 2"}
      - run: {name: makes, command: "mkdir -p out cache reports; seq 100000 > out/numbers; echo kept > cache/it; ln -s it cache/link"}
      - run: {name: reports, command: "echo '<testsuite tests=\"1\"><testcase name=\"works\" time=\"0.1\"/></testsuite>' > reports/it.xml"}
      - save_cache: {key: "v1-{{ checksum \"src/main.txt\" }}", paths: [cache]}
      - persist_to_workspace: {root: out, paths: ["*"]}
      - store_artifacts: {path: out/numbers}
      - store_test_results: {path: reports}
      - run: {name: on fail, when: on_fail, command: "true"}
  takes:
    machine: true
    steps:
      - checkout
      - restore_cache: {keys: ["v1-{{ checksum \"src/main.txt\" }}"]}
      - attach_workspace: {at: /tmp/space}
      - run: {name: checks, command: "cat cache/it cache/link; sha256sum < /tmp/space/numbers"}
      - run: {name: fails, command: "echo fails; exit 3"}
      - run: {name: not run, command: "true"}
      - run: {name: on fail, when: on_fail, command: "echo looked into"}
      - run: {name: always, when: always, command: "circleci-agent step halt; echo halts"}
      - run: {name: halted, when: always, command: "true"}
workflows:
  ci: {jobs: [saves, {takes: {requires: [saves]}}]}
"#;

#[test]
fn every_kind_of_step_does_in_a_machine_what_it_does_in_a_container() {
    let bench = Bench::with_machines();
    bench.config(KINDS).file("src/main.txt", "of the tree\n").file("src/tool", "#!/bin/sh\n");
    let tool = bench.project().join("src/tool");
    std::fs::set_permissions(tool, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    bench.commit("all of it");
    bench.file("src/main.txt", "changed and not committed\n");
    let done = bench.run(&["--max-parallel", "1"]).finish_within(BOOT_LIMIT);
    done.exits_with(1);
    let saves = |name: &str| done.text("saves", name);
    assert_eq!(done.verdict("saves"), "passed", "{}", done.account());
    assert_eq!(saves("tree"), "changed and not committed\nmain\n");
    assert_eq!((saves("variables").as_str(), saves("later").as_str()), ("job step\n", "yes src\n"));
    assert_eq!((saves("uses").as_str(), done.attempts("saves", "again").len()), ("heard\n", 2));
    assert_eq!(done.skipped("saves", "on fail"), "nothing_failed");
    // As sha256sum says of seq's numbers on this machine.
    let numbers: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    let digest = navvy_tests::sha256(numbers.as_bytes());
    assert_eq!(done.text("takes", "checks"), format!("kept\nkept\n{digest}  -\n"));
    assert_eq!(done.step("takes", "fails").outcome, "exit_code");
    assert_eq!(done.skipped("takes", "not run"), "job_failed");
    assert_eq!(done.text("takes", "on fail"), "looked into\n");
    assert_eq!(done.skipped("takes", "halted"), "halted");
    assert_eq!(bench.left_of_runs(), Vec::<String>::new());
}

const ENDS: &str = r#"
version: 2.1
jobs:
  ends:
    machine: true
    steps:
      - run: {name: eats, when: always, command: "python3 -c 'x = bytearray(2147483648); x[::4096] = bytes([1]) * len(x[::4096])'"}
      - run: {name: silent, when: always, no_output_timeout: 3s, command: "sleep 300"}
      - run: {name: floods, when: always, command: "seq 3000000"}
      - run: {name: goes on, when: always, command: "echo still here"}
workflows:
  ci: {jobs: [ends]}
"#;

#[test]
fn what_a_step_does_to_its_machine_ends_the_step_and_not_the_machine() {
    let bench = Bench::with_machines();
    bench.config(ENDS);
    let done = bench.run(&[]).finish_within(BOOT_LIMIT);
    done.exits_with(1);
    assert_ne!(done.step("ends", "eats").outcome, "success", "{}", done.account());
    assert_eq!(done.step("ends", "silent").outcome, "no_output");
    let numbers: String = (1..=3_000_000).map(|number| format!("{number}\n")).collect();
    assert_eq!(navvy_tests::sha256(&done.log("ends", "floods")), navvy_tests::sha256(numbers.as_bytes()));
    assert_eq!(done.text("ends", "goes on"), "still here\n");
    assert_eq!(bench.left_of_runs(), Vec::<String>::new());
}
