//! `checkout`: a private copy of the working tree as it is now.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use navvy_tests::{Bench, GitServer, everywhere};

const LOOKS: &str = r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - checkout
      - run: {name: status, command: git status --porcelain=v1 --branch -z}
      - run: {name: history, command: 'git log --format="%H %an %s" --decorate=full --all'}
      - run: {name: names, command: 'find . -path ./.git -prune -o -mindepth 1 -print0 | sort -z'}
      - run: {name: content, command: 'cat tracked.txt untracked.txt; stat -c %A run.sh; readlink out'}
      - run: {name: secrets, command: 'grep -rl "hunter[2]" ~ || echo none; git config --get remote.origin.url'}
      - run: {name: private, command: 'echo changed > tracked.txt; git -c user.name=J -c user.email=j@x commit -qam inside; git fsck --no-dangling'}
workflows:
  ci: {jobs: [build]}
"#;

everywhere! {
    fn the_job_has_the_tree_as_it_is_now_and_a_git_that_agrees(bench: Bench) {
        bench.config(LOOKS).file(".gitignore", "ignored*\n").file("tracked.txt", "first\n").file("run.sh", "#!/bin/sh\n");
        bench.file("kept/ignored-but-tracked", "kept\n").file("removed.txt", "x\n").file("a dir/with space", "x\n");
        bench.git(&["update-index", "--add", "--chmod=+x", "run.sh"]).succeeded();
        bench.git(&["add", "--force", "kept/ignored-but-tracked"]).succeeded();
        bench.commit("first");
        bench.git(&["tag", "v1"]).succeeded();
        bench.file("tracked.txt", "second\n").commit("second");
        bench.git(&["branch", "other", "v1"]).succeeded();
        bench.git(&["remote", "add", "origin", "https://story:hunter2@example.invalid/acme/shop.git"]).succeeded();
        bench.git(&["config", "http.extraheader", "Authorization: basic hunter2"]).succeeded();
        let project = bench.project();
        let set_mode = std::process::Command::new("chmod").arg("755").arg(project.join("run.sh")).status();
        assert!(set_mode.expect("chmod is there").success());
        bench.file("tracked.txt", "changed\n").file("untracked.txt", "new\n").file("ignored.txt", "never\n");
        bench.file("new\nline", "x").file(OsStr::from_bytes(b"latin-\xe9"), "x");
        std::fs::remove_file(project.join("removed.txt")).expect("it is there");
        symlink("/etc/passwd", project.join("out")).expect("a link can be made");
        let _socket = UnixListener::bind(project.join("a.socket")).expect("a socket can be made");

        let done = bench.run(&[]).finish();
        done.passes();
        let host = |args: &[&str]| {
            let answer = bench.git(args);
            answer.succeeded();
            answer.stdout
        };
        let status = host(&["status", "--porcelain=v1", "--branch", "-z"]);
        assert_eq!(
            String::from_utf8_lossy(&done.log("build", "status")).replace('\0', "\n"),
            String::from_utf8_lossy(&status).replace('\0', "\n")
        );
        let history = host(&["log", "--format=%H %an %s", "--decorate=full", "--all"]);
        assert_eq!(done.log("build", "history"), history);
        let names = done.log("build", "names");
        let mut names: Vec<&[u8]> = names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
        names.sort_unstable();
        let expected: [&[u8]; 13] = [
            b"./.circleci",
            b"./.circleci/config.yml",
            b"./.gitignore",
            b"./a dir",
            b"./a dir/with space",
            b"./kept",
            b"./kept/ignored-but-tracked",
            b"./latin-\xe9",
            b"./new\nline",
            b"./out",
            b"./run.sh",
            b"./tracked.txt",
            b"./untracked.txt",
        ];
        assert_eq!(
            names.iter().map(|name| String::from_utf8_lossy(name)).collect::<Vec<_>>(),
            expected.iter().map(|name| String::from_utf8_lossy(name)).collect::<Vec<_>>()
        );
        assert_eq!(done.text("build", "content"), "changed\nnew\n-rwxr-xr-x\n/etc/passwd\n");
        assert_eq!(done.text("build", "secrets"), "none\nhttps://example.invalid/acme/shop.git\n");
        // What the job does to its copy is its own affair.
        assert_eq!(std::fs::read(project.join("tracked.txt")).expect("it is there"), b"changed\n");
        assert_eq!(host(&["log", "-1", "--format=%s"]), b"second\n");
    }
}

#[test]
fn a_directory_that_is_no_repository_is_copied_whole() {
    let bench = Bench::new();
    std::fs::remove_dir_all(bench.project().join(".git")).expect("the repository can be removed");
    bench.file("file.txt", "content\n");
    let done = bench.run_config(
        r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/busybox:static}]
    resource_class: small
    steps:
      - run: {name: before, command: "mkdir -p /somewhere"}
      - checkout: {path: /somewhere/else}
      - run: {name: after, working_directory: /somewhere/else, command: cat file.txt}
workflows:
  ci: {jobs: [build]}
"#,
        &[],
    );
    done.passes();
    assert_eq!(done.text("build", "after"), "content\n");
}

#[test]
fn a_place_that_is_taken_is_not_overwritten() {
    let bench = Bench::new();
    let done = bench.run_config(
        r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/busybox:static}]
    resource_class: small
    steps:
      - run: {name: takes it, command: echo mine > precious}
      - checkout
      - run: {name: still there, when: always, command: cat precious}
workflows:
  ci: {jobs: [build]}
"#,
        &[],
    );
    done.exits_with(1);
    assert_eq!(done.text("build", "still there"), "mine\n");
    let said = done.event("the end of checkout", |event| event.is("step_ended") && event.number("step") == 2);
    assert!(said.texts("trailers").join("\n").contains("not empty"), "{}", said.summary());
}

#[test]
fn checkout_git_clones_from_origin_what_was_committed() {
    let bench = Bench::new();
    bench.config(
        r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - checkout
      - run: {name: content, command: 'cat file.txt; git rev-parse HEAD; git symbolic-ref --short HEAD; git status -s'}
workflows:
  ci: {jobs: [build]}
"#,
    );
    bench.file("file.txt", "committed\n").commit("first");
    let server = GitServer::of(&bench);
    bench.git(&["remote", "add", "origin", &server.url()]).succeeded();
    bench.file("file.txt", "not committed\n");
    let head = bench.git(&["rev-parse", "HEAD"]).text();
    let done = bench.run(&["--checkout", "git", "--allow-host", &server.place()]).finish();
    done.passes();
    assert_eq!(done.text("build", "content"), format!("committed\n{head}main\n"));
}
