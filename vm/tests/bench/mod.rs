//! What tests with machines share.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use navvy_environment::HostPaths;
use navvy_environment::egress::Egress;
use navvy_environment::request::{IDLE_LIMIT, Machine, Prepare, PrepareEvent, PullPolicy, Purpose, Wanted};
use navvy_environment::run_dir;
use navvy_environment::supervisor::Client;
use navvy_job::claim::Secrets;
use navvy_job::id::TaskId;
use navvy_job::resource::Size;
use navvy_journal::owner::Owner;
use navvy_protocol::supervisor::{Exec, Terminal};
use navvy_vm::{MachineEnvironment, Machines, PrepareError, Settings};
use navvy_vm_image::Images;

/// A host with a state directory of its own.
pub struct Bench {
    pub scratch: Arc<tempfile::TempDir>,
    pub host: HostPaths,
    pub settings: Settings,
    pub task: TaskId,
    pub size: Size,
    /// The name of its class, for machines of a pool.
    pub class: Option<String>,
    pub egress: Arc<Egress>,
    report: Mutex<Vec<String>>,
    /// Interfaces of machines that were made here.
    made: Mutex<Vec<String>>,
}

pub const IMAGE: &str = "debian-12-minimal";

impl Bench {
    /// `None` where there is no image or no QEMU: the test says so and counts for nothing.
    pub fn open() -> Option<Self> {
        Self::within(tempfile::tempdir().unwrap())
    }

    /// The host of another process's bench, for a process that is killed: what it has made stays.
    pub fn at(directory: PathBuf) -> Option<Self> {
        let mut scratch = tempfile::Builder::new().prefix("unused").tempdir().unwrap();
        scratch.disable_cleanup(true);
        std::fs::remove_dir(scratch.path()).unwrap();
        let mut bench = Self::within(scratch)?;
        std::fs::remove_dir_all(bench.scratch.path()).unwrap();
        bench.host.state = directory.join("state");
        bench.host.runtime = Some(directory.join("run"));
        if std::env::var_os("NAVVY_BIRTH_COLD").is_some() {
            bench.settings.snapshots = navvy_vm::settings::Snapshots::Off;
        }
        Some(bench)
    }

    fn within(scratch: tempfile::TempDir) -> Option<Self> {
        let images = std::env::var_os("NAVVY_IMAGES").map_or_else(|| "/var/cache/navvy-images".into(), PathBuf::from);
        let is_here = images.join(IMAGE).join("manifest.json").exists() && Path::new("/usr/bin/qemu-img").exists();
        assert!(is_here, "no image {IMAGE} in {}, or no QEMU: scripts/vm-image build minimal", images.display());
        let host = HostPaths {
            state: scratch.path().join("state"),
            runtime: Some(scratch.path().join("run")),
            docker_config: None,
            search_path: "/usr/bin:/bin:/usr/sbin:/sbin".to_owned(),
            supervisor: None,
        };
        std::fs::create_dir_all(scratch.path().join("run")).unwrap();
        let mut settings = Settings::new(Images::at(images));
        settings.answer_limit = Duration::from_secs(40);
        settings.table =
            navvy_vm_image::Table::with(&std::iter::once(("test".to_owned(), IMAGE.to_owned())).collect()).unwrap();
        Some(Self {
            scratch: Arc::new(scratch),
            host,
            settings,
            task: TaskId::from_uuid(uuid::Uuid::new_v4().into_bytes()),
            size: Size { millicpus: 1000, memory: 512 << 20 },
            class: None,
            egress: Arc::new(Egress::default()),
            report: Mutex::default(),
            made: Mutex::default(),
        })
    }

    /// Another task on the same host.
    pub fn sibling(&self) -> Self {
        Self {
            scratch: Arc::clone(&self.scratch),
            host: self.host.clone(),
            settings: self.settings.clone(),
            task: TaskId::from_uuid(uuid::Uuid::new_v4().into_bytes()),
            size: self.size,
            class: self.class.clone(),
            egress: Arc::clone(&self.egress),
            report: Mutex::default(),
            made: Mutex::default(),
        }
    }

    pub fn machines(&self) -> Machines {
        Machines::qemu(self.settings.clone())
    }

    pub fn request(&self) -> Prepare {
        Prepare {
            task: self.task.clone(),
            wanted: Wanted::Machine(Machine {
                image: Some("test".to_owned()),
                purpose: Purpose::Steps,
                class: self.class.clone(),
                layers: None,
            }),
            size: self.size,
            pids: 1000,
            pull: PullPolicy::Missing,
            secrets: Secrets::default(),
            cgroup_parent: None,
            owner: Owner::this_process().unwrap(),
            is_adoptable: false,
            journal: None,
            idle_limit: IDLE_LIMIT,
            disk_floor: 0,
            egress: Arc::clone(&self.egress),
            notes: Vec::new(),
        }
    }

    pub async fn prepare(&self) -> Result<MachineEnvironment, PrepareError> {
        self.prepare_by(&self.machines()).await
    }

    pub async fn prepare_by(&self, machines: &Machines) -> Result<MachineEnvironment, PrepareError> {
        let events = |event| {
            if let PrepareEvent::Report(line) = event {
                self.report.lock().unwrap().push(line);
            }
        };
        let prepared = machines.prepare(self.request(), &self.host, &events).await;
        self.note_interfaces();
        prepared
    }

    pub fn report(&self) -> String {
        self.report.lock().unwrap().join("\n")
    }

    /// Processes that work below this bench's state.
    pub fn processes(&self) -> Vec<(u32, PathBuf)> {
        // As long as nothing was made there is none, and nothing works below it.
        let Ok(state) = self.host.state.canonicalize() else { return Vec::new() };
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let of = pids.filter_map(|pid| Some((pid, std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?)));
        of.filter(|(_, cwd)| cwd.starts_with(&state)).collect()
    }

    pub fn kill_processes(&self) {
        let found = self.processes();
        assert!(!found.is_empty());
        for (pid, _) in found {
            let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
    }

    /// Nothing of this bench's machines is on this host.
    pub fn assert_nothing_left(&self) {
        assert_eq!(self.processes(), []);
        let machines = std::fs::read_dir(self.host.state.join("machines"));
        let left: Vec<_> = machines.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        assert_eq!(left, Vec::<PathBuf>::new());
        let run = std::fs::read_dir(self.scratch.path().join("run/navvy"));
        let left: Vec<_> = run.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        assert_eq!(left, Vec::<PathBuf>::new());
        assert!(navvy_environment::cgroup::Place::find(&self.task).is_empty());
        assert_eq!(self.interfaces(), Vec::<String>::new());
        assert!(run_dir::uid() != 0 || !self.scratch.path().join("run/navvy").join(self.task.as_str()).exists());
    }

    /// Everything that the records of this host say.
    pub fn facts(&self) -> Vec<navvy_vm::record::Fact> {
        let machines = navvy_vm::record::all(&self.host.state).unwrap().into_iter();
        let known =
            machines.filter_map(|it| navvy_vm::record::load(&navvy_vm::record::directory(&self.host.state, &it)).ok());
        known.flat_map(|known| known.facts).collect()
    }

    /// Fingerprints of the host keys that were made.
    pub fn host_keys(&self) -> Vec<String> {
        let keys = self.facts().into_iter().filter_map(|fact| match fact {
            navvy_vm::record::Fact::HostKey { fingerprint } => Some(fingerprint),
            _ => None,
        });
        keys.collect()
    }

    /// Remembers what the records name.
    pub fn note_interfaces(&self) {
        let names = self.facts().into_iter().filter_map(|fact| match fact {
            navvy_vm::record::Fact::Tap { name, .. } => Some(name),
            _ => None,
        });
        self.made.lock().unwrap().extend(names);
    }

    /// Interfaces of machines that this bench has made.
    pub fn interfaces(&self) -> Vec<String> {
        let made = self.made.lock().unwrap();
        made.iter().filter(|name| Path::new("/sys/class/net").join(name.as_str()).exists()).cloned().collect()
    }
}

/// A test that failed leaves no machine behind.
impl Drop for Bench {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        self.note_interfaces();
        for (pid, _) in self.processes() {
            if let Some(pid) = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap_or_default()) {
                let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        for name in self.interfaces() {
            drop(std::process::Command::new("ip").args(["link", "delete", "dev", &name]).status());
        }
    }
}

/// What a script writes in the machine, as its user.
pub async fn run(environment: &MachineEnvironment, script: &str) -> String {
    let user = environment.step_user().map(str::to_owned);
    run_as(environment, user, script).await
}

pub async fn run_as(environment: &MachineEnvironment, user: Option<String>, script: &str) -> String {
    let client = Client::new(environment.link());
    let exec = Exec {
        id: uuid::Uuid::new_v4().to_string(),
        argv: ["/bin/bash", "-c", script].map(str::to_owned).to_vec(),
        env: vec![("PATH".to_owned(), "/usr/sbin:/usr/bin:/sbin:/bin".to_owned())],
        cwd: "/".to_owned(),
        user,
        terminal: Terminal::Pipes,
        input: false,
        watch_memory: false,
    };
    let work = move || {
        let mut said = Vec::new();
        let ended = client.session(exec)?.run(|_, bytes| {
            said.extend_from_slice(bytes);
            Ok(())
        });
        ended.map(|_| String::from_utf8_lossy(&said).into_owned())
    };
    let done = tokio::time::timeout(Duration::from_secs(120), tokio::task::spawn_blocking(work)).await;
    done.expect("a step took too long").unwrap().unwrap_or_else(|e| panic!("{e}"))
}
