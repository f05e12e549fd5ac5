//! Workflows: invocations, matrices, groups, limits.

use insta::assert_snapshot;

use crate::told;

#[test]
fn a_type_of_an_invocation_is_an_approval() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
workflows:
  w:
    jobs:
      - a: {type: no-op}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[unknown-job-type]: the only `type` that an invocation can have is `approval`
     --> config.yml:9:19
      |
    9 |       - a: {type: no-op}
      |                   ^^^^^
      = in workflow `w` (line 7)
    refused
    "##);
}

#[test]
fn a_workflow_reruns_up_to_five_times() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
workflows:
  w:
    max_auto_reruns: 6
    jobs: [a]
  v: {max_auto_reruns: 0, jobs: [a]}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[out-of-range]: `max_auto_reruns` must be 1 to 5, not 6
     --> config.yml:8:22
      |
    8 |     max_auto_reruns: 6
      |                      ^
      = in workflow `w` (line 7)

    error[out-of-range]: `max_auto_reruns` must be 1 to 5, not 0
      --> config.yml:10:24
       |
    10 |   v: {max_auto_reruns: 0, jobs: [a]}
       |                        ^
       = in workflow `v` (line 10)
    refused
    "##);
}

#[test]
fn a_serial_group_belongs_to_a_job() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
workflows:
  w:
    serial-group: deploy
    jobs: [a]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[misplaced-key]: `serial-group` belongs to a job of a workflow, not to the workflow
     --> config.yml:8:5
      |
    8 |     serial-group: deploy
      |     ^^^^^^^^^^^^
      = in workflow `w` (line 7)
    refused
    "##);
}

#[test]
fn a_serial_group_has_a_short_plain_name() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
workflows:
  w:
    jobs:
      - a: {name: b, serial-group: "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}
      - a: {name: c, serial-group: ""}
      - a: {name: d, serial-group: "a b"}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[invalid-serial-group]: `xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…` cannot name a serial group
     --> config.yml:9:36
      |
    9 |       - a: {name: b, serial-group: "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
      |                                    ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      = in workflow `w` (line 7)
      = help: up to 512 letters, digits, `.`, `-`, `_` and `/`

    error[invalid-serial-group]: `` cannot name a serial group
      --> config.yml:10:36
       |
    10 |       - a: {name: c, serial-group: ""}
       |                                    ^^
       = in workflow `w` (line 7)
       = help: up to 512 letters, digits, `.`, `-`, `_` and `/`

    error[invalid-serial-group]: `a b` cannot name a serial group
      --> config.yml:11:36
       |
    11 |       - a: {name: d, serial-group: "a b"}
       |                                    ^^^^^
       = in workflow `w` (line 7)
       = help: up to 512 letters, digits, `.`, `-`, `_` and `/`
    refused
    "##);
}

#[test]
fn a_matrix_has_lists() {
    let text = r##"
version: 2.1
jobs:
  b: {parameters: {x: {type: string}}, docker: [{image: i}], steps: [checkout]}
workflows:
  w:
    jobs:
      - b: {matrix: {parameters: {x: one}}}
      - b: {matrix: {parameters: {x: []}}}
      - b: {matrix: {parameters: {}}}
      - b: {matrix: [x]}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r"
    error[invalid-matrix]: `x` must be a list of values
     --> config.yml:7:38
      |
    7 |       - b: {matrix: {parameters: {x: one}}}
      |                                      ^^^
      = in workflow `w` (line 5)

    error[invalid-matrix]: `x` has no values
     --> config.yml:8:38
      |
    8 |       - b: {matrix: {parameters: {x: []}}}
      |                                      ^^
      = in workflow `w` (line 5)

    error[invalid-matrix]: `matrix` needs `parameters` with at least one list of values
     --> config.yml:9:21
      |
    9 |       - b: {matrix: {parameters: {}}}
      |                     ^^^^^^^^^^^^^^^^
      = in workflow `w` (line 5)

    error[invalid-matrix]: `matrix` must be a map with `parameters`
      --> config.yml:10:21
       |
    10 |       - b: {matrix: [x]}
       |                     ^^^
       = in workflow `w` (line 5)
    refused
    ");
}

#[test]
fn what_a_matrix_leaves_out_and_gives() {
    let text = r##"
version: 2.1
jobs:
  b: {parameters: {x: {type: string}}, docker: [{image: i}], steps: [checkout]}
workflows:
  w:
    jobs:
      - b: {matrix: {parameters: {x: [a]}, exclude: {x: a}}}
      - b: {matrix: {parameters: {x: [a]}, exclude: [{x: a}]}}
      - b: {matrix: {parameters: {y: [a]}}}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r"
    error[invalid-matrix]: `exclude` is a list of maps
     --> config.yml:7:53
      |
    7 |       - b: {matrix: {parameters: {x: [a]}, exclude: {x: a}}}
      |                                                     ^^^^^^
      = in workflow `w` (line 5)

    error[invalid-matrix]: this matrix is empty: `exclude` leaves nothing of it
     --> config.yml:8:21
      |
    8 |       - b: {matrix: {parameters: {x: [a]}, exclude: [{x: a}]}}
      |                     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      = in workflow `w` (line 5)

    error[missing-argument]: parameter `x` is required for job `b`
     --> config.yml:9:9
      |
    9 |       - b: {matrix: {parameters: {y: [a]}}}
      |         ^
      = in workflow `w` (line 5)
      = the parameter is declared here (line 3)
      = help: it has no default, so every use must give it

    error[unexpected-argument]: unexpected argument: job `b` has no parameter `y`
     --> config.yml:9:39
      |
    9 |       - b: {matrix: {parameters: {y: [a]}}}
      |                                       ^
      = in workflow `w` (line 5)
      = job `b` is defined here (line 3)
      = help: did you mean `x`?
    refused
    ");
}

#[test]
fn requirements_exist_and_end_somehow() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
workflows:
  w:
    jobs:
      - a
      - a: {name: b, requires: [c]}
      - a: {name: d, requires: [{a: finished}]}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[unknown-requirement]: no job of this workflow is named `c`
      --> config.yml:10:33
       |
    10 |       - a: {name: b, requires: [c]}
       |                                 ^
       = in workflow `w` (line 7)
       = help: did you mean `a`?

    error[unknown-status]: a job cannot end with status `finished`
      --> config.yml:11:37
       |
    11 |       - a: {name: d, requires: [{a: finished}]}
       |                                     ^^^^^^^^
       = in workflow `w` (line 7)
       = help: known are success, failed, canceled, unauthorized, not_run and terminal
    refused
    "##);
}

#[test]
fn nobody_waits_for_himself() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
workflows:
  w:
    jobs:
      - a: {requires: [b]}
      - a: {name: b, requires: [a]}
      - a: {name: c, requires: [c]}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[cyclic-requires]: these jobs require each other: a → b → a
      --> config.yml:10:33
       |
    10 |       - a: {name: b, requires: [a]}
       |                                 ^
       = `a` requires `b` here (line 9)
    refused
    "##);
}

#[test]
fn an_approval_has_a_name_of_its_own() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
workflows:
  w:
    jobs:
      - hold: {type: approval}
      - hold: {type: approval}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[duplicate-name]: several jobs are named `hold`, but an approval needs a name of its own
     --> config.yml:9:9
      |
    9 |       - hold: {type: approval}
      |         ^^^^
      = in workflow `w` (line 7)
      = help: give it one with `name:`

    error[duplicate-name]: several jobs are named `hold`, but an approval needs a name of its own
      --> config.yml:10:9
       |
    10 |       - hold: {type: approval}
       |         ^^^^
       = in workflow `w` (line 7)
       = help: give it one with `name:`
    refused
    "##);
}

#[test]
fn contexts_have_names() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
workflows:
  w:
    jobs:
      - a: {context: ["", " x", "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy", fine]}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[invalid-context]: `` cannot name a context
     --> config.yml:9:22
      |
    9 |       - a: {context: ["", " x", "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy
      |                      ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      = in workflow `w` (line 7)
      = help: up to 200 characters in one line, without blanks around them

    error[invalid-context]: ` x` cannot name a context
     --> config.yml:9:22
      |
    9 |       - a: {context: ["", " x", "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy
      |                      ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      = in workflow `w` (line 7)
      = help: up to 200 characters in one line, without blanks around them

    error[invalid-context]: `yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy…` cannot name a context
     --> config.yml:9:22
      |
    9 |       - a: {context: ["", " x", "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy
      |                      ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      = in workflow `w` (line 7)
      = help: up to 200 characters in one line, without blanks around them
    refused
    "##);
}

#[test]
fn a_condition_is_when_or_unless() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
workflows:
  w:
    when: true
    unless: false
    jobs: [a]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[exclusive-keys]: `when` and `unless` exclude each other
     --> config.yml:9:5
      |
    9 |     unless: false
      |     ^^^^^^
      = in workflow `w` (line 7)
      = the other one stands here (line 8)
    refused
    "##);
}

#[test]
fn unknown_jobs_are_refused() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
workflows:
  w:
    jobs: [aa, orb/b, {}]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[unknown-job]: there is no job named `aa`
     --> config.yml:8:12
      |
    8 |     jobs: [aa, orb/b, {}]
      |            ^^
      = in workflow `w` (line 7)
      = help: did you mean `a`?

    error[unknown-job]: there is no orb named `orb`
     --> config.yml:8:16
      |
    8 |     jobs: [aa, orb/b, {}]
      |                ^^^^^
      = in workflow `w` (line 7)

    error[wrong-shape]: a job of a workflow is a name or a map with one key, the job's name
     --> config.yml:8:23
      |
    8 |     jobs: [aa, orb/b, {}]
      |                       ^^
      = in workflow `w` (line 7)
      = help: what belongs to the job must be indented further than its name
    refused
    "##);
}
