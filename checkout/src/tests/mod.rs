//! Stories with real git repositories: a host's tree is streamed, unpacked with the system's `tar`, and compared.

mod cloning;
mod facts;
mod history;
mod hostile;
mod repositories;
mod secrets;
mod trees;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::{Elsewhere, Reason, TreeReport, WorkingTree};

/// A directory that only this test knows.
struct Dir(TempDir);

impl Dir {
    fn empty() -> Self {
        Self(TempDir::new().unwrap())
    }

    /// A repository with one commit on `main`.
    fn repository() -> Self {
        let dir = Self::empty();
        dir.git(&["init", "-q", "-b", "main"]);
        dir.write("readme", "hello\n").write("src/lib.rs", "// lib\n").commit("first");
        dir
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    /// Written by a process of its own: what is still open for writing, if only in a process that another test is just
    /// starting, cannot be run.
    fn write_program(&self, name: &str, script: &str) {
        let source = format!("{name}.source");
        let paths = [self.write(&source, script).join(&source), self.join(name)];
        assert!(Command::new("install").args(["-m", "755"]).args(paths).status().unwrap().success());
    }

    fn read(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.join(name)).unwrap()).into_owned()
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.join(name)).unwrap().permissions().mode() & 0o777
    }

    fn has(&self, name: &str) -> bool {
        fs::symlink_metadata(self.join(name)).is_ok()
    }

    fn link(&self, name: &str, target: &str) -> &Self {
        symlink(target, self.join(name)).unwrap();
        self
    }

    fn commit(&self, subject: &str) -> &Self {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", subject]);
        self
    }

    fn git(&self, arguments: &[&str]) -> String {
        git(self.path(), arguments)
    }

    fn stream(&self) -> (Dir, TreeReport) {
        unpack(&WorkingTree::open(self.path(), Elsewhere::Refused).unwrap())
    }
}

/// git as a test's person has it, with nothing of this machine's settings.
fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "protocol.file.allow=always"])
        .args(arguments)
        .current_dir(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .envs([("GIT_AUTHOR_NAME", "Ada"), ("GIT_AUTHOR_EMAIL", "ada@example.com")])
        .envs([("GIT_COMMITTER_NAME", "Ada"), ("GIT_COMMITTER_EMAIL", "ada@example.com")])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {arguments:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn unpack(tree: &WorkingTree) -> (Dir, TreeReport) {
    let mut stream = Vec::new();
    let report = tree.stream(&mut stream).unwrap();
    (untar(&stream), report)
}

fn untar(stream: &[u8]) -> Dir {
    let dir = Dir::empty();
    let mut tar = Command::new("tar")
        .args(["-x", "-p", "--no-same-owner", "-C"])
        .arg(dir.path())
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    tar.stdin.take().unwrap().write_all(stream).unwrap();
    let output = tar.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    dir
}

/// What a person would see git say about a tree.
fn told(directory: &Path) -> Vec<String> {
    let commands: [&[&str]; 8] = [
        &["status", "--porcelain=v1", "-z", "--branch"],
        &["status"],
        &["diff", "--binary"],
        &["diff", "--binary", "--cached"],
        &["for-each-ref", "refs/heads", "refs/tags", "refs/remotes"],
        &["branch", "-a", "--format=%(HEAD) %(refname)"],
        &["ls-files", "--stage", "-v"],
        &["log", "--oneline", "--decorate", "--branches", "--tags", "--remotes"],
    ];
    commands.iter().map(|command| git(directory, command)).collect()
}

/// The copy tells the same as the host, and lacks no object.
fn assert_same(host: &Path, copy: &Path) {
    assert_eq!(told(host), told(copy));
    git(copy, &["fsck", "--strict", "--no-dangling"]);
    assert!(!git(copy, &["reflog", "--all"]).contains("commit"));
}

fn reasons(report: &TreeReport) -> Vec<(String, Reason)> {
    report.left_out.iter().map(|left| (left.path.to_string_lossy().into_owned(), left.reason)).collect()
}
