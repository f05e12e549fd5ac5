//! What a process and the programs that it runs take of the memory.

use std::fs;

/// Programs start programs, but none of ours so many.
const MOST_PROGRAMS: usize = 64;

/// The largest resident sets that were seen, in KiB.
#[derive(Debug, Default)]
pub struct Peak {
    /// The process's own, as the kernel keeps it.
    pub own: u64,
    /// Of what it has started and what that has started, at one time together.
    pub programs: u64,
}

impl Peak {
    /// Looks at a process now.
    pub fn look(&mut self, pid: u32) {
        self.own = self.own.max(resident(pid, "VmHWM:"));
        let programs: u64 = below(pid).into_iter().map(|pid| resident(pid, "VmRSS:")).sum();
        self.programs = self.programs.max(programs);
    }
}

/// 0 for a process that is over.
fn resident(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Every process below another.
fn below(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while next < found.len().min(MOST_PROGRAMS) {
        // Each thread has the children that it has started itself.
        let threads = fs::read_dir(format!("/proc/{}/task", found[next])).into_iter().flatten().flatten();
        for thread in threads {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
        next += 1;
    }
    found.split_off(1)
}
