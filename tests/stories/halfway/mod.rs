//! Killed or canceled half-way through what a run does with a store: no entry is seen that is not whole, no file under its
//! own name that is not, and nothing stays behind the reaper. Always on the machine's own engine: its containers are looked into.

mod canceled;
pub mod look;
mod restored;
mod saved;
mod sets;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use navvy_tests::{Asked, Bench, Fate, Run};

/// Runs that wait for nothing but each other.
const WORKERS: usize = 3;

/// What the packed files have in all: four parts of a store's upload.
const LARGE: u64 = 16 << 20;
const SMALL: u64 = 400 << 10;
pub const SMALL_FILES: usize = 24;

/// Each file is called as its content's SHA-256, so that whoever looks at one knows whether it is whole.
pub fn makes_files() -> String {
    format!(
        "one() {{ head -c $1 /dev/urandom > /tmp/f; mv /tmp/f $(sha256sum < /tmp/f | cut -c1-64); }}; mkdir /kept; cd /kept; \
         one {LARGE}; i=0; while [ $i -lt {SMALL_FILES} ]; do one {SMALL}; i=$((i+1)); done"
    )
}

const SAVES: &str = r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/busybox:static}]
    resource_class: small
    steps:
      - run: {name: make, command: 'MAKE'}
      - save_cache: {name: save, key: KEY, paths: [/kept]}
workflows:
  ci: {jobs: [build]}
"#;

fn saves(key: &str) -> String {
    SAVES.replace("MAKE", &makes_files()).replace("KEY", key)
}

/// Restores each of these and holds it against its names.
fn restores(keys: &[String]) -> String {
    let restore = |key: &String| {
        format!(
            "      - restore_cache: {{name: restore {key}, key: {key}}}\n      - run: {{name: look {key}, command: 'cd /kept; for \
             f in *; do test $f = $(sha256sum < $f | cut -c1-64) || echo $f is broken; done; ls | wc -l; rm -r /kept'}}\n"
        )
    };
    let steps: String = keys.iter().map(restore).collect();
    format!(
        "version: 2.1\njobs:\n  build:\n    docker: [{{image: navvy/busybox:static}}]\n    resource_class: small\n    steps:\n\
         {steps}workflows:\n  ci: {{jobs: [build]}}\n"
    )
}

/// All of these come back whole.
#[track_caller]
fn all_are_restored(bench: &Bench, keys: &[String]) {
    if keys.is_empty() {
        return;
    }
    let done = bench.run_config(&restores(keys), &[]);
    done.passes();
    for key in keys {
        assert_eq!(done.text("build", &format!("look {key}")), format!("{}\n", SMALL_FILES + 1), "{key}");
    }
}

/// Works side by side; `work` takes numbers until there are none.
fn side_by_side<T: Send>(work: impl Fn(&AtomicUsize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(|| work(&next))).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

fn take(next: &AtomicUsize) -> usize {
    next.fetch_add(1, Ordering::Relaxed)
}

/// The rule of a store whose clock has gone on for decades: all that was stored before is old.
fn much_later() -> impl FnMut(&Asked) -> Fate + Send + 'static {
    |asked| match asked.target.contains("v1%2Fclock") {
        true => Fate::Changed(|listed| listed.replace("<LastModified>20", "<LastModified>21")),
        false => Fate::Pass,
    }
}

/// The root directory of a run's primary container, as this machine sees it.
#[track_caller]
fn root_of(bench: &Bench, run: &Run<'_>) -> std::path::PathBuf {
    let events = run.events();
    let task = events.iter().find(|event| event.is("task_started")).and_then(|event| event.task()).expect("a task");
    let name = format!("navvy-{task}-primary");
    let pid = bench.docker().ask(&["inspect", "--format", "{{.State.Pid}}", &name]).text();
    Path::new("/proc").join(pid.trim()).join("root")
}
