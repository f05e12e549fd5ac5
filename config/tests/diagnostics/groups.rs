//! What job groups must not be.

use insta::assert_snapshot;

use crate::told;

/// A config with these groups and these uses of them.
fn refused(groups: &str, uses: &str) -> String {
    told(&format!(
        "version: 2.1\njobs:\n  a: &job {{docker: [{{image: i}}], steps: [checkout]}}\n  b: *job\njob-groups:\n  {groups}\nworkflows:\n  w:\n    jobs: [{uses}]\n"
    ))
}

#[test]
fn nested_groups() {
    assert_snapshot!(refused("g: {jobs: [a]}\n  h: {jobs: [b, g]}", "h"), @r##"
    error[nested-group]: `g` is a job group, and a job group cannot lie inside of another
     --> config.yml:7:17
      |
    7 |   h: {jobs: [b, g]}
      |                 ^
      = in job group `h` (line 7)
      = help: name its jobs here
    refused
    "##);
}

#[test]
fn keys_that_cannot_stand_on_the_use_of_a_group() {
    let uses = "{g: {matrix: {parameters: {x: [1]}}, override-with: o/x, context: c, type: approval}}, {g: {name: g2, pre-steps: [checkout], post-steps: [checkout], x: 1}}";
    assert_snapshot!(refused("g: {jobs: [a]}", uses), @r##"
    error[missing-name]: this use of job group `g` has no name, but another one in the workflow has
     --> config.yml:9:13
      |
    9 |     jobs: [{g: {matrix: {parameters: {x: [1]}}, override-with: o/x, context: c, type: approval}}, {g: {name: g2, pre-steps: [checkout], post-steps: [checkout],
      |             ^
      = in workflow `w` (line 8)
      = help: give it one with `name:`

    error[group-key]: `matrix` cannot stand on the use of job group `g`
     --> config.yml:9:17
      |
    9 |     jobs: [{g: {matrix: {parameters: {x: [1]}}, override-with: o/x, context: c, type: approval}}, {g: {name: g2, pre-steps: [checkout], post-steps: [checkout],
      |                 ^^^^^^
      = in workflow `w` (line 8)
      = help: the use of a group takes `name`, `requires`, `filters` and `serial-group`; its jobs take the rest

    error[group-key]: `override-with` cannot stand on the use of job group `g`
     --> config.yml:9:49
      |
    9 |     jobs: [{g: {matrix: {parameters: {x: [1]}}, override-with: o/x, context: c, type: approval}}, {g: {name: g2, pre-steps: [checkout], post-steps: [checkout],
      |                                                 ^^^^^^^^^^^^^
      = in workflow `w` (line 8)
      = help: the use of a group takes `name`, `requires`, `filters` and `serial-group`; its jobs take the rest

    error[group-key]: `context` cannot stand on the use of job group `g`
     --> config.yml:9:69
      |
    9 |     jobs: [{g: {matrix: {parameters: {x: [1]}}, override-with: o/x, context: c, type: approval}}, {g: {name: g2, pre-steps: [checkout], post-steps: [checkout],
      |                                                                     ^^^^^^^
      = in workflow `w` (line 8)
      = help: the use of a group takes `name`, `requires`, `filters` and `serial-group`; its jobs take the rest

    error[group-key]: `type` cannot stand on the use of job group `g`
     --> config.yml:9:81
      |
    9 |     jobs: [{g: {matrix: {parameters: {x: [1]}}, override-with: o/x, context: c, type: approval}}, {g: {name: g2, pre-steps: [checkout], post-steps: [checkout],
      |                                                                                 ^^^^
      = in workflow `w` (line 8)
      = help: the use of a group takes `name`, `requires`, `filters` and `serial-group`; its jobs take the rest

    error[group-key]: `pre-steps` cannot stand on the use of job group `g`
     --> config.yml:9:114
      |
    9 | rs: {x: [1]}}, override-with: o/x, context: c, type: approval}}, {g: {name: g2, pre-steps: [checkout], post-steps: [checkout], x: 1}}]
      |                                                                                 ^^^^^^^^^
      = in workflow `w` (line 8)
      = help: the use of a group takes `name`, `requires`, `filters` and `serial-group`; its jobs take the rest

    error[group-key]: `post-steps` cannot stand on the use of job group `g`
     --> config.yml:9:137
      |
    9 | -with: o/x, context: c, type: approval}}, {g: {name: g2, pre-steps: [checkout], post-steps: [checkout], x: 1}}]
      |                                                                                 ^^^^^^^^^^
      = in workflow `w` (line 8)
      = help: the use of a group takes `name`, `requires`, `filters` and `serial-group`; its jobs take the rest

    error[unexpected-argument]: unexpected argument: job group `g` has no parameter `x`
     --> config.yml:9:161
      |
    9 | type: approval}}, {g: {name: g2, pre-steps: [checkout], post-steps: [checkout], x: 1}}]
      |                                                                                 ^
      = in workflow `w` (line 8)
      = help: the use of a group takes `name`, `requires`, `filters` and `serial-group`; its jobs take the rest
    refused
    "##);
}

#[test]
fn parameters_of_a_group() {
    assert_snapshot!(refused("g: {parameters: {x: {type: string}}, jobs: [a]}", "g"), @r##"
    error[group-parameters]: job group `g` cannot have `parameters`
     --> config.yml:6:7
      |
    6 |   g: {parameters: {x: {type: string}}, jobs: [a]}
      |       ^^^^^^^^^^
      = in job group `g` (line 6)
      = help: parameters of the pipeline can stand in it
    refused
    "##);
}

#[test]
fn serial_group_on_a_member() {
    assert_snapshot!(refused("g: {jobs: [{a: {serial-group: x}}]}", "g"), @r##"
    error[group-key]: `serial-group` cannot stand on `a`, a job of a job group
     --> config.yml:6:19
      |
    6 |   g: {jobs: [{a: {serial-group: x}}]}
      |                   ^^^^^^^^^^^^
      = in job group `g` (line 6)
      = help: it can stand where a workflow uses the group, for all of its jobs
    refused
    "##);
}

#[test]
fn two_uses_of_one_name() {
    assert_snapshot!(refused("g: {jobs: [a]}", "g, g"), @r##"
    error[duplicate-name]: several jobs are named `g`, but every use of a job group needs a name of its own
     --> config.yml:9:12
      |
    9 |     jobs: [g, g]
      |            ^
      = in workflow `w` (line 8)
      = help: give it one with `name:`

    error[duplicate-name]: several jobs are named `g`, but every use of a job group needs a name of its own
     --> config.yml:9:15
      |
    9 |     jobs: [g, g]
      |               ^
      = in workflow `w` (line 8)
      = help: give it one with `name:`
    refused
    "##);
}

#[test]
fn requiring_a_member_from_outside() {
    assert_snapshot!(refused("g: {jobs: [a]}", "g, {b: {requires: [a]}}"), @r##"
    error[required-member]: `a` lies in job group `g` and cannot be required from outside
     --> config.yml:9:31
      |
    9 |     jobs: [g, {b: {requires: [a]}}]
      |                               ^
      = in workflow `w` (line 8)
      = help: require the whole group: `g`
    refused
    "##);
}

#[test]
fn requiring_from_inside_what_is_outside() {
    assert_snapshot!(refused("g: {jobs: [{a: {requires: [b]}}]}", "g, b"), @r##"
    error[unknown-requirement]: no job of this job group is named `b`
     --> config.yml:6:30
      |
    6 |   g: {jobs: [{a: {requires: [b]}}]}
      |                              ^
      = in job group `g` (line 6)
      = called from workflow `w` (line 9)
      = help: did you mean `a`?
    refused
    "##);
}

#[test]
fn a_job_and_a_group_of_one_name() {
    assert_snapshot!(refused("a: {jobs: [b]}", "b"), @r##"
    error[duplicate-name]: `a` is a job and a job group: one of them needs another name
     --> config.yml:6:3
      |
    6 |   a: {jobs: [b]}
      |   ^
      = in job group `a` (line 6)
    refused
    "##);
}

#[test]
fn members_that_require_each_other() {
    assert_snapshot!(refused("g: {jobs: [{a: {requires: [b]}}, {b: {requires: [a]}}]}", "g"), @r##"
    error[cyclic-requires]: these jobs require each other: a → b → a
     --> config.yml:6:52
      |
    6 |   g: {jobs: [{a: {requires: [b]}}, {b: {requires: [a]}}]}
      |                                                    ^
      = `a` requires `b` here (line 6)
    refused
    "##);
}

#[test]
fn a_group_that_is_none() {
    assert_snapshot!(refused("g: {job: [a]}\n  h: [a]\n  i: {jobs: []}", "g"), @r##"
    error[missing-key]: job group `g` has no list of `jobs`
     --> config.yml:6:3
      |
    6 |   g: {job: [a]}
      |   ^
      = in job group `g` (line 6)

    warning[unknown-key]: key `job` means nothing in a job group
     --> config.yml:6:7
      |
    6 |   g: {job: [a]}
      |       ^^^ ignored
      = help: did you mean `jobs`?

    error[missing-key]: job group `h` has no list of `jobs`
     --> config.yml:7:3
      |
    7 |   h: [a]
      |   ^
      = in job group `h` (line 7)

    error[missing-key]: job group `i` has no list of `jobs`
     --> config.yml:8:3
      |
    8 |   i: {jobs: []}
      |   ^
      = in job group `i` (line 8)
    refused
    "##);
}

#[test]
fn unknown_job_in_a_group_that_nobody_uses() {
    assert_snapshot!(refused("g: {jobs: [c]}", "a, b"), @r##"
    error[unknown-job]: there is no job named `c`
     --> config.yml:6:14
      |
    6 |   g: {jobs: [c]}
      |              ^
      = in job group `g` (line 6)
      = help: did you mean `a`?
    refused
    "##);
}

#[test]
fn blank_serial_group() {
    assert_snapshot!(refused("g: {jobs: [a]}", "{g: {serial-group: 'x y'}}"), @r##"
    error[invalid-serial-group]: `x y` cannot name a serial group
     --> config.yml:9:31
      |
    9 |     jobs: [{g: {serial-group: 'x y'}}]
      |                               ^^^^^
      = in workflow `w` (line 8)
      = help: up to 512 letters, digits, `.`, `-`, `_` and `/`
    refused
    "##);
}
