//! The reservation on a real client: tasks of all sizes together never get more than the rest, by the kernel's own figures.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use navvy_tests::{Bench, Fleet, NOMAD_LIMIT, Nomad, NomadSetup, parameterized, seldom, text_of};

/// Tasks that wait until they are told to end.
fn waiting(count: usize) -> String {
    let mut yaml = String::from("version: 2.1\njobs:\n");
    for nth in 0..count {
        yaml.push_str(&format!(
            "  j{nth}:\n    docker: [{{image: navvy/base:bookworm}}]\n    resource_class: small\n    steps:\n      - run: \"echo begun; until [ -e /tmp/go ]; do sleep 0.2; done\"\n"
        ));
    }
    let names: Vec<String> = (0..count).map(|nth| format!("j{nth}")).collect();
    format!("{yaml}workflows:\n  ci:\n    jobs: [{}]\n", names.join(", "))
}

/// What the kernel lets one cgroup have: thousandths of a CPU, bytes.
fn limits(alloc: &str) -> Option<(u64, u64)> {
    let number = |path: &Path| fs::read_to_string(path).ok()?.trim().parse::<i64>().ok();
    let one = format!("{alloc}.agent");
    let v1 = |hierarchy: &str, file: &str| {
        number(&Path::new("/sys/fs/cgroup").join(hierarchy).join("nomad").join(&one).join(file))
    };
    if let (Some(quota), Some(period), Some(memory)) =
        (v1("cpu", "cpu.cfs_quota_us"), v1("cpu", "cpu.cfs_period_us"), v1("memory", "memory.limit_in_bytes"))
    {
        assert!(quota > 0, "the task has no limit");
        return Some((quota as u64 * 1000 / period as u64, memory as u64));
    }
    let scope = Path::new("/sys/fs/cgroup/nomad.slice/share.slice").join(format!("{one}.scope"));
    let cpu = fs::read_to_string(scope.join("cpu.max")).ok()?;
    let (quota, period) = cpu.trim().split_once(' ')?;
    let (quota, period): (u64, u64) = (quota.parse().expect("the task has a limit"), period.parse().ok()?);
    Some((quota * 1000 / period, number(&scope.join("memory.max"))? as u64))
}

/// This machine, as the engine has it: thousandths of CPUs, bytes.
fn machine(bench: &Bench) -> (u64, u64) {
    let told = bench.docker().lines(&["info", "--format", "{{.NCPU}} {{.MemTotal}}"]);
    let (cpus, memory) = told[0].split_once(' ').expect("two figures");
    (cpus.parse::<u64>().expect("a number") * 1000, memory.parse().expect("a number"))
}

#[test]
fn tasks_together_never_get_more_than_the_reservation_leaves() {
    let bench = Bench::on_this_machine();
    let sizes = [250, 500, 250, 750, 500, 1000, 250, 500];
    bench.config(&waiting(sizes.len())).commit("a project");
    let (millicpus, memory) = machine(&bench);
    // Half a CPU and a quarter of the memory are kept. Nomad itself is told nothing of it: it is the driver that holds it.
    let reserved = (500, memory / 4 / (1 << 20) * (1 << 20));
    let driver = format!("reserve {{ cpus = 0.5, memory = \"{}MiB\" }}", reserved.1 >> 20);
    let setup = NomadSetup { driver, compute: u32::try_from(millicpus).expect("a number"), ..NomadSetup::default() };
    let mut nomad = Nomad::server(&bench, setup);
    let node = nomad.add_client("one");
    nomad.healthy(&node);
    let attributes = nomad.get(&format!("/v1/node/{node}"))["Attributes"].clone();
    assert_eq!(attributes["driver.navvy.reserved.cpus"], "0.5", "{attributes}");
    assert_eq!(attributes["driver.navvy.room.memory_mb"], ((memory - reserved.1) >> 20).to_string(), "{attributes}");
    let fleet = Fleet::start(&bench);
    let pipeline = fleet.submit(&["--tree"]);
    let mut allocs = BTreeMap::new();
    for (nth, size) in sizes.into_iter().enumerate() {
        let task = fleet.task(&pipeline, &format!("j{nth}"));
        let job = parameterized(&format!("navvy-{size}"), size, 256);
        nomad.register(&job);
        let meta = serde_json::json!({ "task": task, "processor": format!("http://{}", fleet.agents) });
        let dispatched = nomad.dispatch(text_of(&job, "ID"), &meta, &fleet.launch_token(&task));
        // Nomad may have no room for it either: then it stays pending.
        seldom("Nomad's decision", NOMAD_LIMIT, || {
            let evaluations = nomad.get(&format!("/v1/job/{}/evaluations", dispatched.replace('/', "%2F")));
            let done = evaluations.as_array()?.iter().any(|one| text_of(one, "Status") == "complete");
            done.then_some(())
        });
        if let Some(alloc) = nomad.allocs_of(&dispatched).first() {
            let alloc = text_of(alloc, "ID").to_owned();
            seldom("the driver's decision", NOMAD_LIMIT, || {
                (nomad.alloc(&alloc)["ClientStatus"] != "pending").then_some(())
            });
            allocs.insert(alloc, size);
        }
        let given: Vec<(u64, u64)> = allocs.keys().filter_map(|alloc| limits(alloc)).collect();
        let (cpus, bytes) = given.iter().fold((0, 0), |(c, m), (cpus, memory)| (c + cpus, m + memory));
        assert!(cpus + reserved.0 <= millicpus, "{cpus} of {millicpus} are given away: {given:?}");
        assert!(bytes + reserved.1 <= memory, "{bytes} of {memory} are given away: {given:?}");
    }
    let (running, refused): (Vec<_>, Vec<_>) =
        allocs.keys().partition(|alloc| nomad.alloc(alloc)["ClientStatus"] == "running");
    assert!(running.len() >= 2 && !refused.is_empty(), "{} run, {} were refused", running.len(), refused.len());
    let status = nomad.status(refused[0]);
    assert!(status.contains("free beside the reservation"), "{status}");
    for alloc in &running {
        let limits = limits(alloc).expect("the task has a cgroup");
        assert_eq!(limits, (u64::from(allocs[*alloc]), 256 << 20), "what Nomad gave is what the kernel gives");
    }
    fleet.navvy(&["pipelines", "cancel", &pipeline]).succeeded();
    seldom("the end of all", NOMAD_LIMIT, || {
        let all = nomad.get("/v1/allocations");
        let over = |one: &serde_json::Value| matches!(text_of(one, "ClientStatus"), "complete" | "failed");
        all.as_array()?.iter().all(over).then_some(())
    });
    nomad.nothing_is_left();
}
