//! `save_cache`, killed.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use navvy_tests::{Bench, Fate, Gate, Last, ObjectStore, Run, Signal, Trap, When};

use super::look::{self, Store};
use super::{all_are_restored, saves, side_by_side, take};
use crate::kill::{ENGINE, a_start_leaves_nothing};

const LIMIT: Duration = Duration::from_secs(60);

/// How far a save has come, as its run's events and its store's directory show it. None of them is ever passed by: further
/// is as good.
#[derive(Debug, Clone, Copy)]
pub enum Point {
    Begins,
    Says(&'static str),
    Marked,
    /// KiB of the body.
    Staged(u64),
    Whole,
    Visible,
    Unmarked,
    Ended,
}

const POINTS: [Point; 22] = [
    Point::Begins,
    Point::Says("Creating cache archive"),
    Point::Says("Uploading cache archive"),
    Point::Marked,
    Point::Staged(1),
    Point::Staged(2 << 10),
    Point::Staged(4 << 10),
    Point::Staged(6 << 10),
    Point::Staged(8 << 10),
    Point::Staged(10 << 10),
    Point::Staged(12 << 10),
    Point::Staged(14 << 10),
    Point::Staged(16 << 10),
    Point::Staged(18 << 10),
    Point::Staged(20 << 10),
    Point::Staged(22 << 10),
    Point::Staged(24 << 10),
    Point::Whole,
    Point::Visible,
    Point::Unmarked,
    Point::Says("Stored Cache"),
    Point::Ended,
];

impl Point {
    /// One of its own.
    pub fn key(self) -> String {
        format!("{self:?}").chars().filter(char::is_ascii_alphanumeric).collect()
    }
}

/// What was there before.
struct Before {
    marks: usize,
    whole: usize,
    entries: usize,
}

pub struct Progress<'a> {
    v1: &'a Path,
    before: Before,
}

impl<'a> Progress<'a> {
    pub fn new(v1: &'a Path) -> Self {
        let (whole, _) = bodies(v1);
        let entries = look::files(&v1.join("cache")).len();
        Self { v1, before: Before { marks: look::count(&v1.join("reserved")), whole, entries } }
    }

    fn is_at(&self, point: Point) -> bool {
        let (whole, staged) = bodies(self.v1);
        let is_whole = whole > self.before.whole;
        let is_visible =
            || look::files(&self.v1.join("cache")).iter().filter(|file| !is_staged(file)).count() > self.before.entries;
        let marks = look::count(&self.v1.join("reserved"));
        match point {
            Point::Marked => marks > self.before.marks || is_whole,
            Point::Staged(kib) => staged >= kib << 10 || is_whole,
            Point::Whole => is_whole,
            Point::Visible => is_visible(),
            Point::Unmarked => is_visible() && marks == self.before.marks,
            Point::Begins | Point::Says(_) | Point::Ended => true,
        }
    }

    #[track_caller]
    pub fn wait_for(&self, point: Point, run: &Run<'_>) {
        match point {
            Point::Begins => drop(run.wait_for_step("save")),
            Point::Says(text) => drop(run.wait_for_output(text)),
            Point::Ended => drop(run.wait_for("the step's end", LIMIT, |event| event.is_end_of("save"))),
            _ => {
                run.wait_for_step("save");
                let deadline = Instant::now() + LIMIT;
                while !self.is_at(point) {
                    assert!(Instant::now() < deadline, "{point:?} was never reached");
                    thread::yield_now();
                }
            }
        }
    }
}

fn is_staged(path: &Path) -> bool {
    path.to_string_lossy().contains('#')
}

/// How many are whole, and the bytes of those that are not.
fn bodies(v1: &Path) -> (usize, u64) {
    let all = look::files(&v1.join("body"));
    let (staged, whole): (Vec<_>, Vec<_>) = all.iter().partition(|file| is_staged(file));
    (whole.len(), staged.iter().filter_map(|file| Some(file.metadata().ok()?.len())).sum())
}

#[track_caller]
fn kill_at(bench: &Bench, point: Point) {
    let how = format!("killed at {point:?}");
    let store = Store::of(bench);
    let before = store.look();
    let v1 = bench.home().join(".local/share/navvy/store/v1");
    let progress = Progress::new(&v1);
    let trap = Trap::before(Path::new(ENGINE), Last::Never);
    let run = bench.config(&saves(&point.key())).run(&["--docker", &trap.address()]);
    let pid = run.pid();
    trap.arm(pid);
    progress.wait_for(point, &run);
    run.signal(Signal::Kill);
    let done = run.that_leaves_things().finish();
    trap.settle();
    let left = store.look();
    store.new_is_whole(&before, &left);
    // What is young may be somebody's who is still at work.
    a_start_leaves_nothing(bench, pid, &done.tasks(), &how);
    assert_eq!(store.look(), left, "{how}");
    look::make_old(bench);
    bench.ask(&["prune"]).passes();
    store.only_entries(&how);
}

#[test]
fn a_save_killed_at_twenty_points_leaves_no_half_entry_and_nothing_behind_the_reaper() {
    side_by_side(|next| {
        let bench = Bench::on_this_machine();
        while let Some(point) = POINTS.get(take(next)) {
            kill_at(&bench, *point);
        }
        let keys: Vec<String> =
            Store::of(&bench).only_whole_entries("at the end").into_iter().filter_map(|entry| entry.key).collect();
        all_are_restored(&bench, &keys);
        keys.len()
    });
}

/// Kills a run at that request; `None`: it did not ask so often.
#[track_caller]
fn kill_at_request(bench: &Bench, server: &ObjectStore, gate: &Gate, number: usize, when: When) -> Option<String> {
    let store = Store::Server(server);
    let before = store.look();
    let mut asked = 0;
    gate.rule(move |_| {
        asked += 1;
        if asked == number { Fate::Signal(Signal::Kill, when) } else { Fate::Pass }
    });
    let trap = Trap::before(Path::new(ENGINE), Last::Never);
    let run = bench.config(&saves(&format!("k-{number}-{when:?}"))).run(&["--docker", &trap.address()]);
    let pid = run.pid();
    trap.arm(pid);
    gate.arm(pid);
    let done = run.that_leaves_things().finish();
    trap.settle();
    gate.settle();
    let line = gate.signalled()?.purpose();
    let how = format!("killed {when:?} request {number}, {line}");
    let left = store.look();
    store.new_is_whole(&before, &left);
    gate.rule(|_| Fate::Pass);
    a_start_leaves_nothing(bench, pid, &done.tasks(), &how);
    assert_eq!(store.look(), left, "{how}");
    gate.rule(super::much_later());
    bench.ask(&["prune"]).passes();
    store.only_entries(&how);
    Some(line)
}

#[test]
fn a_save_killed_at_any_request_to_a_real_object_store_leaves_nothing_behind_the_reaper() {
    let lines = side_by_side(|next| {
        let server = ObjectStore::serve();
        let gate = server.gate();
        let bench = server.used_through(&gate, Bench::on_this_machine());
        let mut lines = Vec::new();
        loop {
            let number = take(next) + 1;
            let Some(line) = kill_at_request(&bench, &server, &gate, number, When::Before) else { break };
            let writes = !line.starts_with("GET");
            lines.push(line);
            // Nothing comes of a question that is not answered.
            if writes {
                lines.extend(kill_at_request(&bench, &server, &gate, number, When::After));
            }
            if lines.last().is_some_and(|line| line.contains("partNumber")) {
                lines.extend(kill_at_request(&bench, &server, &gate, number, When::During));
            }
        }
        let entries = Store::Server(&server).only_whole_entries("at the end");
        all_are_restored(&bench, &entries.into_iter().filter_map(|entry| entry.key).collect::<Vec<_>>());
        lines
    });
    let lines: Vec<String> = lines.into_iter().flatten().collect();
    for part in [
        "PUT reserved",
        "POST body uploads",
        "PUT body partNumber",
        "POST body uploadId",
        "PUT cache",
        "POST /navvy delete",
    ] {
        assert!(lines.iter().any(|line| line.starts_with(part)), "nobody was killed at {part}: {lines:#?}");
    }
    assert!(lines.len() >= 20, "only {} were killed: {lines:#?}", lines.len());
}
