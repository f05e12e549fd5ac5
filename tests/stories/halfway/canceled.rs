//! Canceled half-way: a run that is asked to end takes back what it has not committed by itself, without any reaper.

use std::fs;

use navvy_tests::{Bench, Fate, Finished, Gate, ObjectStore, Signal, When};

use super::look::Store;
use super::restored::{RESTORES, written};
use super::saved::{Point, Progress};
use super::{all_are_restored, root_of, saves, side_by_side, take};

/// Asks a run to end at that request: how, and what came of the run. `None`: it did not ask so often.
fn cancel_at_request(bench: &Bench, gate: &Gate, number: usize) -> Option<(String, Finished)> {
    // What the store has done, and the run not heard of yet, is taken back as well.
    let when = if number.is_multiple_of(2) { When::Before } else { When::After };
    let mut asked = 0;
    gate.rule(move |_| {
        asked += 1;
        if asked == number { Fate::Signal(Signal::Interrupt, when) } else { Fate::Pass }
    });
    let run = bench.run(&[]);
    gate.arm(run.pid());
    let done = run.finish();
    gate.settle();
    let line = gate.signalled()?.purpose();
    gate.rule(|_| Fate::Pass);
    Some((format!("canceled {when:?} request {number}, {line}"), done))
}

/// A job whose last step is over when it is asked to end has passed: then what it saved is there.
#[track_caller]
fn is_canceled_or_saved(bench: &Bench, done: &Finished, key: &str) {
    if done.exit_code != 0 {
        done.exits_with(130);
        return;
    }
    let listed = bench.navvy(&["cache", "ls"]).stdout();
    assert!(listed.contains(key), "a run passed that saved nothing; {listed}");
}

#[test]
fn a_save_canceled_at_any_request_leaves_a_whole_entry_or_nothing() {
    let asked = side_by_side(|next| {
        let server = ObjectStore::serve();
        let gate = server.gate();
        let bench = server.used_through(&gate, Bench::on_this_machine());
        let store = Store::Server(&server);
        let mut asked = 0;
        loop {
            let number = take(next) + 1;
            let key = format!("k-{number}");
            bench.config(&saves(&key));
            let Some((how, done)) = cancel_at_request(&bench, &gate, number) else { break };
            is_canceled_or_saved(&bench, &done, &key);
            asked += 1;
            store.only_entries(&how);
        }
        store.only_whole_entries("at the end");
        asked
    });
    let asked: usize = asked.into_iter().sum();
    assert!(asked >= 11, "only {asked} were asked to end");
}

#[test]
fn a_restore_canceled_at_any_request_changes_nothing_in_the_store() {
    let server = ObjectStore::serve();
    let gate = server.gate();
    let bench = server.used_through(&gate, Bench::on_this_machine());
    bench.config(&saves("k")).run(&[]).finish().passes();
    let store = Store::Server(&server);
    let before = store.look();
    bench.config(&RESTORES.replace("until [ -e /go ]; do usleep 5000; done", "true"));
    for number in 1..7 {
        let asked = cancel_at_request(&bench, &gate, number);
        let (how, done) = asked.expect("a restore asks for two lists, an entry and four parts");
        done.exits_with(130);
        assert_eq!(store.look(), before, "{how}");
    }
    all_are_restored(&bench, &["k".to_owned()]);
}

#[test]
fn a_save_canceled_while_it_writes_to_a_directory_leaves_no_file_of_it() {
    let bench = Bench::on_this_machine();
    let store = Store::of(&bench);
    let v1 = bench.home().join(".local/share/navvy/store/v1");
    for point in [Point::Marked, Point::Staged(1), Point::Staged(12 << 10), Point::Staged(22 << 10), Point::Visible] {
        let progress = Progress::new(&v1);
        let run = bench.config(&saves(&point.key())).run(&[]);
        progress.wait_for(point, &run);
        run.signal(Signal::Interrupt);
        is_canceled_or_saved(&bench, &run.finish(), &point.key());
        store.only_whole_entries(&format!("canceled at {point:?}"));
    }
}

#[test]
fn a_restore_canceled_while_it_writes_ends_at_once() {
    let bench = Bench::on_this_machine();
    bench.config(&saves("k")).run(&[]).finish().passes();
    let store = Store::of(&bench);
    let before = store.look();
    bench.config(RESTORES);
    for kib in [1, 8 << 10, 20 << 10] {
        let run = bench.run(&[]);
        run.wait_for_step("wait");
        let root = root_of(&bench, &run);
        fs::write(root.join("go"), "").expect("root may write there");
        written(&root, kib);
        run.signal(Signal::Interrupt);
        run.finish().exits_with(130);
        assert_eq!(store.look(), before, "canceled at {kib} KiB");
    }
}
