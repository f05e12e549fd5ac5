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
        // Not begun: until it has become its program it is a part of these tests, and shows their memory.
        if is_same_program(pid, std::process::id()) {
            return;
        }
        self.own = self.own.max(resident(pid, "VmHWM:"));
        let started = below(pid).into_iter().filter(|child| !is_same_program(*child, pid));
        let programs: u64 = started.map(|pid| resident(pid, "VmRSS:")).sum();
        self.programs = self.programs.max(programs);
    }
}

/// Between fork and exec a child still is its parent, whose memory it shows as its own. The agent starts no other agents.
fn is_same_program(child: u32, parent: u32) -> bool {
    let program = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).ok();
    program(child).is_some_and(|child| Some(child) == program(parent))
}

/// The most that a process itself has had, in MiB.
pub fn peak_mebibytes(pid: u32) -> u64 {
    resident(pid, "VmHWM:") >> 10
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

/// Tells a figure to whoever runs a story by hand.
pub fn figure(text: &str) {
    use std::io::Write as _;
    writeln!(std::io::stderr(), "{text}").ok();
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_that_has_not_become_its_program_is_not_looked_at() {
        let mut peak = Peak::default();
        // The tests themselves stand for their child between fork and exec.
        peak.look(std::process::id());
        assert_eq!((peak.own, peak.programs), (0, 0));
    }

    #[test]
    fn children_that_have_not_become_other_programs_are_not_counted() {
        // Each of the shell's halves shows the 40 MiB that the shell has read.
        let script =
            r#"big=$(head -c 40000000 /dev/zero | tr '\0' x); (echo up; read x) <&3 & (echo up; read x) <&3 & wait"#;
        let script = format!("exec 3<&0; {script}");
        let mut shell = Command::new("bash");
        shell.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = shell.spawn().expect("bash is installed");
        let mut lines = BufReader::new(shell.stdout.take().unwrap()).lines();
        let up: Vec<String> = lines.by_ref().take(2).map(Result::unwrap).collect();
        let mut peak = Peak::default();
        peak.look(shell.id());
        drop(shell.stdin.take());
        shell.wait().unwrap();
        assert_eq!(up, ["up", "up"]);
        assert!(peak.own > 40_000, "{peak:?}");
        assert!(peak.programs < 40_000, "{peak:?}");
    }
}
