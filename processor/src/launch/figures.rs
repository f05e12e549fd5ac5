//! Figures of Nomad's cluster, by the names that operators of such fleets know: `circle.nomad.server_agent.*` are of jobs of ours,
//! `circle.nomad.client_agent.*` of each client. Nomad counts no I/O operations any more, so there is no `iops`.

use std::fmt::Write as _;

use super::answers::{Job, JobStatus, Node};
use super::room::{Used, total};

/// Most clients that are told one by one.
const MOST_CLIENTS: usize = 2000;
/// Of [`Cluster::jobs`].
const JOBS: [&str; 4] = ["pending", "running", "complete", "dead"];
/// Of [`Client::resources`].
const RESOURCES: [&str; 3] = ["cpu", "memory", "disk"];

/// How the cluster does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Jobs that were dispatched: pending, running, complete (ended as they should), dead (ended otherwise).
    pub jobs: [i64; 4],
    /// Clients with what they have and what of it is used.
    pub clients: Vec<Client>,
}

/// A client, as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    name: String,
    drain: bool,
    status: String,
    /// Total and used: MHz, MB, MB.
    resources: [(i64, i64); 3],
}

/// One figure: name, its tags, value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figure {
    /// `circle.nomad.…`
    pub name: String,
    /// Names and values.
    pub tags: Vec<(&'static str, String)>,
    /// A gauge's.
    pub value: i64,
}

impl Cluster {
    /// As Nomad has it.
    pub fn of(jobs: &[Job], nodes: &[Node], used: &Used) -> Self {
        let mut counts = [0; 4];
        for job in jobs.iter().filter(|job| !job.parent.is_empty()) {
            let ended = job.counts();
            counts[match job.status {
                JobStatus::Pending => 0,
                JobStatus::Running => 1,
                JobStatus::Dead if ended.complete > 0 && ended.failed == 0 && ended.lost == 0 => 2,
                JobStatus::Dead => 3,
            }] += 1;
        }
        let client = |node: &Node| {
            let (total, used) = (total(node), used.client(&node.id));
            let resources = std::array::from_fn(|nth| (total[nth], used[nth]));
            Client { name: node.name.clone(), drain: node.drain, status: node.status.clone(), resources }
        };
        Self { jobs: counts, clients: nodes.iter().take(MOST_CLIENTS).map(client).collect() }
    }
}

/// All figures. `troubles`: does a call to Nomad fail now?
pub fn figures(troubles: bool, cluster: Option<&Cluster>) -> Vec<Figure> {
    let plain = |name: String, value| Figure { name, tags: Vec::new(), value };
    let failed = i64::from(troubles);
    let mut figures = vec![
        plain("circle.nomad.server_agent.poll_failure".to_owned(), failed),
        plain("circle.nomad.client_agent.poll_failure".to_owned(), failed),
    ];
    let Some(cluster) = cluster else { return figures };
    let jobs = JOBS.iter().zip(cluster.jobs);
    figures.extend(jobs.map(|(state, count)| plain(format!("circle.nomad.server_agent.jobs.{state}"), count)));
    for client in &cluster.clients {
        let tags = || {
            let drain = client.drain.to_string();
            vec![("client", client.name.clone()), ("drain", drain), ("status", client.status.clone())]
        };
        for (what, (total, used)) in RESOURCES.iter().zip(client.resources) {
            for (which, value) in [("total", total), ("used", used), ("available", total.saturating_sub(used))] {
                let name = format!("circle.nomad.client_agent.resources.{which}.{what}");
                figures.push(Figure { name, tags: tags(), value });
            }
        }
    }
    figures
}

/// For Prometheus: dots become `_`.
pub fn prometheus(figures: &[Figure]) -> String {
    let mut text = String::new();
    let mut sorted: Vec<&Figure> = figures.iter().collect();
    sorted.sort_by(|one, other| one.name.cmp(&other.name));
    let mut last = "";
    for figure in sorted {
        let name = figure.name.replace('.', "_");
        if figure.name != last {
            writeln!(text, "# TYPE {name} gauge").ok();
            last = &figure.name;
        }
        let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let tags: Vec<String> =
            figure.tags.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect();
        let tags = if tags.is_empty() { String::new() } else { format!("{{{}}}", tags.join(",")) };
        writeln!(text, "{name}{tags} {}", figure.value).ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_figures_are_those_that_operators_know() {
        let job = |parent: &str, status: &str, complete: i64, failed: i64| {
            json!({"ID": "j", "ParentID": parent, "ParameterizedJob": false, "Stop": false, "Status": status, "JobModifyIndex": 1,
                   "JobSummary": {"ModifyIndex": 1, "Summary": {"task": {"Queued": 0, "Starting": 0, "Running": 0,
                                  "Complete": complete, "Failed": failed, "Lost": 0}}}})
        };
        let jobs = json!([
            job("", "running", 0, 0),
            job("p", "pending", 0, 0),
            job("p", "running", 0, 0),
            job("p", "dead", 1, 0),
            job("p", "dead", 0, 1),
            job("p", "dead", 0, 0)
        ]);
        let jobs: Vec<Job> = serde_json::from_value(jobs).unwrap();
        let nodes = json!([{"ID": "1", "Name": "a\"b", "Datacenter": "d", "Status": "ready", "Drain": true,
            "SchedulingEligibility": "eligible", "Drivers": null, "ReservedResources": null,
            "NodeResources": {"Cpu": {"CpuShares": 8000}, "Memory": {"MemoryMB": 100}, "Disk": {"DiskMB": 7}}}]);
        let nodes: Vec<Node> = serde_json::from_value(nodes).unwrap();
        let cluster = Cluster::of(&jobs, &nodes, &Used::default());
        assert_eq!(cluster.jobs, [1, 1, 1, 2]);
        let text = prometheus(&figures(false, Some(&cluster)));
        for line in [
            "# TYPE circle_nomad_server_agent_poll_failure gauge",
            "circle_nomad_server_agent_poll_failure 0",
            "circle_nomad_server_agent_jobs_dead 2",
            "circle_nomad_client_agent_resources_total_cpu{client=\"a\\\"b\",drain=\"true\",status=\"ready\"} 8000",
            "circle_nomad_client_agent_resources_available_disk{client=\"a\\\"b\",drain=\"true\",status=\"ready\"} 7",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is missing in\n{text}");
        }
        let failing = prometheus(&figures(true, None));
        assert!(failing.contains("circle_nomad_server_agent_poll_failure 1") && !failing.contains("jobs"), "{failing}");
    }
}
