//! What is wrong with the YAML.

use insta::assert_snapshot;

use crate::told;

#[test]
fn yaml_syntax() {
    let text = r##"
version: 2.1
jobs:
  build:
    steps: [checkout
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[yaml-syntax]: the file is not valid YAML: this `[` is not closed before something comes that cannot stand in it
     --> config.yml:4:12
      |
    4 |     steps: [checkout
      |            ^
      = nothing can be read from here on (line 5)
      = help: add a `]`, or quote the text in which `[` means itself
    refused
    "##);
}

#[test]
fn undefined_alias() {
    let text = r##"
version: 2.1
jobs:
  build: *base
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[unknown-anchor]: there is no anchor named `base` above this place
     --> config.yml:3:10
      |
    3 |   build: *base
      |          ^^^^^
    refused
    "##);
}

#[test]
fn complex_key() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - run:
          command: true
          environment: {{A: b}: c}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[complex-key]: a key must be a single value, but this is a map
     --> config.yml:8:25
      |
    8 |           environment: {{A: b}: c}
      |                         ^^^^^^
      = help: did you mean to quote it, as in `"{{ … }}"`?
    refused
    "##);
}

#[test]
fn duplicate_key() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - run:
          command: make
          command: make test
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r"
    warning[duplicate-key]: key `command` stands twice in this map; this one counts
     --> config.yml:8:11
      |
    8 |           command: make test
      |           ^^^^^^^
      = the first one stands here (line 7)
      = help: remove the other one, at line 7, column 11
    compiled
    ");
}

#[test]
fn merge_not_a_map() {
    let text = r##"
version: 2.1
base: &base [a]
jobs:
  build:
    <<: *base
    docker: [{image: i}]
    steps: [checkout]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[merge-not-a-map]: `<<` merges maps, but this is a string
     --> config.yml:2:14
      |
    2 | base: &base [a]
      |              ^
      = help: lists and single values cannot be merged
    refused
    "##);
}

#[test]
fn recursive_alias() {
    let text = r##"
version: 2.1
jobs: &jobs
  build: *jobs
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[recursive-alias]: this alias stands inside of what it refers to
     --> config.yml:3:10
      |
    3 |   build: *jobs
      |          ^^^^^
    refused
    "##);
}

#[test]
fn nested_too_deep() {
    let text = r##"
version: 2.1
x: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[nested-too-deep]: more than 250 levels inside each other
     --> config.yml:2:259
      |
    2 | [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]
      |                                                                                 ^
    refused
    "##);
}

#[test]
fn several_documents() {
    let text = r##"
---
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - checkout
---
version: 2
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    warning[several-documents]: only the first YAML document of the file counts
     --> config.yml:8:1
      |
    8 | ---
      | ^^^
    compiled
    "##);
}

#[test]
fn a_backslash_in_double_quotes() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - run: "grep -E 'a\\b' | grep -E '\d+'"
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[yaml-syntax]: the file is not valid YAML: `\d` stands for nothing in double quotes
     --> config.yml:6:41
      |
    6 |       - run: "grep -E 'a\\b' | grep -E '\d+'"
      |                                         ^^
      = help: use single quotes, in which a backslash is a backslash (and `''` a single quote), or write `\\`
    refused
    "##);
    let text = r##"
version: 2.1
jobs:
  build: {docker: [{image: a}], steps: [{run: "x
    \[ -f y \]"}]}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[yaml-syntax]: the file is not valid YAML: `\[` stands for nothing in double quotes
     --> config.yml:4:5
      |
    4 |     \[ -f y \]"}]}
      |     ^^
      = help: use single quotes, in which a backslash is a backslash (and `''` a single quote), or write `\\`
    refused
    "##);
    let text = r##"
version: 2.1
jobs:
  build: {docker: [{image: a}], working_directory: "C:\Users\me"}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[yaml-syntax]: the file is not valid YAML: `\U` stands for nothing in double quotes
     --> config.yml:3:55
      |
    3 |   build: {docker: [{image: a}], working_directory: "C:\Users\me"}
      |                                                       ^^
      = help: use single quotes, in which a backslash is a backslash (and `''` a single quote), or write `\\`
    refused
    "##);
}

#[test]
fn something_after_quotes() {
    let text = r##"
version: 2.1
workflows:
  main:
    when: "main" == pipeline.git.branch
    jobs: [build]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[yaml-syntax]: the file is not valid YAML: the quoted text has ended, and something follows it
     --> config.yml:4:18
      |
    4 |     when: "main" == pipeline.git.branch
      |                  ^
      = help: put the whole value into quotes of the other kind, these included
    refused
    "##);
    let text = r##"
version: 2.1
workflows:
  main:
    when: 'main' == pipeline.git.branch
    jobs: [build]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[yaml-syntax]: the file is not valid YAML: the quoted text has ended, and something follows it
     --> config.yml:4:18
      |
    4 |     when: 'main' == pipeline.git.branch
      |                  ^
      = help: put the whole value into quotes of the other kind, these included
    refused
    "##);
}
