//! A real Nomad of the story's own: a server, and clients with our driver, each a process on loopback with its own data.
//!
//! ```text
//! story ──HTTP, `nomad …`──▶ server ◀──── client one ──▶ navvy-driver ──▶ navvy agent
//!                                  ◀──── client two ──▶ navvy-driver      (own plugin directory, state directory, data)
//! ```
//!
//! A client of its own process can be killed and started again while the server stays. The clients say that their machine has as many
//! units of CPU and as much memory as the story wants, so that there is room for the tasks that it is about.

mod agent;
mod api;
mod single;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::bench::{Bench, program_of_ours};
use crate::deadline::seldom;
use crate::fleet::Fleet;
use crate::program::Program;
use crate::sys::{self, Signal};

pub use agent::{Agent as NomadAgent, driver_tests as nomad_driver_tests, program as nomad_program};
pub use api::{LIMIT as NOMAD_LIMIT, text as text_of};
pub use single::Single as SingleNomad;

use self::agent::Agent;
use self::api::text;

/// How a story's Nomad is made.
#[derive(Debug, Clone)]
pub struct NomadSetup {
    /// What a client says its machine has: units of CPU (MHz), and MiB.
    pub compute: u32,
    pub memory_mib: u32,
    /// Lines of the plugin's `config` block.
    pub driver: String,
    /// A client that is away for some seconds is lost.
    pub impatient: bool,
    /// Without our driver: for stories about that.
    pub drivers: Vec<&'static str>,
}

impl Default for NomadSetup {
    fn default() -> Self {
        let driver = "reserve { cpus = 0, memory = \"0\" }".to_owned();
        Self {
            compute: 16_000,
            memory_mib: 65_536,
            driver,
            impatient: false,
            drivers: vec!["navvy", "raw_exec", "docker"],
        }
    }
}

/// A server and its clients.
pub struct Nomad {
    place: PathBuf,
    server: Agent,
    clients: Vec<Agent>,
    setup: NomadSetup,
}

impl Nomad {
    /// A server with one client whose driver is healthy.
    #[track_caller]
    pub fn start(bench: &Bench) -> Self {
        let mut nomad = Self::server(bench, NomadSetup::default());
        let node = nomad.add_client("one");
        nomad.healthy(&node);
        nomad
    }

    /// A server alone; clients come by [`Nomad::add_client`].
    #[track_caller]
    pub fn server(bench: &Bench, setup: NomadSetup) -> Self {
        assert!(sys::is_root(), "a Nomad client makes cgroups: run the stories as root");
        let place = bench.state().join("nomad");
        let patience = match setup.impatient {
            true => {
                "  heartbeat_grace = \"10s\"\n  min_heartbeat_ttl = \"1s\"\n  max_heartbeats_per_second = 10000.0\n"
            }
            false => "",
        };
        let config = format!(
            "server {{\n  enabled = true\n  bootstrap_expect = 1\n  raft_multiplier = 1\n{patience}  \
             default_scheduler_config {{\n    memory_oversubscription_enabled = true\n  }}\n}}\n"
        );
        let server = Agent::start(&place, "server", agent::Ports::free(), &config);
        let nomad = Self { place, server, clients: Vec::new(), setup };
        // A client that comes before the first key tries again only after 15 s.
        seldom("the server's first key", NOMAD_LIMIT, || {
            let keys = nomad.ask("GET", "/v1/operator/keyring/keys", &Value::Null).ok()?;
            (keys.as_array()?.iter().any(|key| key["State"] == "active")).then_some(())
        });
        nomad
    }

    /// Starts a client of this name. Its node's id.
    #[track_caller]
    pub fn add_client(&mut self, name: &str) -> String {
        let lines = self.setup.driver.clone();
        self.add_client_with(name, &lines)
    }

    /// The same, with these lines of the plugin's configuration.
    #[track_caller]
    pub fn add_client_with(&mut self, name: &str, driver: &str) -> String {
        let directory = self.place.join(name);
        let (plugins, state) = (directory.join("plugins"), directory.join("driver"));
        fs::create_dir_all(&plugins).expect("a directory can be made");
        if self.setup.drivers.contains(&"navvy") {
            symlink(program_of_ours("navvy-driver"), plugins.join("navvy-driver")).expect("a link can be made");
        }
        let own = |key: &str, value: &Path| match driver.contains(key) {
            true => String::new(),
            false => format!("    {key} = \"{}\"\n", value.display()),
        };
        let (agent, state) = (own("agent_path", &program_of_ours("navvy")), own("state_dir", &state));
        let Self { setup, server, .. } = &*self;
        let config = format!(
            "plugin_dir = \"{}\"\ntelemetry {{\n  publish_allocation_metrics = true\n}}\nclient {{\n  enabled = true\n  node_class = \"linux-64bit\"\n  network_interface = \"lo\"\n  \
             cpu_total_compute = {}\n  memory_total_mb = {}\n  servers = [\"127.0.0.1:{}\"]\n  \
             gc_max_allocs = 2000\n  gc_disk_usage_threshold = 100\n  gc_inode_usage_threshold = 100\n  options = {{\n    \
             \"fingerprint.denylist\" = \"env_aws,env_gce,env_azure,env_digitalocean,cni,consul,vault,bridge\"\n    \
             \"driver.allowlist\" = \"{}\"\n  }}\n}}\nplugin \"raw_exec\" {{\n  config {{\n    enabled = true\n  }}\n}}\n\
             plugin \"navvy-driver\" {{\n  config {{\n{agent}{state}    {driver}\n  }}\n}}\n",
            plugins.display(),
            setup.compute,
            setup.memory_mib,
            server.ports.rpc,
            setup.drivers.join(","),
        );
        self.clients.push(Agent::start(&self.place, name, agent::Ports::free(), &config));
        self.node(name)
    }

    /// What clients that are added from now on are like.
    pub fn setup(&mut self) -> &mut NomadSetup {
        &mut self.setup
    }

    /// Of its API.
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.server.ports.http)
    }

    /// A client, or `server`.
    pub fn client(&mut self, name: &str) -> &mut Agent {
        let mut all = self.clients.iter_mut().chain([&mut self.server]);
        all.find(|agent| agent.name == name).expect("an agent of that name")
    }

    /// SIGKILL to a client, and a start where it was.
    #[track_caller]
    pub fn crash_and_restart(&mut self, name: &str) {
        self.client(name).kill();
        self.client(name).start_again();
    }

    /// Where a client's driver keeps its tasks.
    pub fn driver_state(&self, name: &str) -> PathBuf {
        self.place.join(name).join("driver")
    }

    /// The process of a client's driver that serves.
    #[track_caller]
    pub fn plugin_pid(&self, name: &str) -> u32 {
        let path = self.place.join(name).join("plugins/navvy-driver");
        seldom(&format!("the driver's process on client {name}"), NOMAD_LIMIT, || {
            let all = processes_that(|words, _| words.first().is_some_and(|word| Path::new(word) == path));
            // A child that does not run its own program yet has the words of its parent.
            let is_child = |pid: u32| parent_of(pid).is_some_and(|parent| all.contains(&parent));
            all.iter().rev().copied().find(|pid| !is_child(*pid))
        })
    }

    /// The process of the agent that carries out tasks of a client; there must be one.
    #[track_caller]
    pub fn agent_pid(&self, name: &str) -> u32 {
        seldom(&format!("an agent's process on client {name}"), NOMAD_LIMIT, || self.agents(name).first().copied())
    }

    /// The processes of all agents of a client.
    pub fn agents(&self, name: &str) -> Vec<u32> {
        let state = self.driver_state(name).display().to_string();
        processes_that(|words, _| {
            words.iter().any(|word| word == "--scheduled") && words.iter().any(|word| word.starts_with(&state))
        })
    }

    /// What must be so at the end: every allocation has ended, and after a collection of what has ended there is no cgroup, mount,
    /// process or file of it.
    #[track_caller]
    pub fn nothing_is_left(&self) {
        let mut left = Vec::new();
        let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            seldom("that nothing is left of Nomad's tasks", NOMAD_LIMIT, || {
                left = self.left();
                left.is_empty().then_some(())
            });
        }));
        assert!(looked.is_ok(), "this is left: {left:#?}");
    }

    fn left(&self) -> Vec<String> {
        let mut left: Vec<String> = self.unfinished().into_iter().map(|id| format!("allocation {id} runs")).collect();
        let all = self.get("/v1/allocations");
        for id in all.as_array().into_iter().flatten().map(|alloc| text(alloc, "ID")) {
            left.extend(cgroups_of(id));
        }
        for client in &self.clients {
            left.extend(self.agents(&client.name).into_iter().map(|pid| format!("process {pid} is an agent")));
            let tasks = fs::read_dir(self.driver_state(&client.name).join("tasks")).into_iter().flatten().flatten();
            left.extend(tasks.map(|entry| format!("file {}", entry.path().display())));
        }
        left
    }

    /// Everything that this has started, and what that has started below this place.
    fn end(&mut self) {
        for agent in self.clients.iter_mut().chain([&mut self.server]) {
            agent.kill();
        }
        end_below(&self.place);
    }
}

/// Plugins, log collectors and agents outlive Nomad. All of them have its place in their words or their environment.
pub(crate) fn end_below(place: &Path) {
    let text = place.display().to_string();
    for pid in processes_that(|words, environment| {
        words.iter().any(|word| word.contains(&text)) || environment.iter().any(|value| value.contains(&text))
    }) {
        sys::signal(pid, Signal::Kill);
    }
    for mount in mounts_below(place) {
        let _answer = Program::new("umount").args(["--lazy", &mount]).run();
    }
}

impl Drop for Nomad {
    fn drop(&mut self) {
        self.end();
    }
}

/// A job as `processor::launch` registers it, for stories that dispatch a task themselves.
pub fn parameterized(id: &str, cpu: u32, memory_mib: u32) -> Value {
    json!({
        "ID": id, "Name": id, "Type": "batch", "Datacenters": ["*"],
        "ParameterizedJob": { "Payload": "required", "MetaRequired": ["task", "processor"] },
        "Constraints": [{ "LTarget": "${node.class}", "RTarget": "linux-64bit", "Operand": "=" }],
        "TaskGroups": [{
            "Name": "agent", "Count": 1,
            "RestartPolicy": { "Attempts": 0, "Mode": "fail", "Interval": 86_400_000_000_000_u64, "Delay": 1_000_000_000 },
            "ReschedulePolicy": { "Attempts": 0, "Unlimited": false },
            "Tasks": [{
                "Name": "agent", "Driver": "navvy",
                "Config": { "task": "${NOMAD_META_task}", "processor": "${NOMAD_META_processor}" },
                "DispatchPayload": { "File": "token" },
                "Resources": { "CPU": cpu, "MemoryMB": memory_mib },
                "KillTimeout": 30_000_000_000_u64, "KillSignal": "SIGTERM",
            }],
        }],
    })
}

impl Nomad {
    /// Dispatches a processor's task by a token of its own. The job's id and that of its allocation.
    #[track_caller]
    pub fn dispatch_task(&self, fleet: &Fleet<'_>, job: &Value, task: &str) -> (String, String) {
        self.dispatch_with(fleet, job, task, &fleet.launch_token(task))
    }

    /// The same with this token.
    #[track_caller]
    pub fn dispatch_with(&self, fleet: &Fleet<'_>, job: &Value, task: &str, token: &str) -> (String, String) {
        self.register(job);
        let meta = json!({ "task": task, "processor": format!("http://{}", fleet.agents) });
        let dispatched = self.dispatch(text(job, "ID"), &meta, token);
        let alloc = self.alloc_of(&dispatched);
        (dispatched, alloc)
    }
}

/// Processes by their words and their environment; those that are dead and not yet collected have neither.
fn processes_that(is: impl Fn(&[String], &[String]) -> bool) -> Vec<u32> {
    let split = |bytes: Vec<u8>| -> Vec<String> {
        bytes
            .split(|byte| *byte == 0)
            .filter(|part| !part.is_empty())
            .map(|part| String::from_utf8_lossy(part).into())
            .collect()
    };
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let read = |name: &str| split(fs::read(entry.path().join(name)).unwrap_or_default());
        if pid != std::process::id() && is(&read("cmdline"), &read("environ")) {
            found.push(pid);
        }
    }
    found.sort_unstable();
    found
}

fn parent_of(pid: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold anything.
    text.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
}

fn mounts_below(place: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points =
        table.lines().filter_map(|line| line.split(' ').nth(1)).filter(|point| Path::new(point).starts_with(place));
    points.map(str::to_owned).collect()
}

fn cgroups_of(alloc: &str) -> Vec<String> {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    let parents =
        hierarchies.flat_map(|root| ["nomad", "nomad/reserve", "nomad.slice/share.slice"].map(|name| root.join(name)));
    let entries =
        parents.flat_map(|parent| fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path()));
    let of_it = entries.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(alloc)));
    of_it.map(|path| format!("cgroup {}", path.display())).collect()
}
