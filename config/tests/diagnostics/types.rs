//! Types of parameters, one mistake of each kind.

use insta::assert_snapshot;

use crate::told;

#[test]
fn a_boolean_is_no_string() {
    let text = r##"
version: 2.1
commands:
  greet: {parameters: {name: {type: string}}, steps: [{run: "echo << parameters.name >>"}]}
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - greet: {name: true}
      - greet: {name: 12}
      - greet: {name: 1.5}
      - greet: {name:}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[type-mismatch]: parameter `name` must be a string, but this is a boolean
     --> config.yml:8:23
      |
    8 |       - greet: {name: true}
      |                       ^^^^
      = in job `build` (line 5)
      = the parameter is declared here (line 3)
      = help: quote it: `"true"`

    error[type-mismatch]: parameter `name` must be a string, but this is an integer
     --> config.yml:9:23
      |
    9 |       - greet: {name: 12}
      |                       ^^
      = in job `build` (line 5)
      = the parameter is declared here (line 3)
      = help: quote it: `"12"`

    error[type-mismatch]: parameter `name` must be a string, but this is a number
      --> config.yml:10:23
       |
    10 |       - greet: {name: 1.5}
       |                       ^^^
       = in job `build` (line 5)
       = the parameter is declared here (line 3)
       = help: quote it: `"1.5"`

    error[type-mismatch]: parameter `name` must be a string, but this is nothing
      --> config.yml:11:21
       |
    11 |       - greet: {name:}
       |                     ^
       = in job `build` (line 5)
       = the parameter is declared here (line 3)
    refused
    "##);
}

#[test]
fn a_boolean_parameter_takes_the_words_of_yaml() {
    let text = r##"
version: 2.1
commands:
  when_on: {parameters: {up: {type: boolean}}, steps: [{run: "echo << parameters.up >>"}]}
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - when_on: {up: yes}
      - when_on: {up: Off}
      - when_on: {up: "true"}
      - when_on: {up: 1}
      - when_on: {up: maybe}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[type-mismatch]: parameter `up` must be a boolean, but this is a string
      --> config.yml:10:23
       |
    10 |       - when_on: {up: "true"}
       |                       ^^^^^^
       = in job `build` (line 5)
       = the parameter is declared here (line 3)

    error[type-mismatch]: parameter `up` must be a boolean, but this is an integer
      --> config.yml:11:23
       |
    11 |       - when_on: {up: 1}
       |                       ^
       = in job `build` (line 5)
       = the parameter is declared here (line 3)

    error[type-mismatch]: parameter `up` must be a boolean, but this is a string
      --> config.yml:12:23
       |
    12 |       - when_on: {up: maybe}
       |                       ^^^^^
       = in job `build` (line 5)
       = the parameter is declared here (line 3)
    refused
    "##);
}

#[test]
fn an_integer_is_whole() {
    let text = r##"
version: 2.1
commands:
  n: {parameters: {n: {type: integer}}, steps: [{run: "echo << parameters.n >>"}]}
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - n: {n: 3}
      - n: {n: 3.5}
      - n: {n: "3"}
      - n: {n: three}
      - n: {n: true}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[type-mismatch]: parameter `n` must be an integer, but this is a number
     --> config.yml:9:16
      |
    9 |       - n: {n: 3.5}
      |                ^^^
      = in job `build` (line 5)
      = the parameter is declared here (line 3)

    error[type-mismatch]: parameter `n` must be an integer, but this is a string
      --> config.yml:10:16
       |
    10 |       - n: {n: "3"}
       |                ^^^
       = in job `build` (line 5)
       = the parameter is declared here (line 3)

    error[type-mismatch]: parameter `n` must be an integer, but this is a string
      --> config.yml:11:16
       |
    11 |       - n: {n: three}
       |                ^^^^^
       = in job `build` (line 5)
       = the parameter is declared here (line 3)

    error[type-mismatch]: parameter `n` must be an integer, but this is a boolean
      --> config.yml:12:16
       |
    12 |       - n: {n: true}
       |                ^^^^
       = in job `build` (line 5)
       = the parameter is declared here (line 3)
    refused
    "##);
}

#[test]
fn an_enum_has_its_members() {
    let text = r##"
version: 2.1
commands:
  c:
    parameters:
      to: {type: enum, enum: [test, live], default: dev}
      n: {type: enum, enum: [1, 2], default: 2}
      none: {type: enum, default: a}
    steps: [{run: "echo << parameters.to >>"}]
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - c: {to: prod}
      - c: {to: [test]}
      - c: {to: test}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[type-mismatch]: `dev` is not a value of enum `to`: `test`, `live`
     --> config.yml:5:53
      |
    5 |       to: {type: enum, enum: [test, live], default: dev}
      |                                                     ^^^

    error[parameter-type]: parameter `none` is an enum without a list of its values in `enum`
     --> config.yml:7:7
      |
    7 |       none: {type: enum, default: a}
      |       ^^^^

    error[type-mismatch]: `prod` is not a value of enum `to`: `test`, `live`
      --> config.yml:13:17
       |
    13 |       - c: {to: prod}
       |                 ^^^^
       = in job `build` (line 10)
       = the parameter is declared here (line 5)

    error[type-mismatch]: parameter `to` must be a string, but this is a list
      --> config.yml:14:17
       |
    14 |       - c: {to: [test]}
       |                 ^^^^^^
       = in job `build` (line 10)
       = the parameter is declared here (line 5)
    refused
    "##);
}

#[test]
fn steps_are_a_list() {
    let text = r##"
version: 2.1
commands:
  c: {parameters: {s: {type: steps}}, steps: [{steps: << parameters.s >>}]}
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - c: {s: checkout}
      - c: {s: {run: x}}
      - c: {s: []}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[type-mismatch]: parameter `s` must be a list of steps, but this is a string
     --> config.yml:8:16
      |
    8 |       - c: {s: checkout}
      |                ^^^^^^^^
      = in job `build` (line 5)
      = the parameter is declared here (line 3)

    error[type-mismatch]: parameter `s` must be a list of steps, but this is a map
     --> config.yml:9:16
      |
    9 |       - c: {s: {run: x}}
      |                ^^^^^^^^
      = in job `build` (line 5)
      = the parameter is declared here (line 3)
    refused
    "##);
}

#[test]
fn an_executor_parameter_names_one() {
    let text = r##"
version: 2.1
executors: {box: {docker: [{image: i}]}}
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
  b: {parameters: {e: {type: executor}}, executor: << parameters.e >>, steps: [checkout]}
workflows:
  w:
    jobs:
      - b: {e: bix}
      - b: {e: {tag: x}, name: c}
      - b: {e: [box], name: d}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[unknown-executor]: there is no executor named `bix`
      --> config.yml:11:16
       |
    11 |       - b: {e: bix}
       |                ^^^
       = in workflow `w` (line 9)
       = help: did you mean `box`?

    error[missing-key]: missing executor name
      --> config.yml:12:16
       |
    12 |       - b: {e: {tag: x}, name: c}
       |                ^^^^^^^^
       = in workflow `w` (line 9)
       = help: add `name:`

    error[wrong-shape]: an executor is a name or a map with `name`, but this is a list
      --> config.yml:13:16
       |
    13 |       - b: {e: [box], name: d}
       |                ^^^^^
       = in workflow `w` (line 9)
    refused
    "##);
}

#[test]
fn a_name_of_a_variable_is_one() {
    let text = r##"
version: 2.1
commands:
  c: {parameters: {v: {type: env_var_name, default: NOT OK}}, steps: [{run: "echo ${<< parameters.v >>}"}]}
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - c: {v: 9LIVES}
      - c: {v: A-B}
      - c: {v: _OK2}
      - c: {v: ""}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[type-mismatch]: parameter `v` must be the name of an environment variable, which `NOT OK` is not
     --> config.yml:3:53
      |
    3 |   c: {parameters: {v: {type: env_var_name, default: NOT OK}}, steps: [{run: "echo ${<< parameters.v >>}"}]}
      |                                                     ^^^^^^
      = help: letters, digits and `_`, and no digit first

    error[type-mismatch]: parameter `v` must be the name of an environment variable, which `9LIVES` is not
     --> config.yml:8:16
      |
    8 |       - c: {v: 9LIVES}
      |                ^^^^^^
      = in job `build` (line 5)
      = the parameter is declared here (line 3)
      = help: letters, digits and `_`, and no digit first

    error[type-mismatch]: parameter `v` must be the name of an environment variable, which `A-B` is not
     --> config.yml:9:16
      |
    9 |       - c: {v: A-B}
      |                ^^^
      = in job `build` (line 5)
      = the parameter is declared here (line 3)
      = help: letters, digits and `_`, and no digit first

    error[type-mismatch]: parameter `v` must be the name of an environment variable, which `` is not
      --> config.yml:11:16
       |
    11 |       - c: {v: ""}
       |                ^^
       = in job `build` (line 5)
       = the parameter is declared here (line 3)
       = help: letters, digits and `_`, and no digit first
    refused
    "##);
}

#[test]
fn defaults_fit_their_type() {
    let text = r##"
version: 2.1
commands:
  c:
    parameters:
      s: {type: string, default: 1}
      b: {type: boolean, default: "no"}
      i: {type: integer, default: one}
    steps: [checkout]
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - c: {s: a, b: true, i: 1}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[type-mismatch]: parameter `s` must be a string, but this is an integer
     --> config.yml:5:34
      |
    5 |       s: {type: string, default: 1}
      |                                  ^
      = help: quote it: `"1"`

    error[type-mismatch]: parameter `b` must be a boolean, but this is a string
     --> config.yml:6:35
      |
    6 |       b: {type: boolean, default: "no"}
      |                                   ^^^^

    error[type-mismatch]: parameter `i` must be an integer, but this is a string
     --> config.yml:7:35
      |
    7 |       i: {type: integer, default: one}
      |                                   ^^^
    refused
    "##);
}

#[test]
fn an_unused_default_fits_too() {
    let text = r##"
version: 2.1
parameters:
  p: {type: boolean, default: 1}
commands:
  c:
    parameters:
      e: {type: enum, enum: [a, b], default: c}
      x: {type: string}
    steps: [checkout]
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps: [checkout]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[type-mismatch]: parameter `p` must be a boolean, but this is an integer
     --> config.yml:3:31
      |
    3 |   p: {type: boolean, default: 1}
      |                               ^

    error[type-mismatch]: `c` is not a value of enum `e`: `a`, `b`
     --> config.yml:7:46
      |
    7 |       e: {type: enum, enum: [a, b], default: c}
      |                                              ^
    refused
    "##);
}

#[test]
fn executors_take_plain_parameters_only() {
    let text = r##"
version: 2.1
executors:
  box:
    parameters:
      s: {type: steps, default: []}
      e: {type: executor, default: box}
    docker: [{image: i}]
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps: [checkout]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[parameter-type]: parameter `s` of executor `box` cannot be of type `steps`
     --> config.yml:5:7
      |
    5 |       s: {type: steps, default: []}
      |       ^
      = help: string, boolean, integer and enum can stand here

    error[parameter-type]: parameter `e` of executor `box` cannot be of type `executor`
     --> config.yml:6:7
      |
    6 |       e: {type: executor, default: box}
      |       ^
      = help: string, boolean, integer and enum can stand here
    refused
    "##);
}

#[test]
fn pipeline_parameters_are_plain() {
    let text = r##"
version: 2.1
parameters:
  s: {type: steps, default: []}
  v: {type: env_var_name, default: A}
  n: {type: string}
  t: {default: a}
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps: [checkout]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[parameter-type]: parameter `s` of the pipeline cannot be of type `steps`
     --> config.yml:3:3
      |
    3 |   s: {type: steps, default: []}
      |   ^
      = help: string, boolean, integer and enum can stand here

    error[parameter-type]: parameter `v` of the pipeline cannot be of type `env_var_name`
     --> config.yml:4:3
      |
    4 |   v: {type: env_var_name, default: A}
      |   ^
      = help: string, boolean, integer and enum can stand here

    error[missing-default]: pipeline parameter `n` has no default
     --> config.yml:5:3
      |
    5 |   n: {type: string}
      |   ^

    error[parameter-type]: parameter `t` has no `type`
     --> config.yml:6:3
      |
    6 |   t: {default: a}
      |   ^
    refused
    "##);
}

#[test]
fn a_jobs_parameter_has_a_proper_name() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    parameters: {1st: {type: string, default: a}, a b: {type: string, default: b}}
    steps: [checkout]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[parameter-name]: `1st` is not a name that a parameter can have
     --> config.yml:5:18
      |
    5 |     parameters: {1st: {type: string, default: a}, a b: {type: string, default: b}}
      |                  ^^^
      = help: a letter, then letters, digits, `_` and `-`

    error[parameter-name]: `a b` is not a name that a parameter can have
     --> config.yml:5:51
      |
    5 |     parameters: {1st: {type: string, default: a}, a b: {type: string, default: b}}
      |                                                   ^^^
      = help: a letter, then letters, digits, `_` and `-`
    refused
    "##);
}

#[test]
fn a_condition_of_a_step_is_a_word() {
    let text = r##"
version: 2.1
commands:
  c: {parameters: {up: {type: boolean}}, steps: [{run: {command: x, when: << parameters.up >>}}]}
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - c: {up: true}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[invalid-when]: `when` of a step must be `on_success`, `on_fail` or `always`, not `true`
     --> config.yml:3:75
      |
    3 |   c: {parameters: {up: {type: boolean}}, steps: [{run: {command: x, when: << parameters.up >>}}]}
      |                                                                           ^^^^^^^^^^^^^^^^^^^
      = in command `c` (line 3)
      = called from job `build` (line 8)
    refused
    "##);
}

#[test]
fn pipeline_parameters_do_not_refer_to_each_other() {
    let text = r##"
version: 2.1
parameters:
  a: {type: string, default: x}
  b: {type: string, default: << pipeline.parameters.a >>}
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps: [checkout]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[undeclared-parameter]: `pipeline.parameters.a` is not in scope here
     --> config.yml:4:30
      |
    4 |   b: {type: string, default: << pipeline.parameters.a >>}
      |                              ^^^^^^^^^^^^^^^^^^^^^^^^^^^
      = help: pipeline parameters cannot stand in orbs or in other pipeline parameters
    refused
    "##);
}

#[test]
fn a_callers_parameters_are_out_of_reach() {
    let text = r##"
version: 2.1
commands:
  inner: {steps: [{run: "echo << parameters.who >>"}]}
  outer: {parameters: {who: {type: string}}, steps: [inner]}
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps: [{outer: {who: me}}]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[undeclared-parameter]: argument referenced without declared parameter: `parameters.who`
     --> config.yml:3:31
      |
    3 |   inner: {steps: [{run: "echo << parameters.who >>"}]}
      |                               ^^^^^^^^^^^^^^^^^^^^
      = in command `inner` (line 3)
      = called from command `outer` (line 4)
      = called from job `build` (line 8)
    refused
    "##);
}

#[test]
fn matrix_values_stay_in_their_invocation() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
workflows:
  w:
    jobs:
      - a: {name: "a << matrix.size >>"}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[undeclared-parameter]: argument referenced without declared parameter: `matrix.size`
     --> config.yml:9:22
      |
    9 |       - a: {name: "a << matrix.size >>"}
      |                      ^^^^^^^^^^^^^^^^^
      = in workflow `w` (line 7)
    refused
    "##);
}
