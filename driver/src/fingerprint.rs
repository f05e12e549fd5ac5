//! Whether this client can carry out tasks now, and what it has for them.
//!
//! ```text
//! every 30 s: navvy host check ──▶ Health, attributes ──▶ one watch ──▶ each Fingerprint stream
//!   at first, and after a failure: --thorough, a container really starts
//! ```

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use navvy_job::scheduled::HostCheck;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::agent;
use crate::config::{DEFAULT_ENVIRONMENT as DOCKER, PluginConfig};
use crate::directory::{make_private, put};
use crate::log::{info, warning};
use crate::proto::hashicorp::nomad::plugins::drivers::proto::FingerprintResponse;
use crate::proto::hashicorp::nomad::plugins::drivers::proto::fingerprint_response::HealthState;
use crate::proto::hashicorp::nomad::plugins::shared::structs::{Attribute, attribute::Value};
use crate::task::boot;

/// The environment of jobs in virtual machines.
const VM: &str = "vm";
/// Between two looks.
const BETWEEN: Duration = Duration::from_secs(30);
/// After a failure, what was mended is to be seen soon.
const BETWEEN_FAILURES: Duration = Duration::from_secs(10);

/// Nomad remembers by classes of nodes, which are made of their attributes, where a job found no place, and does not ask again when one
/// of them is healthy again: with this attribute it is of another class then.
const HEALTHY: &str = "driver.navvy.healthy";

/// What is known of this client.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Health {
    /// Tasks can be carried out here.
    pub is_healthy: bool,
    /// A sentence for the node's page. The same state has the same text.
    pub text: String,
    /// By their full names.
    pub attributes: BTreeMap<String, String>,
    /// What tasks may have together, once it is known.
    pub room: Option<navvy_job::resource::Size>,
}

impl Health {
    /// Before anything was looked at, or without a configuration that can be used.
    pub fn unhealthy(text: String) -> Self {
        let attributes = BTreeMap::from([
            ("driver.navvy.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            (HEALTHY.to_owned(), false.to_string()),
        ]);
        Self { is_healthy: false, text, attributes, room: None }
    }

    /// Of what an agent says of the machine.
    fn of(config: &PluginConfig, check: &HostCheck) -> Self {
        let environments: Vec<&str> =
            check.environments.iter().filter(|kind| config.environments.contains(kind)).map(String::as_str).collect();
        let mut problems = check.problems.clone();
        // What keeps jobs from containers keeps none from another environment that works.
        if !environments.is_empty() && !environments.contains(&DOCKER) {
            problems.retain(|problem| !check.of_docker.contains(problem));
        }
        if environments.is_empty() && problems.is_empty() {
            let wanted = config.environments.join(", ");
            problems.push(format!(
                "None of the environments that the plugin's configuration allows ({wanted}) works on this machine."
            ));
        }
        // Who allows nothing but containers does not miss them.
        let misses_machines = environments.is_empty() && config.environments.iter().any(|kind| kind == VM);
        if let Some(why) = check.no_machines.as_ref().filter(|_| misses_machines) {
            problems.push(format!("Jobs get no virtual machine here: {why}."));
        }
        let room = config.reserve.room(check.size);
        if let Err(error) = room {
            problems.push(format!(
                "{error}. Lower the reservation in the plugin's configuration: reserve {{ cpus = 0.5, memory = \"512MiB\" }}."
            ));
        }
        let mib = |bytes: u64| (bytes >> 20).to_string();
        let mut health = Self::unhealthy(problems.join(" "));
        health.is_healthy = problems.is_empty();
        health.room = room.ok();
        if health.is_healthy {
            health.text = "Healthy".to_owned();
            health.attributes.insert(HEALTHY.to_owned(), true.to_string());
        }
        let reserved = config.reserve.0;
        for (name, value) in [
            ("environments", environments.join(",")),
            ("agent.version", check.agent.clone()),
            ("docker.version", check.docker.clone().unwrap_or_default()),
            ("kvm", check.kvm.to_string()),
            ("reserved.cpus", navvy_job::figures::cpus(reserved.millicpus)),
            ("reserved.memory_mb", mib(reserved.memory)),
            ("room.cpus", health.room.map_or_else(|| "0".to_owned(), |room| navvy_job::figures::cpus(room.millicpus))),
            ("room.memory_mb", health.room.map_or_else(|| "0".to_owned(), |room| mib(room.memory))),
        ] {
            health.attributes.insert(format!("driver.navvy.{name}"), value);
        }
        health
    }

    /// As Nomad wants it.
    pub fn response(&self) -> FingerprintResponse {
        let attribute =
            |value: &String| Attribute { unit: String::new(), value: Some(Value::StringVal(value.clone())) };
        let attributes: HashMap<_, _> =
            self.attributes.iter().map(|(name, value)| (name.clone(), attribute(value))).collect();
        let health = if self.is_healthy { HealthState::Healthy } else { HealthState::Unhealthy };
        FingerprintResponse {
            attributes,
            health: health.into(),
            health_description: self.text.clone(),
            err: String::new(),
        }
    }
}

/// What is looked at, and what came of it.
pub struct Fingerprint {
    health: watch::Sender<Health>,
}

impl Default for Fingerprint {
    fn default() -> Self {
        let text = "The agent and Docker are being tried for the first time.".to_owned();
        Self { health: watch::Sender::new(Health::unhealthy(text)) }
    }
}

impl Fingerprint {
    /// The state, and its changes.
    pub fn subscribe(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// The state that was seen last.
    pub fn now(&self) -> Health {
        self.health.borrow().clone()
    }

    /// The state as it is now, looked at anew.
    pub async fn look(&self, config: &PluginConfig, variables: &BTreeMap<String, String>) -> Health {
        let health = assess(config, variables).await;
        self.tell(health.clone());
        health
    }

    /// Says why nothing can be looked at.
    pub fn tell(&self, health: Health) {
        let tell = |known: &mut Health| {
            let is_new = *known != health;
            if known.is_healthy && !health.is_healthy {
                warning!("This client takes no tasks: {}", health.text);
            } else if !known.is_healthy && health.is_healthy {
                info!("This client takes tasks.");
            }
            *known = health;
            is_new
        };
        self.health.send_if_modified(tell);
    }

    /// Looks again and again, for as long as the configuration holds.
    pub async fn keep(&self, config: &PluginConfig, variables: &BTreeMap<String, String>) {
        loop {
            let health = assess(config, variables).await;
            let pause = if health.is_healthy { BETWEEN } else { BETWEEN_FAILURES };
            self.tell(health);
            tokio::time::sleep(pause).await;
        }
    }
}

/// A cheap look; where what it finds was not tried yet, or failed the last time, a container has to start as well.
async fn assess(config: &PluginConfig, variables: &BTreeMap<String, String>) -> Health {
    let (health, program) = see(config, variables, false).await;
    let now = Tried::new(program, health.attributes.get("driver.navvy.docker.version").cloned());
    let health = match health.is_healthy && !now.is_known(&config.state_dir) {
        true => see(config, variables, true).await.0,
        false => health,
    };
    now.keep(&config.state_dir, health.is_healthy);
    health
}

/// An agent and an engine that a container was started with, successfully: the same ones need no other try on this boot, not even by
/// the plugin that comes after this one. It would take no tasks for as long as a try takes.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Tried {
    program: Option<(PathBuf, Option<SystemTime>)>,
    docker: Option<String>,
    boot: Option<String>,
}

/// In the driver's directory.
const TRIED: &str = "tried.json";
const LONGEST_TRIED: u64 = 16 << 10;

impl Tried {
    fn new(program: Option<(PathBuf, Option<SystemTime>)>, docker: Option<String>) -> Self {
        Self { program, docker, boot: boot().ok() }
    }

    fn is_known(&self, state_dir: &Path) -> bool {
        let text = navvy_plain_file::text_without_link(&state_dir.join(TRIED), LONGEST_TRIED);
        let kept = text.ok().and_then(|text| serde_json::from_str::<Self>(&text).ok());
        self.boot.is_some() && kept.as_ref() == Some(self)
    }

    /// What cannot be kept is tried again.
    fn keep(&self, state_dir: &Path, is_healthy: bool) {
        let path = state_dir.join(TRIED);
        let kept = match is_healthy {
            true if self.is_known(state_dir) => Ok(()),
            true => make_private(state_dir).and_then(|()| put(state_dir, TRIED, &serde_json::to_vec(self)?)),
            false => std::fs::remove_file(&path),
        };
        kept.ok();
    }
}

async fn see(
    config: &PluginConfig,
    variables: &BTreeMap<String, String>,
    is_thorough: bool,
) -> (Health, Option<(PathBuf, Option<SystemTime>)>) {
    let path = match agent::find(config, variables) {
        Ok(path) => path,
        Err(error) => return (Health::unhealthy(error.to_string()), None),
    };
    let changed = std::fs::metadata(&path).and_then(|found| found.modified()).ok();
    let health = match agent::check(&path, &agent::environment(config, variables), is_thorough).await {
        Ok(check) => Health::of(config, &check),
        Err(error) => Health::unhealthy(error.to_string()),
    };
    (health, Some((path, changed)))
}

#[cfg(test)]
mod tests {
    use navvy_job::reservation::Reservation;
    use navvy_job::resource::Size;

    use super::*;

    fn check() -> HostCheck {
        HostCheck {
            version: 1,
            agent: "0.1.0".into(),
            docker: Some("28.0".into()),
            environments: vec!["docker".into()],
            problems: Vec::new(),
            of_docker: Vec::new(),
            no_machines: Some("no QEMU".into()),
            kvm: true,
            size: Size::new(8, 32),
        }
    }

    #[test]
    fn a_machine_that_works_shows_what_it_has_for_tasks() {
        let health = Health::of(&PluginConfig::default(), &check());
        assert!(health.is_healthy);
        let shown = |name: &str| health.attributes[&format!("driver.navvy.{name}")].clone();
        assert_eq!([shown("room.cpus"), shown("room.memory_mb"), shown("reserved.cpus")], ["6", "28672", "2"]);
        assert_eq!([shown("environments"), shown("docker.version"), shown("kvm")], ["docker", "28.0", "true"]);
    }

    #[test]
    fn a_machine_that_is_too_small_says_so_and_how_to_lower_the_reservation() {
        let health = Health::of(&PluginConfig::default(), &HostCheck { size: Size::new(2, 32), ..check() });
        assert!(
            !health.is_healthy && health.text.contains("too small") && health.text.contains("reserve {"),
            "{}",
            health.text
        );
        let config = PluginConfig { reserve: Reservation(Size::new(1, 1)), ..PluginConfig::default() };
        assert!(Health::of(&config, &HostCheck { size: Size::new(2, 32), ..check() }).is_healthy);
    }

    #[test]
    fn without_docker_a_client_has_its_machines_and_says_so() {
        let why = vec!["Docker does not answer".to_owned()];
        let vm = HostCheck {
            docker: None,
            environments: vec!["vm".into()],
            problems: why.clone(),
            of_docker: why,
            ..check()
        };
        let allowing = |kinds: &[&str]| PluginConfig {
            environments: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
            ..PluginConfig::default()
        };
        let health = Health::of(&allowing(&["docker", "vm"]), &vm);
        assert!(health.is_healthy, "{}", health.text);
        assert_eq!(health.attributes["driver.navvy.environments"], "vm");
        assert!(!Health::of(&allowing(&["docker"]), &vm).is_healthy);
        let full = HostCheck { problems: vec!["The disk is full".into(), "Docker does not answer".into()], ..vm };
        assert_eq!(Health::of(&allowing(&["vm"]), &full).text, "The disk is full");
        let nothing = HostCheck { environments: Vec::new(), ..check() };
        assert!(Health::of(&allowing(&["vm"]), &nothing).text.ends_with("no virtual machine here: no QEMU."));
        assert!(!Health::of(&allowing(&["docker"]), &nothing).text.contains("no QEMU"));
    }

    #[test]
    fn an_engine_that_does_not_answer_is_a_problem() {
        let broken = HostCheck {
            docker: None,
            environments: Vec::new(),
            problems: vec!["Docker does not answer".into()],
            ..check()
        };
        let health = Health::of(&PluginConfig::default(), &broken);
        assert_eq!((health.is_healthy, health.text.as_str()), (false, "Docker does not answer"));
        let silent = HostCheck { environments: Vec::new(), ..check() };
        assert!(!Health::of(&PluginConfig::default(), &silent).is_healthy, "nothing that works is no health");
    }

    #[test]
    fn what_was_tried_is_known_to_the_next_plugin_until_something_changes() {
        let place = tempfile::tempdir().unwrap();
        let state = place.path().join("state");
        let of = |docker: &str| Tried::new(Some(("/usr/bin/navvy".into(), None)), Some(docker.to_owned()));
        assert!(!of("28").is_known(&state));
        of("28").keep(&state, true);
        assert!(of("28").is_known(&state) && !of("29").is_known(&state));
        assert!(
            !Tried { boot: Some("another".to_owned()), ..of("28") }.is_known(&state),
            "Docker's store may be another"
        );
        of("28").keep(&state, false);
        assert!(!of("28").is_known(&state), "what failed is tried again");
    }
}
