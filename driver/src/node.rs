//! What Nomad says of its node: from its unit of CPU (MHz of all cores together) to CPUs.

use crate::proto::hashicorp::nomad::plugins::base::proto::ClientTopology;
use crate::proto::hashicorp::nomad::plugins::drivers::proto::Resources;

/// One unit where Nomad does not say what it counts in, as `navvy host nomad-config` sets it: a thousandth of a CPU.
const UNITS_PER_CPU: f64 = 1000.0;

/// How Nomad counts a node's CPUs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Node {
    /// Cores.
    pub cores: usize,
    /// Their units together.
    pub compute: f64,
    /// Nomad has said so. One before 1.7 does not, and says of each task which share of the node it has.
    pub is_told: bool,
}

impl Node {
    /// From what Nomad says at the start; `None`: it is older than 1.7 and says nothing.
    pub fn of(topology: &ClientTopology) -> Option<Self> {
        let speed = |core: &crate::proto::hashicorp::nomad::plugins::base::proto::ClientTopologyCore| {
            [core.base_speed, core.max_speed, core.guess_speed].into_iter().find(|&speed| speed > 0).unwrap_or(0)
        };
        let cores = topology.cores.len();
        let sum: u64 = topology.cores.iter().map(speed).fold(0, u64::saturating_add);
        let compute = if topology.override_total_compute > 0 { topology.override_total_compute } else { sum };
        (cores > 0 && compute > 0).then_some(Self { cores, compute: compute as f64, is_told: true })
    }

    /// Where Nomad says nothing.
    pub fn unknown() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { cores, compute: cores as f64 * UNITS_PER_CPU, is_told: false }
    }

    /// Units of one CPU.
    pub fn units_per_cpu(self) -> f64 {
        self.compute / self.cores as f64
    }

    /// Thousandths of a CPU that Nomad has given to a task. Cores that are its own count whole.
    pub fn millicpus(self, resources: &Resources) -> u64 {
        let own = resources.linux_resources.as_ref().map_or(0, |linux| cores(&linux.cpuset_cpus));
        if own > 0 {
            return own as u64 * 1000;
        }
        let part = resources.linux_resources.as_ref().map_or(0.0, |linux| linux.percent_ticks);
        if !self.is_told && part.is_finite() && part > 0.0 {
            return (part.min(1.0) * self.cores as f64 * 1000.0).round() as u64;
        }
        let units = resources.allocated_resources.as_ref().and_then(|all| all.cpu).map_or(0, |cpu| cpu.cpu_shares);
        (units.max(0) as f64 / self.units_per_cpu() * 1000.0).round() as u64
    }
}

/// How many ids a list such as `0,3,5` or `0-2` has.
fn cores(list: &str) -> usize {
    let count = |part: &str| match part.split_once('-') {
        Some((first, last)) => {
            let (first, last) = (first.trim().parse::<usize>().ok()?, last.trim().parse::<usize>().ok()?);
            last.checked_sub(first).map(|more| more + 1)
        }
        None => part.trim().parse::<usize>().ok().map(|_| 1),
    };
    list.split(',').filter_map(count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::hashicorp::nomad::plugins::base::proto::ClientTopologyCore;
    use crate::proto::hashicorp::nomad::plugins::drivers::proto::{
        AllocatedCpuResources, AllocatedTaskResources, LinuxResources,
    };

    fn resources(cpu_shares: i64, cpuset: &str) -> Resources {
        Resources {
            allocated_resources: Some(AllocatedTaskResources {
                cpu: Some(AllocatedCpuResources { cpu_shares }),
                ..Default::default()
            }),
            linux_resources: Some(LinuxResources { cpuset_cpus: cpuset.to_owned(), ..Default::default() }),
            ports: Vec::new(),
        }
    }

    #[test]
    fn a_task_has_its_share_of_the_node() {
        let core = |base_speed, guess_speed| ClientTopologyCore { base_speed, guess_speed, ..Default::default() };
        let mut topology = ClientTopology { cores: vec![core(2500, 0), core(0, 2500)], ..Default::default() };
        let node = Node::of(&topology).unwrap();
        assert_eq!(node.millicpus(&resources(5000, "")), 2000);
        assert_eq!(node.millicpus(&resources(1250, "")), 500);
        assert_eq!(node.millicpus(&resources(2500, "0,1")), 2000, "cores of its own");
        topology.override_total_compute = 2000;
        assert_eq!(Node::of(&topology).unwrap().millicpus(&resources(1000, "")), 1000);
        assert_eq!(Node::of(&ClientTopology::default()), None);
        assert_eq!(Node::unknown().millicpus(&resources(500, "")), 500);
        assert_eq!(Node::unknown().millicpus(&resources(-5, "")), 0);
        let old = Node { cores: 8, compute: 8000.0, is_told: false };
        let mut share = resources(5200, "");
        share.linux_resources.as_mut().unwrap().percent_ticks = 0.25;
        assert_eq!(old.millicpus(&share), 2000, "of 8 cores of 2600 MHz, of which Nomad 1.6 says nothing");
        assert_eq!(Node { is_told: true, ..old }.millicpus(&share), 5200);
    }

    #[test]
    fn lists_of_cores_are_counted() {
        assert_eq!(["", "0", "0,3,5", "0-2,7", "5-3", "x"].map(cores), [0, 1, 3, 4, 0, 0]);
    }
}
