//! Steps that run out of memory. Needs a memory cgroup that we may make children of (uid 0, version 1 or 2).

mod harness;

use std::path::{Path, PathBuf};

use harness::Bench;
use navvy_protocol::supervisor::{Exit, Reply, Request};

const LIMIT: u64 = 64 << 20;

/// A group with a limit; removed when nothing is in it any more.
struct Group(PathBuf);

impl Group {
    fn new() -> Self {
        let name = format!("navvy-test-{}", std::process::id());
        let (parent, limit) = if Path::new("/sys/fs/cgroup/memory").is_dir() {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            ("/sys/fs/cgroup", "memory.max")
        };
        let group = Self(Path::new(parent).join(name));
        std::fs::create_dir(&group.0).expect("a memory cgroup that we may use");
        std::fs::write(group.0.join(limit), LIMIT.to_string()).unwrap();
        // Else the kernel would rather swap than kill; where there is no swap there is no such file.
        let _ = std::fs::write(group.0.join("memory.swap.max"), "0");
        group
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        harness::wait_for("the group to be empty", || std::fs::remove_dir(&self.0).is_ok());
    }
}

#[test]
fn a_step_that_was_killed_for_memory_says_so_whatever_its_exit_code() {
    let group = Group::new();
    let bench = Bench::with_group(&group.0);
    let eat = "head -c 300000000 /dev/zero | tail >/dev/null";
    let calm = bench.exec("true").with(|exec| exec.watch_memory = true).run().exited.unwrap();
    assert_eq!(calm.out_of_memory, None);
    let exited = bench.exec(&format!("{eat}; exit 3")).with(|exec| exec.watch_memory = true).run().exited.unwrap();
    assert_eq!(exited.exit, Exit::Code(3));
    let report = exited.out_of_memory.expect("a report");
    assert_eq!((report.kills, report.limit), (1, Some(LIMIT)));
    assert!(report.peak.unwrap() > LIMIT / 2, "{report:?}");
    let unwatched = bench.exec(eat).run().exited.unwrap();
    assert_eq!(unwatched.out_of_memory, None);
    let Reply::Sample(sample) = bench.ask(&Request::Sample) else { panic!() };
    assert_eq!((sample.memory_limit, sample.oom_kills), (Some(LIMIT), Some(2)));
    assert!(sample.memory.unwrap() > 0 && sample.cpu_ns.unwrap() > 0);
    drop(bench);
}
