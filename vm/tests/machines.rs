//! Machines that really run, through QEMU: told where there are an image (`NAVVY_IMAGES`, else /var/cache/navvy-images) and QEMU.

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
