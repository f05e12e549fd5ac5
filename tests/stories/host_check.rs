//! `navvy host check`, as a task driver asks it.

use navvy_tests::{Answer, Bench};
use serde_json::Value;

#[track_caller]
fn read(answer: &Answer) -> Value {
    assert_eq!(answer.exit_code, Some(0), "{}", answer.stderr);
    let text = answer.stdout();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[track_caller]
fn problems(found: &Value) -> Vec<String> {
    let all = found["problems"].as_array().expect("a list").iter();
    all.map(|problem| problem.as_str().expect("a sentence").to_owned()).collect()
}

#[test]
fn a_machine_that_can_run_tasks_says_so_and_a_thorough_look_leaves_nothing() {
    let bench = Bench::on_this_machine();
    let found = read(&bench.program(&["host", "check", "--json"]).run());
    assert_eq!(
        (&found["version"], &found["environments"], &found["problems"]),
        (&1.into(), &["docker"][..].into(), &Value::Array(Vec::new()))
    );
    assert_eq!(found["docker"].as_str().map(|version| version.starts_with(|c: char| c.is_ascii_digit())), Some(true));
    assert!(
        found["size"]["millicpus"].as_u64() >= Some(1000) && found["size"]["memory"].as_u64() > Some(1 << 30),
        "{found}"
    );
    let thorough = read(&bench.program(&["host", "check", "--json", "--thorough"]).run());
    assert_eq!(thorough, found);
    let words = bench.program(&["host", "check"]).run().text();
    assert!(words.contains("Tasks can run here"), "{words}");
    assert_eq!(bench.left_of_runs(), Vec::<String>::new());
}

#[test]
fn what_does_not_work_is_a_sentence_with_what_to_do_and_no_failure_of_the_command() {
    let bench = Bench::on_this_machine();
    for (variable, value, parts) in [
        (
            "DOCKER_HOST",
            "unix:///nowhere/docker.sock",
            &["No Docker engine at unix:///nowhere/docker.sock", "is dockerd running?"][..],
        ),
        (
            "NAVVY_SUPERVISOR",
            "/nowhere/navvy-supervisor",
            &["/nowhere/navvy-supervisor", "Install navvy-supervisor beside navvy"],
        ),
        ("XDG_STATE_HOME", "/proc/nowhere", &["/proc/nowhere", "set XDG_STATE_HOME to a directory"]),
    ] {
        for words in [&["host", "check", "--json"][..], &["host", "check", "--json", "--thorough"]] {
            let found = read(&bench.program(words).env(variable, value).run());
            let told = problems(&found);
            assert_eq!((told.len(), &found["environments"]), (1, &Value::Array(Vec::new())), "{found}");
            assert!(parts.iter().all(|part| told[0].contains(part)) && told[0].ends_with(['.', '?']), "{told:?}");
        }
        bench.program(&["host", "check"]).env(variable, value).run().ends(69, &[]);
    }
}

#[test]
fn an_engine_that_starts_nothing_is_found_by_a_thorough_look_alone() {
    let bench = Bench::on_this_machine();
    // It is a program of Linux, static, and no supervisor.
    let other = "/bin/busybox";
    if !std::path::Path::new(other).exists() {
        return;
    }
    let quick = read(&bench.program(&["host", "check", "--json"]).env("NAVVY_SUPERVISOR", other).run());
    assert_eq!(problems(&quick), Vec::<String>::new());
    let thorough =
        read(&bench.program(&["host", "check", "--json", "--thorough"]).env("NAVVY_SUPERVISOR", other).run());
    let told = problems(&thorough);
    assert!(told.len() == 1 && told[0].contains("Failed to start a container with the supervisor"), "{told:?}");
    assert_eq!(thorough["environments"], Value::Array(Vec::new()));
    assert_eq!(bench.left_of_runs(), Vec::<String>::new());
}
