//! Images, files and names that nobody sane would make: the job may fail, in words; the agent and the machine may not.

use std::fs;
use std::path::Path;
use std::time::Duration;

use navvy_tests::{Bench, Program, everywhere};

/// The agent is never larger, whatever a job does.
const PEAK_KIB: u64 = 64 << 10;

// Steps after the turn run in a shell that looks nobody up: bash itself would wait for the FIFO.

/// What `/etc/passwd` is turned into, and how.
const TURNS: [(&str, &str); 6] = [
    ("a fifo", "rm -f /etc/passwd; mkfifo /etc/passwd"),
    ("huge", "rm -f /etc/passwd; truncate -s 10G /etc/passwd"),
    ("a link to itself", "rm -f /etc/passwd; ln -s passwd /etc/passwd"),
    ("a link to a fifo", "rm -f /etc/passwd; mkfifo /tmp/pipe; ln -s /tmp/pipe /etc/passwd"),
    ("a link to endless bytes", "rm -f /etc/passwd; ln -s /dev/zero /etc/passwd"),
    ("a directory", "rm -f /etc/passwd; mkdir /etc/passwd"),
];

everywhere! {
    fn whatever_the_file_of_users_becomes_steps_go_on_or_say_why(bench: Bench) {
        let mut config = "version: 2.1\njobs:\n".to_owned();
        for (index, (_, turn)) in TURNS.iter().enumerate() {
            for (job, user, sudo) in [("number", "'0'", ""), ("name", "circleci", "sudo -n ")] {
                config.push_str(&format!(
                    "  {job}-{index}:\n    docker: [{{image: navvy/base:bookworm, user: {user}}}]\n    \
                     resource_class: small\n    steps:\n      - run: {{name: turns, command: {sudo}sh -c '{turn}'}}\n      \
                     - run: {{name: goes on, shell: /bin/sh -e, command: echo goes on}}\n"
                ));
            }
        }
        config.push_str("workflows:\n  ci:\n    jobs:\n");
        for index in 0..TURNS.len() {
            config.push_str(&format!("      - number-{index}\n      - name-{index}\n"));
        }
        let done = bench.run_config(&config, &[]);
        done.exits_with(1);
        for (index, (what, _)) in TURNS.iter().enumerate() {
            let (number, name) = (format!("number-{index}"), format!("name-{index}"));
            assert_eq!(done.text(&number, "goes on"), "goes on\n", "{what}");
            let said = done.step(&name, "goes on");
            assert_eq!(done.verdict(&name), "failed", "{what}: {}", done.account());
            assert!(said.trailers.join("\n").contains("does not exist") || said.event.get("outcome").to_string().contains("does not exist"), "{what}: {}", said.event.summary());
            assert!(said.duration_ms < 5_000, "{what}: it took {} ms", said.duration_ms);
        }
        assert!(done.peak_kib <= PEAK_KIB, "the agent took {} KiB", done.peak_kib);
    }
}

#[test]
fn images_with_odd_directories_and_thousands_of_variables() {
    let bench = Bench::of(navvy_tests::Setting::Plain);
    let image = "navvy/odd:story";
    bench.docker().load_changed("navvy/busybox:static", image, |config| {
        let settings = &mut config["config"];
        settings["WorkingDir"] = "/proc/self/fd/8".into();
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned();
        let variables = (0..10_000).map(|number| format!("ODD_{number}=value of {number}"));
        settings["Env"] = variables.chain([path]).collect::<Vec<_>>().into();
    });
    let done = bench.run_config(
        r#"
version: 2.1
jobs:
  primary:
    docker: [{image: navvy/odd:story}]
    resource_class: small
    steps:
      - run: {name: counts, command: 'env | grep -c ^ODD_; pwd'}
  as-user:
    docker: [{image: navvy/odd:story, user: '1000'}]
    resource_class: small
    working_directory: /tmp/here
    steps:
      - run: {name: counts, command: 'env | grep -c ^ODD_; pwd'}
  elsewhere:
    docker: [{image: navvy/busybox:static}]
    resource_class: small
    steps:
      - run: {name: enters, working_directory: /proc/self/fd/8, command: 'pwd; ls ../../..'}
  elsewhere-as-user:
    docker: [{image: navvy/busybox:static, user: '1000'}]
    resource_class: small
    working_directory: /tmp/here
    steps:
      - run: {name: enters, working_directory: /proc/self/fd/8, command: 'pwd; ls ../../..'}
  service:
    docker: [{image: navvy/busybox:static}, {image: navvy/odd:story, command: [sleep, '1000']}]
    resource_class: small
    steps: [{run: echo never}]
workflows:
  ci: {jobs: [primary, as-user, elsewhere, elsewhere-as-user, service]}
"#,
        &["--pull", "never"],
    );
    bench.docker().ask(&["rmi", image]).succeeded();
    done.exits_with(1);
    assert_eq!(done.text("primary", "counts"), "10000\n/project\n");
    assert_eq!(done.text("as-user", "counts"), "10000\n/tmp/here\n");
    for job in ["elsewhere", "elsewhere-as-user"] {
        assert_eq!(done.verdict(job), "failed", "{}", done.account());
        assert_eq!(done.text(job, "enters"), "", "{job} entered an open file of the supervisor's");
    }
    let said = done.step("service", "Spin up environment").trailers.join("\n");
    assert!(said.contains("/proc/self/fd/8"), "{said}");
    assert_eq!(done.verdict("service"), "failed");
}

#[test]
fn an_image_without_a_shell_says_the_way_out() {
    let bench = Bench::of(navvy_tests::Setting::Plain);
    let image = "navvy/shell-less:story";
    bench.docker().image_of_noise(image, 1);
    let done = bench.run_config(
        r#"
version: 2.1
jobs:
  default:
    docker: [{image: 'navvy/shell-less:story'}]
    resource_class: small
    steps:
      - run: {name: says, command: echo never}
  named:
    docker: [{image: 'navvy/shell-less:story'}]
    resource_class: small
    shell: /bin/bash -eo pipefail
    steps:
      - checkout
      - run: {name: says, command: echo never}
  background:
    docker: [{image: 'navvy/shell-less:story'}]
    resource_class: small
    steps:
      - run: {name: says, background: true, command: echo never}
workflows:
  ci: {jobs: [default, named, background]}
"#,
        &["--pull", "never"],
    );
    bench.docker().ask(&["rmi", image]).succeeded();
    done.exits_with(1);
    for job in ["default", "named", "background"] {
        assert_eq!(done.verdict(job), "failed", "{}", done.account());
        let said = done.step(job, "says").trailers.join("\n");
        assert!(
            said.starts_with("navvy/shell-less:story has no shell (neither /bin/bash nor /bin/sh is there)"),
            "{job}: {said}"
        );
        assert!(said.contains("an image that has a shell") && said.contains("as a service"), "{job}: {said}");
    }
}

/// What is changed in an image's config so that no container can be made of it, and what the job is told.
const ODD_IMAGES: [(&str, &str, &str); 6] = [
    ("nameless", r#"{"Env": ["=x", "PATH=/bin"]}"#, "a variable without a name"),
    ("long", "", "Linux hands at most 131072"),
    ("below", r#"{"Volumes": {"/opt/navvy/run/control.sock": {}}}"#, "where the supervisor is"),
    ("processes", r#"{"Volumes": {"/proc/self": {}}}"#, "where the engine puts the processes"),
    ("whole", r#"{"Volumes": {"/": {}}}"#, "where the image itself is"),
    // Nothing that the agent knows of: the engine's word for it.
    ("hosts", r#"{"Volumes": {"/etc/hosts": {}}}"#, "/merged/etc/hosts"),
];

#[test]
fn an_odd_image_fails_its_job_and_teaches_later_ones_nothing() {
    let bench = Bench::of(navvy_tests::Setting::Plain);
    let mut config = "version: 2.1\njobs:\n  good:\n    docker: [{image: navvy/busybox:static}]\n    \
                      resource_class: small\n    steps: [{run: {name: works, command: echo works}}]\n"
        .to_owned();
    let mut after = Vec::new();
    for (name, settings, _) in ODD_IMAGES {
        bench.docker().load_changed("navvy/busybox:static", &format!("navvy/odd-{name}:story"), |config| {
            let long = serde_json::json!({"Env": [format!("LONG={}", "x".repeat(200_000))]});
            let settings = if settings.is_empty() { long } else { serde_json::from_str(settings).expect("it is JSON") };
            for (key, value) in settings.as_object().expect("it is an object") {
                config["config"][key] = value.clone();
            }
        });
        config.push_str(&format!(
            "  {name}:\n    docker: [{{image: navvy/odd-{name}:story}}]\n    resource_class: small\n    steps: [{{run: echo never}}]\n"
        ));
        after.push(format!("{name}: [failed, not_run]"));
    }
    let jobs: Vec<_> = ODD_IMAGES.iter().map(|(name, ..)| *name).collect();
    config.push_str(&format!(
        "workflows:\n  ci: {{jobs: [{}, {{good: {{requires: [{{{}}}]}}}}]}}\n",
        jobs.join(", "),
        after.join("}, {")
    ));
    let done = bench.run_config(&config, &["--pull", "never"]);
    for (name, ..) in ODD_IMAGES {
        bench.docker().ask(&["rmi", &format!("navvy/odd-{name}:story")]).succeeded();
    }
    done.exits_with(1);
    for (name, _, words) in ODD_IMAGES {
        let said = done.step(name, "Spin up environment").trailers.join("\n");
        assert!(said.contains(words) && said.contains(&format!("navvy/odd-{name}:story")), "{name}: {said}");
        assert_eq!(done.verdict(name), "failed", "{name}: {}", done.account());
    }
    let report = done.text("good", "Spin up environment");
    assert!(report.contains("shared socket"), "a later job is reached another way: {report}");
    assert!(report.contains("for all containers together"), "a later job has no joint limits: {report}");
    assert_eq!(done.text("good", "works"), "works\n");
}

/// Title, clipboard, cursor, a question for the terminal, a link, and the same without ESC.
const ESCAPES: &str = "\u{1b}]0;PWNED\u{7}\u{1b}]52;c;UFdORUQ=\u{7}\u{1b}[77;77H\u{1b}[6n\u{1b}]8;;http://pwned/\u{1b}\\\u{9d}2;PWNED\u{9c}\u{9b}77;77H";

fn escaping_config() -> String {
    let yaml = serde_json::Value::from(ESCAPES).to_string().replace('\u{9d}', "\\u009d").replace('\u{9b}', "\\u009b");
    let text = yaml.replace('\u{9c}', "\\u009c");
    let text = text.trim_matches('"');
    format!(
        r#"
version: 2.1
jobs:
  "job {text}":
    docker: [{{image: navvy/busybox:static}}, {{image: navvy/busybox:static, name: noisy, command: [printf, "service {text}"]}}]
    resource_class: small
    steps:
      - run: {{name: "step {text}", command: "echo 'output {text}'"}}
      - run: {{name: "error {text}", shell: "/no/{text}", command: "true"}}
      - run: {{name: "place {text}", when: always, working_directory: "/proc/{text}", command: "true"}}
      - run: {{name: "fails", when: always, command: "printf 'tail {text}'; exit 9"}}
workflows:
  ci: {{jobs: ["job {text}"]}}
"#
    )
}

/// What no terminal may get of a job, whoever draws.
#[track_caller]
fn assert_tame(shown: &str, what: &str) {
    for forbidden in [
        "\u{1b}]",
        "\u{9d}",
        "\u{9b}",
        "\u{90}",
        "\u{1b}P",
        "\u{1b}_",
        "\u{1b}^",
        "\u{7}",
        "\u{1b}[77;77H",
        "\u{1b}[6n",
    ] {
        assert!(!shown.contains(forbidden), "{what} shows {forbidden:?}: {shown:?}");
    }
}

#[test]
fn no_escape_of_a_jobs_reaches_the_terminal() {
    let bench = Bench::new();
    bench.config(&escaping_config());
    for view in [&[][..], &["--verbose"], &["--quiet"]] {
        let done = bench.run_for_people(view).finish();
        done.exits_with(1);
        assert_tame(&done.stdout(), &format!("stdout {view:?}"));
        assert_tame(&done.stderr, &format!("stderr {view:?}"));
    }
    let live = bench.run_on_a_terminal(&["--color", "always"]);
    live.exits_with(1);
    assert!(live.stdout().contains("\u{1b}["), "the live view draws: {}", live.account());
    assert_tame(&live.stdout(), "the live view");
    for inspection in [&["run", "--list"][..], &["run", "--graph"], &["run", "--dry-run"], &["config", "validate"]] {
        let shown = bench.navvy(inspection);
        assert_tame(&shown.stdout(), &format!("{inspection:?}"));
        assert_tame(&shown.stderr, &format!("{inspection:?}"));
    }
    bench.config(
        &escaping_config().replace("resource_class", "resource_clas").replace("ci: {jobs: [", "ci: {jobs: [nobody, "),
    );
    let wrong = bench.navvy(&["config", "validate"]);
    wrong.exits_with(2);
    assert_tame(&wrong.stdout(), "a wrong config");
    assert_tame(&wrong.stderr, "a wrong config");
}

#[test]
fn names_are_never_paths() {
    let bench = Bench::new();
    let long = "n".repeat(1_000);
    bench.config(&format!(
        r#"
version: 2.1
jobs:
  "../../x":
    docker: [{{image: navvy/busybox:static}}]
    resource_class: small
    steps:
      - run: {{name: "../../../../tmp/x", command: echo one}}
      - run: {{name: "two\nlines\u0001", command: echo two}}
      - run: {{name: "{long}", command: echo three}}
      - run: {{name: "/etc/passwd", background: true, command: echo four}}
workflows:
  "../ci": {{jobs: [{{"../../x": {{context: ["../../../x", "/etc/passwd"]}}}}]}}
"#
    ));
    let done = bench.run_for_people(&[]).finish();
    done.passes();
    assert_eq!(done.text("../../x", "../../../../tmp/x"), "one\n");
    assert_eq!(done.text("../../x", &long), "three\n");
    let runs = bench.state().join("navvy/runs");
    let found = Program::new("find").args([runs.as_os_str()]).args(["-type", "f"]).run().text();
    for path in found.lines() {
        let name = Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let known = name == "events.jsonl" || name.bytes().next().is_some_and(|byte| byte.is_ascii_digit());
        assert!(known && name.len() < 40, "a name of the config's became a file: {path}");
    }
    let outside: Vec<_> = fs::read_dir(bench.state()).expect("it is there").flatten().map(|e| e.file_name()).collect();
    assert_eq!(outside, ["navvy"]);
}

#[test]
fn the_agent_listens_nowhere() {
    let bench = Bench::new();
    bench.config(
        r#"
version: 2.1
jobs:
  build:
    docker: [{image: navvy/busybox:static}, {image: navvy/busybox:static, command: [sleep, '1000']}]
    resource_class: small
    steps: [{run: {name: holds, command: 'echo it waits; sleep 1000'}}]
workflows:
  ci: {jobs: [build]}
"#,
    );
    let run = bench.run(&[]);
    run.wait_for_output("it waits");
    let descriptors = fs::read_dir(format!("/proc/{}/fd", run.pid())).expect("the agent runs").flatten();
    let sockets: Vec<String> = descriptors
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter_map(|target| Some(target.to_str()?.strip_prefix("socket:[")?.trim_end_matches(']').to_owned()))
        .collect();
    assert!(!sockets.is_empty(), "it speaks with the engine at least");
    // Of TCP the state, of unix sockets the flags say who listens; then comes the inode.
    for (table, column, listening, inode) in [
        ("tcp", 3, "0A", 9),
        ("tcp6", 3, "0A", 9),
        ("udp", 3, "07", 9),
        ("udp6", 3, "07", 9),
        ("unix", 3, "00010000", 6),
    ] {
        let text = fs::read_to_string(format!("/proc/{}/net/{table}", run.pid())).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (Some(state), Some(number)) = (fields.get(column), fields.get(inode)) else { continue };
            let is_ours = sockets.iter().any(|socket| socket == number);
            assert!(!(is_ours && *state == listening), "the agent listens: {table} {line}");
        }
    }
    // Of these, whoever has one hears everything: they listen in any state.
    for (table, inode) in [("packet", 8), ("raw", 9), ("raw6", 9)] {
        let text = fs::read_to_string(format!("/proc/{}/net/{table}", run.pid())).unwrap_or_default();
        let inodes = text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(inode));
        let heard: Vec<&str> = inodes.filter(|number| sockets.iter().any(|socket| socket == number)).collect();
        assert!(heard.is_empty(), "the agent hears {table}: {text}");
    }
    run.signal(navvy_tests::Signal::Interrupt);
    run.finish().exits_with(130);
}

#[test]
fn a_fork_bomb_runs_dry_and_the_job_goes_on() {
    let bench = Bench::of(navvy_tests::Setting::Plain);
    bench.config(
        r#"
version: 2.1
commands:
  bombs:
    steps:
      - run: {name: holds, command: 'cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null || true; echo it waits; until [ -e /tmp/go ]; do sleep 0.1; done'}
      - run: {name: bombs, no_output_timeout: 3s, command: 'bomb() { bomb | bomb & }; bomb; sleep 1000', shell: /bin/bash}
      - run: {name: afterwards, when: always, command: echo unharmed}
jobs:
  as-root: {docker: [{image: navvy/base:bookworm, user: root}], resource_class: small, steps: [bombs]}
  as-user: {docker: [{image: navvy/base:bookworm}], resource_class: small, steps: [bombs]}
workflows:
  ci: {jobs: [as-root, {as-user: {requires: [as-root: failed]}}]}
"#,
    );
    let run = bench.run(&[]);
    for job in ["as-root", "as-user"] {
        let held = run.wait_for("the job waits", Duration::from_secs(60), |event| {
            event.job() == job && event.is_output_with("it waits")
        });
        let name = format!("navvy-{}-primary", held.task().expect("output is a task's"));
        // The limit is on by default; a lower one leaves this machine to the other stories.
        bench.docker().ask(&["update", "--pids-limit", "64", &name]).succeeded();
        bench.docker().ask(&["exec", "-u", "0", &name, "touch", "/tmp/go"]).succeeded();
    }
    let done = run.finish_within(Duration::from_secs(120));
    done.exits_with(1);
    for job in ["as-root", "as-user"] {
        let limit = done.text(job, "holds").lines().next().and_then(|line| line.parse::<u32>().ok());
        assert_eq!(limit, Some(8192), "{job}: {}", done.text(job, "holds"));
        assert_ne!(done.step(job, "bombs").outcome, "success", "{job}");
        assert_eq!(done.text(job, "afterwards"), "unharmed\n", "{job}");
    }
    assert!(done.peak_kib <= PEAK_KIB, "the agent took {} KiB", done.peak_kib);
}
