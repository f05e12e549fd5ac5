//! What hosts and images lack, agents that are gone, and snapshots that are of no use.

#![expect(
    clippy::print_stderr,
    reason = "who reads the test wants to see what it left out, and a fake writes what QEMU would"
)]

mod bench;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bench::{Bench, IMAGE};
use navvy_environment::request::Died;
use navvy_environment::run_dir;
use navvy_job::outcome::Blame;
use navvy_vm::Fault;
use navvy_vm_image::{ImageError, Images};

#[tokio::test]
async fn a_host_without_qemu_says_what_to_install() {
    let Some(mut bench) = Bench::open() else { return };
    bench.host.search_path = "/nonexistent".to_owned();
    bench.settings.program = None;
    if Path::new("/usr/sbin/qemu-system-x86_64").exists() {
        return;
    }
    let error = bench.prepare().await.map(drop).unwrap_err();
    assert!(matches!(error.fault, Fault::NoHypervisor(_)), "{error}");
    assert!(error.to_string().contains("qemu-system"), "{error}");
    assert_eq!(error.blame(), Blame::Engine);
    bench.assert_nothing_left();
}

/// The image with other, small files, which are what its manifest says.
fn small_image(bench: &Bench) -> Images {
    use sha2::{Digest as _, Sha256};
    let place = bench.scratch.path().join("images");
    let directory = place.join(IMAGE);
    fs::create_dir_all(&directory).unwrap();
    let text = fs::read(bench.settings.images.directory().join(IMAGE).join("manifest.json")).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_slice(&text).unwrap();
    for file in ["root", "kernel", "initrd"] {
        let name = manifest[file]["name"].as_str().unwrap().to_owned();
        let content = format!("{file} {}", "x".repeat(1000));
        fs::write(directory.join(name), &content).unwrap();
        manifest[file]["size"] = content.len().into();
        let digest: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
        manifest[file]["sha256"] = digest.into();
    }
    fs::write(directory.join("manifest.json"), manifest.to_string()).unwrap();
    Images::at(place)
}

#[tokio::test]
async fn an_image_that_was_changed_or_swapped_is_not_started() {
    let Some(mut bench) = Bench::open() else { return };
    bench.settings.images = small_image(&bench);
    let directory = bench.settings.images.directory().join(IMAGE);
    for (file, content) in [("root.qcow2", "root y"), ("vmlinux", ""), ("initrd.cpio", "somebody else's")] {
        let before = fs::read(directory.join(file)).unwrap();
        fs::write(directory.join(file), content).unwrap();
        let error = bench.prepare().await.map(drop).unwrap_err();
        assert!(matches!(&error.fault, Fault::Image(ImageError::Damaged { .. })), "{file}: {error}");
        assert!(error.to_string().contains(file), "{file}: {error}");
        bench.assert_nothing_left();
        fs::write(directory.join(file), before).unwrap();
    }
}

/// Mounted as long as this lives.
struct Small(std::path::PathBuf);

impl Drop for Small {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(&self.0).status());
    }
}

#[tokio::test]
async fn a_disk_without_space_is_named_before_a_machine_is_started() {
    let Some(bench) = Bench::open() else { return };
    if run_dir::uid() != 0 {
        eprintln!("SKIPPED: only root mounts a small disk");
        return;
    }
    fs::create_dir_all(&bench.host.state).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "small"]).arg(&bench.host.state).status();
    assert!(mounted.unwrap().success());
    let _small = Small(bench.host.state.clone());
    let error = bench.prepare().await.map(drop).unwrap_err();
    assert!(matches!(&error.fault, Fault::NoSpace { .. }), "{error}");
    bench.assert_nothing_left();
    fs::write(bench.host.state.join("filler"), vec![0; 9 << 20]).unwrap_err();
    // Not even a record can be written: nothing is made, and nothing is left.
    let error = bench.sibling().prepare().await.map(drop).unwrap_err();
    assert!(error.leftovers.is_empty(), "{error:?}");
    fs::remove_file(bench.host.state.join("filler")).unwrap();
    bench.assert_nothing_left();
}

#[tokio::test]
async fn another_agent_takes_the_machine_over_and_goes_on() {
    let Some(bench) = Bench::open() else { return };
    let machines = bench.machines();
    let environment = bench.prepare_by(&machines).await.unwrap_or_else(|e| panic!("{e}"));
    let inherited = environment.inheritance();
    assert_eq!(bench::run(&environment, "echo left by the first >/tmp/note; id -un").await, "circleci\n");
    // As of an agent that was killed: nothing of it is left but the machine.
    drop(environment);
    let link = machines.link_of_left(&bench.task, &bench.host).await.unwrap();
    let adopted = machines.adopt(&bench.task, &bench.host, link, inherited).await;
    assert_eq!(bench::run(&adopted, "cat /tmp/note").await, "left by the first\n");
    bench.kill_processes();
    let died = tokio::time::timeout(Duration::from_secs(10), adopted.died()).await.unwrap();
    assert!(matches!(died, Died::EngineLost { .. }), "{died:?}");
    assert_eq!(adopted.destroy(Duration::from_secs(30)).await, Vec::<String>::new());
    bench.assert_nothing_left();
}

#[tokio::test]
async fn a_snapshot_of_no_use_is_marked_and_the_machine_boots() {
    let Some(bench) = Bench::open() else { return };
    let machines = bench.machines();
    machines.warm(Some("test"), bench.size, &bench.host, &|_| {}).await.unwrap_or_else(|e| panic!("{e}"));
    let snapshots = bench.host.state.join("machine-snapshots");
    let entries = fs::read_dir(&snapshots).unwrap().flatten().map(|entry| entry.path());
    let snapshot = entries.into_iter().find(|path| path.is_dir()).unwrap();
    let state = fs::read(snapshot.join("state")).unwrap();
    fs::write(snapshot.join("state"), &state[..state.len() / 2]).unwrap();
    let environment = bench.prepare_by(&machines).await.unwrap_or_else(|e| panic!("{e}"));
    assert!(bench.report().contains("the machine boots instead"), "{}", bench.report());
    assert!(snapshot.join("bad").exists());
    assert_eq!(bench::run(&environment, "id -un").await, "circleci\n");
    assert_eq!(environment.destroy(Duration::from_secs(30)).await, Vec::<String>::new());
    bench.assert_nothing_left();
    let here = navvy_journal::owner::Owner::this_process().unwrap();
    machines.reap(&here, &bench.host, Duration::from_secs(30)).await;
    assert!(!snapshot.exists(), "a bad snapshot is still there");
}
