//! What is told of expressions and conditions that other languages would understand.

use insta::assert_snapshot;

use navvy_config::{Inputs, Source, compile};

use crate::told;

/// What is pointed at in a workflow with this `when`, what is said of it, and what to do about it.
fn when(condition: &str) -> String {
    let text = format!(
        "version: 2.1\nparameters: {{up: {{type: boolean, default: true}}}}\njobs: {{j: {{type: no-op}}}}\n\
         workflows:\n  w:\n    when: {condition}\n    jobs: [j]\n"
    );
    let outcome = compile(&Source { name: "config.yml", text: &text }, &Inputs::default());
    let shown = outcome.diagnostics.iter().map(|told| {
        format!("{}\n{}\n{}", &text[told.span.start..told.span.end], told.message, told.help.as_deref().unwrap_or("-"))
    });
    shown.collect::<Vec<_>>().join("\n\n")
}

#[test]
fn a_text_without_quotes() {
    assert_snapshot!(when("pipeline.git.branch == main"), @r##"
    main
    `main` stands for nothing
    a text stands in quotes: `"main"`
    "##);
    assert_snapshot!(when("<< pipeline.git.branch == main >>"), @r##"
    main
    `main` stands for nothing
    a text stands in quotes: `"main"`
    "##);
    assert_snapshot!(when("pipeline.git.branch == release/1.0"), @r##"
    /1.0
    cannot read the expression: a regular expression is not closed
    add a `/`; a text that holds a `/` stands in quotes, as in `"release/1.0"`
    "##);
    assert_snapshot!(when("pipeline.git.tag == 1.0.0"), @r##"
    1.0.0
    cannot read the expression: `1.0.0` is not a number
    a text stands in quotes: `"1.0.0"`
    "##);
}

#[test]
fn names_of_other_places() {
    assert_snapshot!(when("always"), @r##"
    always
    `always` stands for nothing
    `always` belongs to `when` of a step; a workflow without `when` always runs, and `when: false` never does
    "##);
    assert_snapshot!(when("CIRCLE_BRANCH == \"main\""), @r##"
    CIRCLE_BRANCH
    `CIRCLE_BRANCH` stands for nothing
    environment variables come with a job, later than this: write `pipeline.git.branch`
    "##);
    assert_snapshot!(when("git.branch == \"main\""), @r##"
    git.branch
    `git.branch` stands for nothing
    did you mean `pipeline.git.branch`?
    "##);
    assert_snapshot!(when("parameters.up"), @r##"
    parameters.up
    argument referenced without declared parameter: `parameters.up`
    did you mean `pipeline.parameters.up`?
    "##);
    assert_snapshot!(when("pipeline.parameters.up == yes"), @r##"
    yes
    `yes` stands for nothing
    a boolean is `true` or `false`
    "##);
}

#[test]
fn operators_of_other_languages() {
    assert_snapshot!(when("pipeline.git.branch == \"main\" && pipeline.git.tag"), @r##"
    &&
    cannot read the expression: there is no operator `&&`
    write `and`
    "##);
    assert_snapshot!(when("pipeline.git.branch = \"main\""), @r##"
    =
    cannot read the expression: there is no operator `=`
    write `==`
    "##);
    assert_snapshot!(when("pipeline.git.branch =~ /main/"), @r##"
    =~
    cannot read the expression: there is no operator `=~`
    write `matches` and a regular expression between slashes, as in `matches /rel-.*/`
    "##);
    assert_snapshot!(when("pipeline.git.branch == $BRANCH"), @r##"
    $BRANCH
    cannot read the expression: `$BRANCH` is not a value here
    environment variables come with a job, later than this: declare a pipeline parameter
    "##);
    assert_snapshot!(when("pipeline.git.branch == “main”"), @r##"
    “
    cannot read the expression: unexpected `“`
    write straight quotes: `"`
    "##);
    assert_snapshot!(when(">-\n      pipeline.git.branch == \"main\"\n      AND pipeline.parameters.up"), @r##"
    AND
    cannot read the expression: there is no operator `AND`
    write `and`
    "##);
    assert_snapshot!(when("pipeline.git.branch matches main"), @r##"
    pipeline.git.branch matches main
    `matches` needs a regular expression between slashes, as in `matches /rel-.*/`
    -
    "##);
    assert_snapshot!(when("<< pipeline.git.branch == \"main\" || pipeline.git.tag >>"), @r##"
    ||
    cannot read `<< pipeline.git.branch == "main" || pipeline.git.tag >>`: there is no operator `||`
    write `or`
    "##);
}

#[test]
fn a_heredoc_is_no_expression() {
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - run: cat <<EOF && echo $A >> log
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[invalid-expression]: cannot read `<<EOF && echo $A >>`: there is no operator `&&`
     --> config.yml:6:18
      |
    6 |       - run: cat <<EOF && echo $A >> log
      |                  ^^^^^^^^^^^^^^^^^^^
      = in job `build` (line 3)
      = help: text that holds `<<` itself, such as a heredoc, must be written `\<<`
    refused
    "##);
}

#[test]
fn a_statement_in_its_place() {
    assert_snapshot!(when("{condition: {equal: [main, << pipeline.git.branch >>]}}"), @r##"
    condition
    there is no logic operator `condition`
    what holds stands here itself: only a step's `when` has a `condition`
    "##);
    assert_snapshot!(when("{equal: [a, a], condition: true}"), @r##"
    {equal: [a, a], condition: true}
    a logic statement is a map with exactly one operator
    what holds stands here itself: only a step's `when` has a `condition`
    "##);
    assert_snapshot!(when("{equal: [a, a], not: true}"), @r##"
    {equal: [a, a], not: true}
    a logic statement is a map with exactly one operator
    put them into one list, of `and` or of `or`
    "##);
    assert_snapshot!(when("[{equal: [a, a]}]"), @r##"
    [{equal: [a, a]}]
    a logic statement cannot be a list
    put the list below `and`, `or` or `equal`
    "##);
    assert_snapshot!(when("{branches: main}"), @r##"
    branches
    there is no logic operator `branches`
    branches and tags are chosen by `filters` of a job, or by an expression on `pipeline.git.branch`
    "##);
    let text = r##"
version: 2.1
jobs:
  build:
    docker: [{image: cimg/base:current}]
    steps:
      - when:
          equal: [a, a]
          steps: [checkout]
"##;
    assert_snapshot!(told(text.trim_start_matches('\n')), @r##"
    error[missing-key]: `when` has no `condition`
     --> config.yml:6:9
      |
    6 |       - when:
      |         ^^^^
      = in job `build` (line 3)
      = help: put `equal` below a `condition`
    refused
    "##);
}
