//! What a step is: its shell, its environment, its terminal, its end, and what it leaves running.

use navvy_tests::{Bench, Unhindered, everywhere};

/// Between SIGTERM and SIGKILL.
const GRACE_MS: u64 = 10_000;

everywhere! {
    fn the_first_failing_step_decides_and_every_byte_is_kept(bench: Bench) {
        let done = bench.run_config(
            r#"
version: 2.1
executors:
  base: {docker: [{image: navvy/base:bookworm}], resource_class: small}
jobs:
  good:
    executor: base
    steps:
      - run: {name: bytes, command: "printf 'a\\tb\\r\\n\\033[31mred\\033[0m no newline'"}
      - run: {name: stderr too, command: "echo out; echo err >&2"}
      - run: {name: on failure only, when: on_fail, command: echo never}
  bad:
    executor: base
    steps:
      - run: {name: fails, command: "echo before; false | cat; echo behind"}
      - run: {name: after, command: echo never}
      - run: {name: cleanup, when: on_fail, command: echo mended}
      - run: {name: dies, when: always, command: kill -9 $$}
workflows:
  ci: {jobs: [good, bad]}
"#,
            &[],
        );
        done.exits_with(1);

        assert_eq!(done.verdict("good"), "passed");
        assert_eq!(done.log("good", "bytes"), b"a\tb\r\n\x1b[31mred\x1b[0m no newline");
        assert_eq!(done.text("good", "stderr too"), "out\nerr\n");
        assert_eq!(done.skipped("good", "on failure only"), "nothing_failed");
        let bytes = done.step("good", "bytes");
        assert_eq!(bytes.outcome, "success");
        assert!(bytes.trailers.is_empty());
        assert_eq!(bytes.sha256, navvy_tests::sha256(&done.log("good", "bytes")));
        let header = done.event("start of `bytes`", |event| event.is_start_of("bytes")).text("header").to_owned();
        assert_eq!(header, "#!/bin/bash -eo pipefail\nprintf 'a\\tb\\r\\n\\033[31mred\\033[0m no newline'");

        assert_eq!(done.verdict("bad"), "failed");
        let fails = done.step("bad", "fails");
        assert_eq!(fails.trailers, ["Exited with code exit status 1", "CircleCI received exit code 1"]);
        assert_eq!(done.text("bad", "fails"), "before\n");
        assert_eq!(done.skipped("bad", "after"), "job_failed");
        assert_eq!(done.text("bad", "cleanup"), "mended\n");
        let dies = done.step("bad", "dies");
        assert_eq!(dies.trailers, ["Received \"killed\" signal", "CircleCI received exit code 137"]);
    }

    fn the_nearest_variable_directory_and_shell_win(bench: Bench) {
        bench.file("vars.env", "FROM_FILE=fil\nLAYER=fil\n");
        bench.commit("a project");
        let done = bench.run_config(
            r#"
version: 2.1
jobs:
  build:
    docker:
      - image: navvy/base:bookworm
        environment: {LAYER: container, CONTAINER: yes-container}
    resource_class: small
    working_directory: ~/work/here
    environment: {JOB: job, BOTH: job, CIRCLE_JOB: mine}
    steps:
      - run:
          name: variables
          environment: {BOTH: step, LITERAL: $JOB}
          command: |
            echo "$CONTAINER $LAYER $FROM_FILE $FLAG $JOB $BOTH $LITERAL $CIRCLE_JOB $CI $CIRCLECI"
            echo "$CIRCLE_BRANCH $CIRCLE_NODE_INDEX/$CIRCLE_NODE_TOTAL $CIRCLE_WORKING_DIRECTORY $(whoami) $HOME"
      - run: {name: job directory, command: pwd}
      - run: {name: below it, working_directory: deeper/still, command: pwd}
      - run: {name: home, working_directory: "~/elsewhere", command: pwd}
      - run: {name: absolute, working_directory: /tmp/x, command: pwd}
      - run: {name: fresh shell, command: 'echo "${LOST-unset}"; export LOST=1; cd /'}
      - run: {name: another fresh shell, command: 'echo "${LOST-unset}"; pwd'}
      - run: {name: python, shell: python3 -u, command: "import sys; print('python', sys.argv)"}
      - run: {name: plain sh, shell: /bin/sh, command: "false; echo went on"}
workflows:
  ci: {jobs: [build]}
"#,
            &["--env-file", "vars.env", "-e", "FLAG=flg", "-e", "LAYER=flg"],
        );
        done.passes();
        let text = |step: &str| done.text("build", step);
        assert_eq!(
            text("variables"),
            "yes-container flg fil flg job step $JOB mine true true\n\
             main 0/1 ~/work/here circleci /home/circleci\n"
        );
        assert_eq!(text("job directory"), "/home/circleci/work/here\n");
        assert_eq!(text("below it"), "/home/circleci/work/here/deeper/still\n");
        assert_eq!(text("home"), "/home/circleci/elsewhere\n");
        assert_eq!(text("absolute"), "/tmp/x\n");
        assert_eq!(text("another fresh shell"), "unset\n/home/circleci/work/here\n");
        assert_eq!(text("python"), "python ['-c']\n");
        assert_eq!(text("plain sh"), "went on\n");
    }

    fn what_a_step_leaves_running_lives_and_speaks_until_the_job_ends(bench: Bench) {
        let done = bench.run_config(
            r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - run:
          name: background
          background: true
          command: |
            echo background speaks
            until [ -e /tmp/last ]; do sleep 0.05; done
            echo background speaks late; touch /tmp/heard; sleep 1000
      - run:
          name: daemon
          command: |
            (until [ -e /tmp/go ]; do sleep 0.05; done; echo late word; touch /tmp/said; exec sleep 1000) &
            setsid sleep 2000 &
            echo $! > /tmp/session
            echo started
      - run:
          name: meets them
          command: |
            touch /tmp/go
            until [ -e /tmp/said ]; do sleep 0.05; done
            kill -0 "$(cat /tmp/session)" && echo alive
            touch /tmp/last
            until [ -e /tmp/heard ]; do sleep 0.05; done
workflows:
  ci: {jobs: [build]}
"#,
            &[],
        );
        done.passes();
        assert_eq!(done.text("build", "daemon"), "started\nlate word\n");
        assert_eq!(done.text("build", "meets them"), "alive\n");
        assert_eq!(done.text("build", "background"), "background speaks\nbackground speaks late\n");
        assert_eq!(done.step("build", "background").outcome, "canceled");
    }

    fn output_is_a_terminal_that_adds_nothing_and_input_is_empty(bench: Bench) {
        let done = bench.run_config(
            r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - run:
          name: terminal
          command: |
            for fd in 0 1 2; do [ -t $fd ] && echo "$fd is a terminal" || echo "$fd is none"; done
            (: </dev/tty) 2>/dev/null && echo "there is a /dev/tty" || echo "there is no /dev/tty"
            read -r line || echo "input is empty"
            stty size <&1
            printf 'one\ntwo\r\n\x04\x03\x1a end\n'
      - run: {name: piped, command: "seq 3 | cat"}
workflows:
  ci: {jobs: [build]}
"#,
            &[],
        );
        done.passes();
        assert_eq!(
            done.text("build", "terminal"),
            "0 is none\n1 is a terminal\n2 is a terminal\nthere is no /dev/tty\ninput is empty\n40 120\n\
             one\ntwo\r\n\x04\x03\x1a end\n"
        );
        assert_eq!(done.text("build", "piped"), "1\n2\n3\n");
    }
}

#[test]
fn without_a_terminal_steps_get_pipes() {
    let bench = Bench::new();
    let done = bench.run_config(
        r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/busybox:static}]
    resource_class: small
    steps:
      - run:
          name: pipes
          command: |
            for fd in 0 1 2; do if [ -t $fd ]; then echo "$fd is a terminal"; else echo "$fd is none"; fi; done
            echo loud >&2
workflows:
  ci: {jobs: [build]}
"#,
        &["--no-tty"],
    );
    done.passes();
    let stderr = done.event("what went to standard error", |event| event.is_output_with("loud"));
    assert_eq!(stderr.text("stream"), "stderr");
    let text = done.text("build", "pipes");
    assert!(text.starts_with("0 is none\n1 is none\n2 is none\n") && text.ends_with("loud\n"), "{text:?}");
}

#[test]
fn halt_ends_the_job_after_its_own_step_whoever_is_asked() {
    let bench = Bench::new();
    let done = bench.run_config(
        r#"
version: 2.1
executors:
  box: {docker: [{image: navvy/busybox:static}], resource_class: small}
jobs:
  early:
    executor: box
    steps:
      - run: {name: halts, command: "circleci-agent step halt; echo still here"}
      - run: {name: never, command: "false"}
      - run: {name: not even this, when: always, command: "false"}
  failed:
    executor: box
    steps:
      - run: {name: fails, command: "false"}
      - run: {name: halts, when: always, command: circleci step halt}
      - run: {name: never, when: always, command: echo}
  asks:
    executor: box
    environment: {NAME: world}
    steps:
      - run: {name: substitutes, command: "circleci env subst 'hello ${NAME}'"}
      - run: {name: version, command: circleci version}
workflows:
  ci: {jobs: [early, failed, asks]}
"#,
        &[],
    );
    done.exits_with(1);
    assert_eq!(done.verdict("early"), "passed");
    assert_eq!(done.text("early", "halts"), "still here\n");
    assert_eq!(done.skipped("early", "never"), "halted");
    assert_eq!(done.skipped("early", "not even this"), "halted");
    assert_eq!(done.verdict("failed"), "failed");
    assert_eq!(done.skipped("failed", "never"), "halted");
    assert_eq!(done.text("asks", "substitutes").trim_end(), "hello world");
    assert!(!done.text("asks", "version").trim().is_empty());
}

#[test]
fn bash_env_carries_over_and_a_step_is_tried_again() {
    let bench = Bench::new();
    let done = bench.run_config(
        r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - run:
          name: exports
          command: |
            echo 'export CARRIED="from before"' >> "$BASH_ENV"
            echo 'export CIRCLE_JOB=overridden' >> "$BASH_ENV"
            [ "$BASH_ENV" = "$CIRCLE_SHELL_ENV" ] && echo "${CARRIED-not yet}"
      - run: {name: sees, environment: {CARRIED: weaker}, command: 'echo "$CARRIED $CIRCLE_JOB"'}
      - run: {name: sh does not, shell: /bin/sh, command: 'echo "${CARRIED-unset}"'}
      - run:
          name: flaky
          max_auto_reruns: 3
          command: |
            echo try >> /tmp/tries
            echo "attempt $(wc -l < /tmp/tries)"
            [ "$(wc -l < /tmp/tries)" = 3 ]
      - run: {name: hopeless, max_auto_reruns: 1, command: exit 7}
workflows:
  ci: {jobs: [build]}
"#,
        &[],
    );
    done.exits_with(1);
    assert_eq!(done.text("build", "exports"), "not yet\n");
    assert_eq!(done.text("build", "sees"), "from before overridden\n");
    assert_eq!(done.text("build", "sh does not"), "unset\n");
    let flaky: Vec<String> = done.attempts("build", "flaky").into_iter().map(|step| step.outcome).collect();
    assert_eq!(flaky, ["exit_code", "exit_code", "success"]);
    assert_eq!(done.text("build", "flaky"), "attempt 1\nattempt 2\nattempt 3\n");
    assert_eq!(done.attempts("build", "hopeless").len(), 2);
    let hopeless = done.step("build", "hopeless");
    assert_eq!(hopeless.trailers, ["Exited with code exit status 7", "CircleCI received exit code 7"]);
}

#[test]
fn too_long_without_output_ends_all_that_the_step_started_and_nothing_else() {
    let bench = Bench::new();
    let since = Unhindered::since_now();
    let done = bench.run_config(
        r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - run:
          name: background
          background: true
          command: 'trap "" TERM; while :; do touch /tmp/background; sleep 0.1; done'
      - run:
          name: daemon
          command: '(trap "" TERM; while :; do touch /tmp/daemon; sleep 0.1; done) & echo started'
      - run:
          name: monster
          no_output_timeout: 4s
          command: |
            trap '' TERM
            for i in $(seq 200); do (setsid bash -c '(exec -a monster sleep 1000) &' &); echo $i; done
            until [ "$(pgrep -fc '^monster ')" = 200 ]; do echo not yet; sleep 0.05; done
            echo two hundred
            sleep 1000
      - run: {name: skipped, command: echo never}
      - run:
          name: autopsy
          when: always
          command: |
            [ "$(pgrep -fc '^monster ')" = 0 ] && echo all gone
            rm /tmp/background /tmp/daemon
            until [ -e /tmp/background ] && [ -e /tmp/daemon ]; do sleep 0.05; done
            echo both live
workflows:
  ci: {jobs: [build]}
"#,
        &[],
    );
    let hindered = u64::try_from(since.hindered().as_millis()).unwrap_or(u64::MAX);
    done.exits_with(1);
    let monster = done.step("build", "monster");
    assert_eq!(monster.outcome, "no_output");
    assert_eq!(monster.trailers, ["Too long with no output (exceeded 4s): context deadline exceeded"]);
    let spoke = done.event("the last word of the monster", |event| event.is_output_with("two hundred")).at_ms();
    let gone = done.event("the last of the two hundred", |event| event.is_output_with("all gone")).at_ms();
    // That they were gone once the step had ended, the autopsy's one look says.
    let latest = 4_000 + GRACE_MS + 1_000 + hindered;
    assert!((4_000..latest).contains(&(gone - spoke)), "gone {} ms after its last word", gone - spoke);
    assert_eq!(done.skipped("build", "skipped"), "job_failed");
    assert_eq!(done.text("build", "autopsy"), "all gone\nboth live\n");
}

#[test]
fn the_job_limit_ends_everything_whatever_its_when_says() {
    let bench = Bench::new();
    bench.config(
        r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/busybox:static}]
    resource_class: small
    steps:
      - run: {name: sleeps, command: "while :; do echo awake; sleep 0.2; done"}
      - run: {name: never, when: always, command: echo never}
workflows:
  ci: {jobs: [build]}
"#,
    );
    let done = bench.run(&["--job-limit", "3s"]).finish();
    done.exits_with(1);
    assert_eq!(done.verdict("build"), "timed_out");
    assert_eq!(done.step("build", "sleeps").outcome, "job_limit");
    assert_eq!(done.skipped("build", "never"), "stopped");
}

#[test]
fn want_of_memory_is_said_with_its_limit() {
    let bench = Bench::new();
    let done = bench.run_config(
        r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - run:
          name: eats
          shell: python3 -u
          command: |
            import time
            eaten = []
            while True: eaten.append(bytearray(67108864)); time.sleep(0.06)
workflows:
  ci: {jobs: [build]}
"#,
        &[],
    );
    done.exits_with(1);
    let eats = done.step("build", "eats");
    assert_eq!(eats.outcome, "out_of_memory");
    let said = eats.trailers.join("\n");
    assert!(said.contains("limit 2048 MiB"), "{said}");
}
