//! The real server (`scripts/store`), one for all tests of this process. It goes when its standard input ends, that is, with us.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use super::super::*;

/// Where it is and how to speak to it.
#[derive(Debug)]
pub struct Server {
    pub endpoint: String,
    bucket: String,
    access: String,
    secret: String,
    _child: Child,
}

/// Starts it, the first time. It is a failure, not a skip, if it does not start.
pub fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/store");
        let mut child = Command::new(script)
            .arg("serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{script}: {error}"));
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let [endpoint, bucket, access, secret] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("`scripts/store serve` started no server: {line:?}; what it said stands above");
        };
        let [endpoint, bucket, access, secret] = [endpoint, bucket, access, secret].map(str::to_owned);
        Server { endpoint, bucket, access, secret, _child: child }
    })
}

impl Server {
    /// Settings for a corner of the server that is nobody else's, spoken to at `endpoint`.
    pub fn settings(&self, endpoint: &str) -> StorageSettings {
        let root = format!("tests/{}", uuid::Uuid::new_v4().as_simple());
        let location = Location::Cloud { scheme: Scheme::S3, bucket: self.bucket.clone(), root };
        let options = [
            ("aws_endpoint", endpoint),
            ("aws_access_key_id", &self.access),
            ("aws_secret_access_key", &self.secret),
            ("aws_region", "us-east-1"),
        ];
        let options: BTreeMap<String, String> =
            options.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        StorageSettings { location, options, ..StorageSettings::directory("/".as_ref()) }
    }
}
