//! Hosts that are there already, for tests: a real ssh server and the real supervisor in namespaces of this machine (`far-host`).

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use navvy_vm::Machines;
use navvy_vm::far::SshTable;
use navvy_vm::ssh_key::SshKey;

use crate::bench::Bench;

const LIMIT: Duration = Duration::from_secs(60);

/// A host, until this is dropped.
pub struct There {
    pub place: PathBuf,
    _scratch: Option<tempfile::TempDir>,
}

impl Drop for There {
    fn drop(&mut self) {
        if self._scratch.is_some() {
            drop(Command::new(script()).arg("stop").arg(&self.place).status());
        }
    }
}

pub fn script() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/far-host")
}

pub fn supervisor() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bin/navvy-supervisor");
    path.canonicalize().expect("target/bin/navvy-supervisor: scripts/build makes it")
}

impl There {
    pub fn new(forwarding: &str) -> Self {
        assert!(rustix::process::geteuid().is_root(), "these hosts are namespaces, which root makes");
        let scratch = tempfile::tempdir().unwrap();
        let there = Self { place: scratch.path().to_owned(), _scratch: Some(scratch) };
        let (host, login) = (SshKey::generate().unwrap(), SshKey::generate().unwrap());
        for (name, text) in [("host_key", host.to_openssh().reveal()), ("login", login.to_openssh().reveal())] {
            std::fs::write(there.at(name), text).unwrap();
            std::fs::set_permissions(there.at(name), PermissionsExt::from_mode(0o600)).unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let supervisor = supervisor().display().to_string();
        for (name, text) in [
            ("host_key.pub", host.public_line()),
            ("authorized_keys", login.public_line()),
            ("port", &port.to_string()),
            ("forwarding", forwarding),
            ("supervisor", &supervisor),
            ("resets", ""),
        ] {
            std::fs::write(there.at(name), text).unwrap();
        }
        there
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.at(name)).unwrap().trim().to_owned()
    }

    pub fn resets(&self) -> usize {
        self.read("resets").lines().count()
    }

    pub fn is_broken(&self, is_so: bool) {
        if is_so {
            std::fs::write(self.at("broken"), "").unwrap();
        } else {
            std::fs::remove_file(self.at("broken")).unwrap();
        }
    }

    pub fn machines(&self, bench: &Bench) -> Machines {
        self.machines_by(bench, &self.read("host_key.pub"))
    }

    pub fn machines_by(&self, bench: &Bench, host_key: &str) -> Machines {
        made(bench, &[self.row("one", host_key)])
    }

    /// As an operator describes it.
    fn row(&self, name: &str, host_key: &str) -> serde_json::Value {
        serde_json::json!({
            "name": name, "address": "127.0.0.1", "port": self.read("port").parse::<u16>().unwrap(), "host-key": host_key,
            "key-file": self.at("login"), "reset": [script(), "reset", self.place], "reset-limit": "60s",
        })
    }

    /// Another process's, which is not ended by this one.
    pub fn of(place: PathBuf) -> Self {
        Self { place, _scratch: None }
    }
}

/// Machines of several hosts.
pub fn all(bench: &Bench, hosts: &[(&str, &There)]) -> Machines {
    let rows: Vec<_> = hosts.iter().map(|(name, there)| there.row(name, &there.read("host_key.pub"))).collect();
    made(bench, &rows)
}

fn made(bench: &Bench, hosts: &[serde_json::Value]) -> Machines {
    let table: SshTable = serde_json::from_value(serde_json::json!({"hosts": hosts})).unwrap();
    Machines::ssh(bench.settings.clone(), &table).unwrap_or_else(|fault| panic!("{fault}"))
}

pub fn open() -> Bench {
    let mut bench = Bench::open().unwrap();
    bench.host.supervisor = Some(supervisor());
    bench.settings.start_limit = LIMIT;
    bench
}
