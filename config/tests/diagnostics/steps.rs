//! Steps.

use insta::assert_snapshot;

use crate::told;

#[test]
fn step_not_single_key() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - run:
        name: Test
        command: make test
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[step-not-single-key]: a step is a map with one key, but this one has 3: `run`, `name`, `command`
     --> config.yml:6:9
      |
    6 |       - run:
      |         ^^^^
      = in job `build` (line 3)
      = help: what belongs to the step must be indented further than its name
    refused
    "##);
}

#[test]
fn empty_step() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - checkout
      -
      - run:
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[empty-step]: this step is empty
     --> config.yml:7:8
      |
    7 |       -
      |        ^
      = in job `build` (line 3)

    error[missing-key]: a `run` step has no `command`
     --> config.yml:8:9
      |
    8 |       - run:
      |         ^^^
      = in job `build` (line 3)
    refused
    "##);
}

#[test]
fn when_without_condition() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - when: {steps: [checkout]}
      - unless: [checkout]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[missing-key]: `when` has no `condition`
     --> config.yml:6:9
      |
    6 |       - when: {steps: [checkout]}
      |         ^^^^
      = in job `build` (line 3)

    error[wrong-shape]: `unless` takes a map with `condition` and `steps`
     --> config.yml:7:9
      |
    7 |       - unless: [checkout]
      |         ^^^^^^
      = in job `build` (line 3)
    refused
    "##);
}

#[test]
fn run_reruns() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - run: {command: x, max_auto_reruns: 9}
      - run: {command: x, auto_rerun_delay: 1h, max_auto_reruns: 2}
      - run: {command: x, auto_rerun_delay: 10s}
      - run: {command: x, background: true, max_auto_reruns: 2}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r"
    error[out-of-range]: `max_auto_reruns` must be 1 to 5, not 9
     --> config.yml:6:44
      |
    6 |       - run: {command: x, max_auto_reruns: 9}
      |                                            ^
      = in job `build` (line 3)

    error[out-of-range]: `1h` is not a delay: whole minutes or seconds up to 10 minutes
     --> config.yml:7:45
      |
    7 |       - run: {command: x, auto_rerun_delay: 1h, max_auto_reruns: 2}
      |                                             ^^
      = in job `build` (line 3)
      = help: as in `30s` or `2m`

    error[missing-key]: `auto_rerun_delay` needs `max_auto_reruns` beside it
     --> config.yml:8:27
      |
    8 |       - run: {command: x, auto_rerun_delay: 10s}
      |                           ^^^^^^^^^^^^^^^^
      = in job `build` (line 3)

    error[exclusive-keys]: a step in the background cannot be run again
     --> config.yml:9:45
      |
    9 |       - run: {command: x, background: true, max_auto_reruns: 2}
      |                                             ^^^^^^^^^^^^^^^
      = in job `build` (line 3)
      = it is put into the background here (line 9)
    refused
    ");
}

#[test]
fn invalid_when() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - run: {command: x, when: on_failure}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[invalid-when]: `when` of a step must be `on_success`, `on_fail` or `always`, not `on_failure`
     --> config.yml:6:33
      |
    6 |       - run: {command: x, when: on_failure}
      |                                 ^^^^^^^^^^
      = in job `build` (line 3)
      = help: did you mean `on_fail`?
    refused
    "##);
}

#[test]
fn durations() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - run: {command: x, no_output_timeout: 1200}
      - run: {command: y, no_output_timeout: soon}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    warning[duration-without-unit]: `1200` has no unit and counts as seconds
     --> config.yml:6:46
      |
    6 |       - run: {command: x, no_output_timeout: 1200}
      |                                              ^^^^
      = in job `build` (line 3)
      = help: write `1200s`

    error[invalid-duration]: `soon` is not a duration
     --> config.yml:7:46
      |
    7 |       - run: {command: y, no_output_timeout: soon}
      |                                              ^^^^
      = in job `build` (line 3)
      = help: a number and a unit: `30s`, `10m`, `1.5h`
    refused
    "##);
}

#[test]
fn missing_keys() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - run: {name: x}
      - save_cache: {key: k}
      - restore_cache
      - persist_to_workspace: {paths: [a]}
      - store_artifacts: out
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[missing-key]: a `run` step has no `command`
     --> config.yml:6:9
      |
    6 |       - run: {name: x}
      |         ^^^
      = in job `build` (line 3)

    error[missing-key]: a `save_cache` step has no `paths`
     --> config.yml:7:9
      |
    7 |       - save_cache: {key: k}
      |         ^^^^^^^^^^
      = in job `build` (line 3)

    error[missing-key]: a `restore_cache` step has no `keys`
     --> config.yml:8:9
      |
    8 |       - restore_cache
      |         ^^^^^^^^^^^^^
      = in job `build` (line 3)

    error[missing-key]: a `persist_to_workspace` step has no `root`
     --> config.yml:9:9
      |
    9 |       - persist_to_workspace: {paths: [a]}
      |         ^^^^^^^^^^^^^^^^^^^^
      = in job `build` (line 3)

    error[wrong-shape]: `store_artifacts` must be a map, but this is a string
      --> config.yml:10:26
       |
    10 |       - store_artifacts: out
       |                          ^^^
       = in job `build` (line 3)
    refused
    "##);
}

#[test]
fn unknown_method() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - checkout: {method: blobles}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[unknown-method]: there is no checkout method `blobles`
     --> config.yml:6:28
      |
    6 |       - checkout: {method: blobles}
      |                            ^^^^^^^
      = in job `build` (line 3)
      = help: did you mean `blobless`?
    refused
    "##);
}

#[test]
fn paths_that_name_something_else() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - persist_to_workspace: {root: /tmp/ws/, paths: [/tmp/ws/bin, /etc/hosts, ~/x, dist/**/*.js, $HOME/y, "a*", .]}
      - persist_to_workspace: {root: $CIRCLE_WORKING_DIRECTORY, paths: [x]}
      - save_cache: {key: a, paths: [~/.m2, node_modules/*, $HOME/.npm, /usr/local]}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    warning[workspace-path]: `/tmp/ws/bin` does not begin below `root`, as paths of a workspace do
     --> config.yml:6:56
      |
    6 |       - persist_to_workspace: {root: /tmp/ws/, paths: [/tmp/ws/bin, /etc/hosts, ~/x, dist/**/*.js, $HOME/y, "a*", .]}
      |                                                        ^^^^^^^^^^^
      = in job `build` (line 3)
      = help: write `bin`

    warning[workspace-path]: `/etc/hosts` does not begin below `root`, as paths of a workspace do
     --> config.yml:6:69
      |
    6 |       - persist_to_workspace: {root: /tmp/ws/, paths: [/tmp/ws/bin, /etc/hosts, ~/x, dist/**/*.js, $HOME/y, "a*", .]}
      |                                                                     ^^^^^^^^^^
      = in job `build` (line 3)
      = help: a path begins below the root, `/tmp/ws/`: `/etc/hosts` is looked for in there

    warning[workspace-path]: `~/x` does not begin below `root`, as paths of a workspace do
     --> config.yml:6:81
      |
    6 |       - persist_to_workspace: {root: /tmp/ws/, paths: [/tmp/ws/bin, /etc/hosts, ~/x, dist/**/*.js, $HOME/y, "a*", .]}
      |                                                                                 ^^^
      = in job `build` (line 3)
      = help: a path begins below the root, `/tmp/ws/`: `~/x` is looked for in there

    warning[workspace-path]: `**` in `dist/**/*.js` matches what `*` does: it crosses no `/`
     --> config.yml:6:86
      |
    6 |  - persist_to_workspace: {root: /tmp/ws/, paths: [/tmp/ws/bin, /etc/hosts, ~/x, dist/**/*.js, $HOME/y, "a*", .]}
      |                                                                                 ^^^^^^^^^^^^
      = in job `build` (line 3)
      = help: `*` names all of one directory, and a directory is kept with all below it

    warning[workspace-path]: `$HOME/y` is taken as it is: no variable is put in for `$`
     --> config.yml:6:100
      |
    6 | workspace: {root: /tmp/ws/, paths: [/tmp/ws/bin, /etc/hosts, ~/x, dist/**/*.js, $HOME/y, "a*", .]}
      |                                                                                 ^^^^^^^
      = in job `build` (line 3)
      = help: write the path out, from `root` on

    warning[workspace-path]: `$CIRCLE_WORKING_DIRECTORY` is taken as it is: no variable is put in for `$`
     --> config.yml:7:38
      |
    7 |       - persist_to_workspace: {root: $CIRCLE_WORKING_DIRECTORY, paths: [x]}
      |                                      ^^^^^^^^^^^^^^^^^^^^^^^^^
      = in job `build` (line 3)
      = help: write the path out; `~` is the home, and a relative path begins in the working directory

    warning[cache-path]: `node_modules/*` is not a pattern: a cache keeps what has this very name
     --> config.yml:8:45
      |
    8 |       - save_cache: {key: a, paths: [~/.m2, node_modules/*, $HOME/.npm, /usr/local]}
      |                                             ^^^^^^^^^^^^^^
      = in job `build` (line 3)
      = help: name the directory: it is kept with all below it

    warning[cache-path]: `$HOME/.npm` is taken as it is: no variable is put in for `$`
     --> config.yml:8:61
      |
    8 |       - save_cache: {key: a, paths: [~/.m2, node_modules/*, $HOME/.npm, /usr/local]}
      |                                                             ^^^^^^^^^^
      = in job `build` (line 3)
      = help: write the path out; `~` is the home, and a relative path begins in the working directory
    compiled
    "##);
}
