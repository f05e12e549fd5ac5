//! What a job is handed of the caller's machine, by name: the engine that runs it, and the user's ssh-agent.

use std::path::{Path, PathBuf};
use std::time::Duration;

use navvy_tests::{Bench, Docker, Program, Proxy, SshAgent, eventually, everywhere};

use crate::ssh_keys::yaml;

/// Asks the engine by the socket that `DOCKER_HOST` names, as any client would.
const PING: &str = r#"
      - run:
          name: ping
          command: |
            id -un; stat -c '%a %U' "${DOCKER_HOST#unix://}"
            curl -sS --max-time 60 --unix-socket "${DOCKER_HOST#unix://}" http://engine/_ping
            curl -sS --max-time 60 --unix-socket "${DOCKER_HOST#unix://}" http://engine/version | python3 -c 'import json,sys; print("\nversion", "ApiVersion" in json.load(sys.stdin))'
      - run:
          name: half-closes
          command: |
            python3 - \<<'END'
            import os, socket
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(60)
            s.connect(os.environ["DOCKER_HOST"][len("unix://"):])
            s.sendall(b"GET /_ping HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n")
            s.shutdown(socket.SHUT_WR)
            answer = b""
            while part := s.recv(4096): answer += part
            print(answer.endswith(b"OK"))
            END
"#;

everywhere! {
    fn a_job_gets_the_engine_that_was_named(bench: Bench) {
        let before = "      - run: {name: before, command: 'echo \"[${DOCKER_HOST-none}]\"; ls /var/run/docker.sock || true'}\n";
        let steps = format!("{before}      - setup_remote_docker: {{version: default}}{PING}");
        let done = bench.run_config(&yaml(&steps), &["--remote-docker", "host"]);
        done.passes();
        assert!(done.text("build", "before").contains("[none]"), "{}", done.account());
        let said = done.text("build", "ping");
        assert!(said.starts_with("circleci\n600 circleci\nOK\n") && said.contains("version True"), "{said}");
        assert_eq!(done.text("build", "half-closes"), "True\n");
        let told = done.text("build", "Setup a remote Docker engine");
        for words in ["everything root can do on", "stay until they are removed", "say nothing here", "/var/run/docker.sock"] {
            assert!(told.contains(words), "{words} in {told}");
        }
        let warning = done.event("a warning", |event| event.is("warning"));
        assert!(warning.text("message").contains("--remote-docker host: a job with setup_remote_docker can"), "{warning:?}");
    }
}

#[test]
fn a_taken_place_is_left_alone() {
    let bench = Bench::new();
    let take = "      - run: 'sudo sh -c \"echo mine > /run/docker.sock\"'\n      - setup_remote_docker";
    let done = bench.run_config(
        &yaml(&format!("{take}{PING}      - run: {{name: left, command: 'cat /run/docker.sock'}}\n")),
        &["--remote-docker", "host"],
    );
    done.passes();
    assert_eq!(done.text("build", "left"), "mine\n");
    assert!(done.text("build", "Setup a remote Docker engine").contains("/opt/navvy/handed/docker.sock"));
}

#[test]
fn whoever_goes_on_is_handed_the_same_again() {
    let bench = Bench::new();
    let steps = format!("      - setup_remote_docker\n      - run: {{name: waits, command: 'test -e ~/go'}}{PING}");
    bench
        .config(&yaml(&steps))
        .run(&["--remote-docker", "host", "--keep-on-fail"])
        .that_leaves_things()
        .finish()
        .exits_with(1);
    let alone =
        "python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect(\"/var/run/docker.sock\")' || touch ~/go";
    bench.ask(&["shell", "build", "--", "sh", "-c", alone]).passes();
    let again = bench.start(&["retry", "build", "--json"]).finish();
    again.passes();
    assert!(again.text("build", "ping").contains("OK"), "{}", again.account());
}

#[test]
fn a_lost_supervisor_listens_again() {
    let proxy = Proxy::to("/var/run/docker.sock".as_ref());
    let bench = Bench::new().on(Docker::default(), &proxy.address());
    let steps = r#"      - setup_remote_docker
      - run:
          name: asks
          command: |
            echo begun
            until [ -e /tmp/cut ]; do sleep 0.05; done
            for try in $(seq 200); do
              curl -sS --max-time 5 --unix-socket /var/run/docker.sock http://engine/_ping && exit 0
              sleep 0.1
            done
            exit 1
"#;
    bench.config(&yaml(steps));
    let run = bench.run(&["--remote-docker", "host"]);
    let task = run.wait_for_output("begun").task().expect("output is a task's").to_owned();
    eventually("a connection to cut", Duration::from_secs(20), || (proxy.cut_supervisors() > 0).then_some(()));
    bench.docker().ask(&["exec", &format!("navvy-{task}-primary"), "touch", "/tmp/cut"]).succeeded();
    let done = run.finish();
    done.passes();
    assert!(done.text("build", "asks").ends_with("OK"), "{}", done.account());
}

#[test]
fn a_step_that_finds_no_daemon_is_told_why() {
    let bench = Bench::new();
    let cries = "printf 'Cannot connect to the Dock'; sleep 0.1; echo 'er daemon at unix:///var/run/docker.sock. Is the docker daemon running?'";
    let steps = format!(
        "      - setup_remote_docker\n      - run: {{name: survives, command: \"{cries}\"}}\n      - run: {{name: other, \
         when: always, command: 'echo docker; false'}}\n      - run: {{name: fails, when: always, command: \"{cries}; exit 3\"}}\n"
    );
    let done = bench.run_config(&yaml(&steps), &[]);
    done.exits_with(1);
    let hints = |step: &str| done.step("build", step).trailers.join("\n").contains("--remote-docker host");
    assert_eq!((hints("survives"), hints("other"), hints("fails")), (false, false, true), "{}", done.account());
    let end = done.event("the end", |event| event.is("run_ended"));
    assert!(
        end.summary().contains("setup_remote_docker")
            || end.get("fidelity").to_string().contains("setup_remote_docker"),
        "{end:?}"
    );
}

/// A key below the bench's home; its file and its fingerprint.
fn key(bench: &Bench, name: &str) -> (PathBuf, String) {
    let file = bench.home().join(name);
    let path = file.to_str().expect("a plain path");
    Program::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f", path]).run().succeeded();
    let said = Program::new("ssh-keygen").args(["-l", "-f", path]).run().text();
    (file, said.split(' ').nth(1).expect("the fingerprint comes second").to_owned())
}

fn public(file: &Path) -> String {
    std::fs::read_to_string(file.with_extension("pub")).expect("a key can be read").trim().to_owned()
}

/// Lists, signs with either key, and tries what is not for jobs.
fn uses(ours: &Path, theirs: &Path) -> String {
    let tries = [
        ("list", "ssh-add -l".to_owned()),
        (
            "ours",
            format!(
                "echo '{}' > /tmp/ours.pub; date > /tmp/d; ssh-keygen -Y sign -n x -f /tmp/ours.pub /tmp/d",
                public(ours)
            ),
        ),
        (
            "theirs",
            format!("echo '{}' > /tmp/theirs.pub; ssh-keygen -Y sign -n x -f /tmp/theirs.pub < /tmp/d", public(theirs)),
        ),
        ("adds", "ssh-keygen -q -t ed25519 -N '' -f /tmp/new; ssh-add /tmp/new".to_owned()),
        ("removes", "ssh-add -D".to_owned()),
        ("removes one", "ssh-add -d /tmp/ours.pub".to_owned()),
        ("garbage", "printf '\\377\\377\\377\\377x' | nc -N -U -w 20 \"$SSH_AUTH_SOCK\"; ssh-add -l".to_owned()),
    ];
    let step = |(name, command): (&str, String)| {
        let command = serde_json::Value::from(format!("({command}) 2>&1 && echo it worked || echo it failed"));
        format!("      - run: {{name: {name}, command: {command}}}\n")
    };
    tries.map(step).concat()
}

everywhere! {
    fn a_job_may_use_the_keys_that_it_names_and_no_other(bench: Bench) {
        let agent = SshAgent::of(&bench);
        let bench = bench.env("SSH_AUTH_SOCK", agent.socket().to_str().expect("a plain path"));
        let ((ours, fingerprint), (theirs, other)) = (key(&bench, "ours"), key(&bench, "theirs"));
        agent.add(&ours);
        agent.add(&theirs);
        let before = "      - run: {name: before, command: 'echo \"[${SSH_AUTH_SOCK-none}]\"'}\n";
        let steps = format!("{before}      - add_ssh_keys: {{fingerprints: ['{fingerprint}', 'SHA256:nowhere']}}\n{}", uses(&ours, &theirs));
        let jobs = yaml(&steps) + "  without:\n    docker: [{image: navvy/base:bookworm}]\n    resource_class: small\n    steps:\n"
            + before + "workflows: {ci: {jobs: [build, without]}}\n";
        let done = bench.run_config(&jobs, &["--ssh-key", "agent"]);
        done.passes();
        for job in ["build", "without"] {
            assert_eq!(done.text(job, "before"), "[none]\n");
        }
        let list = done.text("build", "list");
        assert!(list.contains(&fingerprint) && !list.contains(&other) && list.ends_with("it worked\n"), "{list}");
        assert!(done.text("build", "ours").ends_with("it worked\n"), "{}", done.text("build", "ours"));
        for step in ["theirs", "adds", "removes", "removes one"] {
            assert!(done.text("build", step).ends_with("it failed\n"), "{step}: {}", done.text("build", step));
        }
        let garbage = done.text("build", "garbage");
        assert!(garbage.contains(&fingerprint), "{garbage}");
        let keys = agent.ask(&["-l"]).text();
        assert!(keys.contains(&fingerprint) && keys.contains(&other) && keys.lines().count() == 2, "{keys}");
        let told = done.text("build", "Installing additional ssh keys");
        assert!(told.contains(&fingerprint) && !told.contains(&other), "{told}");
        let warning = done.event("a warning", |event| event.is("warning"));
        assert!(warning.text("message").contains("no SSH key with the fingerprint SHA256:nowhere is here"), "{warning:?}");
    }
}

#[test]
fn a_job_that_names_no_key_may_use_all_and_it_is_said() {
    let bench = Bench::new();
    let agent = SshAgent::of(&bench);
    let bench = bench.env("SSH_AUTH_SOCK", agent.socket().to_str().expect("a plain path"));
    let ((ours, fingerprint), (_, other)) = (key(&bench, "ours"), key(&bench, "theirs"));
    agent.add(&ours);
    agent.add(&bench.home().join("theirs"));
    let steps = "      - add_ssh_keys\n      - run: {name: list, command: ssh-add -l; test -e ~/go}\n";
    bench
        .config(&yaml(steps))
        .run(&["--ssh-key", "agent", "--keep-on-fail"])
        .that_leaves_things()
        .finish()
        .exits_with(1);
    bench.ask(&["shell", "build", "--", "sh", "-c", "touch ~/go; test -z \"$SSH_AUTH_SOCK\""]).passes();
    // Whoever goes on hands out their own.
    let again = bench.start(&["retry", "build", "--json"]).finish();
    again.passes();
    let list = again.text("build", "list");
    assert!(list.contains(&fingerprint) && list.contains(&other), "{list}");
    let done = bench.run_config(&yaml("      - add_ssh_keys\n"), &["--ssh-key", "agent"]);
    done.passes();
    assert!(done.text("build", "Installing additional ssh keys").contains("all its keys"));
    let end = done.event("the end", |event| event.is("run_ended"));
    assert!(end.get("fidelity").to_string().contains("all keys of your ssh-agent could be used"), "{end:?}");
}

#[test]
fn an_agent_that_is_not_there_is_told_before_anything_runs() {
    let bench = Bench::new();
    bench.config(&yaml("      - add_ssh_keys\n"));
    bench
        .navvy(&["run", "--ssh-key", "agent"])
        .exits_with(64)
        .complains(&["--ssh-key agent", "SSH_AUTH_SOCK is not set"]);
    let bench = bench.env("SSH_AUTH_SOCK", "/nowhere/agent");
    bench.navvy(&["run", "--ssh-key", "agent"]).exits_with(64).complains(&["no ssh-agent answers at /nowhere/agent"]);
}
