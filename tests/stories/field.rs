//! Attacks that other runners have had to learn of: their advisories, told on ours. `docs/security.md` lists them all.

use navvy_tests::{Bench, Signal};

/// CVE-2022-39321, CVE-2022-2251: what stood in a variable, a branch or a job's name was read by a shell or the engine's client.
const NAMES: &str = r#"
version: 2.1
jobs:
  "build $(touch ran) `touch ran`; touch ran":
    docker: [{image: navvy/busybox:static, environment: {OF_IMAGE: "\" -v /:/host '$(touch ran)' `touch ran`"}}]
    resource_class: small
    environment:
      QUOTES: "\"'`touch ran`$(touch ran)\\"
      LINES: "a\nOTHER=b\n\n-v /:/host"
      OF_KUBERNETES: "$(QUOTES) ${QUOTES} %QUOTES%"
    steps:
      - run: {name: "say $(touch ran)", command: 'for text in "$QUOTES" "$LINES" "$OF_KUBERNETES" "$OF_IMAGE" "$CIRCLE_JOB" "$CIRCLE_BRANCH"; do printf "<%s>\n" "$text"; done; echo "[$OTHER]"'}
      - save_cache: {key: 'k-$(touch ran)-`touch ran`-{{ .Branch }}', paths: [/etc/hosts]}
      - restore_cache: {name: restore, keys: ['k-$(touch ran)-`touch ran`-{{ .Branch }}']}
      - run: {name: ran, command: '(find / -name ran -not -path "/proc/*" -not -path "/sys/*" 2>/dev/null || true) | grep . || echo nothing ran; ls /host 2>&1 || true'}
workflows: {ci: {jobs: ["build $(touch ran) `touch ran`; touch ran"]}}
"#;

#[test]
fn names_and_values_are_read_by_no_shell_and_no_engine() {
    let bench = Bench::new();
    bench.config(NAMES).commit("names");
    bench.git(&["checkout", "--quiet", "-b", "$(touch${IFS}ran)"]).succeeded();
    let done = bench.run(&[]).finish();
    done.passes();
    let job = "build $(touch ran) `touch ran`; touch ran";
    let said = "<\"'`touch ran`$(touch ran)\\>\n<a\nOTHER=b\n\n-v /:/host>\n<$(QUOTES) ${QUOTES} %QUOTES%>\n\
                <\" -v /:/host '$(touch ran)' `touch ran`>\n";
    let said = format!("{said}<{job}>\n<$(touch${{IFS}}ran)>\n[]\n");
    assert_eq!(done.text(job, "say $(touch ran)"), said);
    let ran = done.text(job, "ran");
    assert!(ran.starts_with("nothing ran\n") && ran.contains("No such file"), "{ran}");
    assert!(!bench.project().join("ran").exists());
}

/// `LD_PRELOAD`, `BASH_ENV` and their like pass from step to step; they reach nothing that Navvy runs for the job.
const VARIABLES: &str = r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    environment:
      LD_LIBRARY_PATH: /tmp/evil
      TAR_OPTIONS: --checkpoint=1 --checkpoint-action=exec=/tmp/evil/tar
      GIT_SSH_COMMAND: /tmp/evil/ssh
      PATH: /tmp/evil:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    steps:
      - run:
          name: plants
          command: |
            mkdir -p /tmp/evil /tmp/kept
            for name in tar zstd gzip git ssh find sha256sum circleci navvy-supervisor; do
              printf '#!/bin/sh\necho "$0" >> /tmp/ran\n' > /tmp/evil/$name; chmod 755 /tmp/evil/$name
            done
            echo kept > /tmp/kept/file
      - checkout
      - save_cache: {key: k, paths: [/tmp/kept]}
      - restore_cache: {keys: [k]}
      - persist_to_workspace: {root: /tmp, paths: [kept]}
      - attach_workspace: {at: /tmp/attached}
      - store_artifacts: {path: /tmp/kept}
      - run: {name: ran, command: 'cat /tmp/ran 2>/dev/null || echo nothing ran; cat /tmp/kept/file'}
workflows: {ci: {jobs: [build]}}
"#;

#[test]
fn variables_of_a_job_reach_no_program_of_ours() {
    let bench = Bench::new();
    let done = bench.config(VARIABLES).run(&[]).finish();
    done.passes();
    assert_eq!(done.text("build", "ran"), "nothing ran\nkept\n");
}

/// The environments of others' processes hold their secrets.
const NEIGHBOURS: &str = r#"
version: 2.1
jobs:
  has:
    docker: [{image: navvy/busybox:static}]
    resource_class: small
    environment: {OF_THE_NEIGHBOUR: mark-5f0c9b}
    steps: [{run: {name: has, command: 'echo has it; until [ -e /go ]; do sleep 0.1; done'}}]
  looks:
    docker: [{image: navvy/busybox:static}]
    resource_class: small
    steps:
      - run: {name: looks, command: 'cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr "\0" "\n" | grep -c "mark-5f0c9[b]" || true; ls -d /proc/[0-9]* | wc -l | grep -xE "[0-9]|1[0-9]"'}
workflows: {ci: {jobs: [has, looks]}}
"#;

#[test]
fn a_job_sees_no_process_of_another() {
    let bench = Bench::new();
    let run = bench.config(NEIGHBOURS).run(&[]);
    let task = run.wait_for_output("has it").task().expect("output is a task's").to_owned();
    run.wait_for("the neighbour has looked", std::time::Duration::from_secs(60), |event| event.is_end_of("looks"));
    for container in bench.docker().containers_of(&task) {
        bench.docker().ask(&["exec", &container, "touch", "/go"]).succeeded();
    }
    let done = run.finish();
    done.passes();
    let looked = done.text("looks", "looks");
    assert!(looked.starts_with("0\n"), "{looked}");
}

/// gitlab-runner #6784: a script that was canceled was written to its log.
const CANCELED: &str = r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - run:
          name: goes on
          command: |
            # body-of-the-script
            echo ready
            while :; do sleep 0.1; done
workflows: {ci: {jobs: [build]}}
"#;

#[test]
fn a_script_that_is_canceled_is_not_in_its_log() {
    for second in [false, true] {
        let bench = Bench::new();
        let run = bench.config(CANCELED).run(&[]);
        run.wait_for_output("ready");
        run.signal(Signal::Interrupt);
        if second {
            run.wait_for("the first Ctrl-C", std::time::Duration::from_secs(20), |event| event.is("stop_asked"));
            run.signal(Signal::Interrupt);
        }
        let done = run.finish();
        done.exits_with(130);
        let said = done.text("build", "goes on");
        assert!(said.starts_with("ready\n") && !said.contains("body-of-the-script"), "{said}");
        assert!(!done.stderr.contains("body-of-the-script"), "{}", done.stderr);
    }
}
