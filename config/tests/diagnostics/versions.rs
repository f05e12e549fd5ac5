//! What version 2 does not know, and what a config needs to say of itself.

use insta::assert_snapshot;

use crate::told;

#[test]
fn version_2_has_no_conditions_of_workflows() {
    let text = r##"
version: 2
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
workflows:
  version: 2
  w:
    when: true
    jobs: [a]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[needs-2.1]: `when` in a workflow needs `version: 2.1`
     --> config.yml:9:5
      |
    9 |     when: true
      |     ^^^^
    refused
    "##);
}

#[test]
fn version_2_has_no_names_and_matrices() {
    let text = r##"
version: 2
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
workflows:
  version: 2
  w:
    jobs:
      - a: {name: b, pre-steps: [checkout], matrix: {parameters: {x: [1]}}}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[needs-2.1]: `name` of a workflow's job needs `version: 2.1`
      --> config.yml:10:13
       |
    10 |       - a: {name: b, pre-steps: [checkout], matrix: {parameters: {x: [1]}}}
       |             ^^^^

    error[needs-2.1]: `pre-steps` of a workflow's job needs `version: 2.1`
      --> config.yml:10:22
       |
    10 |       - a: {name: b, pre-steps: [checkout], matrix: {parameters: {x: [1]}}}
       |                      ^^^^^^^^^

    error[needs-2.1]: `matrix` of a workflow's job needs `version: 2.1`
      --> config.yml:10:45
       |
    10 |       - a: {name: b, pre-steps: [checkout], matrix: {parameters: {x: [1]}}}
       |                                             ^^^^^^

    error[unexpected-argument]: unexpected argument: job `a` has no parameter `x`
      --> config.yml:10:71
       |
    10 |       - a: {name: b, pre-steps: [checkout], matrix: {parameters: {x: [1]}}}
       |                                                                       ^
       = in workflow `w` (line 8)
       = job `a` is defined here (line 3)
    refused
    "##);
}

#[test]
fn version_2_has_no_parameters_of_jobs() {
    let text = r##"
version: 2
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
  b: {parameters: {x: {type: string, default: y}}, executor: box, steps: [checkout]}
workflows:
  version: 2
  w:
    jobs: [a, b]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[needs-2.1]: `parameters` in a job needs `version: 2.1`
     --> config.yml:6:7
      |
    6 |   b: {parameters: {x: {type: string, default: y}}, executor: box, steps: [checkout]}
      |       ^^^^^^^^^^

    error[needs-2.1]: `executor` in a job needs `version: 2.1`
     --> config.yml:6:52
      |
    6 |   b: {parameters: {x: {type: string, default: y}}, executor: box, steps: [checkout]}
      |                                                    ^^^^^^^^

    error[unknown-executor]: there is no executor named `box`
     --> config.yml:6:62
      |
    6 |   b: {parameters: {x: {type: string, default: y}}, executor: box, steps: [checkout]}
      |                                                              ^^^
      = in job `b` (line 6)
    refused
    "##);
}

#[test]
fn version_2_says_so_twice() {
    let text = r##"
version: 2
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps: [checkout]
workflows:
  w: {jobs: [build]}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[missing-version]: `workflows` of a version 2 config needs `version: 2`
     --> config.yml:6:1
      |
    6 | workflows:
      | ^^^^^^^^^
      = help: or make the whole config `version: 2.1`
    refused
    "##);
}

#[test]
fn version_2_workflows_are_of_version_2() {
    let text = r##"
version: 2
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps: [checkout]
workflows:
  version: 2.1
  w: {jobs: [build]}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    warning[unknown-version]: `workflows` of a version 2 config needs `version: 2`
     --> config.yml:7:12
      |
    7 |   version: 2.1
      |            ^^^
      = help: or make the whole config `version: 2.1`
    compiled
    "##);
}

#[test]
fn setup_is_a_boolean() {
    let text = r##"
version: 2.1
setup: maybe
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps: [checkout]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[wrong-shape]: `setup` must be a boolean, but this is a string
     --> config.yml:2:8
      |
    2 | setup: maybe
      |        ^^^^^
    refused
    "##);
}

#[test]
fn setup_needs_2_1() {
    let text = r##"
version: 2
setup: true
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps: [checkout]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[needs-2.1]: `setup` needs `version: 2.1`
     --> config.yml:2:1
      |
    2 | setup: true
      | ^^^^^
    refused
    "##);
}

#[test]
fn one_workflow_of_a_setup_config_runs() {
    let text = r##"
version: 2.1
setup: true
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
workflows:
  w:
    jobs: [a]
  v: {jobs: [a]}
  x: {when: false, jobs: [a]}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[several-workflows]: of a setup config one workflow may run, but `w` and `v` do
      --> config.yml:10:3
       |
    10 |   v: {jobs: [a]}
       |   ^
       = help: choose with `when` which one runs
    refused
    "##);
}

#[test]
fn a_setup_config_has_no_schedule() {
    let text = r##"
version: 2.1
setup: true
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
workflows:
  w:
    jobs: [a]
    triggers: [{schedule: {cron: "0 0 * * *", filters: {branches: {only: main}}}}]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[scheduled-setup]: workflow `w` of a setup config cannot run on schedule
     --> config.yml:8:3
      |
    8 |   w:
      |   ^
    refused
    "##);
}

#[test]
fn the_merge_key_has_no_escape() {
    let text = r##"
version: 2.1
x: &x {shell: /bin/sh}
jobs:
  build:
    \<<: *x
    docker: [{image: i}]
    steps: [checkout]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[escaped-merge-key]: `\<<` merges nothing: the merge key is not a template, and has no escape
     --> config.yml:5:5
      |
    5 |     \<<: *x
      |     ^^^
      = help: write `<<:`
    refused
    "##);
}
