//! Files that no reader of YAML can read: each is refused, at the line that must be mended.

use std::path::Path;

use insta::assert_snapshot;
use navvy_config::{Inputs, Source, compile, render};

fn told(name: &str) -> String {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/broken");
    let text = std::fs::read_to_string(home.join(format!("{name}.yml"))).unwrap();
    let source = Source { name: "config.yml", text: &text };
    let outcome = compile(&source, &Inputs { allow_missing_orbs: true, ..Inputs::default() });
    assert!(outcome.pipeline.is_none());
    render(&source, &outcome.diagnostics)
}

#[test]
fn a_script_that_ends_too_far_out() {
    assert_snapshot!(told("PennLINC__xcp_d-17bbbf89"), @r##"
    error[yaml-syntax]: the file is not valid YAML: this is neither a `key: value` nor part of what stands above it
       --> config.yml:403:13
        |
    403 |             fi
        |             ^^
        = nothing can be read from here on (line 406)
        = help: indent it further than the key whose text it belongs to, or add a `:`
    "##);
}

#[test]
fn nothing_but_comments() {
    assert_snapshot!(told("RedisJSON__RedisJSON-HEAD-only-comments"), @r##"
    error[empty-config]: the config is empty
     --> config.yml:1:1
      |
    1 | # version: 2.1
      | ^
    "##);
}

#[test]
fn an_alias_without_anchor() {
    assert_snapshot!(told("apollographql__apollo-server-301e144d"), @r##"
    error[unknown-anchor]: there is no anchor named `run_install_desired_npm` above this place
      --> config.yml:10:7
       |
    10 |     - *run_install_desired_npm
       |       ^^^^^^^^^^^^^^^^^^^^^^^^
    "##);
}

#[test]
fn the_marks_of_a_merge() {
    assert_snapshot!(told("artsy__metaphysics-5a8032f4"), @r##"
    error[yaml-syntax]: the file is not valid YAML: the mark of a merge stands here
     --> config.yml:7:1
      |
    7 | <<<<<<< HEAD
      | ^^^^^^^^^^^^
      = help: decide which side to keep, and remove the marks
    "##);
}

#[test]
fn a_bracket_that_nobody_closed() {
    assert_snapshot!(told("eksctl-io__eksctl-6bcfe0cc"), @r##"
    error[yaml-syntax]: the file is not valid YAML: this `[` is not closed before something comes that cannot stand in it
      --> config.yml:15:12
       |
    15 |     steps: [checkout, .circleci/makeReleaseJob.sh
       |            ^
       = nothing can be read from here on (line 17)
       = help: add a `]`, or quote the text in which `[` means itself
    "##);
}

#[test]
fn a_script_that_starts_too_far_out() {
    assert_snapshot!(told("launchdarkly__ruby-server-sdk-ea7d326b"), @r##"
    error[yaml-syntax]: the file is not valid YAML: this is neither a `key: value` nor part of what stands above it
      --> config.yml:11:9
       |
    11 |         set -e
       |         ^^^^^^
       = nothing can be read from here on (line 12)
       = help: indent it further than the key whose text it belongs to, or add a `:`
    "##);
}

#[test]
fn a_test_in_brackets() {
    assert_snapshot!(told("numpy__numpy-0485b239"), @r##"
    error[yaml-syntax]: the file is not valid YAML: this cannot follow what stands before it
      --> config.yml:17:42
       |
    17 |       - run: [[ ! -z $CI_PULL_REQUEST ]] && git pull --ff-only origin "refs/pull/${CI_PULL_REQUEST//*pull\//}/merge"
       |                                          ^
       = help: quote text that starts with one of `[ { * & ! % @`, and check the indentation
    "##);
}

#[test]
fn a_step_inside_of_another() {
    assert_snapshot!(told("plotly__dash-3bc4b245"), @r##"
    error[yaml-syntax]: the file is not valid YAML: a `key: value` cannot stand here
       --> config.yml:157:19
        |
    157 |              - run: MsiExec.exe /i C:\Users\circleci\Downloads\node-v16.17.0-x86.msi /qn
        |                   ^
        = help: check the indentation, and quote text that holds a `: `
    "##);
}

#[test]
fn a_list_that_goes_on_in_another_column() {
    assert_snapshot!(told("pytorch__captum-9014e5a9"), @r##"
    error[yaml-syntax]: the file is not valid YAML: this line is neither an item of the list above nor outside of it
       --> config.yml:154:8
        |
    154 |        - test_cuda_multi_gpu:
        |        ^
        = help: all `-` of one list stand in the same column
    "##);
}

#[test]
fn an_alias_with_other_marks_than_its_anchor() {
    assert_snapshot!(told("vectordotdev__vector-8bc98f15"), @r##"
    error[unknown-anchor]: there is no anchor named `install-gplusplus++` above this place
       --> config.yml:243:9
        |
    243 |       - *install-gplusplus++
        |         ^^^^^^^^^^^^^^^^^^^^
        = help: did you mean `install-gplusplus`?
    "##);
}
