//! What a run must not leave behind.

use std::fs;
use std::path::{Path, PathBuf};

use crate::bench::Bench;

/// Cgroups of containers are at most this deep below the root of a hierarchy.
const CGROUP_DEPTH: usize = 6;

/// Everything that carries the id of one of these tasks and should be gone.
#[track_caller]
pub fn of(bench: &Bench, tasks: &[String]) -> Vec<String> {
    let mut left = Vec::new();
    for task in tasks {
        left.extend(bench.docker().containers_of(task).into_iter().map(|name| format!("container {name}")));
        left.extend(bench.docker().volumes_of(task).into_iter().map(|name| format!("volume {name}")));
        let places = bench.socket_places().into_iter().map(|place| place.join("navvy").join(task));
        left.extend(places.filter(|path| path.exists()).map(|path| format!("directory {}", path.display())));
    }
    let cgroups = cgroups().into_iter().filter(|path| {
        let path = path.to_string_lossy();
        tasks.iter().any(|task| path.contains(task.as_str()))
    });
    left.extend(cgroups.map(|path| format!("cgroup {}", path.display())));
    left
}

/// What is left in a bench's directories of runs that are all over.
pub fn on_host(bench: &Bench) -> Vec<String> {
    let root = bench.root();
    let state = bench.state().join("navvy");
    let mut left = entries(&bench.runtime().join("navvy"));
    left.extend(entries(&state.join("tasks")));
    left.extend(entries(&state.join("machines")));
    for directory in [state.clone(), state.join("bin")] {
        let unfinished =
            |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".new"));
        left.extend(entries(&directory).into_iter().filter(unfinished));
    }
    let mut left: Vec<String> = left.into_iter().map(|path| path.display().to_string()).collect();
    left.extend(processes_with(&root.to_string_lossy()));
    left
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Processes with that text in their environment or among their arguments, those that are dead and not yet collected left out.
fn processes_with(text: &str) -> Vec<String> {
    let processes = entries(Path::new("/proc")).into_iter().filter(|path| {
        let mut words = fs::read(path.join("environ")).unwrap_or_default();
        words.extend(fs::read(path.join("cmdline")).unwrap_or_default());
        words.windows(text.len()).any(|window| window == text.as_bytes())
    });
    processes.map(|path| format!("process {}", path.display())).collect()
}

fn cgroups() -> Vec<PathBuf> {
    let mut found = Vec::new();
    descend(Path::new("/sys/fs/cgroup"), CGROUP_DEPTH, &mut found);
    found
}

fn descend(directory: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    // Cgroups come and go while this looks.
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            descend(&entry.path(), depth - 1, found);
            found.push(entry.path());
        }
    }
}
