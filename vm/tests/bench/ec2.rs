//! EC2 as moto plays it, and behind it one machine that is really there (`far-host`), which begins as its user data say.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use navvy_vm::Machines;
use navvy_vm::cloud::Secret;
use navvy_vm::cloud::call::Pace;
use navvy_vm::ec2::{Clients, Credentials, Ec2, Sources};
use navvy_vm::far::{Clouds, Ec2Table};

use crate::bench::Bench;
use crate::moto::{self, Shared, Twist, client, far_host};

const LIMIT: Duration = Duration::from_secs(30);

/// The cloud, and its one machine that is really there.
pub struct Cloud {
    pub front: Shared,
    at: String,
    pub scratch: tempfile::TempDir,
}

impl Drop for Cloud {
    fn drop(&mut self) {
        far_host("stop", self.scratch.path());
    }
}

impl Cloud {
    pub async fn new() -> Self {
        let (front, at) = moto::double().await;
        let scratch = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        for (name, text) in [("port", port.to_string()), ("forwarding", "yes".into()), ("supervisor", supervisor())] {
            std::fs::write(scratch.path().join(name), text).unwrap();
        }
        front.lock().unwrap().there = Some(scratch.path().to_owned());
        Self { front, at, scratch }
    }

    pub fn twist(&self, action: &'static str, twists: impl IntoIterator<Item = Twist>) {
        self.front.lock().unwrap().twists.entry(action).or_default().extend(twists);
    }

    pub fn calls(&self) -> Vec<String> {
        self.front.lock().unwrap().calls.clone()
    }

    pub fn machines(&self, bench: &Bench, unknown_after: &str) -> Machines {
        self.machines_of(bench, unknown_after, "ami-12c6146b")
    }

    pub fn machines_of(&self, bench: &Bench, unknown_after: &str, image: &str) -> Machines {
        let port = std::fs::read_to_string(self.scratch.path().join("port")).unwrap().parse().unwrap();
        self.machines_at(port, bench, unknown_after, image)
    }

    pub fn machines_at(&self, port: u16, bench: &Bench, unknown_after: &str, image: &str) -> Machines {
        let table: Ec2Table = serde_json::from_value(serde_json::json!({
            "region": "us-east-1", "endpoint": self.at, "port": port, "unknown-after": unknown_after, "disk": "20G",
            "images": [{"name": "test", "image": image}],
            "types": [{"name": "t3a.medium", "cpus": 2, "memory": "4G"}],
        }))
        .unwrap();
        let variables: BTreeMap<String, String> =
            [("AWS_ACCESS_KEY_ID", "AKIDTEST"), ("AWS_SECRET_ACCESS_KEY", "secret")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into();
        let clients = Clients { cloud: client(), direct: client() };
        let pace = Pace { limit: LIMIT, tries: 3, pause: Duration::from_millis(1) };
        let clouds = Clouds { variables: &variables, home: None, clients, pace };
        Machines::ec2(bench.settings.clone(), &table, clouds).unwrap_or_else(|fault| panic!("{fault}"))
    }

    /// Asks the cloud itself.
    pub fn ec2(&self) -> Ec2 {
        let given =
            Credentials { key_id: "AKIDTEST".to_owned(), secret: Secret::new("secret"), token: None, until_s: None };
        let sources = Sources { given: Some(given), file: None, profile: "default".to_owned(), metadata: None };
        let clients = Clients { cloud: client(), direct: client() };
        let settings = serde_json::from_value(serde_json::json!({"region": "us-east-1", "endpoint": self.at})).unwrap();
        Ec2::new(settings, sources, clients, Pace { tries: 3, pause: Duration::from_millis(1), ..Pace::default() })
            .unwrap()
    }

    pub fn ended(&self) -> usize {
        self.front.lock().unwrap().ended.len()
    }
}

fn supervisor() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bin/navvy-supervisor");
    path.canonicalize().expect("target/bin/navvy-supervisor: scripts/build makes it").display().to_string()
}

pub fn open() -> Bench {
    let mut bench = Bench::open().unwrap();
    bench.host.supervisor = Some(PathBuf::from(supervisor()));
    bench
}
