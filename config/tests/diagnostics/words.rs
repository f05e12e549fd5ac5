//! What is told of plain scalars that YAML reads as something else than what stands there.

use insta::assert_snapshot;

use crate::told;

#[test]
fn what_a_word_becomes_is_told() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    environment:
      DEBUG: on
      MODE: 0755
    steps:
      - run: {command: make}
      - when: {condition: {equal: [off, 1:30]}, steps: [checkout]}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    warning[word-rewritten]: `DEBUG` becomes `true`, because YAML reads `on` as a boolean
     --> config.yml:6:14
      |
    6 |       DEBUG: on
      |              ^^
      = in job `build` (line 3)
      = help: quote it to keep it: `"on"`

    warning[number-rewritten]: `MODE` becomes `493`, because YAML reads `0755` as a number
     --> config.yml:7:13
      |
    7 |       MODE: 0755
      |             ^^^^
      = in job `build` (line 3)
      = help: quote it to keep it: `"0755"`

    warning[word-rewritten]: this value becomes `false`, because YAML reads `off` as a boolean
      --> config.yml:10:36
       |
    10 |       - when: {condition: {equal: [off, 1:30]}, steps: [checkout]}
       |                                    ^^^
       = in job `build` (line 3)
       = help: write `false` if you mean it; a text is quoted: `"off"`

    warning[number-rewritten]: this value becomes `90`, because YAML reads `1:30` as a number
      --> config.yml:10:41
       |
    10 |       - when: {condition: {equal: [off, 1:30]}, steps: [checkout]}
       |                                         ^^^^
       = in job `build` (line 3)
       = help: write `90` if you mean it; a text is quoted: `"1:30"`
    compiled
    "##);
}

#[test]
fn what_a_word_is_to_circleci_is_told() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    environment:
      SINCE: 2024-01-31
      NO: thanks
    steps:
      - run: {name: 010, command: make}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    warning[date-unquoted]: `SINCE` stays `2024-01-31` here, but CircleCI reads it as a date
     --> config.yml:6:14
      |
    6 |       SINCE: 2024-01-31
      |              ^^^^^^^^^^
      = in job `build` (line 3)
      = help: quote it: `"2024-01-31"`

    warning[word-rewritten]: this key stays `NO` here, but CircleCI reads it as a boolean, `false`
     --> config.yml:7:7
      |
    7 |       NO: thanks
      |       ^^
      = help: quote it: `"NO"`

    warning[number-rewritten]: `name` stays `010` here, but CircleCI reads it as a number, `8`
     --> config.yml:9:21
      |
    9 |       - run: {name: 010, command: make}
      |                     ^^^
      = in job `build` (line 3)
      = help: quote it: `"010"`
    compiled
    "##);
}

#[test]
fn what_a_word_becomes_as_a_parameter_is_told() {
    let text = r##"
version: 2.1
commands:
  c:
    parameters: {s: {type: string, default: ""}, n: {type: integer, default: 0755}, b: {type: boolean, default: y}}
    steps: [{run: echo << parameters.s >><< parameters.n >>}]
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - c: {s: yes}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    warning[number-rewritten]: parameter `n` becomes `493`, because YAML reads `0755` as a number
     --> config.yml:4:78
      |
    4 |     parameters: {s: {type: string, default: ""}, n: {type: integer, default: 0755}, b: {type: boolean, default: y}}
      |                                                                              ^^^^
      = help: write `493` if you mean it; a text is quoted: `"0755"`

    error[type-mismatch]: parameter `b` must be a boolean, but this is a string
     --> config.yml:4:113
      |
    4 | g, default: ""}, n: {type: integer, default: 0755}, b: {type: boolean, default: y}}
      |                                                                                 ^
      = help: `y` and `n` are texts: write `true` or `false`

    error[type-mismatch]: parameter `s` must be a string, but YAML reads `yes` as a boolean
      --> config.yml:10:16
       |
    10 |       - c: {s: yes}
       |                ^^^
       = in job `build` (line 7)
       = the parameter is declared here (line 4)
       = help: quote it: `"yes"`
    refused
    "##);
}

#[test]
fn a_workflow_may_be_switched_off_by_a_word() {
    let text = r##"
version: 2.1
jobs:
  j: {type: no-op}
workflows:
  off: {when: no, jobs: [j]}
  letter: {when: n, jobs: [j]}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    warning[word-rewritten]: this key stays `off` here, but CircleCI reads it as a boolean, `false`
     --> config.yml:5:3
      |
    5 |   off: {when: no, jobs: [j]}
      |   ^^^
      = help: quote it: `"off"`

    warning[word-rewritten]: this value becomes `false`, because YAML reads `no` as a boolean
     --> config.yml:5:15
      |
    5 |   off: {when: no, jobs: [j]}
      |               ^^
      = in workflow `off` (line 5)
      = help: write `false` if you mean it; a text is quoted: `"no"`

    error[unknown-name]: `n` stands for nothing
     --> config.yml:6:18
      |
    6 |   letter: {when: n, jobs: [j]}
      |                  ^
      = in workflow `letter` (line 6)
      = help: a boolean is `true` or `false`
    refused
    "##);
}
