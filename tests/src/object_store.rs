//! A real S3 server on loopback, signatures on: what `scripts/store` serves.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::bench::Bench;

/// Ends with whoever holds it.
#[derive(Debug)]
pub struct ObjectStore {
    server: Child,
    endpoint: String,
    bucket: String,
    access: String,
    secret: String,
}

impl ObjectStore {
    #[track_caller]
    pub fn serve() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/store");
        let mut server = Command::new(script)
            .arg("serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("scripts/store can be started");
        let mut line = String::new();
        let read = BufReader::new(server.stdout.as_mut().expect("a pipe")).read_line(&mut line);
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let [endpoint, bucket, access, secret] =
            <[String; 4]>::try_from(words).unwrap_or_else(|_| panic!("scripts/store serve said {line:?} ({read:?})"));
        Self { server, endpoint, bucket, access, secret }
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
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        // The end of its standard input is the end of the server.
        drop(self.server.stdin.take());
        self.server.wait().ok();
    }
}
