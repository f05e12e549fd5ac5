//! Executors, what a job puts over them, and environments.

use navvy_job::compiled::{Container, Executor};

use crate::{job, shown};

const TOOLBOX: &str = r#"
version: 2.1
executors:
  toolbox:
    parameters: {tag: {type: string, default: "1"}}
    docker: [{image: "box:<< parameters.tag >>"}, {image: db}]
    resource_class: large
    shell: /bin/sh
    working_directory: /work
    environment: {A: executor, B: executor}
jobs:
  build:
    executor: {name: toolbox, tag: "2"}
    environment: {B: job}
    shell: /bin/bash
    steps: [checkout]
  other:
    executor: toolbox
    docker: [{image: mine, command: "a 'b c'", entrypoint: [x], user: root, environment: [K=V=W]}]
    steps: [checkout]
workflows: {w: {jobs: [build, other]}}
"#;

fn containers(executor: Executor) -> Vec<Container> {
    if let Executor::Docker { containers } = executor { containers } else { Vec::new() }
}

#[test]
fn a_jobs_keys_replace_those_of_its_executor_and_environments_unite() {
    let build = job(TOOLBOX, "build");
    assert_eq!(build.environment, [("A".into(), "executor".into()), ("B".into(), "job".into())]);
    assert_eq!(build.shell.as_deref(), Some("/bin/bash"));
    assert_eq!((build.working_directory.as_str(), build.resource_class.as_deref()), ("/work", Some("large")));
    let images: Vec<String> = containers(build.executor).into_iter().map(|container| container.image).collect();
    assert_eq!(images, ["box:2", "db"]);
}

#[test]
fn a_jobs_own_stanza_replaces_the_executors_whole() {
    let expected = Container {
        image: "mine".into(),
        command: Some(vec!["a".into(), "b c".into()]),
        entrypoint: Some(vec!["x".into()]),
        user: Some("root".into()),
        environment: vec![("K".into(), "V=W".into())],
        ..Container::default()
    };
    assert_eq!(containers(job(TOOLBOX, "other").executor), [expected]);
}

#[test]
fn an_executor_parameter_equals_its_name_and_its_definition() {
    let text = r#"
version: 2.1
executors:
  mac: &mac {macos: {xcode: 15.1.0}}
  linux: &linux {docker: [{image: i}]}
jobs:
  build:
    parameters: {on: {type: executor}}
    executor: << parameters.on >>
    steps:
      - when: {condition: {equal: [*mac, << parameters.on >>]}, steps: [{run: brew}]}
      - when: {condition: {equal: [*linux, << parameters.on >>]}, steps: [{run: apt}]}
      - when: {condition: {equal: [linux, << parameters.on >>]}, steps: [{run: "named << parameters.on >>"}]}
workflows: {w: {jobs: [{build: {matrix: {parameters: {on: [mac, linux]}}}}]}}
"#;
    assert_eq!(shown(&job(text, "build-mac").steps), ["brew"]);
    assert_eq!(shown(&job(text, "build-linux").steps), ["apt", "named linux"]);
}

#[test]
fn environments_come_in_five_shapes() {
    let of = |written: &str| {
        let text = format!(
            "version: 2.1\njobs:\n  build:\n    docker: [{{image: i}}]\n    environment: {written}\n    steps: [checkout]\n"
        );
        job(&text, "build").environment
    };
    let ab = [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "true".to_owned())];
    assert_eq!(of("{A: 1, B: True}"), ab);
    assert_eq!(of("[{A: 1}, {B: true}]"), ab);
    assert_eq!(of("[A=1, B=true]"), ab);
    assert_eq!(of("A=1"), ab[..1]);
    assert_eq!(of(""), []);
    assert_eq!(of("{A: 3.10, B: }"), [("A".into(), "3.1".into()), ("B".into(), String::new())]);
}

#[test]
fn machines_and_macs_may_hold_their_class() {
    let text = "version: 2.1\njobs:\n  build:\n    machine: {image: 'ubuntu-2404:current', resource_class: large, docker_layer_caching: true}\n    steps: [checkout]\n  bare: {machine: true, resource_class: acme/box, steps: [checkout]}\nworkflows: {w: {jobs: [build, bare]}}\n";
    let build = job(text, "build");
    assert_eq!(build.resource_class.as_deref(), Some("large"));
    assert_eq!(
        build.executor,
        Executor::Machine { image: Some("ubuntu-2404:current".into()), docker_layer_caching: true }
    );
    assert_eq!(job(text, "bare").executor, Executor::Machine { image: None, docker_layer_caching: false });
}
