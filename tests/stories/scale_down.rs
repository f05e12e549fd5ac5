//! `packaging/scale-down` on a real Nomad: a node leaves its pool when what runs there has ended, and not before.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use navvy_tests::{Answer, Bench, Program, SingleNomad, eventually};
use serde_json::Value;

use crate::client_config::SMALL;

const LIMIT: Duration = Duration::from_secs(60);
/// The printed configuration keeps it off.
const RAW_EXEC: &str = "plugin \"raw_exec\" {\n  config {\n    enabled = true\n  }\n}\n";

/// A Nomad with jobs that run until a file is there.
struct Pool {
    bench: Bench,
    agent: SingleNomad,
}

impl Pool {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(words: &[&str]) -> Self {
        let bench = Bench::on_this_machine();
        let all = [&SMALL[..], &["--driver=raw_exec"], words].concat();
        let mut agent = SingleNomad::start(&bench, &all, RAW_EXEC);
        if words.contains(&"--acl") {
            agent.token = eventually("Nomad gives its first token", LIMIT, || {
                let token: Value = serde_json::from_slice(&agent.ask(&["acl", "bootstrap", "-json"]).stdout).ok()?;
                Some(token["SecretID"].as_str()?.to_owned())
            });
        }
        agent.node();
        Self { bench, agent }
    }

    fn end(&self) -> PathBuf {
        self.bench.state().join("end")
    }

    /// A job that ends with the file, and not for a signal.
    fn begin(&self, name: &str) {
        let script = format!("trap '' INT TERM; until [ -e {} ]; do sleep 0.1; done", self.end().display());
        let job = format!(
            r#"job "{name}" {{
  type = "batch"
  group "g" {{
    reschedule {{
      attempts  = 0
      unlimited = false
    }}
    task "t" {{
      driver       = "raw_exec"
      kill_timeout = "25s"
      config {{
        command = "/bin/sh"
        args    = ["-c", "{script}"]
      }}
      resources {{
        cpu    = 100
        memory = 16
      }}
    }}
  }}
}}
"#
        );
        let path = self.bench.state().join("job.hcl");
        fs::write(&path, job).expect("a file can be written");
        self.agent.ask(&["job", "run", "-detach", path.to_str().expect("a path of ours")]).succeeded();
        eventually("the job runs", LIMIT, || {
            let answer = self.agent.ask(&["job", "allocs", "-json", name]);
            let allocations: Value = serde_json::from_slice(&answer.stdout).ok()?;
            (allocations[0]["ClientStatus"] == "running").then_some(())
        });
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/scale-down"));
        let path = std::env::var("PATH").expect("a PATH");
        command
            .args(words)
            .env("PATH", format!("{}:{path}", self.agent.programs().display()))
            .env("NOMAD_ADDR", &self.agent.address)
            .env("NOMAD_TOKEN", &self.agent.token)
            .env("NAVVY_SCALE_DOWN_PAUSE", "0.1")
            .env("NAVVY_SCALE_DOWN_MARK", self.bench.state().join("mark"));
        command
    }

    fn scale_down(&self, words: &[&str]) -> Answer {
        let command = self.command(words);
        let mut program = Program::new(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            program = program.env(&name.to_string_lossy(), value.unwrap_or_default());
        }
        program.run()
    }

    fn node(&mut self) -> Value {
        self.agent.node()
    }
}

fn is_over(child: &mut Child) -> bool {
    child.try_wait().expect("a child can be asked").is_some()
}

#[test]
fn a_node_leaves_its_pool_when_what_runs_there_has_ended() {
    let mut pool = Pool::new();
    pool.begin("long");
    let mut hook = pool.command(&["--deadline", "1h"]).stderr(Stdio::null()).spawn().expect("the hook can be started");
    eventually("the node is being drained", LIMIT, || {
        let node = pool.node();
        (node["SchedulingEligibility"] == "ineligible" && !node["DrainStrategy"].is_null()).then_some(())
    });
    let until = pool.node()["DrainStrategy"]["ForceDeadline"].clone();
    assert!(!is_over(&mut hook), "the job still runs");
    // Beside it, as a hook that is called twice: it waits for the same drain, and does not begin another.
    let mut twice =
        pool.command(&["--deadline", "2h"]).stderr(Stdio::piped()).spawn().expect("the hook can be started");
    let mut told = String::new();
    let mut reader = std::io::BufReader::new(twice.stderr.take().expect("a pipe"));
    std::io::BufRead::read_line(&mut reader, &mut told).expect("it says what it waits for");
    assert!(told.contains("1 still running") && told.contains("long"), "{told}");
    assert_eq!(pool.node()["DrainStrategy"]["ForceDeadline"], until);
    fs::write(pool.end(), "").expect("a file can be written");
    assert_eq!(hook.wait().expect("it ends").code(), Some(0));
    assert_eq!(twice.wait().expect("it ends").code(), Some(0));
    // Again, when there is nothing left to do; then back into the pool.
    pool.scale_down(&[]).ends(0, &["nothing runs on node"]);
    assert_eq!(pool.node()["SchedulingEligibility"], "ineligible");
    pool.scale_down(&["--cancel"]).ends(0, &["takes tasks again"]);
    assert_eq!(pool.node()["SchedulingEligibility"], "eligible");
}

#[test]
fn what_runs_beyond_deadline_and_grace_is_told_by_exit_code_and_name() {
    let mut pool = Pool::new();
    pool.begin("stubborn");
    pool.scale_down(&["--deadline", "1s", "--grace", "1s"]).ends(3, &["1 still running after 1s and 1s", "stubborn"]);
    // An ineligible node with something that runs, as a person may have left it, is drained.
    pool.scale_down(&["--cancel"]).ends(0, &[]);
    let id = pool.node()["ID"].as_str().expect("an id").to_owned();
    pool.agent.ask(&["node", "eligibility", "-disable", &id]).succeeded();
    fs::write(pool.end(), "").expect("a file can be written");
    pool.scale_down(&["--node", &id]).ends(0, &["nothing runs"]);
}

#[test]
fn a_nomad_that_does_not_answer_is_no_empty_node() {
    let mut pool = Pool::new();
    let id = pool.node()["ID"].as_str().expect("an id").to_owned();
    pool.scale_down(&["--node", "1234"]).ends(64, &["no whole id"]);
    pool.scale_down(&["--deadline", "soon"]).ends(64, &["is no time"]);
    pool.scale_down(&["--deadline", "0s"]).ends(64, &["for ever"]);
    pool.scale_down(&["--faster"]).ends(64, &["unknown argument"]);
    pool.agent.address = "http://127.0.0.1:1".to_owned();
    for words in [&[][..], &["--node", &id], &["--cancel"]] {
        pool.scale_down(words).ends(1, &["does not answer", "127.0.0.1:1"]);
    }
}

#[test]
fn a_token_of_the_policy_that_is_told_is_enough_and_none_is_not() {
    let mut pool = Pool::with(&["--acl"]);
    pool.begin("long");
    let text = include_str!("../../docs/nomad.md").split_once("The ACL policy that is enough").expect("it is told").1;
    let policy = text.split("```").nth(1).expect("a block").strip_prefix("hcl\n").expect("of HCL");
    let path = pool.bench.state().join("policy.hcl");
    fs::write(&path, policy).expect("a file can be written");
    pool.agent.ask(&["acl", "policy", "apply", "scale-down", path.to_str().expect("a path of ours")]).succeeded();
    let made = pool.agent.ask(&["acl", "token", "create", "-json", "-name=hook", "-policy=scale-down"]);
    let made: Value = serde_json::from_str(&made.text()).expect("JSON");
    let secret = made["SecretID"].as_str().expect("a token").to_owned();
    let admins = std::mem::take(&mut pool.agent.token);
    pool.scale_down(&["--deadline", "1h"]).ends(1, &["not to this token"]);
    pool.agent.token.clone_from(&secret);
    pool.scale_down(&["--deadline", "1s", "--grace", "0s"]).ends(3, &["1 still running", "long"]);
    fs::write(pool.end(), "").expect("a file can be written");
    let done = pool.scale_down(&[]);
    done.ends(0, &["nothing runs"]);
    assert!(!done.stderr.contains(&secret) && !done.stdout().contains(&secret));
    pool.agent.token = admins;
    assert_eq!(pool.node()["SchedulingEligibility"], "ineligible");
}

/// A systemd in which `nomad.service` runs while `runs` is there, and that refuses to stop it while `stuck` is. It says what is in
/// `state`, where that is.
const SYSTEMCTL: &str = r#"#!/bin/sh
here=$(dirname "$0")
echo "$*" >>"$here/asked"
case $1 in
is-active) [ -e "$here/runs" ] ;;
show)
  [ "$*" = "show -p ActiveState --value nomad" ] || exit 1
  if [ -e "$here/state" ]; then cat "$here/state"; elif [ -e "$here/runs" ]; then echo active; else echo inactive; fi
  ;;
stop) [ ! -e "$here/stuck" ] && rm -f "$here/runs" ;;
esac
"#;

#[test]
fn with_stop_nomad_ends_once_nothing_runs_and_a_second_call_asks_nobody() {
    let mut pool = Pool::new();
    let directory = pool.agent.programs();
    let at = |name: &str| directory.join(name);
    fs::write(at("systemctl"), SYSTEMCTL).expect("a file can be written");
    fs::set_permissions(at("systemctl"), fs::Permissions::from_mode(0o755)).expect("its mode can be set");
    for name in ["runs", "stuck"] {
        fs::write(at(name), "").expect("a file can be written");
    }
    let stops = || fs::read_to_string(at("asked")).unwrap_or_default().matches("stop nomad\n").count();
    pool.begin("long");
    pool.scale_down(&["--stop", "--deadline", "1s", "--grace", "0s"]).ends(3, &["1 still running", "long"]);
    assert_eq!(stops(), 0, "something still runs");
    fs::write(pool.end(), "").expect("a file can be written");
    pool.scale_down(&["--stop"]).ends(1, &["nomad.service could not be stopped"]);
    let mark = pool.bench.state().join("mark");
    assert!(!mark.exists(), "it still runs");
    fs::remove_file(at("stuck")).expect("a file can be removed");
    // Nomad still runs: what the mark says is not believed before it does not.
    fs::write(&mark, "another node\n").expect("a file can be written");
    pool.scale_down(&["--stop"]).ends(0, &["nothing runs on node"]);
    assert_eq!(stops(), 2);
    let id = pool.node()["ID"].as_str().expect("an id").to_owned();
    pool.agent.address = "http://127.0.0.1:1".to_owned();
    pool.scale_down(&["--stop"]).ends(0, &[&id, "was drained, and its Nomad stopped, before"]);
    assert_eq!(stops(), 2);
    // Something may run there again, or nobody knows: then Nomad is asked.
    for state in ["activating\n", "failed\n", "deactivating\n", ""] {
        fs::write(at("state"), state).expect("a file can be written");
        pool.scale_down(&["--stop"]).ends(1, &["does not answer"]);
        assert!(mark.exists(), "{state}");
    }
    fs::write(at("state"), "active\n").expect("a file can be written");
    pool.scale_down(&["--stop"]).ends(1, &["does not answer"]);
    assert!(!mark.exists(), "somebody has started it since");
    fs::write(at("state"), "inactive\n").expect("a file can be written");
    pool.scale_down(&["--stop"]).ends(1, &["does not answer"]);
    assert_eq!(stops(), 2);
}
