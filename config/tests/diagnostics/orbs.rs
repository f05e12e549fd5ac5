//! Orbs that are not there, that are no orbs, or that are wrong inside.

use insta::assert_snapshot;
use navvy_config::Inputs;

use crate::shelf::shelf;
use crate::told_of;

/// A config that uses orbs, and what its author is told where these orbs are.
fn told(orbs: &str, uses: &str, shelved: &[(&str, &'static str)]) -> String {
    told_of(&config(orbs, uses), &shelf(shelved))
}

fn config(orbs: &str, uses: &str) -> String {
    format!(
        "version: 2.1\norbs:\n  {orbs}\njobs:\n  build:\n    docker: [{{image: cimg/base:current}}]\n    steps: [{uses}]\n"
    )
}

#[test]
fn missing_orb() {
    assert_snapshot!(told("node: circleci/node@5", "node/install", &[]), @r##"
    error[missing-orb]: orb `node` (`circleci/node@5`) is not here
     --> config.yml:3:3
      |
    3 |   node: circleci/node@5
      |   ^^^^
      = help: put it at `orbs/circleci/node@5.yml`
              then look again
    refused
    "##);
}

#[test]
fn missing_orb_allowed() {
    let inputs = Inputs { allow_missing_orbs: true, ..shelf(&[]) };
    assert_snapshot!(told_of(&config("node: circleci/node@5", "node/install"), &inputs), @r##"
    warning[missing-orb]: orb `node` (`circleci/node@5`) is not here; what comes from it is left out
     --> config.yml:3:3
      |
    3 |   node: circleci/node@5
      |   ^^^^
    compiled
    "##);
}

#[test]
fn refused_orb() {
    assert_snapshot!(told("node: circleci/node@5", "node/install", &[("circleci/node@5.1.0", "changed")]), @r##"
    error[refused-orb]: orb `node` (`circleci/node@5`) cannot be used: its source is not the one that is locked
     --> config.yml:3:3
      |
    3 |   node: circleci/node@5
      |   ^^^^
      = help: lock it again
    refused
    "##);
}

#[test]
fn malformed_references() {
    let orbs = "a: circleci/node\n  b: node@5\n  c: circleci/node@latest\n  d: http://h/x.yml\n  e: [x]\n  f:";
    assert_snapshot!(told(orbs, "a/x, b/x, c/x, d/x, e/x, f/x", &[]), @r##"
    error[orb-reference]: `circleci/node` is not a reference to an orb: it has no version
     --> config.yml:3:6
      |
    3 |   a: circleci/node
      |      ^^^^^^^^^^^^^
      = help: write `namespace/orb@VERSION`, where VERSION is 1, 1.2, 1.2.3, volatile or dev:LABEL

    error[orb-reference]: `node@5` is not a reference to an orb: it has no namespace
     --> config.yml:4:6
      |
    4 |   b: node@5
      |      ^^^^^^
      = help: write `namespace/orb@VERSION`, where VERSION is 1, 1.2, 1.2.3, volatile or dev:LABEL

    error[orb-reference]: `circleci/node@latest` is not a reference to an orb: it has no version that an orb can have
     --> config.yml:5:6
      |
    5 |   c: circleci/node@latest
      |      ^^^^^^^^^^^^^^^^^^^^
      = help: write `namespace/orb@VERSION`, where VERSION is 1, 1.2, 1.2.3, volatile or dev:LABEL

    error[orb-reference]: `http://h/x.yml` is not a reference to an orb: it is an address that does not begin with https://
     --> config.yml:6:6
      |
    6 |   d: http://h/x.yml
      |      ^^^^^^^^^^^^^^
      = help: write `namespace/orb@VERSION`, where VERSION is 1, 1.2, 1.2.3, volatile or dev:LABEL

    error[wrong-shape]: orb `e` must be a reference or a map, but this is a list
     --> config.yml:7:3
      |
    7 |   e: [x]
      |   ^
      = help: write `namespace/orb@VERSION`, where VERSION is 1, 1.2, 1.2.3, volatile or dev:LABEL

    error[wrong-shape]: orb `f` must be a reference or a map, but this is nothing
     --> config.yml:8:3
      |
    8 |   f:
      |   ^
      = help: write `namespace/orb@VERSION`, where VERSION is 1, 1.2, 1.2.3, volatile or dev:LABEL
    refused
    "##);
}

#[test]
fn unknown_element() {
    let node = "commands: {install: {steps: [checkout]}}";
    assert_snapshot!(told("node: circleci/node@5", "node/instal", &[("circleci/node@5.1.0", node)]), @r##"
    error[unknown-step]: cannot find a definition for a command or step named `node/instal`
     --> config.yml:7:13
      |
    7 |     steps: [node/instal]
      |             ^^^^^^^^^^^
      = in job `build` (line 5)
      = help: did you mean `node/install`?
    refused
    "##);
}

#[test]
fn mistake_in_an_orb() {
    let node = "commands:\n  install:\n    parameters: {x: {type: string}}\n    steps:\n      - run: echo << parameters.y >>\n      - inner\n  inner:\n    steps: [{save_cache: {key: k}}]\n";
    assert_snapshot!(told("node: circleci/node@5", "{node/install: {x: a}}", &[("circleci/node@5.1.0", node)]), @r##"
    error[undeclared-parameter]: argument referenced without declared parameter: `parameters.y`
     --> orbs/circleci/node@5.1.0.yml:5:19
      |
    5 |       - run: echo << parameters.y >>
      |                   ^^^^^^^^^^^^^^^^^^
      = in command `install` (line 2)
      = in orb `node`, `circleci/node@5.1.0` (config.yml, line 3)
      = called from job `build` (config.yml, line 7)
      = help: did you mean `x`?

    error[missing-key]: a `save_cache` step has no `paths`
     --> orbs/circleci/node@5.1.0.yml:8:14
      |
    8 |     steps: [{save_cache: {key: k}}]
      |              ^^^^^^^^^^
      = in command `inner` (line 7)
      = called from command `install` (line 6)
      = in orb `node`, `circleci/node@5.1.0` (config.yml, line 3)
      = called from job `build` (config.yml, line 7)
    refused
    "##);
}

#[test]
fn mistake_in_the_use_of_an_orb() {
    let node = "commands: {install: {parameters: {version: {type: string}}, steps: [checkout]}}";
    assert_snapshot!(told("node: circleci/node@5", "{node/install: {vresion: a}}", &[("circleci/node@5.1.0", node)]), @r##"
    error[missing-argument]: parameter `version` is required for command `install`
     --> config.yml:7:14
      |
    7 |     steps: [{node/install: {vresion: a}}]
      |              ^^^^^^^^^^^^
      = in job `build` (line 5)
      = the parameter is declared here (orbs/circleci/node@5.1.0.yml, line 1)
      = help: it has no default, so every use must give it

    error[unexpected-argument]: unexpected argument: command `install` has no parameter `vresion`
     --> config.yml:7:29
      |
    7 |     steps: [{node/install: {vresion: a}}]
      |                             ^^^^^^^
      = in job `build` (line 5)
      = command `install` is defined here (orbs/circleci/node@5.1.0.yml, line 1)
      = help: did you mean `version`?
    refused
    "##);
}

#[test]
fn pipeline_parameters_are_not_in_scope_in_orbs() {
    let node = "commands:\n  install:\n    steps: [{run: \"<< pipeline.parameters.x >> << pipeline.git.branch >>\"}]\n";
    assert_snapshot!(told("node: circleci/node@5", "node/install", &[("circleci/node@5.1.0", node)]), @r##"
    error[undeclared-parameter]: `pipeline.parameters.x` is not in scope here
     --> orbs/circleci/node@5.1.0.yml:3:20
      |
    3 |     steps: [{run: "<< pipeline.parameters.x >> << pipeline.git.branch >>"}]
      |                    ^^^^^^^^^^^^^^^^^^^^^^^^^^^
      = in command `install` (line 2)
      = in orb `node`, `circleci/node@5.1.0` (config.yml, line 3)
      = called from job `build` (config.yml, line 7)
      = help: pipeline parameters cannot stand in orbs or in other pipeline parameters
    refused
    "##);
}

#[test]
fn an_orb_does_not_see_what_the_config_has() {
    let a = "commands: {c: {steps: [b/c, c2]}}";
    let b = "commands: {c: {steps: [checkout]}, c2: {steps: [checkout]}}";
    assert_snapshot!(told("{a: x/a@1, b: x/b@1}", "a/c, b/c", &[("x/a@1.0.0", a), ("x/b@1.0.0", b)]), @r##"
    error[unknown-orb]: there is no orb named `b`
     --> orbs/x/a@1.0.0.yml:1:24
      |
    1 | commands: {c: {steps: [b/c, c2]}}
      |                        ^^^
      = in command `c` (line 1)
      = in orb `a`, `x/a@1.0.0` (config.yml, line 3)
      = called from job `build` (config.yml, line 7)

    error[unknown-step]: cannot find a definition for a command or step named `c2`
     --> orbs/x/a@1.0.0.yml:1:29
      |
    1 | commands: {c: {steps: [b/c, c2]}}
      |                             ^^
      = in command `c` (line 1)
      = in orb `a`, `x/a@1.0.0` (config.yml, line 3)
      = called from job `build` (config.yml, line 7)
      = help: did you mean `c`?
    refused
    "##);
}

#[test]
fn no_orb() {
    let config = "version: 2.1\njobs: {}\nworkflows: {}\n";
    assert_snapshot!(told("{a: x/a@1, b: x/b@1}", "a/c, b/c", &[("x/a@1.0.0", config), ("x/b@1.0.0", "- a\n")]), @r##"
    error[no-orb]: this is a config, not an orb: an orb has no `workflows`
     --> orbs/x/a@1.0.0.yml:3:1
      |
    3 | workflows: {}
      | ^^^^^^^^^
      = in orb `a`, `x/a@1.0.0` (config.yml, line 3)

    error[no-orb]: this is not an orb: an orb is a map with `commands`, `jobs`, `executors` or `orbs`
     --> orbs/x/b@1.0.0.yml:1:1
      |
    1 | - a
      | ^^^
      = in orb `b`, `x/b@1.0.0` (config.yml, line 3)
    refused
    "##);
}

#[test]
fn orb_that_does_not_parse() {
    assert_snapshot!(told("a: x/a@1", "a/c, a/d", &[("x/a@1.0.0", "commands: {\n  c: ]\n")]), @r##"
    error[yaml-syntax]: the file is not valid YAML: this `{` is not closed before something comes that cannot stand in it
     --> orbs/x/a@1.0.0.yml:1:11
      |
    1 | commands: {
      |           ^
      = nothing can be read from here on (line 2)
      = in orb `a`, `x/a@1.0.0` (config.yml, line 3)
      = help: add a `}`, or quote the text in which `{` means itself
    refused
    "##);
}

#[test]
fn missing_orb_of_an_orb() {
    let a = "orbs:\n  deep: x/deep@1\ncommands: {c: {steps: [deep/c]}}";
    assert_snapshot!(told("a: x/a@1", "a/c", &[("x/a@1.0.0", a)]), @r##"
    error[missing-orb]: orb `deep` (`x/deep@1`) is not here
     --> orbs/x/a@1.0.0.yml:2:3
      |
    2 |   deep: x/deep@1
      |   ^^^^
      = in orb `a`, `x/a@1.0.0` (config.yml, line 3)
      = help: put it at `orbs/x/deep@1.yml`
              then look again
    refused
    "##);
}

#[test]
fn orbs_that_import_each_other() {
    let a = "orbs: {b: x/b@1}\ncommands: {c: {steps: [b/c]}}";
    let b = "orbs:\n  a: x/a@volatile\ncommands: {c: {steps: [a/c]}}";
    assert_snapshot!(told("a: x/a@1", "a/c", &[("x/a@1.0.0", a), ("x/b@1.0.0", b)]), @r##"
    error[cyclic-orbs]: these orbs import each other: x/a@1.0.0 → x/b@1.0.0 → x/a@1.0.0
     --> orbs/x/b@1.0.0.yml:2:3
      |
    2 |   a: x/a@volatile
      |   ^
      = in orb `b`, `x/b@1.0.0` (orbs/x/a@1.0.0.yml, line 1)
      = in orb `a`, `x/a@1.0.0` (config.yml, line 3)
    refused
    "##);
}

const CHAIN: [(&str, &str); 5] = [
    ("x/a@1.0.0", "orbs: {o: x/b@1}"),
    ("x/b@1.0.0", "orbs: {o: x/c@1}"),
    ("x/c@1.0.0", "orbs: {o: x/d@1}"),
    ("x/d@1.0.0", "orbs: {o: x/e@1}"),
    ("x/e@1.0.0", "commands: {c: {steps: [checkout]}}"),
];

#[test]
fn five_orbs_may_lie_inside_each_other() {
    assert_snapshot!(told("a: x/a@1", "checkout", &CHAIN), @"compiled");
}

#[test]
fn six_orbs_may_not() {
    assert_snapshot!(told("a: {orbs: {o: x/a@1}}", "checkout", &CHAIN), @r##"
    error[orbs-too-deep]: with orb `o` more than 5 orbs lie inside each other
     --> orbs/x/d@1.0.0.yml:1:8
      |
    1 | orbs: {o: x/e@1}
      |        ^
      = in orb `o`, `x/d@1.0.0` (orbs/x/c@1.0.0.yml, line 1)
      = in orb `o`, `x/c@1.0.0` (orbs/x/b@1.0.0.yml, line 1)
      = in orb `o`, `x/b@1.0.0` (orbs/x/a@1.0.0.yml, line 1)
      = in orb `o`, `x/a@1.0.0` (config.yml, line 3)
    refused
    "##);
    assert_snapshot!(told("{o: x/a@1, a: {orbs: {o: x/a@1}}}", "checkout", &CHAIN), @r##"
    error[orbs-too-deep]: with orb `o` more than 5 orbs lie inside each other
     --> config.yml:3:25
      |
    3 |   {o: x/a@1, a: {orbs: {o: x/a@1}}}
      |                         ^
    refused
    "##);
}

#[test]
fn too_many_orbs_by_address() {
    let orbs: Vec<String> = (0..60).map(|n| format!("o{n}: https://h.example/{n}.yml")).collect();
    let inputs = Inputs { allow_missing_orbs: true, ..shelf(&[]) };
    let said = told_of(&config(&orbs.join("\n  "), "checkout"), &inputs);
    let errors: Vec<&str> = said.split("\n\n").filter(|told| told.starts_with("error")).collect();
    assert_snapshot!(errors.join("\n"), @r##"
    error[too-many-url-orbs]: a config can name 50 orbs by address and no more
      --> config.yml:53:3
       |
    53 |   o50: https://h.example/50.yml
       |   ^^^
    "##);
}
