//! A real S3 server on loopback, signatures on: what `scripts/store` serves.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::bench::Bench;
use crate::gate::Gate;
use crate::program::Program;

/// Ends with whoever holds it.
#[derive(Debug)]
pub struct ObjectStore {
    server: Child,
    endpoint: String,
    bucket: String,
    access: String,
    secret: String,
    /// Where the server keeps everything.
    directory: TempDir,
}

impl ObjectStore {
    #[track_caller]
    pub fn serve() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/store");
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let mut server = Command::new(script)
            .arg("serve")
            .env("TMPDIR", directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("scripts/store can be started");
        let mut line = String::new();
        let read = BufReader::new(server.stdout.as_mut().expect("a pipe")).read_line(&mut line);
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let [endpoint, bucket, access, secret] =
            <[String; 4]>::try_from(words).unwrap_or_else(|_| panic!("scripts/store serve said {line:?} ({read:?})"));
        Self { server, endpoint, bucket, access, secret, directory }
    }

    /// A bench whose runs use it.
    #[must_use]
    pub fn used_by(&self, bench: Bench) -> Bench {
        bench
            .env("NAVVY_STORE", &format!("s3://{}/of-a-story", self.bucket))
            .env("AWS_ENDPOINT", &self.endpoint)
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", &self.access)
            .env("AWS_SECRET_ACCESS_KEY", &self.secret)
    }

    /// A bench whose runs use it through a gate.
    #[must_use]
    pub fn used_through(&self, gate: &Gate, bench: Bench) -> Bench {
        self.used_by(bench).env("AWS_ENDPOINT", gate.endpoint())
    }

    /// What makes a processor use it through a gate.
    pub fn of_a_processor(&self, gate: &Gate) -> [(&'static str, String); 6] {
        [
            ("NAVVY_PROCESSOR_STORE", format!("s3://{}/of-a-fleet", self.bucket)),
            ("AWS_ENDPOINT", gate.endpoint().to_owned()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", self.access.clone()),
            ("AWS_SECRET_ACCESS_KEY", self.secret.clone()),
        ]
    }

    /// The bucket's objects, as files of this machine.
    #[track_caller]
    pub fn files(&self) -> PathBuf {
        let mut served = fs::read_dir(self.directory.path()).expect("the server's directory").flatten();
        served.next().expect("the server keeps its objects there").path().join("objects").join(&self.bucket)
    }

    /// A gate before it.
    #[track_caller]
    pub fn gate(&self) -> Gate {
        Gate::before(&self.endpoint)
    }

    /// Keys of all its objects, up to a thousand, as it lists them itself.
    #[track_caller]
    pub fn objects(&self) -> Vec<String> {
        let listed = self.get("?list-type=2");
        texts(&String::from_utf8_lossy(&listed), "Key")
    }

    /// Keys of uploads in parts that nobody has ended.
    #[track_caller]
    pub fn open_uploads(&self) -> Vec<String> {
        let listed = self.get("?uploads=");
        texts(&String::from_utf8_lossy(&listed), "Key")
    }

    /// The whole of an object.
    #[track_caller]
    pub fn read(&self, key: &str) -> Vec<u8> {
        self.get(&format!("/{}", key.replace(',', "%2C")))
    }

    #[track_caller]
    fn get(&self, rest: &str) -> Vec<u8> {
        let url = format!("{}/{}{rest}", self.endpoint, self.bucket);
        let user = format!("{}:{}", self.access, self.secret);
        let options = ["--silent", "--show-error", "--fail-with-body", "--path-as-is", "--globoff"];
        // The digest of nothing.
        let digest = format!("x-amz-content-sha256: {}", crate::sha256(b""));
        let signed = ["--header", &digest, "--aws-sigv4", "aws:amz:us-east-1:s3", "--user", &user, &url];
        let answer = Program::new("curl").args(options).args(signed).run();
        assert_eq!(answer.exit_code, Some(0), "{url}: {}{}", answer.stderr, answer.stdout());
        answer.stdout
    }
}

/// What stands in each `<name>` of a store's answer. Our keys need no escapes.
fn texts(xml: &str, name: &str) -> Vec<String> {
    let (begin, end) = (format!("<{name}>"), format!("</{name}>"));
    xml.split(&begin).skip(1).filter_map(|rest| Some(rest.split_once(&end)?.0.to_owned())).collect()
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        // The end of its standard input is the end of the server.
        drop(self.server.stdin.take());
        self.server.wait().ok();
    }
}
