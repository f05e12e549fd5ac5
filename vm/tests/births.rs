//! Agents that are killed at any moment while they make a machine; a start afterwards leaves nothing of theirs.
//!
//! ```text
//! this test ─▶ itself again, `birth` alone: makes a machine, waits ─▶ SIGKILL at a moment of chance ─▶ reap ─▶ nothing
//! ```

#![expect(clippy::print_stdout, reason = "who reads the test wants to see what it saw")]

mod bench;

use std::process::{Command, Stdio};
use std::time::Duration;

use bench::Bench;
use navvy_journal::owner::Owner;

const STATE: &str = "NAVVY_BIRTH_IN";
/// In CI; `scripts/soak vm` tells fifty.
const BIRTHS: &str = "NAVVY_BIRTHS";

/// Not a test: the agent of the other one, where that has asked for it.
#[tokio::test]
async fn birth() {
    let Some(state) = std::env::var_os(STATE) else { return };
    let Some(bench) = Bench::at(state.into()) else { return };
    if std::env::var_os("NAVVY_BIRTH_WARM").is_some() {
        bench.machines().warm(Some("test"), bench.size, &bench.host, &|_| {}).await.unwrap_or_else(|e| panic!("{e}"));
        return;
    }
    let environment = bench.prepare().await.unwrap_or_else(|e| panic!("{e}"));
    if std::env::var_os("NAVVY_BIRTH_DIES").is_some() {
        // Killed while it removes the machine.
        environment.destroy(Duration::from_secs(30)).await;
    }
    std::future::pending::<()>().await;
}

fn agent(bench: &Bench, variables: &[&str]) -> std::process::Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "birth", "--nocapture", "--test-threads", "1"]).env(STATE, bench.scratch.path());
    command.envs(variables.iter().map(|name| (*name, "1")));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[tokio::test]
async fn agents_that_are_killed_at_any_moment_leave_nothing_after_a_start() {
    let Some(bench) = Bench::open() else { return };
    let births: u32 = std::env::var(BIRTHS).ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    // What is cold takes seconds, and a clone tenths of one: both are cut off everywhere.
    assert!(agent(&bench, &["NAVVY_BIRTH_WARM"]).wait().unwrap().success());
    let mut caught = 0;
    for number in 0..births {
        let is_cold = number % 3 == 2;
        let variables: &[&str] = match number % 3 {
            0 => &[],
            1 => &["NAVVY_BIRTH_DIES"],
            _ => &["NAVVY_BIRTH_COLD"],
        };
        let mut agent = agent(&bench, variables);
        let [chance, more] = *uuid::Uuid::new_v4().as_bytes().first_chunk().unwrap();
        let most: u32 = if is_cold { 6_000 } else { 2_000 };
        let millis = u32::from(u16::from_be_bytes([chance, more])) * most / 65_536;
        // The moment is what the test is about; no outcome depends on which one it is.
        tokio::time::sleep(Duration::from_millis(millis.into())).await;
        bench.note_interfaces();
        agent.kill().unwrap();
        agent.wait().unwrap();
        bench.note_interfaces();
        caught += usize::from(!navvy_vm::record::all(&bench.host.state).unwrap().is_empty());
        let reaped = bench.machines().reap(&Owner::this_process().unwrap(), &bench.host, Duration::from_secs(30)).await;
        assert_eq!(reaped.left, Vec::<String>::new(), "birth {number}, killed after {millis} ms");
        bench.assert_nothing_left();
    }
    println!("{births} births, {caught} with something on the host when they were cut off");
    assert!(caught > 0, "none was cut off in time");
}

#[tokio::test]
async fn a_machine_of_another_boot_is_removed_by_its_record_and_nobody_is_killed_for_it() {
    let Some(bench) = Bench::open() else { return };
    let environment = bench.prepare().await.unwrap_or_else(|e| panic!("{e}"));
    let directory = navvy_vm::record::machines(&bench.host.state);
    let machine = std::fs::read_dir(&directory).unwrap().next().unwrap().unwrap().path();
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(machine.join("record"), copy.path().join("record")).unwrap();
    assert_eq!(environment.destroy(Duration::from_secs(30)).await, Vec::<String>::new());
    // As it lies there after the host has started again: the number of its process is somebody else's now.
    let bystander = Command::new("sleep").arg("1000").spawn().unwrap();
    let text = std::fs::read_to_string(copy.path().join("record")).unwrap();
    std::fs::create_dir(&machine).unwrap();
    std::fs::write(machine.join("record"), of_another_boot(&text, bystander.id())).unwrap();
    let reaped = bench.machines().reap(&Owner::this_process().unwrap(), &bench.host, Duration::from_secs(30)).await;
    assert_eq!(reaped.left, Vec::<String>::new());
    bench.assert_nothing_left();
    let mut bystander = bystander;
    assert!(bystander.try_wait().unwrap().is_none(), "a process that has nothing to do with it was killed");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

/// Owners and processes of an earlier boot, the processes with this number.
fn of_another_boot(record: &str, pid: u32) -> String {
    let here = Owner::this_process().unwrap();
    let lines = record.lines().map(|line| {
        let mut line: serde_json::Value = serde_json::from_str(&line[9..]).unwrap();
        for owner in ["/entry/planned/owner", "/entry/fact/process"] {
            if let Some(value) = line.pointer_mut(owner) {
                *value = Owner { boot: "earlier".to_owned(), pid, ..here.clone() }.to_label().into();
            }
        }
        let text = line.to_string();
        format!("{:08x} {text}\n", crc32fast::hash(text.as_bytes()))
    });
    lines.collect()
}
