//! `navvy image`: what is not an image, or is none any more, is told by its name, and nothing half-made stays.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use navvy_tests::Bench;
use navvy_tests::eventually;
use rustix::process::Signal;
use sha2::{Digest as _, Sha256};

/// A bench whose images are in a directory of its own.
fn bench() -> (Bench, PathBuf) {
    let bench = Bench::new().env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    let images = bench.home().join("images");
    let bench = bench.env("NAVVY_IMAGES", images.to_str().unwrap());
    (bench, images)
}

/// An image as a build leaves it, but for what is in its files.
fn put(images: &Path, name: &str) {
    let directory = images.join(name);
    fs::create_dir_all(&directory).unwrap();
    let file = |name: &str, text: &str| {
        fs::write(directory.join(name), text).unwrap();
        let sha256: String = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
        serde_json::json!({ "name": name, "sha256": sha256, "size": text.len() })
    };
    let manifest = serde_json::json!({
        "version": 1, "name": name, "recipe": "r", "architecture": std::env::consts::ARCH, "init": "own", "docker": "20.10.24",
        "user": "circleci", "supervisor": "0.1.0", "root": file("root.qcow2", "root"), "root_size": 4,
        "kernel": file("vmlinux", "kernel"), "initrd": file("initrd.cpio", "initrd"), "arguments": "", "packages": {},
    });
    fs::write(directory.join("manifest.json"), manifest.to_string()).unwrap();
}

/// What is in the store, but for its locks and notes.
fn in_store(images: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(images) else { return Vec::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != ".locks" && name != ".verified").collect()
}

#[test]
fn where_there_are_no_images_the_program_says_how_to_get_some() {
    let (bench, _) = bench();
    let listed = bench.navvy(&["image", "ls"]);
    listed.passes();
    assert!(listed.stdout().contains("navvy image build docker"), "{}", listed.stdout());
    bench
        .navvy(&["image", "table", "default"])
        .exits_with(2)
        .complains(&["debian-12-docker", "navvy image build docker"]);
}

#[test]
fn an_unknown_name_lists_what_there_is() {
    let (bench, images) = bench();
    put(&images, "debian-12-docker");
    bench.navvy(&["image", "table", "solaris:11"]).exits_with(2).complains(&[
        "`solaris:11` is no image",
        "there are debian-12-docker in",
        "[machine-images]",
    ]);
    bench
        .navvy(&["image", "table", "windows-server-2022-gui:current"])
        .exits_with(2)
        .complains(&["no machines with Windows"]);
    assert_eq!(bench.navvy(&["image", "table", "ubuntu-2204:current"]).stdout(), "debian-12-docker\n");
    bench.config_file("navvy/settings.toml", "[machine-images]\n'ubuntu-*' = 'mine'\n");
    bench.navvy(&["image", "table", "ubuntu-2204:current"]).exits_with(2).complains(&["mine, which is not here"]);
    put(&images, "mine");
    assert_eq!(bench.navvy(&["image", "table", "ubuntu-2204:current"]).stdout(), "mine\n");
    bench.config_file("navvy/settings.toml", "[machine-images]\n'ubuntu-*' = '../mine'\n");
    bench.navvy(&["image", "table"]).exits_with(64).complains(&["settings.toml", "../mine"]);
    bench.navvy(&["image", "rm", "../mine"]).exits_with(64).complains(&["is no name of an image"]);
}

#[test]
fn a_corrupt_and_a_swapped_file_are_named() {
    let (bench, images) = bench();
    put(&images, "one");
    put(&images, "two");
    bench.navvy(&["image", "verify"]).passes();
    fs::write(images.join("one/root.qcow2"), "toor").unwrap();
    fs::rename(images.join("one/vmlinux"), images.join("one/kept")).unwrap();
    fs::rename(images.join("two/initrd.cpio"), images.join("one/vmlinux")).unwrap();
    let done = bench.navvy(&["image", "verify"]);
    done.exits_with(3).complains(&["one is damaged", "root.qcow2", "two is damaged", "initrd.cpio"]);
    fs::write(images.join("one/manifest.json"), "{}").unwrap();
    let listed = bench.navvy(&["image", "ls"]);
    listed.passes();
    assert!(listed.stdout().contains("one  the image one is damaged"), "{}", listed.stdout());
    bench.navvy(&["image", "rm", "one", "two"]).passes();
    assert!(in_store(&images).is_empty());
}

#[test]
fn a_disk_that_stands_on_a_file_of_this_host_is_not_imported() {
    let (bench, images) = bench();
    let [secret, disk] = ["secret", "disk.qcow2"].map(|name| bench.home().join(name));
    fs::write(&secret, vec![b's'; 1 << 16]).unwrap();
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
        .arg(&secret)
        .arg(&disk)
        .status();
    assert!(made.unwrap().success());
    bench
        .navvy(&["image", "import", disk.to_str().unwrap(), "--name", "theirs"])
        .exits_with(64)
        .complains(&["disk.qcow2", "it has a backing file"]);
    assert!(in_store(&images).is_empty());
}

/// By a signal at once; after a SIGKILL by the next that makes something. What the recipe mounts and starts goes at once.
#[test]
fn a_build_that_is_interrupted_leaves_nothing() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (bench, images) = bench();
    for signal in [Signal::INT, Signal::KILL] {
        let mut build = bench.command_of(&["image", "build", "minimal"]).spawn().unwrap();
        let begun =
            || in_store(&images).iter().any(|name| images.join(name).join("work/root/etc").exists()).then_some(());
        eventually("the recipe installs", Duration::from_secs(300), begun);
        let pid = rustix::process::Pid::from_raw(i32::try_from(build.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
        let ended = build.wait().unwrap();
        let gone = || running_in(&images).is_empty().then_some(());
        eventually("its programs are gone", Duration::from_secs(60), gone);
        assert!(!fs::read_to_string("/proc/self/mounts").unwrap().contains(images.to_str().unwrap()));
        if signal == Signal::INT {
            assert_eq!(ended.code(), Some(130));
            assert!(in_store(&images).is_empty(), "{:?}", in_store(&images));
        }
    }
    assert!(!in_store(&images).is_empty(), "it was killed too late for what follows to show anything");
    let file = bench.home().join("file");
    fs::write(&file, vec![0; 512]).unwrap();
    bench.navvy(&["image", "import", file.to_str().unwrap(), "--name", "a"]).exits_with(64);
    assert!(in_store(&images).is_empty(), "{:?}", in_store(&images));
}

/// Processes that have a word with this path.
fn running_in(images: &Path) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| fs::read_to_string(process.path().join("cmdline")).ok());
    lines.filter(|line| line.contains(images.to_str().unwrap())).collect()
}
