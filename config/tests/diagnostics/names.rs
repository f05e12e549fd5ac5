//! Names that stand for nothing.

use insta::assert_snapshot;

use crate::told;

#[test]
fn unknown_step() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - chekout
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[unknown-step]: cannot find a definition for a command or step named `chekout`
     --> config.yml:6:9
      |
    6 |       - chekout
      |         ^^^^^^^
      = in job `build` (line 3)
      = help: did you mean `checkout`?
    refused
    "##);
}

#[test]
fn unknown_command_in_command() {
    let text = r##"
version: 2.1
commands:
  outer:
    steps: [inner]
  inner:
    steps: [{greet: {}}]
  greeting:
    steps: [checkout]
jobs:
  build:
    docker: [{image: i}]
    steps: [outer]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[unknown-step]: cannot find a definition for a command or step named `greet`
     --> config.yml:6:14
      |
    6 |     steps: [{greet: {}}]
      |              ^^^^^
      = in command `inner` (line 5)
      = called from command `outer` (line 4)
      = called from job `build` (line 12)
    refused
    "##);
}

#[test]
fn recursive_command() {
    let text = r##"
version: 2.1
commands:
  ping:
    steps: [pong]
  pong:
    steps: [ping]
jobs:
  build:
    docker: [{image: i}]
    steps: [ping]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r"
    error[recursive-command]: command `ping` calls itself
     --> config.yml:6:13
      |
    6 |     steps: [ping]
      |             ^^^^
      = in command `pong` (line 5)
      = called from command `ping` (line 4)
      = called from job `build` (line 10)
      = it is defined here (line 3)
    refused
    ");
}

#[test]
fn unknown_orb() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - slack/notify
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[unknown-orb]: there is no orb named `slack`
     --> config.yml:6:9
      |
    6 |       - slack/notify
      |         ^^^^^^^^^^^^
      = in job `build` (line 3)
    refused
    "##);
}

#[test]
fn missing_orb() {
    let text = r##"
version: 2.1
orbs:
  node: circleci/node@5.1
jobs:
  build:
    executor: node/default
    steps: [node/install, {node/test: {x: 1}}]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[missing-orb]: orb `node` (`circleci/node@5.1`) is not here
     --> config.yml:3:3
      |
    3 |   node: circleci/node@5.1
      |   ^^^^
      = help: inline orbs work
    refused
    "##);
}

#[test]
fn unknown_job() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
  b: *a
workflows:
  w:
    jobs:
      - a
      - bb
      - c
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[unknown-job]: there is no job named `bb`
      --> config.yml:11:9
       |
    11 |       - bb
       |         ^^
       = in workflow `w` (line 8)
       = help: did you mean `b`?

    error[unknown-job]: there is no job named `c`
      --> config.yml:12:9
       |
    12 |       - c
       |         ^
       = in workflow `w` (line 8)
       = help: did you mean `a`?
    refused
    "##);
}

#[test]
fn unknown_executor() {
    let text = r##"
version: 2.1
executors:
  linux:
    docker: [{image: i}]
jobs:
  build:
    executor: linus
    steps: [checkout]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[unknown-executor]: there is no executor named `linus`
     --> config.yml:7:15
      |
    7 |     executor: linus
      |               ^^^^^
      = in job `build` (line 6)
      = help: did you mean `linux`?
    refused
    "##);
}

#[test]
fn executor_without_name() {
    let text = r##"
version: 2.1
executors:
  linux:
    docker: [{image: i}]
jobs:
  build:
    executor: {tag: x}
    steps: [checkout]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[missing-key]: missing executor name
     --> config.yml:7:15
      |
    7 |     executor: {tag: x}
      |               ^^^^^^^^
      = in job `build` (line 6)
      = help: add `name:`
    refused
    "##);
}

#[test]
fn unknown_requirement() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
  b: *a
workflows:
  w:
    jobs:
      - a:
          name: compile
      - b:
          requires: [compil]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[unknown-requirement]: no job of this workflow is named `compil`
      --> config.yml:13:22
       |
    13 |           requires: [compil]
       |                      ^^^^^^
       = in workflow `w` (line 8)
       = help: did you mean `compile`?
    refused
    "##);
}

#[test]
fn unknown_status() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
  b: *a
workflows:
  w:
    jobs:
      - a
      - b:
          requires: [{a: [succes, failed]}]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[unknown-status]: a job cannot end with status `succes`
      --> config.yml:12:26
       |
    12 |           requires: [{a: [succes, failed]}]
       |                          ^^^^^^^^^^^^^^^^
       = in workflow `w` (line 8)
       = help: did you mean `success`?
    refused
    "##);
}

#[test]
fn cyclic_requires() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
  b: *a
workflows:
  w:
    jobs:
      - a: {requires: [c]}
      - b: {requires: [a]}
      - b: {name: c, requires: [b]}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r"
    error[cyclic-requires]: these jobs require each other: a → c → b → a
      --> config.yml:11:24
       |
    11 |       - b: {requires: [a]}
       |                        ^
       = `a` requires `c` here (line 10)
       = `c` requires `b` here (line 12)
    refused
    ");
}

#[test]
fn duplicate_name() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
  b: *a
workflows:
  w:
    jobs:
      - hold: {type: approval}
      - hold: {type: approval}
      - a
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[duplicate-name]: several jobs are named `hold`, but an approval needs a name of its own
      --> config.yml:10:9
       |
    10 |       - hold: {type: approval}
       |         ^^^^
       = in workflow `w` (line 8)
       = help: give it one with `name:`

    error[duplicate-name]: several jobs are named `hold`, but an approval needs a name of its own
      --> config.yml:11:9
       |
    11 |       - hold: {type: approval}
       |         ^^^^
       = in workflow `w` (line 8)
       = help: give it one with `name:`
    refused
    "##);
}

#[test]
fn unknown_key() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{imag: x, image: i}]
    enviroment: {A: b}
    steps: [{run: {command: make, shel: sh}}]
workflows:
  w:
    job: []
    jobs: [build]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    warning[unknown-key]: key `imag` means nothing in a docker entry
     --> config.yml:4:15
      |
    4 |     docker: [{imag: x, image: i}]
      |               ^^^^ ignored
      = help: did you mean `image`?

    warning[unknown-key]: key `enviroment` means nothing in a job
     --> config.yml:5:5
      |
    5 |     enviroment: {A: b}
      |     ^^^^^^^^^^ ignored
      = help: did you mean `environment`?

    warning[unknown-key]: key `shel` means nothing in a `run` step
     --> config.yml:6:35
      |
    6 |     steps: [{run: {command: make, shel: sh}}]
      |                                   ^^^^ ignored
      = in job `build` (line 3)
      = help: did you mean `shell`?

    warning[unknown-key]: key `job` means nothing in a workflow
     --> config.yml:9:5
      |
    9 |     job: []
      |     ^^^ ignored
      = help: did you mean `jobs`?
    compiled
    "##);
}

#[test]
fn unknown_job_type() {
    let text = r##"
version: 2.1
jobs:
  build:
    type: aproval
    steps: [checkout]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[unknown-job-type]: there is no job type `aproval`
     --> config.yml:4:11
      |
    4 |     type: aproval
      |           ^^^^^^^
      = in job `build` (line 3)
      = help: did you mean `approval`?
    refused
    "##);
}

#[test]
fn unknown_invocation_type() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
  b: *a
workflows:
  w:
    jobs:
      - a: {type: manual}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[unknown-job-type]: the only `type` that an invocation can have is `approval`
      --> config.yml:10:19
       |
    10 |       - a: {type: manual}
       |                   ^^^^^^
       = in workflow `w` (line 8)
    refused
    "##);
}
