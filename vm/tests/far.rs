//! Machines that are there already, from the wish to nothing left: a real ssh server and the real supervisor, in namespaces of this
//! machine that an operator's command makes as new (`far-host`).

mod bench;
#[path = "bench/there.rs"]
mod there;

use std::process::{Command, Stdio};
use std::time::Duration;

use bench::{Bench, run};
use navvy_environment::supervisor::Client;
use navvy_journal::owner::Owner;
use navvy_vm::far::Forwarding;
use navvy_vm::record::{self, Fact};
use navvy_vm::ssh::{HostError, SshFault};
use navvy_vm::ssh_key::SshKey;
use navvy_vm::{Fault, Machines};
use there::{There, open, supervisor};

const LIMIT: Duration = Duration::from_secs(60);
const STATE: &str = "NAVVY_FAR_IN";
const HOST: &str = "NAVVY_FAR_HOST";

fn ways(bench: &Bench) -> Vec<Forwarding> {
    let ways = bench.facts().into_iter().filter_map(|fact| if let Fact::Way(way) = fact { Some(way) } else { None });
    ways.map(|way| way.forwarding).collect()
}

/// From the wish to nothing left, and in between what only a real machine shows.
async fn a_whole_life(forwarding: &str) -> Forwarding {
    let (bench, there) = (open(), There::new(forwarding));
    let machines = there.machines(&bench);
    let environment = bench.prepare_by(&machines).await.unwrap_or_else(|e| panic!("{e}"));
    assert!(bench.report().contains("Host: one (127.0.0.1:"), "{}", bench.report());
    assert_eq!(environment.step_user(), Some("circleci"));
    assert_eq!(environment.host_key(), Some(there.read("host_key.pub").as_str()));
    assert_eq!(run(&environment, "id -un; cat /etc/machine-id").await.lines().next(), Some("circleci"));
    let bytes = run(&environment, "seq 1 400000").await;
    assert!(bytes == (1..=400_000).map(|nth| format!("{nth}\n")).collect::<String>(), "{} bytes", bytes.len());
    // Another process finds its way by the record alone.
    let link = there.machines(&bench).link_of_left(&bench.task, &bench.host).await.unwrap();
    tokio::task::spawn_blocking(move || Client::new(link).ask_for_life()).await.unwrap().unwrap();
    let [way] = &ways(&bench)[..] else { panic!("{:?}", bench.facts()) };
    let way = way.clone();
    let left = run(&environment, "touch ~/left; ls ~").await;
    assert_eq!(left, "left\n");
    assert_eq!(environment.destroy(LIMIT).await, Vec::<String>::new());
    bench.assert_nothing_left();
    assert_eq!(there.resets(), 2, "before and after");
    let environment = bench.prepare_by(&machines).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(run(&environment, "ls ~").await, "");
    assert_eq!(environment.destroy(LIMIT).await, Vec::<String>::new());
    way
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_lives_for_one_task_after_the_other() {
    assert_eq!(a_whole_life("yes").await, Forwarding::Sockets);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_forwards_no_sockets_is_dialled() {
    let Forwarding::Dial { program } = a_whole_life("no").await else { panic!("sockets were forwarded") };
    assert!(program.starts_with("/opt/navvy/far/navvy-supervisor-"), "{program}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_shows_another_key_gets_no_seed() {
    let (bench, there) = (open(), There::new("yes"));
    let other = SshKey::generate().unwrap();
    let prepared = bench.prepare_by(&there.machines_by(&bench, other.public_line())).await;
    let Err(error) = prepared else { panic!("it was used") };
    assert!(matches!(error.fault, Fault::Ssh(SshFault::HostKey { .. })), "{error}");
    assert_eq!(error.leftovers, Vec::<String>::new());
    bench.assert_nothing_left();
    assert_eq!(there.resets(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_reset_fails_is_not_used_before_one_has_succeeded() {
    let (mut bench, there) = (open(), There::new("yes"));
    // Longer than a reset that fails may take on a busy machine.
    bench.settings.start_limit = Duration::from_secs(16);
    there.is_broken(true);
    let Err(error) = bench.prepare_by(&there.machines(&bench)).await else { panic!("it was used") };
    assert!(matches!(error.fault, Fault::There(HostError::Reset { .. })), "{error}");
    assert!(error.leftovers.iter().any(|left| left.contains("it has no power")), "{:?}", error.leftovers);
    // Another task finds it in the hands of a task that is over, and makes up for its reset: in vain.
    let sibling = bench.sibling();
    let Err(error) = sibling.prepare_by(&there.machines(&bench)).await else { panic!("it was used") };
    let Fault::There(HostError::AllTaken { whose, .. }) = &error.fault else { panic!("{error}") };
    assert!(whose.contains(bench.task.as_str()) && whose.contains("it has no power"), "{whose}");
    assert_eq!(error.leftovers, Vec::<String>::new());
    there.is_broken(false);
    bench.settings.start_limit = LIMIT;
    let environment = sibling.prepare_by(&there.machines(&bench)).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(environment.destroy(LIMIT).await, Vec::<String>::new());
    assert_eq!(record::all(&bench.host.state).unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_in_use_is_waited_for_and_its_user_is_named() {
    let (mut bench, there) = (open(), There::new("yes"));
    let environment = bench.prepare_by(&there.machines(&bench)).await.unwrap_or_else(|e| panic!("{e}"));
    bench.settings.start_limit = Duration::from_secs(10);
    let sibling = bench.sibling();
    let Err(error) = sibling.prepare_by(&there.machines(&bench)).await else { panic!("two tasks have it") };
    let Fault::There(HostError::AllTaken { whose, .. }) = &error.fault else { panic!("{error}") };
    assert!(whose.contains(bench.task.as_str()), "{whose}");
    assert_eq!(run(&environment, "id -un").await, "circleci\n", "it was not reset under its task's feet");
    assert_eq!(environment.destroy(LIMIT).await, Vec::<String>::new());
    bench.assert_nothing_left();
}

/// Not a test: the agent of the one below, where that has asked for it.
#[tokio::test(flavor = "multi_thread")]
async fn birth() {
    let (Some(state), Some(place)) = (std::env::var_os(STATE), std::env::var_os(HOST)) else { return };
    let mut bench = Bench::at(state.into()).unwrap();
    bench.host.supervisor = Some(supervisor());
    let there = There::of(place.into());
    let environment = bench.prepare_by(&there.machines(&bench)).await.unwrap_or_else(|e| panic!("{e}"));
    environment.destroy(LIMIT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_that_are_killed_at_any_moment_leave_no_host_that_is_taken() {
    let (bench, there) = (open(), There::new("yes"));
    let mut caught = 0;
    for number in 0..5_u64 {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "birth", "--nocapture", "--test-threads", "1"]);
        command.env(STATE, bench.scratch.path()).env(HOST, &there.place);
        let mut agent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let chance = u64::from(uuid::Uuid::new_v4().as_bytes()[0]);
        // The moment is what the test is about; no outcome depends on which one it is. The last one is behind the first record.
        tokio::time::sleep(Duration::from_millis(300 + number * 500 + chance * 2)).await;
        let deadline = std::time::Instant::now() + LIMIT;
        while number == 4 && record::all(&bench.host.state).unwrap().is_empty() && agent.try_wait().unwrap().is_none() {
            assert!(std::time::Instant::now() < deadline, "it makes no record");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        agent.kill().unwrap();
        agent.wait().unwrap();
        caught += usize::from(!record::all(&bench.host.state).unwrap().is_empty());
        let here = Owner::this_process().unwrap();
        let reaped = there.machines(&bench).reap(&here, &bench.host, LIMIT).await;
        assert_eq!(reaped.left, Vec::<String>::new());
        bench.assert_nothing_left();
    }
    assert!(caught > 0, "none was cut off in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_other_settings_have_made_is_named_and_stays() {
    let (bench, there) = (open(), There::new("yes"));
    let environment = bench.prepare_by(&there.machines(&bench)).await.unwrap_or_else(|e| panic!("{e}"));
    drop(environment);
    let qemu = Machines::qemu(bench.settings.clone());
    let left = qemu.remove_task(&bench.task, &bench.host, LIMIT).await;
    assert!(left.len() == 1 && left[0].contains("[vm.ssh]"), "{left:?}");
    let both = qemu.beside(there.machines(&bench));
    assert_eq!(both.remove_task(&bench.task, &bench.host, LIMIT).await, Vec::<String>::new());
    assert_eq!(there.resets(), 2);
    bench.assert_nothing_left();
}
