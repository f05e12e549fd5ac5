//! What a whole task uses, from its cgroup.

use std::fs;
use std::time::{Instant, SystemTime};

use crate::cgroup::Mounts;
use crate::node::Node;
use crate::proto::hashicorp::nomad::plugins::drivers::proto::{
    CpuUsage, MemoryUsage, TaskResourceUsage, TaskStats, cpu_usage, memory_usage,
};

/// Counters at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counters {
    /// Nanoseconds.
    total_ns: u64,
    user_ns: u64,
    system_ns: u64,
    throttled_periods: u64,
    throttled_ns: u64,
}

/// One task's meter.
pub struct Meter {
    mounts: Mounts,
    name: String,
    node: Node,
    last: Option<(Instant, Counters)>,
}

impl Meter {
    /// Of the cgroup of this name.
    pub fn new(mounts: Mounts, name: String, node: Node) -> Self {
        let mut meter = Self { mounts, name, node, last: None };
        meter.last = meter.counters().map(|counters| (Instant::now(), counters));
        meter
    }

    /// What was used since the last reading; `None`: the cgroup is gone.
    pub fn read(&mut self, id: &str) -> Option<TaskStats> {
        let counters = self.counters()?;
        let now = Instant::now();
        let (since, before) = self.last.replace((now, counters)).unwrap_or((now, counters));
        let elapsed = (now - since).as_nanos().max(1) as f64;
        let percent = |now: u64, before: u64| now.saturating_sub(before) as f64 / elapsed * 100.0;
        let total = percent(counters.total_ns, before.total_ns);
        let cpu = CpuUsage {
            percent: total,
            user_mode: percent(counters.user_ns, before.user_ns),
            system_mode: percent(counters.system_ns, before.system_ns),
            total_ticks: total / 100.0 * self.node.units_per_cpu(),
            throttled_periods: counters.throttled_periods,
            throttled_time: counters.throttled_ns,
            measured_fields: [
                cpu_usage::Fields::Percent,
                cpu_usage::Fields::UserMode,
                cpu_usage::Fields::SystemMode,
                cpu_usage::Fields::TotalTicks,
                cpu_usage::Fields::ThrottledPeriods,
                cpu_usage::Fields::ThrottledTime,
            ]
            .map(i32::from)
            .to_vec(),
        };
        Some(TaskStats {
            id: id.to_owned(),
            timestamp: Some(SystemTime::now().into()),
            agg_resource_usage: Some(TaskResourceUsage { cpu: Some(cpu), memory: Some(self.memory()?) }),
            resource_usage_by_pid: Default::default(),
        })
    }

    fn file(&self, controller: &str, file: &str) -> Option<String> {
        fs::read_to_string(self.mounts.hierarchy(controller)?.directory(&self.name).join(file)).ok()
    }

    fn counters(&self) -> Option<Counters> {
        if let Mounts::V2(_) = self.mounts {
            let stat = self.file("cpu", "cpu.stat")?;
            let micros = |name| field(&stat, name).unwrap_or(0).saturating_mul(1000);
            return Some(Counters {
                total_ns: micros("usage_usec"),
                user_ns: micros("user_usec"),
                system_ns: micros("system_usec"),
                throttled_periods: field(&stat, "nr_throttled").unwrap_or(0),
                throttled_ns: micros("throttled_usec"),
            });
        }
        let number = |controller, file| self.file(controller, file)?.trim().parse().ok();
        let stat = self.file("cpu", "cpu.stat").unwrap_or_default();
        Some(Counters {
            total_ns: number("cpuacct", "cpuacct.usage")?,
            user_ns: number("cpuacct", "cpuacct.usage_user").unwrap_or(0),
            system_ns: number("cpuacct", "cpuacct.usage_sys").unwrap_or(0),
            throttled_periods: field(&stat, "nr_throttled").unwrap_or(0),
            throttled_ns: field(&stat, "throttled_time").unwrap_or(0),
        })
    }

    fn memory(&self) -> Option<MemoryUsage> {
        let stat = self.file("memory", "memory.stat")?;
        let number = |file| self.file("memory", file).and_then(|text| text.trim().parse().ok());
        let is_v2 = matches!(self.mounts, Mounts::V2(_));
        let (usage, most) = match is_v2 {
            true => (number("memory.current")?, number("memory.peak")),
            false => (number("memory.usage_in_bytes")?, number("memory.max_usage_in_bytes")),
        };
        let (rss, cache, swap) = match is_v2 {
            true => (field(&stat, "anon"), field(&stat, "file"), number("memory.swap.current")),
            false => (field(&stat, "total_rss"), field(&stat, "total_cache"), field(&stat, "total_swap")),
        };
        let measured = [
            (memory_usage::Fields::Rss, rss.is_some()),
            (memory_usage::Fields::Cache, cache.is_some()),
            (memory_usage::Fields::Swap, swap.is_some()),
            (memory_usage::Fields::MaxUsage, most.is_some()),
            (memory_usage::Fields::Usage, true),
        ];
        Some(MemoryUsage {
            rss: rss.unwrap_or(0),
            cache: cache.unwrap_or(0),
            swap: swap.unwrap_or(0),
            usage,
            max_usage: most.unwrap_or(0),
            measured_fields: measured.into_iter().filter(|(_, is)| *is).map(|(field, _)| field.into()).collect(),
            ..MemoryUsage::default()
        })
    }
}

/// The value of a line `name value`.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Are there figures at all?
pub fn is_there(mounts: &Mounts, name: &str) -> bool {
    mounts.hierarchy("memory").is_some_and(|hierarchy| hierarchy.directory(name).is_dir())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use navvy_cgroup::Hierarchy;

    use super::*;

    fn put(root: &Path, file: &str, text: &str) {
        fs::create_dir_all(root).unwrap();
        fs::write(root.join(file), text).unwrap();
    }

    #[test]
    fn figures_are_those_of_the_cgroup() {
        let place = tempfile::tempdir().unwrap();
        let group = place.path().join("a");
        put(&group, "cpu.stat", "usage_usec 1000\nuser_usec 600\nsystem_usec 400\nnr_throttled 2\nthrottled_usec 5\n");
        put(&group, "memory.stat", "anon 10\nfile 20\nfile_mapped 7\n");
        put(&group, "memory.current", "33\n");
        let node = Node { cores: 2, compute: 2000.0, is_told: true };
        let unified = Hierarchy { path: place.path().to_owned(), controllers: Vec::new(), unified: true };
        let mut meter = Meter::new(Mounts::V2(unified), "/a".to_owned(), node);
        put(
            &group,
            "cpu.stat",
            "usage_usec 61000\nuser_usec 600\nsystem_usec 60400\nnr_throttled 3\nthrottled_usec 6\n",
        );
        let stats = meter.read("x").unwrap();
        let usage = stats.agg_resource_usage.unwrap();
        let (cpu, memory) = (usage.cpu.unwrap(), usage.memory.unwrap());
        assert!(cpu.percent > 0.0 && cpu.user_mode == 0.0 && cpu.system_mode == cpu.percent);
        assert!((cpu.total_ticks - cpu.percent * 10.0).abs() < 1e-6, "1000 units a CPU");
        assert_eq!((cpu.throttled_periods, cpu.throttled_time), (3, 6000));
        assert_eq!((memory.rss, memory.cache, memory.usage), (10, 20, 33));
        assert!(
            !memory.measured_fields.contains(&memory_usage::Fields::Swap.into()),
            "what was not read is not called 0"
        );
        fs::remove_dir_all(&group).unwrap();
        assert!(meter.read("x").is_none());
    }

    /// Whatever version this machine has: the root's own figures are there.
    #[test]
    fn this_machine_has_figures() {
        let mounts = Mounts::here().unwrap();
        if mounts == Mounts::None || matches!(mounts, Mounts::V2(_)) {
            // Version 2 keeps no such files at its root.
            return;
        }
        let node = Node { cores: 2, compute: 2000.0, is_told: true };
        let stats = Meter::new(mounts, "/".to_owned(), node).read("x").unwrap();
        assert!(stats.agg_resource_usage.unwrap().memory.unwrap().usage > 0);
    }
}
