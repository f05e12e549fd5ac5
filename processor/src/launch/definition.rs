//! The parameterized job of a resource class, and the names of what is dispatched from it. Pure.

use navvy_job::executor::ExecutorKind;
use navvy_job::resource::Size;
use serde_json::{Map, Value, json};

use super::rows::Launch;
use crate::settings::NomadSettings;

/// Names of all jobs of ours begin so.
pub const PREFIX: &str = "navvy-";
/// The task driver.
pub const DRIVER: &str = "navvy";
/// What a dispatched job is dispatched with, by name.
pub const META: [&str; 4] = ["task", "processor", "fleet", "attempt"];
/// Kinds of environments of a client, with commas between them.
const ENVIRONMENTS: &str = "${attr.driver.navvy.environments}";
/// How long the agent has to cancel its job and report that.
const KILL_TIMEOUT_NS: u64 = 30_000_000_000;
/// Of a name that a person chose, so much is kept.
const LONGEST_PART: usize = 40;

/// Nomad takes any name without a space; what needs no quoting in a shell is easier for those who type it.
fn word(text: &str) -> String {
    let kept = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
    text.chars().take(LONGEST_PART).map(kept).collect()
}

/// `navvy-docker-medium`. No two classes have one name: a sign that is replaced leaves its code.
pub fn parent_id(executor: &str, class: &str) -> String {
    let mut name = format!("{PREFIX}{executor}-");
    for c in class.chars() {
        match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '.' => name.push(c),
            '+' => name.push_str("_plus"),
            other => name.push_str(&format!("_{:x}_", u32::from(other))),
        }
    }
    name
}

/// What stands in front of a dispatched job's time and number.
pub fn id_prefix(task: &str, node: u64, slug: &str, number: u64) -> String {
    let mut parts = slug.rsplit('/');
    let (repository, organization) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    format!("{task}-{node}-build-{}-{}-{number}", word(organization), word(repository))
}

/// What a driver calls the environment of jobs that need this executor.
fn environment(executor: ExecutorKind) -> &'static str {
    match executor {
        ExecutorKind::Docker => "docker",
        ExecutorKind::Machine | ExecutorKind::MachineArm => "vm",
    }
}

/// What tasks of a job need.
#[derive(Debug, Clone, Copy)]
pub struct Needs<'a> {
    /// What they run in.
    pub executor: ExecutorKind,
    /// They ask for a machine beside their containers.
    pub has_machine: bool,
    /// Their resource class.
    pub class: &'a str,
}

impl<'a> From<&'a Launch> for Needs<'a> {
    fn from(launch: &'a Launch) -> Self {
        Self { executor: launch.executor, has_machine: launch.has_machine, class: &launch.class }
    }
}

/// How a job's name says what its tasks run in: `docker`, `docker-machine`, `machine`.
pub fn executor_word(executor: ExecutorKind, has_machine: bool) -> &'static str {
    match executor {
        ExecutorKind::Docker if has_machine => "docker-machine",
        ExecutorKind::Docker => "docker",
        // Its class says for which processor.
        ExecutorKind::Machine | ExecutorKind::MachineArm => "machine",
    }
}

/// The job, as it is registered.
pub fn definition(settings: &NomadSettings, id: &str, needs: Needs<'_>, size: Size) -> Value {
    let Needs { executor, has_machine, class } = needs;
    let environment = environment(executor);
    // The client's driver says which it has.
    let mut constraints = vec![json!({"LTarget": ENVIRONMENTS, "RTarget": environment, "Operand": "set_contains"})];
    if let Some(node_class) = &settings.node_class {
        constraints.push(json!({"LTarget": "${node.class}", "RTarget": node_class, "Operand": "="}));
    }
    // Its images are of that kind of machine.
    if class.starts_with("arm.") || executor == ExecutorKind::MachineArm {
        constraints.push(json!({"LTarget": "${attr.cpu.arch}", "RTarget": "arm64", "Operand": "="}));
    }
    // Where no client has machines, its step says so.
    let affinities = match has_machine {
        true => vec![json!({"LTarget": ENVIRONMENTS, "RTarget": "vm", "Operand": "set_contains_any", "Weight": 100})],
        false => Vec::new(),
    };
    json!({
        "ID": id, "Name": id, "Type": "batch",
        "Namespace": settings.namespace,
        "Datacenters": settings.datacenters,
        "Stop": false,
        "Constraints": constraints, "Affinities": affinities,
        "ParameterizedJob": {"Payload": "required", "MetaRequired": [META[0], META[1]], "MetaOptional": [META[2], META[3]]},
        "TaskGroups": [{
            "Name": "task", "Count": 1,
            // A step never runs twice: what becomes of a task whose agent is gone, the processor decides.
            "RestartPolicy": {"Attempts": 0, "Mode": "fail"},
            "ReschedulePolicy": {"Attempts": 0, "Unlimited": false},
            "Tasks": [{
                "Name": "agent", "Driver": DRIVER,
                "Config": {"task": "${NOMAD_META_task}", "processor": "${NOMAD_META_processor}",
                           "environment": environment},
                "DispatchPayload": {"File": "token"},
                // On our clients one MHz is a thousandth of a CPU.
                "Resources": {"CPU": size.millicpus, "MemoryMB": size.memory >> 20},
                "KillTimeout": KILL_TIMEOUT_NS, "KillSignal": "SIGTERM",
            }],
        }],
    })
}

/// Does what Nomad has say all that is wanted? It adds what it knows beside.
pub fn holds(wanted: &Value, found: &Value) -> bool {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => {
            wanted.iter().all(|(key, wanted)| found.get(key).is_some_and(|found| holds(wanted, found)))
        }
        (Value::Array(wanted), Value::Array(found)) => {
            wanted.len() == found.len() && wanted.iter().zip(found).all(|(wanted, found)| holds(wanted, found))
        }
        // An empty list comes back as none.
        (Value::Array(wanted), Value::Null) => wanted.is_empty(),
        (wanted, found) => wanted == found,
    }
}

/// The body of a dispatch. `payload`: the launch token, alone.
pub fn dispatch(payload: &str, prefix: &str, meta: [&str; 4]) -> Value {
    let meta: Map<String, Value> =
        META.into_iter().zip(meta).map(|(key, value)| (key.to_owned(), value.into())).collect();
    json!({"Payload": payload, "IdPrefixTemplate": prefix, "Meta": meta})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_operators_know_and_no_two_classes_share_one() {
        assert_eq!(parent_id("docker", "arm.large"), "navvy-docker-arm.large");
        assert_eq!(parent_id("docker", "2xlarge+"), "navvy-docker-2xlarge_plus");
        assert_ne!(parent_id("docker", "a+"), parent_id("docker", "a_plus"));
        assert_ne!(parent_id("docker", "acme/big"), parent_id("docker", "acme big"));
        assert_eq!(id_prefix("0123456789abcdef", 2, "gh/acme/shop", 7), "0123456789abcdef-2-build-acme-shop-7");
        let odd = id_prefix("0123456789abcdef", 0, "gh/ä b/…/x:y", 7);
        assert_eq!(odd, "0123456789abcdef-0-build---x-y-7");
    }

    #[test]
    fn a_machine_job_is_placed_where_machines_are_with_what_the_machine_gets() {
        let settings = crate::launch::tests::settings("http://127.0.0.1:1");
        let large = navvy_job::resource::machine_class("large").unwrap();
        let of =
            |executor, has_machine, class| definition(&settings, "id", Needs { executor, has_machine, class }, large);
        let machine = of(ExecutorKind::Machine, false, "large");
        let task = &machine["TaskGroups"][0]["Tasks"][0];
        assert_eq!(task["Config"]["environment"], "vm");
        assert_eq!(task["Resources"], json!({"CPU": 4000, "MemoryMB": 15 << 10}));
        let has = |job: &Value, left: &str, right: &str| {
            job["Constraints"].as_array().unwrap().iter().any(|it| it["LTarget"] == left && it["RTarget"] == right)
        };
        assert!(has(&machine, ENVIRONMENTS, "vm") && !has(&machine, "${attr.cpu.arch}", "arm64"));
        let arm = of(ExecutorKind::MachineArm, false, "arm.large");
        assert!(has(&arm, ENVIRONMENTS, "vm") && has(&arm, "${attr.cpu.arch}", "arm64"));
        let docker = of(ExecutorKind::Docker, false, "large");
        assert!(has(&docker, ENVIRONMENTS, "docker") && docker["Affinities"] == json!([]));
        assert_eq!(docker["TaskGroups"][0]["Tasks"][0]["Config"]["environment"], "docker");
        // It runs where machines are not, too, and rather where they are.
        let with_machine = of(ExecutorKind::Docker, true, "large");
        assert!(has(&with_machine, ENVIRONMENTS, "docker") && !has(&with_machine, ENVIRONMENTS, "vm"));
        assert_eq!(with_machine["Affinities"][0]["RTarget"], "vm");
    }

    #[test]
    fn what_nomad_adds_is_no_change_and_what_somebody_changed_is() {
        let wanted = json!({"ID": "a", "Constraints": [], "Groups": [{"Cpu": 2000}]});
        assert!(holds(
            &wanted,
            &json!({"ID": "a", "Constraints": null, "Groups": [{"Cpu": 2000, "Cores": 0}], "More": 1})
        ));
        for other in [
            json!({"ID": "a", "Constraints": null, "Groups": [{"Cpu": 1000}]}),
            json!({"ID": "a", "Constraints": [{"x": 1}], "Groups": [{"Cpu": 2000}]}),
            json!({"ID": "a", "Constraints": null, "Groups": [{"Cpu": 2000}, {"Cpu": 2000}]}),
            json!({"ID": "a", "Groups": [{"Cpu": 2000}]}),
            json!(null),
        ] {
            assert!(!holds(&wanted, &other), "{other}");
        }
    }
}
