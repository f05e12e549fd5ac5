//! An agent of a scheduler's task driver: these stories play the driver, with a real processor.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use navvy_tests::{
    Bench, Driven, Fleet, Group, SLOW, SLOW_LOG, Served, Signal, eventually, printed_by_slow, seldom, sha256,
};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(120);
const GIB: u64 = 1 << 30;

/// Two steps, the second of which says what it is given of the machine.
const SHORT: &str = r#"
version: 2.1
jobs:
  short:
    docker: [{image: navvy/base:bookworm}]
    resource_class: small
    steps:
      - run: {name: says, command: echo says it}
      - run: {name: again, command: "sleep 1.2; echo says it again"}
workflows:
  ci: {jobs: [short]}
"#;

/// The same, whose last step waits for a file, `/tmp/go`.
fn waiting() -> String {
    SHORT.replace("sleep 1.2", "until [ -e /tmp/go ]; do sleep 0.1; done")
}

const FAILING: &str = r#"
version: 2.1
jobs:
  short:
    docker: [{image: navvy/base:bookworm}]
    steps:
      - run: {name: passes, command: "true"}
      - run: {name: fails at it, command: "exit 3"}
workflows:
  ci: {jobs: [short]}
"#;

/// Runs until it is told to end, and says so when it is.
const ENDLESS: &str = r#"
version: 2.1
jobs:
  slow:
    docker: [{image: navvy/base:bookworm}]
    environment: {PLAIN: of-the-job}
    working_directory: /tmp/work
    steps:
      - run: {name: waits, command: "trap 'echo ends gently; exit 9' TERM; echo waits; while :; do sleep 0.1 || :; done"}
workflows:
  ci: {jobs: [slow: {context: words}]}
"#;

/// The same, which hears of no end.
const DEAF: &str = r#"
version: 2.1
jobs:
  slow:
    docker: [{image: navvy/base:bookworm}]
    steps:
      - run: {name: waits, command: "trap '' TERM; echo waits; while :; do sleep 0.1 || :; done"}
workflows:
  ci: {jobs: [slow]}
"#;

#[track_caller]
fn submitted(fleet: &Fleet<'_>, job: &str) -> (String, String) {
    let pipeline = fleet.submit(&["--tree"]);
    let task = fleet.task(&pipeline, job);
    (pipeline, task)
}

#[track_caller]
fn nothing_is_left(bench: &Bench, task: &str) {
    assert_eq!(bench.left_of(&[task.to_owned()]), Vec::<String>::new());
}

#[track_caller]
fn let_go(bench: &Bench, task: &str) {
    bench.docker().ask(&["exec", &format!("navvy-{task}-primary"), "touch", "/tmp/go"]).succeeded();
}

fn messages(driven: &Driven<'_>) -> Vec<String> {
    driven.progress().into_iter().map(|(_, message)| message).collect()
}

#[test]
fn a_task_passes_and_the_driver_learns_where_it_is_and_how_it_ended() {
    let bench = Bench::on_this_machine();
    bench.config(&waiting()).commit("a project");
    let fleet = Fleet::start(&bench);
    let (pipeline, task) = submitted(&fleet, "short");
    let mut driven = Driven::new(&fleet, &task);
    let mut agent = driven.start();
    // What is not told yet gives way to what comes after it: the step lasts until the driver has heard of it.
    eventually("the word of the second step", LIMIT, || {
        let told = fs::read_to_string(driven.path("progress")).unwrap_or_default();
        told.contains("Step 2 of 2: again").then_some(())
    });
    let_go(&bench, &task);
    assert_eq!(agent.end(LIMIT), Some(0), "{}", agent.said());
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "success");
    let exit = driven.exit().expect("an exit");
    assert_eq!(exit, serde_json::json!({"code": 0, "message": "The job passed.", "oom_killed": false}));
    assert!(!driven.path("claim.json").exists(), "it is read once");
    let told = messages(&driven);
    assert!(told.contains(&"Step 2 of 2: again".to_owned()), "{told:#?}");
    assert_eq!(told.last().map(String::as_str), Some("The job passed."));
    let times: Vec<u64> = driven.progress().iter().map(|(at, _)| *at).collect();
    // The end alone is told whenever it comes.
    assert!(times[..times.len() - 1].windows(2).all(|pair| pair[1] - pair[0] >= 1000), "{times:?}");
    assert!(agent.said().contains("Step 2 of 2: again"), "people read its log: {}", agent.said());
    nothing_is_left(&bench, &task);
}

#[test]
fn a_job_that_fails_is_reported_and_told_in_words() {
    let bench = Bench::on_this_machine();
    bench.config(FAILING).commit("a project");
    let fleet = Fleet::start(&bench);
    let (pipeline, task) = submitted(&fleet, "short");
    let mut driven = Driven::new(&fleet, &task);
    assert_eq!(driven.start().end(LIMIT), Some(0));
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "failed");
    let exit = driven.exit().expect("an exit");
    assert_eq!(exit["message"], "The job failed at step 2: fails at it.");
}

#[test]
fn agent_and_containers_are_inside_of_the_cgroup_that_was_given() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let fleet = Fleet::start(&bench);
    let (pipeline, task) = submitted(&fleet, "slow");
    let group = Group::new("whole.agent", 3 * GIB, 500);
    let mut driven = Driven::new(&fleet, &task);
    let size = serde_json::json!({"millicpus": 1000, "memory": GIB});
    driven.host("cgroup", group.path()).host("pids", 300).host("size", size);
    let mut agent = driven.start();
    fleet.has_shown(&task, SLOW_LOG, "line 100\n");
    for directory in group.directories() {
        let own = fs::read_to_string(directory.join("cgroup.procs")).expect("members");
        let leaf = fs::read_to_string(directory.join("agent/cgroup.procs")).unwrap_or_default();
        let is_in = |list: &str| list.lines().any(|pid| pid == agent.pid().to_string());
        assert!(is_in(&own) || is_in(&leaf), "{}: {own} {leaf}", directory.display());
    }
    let own = format!("task-{task}");
    for hierarchy in ["memory", "pids", "cpu"] {
        assert!(group.children(hierarchy).contains(&own), "{hierarchy}: {:?}", group.children(hierarchy));
        assert_eq!(group.grandchildren(hierarchy, &own).len(), 1, "its one container");
    }
    // The smaller of claim and driver holds; the driver's own limits stay.
    assert_eq!(group.read("memory", &format!("{own}/memory.limit_in_bytes")), GIB.to_string());
    assert_eq!(group.read("cpu", &format!("{own}/cpu.cfs_quota_us")), "100000");
    assert_eq!(group.read("pids", &format!("{own}/pids.max")), "300");
    assert_eq!(group.read("memory", "memory.limit_in_bytes"), (3 * GIB).to_string());
    assert_eq!(stat(agent.pid(), 5), agent.pid().to_string(), "it leads a session of its own");
    let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", agent.pid())).expect("a score");
    assert_eq!(score.trim(), if may_be_spared() { "-900" } else { "0" });
    assert_eq!(agent.end(LIMIT), Some(0), "{}", agent.said());
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "success");
    assert_eq!(group.children("memory"), Vec::<String>::new(), "the task's own is gone");
    nothing_is_left(&bench, &task);
}

/// A container's root may not lower its score.
fn may_be_spared() -> bool {
    let tried = Command::new("sh").args(["-c", "echo -900 2>/dev/null >/proc/self/oom_score_adj"]).status();
    tried.expect("sh can be run").success()
}

/// A field of /proc/PID/stat behind the name, which may hold anything; from 0.
fn stat(pid: u32, field: usize) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    text.rsplit(')').next().expect("a name").split_whitespace().nth(field - 2).expect("fields").to_owned()
}

#[test]
fn an_agent_that_is_killed_and_started_on_the_same_directory_goes_on() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let fleet = Fleet::start(&bench);
    let (pipeline, task) = submitted(&fleet, "slow");
    let group = Group::new("killed.agent", 3 * GIB, 500);
    let mut driven = Driven::new(&fleet, &task);
    driven.host("cgroup", group.path());
    let mut agent = driven.start();
    for line in [100, 1200, 2100] {
        fleet.has_shown(&task, SLOW_LOG, &format!("line {line}\n"));
        agent.kill();
        assert_eq!(driven.exit(), None, "it was killed");
        agent = driven.start();
    }
    assert_eq!(agent.end(LIMIT), Some(0), "{}", agent.said());
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "success");
    assert_eq!(sha256(&fleet.log(&task, SLOW_LOG)), sha256(&printed_by_slow()));
    assert_eq!(driven.exit().expect("an exit")["message"], "The job passed.");
    assert!(messages(&driven).iter().any(|told| told.starts_with("Step 1 of 1: ")), "{:#?}", messages(&driven));
    nothing_is_left(&bench, &task);
}

#[test]
fn an_agent_that_went_on_and_loses_the_processor_keeps_what_was_written() {
    let bench = Bench::on_this_machine();
    // Its step lasts longer than its lease.
    bench.config(&SLOW.replace("echo once", "sleep 3600; echo once")).commit("a project");
    let mut fleet = Fleet::with(&bench, &[("NAVVY_PROCESSOR_LEASE", "15s")]);
    let (_, task) = submitted(&fleet, "slow");
    let mut driven = Driven::new(&fleet, &task);
    let mut agent = driven.start();
    fleet.has_shown(&task, SLOW_LOG, "line 100\n");
    agent.kill();
    agent = driven.start();
    fleet.has_shown(&task, SLOW_LOG, "line 1200\n");
    fleet.processor().kill();
    assert_ne!(agent.end(LIMIT), Some(0), "{}", agent.said());
    let message = driven.exit().expect("an exit")["message"].as_str().expect("words").to_owned();
    assert!(message.contains("is kept"), "{message}");
    let kept = navvy_tests::files_that_hold(&bench.state(), b"line 1200\n");
    assert!(!kept.is_empty(), "what could not be told of is the only copy");
}

#[test]
fn an_agent_without_claim_and_with_nothing_left_says_so() {
    let bench = Bench::on_this_machine();
    let driven = Driven::without_claim(&bench, "http://127.0.0.1:1", "0123456789abcdef");
    driven.run().ends(3, &["there is no", "claim.json", "nothing of task 0123456789abcdef is left"]);
    let exit = driven.exit().expect("an exit");
    assert_eq!(
        (&exit["code"], exit["message"].as_str().map(|text| text.contains("claim.json"))),
        (&3.into(), Some(true))
    );
}

#[test]
fn what_a_driver_writes_is_believed_only_if_it_is_whole_and_its_own() {
    let bench = Bench::on_this_machine();
    let mut driven = Driven::without_claim(&bench, "http://127.0.0.1:1", "0123456789abcdef");
    #[track_caller]
    fn refused(driven: &Driven<'_>, parts: &[&str]) {
        driven.run().ends(64, parts);
        let exit = driven.exit().expect("an exit");
        let message = exit["message"].as_str().expect("words");
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
    driven.host("version", 2);
    refused(&driven, &["has version 2", "reads version 1", "of one release"]);
    driven.host("version", 1).host("environment", "jail");
    refused(&driven, &["`jail`", "It has `docker` and `vm`"]);
    driven.host("environment", "docker").host("only_network", "none");
    refused(&driven, &["unknown field `only_network`"]);
    let whole = fs::read_to_string(driven.path("host.json")).expect("a file").replace(",\"only_network\":\"none\"", "");
    driven.file("host.json", &whole.replace("\"stdout\":null,", ""));
    let told = driven.run();
    assert_ne!(told.exit_code, Some(0));
    driven.file("host.json", &whole.replace("\"environment\"", "\"env\""));
    refused(&driven, &["host.json", "unknown field `env`"]);
    driven.file("host.json", &whole.replace(",\"processor\":\"http://127.0.0.1:1\"", ""));
    refused(&driven, &["missing field `processor`"]);
    driven.file("host.json", &whole);
    fs::set_permissions(driven.path("host.json"), fs::Permissions::from_mode(0o666)).expect("a mode");
    refused(&driven, &["host.json is not believed", "mode is 0666"]);
    fs::rename(driven.path("host.json"), driven.path("real.json")).expect("a name");
    symlink("real.json", driven.path("host.json")).expect("a link");
    refused(&driven, &["it is a link"]);
    fs::remove_file(driven.path("host.json")).expect("a link");
    refused(&driven, &["host.json cannot be read"]);
    driven.file("host.json", &whole);
    std::os::unix::fs::chown(driven.path("host.json"), Some(4711), None).expect("root may");
    refused(&driven, &["belongs to user 4711"]);
}

#[test]
fn a_directory_of_a_stranger_is_not_written_to() {
    let bench = Bench::on_this_machine();
    let driven = Driven::without_claim(&bench, "http://127.0.0.1:1", "0123456789abcdef");
    fs::set_permissions(driven.directory(), fs::Permissions::from_mode(0o777)).expect("a mode");
    driven.run().ends(64, &["is not believed", "mode is 0777"]);
    assert_eq!(driven.exit(), None);
    fs::set_permissions(driven.directory(), fs::Permissions::from_mode(0o700)).expect("a mode");
    std::os::unix::fs::chown(driven.directory(), Some(4711), None).expect("root may");
    driven.run().ends(64, &["belongs to user 4711"]);
    fs::remove_dir_all(driven.directory()).expect("it can go");
    driven.run().ends(64, &["cannot be looked at"]);
}

#[test]
fn a_cgroup_that_is_none_or_not_there_is_named() {
    let bench = Bench::on_this_machine();
    let mut driven = Driven::without_claim(&bench, "http://127.0.0.1:1", "0123456789abcdef");
    for (path, why) in [("/nomad/nobody.made", "/nomad/nobody.made does not exist"), ("/../etc", "is no cgroup")] {
        driven.host("cgroup", path);
        let told = driven.run();
        assert!(told.exit_code != Some(0) && told.stderr.contains(why), "{}", told.stderr);
        let exit = driven.exit().expect("an exit");
        assert!(exit["message"].as_str().expect("words").contains(why), "{exit}");
    }
}

#[test]
fn a_claim_for_another_task_is_refused_and_a_used_token_is_told() {
    let bench = Bench::on_this_machine();
    bench.config(SHORT).commit("a project");
    let fleet = Fleet::start(&bench);
    let (_, task) = submitted(&fleet, "short");
    let driven = Driven::new(&fleet, &task);
    let claim = fs::read_to_string(driven.path("claim.json")).expect("a claim");
    driven.file("claim.json", &claim.replace(&task, "0123456789abcdef"));
    driven.run().ends(64, &["claim.json is for another task"]);
    assert!(!driven.path("claim.json").exists());
    driven.file("claim.json", &claim);
    assert_eq!(driven.run().exit_code, Some(0));
    driven.file("claim.json", &claim);
    driven.run().ends(3, &["is taken: its launch token was used before"]);
    assert!(driven.exit().expect("an exit")["message"].as_str().expect("words").contains("is taken"));
    let token: Value = serde_json::from_str(&claim).expect("JSON");
    let secret = token["token"].as_str().expect("a token");
    let kept = navvy_tests::files_that_hold(driven.directory(), secret.as_bytes());
    assert_eq!(kept, Vec::<std::path::PathBuf>::new());
}

fn reader(path: &Path) -> File {
    const NONBLOCK: i32 = 0o4000;
    File::options().read(true).custom_flags(NONBLOCK).open(path).expect("a FIFO can be opened")
}

/// What comes out of a pipe until this text has come.
#[track_caller]
fn read_until(file: &mut File, text: &str) -> String {
    let mut all = Vec::new();
    eventually(&format!("{text:?} in the pipe"), LIMIT, || {
        let mut buffer = [0; 64 << 10];
        while let Ok(count) = file.read(&mut buffer) {
            if count == 0 {
                break;
            }
            all.extend_from_slice(&buffer[..count]);
        }
        String::from_utf8_lossy(&all).contains(text).then_some(())
    });
    String::from_utf8_lossy(&all).into_owned()
}

#[test]
fn nobody_reads_its_pipes_and_the_job_passes_all_the_same() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let fleet = Fleet::start(&bench);
    let (pipeline, task) = submitted(&fleet, "slow");
    let mut driven = Driven::new(&fleet, &task);
    driven.pipe("stdout");
    driven.pipe("stderr");
    assert_eq!(driven.start().end(LIMIT), Some(0));
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "success");
    assert_eq!(sha256(&fleet.log(&task, SLOW_LOG)), sha256(&printed_by_slow()));
}

#[test]
fn a_reader_that_goes_away_and_comes_back_reads_on_and_sees_no_secret() {
    let bench = Bench::on_this_machine();
    let config = SLOW
        .replace("do echo line $i;", "do [ $i != 2000 ] || until [ -e /tmp/go ]; do sleep 0.1; done; echo line $i;")
        .replace("echo once >>/tmp/ran;", "echo once >>/tmp/ran; echo the secret is $TOKEN;")
        .replace("ci: {jobs: [slow]}", "ci: {jobs: [slow: {context: words}]}");
    bench.config(&config).commit("a project");
    let fleet = Fleet::start(&bench);
    bench.program(&["context", "set", "words", "TOKEN"]).input("s3cr3t-that-nobody-may-see").run().succeeded();
    let (_, task) = submitted(&fleet, "slow");
    let mut driven = Driven::new(&fleet, &task);
    let (output, log) = (driven.pipe("stdout"), driven.pipe("stderr"));
    let (mut first, mut words) = (reader(&output), reader(&log));
    let mut agent = driven.start();
    let shown = read_until(&mut first, "line 300\n");
    assert!(shown.contains("line 1\n") && shown.contains("line 299\n"), "{shown}");
    drop(first);
    fleet.has_shown(&task, SLOW_LOG, "line 900\n");
    let mut second = reader(&output);
    let_go(&bench, &task);
    let rest = read_until(&mut second, "the secret is");
    assert!(rest.contains("line 3000\n") && !rest.contains("s3cr3t"), "{rest}");
    assert_eq!(agent.end(LIMIT), Some(0));
    let told = read_until(&mut words, "The job passed.");
    assert!(told.contains("Step 1 of 1: counts") && !told.contains('\u{1b}'), "{told}");
    assert_eq!(agent.said(), "", "all of its words go into the pipe");
}

#[test]
fn a_path_that_no_driver_gives_is_no_pipe() {
    let bench = Bench::on_this_machine();
    let mut driven = Driven::without_claim(&bench, "http://127.0.0.1:1", "0123456789abcdef");
    let file = driven.path("file");
    fs::write(&file, "mine\n").expect("a file");
    symlink(&file, driven.path("link")).expect("a link");
    for wrong in [driven.path("link"), driven.directory().to_owned(), "/dev/zero".into()] {
        driven.host("stderr", wrong.to_str().expect("a path of ours"));
        driven.run().ends(64, &["host.stderr", "is unfit", "neither a FIFO nor a file"]);
    }
    assert_eq!(fs::read_to_string(&file).expect("a file"), "mine\n");
}

#[track_caller]
fn started(fleet: &Fleet<'_>, driven: &mut Driven<'_>, task: &str) -> Served {
    let agent = driven.start();
    fleet.has_shown(task, SLOW_LOG, "waits\n");
    agent
}

#[test]
fn sigterm_cancels_gently_and_the_end_is_reported_within_a_drivers_time() {
    let bench = Bench::on_this_machine();
    bench.config(&ENDLESS.replace("slow: {context: words}", "slow")).commit("a project");
    let fleet = Fleet::start(&bench);
    let (pipeline, task) = submitted(&fleet, "slow");
    let mut driven = Driven::new(&fleet, &task);
    let mut agent = started(&fleet, &mut driven, &task);
    agent.signal(Signal::Terminate);
    assert_eq!(agent.end(Duration::from_secs(30)), Some(0), "{}", agent.said());
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "canceled");
    assert!(String::from_utf8_lossy(&fleet.log(&task, SLOW_LOG)).contains("ends gently"));
    let message = driven.exit().expect("an exit")["message"].clone();
    assert_eq!(message, "The job was canceled: its agent was told to end.");
    nothing_is_left(&bench, &task);
}

#[test]
fn a_second_sigterm_ends_at_once_what_does_not_hear_the_first() {
    let bench = Bench::on_this_machine();
    bench.config(DEAF).commit("a project");
    let fleet = Fleet::start(&bench);
    let (pipeline, task) = submitted(&fleet, "slow");
    let mut driven = Driven::new(&fleet, &task);
    let mut agent = started(&fleet, &mut driven, &task);
    agent.signal(Signal::Terminate);
    eventually("the word that it heard", LIMIT, || {
        let events = fleet.events_so_far(&pipeline);
        events.iter().any(|event| event["event"] == "stop_asked").then_some(())
    });
    agent.signal(Signal::Terminate);
    assert_eq!(agent.end(Duration::from_secs(30)), Some(0), "{}", agent.said());
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "canceled");
    nothing_is_left(&bench, &task);
}

#[test]
fn a_reason_that_the_processor_gave_stands_and_a_deaf_job_ends_within_a_drivers_time() {
    let bench = Bench::on_this_machine();
    bench.config(DEAF).commit("a project");
    let fleet = Fleet::start(&bench);
    let (pipeline, task) = submitted(&fleet, "slow");
    let mut driven = Driven::new(&fleet, &task);
    let mut agent = started(&fleet, &mut driven, &task);
    bench.program(&["pipelines", "cancel", &pipeline]).run().succeeded();
    eventually("the word that it heard", LIMIT, || {
        let events = fleet.events_so_far(&pipeline);
        events.iter().any(|event| event["event"] == "stop_asked").then_some(())
    });
    agent.signal(Signal::Terminate);
    assert_eq!(agent.end(Duration::from_secs(30)), Some(0), "{}", agent.said());
    assert_eq!(driven.exit().expect("an exit")["message"], "The job was canceled: a person asked for it.");
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "canceled");
    nothing_is_left(&bench, &task);
}

#[test]
fn a_job_whose_process_the_kernel_kills_for_memory_says_so() {
    let bench = Bench::on_this_machine();
    bench.config(&FAILING.replace("exit 3", "tail /dev/zero")).commit("a project");
    let fleet = Fleet::start(&bench);
    let (pipeline, task) = submitted(&fleet, "short");
    let group = Group::new("hungry.agent", 3 * GIB, 500);
    let mut driven = Driven::new(&fleet, &task);
    driven.host("cgroup", group.path()).host("size", serde_json::json!({"millicpus": 1000, "memory": GIB / 4}));
    assert_eq!(driven.start().end(LIMIT), Some(0));
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "failed");
    assert_eq!(driven.exit().expect("an exit")["oom_killed"], true);
}

#[test]
fn an_agent_that_is_killed_at_any_moment_and_started_again_leaves_nothing() {
    let bench = Bench::on_this_machine();
    bench.config(&waiting()).commit("a project");
    let fleet = Fleet::start(&bench);
    let group = Group::new("early.agent", 3 * GIB, 500);
    for moment in ["claim.json is read", "a mark is there", "a container is there"] {
        let (_, task) = submitted(&fleet, "short");
        let mut driven = Driven::new(&fleet, &task);
        driven.host("cgroup", group.path());
        let mut agent = driven.start();
        eventually(moment, LIMIT, || {
            let come = match moment {
                "claim.json is read" => !driven.path("claim.json").exists(),
                "a mark is there" => bench.runtime().join(format!("navvy/{task}.owner")).symlink_metadata().is_ok(),
                _ => !bench.docker().containers_of(&task).is_empty(),
            };
            come.then_some(())
        });
        agent.kill();
        let mut next = driven.start();
        // If there is a job to go on with, it may end now.
        let exit = seldom("the next agent's last word", LIMIT, || {
            drop(bench.docker().ask(&["exec", &format!("navvy-{task}-primary"), "touch", "/tmp/go"]));
            driven.exit()
        });
        match next.end(LIMIT) {
            Some(0) => assert_eq!(exit["message"], "The job passed."),
            _ => assert!(exit["message"].as_str().expect("words").contains("claim.json"), "{exit}"),
        }
        assert_eq!(
            (bench.left_of(std::slice::from_ref(&task)), group.children("memory")),
            (Vec::new(), Vec::new()),
            "{moment}"
        );
    }
}

#[test]
fn after_the_last_kill_all_of_it_is_removed_and_again_there_is_nothing_to_do() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let fleet = Fleet::start(&bench);
    let (_, task) = submitted(&fleet, "slow");
    let group = Group::new("removed.agent", 3 * GIB, 500);
    let mut driven = Driven::new(&fleet, &task);
    driven.host("cgroup", group.path());
    let mut agent = driven.start();
    fleet.has_shown(&task, SLOW_LOG, "line 100\n");
    let alive = driven.remove();
    alive.ends(64, &["a process still looks after task"]);
    assert!(!bench.docker().containers_of(&task).is_empty(), "what lives is left alone");
    agent.kill();
    driven.remove().succeeded();
    nothing_is_left(&bench, &task);
    assert_eq!(group.children("memory"), Vec::<String>::new());
    assert!(!bench.state().join(format!("navvy/tasks/{task}.journal")).exists());
    let spools = fs::read_dir(bench.state().join("navvy/runs")).expect("a directory").count();
    assert_eq!(spools, 0, "the spool is gone, too");
    driven.remove().succeeded();
}

#[test]
fn what_a_reaper_finds_without_a_journal_goes_with_its_cgroup() {
    let bench = Bench::on_this_machine();
    bench.config(SLOW).commit("a project");
    let fleet = Fleet::start(&bench);
    let (_, task) = submitted(&fleet, "slow");
    let group = Group::new("reaped.agent", 3 * GIB, 500);
    let mut driven = Driven::new(&fleet, &task);
    driven.host("cgroup", group.path());
    let mut agent = driven.start();
    fleet.has_shown(&task, SLOW_LOG, "line 100\n");
    agent.kill();
    fs::remove_file(bench.state().join(format!("navvy/tasks/{task}.journal"))).expect("its journal");
    bench.program(&["rm", "--force", &task]).run().succeeded();
    nothing_is_left(&bench, &task);
    assert_eq!(group.children("memory"), Vec::<String>::new());
}
