//! `<< … >>`, its types, escapes and sections.

use std::collections::BTreeMap;

use navvy_config::{Inputs, Value};

use crate::{job, job_of, pipeline_of, shown, steps};

#[test]
fn a_tag_alone_keeps_its_type_and_one_inside_of_a_text_becomes_text() {
    let text = r#"
version: 2.1
parameters:
  n: {type: integer, default: 3}
  flag: {type: boolean, default: yes}
jobs:
  build:
    docker: [{image: i}]
    parallelism: << pipeline.parameters.n >>
    environment: {A: << pipeline.parameters.flag >>, B: "x<< pipeline.parameters.n >>"}
    steps: [{run: {command: "echo << pipeline.parameters.flag >>", background: << pipeline.parameters.flag >>}}]
"#;
    let job = job(text, "build");
    assert_eq!(job.parallelism, 3);
    assert_eq!(job.environment, [("A".into(), "true".into()), ("B".into(), "x3".into())]);
    assert_eq!(shown(&job.steps), ["echo true"]);
}

#[test]
fn an_escape_is_plain_text() {
    let commands = steps("", "- run: \"cat \\\\<<EOF; x \\\\<<<$(y) >> << pipeline.git.branch >>\"");
    assert_eq!(shown(&commands), ["cat <<EOF; x <<<$(y) >> main"]);
}

#[test]
fn sections_show_their_text_when_the_name_is_truthy() {
    let top = "parameters: {a: {type: string, default: ''}, b: {type: boolean, default: true}}";
    let text = "- run: x<<# pipeline.parameters.a >> A<</ pipeline.parameters.a >>\
                <<^ pipeline.parameters.a >> none<</ pipeline.parameters.a >>\
                <<# pipeline.parameters.b >> B << pipeline.git.branch >><</ pipeline.parameters.b >>";
    assert_eq!(shown(&steps(top, text)), ["x none B main"]);
}

#[test]
fn expressions_may_stand_in_a_tag() {
    let text = "- run: echo << pipeline.git.tag or \"none\" >> << pipeline.number == 7 >>";
    assert_eq!(shown(&steps("", text)), ["echo none false"]);
}

#[test]
fn a_value_that_is_not_known_shows_as_nil_in_an_environment_alone() {
    let text = "version: 2.1\njobs:\n  build:\n    docker: [{image: i}]\n    environment: {N: << pipeline.number >>, T: \"v<< pipeline.id >>\"}\n    steps: [{run: \"echo [<< pipeline.id >>]\"}]\n";
    let job = job(text, "build");
    assert_eq!(job.environment, [("N".into(), "<nil>".into()), ("T".into(), "v<nil>".into())]);
    assert_eq!(shown(&job.steps), ["echo []"]);
}

#[test]
fn given_values_and_parameters_are_used() {
    let text = "version: 2.1\nparameters: {n: {type: integer, default: 1}, t: {type: string, default: 'v<< pipeline.number >>'}}\njobs:\n  build:\n    docker: [{image: i}]\n    parallelism: << pipeline.parameters.n >>\n    steps: [{run: << pipeline.parameters.t >>}]\n";
    let inputs = Inputs {
        parameters: vec![("n".into(), "4".into())],
        values: BTreeMap::from([("number".into(), Value::Int(12))]),
        ..Inputs::default()
    };
    let job = job_of(&pipeline_of(text, &inputs).workflows[0], "build");
    assert_eq!(job.parallelism, 4);
    assert_eq!(shown(&job.steps), ["v12"]);
}

#[test]
fn version_2_knows_no_templates() {
    let text = "version: 2\njobs:\n  build:\n    docker: [{image: i}]\n    steps: [{run: 'cat <<EOF << parameters.x >>'}]\nworkflows:\n  version: 2\n  w: {jobs: [build]}\n";
    assert_eq!(shown(&job(text, "build").steps), ["cat <<EOF << parameters.x >>"]);
}

#[test]
fn an_anchor_with_a_template_means_what_it_means_where_it_is_used() {
    let text = r#"
version: 2.1
image: &image [{image: "ruby:<< parameters.v >>"}]
jobs:
  a: {parameters: {v: {type: string, default: "1"}}, docker: *image, steps: [checkout]}
  b: {parameters: {v: {type: string, default: "2"}}, docker: *image, steps: [checkout]}
workflows: {w: {jobs: [a, b]}}
"#;
    let image = |name| format!("{:?}", job(text, name).executor);
    assert!(image("a").contains("ruby:1") && image("b").contains("ruby:2"));
}
