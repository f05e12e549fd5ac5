//! Workflows.

use insta::assert_snapshot;

use crate::told;

#[test]
fn invalid_matrix() {
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
          matrix: {parameters: {os: linux}}
      - a:
          matrix: {}
      - a:
          matrix: {parameters: {os: [x]}, exclude: [{os: x}]}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[invalid-matrix]: `os` must be a list of values
      --> config.yml:11:37
       |
    11 |           matrix: {parameters: {os: linux}}
       |                                     ^^^^^
       = in workflow `w` (line 8)

    error[invalid-matrix]: `matrix` needs `parameters` with at least one list of values
      --> config.yml:13:19
       |
    13 |           matrix: {}
       |                   ^^
       = in workflow `w` (line 8)

    error[invalid-matrix]: this matrix is empty: `exclude` leaves nothing of it
      --> config.yml:15:19
       |
    15 |           matrix: {parameters: {os: [x]}, exclude: [{os: x}]}
       |                   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
       = in workflow `w` (line 8)
    refused
    "##);
}

#[test]
fn incomplete_exclude() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
  b: *a
  c:
    parameters: {os: {type: string}, v: {type: string}}
    docker: [{image: i}]
    steps: [checkout]
workflows:
  w:
    jobs:
      - c:
          matrix: {parameters: {os: [x, y], v: ['1']}, exclude: [{os: x}]}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    warning[incomplete-exclude]: this excludes nothing: it must name every parameter of the matrix
      --> config.yml:15:66
       |
    15 |           matrix: {parameters: {os: [x, y], v: ['1']}, exclude: [{os: x}]}
       |                                                                  ^^^^^^^
       = in workflow `w` (line 12)
    compiled
    "##);
}

#[test]
fn filters() {
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
          filters:
            branches: {only: [release/*, '/(/']}
            tag: {only: x}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    warning[glob-in-filter]: `release/*` is plain text and matches nothing but itself
      --> config.yml:12:31
       |
    12 |             branches: {only: [release/*, '/(/']}
       |                               ^^^^^^^^^
       = in workflow `w` (line 8)
       = help: a regular expression stands between slashes, as in `/release\/.*/`

    error[invalid-regex]: the regular expression `(` does not work: Parsing error at position 1: Opening parenthesis without closing parenthesis
      --> config.yml:12:42
       |
    12 |             branches: {only: [release/*, '/(/']}
       |                                          ^^^^^
       = in workflow `w` (line 8)

    error[unknown-key]: key `tag` means nothing in `filters`
      --> config.yml:13:13
       |
    13 |             tag: {only: x}
       |             ^^^
       = in workflow `w` (line 8)
       = help: did you mean `tags`?
    refused
    "##);
}

#[test]
fn serial_group() {
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
      - a: {serial-group: 'not allowed'}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[invalid-serial-group]: `not allowed` cannot name a serial group
      --> config.yml:10:27
       |
    10 |       - a: {serial-group: 'not allowed'}
       |                           ^^^^^^^^^^^^^
       = in workflow `w` (line 8)
       = help: up to 512 letters, digits, `.`, `-`, `_` and `/`
    refused
    "##);
}

#[test]
fn invocation_indentation() {
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
        requires: [b]
      - b
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    warning[job-not-single-key]: a job of a workflow has one key, its name: beside it `requires` means nothing
      --> config.yml:11:9
       |
    11 |         requires: [b]
       |         ^^^^^^^^ ignored
       = in workflow `w` (line 8)
       = help: what belongs to the job must be indented further than its name
    compiled
    "##);
}

#[test]
fn workflow_without_jobs() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
  b: *a
workflows:
  w:
    when: true
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[missing-key]: workflow `w` has no list of `jobs`
     --> config.yml:8:3
      |
    8 |   w:
      |   ^
      = in workflow `w` (line 8)
    refused
    "##);
}

#[test]
fn wrong_shapes() {
    let text = r##"
version: 2.1
orbs: []
commands: {c: [checkout]}
jobs:
  build:
    docker: {image: i}
    steps: checkout
workflows:
  w: [build]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[wrong-shape]: `orbs` must be a map, but this is an empty list
     --> config.yml:2:7
      |
    2 | orbs: []
      |       ^^

    error[wrong-shape]: command `c` must be a map, but this is a list
     --> config.yml:3:12
      |
    3 | commands: {c: [checkout]}
      |            ^

    error[wrong-shape]: `docker` must be a list with at least one image, but this is a map
     --> config.yml:6:13
      |
    6 |     docker: {image: i}
      |             ^^^^^^^^^^
      = in job `build` (line 5)

    error[wrong-shape]: steps must be a list, but this is a string
     --> config.yml:7:12
      |
    7 |     steps: checkout
      |            ^^^^^^^^
      = in job `build` (line 5)

    error[wrong-shape]: workflow `w` must be a map, but this is a list
     --> config.yml:9:3
      |
    9 |   w: [build]
      |   ^
      = in workflow `w` (line 9)
    refused
    "##);
}
