//! Steps.

use insta::assert_snapshot;

use crate::told;

#[test]
fn commands_do_not_call_themselves() {
    let text = r##"
version: 2.1
commands:
  a: {steps: [b]}
  b: {steps: [{when: {condition: true, steps: [a]}}]}
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps: [a]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[recursive-command]: command `a` calls itself
     --> config.yml:4:48
      |
    4 |   b: {steps: [{when: {condition: true, steps: [a]}}]}
      |                                                ^
      = in command `b` (line 4)
      = called from command `a` (line 3)
      = called from job `build` (line 8)
      = it is defined here (line 3)
    refused
    "##);
}

#[test]
fn unknown_steps_are_refused() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - chekout
      - {uses: x}
      - node/install
      - when
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[unknown-step]: cannot find a definition for a command or step named `chekout`
     --> config.yml:6:9
      |
    6 |       - chekout
      |         ^^^^^^^
      = in job `build` (line 3)
      = help: did you mean `checkout`?

    error[unknown-step]: cannot find a definition for a command or step named `uses`
     --> config.yml:7:10
      |
    7 |       - {uses: x}
      |          ^^^^
      = in job `build` (line 3)

    error[unknown-orb]: there is no orb named `node`
     --> config.yml:8:9
      |
    8 |       - node/install
      |         ^^^^^^^^^^^^
      = in job `build` (line 3)

    error[wrong-shape]: `when` takes a map with `condition` and `steps`
     --> config.yml:9:9
      |
    9 |       - when
      |         ^^^^
      = in job `build` (line 3)
    refused
    "##);
}

#[test]
fn a_when_has_a_condition_and_steps() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - when: {steps: [checkout]}
      - unless: {condition: true}
      - when: {condition: true, steps: checkout}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[missing-key]: `when` has no `condition`
     --> config.yml:6:9
      |
    6 |       - when: {steps: [checkout]}
      |         ^^^^
      = in job `build` (line 3)

    error[missing-key]: `unless` has no `steps`
     --> config.yml:7:9
      |
    7 |       - unless: {condition: true}
      |         ^^^^^^
      = in job `build` (line 3)

    error[wrong-shape]: steps must be a list, but this is a string
     --> config.yml:8:40
      |
    8 |       - when: {condition: true, steps: checkout}
      |                                        ^^^^^^^^
      = in job `build` (line 3)
    refused
    "##);
}

#[test]
fn a_checkout_has_a_depth() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - checkout: {method: shallow, depth: 0}
      - checkout: {method: deep}
      - checkout: {method: shallow, depth: x}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[out-of-range]: `depth` must be at least 1
     --> config.yml:6:44
      |
    6 |       - checkout: {method: shallow, depth: 0}
      |                                            ^
      = in job `build` (line 3)

    error[unknown-method]: there is no checkout method `deep`
     --> config.yml:7:28
      |
    7 |       - checkout: {method: deep}
      |                            ^^^^
      = in job `build` (line 3)

    error[wrong-shape]: `depth` must be an integer, but this is a string
     --> config.yml:8:44
      |
    8 |       - checkout: {method: shallow, depth: x}
      |                                            ^
      = in job `build` (line 3)
    refused
    "##);
}

#[test]
fn what_a_command_or_a_cache_cannot_be_without() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - run: {name: x}
      - run: [x]
      - save_cache: {paths: [a]}
      - save_cache: {key: k}
      - save_cache
      - restore_cache: {name: x}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r"
    error[missing-key]: a `run` step has no `command`
     --> config.yml:6:9
      |
    6 |       - run: {name: x}
      |         ^^^
      = in job `build` (line 3)

    error[wrong-shape]: `command` must be a text, but this is a list
     --> config.yml:7:14
      |
    7 |       - run: [x]
      |              ^^^
      = in job `build` (line 3)

    error[missing-key]: a `save_cache` step has no `key`
     --> config.yml:8:9
      |
    8 |       - save_cache: {paths: [a]}
      |         ^^^^^^^^^^
      = in job `build` (line 3)

    error[missing-key]: a `save_cache` step has no `paths`
     --> config.yml:9:9
      |
    9 |       - save_cache: {key: k}
      |         ^^^^^^^^^^
      = in job `build` (line 3)

    error[missing-key]: a `save_cache` step has no `key`
      --> config.yml:10:9
       |
    10 |       - save_cache
       |         ^^^^^^^^^^
       = in job `build` (line 3)

    error[missing-key]: a `save_cache` step has no `paths`
      --> config.yml:10:9
       |
    10 |       - save_cache
       |         ^^^^^^^^^^
       = in job `build` (line 3)

    error[missing-key]: a `restore_cache` step has no `keys`
      --> config.yml:11:9
       |
    11 |       - restore_cache: {name: x}
       |         ^^^^^^^^^^^^^
       = in job `build` (line 3)
    refused
    ");
}

#[test]
fn what_stored_files_and_workspaces_cannot_be_without() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - store_artifacts: {destination: d}
      - store_test_results: {}
      - persist_to_workspace: {root: .}
      - attach_workspace
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r"
    error[missing-key]: a `store_artifacts` step has no `path`
     --> config.yml:6:9
      |
    6 |       - store_artifacts: {destination: d}
      |         ^^^^^^^^^^^^^^^
      = in job `build` (line 3)

    error[missing-key]: a `store_test_results` step has no `path`
     --> config.yml:7:9
      |
    7 |       - store_test_results: {}
      |         ^^^^^^^^^^^^^^^^^^
      = in job `build` (line 3)

    error[missing-key]: a `persist_to_workspace` step has no `paths`
     --> config.yml:8:9
      |
    8 |       - persist_to_workspace: {root: .}
      |         ^^^^^^^^^^^^^^^^^^^^
      = in job `build` (line 3)

    error[missing-key]: an `attach_workspace` step has no `at`
     --> config.yml:9:9
      |
    9 |       - attach_workspace
      |         ^^^^^^^^^^^^^^^^
      = in job `build` (line 3)
    refused
    ");
}

#[test]
fn reruns_have_their_bounds() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - run: {command: x, max_auto_reruns: 0}
      - run: {command: x, max_auto_reruns: 6}
      - run: {command: x, auto_rerun_delay: 5s}
      - run: {command: x, max_auto_reruns: 1, background: true}
      - run: {command: x, max_auto_reruns: 5, auto_rerun_delay: 10m}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r"
    error[out-of-range]: `max_auto_reruns` must be 1 to 5, not 0
     --> config.yml:6:44
      |
    6 |       - run: {command: x, max_auto_reruns: 0}
      |                                            ^
      = in job `build` (line 3)

    error[out-of-range]: `max_auto_reruns` must be 1 to 5, not 6
     --> config.yml:7:44
      |
    7 |       - run: {command: x, max_auto_reruns: 6}
      |                                            ^
      = in job `build` (line 3)

    error[missing-key]: `auto_rerun_delay` needs `max_auto_reruns` beside it
     --> config.yml:8:27
      |
    8 |       - run: {command: x, auto_rerun_delay: 5s}
      |                           ^^^^^^^^^^^^^^^^
      = in job `build` (line 3)

    error[exclusive-keys]: a step in the background cannot be run again
     --> config.yml:9:27
      |
    9 |       - run: {command: x, max_auto_reruns: 1, background: true}
      |                           ^^^^^^^^^^^^^^^
      = in job `build` (line 3)
      = it is put into the background here (line 9)
    refused
    ");
}

#[test]
fn delays_of_reruns_have_their_bounds() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - run: {command: x, max_auto_reruns: 2, auto_rerun_delay: 11m}
      - run: {command: x, max_auto_reruns: 2, auto_rerun_delay: 1.5m}
      - run: {command: x, max_auto_reruns: 2, auto_rerun_delay: 601s}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r"
    error[out-of-range]: `11m` is not a delay: whole minutes or seconds up to 10 minutes
     --> config.yml:6:65
      |
    6 |       - run: {command: x, max_auto_reruns: 2, auto_rerun_delay: 11m}
      |                                                                 ^^^
      = in job `build` (line 3)
      = help: as in `30s` or `2m`

    error[out-of-range]: `1.5m` is not a delay: whole minutes or seconds up to 10 minutes
     --> config.yml:7:65
      |
    7 |       - run: {command: x, max_auto_reruns: 2, auto_rerun_delay: 1.5m}
      |                                                                 ^^^^
      = in job `build` (line 3)
      = help: as in `30s` or `2m`

    error[out-of-range]: `601s` is not a delay: whole minutes or seconds up to 10 minutes
     --> config.yml:8:65
      |
    8 |       - run: {command: x, max_auto_reruns: 2, auto_rerun_delay: 601s}
      |                                                                 ^^^^
      = in job `build` (line 3)
      = help: as in `30s` or `2m`
    refused
    ");
}

#[test]
fn arguments_are_declared_and_given() {
    let text = r##"
version: 2.1
commands:
  c: {parameters: {a: {type: string}}, steps: [{run: "<< parameters.a >> << parameters.b >>"}]}
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - c
      - c: {a: x, b: y}
      - c: {a: x, aa: y}
      - c: text
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[undeclared-parameter]: argument referenced without declared parameter: `parameters.b`
     --> config.yml:3:74
      |
    3 |   c: {parameters: {a: {type: string}}, steps: [{run: "<< parameters.a >> << parameters.b >>"}]}
      |                                                                          ^^^^^^^^^^^^^^^^^^
      = in command `c` (line 3)
      = help: did you mean `a`?

    error[missing-argument]: parameter `a` is required for command `c`
     --> config.yml:8:9
      |
    8 |       - c
      |         ^
      = in job `build` (line 5)
      = the parameter is declared here (line 3)
      = help: it has no default, so every use must give it

    error[unexpected-argument]: unexpected argument: command `c` has no parameter `b`
     --> config.yml:9:19
      |
    9 |       - c: {a: x, b: y}
      |                   ^
      = in job `build` (line 5)
      = command `c` is defined here (line 3)
      = help: did you mean `a`?

    error[unexpected-argument]: unexpected argument: command `c` has no parameter `aa`
      --> config.yml:10:19
       |
    10 |       - c: {a: x, aa: y}
       |                   ^^
       = in job `build` (line 5)
       = command `c` is defined here (line 3)
       = help: did you mean `a`?

    error[wrong-shape]: the arguments of command `c` must be a map, but this is a string
      --> config.yml:11:12
       |
    11 |       - c: text
       |            ^^^^
       = in job `build` (line 5)
    refused
    "##);
}

#[test]
fn a_tag_is_closed() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - run: "cat <<EOF"
      - run: "<< pipeline.number"
      - run: "<<# pipeline.number >>x"
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[unclosed-template]: unclosed `<<` tag
     --> config.yml:6:19
      |
    6 |       - run: "cat <<EOF"
      |                   ^^^^^
      = in job `build` (line 3)
      = help: close it with `>>`, or write `\<<` for the plain text `<<`

    error[unclosed-template]: unclosed `<<` tag
     --> config.yml:7:15
      |
    7 |       - run: "<< pipeline.number"
      |               ^^^^^^^^^^^^^^^^^^
      = in job `build` (line 3)
      = help: close it with `>>`, or write `\<<` for the plain text `<<`

    error[unclosed-section]: section `pipeline.number` is not closed
     --> config.yml:8:15
      |
    8 |       - run: "<<# pipeline.number >>x"
      |               ^^^^^^^^^^^^^^^^^^^^^^
      = in job `build` (line 3)
      = help: it ends with `<</ name >>`, with the same name
    refused
    "##);
}
