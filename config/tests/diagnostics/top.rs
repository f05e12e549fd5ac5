//! What is wrong at the top of the file.

use insta::assert_snapshot;

use crate::told;

#[test]
fn empty_config() {
    let text = r##"
# nothing here
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[empty-config]: the config is empty
     --> config.yml:1:1
      |
    1 | # nothing here
      | ^
    refused
    "##);
}

#[test]
fn config_of_a_mark_alone() {
    assert_snapshot!(told("---"), @r##"
    error[empty-config]: the config is empty
     --> config.yml:1:1
      |
    1 | ---
      | ^
    refused
    "##);
}

#[test]
fn missing_version() {
    let text = r##"
jobs:
  build:
    docker: [{image: i}]
    steps: [checkout]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[missing-version]: the config has no `version`
     --> config.yml:1:1
      |
    1 | jobs:
      | ^^^^
      = help: add `version: 2.1`
    refused
    "##);
}

#[test]
fn unknown_version() {
    let text = r##"
version: 3
jobs: {}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[unknown-version]: `3` is not a version of the config language
     --> config.yml:1:10
      |
    1 | version: 3
      |          ^
      = help: it is 2.1, or 2 for old files
    refused
    "##);
}

#[test]
fn needs_2_1() {
    let text = r##"
version: 2
commands: {}
jobs:
  build:
    docker: [{image: i}]
    steps: [checkout]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[needs-2.1]: `commands` needs `version: 2.1`
     --> config.yml:2:1
      |
    2 | commands: {}
      | ^^^^^^^^
    refused
    "##);
}

#[test]
fn unknown_top_level_key() {
    let text = r##"
version: 2.1
workflow: {}
jobs:
  build:
    docker: [{image: i}]
    steps: [checkout]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    warning[unknown-key]: key `workflow` means nothing at the top of a config
     --> config.yml:2:1
      |
    2 | workflow: {}
      | ^^^^^^^^ ignored
      = help: did you mean `workflows`?
    compiled
    "##);
}

#[test]
fn no_workflow() {
    let text = r##"
version: 2.1
jobs:
  test:
    docker: [{image: i}]
    steps: [checkout]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[no-workflow]: there are no `workflows`, and no job is named `build`: nothing would run
     --> config.yml:2:1
      |
    2 | jobs:
      | ^^^^
    refused
    "##);
}
