//! How a task of a fleet must have ended, whatever broke meanwhile: what every story with a fault ends with.
//!
//! ```text
//! bytes printed = bytes that the processor gives = bytes in the store       (SHA-256; of a task that was lost: a beginning)
//! one end of the pipeline, one of the task; no step begun twice
//! nothing of the task is left on the host; nothing in the store, after a sweep, that nobody names
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::deadline::eventually;
use crate::fleet::Fleet;
use crate::program::Program;
use crate::sha256;

const LIMIT: Duration = Duration::from_secs(120);
/// What was never committed is swept after a day.
const OLD: Duration = Duration::from_secs(2 * 24 * 3600);

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With all that was printed.
    Passed,
    /// With what was printed up to then.
    Canceled,
    /// By the processor's word: what is durable is a beginning of what was printed.
    Lost,
}

/// A task whose end is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Ending<'a> {
    pub pipeline: &'a str,
    pub task: &'a str,
    /// Its job, which has one task.
    pub job: &'a str,
    /// The log that is compared, and what the step prints into it.
    pub log: &'a str,
    pub printed: &'a [u8],
}

impl Fleet<'_> {
    /// Waits for the end, and looks at everything that must be so by then. The processor is started again.
    #[track_caller]
    pub fn has_ended(&mut self, end: End, of: &Ending<'_>) {
        let state = match end {
            End::Passed => "success",
            End::Canceled => "canceled",
            End::Lost => "error",
        };
        assert_eq!(self.end_of(of.pipeline, LIMIT), state, "{}", self.show(of.pipeline));
        self.ended_once(of);
        self.nothing_is_left_on_the_host(of.task);
        self.nothing_is_left_in_the_store();
        self.output_is(end, of);
    }

    #[track_caller]
    fn output_is(&self, end: End, of: &Ending<'_>) {
        let job = self.job(of.pipeline, of.job);
        let output = job["tasks"][0]["output"].as_str().unwrap_or_default();
        match end {
            End::Passed | End::Canceled => assert_eq!(output, "complete", "{job}"),
            End::Lost => {
                assert!(output.starts_with("incomplete: agent ") && output.contains(" was lost at "), "{job}");
            }
        }
        let given = match end {
            // A step that never began has no log.
            End::Passed | End::Canceled => self.log_so_far(of.task, of.log),
            End::Lost => self.log_without_end(of.task, of.log),
        };
        let stored = self.stored(of.task, of.log);
        assert_eq!(sha256(&given), sha256(&stored), "{} bytes are given, {} stored", given.len(), stored.len());
        if end == End::Passed {
            assert_eq!((stored.len(), sha256(&stored)), (of.printed.len(), sha256(of.printed)));
        }
        assert!(of.printed.starts_with(&stored), "{}", String::from_utf8_lossy(&stored));
    }

    /// One task, whose steps began once, and one end of everything.
    #[track_caller]
    pub fn ended_once(&self, of: &Ending<'_>) {
        assert_eq!(self.job(of.pipeline, of.job)["tasks"].as_array().map(Vec::len), Some(1));
        let events = self.events(of.pipeline);
        let all = |kind: &str| events.iter().filter(|event| event["event"] == kind).collect::<Vec<_>>();
        let mut begun = BTreeSet::new();
        for start in all("step_started") {
            let step = (start["task"].to_string(), start["step"].to_string(), start["attempt"].to_string());
            assert!(begun.insert(step), "a step began twice: {start}");
        }
        assert_eq!(all("run_ended").len(), 1);
        let ends: Vec<&Value> = all("task_ended").into_iter().filter(|end| end["task"] == of.task).collect();
        assert!(ends.len() <= 1, "{ends:?}");
    }

    /// Containers, volumes, sockets, cgroups.
    #[track_caller]
    pub fn nothing_is_left_on_the_host(&self, task: &str) {
        let tasks = [task.to_owned()];
        let mut left = Vec::new();
        let gone = || {
            left = self.bench().left_of(&tasks);
            left.is_empty().then_some(())
        };
        eventually(&format!("the removal of all that task {task} had on the host"), LIMIT, gone);
    }

    /// Lets all objects grow old, starts the processor again, which sweeps, and looks for what nobody names.
    #[track_caller]
    pub fn nothing_is_left_in_the_store(&mut self) {
        let then = SystemTime::now() - OLD;
        for path in files_below(&self.objects()) {
            // It may be removed meanwhile.
            File::options().write(true).open(path).and_then(|file| file.set_modified(then)).ok();
        }
        self.crash_and_restart();
        let mut orphans = Vec::new();
        let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually("a store without orphans", Duration::from_secs(30), || {
                orphans = self.orphans();
                orphans.is_empty().then_some(())
            });
        }));
        assert!(looked.is_ok(), "nobody names these objects, and a sweep leaves them: {orphans:#?}");
    }

    /// A log as it lies in the store: its segments, unpacked by another program, in the order of their offsets.
    #[track_caller]
    pub fn stored(&self, task: &str, log: &str) -> Vec<u8> {
        let mut whole = Vec::new();
        for (offset, path) in self.segments().remove(&(task.to_owned(), log.to_owned())).unwrap_or_default() {
            assert_eq!(offset, whole.len() as u64, "a gap, or a part twice: {}", path.display());
            whole.extend(unpacked(&path).unwrap_or_else(|| panic!("{} is no segment", path.display())));
        }
        whole
    }

    /// Segments of all logs, by task and log.
    fn segments(&self) -> BTreeMap<(String, String), Vec<(u64, PathBuf)>> {
        let root = self.objects().join("v1/log");
        let mut logs = BTreeMap::<_, Vec<_>>::new();
        for path in files_below(&root) {
            let parts: Vec<String> = path
                .strip_prefix(&root)
                .into_iter()
                .flatten()
                .map(|part| part.to_string_lossy().into_owned())
                .collect();
            let [_, task, log, name] = &parts[..] else { panic!("{} is no segment", path.display()) };
            let offset = name.split_once('-').and_then(|(offset, _)| offset.parse::<u64>().ok());
            let offset = offset.unwrap_or_else(|| panic!("{} has no offset", path.display()));
            logs.entry((task.clone(), log.clone())).or_default().push((offset, path));
        }
        logs.values_mut().for_each(|segments| segments.sort());
        logs
    }

    /// Objects that nothing leads to.
    fn orphans(&self) -> Vec<String> {
        let root = self.objects().join("v1");
        let named: BTreeSet<String> = ["cache", "piece"]
            .iter()
            .flat_map(|kind| files_below(&root.join(kind)))
            .filter_map(|path| {
                serde_json::from_slice::<Value>(&fs::read(path).ok()?).ok()?["body"]["id"].as_str().map(str::to_owned)
            })
            .collect();
        let is_named = |path: &Path| path.file_name().is_some_and(|name| named.contains(&*name.to_string_lossy()));
        let mut orphans = files_below(&root.join("reserved"));
        orphans.extend(files_below(&root.join("part")));
        orphans.extend(files_below(&root.join("body")).into_iter().filter(|path| !is_named(path)));
        let trees = files_below(&root.join("tree"));
        if trees.len() > self.submitted() {
            orphans.extend(trees);
        }
        for segments in self.segments().into_values() {
            let mut wanted = 0;
            for (offset, path) in segments {
                match unpacked(&path).filter(|_| offset == wanted) {
                    Some(bytes) => wanted += bytes.len() as u64,
                    None => orphans.push(path),
                }
            }
        }
        orphans.into_iter().map(|path| path.display().to_string()).collect()
    }
}

/// `None`: it is no segment, or not there any more.
fn unpacked(path: &Path) -> Option<Vec<u8>> {
    let answer = Program::new("zstd").args(["--decompress", "--stdout"]).input(fs::read(path).ok()?).run();
    (answer.exit_code == Some(0)).then_some(answer.stdout)
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files_below(&entry.path())),
            _ => found.push(entry.path()),
        }
    }
    found
}
