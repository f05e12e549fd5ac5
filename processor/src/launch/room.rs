//! Why a job waits in Nomad, in words for people. Pure.

use std::collections::HashMap;

use navvy_job::figures::{bytes, cpus};
use navvy_job::resource::Size;

use super::answers::{Allocation, Evaluation, Misplaced, Node};
use super::definition::DRIVER;

/// Of what a driver says of itself, so much is told.
const LONGEST_TEXT: usize = 300;

/// What is used of each client, by its id: MHz, MB, MB.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Used(HashMap<String, [i64; 3]>);

impl Used {
    /// By what runs, or is going to.
    pub fn of(allocations: &[Allocation]) -> Self {
        let mut used = HashMap::<String, [i64; 3]>::new();
        for allocation in allocations.iter().filter(|allocation| !allocation.client_status.is_over()) {
            let Some(allocated) = &allocation.allocated_resources else { continue };
            let [cpu, memory, disk] = used.entry(allocation.node.clone()).or_default();
            for task in allocated.tasks.values() {
                *cpu = cpu.saturating_add(task.cpu.cpu_shares);
                *memory = memory.saturating_add(task.memory.memory_mb);
            }
            *disk = disk.saturating_add(allocated.shared.disk_mb);
        }
        Self(used)
    }

    /// Of this client.
    pub fn client(&self, id: &str) -> [i64; 3] {
        self.0.get(id).copied().unwrap_or_default()
    }
}

/// What a client has for jobs: MHz, MB, MB.
pub fn total(node: &Node) -> [i64; 3] {
    let (has, keeps) = (&node.node_resources, node.reserved_resources.as_ref());
    [
        has.cpu.cpu_shares - keeps.map_or(0, |keeps| keeps.cpu.cpu_shares),
        has.memory.memory_mb - keeps.map_or(0, |keeps| keeps.memory.memory_mb),
        has.disk.disk_mb - keeps.map_or(0, |keeps| keeps.disk.disk_mb),
    ]
}

fn size([cpu, memory, _]: [i64; 3]) -> Size {
    let number = |number: i64| u64::try_from(number).unwrap_or(0);
    Size { millicpus: number(cpu), memory: number(memory).saturating_mul(1 << 20) }
}

/// Which clients may have tasks.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// What a task of the class needs.
    pub size: Size,
    /// The class of clients.
    pub node_class: Option<&'a str>,
    /// Names, or patterns.
    pub datacenters: &'a [String],
}

/// Why nothing of this size starts. `None`: Nomad has not yet tried, or is at it.
pub fn why(wanted: Wanted<'_>, nodes: &[Node], used: &Used, evaluations: &[Evaluation]) -> Option<String> {
    let here: Vec<&Node> = nodes.iter().filter(|node| wanted.takes(node)).collect();
    if here.is_empty() {
        return Some(wanted.nobody(nodes.len()));
    }
    let working: Vec<&Node> = here.iter().copied().filter(|node| is_healthy(node)).collect();
    if working.is_empty() {
        return Some(unhealthy(&here));
    }
    let large: Vec<&Node> = working.iter().copied().filter(|node| wanted.size.fits(size(total(node)))).collect();
    if large.is_empty() {
        let (need, largest) = lacking(wanted.size, working.iter().map(|node| size(total(node))))?;
        return Some(format!("needs {need}, and no client is so large: the largest has {largest} for tasks"));
    }
    let open: Vec<&Node> = large.iter().copied().filter(|node| is_open(node)).collect();
    if open.is_empty() {
        return Some(match large.len() {
            1 => "the only client that is large enough is being drained, or takes nothing new".to_owned(),
            count => format!("the {count} clients that are large enough are being drained, or take nothing new"),
        });
    }
    // That Nomad has tried and found no place is for Nomad to say.
    let misplaced = last(evaluations)?;
    let free = |node: &&Node| {
        let (total, used) = (total(node), used.client(&node.id));
        size(std::array::from_fn(|nth| total[nth].saturating_sub(used[nth])))
    };
    match lacking(wanted.size, open.iter().map(free)) {
        Some((need, free)) => {
            let free = free.trim_end_matches(" CPUs").trim_end_matches(" CPU");
            Some(format!("needs {need}, the largest client has {free} free"))
        }
        None => Some(in_nomads_words(misplaced)),
    }
}

impl Wanted<'_> {
    fn takes(&self, node: &Node) -> bool {
        node.status == "ready"
            && self.node_class.is_none_or(|class| class == node.node_class)
            && self.datacenters.iter().any(|pattern| matches(pattern, &node.datacenter))
    }

    fn nobody(&self, others: usize) -> String {
        let of_class = self.node_class.map(|class| format!(" of node class {class}")).unwrap_or_default();
        let there = match self.datacenters {
            [all] if all == "*" => String::new(),
            these => format!(" in datacenter {}", these.join(", ")),
        };
        match others {
            0 => "no Nomad client is there".to_owned(),
            others => format!("no Nomad client{of_class}{there} is ready; there are {others} altogether"),
        }
    }
}

/// As Nomad matches datacenters: `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((front, rest)) => text.strip_prefix(front).is_some_and(|text| {
            (0..=text.len()).filter(|at| text.is_char_boundary(*at)).any(|at| matches(rest, &text[at..]))
        }),
    }
}

fn is_healthy(node: &Node) -> bool {
    node.drivers.get(DRIVER).is_some_and(|driver| driver.detected && driver.healthy)
}

fn is_open(node: &Node) -> bool {
    !node.drain && node.scheduling_eligibility == "eligible"
}

fn unhealthy(nodes: &[&Node]) -> String {
    let says = |node: &&&Node| {
        let driver = node.drivers.get(DRIVER)?;
        let words: String = driver.health_description.chars().take(LONGEST_TEXT).collect();
        let words = words.replace(|c: char| c.is_control(), " ");
        (!words.is_empty()).then(|| format!("client {} says: {words}", node.name))
    };
    match nodes.iter().find_map(|node| says(&node)) {
        Some(words) => format!("the driver `{DRIVER}` works on none of {} clients; {words}", nodes.len()),
        None => format!("no client has the driver `{DRIVER}`; there are {}", nodes.len()),
    }
}

/// What is needed, and what there is of it on the client that comes closest. `None`: it fits on one.
fn lacking(wanted: Size, clients: impl Iterator<Item = Size>) -> Option<(String, String)> {
    let clients: Vec<Size> = clients.collect();
    if clients.iter().any(|has| wanted.fits(*has)) {
        return None;
    }
    let largest = |dimension: fn(&Size) -> u64| clients.iter().map(dimension).max().unwrap_or(0);
    let (most_cpus, most_memory) = (largest(|size| size.millicpus), largest(|size| size.memory));
    let of_cpus = |millicpus| {
        let cpus = cpus(millicpus);
        if cpus == "1" { "1 CPU".to_owned() } else { format!("{cpus} CPUs") }
    };
    let (short_of_cpus, short_of_memory) = (most_cpus < wanted.millicpus, most_memory < wanted.memory);
    let both = |size: Size| format!("{} and {}", of_cpus(size.millicpus), bytes(size.memory));
    Some(match (short_of_cpus, short_of_memory) {
        (true, false) => (of_cpus(wanted.millicpus), of_cpus(most_cpus)),
        (false, true) => (bytes(wanted.memory), bytes(most_memory)),
        (true, true) => (both(wanted), both(Size { millicpus: most_cpus, memory: most_memory })),
        // One has the processors, another the memory.
        (false, false) => {
            let closest =
                clients.iter().max_by_key(|has| (has.millicpus.min(wanted.millicpus), has.memory)).copied()?;
            (both(wanted), both(closest))
        }
    })
}

/// What the last try that failed could not place.
fn last(evaluations: &[Evaluation]) -> Option<&Misplaced> {
    let failed = evaluations.iter().filter(|one| !one.failed.is_empty());
    failed.max_by_key(|one| one.modify_index)?.failed.values().next()
}

/// Something that this processor does not reckon with: ports, disk, quotas, rules of the operator's.
fn in_nomads_words(misplaced: &Misplaced) -> String {
    let counted = |counts: &std::collections::BTreeMap<String, i64>| {
        let each = counts.iter().take(5).map(|(what, clients)| format!("{what} ({clients})"));
        each.collect::<Vec<_>>().join(", ")
    };
    let mut words = Vec::new();
    if !misplaced.dimension_exhausted.is_empty() {
        words.push(format!("not enough of {}", counted(&misplaced.dimension_exhausted)));
    }
    if !misplaced.constraint_filtered.is_empty() {
        words.push(format!("ruled out by {}", counted(&misplaced.constraint_filtered)));
    }
    if !misplaced.quota_exhausted.is_empty() {
        words.push(format!("the quota {} is used up", misplaced.quota_exhausted.join(", ")));
    }
    let words = if words.is_empty() { "no reason is given".to_owned() } else { words.join("; ") };
    match misplaced.nodes_evaluated {
        0 => format!("Nomad finds no client that may have it: {words}"),
        clients => format!("Nomad places it on none of {clients} clients: {words}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(id: &str, cpus: u64, gib: u64) -> serde_json::Value {
        json!({
            "ID": id, "Name": id, "Datacenter": "dc1", "NodeClass": "linux-64bit", "Status": "ready", "Drain": false,
            "SchedulingEligibility": "eligible",
            "Drivers": {"navvy": {"Detected": true, "Healthy": true, "HealthDescription": "Healthy"}},
            "NodeResources": {"Cpu": {"CpuShares": (cpus + 2) * 1000}, "Memory": {"MemoryMB": (gib + 4) << 10}, "Disk": {"DiskMB": 1}},
            "ReservedResources": {"Cpu": {"CpuShares": 2000}, "Memory": {"MemoryMB": 4 << 10}, "Disk": {"DiskMB": 0}},
        })
    }

    fn told(nodes: serde_json::Value, used: &[(&str, u64, u64)], misplaced: serde_json::Value) -> Option<String> {
        let nodes: Vec<Node> = serde_json::from_value(nodes).unwrap();
        let of = |(node, cpus, gib): &(&str, u64, u64)| {
            json!({"NodeID": node, "JobID": "j", "DesiredStatus": "run", "ClientStatus": "running", "CreateIndex": 1,
                   "AllocatedResources": {"Tasks": {"agent": {"Cpu": {"CpuShares": cpus * 1000}, "Memory": {"MemoryMB": gib << 10}}}}})
        };
        let allocations: Vec<Allocation> = used.iter().map(|used| serde_json::from_value(of(used)).unwrap()).collect();
        let evaluations = match misplaced.is_null() {
            true => json!([{"ModifyIndex": 1, "FailedTGAllocs": null}]),
            false => json!([{"ModifyIndex": 2, "FailedTGAllocs": {"task": misplaced}}, {"ModifyIndex": 3}]),
        };
        let evaluations: Vec<Evaluation> = serde_json::from_value(evaluations).unwrap();
        let datacenters = ["*".to_owned()];
        let wanted = Wanted { size: Size::new(4, 8), node_class: Some("linux-64bit"), datacenters: &datacenters };
        why(wanted, &nodes, &Used::of(&allocations), &evaluations)
    }

    fn with(mut node: serde_json::Value, key: &str, value: serde_json::Value) -> serde_json::Value {
        node[key] = value;
        node
    }

    type Case = (serde_json::Value, Vec<(&'static str, u64, u64)>, serde_json::Value, &'static str);

    #[test]
    fn each_client_that_cannot_take_it_is_said() {
        let unhealthy =
            json!({"navvy": {"Detected": true, "Healthy": false, "HealthDescription": "Docker is down:\nstart it"}});
        let cases: [Case; 4] = [
            (json!([]), vec![], json!(null), "no Nomad client is there"),
            (
                json!([
                    with(node("a", 8, 16), "NodeClass", json!("other")),
                    with(node("b", 8, 16), "Status", json!("down"))
                ]),
                vec![],
                json!(null),
                "no Nomad client of node class linux-64bit is ready; there are 2 altogether",
            ),
            (
                json!([with(node("a", 8, 16), "Drivers", json!({}))]),
                vec![],
                json!(null),
                "no client has the driver `navvy`; there are 1",
            ),
            (
                json!([with(node("a", 8, 16), "Drivers", json!({})), with(node("b", 8, 16), "Drivers", unhealthy)]),
                vec![],
                json!(null),
                "the driver `navvy` works on none of 2 clients; client b says: Docker is down: start it",
            ),
        ];
        for (nodes, used, misplaced, expected) in cases {
            assert_eq!(told(nodes, &used, misplaced).as_deref(), Some(expected));
        }
    }

    #[test]
    fn each_reason_to_wait_is_said_in_figures() {
        let full = json!({"NodesEvaluated": 1, "DimensionExhausted": {"cpu": 1}});
        let cases: [Case; 6] = [
            (
                json!([node("a", 2, 16), node("b", 3, 4)]),
                vec![],
                json!(null),
                "needs 4 CPUs, and no client is so large: the largest has 3 CPUs for tasks",
            ),
            (
                json!([node("a", 2, 16), node("b", 8, 4)]),
                vec![],
                json!(null),
                "needs 4 CPUs and 8 GiB, and no client is so large: the largest has 8 CPUs and 4 GiB for tasks",
            ),
            (
                json!([
                    with(node("a", 8, 16), "Drain", json!(true)),
                    with(node("b", 8, 16), "Drain", json!(true)),
                    node("c", 1, 1)
                ]),
                vec![],
                full.clone(),
                "the 2 clients that are large enough are being drained, or take nothing new",
            ),
            (
                json!([node("a", 4, 16), node("b", 2, 4)]),
                vec![("a", 2, 2)],
                full.clone(),
                "needs 4 CPUs, the largest client has 2 free",
            ),
            (
                json!([node("a", 8, 16)]),
                vec![("a", 1, 10), ("a", 1, 2)],
                full.clone(),
                "needs 8 GiB, the largest client has 4 GiB free",
            ),
            (
                json!([node("a", 8, 16)]),
                vec![],
                json!({"NodesEvaluated": 1, "ConstraintFiltered": {"${attr.kernel.name} = plan9": 1}, "DimensionExhausted": null}),
                "Nomad places it on none of 1 clients: ruled out by ${attr.kernel.name} = plan9 (1)",
            ),
        ];
        for (nodes, used, misplaced, expected) in cases {
            assert_eq!(told(nodes, &used, misplaced).as_deref(), Some(expected));
        }
    }

    #[test]
    fn nothing_is_said_before_nomad_has_tried() {
        assert_eq!(told(json!([node("a", 4, 8)]), &[("a", 4, 8)], json!(null)), None);
    }

    #[test]
    fn datacenters_are_matched_as_nomad_does() {
        for (pattern, text, is) in [
            ("*", "x", true),
            ("eu-*", "eu-1", true),
            ("eu-*", "us-1", false),
            ("a", "ab", false),
            ("*-1*", "eu-12", true),
        ] {
            assert_eq!(matches(pattern, text), is, "{pattern} {text}");
        }
    }
}
