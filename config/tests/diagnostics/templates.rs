//! Templates, expressions, conditions.

use insta::assert_snapshot;

use crate::told;

#[test]
fn unclosed_template() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - run: |
          cat <<EOF
          text
          EOF
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[unclosed-template]: unclosed `<<` tag
     --> config.yml:7:15
      |
    7 |           cat <<EOF
      |               ^^^^^
      = in job `build` (line 3)
      = help: close it with `>>`, or write `\<<` for the plain text `<<`
    refused
    "##);
}

#[test]
fn heredoc_that_looks_closed() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - run: |
          cat <<EOF > a
          text
          EOF
          echo done >> log
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[invalid-expression]: cannot read `<<EOF > a`: unexpected `text` after the end of the expression
     --> config.yml:7:15
      |
    7 |           cat <<EOF > a
      |               ^^^^^^^^^
      = in job `build` (line 3)
      = help: text that holds `<<` itself, such as a heredoc, must be written `\<<`
    refused
    "##);
}

#[test]
fn unclosed_section() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - run: "<<# pipeline.number >>x"
      - run: "x<</ pipeline.number >>"
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[unclosed-section]: section `pipeline.number` is not closed
     --> config.yml:6:15
      |
    6 |       - run: "<<# pipeline.number >>x"
      |               ^^^^^^^^^^^^^^^^^^^^^^
      = in job `build` (line 3)
      = help: it ends with `<</ name >>`, with the same name

    error[unclosed-section]: section `pipeline.number` ends here, but none was open
     --> config.yml:7:16
      |
    7 |       - run: "x<</ pipeline.number >>"
      |                ^^^^^^^^^^^^^^^^^^^^^^
      = in job `build` (line 3)
      = help: it starts with `<<# name >>`, with the same name
    refused
    "##);
}

#[test]
fn not_a_text() {
    let text = r##"
version: 2.1
commands:
  c:
    parameters:
      then: {type: steps, default: []}
    steps: [{run: "echo << parameters.then >>"}]
jobs:
  build:
    docker: [{image: i}]
    steps: [c]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[not-a-text]: this stands for an empty list, which cannot be part of a text
     --> config.yml:6:25
      |
    6 |     steps: [{run: "echo << parameters.then >>"}]
      |                         ^^^^^^^^^^^^^^^^^^^^^
      = in command `c` (line 3)
      = called from job `build` (line 10)
    refused
    "##);
}

#[test]
fn invalid_expression() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
  b: *a
workflows:
  w:
    when: pipeline.git.branch = "main"
    jobs:
      - a:
          filters: pipeline.git.branch and (pipeline.number > "x"
      - b:
          filters: pipeline.git.branch > 3
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[invalid-expression]: cannot read the expression: there is no operator `=`
     --> config.yml:9:31
      |
    9 |     when: pipeline.git.branch = "main"
      |                               ^
      = in workflow `w` (line 8)
      = help: write `==`

    error[invalid-expression]: cannot read the expression: a `)` is missing
      --> config.yml:12:66
       |
    12 |           filters: pipeline.git.branch and (pipeline.number > "x"
       |                                                                  ^
       = in workflow `w` (line 8)

    error[invalid-expression]: `<` and `>` compare numbers, but this is a string
      --> config.yml:14:20
       |
    14 |           filters: pipeline.git.branch > 3
       |                    ^^^^^^^^^^^^^^^^^^^^^^^
       = in workflow `w` (line 8)
    refused
    "##);
}

#[test]
fn invalid_condition() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
  b: *a
workflows:
  w:
    when:
      and: []
    jobs: [a]
  x:
    when: {equals: [a, b]}
    jobs: [a]
  y:
    unless: {matches: {pattern: '(', value: x}}
    jobs: [a]
  z:
    when: {or: [true], and: [true]}
    jobs: [a]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[invalid-condition]: `and` has no arguments
      --> config.yml:10:7
       |
    10 |       and: []
       |       ^^^
       = in workflow `w` (line 8)

    error[invalid-condition]: there is no logic operator `equals`
      --> config.yml:13:12
       |
    13 |     when: {equals: [a, b]}
       |            ^^^^^^
       = in workflow `x` (line 12)
       = help: did you mean `equal`?

    warning[unanchored-pattern]: the pattern `(` must match the whole value
      --> config.yml:16:14
       |
    16 |     unless: {matches: {pattern: '(', value: x}}
       |              ^^^^^^^
       = in workflow `y` (line 15)
       = help: write `^` and `$` to say so, or `.*` around it

    error[invalid-condition]: the regular expression `(` does not work: Parsing error at position 1: Opening parenthesis without closing parenthesis
      --> config.yml:16:14
       |
    16 |     unless: {matches: {pattern: '(', value: x}}
       |              ^^^^^^^
       = in workflow `y` (line 15)

    error[invalid-condition]: a logic statement is a map with exactly one operator
      --> config.yml:19:11
       |
    19 |     when: {or: [true], and: [true]}
       |           ^^^^^^^^^^^^^^^^^^^^^^^^^
       = in workflow `z` (line 18)
       = help: put them into one list, of `and` or of `or`
    refused
    "##);
}

#[test]
fn unanchored_pattern() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
  b: *a
workflows:
  w:
    when: {matches: {pattern: rel.*, value: << pipeline.git.branch >>}}
    jobs: [a]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    warning[unanchored-pattern]: the pattern `rel.*` must match the whole value
     --> config.yml:9:12
      |
    9 |     when: {matches: {pattern: rel.*, value: << pipeline.git.branch >>}}
      |            ^^^^^^^
      = in workflow `w` (line 8)
      = help: write `^` and `$` to say so, or `.*` around it
    compiled
    "##);
}

#[test]
fn exclusive_conditions() {
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
    unless: false
    jobs: [a]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r"
    error[exclusive-keys]: `when` and `unless` exclude each other
      --> config.yml:10:5
       |
    10 |     unless: false
       |     ^^^^^^
       = in workflow `w` (line 8)
       = the other one stands here (line 9)
    refused
    ");
}
