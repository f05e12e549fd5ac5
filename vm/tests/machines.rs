//! Machines that really run, through QEMU: told where there are an image (`NAVVY_IMAGES`, else /var/cache/navvy-images) and QEMU.

#![expect(clippy::print_stdout, reason = "who reads the test wants to see what it saw")]

mod bench;

use std::time::{Duration, Instant};

use bench::Bench;
use navvy_environment::request::Died;

#[tokio::test]
async fn a_machine_is_born_runs_a_step_and_leaves_nothing() {
    let Some(bench) = Bench::open() else { return };
    let begun = Instant::now();
    let environment = bench.prepare().await.unwrap_or_else(|e| panic!("{e}"));
    println!("ready after {:?}:\n{}", begun.elapsed(), bench.report());
    assert_eq!(environment.step_user(), Some("circleci"));
    let said = bench::run(&environment, "id -un; cat /etc/machine-id; uname -r").await;
    println!("{said}");
    assert!(said.starts_with("circleci\n"), "{said}");
    let left = environment.destroy(Duration::from_secs(30)).await;
    assert_eq!(left, Vec::<String>::new());
    bench.assert_nothing_left();
}

#[tokio::test]
async fn a_machine_whose_process_is_killed_is_lost_and_says_so() {
    let Some(bench) = Bench::open() else { return };
    let environment = bench.prepare().await.unwrap_or_else(|e| panic!("{e}"));
    bench.kill_processes();
    let died = tokio::time::timeout(Duration::from_secs(10), environment.died()).await.unwrap();
    assert!(matches!(&died, Died::EngineLost { message } if message.contains("signal: 9")), "{died:?}");
    assert_eq!(environment.destroy(Duration::from_secs(30)).await, Vec::<String>::new());
    bench.assert_nothing_left();
}

/// Machine id, boot id, random bytes, link address, host name and address of a machine.
async fn identity(environment: &navvy_vm::MachineEnvironment) -> Vec<String> {
    let script = "cat /etc/machine-id /proc/sys/kernel/random/boot_id; head -c 16 /dev/urandom | od -An -tx1; \
                  cat /sys/class/net/eth0/address /etc/hostname; ip -4 -o addr show dev eth0 | awk '{print $4}'";
    bench::run(environment, script).await.lines().map(str::to_owned).collect()
}

/// The guest's clock lies between two looks at this host's, give or take 100 ms.
async fn assert_clock_is_right(environment: &navvy_vm::MachineEnvironment) {
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    let before = now();
    let said: u128 = bench::run(environment, "date +%s%N").await.trim().parse().unwrap();
    let after = now();
    let slack = 100_000_000;
    assert!((before - slack..=after + slack).contains(&said), "{before} {said} {after}");
}

#[tokio::test]
async fn two_siblings_of_a_snapshot_share_nothing_that_makes_a_machine_itself() {
    let Some(bench) = Bench::open() else { return };
    let machines = bench.machines();
    let begun = Instant::now();
    machines.warm(Some("test"), bench.size, &bench.host, &|_| {}).await.unwrap_or_else(|e| panic!("{e}"));
    println!("snapshot after {:?}", begun.elapsed());
    bench.assert_nothing_left();
    let begun = Instant::now();
    let one = bench.prepare_by(&machines).await.unwrap_or_else(|e| panic!("{e}"));
    println!("first clone after {:?}", begun.elapsed());
    let sibling = bench.sibling();
    let begun = Instant::now();
    let other = sibling.prepare_by(&machines).await.unwrap_or_else(|e| panic!("{e}"));
    println!("second clone after {:?}\n{}", begun.elapsed(), sibling.report());
    assert!(bench.report().contains("Started from snapshot") && sibling.report().contains("Started from snapshot"));
    let (first, second) = (identity(&one).await, identity(&other).await);
    println!("{first:?}\n{second:?}");
    for environment in [&one, &other] {
        assert_clock_is_right(environment).await;
    }
    let keys = bench.host_keys();
    assert!(keys.len() == 2 && keys[0] != keys[1], "{keys:?}");
    assert_eq!((first.len(), second.len()), (6, 6), "{first:?} {second:?}");
    // Without root each machine is alone in a network of its own, where every address is the same.
    let differ = if navvy_environment::run_dir::uid() == 0 { 6 } else { 5 };
    for (mine, theirs) in first.iter().zip(&second).take(differ) {
        assert_ne!(mine, theirs, "{first:?} {second:?}");
    }
    for environment in [one, other] {
        assert_eq!(environment.destroy(Duration::from_secs(30)).await, Vec::<String>::new());
    }
    bench.assert_nothing_left();
}

/// Whoever asks for the boot's id first fixes it: here an engine may have asked before there were siblings.
#[tokio::test]
async fn siblings_whose_engine_was_warmed_have_boot_ids_of_their_own() {
    let Some(mut bench) = Bench::open() else { return };
    let images = std::iter::once(("test".to_owned(), "debian-12-docker".to_owned()));
    bench.settings.table = navvy_vm_image::Table::with(&images.collect()).unwrap();
    bench.size.memory = 640 << 20;
    let machines = bench.machines();
    machines.warm(Some("test"), bench.size, &bench.host, &|_| {}).await.unwrap_or_else(|e| panic!("{e}"));
    let sibling = bench.sibling();
    let one = bench.prepare_by(&machines).await.unwrap_or_else(|e| panic!("{e}"));
    let other = sibling.prepare_by(&machines).await.unwrap_or_else(|e| panic!("{e}"));
    assert!(bench.report().contains("Started from snapshot") && sibling.report().contains("Started from snapshot"));
    let mut boots = Vec::new();
    for environment in [&one, &other] {
        // Since before the snapshot.
        assert!(!bench::run(environment, "pidof dockerd || echo none").await.contains("none"));
        boots.push(bench::run(environment, "cat /proc/sys/kernel/random/boot_id").await);
    }
    println!("{boots:?}");
    assert_ne!(boots[0], boots[1]);
    for environment in [one, other] {
        assert_eq!(environment.destroy(Duration::from_secs(30)).await, Vec::<String>::new());
    }
    bench.assert_nothing_left();
}
