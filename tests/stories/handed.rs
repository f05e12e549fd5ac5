//! What a job is handed of the caller's machine, by name: the engine that runs it, and the user's ssh-agent.

use navvy_tests::{Bench, everywhere};

fn yaml(steps: &str) -> String {
    format!(
        "version: 2.1\njobs:\n  build:\n    docker: [{{image: navvy/base:bookworm}}]\n    resource_class: small\n    \
         steps:\n{steps}"
    )
}

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
        for words in ["whatever root can do on", "stay until they are removed", "say nothing here", "/var/run/docker.sock"] {
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
