//! A Nomad as an operator has it on one machine: server and client in one process, by the configuration that `navvy host nomad-config`
//! prints.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::agent::{Ports, program};
use super::api::LIMIT;
use super::end_below;
use crate::bench::Bench;
use crate::deadline::eventually;
use crate::fleet::Served;
use crate::program::{Answer, Program};

/// No cloud is asked whether this is one of its machines.
const QUIET: &str =
    "client {\n  options = { \"fingerprint.denylist\" = \"env_aws,env_gce,env_azure,env_digitalocean\" }\n}\n";

/// Server and client in one. Nothing that it has started outlives it.
pub struct Single {
    process: Served,
    place: PathBuf,
    /// Where its API is.
    pub address: String,
    /// Of whoever asks, where Nomad wants one.
    pub token: String,
}

impl Single {
    /// Starts it with what `navvy host nomad-config --single WORDS` prints, and with `beside`, which Nomad reads after that.
    #[track_caller]
    pub fn start(bench: &Bench, words: &[&str], beside: &str) -> Self {
        let place = bench.state().join("nomad");
        fs::create_dir_all(place.join("plugins")).expect("a directory can be made");
        let data = format!("--data-dir={}", place.display());
        let plugins = format!("--plugin-dir={}/plugins", place.display());
        let mut all = vec!["host", "nomad-config", "--single", &data];
        if !words.iter().any(|word| word.starts_with("--plugin-dir=")) {
            all.push(&plugins);
        }
        let printed = bench.program(&[&all[..], words].concat()).run().text();
        let Ports { http, rpc, serf } = Ports::free();
        let own = format!(
            "bind_addr = \"127.0.0.1\"\nports {{\n  http = {http}\n  rpc = {rpc}\n  serf = {serf}\n}}\n\
             advertise {{\n  rpc = \"127.0.0.1\"\n  serf = \"127.0.0.1\"\n}}\n{QUIET}{beside}"
        );
        fs::write(place.join("client.hcl"), printed).expect("a file can be written");
        fs::write(place.join("own.hcl"), own).expect("a file can be written");
        let mut command = Command::new(program());
        command.args(["agent", "-config"]).arg(place.join("client.hcl")).arg("-config").arg(place.join("own.hcl"));
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        // By this home, what it leaves is known as its own.
        command.env_clear().env("PATH", path).env("HOME", &place).env("LANG", "C.UTF-8").current_dir(&place);
        let process = Served::start(command, place.join("log"));
        Self { process, place, address: format!("http://127.0.0.1:{http}"), token: String::new() }
    }

    /// What was printed.
    #[track_caller]
    pub fn printed(&self) -> String {
        fs::read_to_string(self.place.join("client.hcl")).expect("a file of ours")
    }

    /// The directory of `nomad` alone, for programs that call it.
    pub fn programs(&self) -> PathBuf {
        let directory = self.place.join("bin");
        if !directory.exists() {
            fs::create_dir_all(&directory).expect("a directory can be made");
            std::os::unix::fs::symlink(program(), directory.join("nomad")).expect("a link can be made");
        }
        directory
    }

    /// What Nomad's own command says.
    pub fn ask(&self, words: &[&str]) -> Answer {
        Program::new(program()).args(words).env("NOMAD_ADDR", &self.address).env("NOMAD_TOKEN", &self.token).run()
    }

    /// The node, once its fingerprint is there.
    #[track_caller]
    pub fn node(&mut self) -> Value {
        eventually("Nomad tells of its node", LIMIT, || {
            let answer = self.ask(&["node", "status", "-self", "-json"]);
            let node: Value = serde_json::from_slice(&answer.stdout).ok()?;
            (node["NodeResources"]["Memory"]["MemoryMB"].as_u64()? > 0 && node["Status"] == "ready").then_some(node)
        })
    }

    /// Does a configuration pass?
    pub fn validates(file: &Path) -> Answer {
        Program::new(program()).args(["config", "validate"]).args([file]).run()
    }
}

impl Drop for Single {
    fn drop(&mut self) {
        self.process.kill();
        end_below(&self.place);
    }
}
