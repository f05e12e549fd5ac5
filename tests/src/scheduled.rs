//! A scheduler's task driver, as far as the agent that it starts sees one.
//!
//! ```text
//! Driven: DIR with host.json and claim.json ─▶ navvy agent --scheduled DIR ─▶ progress, exit.json
//!    └─ Group: a cgroup in every hierarchy of version 1, with the limits of the whole task
//! ```

use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::bench::Bench;
use crate::fleet::{Fleet, Served};
use crate::program::Answer;

const CGROUPS: &str = "/sys/fs/cgroup";

/// One task's directory, and what the driver wrote there.
pub struct Driven<'a> {
    bench: &'a Bench,
    directory: PathBuf,
    started: u32,
    host: Value,
}

impl<'a> Driven<'a> {
    /// For this task of this fleet, with a claim.
    #[track_caller]
    pub fn new(fleet: &Fleet<'a>, task: &str) -> Self {
        let (bench, processor) = (fleet.bench(), format!("http://{}", fleet.agents));
        let driven = Self::without_claim(bench, &processor, task);
        let claim = json!({"version": 1, "processor": processor, "task": task, "token": fleet.launch_token(task)});
        driven.file("claim.json", &claim.to_string());
        driven
    }

    /// The same of any address, with none.
    #[track_caller]
    pub fn without_claim(bench: &'a Bench, processor: &str, task: &str) -> Self {
        let directory = bench.state().join(format!("driver-{task}"));
        DirBuilder::new().mode(0o700).recursive(true).create(&directory).expect("a directory can be made");
        let host = json!({
            "version": 1, "processor": processor, "processor_ca": null, "task": task, "cgroup": null, "size": null,
            "pids": null, "stdout": null, "stderr": null, "environment": "docker",
        });
        let driven = Self { bench, directory, started: 0, host };
        driven.file("host.json", &driven.host.to_string());
        driven
    }

    /// host.json says this of that.
    #[track_caller]
    pub fn host(&mut self, name: &str, value: impl Into<Value>) -> &mut Self {
        self.host[name] = value.into();
        self.file("host.json", &self.host.to_string());
        self
    }

    /// A pipe whose name host.json has as `stdout` or `stderr`. Its path.
    #[track_caller]
    pub fn pipe(&mut self, name: &str) -> PathBuf {
        let path = self.directory.join(name);
        let made = std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo can be run");
        assert!(made.success());
        self.host(name, path.to_str().expect("a path of ours"));
        path
    }

    /// A file of the driver's.
    #[track_caller]
    pub fn file(&self, name: &str, text: &str) {
        let path = self.directory.join(name);
        fs::write(&path, text).expect("a file can be written");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("its mode can be set");
    }

    /// Where it is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The directory itself.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Starts an agent: the first one, or one in the place of one that was killed.
    #[track_caller]
    pub fn start(&mut self) -> Served {
        self.started += 1;
        let log = self.bench.state().join(format!("driven-{}.log", self.started));
        Served::start(self.bench.command_of(&["agent", "--scheduled", self.text()]), log)
    }

    /// The same, up to its end.
    #[track_caller]
    pub fn run(&self) -> Answer {
        self.bench.program(&["agent", "--scheduled", self.text()]).run()
    }

    /// Removes what the task has left on the host.
    #[track_caller]
    pub fn remove(&self) -> Answer {
        self.bench.program(&["agent", "--scheduled", self.text(), "--remove"]).run()
    }

    fn text(&self) -> &str {
        self.directory.to_str().expect("a path of ours")
    }

    /// The agent's last word, if there is one.
    #[track_caller]
    pub fn exit(&self) -> Option<Value> {
        let text = fs::read_to_string(self.directory.join("exit.json")).ok()?;
        Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
    }

    /// Where the agent said the task has come to, and when.
    #[track_caller]
    pub fn progress(&self) -> Vec<(u64, String)> {
        let text = fs::read_to_string(self.directory.join("progress")).unwrap_or_default();
        let line = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            (line["at_ms"].as_u64().expect("a time"), line["message"].as_str().expect("a message").to_owned())
        };
        text.lines().map(line).collect()
    }
}

/// A cgroup of version 1 as a driver makes one for a whole task. Gone when this is dropped.
pub struct Group {
    name: String,
}

impl Group {
    /// In every mounted hierarchy, with these bytes of memory and so many processes.
    #[track_caller]
    pub fn new(name: &str, memory: u64, pids: u32) -> Self {
        // What is above it stays: another story may be about to make one there.
        let group = Self { name: format!("navvy-driver-stories/{}-{name}", std::process::id()) };
        for directory in group.directories_to_be() {
            fs::create_dir_all(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
            for below in [directory.parent().expect("two levels"), &directory] {
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    if let Ok(value) = fs::read_to_string(below.parent().expect("a hierarchy").join(file)) {
                        fs::write(below.join(file), value.trim()).expect("a cpuset takes its parent's");
                    }
                }
            }
        }
        group.write("memory", "memory.limit_in_bytes", &memory.to_string());
        group.write("pids", "pids.max", &pids.to_string());
        group
    }

    /// As host.json has it.
    pub fn path(&self) -> String {
        format!("/{}", self.name)
    }

    fn directories_to_be(&self) -> Vec<PathBuf> {
        let hierarchies = fs::read_dir(CGROUPS).expect("cgroups are mounted").flatten();
        let real = hierarchies.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        real.map(|entry| entry.path())
            .filter(|path| path.join("cgroup.procs").exists())
            .map(|path| path.join(&self.name))
            .collect()
    }

    /// Its directories, by hierarchy.
    pub fn directories(&self) -> Vec<PathBuf> {
        self.directories_to_be().into_iter().filter(|directory| directory.is_dir()).collect()
    }

    #[track_caller]
    fn write(&self, hierarchy: &str, file: &str, value: &str) {
        let path = Path::new(CGROUPS).join(hierarchy).join(&self.name).join(file);
        fs::write(&path, value).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// A file of it, or of one below it.
    pub fn read(&self, hierarchy: &str, below: &str) -> String {
        let path = Path::new(CGROUPS).join(hierarchy).join(&self.name).join(below);
        fs::read_to_string(path).unwrap_or_default().trim().to_owned()
    }

    /// Names of the cgroups below it.
    pub fn children(&self, hierarchy: &str) -> Vec<String> {
        names(&Path::new(CGROUPS).join(hierarchy).join(&self.name))
    }

    /// Names of the cgroups below one that is below it.
    pub fn grandchildren(&self, hierarchy: &str, child: &str) -> Vec<String> {
        names(&Path::new(CGROUPS).join(hierarchy).join(&self.name).join(child))
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    below.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

impl Drop for Group {
    fn drop(&mut self) {
        for directory in self.directories() {
            // A process of a story that failed may still be in it.
            fs::remove_dir(directory.join("agent")).ok();
            fs::remove_dir(&directory).ok();
        }
    }
}
