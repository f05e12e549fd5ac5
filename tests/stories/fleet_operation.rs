//! What an operator sees to: TLS, the audit log, traces.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use navvy_tests::{Bench, Fleet, Signal, eventually};

const LIMIT: Duration = Duration::from_secs(90);

/// Two steps that tell their trace, and a cache, which needs the store.
const TRACED: &str = r#"
version: 2.1
jobs:
  unit:
    docker: [{image: navvy/base:bookworm}]
    steps:
      - run: {name: first, command: "echo $TRACEPARENT; echo cached >kept"}
      - run: {name: second, command: "echo $TRACEPARENT"}
      - run: {name: own, command: "echo $TRACEPARENT", environment: {TRACEPARENT: mine}}
      - save_cache: {key: deps-v1, paths: [kept]}
workflows:
  ci: {jobs: [unit]}
"#;
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Makes `NAME-ca.pem`, and puts `server.pem` with `server.key` in place that it signed for 127.0.0.1.
#[track_caller]
fn make_certificate(directory: &Path, name: &str) {
    let openssl = |words: &str| {
        let done = Command::new("openssl").args(words.split(' ')).current_dir(directory).output();
        let done = done.expect("openssl can be run");
        assert!(done.status.success(), "openssl {words}: {}", String::from_utf8_lossy(&done.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 -days 2 -subj /CN={name}-authority -keyout {name}-ca.key -out {name}-ca.pem {key}"));
    openssl(&format!("req -subj /CN=127.0.0.1 -keyout {name}.key -out {name}.csr {key}"));
    fs::write(directory.join("ext"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").expect("a file");
    let by = format!("-CA {name}-ca.pem -CAkey {name}-ca.key -CAcreateserial");
    openssl(&format!("x509 -req -days 2 {by} -extfile ext -in {name}.csr -out {name}.pem"));
    for end in ["key", "pem"] {
        let made = directory.join(format!("{name}.{end}"));
        fs::rename(made, directory.join(format!("server.{end}"))).expect("a file can be renamed");
    }
}

#[test]
fn everything_goes_over_tls_and_a_new_certificate_counts_from_a_hangup_on() {
    let bench = Bench::on_this_machine();
    let directory = bench.state().join("certificates");
    fs::create_dir_all(&directory).expect("a directory can be made");
    make_certificate(&directory, "first");
    let path = |name: &str| directory.join(name).to_str().expect("a path of ours").to_owned();
    let (first, second) = (path("first-ca.pem"), path("second-ca.pem"));
    let bench = bench.env("NAVVY_PROCESSOR_CA", &first);
    bench.config(TRACED).commit("a project");
    let (certificate, key) = (path("server.pem"), path("server.key"));
    let settings = [("NAVVY_PROCESSOR_TLS_CERTIFICATE", &*certificate), ("NAVVY_PROCESSOR_TLS_KEY", &*key)];
    let mut fleet = Fleet::with(&bench, &settings);
    assert!(fleet.url.starts_with("https://"), "{}", fleet.url);
    let _runner = fleet.runner(&["--ca", &first]);
    let pipeline = fleet.submit(&[]);
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "success", "{}", fleet.show(&pipeline));
    // Its cache went through the people's port.
    assert_eq!(fleet.job(&pipeline, "unit")["tasks"][0]["output"], "complete");

    make_certificate(&directory, "second");
    fleet.processor().signal(Signal::Hangup);
    eventually("the second certificate", LIMIT, || {
        fleet.processor().said().contains("The certificates were read again").then_some(())
    });
    let list = ["pipelines", "ls"];
    fleet.navvy(&list).ends(3, &["certificate"]);
    let by_second = [&list[..], &["--ca", &second]].concat();
    assert!(fleet.navvy(&by_second).text().contains(&pipeline));
    // Without TLS nobody is answered.
    let plain = fleet.url.replace("https://", "http://");
    let asked = Command::new("curl").args(["--silent", "--max-time", "20", &format!("{plain}/healthz")]).output();
    assert!(!asked.expect("curl can be run").status.success());
}

#[test]
fn a_trace_goes_from_submit_to_every_step() {
    let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let bench = Bench::on_this_machine().env("TRACEPARENT", &traceparent);
    bench.config(TRACED).commit("a project");
    let mut fleet = Fleet::start(&bench);
    let _runner = fleet.runner(&[]);
    let pipeline = fleet.submit(&[]);
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "success", "{}", fleet.show(&pipeline));
    let task = fleet.task(&pipeline, "unit");
    let told = |log: &str| String::from_utf8_lossy(&fleet.log(&task, log)).trim().to_owned();
    let (first, second) = (told("001-1"), told("002-1"));
    for step in [&first, &second] {
        assert!(step.starts_with(&format!("00-{TRACE}-")) && step.len() == traceparent.len(), "{step}");
    }
    assert!(first != second && first != traceparent, "{first} {second}");
    assert_eq!(told("003-1"), "mine");
    let said = fleet.processor().said();
    for word in ["was submitted", "is given to", "A pipeline ends"] {
        let line = said.lines().find(|line| line.contains(word)).unwrap_or_else(|| panic!("no {word:?} in: {said}"));
        assert!(line.contains(TRACE), "{line}");
    }
}

/// Every object that lies beneath here, from the store's root.
fn objects(store: &Path, beneath: &str) -> BTreeSet<String> {
    fn walk(at: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(at).into_iter().flatten().flatten() {
            match entry.path() {
                path if path.is_dir() => walk(&path, found),
                path => found.push(path),
            }
        }
    }
    let mut found = Vec::new();
    walk(&store.join(beneath), &mut found);
    let name = |path: PathBuf| path.strip_prefix(store).expect("beneath it").to_string_lossy().into_owned();
    // What was being written when its processor was killed is no object: a sweep takes it.
    found.into_iter().map(name).filter(|name| !name.contains('#')).collect()
}

/// Objects that the audit log says were granted to be written.
fn granted(store: &Path) -> BTreeSet<String> {
    let mut granted = BTreeSet::new();
    for file in objects(store, "audit-logs/audit_log/v1") {
        for line in fs::read_to_string(store.join(file)).expect("the audit log is text").lines() {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let payload = &line["payload"];
            if line["action"] != "object.grant" || payload["verb"] == "get" {
                continue;
            }
            assert_eq!(line["actor"]["type"], "agent", "{line}");
            let beneath = payload["beneath"].as_str().expect("a text");
            for grant in payload["grants"].as_array().expect("a list") {
                granted.insert(format!("{beneath}{}", grant["object"].as_str().expect("a text")));
            }
        }
    }
    granted
}

#[test]
fn every_object_that_a_task_wrote_is_in_the_audit_log_whatever_was_killed() {
    let bench = Bench::on_this_machine();
    let slow =
        TRACED.replace("echo cached >kept", "echo cached >kept; for i in $(seq 40); do echo line $i; sleep 0.2; done");
    bench.config(&slow).commit("a project");
    let mut fleet = Fleet::start(&bench);
    let _runner = fleet.runner(&[]);
    let pipeline = fleet.submit(&[]);
    let task = fleet.task(&pipeline, "unit");
    let store = fleet.data().join("store");
    eventually("a stored segment", LIMIT, || (!objects(&store, "v1/log").is_empty()).then_some(()));
    fleet.crash_and_restart();
    assert_eq!(fleet.end_of(&pipeline, LIMIT), "success", "{}", fleet.show(&pipeline));
    assert!(String::from_utf8_lossy(&fleet.log(&task, "001-1")).contains("line 40"));
    fleet.processor().signal(Signal::Terminate);
    assert_eq!(fleet.processor().end(LIMIT), Some(0));
    let (granted, logs, bodies) = (granted(&store), objects(&store, "v1/log"), objects(&store, "v1/body"));
    assert!(!logs.is_empty() && !bodies.is_empty(), "{logs:?} {bodies:?}");
    for object in logs.union(&bodies) {
        assert!(granted.contains(object), "{object} is not among {granted:?}");
    }
}
