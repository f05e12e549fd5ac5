//! Logic statements, expressions, patterns.

use insta::assert_snapshot;

use crate::{headlines, told};

#[test]
fn a_statement_has_one_operator() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
workflows:
  w:
    when: {and: [true], or: [true]}
    jobs: [a]
  e: {when: {}, jobs: [a]}
  f: {when: {xor: [true]}, jobs: [a]}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r"
    error[invalid-condition]: a logic statement is a map with exactly one operator
     --> config.yml:8:11
      |
    8 |     when: {and: [true], or: [true]}
      |           ^^^^^^^^^^^^^^^^^^^^^^^^^
      = in workflow `w` (line 7)
      = help: put them into one list, of `and` or of `or`

    error[invalid-condition]: a logic statement is a map with exactly one operator
      --> config.yml:10:13
       |
    10 |   e: {when: {}, jobs: [a]}
       |             ^^
       = in workflow `e` (line 10)
       = help: the operators are `and`, `or`, `not`, `equal` and `matches`

    error[invalid-condition]: there is no logic operator `xor`
      --> config.yml:11:14
       |
    11 |   f: {when: {xor: [true]}, jobs: [a]}
       |              ^^^
       = in workflow `f` (line 11)
       = help: did you mean `or`?
    refused
    ");
}

#[test]
fn an_operator_has_arguments() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
workflows:
  b: {when: {and: []}, jobs: [a]}
  c: {when: {or: []}, jobs: [a]}
  d: {when: {equal: []}, jobs: [a]}
  g: {when: [true], jobs: [a]}
  h: {when: {and: true}, jobs: [a]}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r"
    error[invalid-condition]: `and` has no arguments
     --> config.yml:7:14
      |
    7 |   b: {when: {and: []}, jobs: [a]}
      |              ^^^
      = in workflow `b` (line 7)

    error[invalid-condition]: `or` has no arguments
     --> config.yml:8:14
      |
    8 |   c: {when: {or: []}, jobs: [a]}
      |              ^^
      = in workflow `c` (line 8)

    error[invalid-condition]: `equal` has no arguments
     --> config.yml:9:14
      |
    9 |   d: {when: {equal: []}, jobs: [a]}
      |              ^^^^^
      = in workflow `d` (line 9)

    error[invalid-condition]: a logic statement cannot be a list
      --> config.yml:10:13
       |
    10 |   g: {when: [true], jobs: [a]}
       |             ^^^^^^
       = in workflow `g` (line 10)
       = help: put the list below `and`, `or` or `equal`

    error[invalid-condition]: `and` takes a list
      --> config.yml:11:19
       |
    11 |   h: {when: {and: true}, jobs: [a]}
       |                   ^^^^
       = in workflow `h` (line 11)
    refused
    ");
}

#[test]
fn a_match_has_a_pattern_and_a_value() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
workflows:
  w:
    when: {matches: {pattern: "^a$"}}
    jobs: [a]
  b: {when: {matches: "^a$"}, jobs: [a]}
  c: {when: {matches: {pattern: "^(a$", value: a}}, jobs: [a]}
  d: {when: {matches: {pattern: [a], value: a}}, jobs: [a]}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[invalid-condition]: `matches` needs both `pattern` and `value`
     --> config.yml:8:12
      |
    8 |     when: {matches: {pattern: "^a$"}}
      |            ^^^^^^^
      = in workflow `w` (line 7)

    error[invalid-condition]: `matches` takes a map with `pattern` and `value`
      --> config.yml:10:23
       |
    10 |   b: {when: {matches: "^a$"}, jobs: [a]}
       |                       ^^^^^
       = in workflow `b` (line 10)

    error[invalid-condition]: the regular expression `^(a$` does not work: Parsing error at position 4: Opening parenthesis without closing parenthesis
      --> config.yml:11:14
       |
    11 |   c: {when: {matches: {pattern: "^(a$", value: a}}, jobs: [a]}
       |              ^^^^^^^
       = in workflow `c` (line 11)

    error[invalid-condition]: `matches` compares strings, but this is a list
      --> config.yml:12:33
       |
    12 |   d: {when: {matches: {pattern: [a], value: a}}, jobs: [a]}
       |                                 ^^^
       = in workflow `d` (line 12)
    refused
    "##);
}

#[test]
fn a_condition_of_steps_is_no_expression() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - when: {condition: pipeline.git.branch == "main", steps: [checkout]}
      - unless: {condition: "${CI}", steps: [checkout]}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    warning[constant-condition]: this condition is a text, which always holds
     --> config.yml:6:27
      |
    6 |       - when: {condition: pipeline.git.branch == "main", steps: [checkout]}
      |                           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      = in job `build` (line 3)
      = help: a condition is `<< a value >>`, or one of `and`, `or`, `not`, `equal`, `matches`

    warning[constant-condition]: this condition is a text, which always holds
     --> config.yml:7:29
      |
    7 |       - unless: {condition: "${CI}", steps: [checkout]}
      |                             ^^^^^^^
      = in job `build` (line 3)
      = help: a condition is `<< a value >>`, or one of `and`, `or`, `not`, `equal`, `matches`
    compiled
    "##);
}

#[test]
fn operators_want_their_types() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
workflows:
  w:
    when: pipeline.number starts-with "7"
    jobs: [a]
  b: {when: pipeline.git.branch < 3, jobs: [a]}
  c: {when: pipeline.git.branch matches "x", jobs: [a]}
  d: {when: true matches /x/, jobs: [a]}
  e: {when: 3 starts-with pipeline.git.branch, jobs: [a]}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[invalid-expression]: `<` and `>` compare numbers, but this is a string
      --> config.yml:10:13
       |
    10 |   b: {when: pipeline.git.branch < 3, jobs: [a]}
       |             ^^^^^^^^^^^^^^^^^^^^^^^
       = in workflow `b` (line 10)

    error[invalid-expression]: `matches` needs a regular expression between slashes, as in `matches /rel-.*/`
      --> config.yml:11:13
       |
    11 |   c: {when: pipeline.git.branch matches "x", jobs: [a]}
       |             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
       = in workflow `c` (line 11)

    error[invalid-expression]: `matches` compares strings, but this is a boolean
      --> config.yml:12:13
       |
    12 |   d: {when: true matches /x/, jobs: [a]}
       |             ^^^^^^^^^^^^^^^^
       = in workflow `d` (line 12)

    error[invalid-expression]: `starts-with` compares strings, but this is a number
      --> config.yml:13:13
       |
    13 |   e: {when: 3 starts-with pipeline.git.branch, jobs: [a]}
       |             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
       = in workflow `e` (line 13)
    refused
    "##);
}

#[test]
fn an_expression_is_whole() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
workflows:
  w:
    when: (pipeline.git.branch
    jobs: [a]
  b: {when: pipeline.git.branch ==, jobs: [a]}
  c: {when: pipeline.git.brunch == "x", jobs: [a]}
  d: {when: pipeline.git.branch = "x", jobs: [a]}
  e:
    jobs:
      - a: {filters: pipeline.git.tag starts-with}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[invalid-expression]: cannot read the expression: a `)` is missing
     --> config.yml:8:31
      |
    8 |     when: (pipeline.git.branch
      |                               ^
      = in workflow `w` (line 7)

    error[invalid-expression]: cannot read the expression: a value is missing at the end
      --> config.yml:10:35
       |
    10 |   b: {when: pipeline.git.branch ==, jobs: [a]}
       |                                   ^
       = in workflow `b` (line 10)

    error[unknown-name]: `pipeline.git.brunch` stands for nothing
      --> config.yml:11:13
       |
    11 |   c: {when: pipeline.git.brunch == "x", jobs: [a]}
       |             ^^^^^^^^^^^^^^^^^^^
       = in workflow `c` (line 11)
       = help: did you mean `pipeline.git.branch`?

    error[invalid-expression]: cannot read the expression: there is no operator `=`
      --> config.yml:12:33
       |
    12 |   d: {when: pipeline.git.branch = "x", jobs: [a]}
       |                                 ^
       = in workflow `d` (line 12)
       = help: write `==`

    error[invalid-expression]: cannot read the expression: a value is missing at the end
      --> config.yml:15:50
       |
    15 |       - a: {filters: pipeline.git.tag starts-with}
       |                                                  ^
       = in workflow `e` (line 13)
    refused
    "##);
}

#[test]
fn patterns_of_filters_work() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
workflows:
  w:
    jobs:
      - a: {filters: {branches: {only: ["/(/", "/(?<n>a)\\k<m>/"]}}}
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[invalid-regex]: the regular expression `(` does not work: Parsing error at position 1: Opening parenthesis without closing parenthesis
     --> config.yml:9:41
      |
    9 |       - a: {filters: {branches: {only: ["/(/", "/(?<n>a)\\k<m>/"]}}}
      |                                         ^^^^^
      = in workflow `w` (line 7)

    error[invalid-regex]: the regular expression `(?<n>a)\k<m>` does not work: Parsing error at position 9: Invalid back reference
     --> config.yml:9:48
      |
    9 |       - a: {filters: {branches: {only: ["/(/", "/(?<n>a)\\k<m>/"]}}}
      |                                                ^^^^^^^^^^^^^^^^^
      = in workflow `w` (line 7)
    refused
    "##);
}

#[test]
fn a_pattern_that_takes_for_ever_is_refused() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
workflows:
  w:
    when: {matches: {pattern: "^(a|a|aa)*(?=b)c$", value: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}}
    jobs: [a]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[invalid-condition]: the regular expression `^(a|a|aa)*(?=b)c$` does not work: Error executing regex: Max limit for backtracking count exceeded
     --> config.yml:8:12
      |
    8 |     when: {matches: {pattern: "^(a|a|aa)*(?=b)c$", value: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}}
      |            ^^^^^^^
      = in workflow `w` (line 7)
    refused
    "##);
}

#[test]
fn a_pattern_that_grows_too_large_is_refused() {
    let text = r##"
version: 2.1
jobs:
  a: &a
    docker: [{image: i}]
    steps: [checkout]
workflows:
  w:
    when: {matches: {pattern: "^((a{100}){100}){100}$", value: a}}
    jobs: [a]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[invalid-condition]: the regular expression `^((a{100}){100}){100}$` does not work: Error compiling regex: Regex error: error building NFA
     --> config.yml:8:12
      |
    8 |     when: {matches: {pattern: "^((a{100}){100}){100}$", value: a}}
      |            ^^^^^^^
      = in workflow `w` (line 7)
    refused
    "##);
}

#[test]
fn a_pattern_may_say_itself_where_it_ends() {
    let said = |pattern: &str| {
        headlines(&format!(
            "version: 2.1\njobs: {{a: {{docker: [{{image: i}}], steps: [checkout]}}}}\nworkflows: {{w: {{when: {{matches: {{pattern: '{pattern}', value: x}}}}, jobs: [a]}}}}\n"
        ))
    };
    let whole = [
        r"^v\d.*",
        "^a$",
        ".*a.*",
        "^a$|^b$",
        "^(a|b)$",
        "(^a$|^b.*)",
        r"\Aa\z",
        "(?i)^a$",
        "^(a.*)",
        ".*",
        "^a.*?",
        "^[(|]$",
        "^(?:a|b).*$",
        r"^v[\s\S]*",
        "^(?!a).*$",
    ];
    for pattern in whole {
        assert_eq!(said(pattern), "compiled", "{pattern}");
    }
    let parts = [
        "a",
        "^a",
        "a$",
        "^a|b$",
        r"^a\$",
        r"^a\.*",
        "^a.+b",
        "a.*",
        ".*a",
        "(^a|b$)",
        "^a$|b",
        "",
        "^(a)(.*)b",
        "^a[.*]",
        "(a).*(b)",
        r"^\(|\($",
    ];
    for pattern in parts {
        let message = format!("warning[unanchored-pattern]: the pattern `{pattern}` must match the whole value");
        let help = "help: write `^` and `$` to say so, or `.*` around it";
        assert_eq!(said(pattern), format!("{message}\n{help}\ncompiled"));
    }
}
