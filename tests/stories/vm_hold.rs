//! A machine that a person holds.

use std::time::Duration;

use navvy_tests::Bench;

const BOOT_LIMIT: Duration = Duration::from_secs(240);

const CONFIG: &str = r#"
version: 2.1
jobs:
  vm:
    machine: true
    steps:
      - run: {name: begins, command: "echo here > kept; echo $RANDOM > /tmp/once"}
      - run: {name: fails, command: "test -e mended && cat kept"}
      - run: {name: ends, command: "cat /tmp/once"}
workflows:
  ci: {jobs: [vm]}
"#;

const LAYERS: &str = "machine: {image: default, docker_layer_caching: true}";

#[test]
fn a_failed_machine_is_held_entered_and_gone_on_with() {
    let bench = Bench::with_machines();
    bench.config(&CONFIG.replace("machine: true", LAYERS));
    let done = bench.run(&["--keep-on-fail"]).that_leaves_things().finish_within(BOOT_LIMIT);
    assert_eq!(done.verdict("vm"), "failed", "{}", done.account());
    let task = done.tasks()[0].clone();

    // Whoever cleans up meanwhile spares its volume, too.
    bench.ask(&["prune"]).exits_with(0);
    let listed = bench.ask(&["ps"]).stdout();
    assert!(listed.contains(&task) && listed.contains("kept until"), "{listed}");
    let entered = bench.ask(&["shell", &task, "--", "sh", "-c", "id -un; pwd; cat kept; touch mended"]);
    entered.exits_with(0);
    assert_eq!(entered.stdout(), "circleci\n/home/circleci/project\nhere\n");

    let again = bench.start(&["retry", &task, "--json"]).finish_within(BOOT_LIMIT);
    again.passes();
    assert_eq!(again.text("vm", "fails"), "here\n");
    assert!(!again.started("vm", "begins"), "{}", again.account());
    let kept = bench.navvy(&["prune"]).stdout();
    assert!(kept.contains("Kept Docker layers: 1 volumes, 0 of them in use"), "{kept}, {}", again.account());
    assert_eq!(bench.left_of_runs(), Vec::<String>::new());
}

#[test]
fn a_held_machine_is_removed_by_its_name() {
    let bench = Bench::with_machines();
    bench.config(&CONFIG.replace("machine: true", LAYERS));
    let done = bench.run(&["--keep-on-fail"]).that_leaves_things().finish_within(BOOT_LIMIT);
    assert!(!done.warnings().contains("Docker layers"), "{}", done.warnings());
    let task = done.tasks()[0].clone();
    bench.ask(&["prune"]).exits_with(0);
    assert_ne!(bench.left_of_runs(), Vec::<String>::new(), "a held task is spared");
    bench.navvy(&["rm", &task]).exits_with(0);
    assert_eq!(bench.left_of_runs(), Vec::<String>::new());
}
