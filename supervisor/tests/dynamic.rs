//! The in-job command line of dynamic config: parameters from what changed, and the call that continues a pipeline.

mod harness;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use harness::binary;
use serde_json::{Value, json};

/// A repository whose branch `topic` left `main` one commit ago.
struct Repository(tempfile::TempDir);

impl Repository {
    fn new() -> Self {
        let repository = Self(tempfile::tempdir().unwrap());
        repository.git(&["init", "-q", "-b", "main"]);
        repository.file("src/a", "1").file("docs/b", "1").commit();
        repository.git(&["checkout", "-q", "-b", "topic"]);
        repository
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn git(&self, words: &[&str]) {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=n", "-c", "user.email=e"]).args(words).current_dir(self.path());
        let output = git.output().unwrap();
        assert!(output.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn file(&self, name: &str, text: &str) -> &Self {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn commit(&self) -> &Self {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", "m"]);
        self
    }

    fn set_parameters(&self, mapping: &str, more: &[&str]) -> Output {
        let out = self.out();
        let path = |name: &str| out.join(name).display().to_string();
        let mut command = Command::new(binary());
        command.args(["cli", "path-filtering", "set-parameters", "--base-revision", "main", "--mapping", mapping]);
        command.args(["--output", &path("parameters"), "--config-list", &path("list"), "--config", "next.yml"]);
        command.args(["--files", &path("files")]).args(more);
        command.current_dir(self.path()).output().unwrap()
    }

    /// A directory that git does not look at.
    fn out(&self) -> std::path::PathBuf {
        self.path().join(".git")
    }

    /// What was written: parameters, configs, changed files.
    fn written(&self) -> (Value, String, String) {
        let read = |name: &str| fs::read_to_string(self.out().join(name)).unwrap();
        (serde_json::from_str(&read("parameters")).unwrap(), read("list"), read("files"))
    }

    fn asked(&self, mapping: &str, more: &[&str]) -> (Value, String, String) {
        let output = self.set_parameters(mapping, more);
        assert!(output.status.success(), "{mapping}: {}", stderr(&output));
        self.written()
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn changed_files_are_listed_and_excluded_ones_match_nothing() {
    let repository = Repository::new();
    repository.file("src/a", "2").file("src/a.md", "2").commit();
    let (parameters, configs, files) = repository.asked("src/.* code true", &[]);
    assert_eq!((parameters, configs.as_str()), (json!({"code": true}), "next.yml\n"));
    assert_eq!(files, "src/a,src/a.md\n");
    let (parameters, _, files) = repository.asked("src/.* code true", &["--exclude", "src/.*\\.md\n\nsrc/a"]);
    assert_eq!((parameters, files.as_str()), (json!({}), "src/a,src/a.md\n"));
    // A pattern is for whole paths, and one file that is left is enough.
    let (parameters, ..) = repository.asked("src/.* code true", &["--exclude", "src/.*\\.md\nsrc"]);
    assert_eq!(parameters, json!({"code": true}));
    // What only python3 reads.
    let (parameters, ..) = repository.asked("src/.* code true", &["--exclude", "src/(?!x).*"]);
    assert_eq!(parameters, json!({}));
    repository.file(".git/exclude", "# all\n src/.* \n");
    let (parameters, ..) = repository.asked("src/.* code true", &["--exclude", ".git/exclude"]);
    assert_eq!(parameters, json!({}));
}

#[test]
fn on_the_base_itself_the_commit_before_counts_or_nothing_does() {
    let repository = Repository::new();
    repository.file("src/a", "2").commit();
    repository.git(&["checkout", "-q", "-B", "main"]);
    let mapping = "src/.* code true other.yml";
    assert_eq!(repository.asked(mapping, &[]).0, json!({"code": true}));
    assert_eq!(repository.asked(mapping, &["--same-base-run", "true"]).0, json!({"code": true}));
    for no in ["false", "0"] {
        let (parameters, configs, files) = repository.asked(mapping, &["--same-base-run", no]);
        assert_eq!((parameters, configs.as_str(), files.as_str()), (json!({}), "next.yml\n", "\n"));
    }
    let refused = repository.set_parameters(mapping, &["--same-base-run", "perhaps"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("--same-base-run is perhaps: it is true or false"), "{}", stderr(&refused));
}

#[test]
fn a_line_of_the_second_kind_of_mapping_may_name_a_config_alone_or_a_plain_text() {
    let repository = Repository::new();
    repository.file("src/a", "2").commit();
    let second = ["--mapping-version", "2"];
    assert_eq!(repository.asked("src/.* code.yml", &second).1, "code.yml\n");
    assert_eq!(repository.asked("src/.* mood fine\nsrc/.* n 3", &second).0, json!({"mood": "fine", "n": 3}));
    assert_eq!(repository.asked("src/.*", &second).0, json!({}));
    let refused = repository.set_parameters("a b c d e", &second);
    assert!(stderr(&refused).contains("expected REGEX [PARAMETER VALUE] [CONFIG]"), "{}", stderr(&refused));
    // The first kind knows neither.
    for line in ["src/.* code.yml", "src/.* mood fine"] {
        assert_eq!(repository.set_parameters(line, &[]).status.code(), Some(1), "{line}");
    }
}

#[test]
fn a_mapping_or_a_list_of_exclusions_that_cannot_be_read_is_no_text() {
    let repository = Repository::new();
    repository.file("src/a", "2").commit();
    fs::write(repository.out().join("latin"), b"\xff").unwrap();
    for (mapping, exclude) in [(".git/latin", ""), ("src/.* code true", ".git/latin")] {
        let output = repository.set_parameters(mapping, &["--exclude", exclude]);
        assert_eq!(output.status.code(), Some(1), "{mapping} {exclude}");
        assert!(stderr(&output).contains("cannot read .git/latin"), "{}", stderr(&output));
    }
}

/// Calls an endpoint of our own; what it was sent.
fn continued(directory: &Path, words: &[&str]) -> (Output, Option<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = format!("http://{}", listener.local_addr().unwrap());
    listener.set_nonblocking(true).unwrap();
    fs::write(directory.join("next.yml"), "version: 2.1\n").unwrap();
    let mut command = Command::new(binary());
    command.args(["cli", "continuation", "continue", "--configuration", "next.yml"]).args(words);
    command.env("CIRCLE_CONTINUATION_KEY", "k").env("CIRCLECI_API_HOST", host).current_dir(directory);
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut body = None;
    loop {
        if let Ok((mut stream, _)) = listener.accept() {
            stream.set_nonblocking(false).unwrap();
            body = Some(read_body(&mut stream));
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").unwrap();
            break;
        }
        if child.try_wait().unwrap().is_some() {
            break;
        }
        std::thread::yield_now();
    }
    (child.wait_with_output().unwrap(), body)
}

fn read_body(stream: &mut std::net::TcpStream) -> Value {
    let mut seen = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let read = stream.read(&mut piece).unwrap();
        seen.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&seen).into_owned();
        if let Some((_, body)) = text.split_once("\r\n\r\n")
            && let Ok(body) = serde_json::from_str(body)
        {
            return body;
        }
        assert!(read > 0, "the request is cut off: {text}");
    }
}

#[test]
fn a_continuation_hands_on_which_files_changed() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("files"), "src/a,docs/b\n").unwrap();
    let given = ["--parameters", "{\"n\": 1}", "--files-changed", "files"];
    let named = [&given[..], &["--parameter-for-files-changed", "changed"]].concat();
    let (output, body) = continued(directory.path(), &named);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(body.unwrap()["parameters"], json!({"n": 1, "changed": "src/a,docs/b"}));
    // Without a name nobody asked for them, and the file need not be there.
    let (output, body) =
        continued(directory.path(), &["--files-changed", "nowhere", "--parameter-for-files-changed", ""]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(body.unwrap()["parameters"], json!({}));
    let (output, body) =
        continued(directory.path(), &["--files-changed", "gone", "--parameter-for-files-changed", "c"]);
    assert_eq!((output.status.code(), body), (Some(1), None));
    assert!(stderr(&output).contains("cannot read gone"), "{}", stderr(&output));
}
