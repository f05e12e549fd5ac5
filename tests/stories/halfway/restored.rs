//! `restore_cache`, killed: each file under its own name is whole at any moment, and what is half written goes with its caller.

use std::collections::BTreeSet;
use std::fs::{self, DirEntry};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use navvy_tests::{Bench, Fate, Last, ObjectStore, Run, Signal, Trap, When, eventually, sha256};

use super::look::{Look, Store};
use super::{SMALL_FILES, root_of, saves, side_by_side, take};
use crate::kill::{ENGINE, a_start_leaves_nothing};

const LIMIT: Duration = Duration::from_secs(60);

/// It is restored when somebody has looked for the container's root.
pub const RESTORES: &str = r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/busybox:static}]
    resource_class: small
    steps:
      - run: {name: wait, command: 'until [ -e /go ]; do usleep 5000; done'}
      - restore_cache: {name: restore, key: k}
      - run: {name: stay, command: sleep 1000}
workflows:
  ci: {jobs: [build]}
"#;

/// How far a restore has come. Further is as good.
#[derive(Debug, Clone, Copy)]
enum Point {
    Begins,
    Says(&'static str),
    /// KiB of all files, those that have not their names yet among them.
    Written(u64),
    Ended,
}

fn points() -> Vec<Point> {
    let mut points = vec![Point::Begins, Point::Says("Found a cache"), Point::Says("Unarchiving cache")];
    points.extend((0..16).map(|nth| Point::Written(1 + nth * 1600)));
    points.extend([Point::Says("Restored"), Point::Ended]);
    points
}

/// Names in the directory that is restored, and of what is on its way to it; and the bytes of all.
fn restored(root: &Path) -> (BTreeSet<String>, u64) {
    let below = |directory: &Path| fs::read_dir(directory).into_iter().flatten().flatten().collect::<Vec<_>>();
    let name = |entry: &DirEntry| entry.file_name().to_string_lossy().into_owned();
    let staged = below(root).into_iter().filter(|entry| is_temporary(&name(entry)));
    let entries: Vec<DirEntry> = below(&root.join("kept")).into_iter().chain(staged).collect();
    let bytes = |entry: &DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => {
            below(&entry.path()).iter().filter_map(|file| Some(file.metadata().ok()?.len())).sum()
        }
        meta => meta.map_or(0, |meta| meta.len()),
    };
    (entries.iter().map(name).collect(), entries.iter().map(bytes).sum())
}

fn is_temporary(name: &str) -> bool {
    name.starts_with(".navvy-")
}

#[track_caller]
fn wait_for(point: Point, run: &Run<'_>, root: &Path) {
    match point {
        Point::Begins => drop(run.wait_for_step("restore")),
        Point::Says(text) => drop(run.wait_for_output(text)),
        Point::Ended => drop(run.wait_for("the step's end", LIMIT, |event| event.is_end_of("restore"))),
        Point::Written(kib) => written(root, kib),
    }
}

/// Waits until so much of it is there.
#[track_caller]
pub fn written(root: &Path, kib: u64) {
    let deadline = Instant::now() + LIMIT;
    while restored(root).1 < kib << 10 {
        assert!(Instant::now() < deadline, "{kib} KiB were never written");
        thread::yield_now();
    }
}

/// Every file with a name of its own is what its name says. Returns how many there are; `None` once the environment is gone.
#[track_caller]
fn named_files_are_whole(root: &Path, how: &str) -> Option<usize> {
    let (names, _) = restored(root);
    let named: Vec<&String> = names.iter().filter(|name| !is_temporary(name)).collect();
    for name in &named {
        let bytes = match fs::read(root.join("kept").join(name)) {
            Ok(bytes) => bytes,
            Err(_) if !root.exists() => return None,
            Err(error) => panic!("{how}: {name}: {error}"),
        };
        assert_eq!(sha256(&bytes), **name, "{how}: a file of {} bytes is not whole", bytes.len());
    }
    root.exists().then_some(named.len())
}

/// The environment outlives its agent for a while, unless another story's run is quicker to remove what a dead one left.
#[track_caller]
fn looks_well_inside(root: &Path, how: &str) -> Option<usize> {
    named_files_are_whole(root, how);
    eventually("what was half written goes", Duration::from_secs(10), || {
        (!restored(root).0.iter().any(|name| is_temporary(name))).then_some(())
    });
    named_files_are_whole(root, how)
}

/// What the restored directory is before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// Its files come one by one.
    There,
    /// It comes whole or not at all.
    Missing,
}

/// How many files it had restored, where that could be seen.
#[track_caller]
fn kill_at(bench: &Bench, store: &Store<'_>, before: &Look, point: Point, kept: Kept) -> Option<usize> {
    let how = format!("killed at {point:?}, the directory {kept:?}");
    let trap = Trap::before(Path::new(ENGINE), Last::Never);
    let run = bench.run(&["--docker", &trap.address()]);
    let pid = run.pid();
    trap.arm(pid);
    run.wait_for_step("wait");
    let root = root_of(bench, &run);
    if kept == Kept::There {
        fs::create_dir(root.join("kept")).expect("root may write there");
    }
    fs::write(root.join("go"), "").expect("root may write there");
    wait_for(point, &run, &root);
    run.signal(Signal::Kill);
    let done = run.that_leaves_things().finish();
    trap.settle();
    let files = looks_well_inside(&root, &how);
    if kept == Kept::Missing {
        assert!(files.is_none_or(|files| files == 0 || files == SMALL_FILES + 1), "{how}: {files:?} files");
    }
    a_start_leaves_nothing(bench, pid, &done.tasks(), &how);
    assert_eq!(store.look(), *before, "{how}: a reader has changed the store");
    files
}

#[test]
fn a_restore_killed_at_twenty_points_leaves_no_half_file_under_its_name() {
    let points: Vec<(Point, Kept)> =
        points().into_iter().zip([Kept::There, Kept::Missing].into_iter().cycle()).collect();
    let restored = side_by_side(|next| {
        let bench = Bench::on_this_machine();
        bench.config(&saves("k")).run(&[]).finish().passes();
        let store = Store::of(&bench);
        let before = store.look();
        bench.config(RESTORES);
        let mut restored = Vec::new();
        while let Some((point, kept)) = points.get(take(next)) {
            restored.push(kill_at(&bench, &store, &before, *point, *kept));
        }
        store.only_whole_entries("at the end");
        restored
    });
    let restored: Vec<Option<usize>> = restored.into_iter().flatten().collect();
    assert_eq!(restored.len(), 21);
    let half = restored.iter().flatten().filter(|files| (1..=SMALL_FILES).contains(*files)).count();
    assert!(half > 0, "nobody was killed half-way: {restored:?}");
}

#[test]
fn a_restore_killed_at_any_request_to_a_real_object_store_leaves_no_half_file_under_its_name() {
    let server = ObjectStore::serve();
    let gate = server.gate();
    let bench = server.used_through(&gate, Bench::on_this_machine());
    bench.config(&saves("k")).run(&[]).finish().passes();
    let store = Store::Server(&server);
    let before = store.look();
    bench.config(RESTORES);
    for number in 1.. {
        let when = [When::Before, When::During, When::After][number % 3];
        let mut asked = 0;
        gate.rule(move |_| {
            asked += 1;
            if asked == number { Fate::Signal(Signal::Kill, when) } else { Fate::Pass }
        });
        let trap = Trap::before(Path::new(ENGINE), Last::Never);
        let run = bench.run(&["--docker", &trap.address()]);
        let pid = run.pid();
        trap.arm(pid);
        gate.arm(pid);
        run.wait_for_step("wait");
        let root = root_of(&bench, &run);
        fs::write(root.join("go"), "").expect("root may write there");
        run.wait_for_step_or_end("stay");
        run.signal(Signal::Kill);
        let done = run.that_leaves_things().finish();
        trap.settle();
        gate.settle();
        let line = gate.signalled().map(|asked| asked.purpose());
        gate.rule(|_| Fate::Pass);
        let how = format!("killed {when:?} request {number}, {line:?}");
        looks_well_inside(&root, &how);
        a_start_leaves_nothing(&bench, pid, &done.tasks(), &how);
        assert_eq!(store.look(), before, "{how}: a reader has changed the store");
        if line.is_none() {
            assert!(number > 6, "a restore asks for two lists, an entry and four parts: {number}");
            break;
        }
    }
}
