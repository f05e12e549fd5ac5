//! Workspace layers, artifacts and test results, killed or canceled half-way.

use std::path::Path;

use navvy_tests::{Bench, Fate, Gate, Last, ObjectStore, Signal, Trap, When};

use super::look::{Entry, Store};
use super::{much_later, side_by_side, take};
use crate::kill::{ENGINE, a_start_leaves_nothing};

const STORES: &str = r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/busybox:static}]
    resource_class: small
    steps:
      - run: {name: make, command: 'mkdir -p /kept/d /results; echo one > /kept/one; echo two > /kept/d/two; echo "<testsuite><testcase name=\"t\" classname=\"c\" time=\"1\"/></testsuite>" > /results/r.xml'}
      - persist_to_workspace: {name: persist, root: /kept, paths: [.]}
      - store_artifacts: {name: store, path: /kept}
      - store_test_results: {name: results, path: /results}
      - run: {name: after, command: sleep 1000}
workflows:
  ci: {jobs: [build]}
"#;

/// Whoever left artifacts is known, or nobody would ever find or remove them.
#[track_caller]
fn all_artifacts_are_announced(entries: &[Entry], how: &str) {
    for entry in entries.iter().filter(|entry| entry.kind == "artifacts" && entry.group != "runs with artifacts") {
        let announced = |other: &&Entry| other.group == "runs with artifacts" && other.producer == entry.group;
        assert!(entries.iter().any(|other| announced(&other)), "{how}: artifacts of an unknown run");
    }
}

/// A request, by its number, and what happens there.
#[track_caller]
fn signal_at(bench: &Bench, gate: &Gate, number: usize, signal: Signal) -> (Option<String>, u32, Vec<String>) {
    let when = [When::Before, When::During, When::After][number % 3];
    let mut asked = 0;
    gate.rule(move |_| {
        asked += 1;
        if asked == number { Fate::Signal(signal, when) } else { Fate::Pass }
    });
    let trap = Trap::before(Path::new(ENGINE), Last::Never);
    let run = bench.config(STORES).run(&["--docker", &trap.address()]);
    let pid = run.pid();
    trap.arm(pid);
    gate.arm(pid);
    run.wait_for_step_or_end("after");
    if gate.signalled().is_none() {
        if signal == Signal::Interrupt {
            // A second one would be another story.
            gate.rule(|_| Fate::Pass);
        }
        run.signal(Signal::Interrupt);
    }
    let done = run.that_leaves_things().finish();
    trap.settle();
    gate.settle();
    // It may also have come while the run put its things away.
    let line = gate.signalled().map(|asked| format!("{signal:?} {when:?} request {number}, {}", asked.purpose()));
    assert!(signal == Signal::Kill || done.exit_code == 130, "{line:?}: {}", done.account());
    gate.rule(|_| Fate::Pass);
    (line, pid, done.tasks())
}

#[test]
fn layers_artifacts_and_results_killed_half_way_are_whole_or_not_there() {
    let lines = side_by_side(|next| {
        let server = ObjectStore::serve();
        let gate = server.gate();
        let bench = server.used_through(&gate, Bench::on_this_machine());
        let (store, mut lines) = (Store::Server(&server), Vec::new());
        loop {
            let number = 1 + 4 * take(next);
            let (Some(how), pid, tasks) = signal_at(&bench, &gate, number, Signal::Kill) else { break };
            a_start_leaves_nothing(&bench, pid, &tasks, &how);
            gate.rule(much_later());
            bench.ask(&["prune"]).passes();
            let entries = store.only_entries(&how);
            assert!(!entries.iter().any(|entry| entry.kind == "layer"), "{how}: a layer of a dead run");
            all_artifacts_are_announced(&entries, &how);
            bench.ask(&["artifacts", "ls"]).passes();
            lines.push(how);
        }
        store.only_whole_entries("at the end");
        lines
    });
    let lines: Vec<String> = lines.into_iter().flatten().collect();
    for part in ["piece/layer", "piece/artifacts", "piece/results"] {
        assert!(lines.iter().any(|line| line.contains(part)), "nobody was killed at {part}: {lines:#?}");
    }
}

#[test]
fn layers_artifacts_and_results_canceled_half_way_leave_nothing_that_is_nobodys() {
    side_by_side(|next| {
        let server = ObjectStore::serve();
        let gate = server.gate();
        let bench = server.used_through(&gate, Bench::on_this_machine());
        let store = Store::Server(&server);
        loop {
            let number = 2 + 4 * take(next);
            let (Some(how), ..) = signal_at(&bench, &gate, number, Signal::Interrupt) else { break };
            let entries = store.only_entries(&how);
            // A run's end is its workspace's.
            assert!(!entries.iter().any(|entry| entry.kind == "layer"), "{how}: a layer");
            all_artifacts_are_announced(&entries, &how);
        }
        store.only_whole_entries("at the end");
    });
}
