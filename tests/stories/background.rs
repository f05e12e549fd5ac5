//! Background steps that end before their job: told at once, as services are.

use std::time::Duration;

use navvy_tests::Bench;

/// The server dies once the step that uses it has begun, and that step waits until it is dead. What lives
/// begins first, so it lasts longest.
const DIES: &str = r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - run: {name: lives, background: true, command: "until false; do sleep 0.05; done"}
      - run: {name: server, background: true, command: "until [ -e /tmp/go ]; do sleep 0.05; done; echo no port; exit 7"}
      - run: {name: killed, background: true, command: "echo $$ >/tmp/pid; until false; do sleep 0.05; done"}
      - run: {name: warms up, background: true, command: "until [ -e /tmp/go ]; do sleep 0.05; done; echo warm"}
      - run: {name: uses it, command: "touch /tmp/go; until [ -s /tmp/pid ]; do sleep 0.05; done; kill -9 $(cat /tmp/pid);
          until [ -e /tmp/enough ]; do sleep 0.05; done"}
      - run: {name: last, command: echo last}
workflows:
  ci: {jobs: [build]}
"#;

#[test]
fn a_background_step_that_dies_early_is_told_at_once() {
    let bench = Bench::new();
    bench.config(DIES);
    let run = bench.run(&[]);
    let limit = Duration::from_secs(30);
    for name in ["server", "killed", "warms up"] {
        run.wait_for(&format!("the end of {name}"), limit, |event| event.is_end_of(name));
    }
    let started = run.wait_for("the task", limit, |event| event.is("task_started"));
    let containers = bench.docker().containers_of(started.task().expect("it has a number"));
    bench.docker().ask(&["exec", &containers[0], "touch", "/tmp/enough"]).succeeded();
    let done = run.finish();
    done.passes();
    let ends: Vec<&str> = done.events.iter().filter(|event| event.is("step_ended")).map(|event| event.name()).collect();
    let place = |name: &str| ends.iter().position(|end| *end == name).unwrap_or_else(|| panic!("{name} in {ends:?}"));
    for name in ["server", "killed", "warms up"] {
        assert!(place(name) < place("uses it"), "{name} in {ends:?}");
        let (step, other) = (done.step("build", name), done.step("build", "lives"));
        assert!(step.duration_ms < other.duration_ms, "{name} took {} ms", step.duration_ms);
    }
    assert!(place("last") < place("lives"), "{ends:?}");
    assert_eq!(
        (done.step("build", "server").outcome.as_str(), done.text("build", "server").as_str()),
        ("exit_code", "no port\n")
    );
    assert_eq!(done.step("build", "killed").outcome, "signal");
    assert_eq!(
        (done.step("build", "warms up").outcome.as_str(), done.text("build", "warms up").as_str()),
        ("success", "warm\n")
    );
    assert_eq!(done.step("build", "lives").outcome, "canceled");
    let warnings = done.warnings();
    assert!(warnings.contains("background step 2 (server) ended by itself after "), "{warnings}");
    assert!(warnings.contains(": exit code 7\n"), "{warnings}");
    assert!(warnings.contains("background step 3 (killed) ended by itself after "), "{warnings}");
    assert!(!warnings.contains("warms up") && !warnings.contains("lives"), "{warnings}");
}
