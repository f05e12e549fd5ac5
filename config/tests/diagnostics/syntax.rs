//! What is wrong with the YAML.

use insta::assert_snapshot;
use navvy_config::{Inputs, Severity, Source, Span, compile};

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

/// What is pointed at, and what is said of it.
fn pointed(text: &str) -> String {
    let outcome = compile(&Source { name: "config.yml", text }, &Inputs::default());
    let shown = outcome.diagnostics.iter().map(|told| {
        let Span { start, end, line, column, .. } = told.span;
        let help = told.help.as_deref().unwrap_or("-");
        format!(
            "{}[{}] {line}:{column} {:?}: {}; {help}",
            if told.severity == Severity::Error { "error" } else { "warning" },
            told.code,
            &text[start..end],
            told.message
        )
    });
    shown.collect::<Vec<_>>().join("\n").replace('\u{200b}', "[U+200B]")
}

/// A job with these lines after its executor.
fn job(lines: &str) -> String {
    format!("version: 2.1\njobs:\n  build:\n    docker: [{{image: i}}]\n{lines}\n")
}

#[test]
fn characters_that_nobody_sees() {
    assert_snapshot!(pointed(&job("    steps:\n      -\u{a0}checkout")), @r##"
    error[wrong-shape] 6:7 "-\u{a0}checkout": steps must be a list, but this is a string; -
    warning[invisible-character] 6:8 "\u{a0}": a no-break space (U+00A0) stands here, which is part of the text to YAML and to shells; remove it, or write a blank
    "##);
    assert_snapshot!(pointed(&job("    steps:\n      - run:\u{a0}make")), @r##"
    error[unknown-step] 6:9 "run:\u{a0}make": cannot find a definition for a command or step named `run: make`; -
    warning[invisible-character] 6:13 "\u{a0}": a no-break space (U+00A0) stands here, which is part of the text to YAML and to shells; remove it, or write a blank
    "##);
    assert_snapshot!(pointed(&job("    steps:\n\u{a0}\u{a0}    - run: make")), @r##"
    error[wrong-shape] 5:10 "": steps must be a list, but this is nothing; -
    warning[invisible-character] 6:1 "\u{a0}": a no-break space (U+00A0) stands here, which is part of the text to YAML and to shells; remove it, or write a blank
    "##);
    assert_snapshot!(pointed(&job("\u{a0}   steps: [checkout]")), @r##"
    error[missing-key] 3:3 "build": job `build` has no `steps`; -
    warning[invisible-character] 5:1 "\u{a0}": a no-break space (U+00A0) stands here, which is part of the text to YAML and to shells; remove it, or write a blank
    "##);
    assert_snapshot!(pointed(&job("    steps: [checkout]\n    \u{200b}parallelism: 2")), @r##"
    warning[invisible-character] 6:5 "\u{200b}": a space of no width (U+200B) stands here, which is part of the text to YAML and to shells; remove it, or write a blank
    warning[unknown-key] 6:5 "\u{200b}parallelism": key `[U+200B]parallelism` means nothing in a job; did you mean `parallelism`?
    "##);
    assert_snapshot!(pointed(&job("    steps:\n      - run: |\n          make all\n          make\u{a0}test")), @r##"
    warning[invisible-character] 8:15 "\u{a0}": a no-break space (U+00A0) stands here, which is part of the text to YAML and to shells; remove it, or write a blank
    "##);
    assert_snapshot!(pointed(&job("    steps:\n      - run: {name: 10\u{a0}€, command: make}")), @"");
    assert_snapshot!(pointed(&job("    steps: [checkout]\n    environment:\n      A: b\n     \u{a0}C: d\n     E: [")), @r##"
    error[yaml-syntax] 8:6 "\u{a0}": the file is not valid YAML: a no-break space (U+00A0) stands where only a blank may; write a blank
    "##);
}

#[test]
fn quotes_of_typographers() {
    assert_snapshot!(pointed(&job("    steps:\n      - run: “make test”")), @r##"
    warning[curly-quote] 6:14 "“": this begins with `“`, which is part of the text to YAML; write straight quotes: `"`
    "##);
}

#[test]
fn tabs_between_key_and_value() {
    assert_snapshot!(pointed(&job("    steps:\n      - run:\tmake")), @r##"
    error[yaml-syntax] 6:14 "m": the file is not valid YAML: a tab separates the `:` from this, where a blank is needed; write a blank
    "##);
    assert_snapshot!(pointed(&job("    steps:\n      -\tcheckout")), @"");
    assert_snapshot!(pointed(&job("    steps:\n\t- checkout")), @r##"
    error[yaml-syntax] 6:2 "-": the file is not valid YAML: a tab stands where only blanks may; indent with blanks: YAML forbids tabs there
    "##);
}

#[test]
fn tags_of_no_type() {
    assert_snapshot!(pointed("version: 2.1\njobs: {j: {type: no-op}}\nworkflows: {w: {when: !pipeline.git.tag, jobs: [j]}}\n"), @r##"
    error[unknown-tag] 3:23 "!": `!pipeline.git.tag` is a tag, and there is no such type; quote a text that begins with `!`; in an expression `not` negates
    "##);
    assert_snapshot!(pointed(&job("    steps: [checkout]\n    environment: {A: !!str 010, B: ! 1, C: !Ref x, D: !x [a]}")), @r##"
    error[unknown-tag] 6:44 "!": `!Ref` is a tag, and there is no such type; quote a text that begins with `!`; in an expression `not` negates
    error[unknown-tag] 6:55 "!": `!x` is a tag, and there is no such type; quote a text that begins with `!`; in an expression `not` negates
    "##);
}
