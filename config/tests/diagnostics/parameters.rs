//! Parameters and arguments.

use insta::assert_snapshot;

use crate::told;

#[test]
fn missing_default() {
    let text = r##"
version: 2.1
parameters:
  env:
    type: string
jobs:
  build:
    docker: [{image: i}]
    steps: [checkout]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[missing-default]: pipeline parameter `env` has no default
     --> config.yml:3:3
      |
    3 |   env:
      |   ^^^
    refused
    "##);
}

#[test]
fn parameter_type() {
    let text = r##"
version: 2.1
parameters:
  env:
    type: strng
    default: x
  list:
    type: steps
    default: []
  kind:
    type: enum
    default: x
jobs:
  build:
    docker: [{image: i}]
    steps: [checkout]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[parameter-type]: there is no parameter type `strng`
     --> config.yml:4:11
      |
    4 |     type: strng
      |           ^^^^^
      = help: did you mean `string`?

    error[parameter-type]: parameter `list` of the pipeline cannot be of type `steps`
     --> config.yml:6:3
      |
    6 |   list:
      |   ^^^^
      = help: string, boolean, integer and enum can stand here

    error[parameter-type]: parameter `kind` is an enum without a list of its values in `enum`
     --> config.yml:9:3
      |
    9 |   kind:
      |   ^^^^
    refused
    "##);
}

#[test]
fn parameter_name() {
    let text = r##"
version: 2.1
parameters:
  1st:
    type: string
    default: x
jobs:
  build:
    docker: [{image: i}]
    steps: [checkout]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    warning[parameter-name]: `1st` is not a name that a parameter can have
     --> config.yml:3:3
      |
    3 |   1st:
      |   ^^^
      = help: a letter, then letters, digits, `_` and `-`
    compiled
    "##);
}

#[test]
fn type_mismatch() {
    let text = r##"
version: 2.1
parameters:
  flag:
    type: boolean
    default: maybe
  version:
    type: string
    default: 3.10
  count:
    type: integer
    default: '5'
  kind:
    type: enum
    enum: [small, large]
    default: medium
  name:
    type: string
jobs:
  build:
    docker: [{image: i}]
    steps: [checkout]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[type-mismatch]: parameter `flag` must be a boolean, but this is a string
     --> config.yml:5:14
      |
    5 |     default: maybe
      |              ^^^^^

    error[type-mismatch]: parameter `version` must be a string, but YAML reads `3.10` as a number
     --> config.yml:8:14
      |
    8 |     default: 3.10
      |              ^^^^
      = help: quote it: `"3.10"`

    error[type-mismatch]: parameter `count` must be an integer, but this is a string
      --> config.yml:11:14
       |
    11 |     default: '5'
       |              ^^^

    error[type-mismatch]: `medium` is not a value of enum `kind`: `small`, `large`
      --> config.yml:15:14
       |
    15 |     default: medium
       |              ^^^^^^

    error[missing-default]: pipeline parameter `name` has no default
      --> config.yml:16:3
       |
    16 |   name:
       |   ^^^^
    refused
    "##);
}

#[test]
fn arguments() {
    let text = r##"
version: 2.1
commands:
  greet:
    parameters:
      name: {type: string}
      to: {type: env_var_name, default: HOME}
    steps: [{run: echo << parameters.name >>}]
jobs:
  build:
    docker: [{image: i}]
    steps:
      - greet
      - greet: {nam: x, name: y}
      - greet: {name: [x]}
      - greet: {name: x, to: 1-x}
      - greet: loud
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r"
    error[missing-argument]: parameter `name` is required for command `greet`
      --> config.yml:12:9
       |
    12 |       - greet
       |         ^^^^^
       = in job `build` (line 9)
       = the parameter is declared here (line 5)
       = help: it has no default, so every use must give it

    error[unexpected-argument]: unexpected argument: command `greet` has no parameter `nam`
      --> config.yml:13:17
       |
    13 |       - greet: {nam: x, name: y}
       |                 ^^^
       = in job `build` (line 9)
       = command `greet` is defined here (line 3)
       = help: did you mean `name`?

    error[type-mismatch]: parameter `name` must be a string, but this is a list
      --> config.yml:14:23
       |
    14 |       - greet: {name: [x]}
       |                       ^^^
       = in job `build` (line 9)
       = the parameter is declared here (line 5)

    error[type-mismatch]: parameter `to` must be the name of an environment variable, which `1-x` is not
      --> config.yml:15:30
       |
    15 |       - greet: {name: x, to: 1-x}
       |                              ^^^
       = in job `build` (line 9)
       = the parameter is declared here (line 6)
       = help: letters, digits and `_`, and no digit first

    error[wrong-shape]: the arguments of command `greet` must be a map, but this is a string
      --> config.yml:16:16
       |
    16 |       - greet: loud
       |                ^^^^
       = in job `build` (line 9)
    refused
    ");
}

#[test]
fn job_arguments() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
  b: *a
  c:
    parameters:
      tag: {type: string}
    docker: [{image: 'i:<< parameters.tag >>'}]
    steps: [checkout]
workflows:
  w:
    jobs:
      - c
      - c: {name: d, tagg: x, tag: y}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r"
    error[missing-argument]: parameter `tag` is required for job `c`
      --> config.yml:15:9
       |
    15 |       - c
       |         ^
       = in workflow `w` (line 13)
       = the parameter is declared here (line 9)
       = help: it has no default, so every use must give it

    error[unexpected-argument]: unexpected argument: job `c` has no parameter `tagg`
      --> config.yml:16:22
       |
    16 |       - c: {name: d, tagg: x, tag: y}
       |                      ^^^^
       = in workflow `w` (line 13)
       = job `c` is defined here (line 7)
       = help: did you mean `tag`?
    refused
    ");
}

#[test]
fn undeclared_parameter() {
    let text = r##"
version: 2.1
parameters:
  branch: {type: string, default: x}
jobs:
  build:
    parameters:
      image: {type: string, default: i}
    docker: [{image: << parameters.imgae >>}]
    steps:
      - run: |
          echo one
          echo << pipeline.parameters.brunch >> << matrix.os >>
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[undeclared-parameter]: argument referenced without declared parameter: `parameters.imgae`
     --> config.yml:8:22
      |
    8 |     docker: [{image: << parameters.imgae >>}]
      |                      ^^^^^^^^^^^^^^^^^^^^^^
      = in job `build` (line 5)
      = help: did you mean `image`?

    error[undeclared-parameter]: argument referenced without declared parameter: `pipeline.parameters.brunch`
      --> config.yml:12:16
       |
    12 |           echo << pipeline.parameters.brunch >> << matrix.os >>
       |                ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
       = in job `build` (line 5)
       = help: did you mean `branch`?

    error[undeclared-parameter]: argument referenced without declared parameter: `matrix.os`
      --> config.yml:12:49
       |
    12 |           echo << pipeline.parameters.brunch >> << matrix.os >>
       |                                                 ^^^^^^^^^^^^^^^
       = in job `build` (line 5)
    refused
    "##);
}

#[test]
fn pipeline_parameter_in_orb() {
    let text = r##"
version: 2.1
parameters:
  env: {type: string, default: x}
orbs:
  o:
    commands:
      c:
        steps: [{run: echo << pipeline.parameters.env >>}]
jobs:
  build:
    docker: [{image: i}]
    steps: [o/c]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[undeclared-parameter]: `pipeline.parameters.env` is not in scope here
     --> config.yml:8:28
      |
    8 |         steps: [{run: echo << pipeline.parameters.env >>}]
      |                            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      = in command `c` (line 7)
      = called from job `build` (line 12)
      = help: pipeline parameters cannot stand in orbs or in other pipeline parameters
    refused
    "##);
}

#[test]
fn unknown_name() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - run: echo << pipeline.git.brunch >> << param.x >>
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[unknown-name]: `pipeline.git.brunch` stands for nothing
     --> config.yml:6:19
      |
    6 |       - run: echo << pipeline.git.brunch >> << param.x >>
      |                   ^^^^^^^^^^^^^^^^^^^^^^^^^
      = in job `build` (line 3)
      = help: did you mean `pipeline.git.branch`?

    error[unknown-name]: `param.x` stands for nothing
     --> config.yml:6:45
      |
    6 |       - run: echo << pipeline.git.brunch >> << param.x >>
      |                                             ^^^^^^^^^^^^^
      = in job `build` (line 3)
      = help: names start with `parameters.`, `pipeline.` or `matrix.`; plain text needs `\<<`
    refused
    "##);
}
