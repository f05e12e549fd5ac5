//! `navvy host nomad-config`: what it prints is what a real Nomad makes of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use navvy_tests::{Bench, SingleNomad, eventually};

/// A cold Nomad beside other stories needs some seconds.
const LIMIT: Duration = Duration::from_secs(90);
/// What this machine can reserve, however small it is.
pub const SMALL: [&str; 2] = ["--reserve-cpus=0.5", "--reserve-memory=512M"];

/// What is printed, as a file of the bench.
fn printed(bench: &Bench, words: &[&str]) -> PathBuf {
    let done = bench.program(&[&["host", "nomad-config"], words].concat()).run();
    done.succeeded();
    let path = bench.state().join("client.hcl");
    fs::create_dir_all(bench.state()).expect("a directory can be made");
    fs::write(&path, done.stdout()).expect("a file can be written");
    path
}

#[test]
fn nomad_takes_what_is_printed() {
    let bench = Bench::on_this_machine();
    let everything = [
        "--servers=a.example:4647,b.example:4647",
        "--acl",
        "--tls=/etc/ssl/nomad",
        "--region=eu",
        "--datacenter=berlin",
        "--driver=docker",
        "--processor=https://ci.example.com:8585",
        "--processor-ca=/etc/navvy/ca.pem",
        "--agent-path=/opt/navvy",
        "--state-dir=/srv/navvy",
        "--cgroup-parent=/ci",
        "--docker=unix:///run/docker.sock",
        "--reserve-cpus=0.5",
        "--reserve-memory=1536M",
        "--cpus=16",
        "--memory=64G",
    ];
    let single = ["--single", "--cpus=8", "--memory=32G"];
    let provider = ["--servers=provider=aws tag_key=fleet tag_value=ci", "--cpus=65", "--memory=256G"];
    for words in [&everything[..], &SMALL, &single, &provider] {
        let path = printed(&bench, words);
        let answer = SingleNomad::validates(&path);
        assert_eq!(
            answer.exit_code,
            Some(0),
            "{words:?}: {}{}",
            String::from_utf8_lossy(&answer.stdout),
            answer.stderr
        );
    }
    // It does refuse what it does not know.
    let path = printed(&bench, &single);
    let broken = fs::read_to_string(&path).expect("a file of ours").replace("cpu_total_compute", "cpu_compute_total");
    fs::write(&path, broken).expect("a file of ours");
    let answer = SingleNomad::validates(&path);
    assert_ne!(answer.exit_code, Some(0), "a key that Nomad does not know went through");
}

#[test]
fn the_example_is_what_is_printed() {
    let bench = Bench::on_this_machine();
    let words = [
        "--cpus=8",
        "--memory=32G",
        "--servers=nomad.example.com:4647",
        "--processor=https://processor.example.com:8585",
        "--processor-ca=/etc/navvy/ca.pem",
        "--tls=/etc/ssl/nomad",
    ];
    let printed = fs::read_to_string(printed(&bench, &words)).expect("a file of ours");
    assert_eq!(printed, include_str!("../../packaging/examples/client.hcl"), "navvy host nomad-config {words:?}");
}

#[test]
fn nomad_takes_the_job_that_is_shown_to_operators() {
    let bench = Bench::on_this_machine();
    let mut agent = SingleNomad::start(&bench, &SMALL, "");
    agent.node();
    let job = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/examples/job.hcl");
    let answer = agent.ask(&["job", "validate", job.to_str().expect("a path of ours")]);
    answer.ends(0, &[]);
}

#[test]
fn what_nomad_gives_to_tasks_and_what_is_reserved_is_the_machine() {
    // The largest machine that is tested, which Nomad is told to find here, and this one.
    let huge = format!("client {{\n  memory_total_mb = {}\n}}\n", 128 << 10);
    let huge_words = ["--cpus=64", "--memory=128G"];
    let cases = [(&huge_words[..], huge, (2000, 4096)), (&SMALL, String::new(), (500, 512))];
    for (words, extra, (cpu, memory)) in cases {
        let bench = Bench::on_this_machine();
        let mut agent = SingleNomad::start(&bench, words, &extra);
        let node = agent.node();
        let whole = (&node["NodeResources"]["Cpu"]["CpuShares"], &node["NodeResources"]["Memory"]["MemoryMB"]);
        let reserved =
            (&node["ReservedResources"]["Cpu"]["CpuShares"], &node["ReservedResources"]["Memory"]["MemoryMB"]);
        assert_eq!((reserved.0.as_u64(), reserved.1.as_u64()), (Some(cpu), Some(memory)), "{words:?}");
        let text = agent.printed();
        let told = text.lines().find(|line| line.contains("cpu_total_compute =")).expect("the line of CPUs");
        let cpus = told.split_once("= ").expect("a number").1.parse::<u64>().expect("a number");
        assert_eq!(whole.0.as_u64(), Some(cpus), "{words:?}: {}", node["NodeResources"]);
        match words[0] {
            "--cpus=64" => assert_eq!((cpus, whole.1.as_u64()), (64_000, Some(128 << 10))),
            _ => {
                let meminfo = fs::read_to_string("/proc/meminfo").expect("the kernel tells");
                let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).expect("the total");
                let kib: u64 = total.trim().trim_end_matches(" kB").parse().expect("a number");
                assert_eq!(whole.1.as_u64(), Some(kib / 1024), "Nomad and navvy see one machine");
            }
        }
        assert_eq!(node["NodeClass"], "linux-64bit");
        let drivers = node["Drivers"].as_object().expect("a map of drivers");
        let other = drivers.iter().find(|(name, driver)| *name != "navvy" && driver["Detected"] == true);
        assert!(other.is_none(), "another driver is at work: {other:?}");
    }
}

#[test]
fn the_driver_takes_what_is_printed_and_counts_as_nomad_does() {
    let bench = Bench::on_this_machine();
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bin").canonicalize().expect("scripts/build");
    let state = format!("--state-dir={}", bench.state().join("driver").display());
    // Nomad before 1.8 takes every program in this directory for a plugin.
    let own = bench.state().join("plugins");
    fs::create_dir_all(&own).expect("a directory can be made");
    fs::copy(programs.join("navvy-driver"), own.join("navvy-driver")).expect("scripts/build");
    let plugins = format!("--plugin-dir={}", own.display());
    let agent = format!("--agent-path={}", programs.join("navvy").display());
    let words = [&SMALL[..], &[&state, &plugins, &agent, "--processor=http://127.0.0.1:8585"]].concat();
    let mut agent = SingleNomad::start(&bench, &words, "");
    let node = eventually("the driver is healthy", LIMIT, || {
        let node = agent.node();
        (node["Drivers"]["navvy"]["Healthy"] == true).then_some(node)
    });
    let attribute = |name: &str| {
        let text = node["Attributes"][format!("driver.navvy.{name}")].as_str().expect("the driver says it").to_owned();
        (text.parse::<f64>().expect("a number") * 1000.0).round() as u64
    };
    let count = |of: &str, kind: &str, what: &str| node[of][kind][what].as_u64().expect("a number");
    assert_eq!(attribute("reserved.cpus"), count("ReservedResources", "Cpu", "CpuShares"));
    assert_eq!(attribute("reserved.memory_mb"), 1000 * count("ReservedResources", "Memory", "MemoryMB"));
    let (cpus, mib) = (attribute("room.cpus"), attribute("room.memory_mb") / 1000);
    assert_eq!(cpus + count("ReservedResources", "Cpu", "CpuShares"), count("NodeResources", "Cpu", "CpuShares"));
    assert_eq!(mib + count("ReservedResources", "Memory", "MemoryMB"), count("NodeResources", "Memory", "MemoryMB"));
}
